//! TCP trains: a host behind a TAP with `gso` gets a download byte for byte in merged segments, and a listener
//! hears those; without `gso` it hears what was on the wire.

use std::{fs, process::ExitCode, time::Duration};

use dataplane::packet::{
    build::{FrameBuilder, Ipv4, Tcp},
    tcp_flags,
};
use tests::{
    Need, Netns, Theme,
    capture::{self, Listening},
    daemon::{self, Daemon},
    frames, http,
};

/// How long things may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Ethernet, IPv4 and TCP without options.
const HEADERS: usize = 14 + 20 + 20;

fn main() -> ExitCode {
    const CURL: &[Need] = &[Need::Root, Need::Tool("curl"), Need::Tool("tcpdump")];
    const LISTEN: &[Need] = &[Need::Root, Need::Tool("tcpdump")];
    let mut theme = Theme::new();
    theme.test("a_download_in_trains", CURL, || download(true));
    theme.test("a_download_without", CURL, || download(false));
    theme.test("a_listener_hears_trains", LISTEN, || heard(true));
    theme.test("a_listener_hears_segments", LISTEN, || heard(false));
    theme.run()
}

/// client, behind a TAP of ours | dataplane | b0 -- s0, a server as Linux is.
fn download(gso: bool) {
    let (client, middle, server) = (Netns::new(), Netns::new(), Netns::new());
    middle.veth("b0", &server, "s0");
    server.address("s0", "10.0.0.2/24");
    let daemon = Daemon::start(
        &middle,
        &format!(
            "[ports.b]\nkind = \"af_xdp\"\ninterface = \"b0\"\n\
             [ports.t]\nkind = \"tap\"\nname = \"t0\"\nnetns = \"{}\"\ngso = {gso}\n\
             [[pipelines]]\nfrom = [\"b\"]\nto = [\"t\"]\n\
             [[pipelines]]\nfrom = [\"t\"]\nto = [\"b\"]\n",
            client.name()
        ),
    );
    client.address("t0", "10.0.0.1/24");
    let page = http::page(30 << 20);
    let _server = http::Server::start(&server, 8080, page.clone());
    let listening = Listening::start_with(&client, "t0", "tcp src port 8080 and greater 1515");

    let file = daemon.folder().join("page");
    let got = http::get(&client, "http://10.0.0.2:8080/", &file, LIMIT);
    let said = String::from_utf8_lossy(&got.stderr);
    assert!(got.status.success(), "curl: {said}\n{:#?}", daemon.stats());
    assert!(
        fs::read(&file).expect("curl's file") == *page,
        "another page"
    );
    let stats = daemon.stop().explained();
    let (b, t) = (daemon::port(&stats, "b"), daemon::port(&stats, "t"));
    // Whatever they were written as, frames are counted as they came.
    assert_eq!(b.rx.forwarded, t.tx.offered);
    assert_eq!(
        t.tx.frames + t.tx.dropped.values().sum::<u64>(),
        b.rx.frames
    );
    assert!(t.tx.bytes > page.len() as u64, "{stats:#?}");
    let merged = listening.after_the_device().len() as u64;
    match gso {
        true => assert!(merged > 0 && t.tx.trains >= merged, "{merged}, {stats:#?}"),
        false => assert_eq!((merged, t.tx.trains), (0, 0), "{stats:#?}"),
    }
}

/// Segments of one flow, then such a flow with a damaged one in its middle, and what is no segment around them.
fn segments() -> Vec<Vec<u8>> {
    let mut all = vec![frames::arp()];
    for damaged in [None, Some(70)] {
        for n in 0..200u32 {
            let mut ip = Ipv4::new(frames::CLIENT, frames::SERVER);
            ip.identification = n as u16;
            let mut tcp = Tcp::new(40_000, 80, tcp_flags::ACK);
            tcp.sequence = n * 130;
            let payload: Vec<u8> = (0..130).map(|at| (n + at) as u8).collect();
            let frame = FrameBuilder::new().ipv4(ip).tcp(tcp).payload(&payload);
            let mut frame = frame.to_vec().expect("short enough");
            if damaged == Some(n) {
                frame[HEADERS + 7] ^= 0x55;
            }
            all.push(frame);
        }
        all.push(frames::udp(1, 53, 300));
    }
    all
}

/// A capture of a bulk transfer, to a passive device. What is heard, cut again, is what was played.
fn heard(gso: bool) {
    let ns = Netns::new();
    let sent = segments();
    let folder = daemon::folder();
    let file = folder.path().join("sample.pcap");
    capture::write(&file, &sent);
    let daemon = Daemon::start(
        &ns,
        &format!(
            "[ports.sample]\nkind = \"pcap\"\npath = \"{}\"\npace = \"top\"\n\
             [ports.lc0]\nkind = \"tap\"\ngso = {gso}\nwait_for_consumer = \"20s\"\n\
             [[pipelines]]\nfrom = [\"sample\"]\nto = [\"lc0\"]\n",
            file.display()
        ),
    );
    let listening = Listening::start(&ns, "lc0");
    let stats = daemon.wait(LIMIT).explained();
    let lc0 = daemon::port(&stats, "lc0");
    assert_eq!(lc0.tx.frames, sent.len() as u64);
    let bytes: usize = sent.iter().map(Vec::len).sum();
    assert_eq!(lc0.tx.bytes, bytes as u64);
    let heard = listening.after_the_device();
    if !gso {
        assert_eq!(lc0.tx.trains, 0);
        return capture::assert_same(&heard, &sent);
    }
    assert!(lc0.tx.trains > 0, "{stats:#?}");
    assert!(heard.iter().any(|frame| frame.len() > 1514), "no train");
    let mut left = sent.iter();
    for frame in &heard {
        let mut payload = if is_tcp(frame) {
            &frame[HEADERS..]
        } else {
            assert_eq!(Some(frame), left.next());
            continue;
        };
        // Addresses, ports and the number of its first byte are those of the first.
        let mut first = true;
        while !payload.is_empty() {
            let was = left.next().expect("what was played");
            if first {
                assert_eq!(frame[26..42], was[26..42]);
                assert!(frame.len() == was.len() || is_intact(was));
            }
            assert!(first || is_intact(was), "a damaged segment is in a train");
            first = false;
            let (bytes, rest) = payload.split_at(was.len() - HEADERS);
            assert_eq!(bytes, &was[HEADERS..]);
            payload = rest;
        }
    }
    assert_eq!(left.next(), None);
}

fn is_tcp(frame: &[u8]) -> bool {
    frame[12..14] == [8, 0] && frame[23] == 6
}

/// Whether the payload is what it was before damage: each byte is one more than the one before.
fn is_intact(segment: &[u8]) -> bool {
    segment[HEADERS..]
        .windows(2)
        .all(|two| two[1] == two[0].wrapping_add(1))
}
