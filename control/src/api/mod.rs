//! The control socket: JSON lines over a Unix stream socket, by which `dpctl` and scripts talk to a
//! running daemon.
//!
//! [`protocol`] is what is said, [`socket`] where, [`server`] the daemon's side and [`client`] the
//! other. [`rules`] turns what a person types into rule text, [`render`] answers into tables.

pub mod client;
mod connection;
pub mod protocol;
pub mod render;
pub mod rules;
pub mod server;
pub mod socket;
mod table;
mod units;
