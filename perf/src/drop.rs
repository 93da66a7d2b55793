//! `dpbench drop`: what the product takes to receive a frame over AF_XDP and deny it, beside a bare loop that
//! receives and does nothing; and whether a fixed rate is held without loss.
//!
//! The receiving core is faster than the generating one, so rates measure the generator, and a worker that
//! has nothing to do spins. The unit is therefore the time of those turns of the worker's loop that found frames
//! (`busy` of `dpctl stats`); the bare loop is measured in the same way.

use std::{fmt::Write, time::Duration};

use control::stats::Stats;

use crate::{
    configuration,
    error::BenchError,
    footprint::Footprint,
    generator::{Traffic, frame},
    lab,
    load::{Poured, pour},
    measure::Measured,
    peer::{bare, receive},
    product::Product,
    report::{CPU, LOSS, Quantity, RATE, Report},
    session::{Benchmark, Session},
};

/// AF_XDP -> policy denies, nothing written, in worker ns per frame, beside a bare receive loop
#[derive(Clone, Debug, clap::Args)]
pub struct Drop {
    /// Seconds of each measurement
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = crate::drop::seconds)]
    seconds: f64,
    /// The rate that is to be held without loss, in frames a second
    #[arg(long, value_name = "PPS", default_value_t = 7_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
}

/// Reads a number of seconds from a command line.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("0.01 to 86400 seconds are possible".into()),
    }
}

const BARE: &str = "bare receive loop";
const PRODUCT: &str = "dataplane";

/// What the generator has sent, where that is limited.
const OFFERED: Quantity = Quantity::speed("offered", "Mframes/s", 2);

/// All memory of the process.
const RESIDENT: Quantity = Quantity::cost("resident", "MiB", 1);
/// Without frame memory, so with the rules.
const BEYOND: Quantity = Quantity::cost("beyond frame memory", "MiB", 1);
/// Bytes of a slot, as the product has it by default.
const SLOT_SIZE: u64 = 2048;

/// What is denied, and by what.
struct Case {
    name: &'static str,
    policy: String,
    flows: u32,
}

fn cases() -> [Case; 3] {
    let others = format!(r#"proto = "udp", to = "{}", ports = "9""#, frame::TO);
    let ten = configuration::ten_rules_and(&others);
    [
        Case {
            name: "10 rules",
            policy: ten.clone(),
            flows: 0,
        },
        Case {
            name: "10k prefixes",
            policy: prefixes(10_000),
            flows: 0,
        },
        Case {
            name: "10 rules, 1M flows",
            policy: ten,
            flows: 1_000_000,
        },
    ]
}

/// The policy `bench` of so many networks, none of which has the generator's frames. Every other one, so that
/// no two of them are neighbours.
fn prefixes(count: u32) -> String {
    let mut policy = String::from("[policies.bench]\nmode = \"filtered\"\nallow = [\n");
    for n in (0..count).map(|n| 2 * n) {
        let (a, b, c) = (20 + (n >> 16), (n >> 8) & 255, n & 255);
        let _ = writeln!(
            policy,
            "  {{ proto = \"udp\", to = \"{a}.{b}.{c}.0/24\" }},"
        );
    }
    policy + "]\n"
}

impl Benchmark for Drop {
    fn run(&self, session: &mut Session<'_>) -> Result<Report, BenchError> {
        lab::enter()?;
        let mut report = Report::begin(
            "drop",
            "AF_XDP -> policy denies",
            "The bare loop receives frames and gives them back; dataplane is the shipped binary with an ordinary \
             configuration whose policy denies every frame. Frames of 64 bytes come as fast as the generator \
             makes them; cpu is the time of the turns that found frames, the same for both, without what is \
             spun away between them. Then the same at a limited rate: what is lost of it before the worker.",
            session,
        );
        for case in cases() {
            for round in 1..=session.rounds {
                let step = format!("drop, {}, round {round} of {}", case.name, session.rounds);
                session.step(&step)?;
                self.round(&case, session, &mut report)?;
            }
        }
        report.compare(PRODUCT, BARE, &CPU);
        report.end();
        Ok(report)
    }
}

impl Drop {
    fn round(
        &self,
        case: &Case,
        session: &Session<'_>,
        report: &mut Report,
    ) -> Result<(), BenchError> {
        let time = Duration::from_secs_f64(self.seconds);
        let mut traffic = Traffic::of(frame::udp(64), session.cores.generator);
        traffic.vary.flows = case.flows;
        let bare = receive::measure(
            session.cores,
            &traffic,
            time,
            bare::Options::best(session.hugepages),
            &session.interrupt,
        )?;
        report.record(case.name, BARE, &CPU, bare.ns_per_frame());
        report.record(case.name, BARE, &RATE, bare.mframes());

        let product = Product::start(&dp_toml(&case.policy, session), &session.interrupt)?;
        report.note(format!("frame memory: {}", product.backing()?));
        let core = session.cores.worker;
        let run = |traffic| pour(&product, core, traffic, time, &session.interrupt, judged);
        let poured = run(traffic.clone())?;
        let measured = Measured {
            cpu: busy(&poured.stats).saturating_sub(busy(&poured.before)),
            ..poured.measured
        };
        report.record(case.name, PRODUCT, &CPU, measured.ns_per_frame());
        report.record(case.name, PRODUCT, &RATE, measured.mframes());

        let footprint = Footprint::of(product.pid())?;
        let slots: u64 = poured.stats.workers.iter().map(|w| w.slots_total).sum();
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        report.record(
            case.name,
            PRODUCT,
            &RESIDENT,
            mib(footprint.resident + footprint.huge),
        );
        report.record(
            case.name,
            PRODUCT,
            &BEYOND,
            mib(footprint.beyond(slots * SLOT_SIZE)),
        );

        traffic.rate = Some(self.rate);
        let Poured { measured, sent, .. } = run(traffic)?;
        product.stop()?;
        let held = format!(
            "{}, {} Mframes/s asked for",
            case.name,
            self.rate as f64 / 1e6
        );
        let offered = sent.frames as f64 / sent.elapsed.as_secs_f64() / 1e6;
        report.record(&held, PRODUCT, &OFFERED, offered);
        report.record(&held, PRODUCT, &RATE, measured.mframes());
        let lost = sent.frames.saturating_sub(measured.frames);
        report.record(
            &held,
            PRODUCT,
            &LOSS,
            lost as f64 / sent.frames as f64 * 100.0,
        );
        if offered < self.rate as f64 / 1e6 * 0.99 {
            report.note(format!(
                "the generator reached {offered:.1} of the {} Mframes/s asked for",
                self.rate as f64 / 1e6
            ));
        }
        Ok(())
    }
}

fn judged(stats: &Stats) -> u64 {
    stats.pipelines.iter().map(|p| p.judged).sum()
}

/// The time in which its worker has moved frames.
fn busy(stats: &Stats) -> Duration {
    let busy = stats.workers.iter().map(|w| w.busy).sum::<f64>();
    Duration::from_secs_f64(busy * stats.uptime_s)
}

fn dp_toml(policy: &str, session: &Session<'_>) -> String {
    configuration::uplink_to_lc0(session.cores.worker, session.hugepages, None, policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_distinct_networks() {
        let policy = prefixes(10_000);
        let networks: std::collections::BTreeSet<_> =
            policy.lines().filter(|line| line.contains("/24")).collect();
        assert_eq!(networks.len(), 10_000);
        assert!(
            networks
                .iter()
                .any(|line| line.contains("\"20.78.30.0/24\""))
        );
    }
}
