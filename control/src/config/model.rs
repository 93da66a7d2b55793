//! The configuration as types: what a file can say, with the defaults filled in, and nothing of what
//! the machine makes of it. Places in the file are kept beside the values that can turn out wrong.
//! What a port says of itself is with its kind, in [`ports`](crate::ports).

use std::path::PathBuf;

use dataplane::policy::Rule;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{choice::choice, cores::CoreList, error::Position, reader::At, rules};
use crate::ports::PortKind;

/// A whole file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// The file as the user named it, for errors.
    #[serde(skip)]
    pub file: String,
    /// `[engine]`.
    pub engine: Engine,
    /// `[control]`.
    #[serde(skip_serializing_if = "Control::is_default")]
    pub control: Control,
    /// `[ports.NAME]`, in the order of the file.
    #[serde(serialize_with = "ports_by_name")]
    pub ports: Vec<Port>,
    /// `[policies.NAME]`, in the order of the file.
    #[serde(
        serialize_with = "policies_by_name",
        skip_serializing_if = "Vec::is_empty"
    )]
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
    /// Slots of a region. Unless the file sets them, fewer will do where memory is short, so that a default
    /// that was written out would say more than its absence.
    #[serde(skip_serializing_if = "is_default")]
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

impl Control {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// `[ports.NAME]`: a place that frames come from or go to.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Its name in pipelines and statistics.
    pub name: At<String>,
    /// What it is.
    pub kind: PortKind,
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

/// Whether a value stands nowhere in the file.
fn is_default<T>(value: &At<T>) -> bool {
    value.at == Position::default()
}

fn ports_by_name<S: Serializer>(ports: &[Port], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(ports.iter().map(|port| (&port.name, &port.kind)))
}

fn policies_by_name<S: Serializer>(policies: &[Policy], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(policies.iter().map(|policy| (&policy.name, policy)))
}
