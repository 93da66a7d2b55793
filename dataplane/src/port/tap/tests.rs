//! The port against a ring whose kernel is played from memory.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    frame::{HugePages, Piece, Region},
    packet::build::{FrameBuilder, Ipv4, Tcp},
    port::PortIndex,
    worker::{ring::Ring, wake::Waker},
};

struct Bench {
    io: Io,
    port: TapPort,
    completions: Vec<Completion>,
}

fn bench(source: bool, slots: u32, sink_cap: usize) -> Bench {
    bench_of(Layer::Ethernet, 1518, source, slots, sink_cap)
}

fn bench_of(layer: Layer, longest: usize, source: bool, slots: u32, sink_cap: usize) -> Bench {
    bench_with(options(layer, longest, source), slots, sink_cap)
}

/// With trains.
fn bench_of_trains(source: bool, slots: u32, sink_cap: usize) -> Bench {
    let plain = options(Layer::Ethernet, 1518, source);
    bench_with(TapOptions { gso: true, ..plain }, slots, sink_cap)
}

fn options(layer: Layer, longest: usize, source: bool) -> TapOptions {
    TapOptions {
        layer,
        longest,
        source,
        threads: false,
        gso: false,
    }
}

fn bench_with(options: TapOptions, slots: u32, sink_cap: usize) -> Bench {
    let waker = Arc::new(Waker::new().expect("an eventfd"));
    let mut io = Io::new(Ring::fake(), waker, 1, sink_cap);
    let region = Region::map(slots, 2048, 64, HugePages::Off).expect("memory");
    io.own_region = io.pool.add(region);
    // Any descriptor does: the played kernel never looks at it.
    let queue = OwnedFd::from(std::fs::File::open("/dev/null").expect("/dev/null"));
    let mut port = TapPort::new("lc0", queue, options);
    let place = Place {
        index: PortIndex(0),
        generation: 3,
    };
    port.attach(&mut io, place).expect("attaches");
    Bench {
        io,
        port,
        completions: Vec::with_capacity(64),
    }
}

impl Bench {
    fn stage(&mut self, lens: &[usize]) {
        let frames: Vec<_> = lens.iter().map(|&len| vec![len as u8; len]).collect();
        self.stage_these(&frames);
    }

    fn stage_these(&mut self, frames: &[Vec<u8>]) {
        let region = self.io.own_region.expect("a region");
        let mut frames: Vec<_> = frames
            .iter()
            .map(|bytes| {
                let mut frame = self.io.pool.alloc(region).expect("a free slot");
                assert!(self.io.pool.fill(&mut frame, bytes));
                self.io.pool.stage(frame)
            })
            .collect();
        self.port.stage(&mut self.io, &mut frames);
        assert!(frames.is_empty(), "stage takes all");
    }

    /// What the kernel was told to write.
    fn written(&mut self) -> Vec<Vec<u8>> {
        let pending = self.io.ring.kernel().pending.iter();
        pending.map(|p| p.written().to_vec()).collect()
    }

    /// Delivers every answer; those of a closed port free their slots as the worker does it.
    fn reap(&mut self, closed: bool) {
        self.completions.clear();
        self.io.ring.reap(&mut self.completions);
        for completion in self.completions.clone() {
            if !closed {
                self.port.complete(&mut self.io, completion);
                continue;
            }
            match completion.tag.op {
                Op::Write => self.io.pool.complete(completion.tag.slot),
                Op::Gather => drop(self.io.settle(completion.tag)),
                Op::Read => self.io.pool.reclaim(completion.tag.slot),
                _ => {}
            }
        }
    }

    fn law(&self) {
        self.io.pool.audit().expect("the pool's law");
        assert_eq!(
            self.io.counters[0].tx.in_flight(),
            self.port.in_flight() as u64
        );
    }

    fn dropped(&self, reason: Reason) -> u64 {
        self.io.counters[0].tx.dropped.get(reason)
    }
}

