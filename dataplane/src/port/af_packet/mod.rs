//! Frames of an interface that keeps its traffic: copies of what the host receives and sends, through a
//! packet socket (packet(7)). Only a source.
//!
//! The kernel copies each frame into a ring of blocks (TPACKET_V3), from where it is copied once into a slot of
//! the worker's own region. The blocks pay: on a veth, 60-byte frames, both ends busy on two cores, the reader
//! took 30 ns of its processor for each frame, copy included, against 940 ns with a ring of single frames
//! (TPACKET_V2: it sleeps and is woken all the time, and its status words go back and forth between the cores)
//! and 1,340 ns with `recvmmsg` straight into slots; with 1,514-byte frames 200, 1,040 and 1,390 ns. The price
//! is that a frame waits up to a millisecond until the kernel hands over a block that is not full.

pub mod filter;
mod open;
mod ring;
#[cfg(test)]
mod tests;

use std::{
    cell::Cell,
    fmt,
    os::fd::{AsFd, BorrowedFd},
};

pub use open::{
    OpenError, PacketSocket, Sharing, SocketOptions, Statistics, let_in, open, promiscuous,
};
pub use ring::{Arrived, BLOCK, Next, Ring};

use super::{Io, Place, Port, PortFailure, SHORTEST, Wait};
use crate::{
    frame::{Frame, RegionId, Staged},
    policy::Reason,
    worker::{
        counters::KernelCounters,
        ring::{Completion, Op},
    },
};

/// The two addresses of an Ethernet header: what stands before a VLAN tag.
const ADDRESSES: usize = 12;
/// A VLAN tag.
const TAG: usize = 4;

/// What a port is told when it is made.
#[derive(Clone, Debug)]
pub struct AfPacketOptions {
    /// What it listens on, for messages.
    pub interface: String,
    /// The longest frame that is handed on, Ethernet header and tags included, in bytes.
    pub max_frame: usize,
    /// What to do about frames that are too long, for the message about the first.
    pub remedy: String,
}

/// The socket as the port sees it.
trait Socket: Send {
    fn end(&self);
    fn statistics(&self) -> Statistics;
    fn clear_error(&self);
    fn fd(&self) -> BorrowedFd<'_>;
}

impl Socket for PacketSocket {
    fn end(&self) {
        self.end();
    }
    fn statistics(&self) -> Statistics {
        self.statistics()
    }
    fn clear_error(&self) {
        self.clear_error();
    }
    fn fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

/// One packet socket as a port.
// Control boxes the ports of all workers one after another: by its alignment (x86 fetches lines in pairs) none
// shares a cache line with a port of another worker.
#[repr(align(128))]
pub struct AfPacketPort {
    // The ring goes before the socket: the kernel frees its memory when both are gone.
    ring: Ring,
    socket: Box<dyn Socket>,
    options: AfPacketOptions,
    place: Place,
    region: Option<RegionId>,
    /// Frames taken from the ring.
    read: u64,
    /// Rounds of the ring when the kernel was last asked what it counted.
    asked: u64,
    /// How many dropped frames somebody was told of.
    told: Cell<u64>,
    polling: bool,
    failure: Option<PortFailure>,
    complained: bool,
    closed: bool,
}

impl fmt::Debug for AfPacketPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AfPacketPort")
            .field("interface", &self.options.interface)
            .field("read", &self.read)
            .finish_non_exhaustive()
    }
}

impl AfPacketPort {
    /// The port of an open socket.
    pub fn new(socket: PacketSocket, ring: Ring, options: AfPacketOptions) -> Self {
        Self::with_socket(Box::new(socket), ring, options)
    }

    fn with_socket(socket: Box<dyn Socket>, ring: Ring, options: AfPacketOptions) -> Self {
        Self {
            ring,
            socket,
            options,
            place: Place::default(),
            region: None,
            read: 0,
            asked: 0,
            told: Cell::new(0),
            polling: false,
            failure: None,
            complained: false,
            closed: false,
        }
    }

    /// Says once that frames are too long; they are all counted.
    #[cold]
    fn too_long(&mut self, io: &mut Io, bytes: usize) {
        if !std::mem::replace(&mut self.complained, true) {
            io.trouble = true;
            self.failure = Some(PortFailure::first(format!(
                "{}: a frame of {bytes} bytes is longer than the {} that fit; it and further ones are counted as too_long; {}",
                self.options.interface, self.options.max_frame, self.options.remedy
            )));
        }
    }
}

/// Puts a frame into an empty one, with the tag that was kept beside it. `false` when it does not fit.
#[inline]
fn copy(io: &mut Io, frame: &mut Frame, arrived: &Arrived<'_>) -> bool {
    if !io.pool.fill(frame, arrived.bytes) {
        return false;
    }
    frame.set_time(arrived.time);
    let Some((kind, control)) = arrived.tag else {
        return true;
    };
    if !io.pool.grow_front(frame, TAG) {
        return false;
    }
    let bytes = io.pool.bytes_mut(frame);
    bytes.copy_within(TAG..TAG + ADDRESSES, 0);
    bytes[ADDRESSES..ADDRESSES + 2].copy_from_slice(&kind.to_be_bytes());
    bytes[ADDRESSES + 2..ADDRESSES + TAG].copy_from_slice(&control.to_be_bytes());
    true
}

