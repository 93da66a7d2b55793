//! What differs between kernels: with each feature the dataplane does what it should, and without it what it says.

use std::{process::ExitCode, time::Duration};

use tests::{
    Bench, Daemon, Need, Theme,
    bench::in_flight,
    capture::{self, Listening},
    daemon, frames,
    guest::fact,
};

const LISTEN: &[Need] = &[Need::Root, Need::Guest, Need::Tool("tcpdump")];
const BPF: &[Need] = &[
    Need::Root,
    Need::Guest,
    Need::Tool("bpftool"),
    Need::Tool("tc"),
];

const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut theme = Theme::new();
    theme.test("drop_on_lc0", BPF, drop_on_lc0);
    theme.test("xdp_by_a_link", BPF, xdp_by_a_link);
    theme.test("frames_in_several_slots", LISTEN, several_slots);
    theme.test("frames_a_kick", LISTEN, frames_a_kick);
    theme.test("tap_keeps_the_order", LISTEN, tap_keeps_the_order);
    theme.run()
}

/// The host hears nothing on lc0, by TCX or, before Linux 6.6, by a filter of clsact.
fn drop_on_lc0() {
    let bench = Bench::new();
    let daemon = bench.start("", None);
    let filters = bench
        .inside
        .tool("tc")
        .args(["filter", "show", "dev", "lc0", "ingress"])
        .output();
    let filters = String::from_utf8_lossy(&filters.stdout).into_owned();
    // Debian 12's bpftool does not know TCX: what is no filter is that, if the host hears nothing.
    let by = if filters.contains("bpf") {
        "a clsact filter"
    } else {
        "TCX"
    };
    let dropped = || {
        let shown = bench.inside.ip(&["-s", "-j", "link", "show", "lc0"]);
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        shown[0]["stats64"]["rx"]["packets"].as_u64()
    };
    // A host that hears an ARP request for its own address answers it.
    bench.inside.address("lc0", "10.0.0.2/24");
    let before = daemon::port(&daemon.stats(), "lc0").rx.frames;
    bench.sender().send(&vec![frames::arp(); 20]);
    daemon.stats_when(LIMIT, |stats| daemon::port(stats, "lc0").tx.frames == 20);
    assert!(dropped() >= Some(20));
    assert_eq!(daemon::port(&daemon.stats(), "lc0").rx.frames, before);
    let neighbours = bench.inside.ip(&["neigh", "show", "dev", "lc0"]);
    assert_eq!(neighbours.trim(), "", "the host has heard of its neighbour");
    daemon.stop().explained();
    fact("the host hears nothing on lc0", &format!("by {by}"));
}

/// The program goes with the process: it is held by a link, not left on the interface.
fn xdp_by_a_link() {
    let bench = Bench::new();
    let daemon = bench.start("", None);
    let links = tests::run("bpftool", &["link", "list"]);
    assert!(links.contains(": xdp "), "{links}");
    daemon.stop().explained();
    fact("XDP program held by a bpf_link", "yes");
}

/// Frames of 5,000 bytes come whole where the kernel has AF_XDP with several buffers (Linux 6.6), else they are counted and
/// that is said.
fn several_slots() {
    let bench = Bench::new();
    bench.inside.ip(&["link", "set", "up0", "mtu", "9000"]);
    bench.outside.ip(&["link", "set", "out0", "mtu", "9000"]);
    let config = Bench::config("", None).replace("kind = \"tap\"", "kind = \"tap\"\nmtu = 9000");
    let daemon = Daemon::start(&bench.inside, &config);
    let listening = Listening::start(&bench.inside, "lc0");
    let long: Vec<_> = (0..20)
        .map(|number| frames::udp(number, 53, 5000))
        .collect();
    let short: Vec<_> = (0..20).map(|number| frames::udp(number, 53, 500)).collect();
    let sent: Vec<_> = long
        .iter()
        .zip(&short)
        .flat_map(|(a, b)| [a.clone(), b.clone()])
        .collect();
    bench.sender().send(&sent);
    let refused = daemon
        .stderr()
        .contains("has no AF_XDP with several buffers");
    let expected = if refused { &short } else { &sent };
    let stats = daemon.stats_when(LIMIT, |stats| {
        daemon::port(stats, "lc0").tx.frames == expected.len() as u64 && in_flight(stats) == 0
    });
    let dropped: u64 = daemon::port(&stats, "up").rx.dropped.values().sum();
    assert_eq!(dropped, (sent.len() - expected.len()) as u64, "{stats:#?}");
    listening.wait_for(expected.len(), LIMIT);
    capture::assert_same(&listening.finish(), expected);
    daemon.stop().explained();
    let answer = if refused {
        "no: dropped, counted, and said"
    } else {
        "yes"
    };
    fact("AF_XDP frames in several slots, with a copy", answer);
}

/// How many frames the kernel takes at once when it transmits with a copy: all that wait since Linux 6.17, 32 before.
fn frames_a_kick() {
    let bench = Bench::new();
    let sent = frames::mixed(2_000, 200);
    let folder = daemon::folder();
    capture::write(&folder.path().join("sent.pcap"), &sent);
    let listening = Listening::start(&bench.outside, "out0");
    let config = "[ports.sample]\nkind = \"pcap\"\npath = \"sent.pcap\"\npace = \"top\"\n\
                  [ports.up]\nkind = \"af_xdp\"\ninterface = \"up0\"\n\
                  [[pipelines]]\nfrom = [\"sample\"]\nto = [\"up\"]\n";
    let ended = Daemon::spawn_in(&bench.inside, folder, config, daemon::preamble).wait(LIMIT);
    let stats = ended.explained();
    let tx = &daemon::port(&stats, "up").tx;
    assert_eq!(tx.frames, 2_000, "{stats:#?}");
    listening.wait_for(sent.len(), LIMIT);
    capture::assert_same(&listening.finish(), &sent);
    let all = tx.frames > 40 * tx.kicks;
    fact(
        "AF_XDP transmitting with a copy, frames a system call",
        if all { "all that wait" } else { "32" },
    );
}

/// A TAP that is a source: its frames come in the order in which the host sent them.
fn tap_keeps_the_order() {
    let bench = Bench::new();
    let config = "[ports.guest]\nkind = \"tap\"\npassive = false\n[ports.lc0]\nkind = \"tap\"\n\
                  [[pipelines]]\nfrom = [\"guest\"]\nto = [\"lc0\"]\n";
    let daemon = Daemon::start(&bench.inside, config);
    bench.inside.quiet("guest");
    let listening = Listening::start_with(&bench.inside, "lc0", "udp port 53");
    let sent = frames::mixed(2_000, 1514);
    let sender = tests::send::Sender::open(&bench.inside, "guest");
    // A TAP's queue holds a thousand.
    for (chunk, number) in sent.chunks(400).zip(1_u64..) {
        sender.send(chunk);
        daemon.stats_when(LIMIT, |stats| {
            daemon::port(stats, "guest").rx.frames >= 400 * number
        });
    }
    listening.wait_for(sent.len(), LIMIT);
    capture::assert_same(&listening.finish(), &sent);
    daemon.stop().explained();
    fact("TAP as a source and a sink, order kept", "yes");
}
