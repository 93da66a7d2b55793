//! Traffic generators and benchmarks: what `dpbench` is made of.
//!
//! A subcommand is one module that implements [`session::Benchmark`]: it makes its place ([`lab`]), its traffic
//! ([`generator`]), starts the shipped product ([`product`]) and what it is compared with, in turn, and
//! writes all of it into one [`report`]. [`generator`] serves tests as well.

mod arrivals;
mod capture;
pub mod configuration;
pub mod drop;
pub mod error;
mod far;
pub mod footprint;
pub mod forward;
pub mod generator;
pub mod inline;
mod interface;
pub mod lab;
pub mod latency;
pub mod load;
pub mod measure;
pub mod memory;
pub mod page;
mod peer;
pub mod policy;
pub mod probe;
pub mod product;
pub mod replay;
pub mod report;
pub mod scale;
pub mod search;
pub mod session;
pub mod suite;
pub mod targets;
pub mod vxlan;
mod watch;
