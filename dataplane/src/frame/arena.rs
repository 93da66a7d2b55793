//! The memory of one worker: one mapping, cut into parts of equal size, each of which becomes a region.
//!
//! An AF_XDP queue that transmits registers all of it as its UMEM, so that a frame of any part leaves by
//! any queue of the worker from where it is. Queues come and go apart; a part is handed out again once
//! neither a region nor a socket reaches into it.

// Cuts regions out of a mapping.
#![allow(unsafe_code)]

use std::{
    fmt,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    Region,
    memory::{Backing, HugePages, Memory, RegionError},
};

/// One worker's memory. Clones are the same memory, which lasts as long as any of them or a region does.
#[derive(Clone)]
pub struct Arena(Arc<Shared>);

struct Shared {
    memory: Memory,
    slots: u32,
    slot_size: u32,
    /// By part, whether it is taken.
    taken: Vec<AtomicBool>,
}

// SAFETY: the mapping is reached through regions alone, of which each part has one at a time; what is
// shared beside it is constant or atomic.
unsafe impl Sync for Shared {}

impl Arena {
    /// Maps so many parts with so many slots each, a power of two from 256 on, of 2,048 or 4,096 bytes.
    /// Call it on the worker's core: memory is first touched here.
    ///
    /// # Errors
    ///
    /// When the memory is not to be had.
    ///
    /// # Panics
    ///
    /// When a slot is to have another size, or all of it is beyond what an address reaches.
    pub fn map(
        parts: usize,
        slots: u32,
        slot_size: u32,
        pages: HugePages,
    ) -> Result<Self, RegionError> {
        assert!(
            [2048, 4096].contains(&slot_size),
            "slots of {slot_size} bytes"
        );
        let slots = slots.max(256).next_power_of_two();
        let bytes = parts * slots as usize * slot_size as usize;
        Ok(Self(Arc::new(Shared {
            memory: Memory::map(bytes, pages)?,
            slots,
            slot_size,
            taken: (0..parts).map(|_| AtomicBool::new(false)).collect(),
        })))
    }

    /// Bytes of a slot.
    pub fn slot_size(&self) -> u32 {
        self.0.slot_size
    }

    /// Slots of each part.
    pub fn slots(&self) -> u32 {
        self.0.slots
    }

    /// What the memory is.
    pub fn backing(&self) -> Backing {
        self.0.memory.backing()
    }

    /// Takes a part: as a region where a fresh frame begins at `headroom`, and for the socket that will be
    /// bound over it. `None` while one of the two that were taken before is still there.
    ///
    /// # Panics
    ///
    /// When there is no such part.
    pub(crate) fn take(&self, part: usize, headroom: usize) -> Option<(Region, Part)> {
        if self.0.taken[part].swap(true, Ordering::Acquire) {
            return None;
        }
        let taken = Part(Arc::new(Taken {
            arena: Arc::clone(&self.0),
            part,
        }));
        let base = self.0.part_base(part);
        // SAFETY: the part is mapped as long as the clone of `taken` that goes with the region, and nobody
        // else has it: it is taken, and this is the one place where a region is made of it.
        let region = unsafe {
            Region::over(
                base,
                self.0.slots,
                self.0.slot_size as usize,
                headroom,
                self.backing(),
                Box::new(taken.clone()),
            )
        };
        Some((region, taken))
    }
}

impl Shared {
    fn part_bytes(&self) -> usize {
        self.slots as usize * self.slot_size as usize
    }

    fn part_base(&self, part: usize) -> NonNull<u8> {
        assert!(part < self.taken.len());
        // SAFETY: the mapping has so many parts of this length.
        unsafe { self.memory.base().add(part * self.part_bytes()) }
    }
}

/// That a part is taken. Once all clones are dropped, it can be taken again.
#[derive(Clone)]
pub(crate) struct Part(Arc<Taken>);

struct Taken {
    arena: Arc<Shared>,
    part: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.arena.taken[self.part].store(false, Ordering::Release);
    }
}

impl Part {
    /// The whole arena: its first byte and its length, as far as parts reach.
    pub(crate) fn arena(&self) -> (NonNull<u8>, usize) {
        let arena = &self.0.arena;
        (arena.memory.base(), arena.taken.len() * arena.part_bytes())
    }

    /// The part itself.
    pub(crate) fn own(&self) -> (NonNull<u8>, usize) {
        let arena = &self.0.arena;
        (arena.part_base(self.0.part), arena.part_bytes())
    }

    /// Where the part begins within the arena, in slots.
    pub(crate) fn first_slot(&self) -> u32 {
        self.0.part as u32 * self.0.arena.slots
    }

    /// Bytes of a slot.
    pub(crate) fn slot_size(&self) -> u32 {
        self.0.arena.slot_size
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("parts", &self.0.taken.len())
            .field("slots", &self.0.slots)
            .field("slot_size", &self.0.slot_size)
            .field("backing", &self.backing())
            .finish()
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Part").field(&self.0.part).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_one_taker_until_region_and_socket_are_gone() {
        let arena = Arena::map(3, 256, 2048, HugePages::Off).expect("memory");
        let (region, part) = arena.take(1, 256).expect("nobody has it");
        assert!(arena.take(1, 256).is_none(), "taken");
        let (base, bytes) = part.arena();
        assert_eq!(bytes, 3 * 256 * 2048);
        assert_eq!((part.first_slot(), part.slot_size()), (256, 2048));
        let (first, length) = region.as_raw();
        assert_eq!(first.addr() - base.as_ptr().addr(), 256 * 2048);
        assert_eq!(length, 256 * 2048);
        drop(region);
        assert!(arena.take(1, 256).is_none(), "the socket has it");
        assert!(arena.take(0, 256).is_some(), "another part");
        drop(part);
        let (region, part) = arena.take(1, 256).expect("nobody has it any more");
        drop(part);
        assert!(arena.take(1, 256).is_none(), "the region has it");
        drop(region);
        assert!(arena.take(1, 256).is_some());
    }

    #[test]
    fn a_region_outlives_its_arena() {
        let arena = Arena::map(2, 256, 4096, HugePages::Off).expect("memory");
        let (mut region, part) = arena.take(1, 0).expect("nobody has it");
        drop((arena, part));
        // SAFETY: no other reference or kernel operation exists in this test.
        let bytes = unsafe { region.bytes_mut(255, 0, 4096) };
        bytes.fill(7);
        assert!(bytes.iter().all(|&b| b == 7));
    }
}
