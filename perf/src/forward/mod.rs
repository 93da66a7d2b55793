//! `dpbench forward`: what the product takes to bring a frame from AF_XDP through a policy to a TAP, beside
//! the best bare loop and beside the TAP's own cost, in turn and in one run.
//!
//! The unit is processor time of the worker per frame: other work on the machine, a generator that is slow
//! for a moment and sleep disturb a rate, but hardly this.

mod bare;
mod floor;
mod product;
mod report;
mod tap;
mod writer;

use std::{
    io,
    time::{Duration, Instant},
};

use control::link::{netns::NetNsError, tap::TapError};
use nix::time::{ClockId, clock_gettime};
use serde::{Serialize, Serializer};

pub use report::{Machine, Report, Round, SizeReport, Spread};

use crate::{
    generator::{GeneratorError, frame},
    lab::{self, Cores, Interrupt, LabError},
};

/// What frame memory the bare loop and the product take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum HugePages {
    /// Huge pages where they can be had, else normal ones
    #[default]
    Auto,
    /// Normal pages
    Off,
    /// Huge pages, or nothing is measured
    Require,
}

impl std::fmt::Display for HugePages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            HugePages::Auto => "auto",
            HugePages::Off => "off",
            HugePages::Require => "require",
        })
    }
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Frames that the bare loops write in a round; the product gets as much time as the bare loop took.
    pub frames: u64,
    /// Frame sizes in bytes, without the check sequence.
    pub sizes: Vec<usize>,
    /// How often each is measured.
    pub rounds: usize,
    /// What memory.
    pub hugepages: HugePages,
    /// Which core does what.
    pub cores: Cores,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// No place to measure in, or Ctrl-C.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// No traffic.
    #[error(transparent)]
    Generator(#[from] GeneratorError),
    /// No TAP.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The core cannot be had.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// A bare loop failed.
    #[error(
        "{what}: {error}; it needs root, Linux 6.1 or newer, and for --hugepages require 8 free huge pages"
    )]
    Bare {
        /// Which.
        what: &'static str,
        /// The kernel's answer.
        error: io::Error,
    },
    /// The product failed.
    #[error("dataplane: {message}")]
    Product {
        /// What happened.
        message: String,
    },
}

impl ForwardError {
    fn bare(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::Bare { what, error }
    }

    fn product(message: String) -> Self {
        Self::Product { message }
    }
}

/// What one loop did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Measured {
    /// Frames written.
    pub frames: u64,
    /// Processor time of the thread that wrote them.
    #[serde(rename = "cpu_ns", serialize_with = "nanoseconds")]
    pub cpu: Duration,
    /// Time that passed.
    #[serde(rename = "elapsed_ns", serialize_with = "nanoseconds")]
    pub elapsed: Duration,
}

fn nanoseconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u128(time.as_nanos())
}

impl Measured {
    /// Processor time per frame, in nanoseconds; NaN without frames.
    pub fn ns_per_frame(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.frames as f64
    }

    /// Frames a second; NaN or infinite without time.
    pub fn rate(&self) -> f64 {
        self.frames as f64 / self.elapsed.as_secs_f64()
    }
}

/// Measures the calling thread.
struct Stopwatch {
    /// Its processor time at the start, pauses added.
    cpu: Duration,
    paused: Option<Duration>,
    at: Instant,
}

impl Stopwatch {
    fn start() -> Self {
        Self {
            cpu: thread_time(),
            paused: None,
            at: Instant::now(),
        }
    }

    /// Counts no processor time from here on.
    #[cold]
    fn pause(&mut self) {
        self.paused = Some(thread_time());
    }

    /// Counts again.
    #[cold]
    fn resume(&mut self) {
        if let Some(paused) = self.paused.take() {
            self.cpu += thread_time() - paused;
        }
    }

    fn stop(mut self, frames: u64) -> Measured {
        self.resume();
        Measured {
            frames,
            cpu: thread_time() - self.cpu,
            elapsed: self.at.elapsed(),
        }
    }
}

fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Measures everything. `tell` hears of each step.
///
/// # Errors
///
/// Whatever keeps one of the three from running; an interrupt ends it as well.
pub fn run(
    options: &Options,
    interrupt: &Interrupt,
    tell: &mut dyn FnMut(&str),
) -> Result<Report, ForwardError> {
    lab::enter()?;
    let mut report = Report::begin(options);
    for &size in &options.sizes {
        let frame = frame::udp(size);
        let mut rounds = Vec::with_capacity(options.rounds);
        for round in 1..=options.rounds {
            let step =
                |what: &str| format!("{size} bytes, round {round} of {}: {what}", options.rounds);
            interrupt.check()?;
            tell(&step("TAP floor"));
            let floor = floor::measure(options.cores, &frame, options.frames, interrupt)?;
            tell(&step("bare loop"));
            let bare = bare::measure(
                options.cores,
                &frame,
                options.frames,
                options.hugepages,
                interrupt,
            )?;
            tell(&step("dataplane"));
            let run = product::measure(
                options.cores,
                &frame,
                bare.elapsed,
                options.hugepages,
                interrupt,
            )?;
            report.backing = run.backing;
            rounds.push(Round {
                floor,
                bare,
                forward: run.measured,
                offered: run.offered,
            });
        }
        report.sizes.push(SizeReport::of(size, rounds));
    }
    report.end();
    Ok(report)
}
