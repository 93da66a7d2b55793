//! Ports: the places that frames come from and go to. One module a kind, all behind [`Port`].
//!
//! A worker owns its ports and calls them in turn. A port never waits: it takes what is there, stages
//! what fits, counts what does not, and says with [`Port::wait`] when it wants to be called again.

pub mod af_packet;
pub mod af_xdp;
pub mod pcap;
pub mod tap;
pub mod vxlan;

use std::{collections::VecDeque, sync::Arc};

use crate::{
    frame::{Frame, Pool, RegionId, Staged},
    policy::Reason,
    worker::{
        counters::{KernelCounters, PortCounters},
        ring::{Completion, Gathered, Header, Ring, Tag, Target},
        wake::Waker,
    },
};

/// A port's place among the ports of its worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortIndex(pub u16);

/// Where a port stands in its worker, and which of its lives this is. Operations carry both, so that
/// the completions of a port that went away are not taken for its successor's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its index.
    pub index: PortIndex,
    /// Counted up, modulo the 4,096 that an operation can tell apart, each time the index gets a new port.
    pub generation: u16,
}

/// What a port works with: everything of the worker that is not a port.
#[derive(Debug)]
pub struct Io {
    /// The worker's io_uring.
    pub ring: Ring,
    /// The worker's frame memory.
    pub pool: Pool,
    /// The region for frames that come from no other: added before the ports are attached.
    pub own_region: Option<RegionId>,
    /// One entry a port, by [`PortIndex`].
    pub counters: Vec<PortCounters>,
    /// Wakes this worker from other threads; ports clone it for their helpers.
    pub waker: Arc<Waker>,
    /// The clock as it was read last: nanoseconds of CLOCK_MONOTONIC.
    pub now: u64,
    /// How many frames of one sink may be staged or in the kernel.
    pub sink_cap: usize,
    /// The source of the frames that are being staged.
    pub from: PortIndex,
    /// Set by a port that has a [`Port::failure`] to tell.
    pub trouble: bool,
}

impl Io {
    /// What a worker with so many ports begins with: counters at zero, no memory, the clock not read.
    pub fn new(ring: Ring, waker: Arc<Waker>, ports: usize, sink_cap: usize) -> Self {
        Self {
            ring,
            pool: Pool::new(),
            own_region: None,
            counters: vec![PortCounters::default(); ports],
            waker,
            now: 0,
            sink_cap,
            from: PortIndex::default(),
            trouble: false,
        }
    }

    /// The region that a source called `name` receives into, where a frame has `headroom` bytes before it at
    /// least.
    pub(crate) fn region_for(&self, name: &str, headroom: usize) -> Result<RegionId, PortFailure> {
        let Some(region) = self.own_region else {
            return Err(PortFailure::fatal(format!(
                "{name}: frames are received into the worker's own region, and there is none; add one before its ports"
            )));
        };
        match self.pool.region(region).headroom() {
            room if room < headroom => Err(PortFailure::fatal(format!(
                "{name}: frames begin {room} bytes into a slot, and {headroom} bytes are put before some; give the worker's own region {headroom} bytes of headroom"
            ))),
            _ => Ok(region),
        }
    }

    /// The counters of a port.
    #[inline]
    pub fn count(&mut self, port: PortIndex) -> &mut PortCounters {
        &mut self.counters[port.0 as usize]
    }

    /// Queues the write of a share to a file. The share comes back when the ring has no room.
    #[inline]
    pub fn write(&mut self, file: Target, place: Place, staged: Staged) -> Result<(), Staged> {
        self.ring.write(&mut self.pool, file, place, staged)
    }

    /// Queues one write of a header and, behind it, the bytes of the first `n` shares. `false`, and the shares
    /// stay, when the ring has no room. The ring must have been told to
    /// [`prepare_gathers`](Ring::prepare_gathers), and the completion is for [`settle`](Self::settle).
    ///
    /// # Panics
    ///
    /// When there are fewer shares, or `n` is more than 64, when one is shorter than what the header stands
    /// for, and when the header has more than 128 bytes.
    #[inline]
    pub fn write_parts(
        &mut self,
        file: Target,
        place: Place,
        header: Header<'_>,
        shares: &mut VecDeque<Staged>,
        n: usize,
    ) -> bool {
        self.ring
            .write_parts(&mut self.pool, file, place, header, shares, n)
    }

    /// Ends the shares of a write of many parts that the kernel has answered, and says what they were.
    #[inline]
    pub fn settle(&mut self, tag: Tag) -> Gathered {
        self.ring.settle(&mut self.pool, tag)
    }

    /// Queues a message to a connected socket: a header, and behind it the bytes of a share. The share comes
    /// back when the ring has no room. The ring must have been told to
    /// [`prepare_sends`](Ring::prepare_sends).
    #[inline]
    pub(crate) fn send(
        &mut self,
        socket: Target,
        place: Place,
        header: [u8; 8],
        staged: Staged,
    ) -> Result<(), Staged> {
        self.ring
            .send(&mut self.pool, socket, place, header, staged)
    }

    /// Queues a read from a file into an empty frame's slot, behind the region's headroom. The frame
    /// comes back when the ring has no room.
    #[inline]
    pub fn read(&mut self, file: Target, place: Place, empty: Frame) -> Result<(), Frame> {
        self.ring.read(&mut self.pool, file, place, empty)
    }

