//! The port against rings whose kernel is played from memory: no root, every order of events.

// Reads and writes at slots' addresses, as the kernel does.
#![allow(unsafe_code)]

use std::{
    cell::RefCell,
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex},
};

use proptest::prelude::*;

use super::*;
use crate::{
    frame::HugePages,
    port::PortIndex,
    worker::{ring::Ring, wake::Waker},
};

const SLOTS: u32 = 256;
const HEADROOM: usize = 256;

/// Both sides of the four rings.
#[derive(Default)]
struct Kernel {
    fill: VecDeque<u32>,
    rx: VecDeque<Received>,
    tx: VecDeque<Transmit>,
    tx_size: usize,
    sent: VecDeque<(u32, Vec<u8>)>,
    completion: VecDeque<u32>,
    base: usize,
    slot_size: usize,
    down: bool,
}

impl Kernel {
    /// A frame arrives: into a filled slot, or it is lost.
    fn deliver(&mut self, bytes: &[u8]) -> bool {
        let Some(slot) = self.fill.pop_front() else {
            return false;
        };
        let at = self.base + slot as usize * self.slot_size + HEADROOM;
        // SAFETY: the slot is lent (it came through the fill ring), and the region outlives the test.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
        self.rx.push_back(Received {
            slot,
            offset: HEADROOM as u32,
            len: bytes.len() as u32,
        });
        true
    }

    /// Transmits at most `budget` frames: their bytes are read now, their slots complete later.
    fn transmit(&mut self, budget: usize) {
        for _ in 0..budget {
            let Some(frame) = self.tx.pop_front() else {
                return;
            };
            let at = self.base + frame.chunk as usize * self.slot_size + frame.offset as usize;
            // SAFETY: the slot is submitted, so that its bytes do not change.
            let bytes = unsafe { std::slice::from_raw_parts(at as *const u8, frame.len as usize) };
            self.sent.push_back((frame.chunk, bytes.to_vec()));
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
    /// A region that is not the port's, where frames to transmit come from.
    other: RegionId,
}

const INDEX: PortIndex = PortIndex(0);

fn bench(source: bool, sink: bool, sink_cap: usize) -> Bench {
    let waker = Arc::new(Waker::new().expect("an eventfd"));
    let mut io = Io::new(Ring::fake(), waker, 1, sink_cap);
    let other = Region::map(512, 2048, 64, HugePages::Off).expect("memory");
    let other = io.pool.add(other).expect("room");
    let region = Region::map(SLOTS, 2048, HEADROOM, HugePages::Off).expect("memory");
    let kernel = Arc::new(Mutex::new(Kernel {
        tx_size: 128,
        base: region.as_raw().0 as usize,
        slot_size: 2048,
        ..Kernel::default()
    }));
    let rings = FakeRings {
        kernel: Arc::clone(&kernel),
        fd: nix::sys::eventfd::EventFd::new().expect("an eventfd"),
    };
    let mut port = AfXdpPort::with_rings(
        rings,
        region,
        AfXdpOptions {
            source,
            sink,
            max_frame: 1850,
        },
    );
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
    }
}

impl Bench {
    fn kernel<T>(&self, f: impl FnOnce(&mut Kernel) -> T) -> T {
        f(&mut self.kernel.lock().expect("one thread"))
    }

    fn frame(&mut self, bytes: &[u8]) -> Staged {
        let mut frame = self.io.pool.alloc(self.other).expect("a free slot");
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
    Flush,
    KernelSends(usize),
    KernelCompletes(usize),
    Link(bool),
}

proptest! {
    #[test]
    fn the_law_holds_in_every_order(steps in prop::collection::vec(prop_oneof![
        (1usize..100).prop_map(Step::Deliver),
        (1usize..65).prop_map(Step::Receive),
        Just(Step::FreeOne),
        (1usize..80).prop_map(Step::Stage),
        Just(Step::Flush),
        (1usize..64).prop_map(Step::KernelSends),
        (1usize..64).prop_map(Step::KernelCompletes),
        any::<bool>().prop_map(Step::Link),
    ], 0..120)) {
        let mut b = bench(true, true, 90);
        let held = RefCell::new(Vec::new());
        let mut delivered = 0u64;
        for step in steps {
            match step {
                Step::Deliver(n) => for _ in 0..n {
                    delivered += u64::from(b.kernel(|k| k.deliver(&[1; 60])));
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
    }
}
