//! What differs between kernels: with each feature the dataplane does what it should, and without it what it says.

use std::{process::ExitCode, time::Duration};

use tests::{
    Bench, Daemon, Need, Theme,
    bench::in_flight,
    capture::{self, Listening},
    daemon, frames,
    guest::{fact, newest_has},
    wait_until,
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
    theme.test("io_uring", LISTEN, io_uring);
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
    // What the host would take in: to its address and its device's, from a neighbour of its network.
    bench
        .inside
        .ip(&["link", "set", "lc0", "address", "02:00:00:00:00:02"]);
    bench.inside.address("lc0", "10.0.0.2/24");
    let heard = || {
        let output = bench.inside.tool("cat").arg("/proc/net/snmp").output();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let numbers = text.lines().filter(|line| line.starts_with("Ip: ")).nth(1);
        numbers
            .and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok())
            .expect("Ip InReceives")
    };
    let before = heard();
    bench.sender().send(&frames::mixed(20, 200));
    daemon.stats_when(LIMIT, |stats| daemon::port(stats, "lc0").tx.frames == 20);
    assert_eq!(
        heard(),
        before,
        "the host has heard what was written to lc0"
    );
    newest_has(by == "TCX", "TCX");
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
    let gone = wait_until(LIMIT, || {
        !tests::run("bpftool", &["link", "list"]).contains(": xdp ")
    });
    assert!(gone, "{}", tests::run("bpftool", &["link", "list"]));
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
    newest_has(!refused, "AF_XDP with several buffers");
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
    newest_has(all, "XDP_MAX_TX_SKB_BUDGET");
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
    let serial = daemon
        .stderr()
        .contains("cannot say that a read would wait");
    daemon.stop().explained();
    fact("TAP as a source, order kept", "yes");
    newest_has(!serial, "tun files that can say that a read would wait");
    let answer = if serial {
        "no: one at a time, and said"
    } else {
        "yes"
    };
    fact(
        "TAP as a source, several reads at a time in io_uring",
        answer,
    );
}

/// A worker's ring, with the flags that a newer kernel has or without them.
fn io_uring() {
    let ring = dataplane::worker::ring::Ring::new().expect("io_uring");
    newest_has(ring.is_deferred(), "IORING_SETUP_DEFER_TASKRUN");
    let answer = if ring.is_deferred() {
        "yes"
    } else {
        "no: done in between"
    };
    fact("io_uring does its work when asked (DEFER_TASKRUN)", answer);
}
