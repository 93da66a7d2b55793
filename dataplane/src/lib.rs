//! The hot path: frames come from ports, are judged by a policy, and go to ports.
//!
//! # For programs
//!
//! A program that has frames of its own to show makes a device with [`lc`] and writes to it; Suricata,
//! Wireshark and tcpdump listen there as on any interface. [`packet::build`] writes frames, [`packet::parse()`]
//! reads their headers.
//!
//! ```no_run
//! use dataplane::{
//!     lc::Lc,
//!     packet::build::{FrameBuilder, Ipv4},
//! };
//!
//! let mut lc = Lc::create("lc0")?; // CAP_NET_ADMIN; gone when it is dropped
//! let ip = Ipv4::new("10.0.0.1".parse()?, "10.0.0.2".parse()?);
//! for number in 0..1_000_u32 {
//!     let payload = number.to_be_bytes();
//!     let frame = FrameBuilder::new().ipv4(ip).udp(40_000, 53).payload(&payload);
//!     lc.write(&frame.to_vec()?)?;
//! }
//! lc.flush()?;
//! assert_eq!(lc.counters().frames, 1_000);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # For control planes
//!
//! All else that is public is there for whoever sets workers up, as the daemon does: an [`engine`] is started
//! with workers ([`worker::spec`]), each with ports that were opened ([`port`]) and pipelines between them; a
//! policy ([`policy`]) is compiled, published and swapped while they run, and their counters
//! ([`worker::counters`]) are collected. A kind of port can be added from outside by implementing [`port::Port`]
//! over [`frame`] memory.
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
