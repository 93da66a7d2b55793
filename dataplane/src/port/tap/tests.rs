//! The port against a ring whose kernel is played from memory.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    frame::{HugePages, Region},
    port::PortIndex,
    worker::{ring::Ring, wake::Waker},
};

struct Bench {
    io: Io,
    port: TapPort,
    completions: Vec<Completion>,
}

fn bench(source: bool, slots: u32, sink_cap: usize) -> Bench {
    let waker = Arc::new(Waker::new().expect("an eventfd"));
    let mut io = Io::new(Ring::fake(), waker, 1, sink_cap);
    let region = Region::map(slots, 2048, 64, HugePages::Off).expect("memory");
    io.own_region = io.pool.add(region);
    // Any descriptor does: the played kernel never looks at it.
    let queue = OwnedFd::from(std::fs::File::open("/dev/null").expect("/dev/null"));
    let mut port = TapPort::new(
        "lc0",
        queue,
        TapOptions {
            max_frame: 1518,
            source,
        },
    );
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
        let region = self.io.own_region.expect("a region");
        let mut frames: Vec<_> = lens
            .iter()
            .map(|&len| {
                let mut frame = self.io.pool.alloc(region).expect("a free slot");
                assert!(self.io.pool.fill(&mut frame, &vec![len as u8; len]));
                self.io.pool.stage(frame)
            })
            .collect();
        self.port.stage(&mut self.io, &mut frames);
        assert!(frames.is_empty(), "stage takes all");
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
    let written: Vec<_> =
        b.io.ring
            .kernel()
            .pending
            .iter()
            .map(|p| p.written().to_vec())
            .collect();
    assert_eq!(written, [vec![60; 60], vec![61; 61], vec![62; 62]]);
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
    while let Some(pending) = b.io.ring.kernel().pending.first().copied() {
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

proptest! {
    #[test]
    fn the_law_holds_in_every_order(steps in prop::collection::vec((0u8..7, 0usize..64), 0..150)) {
        let mut b = bench(true, 200, 32);
        let mut held = Vec::new();
        for (what, n) in steps {
            match what {
                0 => {
                    let free = b.io.pool.free_slots(b.io.own_region.expect("a region"));
                    b.stage(&vec![60; n.min(free)]);
                }
                1 => b.port.flush(&mut b.io),
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
    }
}
