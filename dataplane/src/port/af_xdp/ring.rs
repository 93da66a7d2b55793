//! One ring that the kernel shares with us: a producer's and a consumer's side over indices that only
//! grow, modulo 2^32. Mirrors net/xdp/xsk_queue.h; what the entries mean is not known here.
//!
//! Each side keeps the other's index as it saw it last and loads it anew only when that does not do,
//! so that a batch costs one load, its entries, and one store.

// Entries and indices live in memory that the kernel writes too.
#![allow(unsafe_code)]

use std::{
    any::Any,
    fmt,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

/// Where the parts of a ring are in its memory, in bytes (`struct xdp_ring_offset`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Offsets {
    pub(super) producer: usize,
    pub(super) consumer: usize,
    pub(super) flags: usize,
    pub(super) entries: usize,
}

/// What both sides see.
struct Shared<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    /// Their number, a power of two, less one.
    mask: u32,
    /// Unmaps the memory when it is dropped.
    _memory: Box<dyn Any + Send>,
}

// SAFETY: the pointers lead into memory that `_memory` keeps wherever the value goes. Only the owner of
// the value writes its side of it, and the kernel's side is reached through atomics.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T: Copy> Shared<T> {
    /// # Safety
    ///
    /// `base` must be aligned to eight bytes and valid for reads and writes, as far as `offsets` and
    /// `entries` times `T` reach, until `memory` is dropped. Who shares the memory changes indices and
    /// flags atomically, and entries only while the protocol gives them to it.
    unsafe fn new(
        base: NonNull<u8>,
        offsets: Offsets,
        entries: u32,
        memory: Box<dyn Any + Send>,
    ) -> Self {
        assert!(entries.is_power_of_two());
        // SAFETY: the caller's memory reaches as far as each offset, and the kernel aligns them.
        unsafe {
            Self {
                producer: base.add(offsets.producer).cast(),
                consumer: base.add(offsets.consumer).cast(),
                flags: base.add(offsets.flags).cast(),
                entries: base.add(offsets.entries).cast(),
                mask: entries - 1,
                _memory: memory,
            }
        }
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: valid as long as `_memory`, and only ever reached as an atomic.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: valid as long as `_memory`, and only ever reached as an atomic.
        unsafe { self.consumer.as_ref() }
    }

    fn flags(&self) -> &AtomicU32 {
        // SAFETY: valid as long as `_memory`, and only ever reached as an atomic.
        unsafe { self.flags.as_ref() }
    }

    fn size(&self) -> u32 {
        self.mask + 1
    }

    /// Where the entry is that an index stands for. In bounds for every index.
    #[inline]
    fn entry(&self, index: u32) -> NonNull<T> {
        // SAFETY: masked, the index is less than the number of entries.
        unsafe { self.entries.add((index & self.mask) as usize) }
    }
}

/// The side that puts entries in: the fill ring and the transmit ring.
pub(super) struct Producer<T> {
    shared: Shared<T>,
    /// Ours: what the kernel may take.
    produced: u32,
    /// The kernel's, as it stood when we looked last.
    consumed: u32,
}

impl<T: Copy> Producer<T> {
    /// A producer that goes on where the ring stands.
    ///
    /// # Safety
    ///
    /// As for [`Consumer::new`]; nobody else produces.
    pub(super) unsafe fn new(
        base: NonNull<u8>,
        offsets: Offsets,
        entries: u32,
        memory: Box<dyn Any + Send>,
    ) -> Self {
        // SAFETY: the caller's promise.
        let shared = unsafe { Shared::new(base, offsets, entries, memory) };
        Self {
            produced: shared.producer().load(Ordering::Relaxed),
            consumed: shared.consumer().load(Ordering::Acquire),
            shared,
        }
    }

    /// How many entries fit, if `wanted` do; as it stands now, if fewer do.
    #[inline]
    pub(super) fn room(&mut self, wanted: usize) -> usize {
        let mut untaken = self.produced.wrapping_sub(self.consumed);
        if (self.shared.size().saturating_sub(untaken) as usize) < wanted {
            untaken = self.untaken() as u32;
        }
        self.shared.size().saturating_sub(untaken) as usize
    }

    /// Puts entries in and shows them to the kernel. All or, without room, nothing.
    #[inline]
    pub(super) fn produce(&mut self, entries: impl ExactSizeIterator<Item = T>) -> bool {
        let n = entries.len();
        if self.room(n) < n {
            return false;
        }
        let mut produced = self.produced;
        for entry in entries.take(n) {
            // SAFETY: between what the kernel has consumed and what we have produced in the ring's size
            // entries are ours: the kernel reads none before the store below.
            unsafe { self.shared.entry(produced).write(entry) };
            produced = produced.wrapping_add(1);
        }
        self.produced = produced;
        // Release: whoever sees the index sees the entries (and the frames) that were written before it.
        self.shared.producer().store(produced, Ordering::Release);
        true
    }

