//! What a worker does when there is nothing to do: it spins for a while, then sleeps in its ring, the
//! one place where it waits.
//!
//! An adaptive worker sleeps in one of two ways. Where frames are rare it is woken by the first of them. Where
//! they come so often that waking for each would cost more than moving it, it naps: it arms nothing, and looks
//! again a fixed time later.

use std::{os::fd::AsFd, sync::Arc, time::Duration};

use super::{Worker, clock, mailbox::Message, refused, ring::Op, spec::Idle};
use crate::port::{Place, Wait};

/// How long a worker spins at most before it sleeps, in nanoseconds. Longer than the gaps of a busy
/// link, far shorter than a scheduler's tick.
const SPIN: u64 = 30_000;

/// An adaptive worker spins no longer than this share of the time that it has worked since it slept: so that
/// one with little to do leaves its core, and one with much is not caught asleep.
const SPIN_SHARE: u64 = 4;

/// How long the shortest nap is, in nanoseconds; the kernel's timers add about as much (prctl(2),
/// PR_SET_TIMERSLACK).
const NAP: u64 = 50_000;

/// How long the longest is, where a source has slots for it. In nanoseconds.
const LONGEST_NAP: u64 = 200_000;

/// Nanoseconds of a nap for each slot of the smallest region: should frames come at forty million a second all of a
/// sudden, there is a slot for each.
const NAP_PER_SLOT: u64 = 25;

/// Woken sooner than this after it fell asleep, a worker naps next. In nanoseconds.
const SOON: u64 = 2 * NAP;

/// How long before a due time a sleeping worker gets up and spins, in nanoseconds: more than a
/// wake-up takes on an idle core.
const RISE: u64 = 80_000;

/// What an adaptive worker remembers of its sleeps.
#[derive(Default)]
pub(super) struct Rest {
    /// When the last began.
    slept: u64,
    /// [`Worker::busy`] then.
    busy: u64,
    /// Whether frames come so often that napping pays.
    napping: bool,
    /// How long the next nap is, in nanoseconds.
    nap: u64,
}

impl Rest {
    /// How long to nap after one that brought work for so many nanoseconds: longer where that was little, since
    /// getting up costs some microseconds, and shorter where it was much.
    fn next_nap(&self, work: u64, slots: u32) -> u64 {
        let longest = LONGEST_NAP.min(u64::from(slots) * NAP_PER_SLOT);
        let nap = match self.nap {
            nap if work < nap / 4 => nap * 2,
            nap if work > nap / 2 => nap / 2,
            nap => nap,
        };
        nap.clamp(NAP, longest.max(NAP))
    }
}

impl Worker {
    /// Nothing to do: spins for a while, then sleeps until something comes.
    pub(super) fn rest(&mut self) {
        if self.io.now - self.last_work < self.patience() {
            std::hint::spin_loop();
            return;
        }
        self.io.waker.will_sleep();
        if self.may_nap() {
            let work = self.busy - self.rest.busy;
            self.rest.nap = self.rest.next_nap(work, self.io.pool.smallest());
            self.sleep(Some(Duration::from_nanos(self.rest.nap)));
        } else {
            let limit = self.arm();
            // With every source at its end even a busy worker has nothing to be quick for.
            if let Some(limit) = limit
                && (self.idle == Idle::Adaptive || self.finished)
            {
                self.sleep(limit);
                // What is due at a time of its own must not be overslept.
                self.rest.napping = limit.is_none() && clock() - self.rest.slept < SOON;
            }
        }
        self.io.waker.awake();
        if self.idle == Idle::Busy {
            self.last_work = self.io.now;
        }
    }

    fn sleep(&mut self, limit: Option<Duration>) {
        self.rest.slept = self.io.now;
        self.rest.busy = self.busy;
        if let Err(e) = self.io.ring.sleep(limit) {
            refused(&e);
        }
    }

