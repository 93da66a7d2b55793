//! The plan: a configuration set against what the machine offers. It says which core polls what, what
//! would be made and how much memory it takes; making it changes nothing. The daemon is composed from
//! it, and `--check` prints it.

use super::{
    checks,
    cores::CoreList,
    error::{Class, ConfigError, Position},
    inspect,
    machine::{Link, Machine},
    model::{Config, Engine, HugePages, Idle, Policy},
    spread,
};
use crate::ports::{Placement, PortKind};

/// What the command line sets over the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--cores`.
    pub cores: Option<CoreList>,
}

/// A whole plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The workers that are started, those without anything to poll left out.
    pub workers: Vec<Worker>,
    /// The ports that pipelines use, in the order of the file.
    pub ports: Vec<PlannedPort>,
    /// The pipelines, in the order of the file.
    pub pipelines: Vec<PlannedPipeline>,
    /// Slots of each region, be it a queue's own or a worker's.
    pub slots: u32,
    /// Whether the file says how many; otherwise fewer will do where locked memory is short.
    pub slots_set: bool,
    /// Bytes of a slot of a queue's own region.
    pub slot_size: u32,
    /// What the regions' memory is to be.
    pub hugepages: HugePages,
    /// What a worker does when there is nothing to do.
    pub idle: Idle,
    /// The most frames that are handled at a time.
    pub batch: u16,
    /// Whether every source ends by itself, and with it the run.
    pub finite: bool,
    /// What the user should know although it stops nothing; one line each.
    pub notes: Vec<String>,
}

/// One worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// The core that it is pinned to.
    pub core: usize,
    /// The core's NUMA node, where there are nodes.
    pub node: Option<usize>,
    /// What it polls and writes.
    pub units: Vec<Unit>,
    /// The pipelines that run on it.
    pub pipelines: Vec<WorkerPipeline>,
    /// Bytes of a slot of the worker's own region; `None` when all its sources are queues
    /// with regions of their own.
    pub own_slot_size: Option<u32>,
}

/// A port, or one queue of it, on one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Index into [`Plan::ports`].
    pub port: usize,
    /// The interface's queue, or the number of the port's descriptor, by [`Placement`].
    pub queue: u32,
    /// Whether it is polled.
    pub source: bool,
    /// Whether it is written to.
    pub sink: bool,
}

/// A pipeline as one worker runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerPipeline {
    /// Index into [`Plan::pipelines`].
    pub pipeline: usize,
    /// Indices into the worker's [`units`](Worker::units).
    pub sources: Vec<usize>,
    /// Indices into the worker's [`units`](Worker::units): one for each sink, in the order of the file.
    pub sinks: Vec<usize>,
}

/// A port that is used.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedPort {
    /// Its name.
    pub name: String,
    /// Where it stands in the file.
    pub at: Position,
    /// What it is, as configured.
    pub kind: PortKind,
    /// Whether a pipeline comes from it.
    pub source: bool,
    /// Whether a pipeline goes to it.
    pub sink: bool,
    /// The queues of a port that is placed by them, ascending; of another as many numbers as it has
    /// descriptors.
    pub queues: Vec<u32>,
    /// The interface that frames come from, where it is there already and could be looked at.
    pub link: Option<Link>,
    /// The MTU of the path that frames take to a far end, where there is one: bytes of an IP packet.
    pub path_mtu: Option<u32>,
    /// The interface that packets to a far end leave by, where it could be told.
    pub leaves_by: Option<String>,
}

impl PlannedPort {
    /// Whether the host is kept from answering on this port's device: as configured, else unless the
    /// port is a source.
    pub fn passive(&self) -> bool {
        self.kind.passive(self.source)
    }

    /// Whether each of its queues has a region of its own and belongs to one worker.
    pub(crate) fn by_queue(&self) -> bool {
        matches!(self.kind.placement(), Placement::Queues { .. })
    }
}

/// A pipeline with its names resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedPipeline {
    /// Its sources, indices into [`Plan::ports`].
    pub from: Vec<usize>,
    /// Its policy; without one everything is forwarded.
    pub policy: Option<Policy>,
    /// Its sinks, indices into [`Plan::ports`].
    pub to: Vec<usize>,
    /// Where its sinks are named in the file, in the same order.
    pub(crate) to_at: Vec<Position>,
    /// Where it stands in the file.
    pub at: Position,
}

