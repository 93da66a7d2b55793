//! The pool: all regions of one worker, who holds each slot, and the law
//! `free + held + staged + kernel == total`, per region, after every batch.
//!
//! A frame has one slot, or, where a region allows it, several that go the way of the first.
//!
//! A slot's way: free -> held (a `Frame` exists) -> free, or -> kernel (lent to be received into) ->
//! held, or -> staged (shares for sinks exist) -> kernel (submitted) -> free when the last share ends.

// A slot's bytes are lent to its only holder, which no borrow tells the compiler.
#![allow(unsafe_code)]

use super::{
    Lease, Region, RegionId,
    limbo::Limbo,
    marks::{Finished, Marks},
    token::{Frame, Staged},
};

/// Regions that one worker can have at a time, retiring ones included.
pub const MAX_REGIONS: usize = 64;

/// A slot that the kernel holds, as it stands in `user_data` and ring descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRef {
    /// The region.
    pub region: RegionId,
    /// The slot within it.
    pub slot: u32,
}

/// How the slots of one region stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCount {
    /// In the free list.
    pub free: u32,
    /// Held by a `Frame`.
    pub held: u32,
    /// With at least one share that is not submitted yet.
    pub staged: u32,
    /// Lent to the kernel to be filled, or with submitted shares only.
    pub kernel: u32,
    /// All slots.
    pub total: u32,
}

impl PoolCount {
    /// Whether every slot is in exactly one place.
    pub fn holds(&self) -> bool {
        u64::from(self.free)
            + u64::from(self.held)
            + u64::from(self.staged)
            + u64::from(self.kernel)
            == u64::from(self.total)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Held,
    /// In the kernel's hands, to be filled.
    Lent,
    /// On its way out: shares exist.
    Out,
    /// Behind another slot of the same frame, wherever that one is.
    Tail,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    state: State,
    /// Shares that are staged.
    staged: u8,
    /// Shares that are submitted.
    kernel: u8,
    /// Slots of the same frame behind this one.
    behind: u8,
    /// Which batch it went out with.
    mark: u16,
}

/// Where the rest of a frame is that has several slots.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// Where in this slot its bytes are, but for the first slot, of which the token says it.
    offset: u32,
    len: u32,
    /// The slot behind this one, unless it is the last.
    next: u32,
}

/// A part of a frame: a stretch of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The slot.
    pub slot: u32,
    /// Where in it.
    pub offset: u32,
    /// How many bytes.
    pub len: u32,
}

/// Slots that one frame can have: what the kernel makes of one, a linear part and MAX_SKB_FRAGS.
pub(crate) const CHAIN: usize = 18;

#[derive(Debug)]
struct Tracked {
    region: Region,
    slots: Vec<Slot>,
    /// By slot, where frames may have several.
    links: Vec<Link>,
    free: Vec<u32>,
    held: u32,
    staged: u32,
    kernel: u32,
    retiring: bool,
}

impl Tracked {
    fn count(&self) -> PoolCount {
        PoolCount {
            free: self.free.len() as u32,
            held: self.held,
            staged: self.staged,
            kernel: self.kernel,
            total: self.region.slots(),
        }
    }

    /// Frees what stands behind a slot that is free already.
    #[cold]
    fn free_tail(&mut self, first: u32) {
        let mut at = first;
        for _ in 0..std::mem::take(&mut self.slots[first as usize].behind) {
            at = self.links[at as usize].next;
            let slot = &mut self.slots[at as usize];
            assert!(slot.state == State::Tail);
            slot.state = State::Free;
            self.free.push(at);
        }
    }

