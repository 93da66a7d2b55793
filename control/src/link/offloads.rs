//! Offloads that hide VLAN tags from XDP or merge frames before it: looked at, turned off, put back.
//!
//! A tag that the card has taken out of the frame, or a sender never put in, is not in what XDP sees: to a
//! policy it is another frame. LRO and hardware GRO hand up frames that never were on the wire. The
//! features are named as `ethtool -k` names them (net/ethtool/common.c, `netdev_features_strings`). What is
//! turned off is put on record ([`ledger`](super::ledger)) for as long as it is.

use std::{collections::HashMap, fmt, fs};

use super::{
    ethtool::{Ethtool, EthtoolError, Feature},
    ledger::{self, Entry, Ledger, Record, Stale},
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
    /// A run that was killed left it off; the guard turns it on again.
    Adopted,
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
            Self::Adopted => "left off by a run that was killed, on again at the end of this one",
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
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::at(directory.path().join("changed"));
        in_new_netns(|| {
            let ns = NetNs::own();
            let tap = Tap::create(&ns, &TapOptions::active("off0")).unwrap();
            let ethtool = Ethtool::open(&ns).unwrap();
            let gro = || ethtool.features("off0").unwrap()["rx-gro"].active;
            let apply = |choice, skb| apply_on_record(&ledger, &ns, "off0", choice, skb);
            assert!(gro());
            let kept = apply(OffloadChoice::Keep, true).unwrap();
            assert!(gro() && kept.guards.is_empty());
            assert_eq!(
                lines(kept.remarkable()),
                ["off0: left on: rx-gro (merges received frames); run: ethtool -K off0 rx-gro off"]
            );
            let error = apply(OffloadChoice::Require, true).unwrap_err();
            assert!(
                error.to_string().contains("off0: left on: rx-gro"),
                "{error}"
            );
            let native = apply(OffloadChoice::Require, false).unwrap();
            assert_eq!(native.remarkable().count(), 0);

            let fixed = apply(OffloadChoice::Fix, true).unwrap();
            assert!(!gro());
            assert_eq!(fixed.guards[0].changed(), ["rx-gro"]);
            apply(OffloadChoice::Require, true).unwrap();
            assert_eq!(records(&directory).len(), 1);
            drop(fixed);
            assert!(gro());
            assert_eq!(records(&directory), []);

            // An interface that is gone is left alone.
            let fixed = apply(OffloadChoice::Fix, true).unwrap();
            drop(tap);
            drop(fixed);
            assert_eq!(records(&directory), []);
        });
    }

    fn records(directory: &tempfile::TempDir) -> Vec<Record> {
        let Ok(files) = fs::read_dir(directory.path().join("changed")) else {
            return Vec::new();
        };
        files
            .map(|file| serde_json::from_slice(&fs::read(file.unwrap().path()).unwrap()).unwrap())
            .collect()
    }

    #[test]
    fn what_a_killed_run_left_off_is_taken_over() {
        // What the dead run has on record, how the feature stands now, whether the new run is in skb mode,
        // what it takes over.
        let cases: [(&[&str], bool, bool, &[&str]); 5] = [
            (&["rx-gro"], false, true, &["rx-gro"]),
            (&["rx-gro"], false, false, &["rx-gro"]),
            (&["rx-gro", "rx-gro"], false, true, &["rx-gro"]),
            // Somebody has turned it on again: it is this run's own to turn off, or no matter.
            (&["rx-gro", "no-such"], true, true, &[]),
            (&["rx-gro", "no-such"], true, false, &[]),
        ];
        for (recorded, on, skb, adopted) in cases {
            let directory = tempfile::tempdir().unwrap();
            let ledger = Ledger::at(directory.path().join("changed"));
            in_new_netns(|| {
                let ns = NetNs::own();
                let _tap = Tap::create(&ns, &TapOptions::active("off0")).unwrap();
                let ethtool = Ethtool::open(&ns).unwrap();
                let gro = || ethtool.features("off0").unwrap()["rx-gro"].active;
                ethtool.set("off0", &["rx-gro"], on).unwrap();
                let link = Netlink::open(&ns).unwrap().link_by_name("off0");
                let features: Vec<String> = recorded.iter().map(|&f| f.to_owned()).collect();
                let mut dead = Record::new(&ns, &link.unwrap().unwrap(), &features).unwrap();
                dead.started -= 1;
                ledger.write(&dead).unwrap();
                // Of another interface: not touched.
                dead.ifindex += 1;
                ledger.write(&dead).unwrap();

                // Looking on takes nothing over.
                apply_on_record(&ledger, &ns, "off0", OffloadChoice::Keep, skb).unwrap();
                assert_eq!(records(&directory).len(), 2);

                let run = apply_on_record(&ledger, &ns, "off0", OffloadChoice::Fix, skb).unwrap();
                let taken: Vec<_> = run
                    .findings
                    .iter()
                    .filter(|finding| finding.state == State::Adopted)
                    .map(|finding| finding.feature)
                    .collect();
                assert_eq!(taken, adopted, "{recorded:?} {on} {skb}");
                assert_eq!(gro(), on && !skb);
                let mut left = records(&directory);
                left.retain(|record| record.ifindex != dead.ifindex);
                assert!(left.iter().all(Record::is_live), "{left:?}");
                assert_eq!(left.len(), run.guards.len());
                drop(run);
                assert!(gro());
                assert_eq!(records(&directory), [dead]);
            });
        }
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
