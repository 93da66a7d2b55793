//! The worker's io_uring: the one place where it submits writes and reads, and the one place where it
//! sleeps. For tests the kernel's part can be played from memory.

// What is submitted tells the kernel addresses, which must stay good until it answers.
#![allow(unsafe_code)]

pub(crate) mod direct;
#[cfg(any(test, feature = "fake-kernel"))]
pub mod fake;
mod gather;
mod send;
mod tag;

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    time::Duration,
};

use io_uring::{IoUring, opcode, squeue, types};

pub(crate) use self::gather::SHARES;
use self::{gather::Gathers, send::Envelopes};
pub use self::{
    gather::{Gathered, Header},
    tag::{Op, Tag},
};
use crate::{
    frame::{Frame, MAX_REGIONS, Pool, Region, RegionId, Staged},
    port::Place,
};

/// The kernel's answer to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Which operation.
    pub tag: Tag,
    /// Bytes read or written, or a negated errno.
    pub result: i32,
}

/// A file as reads and writes name it: one that the ring was shown before, which spares the kernel a
/// lookup and a reference for each of them (io_uring/rsrc.c), or a plain descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Its place among the ring's files.
    Registered(u32),
    /// The descriptor.
    Plain(RawFd),
}

/// Why a ring could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// `io_uring_setup` failed.
    #[error("io_uring is not to be had here: {source}{hint}")]
    Setup {
        /// The kernel's answer.
        source: io::Error,
        /// What to do, when that can be told.
        hint: &'static str,
    },
    /// Memory could not be registered.
    #[error("the kernel will not register {bytes} bytes of frame memory: {source}{hint}")]
    Register {
        /// How much.
        bytes: usize,
        /// The kernel's answer.
        source: io::Error,
        /// What to do, when that can be told.
        hint: &'static str,
    },
}

/// The worker's ring, and what it tells the kernel of messages and of writes of many parts. The ring itself
/// ends first.
#[derive(Debug)]
pub struct Ring {
    inner: Inner,
    envelopes: Envelopes,
    gathers: Gathers,
    /// Whether write(2) costs less here; unknown until somebody asks.
    calls_are_cheaper: Option<bool>,
}

enum Inner {
    Kernel(Box<IoUring>),
    #[cfg(any(test, feature = "fake-kernel"))]
    Fake(fake::FakeRing),
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Inner::Kernel(_) => "Kernel",
            #[cfg(any(test, feature = "fake-kernel"))]
            Inner::Fake(_) => "Fake",
        })
    }
}

/// Submission entries: a whole turn of the loop fits.
const ENTRIES: u32 = 2048;
/// Completion entries: everything that can be in flight at a time fits.
const COMPLETIONS: u32 = 4 * ENTRIES;
/// Files that the ring can be shown: those of the ports with the lowest indexes.
const FILES: u32 = 64;

/// A ring of the calling thread: single issuer and deferred task work where the kernel has them (6.1), plain
/// otherwise.
fn build(entries: u32, completions: u32) -> io::Result<IoUring> {
    let deferred = IoUring::builder()
        .setup_cqsize(completions)
        .setup_submit_all()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(entries);
    match deferred {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            IoUring::builder().setup_cqsize(completions).build(entries)
        }
        other => other,
    }
}

impl Ring {
    /// Makes the calling thread's ring.
    pub fn new() -> Result<Self, RingError> {
        let ring = build(ENTRIES, COMPLETIONS)
        .map_err(|source| RingError::Setup {
            hint: match source.raw_os_error() {
                Some(libc::ENOSYS) => "; it needs Linux 5.19 or newer",
                Some(libc::EPERM) => "; sysctl kernel.io_uring_disabled must be 0, and a container's seccomp profile must allow it",
                Some(libc::ENOMEM) => "; raise the limit of locked memory (ulimit -l)",
                _ => "",
            },
            source,
        })?;
        ring.submitter()
            .register_buffers_sparse(MAX_REGIONS as u32)
            .map_err(|source| RingError::Setup {
                hint: "; registered buffers need Linux 5.19 or newer",
                source,
            })?;
        // Refused, plain descriptors do as well.
        let _ = ring.submitter().register_files_sparse(FILES);
        Ok(Self::over(Inner::Kernel(Box::new(ring))))
    }

    /// Whether the kernel does the ring's work when its one thread asks for it, not in between (IORING_SETUP_SINGLE_ISSUER
    /// with IORING_SETUP_DEFER_TASKRUN, Linux 6.1).
    pub fn is_deferred(&self) -> bool {
        match &self.inner {
            Inner::Kernel(ring) => ring.params().is_setup_single_issuer(),
            #[cfg(any(test, feature = "fake-kernel"))]
            Inner::Fake(_) => false,
        }
    }

