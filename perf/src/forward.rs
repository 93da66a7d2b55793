//! `dpbench forward`: what the product takes to bring a frame from AF_XDP through a policy to a TAP, beside
//! the best bare loop, the TAP's own cost and the kernel's own clone, in turn and in one run; with tools that
//! listen, and beside loops that each leave one thing out.
//!
//! The unit is processor time of the worker per frame: other work on the machine, a generator that is slow
//! for a moment and sleep disturb a rate, but hardly this.

mod baselines;

use std::time::Duration;

use control::stats::Stats;

use crate::{
    configuration,
    error::BenchError,
    generator::{IMIX, Traffic, frame},
    lab,
    load::pour,
    measure::Measured,
    peer::{
        bare, kernel_clone,
        listener::{Audience, Heard},
        tap_floor,
        writer::Way,
    },
    product::Product,
    report::{CPU, LOSS, Quantity, Report},
    session::{Benchmark, HugePages, Session},
};

/// AF_XDP -> policy -> TAP, in worker ns per frame, beside a bare loop, the TAP's own cost and the kernel's clone
#[derive(Clone, Debug, clap::Args)]
pub struct Forward {
    /// Frames that the bare loops write in a round; the product gets as much time as the bare loop took
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    frames: u64,
    /// Frame sizes in bytes, without the check sequence; imix is 7:4:1 of 60, 590 and 1,514
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "64,512,1500,imix", value_parser = size)]
    sizes: Vec<Size>,
    /// How many tools listen on the TAP, each number in turn: packet sockets whose readers look at every frame
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "0", value_parser = clap::value_parser!(u8).range(0..=16))]
    listeners: Vec<u8>,
    /// Measure as well what each choice is worth: bare loops that each leave one thing out
    #[arg(long)]
    baselines: bool,
}

/// What frames come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    /// All of this length.
    Bytes(usize),
    /// The simple [`IMIX`].
    Imix,
}

fn size(text: &str) -> Result<Size, String> {
    if text.eq_ignore_ascii_case("imix") {
        return Ok(Size::Imix);
    }
    // 60 is Ethernet's shortest without its check sequence, 1,514 what a TAP has room for by default.
    match frame::size(text, 60..=1514) {
        Ok(bytes) => Ok(Size::Bytes(bytes)),
        Err(error) => Err(format!("{error}, or imix")),
    }
}

impl Size {
    fn name(self) -> String {
        match self {
            Self::Bytes(bytes) => format!("{bytes} bytes"),
            Self::Imix => "IMIX".into(),
        }
    }

    fn traffic(self, core: usize) -> Traffic {
        match self {
            Self::Bytes(bytes) => Traffic::of(frame::udp(bytes), core),
            Self::Imix => Traffic::imix(core),
        }
    }

    /// Lengths of the frames, in turn.
    fn lengths(self) -> Vec<usize> {
        match self {
            Self::Bytes(bytes) => vec![bytes],
            Self::Imix => IMIX.iter().map(|&bytes| bytes.into()).collect(),
        }
    }

    /// Of a frame, on average.
    fn bytes(self) -> usize {
        let lengths = self.lengths();
        (lengths.iter().sum::<usize>() + lengths.len() / 2) / lengths.len()
    }
}

const FLOOR: &str = "TAP floor";
const BARE: &str = "bare loop";
const PRODUCT: &str = "dataplane";
const CLONE: &str = "kernel clone";

/// What the subject's worker pays for each of the tools that listen.
const LISTENER: Quantity = Quantity::cost("each listener", "ns/frame", 1);
/// What did not fit into the listeners' own rings.
const LISTENERS_LOST: Quantity = Quantity::cost("listeners lost", "%", 2);

impl Benchmark for Forward {
    fn run(&self, session: &mut Session<'_>) -> Result<Report, BenchError> {
        lab::enter()?;
        let mut report = Report::begin(
            "forward",
            "AF_XDP -> policy of ten rules -> TAP",
            "The TAP floor writes one hot frame into a TAP again and again; the bare loop brings frames from \
             AF_XDP to a TAP without parse, policy or counters; dataplane is the shipped binary with an \
             ordinary configuration. The generator always pours in more than a TAP takes. The kernel's clone \
             (clsact, u32, mirred into a veth) runs on the generator's core: its processor time is that core's \
             time for a frame, less that for a frame which is dropped at arrival, and its rate has the \
             generator's work in it. What brings a frame to a socket, into AF_XDP's memory or a packet socket's ring, \
             runs on the generator's core for all of them and is in nobody's processor time.",
            session,
        );
        let mut listeners = self.listeners.clone();
        listeners.sort_unstable();
        listeners.dedup();
        if listeners.iter().any(|&n| n > 0) {
            let core = Audience::of(1, session.cores).core;
            let whose = match core == session.cores.generator {
                true => ", which is the generator's: there is no other",
                false => "",
            };
            report.note(format!("listeners read on core {core}{whose}"));
        }
        let clone_missing = kernel_clone::missing();
        if let Some(note) = clone_missing {
            report.note(note);
        }
        for &size in &self.sizes {
            let rounds = session.rounds;
            for round in 1..=rounds {
                let mut row = Row {
                    forward: self,
                    size,
                    traffic: size.traffic(session.cores.generator),
                    round: format!("forward, {}, round {round} of {rounds}", size.name()),
                    alone: Vec::new(),
                };
                let mut time = Duration::ZERO;
                for &n in &listeners {
                    time = row.measure(n.into(), session, &mut report)?;
                }
                if clone_missing.is_none() {
                    row.kernel_clone(time, session, &mut report)?;
                }
                if self.baselines {
                    baselines::measure(&row, session, &mut report)?;
                }
            }
        }
        report.compare(PRODUCT, FLOOR, &CPU);
        report.compare(PRODUCT, BARE, &CPU);
        report.compare(PRODUCT, CLONE, &CPU);
        if self.baselines {
            baselines::compare(&mut report);
        }
        report.end();
        Ok(report)
    }
}

