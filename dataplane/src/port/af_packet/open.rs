//! Makes a packet socket with its ring (packet(7)). Run it in the interface's namespace, and on the core
//! that will read the ring: its memory is allocated there.

// System calls over memory that the kernel shares.
#![allow(unsafe_code)]

use std::{
    cell::Cell,
    fmt, io,
    num::NonZeroUsize,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr::NonNull,
};

use libc::{c_int, sock_filter};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::{
    filter,
    ring::{BLOCK, Ring},
};

/// After how many milliseconds the kernel hands over a block that is not full, so how late a frame can be.
/// Before Linux 6.18 it counts in scheduler ticks, of up to 10 ms.
const RETIRE: u32 = 1;

/// Which socket to make.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions<'a> {
    /// What the socket is of, for messages.
    pub interface: &'a str,
    /// The interface's index; `None` takes all of the namespace.
    pub ifindex: Option<u32>,
    /// Bytes of its ring, at least two blocks' ([`BLOCK`]).
    pub ring: usize,
    /// Leave out what the host sends.
    pub incoming_only: bool,
    /// Have the interface take frames that are for others. The kernel undoes it when the socket is closed.
    pub promiscuous: bool,
    /// How it shares the frames with other sockets.
    pub sharing: Sharing,
    /// Which frames it takes, from the first on. The sockets of a group take none ([`filter::nothing`]) until all
    /// are there, and then what [`let_in`] says: a group that grows moves flows from one to another.
    pub filter: &'a [sock_filter],
}

/// How sockets share frames (PACKET_FANOUT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// It has them all.
    Alone,
    /// It is the first of a new group.
    First,
    /// It joins a group. What each gets depends on how many there are.
    Join(u16),
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[error("{interface}: cannot {what}: {source}{hint}")]
pub struct OpenError {
    /// What the socket would be of.
    pub interface: String,
    /// What was tried.
    pub what: &'static str,
    /// The kernel's answer.
    pub source: io::Error,
    /// What to do, when that can be told.
    pub hint: &'static str,
}

/// What the kernel has counted for a socket since it was made (PACKET_STATISTICS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames that the filter let through, those dropped included.
    pub frames: u64,
    /// Those that found no room in the ring.
    pub dropped: u64,
}

/// An open socket.
pub struct PacketSocket {
    fd: OwnedFd,
    group: Option<u16>,
    /// The kernel starts from zero each time it is asked.
    counted: Cell<Statistics>,
}

impl fmt::Debug for PacketSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketSocket")
            .field("fd", &self.fd.as_raw_fd())
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

/// Makes a socket and its ring.
pub fn open(options: &SocketOptions<'_>) -> Result<(PacketSocket, Ring), OpenError> {
    let fail = |what, hint: fn(i32) -> &'static str| {
        move |source: io::Error| OpenError {
            interface: options.interface.to_owned(),
            what,
            hint: hint(source.raw_os_error().unwrap_or(0)),
            source,
        }
    };
    let no_hint = |_| "";
    let fd = deaf_socket().map_err(fail("open a packet socket", |errno| match errno {
        libc::EPERM => "; it needs CAP_NET_RAW: run with sudo",
        libc::EAFNOSUPPORT => "; the kernel has no packet sockets (CONFIG_PACKET)",
        _ => "",
    }))?;
    let_in(fd.as_fd(), options.filter).map_err(fail("filter its frames", no_hint))?;
    let ring = make_ring(&fd, options.ring).map_err(fail(
        "have a ring for its frames",
        |errno| match errno {
            libc::ENOMEM => "; set a smaller buffer",
            _ => "",
        },
    ))?;
    if options.incoming_only {
        set(&fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1)
            .map_err(fail("leave out what the host sends", no_hint))?;
    }
    bind(&fd, options.ifindex.unwrap_or(0)).map_err(fail("listen there", |errno| match errno {
        libc::ENODEV | libc::ENXIO => "; the interface is gone",
        _ => "",
    }))?;
    let group = share(&fd, options).map_err(fail(
        "share its frames between workers (PACKET_FANOUT)",
        |errno| match errno {
            // Before Linux 6.10 only a socket whose interface is up can join.
            libc::EINVAL => "; is the interface up? (ip link set up)",
            _ => "",
        },
    ))?;
    if options.promiscuous {
        take_all(&fd, options.ifindex.unwrap_or(0))
            .map_err(fail("make it promiscuous", no_hint))?;
    }
    let socket = PacketSocket {
        fd,
        group,
        counted: Cell::default(),
    };
    Ok((socket, ring))
}

