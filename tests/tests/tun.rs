//! Devices of layer 3: a TUN as a sink carries the IP packets of frames and nothing else, as a source what the
//! host sends, with an Ethernet header; two hosts talk TCP through them.

use std::{fs, net::Ipv6Addr, path::Path, process::ExitCode, time::Duration};

use dataplane::{
    packet::build::{FrameBuilder, Ipv6},
    port::tap::{DESTINATION_ADDRESS, SOURCE_ADDRESS},
};
use tests::{
    Need, Netns, Theme,
    bench::in_flight,
    capture::{self, Listening},
    daemon::{self, Daemon},
    frames, http,
    send::Sender,
};

const LISTEN: &[Need] = &[Need::Root, Need::Tool("tcpdump")];
const CURL: &[Need] = &[Need::Root, Need::Tool("curl")];

/// How long frames may take through a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// How long a connection that is not allowed is tried.
const TRIED: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let mut theme = Theme::new();
    theme.test("a_listener_hears_packets", LISTEN, a_listener_hears_packets);
    theme.test("a_host_is_silent", LISTEN, || answers(true));
    theme.test("a_host_that_is_not_passive_answers", LISTEN, || {
        answers(false)
    });
    theme.test("what_the_host_sends_is_judged", LISTEN, judged);
    for (name, kind) in PARTNERS {
        theme.test(format!("tcp_with_{name}"), CURL, || tcp(*kind));
    }
    theme.run()
}

/// A UDP frame over IPv6, padded as Ethernet does it.
fn udp6(number: u32, length: usize) -> Vec<u8> {
    let address = |host| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host);
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(length, 0xa5);
    FrameBuilder::new()
        .ipv6(Ipv6::new(address(1), address(2)))
        .udp(40_000, 53)
        .payload(&payload)
        .pad_to(60)
        .to_vec()
        .expect("short enough")
}

/// A frame with a VLAN tag put into it.
fn tagged(mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0, 0, 42]);
    frame
}

/// The packet of a frame with so many bytes of headers before it, as long as its own header says.
fn packet(frame: &[u8], headers: usize) -> Vec<u8> {
    let packet = &frame[headers..];
    let field = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    let length = match packet[0] >> 4 {
        4 => field(2),
        _ => 40 + field(4),
    };
    packet[..length].to_vec()
}

fn config(file: &Path, tun: &str) -> String {
    format!(
        "[ports.sample]\nkind = \"pcap\"\npath = \"{}\"\npace = \"top\"\n\
         [ports.lc0]\nkind = \"tap\"\ntype = \"tun\"\nwait_for_consumer = \"20s\"\n{tun}\n\
         [[pipelines]]\nfrom = [\"sample\"]\nto = [\"lc0\"]\n",
        file.display()
    )
}

/// Frames of all sorts: the packets of those with IP are heard, byte for byte, the others are counted.
fn a_listener_hears_packets() {
    /// With what a broken sender might put on a wire.
    fn broken(kind: [u8; 2], packet: &[u8]) -> Vec<u8> {
        [&[2; 12], &kind[..], packet].concat()
    }
    let ns = Netns::new();
    let mut all = Vec::new();
    let mut heard = Vec::new();
    for number in 0..200 {
        let v4 = frames::udp(number, 53, 42 + number as usize * 7);
        let v6 = udp6(number, number as usize);
        for (frame, headers) in [
            (tagged(tagged(v4.clone())), 22),
            (v4, 14),
            (tagged(v6.clone()), 18),
            (v6, 14),
        ] {
            heard.push(packet(&frame, headers));
            all.push(frame);
        }
        // 14 + 1,501 bytes, then what is not IP, then what only says so.
        all.push(frames::udp(number, 53, 1515));
        all.push(frames::arp());
        all.push(broken([0, 46], &[0x45; 46]));
        all.push(broken([0x08, 0], &[0x65; 60]));
        all.push(broken([0x86, 0xdd], &[0x60; 39]));
        all.push(vec![0; 13]);
    }
    let folder = daemon::folder();
    let file = folder.path().join("sample.pcap");
    capture::write(&file, &all);
    let daemon = Daemon::start(&ns, &config(&file, ""));
    let link = ns.ip(&["-details", "link", "show", "lc0"]);
    for fact in ["link/none", "NOARP", "tun type tun", "mtu 1500"] {
        assert!(link.contains(fact), "{fact}: {link}");
    }
    let listening = Listening::start(&ns, "lc0");
    let stats = daemon.wait(LIMIT).explained();
    let (sample, lc0) = (daemon::port(&stats, "sample"), daemon::port(&stats, "lc0"));
    capture::assert_same(&listening.after_the_device(), &heard);
    assert_eq!(sample.rx.frames, all.len() as u64);
    assert_eq!(lc0.tx.frames, heard.len() as u64);
    let bytes: usize = heard.iter().map(Vec::len).sum();
    assert_eq!(lc0.tx.bytes, bytes as u64, "{stats:#?}");
    let dropped = |reason: &str| {
        let of = |dropped: &control::stats::Dropped| dropped.get(reason).copied().unwrap_or(0);
        of(&sample.rx.dropped) + of(&lc0.tx.dropped)
    };
    assert_eq!(dropped("too_long"), 200, "{stats:#?}");
    assert_eq!(dropped("not_ip") + dropped("too_short"), 1000, "{stats:#?}");
    assert!(dropped("not_ip") >= 800, "{stats:#?}");
}

