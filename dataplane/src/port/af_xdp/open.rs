//! Makes the socket of one queue over its part of the worker's memory. Run it in the interface's
//! namespace: the kernel looks the interface up where the thread is.

use std::{
    fmt, io,
    os::fd::{AsRawFd, RawFd},
};

use nix::net::if_::if_nametoindex;

use super::{
    rings::Rings,
    socket::{Sizes, Step, XdpRings},
};
use crate::frame::{Arena, Backing, Region};

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
    /// Whether frames of the whole arena are transmitted; else the kernel gets the queue's part alone.
    pub transmits: bool,
    /// Whether a frame may lie in several slots (XDP_USE_SG, Linux 6.6). The XDP program must be one for several
    /// buffers.
    pub multi_buffer: bool,
}

/// Why a queue could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What had the queue's memory before still does.
    #[error(
        "{interface} queue {queue}: frames of the interface as it was before are still on their way"
    )]
    Memory {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
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
    /// Whether it may succeed without [`QueueOptions::multi_buffer`], which this kernel or driver has not.
    pub fn is_unsupported(&self) -> bool {
        match self {
            OpenError::Bind { source, .. } => {
                matches!(source.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
            }
            OpenError::Memory { .. } | OpenError::Umem { .. } => false,
        }
    }

    /// Whether the same call may succeed in a moment: the queue or its memory is still being released.
    pub fn is_busy(&self) -> bool {
        match self {
            OpenError::Memory { .. } => true,
            OpenError::Bind { source, .. } => source.raw_os_error() == Some(libc::EBUSY),
            OpenError::Umem { .. } => false,
        }
    }
}

/// An open queue: its rings, its memory, and what the kernel granted.
#[derive(Debug)]
pub struct OpenQueue {
    pub(super) rings: XdpRings,
    pub(super) region: Region,
    pub(super) multi_buffer: bool,
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

/// Takes a part of the arena for the queue's region, and binds a socket over it.
///
/// # Errors
///
/// See [`OpenError`].
///
/// # Panics
///
/// When the arena has no such part.
pub fn open(options: &QueueOptions, arena: &Arena, part: usize) -> Result<OpenQueue, OpenError> {
    let (interface, queue) = (&options.interface, options.queue);
    let bind_error = |source: io::Error| OpenError::Bind {
        hint: bind_hint(options.mode, &source),
        interface: interface.clone(),
        queue,
        source,
    };
    let Some((region, part)) = arena.take(part, XDP_HEADROOM) else {
        return Err(OpenError::Memory {
            interface: interface.clone(),
            queue,
        });
    };
    let index = if_nametoindex(interface.as_str()).map_err(|e| bind_error(e.into()))?;
    let slots = region.slots();
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
        }
        | match options.multi_buffer {
            true => libc::XDP_USE_SG,
            false => 0,
        };
    let opened = XdpRings::open(part, options.transmits, sizes, index, queue, flags);
    let (rings, granted) = opened.map_err(|(step, source)| match step {
        Step::Socket | Step::Umem(_) => OpenError::Umem {
            hint: umem_hint(&source),
            interface: interface.clone(),
            queue,
            bytes: match step {
                Step::Umem(bytes) => bytes,
                _ => region.as_raw().1,
            },
            source,
        },
        Step::Rings | Step::Bind => bind_error(source),
    })?;
    Ok(OpenQueue {
        rings,
        region,
        multi_buffer: options.multi_buffer,
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
