//! The port against rings whose kernel is played from memory: no root, every order of events.

// Reads and writes at slots' addresses, as the kernel does.
#![allow(unsafe_code)]

use std::{
    cell::RefCell,
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex},
    time::Duration,
};

use proptest::prelude::*;

use super::{socket::Umem, *};
use crate::{
    frame::{Arena, HugePages, Lease},
    port::PortIndex,
    worker::{ring::Ring, wake::Waker},
};

const SLOTS: u32 = 256;
const SLOT_SIZE: usize = 2048;
const HEADROOM: usize = 256;
const CAPACITY: usize = SLOT_SIZE - HEADROOM;

/// Both sides of the four rings.
#[derive(Default)]
struct Kernel {
    fill: VecDeque<u32>,
    rx: VecDeque<Received>,
    tx: VecDeque<Transmit>,
    tx_size: usize,
    sent: VecDeque<(u32, Vec<u8>)>,
    /// The same as frames, the last of which may go on.
    whole: Vec<Vec<u8>>,
    goes_on: bool,
    completion: VecDeque<u32>,
    /// Where the UMEM begins, and in it the port's own region.
    umem: usize,
    own: usize,
    down: bool,
}

impl Kernel {
    /// A frame arrives: into a filled slot, or as many as it takes, or it is lost.
    fn deliver(&mut self, bytes: &[u8]) -> bool {
        let count = bytes.len().div_ceil(CAPACITY);
        if self.fill.len() < count {
            return false;
        }
        for (n, (part, slot)) in bytes
            .chunks(CAPACITY)
            .zip(self.fill.drain(..count))
            .enumerate()
        {
            let at = self.own + slot as usize * SLOT_SIZE + HEADROOM;
            // SAFETY: the slot is lent (it came through the fill ring), and the region outlives the test.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), at as *mut u8, part.len()) };
            self.rx.push_back(Received {
                slot,
                offset: HEADROOM as u32,
                len: part.len() as u32,
                more: n + 1 < count,
            });
        }
        true
    }

    /// Transmits at most `budget` frames: their bytes are read now, their slots complete later.
    fn transmit(&mut self, budget: usize) {
        for _ in 0..budget {
            let Some(frame) = self.tx.pop_front() else {
                return;
            };
            let at = self.umem + frame.chunk as usize * SLOT_SIZE + frame.offset as usize;
            // SAFETY: the slot is submitted, so that its bytes do not change.
            let bytes = unsafe { std::slice::from_raw_parts(at as *const u8, frame.len as usize) };
            self.sent.push_back((frame.chunk, bytes.to_vec()));
            match self.whole.last_mut() {
                Some(last) if self.goes_on => last.extend(bytes),
                _ => self.whole.push(bytes.to_vec()),
            }
            self.goes_on = frame.more;
        }
    }

    fn complete(&mut self, n: usize) {
        for (slot, _) in self.sent.drain(..n.min(self.sent.len())) {
            self.completion.push_back(slot);
        }
    }
}

struct FakeRings {
    kernel: Arc<Mutex<Kernel>>,
    umem: Umem,
    lease: Lease,
    fd: nix::sys::eventfd::EventFd,
}

impl FakeRings {
    fn with<T>(&self, f: impl FnOnce(&mut Kernel) -> T) -> T {
        f(&mut self.kernel.lock().expect("one thread"))
    }
}

