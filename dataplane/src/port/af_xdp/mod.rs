//! One queue of an interface through AF_XDP, as source and sink.
//!
//! The queue has a UMEM of its own, which is a region of the pool. Received frames stay in their slots
//! until the last sink has written them. What is transmitted leaves from slots of this region: a frame
//! of another region is copied once, and a quarter of the slots is kept from the fill ring for that.

mod open;
mod rings;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

pub use open::{BindMode, Granted, OpenError, OpenQueue, QueueOptions, open};
pub use rings::{Kick, Received, Rings, Transmit, XskRings};

use super::{Io, Place, Port, PortFailure, SHORTEST, Wait};
use crate::{
    frame::{Frame, Region, RegionId, SlotRef, Staged},
    policy::Reason,
    worker::{
        counters::KernelCounters,
        ring::{Completion, Op},
    },
};
use rings::CHUNK;

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

/// One queue of an interface.
#[derive(Debug)]
pub struct AfXdpPort<R: Rings = XskRings> {
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
    /// Slots in the fill ring or filled and not received.
    lent: usize,
    /// Shares of this region that wait for the next flush.
    staged: VecDeque<Staged>,
    /// By slot: the length of what is in the transmit ring, 0 for nothing.
    transmitting: Vec<u32>,
    in_kernel: usize,
    polling: bool,
    received: Vec<Received>,
    /// Taken from the ring for the next call, and asked for from memory: their bytes come from the cache
    /// of the core that received them while this one still writes the frames before.
    ahead: Vec<Received>,
    slots: Vec<u32>,
    transmits: Vec<Transmit>,
}

impl AfXdpPort<XskRings> {
    /// A port over an open queue.
    pub fn new(queue: OpenQueue, options: AfXdpOptions) -> Self {
        Self::with_rings(queue.rings, queue.region, options)
    }
}

