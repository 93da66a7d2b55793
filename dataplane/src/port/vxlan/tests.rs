//! The port against a ring whose kernel is played from memory, and its sockets over the loopback interface.

use std::{collections::HashMap, net::UdpSocket, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{
    frame::{HugePages, Region},
    packet::build::{FrameBuilder, Ipv4},
    port::PortIndex,
    worker::{ring::Ring, wake::Waker},
};

const VNI: u32 = 0x01_0203;
const MAX_FRAME: usize = 1522;

struct Bench {
    io: Io,
    port: VxlanPort,
    /// What reaches the port's source.
    far: UdpSocket,
    completions: Vec<Completion>,
}

fn bench(slots: u32, sink_cap: usize, peer: Option<&str>) -> Bench {
    let waker = Arc::new(Waker::new().expect("an eventfd"));
    let mut io = Io::new(Ring::fake(), waker, 1, sink_cap);
    let region = Region::map(slots, 2048, 64, HugePages::Off).expect("memory");
    io.own_region = io.pool.add(region);
    let source = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let far = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    far.connect(source.local_addr().expect("bound"))
        .expect("lo");
    // The played kernel never looks at them.
    let sinks = (0..4).map(|_| UdpSocket::bind("127.0.0.1:0").expect("a socket").into());
    let options = VxlanOptions {
        vni: VNI,
        max_frame: MAX_FRAME,
        peer: peer.map(|peer| peer.parse().expect("an address")),
    };
    let mut port = VxlanPort::new(options, Some(source.into()), sinks.collect());
    let place = Place {
        index: PortIndex(0),
        generation: 3,
    };
    port.attach(&mut io, place).expect("attaches");
    Bench {
        io,
        port,
        far,
        completions: Vec::with_capacity(64),
    }
}

impl Bench {
    fn stage(&mut self, frames: &[Vec<u8>]) {
        let region = self.io.own_region.expect("a region");
        let mut staged: Vec<_> = frames
            .iter()
            .map(|bytes| {
                let mut frame = self.io.pool.alloc(region).expect("a free slot");
                assert!(self.io.pool.fill(&mut frame, bytes));
                self.io.pool.stage(frame)
            })
            .collect();
        self.port.stage(&mut self.io, &mut staged);
        assert!(staged.is_empty(), "stage takes all");
    }

    fn flush(&mut self) {
        self.port.flush(&mut self.io);
        self.io.ring.submit().expect("a fake ring submits");
    }

    /// Delivers every answer; those of a closed port free their slots as the worker does it.
    fn reap(&mut self, closed: bool) {
        self.completions.clear();
        self.io.ring.reap(&mut self.completions);
        for completion in self.completions.clone() {
            match completion.tag.op {
                _ if !closed => self.port.complete(&mut self.io, completion),
                Op::Write => self.io.pool.complete(completion.tag.slot),
                _ => {}
            }
        }
    }

    fn law(&self) {
        self.io.pool.audit().expect("the pool's law");
        let tx = &self.io.counters[0].tx;
        assert_eq!(tx.in_flight(), self.port.in_flight() as u64);
    }

    fn dropped(&self, reason: Reason) -> u64 {
        self.io.counters[0].tx.dropped.get(reason)
    }

    fn free(&self) -> (u32, u32) {
        let count = self.io.pool.count(self.io.own_region.expect("a region"));
        (count.free, count.total)
    }

    /// Receives, and answers with the frames.
    fn receive(&mut self, budget: usize) -> Vec<Vec<u8>> {
        let mut batch = Vec::new();
        self.port.receive(&mut self.io, &mut batch, budget);
        assert!(batch.len() <= budget);
        let frames = batch.into_iter().map(|frame| {
            let bytes = self.io.pool.bytes(&frame).to_vec();
            self.io.pool.free(frame);
            bytes
        });
        frames.collect()
    }
}

fn plain(len: usize) -> Vec<u8> {
    (0..len).map(|n| n as u8).collect()
}

fn datagram(header: [u8; 8], frame: &[u8]) -> Vec<u8> {
    [&header[..], frame].concat()
}

#[test]
fn what_is_staged_is_sent_in_order_behind_the_header() {
    let mut b = bench(64, 64, None);
    let frames = [plain(60), plain(14), plain(MAX_FRAME)];
    b.stage(&frames);
    b.flush();
    assert_eq!(b.io.ring.kernel().pending.len(), 3);
    for (pending, frame) in b.io.ring.kernel().pending.iter().zip(&frames) {
        let (_, header, bytes) = pending.sent();
        assert_eq!((header, bytes), (header::encode(VNI), &frame[..]));
        assert_eq!(pending.tag.generation, 3);
    }
    for frame in &frames {
        b.io.ring.kernel().answer(0, (8 + frame.len()) as i32);
    }
    b.reap(false);
    let tx = b.io.counters[0].tx;
    let bytes = frames.iter().map(|f| f.len() as u64).sum();
    // Those of the frames, without their outer headers.
    assert_eq!((tx.offered, tx.frames, tx.bytes), (3, 3, bytes));
    b.law();
}

#[test]
fn refusals_are_counted_by_reason_and_told_once() {
    let cases: &[(i32, Reason, &str)] = &[
        (libc::EMSGSIZE, Reason::TooLong, "dont_fragment = false"),
        (libc::EAGAIN, Reason::SinkFull, ""),
        (libc::ENOBUFS, Reason::SinkFull, ""),
        (libc::ENETUNREACH, Reason::LinkDown, "ip route"),
        (libc::EHOSTUNREACH, Reason::LinkDown, "ip route"),
        (libc::ENETDOWN, Reason::LinkDown, "ip route"),
        (
            libc::ECONNREFUSED,
            Reason::WriteError,
            "nothing listens there",
        ),
        (libc::EPERM, Reason::WriteError, "nft list ruleset"),
        (libc::EINVAL, Reason::LinkDown, "ip address"),
        (libc::EIO, Reason::WriteError, "ip route get"),
    ];
    for &(errno, reason, remedy) in cases {
        let mut b = bench(64, 64, None);
        for n in 1..=2 {
            b.stage(&[plain(60)]);
            b.flush();
            b.io.ring.kernel().answer(0, -errno);
            b.reap(false);
            assert_eq!(b.dropped(reason), n, "{errno}");
            b.law();
            let failure = b.port.failure();
            let told = n == 1 && !remedy.is_empty();
            assert_eq!((failure.is_some(), b.io.trouble), (told, told), "{errno}");
            if let Some(failure) = failure {
                assert!(
                    !failure.fatal && failure.message.contains(remedy),
                    "{failure}"
                );
                assert!(!failure.message.contains('\n'));
            }
            b.io.trouble = false;
        }
        // The port goes on, and a link that was back is told of again.
        b.stage(&[plain(60)]);
        b.flush();
        b.io.ring.kernel().answer(0, 68);
        b.reap(false);
        assert_eq!(b.io.counters[0].tx.frames, 1);
        b.stage(&[plain(60)]);
        b.flush();
        b.io.ring.kernel().answer(0, -errno);
        b.reap(false);
        assert_eq!(
            b.port.failure().is_some(),
            reason == Reason::LinkDown && errno != libc::EHOSTUNREACH,
            "{errno}"
        );
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut b = bench(64, 2, None);
    b.stage(&[
        plain(13),
        plain(MAX_FRAME + 1),
        plain(60),
        plain(61),
        plain(62),
    ]);
    assert_eq!(b.dropped(Reason::TooShort), 1);
    assert_eq!(b.dropped(Reason::TooLong), 1);
    assert_eq!(b.dropped(Reason::SinkFull), 1);
    assert_eq!(b.port.room(&b.io), 0);
    b.law();
    // A ring without room keeps the order.
    b.io.ring.kernel().room = Some(1);
    b.flush();
    assert_eq!(b.port.in_flight(), 2);
    b.io.ring.kernel().room = None;
    b.flush();
    let pending = &b.io.ring.kernel().pending;
    let lens: Vec<_> = pending.iter().map(|p| p.sent().2.len()).collect();
    assert_eq!(lens, [60, 61]);
    b.law();
}

#[test]
fn a_flow_has_one_socket_and_many_have_all() {
    let mut b = bench(1024, 1024, None);
    let flows: Vec<_> = (0..256u16).map(|n| udp(n, 7)).collect();
    let mut ways: HashMap<u16, Vec<Target>> = HashMap::new();
    for _ in 0..4 {
        b.stage(&flows);
    }
    b.flush();
    for (i, pending) in b.io.ring.kernel().pending.iter().enumerate() {
        ways.entry(i as u16 % 256)
            .or_default()
            .push(pending.sent().0);
    }
    for (flow, ways) in &ways {
        assert_eq!(ways.len(), 4);
        assert!(ways.iter().all(|way| way == &ways[0]), "flow {flow}");
    }
    let sockets: Vec<_> = b
        .port
        .sink
        .sockets
        .iter()
        .map(|s| Target::Plain(s.as_raw_fd()))
        .collect();
    for socket in &sockets {
        assert!(
            ways.values().any(|ways| ways[0] == *socket),
            "{socket:?} of {sockets:?}"
        );
    }
}

fn udp(src_port: u16, payload: usize) -> Vec<u8> {
    FrameBuilder::new()
        .ipv4(Ipv4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()))
        .udp(src_port, 53)
        .payload(&vec![0; payload])
        .to_vec()
        .expect("a frame")
}

/// What reaches the source, whether it is handed on, and else why not.
#[test]
fn datagrams_are_judged() {
    let good = header::encode(VNI);
    let flag = |bit: u8| {
        let mut header = good;
        header[usize::from(bit / 8)] ^= 0x80 >> (bit % 8);
        header
    };
    let cases: &[(&str, Vec<u8>, Option<Reason>)] = &[
        ("the shortest frame", datagram(good, &plain(14)), None),
        ("a long frame", datagram(good, &plain(MAX_FRAME)), None),
        (
            "no flag",
            datagram(flag(4), &plain(60)),
            Some(Reason::VxlanHeader),
        ),
        (
            "one more flag",
            datagram(flag(0), &plain(60)),
            Some(Reason::VxlanHeader),
        ),
        (
            "a reserved bit",
            datagram(flag(63), &plain(60)),
            Some(Reason::VxlanHeader),
        ),
        (
            "another network",
            datagram(flag(55), &plain(60)),
            Some(Reason::WrongVni),
        ),
        ("nothing", vec![], Some(Reason::VxlanHeader)),
        (
            "half a header",
            good[..7].to_vec(),
            Some(Reason::VxlanHeader),
        ),
        ("a header alone", good.to_vec(), Some(Reason::TooShort)),
        (
            "half an Ethernet header",
            datagram(good, &plain(13)),
            Some(Reason::TooShort),
        ),
        (
            "a byte too much",
            datagram(good, &plain(MAX_FRAME + 1)),
            Some(Reason::TooLong),
        ),
        (
            "more than a slot",
            datagram(good, &plain(9000)),
            Some(Reason::TooLong),
        ),
    ];
    for (what, bytes, expected) in cases {
        for peer in [None, Some("127.0.0.1"), Some("127.0.0.2"), Some("::1")] {
            let mut b = bench(128, 64, peer);
            b.far.send(bytes).expect("lo");
            let frames = b.receive(64);
            let stranger = matches!(peer, Some("127.0.0.2" | "::1"));
            let expected = if stranger {
                Some(Reason::WrongPeer)
            } else {
                *expected
            };
            let rx = &b.io.counters[0].rx;
            let len = bytes.len().saturating_sub(8).min(2048 - 64);
            assert_eq!((rx.frames, rx.bytes), (1, len as u64), "{what}");
            match expected {
                None => assert_eq!(frames, [&bytes[8..]], "{what}"),
                Some(reason) => {
                    assert_eq!((frames.len(), rx.dropped.get(reason)), (0, 1), "{what}");
                    assert_eq!(rx.dropped.total(), 1, "{what}");
                }
            }
            assert_eq!(
                b.port.failure().is_some(),
                expected == Some(Reason::TooLong)
            );
            b.law();
        }
    }
}

#[test]
fn half_a_header_does_not_pass_for_network_0() {
    let mut b = bench(128, 64, None);
    b.port.options.vni = 0;
    b.far.send(&header::encode(0)[..4]).expect("lo");
    assert!(b.receive(64).is_empty());
    assert_eq!(b.io.counters[0].rx.dropped.get(Reason::VxlanHeader), 1);
}

#[test]
fn it_receives_no_more_than_the_budget_and_sleeps_when_there_is_nothing() {
    let mut b = bench(256, 64, None);
    for n in 0..100 {
        b.far
            .send(&datagram(header::encode(VNI), &plain(14 + n)))
            .expect("lo");
    }
    let mut received = Vec::new();
    while received.len() < 100 {
        let frames = b.receive(30);
        assert!(!frames.is_empty());
        received.extend(frames);
    }
    for (n, frame) in received.iter().enumerate() {
        assert_eq!(*frame, plain(14 + n));
    }
    // A poll is armed once, and nothing is asked before it is answered.
    assert_eq!(b.port.wait(&mut b.io), Wait::Event);
    assert_eq!(b.port.wait(&mut b.io), Wait::Event);
    assert_eq!(b.io.ring.kernel().pending.len(), 1);
    b.far
        .send(&datagram(header::encode(VNI), &plain(60)))
        .expect("lo");
    assert!(b.receive(64).is_empty());
    b.io.ring.kernel().answer(0, 1);
    b.reap(false);
    // The worker may ask once more before it receives: it must not sleep over what is there.
    assert_eq!(b.port.wait(&mut b.io), Wait::Ready);
    assert_eq!(b.receive(64).len(), 1);
    assert_eq!(b.port.wait(&mut b.io), Wait::Event);
    b.io.ring.kernel().answer(0, 1);
    b.reap(false);
    assert!(b.receive(64).is_empty(), "a poll for nothing");
    // A ring without room for the poll: it does not sleep.
    b.io.ring.kernel().room = Some(0);
    assert_eq!(b.port.wait(&mut b.io), Wait::Ready);
}

#[test]
fn without_slots_the_kernel_keeps_what_comes() {
    let mut b = bench(8, 64, None);
    for n in 0..20 {
        b.far
            .send(&datagram(header::encode(VNI), &plain(14 + n)))
            .expect("lo");
    }
    let mut batch = Vec::new();
    b.port.receive(&mut b.io, &mut batch, 64);
    assert_eq!(batch.len(), 8);
    b.port.receive(&mut b.io, &mut batch, 64);
    assert_eq!(batch.len(), 8);
    assert_eq!(b.port.wait(&mut b.io), Wait::Event, "it does not spin");
    for frame in batch.drain(..) {
        b.io.pool.free(frame);
    }
    assert_eq!(b.receive(64).len() + b.receive(64).len(), 12);
}

#[test]
fn at_its_end_everything_is_counted_and_given_back() {
    let mut b = bench(256, 64, None);
    b.stage(&[plain(60), plain(61)]);
    b.flush();
    b.stage(&[plain(62)]);
    for _ in 0..100 {
        b.far
            .send(&datagram(header::encode(VNI), &plain(60)))
            .expect("lo");
    }
    // A poll is in the kernel as well.
    assert_eq!(b.port.wait(&mut b.io), Wait::Event);
    assert!(b.receive(10).is_empty());
    b.port.source.as_mut().expect("a source").polling = false;
    assert_eq!(b.receive(10).len(), 10);
    b.port.source.as_mut().expect("a source").polling = true;
    b.port.close(&mut b.io, Reason::Shutdown);
    b.law();
    assert_eq!(b.dropped(Reason::Shutdown), 3);
    let rx = &b.io.counters[0].rx;
    assert_eq!((rx.frames, rx.dropped.get(Reason::Shutdown)), (100, 90));
    // The kernel still answers.
    while !b.io.ring.kernel().pending.is_empty() {
        b.io.ring.kernel().answer(0, 68);
        b.reap(true);
    }
    let (free, total) = b.free();
    assert_eq!(free, total);
    // Nothing comes or goes any more.
    b.stage(&[plain(60)]);
    assert_eq!(b.dropped(Reason::LinkDown), 1);
    assert_eq!(b.port.room(&b.io), usize::MAX);
}

#[test]
fn what_the_kernel_lost_is_known() {
    let b = bench(128, 64, None);
    let source = b.port.source.as_ref().expect("a source");
    let socket = &source.socket;
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::RcvBuf, &4096)
        .expect("a buffer");
    for _ in 0..100 {
        b.far
            .send(&datagram(header::encode(VNI), &plain(1000)))
            .expect("lo");
    }
    let mut b = b;
    let received = b.receive(64).len() as u64;
    assert!(received < 100);
    let lost = 100 - received;
    let asked = |b: &Bench| b.port.source.as_ref().expect("a source").lost.get().1;
    assert_eq!(asked(&b), 0);
    b.io.now += ASK;
    b.receive(64);
    assert_eq!(asked(&b), lost, "its number is taken before it runs over");
    let kernel = b.port.kernel().expect("a source has them");
    assert_eq!(kernel.rx_dropped, lost);
}

