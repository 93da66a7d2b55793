//! `dpbench policy`: what one verdict costs, by number and kind of rules, beside the lookup of the same keys in
//! sets; and what it takes to replace a policy while frames pass.

mod rules;
mod swap;
mod verdict;

use control::link::{NetNs, netns::on_core_in_netns};

use self::{
    rules::{Kind, Traffic},
    verdict::Subjects,
};
use crate::{
    error::BenchError,
    lab,
    report::{Plot, Quantity, Report},
    session::{Benchmark, Session},
};

/// One verdict, by number and kind of rules, beside sets; and replacing a policy under load
#[derive(Clone, Debug, clap::Args)]
pub struct Policy {
    /// How many rules for a host and a port each
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "10,1000,65536,1000000", value_parser = count)]
    exact: Vec<usize>,
    /// How many rules for a prefix each, with one port and with a range of ports
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "10,1000,10000,100000", value_parser = count)]
    prefixes: Vec<usize>,
    /// Frames that are judged in a round, at least
    #[arg(long, value_name = "N", default_value_t = 300_000)]
    frames: usize,
    /// How many rules a policy is replaced by under load
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "65536,1000000", value_parser = count)]
    replace: Vec<usize>,
    /// Frames a second that pass meanwhile
    #[arg(long, value_name = "PPS", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=1_000_000).contains(&count) => Ok(count),
        _ => Err("1 to 1000000 rules are possible".into()),
    }
}

const PRODUCT: &str = "dataplane";
const SET: &str = "std HashSet";
const FLAT: &str = "flat hash, batched";

const VERDICT: Quantity = Quantity::cost("verdict", "ns", 1);
const REBUILD: Quantity = Quantity::cost("rebuild and swap", "ms", 1);
const SWAP: Quantity = Quantity::cost("swap", "ms", 3);
const REQUEST: Quantity = Quantity::cost("request in all", "ms", 0);
const LOST: Quantity = Quantity::cost("frames lost", "frames", 0);
const WRITTEN: Quantity = Quantity::speed("frames passed", "frames", 0);

const METHOD: &str = "dataplane is a call of its library, on the worker's core: a verdict on a batch of 64 frames whose \
     destinations are random among the rules. Every batch is new; a round's figure is the median of groups of 32 \
     batches. For rules that are a host and a port, the same keys are looked up in the standard library's hash set \
     (SipHash, one by one) and in a bare flat table (one multiplication, half full, the misses of a batch \
     overlapped). Replaced under load: the shipped binary is handed other rules on its control socket while frames \
     pass from AF_XDP to a TAP; rebuild and swap is from the rules, read, until every worker judges by them, the \
     request in all has the transport and the reading of the text in it.";

impl Benchmark for Policy {
    fn run(&self, session: &mut Session<'_>) -> Result<Report, BenchError> {
        lab::enter()?;
        let title = "One verdict, and replacing a policy under load";
        let mut report = Report::begin("policy", title, METHOD, session);
        let of = |kind: Kind, counts: &[usize]| counts.iter().map(move |&n| (kind, n)).collect();
        let mut cases: Vec<(Kind, usize)> = of(Kind::Exact, &self.exact);
        for kind in [Kind::Cidr, Kind::Ranges] {
            cases.extend::<Vec<_>>(of(kind, &self.prefixes));
        }
        for (kind, count) in cases {
            self.verdict(kind, count, session, &mut report)?;
        }
        for &count in &self.replace {
            self.swap(count, session, &mut report)?;
        }
        report.compare(PRODUCT, SET, &VERDICT);
        report.compare(PRODUCT, FLAT, &VERDICT);
        report.note(
            "nftables' sets are not beside it: the kernel offers no lookup but that of a frame on its way, and \
             the way costs many times what the lookup does",
        );
        for what in ["exact", "CIDR, ", "CIDR and port ranges"] {
            let title = format!("One verdict, {}", what.trim_end_matches(", "));
            report.plot(Plot::lines(&title, &VERDICT, "rules").of_cases(what));
        }
        report.plot(Plot::bars("A policy replaced under load", &REBUILD));
        report.end();
        Ok(report)
    }
}

impl Policy {
    fn verdict(
        &self,
        kind: Kind,
        count: usize,
        session: &mut Session<'_>,
        report: &mut Report,
    ) -> Result<(), BenchError> {
        let worker = session.cores.worker;
        session.step(&format!("policy, {count} rules, {kind}"))?;
        let all = rules::rules(kind, count);
        let subjects = Subjects::new(kind, all).map_err(|e| BenchError::peer("policy", e))?;
        for round in 1..=session.rounds {
            for traffic in [Traffic::Hit, Traffic::Miss, Traffic::Mixed] {
                let case = format!("{count} rules, {kind}, {traffic}");
                session.step(&format!("policy, {case}, round {round}"))?;
                let measure = || subjects.measure(traffic, self.frames, round as u64);
                let cost = on_core_in_netns(worker, &NetNs::own(), measure)?;
                report.record(&case, PRODUCT, &VERDICT, cost.judge);
                if let Some((set, flat)) = cost.sets {
                    report.record(&case, SET, &VERDICT, set);
                    report.record(&case, FLAT, &VERDICT, flat);
                }
            }
        }
        Ok(())
    }

    fn swap(
        &self,
        count: usize,
        session: &mut Session<'_>,
        report: &mut Report,
    ) -> Result<(), BenchError> {
        let case = format!("{count} rules, replaced under load");
        let text = swap::text(count);
        for round in 1..=session.rounds {
            session.step(&format!("policy, {case}, round {round}"))?;
            let done = swap::measure(session, &text, self.rate)?;
            let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
            report.record(&case, PRODUCT, &REBUILD, ms(done.rebuild_and_swap));
            report.record(&case, PRODUCT, &SWAP, ms(done.swap));
            report.record(&case, PRODUCT, &REQUEST, ms(done.request));
            report.record(&case, PRODUCT, &LOST, done.lost as f64);
            report.record(&case, PRODUCT, &WRITTEN, done.written as f64);
        }
        Ok(())
    }
}
