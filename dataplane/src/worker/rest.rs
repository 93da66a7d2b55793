//! What a worker does when there is nothing to do: it spins for a while, then sleeps in its ring, the
//! one place where it waits.

use std::{os::fd::AsFd, sync::Arc, time::Duration};

use super::{Worker, mailbox::Message, refused, ring::Op, spec::Idle};
use crate::port::{Place, Wait};

/// How long an adaptive worker spins before it sleeps, in nanoseconds. Longer than the gaps of a busy
/// link, far shorter than a scheduler's tick.
const SPIN: u64 = 30_000;

/// How long before a due time a sleeping worker gets up and spins, in nanoseconds: more than a
/// wake-up takes on an idle core.
const RISE: u64 = 80_000;

impl Worker {
    /// Nothing to do: spins for a while, then sleeps until something comes.
    pub(super) fn rest(&mut self) {
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