impl Rings for FakeRings {
    fn receive(&mut self, max: usize, each: impl FnMut(Received)) -> usize {
        self.with(|k| {
            let n = max.min(k.rx.len());
            k.rx.drain(..n).for_each(each);
            n
        })
    }
    fn ahead(&mut self, max: usize, each: impl FnMut(Received)) {
        self.with(|k| k.rx.iter().take(max).copied().for_each(each));
    }
    fn readable(&mut self) -> bool {
        self.with(|k| !k.rx.is_empty())
    }
    fn fill(&mut self, slots: &[u32]) -> bool {
        self.with(|k| k.fill.extend(slots));
        true
    }
    fn kick_fill(&mut self) {}
    fn transmit(&mut self, frames: &[Transmit]) -> bool {
        self.with(|k| {
            let fits = k.tx.len() + frames.len() <= k.tx_size;
            if fits {
                k.tx.extend(frames);
            }
            fits
        })
    }
    fn transmit_room(&mut self, _wanted: usize) -> usize {
        self.with(|k| k.tx_size - k.tx.len())
    }
    fn untaken(&mut self) -> usize {
        self.with(|k| k.tx.len())
    }
    fn wants_kick(&mut self) -> bool {
        true
    }
    fn kick(&mut self) -> Kick {
        self.with(|k| {
            if k.down {
                return Kick::Down;
            }
            k.transmit(32);
            if k.tx.is_empty() {
                Kick::Done
            } else {
                Kick::Again
            }
        })
    }
    fn completed(&mut self, max: usize, each: impl FnMut(u32)) -> usize {
        self.with(|k| {
            let n = k.completion.len().min(max);
            k.completion.drain(..n).for_each(each);
            n
        })
    }
    fn chunks(&self) -> u32 {
        self.umem.chunks()
    }
    fn first_chunk(&self, region: &Region) -> Option<u32> {
        self.umem.first_chunk(region)
    }
    fn lease(&self) -> &Lease {
        &self.lease
    }
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
    fn kernel(&self) -> KernelCounters {
        KernelCounters::default()
    }
}

struct Bench {
    io: Io,
    port: AfXdpPort<FakeRings>,
    kernel: Arc<Mutex<Kernel>>,
    /// A region outside the arena, where frames to transmit come from.
    other: RegionId,
    /// And one that is a part of it.
    part: RegionId,
}

const INDEX: PortIndex = PortIndex(0);

/// A port as control makes it: nothing in it has been used.
fn unattached() -> (AfXdpPort<FakeRings>, Arc<Mutex<Kernel>>) {
    let arena = Arena::map(3, SLOTS, SLOT_SIZE as u32, HugePages::Off).expect("memory");
    unattached_in(&arena, true, true, 1850)
}

fn unattached_in(
    arena: &Arena,
    source: bool,
    sink: bool,
    max_frame: usize,
) -> (AfXdpPort<FakeRings>, Arc<Mutex<Kernel>>) {
    let (region, own) = arena.take(2, HEADROOM).expect("nobody has it");
    let umem = Umem::new(&own, true);
    let kernel = Arc::new(Mutex::new(Kernel {
        tx_size: 128,
        umem: umem.base,
        own: region.as_raw().0 as usize,
        ..Kernel::default()
    }));
    let rings = FakeRings {
        kernel: Arc::clone(&kernel),
        umem,
        lease: Lease::new(Duration::ZERO),
        fd: nix::sys::eventfd::EventFd::new().expect("an eventfd"),
    };
    let port = AfXdpPort::with_rings(
        rings,
        region,
        max_frame > 1850,
        AfXdpOptions {
            source,
            sink,
            max_frame,
        },
    );
    (port, kernel)
}

fn bench(source: bool, sink: bool, sink_cap: usize) -> Bench {
    bench_of(source, sink, sink_cap, 1850)
}

/// With frames of several slots where the longest needs them.
fn bench_of(source: bool, sink: bool, sink_cap: usize, max_frame: usize) -> Bench {
    let waker = Arc::new(Waker::new().expect("an eventfd"));
    let mut io = Io::new(Ring::fake(), waker, 1, sink_cap);
    let other = Region::map(512, 2048, 64, HugePages::Off).expect("memory");
    let other = io.pool.add(other).expect("room");
    let arena = Arena::map(3, SLOTS, SLOT_SIZE as u32, HugePages::Off).expect("memory");
    let (part, _) = arena.take(0, 64).expect("nobody has it");
    let part = io.pool.add(part).expect("room");
    let (mut port, kernel) = unattached_in(&arena, source, sink, max_frame);
    port.attach(
        &mut io,
        Place {
            index: INDEX,
            generation: 0,
        },
    )
    .expect("attaches");
    Bench {
        io,
        port,
        kernel,
        other,
        part,
    }
}

