//! `kind = "pcap"`: a capture that is played by one worker, or recorded by all that have frames for it. Here
//! are the settings; `check` sets them against the machine, `play` and `record` open it.

mod check;
mod names;
mod output;
mod play;
mod record;
mod rotate;

use std::path::PathBuf;

use dataplane::port::pcap::format::MAX_FRAME;
pub use rotate::Rotate;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{Claim, Device, Found, Kind, LargestFrame, Placement, Privileges};
use crate::{
    config::{At, Plan, PlannedPort, Reader, Site, Value},
    daemon::StartError,
};

/// What a device or a socket is told.
const NO_FILE: &str = "is no file and no pipe; name one that is";

/// The longest frame that is recorded unless `max_frame` says otherwise, in bytes: that of an MTU of 9,000
/// with two VLAN tags.
const RECORDED: u32 = 9_022;

/// The settings of a port. Those that are left out have the value that its method answers with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pcap {
    /// The file; a relative path begins at the working directory. `-` is standard input or output.
    pub path: At<PathBuf>,
    /// The longest frame that is carried, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_frame: Option<At<u32>>,
    /// A source's: how fast it is played.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pace: Option<At<Pace>>,
    /// A source's: how many times faster than it was captured, with [`Pace::Original`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<At<f64>>,
    /// A source's: how often it is played; 0 is for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loops: Option<At<u64>>,
    /// A sink's: when a new file is begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate: Option<At<Rotate>>,
    /// A sink's: how many files stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<At<u32>>,
    /// A sink's: how files are compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compress: Option<At<Compress>>,
}

/// How a recording is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Compress {
    /// In independent frames of zstd.
    #[serde(rename = "zstd")]
    Zstd,
}

/// How fast a capture file is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// With the gaps that it was captured with.
    Original,
    /// As fast as the sinks take it.
    Top,
    /// So many frames a second.
    Pps(f64),
    /// So many million bits of frames a second.
    Mbps(f64),
}

impl Serialize for Pace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (unit, rate) = match self {
            Pace::Original => return serializer.serialize_str("original"),
            Pace::Top => return serializer.serialize_str("top"),
            Pace::Pps(rate) => ("pps", rate),
            Pace::Mbps(rate) => ("mbps", rate),
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(unit, rate)?;
        map.end()
    }
}

impl Pcap {
    /// Reads the keys of the kind.
    pub(super) fn read(table: &mut Reader<'_, '_>, _port: &At<String>) -> Option<Self> {
        let path = table.need("path", "\"sample.pcapng\"", |v| match v.string()? {
            "" => {
                v.error("is empty; name a capture file");
                None
            }
            path if path.contains('\0') => {
                v.error("contains a zero byte, which no file name can");
                None
            }
            path => Some(PathBuf::from(path)),
        });
        let max_frame = table.take_at("max_frame", |v| {
            v.integer(64..=MAX_FRAME as u64).map(|n| n as u32)
        });
        let pace = table.take_at("pace", pace);
        let paced = pace.as_ref().is_some_and(|pace| **pace != Pace::Original);
        let speed = table.take_at("speed", |v| {
            if paced {
                v.error("goes with pace = \"original\" only");
                return None;
            }
            v.number(0.001..=1e6)
        });
        let loops = table.take_at("loops", |v| v.integer(0..=u64::from(u32::MAX)));
        let rotate = table.take_at("rotate", |v| Rotate::read(&v));
        let keep = table.take_at("keep", |v| v.integer(1..=1_000_000).map(|n| n as u32));
        let compress = table.take_at("compress", |v| {
            v.choice(&[("zstd", Compress::Zstd)], &["gzip", "lz4"])
        });
        Some(Self {
            path: path?,
            max_frame,
            pace,
            speed,
            loops,
            rotate,
            keep,
            compress,
        })
    }

    /// How fast it is played.
    pub fn pace(&self) -> Pace {
        self.pace.as_ref().map_or(Pace::Original, |pace| **pace)
    }

    /// How many times faster than it was captured.
    pub fn speed(&self) -> f64 {
        self.speed.as_ref().map_or(1.0, |speed| **speed)
    }

