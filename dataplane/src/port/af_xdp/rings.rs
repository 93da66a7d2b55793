//! The four rings of one AF_XDP queue, as the port uses them: an interface that tests can play from
//! memory. Slots and chunks are numbers here; UMEM addresses stay within [`XdpRings`](super::XdpRings).

use std::os::fd::BorrowedFd;

use crate::{
    frame::{Lease, Region},
    worker::counters::KernelCounters,
};

/// A received frame, or a part of one: where in which slot the kernel put it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The slot of the queue's region.
    pub slot: u32,
    /// Where in the slot the frame begins.
    pub offset: u32,
    /// Its length there in bytes.
    pub len: u32,
    /// Whether the frame goes on in the slot that comes next.
    pub more: bool,
}

/// A frame to transmit, or a part of one, within one chunk of the UMEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The chunk.
    pub chunk: u32,
    /// Where in the chunk the frame begins.
    pub offset: u32,
    /// Its length there in bytes.
    pub len: u32,
    /// Whether the frame goes on in the chunk that comes next.
    pub more: bool,
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
    /// Takes at most `max` received frames. Answers how many there were.
    fn receive(&mut self, max: usize, each: impl FnMut(Received)) -> usize;
    /// Looks at no more than `max` received frames without taking them.
    fn ahead(&mut self, max: usize, each: impl FnMut(Received));
    /// Whether a frame waits in the receive ring.
    fn readable(&mut self) -> bool;
    /// Gives slots of the queue's region to the kernel to receive into. All or nothing.
    fn fill(&mut self, slots: &[u32]) -> bool;
    /// Wakes the kernel when it said that it waits for slots.
    fn kick_fill(&mut self);
    /// Queues frames. All or nothing.
    fn transmit(&mut self, frames: &[Transmit]) -> bool;
    /// How many frames fit into the transmit ring, at least where `wanted` do.
    fn transmit_room(&mut self, wanted: usize) -> usize;
    /// Frames in the transmit ring that the kernel has not taken.
    fn untaken(&mut self) -> usize;
    /// Whether the kernel waits for a kick.
    fn wants_kick(&mut self) -> bool;
    /// Has the kernel transmit: in copy mode all that is there, before Linux 6.17 at most 32 entries a call
    /// (net/xdp/xsk.c, TX_BATCH_SIZE).
    fn kick(&mut self) -> Kick;
    /// Takes the chunks of at most `max` frames that were transmitted. Answers how many there were.
    fn completed(&mut self, max: usize, each: impl FnMut(u32)) -> usize;
    /// How many chunks the UMEM has.
    fn chunks(&self) -> u32;
    /// The chunk of the UMEM that a region's first slot is, if its slots are chunks of it.
    fn first_chunk(&self, region: &Region) -> Option<u32>;
    /// Ends when the socket is closed and the kernel reads no frame any more.
    fn lease(&self) -> &Lease;
    /// What becomes readable when frames arrive.
    fn fd(&self) -> BorrowedFd<'_>;
    /// XDP_STATISTICS.
    fn kernel(&self) -> KernelCounters;
}
