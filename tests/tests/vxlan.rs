//! VXLAN against the kernel's own device, in both directions and over both IP versions: frames byte for
//! byte, outer headers as set, hostile datagrams counted, frames too long for the way, TCP through it.

use std::{
    collections::{HashMap, HashSet},
    fs,
    net::{SocketAddr, UdpSocket},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use control::{
    link::netns::{NetNs, in_netns},
    stats::Stats,
};
use nix::sys::signal::Signal;
use tests::{
    Need, Netns, Theme,
    bench::in_flight,
    capture::{self, Listening},
    daemon::{self, Daemon, binary},
    frames, http,
    send::Sender,
    wait_until,
};

const ROOT: &[Need] = &[Need::Root];
const LISTEN: &[Need] = &[Need::Root, Need::Tool("tcpdump")];
const TSHARK: &[Need] = &[Need::Root, Need::Tool("tcpdump"), Need::Tool("tshark")];
const TC: &[Need] = &[Need::Root, Need::Tool("tc")];
const CURL: &[Need] = &[Need::Root, Need::Tool("curl"), Need::Tool("ethtool")];

/// How long frames may take through a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let mut theme = Theme::new();
    for family in [V4, V6] {
        let name = family.name;
        theme.test(format!("to_the_kernel_{name}"), TSHARK, move || {
            to_the_kernel(family)
        });
        theme.test(format!("from_the_kernel_{name}"), LISTEN, move || {
            from_the_kernel(family)
        });
        theme.test(format!("hostile_datagrams_{name}"), ROOT, move || {
            hostile_datagrams(family)
        });
        theme.test(format!("too_long_for_the_way_{name}"), LISTEN, move || {
            too_long(family)
        });
        theme.test(format!("fragmented_on_the_way_{name}"), LISTEN, move || {
            fragmented(family)
        });
    }
    theme.test("received_frames_are_judged", LISTEN, judged);
    theme.test("tcp_through_a_tap", CURL, tcp_through_a_tap);
    theme.test("a_burst_beyond_the_buffer", ROOT, burst);
    for family in [V4, V6] {
        let name = format!("a_queue_of_the_host_that_is_full_{}", family.name);
        theme.test(name, TC, move || full_queue(family));
    }
    theme.test("two_workers_share_the_flows", ROOT, two_workers);
    theme.test("the_link_goes_and_comes_back", ROOT, link_down_and_back);
    theme.test("nobody_listens_at_the_far_end", ROOT, nobody_listens);
    theme.test("a_far_end_that_is_not_there", ROOT, not_there);
    theme.test("a_port_that_is_taken", ROOT, port_taken);
    theme.test("no_way_to_the_far_end", ROOT, no_way);
    theme.run()
}

/// Addresses of one IP version.
#[derive(Clone, Copy)]
struct Family {
    name: &'static str,
    near: &'static str,
    far: &'static str,
    /// Another address of the far side.
    stranger: &'static str,
    prefix: u8,
    /// Of the outer headers, the Ethernet one left out.
    overhead: u32,
}

const V4: Family = Family {
    name: "ipv4",
    near: "192.0.2.1",
    far: "192.0.2.2",
    stranger: "192.0.2.3",
    prefix: 24,
    overhead: 50,
};
const V6: Family = Family {
    name: "ipv6",
    near: "2001:db8::1",
    far: "2001:db8::2",
    stranger: "2001:db8::3",
    prefix: 64,
    overhead: 70,
};

/// The network of the tests.
const VNI: u32 = 4242;

/// Two hosts, `u0` of the one joined to `u1` of the other; on the far one the kernel's device `vx0`.
struct Lab {
    family: Family,
    near: Netns,
    far: Netns,
}

impl Lab {
    /// Links of this MTU between them, and the kernel's device on the far side.
    fn new(family: Family, mtu: u32) -> Self {
        let lab = Self::bare(family, mtu);
        lab.kernel_device(&lab.far, family.far, family.near);
        lab
    }

