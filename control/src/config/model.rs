//! The configuration as types: what a file can say, with the defaults filled in, and nothing of what
//! the machine makes of it. Places in the file are kept beside the values that can turn out wrong.

use std::{path::PathBuf, time::Duration};

use dataplane::policy::Rule;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{cores::CoreList, error::Position, reader::At, rules};

/// A choice between names: the enum, its names in the file, and both ways between them.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every name that a file may use, with what it means.
            pub const ALL: &'static [(&'static str, Self)] = &[$(($text, Self::$variant),)*];

            /// The name in the file.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }
    };
}

/// A whole file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// The file as the user named it, for errors.
    #[serde(skip)]
    pub file: String,
    /// `[engine]`.
    pub engine: Engine,
    /// `[control]`.
    pub control: Control,
    /// `[ports.NAME]`, in the order of the file.
    #[serde(serialize_with = "ports_by_name")]
    pub ports: Vec<Port>,
    /// `[policies.NAME]`, in the order of the file.
    #[serde(serialize_with = "policies_by_name")]
    pub policies: Vec<Policy>,
    /// `[[pipelines]]`.
    pub pipelines: Vec<Pipeline>,
}

impl Config {
    /// The port of that name.
    pub fn port(&self, name: &str) -> Option<&Port> {
        self.ports.iter().find(|port| *port.name == name)
    }

    /// The policy of that name.
    pub fn policy(&self, name: &str) -> Option<&Policy> {
        self.policies.iter().find(|policy| *policy.name == name)
    }

    /// The configuration as a file, defaults written out. Reading it gives an equal configuration.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

/// `[engine]`: the workers and their memory.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Engine {
    /// The workers' cores; `None` leaves the choice to the plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<At<CoreList>>,
    /// Slots of a region.
    pub slots: At<u32>,
    /// Bytes of a slot: 2048 or 4096.
    pub slot_size: u32,
    /// What the regions' memory is to be.
    pub hugepages: HugePages,
    /// What a worker does when there is nothing to do.
    pub idle: Idle,
    /// The most frames that are handled at a time.
    pub batch: u16,
}

choice! {
    /// What frame memory is to be made of.
    HugePages {
        /// Huge pages where they can be had, else normal ones.
        #[default]
        Auto = "auto",
        /// Huge pages, or the start fails.
        Require = "require",
        /// Normal pages.
        Off = "off",
    }
}

impl From<HugePages> for dataplane::frame::HugePages {
    fn from(pages: HugePages) -> Self {
        match pages {
            HugePages::Auto => Self::Auto,
            HugePages::Require => Self::Require,
            HugePages::Off => Self::Off,
        }
    }
}

choice! {
    /// What a worker does when there is nothing to do.
    Idle {
        /// Spins briefly, then sleeps in its ring.
        #[default]
        Adaptive = "adaptive",
        /// Never sleeps.
        Busy = "busy",
    }
}

/// `[control]`: how the daemon is talked to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Control {
    /// The control socket; `None` is the usual place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<At<PathBuf>>,
    /// The group that may use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket_group: Option<At<String>>,
}

/// `[ports.NAME]`: a place that frames come from or go to.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Its name in pipelines and statistics.
    pub name: At<String>,
    /// What it is.
    pub kind: PortKind,
}

/// The kinds of ports, with their own settings.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PortKind {
    /// An interface, by AF_XDP.
    AfXdp(AfXdp),
    /// A TAP device that is made for it.
    Tap(Tap),
    /// A capture file.
    Pcap(Pcap),
}

impl PortKind {
    /// The kind's name in the file.
    pub const fn name(&self) -> &'static str {
        match self {
            PortKind::AfXdp(_) => "af_xdp",
            PortKind::Tap(_) => "tap",
            PortKind::Pcap(_) => "pcap",
        }
    }

    /// The network namespace that the port is in; `None` is the daemon's own.
    pub fn netns(&self) -> Option<&At<String>> {
        match self {
            PortKind::AfXdp(port) => port.netns.as_ref(),
            PortKind::Tap(port) => port.netns.as_ref(),
            PortKind::Pcap(_) => None,
        }
    }
}

/// `kind = "af_xdp"`: frames of an existing interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AfXdp {
    /// The interface.
    pub interface: At<String>,
    /// Its network namespace; `None` is the daemon's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<At<String>>,
    /// Which of its queues.
    pub queues: Queues,
    /// How the kernel hands over frames.
    pub mode: At<XdpMode>,
    /// What is done about checksums that the sender left to the hardware.
    pub checksums: Checksums,
    /// What is done about offloads that hide or merge frames.
    pub offloads: Offloads,
    /// Take the interface although the host uses it.
    pub force: bool,
    /// Queue `i` is polled by `cores[i % cores.len()]`; `None` spreads queues over all workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<At<Vec<usize>>>,
}

