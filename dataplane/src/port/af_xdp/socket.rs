//! An AF_XDP socket by its system calls (net/xdp/xsk.c): UMEM registered, rings mapped, bound to a
//! queue. This file alone turns slots and chunks into UMEM addresses.
//!
//! The UMEM has aligned chunks, each as large as a slot; the kernel reads a frame from anywhere within
//! one (net/xdp/xsk_queue.h, `xp_aligned_validate_desc`).

// Hands memory to the kernel, maps what it shares with us, and passes structures to it by address.
#![allow(unsafe_code)]

use std::{
    io,
    num::NonZeroUsize,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr::NonNull,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        mman::{MapFlags, ProtFlags, mmap, munmap},
        socket::{MsgFlags, recv, send},
    },
};

use super::{
    Granted,
    ring::{Consumer, Offsets, Producer},
    rings::{Kick, Received, Rings, Transmit},
};
use crate::{
    frame::{Lease, Part, Region},
    worker::counters::KernelCounters,
};

/// Memory that a socket's frames are in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Umem {
    /// The address of its first byte, at the beginning of a page.
    pub(super) base: usize,
    /// Its length in bytes, in whole chunks.
    bytes: usize,
    /// Bytes of a chunk: 2048 or 4096.
    chunk: u32,
    /// The chunk that the queue's own region begins with.
    first: u32,
}

impl Umem {
    pub(super) fn new(part: &Part, whole: bool) -> Self {
        let (memory, first) = if whole {
            (part.arena(), part.first_slot())
        } else {
            (part.own(), 0)
        };
        Self {
            base: memory.0.addr().get(),
            bytes: memory.1,
            chunk: part.slot_size(),
            first,
        }
    }

    pub(super) fn chunks(&self) -> u32 {
        (self.bytes >> self.chunk.trailing_zeros()) as u32
    }

    /// The chunk that a region's first slot is, if all of its slots are chunks.
    #[inline]
    pub(super) fn first_chunk(&self, region: &Region) -> Option<u32> {
        let (base, bytes) = region.as_raw();
        let at = base.addr().checked_sub(self.base)?;
        let inside = at < self.bytes && bytes <= self.bytes - at;
        (inside && region.slot_size() == self.chunk as usize)
            .then_some((at >> self.chunk.trailing_zeros()) as u32)
    }
}

/// How long a driver may read frames after a zero-copy socket is closed: it is told to stop by a worker of
/// the kernel that waits for others (net/xdp/xsk_buff_pool.c, `xp_put_pool`).
const ZERO_COPY_GRACE: Duration = Duration::from_secs(1);

/// How many frames a kick takes in copy mode, up to the transmit ring's size (include/uapi/linux/if_xdp.h, since
/// Linux 6.17).
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// How many entries each ring has, powers of two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) fill: u32,
    pub(super) completion: u32,
    pub(super) rx: u32,
    pub(super) tx: u32,
}

/// What a step of making a socket is for, in an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// socket(2).
    Socket,
    /// XDP_UMEM_REG, with how many bytes.
    Umem(usize),
    /// The sizes of rings and their mapping.
    Rings,
    /// bind(2), and asking what it granted.
    Bind,
}

/// The rings of a bound socket.
#[derive(Debug)]
pub struct XdpRings {
    // The rings' mappings hold the socket open as well: they go first, so that it is closed when `socket` is.
    rx: Consumer<libc::xdp_desc>,
    tx: Producer<libc::xdp_desc>,
    fill: Producer<u64>,
    completion: Consumer<u64>,
    socket: OwnedFd,
    // What follows outlasts the socket.
    lease: Lease,
    _part: Part,
    umem: Umem,
    /// A chunk is `1 << shift` bytes.
    shift: u32,
}

