//! Writes into a TAP with nothing around them: no slots, no tags, no counters. What the bare loops measure,
//! in the best way, and in others that each leave one thing out.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use io_uring::{IoUring, opcode, types};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Frames that a loop takes and gives at a time.
pub(crate) const BATCH: usize = 64;

/// How frames are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By io_uring.
    Uring {
        /// Frames of one system call, at most [`BATCH`].
        batch: usize,
        /// The memory is registered with the ring: no pages are looked up for a write.
        buffer: bool,
        /// The TAP's file is registered with the ring: no reference is taken for a write.
        file: bool,
    },
    /// By write(2), a system call for each.
    Write {
        /// With O_NONBLOCK, which lets the kernel build its buffer the cheap way (`tun_can_build_skb`).
        nonblocking: bool,
    },
}

impl Way {
    /// The best that we know where system calls are cheap: without Meltdown's mitigation.
    pub(crate) const BEST: Self = Self::Write { nonblocking: true };
}

/// What writes into one TAP.
pub(crate) enum Writer<'tap> {
    Uring {
        ring: Box<IoUring>,
        batch: usize,
        buffer: bool,
        file: types::Fd,
        registered: bool,
        /// Since the last system call.
        queued: usize,
        written: usize,
    },
    Write {
        tap: BorrowedFd<'tap>,
        written: usize,
    },
}

impl<'tap> Writer<'tap> {
    /// A writer of the calling thread, from `bytes` bytes at `base` into `tap`.
    ///
    /// # Safety
    ///
    /// The memory must stay mapped as long as the writer lives.
    pub(crate) unsafe fn new(
        tap: BorrowedFd<'tap>,
        base: *mut u8,
        bytes: usize,
        way: Way,
    ) -> io::Result<Self> {
        let (batch, buffer, file) = match way {
            Way::Uring {
                batch,
                buffer,
                file,
            } => (batch, buffer, file),
            Way::Write { nonblocking } => {
                if nonblocking {
                    fcntl(tap, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
                }
                return Ok(Self::Write { tap, written: 0 });
            }
        };
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(2 * BATCH as u32)?;
        if buffer {
            let memory = libc::iovec {
                iov_base: base.cast(),
                iov_len: bytes,
            };
            // SAFETY: the caller keeps the memory mapped.
            unsafe { ring.submitter().register_buffers(&[memory]) }?;
        }
        if file {
            ring.submitter().register_files(&[tap.as_raw_fd()])?;
        }
        Ok(Self::Uring {
            ring: Box::new(ring),
            batch,
            buffer,
            file: types::Fd(tap.as_raw_fd()),
            registered: file,
            queued: 0,
            written: 0,
        })
    }

    /// Writes one frame, now or by the next [`finish`](Self::finish); at most [`BATCH`] between two of them.
    ///
    /// # Safety
    ///
    /// The bytes must be within the writer's memory and stay as they are until `finish` returns.
    #[inline]
    pub(crate) unsafe fn push(&mut self, frame: *const u8, len: u32) -> io::Result<()> {
        match self {
            Self::Uring {
                ring,
                batch,
                buffer,
                file,
                registered,
                queued,
                written,
            } => {
                let entry = match (*buffer, *registered) {
                    (true, true) => opcode::WriteFixed::new(types::Fixed(0), frame, len, 0).build(),
                    (true, false) => opcode::WriteFixed::new(*file, frame, len, 0).build(),
                    (false, true) => opcode::Write::new(types::Fixed(0), frame, len).build(),
                    (false, false) => opcode::Write::new(*file, frame, len).build(),
                };
                // SAFETY: the caller vouches for the bytes; the entry refers to nothing else.
                let pushed = unsafe { ring.submission().push(&entry) };
                assert!(pushed.is_ok(), "the ring holds twice a batch");
                *queued += 1;
                if *queued == *batch {
                    *written += submit(ring, queued)?;
                }
            }
            Self::Write { tap, written } => {
                // Not libc's write, which is a cancellation point: 15 ns more.
                // SAFETY: the caller vouches for the bytes, of which `len` are readable.
                let answer =
                    unsafe { libc::syscall(libc::SYS_write, tap.as_raw_fd(), frame, len as usize) };
                *written += usize::from(answer >= 0);
            }
        }
        Ok(())
    }

    /// Writes what is queued and waits for the answers. Answers how many were written since the last time.
    #[inline]
    pub(crate) fn finish(&mut self) -> io::Result<usize> {
        match self {
            Self::Uring {
                ring,
                queued,
                written,
                ..
            } => {
                if *queued > 0 {
                    *written += submit(ring, queued)?;
                }
                Ok(std::mem::take(written))
            }
            Self::Write { written, .. } => Ok(std::mem::take(written)),
        }
    }
}

#[inline]
fn submit(ring: &mut IoUring, queued: &mut usize) -> io::Result<usize> {
    ring.submit_and_wait(std::mem::take(queued))?;
    Ok(ring
        .completion()
        .filter(|entry| entry.result() >= 0)
        .count())
}
