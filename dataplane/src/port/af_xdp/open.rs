//! Makes the UMEM and the socket of one queue. Run it in the interface's namespace: the kernel looks
//! the interface up where the thread is, and memory is first touched on the core it runs on.

// Hands the memory of a region to a socket.
#![allow(unsafe_code)]

use std::{
    fmt, io,
    os::fd::{AsRawFd, RawFd},
};

use nix::net::if_::if_nametoindex;

use super::{
    rings::Rings,
    socket::{Sizes, Step, Umem, XdpRings},
};
use crate::frame::{Backing, HugePages, Region, RegionError};

/// Bytes that the kernel keeps before each frame (XDP_PACKET_HEADROOM in linux/bpf.h).
const XDP_HEADROOM: usize = 256;

/// How a socket is to be bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BindMode {
    /// Zero-copy where the driver has it, else copy.
    #[default]
    Auto,
    /// Zero-copy or an error.
    ZeroCopy,
    /// Copy, even where zero-copy could be had.
    Copy,
}

/// What the kernel really granted (XDP_OPTIONS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// Frames arrive where the device put them.
    ZeroCopy,
    /// The kernel copies each frame.
    Copy,
}

impl fmt::Display for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Granted::ZeroCopy => "zero-copy",
            Granted::Copy => "copy",
        })
    }
}

/// Which queue, and with how much memory.
#[derive(Clone, Debug)]
pub struct QueueOptions {
    /// The interface's name.
    pub interface: String,
    /// The queue's number.
    pub queue: u32,
    /// How to bind.
    pub mode: BindMode,
    /// How many slots; rounded up to a power of two.
    pub slots: u32,
    /// 2048 or 4096 bytes; XDP leaves 256 fewer for the frame.
    pub slot_size: u32,
    /// What memory.
    pub hugepages: HugePages,
}

/// Why a queue could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A number is outside what AF_XDP takes.
    #[error("{interface} queue {queue}: {what}")]
    Options {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// Which number, and what it may be.
        what: String,
    },
    /// There is no memory.
    #[error("{interface} queue {queue}: {source}")]
    Memory {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// Why.
        source: RegionError,
    },
    /// The UMEM was refused.
    #[error("{interface} queue {queue}: no UMEM of {bytes} bytes: {source}{hint}")]
    Umem {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// Its size.
        bytes: usize,
        /// The kernel's answer.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The socket could not be made or bound.
    #[error("{interface} queue {queue}: cannot bind an AF_XDP socket: {source}{hint}")]
    Bind {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// The kernel's answer.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
}

impl OpenError {
    /// Whether the same call may succeed in a moment: the kernel still releases the queue.
    pub fn is_busy(&self) -> bool {
        matches!(self, OpenError::Bind { source, .. } if source.raw_os_error() == Some(libc::EBUSY))
    }
}

/// An open queue: its rings, its memory, and what the kernel granted.
#[derive(Debug)]
pub struct OpenQueue {
    pub(super) rings: XdpRings,
    pub(super) region: Region,
    granted: Granted,
}

impl OpenQueue {
    /// Zero-copy or copy, as the kernel says.
    pub fn granted(&self) -> Granted {
        self.granted
    }

    /// What the UMEM's memory is.
    pub fn backing(&self) -> Backing {
        self.region.backing()
    }

    /// The socket, for the XSKMAP.
    pub fn fd(&self) -> RawFd {
        self.rings.fd().as_raw_fd()
    }
}

/// Makes the UMEM and binds the socket.
pub fn open(options: &QueueOptions) -> Result<OpenQueue, OpenError> {
    let QueueOptions {
        interface, queue, ..
    } = options;
    let (interface, queue) = (interface.clone(), *queue);
    let bad = |what: String| OpenError::Options {
        interface: interface.clone(),
        queue,
        what,
    };
    let chunk = options.slot_size;
    if ![2048, 4096].contains(&chunk) {
        return Err(bad(format!("slot_size {chunk}: take 2048 or 4096")));
    }
    let slots = options.slots.max(256);
    let Some(slots) = slots.checked_next_power_of_two() else {
        return Err(bad(format!("{slots} slots are too many")));
    };
    let region =
        Region::map(slots, chunk as usize, XDP_HEADROOM, options.hugepages).map_err(|source| {
            OpenError::Memory {
                interface: interface.clone(),
                queue,
                source,
            }
        })?;
    let index = if_nametoindex(interface.as_str()).map_err(|errno| {
        let source = io::Error::from(errno);
        OpenError::Bind {
            hint: bind_hint(options.mode, &source),
            interface: interface.clone(),
            queue,
            source,
        }
    })?;
    let (base, bytes) = region.as_raw();
    let umem = Umem {
        base,
        bytes,
        chunk,
        first: 0,
    };
    let slots = region.slots().next_power_of_two();
    let transmitted = slots.min(4096);
    let sizes = Sizes {
        // It holds every slot, so that filling it can never fail for want of room.
        fill: slots,
        completion: transmitted,
        // As many as there are slots: a worker that was asleep finds everything that fitted.
        rx: slots,
        tx: transmitted,
    };
    let flags = libc::XDP_USE_NEED_WAKEUP
        | match options.mode {
            BindMode::Auto => 0,
            BindMode::ZeroCopy => libc::XDP_ZEROCOPY,
            BindMode::Copy => libc::XDP_COPY,
        };
    // SAFETY: the region goes with the rings, and the pool that takes both hands no slot to anybody that it
    // has lent or submitted. The kernel keeps the pages of its own accord, should the region go first.
    let (rings, granted) =
        unsafe { XdpRings::open(umem, sizes, index, queue, flags) }.map_err(|(step, source)| {
            match step {
                Step::Socket | Step::Umem => OpenError::Umem {
                    hint: umem_hint(&source),
                    interface: interface.clone(),
                    queue,
                    bytes,
                    source,
                },
                Step::Rings | Step::Bind => OpenError::Bind {
                    hint: bind_hint(options.mode, &source),
                    interface: interface.clone(),
                    queue,
                    source,
                },
            }
        })?;
    Ok(OpenQueue {
        rings,
        region,
        granted,
    })
}

fn umem_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM) => "; it needs CAP_NET_RAW: run with sudo",
        Some(libc::EAFNOSUPPORT) => "; this kernel was built without AF_XDP (CONFIG_XDP_SOCKETS)",
        Some(libc::ENOBUFS | libc::ENOMEM) => {
            "; set fewer slots or raise the limit of locked memory (ulimit -l)"
        }
        _ => "",
    }
}

fn bind_hint(mode: BindMode, source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EBUSY) => "; another AF_XDP socket has this queue",
        Some(libc::EPERM | libc::EACCES) => "; it needs CAP_NET_RAW: run with sudo",
        Some(libc::EOPNOTSUPP | libc::EINVAL) if mode == BindMode::ZeroCopy => {
            "; the driver has no zero-copy here: set mode = \"auto\" or \"copy\""
        }
        Some(libc::EINVAL) => "; does the interface have this queue? (ethtool -l)",
        Some(libc::ENODEV | libc::ENXIO) => "; the interface is gone",
        Some(libc::ENETDOWN) => "; the interface is down: ip link set up",
        _ => "",
    }
}
