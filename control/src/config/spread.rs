//! Which core polls what.
//!
//! Queue `q` of every port that is placed by its queues goes to worker `q mod n`, so that a frame that goes
//! from queue `q` of one interface to queue `q` of another stays on its core; a port's `cores` say
//! otherwise. Each (interface, queue) belongs to one worker. Other ports have one descriptor for each
//! worker that writes or reads them. A source with descriptors goes to the least loaded worker that can reach
//! its sinks, or to all of those, if the kernel spreads its flows.

use std::collections::BTreeSet;

use dataplane::frame::MAX_REGIONS;

use super::{
    cores::CoreList,
    plan::{PlannedPipeline, PlannedPort, Problems, Unit, WorkerPipeline},
};
use crate::ports::{Placement, more_queues};

/// A worker's core, units and pipelines.
type Share = (usize, Vec<Unit>, Vec<WorkerPipeline>);

/// Distributes the ports over the cores. Numbers the descriptors of ports that are not placed by queues.
pub(crate) fn spread(
    ports: &mut [PlannedPort],
    pipelines: &[PlannedPipeline],
    cores: &[usize],
    problems: &mut Problems,
) -> Vec<Share> {
    let mut spread = Spread {
        ports,
        pipelines,
        cores,
        workers: vec![BTreeSet::new(); ports.len()],
    };
    spread.place();
    spread.sinks_within_reach(problems);
    let workers = spread.workers;
    for (port, workers) in ports.iter_mut().zip(&workers) {
        if !port.by_queue() {
            port.queues = (0..workers.len() as u32).collect();
        }
    }
    let mut shares = Vec::new();
    let mut idle = Vec::new();
    for (worker, &core) in cores.iter().enumerate() {
        let units = units(ports, &workers, cores, worker);
        if units.is_empty() {
            idle.push(core);
            continue;
        }
        let by_queue = |unit: &&Unit| ports[unit.port].by_queue();
        let regions = units.iter().filter(by_queue).count() + 1;
        // Half of them are left for regions that are still being given back when ports return.
        if regions > MAX_REGIONS / 2 {
            problems.flag(
                "--cores",
                format!(
                    "core {core} would have {} AF_XDP queues, more than the {} that one worker takes; name more cores or fewer queues",
                    regions - 1,
                    MAX_REGIONS / 2 - 1
                ),
            );
        }
        shares.push((core, pipelines_of(&units, pipelines), units));
    }
    if !idle.is_empty() {
        problems.note(format!(
            "nothing is left to poll for {} {}: no worker is started there",
            if idle.len() == 1 { "core" } else { "cores" },
            CoreList(idle)
        ));
    }
    unused_queues(ports, &shares, problems);
    shares
        .into_iter()
        .map(|(core, pipelines, units)| (core, units, pipelines))
        .collect()
}

struct Spread<'a> {
    ports: &'a [PlannedPort],
    pipelines: &'a [PlannedPipeline],
    cores: &'a [usize],
    /// For each port the workers that read it, or write it, or both.
    workers: Vec<BTreeSet<usize>>,
}

/// The worker whose queue this is.
fn home(port: &PlannedPort, cores: &[usize], queue: u32) -> usize {
    match port.kind.placement() {
        Placement::Queues {
            cores: Some(wanted),
            ..
        } => {
            let core = wanted[queue as usize % wanted.len()];
            cores.iter().position(|&c| c == core).unwrap_or(0)
        }
        _ => queue as usize % cores.len().max(1),
    }
}

/// The workers that have a queue of a port that is placed by them.
fn homes(port: &PlannedPort, cores: &[usize]) -> BTreeSet<usize> {
    let queues = port.queues.iter();
    queues.map(|&queue| home(port, cores, queue)).collect()
}

