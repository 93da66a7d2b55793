//! The page of all benchmarks, generated from their reports: docs/benchmarks/README.md.

use std::path::Path;

use crate::{
    report::{self, FileError, Report, Table},
    suite::BENCHMARKS,
    targets::TARGETS,
};

/// The page's file in its folder.
pub const FILE: &str = "README.md";

/// Draws the plots of all reports in a folder and writes the page beside them.
///
/// # Errors
///
/// When a report cannot be read, or something cannot be drawn or written.
pub fn write(folder: &Path) -> Result<(), FileError> {
    let mut reports = report::read(folder)?;
    // In the suite's order; what the suite does not know comes last.
    let place = |report: &Report| {
        let known = BENCHMARKS.iter().position(|e| e.name == report.benchmark);
        known.unwrap_or(BENCHMARKS.len())
    };
    reports.sort_by_key(place);
    let mut plots = Vec::new();
    for report in &reports {
        let drawn = report::draw(folder, report)?;
        let drawn = drawn.into_iter().map(|(file, plot)| (file, plot.title));
        plots.push(drawn.collect());
    }
    report::put(&folder.join(FILE), page(&reports, &plots))
}

/// The page as Markdown. `plots` has, for each report, file names and titles.
fn page(reports: &[Report], plots: &[Vec<(String, String)>]) -> String {
    let mut page = String::from(
        "# Benchmarks\n\n\
         This page is generated. `sudo dpbench all --out docs/benchmarks` measures everything and writes it, \
         `sudo dpbench all NAME --out docs/benchmarks` measures one benchmark anew, \
         and `dpbench page docs/benchmarks` writes it again from the reports (`*.json`) beside it. \
         Figures are those of one machine and one time; ratios were taken within one run, in turn, and hold better. \
         What was tried on the way, and where the time goes, is in [the notes](notes.md).\n\n",
    );
    page += "## Where it must arrive\n\n";
    page += &targets(reports).markdown();
    page += "\nA figure is the median of the rounds, loss the most of any round. \
             Frames have 64 bytes and there is one worker where nothing else is said. \
             A ratio above 1 is for the first of the two.\n\n";
    page += "## Where it was measured\n\n";
    page += &machines(reports).markdown();
    page.push('\n');
    for (report, plots) in reports.iter().zip(plots) {
        page += &section(report, plots);
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn targets(reports: &[Report]) -> Table {
    let mut table = Table::new(["figure", "at least", "measured", "", "from"]);
    for target in TARGETS {
        let (measured, outcome) = target.evaluate(reports);
        table.row(vec![
            target.figure.into(),
            target.wanted.into(),
            measured,
            outcome.name().into(),
            target.source(),
        ]);
    }
    table
}

fn machines(reports: &[Report]) -> Table {
    let mut table = Table::new([
        "benchmark",
        "date",
        "commit",
        "processor",
        "Linux",
        "cores",
        "load before",
        "load after",
    ]);
    for report in reports {
        let machine = &report.machine;
        table.row(vec![
            report.benchmark.clone(),
            machine.date.clone(),
            machine.commit.clone(),
            machine.cpu.clone(),
            machine.kernel.clone(),
            format!(
                "generator {}, worker {}",
                machine.generator_core, machine.worker_core
            ),
            machine.load[0].clone(),
            machine.load[1].clone(),
        ]);
    }
    table
}

fn section(report: &Report, plots: &[(String, String)]) -> String {
    let mut text = format!(
        "## {}\n\n{}. {}\n\n",
        report.benchmark,
        report.title.trim_end_matches('.'),
        report.method
    );
    if report.machine.unoptimised {
        text += "**Built without optimisation: the figures mean nothing.**\n\n";
    }
    text += &report.table().markdown();
    text += "\nMedian (least – most) of the rounds.\n\n";
    let ratios = report.ratio_table();
    if !ratios.is_empty() {
        text += &ratios.markdown();
        text += "\nA ratio above 1 is for the first of the two; it is taken within each round.\n\n";
    }
    for (file, title) in plots {
        text += &format!("![{}]({file})\n\n", title.replace(['[', ']'], ""));
    }
    for note in &report.notes {
        text += &format!("- {note}\n");
    }
    if !report.notes.is_empty() {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::report::tests::report;

    #[test]
    fn a_page_has_targets_machine_tables_and_plots() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut first = report();
        first.benchmark = "forward".into();
        first.note("a note");
        for (name, report) in [("a.json", &report()), ("z.json", &first)] {
            report::write(&dir.path().join(name), report).expect("a report is written");
        }
        write(dir.path()).expect("a page is written");
        let page = fs::read_to_string(dir.path().join(FILE)).expect("a page");
        let mut at = 0;
        // In this order: what the suite knows comes first.
        for part in [
            "This page is generated",
            "| forward / TAP floor, huge pages | 0.88 | – | not measured |",
            "| abc | cpu | 6.18 |",
            "## forward\n",
            "| 64 bytes | floor | 400.0 (300.0 – 400.0) |",
            "| 64 bytes | 0.500 (0.500 – 0.800) |",
            "![a test](forward.svg)",
            "- a note",
            "## test\n",
            "![a test](test.svg)",
        ] {
            let found = page[at..].find(part);
            at += found.unwrap_or_else(|| panic!("{part} after {at} in {page}"));
        }
        assert!(dir.path().join("test.svg").exists());
        // The same page again from the same reports.
        write(dir.path()).expect("a page is written");
        assert_eq!(
            fs::read_to_string(dir.path().join(FILE)).expect("a page"),
            page
        );
    }
}
