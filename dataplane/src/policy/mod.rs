//! Which frames may pass. Rules are compiled into a [`Snapshot`], a [`Publisher`] puts it in force, and
//! [`judge()`] answers for a batch of frames.
//!
//! `rule` and `text` are what a person writes, `clause` what it comes to; `exact`, `ranges` and `set`
//! are the tables of a snapshot.

mod clause;
mod exact;
mod judge;
mod prefetch;
mod published;
mod ranges;
mod reason;
mod rule;
mod set;
mod snapshot;
mod text;

#[cfg(test)]
mod tests;

pub use judge::{Verdict, judge};
pub use published::{Publisher, Reader};
pub use reason::Reason;
pub use rule::{IcmpKind, PortRange, Protocol, Rule, RuleError};
pub use snapshot::{CompileError, Mode, OnViolation, PolicySpec, Profile, Snapshot};
pub use text::parse_network;