    /// How often it is played.
    pub fn loops(&self) -> u64 {
        self.loops.as_ref().map_or(1, |loops| **loops)
    }

    /// Whether it is recorded compressed: as configured, or because its name says so.
    pub fn compresses(&self) -> bool {
        self.compress.is_some() || self.path.extension().is_some_and(|e| e == "zst")
    }

    /// Whether it is standard input or output.
    pub fn is_standard(&self) -> bool {
        self.path.as_os_str() == "-"
    }

    /// Its name for people.
    fn shown(&self, source: bool) -> String {
        match (self.is_standard(), source) {
            (false, _) => self.path.display().to_string(),
            (true, true) => "standard input".to_owned(),
            (true, false) => "standard output".to_owned(),
        }
    }
}

impl Kind for Pcap {
    fn placement(&self) -> Placement<'_> {
        Placement::Descriptors
    }

    fn privileges(&self) -> Privileges {
        Privileges::default()
    }

    fn largest_frame(&self, port: &PlannedPort) -> Option<LargestFrame> {
        let bytes = match &self.max_frame {
            Some(bytes) => **bytes,
            None if port.sink => RECORDED,
            // Its sinks say what is worth carrying.
            None => return None,
        };
        Some(LargestFrame {
            bytes,
            key: "max_frame",
            value: bytes,
            at: self.max_frame.as_ref().map_or(self.path.at, |key| key.at),
            guessed: self.max_frame.is_none(),
        })
    }

    fn ends(&self) -> bool {
        self.loops() > 0
    }

    fn patient(&self) -> bool {
        true
    }

    fn claims(&self, _port: &PlannedPort) -> Vec<Claim<'_>> {
        vec![Claim::Stream(&self.path)]
    }

    fn inspect(&self, port: &PlannedPort, site: &mut Site<'_>) -> Found {
        check::inspect(self, port, site);
        Found::default()
    }

    fn describe(&self, port: &PlannedPort) -> String {
        let mut text = format!("pcap {}", self.shown(port.source));
        if port.sink {
            if self.compresses() {
                text += ", compressed with zstd";
            }
            if let Some(rotate) = &self.rotate {
                text += &format!(", a new file after {}", rotate.describe());
            }
            if let Some(keep) = &self.keep {
                text += &format!(", the last {} kept", **keep);
            }
            return text;
        }
        text += &match self.pace() {
            Pace::Original if self.speed() == 1.0 => " at its original pace".to_owned(),
            Pace::Original => format!(" at {} times its original pace", self.speed()),
            Pace::Top => " as fast as it goes".to_owned(),
            Pace::Pps(rate) => format!(" at {rate} frames a second"),
            Pace::Mbps(rate) => format!(" at {rate} Mbit/s"),
        };
        text += &match self.loops() {
            0 => ", for ever".to_owned(),
            1 => String::new(),
            n => format!(", {n} times"),
        };
        text
    }

    fn make(&self, port: &PlannedPort, plan: &Plan) -> Result<Box<dyn Device>, StartError> {
        Ok(match port.source {
            true => Box::new(play::CaptureDevice::make(port, self)?),
            false => Box::new(record::RecordingDevice::make(port, self, plan)?),
        })
    }
}

fn pace(value: Value<'_, '_>) -> Option<Pace> {
    let forms = "\"original\", \"top\", { pps = 1000 } or { mbps = 10 }";
    if value.is_string() {
        return value.choice(&[("original", Pace::Original), ("top", Pace::Top)], &[]);
    }
    let mut table = value.table(format!("{}.pace", value.context()), forms)?;
    let pps = table.take("pps", |v| v.number(0.001..=1e9));
    let mbps = table.take("mbps", |v| v.number(0.001..=1e6));
    let given = (table.get("pps").is_some(), table.get("mbps").is_some());
    if given.0 == given.1 {
        table.error(format!("must be {forms}"));
    }
    table.finish();
    pps.map(Pace::Pps).or(mbps.map(Pace::Mbps))
}