    /// Makes `pieces`, whose slots are `from`, one frame. `None`, and nothing changes, unless all of them are
    /// in that state and inside their slots, and there are not more than a frame can have.
    fn chain(&mut self, id: RegionId, pieces: &[Piece], from: State) -> Option<Frame> {
        let size = self.region.slot_size();
        let (head, rest) = pieces.split_first()?;
        let tail: usize = rest.iter().map(|piece| piece.len as usize).sum();
        if pieces.len() > CHAIN || self.links.is_empty() {
            return None;
        }
        let tail = u16::try_from(tail).ok()?;
        for (n, piece) in pieces.iter().enumerate() {
            let (offset, len) = (piece.offset as usize, piece.len as usize);
            let slot = self.slots.get_mut(piece.slot as usize);
            let slot = slot.filter(|slot| slot.state == from);
            let (Some(slot), true) = (slot, offset <= size && len <= size - offset) else {
                for piece in &pieces[..n] {
                    self.slots[piece.slot as usize].state = from;
                }
                return None;
            };
            // So that none of them is there twice.
            slot.state = State::Tail;
        }
        for two in pieces.windows(2) {
            self.links[two[0].slot as usize].next = two[1].slot;
            let link = &mut self.links[two[1].slot as usize];
            (link.offset, link.len) = (two[1].offset, two[1].len);
        }
        let first = &mut self.slots[head.slot as usize];
        (first.state, first.behind) = (State::Held, rest.len() as u8);
        Some(Frame {
            region: id,
            tail,
            slot: head.slot,
            offset: head.offset,
            len: head.len,
            time: 0,
        })
    }
}

/// The pieces of a frame, one for each of its slots.
#[derive(Clone, Debug)]
pub(crate) struct Pieces<'a> {
    tracked: &'a Tracked,
    next: Option<Piece>,
    left: u32,
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    #[inline]
    fn next(&mut self) -> Option<Piece> {
        let piece = self.next.take()?;
        if self.left > 0 {
            let slot = self.tracked.links[piece.slot as usize].next;
            let Link { offset, len, .. } = self.tracked.links[slot as usize];
            let len = len.min(self.left);
            self.left -= len;
            self.next = Some(Piece { slot, offset, len });
        }
        Some(piece)
    }
}

/// Takes frames out of slots of one region that the kernel has filled.
#[derive(Debug)]
pub struct Receiver<'a> {
    id: RegionId,
    tracked: &'a mut Tracked,
}

impl Receiver<'_> {
    /// Takes a lent slot back with the frame that the kernel put there. `None`, and nothing changes,
    /// when the slot is not lent or the frame is not inside it: the kernel does not do that, and a
    /// ring that claims so must not make two owners of one slot.
    #[inline]
    pub fn receive(&mut self, number: u32, offset: usize, len: usize) -> Option<Frame> {
        let size = self.tracked.region.slot_size();
        let slot = self.tracked.slots.get_mut(number as usize)?;
        if slot.state != State::Lent || offset > size || len > size - offset {
            return None;
        }
        slot.state = State::Held;
        self.tracked.kernel -= 1;
        self.tracked.held += 1;
        Some(Frame {
            region: self.id,
            tail: 0,
            slot: number,
            offset: offset as u32,
            len: len as u32,
            time: 0,
        })
    }

    /// The same for a frame that the kernel has put into several slots, in this order.
    pub(crate) fn receive_chain(&mut self, pieces: &[Piece]) -> Option<Frame> {
        let frame = self.tracked.chain(self.id, pieces, State::Lent)?;
        self.tracked.kernel -= pieces.len() as u32;
        self.tracked.held += pieces.len() as u32;
        Some(frame)
    }

    /// Takes back a lent slot of a frame that is not handed on. `false` when it was not lent.
    pub(crate) fn reclaim(&mut self, number: u32) -> bool {
        let slot = self.tracked.slots.get_mut(number as usize);
        let Some(slot) = slot.filter(|slot| slot.state == State::Lent) else {
            return false;
        };
        slot.state = State::Free;
        self.tracked.kernel -= 1;
        self.tracked.free.push(number);
        true
    }

    /// Asks the processor for a frame that the kernel has filled and that will be received soon. What lies
    /// outside the region is passed over: [`receive`](Self::receive) refuses it.
    #[inline]
    pub fn expect(&self, slot: u32, offset: usize, len: usize) {
        let region = &self.tracked.region;
        if slot < region.slots() && offset < region.slot_size() {
            region.prefetch(slot, offset, len);
        }
    }
}

/// All the regions of one worker.
#[derive(Debug)]
pub struct Pool {
    regions: Vec<Option<Tracked>>,
    marks: Marks,
    /// Submitted shares whose completion will not come, since their socket is closed.
    limbo: Vec<Limbo>,
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}

impl Pool {
    /// A pool without regions.
    pub fn new() -> Self {
        Self {
            regions: (0..MAX_REGIONS).map(|_| None).collect(),
            marks: Marks::new(),
            limbo: Vec::new(),
        }
    }

