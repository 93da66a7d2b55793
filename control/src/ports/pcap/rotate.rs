//! `rotate` of a recording: when a new file is begun.

use std::time::Duration;

use dataplane::port::pcap::write::Limits;
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::config::{Size, Value, time_text};

/// The smallest file: room for its beginning and some frames.
const SMALLEST: u64 = 4_096;

/// When a new file is begun: whichever comes first of those that are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotate {
    /// The most bytes of a file.
    pub size: Option<Size>,
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
            size: table.take("size", |v| v.size(SMALLEST..=u64::MAX, "100MB")),
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
            size: self.size.map(|size| size.0),
            time: self.time,
            frames: self.frames,
        }
    }

    /// In the words of `--check`: `100MB or 60s`.
    pub(super) fn describe(self) -> String {
        let frames = self.frames.map(|frames| format!("{frames} frames"));
        let size = self.size.map(|size| size.to_string());
        let all = [size, self.time.map(time_text), frames];
        all.into_iter().flatten().collect::<Vec<_>>().join(" or ")
    }
}

impl Serialize for Rotate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(size) = self.size {
            map.serialize_entry("size", &size)?;
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
