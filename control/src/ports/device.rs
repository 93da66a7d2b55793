//! Ports as the daemon owns them: what was made or opened on the machine for a configured port, and
//! how its queues become ports of workers.

use std::sync::Arc;

use dataplane::{frame::Arena, port::Port};

use crate::{
    api::protocol::PortInfo,
    daemon::StartError,
    link::{listeners::PacketSockets, monitor::LinkEvent, netns::NetNs},
    stats::PortStats,
};

/// What a change of a link means for a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    None,
    /// Its link is down or its interface gone: the workers' ports are to be closed.
    Down,
    /// It is back: the workers' ports are to be opened.
    Up,
    /// It is another than the workers' ports were opened for: they are to be closed, and opened again. Why.
    Anew(String),
    /// Nothing for the workers, but this is worth a line.
    Tell(String),
    /// The same, and a warning.
    Warn(String),
}

/// Where a queue is opened.
#[derive(Clone, Copy, Debug)]
pub struct Seat<'a> {
    /// The queue's number.
    pub queue: u32,
    /// The core of the worker that it is for.
    pub core: usize,
    /// That worker's memory, if it has any for queues, and which part of it is this one's.
    pub memory: Option<(&'a Arena, usize)>,
}

/// A configured port with everything that was made for it. Dropped, all of that is undone.
pub trait Device: Send {
    /// Opens one queue. `None` while the link is down: then it is asked again when it is up.
    fn open(&mut self, seat: &Seat<'_>) -> Result<Option<Box<dyn Port>>, StartError>;

    /// What is worth a line in the log, once it is open.
    fn notes(&mut self) -> Vec<String> {
        Vec::new()
    }

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
pub struct Listened<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its index in its namespace.
    pub ifindex: u32,
    /// Who listens.
    pub sockets: &'a Arc<PacketSockets>,
    /// How long sources are held back until something listens.
    pub wait: Option<std::time::Duration>,
}