impl Spread<'_> {
    fn by_queue(&self, port: usize) -> bool {
        self.ports[port].by_queue()
    }

    /// Places every source: first those whose place is given, then what they write to, then the rest
    /// one by one.
    fn place(&mut self) {
        for (i, port) in self.ports.iter().enumerate() {
            if self.by_queue(i) && port.source {
                self.workers[i] = homes(port, self.cores);
            }
        }
        loop {
            self.follow();
            let unplaced = |&i: &usize| self.ports[i].source && self.workers[i].is_empty();
            // What has descriptors and is written to gets its place from there: pure sources go first.
            let pure = |&i: &usize| !self.ports[i].sink;
            let mut sources = (0..self.ports.len()).filter(unplaced);
            let next = sources.clone().find(pure).or_else(|| sources.next());
            let Some(source) = next else {
                break;
            };
            let able = self.able(source);
            match self.ports[source].kind.placement() {
                Placement::Spread if !able.is_empty() => self.workers[source].extend(able),
                // With none able, the check of the sinks names the one that is out of reach.
                _ => {
                    let worker = self.least_loaded(able);
                    self.workers[source].insert(worker);
                }
            }
        }
    }

    /// Takes the workers of each pipeline's sources on to its sinks, and from sinks that are sources
    /// as well to their sinks, until nothing changes.
    fn follow(&mut self) {
        loop {
            let before = self.workers.clone();
            for pipeline in self.pipelines {
                let readers: BTreeSet<usize> = pipeline
                    .from
                    .iter()
                    .flat_map(|&from| self.workers[from].iter().copied())
                    .collect();
                for &to in &pipeline.to {
                    // A source with queues has its workers; a sink alone has those that write it.
                    if !(self.by_queue(to) && self.ports[to].source) {
                        self.workers[to].extend(&readers);
                    }
                }
            }
            if self.workers == before {
                return;
            }
        }
    }

    /// The workers that have a queue of each sink of this source that is placed by queues.
    fn able(&self, source: usize) -> BTreeSet<usize> {
        let sinks = self
            .pipelines
            .iter()
            .filter(|pipeline| pipeline.from.contains(&source))
            .flat_map(|pipeline| &pipeline.to)
            .filter(|&&to| self.by_queue(to));
        let mut able: BTreeSet<usize> = (0..self.cores.len()).collect();
        for &sink in sinks {
            let homes = homes(&self.ports[sink], self.cores);
            able = able.intersection(&homes).copied().collect();
        }
        able
    }

    /// The one of these workers that polls the least; the first of all when there are none.
    fn least_loaded(&self, able: BTreeSet<usize>) -> usize {
        let load = |worker: usize| -> usize {
            let sources = self
                .ports
                .iter()
                .enumerate()
                .filter(|(_, port)| port.source);
            sources
                .map(|(i, port)| match port.kind.placement() {
                    Placement::Queues { .. } => {
                        let mine = |queue: &&u32| home(port, self.cores, **queue) == worker;
                        port.queues.iter().filter(mine).count()
                    }
                    _ => usize::from(self.workers[i].contains(&worker)),
                })
                .sum()
        };
        able.into_iter()
            .min_by_key(|&worker| load(worker))
            .unwrap_or(0)
    }

    /// Every worker that writes a port which is placed by its queues needs one of them.
    fn sinks_within_reach(&self, problems: &mut Problems) {
        for (i, pipeline) in self.pipelines.iter().enumerate() {
            let writers: BTreeSet<usize> = pipeline
                .from
                .iter()
                .flat_map(|&from| self.workers[from].iter().copied())
                .collect();
            for (&to, &at) in pipeline.to.iter().zip(&pipeline.to_at) {
                let port = &self.ports[to];
                let Placement::Queues { interface, .. } = port.kind.placement() else {
                    continue;
                };
                let homes = homes(port, self.cores);
                let without: Vec<usize> =
                    writers.difference(&homes).map(|&w| self.cores[w]).collect();
                if without.is_empty() {
                    continue;
                }
                let with: Vec<usize> = homes.iter().map(|&w| self.cores[w]).collect();
                problems.config(
                    at,
                    format!("pipelines[{i}]"),
                    format!(
                        "the {} {} would write to {:?}, whose {} belong to the {} {}, and two workers cannot share a queue; make more queues ({}), or use one worker (--cores {})",
                        workers(&without),
                        CoreList(without.clone()),
                        port.name,
                        match port.queues.len() {
                            1 => "one queue".to_owned(),
                            n => format!("{n} queues"),
                        },
                        workers(&with),
                        CoreList(with.clone()),
                        more_queues(interface, port.kind.netns(), port.link.as_ref(), self.cores.len()),
                        with.first().or(self.cores.first()).copied().unwrap_or(0),
                    ),
                );
            }
        }
    }
}

fn workers(cores: &[usize]) -> &'static str {
    match cores.len() {
        1 => "worker on core",
        _ => "workers on cores",
    }
}

/// What one worker polls and writes.
fn units(
    ports: &[PlannedPort],
    workers: &[BTreeSet<usize>],
    cores: &[usize],
    worker: usize,
) -> Vec<Unit> {
    let mut units = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        if !workers[i].contains(&worker) {
            continue;
        }
        let unit = |queue| Unit {
            port: i,
            queue,
            source: port.source,
            sink: port.sink,
        };
        match port.kind.placement() {
            Placement::Queues { .. } => {
                let mine = port
                    .queues
                    .iter()
                    .filter(|&&queue| home(port, cores, queue) == worker);
                // One queue is enough to transmit; all must be polled.
                let enough = if port.source { usize::MAX } else { 1 };
                units.extend(mine.take(enough).map(|&queue| unit(queue)));
            }
            Placement::Descriptors | Placement::Spread => {
                let number = workers[i]
                    .iter()
                    .take_while(|&&other| other != worker)
                    .count();
                units.push(unit(number as u32));
            }
        }
    }
    units
}

/// The pipelines that have a source on a worker with these units.
fn pipelines_of(units: &[Unit], pipelines: &[PlannedPipeline]) -> Vec<WorkerPipeline> {
    let mut mine = Vec::new();
    for (i, pipeline) in pipelines.iter().enumerate() {
        let sources: Vec<usize> = (0..units.len())
            .filter(|&unit| pipeline.from.contains(&units[unit].port))
            .collect();
        if sources.is_empty() {
            continue;
        }
        let sinks = pipeline
            .to
            .iter()
            .filter_map(|to| units.iter().position(|unit| unit.port == *to));
        mine.push(WorkerPipeline {
            pipeline: i,
            sources,
            sinks: sinks.collect(),
        });
    }
    mine
}

fn unused_queues(
    ports: &[PlannedPort],
    shares: &[(usize, Vec<WorkerPipeline>, Vec<Unit>)],
    problems: &mut Problems,
) {
    for (i, port) in ports.iter().enumerate() {
        if port.source || !port.by_queue() {
            continue;
        }
        let used = |queue: &u32| {
            let mut units = shares.iter().flat_map(|(_, _, units)| units);
            units.any(|unit| unit.port == i && unit.queue == *queue)
        };
        let unused: Vec<usize> = port
            .queues
            .iter()
            .filter(|queue| !used(queue))
            .map(|&queue| queue as usize)
            .collect();
        if !unused.is_empty() {
            problems.note(format!(
                "port {:?} is only written to: its queue(s) {} are not opened, one for each worker is enough",
                port.name,
                CoreList(unused)
            ));
        }
    }
}
