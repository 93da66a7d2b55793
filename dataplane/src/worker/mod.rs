//! A worker: one pinned thread, its loop, and everything that it writes.

pub mod counters;
pub mod ring;
pub mod wake;
