//! Waking a worker that sleeps in its ring: an eventfd that the ring polls, written only when the
//! worker says that it is about to sleep.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicBool, Ordering, fence},
};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Wakes one worker. Cheap while the worker is awake: one fence and one load.
/// It has its cache lines to itself.
#[derive(Debug)]
#[repr(align(128))]
pub struct Waker {
    event: EventFd,
    sleeping: AtomicBool,
}

impl Waker {
    /// A waker whose worker is awake.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            event: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            sleeping: AtomicBool::new(false),
        })
    }

    /// Makes the worker look again at whatever the caller has just published.
    pub fn wake(&self) {
        // Pairs with the fence in `will_sleep`: either the worker sees what was published before
        // this call, or this load sees that the worker is about to sleep.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            // The counter of an eventfd is full only after 2^64 - 2 unread wakes.
            let _ = self.event.write(1);
        }
    }

    /// The worker's: says that it is about to sleep. It must look once more at everything that a
    /// waker publishes before it does.
    pub(crate) fn will_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The worker's: it is awake again.
    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// The worker's: empties the eventfd, whose poll has completed. Not part of [`Waker::awake`]: whoever
    /// wakes may have cleared the flag and not written yet, and what is written then would stay, and end
    /// every sleep at once.
    pub(crate) fn drain(&self) {
        let _ = self.event.read();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