/// A packet socket that receives nothing before it is bound: protocol 0 is none.
fn deaf_socket() -> io::Result<OwnedFd> {
    // SAFETY: a call without pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Has an interface take frames that are for others, for as long as the socket is open (packet(7),
/// PACKET_MR_PROMISC).
fn take_all(socket: &OwnedFd, ifindex: u32) -> io::Result<()> {
    let all = libc::packet_mreq {
        mr_ifindex: ifindex.cast_signed(),
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &all)
}

/// Has an interface of the calling thread's namespace take frames that are for others, until what is answered is
/// closed, however that comes about. No frame is received by it.
///
/// # Errors
///
/// Without CAP_NET_RAW, or without the interface.
pub fn promiscuous(ifindex: u32) -> io::Result<OwnedFd> {
    let socket = deaf_socket()?;
    take_all(&socket, ifindex)?;
    Ok(socket)
}

impl PacketSocket {
    /// Takes no further frame.
    pub(super) fn end(&self) {
        let _ = let_in(self.fd.as_fd(), &filter::nothing());
    }

    /// The group that it shares its frames with.
    pub fn group(&self) -> Option<u16> {
        self.group
    }

    /// What the kernel counted until now.
    pub fn statistics(&self) -> Statistics {
        let mut new = libc::tpacket_stats_v3 {
            tp_packets: 0,
            tp_drops: 0,
            tp_freeze_q_cnt: 0,
        };
        let mut all = self.counted.get();
        if get(
            &self.fd,
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            &mut new,
        )
        .is_ok()
        {
            all.frames += u64::from(new.tp_packets);
            all.dropped += u64::from(new.tp_drops);
            self.counted.set(all);
        }
        all
    }

    /// Takes the socket's error away, as long as which it is readable: that the interface went down, or away.
    pub(super) fn clear_error(&self) {
        let mut error: c_int = 0;
        let _ = get(&self.fd, libc::SOL_SOCKET, libc::SO_ERROR, &mut error);
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The ring's mapping.
struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread.
unsafe impl Send for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `make_ring`, and the ring over it is gone.
        let _ = unsafe { munmap(self.base.cast(), self.bytes) };
    }
}

fn make_ring(fd: &OwnedFd, bytes: usize) -> io::Result<Ring> {
    let version = libc::tpacket_versions::TPACKET_V3 as c_int;
    set(fd, libc::SOL_PACKET, libc::PACKET_VERSION, &version)?;
    let blocks = (bytes / BLOCK).max(2);
    let bytes = blocks * BLOCK;
    // Frames have no fixed size in this version; the kernel checks that the numbers agree all the same
    // (packet_set_ring).
    let frame = 2048;
    let request = libc::tpacket_req3 {
        tp_block_size: BLOCK as u32,
        tp_block_nr: blocks as u32,
        tp_frame_size: frame,
        tp_frame_nr: (bytes / frame as usize) as u32,
        tp_retire_blk_tov: RETIRE,
        tp_sizeof_priv: 0,
        tp_feature_req_word: 0,
    };
    set(fd, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
    let length = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: a new mapping, of the whole ring, at an address of the kernel's choice.
    let base = unsafe {
        mmap(
            None,
            length,
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE,
            fd,
            0,
        )
    }?;
    let mapping = Mapping {
        base: base.cast(),
        bytes,
    };
    // SAFETY: the mapping is of that size, aligned to a page, and lives as long as the ring, which owns it; it
    // keeps the memory although the socket may be closed. The kernel leaves a block alone that it has handed
    // over (net/packet/af_packet.c, prb_close_block).
    Ok(unsafe { Ring::over(mapping.base, BLOCK, blocks as u32, Box::new(mapping)) })
}

fn bind(fd: &OwnedFd, ifindex: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: ifindex.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `address` is a whole sockaddr_ll, and its size goes with it.
    done(unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    })
}

/// Makes or joins a group, by a hash of the flow that is the same for both directions. Fragments are not put
/// together before it (PACKET_FANOUT_FLAG_DEFRAG): then the datagram would come instead of the frames that
/// were on the wire. Without their ports, all fragments between two hosts have one hash.
fn share(fd: &OwnedFd, options: &SocketOptions<'_>) -> io::Result<Option<u16>> {
    let mut how = libc::PACKET_FANOUT_HASH;
    if options.incoming_only {
        how |= libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
    }
    let id = match options.sharing {
        Sharing::Alone => return Ok(None),
        Sharing::First => {
            // The kernel finds a number that no other group of the namespace has.
            how |= libc::PACKET_FANOUT_FLAG_UNIQUEID;
            0
        }
        Sharing::Join(id) => u32::from(id),
    };
    set(fd, libc::SOL_PACKET, libc::PACKET_FANOUT, &(how << 16 | id))?;
    let mut granted: u32 = 0;
    get(fd, libc::SOL_PACKET, libc::PACKET_FANOUT, &mut granted)?;
    Ok(Some(granted as u16))
}

/// Has a socket take those frames that `program` does, from now on.
pub fn let_in(socket: BorrowedFd<'_>, program: &[sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        // The kernel only reads it.
        filter: program.as_ptr().cast_mut(),
    };
    set(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Sets an option to a value of the kernel's own layout.
fn set<T>(fd: &impl AsRawFd, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    // SAFETY: the value and its size go together; what it points to (a filter) outlives the call.
    done(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })
}

/// Asks for an option whose value has the kernel's own layout, plain numbers.
fn get<T: Copy>(fd: &OwnedFd, level: c_int, option: c_int, value: &mut T) -> io::Result<()> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is writable for `len` bytes, and any bytes make one.
    done(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            option,
            std::ptr::from_mut(value).cast(),
            &raw mut len,
        )
    })
}

fn done(answer: c_int) -> io::Result<()> {
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
