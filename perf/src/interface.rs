//! What an interface of the calling thread's namespace has counted: the rate of a sender, seen from outside of it.

use std::fs;

use crate::error::BenchError;

/// Of the thread's namespace, whatever /sys shows.
const FILE: &str = "/proc/thread-self/net/dev";

/// Counters of an interface since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Frames received and handed on.
    pub(crate) received: u64,
    /// Frames that the host sent into it, whether somebody took them or not.
    pub(crate) sent: u64,
}

impl Counters {
    /// Those of an interface.
    pub(crate) fn of(interface: &str) -> Result<Self, BenchError> {
        let text = fs::read_to_string(FILE).map_err(|e| failed(interface, &e.to_string()))?;
        Self::find(&text, interface)
    }

    /// Those of an interface, in the text of such a file.
    pub(crate) fn find(text: &str, interface: &str) -> Result<Self, BenchError> {
        find(text, interface).ok_or_else(|| failed(interface, "there is no such interface"))
    }
}

fn failed(interface: &str, message: &str) -> BenchError {
    BenchError::Counters {
        interface: interface.into(),
        file: FILE,
        message: message.into(),
    }
}

/// A line is `name: ` and eight numbers of what was received, eight of what was sent (net/core/net-procfs.c,
/// `dev_seq_printf_stats`); the second of each is frames, the fourth those dropped.
fn find(text: &str, interface: &str) -> Option<Counters> {
    let line = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))?;
    let numbers: Vec<u64> = line.split_whitespace().flat_map(str::parse).collect();
    Some(Counters {
        received: *numbers.get(1)?,
        sent: numbers.get(9)? + numbers.get(11)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_by_its_whole_name() {
        let text = "Inter-|   Receive                |  Transmit\n \
                    face |bytes    packets errs drop |bytes    packets errs drop\n\
                    lc00: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  \
                    lc0: 100 20 0 0 0 0 0 0 300 40 0 7 0 0 0 0\n";
        let expected = Counters {
            received: 20,
            sent: 47,
        };
        assert_eq!(find(text, "lc0"), Some(expected));
        assert_eq!(find(text, "lc"), None);
    }
}
