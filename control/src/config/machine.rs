//! What a plan asks of the machine: read-only facts. [`SystemMachine`](super::SystemMachine) looks them
//! up; tests answer with facts of their own.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use crate::{kernel::foreign::ForeignProgram, link::steering::Steering};

/// One interface of a network namespace, as the kernel shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its index in its namespace.
    pub index: u32,
    /// What its frames begin with: an `ARPHRD_*` (include/uapi/linux/if_arp.h), 1 for Ethernet.
    pub hardware: u16,
    /// Whether it is administratively up (IFF_UP).
    pub up: bool,
    /// Its MTU in bytes, without the Ethernet header.
    pub mtu: u32,
    /// The driver as ethtool names it; `loopback` for `lo`, empty when unknown.
    pub driver: String,
    /// Its active receive queues.
    pub queues: u32,
    /// How flows are spread over them.
    pub steering: Steering,
    /// The other end, of a veth.
    pub peer: Option<Peer>,
    /// Its addresses with prefix, those of the link alone (fe80::/10) left out.
    pub addresses: Vec<String>,
    /// Whether a default route leaves by it.
    pub default_route: bool,
    /// The identifier of the XDP program that it runs.
    pub xdp: Option<u32>,
}

/// Where the other end of a veth is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its index in its namespace.
    pub index: u32,
    /// That namespace, as the interface's own numbers it (`link-netnsid`); `None` is the same one.
    pub netns: Option<i32>,
}

/// The way that packets to an address take out of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Its MTU as far as this host knows, in bytes of an IP packet.
    pub mtu: u32,
    /// The address that this host has on it; that of the far end where that is this host itself.
    pub source: IpAddr,
}

/// Why a namespace could not be looked into.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// It does not exist.
    #[error("there is no such network namespace")]
    NoNamespace,
    /// Looking needs a privilege that this process has not.
    #[error("looking into another network namespace needs root")]
    Privilege,
    /// The kernel answered something else.
    #[error("{0}")]
    Other(#[from] io::Error),
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFact {
    /// A regular file of so many bytes.
    Regular(u64),
    /// A directory.
    Directory,
    /// A FIFO.
    Pipe,
    /// A device or the like.
    Other,
}

/// Read-only facts about the machine. Nothing here changes anything.
pub trait Machine {
    /// The cores that are online, ascending.
    fn cores(&self) -> Vec<usize>;

    /// The core that a daemon without `cores` runs on; by default the last one.
    fn default_core(&self) -> usize {
        self.cores().last().copied().unwrap_or(0)
    }

    /// The NUMA node of a core, where the machine has nodes.
    fn node(&self, core: usize) -> Option<usize>;

    /// All interfaces of a network namespace; `None` is the caller's own.
    fn links(&self, netns: Option<&str>) -> Result<Vec<Link>, LookError>;

    /// The named network namespaces.
    fn namespaces(&self) -> Vec<String>;

    /// How namespace `from` numbers namespace `of`; `None` when it does not, or it cannot be told.
    fn namespace_id(&self, from: Option<&str>, of: Option<&str>) -> Option<i32>;

    /// An XDP program: its name, who holds it and how, as far as that can be told.
    fn program(&self, id: u32) -> ForeignProgram;

    /// The way from a network namespace to an address, from the address `local` where it is given. The
    /// error is the kernel's where there is no route, or `local` is no address of the namespace.
    fn way(
        &self,
        netns: Option<&str>,
        local: Option<IpAddr>,
        to: SocketAddr,
    ) -> Result<Way, LookError>;

    /// What is at a path, which must be readable.
    fn file(&self, path: &Path) -> io::Result<FileFact>;
}
