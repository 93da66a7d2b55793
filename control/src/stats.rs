//! The statistics as the outside sees them: the exact shape of `dpctl stats --json` and of the summary
//! at exit, how workers' counters become it, and the laws that every reading must obey.

use std::{collections::BTreeMap, fmt::Write as _};

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

/// Checks that every frame is explained. The error names each port, pipeline or worker where the
/// numbers disagree, with the numbers, in one line.
///
/// - source: `frames == forwarded + dropped + in_flight`
/// - sink: `offered == frames + dropped + in_flight`
/// - pipeline: `received == forwarded + dropped + in_flight`, and no more frames passed a policy or
///   went by without one than were received
/// - worker: `slots_free <= slots_total`
pub fn check_laws(stats: &Stats) -> Result<(), String> {
    let mut broken = String::new();
    let mut law = |whose: &str, came: u64, went: u64, dropped: &Dropped, in_flight: u64| {
        // Wide, because a reading can come from a file that anyone wrote.
        let explained = u128::from(went) + total(dropped) + u128::from(in_flight);
        if explained != u128::from(came) {
            let _ = write!(
                broken,
                "{}{whose}: {came} frames came, {explained} are explained \
                 ({went} went, {} dropped, {in_flight} in flight)",
                if broken.is_empty() { "" } else { "; " },
                total(dropped),
            );
        }
    };
    for (name, port) in &stats.ports {
        let (rx, tx) = (&port.rx, &port.tx);
        law(
            &format!("port {name} rx"),
            rx.frames,
            rx.forwarded,
            &rx.dropped,
            rx.in_flight,
        );
        law(
            &format!("port {name} tx"),
            tx.offered,
            tx.frames,
            &tx.dropped,
            tx.in_flight,
        );
    }
    for line in &stats.pipelines {
        law(
            &format!("pipeline {}", line.name()),
            line.received,
            line.forwarded,
            &line.dropped,
            line.in_flight,
        );
    }
    for line in &stats.pipelines {
        if u128::from(line.judged) + u128::from(line.unjudged) > u128::from(line.received) {
            let _ = write!(
                broken,
                "{}pipeline {}: {} frames came, {} were judged and {} not",
                if broken.is_empty() { "" } else { "; " },
                line.name(),
                line.received,
                line.judged,
                line.unjudged,
            );
        }
    }
    for worker in &stats.workers {
        if worker.slots_free > worker.slots_total {
            let _ = write!(
                broken,
                "{}worker on core {}: {} of {} slots are free",
                if broken.is_empty() { "" } else { "; " },
                worker.core,
                worker.slots_free,
                worker.slots_total,
            );
        }
    }
    if broken.is_empty() {
        Ok(())
    } else {
        Err(broken)
    }
}