#[test]
fn what_is_staged_is_written_in_order() {
    let mut b = bench(false, 64, 64);
    b.stage(&[60, 61, 62]);
    b.port.flush(&mut b.io);
    assert_eq!(b.written(), [vec![60; 60], vec![61; 61], vec![62; 62]]);
    assert!(
        b.io.ring
            .kernel()
            .pending
            .iter()
            .all(|p| p.tag.generation == 3)
    );
    for len in [60, 61, 62] {
        b.io.ring.kernel().answer(0, len);
    }
    b.reap(false);
    let tx = b.io.counters[0].tx;
    assert_eq!((tx.offered, tx.frames, tx.bytes), (3, 3, 183));
    b.law();
}

#[test]
fn refusals_are_counted_by_reason() {
    let cases: &[(i32, Reason)] = &[
        (-libc::EIO, Reason::LinkDown),
        (-libc::EINVAL, Reason::WriteError),
        (-libc::ENOBUFS, Reason::WriteError),
        (-libc::EBADFD, Reason::LinkDown),
    ];
    for &(result, reason) in cases {
        let mut b = bench(false, 64, 64);
        b.stage(&[60]);
        b.port.flush(&mut b.io);
        b.io.ring.kernel().answer(0, result);
        b.reap(false);
        assert_eq!(b.dropped(reason), 1, "{result}");
        // The first of each is told; only a device that is gone ends the port.
        let gone = result == -libc::EBADFD;
        assert!(b.io.trouble);
        assert_eq!(b.port.failure().map(|f| f.fatal), Some(gone));
        assert!(b.port.failure().is_none());
        b.stage(&[60]);
        b.port.flush(&mut b.io);
        assert_eq!(
            b.dropped(Reason::LinkDown),
            if gone {
                2
            } else {
                u64::from(reason == Reason::LinkDown)
            }
        );
        b.law();
    }
}

#[test]
fn what_no_tap_takes_is_not_offered_to_the_kernel() {
    let mut b = bench(false, 64, 4);
    b.stage(&[13, 1519, 14, 1518, 60, 60, 60]);
    assert_eq!(b.dropped(Reason::TooShort), 1);
    assert_eq!(b.dropped(Reason::TooLong), 1);
    assert_eq!(b.dropped(Reason::SinkFull), 1);
    assert_eq!(b.port.in_flight(), 4);
    b.law();
}

#[test]
fn a_full_ring_keeps_the_order() {
    let mut b = bench(false, 64, 64);
    b.io.ring.kernel().room = Some(2);
    b.stage(&[60, 61, 62, 63]);
    b.port.flush(&mut b.io);
    b.law();
    b.io.ring.kernel().room = None;
    b.port.flush(&mut b.io);
    let first: Vec<_> =
        b.io.ring
            .kernel()
            .pending
            .iter()
            .map(|p| p.written()[0])
            .collect();
    assert_eq!(first, [60, 61, 62, 63]);
    b.law();
}

#[test]
fn reads_are_parked_and_come_in_order() {
    let mut b = bench(true, 256, 64);
    assert_eq!(b.io.ring.kernel().pending.len(), PARKED);
    for i in 0..10u8 {
        b.io.ring.kernel().answer_read(0, &[i; 60]);
    }
    b.reap(false);
    let mut batch = Vec::new();
    b.port.receive(&mut b.io, &mut batch, 4);
    b.port.receive(&mut b.io, &mut batch, 64);
    let first: Vec<_> = batch.iter().map(|f| b.io.pool.bytes(f)[0]).collect();
    assert_eq!(first, (0..10).collect::<Vec<u8>>());
    assert_eq!(
        b.io.ring.kernel().pending.len(),
        PARKED,
        "as many are parked again"
    );
    for frame in batch {
        b.io.pool.free(frame);
    }
    assert_eq!(b.io.counters[0].rx.frames, 10);
    b.law();
}

