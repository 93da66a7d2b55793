//! One queue of an interface through AF_XDP, as source and sink.
//!
//! The queue has a region of its own to receive into, a part of the worker's arena. Received frames stay in
//! their slots until the last sink has written them. What is transmitted leaves from where it is, as long as
//! that is a slot of the arena, which is the UMEM of a queue that transmits; any other frame is copied once into
//! the queue's region, of which a quarter is kept from the fill ring for that.

mod open;
mod ring;
mod rings;
mod socket;
#[cfg(test)]
mod tests;

pub use open::{BindMode, Granted, OpenError, OpenQueue, QueueOptions, open};
pub use rings::{Kick, Received, Rings, Transmit};
pub use socket::XdpRings;

use super::{Io, Place, Port, PortFailure, SHORTEST, Wait};
use crate::{
    frame::{CHAIN, Frame, Piece, Receiver, Region, RegionId, SlotRef, Staged},
    packet::MAX_FRAME,
    policy::Reason,
    worker::{
        counters::{KernelCounters, RxCounters},
        ring::{Completion, Op},
    },
};

/// Slots lent to the kernel, and taken back, at a time.
const CHUNK: usize = 64;

/// How soon completions are looked for when nothing else happens, in nanoseconds.
const COMPLETION_CHECK: u64 = 1_000_000;

/// What an AF_XDP port is told when it is made.
#[derive(Clone, Copy, Debug)]
pub struct AfXdpOptions {
    /// Whether the worker receives from it: only then does the kernel get slots to fill.
    pub source: bool,
    /// Whether a pipeline writes to it: only then are slots kept for that.
    pub sink: bool,
    /// The longest frame that the device transmits, Ethernet header and one tag included, in bytes.
    /// The kernel drops a longer one after it has taken it.
    pub max_frame: usize,
}

/// A frame that is in the kernel's hands to be transmitted, by the chunk of its first slot. Without length there is
/// none.
#[derive(Clone, Copy, Debug)]
struct Outgoing {
    /// The slot; of what is behind the first, the chunk of that.
    slot: u32,
    len: u16,
    region: RegionId,
    /// Chunks of the frame that the kernel has, with [`Self::FIRST_BACK`], or [`Self::BEHIND`].
    chunks: u8,
}

impl Outgoing {
    const NONE: Self = Self {
        slot: 0,
        len: 0,
        region: RegionId(0),
        chunks: 0,
    };

    /// In `chunks`: this one is behind the first of a frame.
    const BEHIND: u8 = u8::MAX;

    /// Added to `chunks`: the first chunk of a frame in several is back, and cannot come again.
    const FIRST_BACK: u8 = 0x40;

    fn slot_ref(self) -> SlotRef {
        SlotRef {
            region: self.region,
            slot: self.slot,
        }
    }
}

/// A frame of which more is to come.
#[derive(Debug, Default)]
struct Partial {
    /// What came so far.
    pieces: Vec<Piece>,
    bytes: usize,
    /// More came than a frame can have; the slots of those were given back.
    too_long: bool,
}

impl Partial {
    /// Takes one more piece. What the frame came to be when it was the last.
    #[cold]
    fn take(
        &mut self,
        pool: &mut Receiver<'_>,
        rx: &mut RxCounters,
        piece: Received,
    ) -> Option<Frame> {
        self.bytes += piece.len as usize;
        if self.pieces.len() < CHAIN {
            self.pieces.push(Piece {
                slot: piece.slot,
                offset: piece.offset,
                len: piece.len,
            });
        } else {
            self.too_long = true;
            pool.reclaim(piece.slot);
        }
        if piece.more {
            return None;
        }
        rx.receive(self.bytes);
        self.too_long |= self.bytes > MAX_FRAME;
        let frame = match self.too_long {
            true => None,
            false => pool.receive_chain(&self.pieces),
        };
        if frame.is_none() {
            for piece in &self.pieces {
                pool.reclaim(piece.slot);
            }
            let reason = match self.too_long {
                true => Reason::TooLong,
                // The kernel named a slot that it was not lent.
                false => Reason::KernelFull,
            };
            rx.dropped.add(reason, 1);
        }
        self.clear();
        frame
    }