impl Bench {
    fn kernel<T>(&self, f: impl FnOnce(&mut Kernel) -> T) -> T {
        f(&mut self.kernel.lock().expect("one thread"))
    }

    fn frame(&mut self, bytes: &[u8]) -> Staged {
        self.frame_in(self.other, bytes)
    }

    fn frame_in(&mut self, region: RegionId, bytes: &[u8]) -> Staged {
        let mut frame = self.io.pool.alloc(region).expect("a free slot");
        assert!(self.io.pool.fill(&mut frame, bytes));
        self.io.pool.stage(frame)
    }

    fn law(&self) {
        self.io.pool.audit().expect("the pool's law");
        let tx = &self.io.counters[0].tx;
        assert_eq!(tx.in_flight(), self.port.in_flight() as u64, "{tx:?}");
    }
}

#[test]
fn a_source_lends_all_its_slots_and_gets_each_frame_once() {
    let mut b = bench(true, false, 100);
    assert_eq!(b.kernel(|k| k.fill.len()), SLOTS as usize);
    let mut batch = Vec::new();
    for round in 0..1000u32 {
        assert!(b.kernel(|k| k.deliver(&round.to_be_bytes().repeat(16))));
        b.port.receive(&mut b.io, &mut batch, 64);
        assert_eq!(batch.len(), 1);
        let frame = batch.pop().expect("one frame");
        assert_eq!(b.io.pool.bytes(&frame), round.to_be_bytes().repeat(16));
        b.io.pool.free(frame);
        b.law();
    }
    assert_eq!(b.io.counters[0].rx.frames, 1000);
    assert_eq!(b.io.counters[0].rx.bytes, 64_000);
}

#[test]
fn frames_looked_at_ahead_keep_their_order_and_are_never_forgotten() {
    let mut b = bench(true, false, 100);
    for number in 0..150u8 {
        assert!(b.kernel(|k| k.deliver(&[number; 60])));
    }
    let mut batch = Vec::new();
    for (received, left_to_the_kernel) in [(64, 86), (128, 22)] {
        b.port.receive(&mut b.io, &mut batch, 64);
        assert_eq!(batch.len(), received);
        assert_eq!(b.io.counters[0].rx.frames, received as u64);
        assert_eq!(b.kernel(|k| k.rx.len()), left_to_the_kernel);
        b.law();
    }
    assert_eq!(
        b.port.wait(&mut b.io),
        Wait::Ready,
        "22 frames are still there"
    );
    for (number, frame) in batch.drain(..).enumerate() {
        assert_eq!(b.io.pool.bytes(&frame)[0], number as u8);
        b.io.pool.free(frame);
    }
    b.port.close(&mut b.io, Reason::LinkDown);
    b.law();
    let rx = b.io.counters[0].rx;
    assert_eq!((rx.frames, rx.dropped.get(Reason::LinkDown)), (150, 22));
}

#[test]
fn a_port_that_also_transmits_keeps_a_quarter_of_its_slots() {
    let b = bench(true, true, 100);
    assert_eq!(b.kernel(|k| k.fill.len()), SLOTS as usize * 3 / 4);
}

