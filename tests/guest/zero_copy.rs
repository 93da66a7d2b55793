//! AF_XDP on network cards, in every mode: what pktgen sends arrives on lc0, all of it and byte by byte, and what is
//! sent out of a card arrives at the far end. What the kernel granted is what the statistics say.

use std::{process::ExitCode, time::Duration};

use control::stats::Stats;
use tests::{
    Daemon, Need, Theme,
    bench::in_flight,
    capture::{self, Listening},
    daemon, frames,
    guest::{Card, Lane, card, fact, newest_has, pktgen::Pktgen},
};

const VIRTIO: &[Need] = &[
    Need::Root,
    Need::Card(card::NIC0),
    Need::Tool("tcpdump"),
    Need::Tool("ethtool"),
];
const IGB: &[Need] = &[
    Need::Root,
    Need::Card(card::IGB0),
    Need::Tool("tcpdump"),
    Need::Tool("ethtool"),
];

/// How long frames may take: every instruction is emulated.
const LIMIT: Duration = Duration::from_secs(60);

/// Frame lengths of one run.
const LENGTHS: [usize; 5] = [60, 128, 590, 1024, 1514];

/// More slots than frames come before anybody looks: in copy mode the kernel does not wait for a worker.
const SLOTS: &str =
    "[engine]\ncores = \"0\"\nhugepages = \"off\"\nslots = 16384\nslot_size = 4096\n";

fn main() -> ExitCode {
    let mut theme = Theme::new();
    for mode in ["zero-copy", "copy", "skb"] {
        theme.test(format!("virtio_receives_{mode}"), VIRTIO, move || {
            receives(card::NIC0, card::GEN0, "virtio-net", mode);
        });
    }
    for mode in ["auto", "copy"] {
        theme.test(format!("virtio_transmits_{mode}"), VIRTIO, move || {
            transmits(card::NIC0, card::GEN0, "virtio-net", mode);
        });
    }
    for mode in ["zero-copy", "copy", "skb"] {
        theme.test(format!("igb_receives_{mode}"), IGB, move || {
            receives(card::IGB0, card::GEN2, "igb", mode);
        });
    }
    theme.test("igb_in_small_slots", IGB, igb_in_small_slots);
    theme.test("igb_transmits_auto", IGB, || {
        transmits(card::IGB0, card::GEN2, "igb", "auto")
    });
    theme.test("frames_for_others", VIRTIO, for_others);
    theme.run()
}

/// A daemon with many slots, or what it said when it ended with this exit code.
fn start(lane: &Lane, config: &str) -> Result<Daemon, (Option<i32>, String)> {
    let preamble =
        |socket: &std::path::Path| format!("{SLOTS}[control]\nsocket = \"{}\"\n", socket.display());
    let mut daemon = Daemon::spawn_in(&lane.inside, daemon::folder(), config, preamble);
    match daemon.ready_or_ended(LIMIT) {
        true => Ok(daemon),
        false => {
            let ended = daemon.wait(LIMIT);
            Err((ended.code, ended.stderr))
        }
    }
}

fn all_through(stats: &Stats, frames: u64) -> bool {
    daemon::port(stats, "up").rx.frames >= frames && in_flight(stats) == 0
}

/// 50,000 frames of five lengths -> policy -> lc0 (10,000 for igb), and some that the policy denies between them.
fn receives(nic: Card, sender: Card, driver: &str, mode: &str) {
    let lane = Lane::new(nic, sender);
    let policy = "allow = [{ proto = \"udp\", to = \"10.0.0.2\", ports = \"53\" }]";
    let config = lane.config(&format!("mode = \"{mode}\""), Some(policy));
    let feature = format!("AF_XDP zero-copy on {driver}, receiving");
    let daemon = match start(&lane, &config) {
        Ok(daemon) => daemon,
        // Only what is asked for and not there may be refused, with a line that says what to do.
        Err((code, said)) => {
            assert_eq!((mode, code), ("zero-copy", Some(3)), "{said}");
            newest_has(false, &feature);
            let line = said.lines().last().unwrap_or_default();
            assert!(line.contains("set mode = \"auto\" or \"copy\""), "{line}");
            fact(&feature, "no: refused where it is demanded, else a copy");
            // Left to itself, it copies.
            let daemon = lane.start("", Some(policy));
            // igb starts anew when a program comes or goes.
            daemon.stats_when(LIMIT, |stats| daemon::port(stats, "up").mode == "copy");
            daemon.stop().explained();
            return;
        }
    };
    let granted = daemon::port(&daemon.stats(), "up").mode.clone();
    match mode {
        "zero-copy" => {
            assert_eq!(granted, mode);
            fact(&feature, "yes");
        }
        "copy" => assert_eq!(granted, mode),
        _ => assert_eq!(granted, "skb copy"),
    }
    // QEMU's igb drops what it has no room for, as the card does that it plays. To virtio-net a line holds frames back, and
    // puts some of them out of order for that: so does one whose far end is tcpdump alone.
    let (count, rate, displaced) = match driver {
        "igb" => (2_000, 2_000, 0),
        _ => (10_000, 0, usize::MAX),
    };
    let mut sent = 0;
    for length in LENGTHS {
        let pktgen = Pktgen {
            count,
            length,
            rate,
            ..Pktgen::default()
        };
        let listening = Listening::start(&lane.inside, "lc0");
        pktgen.send(&lane);
        Pktgen {
            count: 100,
            length,
            port: 54,
            ..Pktgen::default()
        }
        .send(&lane);
        sent += u64::from(count) + 100;
        let stats = daemon.stats_when(LIMIT, |stats| all_through(stats, sent));
        daemon::assert_explained(&stats);
        listening.wait_for(count as usize, LIMIT);
        pktgen.assert_all(&lane, &listening.finish(), displaced);
    }
    // At a pace at which nothing is held back, all are in order.
    let paced = Pktgen {
        count: 1_000,
        rate: 1_000,
        ..Pktgen::default()
    };
    let listening = Listening::start(&lane.inside, "lc0");
    paced.send(&lane);
    sent += 1_000;
    daemon.stats_when(LIMIT, |stats| all_through(stats, sent));
    listening.wait_for(1_000, LIMIT);
    paced.assert_all(&lane, &listening.finish(), 0);
    let stats = daemon.stop().explained();
    let up = daemon::port(&stats, "up");
    assert_eq!(
        (up.rx.frames, up.rx.forwarded),
        (sent, sent - 500),
        "{stats:#?}"
    );
    assert_eq!(up.mode, granted);
    assert_eq!(
        daemon::port(&stats, "lc0").tx.frames,
        sent - 500,
        "{stats:#?}"
    );
    assert_eq!(
        stats.pipelines[0].dropped.get("not_allowed"),
        Some(&500),
        "{stats:#?}"
    );
}

