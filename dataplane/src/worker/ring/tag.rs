//! What an operation carries through the kernel and back, in the 64 bits of `user_data`.

use crate::{
    frame::{RegionId, SlotRef},
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
    /// Bytes of several parts went out. The tag's slot is the number of a gather of the ring, which names the
    /// slots.
    Gather = 6,
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
    /// Which slot, for reads and writes; for those of many parts which gather.
    pub slot: SlotRef,
}

impl Tag {
    /// Generations wrap at this.
    pub(crate) const GENERATIONS: u16 = 1 << 12;

    pub(super) fn new(op: Op, place: Place, slot: SlotRef) -> Self {
        Self {
            op,
            generation: place.generation,
            port: place.index,
            slot,
        }
    }

    pub(super) fn without_slot(op: Op, place: Place) -> Self {
        let slot = SlotRef {
            region: RegionId(0),
            slot: 0,
        };
        Self::new(op, place, slot)
    }

    pub(super) fn pack(self) -> u64 {
        debug_assert!(self.generation < Self::GENERATIONS && self.port.0 < 1 << 12);
        debug_assert!(self.slot.slot < 1 << 28);
        (self.op as u64) << 60
            | u64::from(self.generation) << 48
            | u64::from(self.port.0) << 36
            | u64::from(self.slot.region.0) << 28
            | u64::from(self.slot.slot)
    }

    pub(super) fn unpack(bits: u64) -> Option<Self> {
        Some(Self {
            op: match bits >> 60 {
                1 => Op::Write,
                2 => Op::Read,
                3 => Op::Poll,
                4 => Op::Cancel,
                5 => Op::Wake,
                6 => Op::Gather,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_tag_survives_the_kernel(
            op in prop_oneof![Just(Op::Write), Just(Op::Read), Just(Op::Poll), Just(Op::Cancel), Just(Op::Wake), Just(Op::Gather)],
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
