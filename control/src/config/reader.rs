//! Strict reading of a TOML tree: typed values with their places, every error collected, no key left
//! unread. It knows TOML and nothing of what the keys mean.

use std::{cell::RefCell, ops::RangeInclusive, time::Duration};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::error::{Class, ConfigError, Position, alternatives, nearest};

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

/// One value and the key that it belongs to.
#[derive(Clone)]
pub(crate) struct Value<'a, 'i> {
    source: &'a Source<'i>,
    value: &'a DeValue<'i>,
    context: String,
    key: &'static str,
    offset: usize,
}

impl<'a, 'i> Value<'a, 'i> {
    pub(crate) fn at(&self) -> Position {
        self.source.position(self.offset)
    }

    pub(crate) fn error(&self, message: impl std::fmt::Display) {
        self.source.error(
            self.offset,
            &self.context,
            format!("{} {message}", self.key),
        );
    }

    /// An error that says all by itself.
    pub(crate) fn fault(&self, error: impl std::fmt::Display) {
        self.source
            .error(self.offset, &self.context, format!("{}: {error}", self.key));
    }

    /// Says what was expected and what was found, and is nothing.
    fn wrong<T>(&self, expected: &str) -> Option<T> {
        let found = match self.value {
            DeValue::String(text) => format!("{text:?}"),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(value) => value.to_string(),
            other => article(other),
        };
        self.error(format!("must be {expected}, not {found}"));
        None
    }

    pub(crate) fn located<T>(self, read: impl FnOnce(Self) -> Option<T>) -> Option<At<T>> {
        let at = self.at();
        Some(At {
            value: read(self)?,
            at,
        })
    }

    pub(crate) fn is_string(&self) -> bool {
        self.value.is_str()
    }

    pub(crate) fn string(&self) -> Option<&'a str> {
        match self.value {
            DeValue::String(text) => Some(text),
            _ => self.wrong("a string"),
        }
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(value) => Some(*value),
            _ => self.wrong("true or false"),
        }
    }

    /// A whole number within `range`.
    pub(crate) fn integer(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let expected = if *range.end() == u64::MAX {
            format!("a whole number from {}", range.start())
        } else {
            format!("a whole number from {} to {}", range.start(), range.end())
        };
        let DeValue::Integer(number) = self.value else {
            return self.wrong(&expected);
        };
        match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) if range.contains(&number) => Some(number),
            _ => self.wrong(&expected),
        }
    }

    /// A number within `range`, whole or not.
    pub(crate) fn number(&self, range: RangeInclusive<f64>) -> Option<f64> {
        let number: Option<f64> = match self.value {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix())
                .ok()
                .map(|number| number as f64),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => None,
        };
        match number {
            Some(number) if range.contains(&number) => Some(number),
            _ => self.wrong(&format!(
                "a number from {} to {}",
                range.start(),
                range.end()
            )),
        }
    }

    /// One of `built`; those of `later` are refused by name.
    pub(crate) fn choice<T: Copy>(&self, built: &[(&str, T)], later: &[&str]) -> Option<T> {
        let names: Vec<String> = built.iter().map(|(name, _)| format!("{name:?}")).collect();
        let expected = alternatives(&names);
        let DeValue::String(text) = self.value else {
            return self.wrong(&expected);
        };
        if let Some((_, value)) = built.iter().find(|(name, _)| name == text) {
            return Some(*value);
        }
        if later.contains(&text.as_ref()) {
            self.error(format!("{text:?} is not built yet; it can be {expected}"));
            return None;
        }
        match nearest(text, built.iter().map(|(name, _)| *name)) {
            Some(near) => {
                self.error(format!(
                    "must be {expected}, not {text:?}; did you mean {near:?}?"
                ));
                None
            }
            None => self.wrong(&expected),
        }
    }

    /// A time such as `"5s"`, `"500ms"` or `"2m"`.
    pub(crate) fn duration(&self) -> Option<Duration> {
        let expected = "a time such as \"5s\", \"500ms\" or \"2m\"";
        let DeValue::String(text) = self.value else {
            return self.wrong(expected);
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            _ => return self.wrong(expected),
        };
        match number.parse().ok().and_then(|n: u64| n.checked_mul(millis)) {
            Some(millis) if millis <= 86_400_000 => Some(Duration::from_millis(millis)),
            Some(_) => self.wrong("a time of at most a day"),
            None => self.wrong(expected),
        }
    }

    /// The elements of a list; `of` says what is expected, for the error.
    pub(crate) fn elements(&self, of: &str) -> Option<Vec<Value<'a, 'i>>> {
        let DeValue::Array(array) = self.value else {
            return self.wrong(of);
        };
        Some(
            array
                .iter()
                .map(|element| Value {
                    source: self.source,
                    value: element.get_ref(),
                    context: self.context.clone(),
                    key: self.key,
                    offset: element.span().start,
                })
                .collect(),
        )
    }

    /// The value as a table of its own; `of` says what is expected, for the error.
    pub(crate) fn table(&self, context: impl Into<String>, of: &str) -> Option<Reader<'a, 'i>> {
        match self.value {
            DeValue::Table(table) => Some(Reader::new(self.source, table, context, self.offset)),
            _ => self.wrong(of),
        }
    }

    /// The table that this value is a key of.
    pub(crate) fn context(&self) -> &str {
        &self.context
    }
}

fn article(value: &DeValue<'_>) -> String {
    let name = value.type_str();
    match name {
        "array" | "integer" => format!("an {name}"),
        _ => format!("a {name}"),
    }
}