    /// Takes a region in. `None` when [`MAX_REGIONS`] are there already.
    pub fn add(&mut self, region: Region) -> Option<RegionId> {
        let id = self.regions.iter().position(Option::is_none)?;
        let slots = region.slots();
        self.regions[id] = Some(Tracked {
            slots: vec![
                Slot {
                    state: State::Free,
                    staged: 0,
                    kernel: 0,
                    behind: 0,
                    mark: 0,
                };
                slots as usize
            ],
            links: Vec::new(),
            // The lowest slot is handed out first.
            free: (0..slots).rev().collect(),
            held: 0,
            staged: 0,
            kernel: 0,
            retiring: false,
            region,
        });
        Some(RegionId(id as u8))
    }

    /// Lets frames of a region have several slots.
    pub(crate) fn allow_chains(&mut self, id: RegionId) {
        let tracked = self.tracked_mut(id);
        tracked.links = vec![Link::default(); tracked.slots.len()];
    }

    /// Marks a region whose port is gone: no slot of it is handed out any more.
    pub(crate) fn retire(&mut self, id: RegionId) {
        self.tracked_mut(id).retiring = true;
    }

    /// Leaves submitted shares in the kernel's hands until a closed socket's lease is over.
    pub(crate) fn leave(&mut self, lease: &Lease, slots: Vec<SlotRef>) {
        if !slots.is_empty() {
            self.limbo.push(Limbo::new(lease, slots));
        }
    }

    /// Completes what was left, where its lease is over, or all of it: at the end, when no slot is handed out
    /// any more.
    pub(crate) fn settle(&mut self, all: bool) {
        let mut at = 0;
        while at < self.limbo.len() {
            if all || self.limbo[at].is_over() {
                for slot in self.limbo.swap_remove(at).slots {
                    self.complete(slot);
                }
            } else {
                at += 1;
            }
        }
    }

    /// A retiring region that no frame and no kernel operation uses any more.
    pub fn collect(&mut self) -> Option<(RegionId, Region)> {
        self.settle(false);
        let id = self.regions.iter().position(|r| {
            r.as_ref()
                .is_some_and(|r| r.retiring && r.free.len() == r.slots.len())
        })?;
        let tracked = self.regions[id].take()?;
        Some((RegionId(id as u8), tracked.region))
    }

    /// Whether a region waits to be collected, or a slot to be let go of.
    pub(crate) fn is_retiring(&self) -> bool {
        !self.limbo.is_empty() || self.regions.iter().flatten().any(|r| r.retiring)
    }

    /// The region itself, for its sizes and addresses.
    ///
    /// # Panics
    ///
    /// When the region is not in this pool (this holds for every function that takes a region, a slot
    /// or a token: tokens of one pool have no meaning in another).
    #[inline]
    pub fn region(&self, id: RegionId) -> &Region {
        &self.tracked(id).region
    }

    /// How the slots of a region stand.
    pub fn count(&self, id: RegionId) -> PoolCount {
        self.tracked(id).count()
    }

    /// Slots of a region that are free.
    #[inline]
    pub(crate) fn free_slots(&self, id: RegionId) -> usize {
        self.tracked(id).free.len()
    }

    /// How many slots the smallest region has; 0 without regions.
    pub(crate) fn smallest(&self) -> u32 {
        let regions = self.regions.iter().flatten();
        regions.map(|r| r.region.slots()).min().unwrap_or(0)
    }

    /// All regions together.
    pub fn total(&self) -> PoolCount {
        let mut sum = PoolCount::default();
        for region in self.regions.iter().flatten() {
            let count = region.count();
            sum.free += count.free;
            sum.held += count.held;
            sum.staged += count.staged;
            sum.kernel += count.kernel;
            sum.total += count.total;
        }
        sum
    }

