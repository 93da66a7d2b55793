//! Frames of up to 9,000 bytes over AF_XDP, each in several slots: they arrive whole on a TAP, in a recording and
//! behind an interface; those of a capture file leave by AF_XDP as long.

use std::{process::ExitCode, time::Duration};

use control::stats::Stats;
use tests::{
    Need, Netns, Theme,
    bench::in_flight,
    capture::{self, Listening},
    daemon::{self, Daemon},
    frames, pcapng,
    send::Sender,
};

const LISTEN: &[Need] = &[Need::Root, Need::Tool("tcpdump")];

/// How long frames may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// An MTU of 9,000 bytes and an Ethernet header.
const LONGEST: usize = 9014;

fn main() -> ExitCode {
    let mut theme = Theme::new();
    theme.test("long_frames_arrive_whole", LISTEN, arrive);
    theme.test("long_frames_of_a_capture_leave", LISTEN, leave);
    theme.run()
}

/// A pair whose ends have an MTU of 9,000.
fn pair(ns: &Netns, here: &str, other: &Netns, there: &str) {
    ns.veth(here, other, there);
    for (ns, end) in [(ns, here), (other, there)] {
        ns.ip(&["link", "set", end, "mtu", "9000"]);
    }
}

fn all_written(stats: &Stats, frames: u64) -> bool {
    stats.pipelines[0].forwarded == frames && in_flight(stats) == 0
}

fn arrive() {
    let (sending, ns, far) = (Netns::new(), Netns::new(), Netns::new());
    pair(&ns, "a0", &sending, "s0");
    pair(&ns, "b0", &far, "f0");
    let folder = daemon::folder();
    let file = folder.path().join("record.pcapng");
    let daemon = Daemon::start(
        &ns,
        &format!(
            "[ports.a]\nkind = \"af_xdp\"\ninterface = \"a0\"\n\
             [ports.b]\nkind = \"af_xdp\"\ninterface = \"b0\"\n\
             [ports.lc0]\nkind = \"tap\"\nmtu = 9000\n\
             [ports.record]\nkind = \"pcap\"\npath = \"{}\"\n\
             [policies.p]\nallow = [{{ proto = \"udp\", ports = \"53\" }}]\n\
             [[pipelines]]\nfrom = [\"a\"]\npolicy = \"p\"\nto = [\"lc0\", \"record\", \"b\"]\n",
            file.display()
        ),
    );
    let (near, behind) = (Listening::start(&ns, "lc0"), Listening::start(&far, "f0"));
    let sent = frames::mixed(300, LONGEST);
    let sender = Sender::open(&sending, "s0");
    for some in sent.chunks(20) {
        sender.send(some);
    }
    // As denied as a short one.
    sender.send(&[frames::udp(1, 5353, LONGEST)]);
    let stats = daemon.stats_when(LIMIT, |stats| {
        all_written(stats, 300) && stats.pipelines[0].received == 301
    });
    daemon::assert_explained(&stats);
    assert_eq!(stats.pipelines[0].dropped["not_allowed"], 1, "{stats:#?}");
    capture::assert_same(&behind.wait_for(300, LIMIT), &sent);
    behind.finish();
    near.wait_for(300, LIMIT);
    let stats = daemon.stop().explained();
    for name in ["lc0", "record", "b"] {
        assert_eq!(daemon::port(&stats, name).tx.frames, 300, "{stats:#?}");
    }
    let bytes: usize = sent.iter().map(Vec::len).sum();
    assert_eq!(daemon::port(&stats, "b").tx.bytes, bytes as u64);
    capture::assert_same(&near.after_the_device(), &sent);
    capture::assert_same(&pcapng::read(&file).bytes(), &sent);
}

/// Frames that lie in one long slot of the worker's own are copied into several.
fn leave() {
    let (ns, far) = (Netns::new(), Netns::new());
    pair(&ns, "b0", &far, "f0");
    let sent = frames::mixed(2000, LONGEST);
    let folder = daemon::folder();
    let file = folder.path().join("sample.pcap");
    capture::write(&file, &sent);
    let behind = Listening::start(&far, "f0");
    let daemon = Daemon::start(
        &ns,
        &format!(
            "[ports.sample]\nkind = \"pcap\"\npath = \"{}\"\npace = \"top\"\n\
             [ports.b]\nkind = \"af_xdp\"\ninterface = \"b0\"\n\
             [ports.lc0]\nkind = \"tap\"\nmtu = 9000\n\
             [[pipelines]]\nfrom = [\"sample\"]\nto = [\"b\", \"lc0\"]\n",
            file.display()
        ),
    );
    let stats = daemon.wait(LIMIT).explained();
    assert_eq!(daemon::port(&stats, "b").tx.frames, 2000, "{stats:#?}");
    behind.wait_for(2000, LIMIT);
    capture::assert_same(&behind.finish(), &sent);
}
