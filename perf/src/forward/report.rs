//! What was measured, as a table for people and as JSON for machines.

use std::{fmt, fs};

use serde::Serialize;

use super::{Measured, Options};

/// One round: the three measured one after the other.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Round {
    /// The TAP's own cost.
    pub floor: Measured,
    /// The best bare loop.
    pub bare: Measured,
    /// The product.
    pub forward: Measured,
    /// Frames that the generator poured into the product's interface.
    pub offered: u64,
}

/// Median, least and most of some rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of at least one number; NaN of none.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        if n == 0 {
            return Self {
                median: f64::NAN,
                min: f64::NAN,
                max: f64::NAN,
            };
        }
        Self {
            median: (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0,
            min: sorted[0],
            max: sorted[n - 1],
        }
    }
}

/// All rounds with frames of one size.
#[derive(Clone, Debug, Serialize)]
pub struct SizeReport {
    /// Bytes of a frame, without the check sequence.
    pub size: usize,
    /// Processor time per frame, in nanoseconds.
    pub floor_ns: Spread,
    /// The same of the bare loop.
    pub bare_ns: Spread,
    /// The same of the product's worker.
    pub forward_ns: Spread,
    /// The TAP floor's time as a share of the product's: 1 would be a product that costs nothing.
    pub forward_over_floor: Spread,
    /// The bare loop's time as a share of the product's.
    pub forward_over_bare: Spread,
    /// The share of the generator's frames that were not forwarded: it pours in more than can be.
    pub lost: Spread,
    /// What they come from.
    pub rounds: Vec<Round>,
}

impl SizeReport {
    /// Each ratio is taken within a round, then the median over rounds.
    pub fn of(size: usize, rounds: Vec<Round>) -> Self {
        let spread = |of: fn(&Round) -> f64| Spread::of(rounds.iter().map(of));
        Self {
            size,
            floor_ns: spread(|r| r.floor.ns_per_frame()),
            bare_ns: spread(|r| r.bare.ns_per_frame()),
            forward_ns: spread(|r| r.forward.ns_per_frame()),
            forward_over_floor: spread(|r| r.floor.ns_per_frame() / r.forward.ns_per_frame()),
            forward_over_bare: spread(|r| r.bare.ns_per_frame() / r.forward.ns_per_frame()),
            lost: spread(|r| 1.0 - r.forward.frames as f64 / r.offered as f64),
            rounds,
        }
    }
}

/// Where it was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor.
    pub cpu: String,
    /// The kernel.
    pub kernel: String,
    /// Other work on the machine: the load averages before and after.
    pub load: [String; 2],
}

/// One run of `dpbench forward`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of this shape.
    pub version: u32,
    /// `forward`.
    pub benchmark: &'static str,
    /// Where.
    pub machine: Machine,
    /// Core of the generator.
    pub generator_core: usize,
    /// Core of what was measured.
    pub worker_core: usize,
    /// What memory was asked for.
    pub hugepages: super::HugePages,
    /// What memory the product had.
    pub backing: String,
    /// Frames that each bare loop wrote in a round.
    pub frames: u64,
    /// The results.
    pub sizes: Vec<SizeReport>,
}

impl Report {
    pub(super) fn begin(options: &Options) -> Self {
        Self {
            version: 1,
            benchmark: "forward",
            machine: Machine {
                cpu: cpu(),
                kernel: read("/proc/sys/kernel/osrelease"),
                load: [load(), String::new()],
            },
            generator_core: options.cores.generator,
            worker_core: options.cores.worker,
            hugepages: options.hugepages,
            backing: String::new(),
            frames: options.frames,
            sizes: Vec::new(),
        }
    }

    pub(super) fn end(&mut self) {
        self.machine.load[1] = load();
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

fn cpu() -> String {
    let info = read("/proc/cpuinfo");
    info.lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or_else(|| "unknown processor".into(), |(_, name)| name.to_owned())
}

/// The averages over 1, 5 and 15 minutes.
fn load() -> String {
    read("/proc/loadavg")
        .split(' ')
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "AF_XDP -> policy of 10 rules -> TAP: processor time per frame, median (least - most)\n\
             {}, Linux {}, {}\n\
             generator on core {}, worker on core {}; load average {} before, {} after\n",
            self.machine.cpu,
            self.machine.kernel,
            self.backing,
            self.generator_core,
            self.worker_core,
            self.machine.load[0],
            self.machine.load[1],
        )?;
        writeln!(
            f,
            "{:>5}  {:<10} {:>8}  {:<17} {:>9}",
            "bytes", "", "ns/frame", "", "Mframes/s"
        )?;
        for size in &self.sizes {
            let rate = |of: fn(&Round) -> &Measured| {
                Spread::of(size.rounds.iter().map(|r| of(r).rate())).median / 1e6
            };
            let rows = [
                ("TAP floor", size.floor_ns, rate(|r| &r.floor)),
                ("bare loop", size.bare_ns, rate(|r| &r.bare)),
                ("dataplane", size.forward_ns, rate(|r| &r.forward)),
            ];
            for (number, (name, ns, rate)) in rows.into_iter().enumerate() {
                let bytes = if number == 0 {
                    size.size.to_string()
                } else {
                    String::new()
                };
                let range = format!("({:.1} - {:.1})", ns.min, ns.max);
                writeln!(
                    f,
                    "{bytes:>5}  {name:<10} {:>8.1}  {range:<17} {rate:>9.2}",
                    ns.median
                )?;
            }
        }
        writeln!(
            f,
            "\n{:>5}  {:<25} {:<25} not forwarded",
            "bytes", "dataplane / TAP floor", "dataplane / bare loop"
        )?;
        for size in &self.sizes {
            let ratio = |s: Spread| format!("{:.3} ({:.3} - {:.3})", s.median, s.min, s.max);
            writeln!(
                f,
                "{:>5}  {:<25} {:<25} {:.0} % of what was poured in",
                size.size,
                ratio(size.forward_over_floor),
                ratio(size.forward_over_bare),
                size.lost.median * 100.0
            )?;
        }
        write!(
            f,
            "\nRatios are of speeds, within one round: 1.000 is as fast. The generator always pours in more than a \
             TAP takes."
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_spread_orders_its_numbers() {
        for (numbers, median, min, max) in [
            (vec![3.0], 3.0, 3.0, 3.0),
            (vec![3.0, 1.0], 2.0, 1.0, 3.0),
            (vec![9.0, 1.0, 2.0], 2.0, 1.0, 9.0),
        ] {
            assert_eq!(Spread::of(numbers), Spread { median, min, max });
        }
        assert!(Spread::of([]).median.is_nan());
    }

    #[test]
    fn ratios_are_of_speeds() {
        let measured = |ns| Measured {
            frames: 1000,
            cpu: Duration::from_micros(ns),
            elapsed: Duration::from_micros(ns),
        };
        let report = SizeReport::of(
            64,
            vec![Round {
                floor: measured(400),
                bare: measured(450),
                forward: measured(500),
                offered: 4000,
            }],
        );
        assert_eq!(report.forward_ns.median, 500.0);
        assert_eq!(report.forward_over_floor.median, 0.8);
        assert_eq!(report.forward_over_bare.median, 0.9);
        assert_eq!(report.lost.median, 0.75);
    }
}