    /// Recounts every slot from its own state: the law, and that the free list names each free slot
    /// once. For tests and fuzzers: it walks all slots.
    pub fn audit(&self) -> Result<(), String> {
        for (id, tracked) in self.regions.iter().enumerate() {
            let Some(tracked) = tracked else { continue };
            let mut seen = PoolCount {
                total: tracked.region.slots(),
                ..PoolCount::default()
            };
            let mut tails = 0;
            for (number, slot) in tracked.slots.iter().enumerate() {
                let all = 1 + u32::from(slot.behind);
                match slot.state {
                    State::Free => seen.free += 1,
                    State::Held => seen.held += all,
                    State::Lent => seen.kernel += 1,
                    State::Out if slot.staged > 0 => seen.staged += all,
                    State::Out => seen.kernel += all,
                    State::Tail => tails += 1,
                }
                if (slot.state == State::Out) != (slot.staged + slot.kernel > 0) {
                    return Err(format!("region {id}: a slot {slot:?}"));
                }
                let mut at = number;
                for _ in 0..slot.behind {
                    at = tracked.links[at].next as usize;
                    tails -= 1;
                    if tracked.slots[at].state != State::Tail || tracked.slots[at].behind > 0 {
                        return Err(format!(
                            "region {id}: behind slot {number} is not slot {at}"
                        ));
                    }
                }
            }
            if tails != 0i64 {
                return Err(format!("region {id}: slots of no frame or of two: {tails}"));
            }
            if seen != tracked.count() || !seen.holds() {
                return Err(format!(
                    "region {id}: counted {:?}, found {seen:?}",
                    tracked.count()
                ));
            }
            let mut listed = vec![false; tracked.slots.len()];
            for &slot in &tracked.free {
                if std::mem::replace(&mut listed[slot as usize], true)
                    || tracked.slots[slot as usize].state != State::Free
                {
                    return Err(format!(
                        "region {id}: slot {slot} is free twice or not free"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Takes a free slot: an empty frame at the region's headroom.
    #[inline]
    pub fn alloc(&mut self, id: RegionId) -> Option<Frame> {
        let tracked = self.tracked_mut(id);
        if tracked.retiring {
            return None;
        }
        let slot = tracked.free.pop()?;
        tracked.slots[slot as usize].state = State::Held;
        tracked.held += 1;
        Some(Frame {
            region: id,
            tail: 0,
            slot,
            offset: tracked.region.headroom() as u32,
            len: 0,
            time: 0,
        })
    }

    /// Gives a frame's slot back.
    #[inline]
    pub fn free(&mut self, frame: Frame) {
        let tracked = self.tracked_mut(frame.region);
        let slot = &mut tracked.slots[frame.slot as usize];
        assert!(slot.state == State::Held);
        slot.state = State::Free;
        tracked.held -= 1 + u32::from(slot.behind);
        tracked.free.push(frame.slot);
        if slot.behind > 0 {
            tracked.free_tail(frame.slot);
        }
    }

    /// Lends an empty frame's slot to the kernel, to be received into.
    #[inline]
    pub(crate) fn lend(&mut self, frame: Frame) -> SlotRef {
        let tracked = self.tracked_mut(frame.region);
        let slot = &mut tracked.slots[frame.slot as usize];
        assert!(slot.state == State::Held && slot.behind == 0);
        slot.state = State::Lent;
        tracked.held -= 1;
        tracked.kernel += 1;
        SlotRef {
            region: frame.region,
            slot: frame.slot,
        }
    }

    /// Lends `n` free slots to the kernel, to be received into, if there are so many and `give` takes them all.
    /// Answers how many were lent: `n`, or none.
    #[inline]
    pub(crate) fn lend_many(
        &mut self,
        id: RegionId,
        n: usize,
        give: impl FnOnce(&[u32]) -> bool,
    ) -> usize {
        let tracked = self.tracked_mut(id);
        let Some(at) = tracked.free.len().checked_sub(n) else {
            return 0;
        };
        if tracked.retiring || !give(&tracked.free[at..]) {
            return 0;
        }
        for &slot in &tracked.free[at..] {
            tracked.slots[slot as usize].state = State::Lent;
        }
        tracked.free.truncate(at);
        tracked.kernel += n as u32;
        n
    }

    /// For the frames that a batch brings into one region.
    #[inline]
    pub fn receiver(&mut self, id: RegionId) -> Receiver<'_> {
        Receiver {
            id,
            tracked: self.tracked_mut(id),
        }
    }

    /// [`Receiver::receive`] of one frame.
    #[inline]
    pub fn receive(&mut self, from: SlotRef, offset: usize, len: usize) -> Option<Frame> {
        self.receiver(from.region).receive(from.slot, offset, len)
    }

    /// Frees every slot of a region that is lent: its socket is closed and the kernel has let go.
    /// Returns how many there were.
    pub(crate) fn reclaim_lent(&mut self, id: RegionId) -> usize {
        let tracked = self.tracked_mut(id);
        let mut reclaimed = 0;
        for (number, slot) in tracked.slots.iter_mut().enumerate() {
            if slot.state == State::Lent {
                slot.state = State::Free;
                tracked.free.push(number as u32);
                reclaimed += 1;
            }
        }
        tracked.kernel -= reclaimed as u32;
        reclaimed
    }

    /// The frame's bytes; of one in several slots those in the first.
    #[inline]
    pub fn bytes(&self, frame: &Frame) -> &[u8] {
        let tracked = self.tracked(frame.region);
        assert!(tracked.slots[frame.slot as usize].state == State::Held);
        // SAFETY: the slot is held, so neither the kernel nor a share of it exists; writers need
        // `&mut self`.
        unsafe {
            tracked
                .region
                .bytes(frame.slot, frame.offset as usize, frame.len as usize)
        }
    }

    /// The frame's bytes, to change them; of one in several slots those in the first.
    #[inline]
    pub fn bytes_mut(&mut self, frame: &mut Frame) -> &mut [u8] {
        let tracked = self.tracked_mut(frame.region);
        assert!(tracked.slots[frame.slot as usize].state == State::Held);
        // SAFETY: the slot is held, so neither the kernel nor a share of it exists; `&mut self`
        // excludes every other reference.
        unsafe {
            tracked
                .region
                .bytes_mut(frame.slot, frame.offset as usize, frame.len as usize)
        }
    }

    /// Fills an empty frame. `false`, and the frame stays empty, when it does not fit behind the
    /// frame's offset.
    #[inline]
    pub fn fill(&mut self, frame: &mut Frame, bytes: &[u8]) -> bool {
        let room = self.region(frame.region).slot_size() - frame.offset as usize;
        if bytes.len() > room {
            return false;
        }
        frame.len = bytes.len() as u32;
        self.bytes_mut(frame).copy_from_slice(bytes);
        true
    }

    /// Puts `n` bytes before the frame's first, from the room that the slot has there; what is in them is not
    /// defined until they are written. `false`, and nothing changes, when there is less room.
    #[inline]
    pub(crate) fn grow_front(&mut self, frame: &mut Frame, n: usize) -> bool {
        if n > frame.offset as usize {
            return false;
        }
        frame.offset -= n as u32;
        frame.len += n as u32;
        true
    }

    /// Begins a batch that was received at `now`: what is staged from here on belongs to it.
    #[inline]
    pub fn begin_batch(&mut self, now: u64) {
        self.marks.begin(now);
    }

    /// Batches whose last write was completed since the last call.
    #[inline]
    pub(crate) fn finished(&mut self) -> impl Iterator<Item = Finished> + '_ {
        self.marks.finished()
    }

    /// Turns a frame into the first share for a sink. From here on its bytes do not change.
    #[inline]
    pub fn stage(&mut self, frame: Frame) -> Staged {
        let mark = self.marks.add();
        let tracked = self.tracked_mut(frame.region);
        let slot = &mut tracked.slots[frame.slot as usize];
        assert!(slot.state == State::Held);
        let behind = slot.behind;
        *slot = Slot {
            state: State::Out,
            staged: 1,
            kernel: 0,
            behind,
            mark,
        };
        let all = 1 + u32::from(behind);
        tracked.held -= all;
        tracked.staged += all;
        Staged {
            region: frame.region,
            tail: frame.tail,
            slot: frame.slot,
            offset: frame.offset,
            len: frame.len,
            time: frame.time,
        }
    }

    /// One more share of a staged frame, for one more sink.
    ///
    /// # Panics
    ///
    /// When the frame has 255 shares already.
    #[inline]
    pub fn share(&mut self, staged: &Staged) -> Staged {
        let slot = self.out_mut(staged.region, staged.slot);
        assert!(slot.staged > 0 && slot.staged < u8::MAX - slot.kernel);
        slot.staged += 1;
        Staged { ..*staged }
    }

    /// The bytes of a share; of a frame in several slots those in the first.
    #[inline]
    pub(crate) fn staged_bytes(&self, staged: &Staged) -> &[u8] {
        let tracked = self.tracked(staged.region);
        assert!(tracked.slots[staged.slot as usize].staged > 0);
        // SAFETY: the slot is on its way out: the kernel only reads it, and nothing hands out `&mut`
        // to a slot that is not held.
        unsafe {
            tracked
                .region
                .bytes(staged.slot, staged.offset as usize, staged.len as usize)
        }
    }

    /// Where a share's bytes are, for a kernel operation.
    #[inline]
    pub(crate) fn staged_address(&self, staged: &Staged) -> *const u8 {
        self.region(staged.region)
            .address(staged.slot, staged.offset as usize)
    }

    /// Where an empty frame's room begins, and how long it is, for a kernel operation that fills it.
    #[inline]
    pub fn room(&self, empty: &Frame) -> (*mut u8, usize) {
        let region = self.region(empty.region);
        let offset = empty.offset as usize;
        (
            region.address(empty.slot, offset),
            region.slot_size() - offset,
        )
    }

    /// The pieces of a share, one for each slot.
    #[inline]
    pub(crate) fn pieces(&self, staged: &Staged) -> Pieces<'_> {
        let tracked = self.tracked(staged.region);
        assert!(tracked.slots[staged.slot as usize].staged > 0);
        Pieces {
            tracked,
            next: Some(Piece {
                slot: staged.slot,
                offset: staged.offset,
                len: staged.len,
            }),
            left: staged.tail.into(),
        }
    }

    /// The bytes of a share, slot by slot.
    #[inline]
    pub(crate) fn parts(&self, staged: &Staged) -> impl Iterator<Item = &[u8]> {
        let region = self.region(staged.region);
        self.pieces(staged).map(|piece| {
            // SAFETY: the slots of a frame are on their way out together: the kernel only reads them, and nothing
            // hands out `&mut` to a slot that is not held.
            unsafe { region.bytes(piece.slot, piece.offset as usize, piece.len as usize) }
        })
    }

    /// The bytes of a frame in its first slot, to change them, and those behind, slot by slot.
    pub(crate) fn split_mut(
        &mut self,
        frame: &mut Frame,
    ) -> (&mut [u8], impl Iterator<Item = &[u8]>) {
        let tracked = self.tracked(frame.region);
        assert!(tracked.slots[frame.slot as usize].state == State::Held);
        let pieces = Pieces {
            tracked,
            next: Some(Piece {
                slot: frame.slot,
                offset: frame.offset,
                len: frame.len,
            }),
            left: frame.tail.into(),
        };
        let region = &tracked.region;
        let (offset, len) = (frame.offset as usize, frame.len as usize);
        assert!(offset + len <= region.slot_size());
        let head = region.address(frame.slot, offset);
        // SAFETY: the slots of a frame are held together, so neither the kernel nor a share has one, and `&mut
        // self` excludes every other reference. Those behind are other slots than the first, so that no byte is
        // in two of the slices.
        let head = unsafe { std::slice::from_raw_parts_mut(head, len) };
        let rest = pieces.skip(1).map(|piece| {
            // SAFETY: as above.
            unsafe { region.bytes(piece.slot, piece.offset as usize, piece.len as usize) }
        });
        (head, rest)
    }

    /// Copies a share's bytes into an empty frame, of this region or another. `false`, and the frame
    /// stays empty, when they do not fit behind its offset.
    #[inline]
    pub(crate) fn copy(&mut self, from: &Staged, to: &mut Frame) -> bool {
        let (room, capacity) = self.room(to);
        if from.len() > capacity {
            return false;
        }
        assert!(self.tracked(to.region).slots[to.slot as usize].state == State::Held);
        let mut at = 0;
        for bytes in self.parts(from) {
            // SAFETY: `room` is `capacity` bytes of a slot that is held, so that nothing else reads or
            // writes it, and all parts together are no longer; the source is on its way out, hence another
            // slot.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), room.add(at), bytes.len()) };
            at += bytes.len();
        }
        to.len = at as u32;
        to.time = from.time;
        true
    }

    /// Copies a share's bytes into as many slots of a region as they take. `None` when it has not so many, or a
    /// frame there may not.
    pub(crate) fn copy_to(&mut self, from: &Staged, id: RegionId) -> Option<Frame> {
        let (capacity, headroom) = (self.region(id).capacity(), self.region(id).headroom());
        let count = from.len().div_ceil(capacity.max(1));
        let tracked = self.tracked_mut(id);
        let free = tracked.free.len().checked_sub(count)?;
        if count > CHAIN || tracked.retiring {
            return None;
        }
        let mut pieces = [Piece {
            slot: 0,
            offset: 0,
            len: 0,
        }; CHAIN];
        for (n, piece) in pieces[..count].iter_mut().enumerate() {
            *piece = Piece {
                slot: tracked.free[free + n],
                offset: headroom as u32,
                len: (from.len() - n * capacity).min(capacity) as u32,
            };
        }
        let mut frame = tracked.chain(id, &pieces[..count], State::Free)?;
        tracked.free.truncate(free);
        tracked.held += count as u32;
        frame.time = from.time;
        let (mut n, mut filled) = (0, 0);
        for mut bytes in self.parts(from) {
            while !bytes.is_empty() {
                let (now, later) = bytes.split_at(bytes.len().min(capacity - filled));
                let to = self.region(id).address(pieces[n].slot, headroom + filled);
                // SAFETY: the slot was free a moment ago and is this frame's now, so that nothing else reads or
                // writes it; it ends `capacity` bytes behind its headroom.
                unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), to, now.len()) };
                filled += now.len();
                if filled == capacity {
                    (n, filled) = (n + 1, 0);
                }
                bytes = later;
            }
        }
        Some(frame)
    }

