//! The XDP program of an AF_XDP port: loaded with aya, attached by a bpf_link that ends with its owner
//! (and with the process, however that ends), its map filled with the port's sockets.
//!
//! The program is `dataplane/bpf/xsk.c`; what happens to frames is documented there.

use std::{
    fmt, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Array, MapData, MapError, PerCpuArray, XskMap},
    programs::{ProgramError, Xdp},
};

use super::{errno_of, foreign::ForeignProgram, link, objects};
use crate::link::{
    netlink::{Netlink, XdpHook},
    netns::{NetNs, in_netns},
};

mod error;

pub use error::XdpError;

/// Flags of the `claims` map (xsk.c, `enum claim`).
const CLAIMED: u32 = 1;
const SINGLE_BUFFER: u32 = 2;
/// Counters of a queue (xsk.c, `enum counter`).
const COUNTERS: u32 = 4;

/// XDP_DROP and XDP_PASS (include/uapi/linux/bpf.h).
const DROP: u32 = 1;
const PASS: u32 = 2;

/// How the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, before a socket buffer is made.
    Native,
    /// On socket buffers: every driver can, slower.
    Skb,
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Skb => "skb",
        })
    }
}

/// Which mode is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpChoice {
    /// Native, and if the driver refuses, skb.
    Auto,
    /// This or an error.
    Only(XdpMode),
}

/// What happens to frames of queues that nobody has claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unclaimed {
    /// They are the host's: the port owns some of the queues.
    Pass,
    /// They are dropped and counted: the port owns the interface, and no queue that is switched on later
    /// may lead past it.
    Drop,
}

/// What becomes of a frame that comes in several buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It goes to the socket, which takes it so, or copies it, and drops what does not fit a chunk (XDP_STATISTICS,
    /// rx_dropped).
    Any,
    /// The program drops and counts it.
    SingleBuffer,
}

/// What to attach where.
#[derive(Clone, Debug)]
pub struct XdpOptions {
    /// Which mode is wanted.
    pub mode: XdpChoice,
    /// Receive queues that can be claimed: 0 to this, exclusive.
    pub queues: u32,
    /// What happens to frames of the others.
    pub unclaimed: Unclaimed,
}

/// Frames of one queue that the program did not give to a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Dropped: the queue was claimed, its socket not there.
    pub no_socket: u64,
    /// Dropped: in several buffers, for a zero-copy socket.
    pub multi_buffer: u64,
    /// Left to the host's stack.
    pub unclaimed_passed: u64,
    /// Dropped: nobody's queue.
    pub unclaimed_dropped: u64,
}

/// The program on one interface. Detached when dropped; gone with the process, too.
pub struct XdpProgram {
    // Before the program: the interface is free first.
    _link: link::XdpLink,
    xsks: XskMap<MapData>,
    claims: Array<MapData, u32>,
    counters: PerCpuArray<MapData, u64>,
    /// Keeps the program loaded.
    _ebpf: Ebpf,
    interface: String,
    ifindex: u32,
    queues: u32,
    mode: XdpMode,
    fallback: Option<String>,
}

