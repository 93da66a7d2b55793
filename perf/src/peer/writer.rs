//! An io_uring that writes fixed buffers into a TAP, with nothing around it: no slots, no tags, no
//! counters. What the bare loops measure.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use io_uring::{IoUring, opcode, types};

/// Frames written by one system call.
pub(crate) const BATCH: usize = 64;

/// The ring, with one registered file and one registered stretch of memory.
pub(crate) struct Writer {
    ring: IoUring,
}

impl Writer {
    /// A ring of the calling thread that writes from `bytes` bytes at `base` into `tap`.
    ///
    /// # Safety
    ///
    /// The memory must stay mapped as long as the writer lives.
    pub(crate) unsafe fn new(tap: BorrowedFd<'_>, base: *mut u8, bytes: usize) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(2 * BATCH as u32)?;
        let memory = libc::iovec {
            iov_base: base.cast(),
            iov_len: bytes,
        };
        // SAFETY: the caller keeps the memory mapped.
        unsafe { ring.submitter().register_buffers(&[memory]) }?;
        ring.submitter().register_files(&[tap.as_raw_fd()])?;
        Ok(Self { ring })
    }

    /// Queues one write; at most [`BATCH`] of them between two calls of [`write`](Self::write).
    ///
    /// # Safety
    ///
    /// The bytes must be within the registered memory and stay as they are until `write` returns.
    #[inline]
    pub(crate) unsafe fn push(&mut self, frame: *const u8, len: u32) {
        let entry = opcode::WriteFixed::new(types::Fixed(0), frame, len, 0).build();
        // SAFETY: the caller vouches for the bytes; the entry refers to nothing else.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        assert!(pushed.is_ok(), "the ring holds twice a batch");
    }

    /// Writes the `queued` frames and waits for the answers. Answers how many were written.
    #[inline]
    pub(crate) fn write(&mut self, queued: usize) -> io::Result<usize> {
        self.ring.submit_and_wait(queued)?;
        Ok(self
            .ring
            .completion()
            .filter(|entry| entry.result() >= 0)
            .count())
    }
}
