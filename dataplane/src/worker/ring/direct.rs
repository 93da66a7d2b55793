//! Writes without the ring: a system call for each, done when it returns. Which of the two ways costs less is the
//! machine's matter (its processor, its kernel, what they do against side channels), so it is measured where it
//! matters: on the worker's core, when a port is attached.

// System calls with addresses of bytes.
#![allow(unsafe_code)]

use std::{
    fs::OpenOptions,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::{Duration, Instant},
};

use io_uring::{opcode, types};

use super::{Inner, Ring, build};

/// Writes in one look at either way: as many as a worker's usual batch.
const BATCH: usize = 64;
/// Looks at either way, of which the quickest counts: the others were disturbed.
const LOOKS: usize = 16;

/// write(2). Answers with the bytes written or a negated errno, as a ring's completion does.
///
/// Not by libc's function: in a process of several threads that one is a cancellation point, whose preparations cost
/// some 15 ns, and nobody cancels a worker.
#[inline]
pub(crate) fn write(file: BorrowedFd<'_>, bytes: &[u8]) -> i32 {
    // SAFETY: the kernel reads from the slice, which is borrowed for the time of the call.
    let written = unsafe {
        libc::syscall(
            libc::SYS_write,
            file.as_raw_fd(),
            bytes.as_ptr(),
            bytes.len(),
        )
    };
    match written {
        0.. => written as i32,
        _ => -io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO),
    }
}

impl Ring {
    /// Whether a write that the kernel does at once costs less by write(2) than through this ring, here and now.
    /// Measured when it is asked for the first time, which takes less than a millisecond.
    pub(crate) fn calls_are_cheaper(&mut self) -> bool {
        if let Some(known) = self.calls_are_cheaper {
            return known;
        }
        let cheaper = match &self.inner {
            // What cannot be measured is left as it is.
            Inner::Kernel(_) => measure().is_ok_and(|(call, ring)| call < ring),
            #[cfg(any(test, feature = "fake-kernel"))]
            Inner::Fake(_) => false,
        };
        *self.calls_are_cheaper.insert(cheaper)
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
            write(nowhere.as_fd(), &bytes);
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

    #[test]
    fn a_write_answers_as_a_completion_does() {
        let (from, to) = UnixDatagram::pair().expect("a pair");
        from.set_nonblocking(true).expect("a socket's flag");
        let mut bytes = [0; 2048];
        for len in [60, 61, 62] {
            assert_eq!(write(from.as_fd(), &vec![len as u8; len]), len as i32);
            assert_eq!(to.recv(&mut bytes).expect("a datagram"), len);
            assert_eq!(bytes[..len], vec![len as u8; len]);
        }
        while write(from.as_fd(), &[1; 60]) == 60 {}
        assert_eq!(write(from.as_fd(), &[1; 60]), -libc::EAGAIN);
        drop(to);
        assert_eq!(write(from.as_fd(), &[1; 60]), -libc::ECONNREFUSED);
    }

    #[test]
    fn which_way_costs_less_is_measured_once_and_beside_the_ring() {
        let mut ring = Ring::new().expect("an io_uring");
        let answer = ring.calls_are_cheaper();
        assert_eq!(ring.reap(&mut Vec::with_capacity(8)), 0);
        assert_eq!(ring.calls_are_cheaper, Some(answer));
    }
}
