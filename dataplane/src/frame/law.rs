//! The pool's law under every order of operations: a model holds the tokens and says where each slot
//! must be.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Alloc,
    Free(usize),
    Lend(usize),
    Receive(usize, usize),
    ReceiveChain(usize, usize),
    Reclaim(usize),
    Stage(usize),
    Share(usize),
    Copy(usize, usize),
    Submit(usize),
    Release(usize),
    Complete(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Alloc),
        1 => any::<usize>().prop_map(Step::Free),
        2 => any::<usize>().prop_map(Step::Lend),
        2 => (any::<usize>(), 0usize..200).prop_map(|(i, len)| Step::Receive(i, len)),
        2 => (any::<usize>(), 1usize..6).prop_map(|(i, n)| Step::ReceiveChain(i, n)),
        1 => any::<usize>().prop_map(Step::Reclaim),
        3 => any::<usize>().prop_map(Step::Stage),
        2 => any::<usize>().prop_map(Step::Share),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Step::Copy(a, b)),
        3 => any::<usize>().prop_map(Step::Submit),
        1 => any::<usize>().prop_map(Step::Release),
        3 => any::<usize>().prop_map(Step::Complete),
    ];
    prop::collection::vec(step, 0..300)
}

/// The tokens that a worker and its kernel would hold.
#[derive(Default)]
struct Model {
    held: Vec<Frame>,
    lent: Vec<SlotRef>,
    staged: Vec<Staged>,
    submitted: Vec<SlotRef>,
    /// Slots of the frame whose first slot it is, where there are several.
    slots: std::collections::HashMap<u32, usize>,
}

/// Takes an element by any number, or none from an empty vector.
fn take<T>(from: &mut Vec<T>, i: usize) -> Option<T> {
    if from.is_empty() {
        return None;
    }
    let i = i % from.len();
    Some(from.swap_remove(i))
}

impl Model {
    fn apply(&mut self, pool: &mut Pool, region: RegionId, step: Step) {
        match step {
            Step::Alloc => {
                if let Some(frame) = pool.alloc(region) {
                    self.slots.remove(&frame.slot);
                    self.held.push(frame);
                }
            }
            Step::Free(i) => {
                if let Some(frame) = take(&mut self.held, i) {
                    pool.free(frame);
                }
            }
            Step::Lend(i) => {
                if let Some(i) = self
                    .held
                    .iter()
                    .position(|frame| !frame.is_chain() && i % 2 == 0)
                {
                    let frame = self.held.swap_remove(i);
                    self.lent.push(pool.lend(frame));
                }
            }
            Step::Receive(i, len) => {
                if let Some(slot) = take(&mut self.lent, i) {
                    match pool.receive(slot, 32, len) {
                        Some(frame) => {
                            self.slots.remove(&frame.slot);
                            assert!(len <= 96);
                            assert_eq!(pool.bytes(&frame).len(), len);
                            self.held.push(frame);
                            // The same descriptor again makes no second owner.
                            assert!(pool.receive(slot, 32, len).is_none());
                        }
                        None => {
                            assert!(len > 96, "a length within the slot was refused");
                            self.lent.push(slot);
                        }
                    }
                }
            }
            Step::ReceiveChain(i, n) => {
                let taken: Vec<_> = (0..n).filter_map(|k| take(&mut self.lent, i + k)).collect();
                let piece = |(n, slot): (usize, &SlotRef)| Piece {
                    slot: slot.slot,
                    offset: 32,
                    len: 20 + n as u32,
                };
                let pieces: Vec<_> = taken.iter().enumerate().map(piece).collect();
                let mut wrong = pieces.clone();
                // One twice, or one that does not fit: nothing changes.
                if let Some(&first) = pieces.first() {
                    wrong.push(match n % 2 {
                        0 => first,
                        _ => Piece {
                            slot: first.slot,
                            offset: 32,
                            len: 97,
                        },
                    });
                }
                assert!(pool.receiver(region).receive_chain(&wrong).is_none());
                if let Some(mut frame) = pool.receiver(region).receive_chain(&pieces) {
                    let bytes: usize = pieces.iter().map(|piece| piece.len as usize).sum();
                    assert_eq!(frame.len(), bytes);
                    let (head, rest) = pool.split_mut(&mut frame);
                    assert_eq!(head.len(), 20);
                    assert_eq!(rest.map(<[u8]>::len).sum::<usize>(), bytes - 20);
                    self.slots.insert(frame.slot, pieces.len());
                    self.held.push(frame);
                }
            }
            Step::Reclaim(i) => {
                if let Some(slot) = take(&mut self.lent, i) {
                    pool.reclaim(slot);
                }
            }
            Step::Stage(i) => {
                if let Some(mut frame) = take(&mut self.held, i) {
                    let mark = [frame.slot as u8; 40];
                    if frame.is_empty() {
                        assert!(pool.fill(&mut frame, &mark));
                    }
                    self.staged.push(pool.stage(frame));
                }
            }
            Step::Share(i) => {
                if let Some(staged) = take(&mut self.staged, i) {
                    if self.shares(staged.slot) < 200 {
                        self.staged.push(pool.share(&staged));
                    }
                    self.staged.push(staged);
                }
            }
            Step::Copy(i, j) => {
                if !self.staged.is_empty()
                    && let Some(mut to) = take(&mut self.held, j)
                    && let Some(from) = take(&mut self.staged, i)
                {
                    if to.is_chain() || from.len() > 96 {
                        self.staged.push(from);
                        self.held.push(to);
                        return;
                    }
                    assert!(pool.copy(&from, &mut to));
                    let parts: Vec<_> = pool.parts(&from).collect();
                    assert_eq!(pool.bytes(&to), parts.concat());
                    self.staged.push(from);
                    self.held.push(to);
                }
            }
            Step::Submit(i) => {
                if let Some(staged) = take(&mut self.staged, i) {
                    self.submitted.push(pool.submit(staged));
                }
            }
            Step::Release(i) => {
                if let Some(staged) = take(&mut self.staged, i) {
                    pool.release(staged);
                }
            }
            Step::Complete(i) => {
                if let Some(slot) = take(&mut self.submitted, i) {
                    pool.complete(slot);
                }
            }
        }
    }

