//! Two namespaces talk TCP through the dataplane, their veths as Linux makes them, while tools listen
//! on lc0: what is allowed comes through byte for byte, what is not does not, all is explained.

use std::{fs, process::ExitCode, time::Duration};

use control::stats::Stats;
use dataplane::packet::tcp_flags;
use tests::{
    Daemon, Need, Netns, Theme,
    capture::Listening,
    daemon, http,
    suricata::{Alerts, Suricata},
};

/// How long the page may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// How long a connection that is not allowed is tried.
const TRIED: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let mut theme = Theme::new();
    const CURL: &[Need] = &[Need::Root, Need::Tool("curl"), Need::Tool("tcpdump")];
    const SURICATA: &[Need] = &[
        Need::Root,
        Need::Tool("curl"),
        Need::Tool("tcpdump"),
        Need::Suricata7,
    ];
    theme.test(
        "a_large_page_and_an_alert",
        SURICATA,
        a_large_page_and_an_alert,
    );
    theme.test("offloads_off_at_the_ends", CURL, offloads_off);
    theme.test("trusted_checksums_are_left_alone", CURL, trusted_checksums);
    theme.test("the_other_way", CURL, the_other_way);
    theme.run()
}

/// client 10.0.0.1 -- a0 | dataplane | b0 -- 10.0.0.2 server
struct Line {
    client: Netns,
    middle: Netns,
    server: Netns,
}

const POLICY: &str = r#"
[policies.web]
allow = [
    { proto = "tcp", to = "10.0.0.2", ports = "8080", replies = true },
]
"#;

impl Line {
    fn new() -> Self {
        let (client, middle, server) = (Netns::new(), Netns::new(), Netns::new());
        middle.veth("a0", &client, "c0");
        middle.veth("b0", &server, "s0");
        client.address("c0", "10.0.0.1/24");
        server.address("s0", "10.0.0.2/24");
        Self {
            client,
            middle,
            server,
        }
    }

    /// A daemon between the two, each direction also to lc0, with more lines for both ports.
    fn start(&self, port: &str) -> Daemon {
        let mut text = POLICY.to_owned();
        for (name, other) in [("a", "b"), ("b", "a")] {
            text += &format!(
                "[ports.{name}]\nkind = \"af_xdp\"\ninterface = \"{name}0\"\n{port}\n\
                 [[pipelines]]\nfrom = [\"{name}\"]\npolicy = \"web\"\nto = [\"{other}\", \"lc0\"]\n"
            );
        }
        text += "[ports.lc0]\nkind = \"tap\"\n";
        Daemon::start(&self.middle, &text)
    }
}

/// What left one side came out of the other from the slot that it came into, and on lc0; what did not is counted.
fn assert_all_accounted_for(stats: &Stats) {
    daemon::assert_explained(stats);
    let [there, back] = &stats.pipelines[..] else {
        panic!("two pipelines: {stats:#?}");
    };
    assert_eq!(daemon::port(stats, "b").tx.offered, there.forwarded);
    assert_eq!(daemon::port(stats, "a").tx.offered, back.forwarded);
    for name in ["a", "b"] {
        assert_eq!(daemon::port(stats, name).tx.copied, 0, "{name} copied");
    }
    assert_eq!(
        daemon::port(stats, "lc0").tx.offered,
        there.forwarded + back.forwarded
    );
}