/// One round of one size.
struct Row<'a> {
    forward: &'a Forward,
    size: Size,
    traffic: Traffic,
    /// For whoever waits.
    round: String,
    /// What each took without listeners, in ns a frame.
    alone: Vec<(&'static str, f64)>,
}

impl Row<'_> {
    /// The case, with so many listeners.
    fn case(&self, listeners: usize) -> String {
        let size = self.size.name();
        match listeners {
            0 => size,
            1 => format!("{size}, 1 listener"),
            n => format!("{size}, {n} listeners"),
        }
    }

    /// Floor, bare loop and product in turn. Answers how long the bare loop took.
    fn measure(
        &mut self,
        listeners: usize,
        session: &mut Session<'_>,
        report: &mut Report,
    ) -> Result<Duration, BenchError> {
        let case = self.case(listeners);
        let cores = session.cores;
        let audience = Audience::of(listeners, cores);
        let step = format!("{}, {listeners} listening", self.round);
        let count = self.forward.frames;

        session.step(&format!("{step}: {FLOOR}"))?;
        let (floor, heard) = tap_floor::measure(
            cores,
            &self.traffic.frame,
            &self.size.lengths(),
            count,
            Way::BEST,
            audience,
            &session.interrupt,
        )?;
        self.record(&case, FLOOR, &floor, audience, heard, report);

        session.step(&format!("{step}: {BARE}"))?;
        let best = bare::Options::best(session.hugepages);
        let (bare, heard) = bare::measure(
            cores,
            &self.traffic,
            count,
            best,
            audience,
            &session.interrupt,
        )?;
        self.record(&case, BARE, &bare, audience, heard, report);

        session.step(&format!("{step}: {PRODUCT}"))?;
        let (product, heard) = self.product(
            session.hugepages,
            audience,
            bare.elapsed,
            &case,
            PRODUCT,
            session,
            report,
        )?;
        self.record(&case, PRODUCT, &product, audience, heard, report);
        Ok(bare.elapsed)
    }

    /// What the product does with the traffic in `time`. Its loss is recorded.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call each of the two who vary all of them"
    )]
    fn product(
        &self,
        hugepages: HugePages,
        audience: Audience,
        time: Duration,
        case: &str,
        subject: &str,
        session: &Session<'_>,
        report: &mut Report,
    ) -> Result<(Measured, Heard), BenchError> {
        let worker = session.cores.worker;
        let product = Product::start(&dp_toml(worker, hugepages), &session.interrupt)?;
        report.note(format!("frame memory of {subject}: {}", product.backing()?));
        let listeners = audience.listen_on("lc0")?;
        let poured = pour(
            &product,
            worker,
            self.traffic.clone(),
            time,
            &session.interrupt,
            written,
        )?;
        let heard = listeners.finish()?;
        product.stop()?;
        let lost = 1.0 - poured.measured.frames as f64 / poured.sent.frames as f64;
        report.record(case, subject, &LOSS, lost * 100.0);
        Ok((poured.measured, heard))
    }

    /// The kernel's clone, as long as the bare loop took.
    fn kernel_clone(
        &self,
        time: Duration,
        session: &mut Session<'_>,
        report: &mut Report,
    ) -> Result<(), BenchError> {
        session.step(&format!("{}: {CLONE}", self.round))?;
        match kernel_clone::measure(&self.traffic, time, &session.interrupt) {
            Ok(clone) => report.measured(&self.case(0), CLONE, &clone, self.size.bytes()),
            // Not this machine's kernel: the others are measured all the same.
            Err(BenchError::Peer { message, .. }) => report.note(format!("{CLONE}: {message}")),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn record(
        &mut self,
        case: &str,
        subject: &'static str,
        measured: &Measured,
        audience: Audience,
        heard: Heard,
        report: &mut Report,
    ) {
        report.measured(case, subject, measured, self.size.bytes());
        let cost = measured.ns_per_frame();
        if audience.listeners == 0 {
            self.alone.push((subject, cost));
            return;
        }
        if let Some((_, alone)) = self.alone.iter().find(|(who, _)| *who == subject) {
            let each = (cost - alone) / audience.listeners as f64;
            report.record(case, subject, &LISTENER, each);
        }
        if let Some(lost) = heard.lost_percent() {
            report.record(case, subject, &LISTENERS_LOST, lost);
        }
    }
}

fn written(stats: &Stats) -> u64 {
    stats.ports.get("lc0").map_or(0, |lc0| lc0.tx.frames)
}

fn dp_toml(worker: usize, hugepages: HugePages) -> String {
    configuration::uplink_to_lc0(worker, hugepages, None, &configuration::ten_rules())
}
