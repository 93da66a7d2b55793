//! The shape of the JSON, the sums, and readings that break a law.

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
fn what_is_beside_is_shown_when_there_is_any() {
    let mut counters = queue();
    counters.tx.kicks = 4;
    counters.tx.copied = 6;
    counters.tx.trains = 2;
    let mut port = PortStats::default();
    port.add(&counters, None);
    let json = serde_json::to_value(&port).unwrap();
    assert_eq!(
        ["kicks", "copied", "trains"].map(|what| &json["tx"][what]),
        [4, 6, 2].map(serde_json::Value::from).each_ref()
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
                    offered: came, frames: went, bytes: went, dropped: drops, kicks, copied: 0, trains: 0,
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
