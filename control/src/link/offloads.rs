//! Offloads that hide VLAN tags from XDP or merge frames before it: looked at, turned off, put back.
//!
//! A tag that the card has taken out of the frame, or a sender never put in, is not in what XDP sees: to a
//! policy it is another frame. LRO and hardware GRO hand up frames that never were on the wire. The
//! features are named as `ethtool -k` names them (net/ethtool/common.c, `netdev_features_strings`).

use std::{collections::HashMap, fmt, fs};

use super::{
    ethtool::{Ethtool, EthtoolError, Feature},
    netlink::{Link, Lower, Netlink, NetlinkError},
    netns::NetNs,
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
/// Where `ip netns add` keeps its namespaces.
const NAMED: &str = "/run/netns";

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

/// How an offload stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was off already.
    Right,
    /// It was on and is now off; the guard puts it back.
    Changed,
    /// It is on, and was left so.
    On,
    /// It is on and could not be turned off, or cannot be looked at.
    OutOfReach,
}

/// What was found about one offload of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The interface that has it: the port's own, or a veth's peer.
    pub interface: String,
    /// As `ethtool -k` names it.
    pub feature: &'static str,
    /// What it does to frames.
    pub why: &'static str,
    /// How it stands.
    pub state: State,
    /// The command that turns it off, without `FEATURE off` at its end; where that is left to the user.
    pub command: Option<String>,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Right => "off",
            Self::Changed => "turned off",
            Self::On => "left on",
            Self::OutOfReach => "out of reach",
        })
    }
}

/// One line for all findings of an interface in the same state: what, why, and the one command that is left
/// to run. In the order of the findings.
pub fn lines<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Vec<String> {
    let mut groups: Vec<Vec<&Finding>> = Vec::new();
    for finding in findings {
        let group = groups
            .iter_mut()
            .find(|g| g[0].interface == finding.interface && g[0].state == finding.state);
        match group {
            Some(group) => group.push(finding),
            None => groups.push(vec![finding]),
        }
    }
    groups
        .iter()
        .map(|group| {
            let mut features = Vec::new();
            for finding in group {
                features.push(format!("{} ({})", finding.feature, finding.why));
            }
            let first = group[0];
            let mut line = format!(
                "{}: {}: {}",
                first.interface,
                first.state,
                features.join(", ")
            );
            if let Some(command) = &first.command {
                line += &format!("; run: {command}");
                for finding in group {
                    line += &format!(" {} off", finding.feature);
                }
            }
            line
        })
        .collect()
}

/// Turned-off offloads of one interface; dropping it turns them on again, if the interface is still there.
/// The privilege to change features (CAP_NET_ADMIN) is needed at that moment, too.
#[derive(Debug)]
pub struct OffloadGuard {
    ethtool: Ethtool,
    netlink: Netlink,
    ifindex: u32,
    changed: Vec<&'static str>,
}

impl OffloadGuard {
    /// The features that will be turned on again.
    pub fn changed(&self) -> &[&'static str] {
        &self.changed
    }
}