/// Where the ring has threads that overtake one another, it has one read and one write at a time.
#[test]
fn one_at_a_time_where_the_ring_has_threads() {
    let options = TapOptions {
        threads: true,
        gso: true,
        ..options(Layer::Ethernet, 1518, true)
    };
    let mut b = bench_with(options, 256, 64);
    for i in 0..5u8 {
        assert_eq!(b.io.ring.kernel().pending.len(), 1, "one read");
        b.io.ring.kernel().answer_read(0, &[i; 72]);
        b.reap(false);
        let mut batch = Vec::new();
        b.port.receive(&mut b.io, &mut batch, 64);
        let first: Vec<_> = batch.iter().map(|f| b.io.pool.bytes(f)[0]).collect();
        assert_eq!(first, [i]);
        batch.into_iter().for_each(|frame| b.io.pool.free(frame));
    }
    b.stage(&[60, 61, 62]);
    for left in [2, 1, 0] {
        b.port.flush(&mut b.io);
        b.port.flush(&mut b.io);
        assert_eq!(b.port.writing, 1, "one write");
        assert_eq!(b.port.staged.len(), left);
        // The read of before waits on.
        let last = b.io.ring.kernel().pending.len() - 1;
        b.io.ring.kernel().answer(last, 72);
        b.reap(false);
    }
    assert_eq!(b.io.counters[0].tx.frames, 3);
    b.law();
}

fn udp(payload: usize, tags: &[u16]) -> Vec<u8> {
    let mut frame = FrameBuilder::new()
        .ipv4(Ipv4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()))
        .udp(1, 2)
        .payload(&vec![7; payload])
        .to_vec()
        .expect("short enough");
    for tag in tags {
        let [high, low] = tag.to_be_bytes();
        frame.splice(12..12, [high, low, 0, 42]);
    }
    frame
}

#[test]
fn a_tun_sink_writes_packets_and_counts_their_bytes() {
    let mut b = bench_of(Layer::Ip, 100, false, 64, 64);
    let packet = udp(3, &[]).split_off(14);
    let mut padded = udp(3, &[]);
    padded.resize(60, 0);
    let arp = vec![0x08, 0x06];
    b.stage_these(&[
        udp(3, &[]),
        padded,
        udp(3, &[0x8100, 0x88a8]),
        [vec![0; 12], arp, vec![0; 46]].concat(),
        udp(72, &[]),
        udp(73, &[0x8100]),
        vec![0; 13],
    ]);
    b.port.flush(&mut b.io);
    let longest = udp(72, &[]).split_off(14);
    assert_eq!(
        b.written(),
        [packet.clone(), packet.clone(), packet, longest]
    );
    for len in [31, 31, 31, 100] {
        b.io.ring.kernel().answer(0, len);
    }
    b.reap(false);
    assert_eq!(b.dropped(Reason::NotIp), 2);
    assert_eq!(b.dropped(Reason::TooLong), 1);
    let tx = b.io.counters[0].tx;
    assert_eq!((tx.offered, tx.frames, tx.bytes), (7, 4, 193));
    b.law();
}

/// Of a frame with several sinks, each device gets its own part.
#[test]
fn a_tun_sink_leaves_other_shares_whole() {
    let mut b = bench_of(Layer::Ip, 1500, false, 64, 64);
    let region = b.io.own_region.expect("a region");
    let mut frame = b.io.pool.alloc(region).expect("a free slot");
    assert!(b.io.pool.fill(&mut frame, &udp(9, &[0x8100])));
    let original = b.io.pool.stage(frame);
    let share = b.io.pool.share(&original);
    b.port.stage(&mut b.io, &mut vec![share]);
    assert_eq!(b.io.pool.staged_bytes(&original), udp(9, &[0x8100]));
    b.io.pool.release(original);
    b.law();
}

