//! Offloads that hide VLAN tags from XDP or merge frames before it: looked at, turned off, put back.
//!
//! A tag that the card has taken out of the frame, or a sender never put in, is not in what XDP sees: to a
//! policy it is another frame. LRO and hardware GRO hand up frames that never were on the wire. The
//! features are named as `ethtool -k` names them (net/ethtool/common.c, `netdev_features_strings`). What is
//! turned off is put on record ([`ledger`]) for as long as it is.

mod findings;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, fs};

pub use findings::{Finding, State, lines};

use super::{
    ethtool::{Ethtool, EthtoolError, Feature},
    ledger::{self, Entry, Ledger, Record, Stale},
    netlink::{Link, Lower, Netlink, NetlinkError},
    netns::{NAMED, NetNs},
};

/// On the port's own interface: (feature, why it must be off).
const OWN: [(&str, &str); 4] = [
    ("rx-vlan-hw-parse", "takes 802.1Q tags out of the frame"),
    (
        "rx-vlan-stag-hw-parse",
        "takes 802.1ad tags out of the frame",
    ),
    ("rx-lro", "merges received frames"),
    ("rx-gro-hw", "merges received frames"),
];
/// Generic XDP runs behind software GRO (net/core/dev.c, `__netif_receive_skb_core`).
const OWN_SKB: [(&str, &str); 2] = [
    ("rx-gro", "merges received frames"),
    ("rx-gro-list", "merges received frames"),
];
/// On a veth's peer: the sender leaves the tag beside the frame.
const PEER: [(&str, &str); 2] = [
    ("tx-vlan-hw-insert", "leaves 802.1Q tags beside the frame"),
    (
        "tx-vlan-stag-hw-insert",
        "leaves 802.1ad tags beside the frame",
    ),
];
/// The same in skb mode, where the kernel does not see to it by itself as it does with native XDP on a veth.
const PEER_SKB: [(&str, &str); 5] = [
    ("tx-tcp-segmentation", "sends frames longer than the MTU"),
    (
        "tx-tcp-ecn-segmentation",
        "sends frames longer than the MTU",
    ),
    (
        "tx-tcp-mangleid-segmentation",
        "sends frames longer than the MTU",
    ),
    ("tx-tcp6-segmentation", "sends frames longer than the MTU"),
    ("tx-udp-segmentation", "sends frames longer than the MTU"),
];

/// What to do about offloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffloadChoice {
    /// Turn off what is in reach, restore it at the end, name the rest.
    Fix,
    /// Only name it.
    Keep,
    /// An error unless all is known to be off.
    Require,
}

/// Why offloads are not as they were asked to be.
#[derive(Debug, thiserror::Error)]
pub enum OffloadError {
    /// The kernel cannot be asked.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Features cannot be read.
    #[error(transparent)]
    Ethtool(#[from] EthtoolError),
    /// There is no such interface.
    #[error("{ns}: interface {interface:?} does not exist; {}ip link lists those that do", ns.shell_prefix())]
    NoInterface {
        /// The namespace.
        ns: NetNs,
        /// The interface.
        interface: String,
    },
    /// `require`, and something is on or cannot be known.
    #[error(
        "{ns}: offloads of {interface} must be off (offloads = \"require\"): {}",
        list(findings)
    )]
    Required {
        /// The namespace.
        ns: NetNs,
        /// The interface.
        interface: String,
        /// What is not known to be off.
        findings: Vec<Finding>,
    },
}

fn list(findings: &[Finding]) -> String {
    lines(findings).join("; ")
}

/// Turned-off offloads of one interface; dropping it turns them on again, if the interface is still there.
/// The privilege to change features (CAP_NET_ADMIN) is needed at that moment, too. The record goes with it,
/// unless they could not be turned on.
#[derive(Debug)]
pub struct OffloadGuard {
    ethtool: Ethtool,
    netlink: Netlink,
    ifindex: u32,
    changed: Vec<String>,
    entry: Option<Entry>,
}

impl OffloadGuard {
    /// The features that will be turned on again.
    pub fn changed(&self) -> &[String] {
        &self.changed
    }
}

