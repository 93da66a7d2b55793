//! `kind = "pcap"`: a capture file that is played, by one worker. Here are the settings; `device` opens
//! it.

mod device;

use std::{io, path::PathBuf};

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{Device, Found, Kind, Placement, Privileges, Role};
use crate::{
    config::{At, FileFact, Plan, PlannedPort, Reader, Site, Value},
    daemon::StartError,
};

/// What a FIFO, a device or a socket is told: to open it may wait for ever.
const NO_FILE: &str = "is no regular file, and playing a stream is not built yet; write it to a \
                       file first (cat STREAM > FILE) and name that";

/// The settings of a port.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pcap {
    /// The file; a relative path begins at the working directory.
    pub path: At<PathBuf>,
    /// How fast it is played.
    pub pace: Pace,
    /// How many times faster than it was captured, with [`Pace::Original`].
    #[serde(skip_serializing_if = "is_one")]
    pub speed: f64,
    /// How often it is played; 0 is for ever.
    pub loops: u64,
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
            "-" => {
                v.error("\"-\" (standard input) is not built yet; name a capture file");
                None
            }
            path if path.contains('\0') => {
                v.error("contains a zero byte, which no file name can");
                None
            }
            path => Some(PathBuf::from(path)),
        });
        let pace = table.take("pace", pace).unwrap_or(Pace::Original);
        let speed = table.take("speed", |v| {
            if pace != Pace::Original {
                v.error("goes with pace = \"original\" only");
                return None;
            }
            v.number(0.001..=1e6)
        });
        let loops = table.take("loops", |v| v.integer(0..=u64::from(u32::MAX)));
        Some(Self {
            path: path?,
            pace,
            speed: speed.unwrap_or(1.0),
            loops: loops.unwrap_or(1),
        })
    }
}

impl Kind for Pcap {
    fn placement(&self) -> Placement<'_> {
        Placement::Descriptors
    }

    fn privileges(&self) -> Privileges {
        Privileges::default()
    }

    fn refuses(&self, role: Role, _name: &str) -> Option<String> {
        (role == Role::Sink).then(|| {
            "is a source only; writing capture files is not built yet (tcpdump on a tap port does it)"
                .to_owned()
        })
    }

    fn ends(&self) -> bool {
        self.loops > 0
    }

    fn patient(&self) -> bool {
        true
    }

    fn inspect(&self, _port: &PlannedPort, site: &mut Site<'_>) -> Found {
        let path = self.path.display();
        let at = self.path.at;
        match site.machine().file(&self.path) {
            Ok(FileFact::Regular(0)) => {
                let what = format!("capture file {path} is empty; name one that holds frames");
                site.wrong(at, what);
            }
            Ok(FileFact::Directory) => {
                site.wrong(at, format!("{path} is a directory; name a capture file"));
            }
            Ok(FileFact::Other) => site.wrong(at, format!("{path} {NO_FILE}")),
            Ok(FileFact::Regular(_)) => {}
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                    let what = "does not exist; a relative path begins at the working directory";
                    site.wrong(at, format!("capture file {path} {what}"));
                }
                io::ErrorKind::PermissionDenied => {
                    let what = "may not be read; give it to this user, or run as another";
                    site.refuse(at, format!("capture file {path} {what}"));
                }
                _ => site.refuse(at, format!("capture file {path} cannot be read: {error}")),
            },
        }
        Found::default()
    }

    fn describe(&self, _port: &PlannedPort) -> String {
        let pace = match self.pace {
            Pace::Original if self.speed == 1.0 => "at its original pace".to_owned(),
            Pace::Original => format!("at {} times its original pace", self.speed),
            Pace::Top => "as fast as it goes".to_owned(),
            Pace::Pps(rate) => format!("at {rate} frames a second"),
            Pace::Mbps(rate) => format!("at {rate} Mbit/s"),
        };
        let loops = match self.loops {
            0 => ", for ever".to_owned(),
            1 => String::new(),
            n => format!(", {n} times"),
        };
        format!("pcap {} {pace}{loops}", self.path.display())
    }

    fn make(&self, port: &PlannedPort, _plan: &Plan) -> Result<Box<dyn Device>, StartError> {
        Ok(Box::new(device::CaptureDevice::make(port, self)?))
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

fn is_one(speed: &f64) -> bool {
    *speed == 1.0
}
