//! One worker's end of a recorder: frames are copied into the block in hand, as they are staged.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use super::{
    super::format::{
        MAX_FRAME,
        write::{packet, packet_len},
    },
    block::{BLOCK_BYTES, BLOCKS, Block, Shared},
};
use crate::{
    frame::Staged,
    policy::Reason,
    port::{Io, Place, Port, PortFailure, PortIndex, Wait},
};

/// A recording as a port of one worker.
// Control boxes the ports of all workers one after another: by its alignment (x86 fetches lines in pairs) none
// shares a cache line with a port of another worker.
#[repr(align(128))]
pub struct PcapSink {
    shared: Arc<Shared>,
    lane: usize,
    /// The number of the interface that frames of a port are filed under, by the worker's [`PortIndex`].
    interfaces: Vec<u32>,
    /// How long the output may take at the end, in nanoseconds.
    patience: u64,
    index: PortIndex,
    /// The last one came back last: its memory is still warm.
    empty: Vec<Block>,
    /// The block in hand.
    block: Option<Block>,
    /// How many blocks the recorder has.
    out: usize,
    in_flight: u64,
    dead: bool,
}

impl fmt::Debug for PcapSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PcapSink")
            .field("lane", &self.lane)
            .field("out", &self.out)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

impl PcapSink {
    pub(super) fn new(
        shared: Arc<Shared>,
        lane: usize,
        interfaces: Vec<u32>,
        patience: u64,
    ) -> Self {
        Self {
            shared,
            lane,
            interfaces,
            patience,
            index: PortIndex(0),
            empty: Vec::with_capacity(BLOCKS),
            block: None,
            out: 0,
            in_flight: 0,
            dead: false,
        }
    }

    fn hand_on(&mut self) {
        if let Some(block) = self.block.take_if(|block| block.frames > 0) {
            self.out += 1;
            self.shared.hand_on(block);
        }
    }

    /// Has a block in hand with room for so many bytes, unless all are on their way.
    #[inline]
    fn block_for(&mut self, bytes: usize) -> Option<&mut Block> {
        if self.block.as_ref().is_some_and(|b| b.room() < bytes) {
            self.hand_on();
        }
        if self.block.is_none() {
            self.block = self.empty.pop();
        }
        self.block.as_mut()
    }

    /// Counts frames that nobody will write: those in the block in hand, and in those that do not come back.
    #[cold]
    fn abandon(&mut self, io: &mut Io) {
        let tx = &mut io.count(self.index).tx;
        tx.dropped.add(Reason::WriteError, self.in_flight);
        (self.in_flight, self.out) = (0, 0);
        if let Some(block) = &mut self.block {
            block.clear();
        }
    }

    /// Counts what came of blocks that are back. Answers whether there were any.
    fn collect(&mut self, io: &mut Io) -> bool {
        let mut any = false;
        // Before the queue is looked at: what was given back until then is in it.
        let abandoned = self.shared.abandoned.load(Ordering::Acquire);
        while let Some(mut block) = self.shared.lanes[self.lane].returned.pop() {
            any = true;
            self.out -= 1;
            self.in_flight -= block.frames;
            let outcome = block.outcome;
            let tx = &mut io.count(self.index).tx;
            tx.frames += outcome.written;
            tx.bytes += outcome.written_bytes;
            tx.dropped.add(Reason::DiskFull, outcome.disk_full);
            tx.dropped.add(Reason::WriteError, outcome.write_error);
            block.clear();
            self.empty.push(block);
        }
        if abandoned && self.in_flight > 0 {
            any = true;
            self.abandon(io);
        }
        if !self.dead && self.shared.gone.load(Ordering::Acquire) {
            self.dead = true;
            any = true;
        }
        io.trouble |= !self.shared.news.is_empty();
        any
    }
}

impl Port for PcapSink {
    fn attach(&mut self, io: &mut Io, place: Place) -> Result<(), PortFailure> {
        self.index = place.index;
        let waker = &self.shared.lanes[self.lane].waker;
        if waker.set(Arc::clone(&io.waker)).is_err() {
            return Err(PortFailure::fatal("a recording's sink was attached twice"));
        }
        self.empty
            .extend((0..BLOCKS).map(|_| Block::new(self.lane)));
        Ok(())
    }

    fn stage(&mut self, io: &mut Io, frames: &mut Vec<Staged>) {
        let index = self.index;
        io.count(index).tx.offered += frames.len() as u64;
        let interface = self.interfaces.get(io.from.0 as usize).copied();
        let interface = interface.unwrap_or_default();
        let mut received = None;
        for staged in frames.drain(..) {
            let reason = if self.dead {
                Reason::WriteError
            } else if staged.len() > MAX_FRAME {
                Reason::TooLong
            } else if let Some(block) = self.block_for(packet_len(staged.len())) {
                let time = staged
                    .time()
                    .unwrap_or_else(|| *received.get_or_insert_with(wall_clock));
                packet(
                    &mut block.bytes,
                    interface,
                    time,
                    staged.len(),
                    io.pool.parts(&staged),
                );
                block.frames += 1;
                self.in_flight += 1;
                io.pool.release(staged);
                continue;
            } else {
                Reason::SinkFull
            };
            io.refuse(index, staged, reason);
        }
    }

    fn room(&self, io: &Io) -> usize {
        if self.dead {
            return usize::MAX;
        }
        let longest = io
            .own_region
            .map_or(MAX_FRAME, |own| io.pool.region(own).capacity());
        let longest = packet_len(longest.min(MAX_FRAME));
        let in_hand = self.block.as_ref().map_or(0, |b| b.room() / longest);
        in_hand + self.empty.len() * (BLOCK_BYTES / longest)
    }

    /// Hands the block in hand on when the recorder has none of this worker; else it is filled until one
    /// comes back, which wakes the worker.
    fn flush(&mut self, io: &mut Io) {
        self.collect(io);
        if self.out == 0 {
            self.hand_on();
        }
    }

    fn wait(&mut self, io: &mut Io) -> Wait {
        if self.collect(io) {
            // There is room for a source that is held back, or a block to hand on.
            Wait::Ready
        } else {
            Wait::Event
        }
    }

    fn in_flight(&self) -> usize {
        self.in_flight as usize
    }

    fn drain(&mut self, io: &mut Io) -> u64 {
        self.collect(io);
        self.hand_on();
        self.shared.draining.store(true, Ordering::Release);
        self.shared.bed.wake();
        self.patience
    }

    fn close(&mut self, io: &mut Io, reason: Reason) {
        // Before the last look: what is written after it is not counted, so nothing more is to be.
        let lane = &self.shared.lanes[self.lane];
        lane.closed.store(true, Ordering::Release);
        self.collect(io);
        io.count(self.index).tx.dropped.add(reason, self.in_flight);
        self.in_flight = 0;
        self.block = None;
        self.dead = true;
    }

    fn failure(&mut self) -> Option<PortFailure> {
        self.shared.news.pop()
    }
}

/// Nanoseconds since 1970.
fn wall_clock() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME)
        .expect("CLOCK_REALTIME is always there");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}
