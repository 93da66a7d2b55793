//! Interface -> packet socket -> lc0: the host keeps its traffic, and lc0 gets a copy of it, byte for byte,
//! from one interface or all, by one worker or several; and every frame is in a counter.

use std::{collections::HashMap, fs, net::Ipv4Addr, process::ExitCode, sync::Arc, time::Duration};

use control::stats::{PortStats, Stats};
use dataplane::packet::build::{FrameBuilder, Ipv4, Tag};
use nix::sys::signal::Signal;
use tests::{
    Bench, Daemon, Need, Netns, Theme,
    bench::in_flight,
    capture::{self, Listening},
    daemon,
    frames::{self, CLIENT, SERVER},
    http,
    send::Sender,
    wait_until,
};

const ROOT: &[Need] = &[Need::Root];
const LISTEN: &[Need] = &[Need::Root, Need::Tool("tcpdump")];
const HOST: &[Need] = &[
    Need::Root,
    Need::Tool("tcpdump"),
    Need::Tool("ethtool"),
    Need::Tool("curl"),
];

/// How long frames may take through a busy machine.
const LIMIT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let mut theme = Theme::new();
    theme.test("the_host_keeps_its_traffic", HOST, the_host_keeps_it);
    theme.test("merged_frames_are_told_and_counted", HOST, merged_frames);
    theme.test("vlan_tags_are_put_back", LISTEN, vlan_tags);
    theme.test("a_policy_judges", LISTEN, judged);
    theme.test("incoming_only", LISTEN, incoming_only);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        theme.test(format!("promiscuous_until_{signal}"), ROOT, move || {
            promiscuous(signal);
        });
    }
    theme.test("two_workers_share_by_flow", LISTEN, two_workers);
    theme.test("any_leaves_out_our_own", LISTEN, || any("mtu = 2000"));
    theme.test("whatever_the_namespace_is_called", LISTEN, || {
        any("mtu = 2000\nnetns = \"/proc/self/ns/net\"");
    });
    theme.test("any_has_no_other_link_types", LISTEN, any_other_types);
    theme.test("what_the_kernel_drops_is_counted", LISTEN, kernel_drops);
    theme.test("what_the_ring_holds_at_the_end", LISTEN, left_in_the_ring);
    theme.test("what_does_not_fit_is_counted", ROOT, too_long);
    theme.test("down_and_up", ROOT, down_and_up);
    theme.test("only_bad_news_when_quiet", ROOT, quiet);
    theme.test("removed_and_made_anew", ROOT, removed);
    theme.run()
}

/// A configuration from port `up`, on an interface, to port `lc0`, with more lines for both.
fn config(interface: &str, up: &str, lc0: &str) -> String {
    format!(
        "[ports.up]\nkind = \"af_packet\"\ninterface = \"{interface}\"\n{up}\n\
         [ports.lc0]\nkind = \"tap\"\n{lc0}\n\
         [[pipelines]]\nfrom = [\"up\"]\nto = [\"lc0\"]\n"
    )
}

fn start(bench: &Bench, up: &str) -> Daemon {
    Daemon::start(&bench.inside, &config("up0", up, ""))
}

fn up(stats: &Stats) -> &PortStats {
    daemon::port(stats, "up")
}

fn dropped(port: &PortStats, reason: &str) -> u64 {
    port.rx.dropped.get(reason).copied().unwrap_or(0)
}

/// Waits until so many frames have come from `up` and are in lc0 or in a counter.
fn arrived(daemon: &Daemon, frames: u64) -> Stats {
    let stats = daemon.stats_when(LIMIT, |stats| {
        up(stats).rx.frames == frames && in_flight(stats) == 0
    });
    daemon::assert_explained(&stats);
    stats
}