impl Drop for OffloadGuard {
    fn drop(&mut self) {
        // By index: the interface may have another name by now, and its name may be another's.
        let undone = match self.netlink.link_by_index(self.ifindex) {
            Ok(Some(link)) => {
                let changed: Vec<&str> = self.changed.iter().map(String::as_str).collect();
                self.ethtool.set(&link.name, &changed, true).is_ok()
            }
            Ok(None) => true,
            Err(_) => false,
        };
        if undone && let Some(entry) = self.entry.take() {
            entry.remove();
        }
    }
}

/// What was found, and what undoes the changes.
#[derive(Debug)]
pub struct Offloads {
    /// One a feature, the own interface first.
    pub findings: Vec<Finding>,
    /// One an interface that was changed.
    pub guards: Vec<OffloadGuard>,
}

impl Offloads {
    /// The findings that a user should read: everything but what was right. [`lines`] makes a log of them.
    pub fn remarkable(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|finding| finding.state != State::Right)
    }
}

/// Brings the offloads of an AF_XDP port's interface, and of its peer if it is a veth, in order. `skb`: XDP
/// runs on socket buffers there.
///
/// # Errors
///
/// When the interface is missing or cannot be asked; with [`OffloadChoice::Require`] when not all is known
/// to be off. What was changed before an error is put back.
pub fn apply(
    ns: &NetNs,
    interface: &str,
    choice: OffloadChoice,
    skb: bool,
) -> Result<Offloads, OffloadError> {
    apply_on_record(&Ledger::system(), ns, interface, choice, skb)
}

fn apply_on_record(
    ledger: &Ledger,
    ns: &NetNs,
    interface: &str,
    choice: OffloadChoice,
    skb: bool,
) -> Result<Offloads, OffloadError> {
    let mut netlink = Netlink::open(ns)?;
    let link = netlink
        .link_by_name(interface)?
        .ok_or_else(|| OffloadError::NoInterface {
            ns: ns.clone(),
            interface: interface.into(),
        })?;
    let mut wanted = OWN.to_vec();
    if skb {
        wanted.extend(OWN_SKB);
    }
    let mut offloads = Offloads {
        findings: Vec::new(),
        guards: Vec::new(),
    };
    let record = (choice == OffloadChoice::Fix).then_some(ledger);
    offloads.interface(ns, &link, &wanted, record)?;
    if link.is_veth() {
        let mut wanted = PEER.to_vec();
        if skb {
            wanted.extend(PEER_SKB);
        }
        match peer(&mut netlink, ns, &link) {
            // In the port's own namespace it is in reach like the port itself.
            Some((peer_ns, peer, same)) => {
                let record = record.filter(|_| same);
                offloads.interface(&peer_ns, &peer, &wanted, record)?;
            }
            None => offloads
                .findings
                .extend(wanted.into_iter().map(|(feature, why)| Finding {
                    interface: format!("peer of {interface}"),
                    feature,
                    why,
                    state: State::OutOfReach,
                    command: Some("ip netns exec NETNS ethtool -K PEER".into()),
                })),
        }
    }
    if choice == OffloadChoice::Require {
        let findings: Vec<Finding> = offloads.remarkable().cloned().collect();
        if !findings.is_empty() {
            return Err(OffloadError::Required {
                ns: ns.clone(),
                interface: interface.into(),
                findings,
            });
        }
    }
    Ok(offloads)
}