impl XdpRings {
    /// Makes a socket over `umem` and binds it to a queue of the interface with this index, in the calling
    /// thread's namespace.
    ///
    /// The kernel then writes to the slots of `part`, the queue's own region, that are given to
    /// [`Rings::fill`], and reads chunks that are given to [`Rings::transmit`], until they come back: the pool
    /// lends them and has them submitted as long. With `transmits` the UMEM is the whole arena, else the
    /// part alone.
    pub(super) fn open(
        part: Part,
        transmits: bool,
        sizes: Sizes,
        interface: u32,
        queue: u32,
        flags: u16,
    ) -> Result<(Self, Granted), (Step, io::Error)> {
        let at = |step| move |error: io::Error| (step, error);
        let umem = Umem::new(&part, transmits);
        let socket = socket().map_err(at(Step::Socket))?;
        let registration = libc::xdp_umem_reg {
            addr: umem.base as u64,
            len: umem.bytes as u64,
            chunk_size: umem.chunk,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        set(&socket, libc::XDP_UMEM_REG, &registration).map_err(at(Step::Umem(umem.bytes)))?;
        for (option, size) in [
            (libc::XDP_UMEM_FILL_RING, sizes.fill),
            (libc::XDP_UMEM_COMPLETION_RING, sizes.completion),
            (libc::XDP_RX_RING, sizes.rx),
            (libc::XDP_TX_RING, sizes.tx),
        ] {
            set(&socket, option, &size).map_err(at(Step::Rings))?;
        }
        // A kick then takes all there is. An older kernel refuses, and takes 32 frames.
        let _ = set(&socket, XDP_MAX_TX_SKB_BUDGET, &sizes.tx);
        let zero = libc::xdp_ring_offset {
            producer: 0,
            consumer: 0,
            desc: 0,
            flags: 0,
        };
        let mut offsets = libc::xdp_mmap_offsets {
            rx: zero,
            tx: zero,
            fr: zero,
            cr: zero,
        };
        get(&socket, libc::XDP_MMAP_OFFSETS, &mut offsets).map_err(at(Step::Rings))?;
        const FILL: libc::off_t = libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t;
        const COMPLETION: libc::off_t = libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t;
        let map = |where_: libc::xdp_ring_offset, entry, size, page| {
            let offsets = Offsets {
                producer: where_.producer as usize,
                consumer: where_.consumer as usize,
                flags: where_.flags as usize,
                entries: where_.desc as usize,
            };
            let bytes = offsets.entries + entry * size as usize;
            let mapping = Mapping::new(&socket, bytes, page).map_err(at(Step::Rings))?;
            Ok((mapping.base.cast::<u8>(), offsets, size, Box::new(mapping)))
        };
        let desc = size_of::<libc::xdp_desc>();
        let (rx, tx) = (
            map(offsets.rx, desc, sizes.rx, libc::XDP_PGOFF_RX_RING)?,
            map(offsets.tx, desc, sizes.tx, libc::XDP_PGOFF_TX_RING)?,
        );
        let (fill, completion) = (
            map(offsets.fr, size_of::<u64>(), sizes.fill, FILL)?,
            map(offsets.cr, size_of::<u64>(), sizes.completion, COMPLETION)?,
        );
        // SAFETY: each mapping is a ring of so many entries with its parts where the kernel says they are
        // (XDP_MMAP_OFFSETS), lives as long as the ring, and is new: nobody else is on our side.
        let (rx, tx, fill, completion) = unsafe {
            (
                Consumer::new(rx.0, rx.1, rx.2, rx.3),
                Producer::new(tx.0, tx.1, tx.2, tx.3),
                Producer::new(fill.0, fill.1, fill.2, fill.3),
                Consumer::new(completion.0, completion.1, completion.2, completion.3),
            )
        };
        bind(&socket, interface, queue, flags).map_err(at(Step::Bind))?;
        let mut options = libc::xdp_options { flags: 0 };
        get(&socket, libc::XDP_OPTIONS, &mut options).map_err(at(Step::Bind))?;
        let granted = if options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0 {
            Granted::ZeroCopy
        } else {
            Granted::Copy
        };
        let rings = Self {
            rx,
            tx,
            fill,
            completion,
            socket,
            lease: Lease::new(match granted {
                Granted::Copy => Duration::ZERO,
                Granted::ZeroCopy => ZERO_COPY_GRACE,
            }),
            _part: part,
            umem,
            shift: umem.chunk.trailing_zeros(),
        };
        Ok((rings, granted))
    }
}

impl Rings for XdpRings {
    #[inline]
    fn receive(&mut self, max: usize, mut each: impl FnMut(Received)) -> usize {
        let (first, shift) = (self.umem.first, self.shift);
        self.rx
            .consume(max, |desc| each(received(desc, first, shift)))
    }

    #[inline]
    fn ahead(&mut self, max: usize, mut each: impl FnMut(Received)) {
        let (first, shift) = (self.umem.first, self.shift);
        self.rx.peek(max, |desc| each(received(desc, first, shift)));
    }

    #[inline]
    fn readable(&mut self) -> bool {
        self.rx.available(1) > 0
    }

    #[inline]
    fn fill(&mut self, slots: &[u32]) -> bool {
        let (first, shift) = (self.umem.first, self.shift);
        let address = |slot: &u32| u64::from(first + slot) << shift;
        self.fill.produce(slots.iter().map(address))
    }

