//! Where frames come from: a capture file, or an interface, of which the machine knows whether the host
//! lives on it.

use super::{
    document::{Section, number},
    flag_error,
    flags::{Pace, Target},
};
use crate::{
    cli::dataplane::Line,
    config::{Class, ConfigError, Link, Machine, hint},
    ports,
};

/// How long a file waits until something listens on a device that it is played to.
const WAIT: &str = "30s";

/// The MTU of a device that a file is played to.
const JUMBO: i64 = 9000;

/// The largest MTU that a TAP device takes (drivers/net/tun.c).
const LARGEST_MTU: u32 = 65_521;

/// From this on, as on the loopback interface with 64 KiB, 8192 slots would be 128 MiB and more.
const HUGE_MTU: u32 = 16 << 10;

const FEW_SLOTS: i64 = 1024;

/// What `-i` calls all interfaces.
const ANY: &str = "any";

const ALL: &str =
    "these are copies of what passes any interface, once for each that it passes (af_packet)";

/// What `-r` or `-i` names.
#[derive(Debug)]
pub(super) enum Source {
    File(String),
    Interface(Link),
    /// All of them, as tcpdump says it.
    Any,
}

impl Source {
    /// The source that the flags name; `None` if they name none.
    pub(super) fn new(line: &Line, machine: &dyn Machine) -> Option<Result<Self, ConfigError>> {
        match (&line.read, &line.interface) {
            (Some(path), _) => Some(Ok(Self::File(path.clone()))),
            (None, Some(name)) if name == ANY => Some(Ok(Self::Any)),
            (None, Some(name)) => Some(find(name, machine).map(Self::Interface)),
            (None, None) => None,
        }
    }

    /// The flag as it was typed.
    pub(super) fn flag(&self) -> String {
        match self {
            Self::File(path) => format!("-r {path}"),
            Self::Interface(link) => format!("-i {}", link.name),
            Self::Any => format!("-i {ANY}"),
        }
    }

    /// What its port is called.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::File(path) if path == "-" => "stdin",
            Self::File(_) => "file",
            Self::Interface(link) => &link.name,
            Self::Any => ANY,
        }
    }

    pub(super) fn is_interface(&self, target: &Target) -> bool {
        matches!((self, target), (Self::Interface(link), Target::Name(name)) if link.name == *name)
    }

    /// The source as a port. `waits` says whether somebody may be watching.
    pub(super) fn section(&self, pace: Option<Pace>, waits: bool) -> Section {
        let link = match self {
            Self::Interface(link) => link,
            Self::Any => {
                let mut section = Section::new("af_packet").because(ALL);
                section.set("interface", ANY);
                return section;
            }
            Self::File(path) => {
                let mut section = Section::new("pcap");
                section.set("path", path.as_str());
                match pace {
                    Some(pace) => set_pace(&mut section, pace),
                    None if waits => {
                        let why = "as it was captured, for whoever watches; \"top\" is as fast as it goes";
                        section.explained("pace", "original", why);
                    }
                    None => {
                        let why = "as fast as it goes: what is written keeps its time stamps";
                        section.explained("pace", "top", why);
                    }
                }
                return section;
            }
        };
        let kind = if lives_on(link).is_some() {
            "af_packet"
        } else {
            "af_xdp"
        };
        let mut section = Section::new(kind).because(&self.choice(link));
        section.set("interface", link.name.as_str());
        section
    }

    /// What was chosen and why.
    pub(super) fn note(&self) -> Option<String> {
        match self {
            Self::File(_) => None,
            Self::Interface(link) => Some(format!("{}: {}", self.flag(), self.choice(link))),
            Self::Any => Some(format!("{}: {ALL}", self.flag())),
        }
    }

    fn choice(&self, link: &Link) -> String {
        match lives_on(link) {
            Some(what) => format!("it has {what}, so the host keeps its frames and these are copies (af_packet)"),
            None => "it has no address and no default route, so its frames are taken from the host (af_xdp)".to_owned(),
        }
    }

    /// How many slots a region is to have, and why, if the usual number would be too many.
    pub(super) fn slots(&self) -> Option<(i64, &'static str)> {
        match self {
            Self::Interface(link) if link.mtu > HUGE_MTU => Some((
                FEW_SLOTS,
                "fewer than usual, because each holds one of the interface's huge frames",
            )),
            _ => None,
        }
    }

    /// Sets what a device that is made for this source needs.
    pub(super) fn suit(&self, device: &mut Section) {
        match self {
            Self::File(_) => {
                let why = "a file does not say how long its frames are; longer ones than this are dropped";
                device.explained("mtu", JUMBO, why);
                let why =
                    "nothing is played until something listens there, or this time has passed";
                device.explained("wait_for_consumer", WAIT, why);
            }
            Self::Interface(link) if link.mtu > 1500 => {
                let mtu = link.mtu.min(LARGEST_MTU);
                device.explained("mtu", i64::from(mtu), &format!("that of {}", link.name));
            }
            Self::Interface(_) | Self::Any => {}
        }
    }
}

fn set_pace(section: &mut Section, pace: Pace) {
    match pace {
        Pace::Original(speed) => {
            section.set("pace", "original");
            if speed != 1.0 {
                section.set("speed", number(speed));
            }
        }
        Pace::Top => section.set("pace", "top"),
        Pace::Pps(rate) => section.set_rate("pace", "pps", rate),
        Pace::Mbps(rate) => section.set_rate("pace", "mbps", rate),
    }
}

/// What the host has on an interface that makes it its own.
fn lives_on(link: &Link) -> Option<String> {
    match (link.addresses.first(), link.default_route) {
        (Some(address), true) => Some(format!("the address {address} and the default route")),
        (Some(address), false) => Some(format!("the address {address}")),
        (None, true) => Some("the default route".to_owned()),
        (None, false) => None,
    }
}

fn find(name: &str, machine: &dyn Machine) -> Result<Link, ConfigError> {
    let refuse = |class, message| flag_error(format!("-i {name}"), message, class);
    if let Some(fault) = ports::interface_fault(name) {
        return Err(refuse(
            Class::Config,
            format!("a name that {fault}; name an interface, as `ip link` lists them"),
        ));
    }
    let links = machine.links(None).map_err(|error| {
        refuse(
            Class::Machine,
            format!(
                "the interfaces cannot be looked at: {error}; with --config FILE nobody needs to"
            ),
        )
    })?;
    let names = links.iter().map(|link| link.name.as_str());
    match links.iter().find(|link| link.name == name) {
        Some(link) => Ok(link.clone()),
        None => Err(refuse(
            Class::Machine,
            format!(
                "there is no interface {name:?}{}",
                hint(name, names, "interface")
            ),
        )),
    }
}
