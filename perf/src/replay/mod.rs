//! `dpbench replay`: a capture file to a TAP. At top speed, beside the TAP's own cost and tcpreplay out of
//! memory; and how well a pace is kept, beside `tcpreplay --pps`.
//!
//! All is seen from outside: rates from the counters of the interface at which frames arrive, arrivals by a
//! program at its ingress.

mod pacing;

use std::{
    thread,
    time::{Duration, Instant},
};

use control::{kernel::passive::PassiveIngress, link::NetNs};

use self::pacing::{Errors, GAP_P99, LATE_P99};
use crate::{
    arrivals::Arrivals,
    capture::Capture,
    configuration,
    error::BenchError,
    generator::frame,
    interface::Counters,
    lab::{self, SOURCE, UPLINK},
    peer::{
        listener::Audience,
        tap::passive_tap,
        tap_floor,
        tcpreplay::{self, Speed, Tcpreplay},
        writer::Way,
    },
    product::Product,
    report::{RATE, Report},
    session::{Benchmark, Session},
    watch::{PATIENCE, READER, READER_THREAD, Seen, WARM, watch},
};

/// Capture file -> TAP at top speed, and how well a pace is kept, beside tcpreplay
#[derive(Clone, Debug, clap::Args)]
pub struct Replay {
    /// Frame sizes at top speed, in bytes without the check sequence; imix: 60, 590 and 1514 as 7 : 4 : 1
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "64,imix", value_parser = size)]
    sizes: Vec<Size>,
    /// Paces, in frames of 64 bytes a second
    #[arg(long, value_name = "PPS", value_delimiter = ',', default_value = "1000,10000,100000,1000000",
          value_parser = clap::value_parser!(u64).range(10..=10_000_000))]
    paces: Vec<u64>,
    /// How long each is looked at, in seconds
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Frames in the capture file, which is played again and again
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    frames: u64,
}

/// What frames a capture holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Bytes(usize),
    Imix,
}

impl Size {
    fn frames(self) -> Vec<Vec<u8>> {
        match self {
            Size::Bytes(bytes) => vec![frame::udp(bytes)],
            Size::Imix => frame::imix(),
        }
    }
}

fn size(text: &str) -> Result<Size, String> {
    match text {
        "imix" => Ok(Size::Imix),
        _ => frame::size(text, 60..=1514)
            .map(Size::Bytes)
            .map_err(|e| e + ", or imix"),
    }
}

pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("0.1 to 60 seconds are possible".into()),
    }
}

const FLOOR: &str = "TAP floor";
const VETH: &str = "tcpreplay, veth";
const TAP: &str = "tcpreplay, TAP";
const PRODUCT: &str = "dataplane";
const JUDGED: &str = "dataplane, ten rules";
const TCPREPLAY: &str = "tcpreplay";

/// The frames that the floor writes.
const FLOOR_FRAMES: u64 = 1_000_000;

impl Benchmark for Replay {
    fn run(&self, session: &mut Session<'_>) -> Result<Report, BenchError> {
        lab::enter()?;
        // What tcpreplay sends into one end arrives at the other, where the host is as silent as on a TAP for
        // listeners.
        let _silent = PassiveIngress::attach(&NetNs::own(), UPLINK)
            .map_err(|e| BenchError::peer(TCPREPLAY, e))?;
        let mut report = Report::begin(
            "replay",
            "capture file -> TAP, at top speed and paced",
            "At top speed: the TAP floor writes hot frames into a TAP again and again; tcpreplay plays the capture \
             with --topspeed --preload-pcap into a veth, and into a TAP whose other end nobody reads; dataplane is \
             the shipped binary with an ordinary configuration, which reads the file with a second thread. Rates \
             are the counters of the interface. Paced: a program at the ingress of the TAP (tcpreplay: of the \
             veth's far end) writes down when each frame arrives.",
            session,
        );
        for &size in &self.sizes {
            self.top(size, session, &mut report)?;
        }
        let capture = Capture::write(&[frame::udp(64)], self.frames)?;
        for &pace in &self.paces {
            self.paced(pace, &capture, session, &mut report)?;
        }
        for peer in [FLOOR, VETH, TAP] {
            report.compare(PRODUCT, peer, &RATE);
        }
        report.compare(PRODUCT, TCPREPLAY, &GAP_P99);
        report.compare(PRODUCT, TCPREPLAY, &LATE_P99);
        report.end();
        Ok(report)
    }
}

