//! Every configuration in docs/examples, run as it stands: frames come out as its comment says. Only the
//! control socket is the test's own, and what this machine cannot have is said in the table.

use std::{
    collections::BTreeSet,
    fs,
    net::Ipv4Addr,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use control::link::{
    NetNs,
    tap::{Tap, TapOptions},
};
use dataplane::packet::tcp_flags;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd,
};
use tests::{
    Daemon, Need, Netns, Theme, Tool,
    capture::{self, Listening},
    daemon, frames, http, run,
    send::Sender,
    wait_until,
};

/// How long frames may take through a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// How long a connection that is not allowed is tried.
const TRIED: Duration = Duration::from_secs(2);

/// One example: its file, what it takes beside root, and what shows that it works.
struct Example {
    file: &'static str,
    needs: &'static [Need],
    /// What is replaced because a test machine has it not.
    adapted: &'static [(&'static str, &'static str)],
    works: fn(&Example),
}

const TCPDUMP: &[Need] = &[Need::Root, Need::Tool("tcpdump")];
const TSHARK: &[Need] = &[Need::Root, Need::Tool("tshark")];
const CURL: &[Need] = &[Need::Root, Need::Tool("curl")];
const HOST: &[Need] = &[
    Need::Root,
    Need::Tool("curl"),
    Need::Tool("ethtool"),
    Need::Tool("tcpdump"),
];
const CURL_AND_TCPDUMP: &[Need] = &[Need::Root, Need::Tool("curl"), Need::Tool("tcpdump")];

const EXAMPLES: &[Example] = &[
    Example {
        file: "replay.toml",
        needs: TCPDUMP,
        adapted: &[],
        works: plays_the_file,
    },
    Example {
        file: "rootless.toml",
        needs: TCPDUMP,
        adapted: &[],
        works: plays_the_file,
    },
    Example {
        file: "monitor.toml",
        needs: TCPDUMP,
        adapted: &[],
        works: hears_the_web,
    },
    Example {
        file: "copy.toml",
        needs: HOST,
        adapted: &[],
        works: the_host_is_copied,
    },
    Example {
        file: "inline.toml",
        needs: TCPDUMP,
        adapted: &[],
        works: lets_the_web_through,
    },
    Example {
        file: "vm.toml",
        needs: TCPDUMP,
        adapted: &[],
        works: cages_a_guest,
    },
    Example {
        file: "host.toml",
        needs: CURL,
        adapted: &[],
        works: the_host_goes_out,
    },
    Example {
        file: "tun.toml",
        needs: CURL_AND_TCPDUMP,
        adapted: &[],
        works: two_hosts_talk,
    },
    Example {
        file: "vxlan.toml",
        needs: &[
            Need::Root,
            Need::Tool("curl"),
            Need::Tool("tcpdump"),
            Need::Tool("ethtool"),
        ],
        adapted: &[],
        works: stretches_a_network,
    },
    Example {
        file: "record.toml",
        needs: TSHARK,
        adapted: &[],
        works: records_what_is_sent,
    },
    Example {
        file: "pipe.toml",
        needs: TSHARK,
        adapted: &[],
        works: pipes_the_questions,
    },
    Example {
        file: "several-cores.toml",
        needs: TCPDUMP,
        // Two cores, a kernel without huge pages to spare, and veths, which copy.
        adapted: &[
            ("cores = \"2-3\"", "cores = \"0-1\""),
            ("cores = [2, 3]", "cores = [0, 1]"),
            ("hugepages = \"require\"", "hugepages = \"auto\""),
            ("mode = \"zero-copy\"", "mode = \"auto\""),
            ("slots = 16384", "slots = 2048"),
            (
                "socket = \"/run/dataplane/control.sock\"",
                "socket = \"control.sock\"",
            ),
        ],
        works: forwards_on_two_cores,
    },
];