impl Drop for OffloadGuard {
    fn drop(&mut self) {
        // By index: the interface may have another name by now, and its name may be another's.
        if let Ok(Some(link)) = self.netlink.link_by_index(self.ifindex) {
            let _ = self.ethtool.set(&link.name, &self.changed, true);
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
    offloads.interface(ns, &link, &wanted, choice == OffloadChoice::Fix)?;
    if link.is_veth() {
        let mut wanted = PEER.to_vec();
        if skb {
            wanted.extend(PEER_SKB);
        }
        match peer(&mut netlink, ns, &link) {
            // In the port's own namespace it is in reach like the port itself.
            Some((peer_ns, peer, same)) => {
                let fix = same && choice == OffloadChoice::Fix;
                offloads.interface(&peer_ns, &peer, &wanted, fix)?;
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
    fn interface(
        &mut self,
        ns: &NetNs,
        link: &Link,
        wanted: &[(&'static str, &'static str)],
        fix: bool,
    ) -> Result<(), OffloadError> {
        let ethtool = Ethtool::open(ns)?;
        let before = ethtool.features(&link.name)?;
        let on: Vec<&'static str> = wanted
            .iter()
            .map(|(feature, _)| *feature)
            .filter(|feature| before.get(*feature).is_some_and(|f| f.active))
            .collect();
        let mut after = HashMap::new();
        if fix && !on.is_empty() {
            // A refusal of one shows in what is read afterwards.
            let refused = ethtool.set(&link.name, &on, false);
            after = ethtool.features(&link.name)?;
            let changed: Vec<&'static str> = on
                .iter()
                .copied()
                .filter(|feature| is_off(&after, feature))
                .collect();
            if changed.is_empty() {
                refused?;
            } else {
                self.guards.push(OffloadGuard {
                    ethtool,
                    netlink: Netlink::open(ns)?,
                    ifindex: link.ifindex,
                    changed,
                });
            }
        }
        for &(feature, why) in wanted {
            let state = if !on.contains(&feature) {
                State::Right
            } else if !fix {
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
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{
        netns::tests::in_new_netns,
        tap::{Tap, TapOptions},
    };

    #[test]
    fn findings_of_one_kind_make_one_line_with_one_command() {
        let finding = |interface: &str, feature, state, command: Option<&str>| Finding {
            interface: interface.into(),
            feature,
            why: "because",
            state,
            command: command.map(str::to_owned),
        };
        let findings = [
            finding("eth0", "a", State::Changed, None),
            finding("eth0", "b", State::OutOfReach, Some("ethtool -K eth0")),
            finding(
                "peer",
                "c",
                State::On,
                Some("ip netns exec x ethtool -K peer"),
            ),
            finding("eth0", "d", State::Changed, None),
            finding(
                "peer",
                "e",
                State::On,
                Some("ip netns exec x ethtool -K peer"),
            ),
        ];
        assert_eq!(
            lines(&findings),
            [
                "eth0: turned off: a (because), d (because)",
                "eth0: out of reach: b (because); run: ethtool -K eth0 b off",
                "peer: left on: c (because), e (because); run: ip netns exec x ethtool -K peer c off e off",
            ]
        );
        assert!(lines(&[]).is_empty());
    }

    #[test]
    fn what_was_turned_off_is_turned_on_again() {
        in_new_netns(|| {
            let ns = NetNs::own();
            let tap = Tap::create(&ns, &TapOptions::active("off0")).unwrap();
            let ethtool = Ethtool::open(&ns).unwrap();
            let gro = || ethtool.features("off0").unwrap()["rx-gro"].active;
            assert!(gro());
            let kept = apply(&ns, "off0", OffloadChoice::Keep, true).unwrap();
            assert!(gro() && kept.guards.is_empty());
            assert_eq!(
                lines(kept.remarkable()),
                ["off0: left on: rx-gro (merges received frames); run: ethtool -K off0 rx-gro off"]
            );
            let error = apply(&ns, "off0", OffloadChoice::Require, true).unwrap_err();
            assert!(
                error.to_string().contains("off0: left on: rx-gro"),
                "{error}"
            );
            let native = apply(&ns, "off0", OffloadChoice::Require, false).unwrap();
            assert_eq!(native.remarkable().count(), 0);

            let fixed = apply(&ns, "off0", OffloadChoice::Fix, true).unwrap();
            assert!(!gro());
            assert_eq!(fixed.guards[0].changed(), ["rx-gro"]);
            apply(&ns, "off0", OffloadChoice::Require, true).unwrap();
            drop(fixed);
            assert!(gro());

            // An interface that is gone is left alone.
            let fixed = apply(&ns, "off0", OffloadChoice::Fix, true).unwrap();
            drop(tap);
            drop(fixed);
        });
    }

    #[test]
    fn a_missing_interface_is_named() {
        let error = apply(&NetNs::own(), "no-such-if", OffloadChoice::Keep, false).unwrap_err();
        assert!(error.to_string().contains("\"no-such-if\""), "{error}");
    }

    #[test]
    fn the_loopback_has_nothing_that_hides_or_merges() {
        let offloads = apply(&NetNs::own(), "lo", OffloadChoice::Require, false).unwrap();
        assert_eq!(offloads.remarkable().count(), 0);
        assert!(offloads.guards.is_empty());
        assert_eq!(offloads.findings.len(), OWN.len());
    }
}
