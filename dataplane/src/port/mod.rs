//! Ports: the places that frames come from and go to. One module a kind, all behind [`Port`].
//!
//! A worker owns its ports and calls them in turn. A port never waits: it takes what is there, stages
//! what fits, counts what does not, and says with [`Port::wait`] when it wants to be called again.

use std::{io, sync::Arc};

use crate::{
    frame::{Frame, Pool, Staged},
    policy::Reason,
    worker::{
        counters::PortCounters,
        ring::{Completion, Ring},
        wake::Waker,
    },
};

/// A port's place among the ports of its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortIndex(pub u16);

/// What a port works with: everything of the worker that is not a port.
#[derive(Debug)]
pub struct Io {
    /// The worker's io_uring.
    pub ring: Ring,
    /// The worker's frame memory.
    pub pool: Pool,
    /// One entry a port, by [`PortIndex`].
    pub counters: Vec<PortCounters>,
    /// Wakes this worker from other threads; ports clone it for their helpers.
    pub waker: Arc<Waker>,
    /// The clock as it was read last: nanoseconds of CLOCK_MONOTONIC.
    pub now: u64,
    /// How many frames of one sink may be staged or in the kernel.
    pub sink_cap: usize,
}

impl Io {
    /// The counters of a port.
    #[inline]
    pub fn count(&mut self, port: PortIndex) -> &mut PortCounters {
        &mut self.counters[port.0 as usize]
    }

    /// Drops a share that a sink cannot take, and counts why.
    #[inline]
    pub fn refuse(&mut self, port: PortIndex, staged: Staged, reason: Reason) {
        self.pool.release(staged);
        self.count(port).tx.drop(reason);
    }
}

/// When a source wants to be called again. The worker takes the earliest of all its sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// There is more already: do not sleep.
    Ready,
    /// At this time of the worker's clock; the worker sleeps most of the way and spins the rest.
    Until(u64),
    /// A completion or the worker's waker will come.
    Event,
    /// Nothing will ever come again.
    Done,
}

/// One port, or one queue of one, as its worker sees it. Sources implement `receive` and `wait`,
/// sinks `stage`, `flush` and `in_flight`.
pub trait Port: Send {
    /// Called once, in the worker's thread, before anything else: add regions to the pool, register
    /// files and buffers, park reads.
    fn attach(&mut self, io: &mut Io, index: PortIndex) -> io::Result<()>;

    /// Moves at most `budget` frames into `batch`, counting them as received. A frame that cannot be
    /// handed on (too long for a slot) is counted as received and dropped.
    fn receive(&mut self, _io: &mut Io, _batch: &mut Vec<Frame>, _budget: usize) {}

    /// Asked before the worker sleeps: arms what wakes it. Anything that arrived while arming must be
    /// answered with [`Wait::Ready`].
    fn wait(&mut self, _io: &mut Io) -> Wait {
        Wait::Event
    }

    /// Takes all of `frames`: each is offered, and then staged or dropped with a reason.
    fn stage(&mut self, io: &mut Io, frames: &mut Vec<Staged>);

    /// Hands what is staged to the kernel, as far as it takes it.
    fn flush(&mut self, _io: &mut Io) {}

    /// A completion whose `user_data` names this port and its present generation.
    fn complete(&mut self, _io: &mut Io, _completion: Completion) {}

    /// Frames staged or in the kernel, that is neither written nor dropped.
    fn in_flight(&self) -> usize {
        0
    }

    /// Ends the port: what it holds goes back to the pool, what was on its way is counted as dropped
    /// for `reason`, its region is retired. Completions that still come are not delivered to it.
    fn close(&mut self, io: &mut Io, reason: Reason);

    /// The first thing that ended or hurt this port for good, for the control plane to report. Asked
    /// when [`Port::wait`] says [`Wait::Done`].
    fn failure(&mut self) -> Option<PortFailure> {
        None
    }
}

/// Why a port can do no more.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct PortFailure {
    /// What happened, where, and what to do, in one line.
    pub message: String,
}
