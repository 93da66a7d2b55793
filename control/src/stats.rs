//! The statistics as the outside sees them: the exact shape of `dpctl stats --json` and of the summary
//! at exit, how workers' counters become it, and the laws that every reading must obey.

mod laws;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use laws::{check_laws, total};

use dataplane::{
    policy::Reason,
    worker::counters::{
        Drops, KernelCounters, PipelineCounters, PortCounters, RxCounters, TxCounters,
    },
};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The version of the shape below. It changes when a field is renamed, removed or given another
/// meaning, not when one is added.
pub const VERSION: u32 = 1;

/// How many frames were dropped for each reason that occurred, by [`Reason::name`].
pub type Dropped = BTreeMap<String, u64>;

/// One consistent reading of everything that the dataplane counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// The version of this shape, [`VERSION`].
    pub version: u32,
    /// Seconds since the engine started.
    pub uptime_s: f64,
    /// The generation of the policies in force.
    pub generation: u64,
    /// Every port, by its name in the configuration.
    pub ports: BTreeMap<String, PortStats>,
    /// Every pipeline, in the order of the configuration.
    pub pipelines: Vec<PipelineStats>,
    /// Every worker, in the order of its core.
    pub workers: Vec<WorkerStats>,
}

impl Stats {
    /// A reading with nothing in it yet.
    pub fn new(uptime_s: f64, generation: u64) -> Self {
        Self {
            version: VERSION,
            uptime_s,
            generation,
            ports: BTreeMap::new(),
            pipelines: Vec::new(),
            workers: Vec::new(),
        }
    }
}

/// One port: the sum over its queues and over the workers that have one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStats {
    /// The kind of port, as in the configuration.
    pub kind: String,
    /// The mode that was really granted, such as `zero-copy` or `copy`; empty for a kind without one.
    pub mode: String,
    /// Whether frames can come or go at this moment.
    pub up: bool,
    /// As a source.
    pub rx: RxStats,
    /// As a sink.
    pub tx: TxStats,
    /// What the kernel counts beside us, by the kernel's own names; empty for a kind without such
    /// numbers.
    #[serde(default)]
    pub kernel: BTreeMap<String, u64>,
    /// Checksums that were finished because the sender had left them to its device.
    #[serde(default)]
    pub checksums_finished: u64,
}

/// A port as a source: `frames == forwarded + dropped + in_flight`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RxStats {
    /// Frames that arrived, those included that were dropped later and those that the kernel lost
    /// before we saw them (`dropped.kernel_full`).
    pub frames: u64,
    /// The bytes of the frames that we saw: the kernel does not tell the length of what it lost.
    pub bytes: u64,
    /// Frames handed to their pipeline's sinks.
    pub forwarded: u64,
    /// Frames that were not, and why.
    pub dropped: Dropped,
    /// Frames whose fate was not decided.
    pub in_flight: u64,
}

/// A port as a sink: `offered == frames + dropped + in_flight`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxStats {
    /// Frames that pipelines handed to this sink.
    pub offered: u64,
    /// Frames that the kernel accepted.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames that it did not take, and why.
    pub dropped: Dropped,
    /// Frames staged or in the kernel.
    pub in_flight: u64,
    /// System calls made to have the kernel transmit (AF_XDP). Left out when zero.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub kicks: u64,
    /// Frames copied because their slot belongs to another region (AF_XDP). Left out when zero.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub copied: u64,
    /// Writes that carried several TCP segments as one (a TAP with `gso`). Left out when zero.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub trains: u64,
}

/// One pipeline, summed over workers: `received == forwarded + dropped + in_flight`. What the kernel
/// lost before a port saw it is entered once, at the port, and not here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineStats {
    /// The names of its sources.
    pub from: Vec<String>,
    /// The names of its sinks.
    pub to: Vec<String>,
    /// The name of its policy; `null` when everything is forwarded.
    pub policy: Option<String>,
    /// Frames that its sources received.
    pub received: u64,
    /// Frames that the policy looked at.
    pub judged: u64,
    /// Frames that no policy looked at.
    pub unjudged: u64,
    /// Frames handed to all sinks.
    pub forwarded: u64,
    /// Frames that were not, and why.
    pub dropped: Dropped,
    /// Frames whose fate was not decided.
    pub in_flight: u64,
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerStats {
    /// The core that it is pinned to.
    pub core: usize,
    /// The share of time, 0 to 1, in which it moved frames.
    pub busy: f64,
    /// Slots in all its regions.
    pub slots_total: u64,
    /// Slots that no frame occupies.
    pub slots_free: u64,
    /// From a batch's receipt to the completion of its last write.
    pub residence_ns: Residence,
}

/// A distribution of residence times, in nanoseconds. All zero when nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Residence {
    /// The median.
    pub p50: u64,
    /// 90 % stayed no longer.
    pub p90: u64,
    /// 99 % stayed no longer.
    pub p99: u64,
    /// 99.9 % stayed no longer.
    pub p999: u64,
    /// The longest.
    pub max: u64,
    /// How many were measured.
    pub count: u64,
}

