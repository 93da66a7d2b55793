//! The port against a pool, with a worker's clock that the tests move, and against real files and pipes.

use std::{
    fs::File,
    io::Write,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    super::fixture::{Builder, KINDS, Kind, PACKINGS, Packing, capture, file, frames, pack},
    super::format::MAX_FRAME,
    *,
};
use crate::{
    frame::{HugePages, Region},
    worker::{ring::Ring, wake::Waker},
};

const TOP: Options = Options {
    pace: Pace::Top,
    loops: 1,
};

fn io(slots: u32, slot_size: usize) -> Io {
    let waker = Arc::new(Waker::new().expect("an eventfd"));
    let mut io = Io::new(Ring::fake(), waker, 1, 64);
    let region = Region::map(slots, slot_size, 0, HugePages::Off).expect("memory");
    io.own_region = io.pool.add(region);
    io.now = 5_000_000_000;
    io
}

fn port(io: &mut Io, file: File, options: Options) -> PcapSource {
    let capture = open(Path::new("test.pcap"), file, options).expect("a capture");
    let mut port = PcapSource::new(capture);
    port.attach(io, Place::default()).expect("a region");
    port
}

/// Takes every frame's bytes and frees it.
fn take(io: &mut Io, batch: &mut Vec<Frame>, into: &mut Vec<Vec<u8>>) {
    for frame in batch.drain(..) {
        into.push(io.pool.bytes(&frame).to_vec());
        io.pool.free(frame);
        io.counters[0].rx.forwarded += 1;
    }
    io.pool.audit().expect("the law");
}