/// Addresses on both ends of the veth, and nothing that merges frames or leaves them unfinished for later.
fn addressed(bench: &Bench, merging: &str) {
    bench.inside.address("up0", "10.0.0.2/24");
    bench.outside.address("out0", "10.0.0.1/24");
    for (ns, end) in [(&bench.inside, "up0"), (&bench.outside, "out0")] {
        let set = ["-K", end, "gro", merging, "gso", merging, "tso", merging];
        let output = ns.tool("ethtool").args(set).output();
        assert!(output.status.success(), "ethtool {set:?}");
    }
}

/// Gets a page of the host inside from outside; it comes whole.
fn get_page(bench: &Bench, bytes: usize) {
    let page = http::page(bytes);
    let _server = http::Server::start(&bench.inside, 8080, Arc::clone(&page));
    let folder = daemon::folder();
    let file = folder.path().join("page");
    let got = http::get(&bench.outside, "http://10.0.0.2:8080/", &file, LIMIT);
    assert!(got.status.success(), "{got:?}");
    assert_eq!(fs::read(&file).expect("a page"), *page);
}

fn the_host_keeps_it() {
    let bench = Bench::new();
    addressed(&bench, "off");
    // What tcpdump sees: checksums as they are.
    let daemon = start(&bench, "checksums = \"trust\"");
    let beside = Listening::start(&bench.inside, "up0");
    let listening = Listening::start(&bench.inside, "lc0");
    get_page(&bench, 1 << 20);
    // The connection has ended; its last frames may still be under way.
    let mut before = 0;
    let settled = wait_until(LIMIT, || {
        let now = beside.frames().len();
        let same = now == before && now > 500 && up(&daemon.stats()).rx.frames == now as u64;
        before = now;
        same
    });
    assert!(settled, "{before} frames beside, {:#?}", daemon.stats());
    let stats = arrived(&daemon, before as u64);
    assert_eq!(daemon::port(&stats, "lc0").tx.frames, before as u64);
    listening.wait_for(before, LIMIT);
    daemon.stop().explained();
    let (mut heard, mut seen) = (listening.after_the_device(), beside.finish());
    // What one core sends while another receives comes to two sockets in one order or the other.
    heard.sort();
    seen.sort();
    capture::assert_same(&heard, &seen);
    for from in [CLIENT, SERVER] {
        let sent = heard
            .iter()
            .filter(|f| f.get(26..30) == Some(&from.octets()));
        assert!(sent.count() > 10, "from {from}");
    }
}

/// What the host's stack has not cut into frames yet is too long for a slot. The first says so; with slots that
/// are large enough all come.
fn merged_frames() {
    let bench = Bench::new();
    addressed(&bench, "on");
    let mut daemon = start(&bench, "");
    get_page(&bench, 1 << 20);
    daemon.wait_for("counted as too_long; ethtool");
    let said = daemon.stderr();
    let remedy = "ethtool -K up0 gro off gso off tso off, or take them: mtu = 65521";
    assert!(said.contains(remedy), "{said}");
    assert_eq!(said.matches("too_long").count(), 1, "{said}");
    let stats = daemon.stop().explained();
    assert!(dropped(up(&stats), "too_long") > 10, "{stats:#?}");

    let engine = |socket: &std::path::Path| {
        daemon::preamble(socket).replace("[engine]", "[engine]\nslots = 512")
    };
    let text = config("up0", "mtu = 65521", "mtu = 65521");
    let daemon = Daemon::spawn_in(&bench.inside, daemon::folder(), &text, engine).ready();
    get_page(&bench, 1 << 20);
    let stats = daemon.stop().explained();
    let (up, lc0) = (up(&stats), daemon::port(&stats, "lc0"));
    assert!(up.rx.bytes > 1 << 20, "{stats:#?}");
    assert!(
        up.rx.bytes / up.rx.frames > 1_514,
        "none was merged\n{stats:#?}"
    );
    assert_eq!(
        (dropped(up, "too_long"), lc0.tx.frames),
        (0, up.rx.forwarded)
    );
}