impl Plan {
    /// Sets a configuration against a machine.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, as far as it can be told at once; see
    /// [`exit_code`](super::exit_code).
    pub fn new(
        config: &Config,
        overrides: &Overrides,
        machine: &dyn Machine,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut problems = Problems::new(&config.file);
        let (mut ports, pipelines) = checks::resolve(config, &mut problems);
        let cores = checks::cores(config, overrides, machine, &mut problems);
        inspect::ports(&mut ports, machine, &mut problems);
        inspect::veth_loops(&ports, &pipelines, machine, &mut problems);
        let slot_size = config.engine.slot_size;
        inspect::cautions(&ports, &pipelines, slot_size, &cores, &mut problems);
        let own_slot_size = own_slot_size(&config.engine, &ports, &mut problems);
        if !problems.errors.is_empty() {
            return Err(problems.into_errors());
        }
        let workers = spread::spread(&mut ports, &pipelines, &cores, &mut problems);
        if !problems.errors.is_empty() {
            return Err(problems.into_errors());
        }
        let workers = workers
            .into_iter()
            .map(|(core, units, pipelines)| Worker {
                core,
                node: machine.node(core),
                own_slot_size: units
                    .iter()
                    .any(|unit| unit.source && !ports[unit.port].by_queue())
                    .then_some(own_slot_size),
                units,
                pipelines,
            })
            .collect();
        let finite = ports
            .iter()
            .filter(|port| port.source)
            .all(|port| port.kind.ends());
        Ok(Self {
            workers,
            ports,
            pipelines,
            slots: *config.engine.slots,
            slots_set: config.engine.slots.at != Position::default(),
            slot_size: config.engine.slot_size,
            hugepages: config.engine.hugepages,
            idle: config.engine.idle,
            batch: config.engine.batch,
            finite,
            notes: problems.notes,
        })
    }

    /// Bytes of frame memory of one worker: one region for each queue that has its own, and the worker's.
    pub fn memory(&self, worker: &Worker) -> u64 {
        let slots = u64::from(self.slots);
        let queues = self.umems(worker) as u64;
        slots * u64::from(self.slot_size) * queues
            + worker
                .own_slot_size
                .map_or(0, |size| slots * u64::from(size))
    }

    /// Whether a worker's own region is part of the memory of its queues: one of them transmits, and its slots
    /// have the same size, so that what comes into it is transmitted without a copy.
    pub(crate) fn own_region_is_shared(&self, worker: &Worker) -> bool {
        let transmits = |unit: &Unit| unit.sink && self.ports[unit.port].by_queue();
        worker.own_slot_size == Some(self.slot_size) && worker.units.iter().any(transmits)
    }

    /// How many queues a worker has, each with a region of its own.
    pub fn umems(&self, worker: &Worker) -> usize {
        let by_queue = |unit: &&Unit| self.ports[unit.port].by_queue();
        worker.units.iter().filter(by_queue).count()
    }
}

/// Where a frame begins in a slot of a worker's own region: room for headers to be put before it.
pub const HEADROOM: u32 = 64;

/// Bytes of a slot in a worker's own region: the largest frame of its ports and the headroom, at least
/// `slot_size`.
fn own_slot_size(engine: &Engine, ports: &[PlannedPort], problems: &mut Problems) -> u32 {
    let mut size = engine.slot_size;
    // Of a played capture nobody knows what is in it; what has queues of its own brings its own memory.
    let unknown = |p: &PlannedPort| p.source && !p.by_queue() && p.kind.largest_frame(p).is_none();
    let guess = ports.iter().any(unknown);
    for port in ports {
        let frame = port.kind.largest_frame(port);
        let Some(frame) = frame.filter(|frame| guess || !frame.guessed) else {
            continue;
        };
        let wanted = (HEADROOM + frame.bytes).next_multiple_of(64);
        let bytes = u64::from(wanted) * u64::from(*engine.slots);
        if bytes > super::LARGEST_REGION {
            problems.config(
                frame.at,
                format!("ports.{}", port.name),
                format!(
                    "{key} {} makes slots of {wanted} bytes, {} of them more than 1 GiB; set slots = {} or a smaller {key}",
                    frame.value,
                    *engine.slots,
                    super::LARGEST_REGION / u64::from(wanted),
                    key = frame.key,
                ),
            );
        }
        size = size.max(wanted);
    }
    size
}

/// Errors and notes as they are found.
#[derive(Debug)]
pub(crate) struct Problems {
    file: String,
    pub(crate) errors: Vec<ConfigError>,
    pub(crate) notes: Vec<String>,
}

impl Problems {
    pub(crate) fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            errors: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The file is wrong.
    pub(crate) fn config(&mut self, at: Position, context: String, message: String) {
        self.push(at, context, message, Class::Config);
    }

    /// The machine refuses.
    pub(crate) fn machine(&mut self, at: Position, context: String, message: String) {
        self.push(at, context, message, Class::Machine);
    }

    /// A flag asks for what the machine has not.
    pub(crate) fn flag(&mut self, flag: &str, message: String) {
        self.errors.push(ConfigError {
            file: flag.to_owned(),
            line: 0,
            column: 0,
            context: String::new(),
            message,
            class: Class::Machine,
        });
    }

    /// Whether there is an error at this place.
    pub(crate) fn is_told_of(&self, at: Position) -> bool {
        let mut errors = self.errors.iter();
        errors.any(|error| (error.line, error.column) == (at.line, at.column))
    }

    fn push(&mut self, at: Position, context: String, message: String, class: Class) {
        self.errors.push(ConfigError {
            file: self.file.clone(),
            line: at.line,
            column: at.column,
            context,
            message,
            class,
        });
    }

    pub(crate) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn into_errors(mut self) -> Vec<ConfigError> {
        self.errors.sort_by_key(|error| (error.line, error.column));
        self.errors
    }
}
