//! Bytes to headers and back: total, allocation-free, bounded.

mod headers;

pub use headers::{Fault, Fragment, Headers, Network, ethertype, protocol, tcp_flags};
