//! The control plane of the dataplane: it reads the configuration, owns interfaces, BPF programs and
//! privileges, composes the engine and answers on the control socket.

pub mod api;
pub mod stats;
pub mod config;
pub mod kernel;
pub mod link;
