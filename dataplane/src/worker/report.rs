//! One consistent copy of everything that a worker counts, filled at the end of a batch.

use hdrhistogram::Histogram;

use super::counters::{KernelCounters, PipelineCounters, PortCounters};
use crate::frame::PoolCount;

/// The longest residence that is told apart, in nanoseconds.
pub(crate) const LONGEST_RESIDENCE: u64 = 60_000_000_000;

/// A histogram with the bounds of every worker's: two significant digits up to a minute. Fixed, so
/// that recording and merging never allocate.
pub fn residence_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_RESIDENCE, 2).expect("bounds that hdrhistogram documents")
}

/// One worker's numbers.
#[derive(Clone, Debug)]
pub struct Report {
    /// One entry a port, in the order of the worker's ports.
    pub ports: Vec<PortCounters>,
    /// Beside each port, what the kernel counts, all its lives together.
    pub kernel: Vec<KernelCounters>,
    /// Beside each port, whether it is there.
    pub up: Vec<bool>,
    /// Beside each port, how many frames it says are staged or in the kernel.
    pub in_flight: Vec<u64>,
    /// One entry a pipeline.
    pub pipelines: Vec<PipelineCounters>,
    /// All regions together.
    pub pool: PoolCount,
    /// Nanoseconds since the worker began.
    pub elapsed: u64,
    /// Nanoseconds of these in which it moved frames.
    pub busy: u64,
    /// From a batch's receipt to the completion of its last write, in nanoseconds.
    pub residence: Histogram<u64>,
}

impl Report {
    /// An empty report of the right shape, made by whoever asks for one.
    pub(crate) fn blank(ports: usize, pipelines: usize) -> Self {
        Self {
            ports: vec![PortCounters::default(); ports],
            kernel: vec![KernelCounters::default(); ports],
            up: vec![false; ports],
            in_flight: vec![0; ports],
            pipelines: vec![PipelineCounters::default(); pipelines],
            pool: PoolCount::default(),
            elapsed: 0,
            busy: 0,
            residence: residence_histogram(),
        }
    }
}
