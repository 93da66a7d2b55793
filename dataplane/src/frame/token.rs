//! The tokens that stand for a frame. Neither is `Copy` or `Clone`: whoever holds one owns the slot
//! behind it, and the pool's functions take it away when the ownership moves on.

use super::SlotRef;

/// A region's place in its worker's pool; also its index among the ring's registered buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegionId(pub(crate) u8);

/// One frame in a slot that nobody else can see: it may be read, changed, freed or staged.
#[must_use = "a frame that is neither staged nor freed keeps its slot for ever"]
#[derive(Debug)]
pub struct Frame {
    pub(crate) region: RegionId,
    /// Bytes in the slots behind the first, where the frame has several.
    pub(crate) tail: u16,
    pub(crate) slot: u32,
    pub(crate) offset: u32,
    /// Bytes in the first slot.
    pub(crate) len: u32,
    /// See [`Frame::time`]; 0 is unknown.
    pub(crate) time: u64,
}

/// One sink's share of a frame that is on its way out. Its bytes no longer change. The slot returns
/// to the pool when the last share has been completed or released.
#[must_use = "a staged frame that is neither submitted nor released keeps its slot for ever"]
#[derive(Debug)]
pub struct Staged {
    pub(crate) region: RegionId,
    /// Bytes in the slots behind the first, where the frame has several.
    pub(crate) tail: u16,
    pub(crate) slot: u32,
    pub(crate) offset: u32,
    /// Bytes in the first slot.
    pub(crate) len: u32,
    /// See [`Staged::time`]; 0 is unknown.
    pub(crate) time: u64,
}

macro_rules! token {
    ($token:ident) => {
        impl $token {
            pub(crate) fn slot_ref(&self) -> SlotRef {
                SlotRef {
                    region: self.region,
                    slot: self.slot,
                }
            }

            /// The frame's length in bytes, from the first byte of the Ethernet header.
            pub fn len(&self) -> usize {
                self.len as usize + usize::from(self.tail)
            }

            /// Whether the frame lies in several slots, of which the first has its headers.
            #[inline]
            pub fn is_chain(&self) -> bool {
                self.tail > 0
            }

            /// Whether the frame has no bytes at all.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// When the frame was captured, in nanoseconds since 1970, where its source can tell: a
            /// capture file or the kernel. Of other frames nothing is known but when their batch came.
            pub fn time(&self) -> Option<u64> {
                (self.time != 0).then_some(self.time)
            }

            /// Leaves the first `n` bytes out, such as a header that the sink has no use for. They stay
            /// in the slot, where other shares see them. `false`, and nothing changes, when the frame
            /// has not so many in its first slot.
            pub fn cut_front(&mut self, n: usize) -> bool {
                if n > self.len as usize {
                    return false;
                }
                self.offset += n as u32;
                self.len -= n as u32;
                true
            }

            /// Leaves out what stands behind the first `len` bytes, such as padding that the sink has no
            /// use for. A shorter frame stays as it is.
            pub fn truncate(&mut self, len: usize) {
                let head = self.len as usize;
                self.tail = self
                    .tail
                    .min(len.saturating_sub(head).min(u16::MAX.into()) as u16);
                self.len = head.min(len) as u32;
            }
        }
    };
}

impl Frame {
    /// Remembers when the frame was captured: nanoseconds since 1970, of which 0 stands for unknown.
    pub fn set_time(&mut self, time: u64) {
        self.time = time;
    }
}

token!(Frame);
token!(Staged);
