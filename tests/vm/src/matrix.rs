//! All tests on all kernels, and the page that says what each kernel can do: docs/kernels.md, from docs/kernels.json.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    error::{At, Error},
    kernel,
    themes::{Outcome, TrialResult},
};

/// What a run of the matrix found.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// One for each kernel, the oldest first.
    kernels: Vec<Outcome>,
}

const JSON: &str = "docs/kernels.json";
const PAGE: &str = "docs/kernels.md";

/// Runs the tests on every kernel with `run`, and writes the page if all passed. Answers whether they did.
pub(crate) fn run(
    project: &Path,
    mut run: impl FnMut(&str) -> Result<Outcome, Error>,
) -> Result<bool, Error> {
    let mut kernels = Vec::new();
    let mut passed = true;
    for packaged in kernel::PACKAGED {
        println!("=== {} ({})", packaged.name, packaged.suite);
        // One that hangs or panics does not keep the others from being tried.
        match run(packaged.name) {
            Ok(outcome) => {
                passed &= outcome.passed;
                kernels.push(outcome);
            }
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(e) => {
                println!("{}: {e}", packaged.name);
                passed = false;
            }
        }
    }
    for outcome in &kernels {
        let count = |result| {
            outcome
                .trials
                .iter()
                .filter(|trial| trial.result == result)
                .count()
        };
        println!(
            "{}: {} passed, {} failed, {} skipped",
            outcome.release,
            count(TrialResult::Passed),
            count(TrialResult::Failed),
            count(TrialResult::Skipped)
        );
    }
    if !passed {
        println!("{PAGE} stays as it is: not everything passed");
        return Ok(false);
    }
    let record = Record { kernels };
    let (json, page) = (project.join(JSON), project.join(PAGE));
    let mut text =
        serde_json::to_string_pretty(&record).map_err(|e| Error::Machine(e.to_string()))?;
    text.push('\n');
    fs::write(&json, text).at(&json)?;
    fs::write(&page, record.page()).at(&page)?;
    println!("wrote {PAGE}");
    Ok(true)
}

impl Record {
    fn page(&self) -> String {
        let mut page = String::from(
            "# Kernels\n\n\
             What the dataplane does on which kernel, as tests in a virtual machine found it. Features are looked for when they are\n\
             needed, never derived from a version: a distribution's kernel may have what its number does not say. What is not there is\n\
             done without, or refused with a line that says so.\n\n\
             This page is written by `scripts/vm matrix`, from the tests' own findings; the kernels are packages of Debian, booted in\n\
             QEMU ([how, and how to try it](virtual-machine.md)). A page with a failed test is not written.\n\n\
             ## Features\n\n| feature |",
        );
        let mut rule = String::from("| --- |");
        for kernel in &self.kernels {
            let _ = write!(page, " {} ({}) |", kernel.name, kernel.release);
            rule.push_str(" --- |");
        }
        let _ = writeln!(page, " tested by |\n{rule} --- |");
        for feature in self.in_order(|kernel| kernel.facts.iter().map(|fact| &fact.feature)) {
            let _ = write!(page, "| {feature} |");
            let mut tests = BTreeSet::new();
            for kernel in &self.kernels {
                let facts: Vec<_> = kernel
                    .facts
                    .iter()
                    .filter(|fact| fact.feature == *feature)
                    .collect();
                tests.extend(facts.iter().map(|fact| format!("`{}`", fact.test)));
                let answers: Vec<&str> = facts.iter().map(|fact| fact.answer.as_str()).collect();
                let _ = write!(
                    page,
                    " {} |",
                    if answers.is_empty() {
                        "-".into()
                    } else {
                        answers.join("; ")
                    }
                );
            }
            let _ = writeln!(
                page,
                " {} |",
                tests.into_iter().collect::<Vec<_>>().join(", ")
            );
        }
        page.push_str("\n## Tests\n\n| test |");
        for kernel in &self.kernels {
            let _ = write!(page, " {} ({}) |", kernel.name, kernel.release);
        }
        let _ = writeln!(page, "\n{rule}");
        for test in self.in_order(|kernel| kernel.trials.iter().map(|trial| &trial.name)) {
            let _ = write!(page, "| `{test}` |");
            for kernel in &self.kernels {
                let trial = kernel.trials.iter().find(|trial| trial.name == *test);
                let word = match trial.map(|trial| &trial.result) {
                    Some(TrialResult::Passed) => "passed",
                    Some(TrialResult::Failed) => "**failed**",
                    Some(TrialResult::Skipped) => "not on this kernel",
                    None => "-",
                };
                let _ = write!(page, " {word} |");
            }
            page.push('\n');
        }
        page
    }

    /// Names of all kernels, each once, those of the newest kernel first: it has the most.
    fn in_order<'a, I: Iterator<Item = &'a String>>(
        &'a self,
        names: impl Fn(&'a Outcome) -> I,
    ) -> Vec<&'a String> {
        let mut all: Vec<&String> = Vec::new();
        for kernel in self.kernels.iter().rev() {
            for name in names(kernel) {
                if !all.contains(&name) {
                    all.push(name);
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody writes the page by hand.
    #[test]
    fn the_page_is_what_the_last_run_found() {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let json = fs::read_to_string(project.join(JSON)).expect(JSON);
        let record: Record = serde_json::from_str(&json).expect("the shape of a record");
        let page = fs::read_to_string(project.join(PAGE)).expect(PAGE);
        assert_eq!(page, record.page(), "run scripts/vm matrix");
        assert_eq!(record.kernels.len(), kernel::PACKAGED.len());
    }
}