    /// How long it spins, in nanoseconds. Between naps not at all: the next one ends soon enough.
    fn patience(&self) -> u64 {
        match self.idle {
            Idle::Busy => SPIN,
            Idle::Adaptive if self.rest.napping => 0,
            Idle::Adaptive => SPIN.min((self.busy - self.rest.busy) / SPIN_SHARE),
        }
    }

    /// Whether it may sleep without being woken by frames: while each nap finds some, every source is one
    /// that is looked at and has slots for what may come, and whoever has a command can wake it.
    fn may_nap(&mut self) -> bool {
        self.rest.napping &= self.last_work > self.rest.slept;
        self.rest.napping
            && self.idle == Idle::Adaptive
            && self.receiving
            && !self.finished
            && self.waker_armed
            && !self.io.trouble
            && !self.mailbox.has_command()
            && u64::from(self.io.pool.smallest()) * NAP_PER_SLOT >= NAP
            && self.sources.iter().all(|source| {
                let port = &self.ports[source.spec.port.0 as usize];
                !source.spec.patient && port.as_ref().is_some_and(|port| port.looks())
            })
    }

    /// Arms everything that ends a sleep. `None`: do not sleep; else for how long at most.
    pub(super) fn arm(&mut self) -> Option<Option<Duration>> {
        if self.mailbox.has_command() {
            return None;
        }
        // A generation that was published before `will_sleep` is acknowledged here; a later one wakes.
        for pipeline in &mut self.pipelines {
            pipeline.acknowledge();
        }
        let mut until = None;
        let mut sources_done = self.receiving;
        let mut in_flight = 0;
        for at in 0..self.ports.len() {
            let is_source = self.is_source(at);
            let is_held = is_source && (!self.receiving || self.is_held_back(at));
            let Some(port) = &mut self.ports[at] else {
                sources_done &= !is_source;
                continue;
            };
            in_flight += port.in_flight();
            if is_held {
                // What it has must wait until the worker is told to go, or a sink has room, and must not
                // wake it before.
                sources_done = false;
                continue;
            }
            match port.wait(&mut self.io) {
                Wait::Ready => return None,
                Wait::Until(due) => {
                    until = Some(until.map_or(due, |earliest: u64| earliest.min(due)));
                    sources_done &= !is_source;
                }
                Wait::Event => sources_done &= !is_source,
                Wait::Done => {}
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
            self.waker_armed = self.io.ring.poll(waker.as_fd(), Op::Wake, Place::default());
            if !self.waker_armed {
                // Nobody could wake it.
                return None;
            }
        }
        match until {
            None => Some(None),
            Some(due) if due <= self.io.now + RISE => None,
            Some(due) => Some(Some(Duration::from_nanos(due - self.io.now - RISE))),
        }
    }

    /// Whether it is a patient source with a sink that has no room.
    fn is_held_back(&self, at: usize) -> bool {
        self.sources.iter().any(|source| {
            source.spec.port.0 as usize == at
                && source.spec.patient
                && self.pipelines[source.pipeline].room(&self.io, &self.ports) == 0
        })
    }

    fn is_source(&self, at: usize) -> bool {
        self.sources
            .iter()
            .any(|source| source.spec.port.0 as usize == at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_follow_the_work_that_they_bring() {
        // (the nap before, the work that it brought, slots of the smallest region, the next nap)
        for (nap, work, slots, next) in [
            (0, 0, 8192, 50_000),
            (50_000, 1_000, 8192, 100_000),
            (100_000, 20_000, 8192, 200_000),
            (200_000, 20_000, 8192, 200_000),
            (200_000, 60_000, 8192, 200_000),
            (200_000, 150_000, 8192, 100_000),
            (50_000, 500_000, 8192, 50_000),
            (100_000, 1_000, 4096, 102_400),
            (50_000, 1_000, 256, 50_000),
        ] {
            let rest = Rest {
                nap,
                ..Rest::default()
            };
            assert_eq!(rest.next_nap(work, slots), next, "{nap} {work} {slots}");
        }
    }
}
