//! Which flag an error is due to: the configuration was written from flags, so each of its tables has one.

use std::collections::HashMap;

use super::{NAME, document::POLICY};
use crate::config::ConfigError;

/// How an error goes on that speaks of a key, which no flag sets.
const KEYS: &str =
    "keys are set in a file: save what --print-config prints, and run that with --config";

/// What a remedy says of the name of a device, and the flag that sets it.
const NAME_OF_DEVICE: (&str, &str) = ("(name = \"…\")", "(--to NAME)");

/// How errors name a port, before its name and a closing quote. A name has no letters that are escaped.
const PORT: &str = "port \"";

/// The flags as they were typed, by what they became.
#[derive(Debug, Default)]
pub(super) struct Blame {
    ports: HashMap<String, String>,
    keys: HashMap<&'static str, String>,
    /// The flags of the ports, in their order.
    whole: Vec<String>,
}

impl Blame {
    /// The port of this name is due to this flag.
    pub(super) fn port(&mut self, name: &str, flag: String) {
        self.whole.push(flag.clone());
        self.ports.insert(name.to_owned(), flag);
    }

    /// A key of this name, wherever it stands, is due to this flag.
    pub(super) fn key(&mut self, key: &'static str, flag: impl Into<String>) {
        self.keys.insert(key, flag.into());
    }

    /// The errors with flags in the place of lines of `text`.
    pub(super) fn all(&self, mut errors: Vec<ConfigError>, text: &str) -> Vec<ConfigError> {
        for error in errors.iter_mut().filter(|error| error.file == NAME) {
            error.file = self.flag(error, text);
            (error.line, error.column) = (0, 0);
            error.context.clear();
            error.message = self.retold(&error.message);
            if error.message.contains(" = ") {
                error.message = format!("{} ({KEYS})", error.message);
            }
        }
        errors
    }

    /// A message with flags in the place of ports and their lines: `port "file" (line 4)`.
    fn retold(&self, message: &str) -> String {
        let message = message.replace(NAME_OF_DEVICE.0, NAME_OF_DEVICE.1);
        let mut retold = String::new();
        let mut rest = message.as_str();
        // From one name to the next: a flag may itself read like the name of a port.
        while let Some(at) = rest.find(PORT) {
            let (before, name) = rest.split_at(at + PORT.len());
            let quoted = name.split_once('"');
            let port = quoted.and_then(|(name, after)| Some((self.ports.get(name)?, after)));
            let Some((flag, after)) = port else {
                retold += before;
                rest = name;
                continue;
            };
            retold += &rest[..at];
            retold += flag;
            let line = after.strip_prefix(" (line ");
            rest = line
                .and_then(|line| line.split_once(')'))
                .map_or(after, |(_, rest)| rest);
        }
        retold + rest
    }

    fn flag(&self, error: &ConfigError, text: &str) -> String {
        let line = text.lines().nth(error.line.wrapping_sub(1)).unwrap_or("");
        let key = line.split_once('=').map(|(key, _)| key.trim());
        if let Some(flag) = key.and_then(|key| self.keys.get(key)) {
            return flag.clone();
        }
        let (section, rest) = error.context.split_once('.').unwrap_or(("", ""));
        let name = match section {
            "ports" => rest.split('.').next(),
            "policies" if rest.starts_with(POLICY) => return "--allow".to_owned(),
            // In a pipeline the error stands at the name of a port.
            _ => quoted(line, error.column),
        };
        match name.and_then(|name| self.ports.get(name)) {
            Some(flag) => flag.clone(),
            None => self.whole.join(" "),
        }
    }
}

/// The text in quotes that begins at this column, counted from 1.
fn quoted(line: &str, column: usize) -> Option<&str> {
    let (at, _) = line.char_indices().nth(column.checked_sub(1)?)?;
    line[at..].strip_prefix('"')?.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_messages_are_flags() {
        let mut blame = Blame::default();
        blame.port("file", "-r a.pcap".to_owned());
        blame.port("lc0", "--to lc0".to_owned());
        blame.port("capture", "--to ./port \"capture\"".to_owned());
        for (message, retold) in [
            (
                "read by port \"file\" (line 4) already",
                "read by -r a.pcap already",
            ),
            ("port \"lc0\" is port \"file\"", "--to lc0 is -r a.pcap"),
            ("port \"lc1\" (line 4)", "port \"lc1\" (line 4)"),
            ("port \"lc0\" (line", "--to lc0 (line"),
            (
                "of port \"capture\" (line 9)!",
                "of --to ./port \"capture\"!",
            ),
            ("port \"lc0", "port \"lc0"),
        ] {
            assert_eq!(blame.retold(message), retold);
        }
    }
}