    /// Takes a lent slot back unfilled.
    ///
    /// # Panics
    ///
    /// When the slot is not lent.
    #[inline]
    pub fn reclaim(&mut self, from: SlotRef) {
        let tracked = self.tracked_mut(from.region);
        let slot = &mut tracked.slots[from.slot as usize];
        assert!(slot.state == State::Lent);
        slot.state = State::Free;
        tracked.kernel -= 1;
        tracked.free.push(from.slot);
    }

    /// Hands a share to the kernel.
    #[inline]
    pub(crate) fn submit(&mut self, staged: Staged) -> SlotRef {
        let slot = self.out_mut(staged.region, staged.slot);
        slot.staged -= 1;
        slot.kernel += 1;
        let all = 1 + u32::from(slot.behind);
        if slot.staged == 0 {
            let tracked = self.tracked_mut(staged.region);
            tracked.staged -= all;
            tracked.kernel += all;
        }
        SlotRef {
            region: staged.region,
            slot: staged.slot,
        }
    }

    /// The kernel has done with a share. The slot is free again when it was the last.
    ///
    /// # Panics
    ///
    /// When no share of the slot is submitted.
    #[inline]
    pub fn complete(&mut self, done: SlotRef) {
        let slot = self.out_mut(done.region, done.slot);
        assert!(slot.kernel > 0);
        slot.kernel -= 1;
        let all = 1 + u32::from(slot.behind);
        if slot.kernel == 0 && slot.staged == 0 {
            self.tracked_mut(done.region).kernel -= all;
            self.end(done.region, done.slot);
        }
    }