impl Replay {
    fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// As fast as it goes.
    fn top(
        &self,
        size: Size,
        session: &mut Session<'_>,
        report: &mut Report,
    ) -> Result<(), BenchError> {
        let case = match size {
            Size::Bytes(bytes) => format!("top speed, {bytes} bytes"),
            Size::Imix => "top speed, IMIX".into(),
        };
        let frames = size.frames();
        let capture = Capture::write(&frames, self.frames)?;
        let bytes = capture.mean();
        for round in 1..=session.rounds {
            let step = format!("replay, {case}, round {round} of {}", session.rounds);
            session.step(&format!("{step}: {FLOOR}"))?;
            let lengths: Vec<usize> = frames.iter().map(Vec::len).collect();
            let longest = frames.iter().max_by_key(|frame| frame.len());
            let (floor, _) = tap_floor::measure(
                session.cores,
                longest.map_or(&[], Vec::as_slice),
                &lengths,
                FLOOR_FRAMES,
                Way::BEST,
                Audience::of(0, session.cores),
                &session.interrupt,
            )?;
            report.measured(&case, FLOOR, &floor, bytes);

            for (subject, interface) in [(VETH, SOURCE), (TAP, "peer")] {
                session.step(&format!("{step}: {subject}"))?;
                let tap = (interface != SOURCE)
                    .then(|| passive_tap(interface))
                    .transpose()?;
                let interface = tap.as_ref().map_or(interface, |tap| tap.name.as_str());
                let core = session.cores.worker;
                let player = Tcpreplay::start(core, interface, capture.path(), Speed::Top)?;
                let Some(mut player) = player else {
                    report.note(tcpreplay::MISSING);
                    continue;
                };
                let arrived = || {
                    player.check()?;
                    let counted = Counters::of(match interface {
                        SOURCE => UPLINK,
                        tap => tap,
                    })?;
                    let frames = match interface {
                        SOURCE => counted.received,
                        _ => counted.sent,
                    };
                    Ok(Seen {
                        frames,
                        cpu: player.time()?,
                        helper: Duration::ZERO,
                    })
                };
                let (measured, _) = watch(session, self.length(), arrived)?;
                report.measured(&case, subject, &measured, bytes);
            }

            for (subject, policy) in [(PRODUCT, false), (JUDGED, true)] {
                session.step(&format!("{step}: {subject}"))?;
                let toml = dp_toml(session, &capture, "\"top\"", policy);
                let product = Product::start(&toml, &session.interrupt)?;
                let core = session.cores.worker;
                let arrived = || {
                    Ok(Seen {
                        frames: Counters::of("lc0")?.received,
                        cpu: product.worker_time(core)?,
                        helper: product.thread_time(READER_THREAD)?,
                    })
                };
                let (measured, reader) = watch(session, self.length(), arrived)?;
                product.stop()?;
                report.measured(&case, subject, &measured, bytes);
                let reader = reader.as_nanos() as f64 / measured.frames as f64;
                report.record(&case, subject, &READER, reader);
            }
        }
        Ok(())
    }

    /// At a pace.
    fn paced(
        &self,
        pace: u64,
        capture: &Capture,
        session: &mut Session<'_>,
        report: &mut Report,
    ) -> Result<(), BenchError> {
        let case = format!("{pace} frames/s");
        let core = session.cores.worker;
        for round in 1..=session.rounds {
            let step = format!("replay, {case}, round {round} of {}", session.rounds);
            session.step(&format!("{step}: {TCPREPLAY}"))?;
            match Tcpreplay::start(core, SOURCE, capture.path(), Speed::Pps(pace))? {
                Some(_player) => {
                    let errors = self.arrivals(UPLINK, pace, session)?;
                    record(report, &case, TCPREPLAY, &errors);
                }
                None => report.note(tcpreplay::MISSING),
            }

            session.step(&format!("{step}: {PRODUCT}"))?;
            let pps = format!("{{ pps = {pace} }}");
            let toml = dp_toml(session, capture, &pps, false);
            let product = Product::start(&toml, &session.interrupt)?;
            let errors = self.arrivals("lc0", pace, session)?;
            product.stop()?;
            record(report, &case, PRODUCT, &errors);
        }
        Ok(())
    }

    /// Watches what arrives at an interface for a while.
    fn arrivals(
        &self,
        interface: &str,
        pace: u64,
        session: &Session<'_>,
    ) -> Result<Errors, BenchError> {
        thread::sleep(WARM);
        let count = ((pace as f64 * self.seconds) as u64).max(2);
        let arrivals = Arrivals::time(interface, count)?;
        // Looking would disturb what is looked at.
        thread::sleep(self.length());
        let deadline = Instant::now() + self.length() + PATIENCE;
        while !arrivals.is_full() {
            session.interrupt.check()?;
            if Instant::now() > deadline {
                let message = format!(
                    "{} of {count} frames arrived at {interface}",
                    arrivals.frames()
                );
                return Err(BenchError::peer("replay", message));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(Errors::of(&arrivals.times(), pace))
    }
}

fn record(report: &mut Report, case: &str, subject: &str, errors: &Errors) {
    for (quantity, number) in errors.figures() {
        report.record(case, subject, &quantity, number);
    }
}

fn dp_toml(session: &Session<'_>, capture: &Capture, pace: &str, policy: bool) -> String {
    let (rules, judged) = match policy {
        true => (configuration::ten_rules(), "policy = \"bench\"\n"),
        false => (String::new(), ""),
    };
    format!(
        r#"[engine]
cores = "{worker}"
hugepages = "{hugepages}"

[ports.sample]
kind = "pcap"
path = {path:?}
pace = {pace}
loops = 0

[ports.lc0]
kind = "tap"
name = "lc0"

{rules}
[[pipelines]]
from = ["sample"]
{judged}to = ["lc0"]
"#,
        worker = session.cores.worker,
        hugepages = session.hugepages,
        path = capture.path(),
    )
}