    fn kick_fill(&mut self) {
        if self.fill.needs_wakeup() {
            // The answer does not matter: the kernel looks at the fill ring, and data never comes.
            let _ = recv(self.socket.as_raw_fd(), &mut [], MsgFlags::MSG_DONTWAIT);
        }
    }

    #[inline]
    fn transmit(&mut self, frames: &[Transmit]) -> bool {
        let shift = self.shift;
        self.tx.produce(frames.iter().map(|frame| libc::xdp_desc {
            addr: (u64::from(frame.chunk) << shift) + u64::from(frame.offset),
            len: frame.len,
            options: if frame.more { libc::XDP_PKT_CONTD } else { 0 },
        }))
    }

    #[inline]
    fn transmit_room(&mut self, wanted: usize) -> usize {
        self.tx.room(wanted)
    }

    #[inline]
    fn untaken(&mut self) -> usize {
        self.tx.untaken()
    }

    #[inline]
    fn wants_kick(&mut self) -> bool {
        self.tx.needs_wakeup()
    }

    fn kick(&mut self) -> Kick {
        match send(self.socket.as_raw_fd(), &[], MsgFlags::MSG_DONTWAIT) {
            Ok(_) => Kick::Done,
            Err(Errno::EAGAIN) => Kick::Again,
            Err(Errno::EBUSY | Errno::ENOBUFS | Errno::EINTR | Errno::ENOMEM) => Kick::Later,
            Err(_) => Kick::Down,
        }
    }

    #[inline]
    fn completed(&mut self, max: usize, mut each: impl FnMut(u32)) -> usize {
        let shift = self.shift;
        // The address as it was transmitted: its chunk is what is asked for.
        self.completion
            .consume(max, |address| each((address >> shift) as u32))
    }

    fn chunks(&self) -> u32 {
        self.umem.chunks()
    }

    #[inline]
    fn first_chunk(&self, region: &Region) -> Option<u32> {
        self.umem.first_chunk(region)
    }

    fn lease(&self) -> &Lease {
        &self.lease
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn kernel(&self) -> KernelCounters {
        let mut counted = libc::xdp_statistics {
            rx_dropped: 0,
            rx_invalid_descs: 0,
            tx_invalid_descs: 0,
            rx_ring_full: 0,
            rx_fill_ring_empty_descs: 0,
            tx_ring_empty_descs: 0,
        };
        // Refused, they stay zero.
        let _ = get(&self.socket, libc::XDP_STATISTICS, &mut counted);
        KernelCounters {
            rx_dropped: counted.rx_dropped,
            rx_invalid_descs: counted.rx_invalid_descs,
            tx_invalid_descs: counted.tx_invalid_descs,
            rx_ring_full: counted.rx_ring_full,
            rx_fill_ring_empty_descs: counted.rx_fill_ring_empty_descs,
            tx_ring_empty_descs: counted.tx_ring_empty_descs,
        }
    }
}

/// What a descriptor says. Of a chunk that is not the region's, which the kernel was never given, comes a
/// slot that the region does not have.
#[inline]
fn received(desc: libc::xdp_desc, first: u32, shift: u32) -> Received {
    Received {
        slot: ((desc.addr >> shift) as u32).wrapping_sub(first),
        offset: (desc.addr & ((1 << shift) - 1)) as u32,
        len: desc.len,
        more: desc.options & libc::XDP_PKT_CONTD != 0,
    }
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// setsockopt(2) with an option that is the structure `T`.
fn set<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is a whole `T` that outlives the call, and its size goes with it.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// getsockopt(2) with an option that is the structure `T`, of integers alone.
fn get<T>(socket: &OwnedFd, option: libc::c_int, value: &mut T) -> io::Result<()> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` and `len` describe a writable buffer of the option's size; every pattern of bits is
    // a `T`, as the callers use it.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            option,
            std::ptr::from_mut(value).cast(),
            &raw mut len,
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn bind(socket: &OwnedFd, interface: u32, queue: u32, flags: u16) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: interface,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: 0,
    };
    // SAFETY: `address` is a whole sockaddr_xdp that outlives the call, and its size goes with it.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    if bound == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A ring's memory, which the kernel allocated.
struct Mapping {
    base: NonNull<libc::c_void>,
    bytes: usize,
}

// SAFETY: the value owns its mapping alone; unmapping is allowed from any thread.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(socket: &OwnedFd, bytes: usize, page: libc::off_t) -> io::Result<Self> {
        let length = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let base = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE,
                socket,
                page,
            )
        }?;
        Ok(Self { base, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, unmapped once; the ring over it is gone.
        let unmapped = unsafe { munmap(self.base, self.bytes) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}
