//! Strict reading of a TOML tree: every error collected with its place, no key left unread. It knows TOML
//! and nothing of what the keys mean.

use std::cell::RefCell;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    error::{Class, ConfigError, Position, nearest},
    value::{Value, article},
};

/// A value and where it stands. Two are equal when their values are, wherever they stand.
#[derive(Clone, Debug, Default)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands in the file.
    pub at: Position,
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T> std::ops::Deref for At<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: serde::Serialize> serde::Serialize for At<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

/// A text that is read, and what was found wrong with it so far.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    name: &'a str,
    text: &'a str,
    lines: Vec<usize>,
    errors: RefCell<Vec<ConfigError>>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(text: &'a str, name: &'a str) -> Self {
        let newlines = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
        Self {
            name,
            text,
            lines: std::iter::once(0)
                .chain(newlines.map(|(at, _)| at + 1))
                .collect(),
            errors: RefCell::default(),
        }
    }

    /// The text as a tree; `None`, with the errors recorded, when it is no TOML.
    pub(crate) fn tree(&self) -> Option<Spanned<DeTable<'a>>> {
        let (tree, errors) = DeTable::parse_recoverable(self.text);
        if errors.is_empty() {
            return Some(tree);
        }
        for error in &errors {
            let at = error.span().map_or(0, |span| span.start);
            self.error(at, "", format!("not TOML: {}", error.message()));
        }
        None
    }

    pub(crate) fn position(&self, offset: usize) -> Position {
        let line = self.lines.partition_point(|&start| start <= offset);
        let start = self.lines[line - 1];
        let column = match self.text.get(start..offset) {
            Some(before) => before.chars().count(),
            None => offset - start,
        };
        Position {
            line,
            column: column + 1,
        }
    }

    pub(crate) fn error(&self, offset: usize, context: &str, message: impl Into<String>) {
        let Position { line, column } = self.position(offset);
        self.errors.borrow_mut().push(ConfigError {
            file: self.name.to_owned(),
            line,
            column,
            context: context.to_owned(),
            message: message.into(),
            class: Class::Config,
        });
    }

    /// `value` when nothing was wrong, else the errors in the order of their places.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T, Vec<ConfigError>> {
        let mut errors = self.errors.into_inner();
        match value {
            Some(value) if errors.is_empty() => Ok(value),
            _ => {
                errors.sort_by_key(|error| (error.line, error.column));
                Err(errors)
            }
        }
    }
}

/// A table whose keys are taken one by one; [`finish`](Self::finish) refuses the rest.
pub(crate) struct Reader<'a, 'i> {
    source: &'a Source<'i>,
    table: &'a DeTable<'i>,
    context: String,
    offset: usize,
    known: Vec<&'static str>,
    sound: bool,
}

impl<'a, 'i> Reader<'a, 'i> {
    pub(crate) fn new(
        source: &'a Source<'i>,
        table: &'a DeTable<'i>,
        context: impl Into<String>,
        offset: usize,
    ) -> Self {
        Self {
            source,
            table,
            context: context.into(),
            offset,
            known: Vec::new(),
            sound: true,
        }
    }

    /// Where the table is named.
    pub(crate) fn at(&self) -> Position {
        self.source.position(self.offset)
    }

    /// An error about the table as a whole.
    pub(crate) fn error(&self, message: impl Into<String>) {
        self.source.error(self.offset, &self.context, message);
    }

    /// The value of `key`, if it is there.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<Value<'a, 'i>> {
        self.known.push(key);
        let value = self.table.get(key)?;
        Some(Value {
            source: self.source,
            value: value.get_ref(),
            context: self.context.clone(),
            key,
            offset: value.span().start,
        })
    }

    /// The value of `key` as `read` takes it; `None` when it is absent or wrong.
    pub(crate) fn take<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Value<'a, 'i>) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(key)?;
        let taken = read(value);
        self.sound &= taken.is_some();
        taken
    }

    /// Whether nothing was wrong with what [`take`](Self::take) found.
    pub(crate) fn all_sound(&self) -> bool {
        self.sound
    }

    /// The same with its place.
    pub(crate) fn take_at<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Value<'a, 'i>) -> Option<T>,
    ) -> Option<At<T>> {
        self.get(key).and_then(|value| value.located(read))
    }

    /// The value of `key`, which must be there; `example` shows one.
    pub(crate) fn need<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(Value<'a, 'i>) -> Option<T>,
    ) -> Option<At<T>> {
        let value = self.get(key);
        if value.is_none() {
            self.error(format!("{key} is missing; write {key} = {example}"));
        }
        value.and_then(|value| value.located(read))
    }

    /// A key that the design knows and this build does not.
    pub(crate) fn not_built(&mut self, key: &'static str, instead: &str) {
        if let Some((name, _)) = self.table.get_key_value(key) {
            self.known.push(key);
            self.source.error(
                name.span().start,
                &self.context,
                format!("{key} is not built yet; {instead}"),
            );
        }
    }

    /// A key that means something only elsewhere.
    pub(crate) fn misplaced(&mut self, key: &'static str, why: &str) {
        if let Some((name, _)) = self.table.get_key_value(key) {
            self.known.push(key);
            self.source
                .error(name.span().start, &self.context, format!("{key} {why}"));
        }
    }

    /// The entries as named tables, in the order of the file.
    pub(crate) fn tables(mut self) -> Vec<(String, Reader<'a, 'i>)> {
        let mut entries: Vec<_> = self.table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let mut tables = Vec::new();
        for (name, value) in entries {
            let offset = name.span().start;
            let context = format!("{}.{}", self.context, name.get_ref());
            match value.get_ref() {
                DeValue::Table(table) => tables.push((
                    name.get_ref().to_string(),
                    Reader::new(self.source, table, context, offset),
                )),
                other => self.source.error(
                    value.span().start,
                    &context,
                    format!("must be a table, not {}", article(other)),
                ),
            }
        }
        self.known.clear();
        tables
    }

    /// Refuses every key that was not taken.
    pub(crate) fn finish(&self) {
        for name in self.table.keys() {
            let key = name.get_ref();
            if self.known.iter().any(|known| *known == key.as_ref()) {
                continue;
            }
            let hint = match nearest(key, self.known.iter().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            self.source.error(
                name.span().start,
                &self.context,
                format!("unknown key {:?}; {hint}", key.as_ref()),
            );
        }
    }
}