/// The kernel takes the outer tag out of a frame before anybody sees it.
fn vlan_tags() {
    let bench = Bench::new();
    let tagged = |tags: &[Tag]| {
        let frame = FrameBuilder::new()
            .tags(tags)
            .ipv4(Ipv4::new(CLIENT, SERVER));
        frame
            .udp(40_000, 53)
            .payload(&[5; 60])
            .to_vec()
            .expect("short enough")
    };
    let sent = [
        tagged(&[]),
        tagged(&[Tag::customer(42)]),
        tagged(&[Tag::customer(0)]),
        tagged(&[Tag::service(7)]),
        tagged(&[Tag::service(7), Tag::customer(42)]),
        tagged(&[Tag::service(1), Tag::customer(2), Tag::customer(3)]),
    ];
    let daemon = start(&bench, "");
    let listening = Listening::start(&bench.inside, "lc0");
    bench.sender().send(&sent);
    let stats = arrived(&daemon, sent.len() as u64);
    let bytes: usize = sent.iter().map(Vec::len).sum();
    assert_eq!(up(&stats).rx.bytes, bytes as u64);
    listening.wait_for(sent.len(), LIMIT);
    daemon.stop().explained();
    capture::assert_same(&listening.after_the_device(), &sent);
}

fn judged() {
    let bench = Bench::new();
    let config = config("up0", "", "").replace(
        "to = [\"lc0\"]",
        "policy = \"p\"\nto = [\"lc0\"]\n[policies.p]\narp = false\n\
         allow = [{ proto = \"udp\", to = \"10.0.0.2\", ports = \"53\" }]",
    );
    let daemon = Daemon::start(&bench.inside, &config);
    let listening = Listening::start(&bench.inside, "lc0");
    let allowed = frames::mixed(200, 1514);
    let denied: Vec<_> = (0..100).map(|n| frames::udp(n, 5353, 200)).collect();
    let sender = bench.sender();
    for (two, one) in allowed.chunks(2).zip(&denied) {
        sender.send(two);
        sender.send(std::slice::from_ref(one));
    }
    sender.send(&[frames::arp()]);
    let stats = arrived(&daemon, 301);
    let pipeline = &stats.pipelines[0];
    assert_eq!((pipeline.judged, pipeline.forwarded), (301, 200));
    let of = |reason: &str| pipeline.dropped.get(reason).copied();
    assert_eq!((of("not_allowed"), of("arp")), (Some(100), Some(1)));
    listening.wait_for(200, LIMIT);
    daemon.stop().explained();
    capture::assert_same(&listening.after_the_device(), &allowed);
}

/// What the host sends is seen, or left out.
fn incoming_only() {
    for (direction, both) in [("both", true), ("in", false)] {
        let bench = Bench::new();
        let daemon = start(&bench, &format!("direction = \"{direction}\""));
        let listening = Listening::start(&bench.inside, "lc0");
        let ours = frames::mixed(20, 1514);
        Sender::open(&bench.inside, "up0").send(&ours);
        let theirs: Vec<_> = (100..130).map(|n| frames::udp(n, 53, 90)).collect();
        bench.sender().send(&theirs);
        let expected = match both {
            true => [&ours[..], &theirs].concat(),
            false => theirs,
        };
        arrived(&daemon, expected.len() as u64);
        listening.wait_for(expected.len(), LIMIT);
        daemon.stop().explained();
        capture::assert_same(&listening.after_the_device(), &expected);
    }
}

fn promiscuity(ns: &Netns, interface: &str) -> u32 {
    let shown = ns.ip(&["-d", "link", "show", interface]);
    let mut words = shown.split_whitespace();
    words.find(|word| *word == "promiscuity");
    let number = words.next().and_then(|word| word.parse().ok());
    number.unwrap_or_else(|| panic!("{shown}"))
}

