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
    pub(crate) slot: u32,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

/// One sink's share of a frame that is on its way out. Its bytes no longer change. The slot returns
/// to the pool when the last share has been completed or released.
#[must_use = "a staged frame that is neither submitted nor released keeps its slot for ever"]
#[derive(Debug)]
pub struct Staged {
    pub(crate) region: RegionId,
    pub(crate) slot: u32,
    pub(crate) offset: u32,
    pub(crate) len: u32,
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
                self.len as usize
            }

            /// Whether the frame has no bytes at all.
            pub fn is_empty(&self) -> bool {
                self.len == 0
            }
        }
    };
}

token!(Frame);
token!(Staged);
