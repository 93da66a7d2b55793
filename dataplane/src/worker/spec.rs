//! What a worker is made of, as the control plane hands it over.

use crate::{
    frame::{Arena, HugePages},
    policy::Reader,
    port::{Port, PortIndex},
};

/// What a worker does when there is nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// Spins briefly, then sleeps in its ring.
    #[default]
    Adaptive,
    /// Never sleeps.
    Busy,
}

/// The region that every source without one of its own receives into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnRegion {
    /// How many slots.
    pub slots: u32,
    /// Bytes from one slot to the next.
    pub slot_size: usize,
    /// Where a frame begins within its slot.
    pub headroom: usize,
    /// What memory to take.
    pub hugepages: HugePages,
    /// Whether fewer slots will do where the limit of locked memory refuses these.
    pub shrink: bool,
}

/// One worker.
pub struct WorkerSpec {
    /// The core that its thread is pinned to.
    pub core: usize,
    /// Frames taken from a source at a time.
    pub batch: usize,
    /// What it does when idle.
    pub idle: Idle,
    /// Its own region, if one of its sources needs it.
    pub own: Option<OwnRegion>,
    /// Memory of which its own region is to be the first part, so that AF_XDP ports over other parts transmit
    /// its frames without a copy. Without it, or where it has slots of another size, the region has memory
    /// of its own.
    pub arena: Option<Arena>,
    /// How many frames of one sink may be staged or in the kernel.
    pub sink_cap: usize,
    /// Its ports; their place here is their [`PortIndex`]. `None` is a port whose link is down.
    pub ports: Vec<Option<Box<dyn Port>>>,
    /// Its pipelines.
    pub pipelines: Vec<PipelineSpec>,
}

/// One pipeline on one worker.
pub struct PipelineSpec {
    /// Where frames come from.
    pub sources: Vec<SourceSpec>,
    /// What judges them; without one all are forwarded.
    pub policy: Option<Reader>,
    /// Where they go.
    pub sinks: Vec<PortIndex>,
}

/// One source of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceSpec {
    /// Which port.
    pub port: PortIndex,
    /// Whether checksums that the sender left to its device are finished.
    pub finish_checksums: bool,
    /// Whether its frames can wait until its sinks have room for them, as those in a file can. Frames of
    /// other sources come whether there is room or not.
    pub patient: bool,
}
