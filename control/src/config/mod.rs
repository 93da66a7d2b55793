//! Configuration: `dp.toml` -> [`Config`] -> [`Plan`].
//!
//! [`parse`] reads a text strictly and answers every mistake with its line. [`Plan::new`] asks a [`Machine`]
//! what it offers, and says which core polls what and what would be made; the daemon composes itself
//! from it, and `--check` prints it.

mod checks;
mod cores;
mod error;
mod ethtool;
mod file;
mod inspect;
mod machine;
mod model;
mod plan;
mod ports;
mod reader;
mod rules;
mod show;
mod spread;
mod system;
#[cfg(test)]
mod tests;
mod value;

pub use cores::{CoreList, CoreListError};
pub use error::{Class, ConfigError, Position, exit_code};
pub use file::{LARGEST_REGION, load, parse, parse_policy, parse_rule};
pub use machine::{FileFact, Link, LookError, Machine, Peer};
pub use model::{
    AfXdp, Checksums, Config, Control, Engine, HugePages, Idle, Mode, Offloads, OnViolation, Pace,
    Pcap, Pipeline, Policy, Port, PortKind, Profile, Queues, Tap, XdpMode,
};
pub use plan::{Overrides, Plan, PlannedPipeline, PlannedPort, Unit, Worker, WorkerPipeline};
pub use reader::At;
pub use system::SystemMachine;