fn a_large_page_and_an_alert() {
    const RULE: &str = r#"alert http any any -> any any (msg:"the page"; http.uri; content:"/page"; sid:11; rev:1;)"#;
    let line = Line::new();
    let page = http::page(100 << 20);
    let _server = http::Server::start(&line.server, 8080, page.clone());
    let _denied = http::Server::start(&line.server, 8081, page.clone());
    let daemon = line.start("");
    let suricata = Suricata::start(&line.middle, "lc0", RULE);
    let listening = Listening::start_with(
        &line.middle,
        "lc0",
        "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
    );

    let file = daemon.folder().join("page");
    let got = http::get(&line.client, "http://10.0.0.2:8080/page", &file, LIMIT);
    let said = String::from_utf8_lossy(&got.stderr);
    assert!(got.status.success(), "curl: {said}\n{:#?}", daemon.stats());
    assert!(
        fs::read(&file).expect("curl's file") == *page,
        "another page"
    );

    let refused = http::get(&line.client, "http://10.0.0.2:8081/page", &file, TRIED);
    // 28: the time was over. Nothing answered, not even with a reset.
    assert_eq!(
        refused.status.code(),
        Some(28),
        "a port that is not allowed"
    );

    let alerts = suricata.finish(&Alerts::from([(11, 1)]), Duration::from_secs(20));
    assert_eq!(alerts, Alerts::from([(11, 1)]));
    let stats = daemon.stop().explained();
    assert_all_accounted_for(&stats);
    let heard = listening.after_the_device();
    let flags = |frame: &Vec<u8>| dataplane::packet::parse(frame).tcp_flags;
    let with = |flag| heard.iter().filter(|f| flags(f) & flag != 0).count();
    assert_eq!(
        with(tcp_flags::SYN),
        2,
        "SYN and its answer, no other port's"
    );
    assert_eq!(with(tcp_flags::FIN), 2, "both ends");
    let finished = |name| daemon::port(&stats, name).checksums_finished;
    assert!(finished("a") > 0 && finished("b") > 0, "{stats:#?}");
    let denied = &stats.pipelines[0].dropped["not_allowed"];
    assert!(*denied > 0, "{stats:#?}");
}

/// Ends that finish checksums themselves: nothing is left to do.
fn offloads_off() {
    let line = Line::new();
    let page = http::page(1 << 20);
    let _server = http::Server::start(&line.server, 8080, page.clone());
    for (ns, end) in [(&line.client, "c0"), (&line.server, "s0")] {
        let off = ns.tool("ethtool").args(["-K", end, "tx", "off"]).output();
        assert!(off.status.success());
    }
    let daemon = line.start("");
    let file = daemon.folder().join("page");
    let got = http::get(&line.client, "http://10.0.0.2:8080/", &file, LIMIT);
    assert!(
        got.status.success(),
        "{}",
        String::from_utf8_lossy(&got.stderr)
    );
    assert!(
        fs::read(&file).expect("curl's file") == *page,
        "another page"
    );
    let stats = daemon.stop().explained();
    assert_all_accounted_for(&stats);
    for name in ["a", "b"] {
        assert_eq!(daemon::port(&stats, name).checksums_finished, 0);
    }
}

/// With `checksums = "trust"` nobody looks: between veths as they are, no connection comes about, which
/// is what the default is for.
fn trusted_checksums() {
    let line = Line::new();
    let _server = http::Server::start(&line.server, 8080, http::page(1 << 10));
    let daemon = line.start("checksums = \"trust\"");
    let file = daemon.folder().join("page");
    let got = http::get(&line.client, "http://10.0.0.2:8080/", &file, TRIED);
    assert_eq!(
        got.status.code(),
        Some(28),
        "a connection, with partial checksums"
    );
    let stats = daemon.stop().explained();
    assert_all_accounted_for(&stats);
    assert!(stats.pipelines[0].forwarded > 0, "{stats:#?}");
    assert_eq!(daemon::port(&stats, "a").checksums_finished, 0);
}

/// Replies pass; a connection that the server opens to the same port of the client does not. ARP passes
/// both ways.
fn the_other_way() {
    let line = Line::new();
    let page = http::page(1 << 10);
    let _client_serves = http::Server::start(&line.client, 8080, page.clone());
    let daemon = line.start("");
    let file = daemon.folder().join("page");
    let got = http::get(&line.server, "http://10.0.0.1:8080/", &file, TRIED);
    assert_eq!(got.status.code(), Some(28), "the other way");
    let neighbours = line.server.ip(&["neighbour", "show", "to", "10.0.0.1"]);
    assert!(neighbours.contains("lladdr"), "{neighbours}");
    let stats = daemon.stop().explained();
    assert_all_accounted_for(&stats);
    assert!(stats.pipelines[1].dropped["not_allowed"] > 0, "{stats:#?}");
}
