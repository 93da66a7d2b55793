//! The kernel's part of the ring, played from memory: operations wait until the test answers them.

// Reads and writes at submitted addresses, as the kernel does.
#![allow(unsafe_code)]

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
    pub(in crate::worker) fn push(&mut self, tag: Tag, address: usize, len: usize) -> bool {
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

    pub(in crate::worker) fn reap(&mut self, into: &mut Vec<Completion>, room: usize) {
        let n = room.min(self.answered.len());
        into.extend(self.answered.drain(..n));
    }
}
