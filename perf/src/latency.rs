//! `dpbench latency`: from a frame's departure at the generator to its arrival at the TAP, seen from outside.
//!
//! The generator writes the time into each frame, and a BPF program at the TAP's ingress takes it from the time
//! there ([`crate::probe`]): one clock, two cores of one machine. The write into a TAP ends in that
//! ingress, so nothing of the way is left out.

use std::time::Duration;

use control::stats::Stats;

use crate::{
    configuration,
    error::BenchError,
    generator::{Traffic, frame},
    lab,
    load::{offer, pour},
    peer::{bare, listener::Audience, tap_floor, writer::Way},
    probe::{Distribution, Probe},
    product::Product,
    report::{LOSS, Quantity, RATE, Report},
    search::Search,
    session::{Benchmark, Session},
};

/// Arrival to TAP, seen from outside, at 10, 50 and 90 % of the highest rate without loss
#[derive(Clone, Debug, clap::Args)]
pub struct Latency {
    /// Bytes of a frame, without the check sequence
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = size)]
    size: usize,
    /// Seconds of each measurement of times
    #[arg(long, value_name = "S", default_value_t = 0.7, value_parser = crate::drop::seconds)]
    sample: f64,
    /// Seconds at 70 % of the highest rate, in which no frame may be lost
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = crate::drop::seconds)]
    seconds: f64,
    /// The highest rate without loss, in frames a second [default: it is searched for]
    #[arg(long, value_name = "PPS", value_parser = clap::value_parser!(u64).range(1000..))]
    rate: Option<u64>,
    /// Shares of it at which times are measured, in percent
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', default_value = "10,50,90", value_parser = clap::value_parser!(u64).range(1..=100))]
    loads: Vec<u64>,
}

fn size(text: &str) -> Result<usize, String> {
    frame::size(text, 60..=1514)
}

const BARE: &str = "bare loop";
const FLOOR: &str = "TAP floor";
const BUSY: &str = "dataplane, busy";
const ADAPTIVE: &str = "dataplane, adaptive";

const P50: Quantity = Quantity::cost("p50", "µs", 1);
const P99: Quantity = Quantity::cost("p99", "µs", 1);
const P999: Quantity = Quantity::cost("p99.9", "µs", 1);
const MAX: Quantity = Quantity::cost("max", "µs", 0);
const JITTER: Quantity = Quantity::cost("jitter", "µs", 1);
/// Processor time beside time.
const SHARE: Quantity = Quantity::cost("processor", "% of a core", 1);

/// The rate at which the processor share of an adaptive worker is told.
const LIGHT: u64 = 100_000;

impl Benchmark for Latency {
    fn run(&self, session: &mut Session<'_>) -> Result<Report, BenchError> {
        lab::enter()?;
        let mut report = Report::begin(
            "latency",
            "AF_XDP -> policy of ten rules -> TAP: times",
            "From the time at which the generator hands a frame to the veth, which it writes into the frame, to \
             the ingress of the TAP, in a histogram of 1.6 % resolution. At shares of the highest rate at \
             which the dataplane loses no frame, found by halving (RFC 2544). jitter is the standard deviation. \
             The bare loop never sleeps, like `idle = \"busy\"`; adaptive is the default.",
            session,
        );
        session.step("latency: the highest rate without loss")?;
        let highest = match self.rate {
            Some(rate) => rate,
            None => self.highest(session)?,
        };
        report.record("highest without loss", BUSY, &RATE, highest as f64 / 1e6);
        for round in 1..=session.rounds {
            for &load in &self.loads {
                let case = format!("{load} %");
                session.step(&format!(
                    "latency, {case}, round {round} of {}",
                    session.rounds
                ))?;
                let traffic = self.traffic(session, highest * load / 100);
                self.bare(&case, &traffic, session, &mut report)?;
                for (subject, idle) in [(BUSY, "busy"), (ADAPTIVE, "adaptive")] {
                    self.product(&case, (subject, idle), &traffic, session, &mut report)?;
                }
            }
            session.step(&format!(
                "latency, light load, round {round} of {}",
                session.rounds
            ))?;
            self.light(session, &mut report)?;
        }
        session.step("latency: loss at 70 %")?;
        self.soak(highest * 7 / 10, session, &mut report)?;
        for quantity in [P50, P99] {
            report.compare(BUSY, BARE, &quantity);
        }
        report.end();
        Ok(report)
    }
}

impl Latency {
    fn traffic(&self, session: &Session<'_>, rate: u64) -> Traffic {
        let mut traffic = Traffic::of(frame::udp(self.size), session.cores.generator);
        traffic.vary.stamped = true;
        traffic.rate = Some(rate.max(1));
        traffic
    }

    /// What the product writes of more than it can, and then the highest rate below of which it loses nothing.
    fn highest(&self, session: &Session<'_>) -> Result<u64, BenchError> {
        let product = Product::start(&dp_toml(session, "busy"), &session.interrupt)?;
        let trial = Duration::from_millis(300);
        let run = |traffic| offer(&product, traffic, trial, &session.interrupt, written);
        let flood = Traffic {
            rate: None,
            ..self.traffic(session, 1)
        };
        let (sent, frames) = run(flood)?;
        let most = frames as f64 / sent.elapsed.as_secs_f64() * 1.1;
        let search = Search {
            least: 10_000,
            most: (most as u64).max(20_000),
            resolution: 0.02,
            attempts: 2,
        };
        let highest = search.highest(|rate| {
            run(self.traffic(session, rate)).map(|(sent, frames)| frames == sent.frames)
        })?;
        product.stop()?;
        highest.ok_or_else(|| {
            BenchError::Product(format!(
                "it loses frames even of {} a second: see dpctl stats, and what else runs on core {}",
                search.least, session.cores.worker
            ))
        })
    }

