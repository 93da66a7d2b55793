//! `dpbench inline`: the product between two hosts, AF_XDP on both sides and a policy between, beside the
//! best bare loop and beside the kernel's bridge with the same allowlist. TCP as hosts speak it, and frames
//! of one size in one direction.

mod tcp;

use std::time::Duration;

use control::link::ethtool::Ethtool;

use crate::{
    configuration::ten_rules_and,
    error::BenchError,
    generator::{Traffic, frame},
    lab::{self, Line, OUT, SINK, SOURCE, UPLINK},
    load,
    measure::Measured,
    peer::{bare_inline, bridge::Bridge},
    product::Product,
    report::{CPU, LOSS, Quantity, Report},
    session::{Benchmark, Session},
};
use tcp::{Transfer, transfer};

/// AF_XDP -> policy -> AF_XDP between two veths, beside a bare loop and the kernel's bridge with nftables
#[derive(Clone, Debug, clap::Args)]
pub struct Inline {
    /// Milliseconds that each is measured in a round
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(100..))]
    time: u64,
    /// Frame sizes in bytes, without the check sequence, beside TCP
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "64", value_parser = size)]
    sizes: Vec<usize>,
    /// Leave out TCP
    #[arg(long)]
    no_tcp: bool,
}

fn size(text: &str) -> Result<usize, String> {
    // 1,514 is what a veth's own end takes by default.
    frame::size(text, 60..=1514)
}

const PRODUCT: &str = "dataplane";
const BARE: &str = "bare loop";
const BRIDGE: &str = "bridge";

/// TCP payload.
const GOODPUT: Quantity = Quantity::speed("TCP", "Gbit/s", 2);

/// A feature of both ends without which they finish checksums, and cut segments, themselves.
const CHECKSUMS: &str = "tx-checksum-ip-generic";

const METHOD: &str = "Two namespaces, a veth each, and between them dataplane, a bare loop or the kernel's bridge. \
     The bare loop moves frames from one AF_XDP socket to another over one UMEM, without a policy. The bridge has the \
     same allowlist in nftables. TCP: one connection, payload as received; with dataplane and the bare loop \
     both ends run on the generator's core and the forwarder alone on the worker's, with the bridge, \
     which forwards within the sender's system calls, the client on the one and the server on the other. Into a \
     veth the kernel's receive path of the far end runs within the write: its cost is the forwarder's. \
     Frames of one size: more are poured in than can be taken, and what arrives at the far end counts; the \
     bridge runs in a kernel thread on the worker's core.";

impl Benchmark for Inline {
    fn run(&self, session: &mut Session<'_>) -> Result<Report, BenchError> {
        let address = |ip| format!("{ip}/24");
        let line = Line::enter(&address(frame::FROM), &address(frame::TO))?;
        let title = "AF_XDP -> policy of eleven rules -> AF_XDP, between two veths";
        let mut report = Report::begin("inline", title, METHOD, session);
        if !self.no_tcp {
            self.tcp(&line, session, &mut report, true)?;
            self.tcp(&line, session, &mut report, false)?;
        }
        for &size in &self.sizes {
            self.frames(&line, session, &mut report, size)?;
        }
        for beside in [BARE, BRIDGE] {
            for quantity in [&GOODPUT, &CPU] {
                report.compare(PRODUCT, beside, quantity);
            }
        }
        report.end();
        Ok(report)
    }
}

impl Inline {
    fn time(&self) -> Duration {
        Duration::from_millis(self.time)
    }

    /// One connection; with `unfinished`, checksums are left to veths that have none, as hosts do by default.
    fn tcp(
        &self,
        line: &Line,
        session: &mut Session<'_>,
        report: &mut Report,
        unfinished: bool,
    ) -> Result<(), BenchError> {
        let (case, checksums) = match unfinished {
            true => ("TCP, checksums finished on the way", "auto"),
            false => ("TCP, checksums finished by its ends", "trust"),
        };
        for (ns, end) in [(&line.client, SOURCE), (&line.server, SINK)] {
            Ethtool::open(ns)
                .and_then(|ethtool| ethtool.set(end, &[CHECKSUMS], unfinished))
                .map_err(|e| BenchError::peer("veth", e))?;
        }
        if unfinished {
            report.note(format!(
                "{case}: the bridge is handed segments of up to 64 KiB, which are never cut; with an XDP program \
                 behind it, a veth takes frames of 1,514 bytes"
            ));
        }
        let cores = session.cores;
        let beside = (cores.generator, cores.generator);
        for round in 1..=session.rounds {
            let step = format!("inline, {case}, round {round} of {}", session.rounds);
            session.step(&format!("{step}: {PRODUCT}"))?;
            let product = Product::start(&dp_toml(session, checksums), &session.interrupt)?;
            report.note(format!("frame memory: {}", product.backing()?));
            let (cpu, before) = product.at_rest(cores.worker, &session.interrupt)?;
            let done = transfer(line, beside, self.time(), &session.interrupt)?;
            let (cpu_after, stats) = product.at_rest(cores.worker, &session.interrupt)?;
            product.stop()?;
            let written = |stats: &control::stats::Stats| -> u64 {
                stats.ports.values().map(|port| port.tx.frames).sum()
            };
            let frames = (written(&stats) - written(&before)) as f64;
            record(report, case, PRODUCT, done);
            let ns = (cpu_after - cpu).as_nanos() as f64 / frames;
            report.record(case, PRODUCT, &CPU, ns);

            session.step(&format!("{step}: {BARE}"))?;
            let (measured, done) = bare_inline::measure(
                cores,
                session.hugepages,
                unfinished,
                &session.interrupt,
                || transfer(line, beside, self.time(), &session.interrupt),
            )?;
            record(report, case, BARE, done);
            report.record(case, BARE, &CPU, measured.ns_per_frame());

            session.step(&format!("{step}: {BRIDGE}"))?;
            match Bridge::start()? {
                Err(missing) => report.note(missing),
                Ok(_bridge) => {
                    let both = (cores.generator, cores.worker);
                    let done = transfer(line, both, self.time(), &session.interrupt)?;
                    record(report, case, BRIDGE, done);
                }
            }
        }
        Ok(())
    }

