//! Messages through the ring: a short header, and a frame straight from its slot or slots. What
//! describes them to the kernel lies in envelopes that the ring owns and uses again and again.

// The kernel is told the addresses of the envelopes.
#![allow(unsafe_code)]

use io_uring::{opcode, types};

use super::{ENTRIES, Inner, Op, Ring, RingError, Tag, Target};
use crate::{
    frame::{CHAIN, Pool, Staged},
    port::Place,
};

/// Bytes of a header.
pub(crate) const HEADER: usize = 8;

/// One message as the kernel reads it.
struct Envelope {
    message: libc::msghdr,
    parts: [libc::iovec; 1 + CHAIN],
    header: [u8; HEADER],
}

/// The envelopes of a ring; none until a port asks for them.
#[derive(Default)]
pub(super) struct Envelopes {
    all: Box<[Envelope]>,
    /// How many, from the first on, describe messages that the kernel may not have read yet.
    used: usize,
}

impl std::fmt::Debug for Envelopes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Envelopes({} of {})", self.used, self.all.len())
    }
}

impl Envelopes {
    fn make(count: usize) -> Self {
        let blank = || Envelope {
            // SAFETY: a msghdr of zeroes is valid: no name, no parts, no control data.
            message: unsafe { std::mem::zeroed() },
            parts: [libc::iovec {
                iov_base: std::ptr::null_mut(),
                iov_len: 0,
            }; 1 + CHAIN],
            header: [0; HEADER],
        };
        let mut all: Box<[Envelope]> = (0..count).map(|_| blank()).collect();
        // Here they stay, so that they can point to themselves.
        for envelope in &mut all {
            envelope.parts[0] = libc::iovec {
                iov_base: (&raw mut envelope.header).cast(),
                iov_len: HEADER,
            };
            envelope.message.msg_iov = (&raw mut envelope.parts).cast();
        }
        Self { all, used: 0 }
    }
}

impl Ring {
    /// Makes what [`send`](Self::send) needs. A port that sends asks for it when it is attached.
    pub(crate) fn prepare_sends(&mut self) -> Result<(), RingError> {
        if let Inner::Kernel(ring) = &self.inner
            && !ring.params().is_feature_submit_stable()
        {
            return Err(RingError::Setup {
                source: std::io::ErrorKind::Unsupported.into(),
                hint: "; sending messages needs Linux 5.5 or newer (IORING_FEAT_SUBMIT_STABLE)",
            });
        }
        if self.envelopes.all.is_empty() {
            // As many as can be queued at a time.
            self.envelopes = Envelopes::make(ENTRIES as usize);
        }
        Ok(())
    }

    /// Queues a message to a connected socket, made of `header` and the bytes of a share, and submits the
    /// share. The socket is never waited for: one that has no room answers EAGAIN. The share comes back
    /// when the ring has no room.
    #[inline]
    pub(crate) fn send(
        &mut self,
        pool: &mut Pool,
        socket: Target,
        place: Place,
        header: [u8; HEADER],
        staged: Staged,
    ) -> Result<(), Staged> {
        let tag = Tag::new(Op::Write, place, staged.slot_ref());
        let Some(message) = self.seal(header, pool.parts(&staged)) else {
            return Err(staged);
        };
        // Soundness. The kernel is told the addresses of an envelope and, in it, of a slot.
        //
        // It reads all of them before it gives the submission entry back. MSG_DONTWAIT sets REQ_F_NOWAIT
        // (io_uring/net.c, `io_sendmsg_prep`): the request is issued once, within io_uring_enter(2), and a
        // socket without room is answered there (io_uring/io_uring.c, `io_queue_async`), so that no later
        // try, of a poll or of a worker thread of the kernel, reads anything. UDP copies what it sends
        // into its own memory within that call (net/ipv4/ip_output.c, `ip_generic_getfrag`; no
        // MSG_ZEROCOPY here). Were a request put off all the same, IORING_FEAT_SUBMIT_STABLE says that the
        // message and the list of its parts were copied by then; the slot stays submitted until the
        // completion; and the header, which nobody copies, would be that of another message of the ring,
        // of initialised memory in any case.
        //
        // The kernel moves the head of the submission queue only behind entries that it has issued
        // (`io_submit_sqes`, `io_commit_sqring`). So when the queue is empty, no envelope is read any more:
        // only then `seal` starts again from the first. Entries that are never submitted are never read:
        // there is no SQPOLL thread, and the queue goes with the ring.
        let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u32;
        let queued = match &mut self.inner {
            Inner::Kernel(_) => {
                let entry = match socket {
                    Target::Registered(i) => opcode::SendMsg::new(types::Fixed(i), message),
                    Target::Plain(fd) => opcode::SendMsg::new(types::Fd(fd), message),
                };
                self.push(entry.flags(flags).build(), tag, 0, 0)
            }
            #[cfg(any(test, feature = "fake-kernel"))]
            Inner::Fake(fake) => fake.push_message(tag, socket, message),
        };
        if !queued {
            // Nobody was told of it.
            self.envelopes.used -= 1;
            return Err(staged);
        }
        pool.submit(staged);
        Ok(())
    }

