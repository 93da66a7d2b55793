//! Sizes and times as they are written in the file: `16MiB`, `100MB`, `500ms`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Serialize, Serializer};

/// Units of a size in bytes, the largest first.
const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = ();

    /// Reads a whole number and its unit, without which nobody knows what is meant.
    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start();
        // `KB` is meant as often as `kB`.
        let mut units = UNITS.iter();
        let (_, bytes) = units
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .ok_or(())?;
        let number: u64 = number.parse().map_err(|_| ())?;
        number.checked_mul(*bytes).map(Self).ok_or(())
    }
}

impl fmt::Display for Size {
    /// In the largest unit that divides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let divides = |(_, unit): &&(&str, u64)| self.0.is_multiple_of(*unit);
        let (name, unit) = UNITS.iter().find(divides).unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A time as [`Value::duration`](super::Value::duration) reads it.
pub(crate) fn time_text(time: Duration) -> String {
    match time.subsec_millis() {
        0 => format!("{}s", time.as_secs()),
        _ => format!("{}ms", time.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes, shown) in [
            ("16MiB", 16 << 20, "16MiB"),
            ("100MB", 100_000_000, "100MB"),
            ("100 MB", 100_000_000, "100MB"),
            ("2gb", 2_000_000_000, "2GB"),
            ("1GiB", 1 << 30, "1GiB"),
            ("1024MiB", 1 << 30, "1GiB"),
            ("KB1", 0, ""),
            ("64KB", 64_000, "64kB"),
            ("64KiB", 64 << 10, "64KiB"),
            ("4097B", 4097, "4097B"),
            ("4097", 0, ""),
            ("-1MB", 0, ""),
            ("1.5GB", 0, ""),
            ("10 bananas", 0, ""),
            ("99999999999999999999GiB", 0, ""),
            ("18446744073709551615GiB", 0, ""),
            ("", 0, ""),
        ] {
            match text.parse::<Size>() {
                Ok(size) => assert_eq!((size.0, size.to_string().as_str()), (bytes, shown)),
                Err(()) => assert_eq!(shown, "", "{text}"),
            }
        }
    }

    #[test]
    fn times() {
        for (millis, shown) in [(5_000, "5s"), (1_500, "1500ms"), (120_000, "120s")] {
            assert_eq!(time_text(Duration::from_millis(millis)), shown);
        }
    }
}