    /// The links alone.
    fn bare(family: Family, mtu: u32) -> Self {
        let (near, far) = (Netns::new(), Netns::new());
        near.veth("u0", &far, "u1");
        for (ns, link, addresses) in [
            (&near, "u0", &[family.near][..]),
            (&far, "u1", &[family.far, family.stranger]),
        ] {
            ns.ip(&["link", "set", link, "mtu", &mtu.to_string()]);
            for address in addresses {
                let address = format!("{address}/{}", family.prefix);
                let mut add = vec!["address", "add", &address, "dev", link];
                if family.far.contains(':') {
                    // No duplicate address detection: it is there at once.
                    add.push("nodad");
                }
                ns.ip(&add);
            }
        }
        Self { family, near, far }
    }

    /// Makes `vx0` in a namespace.
    fn kernel_device(&self, ns: &Netns, local: &str, remote: &str) {
        let vni = VNI.to_string();
        let mut add = vec!["link", "add", "vx0", "type", "vxlan", "id", &vni];
        add.extend(["dstport", "4789", "local", local, "remote", remote]);
        ns.ip(&add);
        ns.ip(&["link", "set", "vx0", "mtu", "1500"]);
        ns.quiet("vx0");
        ns.ip(&["link", "set", "vx0", "up"]);
    }

    /// The lines of a port `net` to the far end, and more of them.
    fn port(&self, more: &str) -> String {
        format!(
            "[ports.net]\nkind = \"vxlan\"\nvni = {VNI}\nremote = \"{}\"\n{more}\n",
            self.family.far
        )
    }

    /// A configuration that plays a file into the network.
    fn play(&self, file: &Path, port: &str) -> String {
        format!(
            "[ports.sample]\nkind = \"pcap\"\npath = \"{}\"\npace = {{ pps = 4000 }}\n{}\
             [[pipelines]]\nfrom = [\"sample\"]\nto = [\"net\"]\n",
            file.display(),
            self.port(port)
        )
    }

    /// A configuration that hears the network on lc0.
    fn hear(&self, port: &str) -> String {
        format!(
            "{}[ports.lc0]\nkind = \"tap\"\n[[pipelines]]\nfrom = [\"net\"]\nto = [\"lc0\"]\n",
            self.port(port)
        )
    }

    /// A UDP socket of the far side at one of its addresses, connected to the near side's port.
    fn socket(&self, address: &str) -> UdpSocket {
        let there = NetNs::open(self.far.name()).expect("our own namespace");
        let at = SocketAddr::new(address.parse().expect("an address"), 0);
        let to = SocketAddr::new(self.family.near.parse().expect("an address"), 4789);
        in_netns(&there, || {
            let socket = UdpSocket::bind(at)?;
            socket.connect(to).map(|()| socket)
        })
        .expect("our own namespace")
        .unwrap_or_else(|e| panic!("{at} to {to}: {e}"))
    }
}

/// Frames of no IP protocol, of all lengths from the shortest that Ethernet has without its padding.
fn lengths() -> Vec<Vec<u8>> {
    let frame = |length: usize| {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
        frame.extend((14..length).map(|at| (at * 7 + length) as u8));
        frame
    };
    (14..=1514).map(frame).collect()
}

/// The header of a datagram to a network.
fn header(vni: u32) -> [u8; 8] {
    let [_, a, b, c] = vni.to_be_bytes();
    [8, 0, 0, 0, a, b, c, 0]
}

fn dropped(stats: &Stats, port: &str, reason: &str) -> u64 {
    let port = daemon::port(stats, port);
    let of = |dropped: &control::stats::Dropped| dropped.get(reason).copied().unwrap_or(0);
    of(&port.rx.dropped) + of(&port.tx.dropped)
}

/// Frames of all lengths arrive on the kernel's device, and look outside as they should.
fn to_the_kernel(family: Family) {
    let lab = Lab::new(family, 1700);
    // Many flows, among them frames of all lengths.
    let mut sent = lengths();
    sent.extend((0..400).map(|n| flow(n % 100, n)));
    let folder = daemon::folder();
    let file = folder.path().join("sample.pcap");
    capture::write(&file, &sent);
    let inner = Listening::start(&lab.far, "vx0");
    let outer = Listening::start_with(&lab.far, "u1", "udp port 4789");
    let port = "dscp = 10\nttl = 33\ndont_fragment = true\nsource_ports = 8";
    let stats = Daemon::start(&lab.near, &lab.play(&file, port))
        .wait(LIMIT)
        .explained();
    let net = daemon::port(&stats, "net");
    assert_eq!((net.tx.offered, net.tx.frames), (1901, 1901), "{stats:#?}");
    let bytes: usize = sent.iter().map(Vec::len).sum();
    assert_eq!(net.tx.bytes, bytes as u64);
    inner.wait_for(sent.len(), LIMIT);
    outer.wait_for(sent.len(), LIMIT);
    capture::assert_same(&inner.finish(), &sent);
    let outer = outer.finish();
    assert_eq!(outer.len(), sent.len());
    outside(&lab, &outer, &sent);
    decoded(&lab, &outer, folder.path());
}

