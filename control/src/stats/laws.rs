//! The laws that every reading obeys: nothing is lost without a counter that says why.

use std::fmt::Write as _;

use super::{Dropped, Stats};

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
