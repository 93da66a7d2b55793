//! What the plan and the start ask of a port's settings, in terms that hold for every kind: what it can
//! be used for, how it is spread over workers, what it takes of the machine.

use std::{net::IpAddr, path::PathBuf};

use caps::Capability;

use super::{Device, frames::HEADERS};
use crate::{
    config::{At, Link, Plan, PlannedPort, Policy, Position, Site},
    daemon::StartError,
};

/// The settings of a port, whatever its kind. What a method does not say of itself, most kinds need not
/// say either: it has a default.
pub trait Kind {
    /// How the port is spread over the workers.
    fn placement(&self) -> Placement<'_>;

    /// The privileges that it takes, beside those of entering its network namespace.
    fn privileges(&self) -> Privileges;

    /// Sets the settings against the machine: what is there is found, what is wrong is told to `site`.
    /// Changes nothing.
    fn inspect(&self, port: &PlannedPort, site: &mut Site<'_>) -> Found;

    /// The port in the words of `--check`, after its name and direction.
    fn describe(&self, port: &PlannedPort) -> String;

    /// Makes or opens what the port needs on the machine.
    ///
    /// # Errors
    ///
    /// One line that says what the machine refuses; then nothing is left behind.
    fn make(&self, port: &PlannedPort, plan: &Plan) -> Result<Box<dyn Device>, StartError>;

    /// Why the port cannot be used so, as the end of the sentence `port "lc0" …`; `None` when it can.
    /// `name` is the port's.
    fn refuses(&self, _role: Role, _name: &str) -> Option<String> {
        None
    }

    /// What the port wants of the machine that another port may not want as well.
    fn claims(&self, _port: &PlannedPort) -> Vec<Claim<'_>> {
        Vec::new()
    }

    /// The network namespace that the port is in; `None` is the daemon's own.
    fn netns(&self) -> Option<&At<String>> {
        None
    }

    /// The largest frame that a worker's own region must hold for this port.
    fn largest_frame(&self, _port: &PlannedPort) -> Option<LargestFrame> {
        None
    }

    /// What the user should know of this port in the plan that is made, although it stops nothing.
    fn cautions(&self, _port: &PlannedPort, _around: &Around<'_>) -> Vec<String> {
        Vec::new()
    }

    /// Whether it ends by itself as a source, and with the last one the run.
    fn ends(&self) -> bool {
        false
    }

    /// Whether its frames can wait for room in the sinks, instead of being lost there.
    fn patient(&self) -> bool {
        false
    }

    /// Whether a sender may have left the checksums of its frames to the hardware, so that they are to be
    /// finished.
    fn unfinished_checksums(&self) -> bool {
        false
    }

    /// Whether the host is kept from answering what it hears on the port's device. `source` says whether
    /// a pipeline comes from the port.
    fn passive(&self, _source: bool) -> bool {
        false
    }
}

/// What a pipeline uses a port for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Frames come from it.
    Source,
    /// Frames go to it.
    Sink,
}

/// How a port is spread over the workers.
#[derive(Clone, Copy, Debug)]
pub enum Placement<'a> {
    /// By the queues of its interface ([`Found::queues`]): each has a region of its own and belongs to one
    /// worker. A source has all of them polled; where it is only written, each worker that does takes one.
    Queues {
        /// The interface's name, for the remedy that gives it more of them.
        interface: &'a str,
        /// Queue `i` belongs to the worker on `cores[i % cores.len()]`; `None` deals them out to all.
        cores: Option<&'a At<Vec<usize>>>,
    },
    /// A descriptor for each worker that reads or writes it; frames are received into the worker's own
    /// region. Of a port that is no sink, one worker reads.
    Descriptors,
    /// The same, but as a source it is read by every worker that reaches its sinks: the kernel spreads its
    /// flows over the descriptors.
    Spread,
}

/// What surrounds a port in a plan.
#[derive(Clone, Debug)]
pub struct Around<'a> {
    /// Bytes of a slot of a queue's own region.
    pub slot_size: u32,
    /// The workers' cores.
    pub cores: &'a [usize],
    /// The ports whose frames come to this one.
    pub feeders: Vec<Feeder<'a>>,
}

/// A port whose frames come to another.
#[derive(Clone, Copy, Debug)]
pub struct Feeder<'a> {
    /// The port.
    pub port: &'a PlannedPort,
    /// The policy that judges them; without one all of them come.
    pub policy: Option<&'a Policy>,
}

/// Something of the machine that a port wants.
#[derive(Clone, Copy, Debug)]
pub enum Claim<'a> {
    /// A device of its network namespace that it has for itself.
    Device {
        /// Its name.
        device: &'a At<String>,
        /// Whether the port makes it, else it is there already.
        made: bool,
    },
    /// Copies of the frames of an interface of its network namespace, which stay with those who have it.
    Copies {
        /// Its name; `None` is every one.
        device: Option<&'a At<String>>,
        /// Whether of those that this host sends there, too.
        sent: bool,
    },
    /// A file that the port alone may write, or reads; `-` is standard output or input.
    Stream(&'a At<PathBuf>),
    /// A UDP port of its network namespace.
    Listens(Listens),
}

/// A UDP port that a port receives at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listens {
    /// The address; an unspecified one is every one of its IP version, `None` every one of both.
    pub address: Option<IpAddr>,
    /// The UDP port.
    pub port: u16,
    /// Where it stands.
    pub at: Position,
}

impl Listens {
    /// Whether a datagram can be for both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.port == other.port
            && match (self.address, other.address) {
                (None, _) | (_, None) => true,
                (Some(a), Some(b)) => {
                    a.is_ipv4() == b.is_ipv4()
                        && (a == b || a.is_unspecified() || b.is_unspecified())
                }
            }
    }
}

/// A setting that needs slots of a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargestFrame {
    /// Bytes of the frame.
    pub bytes: u32,
    /// The key that says so.
    pub key: &'static str,
    /// The value of the key.
    pub value: u32,
    /// Where it stands.
    pub at: Position,
    /// Nobody set it: it is for frames of sources that cannot say how long theirs are.
    pub guessed: bool,
}

impl LargestFrame {
    /// Of a port that has an `mtu`, in bytes without the Ethernet header, set at `at`.
    pub(super) fn of_mtu(mtu: u32, at: Position) -> Self {
        Self {
            bytes: mtu + HEADERS,
            key: "mtu",
            value: mtu,
            at,
            guessed: false,
        }
    }
}

/// Privileges of a port, but for CAP_SYS_ADMIN of setns(2), which goes with [`Kind::netns`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Privileges {
    /// To make or open it.
    pub start: &'static [Capability],
    /// To open it again while the daemon runs; empty for kinds that need not be.
    pub reopen: &'static [Capability],
}

/// What [`Kind::inspect`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The queues that the port gets, ascending; empty unless it is placed by [`Placement::Queues`].
    pub queues: Vec<u32>,
    /// The interface that frames come from, where it is there already and could be looked at.
    pub link: Option<Link>,
    /// The MTU of the path that frames take to a far end, where there is one: bytes of an IP packet.
    pub path_mtu: Option<u32>,
    /// The interface that packets to a far end leave by, where it could be told.
    pub leaves_by: Option<String>,
}
