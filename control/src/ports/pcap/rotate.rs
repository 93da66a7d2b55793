//! `rotate` of a recording: when a new file is begun.

use std::time::Duration;

use dataplane::port::pcap::write::Limits;
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::config::Value;

/// The smallest file: room for its beginning and some frames.
const SMALLEST: u64 = 4_096;

/// When a new file is begun: whichever comes first of those that are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotate {
    /// The most bytes of a file.
    pub size: Option<u64>,
    /// How long a file is written.
    pub time: Option<Duration>,
    /// The most frames of a file.
    pub frames: Option<u64>,
}

impl Rotate {
    /// Reads the value of the key.
    pub(super) fn read(value: &Value<'_, '_>) -> Option<Self> {
        let forms = "a table such as { size = \"100MB\", time = \"60s\", frames = 1000000 }";
        let mut table = value.table(format!("{}.rotate", value.context()), forms)?;
        let rotate = Self {
            size: table.take("size", |v| size(&v)),
            time: table.take("time", |v| {
                let time = v.duration()?;
                if time < Duration::from_secs(1) {
                    v.error("must be a second at least");
                    return None;
                }
                Some(time)
            }),
            frames: table.take("frames", |v| v.integer(1..=u64::MAX)),
        };
        if table.all_sound() && rotate == Self::default() {
            table.error(format!("is empty; write {forms}"));
            return None;
        }
        table.finish();
        table.all_sound().then_some(rotate)
    }

    pub(super) fn limits(self) -> Limits {
        Limits {
            size: self.size,
            time: self.time,
            frames: self.frames,
        }
    }

    /// In the words of `--check`: `100MB or 60s`.
    pub(super) fn describe(self) -> String {
        let frames = self.frames.map(|frames| format!("{frames} frames"));
        let all = [self.size.map(size_text), self.time.map(time_text), frames];
        all.into_iter().flatten().collect::<Vec<_>>().join(" or ")
    }
}

impl Serialize for Rotate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(size) = self.size {
            map.serialize_entry("size", &size_text(size))?;
        }
        if let Some(time) = self.time {
            map.serialize_entry("time", &time_text(time))?;
        }
        if let Some(frames) = self.frames {
            map.serialize_entry("frames", &frames)?;
        }
        map.end()
    }
}

/// Units of a size, the largest first of those that divide alike.
const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

fn size(value: &Value<'_, '_>) -> Option<u64> {
    let text = value.string()?;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    // `KB` is meant as often as `kB`.
    let unit = UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit));
    let bytes = number.parse().ok().zip(unit);
    let bytes = bytes.and_then(|(number, (_, bytes)): (u64, _)| number.checked_mul(*bytes));
    match bytes {
        Some(bytes) if bytes >= SMALLEST => Some(bytes),
        Some(_) => {
            value.error(format!("must be {SMALLEST}B at least, not {text:?}"));
            None
        }
        None => {
            value.error(format!(
                "must be a size such as \"100MB\", \"64KiB\" or \"2GB\", not {text:?}"
            ));
            None
        }
    }
}

fn size_text(bytes: u64) -> String {
    let divides = |(_, unit): &&(&str, u64)| bytes.is_multiple_of(*unit);
    let (name, unit) = UNITS.iter().find(divides).unwrap_or(&("B", 1));
    format!("{}{name}", bytes / unit)
}

fn time_text(time: Duration) -> String {
    match time.subsec_millis() {
        0 => format!("{}s", time.as_secs()),
        _ => format!("{}ms", time.as_millis()),
    }
}