/// The `n`-th frame, of flow `flow`.
fn flow(flow: u16, n: u16) -> Vec<u8> {
    let mut frame = frames::udp(u32::from(n), 53, 100);
    frame[34..36].copy_from_slice(&(1000 + flow).to_be_bytes());
    frame
}

/// The source port of each datagram follows from the flow; UDP over IPv4 has no checksum.
fn outside(lab: &Lab, outer: &[Vec<u8>], sent: &[Vec<u8>]) {
    let udp = 14 + lab.family.overhead as usize - 30;
    let mut ports: HashMap<&[u8], HashSet<&[u8]>> = HashMap::new();
    for (datagram, frame) in outer.iter().zip(sent) {
        assert_eq!(&datagram[udp + 16..], frame, "in the same order");
        if frame[12..14] == [8, 0] {
            let flow = ports.entry(&frame[34..36]).or_default();
            flow.insert(&datagram[udp..udp + 2]);
        }
        let no_checksum = datagram[udp + 6..udp + 8] == [0, 0];
        assert_eq!(no_checksum, lab.family.name == "ipv4");
    }
    assert_eq!(ports.len(), 100);
    assert!(ports.values().all(|ports| ports.len() == 1), "{ports:?}");
    let all: HashSet<_> = ports.values().flatten().collect();
    assert_eq!(all.len(), 8, "of 100 flows none took one of 8 ports");
}

/// What tshark makes of the datagrams.
fn decoded(lab: &Lab, outer: &[Vec<u8>], folder: &Path) {
    let file = folder.join("outer.pcap");
    capture::write(&file, outer);
    let fields: &[&str] = match lab.family.name {
        "ipv4" => &[
            "vxlan.vni",
            "vxlan.flags",
            "ip.ttl",
            "ip.dsfield.dscp",
            "ip.flags.df",
            "udp.dstport",
        ],
        _ => &[
            "vxlan.vni",
            "vxlan.flags",
            "ipv6.hlim",
            "ipv6.tclass.dscp",
            "ipv6.nxt",
            "udp.dstport",
        ],
    };
    let mut arguments = vec!["-n", "-r", file.to_str().expect("UTF-8"), "-T", "fields"];
    // The outer ones of fields that occur twice.
    arguments.extend(["-E", "occurrence=f"]);
    for field in fields {
        arguments.extend(["-e", field]);
    }
    let text = tests::run("tshark", &arguments);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), outer.len());
    for line in lines {
        let got: Vec<_> = line.split('\t').collect();
        let fifth = if lab.family.name == "ipv4" {
            ["1", "True"]
        } else {
            ["17", "17"]
        };
        assert_eq!(got[..4], ["4242", "0x0800", "33", "10"], "{line}");
        assert!(fifth.contains(&got[4]) && got[5] == "4789", "{line}");
    }
}

/// What the kernel's device sends is heard on lc0.
fn from_the_kernel(family: Family) {
    let lab = Lab::new(family, 1700);
    let daemon = Daemon::start(&lab.near, &lab.hear(""));
    let listening = Listening::start(&lab.near, "lc0");
    let sent = lengths();
    Sender::open(&lab.far, "vx0").send(&sent);
    listening.wait_for(sent.len(), LIMIT);
    let stats = daemon.stop().explained();
    capture::assert_same(&listening.after_the_device(), &sent);
    let net = daemon::port(&stats, "net");
    let bytes: usize = sent.iter().map(Vec::len).sum();
    assert_eq!(
        (net.rx.frames, net.rx.bytes),
        (1501, bytes as u64),
        "{stats:#?}"
    );
    assert_eq!(net.rx.forwarded, 1501, "{stats:#?}");
}

