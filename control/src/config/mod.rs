//! Configuration: `dp.toml` -> [`Config`] -> [`Plan`].
//!
//! [`parse`] reads a text strictly and answers every mistake with its line. [`Plan::new`] asks a [`Machine`]
//! what it offers, and says which core polls what and what would be made; the daemon composes itself
//! from it, and `--check` prints it.

mod checks;
mod choice;
mod claims;
mod cores;
mod error;
mod file;
mod inspect;
mod machine;
mod model;
mod plan;
mod reader;
mod rules;
mod show;
mod spread;
mod system;
#[cfg(test)]
pub(crate) mod tests;
mod units;
mod value;

pub use cores::{CoreList, CoreListError};
pub use error::{Class, ConfigError, Position, exit_code};
pub use file::{LARGEST_REGION, load, parse, parse_policy, parse_rule};
pub use inspect::Site;
pub use machine::{FileFact, Link, LookError, Machine, Peer, Way};
pub use model::{
    Config, Control, Engine, HugePages, Idle, Mode, OnViolation, Pipeline, Policy, Port, Profile,
};
pub use plan::{
    HEADROOM, Overrides, Plan, PlannedPipeline, PlannedPort, Unit, Worker, WorkerPipeline,
};
pub use reader::At;
pub use system::SystemMachine;
pub use units::Size;
pub(crate) use {
    choice::choice, error::hint, file::is_plain, reader::Reader, rules::Text as RuleText,
    units::time_text, value::Value,
};