/// Receives until `done`, giving the reader time where there is nothing. Fails after ten seconds.
fn receive_until(
    port: &mut PcapSource,
    io: &mut Io,
    mut done: impl FnMut(Wait, &[Vec<u8>]) -> bool,
) -> Vec<Vec<u8>> {
    let limit = Instant::now() + Duration::from_secs(10);
    let (mut batch, mut received) = (Vec::new(), Vec::new());
    loop {
        port.receive(io, &mut batch, 64);
        take(io, &mut batch, &mut received);
        let wait = port.wait(io);
        if done(wait, &received) {
            return received;
        }
        if wait == Wait::Event {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(Instant::now() < limit, "stuck: {wait:?}");
    }
}

fn receive_all(port: &mut PcapSource, io: &mut Io) -> Vec<Vec<u8>> {
    receive_until(port, io, |wait, _| wait == Wait::Done)
}

fn pipe() -> (File, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    (File::from(OwnedFd::from(reader)), writer)
}

fn bytes_of(frames: &[(u64, Vec<u8>)]) -> Vec<Vec<u8>> {
    frames.iter().map(|(_, bytes)| bytes.clone()).collect()
}

#[test]
fn every_kind_of_capture_arrives_whole_and_in_order() {
    // Enough for several blocks, more than go round.
    let frames = frames(60_000, 10);
    for kind in KINDS {
        for packing in PACKINGS {
            let mut io = io(256, 2048);
            let bytes = pack(packing, &capture(kind, true, &frames));
            let mut port = port(&mut io, file(&bytes), TOP);
            let received = receive_all(&mut port, &mut io);
            assert!(received == bytes_of(&frames), "{kind:?} {packing:?}");
            let rx = &io.counters[0].rx;
            assert_eq!(rx.frames, frames.len() as u64);
            assert_eq!(rx.bytes, received.iter().map(|b| b.len() as u64).sum());
            assert_eq!(rx.in_flight(), 0);
            assert!(port.failure().is_none());
        }
    }
}

#[test]
fn without_a_free_slot_the_file_waits() {
    let frames = frames(50, 10);
    let mut io = io(4, 2048);
    let mut port = port(&mut io, file(&capture(Kind::Nano, false, &frames)), TOP);
    let (mut batch, mut received) = (Vec::new(), Vec::new());
    while received.len() < 50 {
        port.receive(&mut io, &mut batch, 64);
        if batch.len() == 4 && received.len() + 4 < 50 {
            assert_eq!(
                port.wait(&mut io),
                Wait::Event,
                "a completion must come first"
            );
        }
        let rx = &io.counters[0].rx;
        assert_eq!(rx.in_flight(), batch.len() as u64);
        assert_eq!(rx.dropped.total(), 0);
        take(&mut io, &mut batch, &mut received);
    }
    assert_eq!(received, bytes_of(&frames));
}

#[test]
fn frames_that_fit_no_slot_are_counted_as_received_and_dropped() {
    let lengths = [13, 14, 0, 2048, 2049, MAX_FRAME, 60];
    let frames: Vec<_> = lengths.iter().map(|&n| (0, vec![1; n])).collect();
    let mut io = io(8, 2048);
    let mut port = port(&mut io, file(&capture(Kind::Enhanced, false, &frames)), TOP);
    let received: Vec<_> = receive_all(&mut port, &mut io)
        .iter()
        .map(Vec::len)
        .collect();
    assert_eq!(received, [14, 2048, 60]);
    let rx = &io.counters[0].rx;
    assert_eq!(rx.frames, 7);
    assert_eq!(rx.bytes, lengths.iter().map(|&n| n as u64).sum());
    assert_eq!(rx.dropped.get(Reason::TooShort), 2);
    assert_eq!(rx.dropped.get(Reason::TooLong), 2);
    assert_eq!(rx.in_flight(), 0);
}

#[test]
fn the_longest_frames_pass_where_the_slots_hold_them() {
    let frames: Vec<_> = (0..20).map(|n| (n, vec![n as u8; MAX_FRAME])).collect();
    let mut io = io(4, MAX_FRAME);
    let mut port = port(&mut io, file(&capture(Kind::Micro, false, &frames)), TOP);
    assert!(receive_all(&mut port, &mut io) == bytes_of(&frames));
}

/// Steps the worker's clock, and answers when each frame came, in nanoseconds after the first.
fn arrivals(frames: &[(u64, Vec<u8>)], options: Options, step: u64) -> Vec<u64> {
    let mut io = io(64, 2048);
    let mut port = port(&mut io, file(&capture(Kind::Nano, false, frames)), options);
    let (mut batch, mut received, mut times) = (Vec::new(), Vec::new(), Vec::new());
    let mut start = None;
    loop {
        port.receive(&mut io, &mut batch, 64);
        if !batch.is_empty() {
            let start = *start.get_or_insert(io.now);
            times.extend(batch.iter().map(|_| io.now - start));
            take(&mut io, &mut batch, &mut received);
        }
        match port.wait(&mut io) {
            Wait::Done => return times,
            Wait::Until(due) => {
                assert!(due > io.now);
                // The worker comes at its own time, not earlier than it was asked to.
                io.now = due.next_multiple_of(step);
            }
            Wait::Ready => {}
            Wait::Event => thread::sleep(Duration::from_millis(1)),
        }
    }
}

#[test]
fn frames_come_at_their_pace() {
    let frames = |times: &[u64]| -> Vec<_> { times.iter().map(|&t| (t, vec![0; 125])).collect() };
    let original = |speed, loops| Options {
        pace: Pace::Original { speed },
        loops,
    };
    let pace = |pace| Options { pace, loops: 1 };
    let captured = [1000, 3000, 2000, 9000];
    let cases: [(&str, Options, u64, &[u64]); 7] = [
        ("as captured", original(1.0, 1), 1, &[0, 2000, 2000, 8000]),
        ("twice as fast", original(2.0, 1), 1, &[0, 1000, 1000, 4000]),
        // 8000 ns in 3 steps: the second pass begins 2666 later.
        (
            "twice",
            original(1.0, 2),
            1,
            &[0, 2000, 2000, 8000, 10_666, 12_666, 12_666, 18_666],
        ),
        ("frames", pace(Pace::Pps(3e6)), 1, &[0, 333, 666, 1000]),
        (
            "bits",
            pace(Pace::Mbps(1.0)),
            1,
            &[0, 1_000_000, 2_000_000, 3_000_000],
        ),
        // A worker that comes late does not make the later frames late.
        ("late", pace(Pace::Pps(1e6)), 2500, &[0, 2500, 2500, 5000]),
        ("top", pace(Pace::Top), 1, &[0, 0, 0, 0]),
    ];
    for (name, options, step, expected) in cases {
        assert_eq!(
            arrivals(&frames(&captured), options, step),
            expected,
            "{name}"
        );
    }
}

#[test]
fn a_loop_sends_the_file_again() {
    let frames = frames(10, 1000);
    for packing in PACKINGS {
        let bytes = pack(packing, &capture(Kind::Obsolete, false, &frames));
        let mut io = io(64, 2048);
        let three = Options { loops: 3, ..TOP };
        let mut port = port(&mut io, file(&bytes), three);
        let expected = [bytes_of(&frames), bytes_of(&frames), bytes_of(&frames)].concat();
        assert_eq!(receive_all(&mut port, &mut io), expected);
    }
    // An empty capture ends although it is to be read for ever.
    let mut io = io(64, 2048);
    let forever = Options { loops: 0, ..TOP };
    let mut empty = port(&mut io, file(&capture(Kind::Micro, false, &[])), forever);
    assert!(receive_all(&mut empty, &mut io).is_empty());
    assert!(empty.failure().is_none());
}

#[test]
fn for_ever_ends_when_the_port_is_closed() {
    let mut io = io(64, 2048);
    let forever = Options { loops: 0, ..TOP };
    let bytes = capture(Kind::Nano, false, &frames(100, 1000));
    let mut port = port(&mut io, file(&bytes), forever);
    receive_until(&mut port, &mut io, |_, received| received.len() > 100_000);
    port.close(&mut io, Reason::Shutdown);
    assert_eq!(port.wait(&mut io), Wait::Done);
    let mut batch = Vec::new();
    port.receive(&mut io, &mut batch, 64);
    assert!(batch.is_empty());
    assert_eq!(io.counters[0].rx.in_flight(), 0);
    assert_eq!(io.pool.total().free, 64);
}

#[test]
fn a_pipe_gives_what_it_has_and_can_be_left_at_once() {
    let frames = frames(6, 1000);
    let bytes = capture(Kind::Micro, false, &frames);
    // In the middle of the fourth record: the three before it must not wait for it.
    let middle = capture(Kind::Micro, false, &frames[..3]).len() + 20;
    let (reader, mut writer) = pipe();
    writer.write_all(&bytes[..middle]).expect("room");
    let mut io = io(64, 2048);
    let mut port = port(&mut io, reader, TOP);
    let first = receive_until(&mut port, &mut io, |_, received| received.len() == 3);
    assert_eq!(first, bytes_of(&frames[..3]));
    assert_eq!(port.wait(&mut io), Wait::Event);
    writer.write_all(&bytes[middle..]).expect("room");
    let rest = receive_until(&mut port, &mut io, |_, received| received.len() == 3);
    assert_eq!(rest, bytes_of(&frames[3..]));
    // The writer lives on: the reader sleeps in the pipe. Joining it is the test.
    drop(port);
    drop(writer);
}

#[test]
fn a_pipe_that_says_nothing_yet_opens_and_is_read_later() {
    let (reader, mut writer) = pipe();
    let mut io = io(64, 2048);
    let capture_of_it = open(Path::new("-"), reader, TOP).expect("patience");
    assert_eq!(capture_of_it.path(), "standard input");
    assert_eq!(capture_of_it.format(), None);
    let mut port = PcapSource::new(capture_of_it);
    port.attach(&mut io, Place::default()).expect("a region");
    let frames = frames(3, 1);
    let bytes = pack(Packing::Gzip, &capture(Kind::Nano, true, &frames));
    writer.write_all(&bytes).expect("room");
    drop(writer);
    assert_eq!(receive_all(&mut port, &mut io), bytes_of(&frames));
}

#[test]
fn what_came_before_an_error_is_delivered_and_the_error_is_told_once() {
    let frames = frames(30_000, 10);
    let mut bytes = capture(Kind::Micro, false, &frames);
    let end = bytes.len();
    bytes.extend([0; 8]);
    let mut io = io(64, 2048);
    let mut port = port(&mut io, file(&bytes), TOP);
    assert!(receive_all(&mut port, &mut io) == bytes_of(&frames));
    let message = port.failure().expect("a truncated file").to_string();
    assert_eq!(
        message,
        format!(
            "test.pcap: truncated: record 30001 begins at byte {end}, and the file ends at byte {}, in the middle of it; keep what is before it: editcap FILE NEW; 30000 frames came before it",
            end + 8
        )
    );
    assert!(port.failure().is_none());
}

#[test]
fn frames_that_a_snapshot_length_cut_are_sent_as_they_are() {
    let bytes = Builder::new(true)
        .classic(0xa1b2_c3d4, 1)
        .record(0, 0, 60, 1500, &[0; 60])
        .record(0, 0, 60, 60, &[0; 60])
        .bytes;
    let mut io = io(64, 2048);
    let mut port = port(&mut io, file(&bytes), TOP);
    assert_eq!(receive_all(&mut port, &mut io).len(), 2);
}

#[test]
fn what_cannot_be_opened_is_named() {
    let forever = Options { loops: 0, ..TOP };
    let still = Options {
        pace: Pace::Pps(0.0),
        loops: 1,
    };
    let good = capture(Kind::Micro, false, &[]);
    let raw = Builder::new(false)
        .section()
        .interface(101, 0, |b| b)
        .enhanced(0, 0, 3, b"abc")
        .bytes;
    let folder = File::open(std::env::temp_dir()).expect("a folder");
    let (closed, _) = pipe();
    let cases = [
        (file(&[]), TOP, "x.pcap: the file is empty"),
        (closed, TOP, "x.pcap: the file is empty"),
        (file(b"text"), TOP, "x.pcap: not a capture"),
        (
            file(&raw),
            TOP,
            "x.pcap: record 1 at byte 48 of the file is of link type 101 (RAW)",
        ),
        (folder, TOP, "x.pcap cannot be read: "),
        (
            pipe().0,
            forever,
            "x.pcap is a pipe, which cannot be read for ever; set loops = 1",
        ),
        (
            file(&good),
            still,
            "x.pcap: a pace in frames a second of 0 is not possible",
        ),
    ];
    for (file, options, expected) in cases {
        let error = open(Path::new("x.pcap"), file, options).expect_err(expected);
        let message = error.to_string();
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn a_worker_without_a_region_of_its_own_is_told() {
    let mut io = io(8, 2048);
    io.own_region = None;
    let good = file(&capture(Kind::Micro, false, &[]));
    let mut port = PcapSource::new(open(Path::new("x"), good, TOP).expect("a capture"));
    let error = port
        .attach(&mut io, Place::default())
        .expect_err("no region");
    assert!(error.to_string().contains("own region"));
}

#[test]
fn it_is_no_sink() {
    let mut io = io(8, 2048);
    let mut port = port(&mut io, file(&capture(Kind::Micro, false, &[])), TOP);
    let region = io.own_region.expect("a region");
    let frame = io.pool.alloc(region).expect("a slot");
    let mut staged = vec![io.pool.stage(frame)];
    port.stage(&mut io, &mut staged);
    assert!(staged.is_empty());
    io.pool.audit().expect("the law");
    assert_eq!(io.counters[0].tx.offered, 1);
    assert_eq!(io.counters[0].tx.in_flight(), 0);
}

/// Captures of real traffic, which are no part of the project: `DATAPLANE_CAPTURES` names their folder.
#[test]
fn real_captures_arrive_with_all_their_packets() {
    const ETHERNET: [(&str, usize); 23] = [
        ("sip-udp-register-invite-mixed", 691),
        ("sip-udp-compact-headers", 1),
        ("sip-udp-invite-sdp", 2),
        ("sip-udp-options", 2),
        ("sip-tcp-register", 11),
        ("sip-tcp-port-5062", 7),
        ("vlan-qinq-icmp", 3),
        ("vlan-http", 94),
        ("vlan-ipv4-fragments", 3),
        ("ipv6-fragments-hopopts", 13),
        ("ipv6-destination-options", 37),
        ("vxlan-ssh-dns-ntp", 100),
        ("geneve-icmp-arp", 10),
        ("gre-ipv4-mixed", 40),
        ("erspan-type1-vlan-icmp", 42),
        ("erspan-type2-icmp-cdp", 6),
        ("malformed-short-headers", 8),
        ("corrupt-record-length", 6),
        ("dns-udp", 164),
        ("http-post-100-continue", 48),
        ("tls-split-client-hello", 62),
        ("mixed-home-lan", 1350),
        ("mixed-web-browsing-large", 3138),
    ];
    const OTHERS: [(&str, &str); 3] = [
        ("sip-tcp-large-body-null-link", "link type 0 (NULL)"),
        ("sll-smb-arp", "link type 113 (LINUX_SLL)"),
        ("sll2-http-request", "link type 276 (LINUX_SLL2)"),
    ];
    let Some(folder) = std::env::var_os("DATAPLANE_CAPTURES").map(PathBuf::from) else {
        println!("skipped: needs captures; name their folder in DATAPLANE_CAPTURES");
        return;
    };
    // The folder may hold other captures than these, which are suricata-verify's.
    let file = |name: &str| {
        let file = File::open(folder.join(name).with_extension("pcap")).ok();
        if file.is_none() {
            println!("skipped: {name}.pcap is not in the folder");
        }
        file
    };
    for (name, packets) in ETHERNET {
        let Some(file) = file(name) else { continue };
        let mut io = io(64, 8192);
        let mut port = port(&mut io, file, TOP);
        assert_eq!(receive_all(&mut port, &mut io).len(), packets, "{name}");
        let failure = port.failure().map(|f| f.to_string());
        assert_eq!(
            failure.is_some(),
            name == "corrupt-record-length",
            "{failure:?}"
        );
        if let Some(message) = failure {
            assert!(
                message.contains("record 7 at byte 5035 of the file claims 4325376"),
                "{message}"
            );
            assert!(message.ends_with("6 frames came before it"));
        }
    }
    for (name, expected) in OTHERS {
        let Some(file) = file(name) else { continue };
        let error = open(Path::new(name), file, TOP).expect_err(name);
        assert!(error.to_string().contains(expected), "{error}");
    }
}