/// Datagrams that no VXLAN device sends, or not to us: each is counted for what is wrong with it.
fn hostile_datagrams(family: Family) {
    let lab = Lab::bare(family, 1700);
    let daemon = Daemon::start(&lab.near, &lab.hear(""));
    let peer = lab.socket(family.far);
    let stranger = lab.socket(family.stranger);
    let good = [&header(VNI)[..], &[7; 60]].concat();
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let cases: &[(u64, &UdpSocket, Vec<u8>, &str)] = &[
        (1, &peer, with(0, 0), "vxlan_header"),
        (2, &peer, with(0, 0x0c), "vxlan_header"),
        (3, &peer, with(2, 1), "vxlan_header"),
        (4, &peer, with(7, 1), "vxlan_header"),
        (5, &peer, Vec::new(), "vxlan_header"),
        (6, &peer, good[..7].to_vec(), "vxlan_header"),
        (7, &peer, with(6, 0), "wrong_vni"),
        (8, &peer, with(4, 1), "wrong_vni"),
        (9, &peer, good[..8].to_vec(), "too_short"),
        (10, &peer, good[..21].to_vec(), "too_short"),
        (
            11,
            &peer,
            [&header(VNI)[..], &[7; 1523]].concat(),
            "too_long",
        ),
        (
            12,
            &peer,
            [&header(VNI)[..], &[7; 9000]].concat(),
            "too_long",
        ),
        (13, &stranger, good.clone(), "wrong_peer"),
        (14, &stranger, Vec::new(), "wrong_peer"),
        (15, &peer, good.clone(), ""),
    ];
    let mut expected: HashMap<&str, u64> = HashMap::new();
    let mut total = 0;
    for (count, socket, bytes, reason) in cases {
        for _ in 0..*count {
            socket.send(bytes).expect("the link is up");
        }
        *expected.entry(reason).or_default() += count;
        total += count;
    }
    daemon.stats_when(LIMIT, |stats| daemon::port(stats, "net").rx.frames >= total);
    let ended = daemon.stop();
    assert!(
        ended
            .stderr
            .contains("net: a datagram holds a frame of more than 1522 bytes"),
        "{}",
        ended.stderr
    );
    let stats = ended.explained();
    let net = daemon::port(&stats, "net");
    assert_eq!(
        (net.rx.frames, net.rx.forwarded),
        (total, expected[""]),
        "{stats:#?}"
    );
    for reason in [
        "vxlan_header",
        "wrong_vni",
        "wrong_peer",
        "too_short",
        "too_long",
    ] {
        assert_eq!(
            dropped(&stats, "net", reason),
            expected[reason],
            "{reason} {stats:#?}"
        );
    }
    assert_eq!(daemon::port(&stats, "lc0").tx.frames, expected[""]);
}

/// A way that is too narrow, and frames that must not be fragmented: those that do not fit are counted and
/// told of, and `--check` has said so before.
fn too_long(family: Family) {
    let lab = Lab::new(family, 1500);
    let sent = lengths();
    let folder = daemon::folder();
    let file = folder.path().join("sample.pcap");
    capture::write(&file, &sent);
    let inner = Listening::start(&lab.far, "vx0");
    let daemon = Daemon::start(&lab.near, &lab.play(&file, "dont_fragment = true"));
    let ended = daemon.wait(LIMIT);
    let said = ended.stderr.clone();
    let stats = ended.explained();
    let largest = 1500 - family.overhead as usize + 14;
    let (fitting, long): (Vec<_>, Vec<_>) = sent.into_iter().partition(|f| f.len() <= largest);
    assert_eq!(long.len(), family.overhead as usize);
    inner.wait_for(fitting.len(), LIMIT);
    capture::assert_same(&inner.finish(), &fitting);
    let net = daemon::port(&stats, "net");
    assert_eq!(net.tx.frames, fitting.len() as u64, "{stats:#?}");
    assert_eq!(dropped(&stats, "net", "too_long"), long.len() as u64);
    assert_eq!(
        said.matches("too long for the way to the peer").count(),
        1,
        "{said}"
    );

    let feeder = "[ports.in0]\nkind = \"tap\"\n[[pipelines]]\nfrom = [\"in0\"]\nto = [\"net\"]\n";
    let fits = 1500 - family.overhead;
    for (more, words) in [
        ("dont_fragment = true", Some("dropped as too_long")),
        ("dont_fragment = false", Some("sent in fragments")),
        (&format!("mtu = {fits}"), None),
    ] {
        let said = check(&lab.near, &format!("{}{feeder}", lab.port(more)));
        let caution = said
            .lines()
            .find(|line| line.starts_with("note: port \"net\""));
        assert_eq!(caution.is_some(), words.is_some(), "{said}");
        if let (Some(caution), Some(words)) = (caution, words) {
            let remedy = format!("mtu = {fits} in [ports.in0]");
            for fragment in [words, &remedy, &format!("mtu {}", 1500 + family.overhead)] {
                assert!(caution.contains(fragment), "{fragment}: {caution}");
            }
        }
    }
}