#[test]
fn copy_mode_is_kicked_until_all_is_taken() {
    let mut b = bench(false, true, 100);
    let mut frames: Vec<_> = (0..100u8).map(|i| b.frame(&[i; 60])).collect();
    b.port.stage(&mut b.io, &mut frames);
    b.port.flush(&mut b.io);
    b.law();
    let tx = b.io.counters[0].tx;
    assert_eq!((tx.offered, tx.copied, tx.frames), (100, 100, 0));
    assert_eq!(tx.kicks, 4, "32 frames a kick");
    let sent: Vec<u8> = b.kernel(|k| k.sent.iter().map(|(_, bytes)| bytes[0]).collect());
    assert_eq!(sent, (0..100).collect::<Vec<u8>>(), "in order");
    b.kernel(|k| k.complete(100));
    b.port.flush(&mut b.io);
    assert_eq!(b.io.counters[0].tx.frames, 100);
    assert_eq!(b.io.counters[0].tx.bytes, 6000);
    b.law();
}

#[test]
fn a_frame_of_the_arena_is_transmitted_from_where_it_is() {
    let mut b = bench(true, true, 100);
    assert!(b.kernel(|k| k.deliver(&[1; 60])));
    let mut batch = Vec::new();
    b.port.receive(&mut b.io, &mut batch, 64);
    let own = b.io.pool.stage(batch.pop().expect("one frame"));
    let mut cut = b.frame_in(b.part, &[2; 1984]);
    assert!(cut.cut_front(1900));
    let whole = b.frame_in(b.part, &[3; 1700]);
    let outside = b.frame(&[4; 60]);
    // The ring holds a frame once: a second share of it is copied.
    let again = b.io.pool.share(&whole);
    let mut frames = vec![own, cut, whole, outside, again];
    b.port.stage(&mut b.io, &mut frames);
    b.port.flush(&mut b.io);
    b.law();
    assert_eq!(b.io.counters[0].tx.copied, 2);
    let sent: Vec<_> = b.kernel(|k| {
        let sent = k.sent.iter().map(|(_, bytes)| (bytes[0], bytes.len()));
        sent.collect()
    });
    assert_eq!(sent, [(1, 60), (2, 84), (3, 1700), (4, 60), (3, 1700)]);
    b.kernel(|k| k.complete(5));
    b.port.flush(&mut b.io);
    b.law();
    assert_eq!(b.io.counters[0].tx.frames, 5);
    let count = b.io.pool.count(b.part);
    assert_eq!(count.free, count.total);
}

#[test]
fn what_a_closed_socket_may_still_read_is_nobodys_until_it_is_gone() {
    let mut b = bench(true, true, 100);
    b.kernel(|k| k.down = true);
    let mut frames: Vec<_> = (0..40u8).map(|i| b.frame_in(b.part, &[i; 60])).collect();
    // One of them is also on its way elsewhere.
    let elsewhere = b.io.pool.share(&frames[0]);
    frames.push(b.frame(&[40; 60]));
    b.port.stage(&mut b.io, &mut frames);
    b.port.flush(&mut b.io);
    b.port.close(&mut b.io, Reason::LinkDown);
    b.law();
    assert_eq!(b.io.counters[0].tx.dropped.get(Reason::LinkDown), 41);
    assert_eq!(b.port.in_flight(), 0);
    b.io.pool.release(elsewhere);
    assert!(b.io.pool.collect().is_some(), "the port's own region");
    assert_eq!(b.io.pool.count(b.part).kernel, 40);
    assert!(b.io.pool.is_retiring());
    drop(b.port);
    assert!(b.io.pool.collect().is_none());
    let count = b.io.pool.count(b.part);
    assert_eq!((count.free, count.kernel), (SLOTS, 0));
    assert!(!b.io.pool.is_retiring());
    b.io.pool.audit().expect("the pool's law");
}

#[test]
fn at_the_end_nothing_is_waited_for() {
    let mut b = bench(false, true, 100);
    b.kernel(|k| k.down = true);
    let mut frames = vec![b.frame_in(b.part, &[1; 60])];
    b.port.stage(&mut b.io, &mut frames);
    b.port.close(&mut b.io, Reason::Shutdown);
    assert_eq!(b.io.pool.count(b.part).kernel, 1);
    b.io.pool.settle(true);
    assert_eq!(b.io.pool.count(b.part).kernel, 0);
    b.law();
}

