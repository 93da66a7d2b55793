//! A thread that sleeps until somebody has published something for it: no wake is lost, and waking one that
//! is awake costs a fence and a load.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering, fence},
    },
    thread::{self, Thread},
    time::Duration,
};

/// Where one thread sleeps.
#[derive(Debug, Default)]
pub(super) struct Bed {
    /// The thread sleeps, or is about to.
    parked: AtomicBool,
    sleeper: OnceLock<Thread>,
}

impl Bed {
    /// Wakes the thread after something was published for it.
    pub(super) fn wake(&self) {
        // Pairs with the fence in `sleep_unless`: either the thread sees what was published, or this load
        // sees that it is about to sleep.
        fence(Ordering::SeqCst);
        if self.parked.load(Ordering::Relaxed)
            && self.parked.swap(false, Ordering::AcqRel)
            && let Some(sleeper) = self.sleeper.get()
        {
            sleeper.unpark();
        }
    }

    /// The thread's, always the same one: sleeps until it is woken, at most `limit`, unless `found` says
    /// that there is something already. May end early.
    pub(super) fn sleep_unless(&self, limit: Option<Duration>, found: impl FnOnce() -> bool) {
        self.sleeper.get_or_init(thread::current);
        self.parked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !found() {
            match limit {
                None => thread::park(),
                Some(limit) => thread::park_timeout(limit),
            }
        }
        self.parked.store(false, Ordering::Relaxed);
    }
}
