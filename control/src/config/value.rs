//! One TOML value, read as the type that its key wants; anything else is answered with what was found and
//! what is allowed.

use std::{ops::RangeInclusive, time::Duration};

use toml::de::DeValue;

use super::{
    error::{Position, alternatives, nearest},
    reader::{At, Reader, Source},
    units::Size,
};

/// One value and the key that it belongs to.
#[derive(Clone)]
pub(crate) struct Value<'a, 'i> {
    pub(super) source: &'a Source<'i>,
    pub(super) value: &'a DeValue<'i>,
    pub(super) context: String,
    pub(super) key: &'static str,
    pub(super) offset: usize,
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

    /// A size within `range`, with its unit; `example` is one, for the error.
    pub(crate) fn size(&self, range: RangeInclusive<u64>, example: &str) -> Option<Size> {
        let (least, most) = (Size(*range.start()), Size(*range.end()));
        let expected = match *range.end() {
            u64::MAX => format!("a size of at least \"{least}\", such as \"{example}\""),
            _ => format!("a size from \"{least}\" to \"{most}\", such as \"{example}\""),
        };
        match self.value {
            DeValue::String(text) => text.parse().ok(),
            _ => None,
        }
        .filter(|size: &Size| range.contains(&size.0))
        .or_else(|| self.wrong(&expected))
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

pub(super) fn article(value: &DeValue<'_>) -> String {
    let name = value.type_str();
    match name {
        "array" | "integer" => format!("an {name}"),
        _ => format!("a {name}"),
    }
}
