//! What can keep a port from its frames, and what to do about it.

use std::io;

use aya::{EbpfError, maps::MapError};

use super::{
    super::{errno_of, foreign::ForeignProgram, one_line, remedy},
    XdpMode,
};
use crate::link::{
    netlink::NetlinkError,
    netns::{NetNs, NetNsError},
};

/// Why frames of an interface cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// The kernel cannot be asked about the interface.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// There is no such interface.
    #[error("{ns}: interface {interface:?} does not exist; {}ip link lists those that do", ns.shell_prefix())]
    NoInterface {
        /// The namespace.
        ns: NetNs,
        /// The interface.
        interface: String,
    },
    /// The kernel does not take the program.
    #[error(
        "{ns}: cannot load the XDP program for {interface}: {}; {}",
        one_line(error),
        remedy(errno_of(error))
    )]
    Load {
        /// The namespace.
        ns: NetNs,
        /// The interface.
        interface: String,
        /// From aya.
        error: Box<EbpfError>,
    },
    /// Somebody else's program is there already.
    #[error(
        "{ns}: {interface} has an XDP program already: {program}; stop what uses it, or remove it with {}",
        program.removal(&ns.shell_prefix(), interface)
    )]
    Occupied {
        /// The namespace.
        ns: NetNs,
        /// The interface.
        interface: String,
        /// Whose it is.
        program: Box<ForeignProgram>,
    },
    /// The driver or the kernel does not attach it.
    #[error("{ns}: cannot attach the XDP program to {interface} ({mode} mode): {error}; {}", attach_remedy(*mode, error))]
    Attach {
        /// The namespace.
        ns: NetNs,
        /// The interface.
        interface: String,
        /// The mode tried last.
        mode: XdpMode,
        /// From bpf(2).
        error: io::Error,
    },
    /// Attached, but the interface names another program.
    #[error(
        "{ns}: the XDP program of {interface} was replaced while it was attached; stop what else uses the interface and start again"
    )]
    Replaced {
        /// The namespace.
        ns: NetNs,
        /// The interface.
        interface: String,
    },
    /// A queue that the maps have no room for.
    #[error(
        "{interface} has no receive queue {queue}: it was opened with {queues}; ethtool -l {interface} shows them"
    )]
    NoQueue {
        /// The interface.
        interface: String,
        /// The queue asked for.
        queue: u32,
        /// How many there are.
        queues: u32,
    },
    /// A map cannot be changed or read.
    #[error(
        "{interface}, queue {queue}: cannot {what}: {}; {}",
        one_line(error),
        map_remedy(error)
    )]
    Map {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// What was tried.
        what: &'static str,
        /// From aya.
        error: Box<MapError>,
    },
}

fn attach_remedy(mode: XdpMode, error: &io::Error) -> &'static str {
    match (mode, error.raw_os_error()) {
        (XdpMode::Native, Some(libc::EOPNOTSUPP)) => {
            "its driver has no native XDP: use mode = \"skb\" or \"auto\""
        }
        (XdpMode::Native, Some(libc::EINVAL | libc::ERANGE | libc::E2BIG)) => {
            "the driver wants a smaller MTU, LRO off or other queues (see dmesg), or use mode = \"skb\" or \"auto\""
        }
        (_, errno) => remedy(errno),
    }
}

fn map_remedy(error: &MapError) -> &'static str {
    match errno_of(error) {
        Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP) => {
            "the socket is closed or not an AF_XDP socket"
        }
        errno => remedy(errno),
    }
}