    fn bare(
        &self,
        case: &str,
        traffic: &Traffic,
        session: &Session<'_>,
        report: &mut Report,
    ) -> Result<(), BenchError> {
        let rate = traffic.rate.unwrap_or(0) as f64;
        let mut traffic = traffic.clone();
        let count = (rate * self.sample).max(1.0) as u64;
        traffic.count = Some(count);
        let (measured, times) = bare::probe(
            session.cores,
            &traffic,
            Duration::from_secs_f64(self.sample + 0.5),
            bare::Options::best(session.hugepages),
            &session.interrupt,
        )?;
        record(report, case, BARE, &times);
        lost(report, case, BARE, count, measured.frames);
        Ok(())
    }

    fn product(
        &self,
        case: &str,
        (subject, idle): (&str, &str),
        traffic: &Traffic,
        session: &Session<'_>,
        report: &mut Report,
    ) -> Result<(), BenchError> {
        let product = Product::start(&dp_toml(session, idle), &session.interrupt)?;
        report.note(format!("frame memory: {}", product.backing()?));
        let probe = Probe::attach("lc0")?;
        let (sent, frames) = offer(
            &product,
            traffic.clone(),
            Duration::from_secs_f64(self.sample),
            &session.interrupt,
            written,
        )?;
        record(report, case, subject, &probe.read()?);
        lost(report, case, subject, sent.frames, frames);
        product.stop()
    }

    /// What an adaptive worker takes of its core at a rate at which it has little to do, beside what the
    /// kernel takes for the writes alone.
    fn light(&self, session: &Session<'_>, report: &mut Report) -> Result<(), BenchError> {
        let case = format!("{LIGHT} frames/s");
        let original = frame::udp(self.size);
        let floor = tap_floor::measure(
            session.cores,
            &original,
            &[self.size],
            500_000,
            Way::BEST,
            Audience::of(0, session.cores),
            &session.interrupt,
        )?;
        let floor = floor.0.ns_per_frame() * LIGHT as f64 / 1e9 * 100.0;
        report.record(&case, FLOOR, &SHARE, floor);
        let product = Product::start(&dp_toml(session, "adaptive"), &session.interrupt)?;
        let mut traffic = Traffic::of(original, session.cores.generator);
        traffic.rate = Some(LIGHT);
        let time = Duration::from_secs_f64(self.sample.max(1.0));
        let core = session.cores.worker;
        let poured = pour(&product, core, traffic, time, &session.interrupt, written)?;
        product.stop()?;
        let share = poured.measured.cpu.as_secs_f64() / poured.sent.elapsed.as_secs_f64() * 100.0;
        report.record(&case, ADAPTIVE, &SHARE, share);
        report.record(&case, "adaptive beyond the floor", &SHARE, share - floor);
        lost(
            report,
            &case,
            ADAPTIVE,
            poured.sent.frames,
            poured.measured.frames,
        );
        Ok(())
    }

    fn soak(
        &self,
        rate: u64,
        session: &Session<'_>,
        report: &mut Report,
    ) -> Result<(), BenchError> {
        let case = format!("70 % for {} s", self.seconds);
        for (subject, idle) in [(BUSY, "busy"), (ADAPTIVE, "adaptive")] {
            let product = Product::start(&dp_toml(session, idle), &session.interrupt)?;
            let mut traffic = self.traffic(session, rate);
            traffic.vary.stamped = false;
            let time = Duration::from_secs_f64(self.seconds);
            let (sent, frames) = offer(&product, traffic, time, &session.interrupt, written)?;
            product.stop()?;
            report.record(
                &case,
                subject,
                &RATE,
                sent.frames as f64 / sent.elapsed.as_secs_f64() / 1e6,
            );
            lost(report, &case, subject, sent.frames, frames);
        }
        Ok(())
    }
}

fn record(report: &mut Report, case: &str, subject: &str, times: &Distribution) {
    let us = |ns: u64| ns as f64 / 1e3;
    for (quantity, number) in [
        (&P50, us(times.quantile(0.5))),
        (&P99, us(times.quantile(0.99))),
        (&P999, us(times.quantile(0.999))),
        (&MAX, us(times.max())),
        (&JITTER, times.deviation() / 1e3),
    ] {
        report.record(case, subject, quantity, number);
    }
}

fn lost(report: &mut Report, case: &str, subject: &str, sent: u64, arrived: u64) {
    let lost = sent.saturating_sub(arrived) as f64 / sent.max(1) as f64;
    report.record(case, subject, &LOSS, lost * 100.0);
}

fn written(stats: &Stats) -> u64 {
    stats.ports.get("lc0").map_or(0, |lc0| lc0.tx.frames)
}

fn dp_toml(session: &Session<'_>, idle: &str) -> String {
    let rules = configuration::ten_rules();
    configuration::uplink_to_lc0(session.cores.worker, session.hugepages, Some(idle), &rules)
}
