//! A worker: one pinned thread, its loop, and everything that it writes.
//!
//! The loop: a turn polls the sources, runs their pipelines, flushes the sinks with one
//! `io_uring_enter` and reaps. Beside it, `start` makes a worker, `obey` takes commands and ends it,
//! `rest` spins or sleeps.

pub mod counters;
pub(crate) mod mailbox;
mod obey;
mod pipeline;
pub mod report;
mod rest;
pub mod ring;
pub mod spec;
mod start;
#[cfg(test)]
mod tests;
pub mod wake;

use std::sync::Arc;

use hdrhistogram::Histogram;

use self::{
    counters::KernelCounters,
    mailbox::Mailbox,
    pipeline::{Pipeline, Scratch},
    report::{LONGEST_RESIDENCE, Report},
    ring::{Completion, Op},
    spec::{Idle, SourceSpec},
};
use crate::{
    frame::{Backing, Frame},
    policy::Reason,
    port::{Io, Place, Port},
};

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
#[error("core {core}: {message}")]
pub struct WorkerError {
    /// The core it was meant for.
    pub core: usize,
    /// What is wrong, and what to do.
    pub message: String,
}

/// What a started worker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// Its own region: how many slots of how many bytes, of which memory.
    pub own: Option<(u32, usize, Backing)>,
}

/// One source and the pipeline behind it.
#[derive(Clone, Copy)]
struct Source {
    spec: SourceSpec,
    pipeline: usize,
}

/// One worker, in its own thread.
pub(crate) struct Worker {
    io: Io,
    ports: Vec<Option<Box<dyn Port>>>,
    /// Closed ports whose files the ring still holds.
    leaving: Vec<(Place, Box<dyn Port>)>,
    generations: Vec<u16>,
    /// What frames of a closed port are counted as.
    closed_for: Vec<Reason>,
    /// What the kernel counted for the earlier lives of each port.
    kernel_before: Vec<KernelCounters>,
    sources: Vec<Source>,
    /// Which source is served first in this turn.
    first: usize,
    pipelines: Vec<Pipeline>,
    batch: Vec<Frame>,
    budget: usize,
    scratch: Scratch,
    completions: Vec<Completion>,
    idle: Idle,
    mailbox: Arc<Mailbox>,
    receiving: bool,
    finished: bool,
    retiring: bool,
    waker_armed: bool,
    /// Room for the time until which each port is waited for at the end.
    deadlines: Vec<u64>,
    began: u64,
    last_work: u64,
    busy: u64,
    rest: rest::Rest,
    residence: Histogram<u64>,
}

/// Nanoseconds of CLOCK_MONOTONIC.
pub(crate) fn clock() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .expect("CLOCK_MONOTONIC is always there");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

impl Worker {
    /// Runs until told to stop, and answers with the last report.
    pub(crate) fn run(mut self) -> Report {
        let mut worked = false;
        loop {
            let (before, worked_before) = (self.io.now, worked);
            worked = self.turn();
            if worked_before {
                // From one clock read to the next is the turn before, which had no rest behind it.
                self.busy += self.io.now - before;
            }
            if worked {
                self.last_work = self.io.now;
            }
            if self.mailbox.has_command() && self.obey() {
                return self.stop();
            }
            if self.io.trouble {
                self.tell_failures();
            }
            if !worked {
                self.rest();
            }
        }
    }

    /// One turn: everything that is there now, once. Answers whether there was anything.
    fn turn(&mut self) -> bool {
        self.io.now = clock();
        // What the turn before has written.
        self.measure();
        // Every policy, not only those that have frames now: a generation is acknowledged within a turn.
        for pipeline in &mut self.pipelines {
            pipeline.acknowledge();
        }
        let mut worked = false;
        if self.receiving {
            let n = self.sources.len();
            for i in 0..n {
                worked |= self.serve((self.first + i) % n);
            }
            // Round-robin: with a full ring the same source is not always the one that fits.
            self.first = if self.first + 1 < n {
                self.first + 1
            } else {
                0
            };
        }
        for port in self.ports.iter_mut().flatten() {
            port.flush(&mut self.io);
        }
        if let Err(e) = self.io.ring.submit() {
            refused(&e);
        }
        worked |= self.reap();
        if self.retiring {
            self.collect();
        }
        worked
    }

    /// Takes a batch from one source through its pipeline.
    #[inline]
    fn serve(&mut self, source: usize) -> bool {
        let Source { spec, pipeline } = self.sources[source];
        let mut budget = self.budget;
        if spec.patient {
            budget = budget.min(self.pipelines[pipeline].room(&self.io, &self.ports));
            if budget == 0 {
                return false;
            }
        }
        let Some(port) = &mut self.ports[spec.port.0 as usize] else {
            return false;
        };
        port.receive(&mut self.io, &mut self.batch, budget);
        if self.batch.is_empty() {
            return false;
        }
        self.pipelines[pipeline].run(
            &mut self.io,
            &mut self.ports,
            spec,
            &mut self.batch,
            &mut self.scratch,
        );
        true
    }

    /// Takes all completions. Answers whether one of them moved a frame.
    fn reap(&mut self) -> bool {
        let mut moved = false;
        loop {
            self.completions.clear();
            let n = self.io.ring.reap(&mut self.completions);
            for i in 0..n {
                let completion = self.completions[i];
                moved |= matches!(completion.tag.op, Op::Read | Op::Write | Op::Gather);
                self.dispatch(completion);
            }
            if n < self.completions.capacity() {
                return moved;
            }
        }
    }

    #[inline]
    fn dispatch(&mut self, completion: Completion) {
        let tag = completion.tag;
        if tag.op == Op::Wake {
            self.waker_armed = false;
            self.io.waker.drain();
            return;
        }
        let index = tag.port.0 as usize;
        match &mut self.ports[index] {
            Some(port) if self.generations[index] == tag.generation => {
                port.complete(&mut self.io, completion);
            }
            // Of a port that was closed, which counted it then: only the slots are to be had back.
            _ => match tag.op {
                Op::Write => self.io.pool.complete(tag.slot),
                Op::Gather => drop(self.io.settle(tag)),
                Op::Read => {
                    self.io.pool.reclaim(tag.slot);
                    if completion.result > 0 {
                        // It came before the read could be cancelled.
                        let rx = &mut self.io.counters[index].rx;
                        rx.receive(completion.result as usize);
                        rx.dropped.add(self.closed_for[index], 1);
                    }
                }
                Op::Poll => self.let_go(Place {
                    index: tag.port,
                    generation: tag.generation,
                }),
                Op::Cancel | Op::Wake => {}
            },
        }
    }

    /// Records the residence of batches that ended since the clock was read before.
    #[inline]
    fn measure(&mut self) {
        let now = self.io.now;
        for batch in self.io.pool.finished() {
            let residence = now
                .saturating_sub(batch.received)
                .clamp(1, LONGEST_RESIDENCE);
            let _ = self.residence.record_n(residence, u64::from(batch.frames));
        }
    }
}

/// A ring that takes nothing any more: there is no frame that could still be moved.
#[cold]
fn refused(error: &std::io::Error) -> ! {
    panic!("io_uring_enter: {error}")
}
