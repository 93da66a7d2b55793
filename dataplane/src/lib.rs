//! The hot path: frames come from ports, are judged by a policy, and go to ports.
//!
//! The crate is handed opened resources and compiled snapshots. It knows no configuration file, no
//! netlink and no terminal, and after start-up its workers allocate, lock, log and format nothing.
//!
//! Read it in the order a frame travels: [`port`] receives it into a slot of a [`frame`] region,
//! [`packet`] reads its headers, [`policy`] judges them, and a port writes it. [`worker`] is the loop
//! that does this on one core, [`engine`] the set of workers as a control plane sees it.

#![deny(unsafe_code)]
#[cfg(not(target_os = "linux"))]
compile_error!("dataplane runs on Linux only: use a Linux VM, Docker or WSL2");

pub mod engine;
pub mod frame;
pub mod lc;
pub mod packet;
pub mod policy;
pub mod port;
pub mod worker;
