//! What memory a process takes, as the kernel says: /proc/PID/status and smaps_rollup (proc(5)).

use std::fs;

use crate::error::BenchError;

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Resident, without huge pages of the hugetlb pool.
    pub resident: u64,
    /// Of these: of no file. Heap, stacks, frame memory on normal pages.
    pub anonymous: u64,
    /// Of the hugetlb pool, which `resident` does not count.
    pub huge: u64,
}

impl Footprint {
    /// Of a process.
    ///
    /// # Errors
    ///
    /// When it is gone, or its memory may not be looked at.
    pub fn of(pid: u32) -> Result<Self, BenchError> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).map_err(|e| BenchError::Product(format!("{path}: {e}")))
        };
        let (status, rollup) = (read("status")?, read("smaps_rollup")?);
        Ok(Self {
            resident: bytes(&rollup, "Rss:"),
            anonymous: bytes(&rollup, "Anonymous:"),
            huge: bytes(&status, "HugetlbPages:"),
        })
    }

    /// Resident beyond frame memory of so many bytes, wherever that is.
    pub fn beyond(&self, regions: u64) -> u64 {
        (self.resident + self.huge).saturating_sub(regions)
    }
}

/// The number behind a name, `NAME 12 kB`, in bytes; 0 where it is not there.
fn bytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or_default() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_by_its_name() {
        let text = "Name:\tx\nRss:      12 kB\nHugetlbPages:\t    2048 kB\n";
        for (name, expected) in [("Rss:", 12 << 10), ("HugetlbPages:", 2 << 20), ("Pss:", 0)] {
            assert_eq!(bytes(text, name), expected);
        }
    }

    #[test]
    fn memory_that_is_written_is_resident() {
        let pid = std::process::id();
        let before = Footprint::of(pid).expect("our own memory");
        let taken = vec![1_u8; 64 << 20];
        let after = Footprint::of(pid).expect("our own memory");
        assert!(
            after.anonymous >= before.anonymous + (60 << 20),
            "{before:?} {after:?}"
        );
        assert!(after.resident >= after.anonymous);
        drop(taken);
    }
}
