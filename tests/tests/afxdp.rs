//! Interface -> policy -> TAP: frames arrive by AF_XDP over a veth, allowed ones are heard on lc0 byte
//! for byte, all others are counted with their reason.

use std::{process::ExitCode, time::Duration};

use control::stats::{PipelineStats, Stats};
use dataplane::packet::{
    build::{Extension, FragmentField, FrameBuilder, Icmp, Ipv4, Ipv6, Tag},
    tcp_flags,
};
use tests::{
    Bench, Need, Netns, Theme,
    bench::in_flight,
    capture::{self, Listening},
    daemon,
    frames::{self, CLIENT, SERVER},
    process::run,
    send::Sender,
};

const LISTEN: &[Need] = &[Need::Root, Need::Tool("tcpdump")];
const ROOT: &[Need] = &[Need::Root];

/// How long frames may take through a busy machine.
const LIMIT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let mut theme = Theme::new();
    for mode in ["auto", "copy", "skb"] {
        theme.test(format!("allowed_and_denied_{mode}"), LISTEN, move || {
            allowed_and_denied(mode);
        });
    }
    theme.test("everything_without_a_policy", LISTEN, everything);
    theme.test("every_reason", LISTEN, every_reason);
    theme.test("replies", LISTEN, replies);
    theme.test("arp_refused", ROOT, arp_refused);
    theme.test("queues", LISTEN, queues);
    theme.test("offloaded_tag_is_named", LISTEN, offloaded_tag);
    theme.test("ten_thousand_frames", ROOT, many);
    theme.test(
        "bursts_into_an_idle_worker",
        ROOT,
        bursts_into_an_idle_worker,
    );
    theme.run()
}

/// Sends frames through a daemon; answers with what was heard on lc0, the last counters, and what the
/// daemon said.
fn pass(
    bench: &Bench,
    port: &str,
    policy: Option<&str>,
    sent: &[Vec<u8>],
) -> (Vec<Vec<u8>>, Stats, String) {
    let daemon = bench.start(port, policy);
    let listening = Listening::start(&bench.inside, "lc0");
    bench.sender().send(sent);
    let stats = daemon.stats_when(LIMIT, |stats| {
        let up = &daemon::port(stats, "up").rx;
        up.frames == sent.len() as u64 && in_flight(stats) == 0
    });
    daemon::assert_explained(&stats);
    let written = daemon::port(&stats, "lc0").tx.frames as usize;
    listening.wait_for(written, LIMIT);
    let ended = daemon.stop();
    let said = ended.stderr.clone();
    let heard = listening.after_the_device();
    (heard, ended.explained(), said)
}

fn dropped(pipeline: &PipelineStats, reason: &str) -> u64 {
    pipeline.dropped.get(reason).copied().unwrap_or(0)
}

fn allowed_and_denied(mode: &str) {
    let bench = Bench::new();
    let allowed = frames::mixed(200, 1514);
    let denied: Vec<_> = (0..100).map(|n| frames::udp(n, 5353, 200)).collect();
    // Two of one kind and one of the other, in turns.
    let mut sent = Vec::new();
    for (two, one) in allowed.chunks(2).zip(&denied) {
        sent.extend_from_slice(two);
        sent.push(one.clone());
    }
    let policy = "allow = [{ proto = \"udp\", to = \"10.0.0.2\", ports = \"53\" }]";
    let (heard, stats, said) = pass(&bench, &format!("mode = \"{mode}\""), Some(policy), &sent);
    capture::assert_same(&heard, &allowed);
    let pipeline = &stats.pipelines[0];
    assert_eq!((pipeline.received, pipeline.judged), (300, 300));
    assert_eq!((pipeline.forwarded, pipeline.unjudged), (200, 0));
    assert_eq!(dropped(pipeline, "not_allowed"), 100, "{stats:#?}");
    let lc0 = daemon::port(&stats, "lc0");
    let bytes: usize = allowed.iter().map(Vec::len).sum();
    assert_eq!((lc0.tx.frames, lc0.tx.bytes), (200, bytes as u64));
    // A veth copies; which program runs is told apart.
    let granted = match mode {
        "skb" => "skb copy",
        _ => "copy",
    };
    assert_eq!(daemon::port(&stats, "up").mode, granted);
    assert!(said.contains(&format!("port up: {granted}")), "{said}");
}

