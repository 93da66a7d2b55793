//! Bytes to headers and back: total, allocation-free, bounded.
//!
//! [`parse()`] reads a frame's [`Headers`], [`finish_partial`] finishes a checksum that was left to hardware,
//! [`build`] writes frames.

#[cfg(test)]
mod agreement;
pub mod build;
pub(crate) mod checksum;
#[cfg(test)]
mod described;
mod headers;
mod parse;
mod routes;

pub use checksum::{finish_partial, finish_partial_parts};
pub use headers::{Fault, Fragment, Headers, Network, ethertype, protocol, tcp_flags};
pub use parse::{MAX_EXTENSIONS, MAX_FRAME, MAX_VLAN_TAGS, parse, parse_head};
