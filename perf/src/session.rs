//! What every benchmark is given: cores, rounds, memory, a way to be interrupted and to tell how far it is.

use serde::Serialize;

use crate::{
    error::BenchError,
    lab::{Cores, Interrupt, LabError},
    report::Report,
};

/// A subcommand that measures: its options are its command line.
pub trait Benchmark: clap::Args {
    /// Measures everything. Called as root, in a thread that may go into other namespaces.
    ///
    /// # Errors
    ///
    /// Whatever keeps one of those compared from running; an interrupt ends it as well.
    fn run(&self, session: &mut Session<'_>) -> Result<Report, BenchError>;
}

/// What frame memory the bare loops and the product take.
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

/// What every benchmark is given.
pub struct Session<'a> {
    /// Which core does what.
    pub cores: Cores,
    /// How often each is measured.
    pub rounds: usize,
    /// What memory.
    pub hugepages: HugePages,
    /// Ctrl-C.
    pub interrupt: Interrupt,
    /// Hears of each step.
    pub listener: &'a mut dyn FnMut(&str),
}

impl Session<'_> {
    /// Says what comes next.
    ///
    /// # Errors
    ///
    /// [`LabError::Interrupted`], when it is time to end instead.
    pub fn step(&mut self, what: &str) -> Result<(), LabError> {
        self.interrupt.check()?;
        (self.listener)(what);
        Ok(())
    }
}