impl<R: Rings> AfXdpPort<R> {
    /// A port over any rings whose UMEM is `region`.
    pub(crate) fn with_rings(rings: R, region: Region, options: AfXdpOptions) -> Self {
        let slots = region.slots() as usize;
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
            lent: 0,
            staged: VecDeque::new(),
            transmitting: vec![0; slots],
            in_kernel: 0,
            polling: false,
            received: Vec::with_capacity(CHUNK),
            ahead: Vec::with_capacity(CHUNK),
            slots: Vec::with_capacity(CHUNK),
            transmits: Vec::with_capacity(CHUNK),
        }
    }

    /// Lends free slots to the kernel, in whole chunks, down to the reserve.
    fn refill(&mut self, io: &mut Io, at_least: usize) {
        if !self.options.source {
            return;
        }
        loop {
            let n = io
                .pool
                .free_slots(self.region)
                .saturating_sub(self.reserve)
                .min(CHUNK);
            if n < at_least.max(1) {
                break;
            }
            self.slots.clear();
            for _ in 0..n {
                if let Some(frame) = io.pool.alloc(self.region) {
                    self.slots.push(io.pool.lend(frame).slot);
                }
            }
            if !self.rings.fill(&self.slots) {
                // Cannot be: the fill ring is as large as the region.
                for &slot in &self.slots {
                    io.pool.reclaim(SlotRef {
                        region: self.region,
                        slot,
                    });
                }
                break;
            }
            self.lent += self.slots.len();
        }
        self.rings.kick_fill();
    }

    /// Takes back what the kernel has transmitted.
    fn harvest(&mut self, io: &mut Io) {
        while self.in_kernel > 0 {
            self.slots.clear();
            self.rings.completed(&mut self.slots);
            if self.slots.is_empty() {
                return;
            }
            let tx = &mut io.counters[self.place.index.0 as usize].tx;
            for &slot in &self.slots {
                let Some(len) = self.transmitting.get_mut(slot as usize) else {
                    continue;
                };
                if *len == 0 {
                    continue;
                }
                tx.written(*len as usize);
                *len = 0;
                self.in_kernel -= 1;
                io.pool.complete(SlotRef {
                    region: self.region,
                    slot,
                });
            }
        }
    }

    /// Moves staged shares into the transmit ring.
    fn produce(&mut self, io: &mut Io) {
        while !self.staged.is_empty() {
            let n = self.staged.len().min(CHUNK).min(self.rings.transmit_room());
            if n == 0 {
                return;
            }
            self.transmits.clear();
            self.transmits
                .extend(self.staged.iter().take(n).map(|s| Transmit {
                    slot: s.slot,
                    len: s.len,
                }));
            if !self.rings.transmit(&self.transmits) {
                return;
            }
            for staged in self.staged.drain(..n) {
                self.transmitting[staged.slot as usize] = staged.len;
                io.pool.submit(staged);
            }
            self.in_kernel += n;
        }
    }

    /// Has the kernel take what is in the transmit ring: 32 frames a kick in copy mode, so at most
    /// as many kicks as that needs.
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

    /// A share of this region that begins where the transmit ring expects it: the share itself, or a
    /// copy. The second answer is why it could not be had.
    fn own(&mut self, io: &mut Io, staged: Staged) -> Result<Staged, (Staged, Reason)> {
        let headroom = io.pool.region(self.region).headroom() as u32;
        if staged.region == self.region && staged.offset == headroom {
            return Ok(staged);
        }
        let Some(mut copy) = io.pool.alloc(self.region) else {
            return Err((staged, Reason::SinkFull));
        };
        if !io.pool.copy(&staged, &mut copy) {
            io.pool.free(copy);
            return Err((staged, Reason::TooLong));
        }
        io.count(self.place.index).tx.copied += 1;
        let own = io.pool.stage(copy);
        io.pool.release(staged);
        Ok(own)
    }
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
        self.staged.reserve(io.sink_cap);
        self.refill(io, 1);
        Ok(())
    }

    fn receive(&mut self, io: &mut Io, batch: &mut Vec<Frame>, budget: usize) {
        self.received.clear();
        let begun = budget.min(self.ahead.len());
        self.received.extend(self.ahead.drain(..begun));
        self.rings.receive(budget - begun, &mut self.received);
        let rx = &mut io.counters[self.place.index.0 as usize].rx;
        for received in &self.received {
            let from = SlotRef {
                region: self.region,
                slot: received.slot,
            };
            rx.receive(received.len as usize);
            match io
                .pool
                .receive(from, received.offset as usize, received.len as usize)
            {
                Some(frame) => {
                    io.pool.prefetch(&frame);
                    batch.push(frame);
                }
                // The kernel named a slot that it was not lent: counted, never handed on.
                None => rx.dropped.add(Reason::KernelFull, 1),
            }
        }
        self.lent -= self.received.len().min(self.lent);
        if self.ahead.is_empty() && self.received.len() == budget {
            self.rings.receive(budget, &mut self.ahead);
            let frames = self.ahead.iter();
            io.pool.expect(
                self.region,
                frames.map(|f| (f.slot, f.offset as usize, f.len as usize)),
            );
        }
        self.refill(io, CHUNK / 2);
    }

    fn wait(&mut self, io: &mut Io) -> Wait {
        if self.options.source {
            self.refill(io, 1);
            if !self.polling {
                self.polling = io.ring.poll(self.rings.fd(), Op::Poll, self.place);
            }
            // Frames that came before the poll was armed do not complete it.
            if !self.ahead.is_empty() || self.rings.readable() || !self.polling {
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
        for staged in frames.drain(..) {
            let reason = if staged.len() < SHORTEST {
                Reason::TooShort
            } else if staged.len() > self.options.max_frame {
                Reason::TooLong
            } else if self.in_flight() >= io.sink_cap {
                Reason::SinkFull
            } else {
                match self.own(io, staged) {
                    Ok(own) => self.staged.push_back(own),
                    Err((staged, reason)) => io.refuse(index, staged, reason),
                }
                continue;
            };
            io.refuse(index, staged, reason);
        }
    }

    fn flush(&mut self, io: &mut Io) {
        self.harvest(io);
        if self.staged.is_empty() && self.in_kernel == 0 {
            return;
        }
        self.produce(io);
        self.kick(io);
        self.harvest(io);
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
        // Frames of other regions are copied into a slot of this one.
        let cap = io.sink_cap.saturating_sub(self.in_flight());
        cap.min(io.pool.free_slots(self.region))
    }

    fn in_flight(&self) -> usize {
        self.staged.len() + self.in_kernel
    }

    fn kernel(&self) -> Option<KernelCounters> {
        Some(self.rings.kernel())
    }

    /// The socket itself is closed when the port is dropped, which the kernel may take a while over
    /// (it waits for its readers): the region is retired before, so that nobody gets a slot that the
    /// kernel might still fill.
    fn close(&mut self, io: &mut Io, reason: Reason) {
        if !self.attached {
            return;
        }
        let index = self.place.index;
        self.harvest(io);
        for staged in self.staged.drain(..) {
            io.refuse(index, staged, reason);
        }
        io.pool.retire(self.region);
        for (slot, len) in self.transmitting.iter_mut().enumerate() {
            if std::mem::take(len) > 0 {
                io.count(index).tx.drop(reason);
                io.pool.complete(SlotRef {
                    region: self.region,
                    slot: slot as u32,
                });
            }
        }
        self.in_kernel = 0;
        // Frames that the kernel had received and we had not.
        loop {
            self.received.clear();
            self.received.append(&mut self.ahead);
            self.rings.receive(CHUNK, &mut self.received);
            if self.received.is_empty() {
                break;
            }
            let rx = &mut io.counters[index.0 as usize].rx;
            for received in &self.received {
                rx.receive(received.len as usize);
                rx.dropped.add(reason, 1);
            }
        }
        io.pool.reclaim_lent(self.region);
        self.lent = 0;
        if self.polling {
            io.ring.cancel(self.rings.fd(), self.place);
            let _ = io.ring.submit();
            self.polling = false;
        }
    }
}