#[test]
fn what_does_not_fit_is_counted() {
    let cases: &[(usize, Reason)] = &[
        (13, Reason::TooShort),
        (1793, Reason::TooLong),
        (1900, Reason::TooLong),
    ];
    for &(len, reason) in cases {
        let mut b = bench(false, true, 100);
        let mut frames = vec![b.frame(&vec![0; len])];
        b.port.stage(&mut b.io, &mut frames);
        assert_eq!(b.io.counters[0].tx.dropped.get(reason), 1, "{len} bytes");
        b.law();
    }
    let mut b = bench(false, true, 5);
    let mut frames: Vec<_> = (0..8u8).map(|i| b.frame(&[i; 60])).collect();
    b.port.stage(&mut b.io, &mut frames);
    assert_eq!(b.io.counters[0].tx.dropped.get(Reason::SinkFull), 3);
    b.law();
}

/// What it says to a source that can wait is never more than it takes.
#[test]
fn what_it_has_room_for_fits() {
    // (frames that one sink may have, the longest, so much room; the ring has 128 entries, the region 256 slots)
    for (sink_cap, max_frame, room) in [
        (100, 1850, 100),
        (128, 1850, 128),
        (1000, 1850, 128),
        (1000, 9018, 21),
    ] {
        let mut b = bench_of(false, true, sink_cap, max_frame);
        b.kernel(|k| k.down = true);
        assert_eq!(b.port.room(&b.io), room, "{sink_cap} {max_frame}");
        let mut left = room;
        while left > 0 {
            let n = left.min(64);
            let mut frames: Vec<_> = (0..n).map(|_| b.frame(&[7; 60])).collect();
            b.port.stage(&mut b.io, &mut frames);
            b.port.flush(&mut b.io);
            left = b.port.room(&b.io);
        }
        assert_eq!(b.port.in_flight(), room);
        assert_eq!(b.io.counters[0].tx.dropped.total(), 0);
        b.law();
    }
}

#[test]
fn a_closed_port_counts_what_stuck_and_gives_every_slot_back() {
    let mut b = bench(true, true, 100);
    b.kernel(|k| {
        k.down = true;
        k.deliver(&[7; 60]);
    });
    let mut frames: Vec<_> = (0..40u8).map(|i| b.frame(&[i; 60])).collect();
    b.port.stage(&mut b.io, &mut frames);
    b.port.flush(&mut b.io);
    assert_eq!(b.port.in_flight(), 40);
    b.port.close(&mut b.io, Reason::LinkDown);
    b.law();
    let counters = b.io.counters[0];
    assert_eq!(counters.tx.dropped.get(Reason::LinkDown), 40);
    assert_eq!(counters.rx.dropped.get(Reason::LinkDown), 1);
    assert_eq!((counters.rx.in_flight(), counters.tx.in_flight()), (0, 0));
    let (_, region) = b.io.pool.collect().expect("every slot is free");
    assert_eq!(region.slots(), SLOTS);
}

#[test]
fn a_descriptor_that_was_not_lent_is_not_believed() {
    let mut b = bench(true, false, 100);
    b.kernel(|k| {
        for slot in [0, 0, 9999] {
            k.rx.push_back(Received {
                slot,
                offset: 256,
                len: 60,
                more: false,
            });
        }
    });
    let mut batch = Vec::new();
    b.port.receive(&mut b.io, &mut batch, 64);
    assert_eq!(batch.len(), 1, "slot 0 was lent, once");
    let rx = b.io.counters[0].rx;
    assert_eq!(rx.frames, 3);
    assert_eq!(rx.dropped.total(), 2);
    b.io.pool.free(batch.pop().expect("one"));
    b.law();
}

