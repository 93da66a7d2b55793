//! The four rings of one AF_XDP queue, as the port uses them: an interface that tests can play from
//! memory, and its implementation over an xsk-rs socket. Slots are numbers here; UMEM addresses stay
//! within this file.

// Descriptors on the rings give the kernel slots, and take them back.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue, Umem};

use crate::worker::counters::KernelCounters;

/// Descriptors moved at a time.
pub(super) const CHUNK: usize = 64;

/// A received frame: where in which slot the kernel put it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The slot.
    pub slot: u32,
    /// Where in the slot the frame begins.
    pub offset: u32,
    /// The frame's length in bytes.
    pub len: u32,
}

/// A frame to transmit; it begins at the region's headroom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The slot.
    pub slot: u32,
    /// The frame's length in bytes.
    pub len: u32,
}

/// What came of a kick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kick {
    /// The kernel took all it could see.
    Done,
    /// It stopped at its budget (EAGAIN) and wants another kick.
    Again,
    /// It could not now: the device is busy or out of buffers (EBUSY, ENOBUFS).
    Later,
    /// The link is down or the device gone (ENETDOWN, ENXIO and the like).
    Down,
}

/// The rings of one queue.
pub trait Rings: Send {
    /// Takes at most `max` received frames; `into` has room for them.
    fn receive(&mut self, max: usize, into: &mut Vec<Received>);
    /// Whether a frame waits in the receive ring.
    fn readable(&mut self) -> bool;
    /// Gives slots to the kernel to receive into. All or nothing.
    fn fill(&mut self, slots: &[u32]) -> bool;
    /// Wakes the kernel when it said that it waits for slots.
    fn kick_fill(&mut self);
    /// Queues frames. All or nothing.
    fn transmit(&mut self, frames: &[Transmit]) -> bool;
    /// Frames that fit into the transmit ring now.
    fn transmit_room(&mut self) -> usize;
    /// Frames in the transmit ring that the kernel has not taken.
    fn untaken(&mut self) -> usize;
    /// Whether the kernel waits for a kick.
    fn wants_kick(&mut self) -> bool;
    /// Has the kernel transmit: 32 frames a call in copy mode (net/xdp/xsk.c, TX_BATCH_SIZE).
    fn kick(&mut self) -> Kick;
    /// Takes slots whose frames were transmitted; `into` has room for 64.
    fn completed(&mut self, into: &mut Vec<u32>);
    /// What becomes readable when frames arrive.
    fn fd(&self) -> BorrowedFd<'_>;
    /// XDP_STATISTICS.
    fn kernel(&self) -> KernelCounters;
}

/// The rings of an xsk-rs socket that owns its UMEM.
#[derive(Debug)]
pub struct XskRings {
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    umem: Umem,
    /// One a slot, as the UMEM made them: addresses of fresh frames.
    fresh: Vec<FrameDesc>,
    /// 64 descriptors to pass to and fro.
    scratch: Vec<FrameDesc>,
    /// The slot's size is 1 << this: a division a frame shows.
    slot_shift: u32,
    tx_size: usize,
}

impl XskRings {
    /// Rings of a socket just made over `umem`, whose descriptors are `fresh`. `slot_size` is a power of
    /// two: the kernel takes no other.
    pub(super) fn new(
        (rx, tx): (RxQueue, TxQueue),
        (fill, completion): (FillQueue, CompQueue),
        umem: Umem,
        fresh: Vec<FrameDesc>,
        slot_size: usize,
        tx_size: usize,
    ) -> Self {
        Self {
            rx,
            tx,
            fill,
            completion,
            umem,
            fresh,
            scratch: vec![FrameDesc::default(); CHUNK],
            slot_shift: slot_size.trailing_zeros(),
            tx_size,
        }
    }
}

impl Rings for XskRings {
    #[inline]
    fn receive(&mut self, max: usize, into: &mut Vec<Received>) {
        let max = max.min(CHUNK);
        // SAFETY: the receive ring belongs to a socket over `self.umem`, so its descriptors are of
        // this UMEM; nothing reads memory here, and the pool checks slot and bounds of each.
        let n = unsafe { self.rx.consume(&mut self.scratch[..max]) };
        for desc in &self.scratch[..n] {
            into.push(Received {
                slot: (desc.addr() >> self.slot_shift) as u32,
                offset: (desc.addr() & ((1 << self.slot_shift) - 1)) as u32,
                len: desc.lengths().data() as u32,
            });
        }
    }

