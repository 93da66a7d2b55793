//! What all benchmarks share: cores, rounds, memory, where the report goes.

use std::{
    io::{IsTerminal, Write, stderr},
    path::PathBuf,
};

use clap::Args;
use perf::{
    lab::{self, Cores, Interrupt},
    memory::Reservation,
    report,
    session::{Benchmark, HugePages, Session},
};

use super::Failure;

/// What is reserved: room for two ports with their regions, at 2 MiB a page.
const HUGE_PAGES: u64 = 64;

/// Options that every benchmark has.
#[derive(Debug, Args)]
#[command(next_help_heading = "Of every benchmark")]
pub(crate) struct Common {
    /// How often each is measured [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Frame memory of bare loops and the dataplane
    #[arg(long, value_enum, default_value_t)]
    hugepages: HugePages,
    /// Have the kernel reserve huge pages for the run (64 of them free); as many as before at its end
    #[arg(long)]
    reserve_hugepages: bool,
    /// Core of the generator [default: the first]
    #[arg(long, value_name = "CORE")]
    generator_core: Option<usize>,
    /// Core of what is measured [default: the second]
    #[arg(long, value_name = "CORE")]
    worker_core: Option<usize>,
}

/// One benchmark with all its options.
#[derive(Debug, Args)]
pub(crate) struct Bench<O: Args> {
    #[command(flatten)]
    options: O,
    #[command(flatten)]
    common: Common,
    /// Write the figures to this file as well, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw plots into this folder, as SVG
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
}

impl<O: Benchmark> Bench<O> {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let report = self
            .common
            .with_session(3, |session| self.options.run(session))??;
        if let Some(path) = &self.json {
            report::write(path, &report)?;
        }
        if let Some(folder) = &self.svg {
            report::draw(folder, &report)?;
        }
        // A reader that went away is no failure.
        let _ = writeln!(std::io::stdout(), "{report}");
        Ok(())
    }
}

impl Common {
    /// Runs something in a session of these options, of so many rounds unless they say otherwise, and shows how far
    /// it is.
    pub(crate) fn with_session<T>(
        &self,
        rounds: u16,
        run: impl FnOnce(&mut Session<'_>) -> T,
    ) -> Result<T, Failure> {
        lab::require_root()?;
        if cfg!(debug_assertions) {
            eprintln!(
                "dpbench: built without optimisation; figures mean nothing (cargo build --release --bins)"
            );
        }
        // Given back when this is dropped, after Ctrl-C as well: what is measured then ends with an error.
        let _reservation = self
            .reserve_hugepages
            .then(|| Reservation::of(HUGE_PAGES))
            .transpose()?;
        // One line that is written over and over, for people only.
        let live = stderr().is_terminal();
        let mut line = |text: &str| {
            if live {
                eprint!("\r\x1b[K{text}");
            }
        };
        let mut session = Session {
            cores: Cores::choose(self.generator_core, self.worker_core)?,
            rounds: self.rounds.unwrap_or(rounds).into(),
            hugepages: self.hugepages,
            interrupt: Interrupt::watch()?,
            listener: &mut line,
        };
        let result = run(&mut session);
        line("");
        Ok(result)
    }
}