#[derive(Clone, Debug)]
enum Step {
    Deliver(usize),
    Receive(usize),
    FreeOne,
    Stage(usize),
    StagePart(usize),
    Forward(usize),
    Flush,
    KernelSends(usize),
    KernelCompletes(usize),
    Link(bool),
}

/// Bytes by which one finds out where they stood.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 + at) as u8).collect()
}

#[test]
fn a_long_frame_lies_in_several_slots_and_leaves_from_them() {
    let mut b = bench_of(true, true, 100, 32_256);
    let mut batch = Vec::new();
    for len in [60, 1792, 1793, 3584, 3585, 9000, 32_256] {
        assert!(b.kernel(|k| k.deliver(&pattern(len))));
        // In two goes, each with less than the whole.
        b.port.receive(&mut b.io, &mut batch, 1);
        b.law();
        b.port.receive(&mut b.io, &mut batch, 64);
        let frame = batch.pop().expect("a frame");
        assert_eq!((frame.len(), batch.len()), (len, 0));
        assert_eq!(frame.is_chain(), len > CAPACITY);
        b.law();
        let first = b.io.pool.stage(frame);
        // Once more while the first is in the ring: a copy, in as many slots.
        let again = b.io.pool.share(&first);
        for share in [first, again] {
            b.port.stage(&mut b.io, &mut vec![share]);
        }
        b.law();
        b.port.flush(&mut b.io);
        let whole = b.kernel(|k| std::mem::take(&mut k.whole));
        assert_eq!(whole, [pattern(len), pattern(len)]);
        // What is back of a frame frees nothing before the rest is, however often it is said to be back.
        let done = b.io.counters[0].tx.frames;
        b.kernel(|k| {
            k.complete(1);
            let first = k.completion[0];
            k.completion.extend([first; 20]);
        });
        b.port.flush(&mut b.io);
        let done = b.io.counters[0].tx.frames - done;
        assert_eq!(done, u64::from(len <= CAPACITY), "{len}");
        b.law();
        b.kernel(|k| k.complete(64));
        b.port.flush(&mut b.io);
        b.law();
    }
    let tx = b.io.counters[0].tx;
    assert_eq!((tx.offered, tx.frames, tx.copied), (14, 14, 7));
    assert_eq!(tx.bytes, 2 * b.io.counters[0].rx.bytes);
    assert_eq!(b.io.pool.count(b.port.region).staged, 0);
}

/// The interface that it came from has several slots a frame, the one that it goes to has not.
#[test]
fn a_queue_of_one_slot_a_frame_is_given_none_in_several() {
    // (bytes in each slot, why it is dropped)
    for (pieces, dropped) in [
        (&[60, 40][..], None),
        (&[1000, 792], None),
        (&[1000, 793], Some(Reason::TooLong)),
        (&[1000, 1000], Some(Reason::TooLong)),
    ] {
        let mut b = bench(false, true, 100);
        b.io.pool.allow_chains(b.part);
        let mut lent = Vec::new();
        for &len in pieces {
            let mut piece = b.io.pool.alloc(b.part).expect("a free slot");
            assert!(b.io.pool.fill(&mut piece, &pattern(len)));
            let offset = piece.offset;
            let slot = b.io.pool.lend(piece).slot;
            let len = len as u32;
            lent.push(Piece { slot, offset, len });
        }
        let frame = b.io.pool.receiver(b.part).receive_chain(&lent);
        let frame = b.io.pool.stage(frame.expect("lent"));
        b.port.stage(&mut b.io, &mut vec![frame]);
        let told: Vec<bool> = b.kernel(|k| k.tx.iter().map(|part| part.more).collect());
        b.port.flush(&mut b.io);
        b.law();
        let sent = b.kernel(|k| std::mem::take(&mut k.whole));
        match dropped {
            Some(reason) => {
                assert!(told.is_empty(), "{pieces:?}");
                assert_eq!(b.io.counters[0].tx.dropped.get(reason), 1, "{pieces:?}");
            }
            None => {
                assert_eq!(told, [false], "{pieces:?}");
                assert_eq!(
                    sent,
                    [pieces
                        .iter()
                        .flat_map(|&len| pattern(len))
                        .collect::<Vec<_>>()]
                );
                assert_eq!(b.io.counters[0].tx.copied, 1);
            }
        }
    }
}

