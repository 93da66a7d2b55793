//! Every benchmark there is: what `dpbench all` runs, in the order of the page that it writes.

use std::ffi::OsString;

use clap::{Args, Command};

use crate::{
    drop::Drop,
    error::BenchError,
    forward::Forward,
    inline::Inline,
    latency::Latency,
    policy::Policy,
    replay::Replay,
    report::Report,
    scale::Scale,
    session::{Benchmark, Session},
    vxlan::Vxlan,
};

/// One benchmark with the options that a suite gives it.
#[derive(Clone, Copy)]
pub struct Entry {
    /// The subcommand.
    pub name: &'static str,
    /// Its options for the page, beside its defaults.
    pub full: &'static [&'static str],
    /// Its options for a run of a few seconds.
    pub short: &'static [&'static str],
    check: fn(&[&str]) -> Result<(), clap::Error>,
    run: fn(&[&str], &mut Session<'_>) -> Result<Report, BenchError>,
}

impl Entry {
    const fn of<B: Benchmark>(
        name: &'static str,
        full: &'static [&'static str],
        short: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            full,
            short,
            check: |options| parse::<B>(options).map(drop),
            run: |options, session| match parse::<B>(options) {
                Ok(benchmark) => benchmark.run(session),
                Err(error) => Err(BenchError::Options(error.to_string())),
            },
        }
    }

    /// Its options for this kind of run.
    pub fn options(&self, short: bool) -> &'static [&'static str] {
        if short { self.short } else { self.full }
    }

    /// Whether it has the options of this kind of run.
    ///
    /// # Errors
    ///
    /// What the command line would say.
    pub fn check(&self, short: bool) -> Result<(), BenchError> {
        (self.check)(self.options(short)).map_err(|e| BenchError::Options(e.to_string()))
    }

    /// Measures it. In a thread of its own: it may go into other namespaces.
    ///
    /// # Errors
    ///
    /// Those of the benchmark.
    pub fn run(&self, short: bool, session: &mut Session<'_>) -> Result<Report, BenchError> {
        (self.run)(self.options(short), session)
    }
}

/// All benchmarks. What each measures in a full run beside its defaults, and what it measures in a short one.
#[rustfmt::skip]
pub const BENCHMARKS: &[Entry] = &[
    Entry::of::<Forward>("forward", &["--listeners", "0,1,2", "--baselines"], &["--sizes", "64", "--frames", "200000"]),
    Entry::of::<Inline>("inline", &[], &["--time", "200"]),
    Entry::of::<Drop>("drop", &[], &["--seconds", "0.3"]),
    Entry::of::<Latency>("latency", &["--seconds", "30"], &["--sample", "0.2", "--seconds", "0.5", "--loads", "50"]),
    Entry::of::<Policy>("policy", &[], &["--frames", "20000", "--exact", "10,1000", "--prefixes", "1000", "--replace", "1000"]),
    Entry::of::<Scale>("scale", &[], &["--time", "200", "--ports", "1,8", "--rules", "10"]),
    Entry::of::<Replay>("replay", &[], &["--sizes", "64", "--paces", "10000", "--seconds", "0.2", "--frames", "10000"]),
    Entry::of::<Vxlan>("vxlan", &[], &["--seconds", "0.2", "--frames", "10000"]),
];

/// The benchmark of these options.
fn parse<B: Args>(options: &[&str]) -> Result<B, clap::Error> {
    let words = std::iter::once("dpbench").chain(options.iter().copied());
    let matches =
        B::augment_args(Command::new("dpbench")).try_get_matches_from(words.map(OsString::from))?;
    B::from_arg_matches(&matches)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_told_apart() {
        let names: BTreeSet<_> = BENCHMARKS.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), BENCHMARKS.len());
    }

    #[test]
    fn options_are_such_as_there_are() {
        for entry in BENCHMARKS {
            for short in [false, true] {
                let checked = entry.check(short);
                assert!(checked.is_ok(), "{}: {checked:?}", entry.name);
            }
        }
        let unknown = Entry {
            short: &["--no-such-option"],
            ..BENCHMARKS[0]
        };
        assert!(unknown.check(true).is_err());
    }
}
