//! Huge pages for a run: how many are free, and a reservation that is taken back at the end.

use std::{fs, io, thread, time::Duration};

/// Where root says how many there are.
const POOL: &str = "/proc/sys/vm/nr_hugepages";

/// Why no huge pages can be reserved.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The file cannot be read or written.
    #[error(
        "{POOL}: {0}; it needs root and a kernel with huge pages: do without --reserve-hugepages"
    )]
    Pool(#[source] io::Error),
    /// The kernel found fewer.
    #[error(
        "the kernel could reserve {got} of {wanted} huge pages: memory is in pieces, try after \
         echo 1 > /proc/sys/vm/compact_memory, or do without --reserve-hugepages"
    )]
    Fewer {
        /// Free now.
        got: u64,
        /// Asked for.
        wanted: u64,
    },
}

/// Huge pages that nobody has, as the kernel counts them now.
pub fn huge_pages_free() -> u64 {
    let table = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    table
        .lines()
        .find_map(|line| line.strip_prefix("HugePages_Free:"))
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

/// More huge pages than there were; as many as before when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    before: u64,
}

impl Reservation {
    /// Has the kernel make so many more that `wanted` of them are free.
    ///
    /// # Errors
    ///
    /// When they cannot be had; there are as many as before then.
    pub fn of(wanted: u64) -> Result<Self, MemoryError> {
        let before = pool().map_err(MemoryError::Pool)?;
        let reservation = Self { before };
        let more = wanted.saturating_sub(huge_pages_free());
        if more > 0 {
            fs::write(POOL, (before + more).to_string()).map_err(MemoryError::Pool)?;
        }
        match huge_pages_free() {
            got if got < wanted => Err(MemoryError::Fewer { got, wanted }),
            _ => Ok(reservation),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // Pages that are still in use when the number is lowered go when they are given back; those of a process
        // that just ended take a moment.
        for _ in 0..50 {
            let _ = fs::write(POOL, self.before.to_string());
            if pool().is_ok_and(|now| now <= self.before) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn pool() -> io::Result<u64> {
    fs::read_to_string(POOL)?
        .trim()
        .parse()
        .map_err(|_| io::ErrorKind::InvalidData.into())
}
