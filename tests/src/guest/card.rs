//! The guest's network cards. Each is known by its address, which it has wherever it is and whatever the kernel calls
//! it.

use std::{fs, time::Duration};

use crate::{Netns, process::ip, wait_until};

/// A card, by the name that the machine around the guest has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its name there, and its interface's name here.
    pub name: &'static str,
    /// Its address.
    pub address: &'static str,
}

macro_rules! cards {
    ($($(#[$doc:meta])* $constant:ident = $name:literal, $address:literal;)*) => {
        $($(#[$doc])* pub const $constant: Card = Card { name: $name, address: concat!("52:54:00:00:00:", $address) };)*
    };
}

// tests/vm/src/lab.rs makes them.
cards! {
    /// virtio-net; [`GEN0`] is at the other end.
    NIC0 = "nic0", "10";
    /// Sends to [`NIC0`].
    GEN0 = "gen0", "11";
    /// virtio-net; [`GEN1`] is at the other end.
    NIC1 = "nic1", "20";
    /// Sends to [`NIC1`].
    GEN1 = "gen1", "21";
    /// Intel's; [`GEN2`] is at the other end.
    IGB0 = "igb0", "30";
    /// Sends to [`IGB0`].
    GEN2 = "gen2", "31";
    /// virtio-net with four queues; [`GEN3`] is at the other end.
    NIC3 = "nic3", "40";
    /// Sends to [`NIC3`], on four queues.
    GEN3 = "gen3", "41";
}

/// How long a card may take to appear.
const LIMIT: Duration = Duration::from_secs(30);

impl Card {
    /// Whether it is in the namespace of the test itself.
    pub fn is_here(self) -> bool {
        self.interface().is_some()
    }

    /// What the kernel calls it, where the test itself is.
    fn interface(self) -> Option<String> {
        fs::read_dir("/sys/class/net")
            .ok()?
            .flatten()
            .find_map(|entry| {
                let address = fs::read_to_string(entry.path().join("address")).ok()?;
                (address.trim() == self.address).then(|| entry.file_name().into_string().ok())?
            })
    }

    /// Waits until it is where the test itself is, gives its interface its name, and moves it to a namespace.
    pub fn move_to(self, ns: &Netns) {
        let mut found = None;
        wait_until(LIMIT, || {
            found = self.interface();
            found.is_some()
        });
        let found = found.unwrap_or_else(|| panic!("{self:?} does not appear"));
        if found != self.name {
            ip(&["link", "set", &found, "name", self.name]);
        }
        ip(&["link", "set", self.name, "netns", ns.name()]);
    }

    /// Moves it back from a namespace, if it is there.
    pub fn move_back(self, ns: &Netns) {
        ns.ip_succeeds(&["link", "set", self.name, "netns", "1"]);
    }
}