    fn clear(&mut self) {
        self.pieces.clear();
        (self.bytes, self.too_long) = (0, false);
    }
}

/// One queue of an interface.
#[derive(Debug)]
// Control boxes the ports of all workers one after another: by its alignment (x86 fetches lines in pairs) none
// shares a cache line with a port of another worker.
#[repr(align(128))]
pub struct AfXdpPort<R: Rings = XdpRings> {
    rings: R,
    options: AfXdpOptions,
    place: Place,
    /// Until it is attached, when the pool takes it.
    unattached: Option<Region>,
    region: RegionId,
    /// Whether the pool has the region: before that there is nothing to close.
    attached: bool,
    /// Slots kept from the fill ring, for copies that are transmitted.
    reserve: usize,
    /// By chunk of the UMEM.
    transmitting: Vec<Outgoing>,
    in_kernel: usize,
    polling: bool,
    /// What one call puts on the transmit ring.
    transmits: Vec<Transmit>,
    /// How many the transmit ring holds.
    ring: usize,
    /// How many frames that is.
    frames: usize,
    /// Slots that the longest frame takes; one, unless a frame may have several.
    longest: usize,
    partial: Partial,
}

impl AfXdpPort<XdpRings> {
    /// A port over an open queue.
    pub fn new(queue: OpenQueue, options: AfXdpOptions) -> Self {
        let multi_buffer = queue.multi_buffer;
        Self::with_rings(queue.rings, queue.region, multi_buffer, options)
    }
}

impl<R: Rings> AfXdpPort<R> {
    /// A port over any rings whose queue receives into `region`; `multi_buffer`: a frame may lie in several slots.
    pub(crate) fn with_rings(
        rings: R,
        region: Region,
        multi_buffer: bool,
        options: AfXdpOptions,
    ) -> Self {
        let slots = region.slots() as usize;
        let longest = match multi_buffer {
            true => options.max_frame.div_ceil(region.capacity()).max(2),
            false => 1,
        };
        Self {
            rings,
            options,
            place: Place::default(),
            reserve: if !options.sink {
                0
            } else if options.source {
                slots / 4
            } else {
                slots
            },
            unattached: Some(region),
            region: RegionId(0),
            attached: false,
            transmitting: Vec::new(),
            in_kernel: 0,
            polling: false,
            transmits: Vec::new(),
            ring: 0,
            frames: 0,
            longest,
            partial: Partial::default(),
        }
    }

    /// Lends free slots to the kernel, in whole chunks, down to the reserve.
    #[inline]
    fn refill(&mut self, io: &mut Io, at_least: usize) {
        if !self.options.source {
            return;
        }
        loop {
            let free = io.pool.free_slots(self.region);
            let n = free.saturating_sub(self.reserve).min(CHUNK);
            if n < at_least.max(1) {
                break;
            }
            let rings = &mut self.rings;
            // The fill ring is as large as the region: it takes them.
            if io.pool.lend_many(self.region, n, |slots| rings.fill(slots)) == 0 {
                break;
            }
        }
        self.rings.kick_fill();
    }

    /// Takes back what the kernel has transmitted.
    fn harvest(&mut self, io: &mut Io) {
        while self.in_kernel > 0 {
            let Io { pool, counters, .. } = io;
            let tx = &mut counters[self.place.index.0 as usize].tx;
            let transmitting = &mut self.transmitting;
            let mut done = 0;
            let n = self.rings.completed(CHUNK, |chunk| {
                // What was not transmitted cannot be completed: the kernel does not say so, and is not believed.
                let outgoing = transmitting.get_mut(chunk as usize);
                let Some(outgoing) = outgoing.filter(|outgoing| outgoing.len > 0) else {
                    return;
                };
                let mut outgoing = std::mem::replace(outgoing, Outgoing::NONE);
                if outgoing.chunks != 1 {
                    let first = match outgoing.chunks {
                        Outgoing::BEHIND => outgoing.slot,
                        _ => chunk,
                    };
                    match one_of_many(transmitting, first, chunk, outgoing) {
                        Some(whole) => outgoing = whole,
                        None => return,
                    }
                }
                tx.written(outgoing.len.into());
                done += 1;
                pool.complete(outgoing.slot_ref());
            });
            self.in_kernel -= done;
            if n < CHUNK {
                return;
            }
        }
    }