/// Packets for the host itself, on a port where nobody listens: it answers them unless it is kept from it.
fn answers(passive: bool) {
    let ns = Netns::new();
    let sent: Vec<_> = (0..50).map(|n| frames::udp(n, 53, 100)).collect();
    let packets: Vec<_> = sent.iter().map(|frame| packet(frame, 14)).collect();
    let folder = daemon::folder();
    let file = folder.path().join("sample.pcap");
    capture::write(&file, &sent);
    let daemon = Daemon::start(&ns, &config(&file, &format!("passive = {passive}")));
    ns.address("lc0", "10.0.0.2/24");
    let listening = Listening::start(&ns, "lc0");
    let stats = daemon.wait(LIMIT).explained();
    assert_eq!(daemon::port(&stats, "lc0").tx.frames, 50);
    let heard = listening.after_the_device();
    if passive {
        capture::assert_same(&heard, &packets);
    } else {
        assert!(heard.len() > packets.len(), "no answer");
    }
}

/// What the host sends into a TUN is received in order and judged; what is heard behind it has a header.
fn judged() {
    let ns = Netns::new();
    let daemon = Daemon::start(
        &ns,
        r#"
        [ports.in0]
        kind = "tap"
        type = "tun"
        [ports.lc0]
        kind = "tap"
        [ports.lc1]
        kind = "tap"
        type = "tun"
        [policies.p]
        arp = false
        allow = [{ proto = "udp", to = "10.0.0.2", ports = "53" }]
        [[pipelines]]
        from = ["in0"]
        policy = "p"
        to = ["lc0", "lc1"]
        "#,
    );
    let lines = daemon.dpctl_ok(&["ports"]);
    for (name, mode) in [("in0", "tun"), ("lc0", "-"), ("lc1", "tun")] {
        let line = lines.lines().find(|line| line.starts_with(name));
        let columns: Vec<_> = line.expect("a line").split_whitespace().collect();
        assert_eq!(columns[4], mode, "{lines}");
    }
    let (framed, bare) = (Listening::start(&ns, "lc0"), Listening::start(&ns, "lc1"));
    let allowed: Vec<_> = frames::mixed(200, 1514)
        .iter()
        .map(|frame| packet(frame, 14))
        .collect();
    let denied = packet(&frames::udp(1, 5353, 200), 14);
    // No IP at all: the device takes it from a packet socket.
    let other = vec![0x75; 60];
    let sender = Sender::open(&ns, "in0");
    for two in allowed.chunks(2) {
        sender.send(two);
        sender.send(&[denied.clone(), other.clone()]);
    }
    // The host's own IPv6 speaks there as well, and is denied.
    let stats = daemon.stats_when(LIMIT, |stats| {
        daemon::port(stats, "in0").rx.frames >= 400 && in_flight(stats) == 0
    });
    daemon::assert_explained(&stats);
    let in0 = daemon::port(&stats, "in0");
    assert_eq!(in0.rx.forwarded, 200, "{stats:#?}");
    assert_eq!(in0.rx.dropped["not_ip"], 100, "{stats:#?}");
    assert!(in0.rx.dropped["not_allowed"] >= 100, "{stats:#?}");
    for lc in ["lc0", "lc1"] {
        assert_eq!(daemon::port(&stats, lc).tx.frames, 200, "{lc}");
    }
    framed.wait_for(200, LIMIT);
    bare.wait_for(200, LIMIT);
    daemon.stop().explained();
    let frames: Vec<_> = allowed
        .iter()
        .map(|packet| {
            [
                &DESTINATION_ADDRESS[..],
                &SOURCE_ADDRESS,
                &[0x08, 0],
                packet,
            ]
            .concat()
        })
        .collect();
    capture::assert_same(&framed.after_the_device(), &frames);
    capture::assert_same(&bare.after_the_device(), &allowed);
}