fn promiscuous(end: Signal) {
    let bench = Bench::new();
    let daemon = start(&bench, "");
    assert_eq!(promiscuity(&bench.inside, "up0"), 0, "nobody asked for it");
    daemon.stop().explained();
    let daemon = start(&bench, "promiscuous = true");
    assert_eq!(promiscuity(&bench.inside, "up0"), 1);
    assert!(up(&daemon.stats()).mode.contains("promiscuous"));
    daemon.signal(end);
    daemon.wait(LIMIT);
    let restored = wait_until(LIMIT, || promiscuity(&bench.inside, "up0") == 0);
    assert!(
        restored,
        "{}",
        bench.inside.ip(&["-d", "link", "show", "up0"])
    );
}

/// A conversation of five frames there and five back, each with its number.
fn conversation(flow: u32) -> Vec<Vec<u8>> {
    let client = Ipv4Addr::from(0x0a01_0000 + flow);
    let frame = |number: u32| {
        let there = number.is_multiple_of(2);
        let (from, to) = if there {
            (client, SERVER)
        } else {
            (SERVER, client)
        };
        let (from_port, to_port) = if there { (40_000, 53) } else { (53, 40_000) };
        let payload = [flow.to_be_bytes(), number.to_be_bytes()].concat();
        let frame = FrameBuilder::new().ipv4(Ipv4::new(from, to));
        let frame = frame.udp(from_port, to_port).payload(&payload);
        frame.pad_to(60).to_vec().expect("short enough")
    };
    (0..10).map(frame).collect()
}

fn two_workers() {
    let bench = Bench::new();
    let two = |socket: &std::path::Path| {
        daemon::preamble(socket).replace("cores = \"0\"", "cores = \"0-1\"")
    };
    let text = config("up0", "", "");
    let daemon = Daemon::spawn_in(&bench.inside, daemon::folder(), &text, two).ready();
    assert!(up(&daemon.stats()).mode.contains("fanout"));
    let listening = Listening::start(&bench.inside, "lc0");
    let conversations: Vec<_> = (0..300).map(conversation).collect();
    // One frame of each in turn.
    let mut sent = Vec::new();
    for number in 0..10 {
        sent.extend(conversations.iter().map(|frames| frames[number].clone()));
    }
    bench.sender().send(&sent);
    let stats = arrived(&daemon, sent.len() as u64);
    for worker in &stats.workers {
        assert!(
            worker.residence_ns.count > 300,
            "one does it all\n{stats:#?}"
        );
    }
    listening.wait_for(sent.len(), LIMIT);
    daemon.stop().explained();
    let heard = listening.after_the_device();
    // A worker keeps the order of what it gets: a conversation that is split would lose its own.
    let mut next: HashMap<u32, u32> = HashMap::new();
    for frame in &heard {
        let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().expect("four"));
        let (flow, number) = (word(42), word(46));
        let expected = next.entry(flow).or_insert(0);
        assert_eq!(number, *expected, "conversation {flow}");
        *expected += 1;
    }
    let (mut heard, mut sent) = (heard, sent);
    heard.sort();
    sent.sort();
    capture::assert_same(&heard, &sent);
}

/// All interfaces but lc0, to which their frames go: else it would never end. Loopback frames come once.
fn any(more: &str) {
    let bench = Bench::new();
    bench.inside.veth("up1", &bench.outside, "out1");
    let config = format!(
        "{}\n[ports.beside]\nkind = \"tap\"\n[ports.idle]\nkind = \"tap\"\n\
         [[pipelines]]\nfrom = [\"idle\"]\nto = [\"beside\"]\n",
        config("any", more, "mtu = 2000")
    );
    let daemon = Daemon::start(&bench.inside, &config);
    let listening = Listening::start(&bench.inside, "lc0");
    let mut sent = Vec::new();
    for (ns, interface, first) in [
        (&bench.outside, "out0", 0),
        (&bench.outside, "out1", 100),
        (&bench.inside, "lo", 200),
        (&bench.inside, "up1", 300),
    ] {
        let frames: Vec<_> = (first..first + 50)
            .map(|n| frames::udp(n, 53, 200))
            .collect();
        Sender::open(ns, interface).send(&frames);
        // One interface after the other: they have no common order.
        sent.extend(frames);
        arrived(&daemon, sent.len() as u64);
    }
    // What the daemon writes there has been seen by everybody when tcpdump has it.
    listening.wait_for(sent.len(), LIMIT);
    arrived(&daemon, sent.len() as u64);
    daemon.stop().explained();
    capture::assert_same(&listening.after_the_device(), &sent);
}