#[test]
fn at_its_end_what_came_is_counted_without_a_slot_to_put_it_in() {
    let mut b = bench(8, 64, None);
    let region = b.io.own_region.expect("a region");
    let taken: Vec<_> = std::iter::from_fn(|| b.io.pool.alloc(region)).collect();
    for n in 0..100 {
        b.far
            .send(&datagram(header::encode(VNI), &plain(60 + n)))
            .expect("lo");
    }
    b.port.close(&mut b.io, Reason::LinkDown);
    let rx = &b.io.counters[0].rx;
    let bytes = (0..100).map(|n| 60 + n).sum::<u64>();
    assert_eq!((rx.frames, rx.bytes), (100, bytes));
    assert_eq!(rx.dropped.get(Reason::LinkDown), 100);
    for frame in taken {
        b.io.pool.free(frame);
    }
    let (free, total) = b.free();
    assert_eq!(free, total);
}

proptest! {
    /// Whatever the kernel answers, and in whatever order, nothing is lost and the laws hold.
    #[test]
    fn the_laws_hold(steps in prop::collection::vec((0u8..5, 0usize..1900, any::<u8>()), 0..120)) {
        let mut b = bench(64, 24, None);
        for (step, len, n) in steps {
            match step {
                0 if b.free().0 > 0 => b.stage(&[plain(len)]),
                1 => b.port.flush(&mut b.io),
                2 => b.io.ring.submit().expect("a fake ring submits"),
                3 => {
                    b.io.ring.submit().expect("a fake ring submits");
                    let kernel = b.io.ring.kernel();
                    if !kernel.pending.is_empty() {
                        let i = usize::from(n) % kernel.pending.len();
                        let errno = [libc::EMSGSIZE, libc::EAGAIN, libc::ENETDOWN, libc::EPERM];
                        let result = match n % 8 {
                            n @ 0..4 => -errno[usize::from(n)],
                            _ => 8 + kernel.pending[i].sent().2.len() as i32,
                        };
                        kernel.answer(i, result);
                        b.reap(false);
                    }
                }
                _ => b.io.ring.kernel().room = (n % 4 == 0).then_some(usize::from(n) % 3),
            }
            b.law();
        }
        b.port.close(&mut b.io, Reason::Shutdown);
        b.io.ring.kernel().room = None;
        while !b.io.ring.kernel().pending.is_empty() {
            b.io.ring.kernel().answer(0, 0);
            b.reap(true);
        }
        b.law();
        let (free, total) = b.free();
        prop_assert_eq!(free, total);
    }
}
