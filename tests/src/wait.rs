//! Waiting for a condition instead of for a time.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Asks `condition` every 5 ms until it holds. Answers whether it did within `limit`.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}