/// What `--check` prints of a configuration in a namespace.
fn check(ns: &Netns, config: &str) -> String {
    let folder = daemon::folder();
    let file = folder.path().join("dp.toml");
    fs::write(&file, config).expect("a file in our own folder");
    let output = ns
        .tool(binary("dataplane").to_str().expect("UTF-8"))
        .args(["--cores", "0", "--check", "--config"])
        .arg(&file)
        .output();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8") + &String::from_utf8_lossy(&output.stderr)
}

/// The same way, and fragments allowed: everything arrives.
fn fragmented(family: Family) {
    let lab = Lab::new(family, 1500);
    let sent = lengths();
    let folder = daemon::folder();
    let file = folder.path().join("sample.pcap");
    capture::write(&file, &sent);
    let inner = Listening::start(&lab.far, "vx0");
    let stats = Daemon::start(&lab.near, &lab.play(&file, ""))
        .wait(LIMIT)
        .explained();
    assert_eq!(daemon::port(&stats, "net").tx.frames, 1501, "{stats:#?}");
    inner.wait_for(sent.len(), LIMIT);
    capture::assert_same(&inner.finish(), &sent);
}

/// A policy looks at what comes out of the tunnel as at anything else.
fn judged() {
    let lab = Lab::new(V4, 1700);
    let config = lab.port("")
        + "[ports.lc0]\nkind = \"tap\"\n[policies.p]\narp = false\n\
           allow = [{ proto = \"udp\", to = \"10.0.0.2\", ports = \"53\" }]\n\
           [[pipelines]]\nfrom = [\"net\"]\npolicy = \"p\"\nto = [\"lc0\"]\n";
    let daemon = Daemon::start(&lab.near, &config);
    let listening = Listening::start(&lab.near, "lc0");
    let allowed = frames::mixed(200, 1514);
    let sender = Sender::open(&lab.far, "vx0");
    for two in allowed.chunks(2) {
        sender.send(two);
        sender.send(&[frames::udp(0, 5353, 200), frames::arp()]);
    }
    listening.wait_for(allowed.len(), LIMIT);
    daemon.stats_when(LIMIT, |stats| daemon::port(stats, "net").rx.frames >= 400);
    let stats = daemon.stop().explained();
    capture::assert_same(&listening.after_the_device(), &allowed);
    assert_eq!(dropped(&stats, "net", "not_allowed"), 100, "{stats:#?}");
    assert_eq!(dropped(&stats, "net", "arp"), 100, "{stats:#?}");
    assert_eq!(stats.pipelines[0].judged, 400);
}

/// Two hosts talk TCP: one through a TAP and our port, the other through the kernel's device. It leaves
/// checksums to its link, which is none: they are finished.
fn tcp_through_a_tap() {
    let lab = Lab::new(V4, 1700);
    // Nor can a link that is none cut what the kernel has not cut.
    let off = ["-K", "vx0", "tso", "off", "gso", "off"];
    let off = lab.far.tool("ethtool").args(off).output();
    assert!(off.status.success(), "{off:?}");
    lab.far.address("vx0", "10.77.0.2/24");
    let config = lab.port("")
        + "[ports.lc0]\nkind = \"tap\"\n[[pipelines]]\nfrom = [\"net\"]\nto = [\"lc0\"]\n\
           [[pipelines]]\nfrom = [\"lc0\"]\nto = [\"net\"]\n";
    let daemon = Daemon::start(&lab.near, &config);
    lab.near.address("lc0", "10.77.0.1/24");
    let page = http::page(2_000_000);
    let _server = http::Server::start(&lab.far, 8080, Arc::clone(&page));
    let got = daemon.folder().join("page");
    let output = http::get(&lab.near, "http://10.77.0.2:8080/", &got, LIMIT);
    assert!(output.status.success(), "{output:?}\n{}", daemon.stderr());
    assert!(fs::read(&got).expect("the page") == *page, "another page");
    daemon.stats_when(LIMIT, |stats| in_flight(stats) == 0);
    let stats = daemon.stop().explained();
    let net = daemon::port(&stats, "net");
    assert!(net.checksums_finished > 0, "{stats:#?}");
    assert!(net.tx.frames > 0 && net.rx.forwarded > 1_000, "{stats:#?}");
}

