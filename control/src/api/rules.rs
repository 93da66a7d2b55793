//! Rules as a person types them to `dpctl`, turned into the TOML text that the daemon parses with the
//! configuration's own parser. Nothing here knows what a rule means.

/// Turns a file's text into a document that holds `allow = [ … ]`: a bare array gets its key, with
/// every line kept in its place so that the daemon's complaints name the right one.
pub fn document(text: &str) -> String {
    let array = first_token(text).filter(|&at| is_array(&text[at..]));
    match array {
        Some(at) => format!("{}allow = {}", &text[..at], &text[at..]),
        None => text.to_owned(),
    }
}

/// Where TOML's first token begins, after blank space and comments.
fn first_token(text: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = &text[at..];
        at += rest.len()
            - rest
                .trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n'])
                .len();
        if !text[at..].starts_with('#') {
            return (at < text.len()).then_some(at);
        }
        at += text[at..].find('\n')?;
    }
}

/// Whether text that begins a document begins an array, and not a table's header: `[` and then
/// nothing, an inline table, an end or a comment.
fn is_array(text: &str) -> bool {
    text.strip_prefix('[').is_some_and(|rest| {
        let rest = rest.trim_start();
        rest.is_empty() || rest.starts_with(['{', ']', '#'])
    })
}

/// Turns one rule into an inline table. Takes the table itself, `{ proto = "tcp", ports = "80" }`, or
/// the shorthand `proto=tcp,ports=80,443,replies`: fields with a comma between, a value may hold
/// commas of its own, and `replies` alone means true. The error says what is wrong, in one line.
pub fn inline_table(rule: &str) -> Result<String, String> {
    let rule = rule.trim();
    if rule.starts_with('{') {
        return Ok(rule.to_owned());
    }
    if rule.is_empty() {
        return Err(format!("an empty rule; {HINT}"));
    }
    let mut fields: Vec<(&str, String)> = Vec::new();
    for part in rule.split(',') {
        let part = part.trim();
        match part.split_once('=') {
            Some((key, value)) => fields.push((key.trim(), unquoted(value.trim()).to_owned())),
            None if part == "replies" => fields.push(("replies", "true".to_owned())),
            None => match fields.last_mut() {
                Some((_, value)) if !part.is_empty() => {
                    value.push(',');
                    value.push_str(part);
                }
                _ => return Err(format!("{part:?} in {rule:?} is no field; {HINT}")),
            },
        }
    }
    let mut table = String::from("{ ");
    for (i, (key, value)) in fields.iter().enumerate() {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if key.is_empty() || !key.chars().all(plain) {
            return Err(format!("{key:?} in {rule:?} is no field; {HINT}"));
        }
        if value.is_empty() || value.chars().any(|c| c.is_control() || "\"'\\".contains(c)) {
            return Err(format!("{key} in {rule:?} has no usable value; {HINT}"));
        }
        let comma = if i == 0 { "" } else { ", " };
        if matches!(value.as_str(), "true" | "false") {
            table.push_str(&format!("{comma}{key} = {value}"));
        } else {
            table.push_str(&format!("{comma}{key} = \"{value}\""));
        }
    }
    table.push_str(" }");
    Ok(table)
}

const HINT: &str = "write proto=tcp,to=10.0.0.0/8,ports=80 or { proto = \"tcp\", ports = \"80\" }";

/// A value without the quotes that a person may have put around it.
fn unquoted(value: &str) -> &str {
    value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bare_array_gets_its_key() {
        let cases = [
            ("[]", "allow = []"),
            ("[ { proto = \"tcp\" } ]", "allow = [ { proto = \"tcp\" } ]"),
            (
                "# why\n\n  [\n  {},\n]\n",
                "# why\n\n  allow = [\n  {},\n]\n",
            ),
            ("[ # none yet\n]", "allow = [ # none yet\n]"),
            ("\u{feff}[]", "\u{feff}allow = []"),
            ("allow = []", "allow = []"),
            ("# [\nallow = []", "# [\nallow = []"),
            ("[policies.web]\nallow = []", "[policies.web]\nallow = []"),
            ("[[pipelines]]", "[[pipelines]]"),
            ("", ""),
            ("# only a comment", "# only a comment"),
        ];
        for (text, document) in cases {
            assert_eq!(super::document(text), document);
        }
    }

    #[test]
    fn the_shorthand_is_an_inline_table() {
        let cases = [
            (
                "proto=tcp,to=10.0.0.0/8,ports=80",
                r#"{ proto = "tcp", to = "10.0.0.0/8", ports = "80" }"#,
            ),
            (
                "proto=tcp, ports=80,443,8000-8100, replies=true",
                r#"{ proto = "tcp", ports = "80,443,8000-8100", replies = true }"#,
            ),
            (
                "proto=icmp,replies",
                r#"{ proto = "icmp", replies = true }"#,
            ),
            ("to=2001:db8::/32", r#"{ to = "2001:db8::/32" }"#),
            ("proto=\"udp\"", r#"{ proto = "udp" }"#),
            ("nonsense=1", r#"{ nonsense = "1" }"#),
            (" { proto = \"tcp\" } ", r#"{ proto = "tcp" }"#),
            ("{}", "{}"),
        ];
        for (rule, table) in cases {
            assert_eq!(inline_table(rule).as_deref(), Ok(table));
        }
    }

    #[test]
    fn what_is_no_rule_is_named() {
        for (rule, named) in [
            ("", "empty rule"),
            ("tcp", "\"tcp\""),
            ("=tcp", "\"\""),
            ("proto=", "proto"),
            ("proto=tcp,,ports=80", "\"\""),
            ("a b=1", "\"a b\""),
            ("to=a\\b", "to in"),
            ("to=a\"b", "to in"),
        ] {
            let message = inline_table(rule).unwrap_err();
            assert!(
                message.contains(named) && message.contains("write proto="),
                "{message}"
            );
        }
    }

    proptest! {
        /// Whatever is typed, what is sent is one TOML value: nothing smuggles in a second key.
        #[test]
        fn shorthand_makes_one_valid_table(rule in "[a-z_=,. \"'\\\\{}0-9\\n#\\]\\[]{0,40}") {
            if !rule.trim().starts_with('{') && let Ok(table) = inline_table(&rule) {
                let document = format!("rule = {table}");
                // A key given twice is left for the daemon to complain about.
                match toml::from_str::<toml::Table>(&document) {
                    Ok(parsed) => prop_assert_eq!(parsed.len(), 1),
                    Err(e) => prop_assert!(e.message().contains("duplicate key"), "{} {}", document, e),
                }
            }
        }

        #[test]
        fn documents_keep_their_lines(text in "[\\[\\]{}# \n\ta]{0,30}") {
            prop_assert_eq!(document(&text).lines().count(), text.lines().count());
        }
    }
}
