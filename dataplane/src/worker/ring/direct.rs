//! Writes without the ring: a system call for each, done when it returns, and answered like the ring's. Which of
//! the two costs less is the machine's matter (its processor, its kernel, what they do against side channels), so it
//! is measured where it matters: on the worker's core, when a port is attached.

// Writes from the addresses of slots.
#![allow(unsafe_code)]

use std::{
    collections::VecDeque,
    fs::OpenOptions,
    io,
    os::fd::{AsRawFd, RawFd},
    time::{Duration, Instant},
};

use io_uring::{opcode, types};

use super::{Completion, Inner, Ring, Tag, build};

/// Answers of writes that are done and not reaped yet.
const ANSWERS: usize = 1024;
/// Writes in one look at either way: as many as a worker's usual batch.
const BATCH: usize = 64;
/// Looks at either way, of which the quickest counts: the others were disturbed.
const LOOKS: usize = 16;

/// What was written without the ring and not reaped, oldest first.
#[derive(Debug)]
pub(super) struct Direct {
    answers: VecDeque<Completion>,
    /// Whether it costs less here; unknown until somebody asks.
    cheaper: Option<bool>,
}

impl Default for Direct {
    fn default() -> Self {
        Self {
            answers: VecDeque::with_capacity(ANSWERS),
            cheaper: None,
        }
    }
}

impl Direct {
    /// Whether another write can be answered.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.answers.len() < ANSWERS
    }

    /// Writes `len` bytes from `from`, which must be readable, and remembers the answer.
    #[inline]
    pub(super) fn write(&mut self, fd: RawFd, tag: Tag, from: *const u8, len: usize) {
        // SAFETY: the caller vouches for the bytes, which the kernel is done with when the call returns.
        let result = match unsafe { libc::write(fd, from.cast(), len) } {
            written @ 0.. => written as i32,
            _ => -io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or(libc::EIO),
        };
        self.answers.push_back(Completion { tag, result });
    }

    /// Moves answers into `into`, as far as it has room.
    #[inline]
    pub(super) fn reap(&mut self, into: &mut Vec<Completion>) {
        if !self.answers.is_empty() {
            let room = into.capacity() - into.len();
            into.extend(self.answers.drain(..room.min(self.answers.len())));
        }
    }
}

impl Ring {
    /// Whether a write that the kernel does at once costs less by write(2) than through this ring, here and now.
    /// Measured when it is asked for the first time, which takes less than a millisecond.
    pub(crate) fn calls_are_cheaper(&mut self) -> bool {
        if let Some(known) = self.direct.cheaper {
            return known;
        }
        let cheaper = match &self.inner {
            // What cannot be measured is left as it is.
            Inner::Kernel(_) => measure().is_ok_and(|(call, ring)| call < ring),
            #[cfg(any(test, feature = "fake-kernel"))]
            Inner::Fake(_) => false,
        };
        *self.direct.cheaper.insert(cheaper)
    }
}

/// What a batch of writes to nowhere takes by system calls and through a ring like the worker's.
fn measure() -> io::Result<(Duration, Duration)> {
    let nowhere = OpenOptions::new().write(true).open("/dev/null")?;
    let bytes = [0u8; 64];
    let mut ring = build(BATCH as u32, 2 * BATCH as u32)?;
    let mut best = (Duration::MAX, Duration::MAX);
    for _ in 0..LOOKS {
        let began = Instant::now();
        for _ in 0..BATCH {
            // SAFETY: the bytes are those of a live array.
            unsafe { libc::write(nowhere.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
        }
        best.0 = best.0.min(began.elapsed());

        let began = Instant::now();
        for _ in 0..BATCH {
            let write = opcode::Write::new(
                types::Fd(nowhere.as_raw_fd()),
                bytes.as_ptr(),
                bytes.len() as u32,
            );
            // SAFETY: the array outlives the ring, with which every operation ends.
            unsafe { ring.submission().push(&write.build()) }.map_err(io::Error::other)?;
        }
        let mut answered = 0;
        while answered < BATCH {
            ring.submit_and_wait(1)?;
            answered += ring.completion().count();
        }
        best.1 = best.1.min(began.elapsed());
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::{
        frame::{HugePages, Pool, Region},
        port::{Place, PortIndex},
        worker::ring::{Op, Target},
    };

    #[test]
    fn what_is_written_directly_is_answered_in_order_and_refusals_with_their_errno() {
        let (from, to) = UnixDatagram::pair().expect("a pair");
        from.set_nonblocking(true).expect("a socket's flag");
        let mut pool = Pool::new();
        let region = Region::map(8, 2048, 64, HugePages::Off).expect("memory");
        let region = pool.add(region).expect("the first region fits");
        let mut ring = Ring::new().expect("an io_uring");
        let place = Place {
            index: PortIndex(3),
            generation: 1,
        };
        let write = |ring: &mut Ring, pool: &mut Pool, len: usize| {
            let mut frame = pool.alloc(region).expect("a free slot");
            assert!(pool.fill(&mut frame, &vec![len as u8; len]));
            let staged = pool.stage(frame);
            ring.write(pool, Target::Direct(from.as_raw_fd()), place, staged)
                .expect("room");
        };
        for len in [60, 61, 62] {
            write(&mut ring, &mut pool, len);
        }
        let mut bytes = [0; 2048];
        for len in [60, 61, 62] {
            assert_eq!(to.recv(&mut bytes).expect("a datagram"), len);
            assert_eq!(bytes[..len], vec![len as u8; len]);
        }
        drop(to);
        write(&mut ring, &mut pool, 63);
        // Two by two: a reader's room is kept to.
        let mut answers = Vec::new();
        let mut completions = Vec::with_capacity(2);
        while ring.reap(&mut completions) > 0 {
            for done in completions.drain(..) {
                assert_eq!((done.tag.op, done.tag.port), (Op::Write, place.index));
                pool.complete(done.tag.slot);
                answers.push(done.result);
            }
        }
        assert_eq!(answers, [60, 61, 62, -libc::ECONNREFUSED]);
        pool.audit().expect("the pool's law");
        assert_eq!(pool.total().free, 8);
    }

    #[test]
    fn which_way_costs_less_is_measured_once_and_beside_the_ring() {
        let mut ring = Ring::new().expect("an io_uring");
        let answer = ring.calls_are_cheaper();
        assert_eq!(ring.reap(&mut Vec::with_capacity(8)), 0);
        assert_eq!(ring.direct.cheaper, Some(answer));
    }
}