    /// Drops a share that was never submitted.
    #[inline]
    pub fn release(&mut self, staged: Staged) {
        let slot = self.out_mut(staged.region, staged.slot);
        slot.staged -= 1;
        let (left, in_kernel) = (slot.staged, slot.kernel);
        let all = 1 + u32::from(slot.behind);
        if left == 0 {
            let tracked = self.tracked_mut(staged.region);
            tracked.staged -= all;
            if in_kernel > 0 {
                tracked.kernel += all;
            } else {
                self.end(staged.region, staged.slot);
            }
        }
    }

    /// The last share of a slot has ended.
    #[inline]
    fn end(&mut self, region: RegionId, number: u32) {
        let tracked = self.tracked_mut(region);
        let slot = &mut tracked.slots[number as usize];
        slot.state = State::Free;
        let (mark, behind) = (slot.mark, slot.behind);
        tracked.free.push(number);
        if behind > 0 {
            tracked.free_tail(number);
        }
        self.marks.end(mark);
    }

    #[inline]
    fn out_mut(&mut self, region: RegionId, slot: u32) -> &mut Slot {
        let slot = &mut self.tracked_mut(region).slots[slot as usize];
        assert!(slot.state == State::Out);
        slot
    }

    #[inline]
    fn tracked(&self, id: RegionId) -> &Tracked {
        match &self.regions[id.0 as usize] {
            Some(tracked) => tracked,
            None => no_region(id),
        }
    }

    #[inline]
    fn tracked_mut(&mut self, id: RegionId) -> &mut Tracked {
        match &mut self.regions[id.0 as usize] {
            Some(tracked) => tracked,
            None => no_region(id),
        }
    }
}

#[cold]
fn no_region(id: RegionId) -> ! {
    panic!("region {} is not in this pool", id.0)
}