    /// A ring whose kernel is played from memory.
    #[cfg(any(test, feature = "fake-kernel"))]
    pub fn fake() -> Self {
        Self::over(Inner::Fake(fake::FakeRing::default()))
    }

    fn over(inner: Inner) -> Self {
        Self {
            inner,
            envelopes: Envelopes::default(),
            gathers: Gathers::default(),
            calls_are_cheaper: None,
        }
    }

    /// The played kernel.
    ///
    /// # Panics
    ///
    /// On a real ring.
    #[cfg(any(test, feature = "fake-kernel"))]
    pub fn kernel(&mut self) -> &mut fake::FakeRing {
        match &mut self.inner {
            Inner::Fake(fake) => fake,
            Inner::Kernel(_) => panic!("not a fake ring"),
        }
    }

    /// Registers a region under its identifier, so that reads and writes of its slots map no pages.
    pub(crate) fn register(&mut self, id: RegionId, region: &Region) -> Result<(), RingError> {
        let (base, bytes) = region.as_raw();
        match &mut self.inner {
            Inner::Kernel(ring) => {
                let iovec = libc::iovec {
                    iov_base: base.cast(),
                    iov_len: bytes,
                };
                // SAFETY: the region stays mapped until `unregister` (the worker retires a region
                // only when no operation uses it, and unregisters it before it is dropped).
                unsafe {
                    ring.submitter()
                        .register_buffers_update(u32::from(id.0), &[iovec], None)
                }
                .map(drop)
                .map_err(|source| RingError::Register {
                    bytes,
                    hint: match source.raw_os_error() {
                        Some(libc::ENOMEM) => {
                            "; set fewer slots or raise the limit of locked memory (ulimit -l)"
                        }
                        _ => "",
                    },
                    source,
                })
            }
            #[cfg(any(test, feature = "fake-kernel"))]
            Inner::Fake(_) => Ok(()),
        }
    }

    /// Takes a region's registration back.
    pub(crate) fn unregister(&mut self, id: RegionId) -> io::Result<()> {
        match &mut self.inner {
            Inner::Kernel(ring) => {
                let nothing = libc::iovec {
                    iov_base: std::ptr::null_mut(),
                    iov_len: 0,
                };
                // SAFETY: an empty entry refers to no memory.
                unsafe {
                    ring.submitter()
                        .register_buffers_update(u32::from(id.0), &[nothing], None)
                }
                .map(drop)
            }
            #[cfg(any(test, feature = "fake-kernel"))]
            Inner::Fake(_) => Ok(()),
        }
    }

    /// Shows the ring a port's file, which it keeps open until [`forget`](Self::forget). The caller keeps
    /// the descriptor open as long.
    pub(crate) fn show(&mut self, fd: BorrowedFd<'_>, place: Place) -> Target {
        let plain = Target::Plain(fd.as_raw_fd());
        let index = u32::from(place.index.0);
        match &mut self.inner {
            Inner::Kernel(ring) if index < FILES => {
                match ring
                    .submitter()
                    .register_files_update(index, &[fd.as_raw_fd()])
                {
                    Ok(1) => Target::Registered(index),
                    _ => plain,
                }
            }
            _ => plain,
        }
    }

    /// Lets go of a file. Operations that are under way keep it open until they end.
    pub(crate) fn forget(&mut self, target: Target) {
        if let (Inner::Kernel(ring), Target::Registered(index)) = (&mut self.inner, target) {
            let _ = ring.submitter().register_files_update(index, &[-1]);
        }
    }

    /// Queues the write of a share to a file, and submits the share. It comes back when there is no room.
    #[inline]
    pub(crate) fn write(
        &mut self,
        pool: &mut Pool,
        file: Target,
        place: Place,
        staged: Staged,
    ) -> Result<(), Staged> {
        debug_assert!(!staged.is_chain(), "it takes a write of many parts");
        let (from, len) = (pool.staged_address(&staged), staged.len());
        let tag = Tag::new(Op::Write, place, staged.slot_ref());
        let region = u16::from(tag.slot.region.0);
        let len32 = len as u32;
        let entry = match file {
            Target::Registered(i) => opcode::WriteFixed::new(types::Fixed(i), from, len32, region),
            Target::Plain(fd) => opcode::WriteFixed::new(types::Fd(fd), from, len32, region),
        };
        if !self.push(entry.build(), tag, from as usize, len) {
            return Err(staged);
        }
        pool.submit(staged);
        Ok(())
    }