/// A tun has no Ethernet headers: its packets are not taken for frames.
fn any_other_types() {
    let bench = Bench::new();
    let inside = &bench.inside;
    inside.ip(&["tuntap", "add", "tun9", "mode", "tun"]);
    inside.quiet("tun9");
    inside.ip(&["link", "set", "tun9", "up"]);
    let daemon = Daemon::start(inside, &config("any", "", ""));
    let beside = Listening::start(inside, "tun9");
    // IPv4 packets, as they are.
    let packets: Vec<_> = (0..20)
        .map(|n| frames::udp(n, 53, 200)[14..].to_vec())
        .collect();
    let sender = Sender::open(inside, "tun9");
    for packet in &packets {
        // Nobody reads the tun; what is sent is seen all the same, or refused without a carrier.
        let _ = sender.try_send(packet);
    }
    bench.sender().send(&frames::mixed(30, 1514));
    let stats = arrived(&daemon, 30);
    assert_eq!(up(&stats).rx.dropped.len(), 0, "{stats:#?}");
    daemon.stop().explained();
    drop(beside);
}

/// A daemon whose sources are held back until something listens on lc0, so that the ring fills.
fn held(bench: &Bench, up: &str) -> Daemon {
    let text = config("up0", up, "wait_for_consumer = \"1m\"");
    let mut daemon = Daemon::start(&bench.inside, &text);
    daemon.wait_for("sources wait up to");
    daemon
}

fn kernel_drops() {
    let bench = Bench::new();
    let daemon = held(&bench, "buffer = \"256KiB\"");
    let beside = Listening::start(&bench.inside, "up0");
    let sent: Vec<_> = (0..2_000).map(|n| frames::udp(n, 53, 1_000)).collect();
    bench.sender().send(&sent);
    // They are in the ring, or were dropped, when another socket has them.
    assert_eq!(beside.wait_for(sent.len(), LIMIT).len(), sent.len());
    let stats = daemon.stats();
    let lost = dropped(up(&stats), "kernel_full");
    assert!((1_000..2_000).contains(&lost), "{stats:#?}");
    assert_eq!(up(&stats).rx.frames, lost, "nothing was read");
    assert_eq!(up(&stats).kernel.get("rx_dropped"), Some(&lost));

    let listening = Listening::start(&bench.inside, "lc0");
    let stats = arrived(&daemon, sent.len() as u64);
    assert_eq!(dropped(up(&stats), "kernel_full"), lost);
    let written = daemon::port(&stats, "lc0").tx.frames;
    assert_eq!(written + lost, sent.len() as u64);
    listening.wait_for(written as usize, LIMIT);
    daemon.stop().explained();
    // Those for which there was room, whole and in order.
    let heard = listening.after_the_device();
    let mut rest = sent.iter();
    for frame in &heard {
        assert!(rest.any(|sent| sent == frame), "changed, twice or late");
    }
    assert_eq!(heard.len() as u64, written);
}

fn left_in_the_ring() {
    let bench = Bench::new();
    let daemon = held(&bench, "");
    let beside = Listening::start(&bench.inside, "up0");
    let sent = frames::mixed(500, 1514);
    bench.sender().send(&sent);
    assert_eq!(beside.wait_for(sent.len(), LIMIT).len(), sent.len());
    let stats = daemon.stop().explained();
    let up = up(&stats);
    assert_eq!((up.rx.frames, dropped(up, "shutdown")), (500, 500));
}

