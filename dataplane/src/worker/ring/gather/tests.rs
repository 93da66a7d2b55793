//! Writes of many parts, against a kernel that is played from memory and against the real one.

use std::{
    collections::HashSet,
    io::{Read, pipe},
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use proptest::prelude::*;

use super::*;
use crate::{
    frame::{HugePages, Region},
    worker::ring::Completion,
};

const PLACE: Place = Place {
    index: crate::port::PortIndex(3),
    generation: 7,
};
const FILE: Target = Target::Plain(-1);

struct Bench {
    pool: Pool,
    region: RegionId,
    ring: Ring,
    shares: VecDeque<Staged>,
    /// What each share is to be read as, by the same index.
    bytes: VecDeque<Vec<u8>>,
    next: u8,
    completions: Vec<Completion>,
}

fn bench(slots: u32, mut ring: Ring) -> Bench {
    let mut pool = Pool::new();
    let region = Region::map(slots, 256, 64, HugePages::Off).expect("memory");
    let region = pool.add(region).expect("room for it");
    ring.prepare_gathers();
    Bench {
        pool,
        region,
        ring,
        shares: VecDeque::new(),
        bytes: VecDeque::new(),
        next: 0,
        completions: Vec::with_capacity(64),
    }
}

impl Bench {
    fn stage(&mut self, len: usize) {
        if let Some(mut frame) = self.pool.alloc(self.region) {
            self.next = self.next.wrapping_add(1);
            let bytes: Vec<_> = (0..len).map(|at| self.next ^ at as u8).collect();
            assert!(self.pool.fill(&mut frame, &bytes));
            self.shares.push_back(self.pool.stage(frame));
            self.bytes.push_back(bytes);
        }
    }

    /// Writes `n` shares, and answers with what the kernel is to find.
    fn write(&mut self, file: Target, header: &[u8], skip: usize, n: usize) -> Option<Expected> {
        let Self {
            ring, pool, shares, ..
        } = self;
        let before = shares.len();
        let head = Header {
            bytes: header,
            instead_of: skip,
        };
        if !ring.write_parts(pool, file, PLACE, head, shares, n) {
            assert_eq!(shares.len(), before, "refused, all of them stay");
            return None;
        }
        assert_eq!(shares.len(), before - n);
        let mut parts = vec![header.to_vec()];
        let mut ended = Gathered::default();
        for bytes in self.bytes.drain(..n) {
            ended.frames += 1;
            ended.bytes += bytes.len() as u64;
            parts.push(bytes[skip..].to_vec());
        }
        Some(Expected { parts, ended })
    }

    /// Takes what the kernel has answered.
    fn reap(&mut self) -> Vec<(Completion, Gathered)> {
        self.completions.clear();
        self.ring.reap(&mut self.completions);
        let Self {
            ring,
            pool,
            completions,
            ..
        } = self;
        let settle = |&done: &Completion| {
            assert_eq!((done.tag.op, done.tag.port), (Op::Gather, PLACE.index));
            (done, ring.settle(pool, done.tag))
        };
        completions.iter().map(settle).collect()
    }

    fn all_is_free(&self) {
        self.pool.audit().expect("the pool's law");
        let count = self.pool.count(self.region);
        assert_eq!(
            count.free as usize + self.shares.len(),
            count.total as usize
        );
        let free: HashSet<_> = self.ring.gathers.free.iter().collect();
        assert_eq!(free.len(), GATHERS);
    }
}

struct Expected {
    parts: Vec<Vec<u8>>,
    ended: Gathered,
}

proptest! {
    /// In any order of writes, refusals and answers each completion ends its own shares, and until then the
    /// kernel finds what was written.
    #[test]
    fn one_completion_ends_all_of_its_shares(
        steps in prop::collection::vec((0u8..6, 0usize..80, 0usize..8), 0..200),
    ) {
        let mut b = bench(128, Ring::fake());
        let mut expected: Vec<Expected> = Vec::new();
        for (what, n, skip) in steps {
            match what {
                0 | 1 => for len in 0..n.min(20) { b.stage(8 + len * 3) },
                2 | 3 => {
                    let n = n.clamp(1, SHARES).min(b.shares.len());
                    let header = vec![n as u8; skip * 16];
                    if n > 0 {
                        expected.extend(b.write(FILE, &header, skip, n));
                    }
                }
                4 => b.ring.kernel().room = (n % 3 == 0).then_some(n / 8),
                _ => {
                    b.ring.submit().expect("a fake ring submits");
                    if !expected.is_empty() {
                        let i = n % expected.len();
                        let Expected { parts, ended } = expected.remove(i);
                        prop_assert_eq!(b.ring.kernel().pending[i].gathered(), parts);
                        b.ring.kernel().answer(i, if n % 5 == 0 { -5 } else { 7 });
                        let answers = b.reap();
                        prop_assert_eq!(answers.len(), 1);
                        prop_assert_eq!(answers[0].1, ended);
                    }
                }
            }
            b.pool.audit().expect("the pool's law");
        }
        b.ring.submit().expect("a fake ring submits");
        for _ in expected {
            b.ring.kernel().answer(0, 0);
            b.reap();
        }
        b.all_is_free();
    }
}

#[test]
fn shares_stay_when_there_is_no_room() {
    // (prepared, room in the queue, gathers taken before)
    for (prepared, room, taken) in [(false, None, 0), (true, Some(0), 0), (true, None, GATHERS)] {
        let mut b = bench(1024, Ring::fake());
        if !prepared {
            b.ring.gathers = Gathers::default();
        }
        for _ in 0..taken {
            b.stage(20);
            assert!(b.write(FILE, &[1], 0, 1).is_some());
        }
        b.ring.kernel().room = room;
        b.stage(20);
        b.stage(21);
        assert!(
            b.write(FILE, &[2], 0, 2).is_none(),
            "{prepared} {room:?} {taken}"
        );
        b.pool.audit().expect("the pool's law");
        assert_eq!(b.pool.count(b.region).staged, 2);
        assert_eq!(b.ring.kernel().pending.len(), taken);
        if taken > 0 {
            // One is answered, and there is room for the next.
            b.ring.submit().expect("a fake ring submits");
            b.ring.kernel().answer(0, 21);
            assert_eq!(b.reap().len(), 1);
            assert!(b.write(FILE, &[2], 0, 2).is_some());
        }
    }
}

#[test]
#[should_panic(expected = "a gather that the kernel did not have")]
fn no_write_is_settled_twice() {
    let mut b = bench(8, Ring::fake());
    b.stage(20);
    assert!(b.write(FILE, &[1], 0, 1).is_some());
    b.ring.kernel().answer(0, 20);
    let (done, _) = b.reap()[0];
    b.ring.settle(&mut b.pool, done.tag);
}

/// Answers until the kernel has given `count` of them.
fn answers(b: &mut Bench, count: usize) -> Vec<(Completion, Gathered)> {
    let began = Instant::now();
    let mut all = Vec::new();
    while all.len() < count {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{} came",
            all.len()
        );
        b.ring.submit().expect("an io_uring submits");
        all.extend(b.reap());
    }
    all
}