/// A worker that is not there to receive: what its socket cannot hold is counted as lost by the kernel, the
/// rest arrives, and what nobody will read at the end is counted too.
fn burst() {
    const SENT: u64 = 60_000;
    let lab = Lab::bare(V4, 1700);
    let daemon = Daemon::start(&lab.near, &lab.hear(""));
    let peer = lab.socket(V4.far);
    let one = [&header(VNI)[..], &frames::udp(0, 53, 100)].concat();
    daemon.signal(Signal::SIGSTOP);
    for _ in 0..SENT {
        peer.send(&one).expect("the link is up");
    }
    daemon.signal(Signal::SIGCONT);
    // Those that were lost are in `frames` as well, see docs/counters.md.
    let stats = daemon.stats_when(LIMIT, |stats| daemon::port(stats, "net").rx.frames >= SENT);
    daemon::assert_explained(&stats);
    let net = daemon::port(&stats, "net");
    let lost = dropped(&stats, "net", "kernel_full");
    assert!(lost > 0 && net.rx.forwarded > 0, "{stats:#?}");
    assert_eq!(net.rx.forwarded + lost, SENT, "{stats:#?}");
    daemon.signal(Signal::SIGSTOP);
    for _ in 0..1_000 {
        peer.send(&one).expect("the link is up");
    }
    daemon.signal(Signal::SIGTERM);
    daemon.signal(Signal::SIGCONT);
    let stats = daemon.wait(LIMIT).explained();
    let net = daemon::port(&stats, "net");
    assert_eq!(net.rx.frames, SENT + 1_000, "{stats:#?}");
}

/// An interface that sends less than comes: what the host's own queue drops is counted, and what counts as
/// written arrives.
fn full_queue(family: Family) {
    const SENT: u64 = 400;
    let lab = Lab::bare(family, 1700);
    // Some sixty datagrams, and a hundred a second.
    let shape = "qdisc add dev u0 root tbf rate 160kbit burst 6000 limit 6000";
    let shaped = lab.near.tool("tc").args(shape.split(' ')).output();
    assert!(shaped.status.success(), "{shaped:?}");
    let there = NetNs::open(lab.far.name()).expect("our own namespace");
    let at = SocketAddr::new(family.far.parse().expect("an address"), 4789);
    let far = in_netns(&there, || UdpSocket::bind(at)).expect("our own namespace");
    let far = far.expect("a free port");
    far.set_read_timeout(Some(LIMIT)).expect("a socket");
    let sent: Vec<_> = (0..SENT as u16).map(|n| flow(n % 100, n)).collect();
    let folder = daemon::folder();
    let file = folder.path().join("sample.pcap");
    capture::write(&file, &sent);
    let stats = Daemon::start(&lab.near, &lab.play(&file, ""))
        .wait(LIMIT)
        .explained();
    let tx = &daemon::port(&stats, "net").tx;
    let full = dropped(&stats, "net", "sink_full");
    assert!(full > 0 && tx.frames > 0, "{stats:#?}");
    assert_eq!((tx.offered, tx.frames + full), (SENT, SENT), "{stats:#?}");
    let mut datagram = [0; 2048];
    for n in 0..tx.frames {
        let received = far.recv(&mut datagram);
        received.unwrap_or_else(|e| panic!("{n} of {} arrived: {e}", tx.frames));
    }
}