/// Which queues of an interface a port has.
#[derive(Clone, Debug, PartialEq)]
pub enum Queues {
    /// All that are active.
    All,
    /// These.
    These(Vec<At<u32>>),
}

impl Serialize for Queues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Queues::All => serializer.serialize_str("all"),
            Queues::These(queues) => queues.serialize(serializer),
        }
    }
}

choice! {
    /// How the kernel hands over the frames of an AF_XDP port.
    XdpMode {
        /// The best that the interface grants.
        #[default]
        Auto = "auto",
        /// Zero-copy, or the start fails.
        ZeroCopy = "zero-copy",
        /// In the driver, with a copy.
        Copy = "copy",
        /// Generic: any interface, slowest.
        Skb = "skb",
    }
}

choice! {
    /// What is done about checksums that the sender left to the hardware.
    Checksums {
        /// Those whose field holds the sum of the pseudo-header are finished.
        #[default]
        Auto = "auto",
        /// Nobody looks.
        Trust = "trust",
    }
}

choice! {
    /// What is done about offloads that hide VLAN tags or merge frames.
    Offloads {
        /// They are turned off, and restored at a clean end.
        #[default]
        Fix = "fix",
        /// They are named and left alone.
        Keep = "keep",
        /// The start fails unless all are off.
        Require = "require",
    }
}

/// `kind = "tap"`: a device that the daemon makes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tap {
    /// The device's name.
    #[serde(rename = "name")]
    pub device: At<String>,
    /// The network namespace that it is made in; `None` is the daemon's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<At<String>>,
    /// The device's MTU in bytes, without the Ethernet header.
    pub mtu: At<u32>,
    /// How long sources are held back until something listens.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "milliseconds"
    )]
    pub wait_for_consumer: Option<Duration>,
    /// Whether the host is kept from answering what it hears; `None` is yes, unless a pipeline has the
    /// port as a source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passive: Option<At<bool>>,
}

/// `kind = "pcap"`: a capture file.
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

/// `[policies.NAME]`: what a pipeline lets through.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Its name in pipelines and statistics.
    pub name: At<String>,
    /// Whether and how frames are judged.
    pub mode: Mode,
    /// How strictly the frame itself is looked at.
    pub profile: Profile,
    /// What happens to what is not allowed.
    pub on_violation: OnViolation,
    /// Whether ARP and neighbour discovery pass.
    pub arp: bool,
    /// The allowlist; empty in mode `direct`, where it is not asked.
    pub allow: Vec<At<Rule>>,
}

impl Policy {
    /// The rules without their places.
    pub fn rules(&self) -> Vec<Rule> {
        self.allow.iter().map(|rule| rule.value.clone()).collect()
    }
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("mode", &self.mode)?;
        if self.mode != Mode::Direct {
            map.serialize_entry("profile", &self.profile)?;
            map.serialize_entry("on_violation", &self.on_violation)?;
            map.serialize_entry("arp", &self.arp)?;
            let allow: Vec<_> = self
                .allow
                .iter()
                .map(|rule| rules::Text::from(&rule.value))
                .collect();
            map.serialize_entry("allow", &allow)?;
        }
        map.end()
    }
}

choice! {
    /// Whether and how frames are judged.
    Mode {
        /// Everything passes.
        Direct = "direct",
        /// What a rule allows passes, frame by frame.
        #[default]
        Filtered = "filtered",
    }
}

choice! {
    /// How strictly the frame itself is looked at.
    Profile {
        /// Well formed as far as the rules look.
        #[default]
        Network = "network",
    }
}

choice! {
    /// What happens to a frame that no rule allows.
    OnViolation {
        /// It is dropped and counted.
        #[default]
        Drop = "drop",
    }
}

/// `[[pipelines]]`: from these ports, judged by this policy, to those.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pipeline {
    /// Names of the sources.
    pub from: Vec<At<String>>,
    /// The policy's name; without one everything is forwarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<At<String>>,
    /// Names of the sinks.
    pub to: Vec<At<String>>,
    /// Where it stands in the file.
    #[serde(skip)]
    pub at: At<()>,
}

impl Pipeline {
    /// Where it stands in the file.
    pub fn position(&self) -> Position {
        self.at.at
    }
}

fn ports_by_name<S: Serializer>(ports: &[Port], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(ports.iter().map(|port| (&port.name, &port.kind)))
}

fn policies_by_name<S: Serializer>(policies: &[Policy], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(policies.iter().map(|policy| (&policy.name, policy)))
}

fn is_one(speed: &f64) -> bool {
    *speed == 1.0
}

fn milliseconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(&format_args!("{}ms", time.as_millis())),
        None => serializer.serialize_none(),
    }
}