fn everything() {
    let bench = Bench::new();
    let mut sent = frames::mixed(100, 1514);
    sent.push(frames::arp());
    sent.push(vec![0xff; 14]);
    sent.push(vec![0xff; 1514]);
    let (heard, stats, _) = pass(&bench, "", None, &sent);
    capture::assert_same(&heard, &sent);
    let pipeline = &stats.pipelines[0];
    assert_eq!((pipeline.unjudged, pipeline.judged), (sent.len() as u64, 0));
}

/// A frame for each thing that can be wrong, one that is right, and the reason.
fn judged() -> Vec<(&'static str, Vec<u8>)> {
    let ip = |fragment| {
        let header = Ipv4 {
            fragment,
            ..Ipv4::new(CLIENT, SERVER)
        };
        FrameBuilder::new().ipv4(header)
    };
    let built = |frame: &FrameBuilder<'_>| frame.to_vec().expect("short enough");
    let whole = ip(FragmentField::WHOLE).udp(40_000, 53).payload(&[7; 100]);
    let later = FragmentField {
        offset: 25,
        more: false,
    };
    let v6 = |extensions| Ipv6 {
        extensions,
        ..Ipv6::new(
            "fd00::1".parse().expect("v6"),
            "fd00::2".parse().expect("v6"),
        )
    };
    let later_v6 = [Extension::Fragment(later, 9)];
    let mut short = built(&whole);
    // Two bytes of UDP, and an IPv4 header that says so.
    short.truncate(36);
    short[16..18].copy_from_slice(&22_u16.to_be_bytes());
    let mut contradicting = built(&whole);
    // The IPv4 total length says more than there is.
    contradicting[16..18].copy_from_slice(&1_000_u16.to_be_bytes());
    let mut version = built(&whole);
    version[14] = 0x65;
    let tags = [Tag::service(5), Tag::customer(42)];
    vec![
        ("", built(&whole)),
        ("", built(&whole.clone().tags(&tags[1..]))),
        ("", built(&whole.clone().tags(&tags))),
        ("", frames::arp()),
        (
            "",
            built(&ip(FragmentField::FIRST).udp(40_000, 53).payload(&[1; 200])),
        ),
        (
            "",
            built(&FrameBuilder::new().ipv6(v6(&[])).udp(1, 53).payload(b"six")),
        ),
        ("fragment", built(&ip(later).raw(17).payload(&[2; 200]))),
        (
            "fragment",
            built(
                &FrameBuilder::new()
                    .ipv6(v6(&later_v6))
                    .raw(17)
                    .payload(&[2; 64]),
            ),
        ),
        (
            "not_allowed",
            built(&ip(FragmentField::WHOLE).udp(53, 40_000).payload(&[7; 40])),
        ),
        ("truncated", short),
        ("bad_length", contradicting),
        ("bad_header", version),
        (
            "unknown_ethertype",
            built(&FrameBuilder::new().other(0x88b5).payload(&[1; 60])),
        ),
        (
            "unknown_protocol",
            built(&ip(FragmentField::WHOLE).raw(253).payload(&[1; 60])),
        ),
    ]
}

