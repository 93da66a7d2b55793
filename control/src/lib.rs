//! The control plane of the dataplane: it reads the configuration, owns interfaces, BPF programs and
//! privileges, composes the engine and answers on the control socket.

#[cfg(not(target_os = "linux"))]
compile_error!("dataplane runs on Linux only: use a Linux VM, Docker or WSL2");

pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
mod directory;
pub mod doctor;
pub mod kernel;
pub mod link;
pub mod log;
pub mod oneline;
pub mod ports;
pub mod privilege;
pub mod stats;
