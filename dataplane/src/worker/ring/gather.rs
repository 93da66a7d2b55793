//! Writes of many parts through the ring: a header that the port makes, and behind it the bytes of one share
//! or of several, straight from their slots. What describes them to the kernel lies in gathers that the
//! ring owns and uses again and again; one completion ends all the shares of one.

// The kernel is told the addresses of the gathers.
#![allow(unsafe_code)]

use std::collections::VecDeque;

use io_uring::{opcode, types};

use super::{Inner, Op, Ring, Tag, Target};
use crate::{
    frame::{CHAIN, Pool, RegionId, SlotRef, Staged},
    port::Place,
};

/// Bytes of a [`Header`] at most: 10 of virtio, 14 of Ethernet, 40 of IPv6 and 60 of TCP, in whole words.
pub(crate) const HEADER: usize = 128;

/// Shares of one write at most.
pub(crate) const SHARES: usize = 64;

/// Parts of one write at most, beside the header. A share of a frame in one slot is one.
const PARTS: usize = if SHARES > CHAIN { SHARES } else { CHAIN };

/// Writes of many parts that the kernel can have at a time.
const GATHERS: usize = 512;

/// What stands before the shares of a write.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// How many bytes at the front of each share are left out for it.
    pub instead_of: usize,
}

/// One write as the kernel reads it, and what it ends.
struct Gather {
    parts: [libc::iovec; 1 + PARTS],
    header: [u8; HEADER],
    slots: [SlotRef; SHARES],
    ended: Gathered,
}

/// What a write of many parts was made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gathered {
    /// How many frames.
    pub frames: u64,
    /// Their bytes, those included that the header stood for.
    pub bytes: u64,
}

impl Gathered {
    /// One frame, of which as many bytes were written as a completion's result says.
    #[inline]
    pub(crate) fn one(result: i32) -> Self {
        Self {
            frames: 1,
            bytes: u64::from(result.max(0) as u32),
        }
    }
}

/// The gathers of a ring; none until a port asks for them.
#[derive(Default)]
pub(super) struct Gathers {
    all: Box<[Gather]>,
    /// Those that the kernel does not have. The last one came back last: its memory is still warm.
    free: Vec<u32>,
}

impl std::fmt::Debug for Gathers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gathers({} of {} free)", self.free.len(), self.all.len())
    }
}

impl Gathers {
    fn make(count: usize) -> Self {
        let nothing = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        let blank = || Gather {
            parts: [nothing; 1 + PARTS],
            header: [0; HEADER],
            slots: [SlotRef {
                region: RegionId(0),
                slot: 0,
            }; SHARES],
            ended: Gathered::default(),
        };
        let mut all: Box<[Gather]> = (0..count).map(|_| blank()).collect();
        // Here they stay, so that they can point to themselves.
        for gather in &mut all {
            gather.parts[0].iov_base = (&raw mut gather.header).cast();
        }
        Self {
            all,
            free: (0..count as u32).rev().collect(),
        }
    }
}

impl Drop for Gathers {
    fn drop(&mut self) {
        if self.free.len() < self.all.len() {
            // The kernel may still read those of writes that it put off: that memory stays.
            std::mem::forget(std::mem::take(&mut self.all));
        }
    }
}

impl Ring {
    /// Makes what `write_parts` needs. A port that writes so asks for it when it is
    /// attached.
    pub fn prepare_gathers(&mut self) {
        if self.gathers.all.is_empty() {
            self.gathers = Gathers::make(GATHERS);
        }
    }

    /// Queues one write of a header and, behind it, the bytes of the first `n` of `shares`, and submits those. The
    /// completion must be handed to [`settle`](Self::settle). `false`, and the shares stay where they are, when the
    /// ring has no room.
    ///
    /// # Panics
    ///
    /// When there are fewer shares, or `n` is more than 64, when one is shorter than what the header stands
    /// for, and when the header has more than 128 bytes. All shares together have 64 parts at most.
    #[inline]
    pub(crate) fn write_parts(
        &mut self,
        pool: &mut Pool,
        file: Target,
        place: Place,
        header: Header<'_>,
        shares: &mut VecDeque<Staged>,
        n: usize,
    ) -> bool {
        assert!(n <= shares.len());
        let Some(&number) = self.gathers.free.last() else {
            // None, unless this was never prepared, before the kernel answers.
            return false;
        };
        let gather = &mut self.gathers.all[number as usize];
        gather.header[..header.bytes.len()].copy_from_slice(header.bytes);
        gather.parts[0].iov_len = header.bytes.len();
        gather.ended = Gathered {
            frames: n as u64,
            bytes: 0,
        };
        let mut count = 1;
        for (i, share) in shares.iter().take(n).enumerate() {
            let mut skip = header.instead_of;
            for bytes in pool.parts(share) {
                let bytes = &bytes[std::mem::take(&mut skip)..];
                gather.parts[count] = libc::iovec {
                    iov_base: bytes.as_ptr().cast_mut().cast(),
                    iov_len: bytes.len(),
                };
                count += 1;
            }
            // The slots behind the first go with it.
            gather.slots[i] = share.slot_ref();
            gather.ended.bytes += share.len() as u64;
        }
        let tag = Tag::new(
            Op::Gather,
            place,
            SlotRef {
                region: RegionId(0),
                slot: number,
            },
        );
        // Soundness. The kernel is told the addresses of a gather and, in it, of slots and of a header.
        //
        // Unlike a message, a write may be put off: before Linux 6.4 a file of tun without O_NONBLOCK has it
        // done by another thread (io_uring/rw.c, `io_file_supports_nowait`), and a device that makes it wait
        // may at any time. All that it refers to may be read until the write is answered. So slots stay
        // submitted, and the gather with its list and its header is not free, until `settle`, which the
        // worker calls with the completion and nothing else does. Bytes of a slot that is submitted do not
        // change (`Pool::stage`), and a gather is written to only while it is free.
        //
        // That holds for a port that was closed, too: its completions come to the worker, which settles them.
        // Should the ring end before (the worker unwinds), the gathers stay (`Gathers::drop`); of slots whose
        // region is unmapped then, such a write finds nothing and fails with EFAULT.
        let parts = gather.parts.as_ptr();
        let count = count as u32;
        let queued = match &mut self.inner {
            Inner::Kernel(_) => {
                let entry = match file {
                    Target::Registered(i) => opcode::Writev::new(types::Fixed(i), parts, count),
                    Target::Plain(fd) => opcode::Writev::new(types::Fd(fd), parts, count),
                };
                self.push(entry.build(), tag, 0, 0)
            }
            #[cfg(any(test, feature = "fake-kernel"))]
            Inner::Fake(fake) => fake.push_parts(tag, parts, count),
        };
        if queued {
            self.gathers.free.pop();
            for share in shares.drain(..n) {
                pool.submit(share);
            }
        }
        queued
    }

    /// The kernel has done with a write of many parts: its shares end, and its gather is free.
    ///
    /// # Panics
    ///
    /// When the tag is not that of a completion of such a write.
    #[inline]
    pub(crate) fn settle(&mut self, pool: &mut Pool, tag: Tag) -> Gathered {
        assert!(tag.op == Op::Gather);
        let gather = &mut self.gathers.all[tag.slot.slot as usize];
        let ended = std::mem::take(&mut gather.ended);
        assert!(ended.frames > 0, "a gather that the kernel did not have");
        for &slot in &gather.slots[..ended.frames as usize] {
            pool.complete(slot);
        }
        self.gathers.free.push(tag.slot.slot);
        ended
    }
}

#[cfg(test)]
mod tests;
