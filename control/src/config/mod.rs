//! Configuration: `dp.toml` -> [`Config`] -> plan.
//!
//! [`parse`] reads a text strictly and answers every mistake with its line. The plan asks the machine
//! what it offers, and says which core polls what and what would be made; the daemon composes itself
//! from it, and `--check` prints it.

mod cores;
mod error;
mod file;
mod model;
mod ports;
mod reader;
mod rules;

pub use cores::{CoreList, CoreListError};
pub use error::{Class, ConfigError, Position, exit_code};
pub use file::{LARGEST_REGION, load, parse, parse_policy, parse_rule};
pub use model::{
    AfXdp, Checksums, Config, Control, Engine, HugePages, Idle, Mode, Offloads, OnViolation, Pace,
    Pcap, Pipeline, Policy, Port, PortKind, Profile, Queues, Tap, XdpMode,
};
pub use reader::At;