#[test]
fn a_tun_source_puts_a_header_before_what_is_ip() {
    let mut b = bench_of(Layer::Ip, 100, true, 256, 64);
    let packet = udp(3, &[]).split_off(14);
    let version = |version: u8| vec![version << 4; 40];
    for read in [&packet, &version(6), &version(5), &vec![0x45; 101]] {
        b.io.ring.kernel().answer_read(0, read);
    }
    b.reap(false);
    let mut batch = Vec::new();
    b.port.receive(&mut b.io, &mut batch, 64);
    let frames: Vec<_> = batch.iter().map(|f| b.io.pool.bytes(f).to_vec()).collect();
    let headed = |kind: [u8; 2], packet: &[u8]| {
        [&DESTINATION_ADDRESS[..], &SOURCE_ADDRESS, &kind, packet].concat()
    };
    assert_eq!(
        frames,
        [
            headed([0x08, 0], &packet),
            headed([0x86, 0xdd], &version(6))
        ]
    );
    for frame in batch {
        b.io.pool.free(frame);
    }
    let rx = b.io.counters[0].rx;
    // As they were read: without the header.
    assert_eq!((rx.frames, rx.bytes), (4, 31 + 40 + 40 + 101));
    assert_eq!(rx.dropped.get(Reason::NotIp), 1);
    assert_eq!(rx.dropped.get(Reason::TooLong), 1);
    b.law();
}

#[test]
fn a_tun_source_needs_room_for_its_header() {
    let mut b = bench(false, 4, 4);
    let region = Region::map(4, 2048, 13, HugePages::Off).expect("memory");
    b.io.own_region = b.io.pool.add(region);
    let queue = OwnedFd::from(std::fs::File::open("/dev/null").expect("/dev/null"));
    let options = TapOptions {
        layer: Layer::Ip,
        longest: 1500,
        source: true,
        threads: false,
        gso: false,
    };
    let mut port = TapPort::new("tun0", queue, options);
    let refused = port.attach(&mut b.io, Place::default()).unwrap_err();
    assert!(refused.message.contains("13 bytes"), "{refused}");
}

#[test]
fn a_removed_device_ends_the_source() {
    let mut b = bench(true, 256, 64);
    b.io.ring.kernel().answer(0, -libc::EFAULT);
    b.reap(false);
    assert!(b.io.trouble);
    let failure = b.port.failure().expect("it says so");
    assert!(failure.message.contains("lc0"), "{failure}");
    assert_eq!(b.port.wait(&mut b.io), Wait::Done);
    b.law();
}

#[test]
fn closing_counts_everything_and_loses_no_slot() {
    let mut b = bench(true, 256, 64);
    b.io.ring.kernel().answer_read(0, &[9; 60]);
    b.reap(false);
    b.stage(&[60, 61]);
    b.port.flush(&mut b.io);
    b.stage(&[62]);
    b.port.close(&mut b.io, Reason::Shutdown);
    b.law();
    assert_eq!(b.dropped(Reason::Shutdown), 3);
    assert_eq!(b.io.counters[0].rx.dropped.get(Reason::Shutdown), 1);
    // The kernel still answers: cancelled reads, and writes that it had.
    while let Some(pending) = b.io.ring.kernel().pending.first().cloned() {
        let result = match pending.tag.op {
            Op::Write => 60,
            _ => -libc::ECANCELED,
        };
        b.io.ring.kernel().answer(0, result);
        b.reap(true);
    }
    let count = b.io.pool.count(b.io.own_region.expect("a region"));
    assert_eq!(count.free, count.total);
    b.io.pool.audit().expect("the pool's law");
}

/// Segments of one flow, one behind the other, of so many bytes of payload each.
fn segments(payloads: &[usize]) -> Vec<Vec<u8>> {
    let (mut sequence, mut id) = (0, 0);
    let frame = |&length: &usize| {
        let mut ip = Ipv4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        ip.identification = id;
        let mut tcp = Tcp::new(40_000, 80, 0x10);
        tcp.sequence = sequence;
        sequence += length as u32;
        id += 1;
        let payload = vec![length as u8; length];
        let frame = FrameBuilder::new().ipv4(ip).tcp(tcp).payload(&payload);
        frame.to_vec().expect("a frame")
    };
    payloads.iter().map(frame).collect()
}

