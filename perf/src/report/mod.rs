//! What was measured: figures by case and subject, ratios within a round, and where it was measured. The
//! same shape for every benchmark, so that tables, plots and comparisons are made in one place.

mod comparison;
mod files;
mod machine;
mod plot;
mod quantity;
mod table;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use self::files::put;
pub use self::{
    comparison::{Change, Comparison},
    files::{FileError, draw, read, write},
    machine::Machine,
    plot::{Form, Plot, PlotError},
    quantity::{Better, CPU, LOSS, Quantity, RATE, THROUGHPUT},
    table::Table,
};
use crate::{
    measure::{Measured, Spread},
    session::Session,
};

/// The shape of the JSON.
pub const VERSION: u32 = 2;

/// One quantity of one subject in one case, in all rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What was varied: `64 bytes`, `1000 rules`.
    pub case: String,
    /// What was measured: `dataplane`, or what it is compared with.
    pub subject: String,
    /// What of it.
    pub quantity: Quantity,
    /// The number in each round, in the quantity's unit.
    pub rounds: Vec<f64>,
}

/// How one subject does beside another in the same case: above 1 it does better. Taken within each round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// What was varied.
    pub case: String,
    /// Which subject.
    pub subject: String,
    /// Beside which.
    pub beside: String,
    /// The quantity that both have.
    pub quantity: Quantity,
    /// The ratio in each round.
    pub rounds: Vec<f64>,
}

/// One run of one benchmark.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// The subcommand.
    pub benchmark: String,
    /// What it is about, in one line.
    pub title: String,
    /// How it was measured, in a few sentences.
    pub method: String,
    /// Where.
    pub machine: Machine,
    /// The numbers.
    pub figures: Vec<Figure>,
    /// How they stand to each other.
    pub ratios: Vec<Ratio>,
    /// What a reader must know of this run: a peer that was missing, memory that was not to be had.
    pub notes: Vec<String>,
    /// What is to be drawn of it. Without any, bars of the quantity that ratios are of.
    #[serde(default)]
    pub plots: Vec<Plot>,
}

impl Report {
    /// An empty report of the subcommand `benchmark`.
    pub fn begin(benchmark: &str, title: &str, method: &str, session: &Session<'_>) -> Self {
        Self {
            version: VERSION,
            benchmark: benchmark.into(),
            title: title.into(),
            method: method.into(),
            machine: Machine::this(session.cores),
            figures: Vec::new(),
            ratios: Vec::new(),
            notes: Vec::new(),
            plots: Vec::new(),
        }
    }

    /// Adds the number of one more round.
    pub fn record(&mut self, case: &str, subject: &str, quantity: &Quantity, number: f64) {
        let figure = self
            .figures
            .iter_mut()
            .find(|f| f.case == case && f.subject == subject && f.quantity == *quantity);
        match figure {
            Some(figure) => figure.rounds.push(number),
            None => self.figures.push(Figure {
                case: case.into(),
                subject: subject.into(),
                quantity: quantity.clone(),
                rounds: vec![number],
            }),
        }
    }

    /// Adds what a loop did in one more round: processor time a frame, rate and throughput.
    pub fn measured(&mut self, case: &str, subject: &str, measured: &Measured, bytes: usize) {
        let rate = measured.mframes();
        self.record(case, subject, &CPU, measured.ns_per_frame());
        self.record(case, subject, &RATE, rate);
        self.record(case, subject, &THROUGHPUT, rate * bytes as f64 * 8.0 / 1e3);
    }

    /// Says something once.
    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The figure of a subject.
    pub fn figure(&self, case: &str, subject: &str, quantity: &Quantity) -> Option<&Figure> {
        self.figures
            .iter()
            .find(|f| f.case == case && f.subject == subject && f.quantity == *quantity)
    }

    /// Adds a ratio for every case in which both have the quantity.
    pub fn compare(&mut self, subject: &str, beside: &str, quantity: &Quantity) {
        let ratios: Vec<Ratio> = self
            .cases()
            .into_iter()
            .filter_map(|case| {
                let of = |who| self.figure(case, who, quantity).map(|f| &f.rounds);
                let rounds = of(subject)?.iter().zip(of(beside)?);
                Some(Ratio {
                    case: case.into(),
                    subject: subject.into(),
                    beside: beside.into(),
                    quantity: quantity.clone(),
                    rounds: rounds
                        .map(|(&own, &other)| quantity.better.ratio(own, other))
                        .collect(),
                })
            })
            .collect();
        self.ratios.extend(ratios);
    }

    /// The ratio of one case.
    pub fn ratio(&self, case: &str, subject: &str, beside: &str) -> Option<Spread> {
        self.ratios
            .iter()
            .find(|r| r.case == case && r.subject == subject && r.beside == beside)
            .map(|r| Spread::of(r.rounds.iter().copied()))
    }

    /// Wants a plot.
    pub fn plot(&mut self, plot: Plot) {
        self.plots.push(plot);
    }

    /// The plots that are wanted, each with the name of its file.
    pub fn plots(&self) -> Vec<(String, Plot)> {
        let default = || {
            let quantity = self.ratios.first().map(|ratio| &ratio.quantity);
            let quantity = quantity.or_else(|| self.figures.first().map(|f| &f.quantity))?;
            Some(vec![Plot::bars(&self.title, quantity)])
        };
        let plots = match self.plots.is_empty() {
            true => default().unwrap_or_default(),
            false => self.plots.clone(),
        };
        let named = plots.into_iter().enumerate().map(|(number, plot)| {
            let suffix = match number {
                0 => String::new(),
                _ => format!("-{}", number + 1),
            };
            (format!("{}{suffix}.svg", self.benchmark), plot)
        });
        named.collect()
    }

