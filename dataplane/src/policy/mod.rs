//! Which frames may pass: rules, their compiled snapshot, and the verdict.

mod reason;
mod rule;

pub use reason::Reason;
pub use rule::{IcmpKind, PortRange, Protocol, Rule};
