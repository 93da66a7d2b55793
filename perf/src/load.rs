//! Traffic poured into a running product, and what it did with it.

use std::{
    thread,
    time::{Duration, Instant},
};

use control::{link::NetNs, stats::Stats};

use crate::{
    error::BenchError,
    generator::{Generator, Sent, Traffic},
    lab::{Interrupt, SOURCE},
    measure::Measured,
    product::Product,
};

/// What a product did with some traffic.
#[derive(Clone, Debug)]
pub struct Poured {
    /// Frames of the asked kind, with the processor time of its worker.
    pub measured: Measured,
    /// What was handed to the interface.
    pub sent: Sent,
    /// Its counters before.
    pub before: Stats,
    /// Its counters, at rest.
    pub stats: Stats,
}

/// Pours traffic into [`SOURCE`] of `ns` for `time` (or until its count is sent).
///
/// # Errors
///
/// What the generator answers.
pub fn send(
    ns: &NetNs,
    traffic: Traffic,
    time: Duration,
    interrupt: &Interrupt,
) -> Result<Sent, BenchError> {
    let limit = traffic.count;
    let generator = Generator::start(ns, SOURCE, traffic)?;
    while generator.progress().began == 0 && !generator.is_finished() {
        interrupt.check()?;
        thread::sleep(Duration::from_millis(1));
    }
    let end = Instant::now() + time;
    while Instant::now() < end
        && !generator.is_finished()
        && limit.is_none_or(|limit| generator.progress().sent < limit)
    {
        interrupt.check()?;
        thread::sleep((end - Instant::now()).min(Duration::from_millis(20)));
    }
    Ok(generator.stop()?)
}

/// Pours traffic into [`SOURCE`], as [`send`] does, and lets the product come to rest. `count` reads from the
/// counters what is to be measured, such as the frames that a port has written.
///
/// # Errors
///
/// What the generator or the product answers.
pub fn pour(
    product: &Product,
    core: usize,
    traffic: Traffic,
    time: Duration,
    interrupt: &Interrupt,
    count: impl Fn(&Stats) -> u64,
) -> Result<Poured, BenchError> {
    let (cpu, before) = product.at_rest(core, interrupt)?;
    let sent = send(&NetNs::own(), traffic, time, interrupt)?;
    let (cpu_after, stats) = product.at_rest(core, interrupt)?;
    Ok(Poured {
        measured: Measured {
            frames: count(&stats) - count(&before),
            cpu: cpu_after - cpu,
            elapsed: sent.elapsed,
        },
        sent,
        before,
        stats,
    })
}

/// Offers traffic to a product that may never rest (`idle = "busy"`), and waits until its counters do.
/// Answers what was sent and how many frames `count` has seen of it.
///
/// # Errors
///
/// What the generator or the product answers.
pub fn offer(
    product: &Product,
    traffic: Traffic,
    time: Duration,
    interrupt: &Interrupt,
    count: impl Fn(&Stats) -> u64,
) -> Result<(Sent, u64), BenchError> {
    let before = count(&product.stats()?);
    let sent = send(&NetNs::own(), traffic, time, interrupt)?;
    let mut last = count(&product.stats()?);
    loop {
        thread::sleep(Duration::from_millis(30));
        interrupt.check()?;
        let now = count(&product.stats()?);
        if now == last {
            return Ok((sent, now - before));
        }
        last = now;
    }
}
