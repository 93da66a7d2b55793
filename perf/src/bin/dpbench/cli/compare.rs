//! `dpbench compare`: which ratios became worse between two runs.

use std::{io::Write, path::PathBuf};

use clap::Args;
use perf::report::{self, Comparison};

use super::Failure;

/// Two runs.
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Reports of the earlier run: a file of --json, a file with a list of such reports, or a folder of files
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// Reports of the later run
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// Only ratios that both have: a short run has few of a full one's
    #[arg(long)]
    common: bool,
}

impl Compare {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let old = report::read(&self.old)?;
        let new = report::read(&self.new)?;
        let unoptimised = |reports: &[report::Report]| {
            let mut machines = reports.iter().map(|report| &report.machine);
            machines.any(|machine| machine.unoptimised)
        };
        let mut comparison = Comparison::of(&old, &new);
        if self.common {
            comparison.keep_common();
        }
        // A reader that went away is no failure.
        let _ = writeln!(std::io::stdout(), "{comparison}");
        if unoptimised(&old) != unoptimised(&new) {
            let _ = writeln!(
                std::io::stdout(),
                "note: one of the two was built without optimisation: their ratios do not compare"
            );
        }
        match comparison.worse().count() {
            0 => Ok(()),
            worse => Err(Failure(
                1,
                format!("{worse} ratios worse than in {}", self.old.display()),
            )),
        }
    }
}
