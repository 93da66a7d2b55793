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

/// Runs the tests on these kernels with `run`, and writes the page. A kernel on which all passed takes the place of its
/// record; one on which something failed keeps what was found before. Answers whether all passed.
pub(crate) fn run(
    project: &Path,
    kernels: &[&str],
    mut run: impl FnMut(&str) -> Result<Outcome, Error>,
) -> Result<bool, Error> {
    let (json, page) = (project.join(JSON), project.join(PAGE));
    let known = fs::read_to_string(&json).ok();
    let known = known.and_then(|text| serde_json::from_str(&text).ok());
    let mut record: Record = known.unwrap_or(Record {
        kernels: Vec::new(),
    });
    let mut passed = true;
    for name in kernels {
        println!("=== {name}");
        // One that hangs or panics does not keep the others from being tried.
        match run(name) {
            Ok(outcome) if outcome.passed => {
                println!("{}: {} tests passed", outcome.release, outcome.trials.len());
                record.put(outcome);
                let mut text = serde_json::to_string_pretty(&record)
                    .map_err(|e| Error::Broken(e.to_string()))?;
                text.push('\n');
                fs::write(&json, text).at(&json)?;
                fs::write(&page, record.page()).at(&page)?;
            }
            Ok(outcome) => {
                println!(
                    "{}: not everything passed; {PAGE} has what was found before",
                    outcome.release
                );
                passed = false;
            }
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(e) => {
                println!("{name}: {e}");
                passed = false;
            }
        }
    }
    Ok(passed)
}

impl Record {
    /// Takes what was found on a kernel, in the place of what was known of it.
    fn put(&mut self, outcome: Outcome) {
        self.kernels.retain(|known| known.name != outcome.name);
        self.kernels.push(outcome);
        let place = |name: &str| kernel::PACKAGED.iter().position(|one| one.name == name);
        self.kernels.sort_by_key(|known| place(&known.name));
    }

    fn page(&self) -> String {
        let mut page = String::from(
            "# Kernels\n\n\
             What the dataplane does on which kernel, as tests in a virtual machine found it. Features are looked for when they are\n\
             needed, never derived from a version: a distribution's kernel may have what its number does not say. What is not there is\n\
             done without, or refused with a line that says so.\n\n\
             This page is written by `scripts/vm matrix`, from the tests' own findings; the kernels are packages of Debian, booted in\n\
             QEMU ([how, and how to try it](virtual-machine.md)). A test that failed is not in it: what was\n\
             found before stands until all pass.\n\n\
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
                    Some(TrialResult::Failed) => "failed",
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
