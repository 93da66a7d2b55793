//! The worker's io_uring: the one place where it submits writes and reads, and the one place where it
//! sleeps. For tests the kernel's part can be played from memory.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

use io_uring::{IoUring, opcode, squeue, types};

use crate::{
    frame::{Frame, MAX_REGIONS, Pool, Region, RegionId, SlotRef, Staged},
    port::{Place, PortIndex},
};

/// What an operation was, to know what its completion means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// Bytes of a slot went out.
    Write = 1,
    /// A slot was to be filled.
    Read = 2,
    /// A descriptor became readable.
    Poll = 3,
    /// Other operations were cancelled.
    Cancel = 4,
    /// The worker was woken.
    Wake = 5,
}

/// What an operation carries through the kernel: 4 bits of kind, 12 of generation, 12 of port, 8 of
/// region, 28 of slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Which kind of operation.
    pub op: Op,
    /// Which life of the port: completions of an earlier one are not its successor's.
    pub generation: u16,
    /// Whose operation.
    pub port: PortIndex,
    /// Which slot, for reads and writes.
    pub slot: SlotRef,
}

impl Tag {
    /// Generations wrap at this.
    pub const GENERATIONS: u16 = 1 << 12;

    fn without_slot(op: Op, place: Place) -> Self {
        Self {
            op,
            generation: place.generation,
            port: place.index,
            slot: SlotRef {
                region: RegionId(0),
                slot: 0,
            },
        }
    }

    fn pack(self) -> u64 {
        debug_assert!(self.generation < Self::GENERATIONS && self.port.0 < 1 << 12);
        debug_assert!(self.slot.slot < 1 << 28);
        (self.op as u64) << 60
            | u64::from(self.generation) << 48
            | u64::from(self.port.0) << 36
            | u64::from(self.slot.region.0) << 28
            | u64::from(self.slot.slot)
    }

    fn unpack(bits: u64) -> Option<Self> {
        Some(Self {
            op: match bits >> 60 {
                1 => Op::Write,
                2 => Op::Read,
                3 => Op::Poll,
                4 => Op::Cancel,
                5 => Op::Wake,
                _ => return None,
            },
            generation: (bits >> 48) as u16 & (Self::GENERATIONS - 1),
            port: PortIndex((bits >> 36) as u16 & 0xfff),
            slot: SlotRef {
                region: RegionId((bits >> 28) as u8),
                slot: bits as u32 & 0x0fff_ffff,
            },
        })
    }
}

/// The kernel's answer to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Which operation.
    pub tag: Tag,
    /// Bytes read or written, or a negated errno.
    pub result: i32,
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

/// The worker's ring.
#[derive(Debug)]
pub struct Ring(Inner);

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

