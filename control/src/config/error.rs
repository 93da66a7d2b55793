//! What is wrong with a configuration: where it stands, what it is, and which exit code it means.

use std::fmt;

/// Who has to change something: the person who wrote the file, or the machine it runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// The configuration or a flag is wrong: exit code 2.
    Config,
    /// The configuration is right and the machine refuses it: exit code 3.
    Machine,
}

impl Class {
    /// The daemon's exit code for this class.
    pub const fn exit_code(self) -> u8 {
        match self {
            Class::Config => 2,
            Class::Machine => 3,
        }
    }
}

/// A place in a text: line and column, both counted from 1, the column in characters. Line 0 stands
/// for no place at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// One thing that is wrong. Its display is one line:
///
/// ```text
/// dp.toml:12:1: ports.uplink: unknown key "interfce"; did you mean "interface"?
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, or the flag, as the user named it.
    pub file: String,
    /// The line, from 1; 0 when there is none, as for a flag.
    pub line: usize,
    /// The column in characters, from 1; 0 when there is none.
    pub column: usize,
    /// The table that it is about, such as `ports.uplink`; empty at the top of the file.
    pub context: String,
    /// What is wrong and what to do.
    pub message: String,
    /// Who has to change something.
    pub class: Class,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        f.write_str(": ")?;
        if !self.context.is_empty() {
            write!(f, "{}: ", self.context)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

/// The exit code of a run that ends with these errors: a wrong configuration comes before a machine
/// that refuses, because the answer of the machine may be to a question nobody meant to ask.
pub fn exit_code(errors: &[ConfigError]) -> u8 {
    errors
        .iter()
        .map(|error| error.class)
        .min()
        .map_or(0, Class::exit_code)
}

/// The known name that `name` was most likely meant to be.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_ascii_lowercase();
    known
        .into_iter()
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&lower, &candidate.to_ascii_lowercase());
            (distance, candidate)
        })
        // A third of the letters may be wrong, and two in a short word; beyond that it is a guess.
        .filter(|(distance, candidate)| {
            let length = candidate.chars().count();
            *distance <= (length / 3).max(2).min(length.saturating_sub(1))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `; did you mean "…"?`, or all the names when none is near, or nothing when there are none.
pub(crate) fn hint<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
    what: &str,
) -> String {
    if let Some(near) = nearest(name, known.clone()) {
        return format!("; did you mean {near:?}?");
    }
    let all: Vec<&str> = known.into_iter().take(24).collect();
    if all.is_empty() {
        format!("; there is no {what}")
    } else {
        format!("; there is {}", list(&all))
    }
}

/// `a, b and c`.
pub(crate) fn list<S: AsRef<str>>(items: &[S]) -> String {
    join(items, "and")
}

/// `a, b or c`.
pub(crate) fn alternatives<S: AsRef<str>>(items: &[S]) -> String {
    join(items, "or")
}

fn join<S: AsRef<str>>(items: &[S], word: &str) -> String {
    match items {
        [] => String::new(),
        [one] => one.as_ref().to_owned(),
        [most @ .., last] => {
            let most: Vec<&str> = most.iter().map(AsRef::as_ref).collect();
            format!("{} {word} {}", most.join(", "), last.as_ref())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        let known = ["interface", "queues", "mode", "kind", "to"];
        for (name, near) in [
            ("interfce", Some("interface")),
            ("Interface", Some("interface")),
            ("queue", Some("queues")),
            ("mdoe", Some("mode")),
            ("ot", Some("to")),
            ("xyzzy", None),
            ("q", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known), near, "{name:?}");
        }
    }

    #[test]
    fn a_wrong_file_comes_before_a_refusing_machine() {
        let error = |class| ConfigError {
            file: "f".into(),
            line: 0,
            column: 0,
            context: String::new(),
            message: "m".into(),
            class,
        };
        assert_eq!(exit_code(&[error(Class::Machine)]), 3);
        assert_eq!(exit_code(&[error(Class::Machine), error(Class::Config)]), 2);
        assert_eq!(error(Class::Config).to_string(), "f: m");
    }
}