/// Two workers have a socket each at one port: every frame comes to one of them, and frames of a flow to the
/// same.
fn two_workers() {
    let lab = Lab::new(V4, 1700);
    let preamble = |socket: &Path| {
        let one = daemon::preamble(socket);
        one.replace("cores = \"0\"", "cores = \"0-1\"")
    };
    let daemon = Daemon::spawn_in(&lab.near, daemon::folder(), &lab.hear(""), preamble).ready();
    let sender = Sender::open(&lab.far, "vx0");
    // The kernel's device chooses its source ports by the flow.
    for n in 0..2_000 {
        sender.send(&[flow(n % 200, n)]);
    }
    daemon.stats_when(LIMIT, |stats| {
        daemon::port(stats, "net").rx.forwarded >= 2_000
    });
    let stats = daemon.stop().explained();
    assert_eq!(daemon::port(&stats, "net").rx.frames, 2_000, "{stats:#?}");
    let counts: Vec<_> = stats.workers.iter().map(|w| w.residence_ns.count).collect();
    assert_eq!(counts.len(), 2, "{stats:#?}");
    assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
}

/// The link under the tunnel goes down and comes back: what is lost is counted as that, and then it goes on.
fn link_down_and_back() {
    let lab = Lab::new(V4, 1700);
    let config = lab.port("local = \"192.0.2.1\"")
        + "[ports.in0]\nkind = \"tap\"\npassive = false\n[[pipelines]]\nfrom = [\"in0\"]\nto = [\"net\"]\n";
    let mut daemon = Daemon::start(&lab.near, &config);
    lab.near.quiet("in0");
    let sender = Sender::open(&lab.near, "in0");
    let ten: Vec<_> = (0..10).map(|n| frames::udp(n, 53, 100)).collect();
    let sent = |stats: &Stats| daemon::port(stats, "net").tx.frames;
    sender.send(&ten);
    let before = sent(&daemon.stats_when(LIMIT, |stats| sent(stats) >= 10));
    for _ in 0..2 {
        lab.near.ip(&["link", "set", "u0", "down"]);
        let down = dropped(&daemon.stats(), "net", "link_down");
        sender.send(&ten);
        daemon.stats_when(LIMIT, |stats| {
            dropped(stats, "net", "link_down") >= down + 10
        });
        lab.near.ip(&["link", "set", "u0", "up"]);
        let had = sent(&daemon.stats());
        daemon.stats_when(LIMIT, |stats| {
            // Until the kernel has seen that the link is there.
            sender.send(&ten);
            sent(stats) >= had + 10
        });
    }
    daemon.wait_for("net: there is no way to the peer");
    daemon.stats_when(LIMIT, |stats| in_flight(stats) == 0);
    let ended = daemon.stop();
    let told = ended.stderr.matches("there is no way to the peer").count();
    assert_eq!(told, 2, "{}", ended.stderr);
    let stats = ended.explained();
    let net = daemon::port(&stats, "net");
    assert!(net.tx.frames > before, "{stats:#?}");
    let lost = dropped(&stats, "net", "link_down");
    assert_eq!(net.tx.offered, net.tx.frames + lost, "{stats:#?}");
}

/// A far end that says that nobody listens: counted, told once; when it does, frames arrive.
fn nobody_listens() {
    let lab = Lab::bare(V4, 1700);
    let config = lab.port("source_ports = 1")
        + "[ports.in0]\nkind = \"tap\"\npassive = false\n[[pipelines]]\nfrom = [\"in0\"]\nto = [\"net\"]\n";
    let mut daemon = Daemon::start(&lab.near, &config);
    lab.near.quiet("in0");
    let sender = Sender::open(&lab.near, "in0");
    let one = [frames::udp(0, 53, 100)];
    daemon.stats_when(LIMIT, |stats| {
        sender.send(&one);
        dropped(stats, "net", "write_error") > 0
    });
    daemon.wait_for("nothing listens there");
    lab.kernel_device(&lab.far, V4.far, V4.near);
    let heard = || {
        let text = lab.far.ip(&["-s", "-s", "-j", "link", "show", "vx0"]);
        let links: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        links[0]["stats64"]["rx"]["packets"]
            .as_u64()
            .expect("a count")
    };
    let arrived = wait_until(LIMIT, || {
        sender.send(&one);
        heard() > 0
    });
    assert!(arrived, "{}", daemon.stderr());
    daemon.stats_when(LIMIT, |stats| in_flight(stats) == 0);
    let ended = daemon.stop();
    assert_eq!(ended.stderr.matches("nothing listens there").count(), 1);
    ended.explained();
}

