//! `dpbench`: measures the dataplane beside what the machine can do, and makes traffic.

use std::{
    fs,
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::{Args, Parser, Subcommand};
use control::link::NetNs;
use perf::{
    forward::{self, HugePages},
    generator::{Generator, Traffic, frame},
    lab::{self, Cores, Interrupt},
};

/// Measures the dataplane beside what the machine can do, and makes traffic.
#[derive(Debug, Parser)]
#[command(
    name = "dpbench",
    version,
    after_help = "\
Examples:
  sudo dpbench forward                                     the full table, about a minute
  sudo dpbench forward --sizes 64 --json forward.json      one size, figures for machines as well
  sudo dpbench generate --interface gen0 --count 1000000   a million frames, as fast as the kernel can

Build it and what it measures with optimisation: cargo build --release --bins. It works in a network namespace
of its own, which ends with it.

Exit codes: 0 done, 1 something failed, 2 wrong usage, 3 the machine refuses, 130 interrupted."
)]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// AF_XDP -> policy -> TAP, in worker ns per frame, beside a bare loop and the TAP's own cost
    Forward(Forward),
    /// Pour frames into an interface, from one core
    Generate(Generate),
}

#[derive(Debug, Args)]
struct Forward {
    /// Frames in each measurement
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    frames: u64,
    /// Frame sizes in bytes, without the check sequence
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "64,512,1500", value_parser = forward_size)]
    sizes: Vec<usize>,
    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Frame memory of the bare loop and the dataplane
    #[arg(long, value_enum, default_value_t)]
    hugepages: HugePages,
    /// Core of the generator [default: the first]
    #[arg(long, value_name = "CORE")]
    generator_core: Option<usize>,
    /// Core of what is measured [default: the second]
    #[arg(long, value_name = "CORE")]
    worker_core: Option<usize>,
    /// Write the figures to this file as well, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("amount").required(true))]
struct Generate {
    /// Where frames leave. The peer of a veth needs an XDP program or GRO, or it takes none
    #[arg(long, value_name = "IF")]
    interface: String,
    /// The interface's network namespace [default: this one]
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// Bytes of a frame, without the check sequence
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = generate_size)]
    size: usize,
    /// How many frames
    #[arg(long, value_name = "N", group = "amount", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// How long, in seconds
    #[arg(long, value_name = "S", group = "amount", value_parser = seconds)]
    seconds: Option<Duration>,
    /// Frames a second [default: as many as the kernel can]
    #[arg(long, value_name = "PPS", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// The core that makes them
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    core: usize,
}

fn forward_size(text: &str) -> Result<usize, String> {
    // 60 is Ethernet's shortest without its check sequence, 1,514 what a TAP has room for by default.
    size(text, 60..=1514)
}

fn generate_size(text: &str) -> Result<usize, String> {
    size(text, 60..=3400)
}

fn size(text: &str, range: std::ops::RangeInclusive<usize>) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if range.contains(&size) => Ok(size),
        _ => Err(format!(
            "{} to {} bytes are possible",
            range.start(),
            range.end()
        )),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .filter(|s| *s > 0.0)
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
        .ok_or_else(|| "must be a positive number of seconds".into())
}

/// What went wrong, and the exit code that says so.
struct Failure(u8, String);

impl From<lab::LabError> for Failure {
    fn from(error: lab::LabError) -> Self {
        let code = match error {
            lab::LabError::Interrupted => 130,
            lab::LabError::Cores { .. } => 2,
            _ => 3,
        };
        Self(code, error.to_string())
    }
}

impl From<forward::ForwardError> for Failure {
    fn from(error: forward::ForwardError) -> Self {
        match error {
            forward::ForwardError::Lab(error) => error.into(),
            other => Self(1, other.to_string()),
        }
    }
}

fn main() -> ExitCode {
    let done = match Command::parse().action {
        Action::Forward(arguments) => forward(&arguments),
        Action::Generate(arguments) => generate(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code, message)) => {
            eprintln!("dpbench: {message}");
            ExitCode::from(code)
        }
    }
}

fn forward(arguments: &Forward) -> Result<(), Failure> {
    lab::require_root()?;
    if cfg!(debug_assertions) {
        eprintln!(
            "dpbench: built without optimisation; figures mean nothing (cargo build --release --bins)"
        );
    }
    let options = forward::Options {
        frames: arguments.frames,
        sizes: arguments.sizes.clone(),
        rounds: arguments.rounds.into(),
        hugepages: arguments.hugepages,
        cores: Cores::choose(arguments.generator_core, arguments.worker_core)?,
    };
    let interrupt = Interrupt::watch()?;
    // One line that is written over and over, for people only.
    let live = std::io::stderr().is_terminal();
    let line = |text: &str| {
        if live {
            eprint!("\r\x1b[K{text}");
        }
    };
    let report = forward::run(&options, &interrupt, &mut |step| line(step));
    line("");
    let report = report?;
    if let Some(path) = &arguments.json {
        serde_json::to_string_pretty(&report)
            .map_err(|e| Failure(1, e.to_string()))
            .and_then(|json| {
                fs::write(path, json + "\n")
                    .map_err(|e| Failure(1, format!("{}: {e}", path.display())))
            })?;
    }
    // A reader that went away is no failure.
    let _ = writeln!(std::io::stdout(), "{report}");
    Ok(())
}

fn generate(arguments: &Generate) -> Result<(), Failure> {
    lab::require_root()?;
    let refused = |error: &dyn std::fmt::Display| Failure(3, error.to_string());
    let ns = NetNs::open_or_own(arguments.netns.as_deref()).map_err(|e| refused(&e))?;
    let interrupt = Interrupt::watch()?;
    let traffic = Traffic {
        frame: frame::udp(arguments.size),
        count: arguments.count,
        rate: arguments.rate,
        core: arguments.core,
    };
    let generator =
        Generator::start(&ns, &arguments.interface, traffic).map_err(|e| refused(&e))?;
    let deadline = arguments.seconds.map(|time| Instant::now() + time);
    while !interrupt.is_set()
        && !generator.is_finished()
        && deadline.is_none_or(|end| Instant::now() < end)
        && arguments
            .count
            .is_none_or(|n| generator.progress().sent < n)
    {
        thread::sleep(Duration::from_millis(2));
    }
    let sent = generator.stop().map_err(|e| refused(&e))?;
    let seconds = sent.elapsed.as_secs_f64();
    println!(
        "{} frames of {} bytes in {seconds:.3} s: {:.3} Mframes/s",
        sent.frames,
        arguments.size,
        sent.frames as f64 / seconds.max(1e-9) / 1e6
    );
    Ok(())
}