    /// Notes the load at the end: call it last.
    pub fn end(&mut self) {
        self.machine.end();
    }

    /// All cases, in the order in which they were measured.
    pub fn cases(&self) -> Vec<&str> {
        distinct(self.figures.iter().map(|f| f.case.as_str()))
    }

    /// All quantities, in the order in which they were measured.
    pub fn quantities(&self) -> Vec<&Quantity> {
        distinct(self.figures.iter().map(|f| &f.quantity))
    }

    /// The figures: a row for each subject of each case.
    pub fn table(&self) -> Table {
        let quantities = self.quantities();
        let mut table = Table::new(["case", ""]);
        for quantity in &quantities {
            table.column(&format!("{}, {}", quantity.name, quantity.unit));
        }
        for case in self.cases() {
            let of_case = self.figures.iter().filter(|f| f.case == case);
            for (number, subject) in distinct(of_case.map(|f| f.subject.as_str()))
                .into_iter()
                .enumerate()
            {
                let shown = if number == 0 { case } else { "" };
                let mut row = vec![shown.to_owned(), subject.to_owned()];
                row.extend(quantities.iter().map(|quantity| {
                    self.figure(case, subject, quantity)
                        .map_or_else(String::new, |f| quantity.show_spread(&f.rounds))
                }));
                table.row(row);
            }
        }
        table
    }

    /// The ratios: a row for each case, a column for each pair.
    pub fn ratio_table(&self) -> Table {
        let pairs = distinct(
            self.ratios
                .iter()
                .map(|r| (r.subject.as_str(), r.beside.as_str(), &r.quantity)),
        );
        let mut table = Table::new(["case"]);
        for (subject, beside, quantity) in &pairs {
            table.column(&format!("{subject} / {beside} ({})", quantity.name));
        }
        for case in distinct(self.ratios.iter().map(|r| r.case.as_str())) {
            let mut row = vec![case.to_owned()];
            row.extend(pairs.iter().map(|&(subject, beside, quantity)| {
                self.ratios
                    .iter()
                    .find(|r| {
                        r.case == case
                            && r.subject == subject
                            && r.beside == beside
                            && r.quantity == *quantity
                    })
                    .map_or_else(String::new, |r| {
                        let s = Spread::of(r.rounds.iter().copied());
                        format!("{:.3} ({:.3} – {:.3})", s.median, s.min, s.max)
                    })
            }));
            table.row(row);
        }
        table
    }
}

/// Each once, in order of appearance.
fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for one in all {
        if !seen.contains(&one) {
            seen.push(one);
        }
    }
    seen
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}\n{}\n", self.benchmark, self.title, self.machine)?;
        write!(f, "{}", self.table().text())?;
        if !self.ratios.is_empty() {
            write!(f, "\n{}", self.ratio_table().text())?;
        }
        write!(
            f,
            "\nMedian (least – most) of the rounds. A ratio above 1 is for the first of the two; it is taken within each round."
        )?;
        for note in &self.notes {
            write!(f, "\nnote: {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn report() -> Report {
        let machine = Machine {
            cpu: "cpu".into(),
            kernel: "6.18".into(),
            commit: "abc".into(),
            date: "2026-11-20 12:00 UTC".into(),
            unoptimised: false,
            generator_core: 0,
            worker_core: 1,
            load: [String::new(), String::new()],
        };
        let mut report = Report {
            version: VERSION,
            benchmark: "test".into(),
            title: "a test".into(),
            method: String::new(),
            machine,
            figures: Vec::new(),
            ratios: Vec::new(),
            notes: Vec::new(),
            plots: Vec::new(),
        };
        for (floor, product) in [(400.0, 500.0), (400.0, 800.0), (300.0, 600.0)] {
            report.record("64 bytes", "floor", &CPU, floor);
            report.record("64 bytes", "dataplane", &CPU, product);
            report.record("64 bytes", "dataplane", &RATE, 1e3 / product);
        }
        report.compare("dataplane", "floor", &CPU);
        report
    }

    #[test]
    fn a_ratio_is_of_speeds_and_within_a_round() {
        let report = report();
        let ratio = report.ratio("64 bytes", "dataplane", "floor");
        let expected = Spread {
            median: 0.5,
            min: 0.5,
            max: 0.8,
        };
        assert_eq!(ratio, Some(expected));
        // The floor has no rate: there is nothing to compare.
        assert_eq!(report.ratios.len(), 1);
    }

    #[test]
    fn a_table_has_a_row_for_each_subject_of_each_case() {
        let table = report().table().text();
        assert!(table.contains("cpu, ns/frame"), "{table}");
        assert!(table.contains("600.0 (500.0 – 800.0)"), "{table}");
        assert_eq!(table.matches("64 bytes").count(), 1, "{table}");
        assert_eq!(table.lines().count(), 3, "{table}");
    }

    #[test]
    fn a_report_survives_json() {
        let report = report();
        let json = serde_json::to_string(&report).expect("a report becomes JSON");
        let again: Report = serde_json::from_str(&json).expect("and JSON a report");
        assert_eq!(again.figures, report.figures);
        assert_eq!(again.ratios, report.ratios);
    }
}
