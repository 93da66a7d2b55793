//! The control plane of the dataplane: it reads the configuration, owns interfaces, BPF programs and
//! privileges, composes the engine and answers on the control socket.

pub mod api;
pub mod stats;
pub mod config;
pub mod kernel;
pub mod link;
pub mod privilege;
pub mod stats;
pub mod cli;
pub mod config;

#[cfg(not(target_os = "linux"))]
compile_error!(
    "dataplane stands on AF_XDP, io_uring and TAP devices, which only Linux has: build and run it in a \
     Linux virtual machine, in Docker (with --privileged) or in WSL2"
);