    /// Has the kernel take what is in the transmit ring: in copy mode 32 frames a kick, more since Linux
    /// 6.17, so at most as many kicks as that needs.
    fn kick(&mut self, io: &mut Io) {
        let mut left = self.rings.untaken().div_ceil(32) + 1;
        while left > 0 && self.rings.untaken() > 0 && self.rings.wants_kick() {
            io.count(self.place.index).tx.kicks += 1;
            let before = self.rings.untaken();
            match self.rings.kick() {
                Kick::Done | Kick::Again => left -= 1,
                // EBUSY is also the answer when the device has dropped a frame that the kernel had taken
                // (net/xdp/xsk.c, __xsk_generic_xmit): that is progress.
                Kick::Later if self.rings.untaken() < before => {}
                Kick::Later | Kick::Down => return,
            }
        }
    }

    /// A share that the UMEM has and that is not in the transmit ring already, and its chunk: the share itself,
    /// or a copy. Otherwise why it could not be had.
    #[inline]
    fn own(&mut self, io: &mut Io, staged: Staged) -> Result<(Staged, u32), (Staged, Reason)> {
        // Of a queue that is not bound for it, the kernel takes no frame in several chunks.
        if (self.longest > 1 || !staged.is_chain())
            && let Some(first) = self.rings.first_chunk(io.pool.region(staged.region))
        {
            let chunk = first + staged.slot;
            if self.transmitting[chunk as usize].len == 0 {
                return Ok((staged, chunk));
            }
        }
        let copy = self.copy(io, staged)?;
        let Some(first) = self.rings.first_chunk(io.pool.region(self.region)) else {
            // Cannot be: the region is what the UMEM was made of.
            return Err((copy, Reason::SinkFull));
        };
        let chunk = first + copy.slot;
        Ok((copy, chunk))
    }

    /// Puts a share among what goes on the transmit ring.
    #[inline]
    fn submit(&mut self, io: &mut Io, own: Staged, chunk: u32) {
        self.frames += 1;
        if own.is_chain() {
            return self.submit_chain(io, own, chunk);
        }
        self.transmitting[chunk as usize] = Outgoing {
            slot: own.slot,
            // A chunk is no longer.
            len: own.len as u16,
            region: own.region,
            chunks: 1,
        };
        self.transmits.push(Transmit {
            chunk,
            offset: own.offset,
            len: own.len,
            more: false,
        });
        io.pool.submit(own);
    }

    /// The same for one in several slots.
    #[cold]
    fn submit_chain(&mut self, io: &mut Io, own: Staged, chunk: u32) {
        let first = chunk - own.slot;
        let mut chunks = 0;
        for piece in io.pool.pieces(&own) {
            let at = first + piece.slot;
            self.transmitting[at as usize] = Outgoing {
                slot: chunk,
                len: 1,
                region: own.region,
                chunks: Outgoing::BEHIND,
            };
            self.transmits.push(Transmit {
                chunk: at,
                offset: piece.offset,
                len: piece.len,
                more: true,
            });
            chunks += 1;
        }
        if let Some(last) = self.transmits.last_mut() {
            last.more = false;
        }
        self.transmitting[chunk as usize] = Outgoing {
            slot: own.slot,
            // A device transmits no longer ones.
            len: own.len() as u16,
            region: own.region,
            chunks,
        };
        io.pool.submit(own);
    }

    /// Takes back what did not fit into the transmit ring after all.
    #[cold]
    fn withdraw(&mut self, io: &mut Io) {
        for frame in self.transmits.drain(..) {
            let outgoing = &mut self.transmitting[frame.chunk as usize];
            let outgoing = std::mem::replace(outgoing, Outgoing::NONE);
            if outgoing.chunks == Outgoing::BEHIND {
                continue;
            }
            io.count(self.place.index).tx.drop(Reason::SinkFull);
            io.pool.complete(outgoing.slot_ref());
        }
        self.frames = 0;
    }

    /// How many chunks a frame takes on the transmit ring.
    #[inline]
    fn slots_of(&self, io: &Io, staged: &Staged) -> usize {
        match self.longest {
            1 => 1,
            _ if staged.is_chain() => io.pool.pieces(staged).count(),
            _ => staged
                .len()
                .div_ceil(io.pool.region(self.region).capacity()),
        }
    }

