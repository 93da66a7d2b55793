//! The guest's network cards: pairs at the two ends of a line within QEMU, so that one card of a pair receives what
//! the other sends and nothing else. The guest knows them by their addresses; `unplug` and `plug` know their names.

use std::{
    fs,
    process::{Command, Stdio},
};

use nix::unistd::geteuid;
use serde_json::{Value, json};

/// What a card is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Model {
    /// virtio-net with so many pairs of queues.
    Virtio(u32),
    /// Intel 82576, in hardware the card of the igb driver.
    Igb,
}

/// What is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// A hub of this number, with one other card. It holds frames back while their receiver has no room.
    Hub(u8),
    /// A TAP of the host on a bridge, in a network namespace of QEMU's own: the one back end with several queues.
    Tap,
}

/// A network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Card {
    /// Its name, which becomes its interface's name in tests.
    pub(crate) name: &'static str,
    model: Model,
    line: Line,
    /// The last byte of its address, 52:54:00:00:00:xx.
    address: u8,
}

const fn card(name: &'static str, model: Model, line: Line, address: u8) -> Card {
    Card {
        name,
        model,
        line,
        address,
    }
}

/// The lines: two of virtio-net, one from virtio-net to igb, one with four queues at both ends. `gen*` is where tests
/// send from. tests/src/guest/card.rs has the same addresses.
const CARDS: &[Card] = &[
    card("nic0", Model::Virtio(1), Line::Hub(0), 0x10),
    card("gen0", Model::Virtio(1), Line::Hub(0), 0x11),
    card("nic1", Model::Virtio(1), Line::Hub(1), 0x20),
    card("gen1", Model::Virtio(1), Line::Hub(1), 0x21),
    card("igb0", Model::Igb, Line::Hub(2), 0x30),
    card("gen2", Model::Virtio(1), Line::Hub(2), 0x31),
    card("nic3", Model::Virtio(4), Line::Tap, 0x40),
    card("gen3", Model::Virtio(4), Line::Tap, 0x41),
];

/// The cards of a guest, and the program that starts QEMU where they have their other ends.
pub(crate) struct Lab {
    /// The cards.
    pub(crate) cards: Vec<Card>,
    /// What comes before QEMU on the command line.
    pub(crate) wrapper: Vec<&'static str>,
    /// Why cards are missing.
    pub(crate) missing: Option<String>,
}

impl Lab {
    /// All cards that this machine can connect.
    pub(crate) fn all() -> Self {
        match namespace() {
            Ok(wrapper) => Self {
                cards: CARDS.to_vec(),
                wrapper,
                missing: None,
            },
            Err(why) => Self {
                cards: CARDS
                    .iter()
                    .copied()
                    .filter(|card| card.line != Line::Tap)
                    .collect(),
                wrapper: Vec::new(),
                missing: Some(why),
            },
        }
    }
}

/// How QEMU gets a network namespace of its own, for its TAPs.
fn namespace() -> Result<Vec<&'static str>, String> {
    if let Err(e) = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
    {
        return Err(format!("/dev/net/tun: {e}"));
    }
    let wrapper = match geteuid().is_root() {
        true => vec!["unshare", "--net", "--"],
        false => vec!["unshare", "--user", "--map-root-user", "--net", "--"],
    };
    let trial = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg("true")
        .stderr(Stdio::null())
        .status();
    match trial {
        Ok(status) if status.success() => Ok(wrapper),
        _ => Err("no network namespace of one's own (unshare --net)".into()),
    }
}

/// What QEMU runs when it has made a TAP: to the bridge with it, and room for all that a test sends at once. Without
/// IPv6 the namespace itself says nothing.
pub(crate) const TAP_SCRIPT: &str = "#!/bin/sh -e
PATH=/usr/sbin:/usr/bin:/sbin:/bin
for name in default \"$1\"; do
    file=/proc/sys/net/ipv6/conf/$name/disable_ipv6
    [ ! -w $file ] || echo 1 >$file
done
ip link show br0 >/dev/null 2>&1 || ip link add br0 type bridge mcast_snooping 0
ip link set br0 up
ip link set \"$1\" txqueuelen 20000
ip link set \"$1\" master br0 up
";

impl Card {
    /// The back end, as a value of `-netdev`.
    pub(crate) fn netdev(&self, tap_script: &str) -> Value {
        let id = format!("line-{}", self.name);
        match self.line {
            Line::Hub(number) => json!({ "type": "hubport", "id": id, "hubid": number }),
            Line::Tap => json!({
                "type": "tap", "id": id, "ifname": self.name, "queues": self.queues(),
                "script": tap_script, "downscript": "no",
            }),
        }
    }

    fn queues(&self) -> u32 {
        match self.model {
            Model::Virtio(queues) => queues,
            Model::Igb => 1,
        }
    }

    /// Its address.
    pub(crate) fn address(&self) -> String {
        format!("52:54:00:00:00:{:02x}", self.address)
    }

    /// The port that it can be taken out of.
    pub(crate) fn slot(&self, number: usize) -> Value {
        json!({ "driver": "pcie-root-port", "id": format!("slot-{}", self.name), "chassis": number + 1 })
    }

    /// The card, as a value of `-device` and as arguments of `device_add`.
    pub(crate) fn device(&self) -> Value {
        let mut device = json!({
            "id": self.name,
            "bus": format!("slot-{}", self.name),
            "netdev": format!("line-{}", self.name),
            "mac": self.address(),
        });
        let driver = match self.model {
            Model::Igb => "igb",
            Model::Virtio(queues) => {
                // Without a platform's IOMMU in the bargain, virtio-net refuses zero-copy (its buffers would be
                // physical addresses). A legacy device cannot have it.
                device["disable-legacy"] = "on".into();
                device["iommu_platform"] = true.into();
                if queues > 1 {
                    device["mq"] = true.into();
                    device["rss"] = true.into();
                    device["vectors"] = (2 * queues + 2).into();
                }
                "virtio-net-pci"
            }
        };
        device["driver"] = driver.into();
        device
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_lines_are_right() {
        let mut addresses: Vec<u8> = CARDS.iter().map(|card| card.address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), CARDS.len());
        for number in 0..3 {
            let ends = CARDS
                .iter()
                .filter(|card| card.line == Line::Hub(number))
                .count();
            assert_eq!(
                ends, 2,
                "a hub with more ends would send frames where no test expects them"
            );
        }
        let several = CARDS.iter().filter(|card| card.queues() > 1);
        assert!(
            several.clone().count() == 2 && several.into_iter().all(|card| card.line == Line::Tap)
        );
    }
}
