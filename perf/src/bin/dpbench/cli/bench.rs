//! What all benchmarks share: cores, rounds, memory, where the report goes.

use std::{
    io::{IsTerminal, Write, stderr},
    path::PathBuf,
};

use clap::Args;
use perf::{
    error::BenchError,
    lab::{self, Cores, Interrupt},
    memory::Reservation,
    report::{self, Report},
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
            .prepare()?
            .measure(3, |session| self.options.run(session))?;
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
    /// What is done once, for however many benchmarks: the machine is asked, Ctrl-C is caught, memory is reserved.
    pub(crate) fn prepare(&self) -> Result<Prepared<'_>, Failure> {
        lab::require_root()?;
        let cores = Cores::choose(self.generator_core, self.worker_core)?;
        if cfg!(debug_assertions) {
            eprintln!(
                "dpbench: built without optimisation; figures mean nothing (cargo build --release --bins)"
            );
        }
        // Before memory is reserved: a signal that ended the process at once would leave it so.
        let interrupt = Interrupt::watch()?;
        // Given back when this is dropped, after Ctrl-C as well: what is measured then ends with an error.
        let reservation = self
            .reserve_hugepages
            .then(|| Reservation::of(HUGE_PAGES))
            .transpose()?;
        Ok(Prepared {
            common: self,
            cores,
            interrupt,
            _reservation: reservation,
        })
    }
}

/// A machine that is ready for benchmarks.
pub(crate) struct Prepared<'a> {
    common: &'a Common,
    cores: Cores,
    interrupt: Interrupt,
    _reservation: Option<Reservation>,
}

impl Prepared<'_> {
    /// Measures something, of so many rounds unless the command line says otherwise, and shows how far it is.
    pub(crate) fn measure(
        &self,
        rounds: u16,
        run: impl FnOnce(&mut Session<'_>) -> Result<Report, BenchError>,
    ) -> Result<Report, Failure> {
        // One line that is written over and over, for people only.
        let live = stderr().is_terminal();
        let mut line = |text: &str| {
            if live {
                eprint!("\r\x1b[K{text}");
            }
        };
        let mut session = Session {
            cores: self.cores,
            rounds: self.common.rounds.unwrap_or(rounds).into(),
            hugepages: self.common.hugepages,
            interrupt: self.interrupt.clone(),
            listener: &mut line,
        };
        let result = run(&mut session);
        line("");
        // A terminal's Ctrl-C ends those measured as well: that they are gone is no failure of theirs then.
        if result.is_err() {
            self.interrupt.check()?;
        }
        Ok(result?)
    }
}