    /// Describes a message in an envelope that the kernel does not read. `None` when there is none: the
    /// queue must be submitted first.
    #[inline]
    fn seal<'a>(
        &mut self,
        header: [u8; HEADER],
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> Option<*const libc::msghdr> {
        if self.has_consumed() {
            self.envelopes.used = 0;
        }
        if self.envelopes.used == self.envelopes.all.len() {
            let _ = self.submit();
            if !self.has_consumed() {
                return None;
            }
            self.envelopes.used = 0;
        }
        let envelope = self.envelopes.all.get_mut(self.envelopes.used)?;
        envelope.header = header;
        let mut count = 1;
        for (part, bytes) in envelope.parts[1..].iter_mut().zip(parts) {
            *part = libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            };
            count += 1;
        }
        envelope.message.msg_iovlen = count;
        self.envelopes.used += 1;
        Some(&raw const envelope.message)
    }

    /// Whether the kernel has taken everything that was queued.
    #[inline]
    fn has_consumed(&mut self) -> bool {
        match &mut self.inner {
            Inner::Kernel(ring) => ring.submission().is_empty(),
            #[cfg(any(test, feature = "fake-kernel"))]
            Inner::Fake(fake) => fake.has_consumed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::UdpSocket,
        os::fd::AsRawFd,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::{
        frame::{HugePages, Region, RegionId},
        worker::ring::Completion,
    };

    const PLACE: Place = Place {
        index: crate::port::PortIndex(3),
        generation: 7,
    };

    fn pool(slots: u32) -> (Pool, RegionId) {
        let mut pool = Pool::new();
        let region = Region::map(slots, 256, 64, HugePages::Off).expect("memory");
        let id = pool.add(region).expect("room for it");
        (pool, id)
    }

    fn staged(pool: &mut Pool, id: RegionId, n: u32) -> Staged {
        let mut frame = pool.alloc(id).expect("a free slot");
        assert!(pool.fill(&mut frame, &n.to_be_bytes()));
        pool.stage(frame)
    }

    fn header(n: u32) -> [u8; HEADER] {
        (u64::from(n) << 8 | 0xff).to_be_bytes()
    }

    #[test]
    fn no_envelope_is_used_again_before_it_was_read() {
        let (mut pool, id) = pool(8192);
        let mut ring = Ring::fake();
        ring.prepare_sends().expect("a fake ring takes them");
        let file = Target::Plain(-1);
        for round in 0..3 {
            ring.kernel().stuck = true;
            for n in 0..ENTRIES {
                let one = staged(&mut pool, id, n + round);
                let sent = ring.send(&mut pool, file, PLACE, header(n + round), one);
                assert!(sent.is_ok(), "{n}");
            }
            // None is left, and the kernel takes nothing.
            let one = staged(&mut pool, id, 0);
            let one = ring.send(&mut pool, file, PLACE, header(0), one);
            let one = one.expect_err("no room");
            // It does again.
            ring.kernel().stuck = false;
            ring.send(&mut pool, file, PLACE, header(0), one)
                .expect("room");
            ring.submit().expect("a fake ring submits");
            let mut completions = Vec::with_capacity(ENTRIES as usize + 1);
            for n in (0..ENTRIES).map(|n| n + round).chain([0]) {
                let first = ring.kernel().pending[0].clone();
                let bytes = n.to_be_bytes();
                assert_eq!(first.sent(), (file, header(n), &bytes[..]));
                ring.kernel().answer(0, 12);
            }
            ring.reap(&mut completions);
            for completion in completions.drain(..) {
                pool.complete(completion.tag.slot);
            }
            pool.audit().expect("the pool's law");
            assert_eq!(pool.count(id).free, 8192);
        }
    }

    #[test]
    fn a_full_queue_gives_the_share_back() {
        let (mut pool, id) = pool(8);
        let mut ring = Ring::fake();
        ring.prepare_sends().expect("a fake ring takes them");
        ring.kernel().room = Some(1);
        let file = Target::Plain(-1);
        let (one, two) = (staged(&mut pool, id, 1), staged(&mut pool, id, 2));
        assert!(ring.send(&mut pool, file, PLACE, header(1), one).is_ok());
        let two = ring.send(&mut pool, file, PLACE, header(2), two);
        pool.release(two.expect_err("no room"));
        ring.submit().expect("a fake ring submits");
        assert_eq!(ring.kernel().pending.len(), 1);
        assert_eq!(ring.kernel().pending[0].sent().1, header(1));
        assert_eq!(ring.envelopes.used, 1, "that of the second is free");
    }

    #[test]
    fn without_envelopes_nothing_is_sent() {
        let (mut pool, id) = pool(8);
        let mut ring = Ring::fake();
        let one = staged(&mut pool, id, 1);
        let one = ring.send(&mut pool, Target::Plain(-1), PLACE, header(1), one);
        pool.release(one.expect_err("nobody prepared it"));
    }

    /// The kernel itself, over the loopback interface: many times as many messages as there are envelopes,
    /// submitted in batches of all sizes, each with a header of its own.
    #[test]
    fn the_kernel_reads_each_message_as_it_was_written() {
        let (mut pool, id) = pool(4096);
        let mut ring = Ring::new().expect("an io_uring");
        ring.prepare_sends().expect("Linux 5.5");
        let to = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        to.set_nonblocking(true).expect("a socket's flag");
        let from = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        from.connect(to.local_addr().expect("bound")).expect("lo");
        let file = Target::Plain(from.as_raw_fd());
        let mut completions: Vec<Completion> = Vec::with_capacity(256);
        let mut bytes = [0; 64];
        let mut next = 0;
        for batch in (0..200u32).map(|n| n * 37 % 97 + 1) {
            for n in next..next + batch {
                let one = staged(&mut pool, id, n);
                ring.send(&mut pool, file, PLACE, header(n), one)
                    .expect("room");
            }
            ring.submit().expect("an io_uring submits");
            for n in next..next + batch {
                let len = to.recv(&mut bytes).expect("lo loses nothing here");
                assert_eq!(bytes[..len], [&header(n)[..], &n.to_be_bytes()].concat());
            }
            next += batch;
            let began = Instant::now();
            let mut answered = 0;
            while answered < batch as usize {
                assert!(began.elapsed() < Duration::from_secs(10));
                completions.clear();
                answered += ring.reap(&mut completions);
                for completion in &completions {
                    assert_eq!(completion.result, 12);
                    assert_eq!(
                        (completion.tag.op, completion.tag.port),
                        (Op::Write, PLACE.index)
                    );
                    pool.complete(completion.tag.slot);
                }
            }
        }
        assert!(next > 2 * ENTRIES);
        pool.audit().expect("the pool's law");
    }

    /// What soundness rests on: the kernel does not keep a message for later when the socket has no room.
    #[test]
    fn a_socket_without_room_answers_at_once() {
        let (mut pool, id) = pool(64);
        let mut ring = Ring::new().expect("an io_uring");
        ring.prepare_sends().expect("Linux 5.5");
        // Of a socket whose far end never reads, the smallest buffer holds some ten.
        let (from, _to) = std::os::unix::net::UnixDatagram::pair().expect("a pair");
        nix::sys::socket::setsockopt(&from, nix::sys::socket::sockopt::SndBuf, &0).expect("a size");
        for n in 0..64 {
            let one = staged(&mut pool, id, n);
            let file = Target::Plain(from.as_raw_fd());
            ring.send(&mut pool, file, PLACE, header(n), one)
                .expect("room");
        }
        for _ in 0..10 {
            ring.submit().expect("an io_uring submits");
        }
        let mut completions = Vec::with_capacity(256);
        assert_eq!(ring.reap(&mut completions), 64);
        let count = |result| completions.iter().filter(|c| c.result == result).count();
        let (sent, refused) = (count(12), count(-libc::EAGAIN));
        assert!(sent > 0 && refused > 0, "{sent} sent, {refused} refused");
        assert_eq!(sent + refused, 64);
    }
}
