//! Which flag an error is due to: the configuration was written from flags, so each of its tables has one.

use std::collections::HashMap;

use super::{NAME, document::POLICY};
use crate::config::ConfigError;

/// How an error goes on that speaks of a key, which no flag sets.
const KEYS: &str =
    "keys are set in a file: save what --print-config prints, and run that with --config";

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
            if error.message.contains(" = ") {
                error.message = format!("{} ({KEYS})", error.message);
            }
        }
        errors
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
