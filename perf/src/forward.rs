//! `dpbench forward`: what the product takes to bring a frame from AF_XDP through a policy to a TAP, beside
//! the best bare loop and beside the TAP's own cost, in turn and in one run.
//!
//! The unit is processor time of the worker per frame: other work on the machine, a generator that is slow
//! for a moment and sleep disturb a rate, but hardly this.

use control::stats::Stats;

use crate::{
    configuration,
    error::BenchError,
    generator::{Traffic, frame},
    lab::{self, UPLINK},
    load::pour,
    peer::{bare, tap_floor},
    product::Product,
    report::{CPU, LOSS, Report},
    session::{Benchmark, Session},
};

/// AF_XDP -> policy -> TAP, in worker ns per frame, beside a bare loop and the TAP's own cost
#[derive(Clone, Debug, clap::Args)]
pub struct Forward {
    /// Frames that the bare loops write in a round; the product gets as much time as the bare loop took
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    frames: u64,
    /// Frame sizes in bytes, without the check sequence
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "64,512,1500", value_parser = size)]
    sizes: Vec<usize>,
}

fn size(text: &str) -> Result<usize, String> {
    // 60 is Ethernet's shortest without its check sequence, 1,514 what a TAP has room for by default.
    frame::size(text, 60..=1514)
}

const FLOOR: &str = "TAP floor";
const BARE: &str = "bare loop";
const PRODUCT: &str = "dataplane";

impl Benchmark for Forward {
    fn run(&self, session: &mut Session<'_>) -> Result<Report, BenchError> {
        lab::enter()?;
        let mut report = Report::begin(
            "forward",
            "AF_XDP -> policy of ten rules -> TAP",
            "The TAP floor writes one hot frame into a TAP again and again; the bare loop brings frames from \
             AF_XDP to a TAP without parse, policy or counters; dataplane is the shipped binary with an \
             ordinary configuration. The generator always pours in more than a TAP takes.",
            session,
        );
        for &size in &self.sizes {
            let case = format!("{size} bytes");
            let frame = frame::udp(size);
            let cores = session.cores;
            for round in 1..=session.rounds {
                let step = format!("forward, {case}, round {round} of {}", session.rounds);
                session.step(&format!("{step}: {FLOOR}"))?;
                let floor = tap_floor::measure(cores, &frame, self.frames, &session.interrupt)?;
                report.measured(&case, FLOOR, &floor, size);

                session.step(&format!("{step}: {BARE}"))?;
                let bare = bare::measure(
                    cores,
                    &frame,
                    self.frames,
                    session.hugepages,
                    &session.interrupt,
                )?;
                report.measured(&case, BARE, &bare, size);

                session.step(&format!("{step}: {PRODUCT}"))?;
                let product = Product::start(&dp_toml(session), &session.interrupt)?;
                report.note(format!("frame memory: {}", product.backing()?));
                let traffic = Traffic::of(frame.clone(), cores.generator);
                let poured = pour(
                    &product,
                    cores.worker,
                    traffic,
                    bare.elapsed,
                    &session.interrupt,
                    written,
                )?;
                product.stop()?;
                report.measured(&case, PRODUCT, &poured.measured, size);
                let lost = 1.0 - poured.measured.frames as f64 / poured.sent.frames as f64;
                report.record(&case, PRODUCT, &LOSS, lost * 100.0);
            }
        }
        report.compare(PRODUCT, FLOOR, &CPU);
        report.compare(PRODUCT, BARE, &CPU);
        report.end();
        Ok(report)
    }
}

fn written(stats: &Stats) -> u64 {
    stats.ports.get("lc0").map_or(0, |lc0| lc0.tx.frames)
}

fn dp_toml(session: &Session<'_>) -> String {
    format!(
        r#"[engine]
cores = "{worker}"
hugepages = "{hugepages}"

[ports.uplink]
kind = "af_xdp"
interface = "{UPLINK}"

[ports.lc0]
kind = "tap"
name = "lc0"

{rules}
[[pipelines]]
from = ["uplink"]
policy = "bench"
to = ["lc0"]
"#,
        worker = session.cores.worker,
        hugepages = session.hugepages,
        rules = configuration::ten_rules(),
    )
}