    /// Drops a share that a sink cannot take, and counts why.
    #[inline]
    pub fn refuse(&mut self, port: PortIndex, staged: Staged, reason: Reason) {
        self.pool.release(staged);
        self.count(port).tx.drop(reason);
    }

    /// Takes all of what a port is offered that cannot take any, and counts why.
    #[cold]
    pub(crate) fn refuse_all(&mut self, port: PortIndex, frames: &mut Vec<Staged>, reason: Reason) {
        self.count(port).tx.offered += frames.len() as u64;
        for staged in frames.drain(..) {
            self.refuse(port, staged, reason);
        }
    }
}

/// An Ethernet header, in bytes: nothing shorter is a frame. The kernel refuses to send it (EINVAL from a TAP).
pub(crate) const SHORTEST: usize = 14;

/// How long writes that the kernel has are waited for when a worker stops, in nanoseconds.
pub(crate) const KERNEL_DRAIN: u64 = 25_000_000;

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
    fn attach(&mut self, io: &mut Io, place: Place) -> Result<(), PortFailure>;

    /// Moves at most `budget` frames into `batch`, counting them as received. A frame that cannot be
    /// handed on (too long for a slot) is counted as received and dropped.
    fn receive(&mut self, _io: &mut Io, _batch: &mut Vec<Frame>, _budget: usize) {}

    /// Whether [`receive`](Self::receive) finds all that has come, also when [`wait`](Self::wait) has not
    /// armed anything: then a worker may look now and then instead of being woken for each frame.
    fn looks(&self) -> bool {
        false
    }

    /// Asked before the worker sleeps: arms what wakes it. Anything that arrived while arming must be
    /// answered with [`Wait::Ready`].
    fn wait(&mut self, _io: &mut Io) -> Wait {
        Wait::Event
    }

    /// Takes all of `frames`: each is offered, and then staged or dropped with a reason.
    fn stage(&mut self, io: &mut Io, frames: &mut Vec<Staged>);

    /// How many frames [`stage`](Self::stage) takes at this moment before it drops one as `sink_full`. Asked
    /// before a source is served that can wait ([`SourceSpec::patient`](crate::worker::spec::SourceSpec::patient)). A sink that
    /// can do no more says `usize::MAX`: it drops at once and holds nobody up. One that has room again
    /// completes an operation or wakes the worker.
    fn room(&self, _io: &Io) -> usize {
        usize::MAX
    }

    /// Hands what is staged to the kernel, as far as it takes it.
    fn flush(&mut self, _io: &mut Io) {}

    /// A completion whose `user_data` names this port and its present generation.
    fn complete(&mut self, _io: &mut Io, _completion: Completion) {}

    /// Frames staged or in the kernel, that is neither written nor dropped.
    fn in_flight(&self) -> usize {
        0
    }

    /// Told once when the worker stops: nothing more will be staged. Answers how many nanoseconds what is in
    /// flight may still take, before [`close`](Self::close) counts it as dropped.
    fn drain(&mut self, _io: &mut Io) -> u64 {
        KERNEL_DRAIN
    }

    /// What the kernel counts beside us; asked when somebody wants a report.
    fn kernel(&self) -> Option<KernelCounters> {
        None
    }

    /// Ends the port: what it holds goes back to the pool, what was on its way is counted as dropped
    /// for `reason`, its region is retired. Completions that still come are not delivered to it.
    fn close(&mut self, io: &mut Io, reason: Reason);

    /// Whether an operation of the ring still holds a file of a closed port: a poll that is being cancelled. The
    /// worker keeps the port until that has ended, so that whoever drops it closes the file.
    fn is_held(&self) -> bool {
        false
    }

    /// What ended or first hurt this port, once, for the control plane to report. Asked when the port has
    /// set [`Io::trouble`].
    fn failure(&mut self) -> Option<PortFailure> {
        None
    }
}

/// What went wrong with a port.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct PortFailure {
    /// What happened, where, and what to do, in one line.
    pub message: String,
    /// Whether the port can do no more; otherwise it is the first of something that is only counted
    /// from here on.
    pub fatal: bool,
}

impl PortFailure {
    /// The end of a port.
    pub fn fatal(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            fatal: true,
        }
    }

    /// The first of something that the port survives.
    pub fn first(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            fatal: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{HugePages, Region};

    #[test]
    fn a_source_is_told_what_its_worker_lacks() {
        // (the region's headroom, what the source wants, what it is told)
        for (has, wants, told) in [
            (None, 0, Some("add one before its ports")),
            (Some(0), 0, None),
            (Some(4), 4, None),
            (Some(3), 4, Some("4 bytes of headroom")),
        ] {
            let waker = Arc::new(Waker::new().expect("an eventfd"));
            let mut io = Io::new(Ring::fake(), waker, 1, 1);
            let region = has.map(|headroom| Region::map(8, 256, headroom, HugePages::Off));
            io.own_region = region.and_then(|region| io.pool.add(region.expect("memory")));
            let answer = io.region_for("in0", wants).map_err(|e| e.message);
            match told {
                None => assert_eq!(answer.ok(), io.own_region),
                Some(words) => {
                    let message = answer.expect_err(words);
                    assert!(
                        message.starts_with("in0: ") && message.contains(words),
                        "{message}"
                    );
                }
            }
        }
    }
}
