//! What is to be reached: each row of the page's first table, where its figure comes from, and whether it is met.

use crate::{
    measure::Spread,
    report::{Quantity, Report},
};

/// A row: what is to be reached.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Of what.
    pub figure: &'static str,
    /// How much.
    pub wanted: &'static str,
    /// All that it asks for; each is to be met.
    pub parts: &'static [Part],
}

/// One number of a row.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// Measured by a benchmark.
    Measured {
        /// Which.
        benchmark: &'static str,
        /// Its case.
        case: &'static str,
        /// Whose figure.
        subject: &'static str,
        /// The figure, or the ratio to another subject's.
        reading: Reading,
        /// What it must be.
        bound: Bound,
        /// A note of the report must contain this: which memory it was measured with.
        given: &'static str,
    },
    /// Asserted by a test, without a figure.
    Asserted {
        /// Its file, from the repository's folder.
        file: &'static str,
        /// Its name.
        test: &'static str,
    },
}

/// What is read of a subject.
#[derive(Clone, Copy, Debug)]
pub enum Reading {
    /// A quantity, by its name.
    Figure(&'static str),
    /// How it does beside a subject, in a quantity: above 1 it does better.
    Ratio(&'static str, &'static str),
}

/// What a number must be.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// The median is at least this.
    AtLeast(f64),
    /// The median is at most this.
    AtMost(f64),
    /// 0 in every round.
    Nothing,
}

impl Bound {
    fn is_met(self, spread: Spread) -> bool {
        match self {
            Bound::AtLeast(bound) => spread.median >= bound,
            Bound::AtMost(bound) => spread.median <= bound,
            Bound::Nothing => spread.max == 0.0,
        }
    }
}

/// Whether a row is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it.
    Met,
    /// Some of it is measured and falls short.
    Missed,
    /// No figure falls short, and some are missing.
    NotMeasured,
}

impl Outcome {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Met => "met",
            Outcome::Missed => "**not met**",
            Outcome::NotMeasured => "not measured",
        }
    }
}

impl Part {
    /// Its number, and whether that is enough; none where it was not measured.
    fn evaluate(&self, reports: &[Report]) -> Option<(String, bool)> {
        match *self {
            Part::Asserted { .. } => Some(("asserted".into(), true)),
            Part::Measured {
                benchmark,
                case,
                subject,
                reading,
                bound,
                given,
            } => {
                let report = reports.iter().find(|report| {
                    report.benchmark == benchmark
                        && !report.machine.unoptimised
                        && report.notes.iter().any(|note| note.contains(given)) | given.is_empty()
                })?;
                let of = |who: &str, name: &str| {
                    let mut figures = report.figures.iter();
                    figures.find(|f| f.case == case && f.subject == who && f.quantity.name == name)
                };
                let (rounds, quantity) = match reading {
                    Reading::Figure(name) => {
                        let figure = of(subject, name)?;
                        (figure.rounds.clone(), figure.quantity.clone())
                    }
                    Reading::Ratio(beside, name) => {
                        let (own, other) = (of(subject, name)?, of(beside, name)?);
                        let better = own.quantity.better;
                        let pairs = own.rounds.iter().zip(&other.rounds);
                        let ratios = pairs.map(|(own, other)| better.ratio(*own, *other));
                        (ratios.collect(), Quantity::speed("ratio", "", 3))
                    }
                };
                let spread = Spread::of(rounds);
                spread.median.is_finite().then(|| {
                    let shown = quantity.show(match bound {
                        Bound::Nothing => spread.max,
                        _ => spread.median,
                    });
                    (shown, bound.is_met(spread))
                })
            }
        }
    }

    /// Where its number comes from.
    fn source(&self) -> String {
        match *self {
            Part::Asserted { file, test } => format!("`{file}`: `{test}`"),
            Part::Measured {
                benchmark,
                case,
                subject,
                reading,
                ..
            } => match reading {
                Reading::Figure(name) => format!("{benchmark}, {case}: {subject}, {name}"),
                Reading::Ratio(beside, name) => {
                    format!("{benchmark}, {case}: {subject} / {beside} ({name})")
                }
            },
        }
    }
}

