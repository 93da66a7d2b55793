//! Ports as the daemon owns them: what was made or opened on the machine for a configured port, and
//! how its queues become ports of workers. One module a kind.

mod af_xdp;
mod pcap;
mod tap;

use std::sync::Arc;

use dataplane::port::Port;

use super::StartError;
use crate::{
    api::protocol::PortInfo,
    config::{Plan, PlannedPort, PortKind},
    link::{listeners::PacketSockets, monitor::LinkEvent, netns::NetNs},
    stats::PortStats,
};

/// What a change of a link means for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing.
    None,
    /// Its link is down or its interface gone: the workers' ports are to be closed.
    Down,
    /// It is back: the workers' ports are to be opened.
    Up,
}

/// A configured port with everything that was made for it. Dropped, all of that is undone.
pub(super) trait Device: Send {
    /// Opens one queue for the worker on `core`. `None` while the link is down: then it is asked again
    /// when it is up.
    fn open(&mut self, queue: u32, core: usize) -> Result<Option<Box<dyn Port>>, StartError>;

    /// What is worth a line in the log, once it is open.
    fn notes(&mut self) -> Vec<String>;

    /// The mode that was granted, for kinds that have modes.
    fn mode(&self) -> String {
        String::new()
    }

    /// The interface to watch, and its namespace.
    fn watched(&self) -> Option<(&NetNs, &str)> {
        None
    }

    /// Looks at a change in the watched namespace.
    fn link_changed(&mut self, _event: &LinkEvent) -> Turn {
        Turn::None
    }

    /// Gets ready to be opened again after the link came back.
    fn revive(&mut self) -> Result<(), StartError> {
        Ok(())
    }

    /// The device that listeners listen on, to wait for one.
    fn listened(&self) -> Option<Listened<'_>> {
        None
    }

    /// What the kernel's program dropped before any worker saw it.
    fn count(&self, _stats: &mut PortStats) {}

    /// Fills in what only the device knows.
    fn describe(&self, info: &mut PortInfo);
}

/// A device that tools listen on.
pub(super) struct Listened<'a> {
    pub(super) name: &'a str,
    pub(super) ifindex: u32,
    pub(super) sockets: &'a Arc<PacketSockets>,
    /// How long sources are held back until something listens.
    pub(super) wait: Option<std::time::Duration>,
}

/// Makes or opens what a port needs. Adding a kind adds an arm here and a module beside this one.
pub(super) fn make(port: &PlannedPort, plan: &Plan) -> Result<Box<dyn Device>, StartError> {
    Ok(match &port.kind {
        PortKind::AfXdp(config) => Box::new(af_xdp::XdpDevice::make(port, config, plan)?),
        PortKind::Tap(config) => Box::new(tap::TapDevice::make(port, config)?),
        PortKind::Pcap(config) => Box::new(pcap::CaptureDevice::make(port, config)?),
    })
}
