//! A line between two cards of the guest: one is the dataplane's, frames are sent from the other. Each is in a
//! namespace of its own, and back where it was at the end.

use std::{
    panic,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::{Card, host};
use crate::{Daemon, Netns, send::Sender};

/// Two cards that are each at the other end of the other's line.
pub struct Lane {
    /// Where the dataplane runs.
    pub inside: Netns,
    /// Where the sender is.
    pub outside: Netns,
    /// The dataplane's card.
    pub nic: Card,
    /// The sender's card.
    pub sender: Card,
    unplugged: AtomicBool,
}

impl Lane {
    /// Takes two cards, and sets them up.
    pub fn new(nic: Card, sender: Card) -> Self {
        let lane = Self {
            inside: Netns::new(),
            outside: Netns::new(),
            nic,
            sender,
            unplugged: AtomicBool::new(false),
        };
        lane.raise(&lane.inside, nic);
        lane.raise(&lane.outside, sender);
        // Checksums are in the frames when they leave, for whoever compares bytes.
        lane.outside
            .tool("ethtool")
            .args(["-K", sender.name, "tx", "off", "tso", "off"])
            .output();
        lane
    }

    fn raise(&self, ns: &Netns, card: Card) {
        card.move_to(ns);
        ns.quiet(card.name);
        ns.ip(&["link", "set", card.name, "mtu", "1500"]);
        ns.ip(&["link", "set", card.name, "up"]);
    }

    /// Takes the dataplane's card out of the machine.
    pub fn unplug(&self) {
        self.unplugged.store(true, Ordering::Relaxed);
        host::unplug(self.nic);
    }

    /// Puts it in again, and its interface where it was, with its name.
    pub fn plug(&self) {
        host::plug(self.nic);
        self.unplugged.store(false, Ordering::Relaxed);
        self.raise(&self.inside, self.nic);
    }

    /// A sender on the far card.
    pub fn sender(&self) -> Sender {
        Sender::open(&self.outside, self.sender.name)
    }

    /// A configuration from port `up`, which is the card, to port `lc0`; with more lines for `up` and the lines of a
    /// policy `p`, if any.
    pub fn config(&self, port: &str, policy: Option<&str>) -> String {
        crate::Bench::config(port, policy).replace("\"up0\"", &format!("\"{}\"", self.nic.name))
    }

    /// A daemon with that configuration.
    pub fn start(&self, port: &str, policy: Option<&str>) -> Daemon {
        Daemon::start(&self.inside, &self.config(port, policy))
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if thread::panicking() {
            // A test that failed leaves the cards of the next one where they belong.
            let back = panic::catch_unwind(panic::AssertUnwindSafe(|| {
                if self.unplugged.load(Ordering::Relaxed) {
                    host::plug(self.nic);
                }
                host::cable(self.nic, true);
            }));
            drop(back);
        }
        self.nic.move_back(&self.inside);
        self.sender.move_back(&self.outside);
    }
}
