//! A worker: one pinned thread, its loop, and everything that it writes.
//!
//! The loop, in the order of its functions: `Worker::turn` polls the sources, runs their pipelines,
//! flushes the sinks with one `io_uring_enter` and reaps; `Worker::obey` takes commands;
//! `Worker::rest` spins or sleeps, in one place.

pub mod counters;
pub mod mailbox;
mod pipeline;
pub mod report;
pub mod ring;
pub mod spec;
#[cfg(test)]
mod tests;
pub mod wake;

use std::{sync::Arc, time::Duration};

use hdrhistogram::Histogram;

use self::{
    counters::{KernelCounters, PortCounters},
    mailbox::{Command, Mailbox, Message},
    pipeline::{Pipeline, Scratch},
    report::{LONGEST_RESIDENCE, Report},
    ring::{Completion, Op, Ring, Tag},
    spec::{Idle, OwnRegion, SourceSpec, WorkerSpec},
    wake::Waker,
};
use crate::{
    frame::{Backing, Frame, Pool, Region},
    policy::Reason,
    port::{Io, Place, Port, PortIndex, Wait},
};

/// How long an adaptive worker spins before it sleeps, in nanoseconds. Longer than the gaps of a busy
/// link, far shorter than a scheduler's tick.
const SPIN: u64 = 30_000;

/// How long before a due time a sleeping worker gets up and spins, in nanoseconds: more than a
/// wake-up takes on an idle core.
const RISE: u64 = 80_000;

/// How long a stopping worker waits for writes that the kernel has, in nanoseconds.
const DRAIN: u64 = 50_000_000;

/// How long it then waits for cancelled operations to let go of their slots.
const LET_GO: u64 = 20_000_000;

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
pub struct Worker {
    io: Io,
    ports: Vec<Option<Box<dyn Port>>>,
    generations: Vec<u16>,
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
    began: u64,
    last_work: u64,
    busy: u64,
    residence: Histogram<u64>,
}

/// Nanoseconds of CLOCK_MONOTONIC.
pub fn clock() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .expect("CLOCK_MONOTONIC is always there");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

