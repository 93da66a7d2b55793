//! Slots that a closed socket may still read from: they stay in the kernel's hands until it has let go.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::SlotRef;

/// Held by what owns a socket, and dropped after the socket is closed.
#[derive(Debug)]
pub struct Lease {
    open: Arc<()>,
    /// How much longer than that the kernel may read.
    grace: Duration,
}

impl Lease {
    /// A lease that ends so long after it is dropped.
    pub(crate) fn new(grace: Duration) -> Self {
        Self {
            open: Arc::new(()),
            grace,
        }
    }
}

/// What was left behind with one socket.
#[derive(Debug)]
pub(super) struct Limbo {
    open: Weak<()>,
    grace: Duration,
    closed: Option<Instant>,
    pub(super) slots: Vec<SlotRef>,
}

impl Limbo {
    pub(super) fn new(lease: &Lease, slots: Vec<SlotRef>) -> Self {
        Self {
            open: Arc::downgrade(&lease.open),
            grace: lease.grace,
            closed: None,
            slots,
        }
    }

    /// Whether the kernel has let go.
    pub(super) fn is_over(&mut self) -> bool {
        if self.open.strong_count() > 0 {
            return false;
        }
        self.closed.get_or_insert_with(Instant::now).elapsed() >= self.grace
    }
}