/// What a TUN is connected with.
#[derive(Clone, Copy)]
enum Partner {
    Tun,
    Tap,
    AfXdp,
}

const PARTNERS: &[(&str, Partner)] = &[
    ("tun", Partner::Tun),
    ("tap", Partner::Tap),
    ("af_xdp", Partner::AfXdp),
];

/// client 10.0.0.1 on a TUN | dataplane | 10.0.0.2 server: a page comes through, and nothing else does.
fn tcp(partner: Partner) {
    let (client, middle, server) = (Netns::new(), Netns::new(), Netns::new());
    let device = match partner {
        Partner::Tun => format!(
            "kind = \"tap\"\ntype = \"tun\"\nname = \"s0\"\nnetns = \"{}\"",
            server.name()
        ),
        Partner::Tap => format!(
            "kind = \"tap\"\nname = \"s0\"\nnetns = \"{}\"",
            server.name()
        ),
        Partner::AfXdp => {
            middle.veth("b0", &server, "s0");
            format!(
                "kind = \"af_xdp\"\ninterface = \"b0\"\nnetns = \"{}\"",
                middle.name()
            )
        }
    };
    let text = format!(
        r#"
        [ports.client]
        kind = "tap"
        type = "tun"
        name = "c0"
        netns = "{}"
        [ports.server]
        {device}
        [policies.web]
        allow = [{{ proto = "tcp", to = "10.0.0.2", ports = "8080", replies = true }}]
        [[pipelines]]
        from = ["client"]
        policy = "web"
        to = ["server"]
        [[pipelines]]
        from = ["server"]
        policy = "web"
        to = ["client"]
        "#,
        client.name(),
    );
    let daemon = Daemon::spawn_here(&text).ready();
    client.address("c0", "10.0.0.1/24");
    server.address("s0", "10.0.0.2/24");
    if !matches!(partner, Partner::Tun) {
        // An Ethernet host: packets are addressed to it, and it knows whom to answer without asking.
        let address = |bytes: [u8; 6]| bytes.map(|byte| format!("{byte:02x}")).join(":");
        server.ip(&[
            "link",
            "set",
            "s0",
            "address",
            &address(DESTINATION_ADDRESS),
        ]);
        let neighbour = address(SOURCE_ADDRESS);
        server.ip(&[
            "neighbour",
            "replace",
            "10.0.0.1",
            "lladdr",
            &neighbour,
            "dev",
            "s0",
        ]);
    }
    let page = http::page(5 << 20);
    let _server = http::Server::start(&server, 8080, page.clone());
    let _denied = http::Server::start(&server, 8081, page.clone());
    let file = daemon.folder().join("page");
    let got = http::get(&client, "http://10.0.0.2:8080/page", &file, LIMIT);
    let said = String::from_utf8_lossy(&got.stderr);
    assert!(got.status.success(), "curl: {said}\n{:#?}", daemon.stats());
    assert!(
        fs::read(&file).expect("curl's file") == *page,
        "another page"
    );
    let refused = http::get(&client, "http://10.0.0.2:8081/", &file, TRIED);
    assert_eq!(
        refused.status.code(),
        Some(28),
        "a port that is not allowed"
    );
    let stats = daemon.stop().explained();
    let [there, back] = &stats.pipelines[..] else {
        panic!("two pipelines: {stats:#?}");
    };
    let sink = |name| &daemon::port(&stats, name).tx;
    assert_eq!(sink("server").offered, there.forwarded);
    assert_eq!(sink("client").offered, back.forwarded);
    assert!(there.dropped["not_allowed"] > 0, "{stats:#?}");
}