/// A capture file -> the card; the far end hears it.
fn transmits(nic: Card, sender: Card, driver: &str, mode: &str) {
    let lane = Lane::new(nic, sender);
    let sent = frames::mixed(2_000, 1514);
    let folder = daemon::folder();
    capture::write(&folder.path().join("sent.pcap"), &sent);
    let listening = Listening::start(&lane.outside, sender.name);
    let config = format!(
        "[ports.sample]\nkind = \"pcap\"\npath = \"sent.pcap\"\npace = {{ pps = 2000 }}\n\
         [ports.up]\nkind = \"af_xdp\"\ninterface = \"{}\"\nmode = \"{mode}\"\n\
         [[pipelines]]\nfrom = [\"sample\"]\nto = [\"up\"]\n",
        nic.name
    );
    let ended = Daemon::spawn_in(&lane.inside, folder, &config, daemon::preamble).wait(LIMIT);
    let said = ended.stderr.clone();
    let heard = listening.wait_for(sent.len(), LIMIT);
    let stats = ended.explained();
    capture::assert_same(&heard, &sent);
    let up = daemon::port(&stats, "up");
    assert_eq!(up.tx.frames, sent.len() as u64, "{stats:#?}");
    if mode == "auto" {
        let feature = format!("AF_XDP zero-copy on {driver}, transmitting");
        newest_has(said.contains("port up: zero-copy"), &feature);
        fact(
            &feature,
            if said.contains("port up: zero-copy") {
                "yes"
            } else {
                "no: copy"
            },
        );
    }
}

/// igb receives frames of more than a KiB in pieces where slots have 2,048 bytes: it copies, or does not start.
fn igb_in_small_slots() {
    let lane = Lane::new(card::IGB0, card::GEN2);
    let words = "receives frames of more than 1024 bytes in pieces";
    let daemon = Daemon::spawn(&lane.inside, &lane.config("mode = \"zero-copy\"", None));
    let ended = daemon.wait(LIMIT);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    let line = ended.stderr.lines().last().unwrap_or_default();
    assert!(line.contains(words), "{}", ended.stderr);
    let daemon = lane.start("", None);
    assert!(daemon.stderr().contains(words), "{}", daemon.stderr());
    // The card starts anew when a program comes or goes.
    daemon.stats_when(LIMIT, |stats| daemon::port(stats, "up").mode == "copy");
    let pktgen = Pktgen {
        count: 500,
        length: 1514,
        rate: 1_000,
        ..Pktgen::default()
    };
    let listening = Listening::start(&lane.inside, "lc0");
    pktgen.send(&lane);
    daemon.stats_when(LIMIT, |stats| all_through(stats, 500));
    listening.wait_for(500, LIMIT);
    pktgen.assert_all(&lane, &listening.finish(), 0);
}

/// A card takes frames that are for others, unless it is told not to, and only while the daemon runs.
fn for_others() {
    let lane = Lane::new(card::NIC0, card::GEN0);
    let promiscuity = || {
        let shown = lane.inside.ip(&["-d", "-j", "link", "show", lane.nic.name]);
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        shown[0]["promiscuity"].as_u64()
    };
    // Their address is nobody's here.
    let sent = frames::mixed(100, 1514);
    for (line, arrived) in [("", 100), ("promiscuous = false", 0)] {
        let daemon = lane.start(line, None);
        assert_eq!(promiscuity(), Some(u64::from(arrived > 0)));
        lane.sender().send(&sent);
        Pktgen {
            count: 50,
            ..Pktgen::default()
        }
        .send(&lane);
        daemon.stats_when(LIMIT, |stats| {
            daemon::port(stats, "lc0").tx.frames == arrived + 50
        });
        daemon.stop().explained();
        assert_eq!(promiscuity(), Some(0));
    }
}
