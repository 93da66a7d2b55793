//! Where something was measured.

use std::{fmt, fs};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::lab::Cores;

/// Where it was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor.
    pub cpu: String,
    /// The kernel.
    pub kernel: String,
    /// The commit that was built, and whether files had been changed since.
    pub commit: String,
    /// When, in UTC.
    #[serde(default)]
    pub date: String,
    /// Whether it was built without optimisation, so that only ratios within a report say anything.
    #[serde(default)]
    pub unoptimised: bool,
    /// Core of the generator.
    pub generator_core: usize,
    /// Core of what was measured.
    pub worker_core: usize,
    /// Other work on the machine: the load averages before and after.
    pub load: [String; 2],
}

impl Machine {
    /// The one this runs on.
    pub(super) fn this(cores: Cores) -> Self {
        Self {
            cpu: cpu(),
            kernel: read("/proc/sys/kernel/osrelease"),
            commit: env!("DPBENCH_COMMIT").into(),
            date: Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            unoptimised: cfg!(debug_assertions),
            generator_core: cores.generator,
            worker_core: cores.worker,
            load: [load(), String::new()],
        }
    }

    pub(super) fn end(&mut self) {
        self.load[1] = load();
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, Linux {}, commit {}, {}\ngenerator on core {}, worker on core {}; load average {} before, {} after",
            self.cpu,
            self.kernel,
            self.commit,
            self.date,
            self.generator_core,
            self.worker_core,
            self.load[0],
            self.load[1],
        )
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
