//! A region: one stretch of frame memory cut into slots of equal size. This file alone turns slot
//! numbers into addresses.

// Slots are cut out of memory that is lent to the kernel.
#![allow(unsafe_code)]

use std::{any::Any, fmt, ptr::NonNull};

use super::memory::{Backing, HugePages, Memory, RegionError};

/// A stretch of frame memory, divided into slots.
pub struct Region {
    base: NonNull<u8>,
    slot_size: usize,
    slots: u32,
    headroom: usize,
    backing: Backing,
    /// Unmaps the memory when it is dropped.
    _owner: Box<dyn Any + Send>,
}

// SAFETY: a region is plain memory that its owner keeps mapped wherever the value goes; access goes
// through `&self` and `&mut self`, and the pool lets one token at a time reach a slot.
unsafe impl Send for Region {}

impl Region {
    /// Maps a region with memory of its own.
    ///
    /// `slot_size` is rounded up to whole cache lines, and with huge pages the number of slots to
    /// whole pages. `headroom` is where a fresh frame begins within its slot.
    pub fn map(
        slots: u32,
        slot_size: usize,
        headroom: usize,
        pages: HugePages,
    ) -> Result<Self, RegionError> {
        let slot_size = slot_size.next_multiple_of(64);
        let memory = Memory::map(slots as usize * slot_size, pages)?;
        Ok(Self {
            base: memory.base(),
            slot_size,
            slots: (memory.bytes() / slot_size) as u32,
            headroom,
            backing: memory.backing(),
            _owner: Box::new(memory),
        })
    }

    /// A region over a part of memory that is mapped already.
    ///
    /// # Safety
    ///
    /// `base` must be valid for reads and writes of `slots * slot_size` bytes for as long as `owner`
    /// is not dropped, and nothing else in this process may touch those bytes.
    pub(super) unsafe fn over(
        base: NonNull<u8>,
        slots: u32,
        slot_size: usize,
        headroom: usize,
        backing: Backing,
        owner: Box<dyn Any + Send>,
    ) -> Self {
        Self {
            base,
            slot_size,
            slots,
            headroom,
            backing,
            _owner: owner,
        }
    }

    /// How many slots.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Bytes from one slot to the next.
    pub(crate) fn slot_size(&self) -> usize {
        self.slot_size
    }

    /// Where a fresh frame begins within its slot; what stands before is room for headers.
    pub(crate) fn headroom(&self) -> usize {
        self.headroom
    }

    /// Bytes that a fresh frame can have.
    pub(crate) fn capacity(&self) -> usize {
        self.slot_size - self.headroom
    }

    /// What the memory is.
    pub(crate) fn backing(&self) -> Backing {
        self.backing
    }

    /// The whole region, for registration with the kernel: address and length in bytes.
    pub(crate) fn as_raw(&self) -> (*mut u8, usize) {
        (self.base.as_ptr(), self.slots as usize * self.slot_size)
    }

    /// The address of a byte in a slot, for the kernel.
    ///
    /// # Panics
    ///
    /// When the slot or the offset is outside the region.
    #[inline]
    pub(crate) fn address(&self, slot: u32, offset: usize) -> *mut u8 {
        assert!(slot < self.slots && offset <= self.slot_size);
        // SAFETY: just checked to be inside the region, or one past its last byte.
        unsafe {
            self.base
                .as_ptr()
                .add(slot as usize * self.slot_size + offset)
        }
    }

    /// Bytes of a slot.
    ///
    /// # Safety
    ///
    /// Neither the kernel nor a `&mut` to the same bytes may write them while the result lives.
    ///
    /// # Panics
    ///
    /// When the range is outside the slot.
    #[inline]
    pub(crate) unsafe fn bytes(&self, slot: u32, offset: usize, len: usize) -> &[u8] {
        assert!(slot < self.slots && offset <= self.slot_size && len <= self.slot_size - offset);
        // SAFETY: the range is inside the mapped region (checked above); the caller excludes writers.
        unsafe {
            std::slice::from_raw_parts(
                self.base
                    .as_ptr()
                    .add(slot as usize * self.slot_size + offset),
                len,
            )
        }
    }

    /// Bytes of a slot, to change them.
    ///
    /// # Safety
    ///
    /// Neither the kernel nor another reference may touch the same bytes while the result lives.
    ///
    /// # Panics
    ///
    /// When the range is outside the slot.
    #[inline]
    pub(crate) unsafe fn bytes_mut(&mut self, slot: u32, offset: usize, len: usize) -> &mut [u8] {
        assert!(slot < self.slots && offset <= self.slot_size && len <= self.slot_size - offset);
        // SAFETY: the range is inside the mapped region (checked above); the caller excludes others.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.base
                    .as_ptr()
                    .add(slot as usize * self.slot_size + offset),
                len,
            )
        }
    }

    /// Asks the processor for `len` bytes of a slot that will be read soon, as far as the slot goes.
    ///
    /// # Panics
    ///
    /// When the slot or the offset is outside the region.
    #[inline]
    pub(crate) fn prefetch(&self, slot: u32, offset: usize, len: usize) {
        let first = self.address(slot, offset);
        for line in (0..len.min(self.slot_size - offset)).step_by(CACHE_LINE) {
            prefetch(first.wrapping_add(line));
        }
    }
}

/// Bytes that the processor fetches at a time.
const CACHE_LINE: usize = 64;

#[inline(always)]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint without an effect on memory; SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("slots", &self.slots)
            .field("slot_size", &self.slot_size)
            .field("headroom", &self.headroom)
            .field("backing", &self.backing)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::memory::HUGE_PAGE, *};

    #[test]
    fn slots_are_disjoint_and_keep_what_is_written() {
        let mut region = Region::map(16, 100, 32, HugePages::Off).expect("normal memory");
        assert_eq!(region.slot_size(), 128);
        assert_eq!(region.capacity(), 96);
        for slot in 0..16 {
            // SAFETY: no other reference or kernel operation exists in this test.
            unsafe { region.bytes_mut(slot, 0, 128) }.fill(slot as u8);
        }
        for slot in 0..16 {
            // SAFETY: as above.
            let bytes = unsafe { region.bytes(slot, 0, 128) };
            assert!(bytes.iter().all(|&b| b == slot as u8));
        }
    }

    #[test]
    #[should_panic(expected = "slot < self.slots")]
    fn a_slot_outside_is_refused() {
        let region = Region::map(4, 64, 0, HugePages::Off).expect("normal memory");
        region.address(4, 0);
    }

    #[test]
    #[should_panic(expected = "len <= self.slot_size - offset")]
    fn a_length_past_the_slot_is_refused() {
        let region = Region::map(4, 64, 0, HugePages::Off).expect("normal memory");
        // SAFETY: panics before any access.
        unsafe { region.bytes(0, 60, 5) };
    }

    #[test]
    fn auto_says_what_it_got() {
        let region = Region::map(1024, 2048, 0, HugePages::Auto).expect("some memory");
        let (_, bytes) = region.as_raw();
        match region.backing() {
            Backing::Huge => assert_eq!(bytes % HUGE_PAGE, 0),
            Backing::Normal => assert_eq!(region.slots(), 1024),
        }
    }
}
