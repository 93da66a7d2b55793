//! `dpbench all`: every benchmark in turn, their reports, plots and the page. `dpbench page`: the page alone.

use std::{
    fs,
    io::{Write, stdout},
    path::PathBuf,
    thread,
};

use clap::{Args, builder::PossibleValuesParser};
use perf::{
    page, report,
    session::Session,
    suite::{BENCHMARKS, Entry},
};

use super::{
    Failure,
    bench::{Common, Prepared},
};

/// What is measured, and where it is written.
#[derive(Debug, Args)]
pub(crate) struct All {
    /// Only these [default: all]
    #[arg(value_name = "BENCHMARK", value_parser = PossibleValuesParser::new(BENCHMARKS.iter().map(|e| e.name)))]
    names: Vec<String>,
    /// Small counts, and one round unless --rounds says more: shows that everything runs
    #[arg(long)]
    short: bool,
    /// Where reports, plots and the page go; reports of benchmarks that are not measured stay
    #[arg(long, value_name = "DIR", default_value = "docs/benchmarks")]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
}

impl All {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let wanted = |entry: &&Entry| {
            self.names.is_empty() || self.names.iter().any(|name| name == entry.name)
        };
        for entry in BENCHMARKS {
            entry.check(self.short)?;
        }
        let prepared = self.common.prepare()?;
        fs::create_dir_all(&self.out)
            .map_err(|e| Failure(1, format!("{}: {e}", self.out.display())))?;
        let mut failed = Vec::new();
        for entry in BENCHMARKS.iter().filter(wanted) {
            match self.measure(entry, &prepared) {
                Ok(()) => {}
                Err(interrupted @ Failure(130, _)) => return Err(interrupted),
                // The others are measured all the same.
                Err(Failure(code, message)) => {
                    eprintln!("dpbench: {}: {message}", entry.name);
                    failed.push((code, entry.name));
                }
            }
        }
        let written = page::write(&self.out);
        // First what failed: without any report there is no page either.
        if let Some(&(code, _)) = failed.first() {
            let names: Vec<_> = failed.iter().map(|(_, name)| *name).collect();
            return Err(Failure(code, format!("not measured: {}", names.join(", "))));
        }
        written?;
        show(&format!("written: {}", self.out.join(page::FILE).display()));
        Ok(())
    }

    /// Measures one and writes its report. In a thread of its own, which ends with its namespaces.
    fn measure(&self, entry: &Entry, prepared: &Prepared<'_>) -> Result<(), Failure> {
        let rounds = if self.short { 1 } else { 3 };
        let run = |session: &mut Session<'_>| entry.run(self.short, session);
        let joined = thread::scope(|scope| scope.spawn(|| prepared.measure(rounds, run)).join());
        let report = joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        report::write(&self.out.join(format!("{}.json", entry.name)), &report)?;
        show(&format!("{report}\n"));
        Ok(())
    }
}

/// Prints it. A reader that went away is no failure: reports and page are written all the same.
fn show(text: &str) {
    let _ = writeln!(stdout(), "{text}");
}

/// Where reports are.
#[derive(Debug, Args)]
pub(crate) struct Page {
    /// A folder with reports
    #[arg(value_name = "DIR", default_value = "docs/benchmarks")]
    folder: PathBuf,
}

impl Page {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        Ok(page::write(&self.folder)?)
    }
}