    fn copy(&mut self, io: &mut Io, staged: Staged) -> Result<Staged, (Staged, Reason)> {
        let copy = if staged.len() > io.pool.region(self.region).capacity() {
            if self.longest == 1 {
                return Err((staged, Reason::TooLong));
            }
            io.pool.copy_to(&staged, self.region)
        } else {
            let empty = io.pool.alloc(self.region);
            empty.and_then(|mut copy| {
                if io.pool.copy(&staged, &mut copy) {
                    return Some(copy);
                }
                // Cannot be: it fits.
                io.pool.free(copy);
                None
            })
        };
        let Some(copy) = copy else {
            return Err((staged, Reason::SinkFull));
        };
        io.count(self.place.index).tx.copied += 1;
        let own = io.pool.stage(copy);
        io.pool.release(staged);
        Ok(own)
    }
}

/// One chunk of a frame in several is back. The frame, when it was the last.
#[cold]
fn one_of_many(
    transmitting: &mut [Outgoing],
    first: u32,
    chunk: u32,
    taken: Outgoing,
) -> Option<Outgoing> {
    if chunk == first {
        // It stays known by its first chunk until all are back.
        transmitting[first as usize] = taken;
        if taken.chunks & Outgoing::FIRST_BACK != 0 {
            return None;
        }
        transmitting[first as usize].chunks |= Outgoing::FIRST_BACK;
    }
    let frame = &mut transmitting[first as usize];
    frame.chunks -= 1;
    (frame.chunks == Outgoing::FIRST_BACK).then(|| std::mem::replace(frame, Outgoing::NONE))
}

impl<R: Rings> Port for AfXdpPort<R> {
    fn attach(&mut self, io: &mut Io, place: Place) -> Result<(), PortFailure> {
        self.place = place;
        let Some(region) = self.unattached.take() else {
            return Err(PortFailure::fatal("an AF_XDP queue was attached twice"));
        };
        let Some(id) = io.pool.add(region) else {
            return Err(PortFailure::fatal(format!(
                "a worker can have {} AF_XDP queues: spread them over more cores",
                crate::frame::MAX_REGIONS - 1
            )));
        };
        self.region = id;
        self.attached = true;
        io.ring
            .register(id, io.pool.region(id))
            .map_err(|e| PortFailure::fatal(e.to_string()))?;
        // Here and not when the port is made: memory from the worker's own arena, which no other worker writes.
        self.transmitting = vec![Outgoing::NONE; self.rings.chunks() as usize];
        // Nobody has put anything there yet. One call never puts more on it.
        self.ring = self.rings.transmit_room(usize::MAX);
        self.transmits.reserve(self.ring);
        if self.longest > 1 {
            io.pool.allow_chains(id);
            // Whatever sink they go to: one write of many parts.
            io.ring.prepare_gathers();
            self.partial.pieces.reserve(CHAIN);
        }
        self.refill(io, 1);
        Ok(())
    }

    fn receive(&mut self, io: &mut Io, batch: &mut Vec<Frame>, budget: usize) {
        let rx = &mut io.counters[self.place.index.0 as usize].rx;
        let mut pool = io.pool.receiver(self.region);
        let partial = &mut self.partial;
        let n = self.rings.receive(budget, |frame| {
            if frame.more || !partial.pieces.is_empty() {
                batch.extend(partial.take(&mut pool, rx, frame));
                return;
            }
            rx.receive(frame.len as usize);
            pool.expect(frame.slot, frame.offset as usize, 1);
            match pool.receive(frame.slot, frame.offset as usize, frame.len as usize) {
                Some(frame) => batch.push(frame),
                // The kernel named a slot that it was not lent: counted, never handed on.
                None => rx.dropped.add(Reason::KernelFull, 1),
            }
        });
        if n == budget {
            // What the next call takes is asked for from memory: its bytes come from the cache of the core
            // that received them while this one still writes the frames before.
            self.rings.ahead(budget, |frame| {
                pool.expect(frame.slot, frame.offset as usize, frame.len as usize);
            });
        }
        self.refill(io, CHUNK / 2);
    }

    fn looks(&self) -> bool {
        true
    }