impl fmt::Debug for XdpProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XdpProgram")
            .field("interface", &self.interface)
            .field("ifindex", &self.ifindex)
            .field("queues", &self.queues)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl XdpProgram {
    /// Loads the program and attaches it to an interface of `ns`. No queue is claimed yet.
    ///
    /// # Errors
    ///
    /// Without privilege or interface, when another program is there, and when the driver refuses.
    pub fn attach(ns: &NetNs, interface: &str, options: &XdpOptions) -> Result<Self, XdpError> {
        let mut netlink = Netlink::open(ns)?;
        let ifindex = free_interface(&mut netlink, ns, interface)?;
        let queues = options.queues.max(1);
        let mut ebpf = load(queues, options.unclaimed).map_err(|error| XdpError::Load {
            ns: ns.clone(),
            interface: interface.into(),
            error: error.into(),
        })?;
        let (program, id) = program_of(&mut ebpf).map_err(|error| XdpError::Load {
            ns: ns.clone(),
            interface: interface.into(),
            error: Box::new(error.into()),
        })?;
        let attach = |mode: XdpMode| {
            in_netns(ns, || {
                link::attach_xdp(program.as_fd(), ifindex, mode == XdpMode::Skb)
            })
        };

        let first = match options.mode {
            XdpChoice::Auto => XdpMode::Native,
            XdpChoice::Only(mode) => mode,
        };
        let (mut mode, mut fallback) = (first, None);
        let mut result = attach(mode)?;
        if let Err(error) = &result
            && options.mode == XdpChoice::Auto
            && !ends_the_search(error)
        {
            fallback = Some(format!("native XDP refused: {error}"));
            mode = XdpMode::Skb;
            result = attach(mode)?;
        }
        let link = match result {
            Ok(link) => link,
            Err(error) => {
                if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) {
                    // Somebody was faster.
                    free_interface(&mut netlink, ns, interface)?;
                }
                return Err(XdpError::Attach {
                    ns: ns.clone(),
                    interface: interface.into(),
                    mode,
                    error,
                });
            }
        };
        let hook = match mode {
            XdpMode::Native => XdpHook::Native,
            XdpMode::Skb => XdpHook::Skb,
        };
        let attached = netlink
            .link_by_index(ifindex)?
            .is_some_and(|link| link.xdp.iter().any(|a| a.hook == hook && a.program == id));
        if !attached {
            return Err(XdpError::Replaced {
                ns: ns.clone(),
                interface: interface.into(),
            });
        }
        let map_error = |error| XdpError::Load {
            ns: ns.clone(),
            interface: interface.into(),
            error: Box::new(EbpfError::MapError(error)),
        };
        Ok(Self {
            _link: link,
            xsks: take(&mut ebpf, "xsks").map_err(map_error)?,
            claims: take(&mut ebpf, "claims").map_err(map_error)?,
            counters: take(&mut ebpf, "counters").map_err(map_error)?,
            _ebpf: ebpf,
            interface: interface.into(),
            ifindex,
            queues,
            mode,
            fallback,
        })
    }

    /// The mode that it runs in.
    pub fn mode(&self) -> XdpMode {
        self.mode
    }

    /// Why it is not native although mode `auto` would rather have that.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// The interface's index in its namespace.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Claims a queue: from now on none of its frames reaches the host. Until [`XdpProgram::set`] they are
    /// dropped and counted.
    ///
    /// # Errors
    ///
    /// When there is no such queue, or the map cannot be changed.
    pub fn claim(&mut self, queue: u32) -> Result<(), XdpError> {
        self.check(queue)?;
        let flags = self
            .claims
            .get(&queue, 0)
            .map_err(|error| self.map_error(queue, "look at its claim", error))?;
        // What a socket there needs stays.
        self.write_claim(queue, flags | CLAIMED)
    }

    /// Claims a queue and gives its frames to an AF_XDP socket that is bound to it. `delivery` is the mode that
    /// the socket was granted (XDP_OPTIONS). An earlier socket is replaced.
    ///
    /// # Errors
    ///
    /// When there is no such queue, or the descriptor is no AF_XDP socket.
    pub fn set(
        &mut self,
        queue: u32,
        socket: &impl AsRawFd,
        delivery: Delivery,
    ) -> Result<(), XdpError> {
        // The claim first: a zero-copy socket must not get a frame in pieces, not even at the start.
        self.write_claim(
            queue,
            match delivery {
                Delivery::Any => CLAIMED,
                Delivery::SingleBuffer => CLAIMED | SINGLE_BUFFER,
            },
        )?;
        self.xsks
            .set(queue, socket.as_raw_fd(), 0)
            .map_err(|error| self.map_error(queue, "hand its frames to the socket", error))
    }

    /// Takes a queue's socket out of the map. The queue stays claimed: its frames are dropped and counted.
    /// A socket that is closed leaves the map by itself; that there is none is no error.
    ///
    /// # Errors
    ///
    /// When there is no such queue, or the map cannot be changed.
    pub fn unset(&mut self, queue: u32) -> Result<(), XdpError> {
        self.check(queue)?;
        match self.xsks.unset(queue) {
            Err(MapError::KeyNotFound) => Ok(()),
            Err(error) if errno_of(&error) == Some(libc::ENOENT) => Ok(()),
            result => result.map_err(|error| self.map_error(queue, "take the socket away", error)),
        }
    }

    /// What became of the frames of one queue that no socket got.
    ///
    /// # Errors
    ///
    /// When there is no such queue, or the map cannot be read.
    pub fn counters(&self, queue: u32) -> Result<QueueCounters, XdpError> {
        self.check(queue)?;
        self.counter_row(queue)
    }

    /// The same for all queues beyond those that can be claimed, together.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn other_counters(&self) -> Result<QueueCounters, XdpError> {
        self.counter_row(self.queues)
    }

    fn counter_row(&self, row: u32) -> Result<QueueCounters, XdpError> {
        let sum = |counter| {
            self.counters
                .get(&(row * COUNTERS + counter), 0)
                .map(|cpus| cpus.iter().sum::<u64>())
                .map_err(|error| self.map_error(row, "read its counters", error))
        };
        Ok(QueueCounters {
            no_socket: sum(0)?,
            multi_buffer: sum(1)?,
            unclaimed_passed: sum(2)?,
            unclaimed_dropped: sum(3)?,
        })
    }

    fn write_claim(&mut self, queue: u32, flags: u32) -> Result<(), XdpError> {
        self.check(queue)?;
        self.claims
            .set(queue, flags, 0)
            .map_err(|error| self.map_error(queue, "claim it", error))
    }

    fn check(&self, queue: u32) -> Result<(), XdpError> {
        if queue < self.queues {
            return Ok(());
        }
        Err(XdpError::NoQueue {
            interface: self.interface.clone(),
            queue,
            queues: self.queues,
        })
    }

    fn map_error(&self, queue: u32, what: &'static str, error: MapError) -> XdpError {
        XdpError::Map {
            interface: self.interface.clone(),
            queue,
            what,
            error: error.into(),
        }
    }
}

