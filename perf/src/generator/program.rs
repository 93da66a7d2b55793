//! Loads `perf/bpf/generator.c` and reads how far it is.

use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader, include_bytes_aligned,
    maps::{Array, MapData, MapError},
    programs::{ProgramError, Xdp},
};

use super::{Traffic, vary::MAX_SIZES};

/// What the program writes down as it runs, of `struct progress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Frames handed to the interface.
    pub sent: u64,
    /// CLOCK_MONOTONIC of the first, in nanoseconds; 0 before it.
    pub began: u64,
    /// The same of the last. 0 where no rate was set: it is not worth a clock read a frame.
    pub last: u64,
}

/// The loaded program.
pub(super) struct Program {
    ebpf: Ebpf,
    progress: Array<MapData, [u64; 4]>,
    limit: Option<u64>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("limit", &self.limit)
            .field("progress", &self.progress())
            .finish_non_exhaustive()
    }
}

impl Program {
    /// Loads it for one interface of the namespace that it will run in. The traffic has been checked.
    pub(super) fn load(interface: u32, traffic: &Traffic) -> Result<Self, EbpfError> {
        let period = traffic.rate.map_or(0, period);
        let limit = traffic.count;
        let vary = &traffic.vary;
        let mut sizes = [0_u16; MAX_SIZES];
        sizes[..vary.sizes.len()].copy_from_slice(&vary.sizes);
        let original = if vary.is_plain() {
            Original::default()
        } else {
            Original::of(&traffic.frame)
        };
        let mut ebpf = EbpfLoader::new()
            .override_global("interface", &interface, true)
            .override_global("limit", &limit.unwrap_or(0), true)
            .override_global("period", &period, true)
            .override_global("lengths", &(vary.sizes.len() as u32), true)
            .override_global("sizes", &sizes, true)
            .override_global("flows", &vary.flows, true)
            .override_global("stamped", &u32::from(vary.stamped), true)
            .override_global("full", &(traffic.frame.len() as u32), true)
            .override_global("header_sum", &original.header_sum, true)
            .override_global("source", &original.source, true)
            .override_global("source_port", &original.source_port, true)
            .load(include_bytes_aligned!("../../bpf/generator.bpf.o"))?;
        let xdp: &mut Xdp = ebpf
            .program_mut("generate")
            .ok_or(ProgramError::NotLoaded)?
            .try_into()?;
        xdp.load()?;
        let map = ebpf.take_map("progress").ok_or(MapError::InvalidName {
            name: "progress".into(),
        })?;
        Ok(Self {
            progress: Array::try_from(map)?,
            ebpf,
            limit,
        })
    }

    /// Frames to send in all.
    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// How far it is.
    pub(super) fn progress(&self) -> Progress {
        let [sent, began, last, _next] = self.progress.get(&0, 0).unwrap_or_default();
        Progress { sent, began, last }
    }

    /// For bpf(2).
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match self.ebpf.program("generate") {
            Some(aya::programs::Program::Xdp(xdp)) => match xdp.fd() {
                Ok(fd) => fd.as_fd(),
                Err(_) => unreachable!("loaded when it was made"),
            },
            _ => unreachable!("looked up when it was made"),
        }
    }
}

/// What the program must know of the frame that is varied.
#[derive(Default)]
struct Original {
    /// The sum of those 16-bit words of its IPv4 header that are the same in all frames: without length,
    /// checksum and source.
    header_sum: u32,
    source: u32,
    source_port: u32,
}

impl Original {
    /// Of UDP over IPv4 without options.
    fn of(frame: &[u8]) -> Self {
        let word = |at: usize| u32::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
        Self {
            header_sum: [14, 18, 20, 22, 30, 32].into_iter().map(word).sum(),
            source: word(26) << 16 | word(28),
            source_port: word(34),
        }
    }
}

/// Time from frame to frame, in 1/65536 ns. 0 would be no limit.
fn period(rate: u64) -> u64 {
    ((1_000_000_000 << 16) / rate.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_precise_at_any_rate() {
        for rate in [1, 7, 1_000, 333_333, 1_000_000, 11_000_000] {
            let error = (1e9 * 65536.0 / rate as f64 - period(rate) as f64) / period(rate) as f64;
            assert!(error.abs() < 1e-6, "{rate}: {error}");
        }
        assert_eq!(period(u64::MAX), 1);
    }
}