#[test]
fn a_train_is_one_write_and_counts_its_frames() {
    let mut b = bench_of_trains(false, 64, 64);
    let sent = [segments(&[100, 100, 60]), vec![vec![9; 60]]].concat();
    b.stage_these(&sent);
    b.port.flush(&mut b.io);
    b.io.ring.submit().expect("a fake ring submits");
    b.law();
    let pending = &b.io.ring.kernel().pending;
    let [train, alone] = &pending[..] else {
        panic!("two writes: {}", pending.len());
    };
    assert_eq!((train.tag.op, train.tag.generation), (Op::Gather, 3));
    // The segments' headers are in the train's; of the other nothing changes but what stands before it.
    let payloads = sent[..3].iter().map(|frame| &frame[54..]);
    assert_eq!(train.gathered()[1..], payloads.collect::<Vec<_>>());
    assert_eq!(train.gathered()[0].len(), train::VIRTIO + 54);
    assert_eq!(alone.gathered(), [&train::ALONE[..], &sent[3]]);
    b.io.ring.kernel().answer(1, 70);
    b.io.ring.kernel().answer(0, 10 + 54 + 260);
    b.reap(false);
    let tx = b.io.counters[0].tx;
    let bytes: usize = sent.iter().map(Vec::len).sum();
    assert_eq!((tx.offered, tx.frames, tx.bytes), (4, 4, bytes as u64));
    assert_eq!(tx.trains, 1);
    b.law();
}

#[test]
fn a_refused_train_is_counted_frame_by_frame() {
    for (result, reason) in [
        (-libc::EIO, Reason::LinkDown),
        (-libc::EINVAL, Reason::WriteError),
        (-libc::EBADFD, Reason::LinkDown),
    ] {
        let mut b = bench_of_trains(false, 64, 64);
        b.stage_these(&segments(&[100; 5]));
        b.port.flush(&mut b.io);
        b.io.ring.kernel().answer(0, result);
        b.reap(false);
        assert_eq!(b.dropped(reason), 5, "{result}");
        assert_eq!(b.io.counters[0].tx.trains, 0);
        assert!(b.port.failure().is_some());
        b.law();
    }
}

#[test]
fn trains_that_find_no_room_wait_in_order() {
    let mut b = bench_of_trains(false, 64, 64);
    b.io.ring.kernel().room = Some(1);
    b.stage_these(&segments(&[100, 100, 90, 100, 100]));
    b.port.flush(&mut b.io);
    assert_eq!(b.port.in_flight(), 5);
    b.law();
    b.io.ring.kernel().room = None;
    b.port.flush(&mut b.io);
    b.io.ring.submit().expect("a fake ring submits");
    let pending = b.io.ring.kernel().pending.iter();
    let counts: Vec<_> = pending.map(|p| p.gathered().len() - 1).collect();
    assert_eq!(counts, [3, 2]);
    b.law();
}