impl Target {
    /// The numbers that were measured, in the order of the parts, and what comes of them.
    pub fn evaluate(&self, reports: &[Report]) -> (String, Outcome) {
        let parts: Vec<_> = self
            .parts
            .iter()
            .map(|part| part.evaluate(reports))
            .collect();
        let shown: Vec<&str> = parts
            .iter()
            .map(|part| part.as_ref().map_or("–", |(shown, _)| shown))
            .collect();
        let missed = parts.iter().flatten().any(|(_, met)| !met);
        let outcome = if missed {
            Outcome::Missed
        } else if parts.is_empty() || parts.iter().any(Option::is_none) {
            Outcome::NotMeasured
        } else {
            Outcome::Met
        };
        (shown.join(" / "), outcome)
    }

    /// Where its numbers come from, each once.
    pub fn source(&self) -> String {
        let mut sources: Vec<String> = Vec::new();
        for part in self.parts {
            let source = part.source();
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
        if sources.is_empty() {
            return "nothing measures it yet".into();
        }
        sources.join("; ")
    }
}

const PRODUCT: &str = "dataplane";

/// A figure of the product.
const fn figure(
    benchmark: &'static str,
    case: &'static str,
    quantity: &'static str,
    bound: Bound,
) -> Part {
    Part::Measured {
        benchmark,
        case,
        subject: PRODUCT,
        reading: Reading::Figure(quantity),
        bound,
        given: "",
    }
}

/// What the product does beside another, at least.
const fn ratio(
    benchmark: &'static str,
    case: &'static str,
    beside: &'static str,
    quantity: &'static str,
    least: f64,
) -> Part {
    Part::Measured {
        benchmark,
        case,
        subject: PRODUCT,
        reading: Reading::Ratio(beside, quantity),
        bound: Bound::AtLeast(least),
        given: "",
    }
}

/// A ratio of forward in some memory.
const fn forward(
    subject: &'static str,
    beside: &'static str,
    given: &'static str,
    least: f64,
) -> Part {
    Part::Measured {
        benchmark: "forward",
        case: "64 bytes",
        subject,
        reading: Reading::Ratio(beside, "cpu"),
        bound: Bound::AtLeast(least),
        given,
    }
}

/// A number that `dpbench latency` measures of one way to idle.
const fn idling(
    subject: &'static str,
    case: &'static str,
    quantity: &'static str,
    bound: Bound,
) -> Part {
    Part::Measured {
        benchmark: "latency",
        case,
        subject,
        reading: Reading::Figure(quantity),
        bound,
        given: "",
    }
}

const BUSY: &str = "dataplane, busy";
const HELD: &str = "10 rules, 7 Mframes/s asked for";
const HUGE: &str = "frame memory of dataplane: huge";

/// All of them. Frames of 64 bytes and one worker, where nothing else is said.
pub const TARGETS: &[Target] = &[
    Target {
        figure: "forward / TAP floor, huge pages",
        wanted: "0.88",
        parts: &[forward(PRODUCT, "TAP floor", HUGE, 0.88)],
    },
    Target {
        figure: "forward / TAP floor, normal pages",
        wanted: "0.84",
        parts: &[forward("dataplane, normal pages", "TAP floor", "", 0.84)],
    },
    Target {
        figure: "forward / the best bare AF_XDP -> TAP loop",
        wanted: "0.97",
        parts: &[forward(PRODUCT, "bare loop", "", 0.97)],
    },
    Target {
        figure: "worker CPU per frame, AF_XDP -> policy denies",
        wanted: "60 ns",
        parts: &[figure("drop", "10 rules", "cpu", Bound::AtMost(60.0))],
    },
    Target {
        figure: "denied frames held without loss",
        wanted: "7 Mframes/s",
        parts: &[
            figure("drop", HELD, "rate", Bound::AtLeast(6.99)),
            figure("drop", HELD, "lost", Bound::Nothing),
        ],
    },
    Target {
        figure: "inline, real TCP between veths: checksums finished by it / by its ends",
        wanted: "3.5 / 4 Gbit/s",
        parts: &[
            figure(
                "inline",
                "TCP, checksums finished on the way",
                "TCP",
                Bound::AtLeast(3.5),
            ),
            figure(
                "inline",
                "TCP, checksums finished by its ends",
                "TCP",
                Bound::AtLeast(4.0),
            ),
        ],
    },
    Target {
        figure: "forward at 1500 bytes, without / with a tool that listens",
        wanted: "20 / 10 Gbit/s",
        parts: &[
            figure("forward", "1500 bytes", "throughput", Bound::AtLeast(20.0)),
            figure(
                "forward",
                "1500 bytes, 1 listener",
                "throughput",
                Bound::AtLeast(10.0),
            ),
        ],
    },
    Target {
        figure: "replay / tcpreplay -t -K",
        wanted: "2.1",
        parts: &[ratio(
            "replay",
            "top speed, 64 bytes",
            "tcpreplay, veth",
            "rate",
            2.1,
        )],
    },
    Target {
        figure: "one verdict in a batch of 64, 10 / 65k / 1M rules, random keys, hit",
        wanted: "12 / 18 / 30 ns",
        parts: &[
            figure(
                "policy",
                "10 rules, exact, hit",
                "verdict",
                Bound::AtMost(12.0),
            ),
            figure(
                "policy",
                "65536 rules, exact, hit",
                "verdict",
                Bound::AtMost(18.0),
            ),
            figure(
                "policy",
                "1000000 rules, exact, hit",
                "verdict",
                Bound::AtMost(30.0),
            ),
        ],
    },
    Target {
        figure: "the same, mixed with keys that no rule has",
        wanted: "12 / 18 / 30 ns",
        parts: &[
            figure(
                "policy",
                "10 rules, exact, mixed",
                "verdict",
                Bound::AtMost(12.0),
            ),
            figure(
                "policy",
                "65536 rules, exact, mixed",
                "verdict",
                Bound::AtMost(18.0),
            ),
            figure(
                "policy",
                "1000000 rules, exact, mixed",
                "verdict",
                Bound::AtMost(30.0),
            ),
        ],
    },
    Target {
        figure: "CIDR rules with port ranges, 10k / 100k prefixes, mixed",
        wanted: "40 / 60 ns",
        parts: &[
            figure(
                "policy",
                "10000 rules, CIDR and port ranges, mixed",
                "verdict",
                Bound::AtMost(40.0),
            ),
            figure(
                "policy",
                "100000 rules, CIDR and port ranges, mixed",
                "verdict",
                Bound::AtMost(60.0),
            ),
        ],
    },
    Target {
        figure: "rebuild and swap under load, 65k / 1M rules",
        wanted: "50 / 1000 ms",
        parts: &[
            figure(
                "policy",
                "65536 rules, replaced under load",
                "rebuild and swap",
                Bound::AtMost(50.0),
            ),
            figure(
                "policy",
                "1000000 rules, replaced under load",
                "rebuild and swap",
                Bound::AtMost(1000.0),
            ),
        ],
    },
    Target {
        figure: "frames lost by these swaps",
        wanted: "0",
        parts: &[
            figure(
                "policy",
                "65536 rules, replaced under load",
                "frames lost",
                Bound::Nothing,
            ),
            figure(
                "policy",
                "1000000 rules, replaced under load",
                "frames lost",
                Bound::Nothing,
            ),
        ],
    },
    Target {
        figure: "allocations per frame after start-up",
        wanted: "0",
        parts: &[Part::Asserted {
            file: "dataplane/tests/no_allocation.rs",
            test: "a_worker_allocates_nothing_after_it_has_started",
        }],
    },
    Target {
        figure: "loss at 70 % of the highest rate, 30 s",
        wanted: "0",
        parts: &[idling(BUSY, "70 % for 30 s", "lost", Bound::Nothing)],
    },
    Target {
        figure: "arrival to TAP, p50 / p99 at half load, busy idling",
        wanted: "15 / 60 µs",
        parts: &[
            idling(BUSY, "50 %", "p50", Bound::AtMost(15.0)),
            idling(BUSY, "50 %", "p99", Bound::AtMost(60.0)),
        ],
    },
    Target {
        figure: "jitter (standard deviation) at half load",
        wanted: "50 µs",
        parts: &[idling(BUSY, "50 %", "jitter", Bound::AtMost(50.0))],
    },
    Target {
        figure: "a burst of 1,000 frames within 10 ms into an idle, adaptive worker",
        wanted: "0 lost",
        parts: &[Part::Asserted {
            file: "tests/tests/afxdp.rs",
            test: "bursts_into_an_idle_worker",
        }],
    },
    Target {
        figure: "resident memory beyond regions and rules / of the whole process by default",
        wanted: "12 / 50 MiB",
        parts: &[
            figure(
                "drop",
                "10 rules",
                "beyond frame memory",
                Bound::AtMost(12.0),
            ),
            figure("drop", "10 rules", "resident", Bound::AtMost(50.0)),
        ],
    },
    Target {
        figure: "processor share at 100k frames/s, adaptive idling, beyond the kernel's TAP write",
        wanted: "10 %",
        parts: &[idling(
            "adaptive beyond the floor",
            "100000 frames/s",
            "processor",
            Bound::AtMost(10.0),
        )],
    },
    Target {
        figure: "replay at 100k frames/s: 99 % of gaps within",
        wanted: "5 µs",
        parts: &[figure(
            "replay",
            "100000 frames/s",
            "gap error, p99",
            Bound::AtMost(5.0),
        )],
    },
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::report::{self, CPU, tests::report};

    fn target(parts: &'static [Part]) -> Target {
        Target {
            figure: "a figure",
            wanted: "so much",
            parts,
        }
    }

    /// The report of the tests: floor 400 400 300, dataplane 500 800 600, and its ratios 0.8 0.5 0.5.
    const MET: Part = ratio("test", "64 bytes", "floor", "cpu", 0.5);
    const MISSED: Part = ratio("test", "64 bytes", "floor", "cpu", 0.51);
    const COST_MET: Part = figure("test", "64 bytes", "cpu", Bound::AtMost(600.0));
    const COST_MISSED: Part = figure("test", "64 bytes", "cpu", Bound::AtMost(599.0));
    const SPEED_MISSED: Part = figure("test", "64 bytes", "cpu", Bound::AtLeast(601.0));
    const LOST: Part = figure("test", "64 bytes", "lost", Bound::Nothing);
    const ABSENT: Part = figure("test", "1500 bytes", "cpu", Bound::AtMost(1.0));
    const ELSEWHERE: Part = figure("other", "64 bytes", "cpu", Bound::AtMost(1.0));
    const GIVEN: Part = Part::Measured {
        benchmark: "test",
        case: "64 bytes",
        subject: PRODUCT,
        reading: Reading::Figure("cpu"),
        bound: Bound::AtMost(600.0),
        given: "huge pages",
    };

    #[test]
    fn a_target_is_met_when_all_its_parts_are() {
        use Outcome::{Met, Missed, NotMeasured};
        let mut report = report();
        for lost in [0.0, 0.0, 1.0] {
            report.record("64 bytes", PRODUCT, &crate::report::LOSS, lost);
        }
        for (parts, shown, outcome) in [
            (&[MET][..], "0.500", Met),
            (&[MISSED], "0.500", Missed),
            (&[COST_MET, MET], "600.0 / 0.500", Met),
            (&[COST_MISSED], "600.0", Missed),
            (&[SPEED_MISSED], "600.0", Missed),
            // One round is enough to lose.
            (&[LOST], "1.0000", Missed),
            (&[MET, ABSENT], "0.500 / –", NotMeasured),
            (&[ABSENT, MISSED], "– / 0.500", Missed),
            (&[ELSEWHERE], "–", NotMeasured),
            (&[GIVEN], "–", NotMeasured),
            (&[], "", NotMeasured),
        ] {
            let evaluated = target(parts).evaluate(std::slice::from_ref(&report));
            assert_eq!(evaluated, (shown.to_owned(), outcome), "{parts:?}");
        }
        report.note("frame memory: huge pages");
        let found = target(&[GIVEN]).evaluate(&[report.clone()]);
        assert_eq!(found.1, Met);
        // What was built without optimisation proves nothing.
        report.machine.unoptimised = true;
        assert_eq!(target(&[MET]).evaluate(&[report]).1, NotMeasured);
        assert_eq!(CPU.name, "cpu");
    }

    fn repository() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    #[test]
    fn tests_that_are_named_are_there() {
        for part in TARGETS.iter().flat_map(|target| target.parts) {
            if let Part::Asserted { file, test } = part {
                let text = std::fs::read_to_string(repository().join(file)).expect(file);
                assert!(text.contains(&format!("fn {test}()")), "{file}: {test}");
            }
        }
    }

    /// A case or subject that was renamed would turn a figure into "not measured".
    #[test]
    fn figures_that_are_named_are_in_the_reports_that_are_kept() {
        let folder = repository().join("docs/benchmarks");
        let reports = report::read(&folder).unwrap_or_default();
        for target in TARGETS {
            for part in target.parts {
                let Part::Measured {
                    benchmark, given, ..
                } = part
                else {
                    continue;
                };
                let kept = reports.iter().any(|r| r.benchmark == *benchmark);
                if kept && given.is_empty() {
                    let found = part.evaluate(&reports);
                    assert!(found.is_some(), "{}: {}", target.figure, part.source());
                }
            }
        }
    }
}