    #[inline]
    fn readable(&mut self) -> bool {
        self.rx.nb_avail(1) > 0
    }

    #[inline]
    fn fill(&mut self, slots: &[u32]) -> bool {
        let slots = &slots[..slots.len().min(CHUNK)];
        for (desc, &slot) in self.scratch.iter_mut().zip(slots) {
            *desc = self.fresh[slot as usize];
        }
        // SAFETY: the descriptors are this UMEM's own, and the pool has lent their slots: nothing
        // else touches them until the receive ring brings them back.
        unsafe { self.fill.produce(&self.scratch[..slots.len()]) == slots.len() }
    }

    fn kick_fill(&mut self) {
        if self.fill.needs_wakeup() {
            let mut nothing = [0u8; 0];
            // The answer does not matter: the kernel looks at the fill ring, and data never comes.
            let _ = nix::sys::socket::recv(
                self.rx.fd().as_raw_fd(),
                &mut nothing,
                nix::sys::socket::MsgFlags::MSG_DONTWAIT,
            );
        }
    }

    #[inline]
    fn transmit(&mut self, frames: &[Transmit]) -> bool {
        let frames = &frames[..frames.len().min(CHUNK)];
        for (desc, frame) in self.scratch.iter_mut().zip(frames) {
            *desc = self.fresh[frame.slot as usize];
            // SAFETY: the descriptor is this UMEM's own; the slot is on its way out and only read,
            // and the cursor sets the length without touching the bytes.
            unsafe { self.umem.data_mut(desc) }
                .cursor()
                .set_pos(frame.len as usize);
        }
        // SAFETY: the descriptors are this UMEM's own, and the pool keeps their slots submitted
        // until the completion ring brings them back.
        unsafe { self.tx.produce(&self.scratch[..frames.len()]) == frames.len() }
    }

    #[inline]
    fn transmit_room(&mut self) -> usize {
        self.tx.nb_free_exact() as usize
    }

    #[inline]
    fn untaken(&mut self) -> usize {
        self.tx_size - (self.tx.nb_free_exact() as usize).min(self.tx_size)
    }

    #[inline]
    fn wants_kick(&mut self) -> bool {
        self.tx.needs_wakeup()
    }

    fn kick(&mut self) -> Kick {
        // xsk-rs's own `wakeup` swallows the answers that matter here.
        match nix::sys::socket::send(
            self.tx.fd().as_raw_fd(),
            &[],
            nix::sys::socket::MsgFlags::MSG_DONTWAIT,
        ) {
            Ok(_) => Kick::Done,
            Err(Errno::EAGAIN) => Kick::Again,
            Err(Errno::EBUSY | Errno::ENOBUFS | Errno::EINTR | Errno::ENOMEM) => Kick::Later,
            Err(_) => Kick::Down,
        }
    }

    #[inline]
    fn completed(&mut self, into: &mut Vec<u32>) {
        // SAFETY: the completion ring belongs to a socket over `self.umem`; nothing reads memory.
        let n = unsafe { self.completion.consume(&mut self.scratch[..CHUNK]) };
        for desc in &self.scratch[..n] {
            into.push((desc.addr() >> self.slot_shift) as u32);
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket lives as long as `self.rx`, hence as long as the borrow.
        unsafe { BorrowedFd::borrow_raw(self.rx.fd().as_raw_fd()) }
    }

    fn kernel(&self) -> KernelCounters {
        match self.rx.fd().xdp_statistics() {
            Ok(s) => KernelCounters {
                rx_dropped: s.rx_dropped(),
                rx_invalid_descs: s.rx_invalid_descs(),
                tx_invalid_descs: s.tx_invalid_descs(),
                rx_ring_full: s.rx_ring_full(),
                rx_fill_ring_empty_descs: s.rx_fill_ring_empty_descs(),
                tx_ring_empty_descs: s.tx_ring_empty_descs(),
            },
            Err(_) => KernelCounters::default(),
        }
    }
}
