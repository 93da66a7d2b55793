//! Makes the UMEM and the socket of one queue. Run it in the interface's namespace: the kernel looks
//! the interface up where the thread is, and memory is first touched on the core it runs on.

// Makes a UMEM and a socket over memory that the kernel shares.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    fmt, io,
    num::NonZeroU32,
    os::fd::{AsRawFd, RawFd},
    ptr::NonNull,
};

use xsk_rs::{
    Socket, Umem,
    config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig},
};

use super::rings::XskRings;
use crate::frame::{Backing, HugePages, Region};

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
    pub(super) rings: XskRings,
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
        use super::rings::Rings;
        self.rings.fd().as_raw_fd()
    }
}

/// Makes the UMEM and binds the socket.
pub fn open(options: &QueueOptions) -> Result<OpenQueue, OpenError> {
    let bad = |what: String| OpenError::Options {
        interface: options.interface.clone(),
        queue: options.queue,
        what,
    };
    let slots = options.slots.max(256).next_power_of_two();
    let slot_size = options.slot_size as usize;
    // The fill ring holds every slot, so that filling it can never fail for want of room.
    let fill_size = QueueSize::new(slots).map_err(|e| bad(format!("{slots} slots: {e}")))?;
    let tx_size = slots.min(4096);
    let ring_size =
        QueueSize::new(tx_size).map_err(|e| bad(format!("a ring of {tx_size}: {e}")))?;
    let config = UmemConfig::builder()
        .frame_size(
            FrameSize::new(options.slot_size)
                .map_err(|e| bad(format!("slot_size {slot_size}: {e}; take 2048 or 4096")))?,
        )
        .fill_queue_size(fill_size)
        .comp_queue_size(ring_size)
        .build()
        .map_err(|e| bad(format!("slot_size {slot_size}: {e}; take 2048 or 4096")))?;
    let (umem, mut fresh, backing) = make_umem(options, config, slots)?;

    let flags = BindFlags::XDP_USE_NEED_WAKEUP
        | match options.mode {
            BindMode::Auto => BindFlags::empty(),
            BindMode::ZeroCopy => BindFlags::XDP_ZEROCOPY,
            BindMode::Copy => BindFlags::XDP_COPY,
        };
    let socket = SocketConfig::builder()
        // As many as there are slots: a worker that was asleep finds everything that fitted.
        .rx_queue_size(fill_size)
        .tx_queue_size(ring_size)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(flags)
        .build();
    let name = CString::new(options.interface.as_str())
        .map_err(|_| bad("the name holds a zero byte".into()))?;
    // SAFETY: the UMEM is new and has no other socket: nobody else uses its rings or its frames.
    let (tx, rx, rings) =
        unsafe { Socket::new(socket, &umem, &Interface::new(name), options.queue) }.map_err(
            |e| {
                let source = cause(&e);
                OpenError::Bind {
                    interface: options.interface.clone(),
                    queue: options.queue,
                    hint: bind_hint(options.mode, &source),
                    source,
                }
            },
        )?;
    let Some((fill, completion)) = rings else {
        return Err(bad(
            "the socket came without fill and completion rings".into()
        ));
    };
    let granted = granted(rx.fd().as_raw_fd()).map_err(|source| OpenError::Bind {
        interface: options.interface.clone(),
        queue: options.queue,
        source,
        hint: "; asking for XDP_OPTIONS needs Linux 5.3 or newer",
    })?;

    // SAFETY: the descriptor is the UMEM's first; only its address is taken.
    let first = unsafe { umem.data_mut(&mut fresh[0]) }
        .contents_mut()
        .as_mut_ptr();
    let base = NonNull::new(first.wrapping_sub(fresh[0].addr()))
        .ok_or_else(|| bad("the UMEM is at address zero".into()))?;
    // SAFETY: the UMEM maps `slots` chunks of `slot_size` bytes from `base` on, and its mapping lives
    // as long as any clone of the handle, of which the region keeps one. The rings use addresses only.
    let region = unsafe {
        Region::from_raw(
            base,
            slots,
            slot_size,
            XDP_HEADROOM,
            backing,
            Box::new(umem.clone()),
        )
    };
    Ok(OpenQueue {
        rings: XskRings::new(
            (rx, tx),
            (fill, completion),
            umem,
            fresh,
            slot_size,
            tx_size as usize,
        ),
        region,
        granted,
    })
}

fn make_umem(
    options: &QueueOptions,
    config: UmemConfig,
    slots: u32,
) -> Result<(Umem, Vec<xsk_rs::FrameDesc>, Backing), OpenError> {
    let bytes = slots as usize * options.slot_size as usize;
    let failed = |source: io::Error, hint| OpenError::Umem {
        interface: options.interface.clone(),
        queue: options.queue,
        bytes,
        source,
        hint,
    };
    let count = NonZeroU32::new(slots).ok_or_else(|| {
        failed(
            io::Error::from(io::ErrorKind::InvalidInput),
            "; it needs slots",
        )
    })?;
    // munmap of huge pages fails on anything but whole ones, and leaks them.
    let whole = bytes.is_multiple_of(Region::HUGE_PAGE);
    if options.hugepages != HugePages::Off && whole {
        match Umem::new(config, count, true) {
            Ok((umem, fresh)) => return Ok((umem, fresh, Backing::Huge)),
            Err(e) if options.hugepages == HugePages::Require => {
                return Err(failed(
                    cause(&e),
                    "; reserve huge pages (sysctl vm.nr_hugepages) or set hugepages = \"auto\"",
                ));
            }
            Err(_) => {}
        }
    } else if options.hugepages == HugePages::Require {
        return Err(failed(
            io::Error::from(io::ErrorKind::InvalidInput),
            "; with huge pages slots * slot_size must be a multiple of 2 MiB",
        ));
    }
    let (umem, fresh) = Umem::new(config, count, false).map_err(|e| {
        let source = cause(&e);
        let hint = match source.raw_os_error() {
            Some(libc::EPERM) => "; it needs CAP_NET_RAW: run with sudo",
            Some(libc::ENOBUFS | libc::ENOMEM) => {
                "; set fewer slots or raise the limit of locked memory (ulimit -l)"
            }
            _ => "",
        };
        failed(source, hint)
    })?;
    Ok((umem, fresh, Backing::Normal))
}

/// The kernel's answer behind an error of xsk-rs.
fn cause(error: &(dyn std::error::Error + 'static)) -> io::Error {
    match error.source().and_then(|e| e.downcast_ref::<io::Error>()) {
        Some(e) => match e.raw_os_error() {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::other(e.to_string()),
        },
        None => io::Error::other(error.to_string()),
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

/// Asks the socket which mode the bind got.
fn granted(fd: RawFd) -> io::Result<Granted> {
    let mut options = libc::xdp_options { flags: 0 };
    let mut len = size_of::<libc::xdp_options>() as libc::socklen_t;
    // SAFETY: `options` and `len` describe a writable buffer of the option's size; `fd` is open.
    let answer = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_XDP,
            libc::XDP_OPTIONS,
            (&raw mut options).cast(),
            &raw mut len,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(if options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0 {
        Granted::ZeroCopy
    } else {
        Granted::Copy
    })
}
