//! What has become of ratios from one run to another: figures of two runs are of two machines, or of one at
//! two times; ratios within a run hold.

use std::fmt;

use super::{Ratio, Report, Table};
use crate::measure::Spread;

/// A ratio that lost more than this share of its median is flagged.
const TOLERATED: f64 = 0.10;

/// One ratio in both runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The subcommand.
    pub benchmark: String,
    /// The ratio, without its rounds: case, subjects and quantity.
    pub ratio: Ratio,
    /// Its median before; none where it was not measured.
    pub old: Option<f64>,
    /// Its median now.
    pub new: Option<f64>,
}

impl Change {
    /// Whether it is worse by more than a tenth, or gone.
    pub fn is_worse(&self) -> bool {
        match (self.old, self.new) {
            (Some(old), Some(new)) => new < old * (1.0 - TOLERATED),
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// In a word or a number.
    fn verdict(&self) -> String {
        match (self.old, self.new) {
            (Some(old), Some(new)) => {
                let flag = if self.is_worse() { " WORSE" } else { "" };
                format!("{:+.1} %{flag}", (new / old - 1.0) * 100.0)
            }
            (Some(_), None) => "GONE".into(),
            (None, _) => "new".into(),
        }
    }
}

/// All ratios of two runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// In the order of the old run, then those that are new.
    pub changes: Vec<Change>,
}

impl Comparison {
    /// Of two runs, of any number of benchmarks each. A ratio without a finite median counts as not measured.
    pub fn of(old: &[Report], new: &[Report]) -> Self {
        let (old, new) = (medians(old), medians(new));
        let beside = |of: &[Change], change: &Change| {
            let same = |other: &&Change| {
                other.benchmark == change.benchmark && other.ratio == change.ratio
            };
            of.iter().find(same).and_then(|other| other.new)
        };
        let was = old.iter().map(|change| Change {
            old: change.new,
            new: beside(&new, change),
            ..change.clone()
        });
        let came = new
            .iter()
            .filter(|change| beside(&old, change).is_none())
            .cloned();
        Self {
            changes: was.chain(came).collect(),
        }
    }

    /// Forgets what only one of the runs has.
    pub fn keep_common(&mut self) {
        self.changes
            .retain(|change| change.old.is_some() && change.new.is_some());
    }

    /// Those that are worse or gone.
    pub fn worse(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.is_worse())
    }

    fn table(&self) -> Table {
        let mut table = Table::new(["benchmark", "case", "ratio"]);
        for head in ["old", "new", "change"] {
            table.column(head);
        }
        let show = |median: Option<f64>| median.map_or("–".into(), |m| format!("{m:.3}"));
        for change in &self.changes {
            let ratio = &change.ratio;
            table.row(vec![
                change.benchmark.clone(),
                ratio.case.clone(),
                format!(
                    "{} / {} ({})",
                    ratio.subject, ratio.beside, ratio.quantity.name
                ),
                show(change.old),
                show(change.new),
                change.verdict(),
            ]);
        }
        table
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n{} of {} ratios worse by more than {:.0} % or gone (medians; above 1 is for the first of the two)",
            self.table().text(),
            self.worse().count(),
            self.changes.len(),
            TOLERATED * 100.0
        )
    }
}

/// Every ratio that has a median, as one that is new.
fn medians(reports: &[Report]) -> Vec<Change> {
    let of_report = |report: &Report| {
        let ratios = report.ratios.iter().filter_map(|ratio| {
            let median = Spread::of(ratio.rounds.iter().copied()).median;
            median.is_finite().then(|| Change {
                benchmark: report.benchmark.clone(),
                ratio: Ratio {
                    rounds: Vec::new(),
                    ..ratio.clone()
                },
                old: None,
                new: Some(median),
            })
        });
        ratios.collect::<Vec<_>>()
    };
    reports.iter().flat_map(of_report).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{CPU, tests::report};

    /// The report of a test with another ratio in its one case.
    fn with(rounds: &[f64]) -> Report {
        let mut report = report();
        report.ratios[0].rounds = rounds.to_vec();
        report
    }

    #[test]
    fn a_tenth_is_tolerated_and_a_loss_is_not() {
        for (old, new, worse, shown) in [
            (&[0.5][..], &[0.5][..], false, "+0.0 %"),
            (&[0.5], &[0.46], false, "-8.0 %"),
            (&[0.5], &[0.44], true, "-12.0 % WORSE"),
            (&[0.5], &[0.9], false, "+80.0 %"),
            // Medians, whatever the rounds at the ends.
            (&[0.5, 0.1, 0.9], &[0.1, 0.48, 0.9], false, "-4.0 %"),
            (&[0.5], &[], true, "GONE"),
            (&[0.5], &[f64::NAN], true, "GONE"),
            (&[], &[0.5], false, "new"),
        ] {
            let comparison = Comparison::of(&[with(old)], &[with(new)]);
            let case = format!("{old:?} -> {new:?}: {comparison}");
            assert_eq!(comparison.changes.len(), 1, "{case}");
            assert_eq!(comparison.worse().count(), usize::from(worse), "{case}");
            assert!(comparison.to_string().contains(shown), "{case}");
        }
    }

    #[test]
    fn what_one_run_has_is_forgotten_where_the_common_is_wanted() {
        for (old, new, left) in [
            (&[0.5][..], &[0.4][..], 1),
            (&[0.5], &[], 0),
            (&[], &[0.5], 0),
        ] {
            let mut comparison = Comparison::of(&[with(old)], &[with(new)]);
            comparison.keep_common();
            assert_eq!(comparison.changes.len(), left, "{old:?} {new:?}");
        }
    }

    #[test]
    fn ratios_are_matched_by_benchmark_case_subjects_and_quantity() {
        let old = with(&[0.5]);
        let mut benchmark = with(&[0.1]);
        benchmark.benchmark = "other".into();
        let mut case = with(&[0.1]);
        case.ratios[0].case = "other".into();
        let mut beside = with(&[0.1]);
        beside.ratios[0].beside = "other".into();
        let mut quantity = with(&[0.1]);
        quantity.ratios[0].quantity.name = "other".into();
        for other in [benchmark, case, beside, quantity] {
            let comparison = Comparison::of(std::slice::from_ref(&old), &[other]);
            let verdicts: Vec<_> = comparison.changes.iter().map(Change::verdict).collect();
            assert_eq!(verdicts, ["GONE", "new"]);
        }
        assert_eq!(old.ratios[0].quantity, CPU);
    }
}
