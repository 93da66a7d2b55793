//! Traffic generators and benchmarks: what `dpbench` is made of.
//!
//! [`generator`] makes traffic and serves tests as well; [`lab`] is the place where a benchmark runs;
//! [`forward`] measures frames from AF_XDP to a TAP.

pub mod forward;
pub mod generator;
pub mod lab;