impl Worker {
    /// Makes a worker in the calling thread, which it pins: ring, memory, ports, all registered.
    ///
    /// `settle` runs once the ring is there and its memory is registered. A ring that a privileged
    /// thread made counts no locked memory (io_uring/io_uring.c, `io_uring_create`), not even what is
    /// registered later: the place to give privileges up, before a port starts a thread of its own.
    pub fn start(
        spec: WorkerSpec,
        mailbox: Arc<Mailbox>,
        waker: Arc<Waker>,
        settle: &dyn Fn() -> Result<(), String>,
    ) -> Result<(Self, Started), WorkerError> {
        let core = spec.core;
        if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
            return Err(WorkerError {
                core,
                message: "the thread cannot be pinned there: is the core online and in this process's cpuset?".into(),
            });
        }
        // A sleep ends when it is due, not when it suits the scheduler. Refused, it is only late.
        let _ = nix::sys::prctl::set_timerslack(1);
        let ring = Ring::new().map_err(|e| WorkerError {
            core,
            message: e.to_string(),
        })?;
        Self::with_ring(spec, mailbox, waker, ring, settle)
    }

    /// Makes a worker over any ring.
    fn with_ring(
        spec: WorkerSpec,
        mailbox: Arc<Mailbox>,
        waker: Arc<Waker>,
        ring: Ring,
        settle: &dyn Fn() -> Result<(), String>,
    ) -> Result<(Self, Started), WorkerError> {
        let fail = |message: String| WorkerError {
            core: spec.core,
            message,
        };
        let ports = spec.ports.len();
        let mut io = Io {
            ring,
            pool: Pool::new(),
            counters: vec![PortCounters::default(); ports],
            waker,
            now: clock(),
            sink_cap: spec.sink_cap,
            own_region: None,
            trouble: false,
        };
        let own = match spec.own {
            None => None,
            Some(own) => Some(add_own_region(&mut io, own).map_err(fail)?),
        };
        settle().map_err(fail)?;
        let mut attached = Vec::with_capacity(ports);
        for (index, port) in spec.ports.into_iter().enumerate() {
            attached.push(match port {
                None => None,
                Some(mut port) => {
                    let place = Place {
                        index: PortIndex(index as u16),
                        generation: 0,
                    };
                    port.attach(&mut io, place).map_err(|e| fail(e.message))?;
                    Some(port)
                }
            });
        }
        let mut sources = Vec::new();
        let mut pipelines = Vec::new();
        for (number, pipeline) in spec.pipelines.into_iter().enumerate() {
            sources.extend(pipeline.sources.into_iter().map(|spec| Source {
                spec,
                pipeline: number,
            }));
            pipelines.push(Pipeline {
                policy: pipeline.policy,
                sinks: pipeline.sinks,
                counters: Default::default(),
            });
        }
        let now = clock();
        let worker = Self {
            io,
            ports: attached,
            generations: vec![0; ports],
            kernel_before: vec![KernelCounters::default(); ports],
            sources,
            first: 0,
            pipelines,
            batch: Vec::with_capacity(spec.batch),
            budget: spec.batch,
            scratch: Scratch::new(spec.batch),
            completions: Vec::with_capacity(256),
            idle: spec.idle,
            mailbox,
            receiving: false,
            finished: false,
            retiring: false,
            waker_armed: false,
            began: now,
            last_work: now,
            busy: 0,
            residence: report::residence_histogram(),
        };
        Ok((worker, Started { own }))
    }

    /// Runs until told to stop, and answers with the last report.
    pub fn run(mut self) -> Report {
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
        let Some(port) = &mut self.ports[spec.port.0 as usize] else {
            return false;
        };
        port.receive(&mut self.io, &mut self.batch, self.budget);
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
                moved |= matches!(completion.tag.op, Op::Read | Op::Write);
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
            return;
        }
        let index = tag.port.0 as usize;
        match &mut self.ports[index] {
            Some(port) if self.generations[index] == tag.generation => {
                port.complete(&mut self.io, completion);
            }
            // Of a port that was closed, which counted it then: only the slot is to be had back.
            _ => match tag.op {
                Op::Write => self.io.pool.complete(tag.slot),
                Op::Read => self.io.pool.reclaim(tag.slot),
                Op::Poll | Op::Cancel | Op::Wake => {}
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

    /// Gives regions of closed ports away once nothing uses them.
    #[cold]
    fn collect(&mut self) {
        while let Some((id, region)) = self.io.pool.collect() {
            // Refused, the kernel keeps the pages for as long as the ring lives.
            let _ = self.io.ring.unregister(id);
            self.mailbox.tell(Message::Region(region));
        }
        self.retiring = self.io.pool.is_retiring();
    }

    /// Takes all commands. Answers whether one of them was to stop.
    #[cold]
    fn obey(&mut self) -> bool {
        while let Some(command) = self.mailbox.command() {
            match command {
                Command::Go => self.receiving = true,
                Command::Close { port, reason } => self.close(port, reason),
                Command::Open { index, port } => self.open(index, port),
                Command::Report(mut report) => {
                    self.report(&mut report);
                    self.mailbox.tell(Message::Report(report));
                }
                Command::Stop => return true,
            }
        }
        false
    }

    fn close(&mut self, index: PortIndex, reason: Reason) {
        let at = index.0 as usize;
        let Some(mut port) = self.ports.get_mut(at).and_then(Option::take) else {
            return;
        };
        if let Some(kernel) = port.kernel() {
            self.kernel_before[at].add(&kernel);
        }
        port.close(&mut self.io, reason);
        self.generations[at] = (self.generations[at] + 1) % Tag::GENERATIONS;
        self.retiring = true;
        self.mailbox.tell(Message::Retired(port));
    }

    fn open(&mut self, index: PortIndex, mut port: Box<dyn Port>) {
        let at = index.0 as usize;
        if self.ports.get(at).is_none_or(Option::is_some) {
            self.mailbox.tell(Message::Retired(port));
            return;
        }
        let place = Place {
            index,
            generation: self.generations[at],
        };
        match port.attach(&mut self.io, place) {
            Ok(()) => self.ports[at] = Some(port),
            Err(failure) => {
                port.close(&mut self.io, Reason::LinkDown);
                self.retiring = true;
                self.mailbox.tell(Message::Retired(port));
                self.mailbox.tell(Message::Failed {
                    port: index,
                    failure,
                });
            }
        }
    }

    fn report(&self, report: &mut Report) {
        report.ports.copy_from_slice(&self.io.counters);
        for (pipeline, into) in self.pipelines.iter().zip(&mut report.pipelines) {
            *into = pipeline.counters;
        }
        for (at, port) in self.ports.iter().enumerate() {
            report.up[at] = port.is_some();
            report.in_flight[at] = port.as_ref().map_or(0, |p| p.in_flight() as u64);
            report.kernel[at] = self.kernel_before[at];
            if let Some(kernel) = port.as_ref().and_then(|p| p.kernel()) {
                report.kernel[at].add(&kernel);
            }
        }
        report.pool = self.io.pool.total();
        report.elapsed = self.io.now - self.began;
        report.busy = self.busy;
        report.residence.reset();
        // The bounds are the same, so that this neither fails nor allocates.
        let _ = report.residence.add(&self.residence);
    }

    #[cold]
    fn tell_failures(&mut self) {
        self.io.trouble = false;
        for (at, port) in self.ports.iter_mut().enumerate() {
            if let Some(failure) = port.as_mut().and_then(|p| p.failure()) {
                self.mailbox.tell(Message::Failed {
                    port: PortIndex(at as u16),
                    failure,
                });
            }
        }
    }

    /// Nothing to do: spins for a while, then sleeps until something comes.
    fn rest(&mut self) {
        if self.io.now - self.last_work < SPIN {
            std::hint::spin_loop();
            return;
        }
        self.io.waker.will_sleep();
        let limit = self.arm();
        // With every source at its end even a busy worker has nothing to be quick for.
        if let Some(limit) = limit
            && (self.idle == Idle::Adaptive || self.finished)
            && let Err(e) = self.io.ring.sleep(limit)
        {
            refused(&e);
        }
        self.io.waker.awake();
        if self.idle == Idle::Busy {
            self.last_work = self.io.now;
        }
    }

    /// Arms everything that ends a sleep. `None`: do not sleep; else for how long at most.
    fn arm(&mut self) -> Option<Option<Duration>> {
        if self.mailbox.has_command() {
            return None;
        }
        // A generation that was published before `will_sleep` is acknowledged here; a later one wakes.
        for pipeline in &mut self.pipelines {
            if let Some(policy) = &mut pipeline.policy {
                policy.load();
            }
        }
        let mut until = None;
        let mut sources_done = self.receiving;
        let mut in_flight = 0;
        for at in 0..self.ports.len() {
            let is_source = self.is_source(at);
            let Some(port) = &mut self.ports[at] else {
                sources_done &= !is_source;
                continue;
            };
            in_flight += port.in_flight();
            match port.wait(&mut self.io) {
                // What a source has must wait until it is told to go.
                Wait::Ready if self.receiving || !is_source => return None,
                Wait::Until(due) if self.receiving || !is_source => {
                    until = Some(until.map_or(due, |earliest: u64| earliest.min(due)));
                    sources_done &= !is_source;
                }
                Wait::Done => {}
                Wait::Ready | Wait::Until(_) | Wait::Event => sources_done &= !is_source,
            }
        }
        if self.io.trouble {
            return None;
        }
        if sources_done && in_flight == 0 && !self.finished {
            self.finished = true;
            self.mailbox.tell(Message::Finished);
        }
        if !self.waker_armed {
            let waker = Arc::clone(&self.io.waker);
            self.waker_armed = self.io.ring.poll(
                std::os::fd::AsFd::as_fd(&*waker),
                Op::Wake,
                Place::default(),
            );
        }
        match until {
            None => Some(None),
            Some(due) if due <= self.io.now + RISE => None,
            Some(due) => Some(Some(Duration::from_nanos(due - self.io.now - RISE))),
        }
    }

    fn is_source(&self, at: usize) -> bool {
        self.sources
            .iter()
            .any(|source| source.spec.port.0 as usize == at)
    }

    /// Writes what is on its way, counts what cannot be written, and takes every slot back.
    fn stop(mut self) -> Report {
        self.receiving = false;
        let mut deadline = clock() + DRAIN;
        while self.ports.iter().flatten().any(|p| p.in_flight() > 0) && self.io.now < deadline {
            self.turn();
        }
        for at in 0..self.ports.len() {
            if self.ports[at].is_some() {
                self.close(PortIndex(at as u16), Reason::Shutdown);
            }
        }
        deadline = clock() + LET_GO;
        while self.io.pool.total().kernel > 0 && self.io.now < deadline {
            self.turn();
        }
        let mut report = Report::blank(self.ports.len(), self.pipelines.len());
        self.report(&mut report);
        report
    }
}

/// A ring that takes nothing any more: there is no frame that could still be moved.
#[cold]
fn refused(error: &std::io::Error) -> ! {
    panic!("io_uring_enter: {error}")
}

/// Maps and registers the worker's own region, with fewer slots where that is allowed and the limit
/// of locked memory demands it.
fn add_own_region(io: &mut Io, own: OwnRegion) -> Result<(u32, usize, Backing), String> {
    let mut slots = own.slots;
    loop {
        let region = Region::map(slots, own.slot_size, own.headroom, own.hugepages)
            .map_err(|e| e.to_string())?;
        let shape = (region.slots(), region.slot_size(), region.backing());
        let id = io
            .pool
            .add(region)
            .ok_or("the first region did not fit into the pool")?;
        match io.ring.register(id, io.pool.region(id)) {
            Ok(()) => {
                io.own_region = Some(id);
                return Ok(shape);
            }
            Err(_) if own.shrink && slots > 512 => {
                io.pool.retire(id);
                io.pool.collect();
                slots /= 2;
            }
            Err(e) => return Err(e.to_string()),
        }
    }
}
