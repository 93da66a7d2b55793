//! The control plane of the dataplane: it reads the configuration, owns interfaces, BPF programs and
//! privileges, composes the engine and answers on the control socket.

pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
mod directory;
pub mod doctor;
pub mod kernel;
pub mod link;
pub mod ports;
pub mod privilege;
pub mod stats;