/// All that was dropped, for any reason.
pub fn total(dropped: &Dropped) -> u128 {
    dropped.values().map(|&n| u128::from(n)).sum()
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A sink that was offered 10 frames and wrote 7, and a source that got 20 and forwarded 12.
    fn queue() -> PortCounters {
        let mut queue = PortCounters::default();
        queue.rx.frames = 20;
        queue.rx.bytes = 2000;
        queue.rx.forwarded = 12;
        queue.rx.dropped.add(Reason::NotAllowed, 5);
        queue.rx.dropped.add(Reason::Truncated, 1);
        queue.tx.offered = 10;
        queue.tx.frames = 7;
        queue.tx.bytes = 700;
        queue.tx.dropped.add(Reason::SinkFull, 2);
        queue.checksums_finished = 3;
        queue
    }

    fn of_port(port: PortStats) -> Stats {
        let mut stats = Stats::new(1.5, 1);
        stats.ports.insert("uplink".into(), port);
        stats
    }

    #[test]
    fn the_json_has_the_documented_shape() {
        let mut port = PortStats::new("af_xdp", "copy", true);
        port.add(&queue(), None);
        let mut stats = of_port(port);
        stats.pipelines.push(PipelineStats::new(
            vec!["uplink".into()],
            vec!["lc0".into()],
            Some("web".into()),
        ));
        stats.workers.push(WorkerStats {
            core: 2,
            busy: 0.25,
            slots_total: 8192,
            slots_free: 8000,
            residence_ns: Residence::default(),
        });
        assert_eq!(
            serde_json::to_value(&stats).unwrap(),
            serde_json::json!({
                "version": 1, "uptime_s": 1.5, "generation": 1,
                "ports": { "uplink": {
                    "kind": "af_xdp", "mode": "copy", "up": true,
                    "rx": { "frames": 20, "bytes": 2000, "forwarded": 12,
                            "dropped": { "not_allowed": 5, "truncated": 1 }, "in_flight": 2 },
                    "tx": { "offered": 10, "frames": 7, "bytes": 700,
                            "dropped": { "sink_full": 2 }, "in_flight": 1 },
                    "kernel": {}, "checksums_finished": 3 } },
                "pipelines": [ { "from": ["uplink"], "to": ["lc0"], "policy": "web",
                    "received": 0, "judged": 0, "unjudged": 0, "forwarded": 0,
                    "dropped": {}, "in_flight": 0 } ],
                "workers": [ { "core": 2, "busy": 0.25, "slots_total": 8192, "slots_free": 8000,
                    "residence_ns": { "p50": 0, "p90": 0, "p99": 0, "p999": 0, "max": 0,
                                      "count": 0 } } ]
            })
        );
        assert_eq!(check_laws(&stats), Ok(()));
    }

    #[test]
    fn kicks_and_copies_are_shown_when_there_are_any() {
        let mut counters = queue();
        counters.tx.kicks = 4;
        counters.tx.copied = 6;
        let mut port = PortStats::default();
        port.add(&counters, None);
        let json = serde_json::to_value(&port).unwrap();
        assert_eq!(
            (&json["tx"]["kicks"], &json["tx"]["copied"]),
            (&4.into(), &6.into())
        );
    }

    #[test]
    fn what_the_kernel_lost_is_received_and_dropped_once() {
        let mut port = PortStats::default();
        for lost in [100, 0, 11] {
            port.add(&queue(), None);
            port.add_kernel(&KernelCounters {
                rx_dropped: lost,
                rx_fill_ring_empty_descs: lost / 2,
                ..KernelCounters::default()
            });
        }
        assert_eq!(port.rx.frames, 3 * 20 + 111);
        assert_eq!(port.rx.bytes, 3 * 2000);
        assert_eq!(port.rx.dropped["kernel_full"], 111);
        assert_eq!(port.kernel["rx_dropped"], 111);
        assert_eq!(port.kernel["rx_fill_ring_empty_descs"], 55);
        assert_eq!(check_laws(&of_port(port)), Ok(()));
    }

    #[test]
    fn a_broken_law_is_named_with_its_numbers() {
        let good = || {
            let mut port = PortStats::default();
            port.add(&queue(), None);
            let mut stats = of_port(port);
            let mut line = PipelineStats::new(vec!["uplink".into()], vec!["lc0".into()], None);
            line.received = 5;
            line.judged = 5;
            line.forwarded = 5;
            stats.pipelines.push(line);
            stats.workers.push(WorkerStats::default());
            stats
        };
        type Break = fn(&mut Stats);
        let cases: [(Break, &str); 5] = [
            (
                |s| s.ports.get_mut("uplink").unwrap().rx.frames += 1,
                "port uplink rx: 21 frames came, 20 are explained (12 went, 6 dropped, 2 in flight)",
            ),
            (
                |s| s.ports.get_mut("uplink").unwrap().tx.in_flight += 4,
                "port uplink tx: 10 frames came, 14 are explained (7 went, 2 dropped, 5 in flight)",
            ),
            (
                |s| s.pipelines[0].forwarded = u64::MAX,
                "pipeline uplink -> lc0: 5 frames came, 18446744073709551615 are explained \
                 (18446744073709551615 went, 0 dropped, 0 in flight)",
            ),
            (
                |s| s.pipelines[0].unjudged = 1,
                "pipeline uplink -> lc0: 5 frames came, 5 were judged and 1 not",
            ),
            (
                |s| s.workers[0].slots_free = 9,
                "worker on core 0: 9 of 0 slots are free",
            ),
        ];
        for (break_it, message) in cases {
            let mut stats = good();
            assert_eq!(check_laws(&stats), Ok(()));
            break_it(&mut stats);
            assert_eq!(check_laws(&stats), Err(message.to_owned()));
        }
        let mut stats = good();
        stats.ports.get_mut("uplink").unwrap().rx.frames += 1;
        stats.workers[0].slots_free = 9;
        assert!(
            check_laws(&stats)
                .unwrap_err()
                .contains("; worker on core 0")
        );
    }

    #[test]
    fn a_sink_that_forgets_a_frame_breaks_the_law() {
        let mut port = PortStats::default();
        port.add(&queue(), Some(0));
        assert!(check_laws(&of_port(port)).is_err());
        let mut port = PortStats::default();
        port.add(&queue(), Some(1));
        assert_eq!(check_laws(&of_port(port)), Ok(()));
    }

    #[test]
    fn residence_is_read_from_a_histogram() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 1_000_000_000, 3).unwrap();
        for ns in 1..=1000 {
            histogram.record(ns).unwrap();
        }
        let read = Residence::from(&histogram);
        let expected = Residence {
            p50: 500,
            p90: 900,
            p99: 990,
            p999: 999,
            max: 1000,
            count: 1000,
        };
        assert_eq!(read, expected);
        histogram.reset();
        assert_eq!(Residence::from(&histogram), Residence::default());
    }

    proptest! {
        /// Whatever workers counted, in whichever parts, the sum obeys the laws and survives JSON.
        #[test]
        fn sums_obey_the_laws_and_survive_json(
            parts in prop::collection::vec((0u64..1 << 40, 0u64..1 << 20, 0usize..Reason::COUNT,
                                            0u64..1 << 20, 0u64..9, 0u64..1 << 30), 0..9),
        ) {
            let mut port = PortStats::new("af_xdp", "", false);
            let mut line = PipelineStats::default();
            let mut frames = 0;
            for &(went, dropped, reason, in_flight, kicks, lost) in &parts {
                let came = went + dropped + in_flight;
                let mut drops = Drops::default();
                drops.add(Reason::ALL[reason], dropped);
                port.add(&PortCounters {
                    rx: RxCounters { frames: came, bytes: came, forwarded: went, dropped: drops },
                    tx: TxCounters {
                        offered: came, frames: went, bytes: went, dropped: drops, kicks, copied: 0,
                    },
                    checksums_finished: 0,
                }, Some(in_flight));
                port.add_kernel(&KernelCounters { rx_dropped: lost, ..KernelCounters::default() });
                line.add(&PipelineCounters {
                    received: came, judged: went, unjudged: 0, forwarded: went, dropped: drops,
                });
                frames += came + lost;
            }
            prop_assert_eq!(port.rx.frames, frames);
            let mut stats = of_port(port);
            stats.pipelines.push(line);
            prop_assert_eq!(check_laws(&stats), Ok(()));
            let text = serde_json::to_string(&stats).unwrap();
            prop_assert_eq!(serde_json::from_str::<Stats>(&text).unwrap(), stats);
        }
    }
}
