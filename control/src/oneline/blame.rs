//! Which flag an error is due to: the configuration was written from flags, so each of its tables has one.

use std::collections::HashMap;

use super::{NAME, document::POLICY};
use crate::config::ConfigError;

/// How an error goes on that speaks of a key, which no flag sets.
const KEYS: &str =
    "keys are set in a file: save what --print-config prints, and run that with --config";

/// What a remedy says of the name of a device, and the flag that sets it.
const NAME_OF_DEVICE: (&str, &str) = ("(name = \"…\")", "(--to NAME)");

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
        let mut message = message.replace(NAME_OF_DEVICE.0, NAME_OF_DEVICE.1);
        for (name, flag) in &self.ports {
            let port = format!("port {name:?}");
            while let Some(at) = message.find(&port) {
                let rest = &message[at + port.len()..];
                let line = rest.strip_prefix(" (line ").and_then(|rest| rest.find(')'));
                let end = at + port.len() + line.map_or(0, |digits| " (line ".len() + digits + 1);
                message.replace_range(at..end, flag);
            }
        }
        message
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
        for (message, retold) in [
            (
                "read by port \"file\" (line 4) already",
                "read by -r a.pcap already",
            ),
            ("port \"lc0\" is port \"file\"", "--to lc0 is -r a.pcap"),
            ("port \"lc1\" (line 4)", "port \"lc1\" (line 4)"),
            ("port \"lc0\" (line", "--to lc0 (line"),
        ] {
            assert_eq!(blame.retold(message), retold);
        }
    }
}