/// Errors that the other mode would meet as well, or that must not be worked around.
fn ends_the_search(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::EACCES | libc::ENODEV | libc::EBUSY | libc::EEXIST)
    )
}

/// The index of an interface that has no XDP program.
fn free_interface(netlink: &mut Netlink, ns: &NetNs, interface: &str) -> Result<u32, XdpError> {
    let link = netlink
        .link_by_name(interface)?
        .ok_or_else(|| XdpError::NoInterface {
            ns: ns.clone(),
            interface: interface.into(),
        })?;
    match link.xdp.first() {
        None => Ok(link.ifindex),
        Some(attached) => Err(XdpError::Occupied {
            ns: ns.clone(),
            interface: interface.into(),
            program: ForeignProgram::describe(attached.program).into(),
        }),
    }
}

fn load(queues: u32, unclaimed: Unclaimed) -> Result<Ebpf, EbpfError> {
    let unclaimed = match unclaimed {
        Unclaimed::Pass => PASS,
        Unclaimed::Drop => DROP,
    };
    let mut loader = EbpfLoader::new();
    loader
        // Our programs know no kernel structure. Parsing the kernel's BTF for them would cost 40 ms and
        // leave 20 MB in the allocator.
        .btf(None)
        .map_max_entries("xsks", queues)
        .map_max_entries("claims", queues)
        .map_max_entries("counters", (queues + 1) * COUNTERS)
        .override_global("queues", &queues, true)
        .override_global("unclaimed", &unclaimed, true);
    let mut ebpf = loader.load(objects::xsk())?;
    xdp(&mut ebpf)?.load()?;
    Ok(ebpf)
}

fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, ProgramError> {
    ebpf.program_mut("xsk")
        .ok_or(ProgramError::NotLoaded)?
        .try_into()
}

fn program_of(ebpf: &mut Ebpf) -> Result<(OwnedFd, u32), ProgramError> {
    let program = xdp(ebpf)?;
    let id = program.info()?.id();
    let fd = program
        .fd()?
        .as_fd()
        .try_clone_to_owned()
        .map_err(|io_error| {
            ProgramError::SyscallError(aya::sys::SyscallError {
                call: "fcntl",
                io_error,
            })
        })?;
    Ok((fd, id))
}

fn take<M: TryFrom<aya::maps::Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &str,
) -> Result<M, MapError> {
    ebpf.take_map(name)
        .ok_or_else(|| MapError::InvalidName { name: name.into() })?
        .try_into()
}

#[cfg(test)]
mod tests;
