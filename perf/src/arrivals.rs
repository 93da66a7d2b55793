//! What arrives at an interface, seen from outside of whoever sends it: a program at TCX ingress
//! (`perf/bpf/arrivals.c`), behind packet sockets and before everything else.

use std::error::Error;

use aya::{
    Ebpf, EbpfError, EbpfLoader, include_bytes_aligned,
    maps::{Array, MapData, MapError},
    programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, tc::TcAttachOptions},
};

use crate::error::BenchError;

/// Arrivals in one element of the program's array.
const PAGE: usize = 512;

/// A program on an interface of the calling thread's namespace; gone when dropped.
pub(crate) struct Arrivals {
    seen: Array<MapData, u64>,
    times: Array<MapData, [u64; PAGE]>,
    room: u64,
    _ebpf: Ebpf,
}

impl Arrivals {
    /// Writes down when the next `count` frames arrive.
    pub(crate) fn time(interface: &str, count: u64) -> Result<Self, BenchError> {
        Self::attach(interface, "timed", count).map_err(|error| failed(interface, &error))
    }

    /// Counts what arrives; a merged packet counts as those that it stands for.
    pub(crate) fn count(interface: &str) -> Result<Self, BenchError> {
        Self::attach(interface, "counted", 0).map_err(|error| failed(interface, &error))
    }

    fn attach(interface: &str, program: &str, room: u64) -> Result<Self, EbpfError> {
        let pages = room.div_ceil(PAGE as u64).max(1) as u32;
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .override_global("room", &room, true)
            .map_max_entries("times", pages)
            .load(include_bytes_aligned!("../bpf/arrivals.bpf.o"))?;
        let mut map = |name: &str| {
            ebpf.take_map(name)
                .ok_or_else(|| MapError::InvalidName { name: name.into() })
        };
        let (seen, times) = (
            Array::try_from(map("seen")?)?,
            Array::try_from(map("times")?)?,
        );
        let classifier: &mut SchedClassifier = ebpf
            .program_mut(program)
            .ok_or(ProgramError::NotLoaded)?
            .try_into()?;
        classifier.load()?;
        // Before the drop that keeps the host's stack out.
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        classifier.attach_with_options(interface, TcAttachType::Ingress, first)?;
        Ok(Self {
            seen,
            times,
            room,
            _ebpf: ebpf,
        })
    }

    /// How many have arrived; no more than there is room for, where times are written down.
    pub(crate) fn frames(&self) -> u64 {
        self.seen.get(&0, 0).unwrap_or_default()
    }

    /// Whether all are written down.
    pub(crate) fn is_full(&self) -> bool {
        self.frames() >= self.room
    }

    /// When each arrived, on CLOCK_MONOTONIC, in nanoseconds.
    pub(crate) fn times(&self) -> Vec<u64> {
        let count = self.frames() as usize;
        let mut times = Vec::with_capacity(count.next_multiple_of(PAGE));
        for page in 0..count.div_ceil(PAGE) {
            times.extend(self.times.get(&(page as u32), 0).unwrap_or([0; PAGE]));
        }
        times.truncate(count);
        times
    }
}

fn failed(interface: &str, error: &EbpfError) -> BenchError {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    BenchError::Arrivals {
        interface: interface.into(),
        message,
    }
}
