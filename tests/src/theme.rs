//! A theme: the trials of one file, each with what it needs.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{Need, guest::facts, net};

/// The trials of one file. A trial passes unless it panics.
#[derive(Default)]
pub struct Theme(Vec<Trial>);

impl Theme {
    /// No trials yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a trial. Without what it needs it is reported as ignored, with the reason, or as failed
    /// where the environment requires it (see [`Need::is_required`]).
    pub fn test(
        &mut self,
        name: impl Into<String>,
        needs: &'static [Need],
        body: impl FnOnce() + Send + 'static,
    ) -> &mut Self {
        let kind: Vec<String> = needs.iter().map(ToString::to_string).collect();
        let name = name.into();
        let own_name = name.clone();
        let trial = Trial::ignorable_test(name, move || {
            facts::begin(&own_name);
            for need in needs {
                if let Some(reason) = need.missing() {
                    return if need.is_required() {
                        Err(Failed::from(format!(
                            "{reason}, and DATAPLANE_REQUIRE has it"
                        )))
                    } else {
                        Ok(Completion::ignored_with(reason))
                    };
                }
            }
            body();
            Ok(Completion::Completed)
        });
        self.0.push(trial.with_kind(kind.join(",")));
        self
    }

    /// Runs the trials, one after the other unless `--test-threads` says otherwise: workers that are
    /// pinned to the same core would disturb each other.
    pub fn run(self) -> ExitCode {
        let mut arguments = Arguments::from_args();
        arguments.test_threads.get_or_insert(1);
        net::sweep();
        libtest_mimic::run(&arguments, self.0).exit_code()
    }
}