fn too_long() {
    let bench = Bench::new();
    let daemon = start(&bench, "mtu = 500");
    let sent = frames::mixed(700, 1514);
    bench.sender().send(&sent);
    let stats = arrived(&daemon, 700);
    // An Ethernet header and two tags go beside the MTU.
    let long = sent.iter().filter(|frame| frame.len() > 522).count() as u64;
    assert_eq!(dropped(up(&stats), "too_long"), long);
    assert_eq!(daemon::port(&stats, "lc0").tx.frames, 700 - long);
    let bytes: usize = sent.iter().map(Vec::len).sum();
    assert_eq!(up(&stats).rx.bytes, bytes as u64, "as long as they were");
    assert!(daemon.stderr().contains("longer than the 522 that fit"));
    daemon.stop().explained();
}

fn lines_with(daemon: &Daemon, words: &str) -> usize {
    let said = daemon.stderr();
    said.lines().filter(|line| line.contains(words)).count()
}

fn is_up(daemon: &Daemon, expected: bool) {
    daemon.stats_when(LIMIT, |stats| up(stats).up == expected);
}

/// The socket stays, and no frame of the first moment is missing.
fn down_and_up() {
    let bench = Bench::new();
    let daemon = start(&bench, "promiscuous = true");
    let mut sent = 0;
    for round in 1..=3 {
        bench.sender().send(&frames::mixed(100, 1514));
        sent += 100;
        arrived(&daemon, sent);
        bench.inside.ip(&["link", "set", "up0", "down"]);
        is_up(&daemon, false);
        bench.inside.ip(&["link", "set", "up0", "up"]);
        bench.sender().send(&frames::mixed(100, 1514));
        sent += 100;
        arrived(&daemon, sent);
        is_up(&daemon, true);
        for words in ["port up: up0 is down", "port up: up0 is up again"] {
            assert_eq!(lines_with(&daemon, words), round, "{}", daemon.stderr());
        }
    }
    assert_eq!(lines_with(&daemon, "is back"), 0);
    assert_eq!(promiscuity(&bench.inside, "up0"), 1);
    daemon.stop().explained();
}

fn quiet() {
    let bench = Bench::new();
    bench.inside.address("up0", "10.0.0.2/24");
    let daemon = Daemon::spawn_flags(&bench.inside, &["-q", "-i", "up0"]);
    let state = |up: &str| {
        let words = format!("  {up}  ");
        let shows = |line: &str| line.starts_with("up0") && line.contains(&words);
        let told = wait_until(LIMIT, || {
            let answer = daemon.dpctl(&["ports"]).stdout;
            String::from_utf8_lossy(&answer).lines().any(shows)
        });
        assert!(told, "{up}: {}", daemon.stderr());
    };
    state("up");
    bench.inside.ip(&["link", "set", "up0", "down"]);
    state("DOWN");
    bench.inside.ip(&["link", "set", "up0", "up"]);
    state("up");
    let ended = daemon.stop();
    assert!(ended.stderr.contains("up0 is down"), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

fn removed() {
    let bench = Bench::new();
    let daemon = start(&bench, "promiscuous = true");
    for round in 1..=3 {
        bench.sender().send(&frames::mixed(100, 1514));
        arrived(&daemon, round * 100);
        bench.inside.ip(&["link", "del", "up0"]);
        is_up(&daemon, false);
        bench.inside.veth("up0", &bench.outside, "out0");
        is_up(&daemon, true);
        let back = wait_until(LIMIT, || {
            lines_with(&daemon, "port up is back") == round as usize
        });
        assert!(back, "{}", daemon.stderr());
        assert_eq!(lines_with(&daemon, "up0 is gone"), round as usize);
        assert_eq!(promiscuity(&bench.inside, "up0"), 1);
    }
    bench.sender().send(&frames::mixed(100, 1514));
    arrived(&daemon, 400);
    daemon.stop().explained();
}
