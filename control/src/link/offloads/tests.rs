//! Offloads of TAPs in namespaces of their own, and what the records of killed runs do to them.

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
