//! `dpbench scale`: what more ports and more queues on one worker cost each frame, and what memory slots, ports
//! and rules take.

use std::{fmt::Write, time::Duration};

use crate::{
    error::BenchError,
    footprint::Footprint,
    generator::{Traffic, frame},
    lab::{self, UPLINK},
    load::pour,
    product::Product,
    report::{CPU, Quantity, Report},
    session::{Benchmark, Session},
};

/// ns/frame over ports and queues on one worker, and memory over slots, ports and rules
#[derive(Clone, Debug, clap::Args)]
pub struct Scale {
    /// Ports on one worker, of which one is busy
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,2,4,8", value_parser = clap::value_parser!(u16).range(1..=31))]
    ports: Vec<u16>,
    /// Slots of a region, for its memory
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "1024,8192,32768"
    )]
    slots: Vec<u32>,
    /// Rules of the policy, for their memory; a million of them are read for some ten seconds
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "10,10000,65536"
    )]
    rules: Vec<u32>,
    /// Milliseconds that each is measured in a round
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(100..))]
    time: u64,
}

const PRODUCT: &str = "dataplane";
const MEMORY: Quantity = Quantity::cost("resident", "MiB", 1);

impl Benchmark for Scale {
    fn run(&self, session: &mut Session<'_>) -> Result<Report, BenchError> {
        lab::enter()?;
        let most = self.ports.iter().copied().max().unwrap_or(1);
        for number in 1..most {
            lab::idle_pair(number)?;
        }
        let mut report = Report::begin(
            "scale",
            "One worker with more ports, slots and rules",
            "64-byte frames come to one AF_XDP port at more than the worker takes, and go to a TAP; the other ports \
             are open and get nothing, so that what they cost is being polled. Memory is what the process has \
             resident (smaps_rollup) after its start, frame memory and BPF maps included.",
            session,
        );
        for round in 1..=session.rounds {
            for &ports in &self.ports {
                let case = match ports {
                    1 => "1 port".to_owned(),
                    ports => format!("{ports} ports"),
                };
                session.step(&format!(
                    "scale, {case}, round {round} of {}",
                    session.rounds
                ))?;
                let product =
                    Product::start(&dp_toml(session, ports, 8192, 10), &session.interrupt)?;
                let poured = pour(
                    &product,
                    session.cores.worker,
                    Traffic::of(frame::udp(64), session.cores.generator),
                    Duration::from_millis(self.time),
                    &session.interrupt,
                    |stats| stats.ports.get("lc0").map_or(0, |port| port.tx.frames),
                )?;
                report.measured(&case, PRODUCT, &poured.measured, 64);
                report.record(&case, PRODUCT, &MEMORY, resident(&product)?);
                product.stop()?;
            }
        }
        let slots = self
            .slots
            .iter()
            .map(|&slots| (slots, 10, format!("{slots} slots")));
        let rules = self
            .rules
            .iter()
            .map(|&rules| (8192, rules, format!("{rules} rules")));
        for (slots, rules, case) in slots.chain(rules) {
            session.step(&format!("scale, {case}: memory"))?;
            let product = Product::start(&dp_toml(session, 1, slots, rules), &session.interrupt)?;
            report.record(&case, PRODUCT, &MEMORY, resident(&product)?);
            product.stop()?;
        }
        if report.figure("1 port", PRODUCT, &CPU).is_some() {
            report.note("flows: none are kept, so they take no memory");
        }
        report.note(
            "frames over workers are not shown: each takes a generator's core and one of its own, and frames that the \
             generator sends come to the queue of its core",
        );
        report.end();
        Ok(report)
    }
}

/// What the process has in memory, in MiB.
fn resident(product: &Product) -> Result<f64, BenchError> {
    let footprint = Footprint::of(product.pid())?;
    Ok((footprint.resident + footprint.huge) as f64 / f64::from(1 << 20))
}

fn dp_toml(session: &Session<'_>, ports: u16, slots: u32, rules: u32) -> String {
    let mut text = format!(
        "[engine]\ncores = \"{}\"\nhugepages = \"{}\"\nslots = {slots}\n\n",
        session.cores.worker, session.hugepages
    );
    let interface = |number| match number {
        0 => UPLINK.to_owned(),
        number => lab::idle(number),
    };
    let mut names = Vec::new();
    for number in 0..ports {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "[ports.p{number}]\nkind = \"af_xdp\"\ninterface = \"{}\"\n",
            interface(number)
        );
        names.push(format!("\"p{number}\""));
    }
    text += "[ports.lc0]\nkind = \"tap\"\n\n[policies.bench]\nmode = \"filtered\"\nallow = [\n";
    let _ = writeln!(
        text,
        "  {{ proto = \"udp\", from = \"{}\", to = \"{}\", ports = \"{}\" }},",
        frame::FROM,
        frame::TO,
        frame::TO_PORT
    );
    for rule in 1..rules {
        let [_, a, b, c] = rule.to_be_bytes();
        let _ = writeln!(
            text,
            "  {{ proto = \"udp\", from = \"172.16.0.1\", to = \"11.{a}.{b}.{c}\", ports = \"5201\" }},"
        );
    }
    let _ = writeln!(
        text,
        "]\n\n[[pipelines]]\nfrom = [{}]\npolicy = \"bench\"\nto = [\"lc0\"]",
        names.join(", ")
    );
    text
}