impl Port for AfPacketPort {
    fn attach(&mut self, io: &mut Io, place: Place) -> Result<(), PortFailure> {
        self.place = place;
        self.region = Some(io.region_for(&self.options.interface, TAG)?);
        Ok(())
    }

    fn receive(&mut self, io: &mut Io, batch: &mut Vec<Frame>, budget: usize) {
        let Some(region) = self.region else { return };
        let mut too_long = None;
        for _ in 0..budget {
            // Without a free slot frames stay where they are; when there is no room there either, the kernel
            // counts what it drops.
            let Some(mut frame) = io.pool.alloc(region) else {
                break;
            };
            let arrived = match self.ring.read() {
                Next::Frame(arrived) => arrived,
                other => {
                    io.pool.free(frame);
                    if let Next::Broken(n) = other {
                        let rx = &mut io.counters[self.place.index.0 as usize].rx;
                        rx.frames += n;
                        rx.dropped.add(Reason::KernelFull, n);
                        self.read += n;
                        continue;
                    }
                    break;
                }
            };
            self.read += 1;
            let bytes = arrived.len + if arrived.tag.is_some() { TAG } else { 0 };
            let rx = &mut io.counters[self.place.index.0 as usize].rx;
            rx.receive(bytes);
            let reason = if arrived.len < SHORTEST {
                Reason::TooShort
            } else if bytes > self.options.max_frame
                || arrived.bytes.len() < arrived.len
                || !copy(io, &mut frame, &arrived)
            {
                too_long = Some(bytes);
                Reason::TooLong
            } else {
                batch.push(frame);
                continue;
            };
            io.counters[self.place.index.0 as usize]
                .rx
                .dropped
                .add(reason, 1);
            io.pool.free(frame);
        }
        self.ring.release();
        if let Some(bytes) = too_long {
            self.too_long(io, bytes);
        }
        if self.ring.rounds() != self.asked {
            // The kernel's counts have 32 bits: they are taken before they can run over, however long nobody
            // asks for them.
            self.asked = self.ring.rounds();
            self.socket.statistics();
        }
    }

    fn wait(&mut self, io: &mut Io) -> Wait {
        if self.closed {
            return Wait::Done;
        }
        if !self.polling {
            self.polling = io.ring.poll(self.socket.fd(), Op::Poll, self.place);
        }
        // A block that came before the poll was armed does not complete it.
        if !self.ring.readable() && self.polling {
            Wait::Event
        } else if self.region.is_some_and(|r| io.pool.free_slots(r) == 0) {
            // A slot becomes free by a completion.
            Wait::Event
        } else {
            Wait::Ready
        }
    }

    /// Packet sockets are no sinks; the configuration refuses it. Whatever comes all the same is counted.
    fn stage(&mut self, io: &mut Io, frames: &mut Vec<Staged>) {
        io.refuse_all(self.place.index, frames, Reason::WriteError);
    }

    fn complete(&mut self, _io: &mut Io, completion: Completion) {
        if completion.tag.op == Op::Poll {
            self.polling = false;
            if completion.result < 0 || completion.result & i32::from(libc::POLLERR) != 0 {
                // The link went down. The socket stays, and goes on when it is up again.
                self.socket.clear_error();
            }
        }
    }

    /// Frames that found no room in the ring.
    fn kernel(&self) -> Option<KernelCounters> {
        let dropped = self.socket.statistics().dropped;
        self.told.set(dropped);
        Some(KernelCounters {
            rx_dropped: dropped,
            ..KernelCounters::default()
        })
    }

    fn close(&mut self, io: &mut Io, reason: Reason) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        if self.polling {
            io.ring.cancel(self.socket.fd(), self.place);
            let _ = io.ring.submit();
            self.polling = false;
        }
        // Nothing more comes, so that the counts agree with what is in the ring.
        self.socket.end();
        let counted = self.socket.statistics();
        let rx = &mut io.counters[self.place.index.0 as usize].rx;
        // What was dropped since the last report is in none.
        let dropped = counted.dropped - self.told.get();
        rx.frames += dropped;
        rx.dropped.add(Reason::KernelFull, dropped);
        loop {
            match self.ring.read() {
                Next::Frame(arrived) => {
                    rx.receive(arrived.len);
                    rx.dropped.add(reason, 1);
                    self.read += 1;
                }
                Next::Broken(n) => {
                    rx.frames += n;
                    rx.dropped.add(Reason::KernelFull, n);
                    self.read += n;
                }
                Next::Nothing => break,
            }
        }
        // Those in the block that the kernel has not handed over: it alone knows their lengths.
        let unseen = (counted.frames - counted.dropped).saturating_sub(self.read);
        rx.frames += unseen;
        rx.dropped.add(reason, unseen);
    }

    fn failure(&mut self) -> Option<PortFailure> {
        self.failure.take()
    }
}