/// Also where the packet ends with the first slot, and what is behind it belongs to no packet.
#[test]
fn a_frame_in_several_slots_is_in_no_train() {
    // (which of four segments has slots behind it, how many segments each write has)
    for (long, writes) in [(0, &[1, 3][..]), (1, &[1, 1, 2]), (3, &[3, 1]), (4, &[4])] {
        let mut b = bench_of_trains(false, 64, 64);
        let region = b.io.own_region.expect("a region");
        b.io.pool.allow_chains(region);
        for (n, bytes) in segments(&[100; 4]).into_iter().enumerate() {
            if n != long {
                b.stage_these(&[bytes]);
                continue;
            }
            let pieces = [bytes, vec![0; 200], vec![0; 200]].map(|bytes| {
                let mut piece = b.io.pool.alloc(region).expect("a free slot");
                assert!(b.io.pool.fill(&mut piece, &bytes));
                let (offset, len) = (piece.offset, piece.len);
                let slot = b.io.pool.lend(piece).slot;
                Piece { slot, offset, len }
            });
            let frame = b.io.pool.receiver(region).receive_chain(&pieces);
            let frame = b.io.pool.stage(frame.expect("lent"));
            b.port.stage(&mut b.io, &mut vec![frame]);
        }
        b.port.flush(&mut b.io);
        b.io.ring.submit().expect("a fake ring submits");
        for &count in writes {
            b.io.ring.kernel().answer(0, 60);
            let before = b.io.counters[0].tx.frames;
            b.reap(false);
            assert_eq!(b.io.counters[0].tx.frames - before, count, "{long}");
        }
        assert_eq!(b.port.in_flight(), 0);
        b.law();
    }
}

#[test]
fn a_source_of_such_a_device_leaves_the_virtio_header_out() {
    let mut b = bench_of_trains(true, 256, 64);
    for (n, len) in [70, 10, 23, 24, 10 + 1518, 10 + 1519]
        .into_iter()
        .enumerate()
    {
        b.io.ring.kernel().answer_read(0, &vec![n as u8; len]);
    }
    b.reap(false);
    let mut batch = Vec::new();
    b.port.receive(&mut b.io, &mut batch, 64);
    let lens: Vec<_> = batch.iter().map(Frame::len).collect();
    assert_eq!(lens, [60, 14, 1518]);
    for frame in batch {
        b.io.pool.free(frame);
    }
    let rx = b.io.counters[0].rx;
    assert_eq!((rx.frames, rx.bytes), (6, 60 + 13 + 14 + 1518 + 1519));
    assert_eq!(rx.dropped.get(Reason::TooShort), 2);
    assert_eq!(rx.dropped.get(Reason::TooLong), 1);
    b.law();
}

proptest! {
    #[test]
    fn the_law_holds_in_every_order(
        gso: bool,
        steps in prop::collection::vec((0u8..7, 0usize..64), 0..150),
    ) {
        let options = TapOptions {
            gso,
            ..options(Layer::Ethernet, 1518, true)
        };
        let mut b = bench_with(options, 200, 32);
        let mut held = Vec::new();
        for (what, n) in steps {
            match what {
                0 => {
                    let free = b.io.pool.free_slots(b.io.own_region.expect("a region"));
                    let payloads = (0..n.min(free)).map(|at| if at % 9 == 8 { 6 } else { 100 });
                    b.stage_these(&segments(&payloads.collect::<Vec<_>>()));
                }
                1 => {
                    b.port.flush(&mut b.io);
                    b.io.ring.submit().expect("a fake ring submits");
                }
                2 => b.port.receive(&mut b.io, &mut held, n),
                3 => if let Some(frame) = held.pop() { b.io.pool.free(frame) },
                4 => b.io.ring.kernel().room = (n % 3 == 0).then_some(n),
                _ => {
                    let kernel = b.io.ring.kernel();
                    if !kernel.pending.is_empty() {
                        let i = n % kernel.pending.len();
                        match kernel.pending[i].tag.op {
                            Op::Read => kernel.answer_read(i, &[1; 60]),
                            _ => kernel.answer(i, if n % 5 == 0 { -libc::ENOBUFS } else { 60 }),
                        }
                    }
                    b.reap(false);
                }
            }
            b.law();
        }
        b.io.ring.kernel().room = None;
        b.port.close(&mut b.io, Reason::Shutdown);
        held.drain(..).for_each(|frame| b.io.pool.free(frame));
        while let Some(pending) = b.io.ring.kernel().pending.first().cloned() {
            b.io.ring.kernel().answer(0, if pending.tag.op == Op::Read { -libc::ECANCELED } else { 60 });
            b.reap(true);
        }
        b.law();
        prop_assert_eq!(b.io.pool.total().free, 200);
    }
}
