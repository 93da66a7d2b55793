//! Links as the kernel has them: looked up, made, watched, set right and put back, each in the network
//! namespace it lives in.
//!
//! [`netns`] is how work gets into a namespace, [`netlink`] how a link is asked about and changed; the
//! others build on these two. Everything that is made or changed here has an owner that undoes it when it
//! is dropped.

pub mod ethtool;
pub mod ledger;
pub mod listeners;
pub mod monitor;
pub mod netlink;
pub mod netns;
pub mod offloads;
pub mod steering;
pub mod tap;
pub mod udp;

pub use dataplane::port::tap::device::NAME_MAX;
pub use netns::NetNs;