impl Ring {
    /// Makes the calling thread's ring: single issuer and deferred task work where the kernel has
    /// them (6.1), plain otherwise.
    pub fn new() -> Result<Self, RingError> {
        let deferred = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(ENTRIES);
        let ring = match deferred {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                IoUring::builder().setup_cqsize(COMPLETIONS).build(ENTRIES)
            }
            other => other,
        }
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
        Ok(Self(Inner::Kernel(Box::new(ring))))
    }

    /// A ring whose kernel is played from memory.
    #[cfg(any(test, feature = "fake-kernel"))]
    pub fn fake() -> Self {
        Self(Inner::Fake(fake::FakeRing::default()))
    }

    /// The played kernel.
    ///
    /// # Panics
    ///
    /// On a real ring.
    #[cfg(any(test, feature = "fake-kernel"))]
    pub fn kernel(&mut self) -> &mut fake::FakeRing {
        match &mut self.0 {
            Inner::Fake(fake) => fake,
            Inner::Kernel(_) => panic!("not a fake ring"),
        }
    }

    /// Registers a region under its identifier, so that reads and writes of its slots map no pages.
    pub fn register(&mut self, id: RegionId, region: &Region) -> Result<(), RingError> {
        let (base, bytes) = region.as_raw();
        match &mut self.0 {
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
    pub fn unregister(&mut self, id: RegionId) -> io::Result<()> {
        match &mut self.0 {
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

    /// Queues the write of a share to `fd`, and submits the share. It comes back when there is no room.
    #[inline]
    pub(crate) fn write(
        &mut self,
        pool: &mut Pool,
        fd: BorrowedFd<'_>,
        place: Place,
        staged: Staged,
    ) -> Result<(), Staged> {
        let (address, len) = (pool.staged_address(&staged), staged.len());
        let tag = Tag {
            op: Op::Write,
            generation: place.generation,
            port: place.index,
            slot: staged.slot_ref(),
        };
        let entry = opcode::WriteFixed::new(
            types::Fd(fd.as_raw_fd()),
            address,
            len as u32,
            u16::from(tag.slot.region.0),
        )
        .build();
        if !self.push(entry, tag, address as usize, len) {
            return Err(staged);
        }
        pool.submit(staged);
        Ok(())
    }

    /// Queues a read from `fd` into an empty frame's slot, and lends the slot. The frame comes back
    /// when there is no room.
    #[inline]
    pub(crate) fn read(
        &mut self,
        pool: &mut Pool,
        fd: BorrowedFd<'_>,
        place: Place,
        empty: Frame,
    ) -> Result<(), Frame> {
        let (address, len) = pool.room(&empty);
        let tag = Tag {
            op: Op::Read,
            generation: place.generation,
            port: place.index,
            slot: empty.slot_ref(),
        };
        let entry = opcode::ReadFixed::new(
            types::Fd(fd.as_raw_fd()),
            address,
            len as u32,
            u16::from(tag.slot.region.0),
        )
        .build();
        if !self.push(entry, tag, address as usize, len) {
            return Err(empty);
        }
        pool.lend(empty);
        Ok(())
    }

    /// Completes once `fd` is readable. `false` when the ring has no room.
    #[inline]
    pub fn poll(&mut self, fd: BorrowedFd<'_>, op: Op, place: Place) -> bool {
        let entry = opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), libc::POLLIN as u32).build();
        self.push(entry, Tag::without_slot(op, place), 0, 0)
    }

    /// Cancels every operation on `fd`; each completes with ECANCELED or its own result.
    pub fn cancel(&mut self, fd: BorrowedFd<'_>, place: Place) -> bool {
        let all = types::CancelBuilder::fd(types::Fd(fd.as_raw_fd())).all();
        let entry = opcode::AsyncCancel2::new(all).build();
        self.push(entry, Tag::without_slot(Op::Cancel, place), 0, 0)
    }

    #[inline]
    fn push(&mut self, entry: squeue::Entry, tag: Tag, _address: usize, _len: usize) -> bool {
        match &mut self.0 {
            Inner::Kernel(ring) => {
                let entry = entry.user_data(tag.pack());
                // SAFETY: a read or write refers to a slot of a registered region. The slot is lent or
                // submitted until the completion is reaped, and the pool gives a region up only when
                // every slot is free; the other operations refer to no memory. Should the region be
                // unmapped regardless (the worker unwinds), the kernel still holds the registered
                // pages themselves.
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
    pub fn submit(&mut self) -> io::Result<()> {
        match &mut self.0 {
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
            Inner::Fake(_) => Ok(()),
        }
    }

    /// Sleeps until something completes, but not longer than `limit`.
    pub fn sleep(&mut self, limit: Option<Duration>) -> io::Result<()> {
        match &mut self.0 {
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
        match &mut self.0 {
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

/// The kernel's part of the ring, played from memory.
#[cfg(any(test, feature = "fake-kernel"))]
pub mod fake {
    use std::collections::VecDeque;

    use super::{Completion, Op, Tag};

    /// An operation that the played kernel has and has not answered.
    #[derive(Clone, Copy, Debug)]
    pub struct Pending {
        /// Which.
        pub tag: Tag,
        address: usize,
        len: usize,
    }

    impl Pending {
        /// The bytes of a write.
        ///
        /// # Panics
        ///
        /// When the operation is no write.
        pub fn written(&self) -> &[u8] {
            assert_eq!(self.tag.op, Op::Write);
            // SAFETY: `Ring::write` promises that the bytes stay until the completion is reaped.
            unsafe { std::slice::from_raw_parts(self.address as *const u8, self.len) }
        }
    }

    /// A kernel that answers when the test says so.
    #[derive(Debug, Default)]
    pub struct FakeRing {
        /// Operations without an answer, oldest first.
        pub pending: Vec<Pending>,
        /// Answers that were not reaped.
        answered: VecDeque<Completion>,
        /// When set, how many more operations fit.
        pub room: Option<usize>,
    }

    impl FakeRing {
        pub(super) fn push(&mut self, tag: Tag, address: usize, len: usize) -> bool {
            if let Some(room) = &mut self.room {
                if *room == 0 {
                    return false;
                }
                *room -= 1;
            }
            self.pending.push(Pending { tag, address, len });
            true
        }

        /// Answers the `index`-th pending operation with a result.
        pub fn answer(&mut self, index: usize, result: i32) {
            let pending = self.pending.remove(index);
            self.answered.push_back(Completion {
                tag: pending.tag,
                result,
            });
        }

        /// Answers the `index`-th pending operation, a read, with `bytes`, cut to its length.
        pub fn answer_read(&mut self, index: usize, bytes: &[u8]) {
            let pending = self.pending.remove(index);
            assert_eq!(pending.tag.op, Op::Read);
            let len = bytes.len().min(pending.len);
            // SAFETY: `Ring::read` promises that the room stays lent until the completion is reaped.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), pending.address as *mut u8, len);
            }
            self.answered.push_back(Completion {
                tag: pending.tag,
                result: len as i32,
            });
        }

        pub(super) fn reap(&mut self, into: &mut Vec<Completion>, room: usize) {
            let n = room.min(self.answered.len());
            into.extend(self.answered.drain(..n));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_tag_survives_the_kernel(
            op in prop_oneof![Just(Op::Write), Just(Op::Read), Just(Op::Poll), Just(Op::Cancel), Just(Op::Wake)],
            generation in 0..Tag::GENERATIONS,
            port in 0u16..1 << 12,
            region: u8,
            slot in 0u32..1 << 28,
        ) {
            let tag = Tag {
                op,
                generation,
                port: PortIndex(port),
                slot: SlotRef { region: RegionId(region), slot },
            };
            prop_assert_eq!(Tag::unpack(tag.pack()), Some(tag));
        }
    }
}