impl Offloads {
    /// With `fix`, what is on is turned off, and what a killed run left off is taken over.
    fn interface(
        &mut self,
        ns: &NetNs,
        link: &Link,
        wanted: &[(&'static str, &'static str)],
        fix: Option<&Ledger>,
    ) -> Result<(), OffloadError> {
        let ethtool = Ethtool::open(ns)?;
        let before = ethtool.features(&link.name)?;
        let on: Vec<&'static str> = wanted
            .iter()
            .map(|(feature, _)| *feature)
            .filter(|feature| before.get(*feature).is_some_and(|f| f.active))
            .collect();
        let stale = fix.map_or_else(Vec::new, |ledger| stale(ledger, ns, link));
        let adopted = left_off(&stale, &before);
        let mut after = HashMap::new();
        if let Some(ledger) = fix
            && !(on.is_empty() && adopted.is_empty())
        {
            // On record before it is done: whatever happens in between is known. What the driver will
            // not turn off is seen to be on by whoever reads the record.
            let mut changed: Vec<String> = on.iter().map(|&feature| feature.to_owned()).collect();
            changed.extend(adopted.iter().cloned());
            let mut guard = OffloadGuard {
                ethtool,
                netlink: Netlink::open(ns)?,
                ifindex: link.ifindex,
                entry: Record::new(ns, link, &changed).and_then(|record| ledger.write(&record)),
                // Nothing yet, should the following fail.
                changed: Vec::new(),
            };
            // A refusal of one shows in what is read afterwards.
            let refused = guard.ethtool.set(&link.name, &on, false);
            guard.changed.clone_from(&changed);
            after = guard.ethtool.features(&link.name)?;
            changed.retain(|feature| is_off(&after, feature));
            let nothing = changed.is_empty();
            guard.changed = changed;
            if nothing {
                refused?;
            } else {
                if guard.entry.is_some() {
                    discard(&stale);
                }
                self.guards.push(guard);
            }
        } else {
            // Nothing of what they say is still so.
            discard(&stale);
        }
        for &(feature, why) in wanted {
            let state = if adopted.iter().any(|adopted| adopted == feature) {
                State::Adopted
            } else if !on.contains(&feature) {
                State::Right
            } else if fix.is_none() {
                State::On
            } else if is_off(&after, feature) {
                State::Changed
            } else {
                State::OutOfReach
            };
            let command = matches!(state, State::On | State::OutOfReach)
                .then(|| format!("{}ethtool -K {}", ns.shell_prefix(), link.name));
            self.findings.push(Finding {
                interface: link.name.clone(),
                feature,
                why,
                state,
                command,
            });
        }
        // What the killed run had to turn off and this one has no need to, as it runs in another mode.
        for (feature, why) in [&OWN[..], &OWN_SKB, &PEER, &PEER_SKB].concat() {
            if adopted.iter().any(|adopted| adopted == feature)
                && !wanted.iter().any(|(wanted, _)| *wanted == feature)
            {
                self.findings.push(Finding {
                    interface: link.name.clone(),
                    feature,
                    why,
                    state: State::Adopted,
                    command: None,
                });
            }
        }
        Ok(())
    }
}

/// What killed runs have on record about an interface.
fn stale(ledger: &Ledger, ns: &NetNs, link: &Link) -> Vec<Stale> {
    ledger::inode(ns).map_or_else(Vec::new, |inode| ledger.stale_of(inode, link.ifindex))
}

/// Which of the features on record are still off, each once.
fn left_off(stale: &[Stale], features: &HashMap<String, Feature>) -> Vec<String> {
    let mut left: Vec<String> = Vec::new();
    for feature in stale.iter().flat_map(|stale| &stale.record.features) {
        let off = features.get(feature).is_some_and(|f| !f.active);
        if off && !left.contains(feature) {
            left.push(feature.clone());
        }
    }
    left
}

fn discard(stale: &[Stale]) {
    for stale in stale {
        // One that cannot be removed is read again, and then says what is so no more.
        let _ = ledger::discard(&stale.path);
    }
}

fn is_off(features: &HashMap<String, Feature>, feature: &str) -> bool {
    features.get(feature).is_none_or(|f| !f.active)
}

/// A veth's peer, its namespace, and whether that is the veth's own. `None` when its namespace has no name
/// or may not be entered.
fn peer(netlink: &mut Netlink, ns: &NetNs, link: &Link) -> Option<(NetNs, Link, bool)> {
    let Lower { ifindex, nsid } = link.lower?;
    let Some(nsid) = nsid else {
        let peer = netlink.link_by_index(ifindex).ok()??;
        return Some((ns.clone(), peer, true));
    };
    let named = fs::read_dir(NAMED).ok()?.flatten();
    let there = named
        .filter_map(|entry| NetNs::open(entry.file_name().to_str()?).ok())
        .find(|there| netlink.nsid_of(there).ok().flatten() == Some(nsid))?;
    let peer = Netlink::open(&there).ok()?.link_by_index(ifindex).ok()??;
    Some((there, peer, false))
}