fn main() -> ExitCode {
    let mut theme = Theme::new();
    for example in EXAMPLES {
        theme.test(example.file, example.needs, || (example.works)(example));
    }
    theme.test("none_is_left_out", &[], none_is_left_out);
    theme.run()
}

fn none_is_left_out() {
    let there: BTreeSet<String> = fs::read_dir(folder())
        .expect("docs/examples")
        .map(|entry| entry.expect("docs/examples").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    let run: BTreeSet<String> = EXAMPLES.iter().map(|e| e.file.to_owned()).collect();
    assert_eq!(there, run);
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples")
}

impl Example {
    fn text(&self) -> String {
        let mut text = fs::read_to_string(folder().join(self.file)).expect("an example");
        for (from, to) in self.adapted {
            assert!(text.contains(from), "{}: {from:?} is not there", self.file);
            text = text.replace(from, to);
        }
        text
    }

    /// Starts it in a namespace, in a folder with a capture file of these frames.
    fn start(&self, ns: &Netns, sample: &[Vec<u8>]) -> Daemon {
        let folder = daemon::folder();
        capture::write(&folder.path().join("sample.pcap"), sample);
        let text = self.text();
        let own_socket = |socket: &Path| match text.contains("\n[control]") {
            true => String::new(),
            false => format!("[control]\nsocket = \"{}\"\n", socket.display()),
        };
        Daemon::spawn_in(ns, folder, &text, own_socket).ready()
    }
}

/// A namespace with interfaces, and the one in which their other ends are.
fn between(interfaces: &[(&str, &str)]) -> (Netns, Netns) {
    let (inside, outside) = (Netns::new(), Netns::new());
    for (here, there) in interfaces {
        inside.veth(here, &outside, there);
    }
    (inside, outside)
}

fn web(port: u16) -> Vec<u8> {
    let server = Ipv4Addr::new(203, 0, 113, 7);
    frames::tcp((frames::CLIENT, 40_000), (server, port), tcp_flags::SYN)
}

fn plays_the_file(example: &Example) {
    let ns = Netns::new();
    let sample = frames::mixed(200, 1514);
    let daemon = example.start(&ns, &sample);
    let listening = Listening::start(&ns, "lc0");
    daemon.wait(LIMIT).explained();
    capture::assert_same(&listening.after_the_device(), &sample);
}

fn hears_the_web(example: &Example) {
    let (inside, outside) = between(&[("eth1", "wire")]);
    let mut daemon = example.start(&inside, &[]);
    let listening = Listening::start(&inside, "lc0");
    daemon.wait_for("lc0: a packet socket listens");
    let (allowed, denied) = (vec![web(80); 20], vec![web(22); 30]);
    let sender = Sender::open(&outside, "wire");
    sender.send(&denied);
    sender.send(&allowed);
    capture::assert_same(&listening.wait_for(20, LIMIT), &allowed);
    let stats = daemon.stop().explained();
    assert_eq!(stats.pipelines[0].dropped["not_allowed"], 30);
}

fn the_host_is_copied(example: &Example) {
    let (host, world) = between(&[("eth0", "wire")]);
    host.address("eth0", "192.0.2.10/24");
    world.address("wire", "192.0.2.1/24");
    for (ns, end) in [(&host, "eth0"), (&world, "wire")] {
        let merging = ["-K", end, "gro", "off", "gso", "off", "tso", "off"];
        let output = ns.tool("ethtool").args(merging).output();
        assert!(output.status.success(), "{output:?}");
    }
    let mut daemon = example.start(&host, &[]);
    let listening = Listening::start(&host, "lc0");
    daemon.wait_for("lc0: a packet socket listens");
    let page = http::page(100_000);
    let _server = http::Server::start(&host, 80, page.clone());
    let _unheard = http::Server::start(&host, 8080, page.clone());
    let file = daemon.folder().join("page");
    for url in ["http://192.0.2.10/", "http://192.0.2.10:8080/"] {
        let got = http::get(&world, url, &file, LIMIT);
        let said = String::from_utf8_lossy(&got.stderr);
        assert!(got.status.success(), "curl: {said}\n{:#?}", daemon.stats());
        assert!(
            fs::read(&file).expect("curl's file") == *page,
            "another page"
        );
    }
    let stats = daemon.stop().explained();
    assert!(stats.pipelines[0].dropped["not_allowed"] > 50);
    let heard = listening.after_the_device();
    assert_eq!(heard.len() as u64, daemon::port(&stats, "lc0").tx.frames);
    // 26 to 30 of a frame are where it comes from.
    for from in [[192, 0, 2, 1], [192, 0, 2, 10]] {
        let sent = heard.iter().filter(|frame| frame[26..30] == from);
        assert!(sent.count() > 10, "from {from:?}");
    }
}

fn lets_the_web_through(example: &Example) {
    let (inside, outside) = between(&[("eth1", "client"), ("eth2", "server")]);
    let daemon = example.start(&inside, &[]);
    let copy = Listening::start(&inside, "lc0");
    let server = Listening::start(&outside, "server");
    let allowed = vec![web(443); 20];
    let sender = Sender::open(&outside, "client");
    sender.send(&vec![web(22); 30]);
    sender.send(&allowed);
    capture::assert_same(&server.wait_for(20, LIMIT), &allowed);
    capture::assert_same(&copy.wait_for(20, LIMIT), &allowed);
    let stats = daemon.stop().explained();
    assert_eq!(stats.pipelines[0].dropped["not_allowed"], 30);
}

/// The guest is who holds the TAP device: it writes what its card sends, and reads what arrives there.
fn cages_a_guest(example: &Example) {
    let (host, world) = between(&[("eth1", "wire")]);
    let there = NetNs::open(host.name()).expect("our own namespace");
    let card = Tap::create(&there, &TapOptions::active("vnet0")).expect("a TAP device");
    host.quiet("vnet0");
    let daemon = example.start(&host, &[]);
    let copy = Listening::start(&host, "lc0");
    let wire = Listening::start(&world, "wire");
    let guest = Ipv4Addr::new(192, 0, 2, 50);
    let server = Ipv4Addr::new(203, 0, 113, 7);
    let segments = |from, to, flags| vec![frames::tcp(from, to, flags); 20];
    let asked = segments((guest, 40_000), (server, 443), tcp_flags::SYN);
    let another_port = segments((guest, 40_000), (server, 22), tcp_flags::SYN);
    let another_name = segments((frames::CLIENT, 40_000), (server, 443), tcp_flags::SYN);
    for frame in [&another_port, &another_name, &asked].into_iter().flatten() {
        unistd::write(&card.fds[0], frame).expect("the guest's card");
    }
    capture::assert_same(&wire.wait_for(20, LIMIT), &asked);
    let unasked = segments((server, 443), (guest, 40_000), tcp_flags::SYN);
    let answered = segments(
        (server, 443),
        (guest, 40_000),
        tcp_flags::SYN | tcp_flags::ACK,
    );
    let sender = Sender::open(&world, "wire");
    sender.send(&unasked);
    sender.send(&answered);
    let arrived: Vec<_> = answered.iter().map(|_| next_frame(&card.fds[0])).collect();
    capture::assert_same(&arrived, &answered);
    capture::assert_same(&copy.wait_for(40, LIMIT), &[asked, answered].concat());
    let stats = daemon.stop().explained();
    let dropped = |pipeline: usize| stats.pipelines[pipeline].dropped["not_allowed"];
    assert_eq!((dropped(0), dropped(1)), (40, 20));
}

/// The next frame of IPv4 that a TAP device sends to who holds it. The host's own IPv6 has spoken there before
/// it was told not to.
fn next_frame(card: &OwnedFd) -> Vec<u8> {
    let limit = PollTimeout::try_from(LIMIT).expect("a short time");
    loop {
        let mut arrives = [PollFd::new(card.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut arrives, limit).expect("poll");
        assert_eq!(ready, 1, "no frame within {LIMIT:?}");
        let mut frame = vec![0; 2048];
        let length = unistd::read(card, &mut frame).expect("the guest's card");
        frame.truncate(length);
        // 12 and 13 of a frame are its type.
        if frame[12..14] == [8, 0] {
            return frame;
        }
    }
}

fn the_host_goes_out(example: &Example) {
    let (host, world) = between(&[("eth1", "wire")]);
    world.address("wire", "192.0.2.1/24");
    let daemon = example.start(&host, &[]);
    host.address("dp0", "192.0.2.10/24");
    gets_only_what_is_allowed(&daemon, &host, (&world, "192.0.2.1"), 443, 8443);
    let stats = daemon.stop().explained();
    assert!(stats.pipelines[0].dropped["not_allowed"] > 0);
}

fn two_hosts_talk(example: &Example) {
    let (left, middle, right) = (Netns::new(), Netns::new(), Netns::new());
    let mut text = example.text();
    for (name, ns) in [("left", &left), ("right", &right)] {
        let netns = |name: &str| format!("netns = \"{name}\"");
        text = text.replace(&netns(name), &netns(ns.name()));
    }
    let daemon = Daemon::spawn_in(&middle, daemon::folder(), &text, |socket| {
        format!("[control]\nsocket = \"{}\"\n", socket.display())
    })
    .ready();
    left.address("tun0", "10.0.0.1/24");
    right.address("tun0", "10.0.0.2/24");
    let listening = Listening::start(&middle, "lc0");
    gets_only_what_is_allowed(&daemon, &left, (&right, "10.0.0.2"), 80, 8080);
    hears_all(&daemon, &listening);
    daemon.stop().explained();
    let heard = listening.after_the_device();
    assert!(
        heard
            .iter()
            .all(|packet| packet[0] == 0x45 && packet[9] == 6),
        "packets of TCP"
    );
}

fn stretches_a_network(example: &Example) {
    let (near, far) = between(&[("eth0", "wire")]);
    near.address("eth0", "192.0.2.1/24");
    far.address("wire", "192.0.2.2/24");
    let device = "id 42 dstport 4789 local 192.0.2.2 remote 192.0.2.1";
    let mut add = vec!["link", "add", "vx0", "type", "vxlan"];
    add.extend(device.split(' '));
    far.ip(&add);
    far.quiet("vx0");
    far.address("vx0", "10.0.0.2/24");
    far.ip(&["link", "set", "vx0", "up"]);
    // A veth is no card: nobody would cut what the far side's TCP leaves whole.
    let whole = ["-K", "vx0", "tso", "off", "gso", "off"];
    assert!(far.tool("ethtool").args(whole).output().status.success());
    let daemon = example.start(&near, &[]);
    near.address("site0", "10.0.0.1/24");
    let listening = Listening::start(&near, "lc0");
    gets_only_what_is_allowed(&daemon, &near, (&far, "10.0.0.2"), 80, 8080);
    hears_all(&daemon, &listening);
    daemon.stop().explained();
}

/// Of two servers of the same page, the one whose port is allowed is reached and the other is not.
fn gets_only_what_is_allowed(
    daemon: &Daemon,
    client: &Netns,
    (server, address): (&Netns, &str),
    allowed: u16,
    denied: u16,
) {
    let page = http::page(100_000);
    let _servers = [allowed, denied].map(|port| http::Server::start(server, port, page.clone()));
    let file = daemon.folder().join("page");
    let url = |port| format!("http://{address}:{port}/");
    let got = http::get(client, &url(allowed), &file, LIMIT);
    let said = String::from_utf8_lossy(&got.stderr);
    assert!(got.status.success(), "curl: {said}\n{:#?}", daemon.stats());
    assert!(
        fs::read(&file).expect("curl's file") == *page,
        "another page"
    );
    let refused = http::get(client, &url(denied), &file, TRIED);
    // 28: the time was over.
    assert_eq!(
        refused.status.code(),
        Some(28),
        "a port that is not allowed"
    );
}

/// Waits until who listens on lc0 has heard all that was written there: what it has not when the device goes
/// is lost to it.
fn hears_all(daemon: &Daemon, listening: &Listening) {
    let mut last = (0, 0);
    let all = wait_until(LIMIT, || {
        let written = daemon::port(&daemon.stats(), "lc0").tx.frames;
        last = (written, listening.frames().len() as u64);
        written > 0 && last.0 == last.1
    });
    assert!(all, "written and heard: {last:?}");
}

/// Each frame that is sent into `in0` is in the one file that there is, for tshark to read.
fn records_what_is_sent(example: &Example) {
    let ns = Netns::new();
    let daemon = example.start(&ns, &[]);
    let sent = frames::mixed(200, 1514);
    Sender::open(&ns, "in0").send(&sent);
    let questions = |folder: &Path| {
        let files = fs::read_dir(folder).expect("our own folder").flatten();
        let mut recorded = files
            .map(|file| file.path())
            .filter(|path| path.extension().is_some_and(|end| end == "zst"));
        let file = recorded.next().expect("a recording");
        assert_eq!(recorded.next(), None);
        let file = file.to_str().expect("UTF-8");
        run("tshark", &["-n", "-r", file, "-Y", "udp.port == 53"])
            .lines()
            .count()
    };
    // Without the daemon's end: what is recorded can be read a second later.
    let folder = daemon.folder().to_owned();
    let read = wait_until(LIMIT, || questions(&folder) == sent.len());
    assert!(read, "{}", questions(&folder));
    daemon.stop().explained();
}

/// tshark sees at the end of the pipe what the policy lets through from its beginning.
fn pipes_the_questions(example: &Example) {
    let folder = daemon::folder();
    let mut all = frames::mixed(100, 1514);
    all.extend((0..50).map(|n| frames::udp(n, 5353, 200)));
    capture::write(&folder.path().join("sample.pcap"), &all);
    fs::write(folder.path().join("pipe.toml"), example.text()).expect("our own folder");
    let pipe = format!(
        "set -o pipefail; cat sample.pcap | '{}' --config pipe.toml --socket control.sock | tshark -n -r -",
        daemon::binary("dataplane").display()
    );
    let output = Tool::new("bash")
        .args(["-c", &pipe])
        .current_dir(folder.path())
        .output();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let seen = String::from_utf8_lossy(&output.stdout).lines().count();
    assert_eq!(seen, 100, "{said}");
}

fn forwards_on_two_cores(example: &Example) {
    let (inside, outside) = (Netns::new(), Netns::new());
    for (here, there) in [("eth1", "left"), ("eth2", "right")] {
        // Four queues each way, as the example's comment has them made on a card.
        inside.veth_with_queues(here, &outside, there, 4);
    }
    // The example's namespace `ids` is this one, by the name that it has.
    let text = example
        .text()
        .replace("netns = \"ids\"", &format!("netns = \"{}\"", inside.name()));
    let daemon = Daemon::spawn_in(&inside, daemon::folder(), &text, |_| String::new()).ready();
    let copy = Listening::start(&inside, "lc0");
    let right = Listening::start(&outside, "right");
    let sent = frames::mixed(200, 1514);
    Sender::open(&outside, "left").send(&sent);
    right.wait_for(200, LIMIT);
    copy.wait_for(200, LIMIT);
    let sorted = |mut frames: Vec<Vec<u8>>| {
        frames.sort();
        frames
    };
    // By which queue a frame comes is the sender's core's affair; queues have no common order.
    capture::assert_same(&sorted(right.finish()), &sorted(sent.clone()));
    capture::assert_same(&sorted(copy.finish()), &sorted(sent));
    daemon.stop().explained();
}