    /// Queues a read from a file into an empty frame's slot, and lends the slot. The frame comes back
    /// when there is no room.
    #[inline]
    pub(crate) fn read(
        &mut self,
        pool: &mut Pool,
        file: Target,
        place: Place,
        empty: Frame,
    ) -> Result<(), Frame> {
        let (to, len) = pool.room(&empty);
        let tag = Tag::new(Op::Read, place, empty.slot_ref());
        let region = u16::from(tag.slot.region.0);
        let len32 = len as u32;
        let entry = match file {
            Target::Registered(i) => opcode::ReadFixed::new(types::Fixed(i), to, len32, region),
            Target::Plain(fd) => opcode::ReadFixed::new(types::Fd(fd), to, len32, region),
        };
        if !self.push(entry.build(), tag, to as usize, len) {
            return Err(empty);
        }
        pool.lend(empty);
        Ok(())
    }

    /// Completes once `fd` is readable. `false` when the ring has no room.
    #[inline]
    pub(crate) fn poll(&mut self, fd: BorrowedFd<'_>, op: Op, place: Place) -> bool {
        let entry = opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), libc::POLLIN as u32).build();
        self.push(entry, Tag::without_slot(op, place), 0, 0)
    }

    /// Cancels every operation on `fd`; each completes with ECANCELED or its own result.
    pub(crate) fn cancel(&mut self, fd: BorrowedFd<'_>, place: Place) -> bool {
        let all = types::CancelBuilder::fd(types::Fd(fd.as_raw_fd())).all();
        let entry = opcode::AsyncCancel2::new(all).build();
        self.push(entry, Tag::without_slot(Op::Cancel, place), 0, 0)
    }

    #[inline]
    fn push(&mut self, entry: squeue::Entry, tag: Tag, _address: usize, _len: usize) -> bool {
        match &mut self.inner {
            Inner::Kernel(ring) => {
                let entry = entry.user_data(tag.pack());
                // SAFETY: a read or write refers to a slot of a registered region. The slot is lent or
                // submitted until the completion is reaped, and the pool gives a region up only when
                // every slot is free; a message refers to a slot and an envelope, see `Ring::send`, a write of
                // many parts to slots and a gather, see `Ring::write_parts`; the other operations refer to no
                // memory. Should the region be unmapped regardless (the
                // worker unwinds), the kernel still holds the registered pages themselves.
                if unsafe { ring.submission().push(&entry) }.is_ok() {
                    return true;
                }
                // A full submission queue is emptied by submitting it.
                let _ = ring.submit();
                // SAFETY: as above.
                unsafe { ring.submission().push(&entry) }.is_ok()
            }
            #[cfg(any(test, feature = "fake-kernel"))]
            Inner::Fake(fake) => fake.push(tag, _address, _len),
        }
    }

    /// Hands everything pushed to the kernel and lets it run what it deferred, without waiting.
    #[inline]
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        match &mut self.inner {
            Inner::Kernel(ring) => match ring.submit() {
                Ok(_) => Ok(()),
                // Completions are waiting to be reaped first, or a signal came.
                Err(e)
                    if matches!(
                        e.raw_os_error(),
                        Some(libc::EBUSY | libc::EAGAIN | libc::EINTR)
                    ) =>
                {
                    Ok(())
                }
                Err(e) => Err(e),
            },
            #[cfg(any(test, feature = "fake-kernel"))]
            Inner::Fake(fake) => {
                fake.consume();
                Ok(())
            }
        }
    }

    /// Sleeps until something completes, but not longer than `limit`.
    pub(crate) fn sleep(&mut self, limit: Option<Duration>) -> io::Result<()> {
        match &mut self.inner {
            Inner::Kernel(ring) => {
                let slept = match limit {
                    None => ring.submitter().submit_and_wait(1),
                    Some(limit) => {
                        let limit = types::Timespec::from(limit);
                        ring.submitter()
                            .submit_with_args(1, &types::SubmitArgs::new().timespec(&limit))
                    }
                };
                match slept {
                    Ok(_) => Ok(()),
                    Err(e)
                        if matches!(
                            e.raw_os_error(),
                            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
                        ) =>
                    {
                        Ok(())
                    }
                    Err(e) => Err(e),
                }
            }
            #[cfg(any(test, feature = "fake-kernel"))]
            Inner::Fake(_) => Ok(()),
        }
    }

    /// Moves completions into `into`, as many as it has room for without growing. Answers how many.
    #[inline]
    pub fn reap(&mut self, into: &mut Vec<Completion>) -> usize {
        let before = into.len();
        let room = into.capacity() - before;
        match &mut self.inner {
            Inner::Kernel(ring) => {
                for entry in ring.completion().take(room) {
                    if let Some(tag) = Tag::unpack(entry.user_data()) {
                        into.push(Completion {
                            tag,
                            result: entry.result(),
                        });
                    }
                }
            }
            #[cfg(any(test, feature = "fake-kernel"))]
            Inner::Fake(fake) => fake.reap(into, room),
        }
        into.len() - before
    }
}