impl From<&Histogram<u64>> for Residence {
    fn from(histogram: &Histogram<u64>) -> Self {
        Self {
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
            count: histogram.len(),
        }
    }
}

impl PortStats {
    /// A port that has counted nothing yet.
    pub fn new(kind: impl Into<String>, mode: impl Into<String>, up: bool) -> Self {
        Self {
            kind: kind.into(),
            mode: mode.into(),
            up,
            ..Self::default()
        }
    }

    /// Adds one queue's or one worker's counters.
    ///
    /// `tx_in_flight` is what the sink itself says of its frames in flight
    /// ([`Port::in_flight`](dataplane::port::Port::in_flight)), so that [`check_laws`] compares two
    /// independent numbers; without it the difference is entered.
    pub fn add(&mut self, counters: &PortCounters, tx_in_flight: Option<u64>) {
        self.rx.add(&counters.rx);
        self.tx.add(&counters.tx, tx_in_flight);
        self.checksums_finished += counters.checksums_finished;
    }

    /// Adds what the kernel counted for one queue.
    ///
    /// Its `rx_dropped` never reached a worker, so it is entered both as received and as dropped for
    /// `kernel_full`: once, since it already contains `rx_fill_ring_empty_descs`. A port whose
    /// [`PortCounters`] hold `kernel_full` must leave `rx_dropped` at zero.
    pub fn add_kernel(&mut self, kernel: &KernelCounters) {
        if kernel.rx_dropped > 0 {
            self.rx.frames += kernel.rx_dropped;
            *self
                .rx
                .dropped
                .entry(Reason::KernelFull.name().to_owned())
                .or_default() += kernel.rx_dropped;
        }
        for (name, n) in [
            ("rx_dropped", kernel.rx_dropped),
            ("rx_invalid_descs", kernel.rx_invalid_descs),
            ("tx_invalid_descs", kernel.tx_invalid_descs),
            ("rx_ring_full", kernel.rx_ring_full),
            ("rx_fill_ring_empty_descs", kernel.rx_fill_ring_empty_descs),
            ("tx_ring_empty_descs", kernel.tx_ring_empty_descs),
        ] {
            *self.kernel.entry(name.to_owned()).or_default() += n;
        }
    }
}

impl PortStats {
    /// Adds frames that the XDP program ended before any socket: `no_socket` while the socket was being
    /// made anew, `multi_buffer` too long for one buffer, `unclaimed` on queues that came later. They
    /// are entered as received and as dropped.
    pub fn add_before_socket(&mut self, no_socket: u64, multi_buffer: u64, unclaimed: u64) {
        for (reason, n) in [
            (Reason::NoSocket, no_socket + unclaimed),
            (Reason::TooLong, multi_buffer),
        ] {
            if n > 0 {
                self.rx.frames += n;
                *self.rx.dropped.entry(reason.name().to_owned()).or_default() += n;
            }
        }
    }
}

impl RxStats {
    fn add(&mut self, rx: &RxCounters) {
        self.frames += rx.frames;
        self.bytes += rx.bytes;
        self.forwarded += rx.forwarded;
        add_drops(&mut self.dropped, &rx.dropped);
        // Saturating: counters that explain more frames than came must show in `check_laws`, not
        // end the reader.
        self.in_flight += rx.frames.saturating_sub(rx.forwarded + rx.dropped.total());
    }
}

impl TxStats {
    fn add(&mut self, tx: &TxCounters, in_flight: Option<u64>) {
        self.offered += tx.offered;
        self.frames += tx.frames;
        self.bytes += tx.bytes;
        add_drops(&mut self.dropped, &tx.dropped);
        self.in_flight +=
            in_flight.unwrap_or_else(|| tx.offered.saturating_sub(tx.frames + tx.dropped.total()));
        self.kicks += tx.kicks;
        self.copied += tx.copied;
        self.trains += tx.trains;
    }
}

impl PipelineStats {
    /// A pipeline that has counted nothing yet.
    pub fn new(from: Vec<String>, to: Vec<String>, policy: Option<String>) -> Self {
        Self {
            from,
            to,
            policy,
            ..Self::default()
        }
    }

    /// Adds one worker's counters.
    pub fn add(&mut self, counters: &PipelineCounters) {
        self.received += counters.received;
        self.judged += counters.judged;
        self.unjudged += counters.unjudged;
        self.forwarded += counters.forwarded;
        add_drops(&mut self.dropped, &counters.dropped);
        self.in_flight += counters
            .received
            .saturating_sub(counters.forwarded + counters.dropped.total());
    }

    /// How it is spoken of: its sources, an arrow, its sinks.
    pub fn name(&self) -> String {
        format!("{} -> {}", self.from.join(", "), self.to.join(", "))
    }
}

fn add_drops(into: &mut Dropped, drops: &Drops) {
    for (reason, n) in drops.iter() {
        *into.entry(reason.name().to_owned()).or_default() += n;
    }
}

// By reference, as serde calls it.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &u64) -> bool {
    *n == 0
}