#[test]
fn a_frame_of_more_slots_than_one_can_have_is_counted() {
    let mut b = bench_of(true, false, 100, 9018);
    let mut batch = Vec::new();
    for len in [CHAIN * CAPACITY + 1, 30 * CAPACITY, 60] {
        assert!(b.kernel(|k| k.deliver(&pattern(len))));
        b.port.receive(&mut b.io, &mut batch, 64);
        b.law();
    }
    let rx = b.io.counters[0].rx;
    assert_eq!((rx.frames, rx.dropped.get(Reason::TooLong)), (3, 2));
    assert_eq!(batch.len(), 1);
    b.io.pool.free(batch.remove(0));
    b.port.close(&mut b.io, Reason::LinkDown);
    b.law();
}

#[test]
fn half_a_frame_is_counted_when_its_port_ends() {
    let mut b = bench_of(true, false, 100, 9018);
    let mut batch = Vec::new();
    for _ in 0..2 {
        assert!(b.kernel(|k| k.deliver(&pattern(9000))));
    }
    b.port.receive(&mut b.io, &mut batch, 3);
    assert!(batch.is_empty());
    b.port.close(&mut b.io, Reason::LinkDown);
    let rx = b.io.counters[0].rx;
    assert_eq!((rx.frames, rx.bytes), (2, 18_000));
    assert_eq!(rx.dropped.get(Reason::LinkDown), 2);
    b.law();
}

#[test]
fn pieces_that_were_not_lent_make_no_frame() {
    let mut b = bench_of(true, false, 100, 9018);
    for (slot, more) in [(0, true), (0, true), (1, false), (9999, true), (2, false)] {
        b.kernel(|k| {
            k.rx.push_back(Received {
                slot,
                offset: 256,
                len: 60,
                more,
            });
        });
    }
    let mut batch = Vec::new();
    b.port.receive(&mut b.io, &mut batch, 64);
    assert!(batch.is_empty());
    let rx = b.io.counters[0].rx;
    assert_eq!((rx.frames, rx.dropped.get(Reason::KernelFull)), (2, 2));
    b.law();
}

