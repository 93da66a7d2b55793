//! Making a worker in its own thread: ring, memory and ports, all registered before it runs.

use std::sync::Arc;

use super::{
    Source, Started, Worker, WorkerError, clock,
    counters::KernelCounters,
    mailbox::Mailbox,
    pipeline::{Pipeline, Scratch},
    report,
    ring::Ring,
    spec::{OwnRegion, WorkerSpec},
    wake::Waker,
};
use crate::{
    frame::{Arena, Backing, Region},
    policy::Reason,
    port::{Io, Place, PortIndex},
};

impl Worker {
    /// Makes a worker in the calling thread, which it pins: ring, memory, ports, all registered.
    ///
    /// `settle` runs once the ring is there and its memory is registered. A ring that a privileged
    /// thread made counts no locked memory (io_uring/io_uring.c, `io_uring_create`), not even what is
    /// registered later: the place to give privileges up, before a port starts a thread of its own.
    pub(crate) fn start(
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
    pub(super) fn with_ring(
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
        let mut io = Io::new(ring, waker, ports, spec.sink_cap);
        io.now = clock();
        let own = match spec.own {
            None => None,
            Some(wanted) => {
                let own = add_own_region(&mut io, wanted, spec.arena.as_ref()).map_err(fail)?;
                if own.0 < wanted.slots {
                    // Fewer slots: the sinks' shares shrink with them, or one could take them all.
                    io.sink_cap = (io.sink_cap * own.0 as usize / wanted.slots as usize).max(1);
                }
                Some(own)
            }
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
            leaving: Vec::new(),
            generations: vec![0; ports],
            closed_for: vec![Reason::LinkDown; ports],
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
            deadlines: Vec::with_capacity(ports),
            began: now,
            last_work: now,
            rest: Default::default(),
            busy: 0,
            residence: report::residence_histogram(),
        };
        Ok((worker, Started { own }))
    }
}

/// Maps and registers the worker's own region, with fewer slots where that is allowed and the limit
/// of locked memory demands it.
fn add_own_region(
    io: &mut Io,
    own: OwnRegion,
    arena: Option<&Arena>,
) -> Result<(u32, usize, Backing), String> {
    let mut slots = own.slots;
    let arena = arena.filter(|arena| arena.slot_size() as usize == own.slot_size);
    let mut part = arena.and_then(|arena| arena.take(0, own.headroom));
    loop {
        let region = match part.take() {
            Some((region, _)) => region,
            None => Region::map(slots, own.slot_size, own.headroom, own.hugepages)
                .map_err(|e| e.to_string())?,
        };
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