fn every_reason() {
    let bench = Bench::new();
    let cases = judged();
    let sent: Vec<_> = cases.iter().map(|(_, frame)| frame.clone()).collect();
    let passing = cases.iter().filter(|(reason, _)| reason.is_empty());
    let passing: Vec<_> = passing.map(|(_, frame)| frame.clone()).collect();
    let policy = "allow = [{ proto = \"udp\", ports = \"53\" }]";
    let (heard, stats, _) = pass(&bench, "", Some(policy), &sent);
    capture::assert_same(&heard, &passing);
    let mut want = std::collections::BTreeMap::new();
    for (reason, _) in cases.iter().filter(|(reason, _)| !reason.is_empty()) {
        *want.entry((*reason).to_owned()).or_insert(0_u64) += 1;
    }
    let mut got = stats.pipelines[0].dropped.clone();
    got.retain(|_, n| *n > 0);
    assert_eq!(got, want);
}

fn replies() {
    let bench = Bench::new();
    let (client, server) = ((CLIENT, 40_000), (SERVER, 80));
    let there = |flags| frames::tcp(client, server, flags);
    let back = |flags| frames::tcp(server, client, flags);
    // Echo is kind 8, its reply kind 0.
    let echo = |from, to, kind| {
        let icmp = Icmp {
            kind,
            ..Icmp::default()
        };
        let frame = FrameBuilder::new().ipv4(Ipv4::new(from, to)).icmp(icmp);
        frame.pad_to(60).to_vec().expect("short enough")
    };
    let passing = [
        there(tcp_flags::SYN),
        back(tcp_flags::SYN | tcp_flags::ACK),
        there(tcp_flags::ACK),
        back(tcp_flags::RST),
        echo(CLIENT, SERVER, 8),
        echo(SERVER, CLIENT, 0),
    ];
    let denied = [
        back(tcp_flags::SYN),
        back(0),
        frames::tcp((SERVER, 81), client, tcp_flags::ACK),
        echo(SERVER, CLIENT, 8),
        echo(CLIENT, SERVER, 0),
    ];
    let sent: Vec<_> = passing.iter().chain(&denied).cloned().collect();
    let policy = "allow = [
        { proto = \"tcp\", to = \"10.0.0.2\", ports = \"80\", replies = true },
        { proto = \"icmp\", icmp = \"echo\", to = \"10.0.0.2\", replies = true },
    ]";
    let (heard, stats, _) = pass(&bench, "", Some(policy), &sent);
    capture::assert_same(&heard, &passing);
    assert_eq!(
        dropped(&stats.pipelines[0], "not_allowed"),
        denied.len() as u64
    );
}

fn arp_refused() {
    let bench = Bench::new();
    let sent = [frames::arp(), frames::udp(1, 53, 60)];
    let (_, stats, _) = pass(
        &bench,
        "",
        Some("arp = false\nallow = [{ proto = \"udp\" }]"),
        &sent,
    );
    let pipeline = &stats.pipelines[0];
    assert_eq!(
        (dropped(pipeline, "arp"), pipeline.forwarded),
        (1, 1),
        "{stats:#?}"
    );
}

/// A veth with four queues: frames of all of them arrive.
fn queues() {
    let (inside, outside) = (Netns::new(), Netns::new());
    inside.veth_with_queues("up0", &outside, "out0", 4);
    let bench = Bench { inside, outside };
    // Which queue a frame takes is a hash of its flow: many flows, all queues.
    let flow = |n: u32| {
        let from = std::net::Ipv4Addr::from(0x0a01_0000 + n);
        let frame = FrameBuilder::new().ipv4(Ipv4::new(from, SERVER));
        frame
            .udp(1_024 + n as u16, 53)
            .payload(&n.to_be_bytes())
            .pad_to(60)
            .to_vec()
    };
    let sent: Vec<_> = (0..400).map(|n| flow(n).expect("short enough")).collect();
    let daemon = bench.start("", None);
    let info = daemon.dpctl_ok(&["ports", "--json"]);
    let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
    let up = info
        .as_array()
        .expect("a list")
        .iter()
        .find(|p| p["name"] == "up")
        .expect("up");
    assert_eq!(up["queues"], serde_json::json!([0, 1, 2, 3]), "{info:#}");
    let listening = Listening::start(&bench.inside, "lc0");
    bench.sender().send(&sent);
    daemon.stats_when(LIMIT, |stats| daemon::port(stats, "lc0").tx.frames == 400);
    listening.wait_for(400, LIMIT);
    daemon.stop().explained();
    // Order holds within a queue only.
    let (mut heard, mut want) = (listening.after_the_device(), sent);
    heard.sort();
    want.sort();
    capture::assert_same(&heard, &want);
}

/// A bridge takes the tag out of a frame and leaves it to the device that sends it: XDP does not see it.
/// The dataplane cannot reach the peer, and names the command that mends it; once it is run, the tag is
/// there.
fn offloaded_tag() {
    let bench = Bench::new();
    let outside = &bench.outside;
    outside.veth("src0", outside, "src1");
    outside.ip(&[
        "link",
        "add",
        "br0",
        "type",
        "bridge",
        "mcast_snooping",
        "0",
    ]);
    outside.quiet("br0");
    for port in ["src1", "out0"] {
        outside.ip(&["link", "set", port, "master", "br0"]);
    }
    outside.ip(&["link", "set", "br0", "up"]);
    let tagged = FrameBuilder::new()
        .tags(&[Tag::customer(42)])
        .ipv4(Ipv4::new(CLIENT, SERVER))
        .udp(40_000, 53)
        .payload(&[5; 60])
        .to_vec()
        .expect("short enough");

    let mut daemon = bench.start("", None);
    let listening = Listening::start(&bench.inside, "lc0");
    daemon.wait_for("; run: ");
    let through = |frames: usize| {
        Sender::open(outside, "src0").send(std::slice::from_ref(&tagged));
        listening.wait_for(frames, LIMIT)
    };
    let hidden = through(1);
    assert_eq!(hidden.len(), 1, "{}", daemon.stderr());
    assert_eq!(
        hidden[0].len() + 4,
        tagged.len(),
        "the tag was not offloaded at all"
    );
    let said = daemon.stderr();
    let remedy = said.lines().find_map(|line| line.split("; run: ").nth(1));
    run("sh", &["-c", remedy.expect("waited for")]);
    assert_eq!(through(2).last(), Some(&tagged));
    daemon.stop().explained();
}

fn many() {
    let bench = Bench::new();
    let sent: Vec<_> = (0..10_000).map(|n| frames::udp(n, 53, 60)).collect();
    let daemon = bench.start("", Some("allow = [{ proto = \"udp\", ports = \"53\" }]"));
    bench.sender().send(&sent);
    let stats = daemon.stats_when(LIMIT, |stats| {
        daemon::port(stats, "up").rx.frames == 10_000 && in_flight(stats) == 0
    });
    daemon::assert_explained(&stats);
    daemon.stop().explained();
}

/// A thousand frames at once, each time after the worker has gone to sleep: none is lost.
fn bursts_into_an_idle_worker() {
    const BURST: u64 = 1000;
    let bench = Bench::new();
    let daemon = bench.start("", None);
    let sender = bench.sender();
    let frames: Vec<_> = (0..BURST).map(|n| frames::udp(n as u32, 53, 64)).collect();
    for burst in 1..=5 {
        sender.send(&frames);
        let stats = daemon.stats_when(LIMIT, |stats| {
            daemon::port(stats, "up").rx.frames == burst * BURST && in_flight(stats) == 0
        });
        daemon::assert_explained(&stats);
        let (up, lc0) = (daemon::port(&stats, "up"), daemon::port(&stats, "lc0"));
        assert_eq!(lc0.tx.frames, burst * BURST, "burst {burst}\n{stats:#?}");
        assert!(up.rx.dropped.is_empty(), "burst {burst}\n{stats:#?}");
    }
    daemon.stop().explained();
}