    fn shares(&self, slot: u32) -> usize {
        self.staged.iter().filter(|s| s.slot == slot).count()
            + self.submitted.iter().filter(|s| s.slot == slot).count()
    }

    /// Slots of the frames whose first slots these are.
    fn weigh(&self, slots: impl Iterator<Item = u32>) -> usize {
        let distinct: std::collections::HashSet<_> = slots.collect();
        let weight = |slot| self.slots.get(slot).copied().unwrap_or(1);
        distinct.iter().map(weight).sum()
    }

    fn check(&self, pool: &Pool, region: RegionId) {
        let count = pool.count(region);
        assert!(count.holds(), "{count:?}");
        let held = self.weigh(self.held.iter().map(|frame| frame.slot));
        assert_eq!(count.held as usize, held);
        let staged = self.weigh(self.staged.iter().map(|s| s.slot));
        assert_eq!(count.staged as usize, staged);
        let only_submitted = self.weigh(
            self.submitted
                .iter()
                .map(|s| s.slot)
                .filter(|slot| !self.staged.iter().any(|s| s.slot == *slot)),
        );
        assert_eq!(count.kernel as usize, self.lent.len() + only_submitted);
        pool.audit().expect("the law");
    }
}

proptest! {
    #[test]
    fn every_slot_is_in_one_place(steps in steps()) {
        let mut pool = Pool::new();
        let region = Region::map(24, 128, 32, HugePages::Off).expect("memory");
        let region = pool.add(region).expect("room for a region");
        pool.allow_chains(region);
        let mut model = Model::default();
        for step in steps {
            model.apply(&mut pool, region, step);
            model.check(&pool, region);
        }
        // Everything that was taken can be given back, and then all is free.
        model.held.drain(..).for_each(|frame| pool.free(frame));
        model.lent.drain(..).for_each(|slot| pool.reclaim(slot));
        model.staged.drain(..).for_each(|staged| pool.release(staged));
        model.submitted.drain(..).for_each(|slot| pool.complete(slot));
        prop_assert_eq!(pool.count(region).free, 24);
        pool.audit().expect("the law");
    }
}

#[test]
fn a_batch_ends_with_its_last_share() {
    let mut pool = Pool::new();
    let region = Region::map(8, 128, 0, HugePages::Off).expect("memory");
    let region = pool.add(region).expect("room");
    pool.begin_batch(1000);
    let first = pool.alloc(region).expect("a slot");
    let second = pool.alloc(region).expect("a slot");
    let first = pool.stage(first);
    let again = pool.share(&first);
    let second = pool.stage(second);
    let a = pool.submit(first);
    let b = pool.submit(again);
    pool.begin_batch(2000);
    pool.release(second);
    pool.complete(a);
    assert_eq!(pool.finished().count(), 0);
    pool.complete(b);
    let finished: Vec<_> = pool.finished().collect();
    assert_eq!(
        finished,
        [Finished {
            received: 1000,
            frames: 2
        }]
    );
}

#[test]
fn a_retired_region_is_given_up_when_its_last_slot_is_free() {
    let mut pool = Pool::new();
    let region = Region::map(8, 128, 0, HugePages::Off).expect("memory");
    let id = pool.add(region).expect("room");
    let frame = pool.alloc(id).expect("a slot");
    let staged = pool.stage(frame);
    let slot = pool.submit(staged);
    pool.retire(id);
    assert!(
        pool.alloc(id).is_none(),
        "a retired region hands out nothing"
    );
    assert!(pool.collect().is_none(), "the kernel still has a slot");
    pool.complete(slot);
    let (collected, _region) = pool.collect().expect("all slots are free");
    assert_eq!(collected, id);
    assert!(!pool.is_retiring());
}

#[test]
#[should_panic(expected = "region 0 is not in this pool")]
fn a_token_of_another_pool_is_refused() {
    let mut one = Pool::new();
    let region = Region::map(8, 128, 0, HugePages::Off).expect("memory");
    let id = one.add(region).expect("room");
    let frame = one.alloc(id).expect("a slot");
    Pool::new().free(frame);
}