    /// Frames of one size, in one direction, more than can be taken.
    fn frames(
        &self,
        line: &Line,
        session: &mut Session<'_>,
        report: &mut Report,
        size: usize,
    ) -> Result<(), BenchError> {
        let case = format!("{size} bytes");
        let frame = frame::udp(size);
        let cores = session.cores;
        let traffic = || Traffic::of(frame.clone(), cores.generator);
        let arrived = || lab::arrived(&line.server, SINK);
        for round in 1..=session.rounds {
            let step = format!("inline, {case}, round {round} of {}", session.rounds);
            let interrupt = session.interrupt.clone();
            let pour = || load::send(&line.client, traffic(), self.time(), &interrupt);

            session.step(&format!("{step}: {PRODUCT}"))?;
            let product = Product::start(&dp_toml(session, "auto"), &interrupt)?;
            let (cpu, _) = product.at_rest(cores.worker, &interrupt)?;
            let before = arrived()?;
            let sent = pour()?;
            let (cpu_after, _) = product.at_rest(cores.worker, &interrupt)?;
            let measured = Measured {
                frames: arrived()? - before,
                cpu: cpu_after - cpu,
                elapsed: sent.elapsed,
            };
            product.stop()?;
            record_frames(report, &case, PRODUCT, measured, sent.frames, size);

            session.step(&format!("{step}: {BARE}"))?;
            let before = arrived()?;
            let (measured, sent) =
                bare_inline::measure(cores, session.hugepages, false, &interrupt, pour)?;
            let measured = Measured {
                frames: arrived()? - before,
                elapsed: sent.elapsed,
                ..measured
            };
            record_frames(report, &case, BARE, measured, sent.frames, size);

            session.step(&format!("{step}: {BRIDGE}"))?;
            match Bridge::start()? {
                Err(missing) => report.note(missing),
                Ok(bridge) => {
                    let thread = bridge.on_core(cores.worker)?;
                    let (cpu, before) = (thread.time(), arrived()?);
                    let sent = pour()?;
                    std::thread::sleep(Duration::from_millis(30));
                    let measured = Measured {
                        frames: arrived()? - before,
                        cpu: thread.time() - cpu,
                        elapsed: sent.elapsed,
                    };
                    record_frames(report, &case, BRIDGE, measured, sent.frames, size);
                }
            }
        }
        Ok(())
    }
}

fn record(report: &mut Report, case: &str, subject: &str, done: Transfer) {
    report.record(case, subject, &GOODPUT, done.gbit());
}

fn record_frames(
    report: &mut Report,
    case: &str,
    subject: &str,
    measured: Measured,
    sent: u64,
    size: usize,
) {
    report.measured(case, subject, &measured, size);
    let lost = 1.0 - measured.frames as f64 / sent as f64;
    report.record(case, subject, &LOSS, lost * 100.0);
}

fn dp_toml(session: &Session<'_>, checksums: &str) -> String {
    let mut ports = String::new();
    for (name, interface) in [("left", UPLINK), ("right", OUT)] {
        ports += &format!(
            "[ports.{name}]\nkind = \"af_xdp\"\ninterface = \"{interface}\"\nchecksums = \"{checksums}\"\n\n"
        );
    }
    let hosts = format!(
        "from = \"{}\", to = \"{}\", ports = \"{}\"",
        frame::FROM,
        frame::TO,
        frame::TO_PORT
    );
    format!(
        r#"[engine]
cores = "{worker}"
hugepages = "{hugepages}"

{ports}{rules}
[[pipelines]]
from = ["left"]
policy = "bench"
to = ["right"]

[[pipelines]]
from = ["right"]
policy = "bench"
to = ["left"]
"#,
        worker = session.cores.worker,
        hugepages = session.hugepages,
        rules = ten_rules_and(&format!(
            "proto = \"udp\", {hosts} }},\n  {{ proto = \"tcp\", {hosts}, replies = true"
        )),
    )
}
