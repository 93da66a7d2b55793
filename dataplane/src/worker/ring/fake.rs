//! The kernel's part of the ring, played from memory: operations wait until the test answers them.

// Reads and writes at submitted addresses, as the kernel does.
#![allow(unsafe_code)]

use std::collections::VecDeque;

use super::send::HEADER;
use super::{Completion, Op, Tag, Target};

/// An operation that the played kernel has and has not answered.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Which.
    pub tag: Tag,
    address: usize,
    len: usize,
    message: Option<Message>,
    parts: Option<Parts>,
}

/// The list of the parts of a write, one entry for each.
#[derive(Clone, Debug)]
enum Parts {
    /// Where it is; not read yet.
    Queued { at: usize, count: usize },
    /// As it was when the kernel read it: address and length of each.
    Read(Vec<(usize, usize)>),
}

/// What a message is besides its second part.
#[derive(Clone, Copy, Debug)]
enum Message {
    /// Where it is described; not read yet.
    Queued { file: Target, at: usize },
    /// As it was described when the kernel read it.
    Read { file: Target, header: [u8; HEADER] },
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

    /// The bytes of a write of many parts, as they are now, each part for itself.
    ///
    /// # Panics
    ///
    /// When the operation is no such write, or was not submitted yet.
    pub fn gathered(&self) -> Vec<&[u8]> {
        let Some(Parts::Read(parts)) = &self.parts else {
            panic!("not read: {:?}", self.parts);
        };
        let part = |&(address, len): &(usize, usize)| {
            // SAFETY: `Ring::write_parts` promises that the bytes stay until the completion is settled.
            unsafe { std::slice::from_raw_parts(address as *const u8, len) }
        };
        parts.iter().map(part).collect()
    }

    /// Where a message goes, its header and the frame behind it.
    ///
    /// # Panics
    ///
    /// When the operation is no message, or was not submitted yet.
    pub fn sent(&self) -> (Target, [u8; HEADER], &[u8]) {
        match self.message {
            Some(Message::Read { file, header }) => (file, header, self.written()),
            other => panic!("not sent: {other:?}"),
        }
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
    /// While set, nothing that is submitted is taken.
    pub stuck: bool,
}

impl FakeRing {
    pub(in crate::worker) fn push(&mut self, tag: Tag, address: usize, len: usize) -> bool {
        let (message, parts) = (None, None);
        self.take(Pending {
            tag,
            address,
            len,
            message,
            parts,
        })
    }

    /// Takes a write of many parts, whose list is at `parts`; it is read at the next
    /// [`consume`](Self::consume).
    pub(super) fn push_parts(&mut self, tag: Tag, parts: *const libc::iovec, count: u32) -> bool {
        self.take(Pending {
            tag,
            address: 0,
            len: 0,
            message: None,
            parts: Some(Parts::Queued {
                at: parts as usize,
                count: count as usize,
            }),
        })
    }

    /// Takes a message, which is described at `message`; it is read at the next [`consume`](Self::consume).
    pub(super) fn push_message(
        &mut self,
        tag: Tag,
        file: Target,
        message: *const libc::msghdr,
    ) -> bool {
        let at = message as usize;
        self.take(Pending {
            tag,
            address: 0,
            len: 0,
            message: Some(Message::Queued { file, at }),
            parts: None,
        })
    }

    fn take(&mut self, pending: Pending) -> bool {
        if let Some(room) = &mut self.room {
            if *room == 0 {
                return false;
            }
            *room -= 1;
        }
        self.pending.push(pending);
        true
    }

    /// Whether every message was read.
    pub(super) fn has_consumed(&self) -> bool {
        let queued = |p: &Pending| matches!(p.message, Some(Message::Queued { .. }));
        !self.pending.iter().any(queued)
    }

    /// Reads the messages and the lists of parts that were taken, as the kernel does when they are submitted.
    pub fn consume(&mut self) {
        if self.stuck {
            return;
        }
        for pending in &mut self.pending {
            if let Some(&Parts::Queued { at, count }) = pending.parts.as_ref() {
                // SAFETY: `Ring::write_parts` promises that the list of the parts stays until it is consumed.
                let parts = unsafe { std::slice::from_raw_parts(at as *const libc::iovec, count) };
                let read = parts.iter().map(|p| (p.iov_base as usize, p.iov_len));
                pending.parts = Some(Parts::Read(read.collect()));
            }
            let Some(Message::Queued { file, at }) = pending.message else {
                continue;
            };
            // SAFETY: `Ring::send` promises that the description of a message stays until it is consumed.
            let (header, frame) = unsafe {
                let message = &*(at as *const libc::msghdr);
                assert_eq!(message.msg_iovlen, 2);
                let parts = std::slice::from_raw_parts(message.msg_iov, 2);
                assert_eq!(parts[0].iov_len, HEADER);
                (*parts[0].iov_base.cast::<[u8; HEADER]>(), parts[1])
            };
            (pending.address, pending.len) = (frame.iov_base as usize, frame.iov_len);
            pending.message = Some(Message::Read { file, header });
        }
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