/// A far end that does not answer: the host says so of a frame now and then, which is counted, and told once.
fn not_there() {
    let mut lab = Lab::bare(V4, 1700);
    lab.family.far = "192.0.2.99";
    let config = lab.port("source_ports = 1")
        + "[ports.in0]\nkind = \"tap\"\npassive = false\n[[pipelines]]\nfrom = [\"in0\"]\nto = [\"net\"]\n";
    // What is asked for an address gives up at once.
    let neigh = "/proc/sys/net/ipv4/neigh/u0";
    let quick = format!("echo 1 > {neigh}/mcast_solicit; echo 50 > {neigh}/retrans_time_ms");
    let set = lab.near.tool("sh").args(["-c", &quick]).output();
    assert!(set.status.success(), "{set:?}");
    let mut daemon = Daemon::start(&lab.near, &config);
    lab.near.quiet("in0");
    let sender = Sender::open(&lab.near, "in0");
    let one = [frames::udp(0, 53, 100)];
    daemon.stats_when(LIMIT, |stats| {
        sender.send(&one);
        dropped(stats, "net", "link_down") >= 3
    });
    daemon.wait_for("net: the peer does not answer");
    daemon.stats_when(LIMIT, |stats| in_flight(stats) == 0);
    let ended = daemon.stop();
    let told = ended.stderr.matches("the peer does not answer").count();
    assert_eq!(told, 1, "{}", ended.stderr);
    let stats = ended.explained();
    let tx = &daemon::port(&stats, "net").tx;
    let lost = dropped(&stats, "net", "link_down");
    assert_eq!(tx.offered, tx.frames + lost, "{stats:#?}");
}

/// A start that the machine refuses: its exit code and what it said.
fn refused(ns: &Netns, config: &str) -> String {
    let ended = Daemon::spawn(ns, config).wait(LIMIT);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    ended.stderr
}

/// The kernel's own device has the port, or another dataplane: neither is robbed of half its flows.
fn port_taken() {
    let lab = Lab::bare(V4, 1700);
    lab.kernel_device(&lab.near, V4.near, V4.far);
    let said = refused(&lab.near, &lab.hear(""));
    for words in [
        "port net: UDP port 4789 is taken",
        "vxlan device of the kernel",
        "ss -ulnp",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    lab.near.ip(&["link", "delete", "vx0"]);
    let workers = |socket: &Path| {
        let one = daemon::preamble(socket);
        one.replace("cores = \"0\"", "cores = \"0-1\"")
    };
    let first = Daemon::spawn_in(&lab.near, daemon::folder(), &lab.hear(""), workers).ready();
    let second = lab.hear("").replace("lc0", "lc1");
    let second = Daemon::spawn_in(&lab.near, daemon::folder(), &second, workers).wait(LIMIT);
    assert_eq!(second.code, Some(3), "{}", second.stderr);
    assert!(second.stderr.contains("is taken"), "{}", second.stderr);
    first.stop().explained();
    // It is free again at once.
    Daemon::start(&lab.near, &lab.hear("")).stop().explained();
}

/// Without a route: a note before the start, and no start.
fn no_way() {
    let ns = Netns::new();
    let config = "[ports.in0]\nkind = \"tap\"\n\
        [ports.net]\nkind = \"vxlan\"\nvni = 1\nremote = \"203.0.113.9\"\n\
        [[pipelines]]\nfrom = [\"in0\"]\nto = [\"net\"]\n";
    let said = check(&ns, config);
    assert!(
        said.contains("there is no way to 203.0.113.9 now"),
        "{said}"
    );
    let said = refused(&ns, config);
    assert!(
        said.contains("there is no way to remote 203.0.113.9"),
        "{said}"
    );
    assert!(said.contains("ip route get 203.0.113.9"), "{said}");
    let local = config.replace("vni = 1", "vni = 1\nlocal = \"192.0.2.77\"");
    let said = refused(&ns, &local);
    assert!(
        said.contains("local 192.0.2.77 is no address of this host"),
        "{said}"
    );
}