    /// Entries that the kernel has not taken.
    #[inline]
    pub(super) fn untaken(&mut self) -> usize {
        // Acquire: the kernel has done with entries before it says so.
        self.consumed = self.shared.consumer().load(Ordering::Acquire);
        self.produced.wrapping_sub(self.consumed) as usize
    }

    /// Whether the kernel sleeps until it is told of new entries (XDP_RING_NEED_WAKEUP).
    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        self.shared.flags().load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// The side that takes entries out: the receive ring and the completion ring.
pub(super) struct Consumer<T> {
    shared: Shared<T>,
    /// The kernel's, as it stood when we looked last.
    produced: u32,
    /// Ours: what the kernel may overwrite.
    consumed: u32,
}

impl<T: Copy> Consumer<T> {
    /// A consumer that goes on where the ring stands.
    ///
    /// # Safety
    ///
    /// `base` must be aligned to eight bytes and valid for reads and writes, as far as `offsets` and
    /// `entries` times `T` reach, until `memory` is dropped. The kernel alone is on the other side, and
    /// nobody else on this one.
    pub(super) unsafe fn new(
        base: NonNull<u8>,
        offsets: Offsets,
        entries: u32,
        memory: Box<dyn Any + Send>,
    ) -> Self {
        // SAFETY: the caller's promise.
        let shared = unsafe { Shared::new(base, offsets, entries, memory) };
        Self {
            produced: shared.producer().load(Ordering::Acquire),
            consumed: shared.consumer().load(Ordering::Relaxed),
            shared,
        }
    }

    /// How many entries there are, if `wanted` are; as it stands now, if fewer are.
    #[inline]
    pub(super) fn available(&mut self, wanted: usize) -> usize {
        if (self.produced.wrapping_sub(self.consumed) as usize) < wanted {
            // Acquire: entries were written before the index that we see.
            self.produced = self.shared.producer().load(Ordering::Acquire);
        }
        self.produced.wrapping_sub(self.consumed) as usize
    }

    /// Takes at most `max` entries. Answers how many there were.
    #[inline]
    pub(super) fn consume(&mut self, max: usize, each: impl FnMut(T)) -> usize {
        let n = self.peek(max, each);
        if n > 0 {
            self.consumed = self.consumed.wrapping_add(n as u32);
            // Release: we have read the entries before the kernel may write over them.
            let consumer = self.shared.consumer();
            consumer.store(self.consumed, Ordering::Release);
        }
        n
    }