/// The kernel itself: a pipe that is full puts writes off until somebody reads; in the meantime the gathers and
/// slots of others go round and round.
#[test]
fn a_write_that_is_put_off_finds_its_bytes() {
    let mut b = bench(256, Ring::new().expect("an io_uring"));
    let (mut reader, writer) = pipe().expect("a pipe");
    let null = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/null")
        .expect("/dev/null");
    let full = vec![0xee; 1 << 20];
    let filled = {
        let flags = |flags| fcntl(writer.as_fd(), FcntlArg::F_SETFL(flags)).expect("its flags");
        flags(OFlag::O_NONBLOCK);
        let filled = nix::unistd::write(&writer, &full).expect("some of it");
        flags(OFlag::empty());
        filled
    };
    let mut expected = Vec::new();
    for n in 0..8 {
        for len in 0..=n * 5 {
            b.stage(10 + len);
        }
        let file = Target::Plain(writer.as_raw_fd());
        let written = b.write(file, &[n as u8; 12], n, n * 5 + 1).expect("room");
        expected.extend(written.parts.concat());
    }
    assert_eq!(b.ring.gathers.free.len(), GATHERS - 8);
    for round in 0..2 * GATHERS {
        b.stage(100);
        let file = Target::Plain(null.as_raw_fd());
        let written = b.write(file, &[round as u8; 12], 0, 1).expect("room");
        let answer = answers(&mut b, 1)[0];
        assert_eq!((answer.0.result, answer.1), (112, written.ended));
    }
    let mut read = vec![0; filled];
    reader.read_exact(&mut read).expect("what filled it");
    // Each is put off by itself, in an order that is the kernel's affair.
    let mut read = vec![0; expected.len()];
    let reading = std::thread::spawn(move || {
        reader.read_exact(&mut read).expect("what was put off");
        read
    });
    let ended = answers(&mut b, 8);
    let mut read = reading.join().expect("reads");
    let bytes: i32 = ended.iter().map(|(done, _)| done.result).sum();
    assert_eq!(bytes as usize, expected.len());
    read.sort_unstable();
    expected.sort_unstable();
    assert_eq!(read, expected);
    b.all_is_free();
}