proptest! {
    #[test]
    fn the_law_holds_in_every_order(long: bool, steps in prop::collection::vec(prop_oneof![
        (1usize..100).prop_map(Step::Deliver),
        (1usize..65).prop_map(Step::Receive),
        Just(Step::FreeOne),
        (1usize..80).prop_map(Step::Stage),
        (1usize..80).prop_map(Step::StagePart),
        (1usize..80).prop_map(Step::Forward),
        Just(Step::Flush),
        (1usize..64).prop_map(Step::KernelSends),
        (1usize..64).prop_map(Step::KernelCompletes),
        any::<bool>().prop_map(Step::Link),
    ], 0..120)) {
        let mut b = bench_of(true, true, 90, if long { 9018 } else { 1850 });
        let held = RefCell::new(Vec::new());
        let mut delivered = 0u64;
        for step in steps {
            match step {
                Step::Deliver(n) => for at in 0..n {
                    let len = if long { 60 + at * 1000 % 9000 } else { 60 };
                    delivered += u64::from(b.kernel(|k| k.deliver(&vec![1; len])));
                },
                Step::Receive(n) => b.port.receive(&mut b.io, &mut held.borrow_mut(), n),
                Step::FreeOne => if let Some(frame) = held.borrow_mut().pop() {
                    b.io.pool.free(frame);
                },
                Step::Stage(n) => {
                    let n = n.min(b.io.pool.free_slots(b.other));
                    let mut frames: Vec<_> = (0..n).map(|_| b.frame(&[2; 70])).collect();
                    b.port.stage(&mut b.io, &mut frames);
                }
                Step::StagePart(n) => {
                    let n = n.min(b.io.pool.free_slots(b.part));
                    let mut frames: Vec<_> = (0..n).map(|_| b.frame_in(b.part, &[3; 70])).collect();
                    b.port.stage(&mut b.io, &mut frames);
                }
                Step::Forward(n) => {
                    let mut held = held.borrow_mut();
                    let from = held.len().saturating_sub(n);
                    let mut frames: Vec<_> = held.drain(from..).map(|f| b.io.pool.stage(f)).collect();
                    b.port.stage(&mut b.io, &mut frames);
                }
                Step::Flush => b.port.flush(&mut b.io),
                Step::KernelSends(n) => b.kernel(|k| k.transmit(n)),
                Step::KernelCompletes(n) => b.kernel(|k| k.complete(n)),
                Step::Link(up) => b.kernel(|k| k.down = !up),
            }
            b.law();
        }
        b.port.close(&mut b.io, Reason::Shutdown);
        for frame in held.borrow_mut().drain(..) {
            b.io.pool.free(frame);
        }
        b.law();
        prop_assert_eq!(b.io.counters[0].rx.frames, delivered);
        prop_assert_eq!(b.io.counters[0].tx.in_flight(), 0);
        prop_assert!(b.io.pool.collect().is_some());
        drop(b.port);
        prop_assert!(b.io.pool.collect().is_none());
        for region in [b.other, b.part] {
            let count = b.io.pool.count(region);
            prop_assert_eq!(count.free, count.total);
        }
    }
}

/// The cache lines of a stretch of memory, in pairs as x86 fetches them.
fn lines<T>(of: *const T, count: usize) -> std::ops::RangeInclusive<usize> {
    let first = of.addr();
    first / 128..=(first + (size_of::<T>() * count).max(1) - 1) / 128
}

/// Ports are made by control, one after another, and each is then written by its worker alone.
#[test]
fn ports_of_two_workers_share_no_cache_line() {
    use std::sync::Barrier;
    const WORKERS: usize = 4;
    let ports: Vec<Box<AfXdpPort<FakeRings>>> =
        (0..WORKERS).map(|_| Box::new(unattached().0)).collect();
    // All are there at a time: memory that one gave back would be the next one's.
    let all_there = Barrier::new(WORKERS);
    let written: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = ports
            .into_iter()
            .map(|mut port| {
                let all_there = &all_there;
                scope.spawn(move || {
                    let waker = Arc::new(Waker::new().expect("an eventfd"));
                    let mut io = Io::new(Ring::fake(), Arc::clone(&waker), 1, 100);
                    port.attach(&mut io, Place::default()).expect("attaches");
                    let written = [
                        lines(&raw const *port, 1),
                        lines(port.transmitting.as_ptr(), port.transmitting.capacity()),
                        lines(port.transmits.as_ptr(), port.transmits.capacity()),
                        lines(io.counters.as_ptr(), io.counters.capacity()),
                        lines(Arc::as_ptr(&waker), 1),
                    ];
                    all_there.wait();
                    port.close(&mut io, Reason::Shutdown);
                    written
                })
            })
            .collect();
        let joined = workers.into_iter().map(|worker| worker.join());
        joined.map(|lines| lines.expect("no panic")).collect()
    });
    for (one, its) in written.iter().enumerate() {
        for others in &written[one + 1..] {
            for (a, b) in its.iter().flat_map(|a| others.iter().map(move |b| (a, b))) {
                let apart = a.end() < b.start() || b.end() < a.start();
                assert!(apart, "{a:?} and {b:?} in {written:?}");
            }
        }
    }
}