    /// Looks at no more than `max` entries without taking them. Answers how many there were.
    #[inline]
    pub(super) fn peek(&mut self, max: usize, mut each: impl FnMut(T)) -> usize {
        let n = self.available(max).min(max);
        for i in 0..n as u32 {
            // SAFETY: between what we have consumed and what the kernel has produced entries are ours,
            // and the kernel writes none of them before it sees our index move.
            each(unsafe { self.shared.entry(self.consumed.wrapping_add(i)).read() });
        }
        n
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("produced", &self.produced)
            .field("consumed", &self.consumed)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("produced", &self.produced)
            .field("consumed", &self.consumed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const ENTRIES: u32 = 8;
    const OFFSETS: Offsets = Offsets {
        producer: 0,
        consumer: 64,
        flags: 128,
        entries: 192,
    };

    /// The kernel's side of a ring: the indices and entries themselves.
    #[derive(Clone, Copy)]
    struct Kernel(NonNull<u8>);

    impl Kernel {
        /// A ring whose indices stand at `start`, and the memory that it is in.
        fn new(start: u32) -> (Self, Box<dyn Any + Send>) {
            let mut memory =
                vec![0u64; (OFFSETS.entries / 8) + ENTRIES as usize].into_boxed_slice();
            let base = NonNull::new(memory.as_mut_ptr().cast()).expect("memory");
            let kernel = Self(base);
            kernel
                .index(OFFSETS.producer)
                .store(start, Ordering::Relaxed);
            kernel
                .index(OFFSETS.consumer)
                .store(start, Ordering::Relaxed);
            (kernel, Box::new(memory))
        }

        fn index(&self, offset: usize) -> &AtomicU32 {
            // SAFETY: the tests keep the ring, and with it the memory, longer than this value.
            unsafe { self.0.add(offset).cast().as_ref() }
        }

        fn entry(&self, index: u32) -> NonNull<u64> {
            let at = OFFSETS.entries + 8 * (index % ENTRIES) as usize;
            // SAFETY: as above.
            unsafe { self.0.add(at).cast() }
        }

        /// Puts an entry in, as long as there is room.
        fn produce(&self, entry: u64) -> bool {
            let [producer, consumer] =
                [OFFSETS.producer, OFFSETS.consumer].map(|o| self.index(o).load(Ordering::Acquire));
            if producer.wrapping_sub(consumer) == ENTRIES {
                return false;
            }
            // SAFETY: the entry is not the consumer's before the index says so.
            unsafe { self.entry(producer).write(entry) };
            self.index(OFFSETS.producer)
                .store(producer.wrapping_add(1), Ordering::Release);
            true
        }

        /// Takes an entry out.
        fn consume(&self) -> Option<u64> {
            let [producer, consumer] =
                [OFFSETS.producer, OFFSETS.consumer].map(|o| self.index(o).load(Ordering::Acquire));
            if producer == consumer {
                return None;
            }
            // SAFETY: the entry is the consumer's until the index moves.
            let entry = unsafe { self.entry(consumer).read() };
            self.index(OFFSETS.consumer)
                .store(consumer.wrapping_add(1), Ordering::Release);
            Some(entry)
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Our side moves so many entries.
        Ours(usize),
        /// The kernel's side does.
        Kernels(usize),
        /// Our side looks ahead.
        Peek(usize),
    }

    fn steps() -> impl Strategy<Value = (u32, Vec<Step>)> {
        let step = prop_oneof![
            (0usize..12).prop_map(Step::Ours),
            (0usize..12).prop_map(Step::Kernels),
            (0usize..12).prop_map(Step::Peek),
        ];
        // Indices wrap within the first steps of most runs.
        let start = prop_oneof![Just(0), (0u32..40).prop_map(|n| u32::MAX - n), any::<u32>()];
        (start, prop::collection::vec(step, 0..100))
    }

    proptest! {
        #[test]
        fn what_is_produced_is_consumed_once_in_order((start, steps) in steps()) {
            let (kernel, memory) = Kernel::new(start);
            // SAFETY: `memory` is what the kernel's side was made of.
            let mut ring = unsafe { Producer::<u64>::new(kernel.0, OFFSETS, ENTRIES, memory) };
            let mut model = VecDeque::new();
            let mut next = 0u64;
            for step in steps {
                match step {
                    Step::Ours(n) => {
                        let fits = model.len() + n <= ENTRIES as usize;
                        let entries = (0..n).map(|i| next + i as u64);
                        prop_assert_eq!(ring.produce(entries.clone()), fits, "all or nothing");
                        if fits {
                            model.extend(entries);
                            next += n as u64;
                        }
                    }
                    Step::Kernels(n) => for _ in 0..n {
                        prop_assert_eq!(kernel.consume(), model.pop_front());
                    },
                    Step::Peek(wanted) => {
                        let (told, room) = (ring.room(wanted), ENTRIES as usize - model.len());
                        // What was seen last does, as long as it does for what is wanted.
                        prop_assert!(told == room || (wanted <= told && told < room));
                    }
                }
                prop_assert_eq!(ring.untaken(), model.len());
            }
        }

        #[test]
        fn what_the_kernel_produces_is_consumed_once_in_order((start, steps) in steps()) {
            let (kernel, memory) = Kernel::new(start);
            // SAFETY: `memory` is what the kernel's side was made of.
            let mut ring = unsafe { Consumer::<u64>::new(kernel.0, OFFSETS, ENTRIES, memory) };
            let mut model = VecDeque::new();
            let mut next = 0u64;
            for step in steps {
                match step {
                    Step::Kernels(n) => for _ in 0..n {
                        let fits = model.len() < ENTRIES as usize;
                        prop_assert_eq!(kernel.produce(next), fits, "room that was given back");
                        if fits {
                            model.push_back(next);
                        }
                        next += 1;
                    },
                    Step::Peek(max) => {
                        let mut seen = Vec::new();
                        let n = ring.peek(max, |entry| seen.push(entry));
                        prop_assert_eq!(n, model.len().min(max));
                        prop_assert!(seen.iter().eq(model.iter().take(n)));
                    }
                    Step::Ours(max) => {
                        let mut taken = Vec::new();
                        let n = ring.consume(max, |entry| taken.push(entry));
                        prop_assert_eq!(n, model.len().min(max));
                        prop_assert!(taken.into_iter().eq(model.drain(..n)));
                    }
                }
            }
        }
    }

    #[test]
    fn the_flag_is_the_kernels_word() {
        let (kernel, memory) = Kernel::new(0);
        // SAFETY: `memory` is what the kernel's side was made of.
        let ring = unsafe { Producer::<u64>::new(kernel.0, OFFSETS, ENTRIES, memory) };
        for (flags, wakes) in [(0, false), (libc::XDP_RING_NEED_WAKEUP, true), (2, false)] {
            kernel.index(OFFSETS.flags).store(flags, Ordering::Relaxed);
            assert_eq!(ring.needs_wakeup(), wakes, "{flags}");
        }
    }
}