    fn wait(&mut self, io: &mut Io) -> Wait {
        if self.options.source {
            self.refill(io, 1);
            if !self.polling {
                self.polling = io.ring.poll(self.rings.fd(), Op::Poll, self.place);
            }
            // Frames that came before the poll was armed do not complete it.
            if self.rings.readable() || !self.polling {
                return Wait::Ready;
            }
        }
        if self.in_flight() > 0 {
            return Wait::Until(io.now + COMPLETION_CHECK);
        }
        Wait::Event
    }

    fn stage(&mut self, io: &mut Io, frames: &mut Vec<Staged>) {
        let index = self.place.index;
        io.count(index).tx.offered += frames.len() as u64;
        let cap = io.sink_cap.saturating_sub(self.in_kernel);
        let room = self.rings.transmit_room(frames.len() * self.longest);
        for staged in frames.drain(..) {
            let reason = if staged.len() < SHORTEST {
                Reason::TooShort
            } else if staged.len() > self.options.max_frame {
                Reason::TooLong
            } else if self.frames >= cap || self.transmits.len() + self.slots_of(io, &staged) > room
            {
                Reason::SinkFull
            } else {
                match self.own(io, staged) {
                    Ok((own, chunk)) => self.submit(io, own, chunk),
                    Err((staged, reason)) => io.refuse(index, staged, reason),
                }
                continue;
            };
            io.refuse(index, staged, reason);
        }
        if self.transmits.is_empty() {
            return;
        }
        if self.rings.transmit(&self.transmits) {
            self.in_kernel += std::mem::take(&mut self.frames);
            self.transmits.clear();
        } else {
            self.withdraw(io);
        }
    }

    fn flush(&mut self, io: &mut Io) {
        if self.in_kernel > 0 {
            self.harvest(io);
            self.kick(io);
            self.harvest(io);
        }
    }

    fn complete(&mut self, _io: &mut Io, completion: Completion) {
        if completion.tag.op == Op::Poll {
            self.polling = false;
        }
    }

    fn room(&self, io: &Io) -> usize {
        if !self.attached {
            return usize::MAX;
        }
        // The transmit ring may be smaller than what one sink may have. Frames that are copied take a slot of
        // this region.
        let cap = (io.sink_cap.min(self.ring) / self.longest).saturating_sub(self.in_flight());
        cap.min(io.pool.free_slots(self.region) / self.longest)
    }

    fn in_flight(&self) -> usize {
        self.in_kernel
    }

    fn is_held(&self) -> bool {
        self.polling
    }

    fn kernel(&self) -> Option<KernelCounters> {
        Some(self.rings.kernel())
    }

    /// The socket itself is closed when the port is dropped, which the kernel may take a while over
    /// (it waits for its readers): the region is retired before, so that nobody gets a slot that the
    /// kernel might still fill, and slots of other regions that it might still read stay with it as long.
    fn close(&mut self, io: &mut Io, reason: Reason) {
        if !self.attached {
            return;
        }
        let index = self.place.index;
        self.harvest(io);
        io.pool.retire(self.region);
        let mut left = Vec::with_capacity(self.in_kernel);
        for outgoing in self.transmitting.iter_mut().filter(|o| o.len > 0) {
            let outgoing = std::mem::replace(outgoing, Outgoing::NONE);
            if outgoing.chunks == Outgoing::BEHIND {
                continue;
            }
            let slot = outgoing.slot_ref();
            io.count(index).tx.drop(reason);
            if slot.region == self.region {
                // Its memory is not used again before the socket is closed.
                io.pool.complete(slot);
            } else {
                left.push(slot);
            }
        }
        io.pool.leave(self.rings.lease(), left);
        self.in_kernel = 0;
        // Frames that the kernel had received and we had not.
        let rx = &mut io.counters[index.0 as usize].rx;
        let mut bytes = self.partial.bytes;
        self.rings.receive(usize::MAX, |frame| {
            bytes += frame.len as usize;
            if !frame.more {
                rx.receive(std::mem::take(&mut bytes));
                rx.dropped.add(reason, 1);
            }
        });
        self.partial.clear();
        io.pool.reclaim_lent(self.region);
        if self.polling {
            io.ring.cancel(self.rings.fd(), self.place);
            let _ = io.ring.submit();
        }
    }
}
