//! Publishing: control hands a new snapshot to workers that never wait. A worker loads once per
//! batch and acknowledges the generation it saw; control keeps every old snapshot until nobody holds
//! it, so that no worker ever pays for freeing one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};

use super::snapshot::Snapshot;

/// What a reader that has ended acknowledges: everything.
const ENDED: u64 = u64::MAX;

/// The generation that one reader saw last. It has its cache lines to itself (x86 fetches pairs), so
/// that a worker's store disturbs no other worker.
#[derive(Debug)]
#[repr(align(128))]
struct Acknowledged(AtomicU64);

/// Control's side: publishes snapshots of one policy.
#[derive(Debug)]
pub struct Publisher {
    current: Arc<ArcSwap<Snapshot>>,
    readers: Vec<Arc<Acknowledged>>,
    /// Replaced snapshots, oldest first.
    old: Vec<Arc<Snapshot>>,
}

impl Publisher {
    /// Publishes the first snapshot.
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            current: Arc::new(ArcSwap::from_pointee(snapshot)),
            readers: Vec::new(),
            old: Vec::new(),
        }
    }

    /// A new reader, to be moved into its worker. It counts as having acknowledged the current
    /// generation.
    pub fn reader(&mut self) -> Reader {
        let cache = Cache::new(Arc::clone(&self.current));
        let seen = self.current.load().generation();
        let acknowledged = Arc::new(Acknowledged(AtomicU64::new(seen)));
        self.readers.push(Arc::clone(&acknowledged));
        Reader {
            cache,
            seen,
            end: End(acknowledged),
        }
    }

    /// The snapshot in force.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Puts a snapshot in force for every batch that begins from now on, and answers its generation.
    ///
    /// Generations only rise: a snapshot that was compiled for one that is not above the current
    /// one's is renumbered to the next.
    pub fn publish(&mut self, mut snapshot: Snapshot) -> u64 {
        let next = self.current.load().generation() + 1;
        let generation = snapshot.generation().max(next);
        snapshot.renumber(generation);
        self.old.push(self.current.swap(Arc::new(snapshot)));
        generation
    }

    /// Waits until every reader has seen `generation` or a later one, and answers whether all have
    /// before the timeout. Readers that have ended do not count. A worker that sleeps does not load:
    /// wake it first.
    pub fn wait_acknowledged(&self, generation: u64, timeout: Duration) -> bool {
        let start = Instant::now();
        let mut rounds = 0u32;
        while !self.acknowledged(generation) {
            if start.elapsed() >= timeout {
                return false;
            }
            rounds += 1;
            match rounds {
                0..100 => std::hint::spin_loop(),
                100..110 => thread::yield_now(),
                _ => thread::sleep(Duration::from_micros(20)),
            }
        }
        true
    }

    fn acknowledged(&self, generation: u64) -> bool {
        self.readers
            .iter()
            .all(|reader| reader.0.load(Ordering::Acquire) >= generation)
    }

    /// Frees replaced snapshots that nobody holds any more, on the calling thread. Answers how many
    /// remain.
    pub fn collect(&mut self) -> usize {
        self.readers
            .retain(|reader| reader.0.load(Ordering::Acquire) != ENDED);
        // A replaced snapshot cannot be loaded again, so that a count of one (ours) stays one.
        self.old.retain(|old| Arc::strong_count(old) > 1);
        self.old.len()
    }
}

/// A worker's side.
#[derive(Debug)]
pub struct Reader {
    // Dropped before `end`, which tells the publisher that nothing is held any more.
    cache: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    /// The generation acknowledged last, kept here so that an unchanged one costs no store.
    seen: u64,
    end: End,
}

impl Reader {
    /// The snapshot in force, for one batch; acknowledges its generation. Wait-free while the
    /// snapshot is unchanged; never frees one.
    #[inline]
    pub(crate) fn load(&mut self) -> &Snapshot {
        let snapshot = self.cache.load();
        let generation = snapshot.generation();
        if generation != self.seen {
            self.seen = generation;
            // Release: the previous snapshot was let go before.
            self.end.0.0.store(generation, Ordering::Release);
        }
        snapshot
    }
}

/// Acknowledges everything when its reader is gone.
#[derive(Debug)]
struct End(Arc<Acknowledged>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.0.store(ENDED, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::{Barrier, Weak};

    use super::*;
    use crate::policy::PolicySpec;

    const SHORT: Duration = Duration::from_millis(2);
    const LONG: Duration = Duration::from_secs(30);

    fn snapshot(generation: u64) -> Snapshot {
        Snapshot::compile(&PolicySpec::default(), generation).unwrap()
    }

    fn weak(publisher: &Publisher) -> Weak<Snapshot> {
        Arc::downgrade(&publisher.current())
    }

    #[test]
    fn a_snapshot_is_kept_until_its_readers_have_moved_on_and_freed_by_collect_alone() {
        let mut publisher = Publisher::new(snapshot(1));
        let mut reader = publisher.reader();
        let mut second = publisher.reader();
        assert_eq!(reader.load().generation(), 1);
        let first = weak(&publisher);

        assert_eq!(publisher.publish(snapshot(2)), 2);
        assert!(!publisher.wait_acknowledged(2, SHORT));
        assert_eq!(publisher.collect(), 1);

        assert_eq!(reader.load().generation(), 2);
        assert!(!publisher.wait_acknowledged(2, SHORT), "one reader of two");
        assert_eq!(publisher.collect(), 1);

        assert_eq!(second.load().generation(), 2);
        assert!(publisher.wait_acknowledged(2, LONG));
        assert!(first.upgrade().is_some(), "a reader freed it");
        assert_eq!(publisher.collect(), 0);
        assert!(first.upgrade().is_none());
    }

    #[test]
    fn a_reader_that_ended_holds_up_nobody() {
        let mut publisher = Publisher::new(snapshot(1));
        let reader = publisher.reader();
        let first = weak(&publisher);
        publisher.publish(snapshot(2));
        assert!(!publisher.wait_acknowledged(2, SHORT));
        drop(reader);
        assert!(publisher.wait_acknowledged(2, LONG));
        assert!(first.upgrade().is_some(), "the reader's end freed it");
        assert_eq!(publisher.collect(), 0);
        assert!(publisher.readers.is_empty());
    }

    #[test]
    fn a_panicking_worker_ends_its_reader() {
        let mut publisher = Publisher::new(snapshot(1));
        let mut reader = publisher.reader();
        let worker = thread::spawn(move || {
            reader.load();
            panic!("a worker's panic, part of the test");
        });
        assert!(worker.join().is_err());
        publisher.publish(snapshot(2));
        assert!(publisher.wait_acknowledged(2, LONG));
    }

    #[test]
    fn generations_only_rise() {
        let mut publisher = Publisher::new(snapshot(7));
        assert_eq!(publisher.publish(snapshot(3)), 8);
        assert_eq!(publisher.publish(snapshot(8)), 9);
        assert_eq!(publisher.publish(snapshot(20)), 20);
        assert_eq!(publisher.current().generation(), 20);
        assert_eq!(publisher.reader().load().generation(), 20);
    }

    #[test]
    fn a_new_reader_has_acknowledged_what_it_starts_with() {
        let mut publisher = Publisher::new(snapshot(1));
        publisher.publish(snapshot(2));
        let _reader = publisher.reader();
        assert!(publisher.wait_acknowledged(2, Duration::ZERO));
        assert!(!publisher.wait_acknowledged(3, Duration::ZERO));
    }

    #[test]
    fn under_load_readers_see_rising_generations_and_never_free_one() {
        const GENERATIONS: u64 = 2_000;
        let mut publisher = Publisher::new(snapshot(1));
        let stop = AtomicBool::new(false);
        let ready = Barrier::new(3);
        let readers = [publisher.reader(), publisher.reader()];
        thread::scope(|scope| {
            for mut reader in readers {
                let (stop, ready) = (&stop, &ready);
                scope.spawn(move || {
                    let mut last = 0;
                    ready.wait();
                    while !stop.load(Ordering::Relaxed) {
                        let generation = reader.load().generation();
                        assert!(generation >= last);
                        last = generation;
                    }
                });
            }
            ready.wait();
            for generation in 2..=GENERATIONS {
                let old = weak(&publisher);
                assert_eq!(publisher.publish(snapshot(generation)), generation);
                if generation % 8 == 0 {
                    assert!(publisher.wait_acknowledged(generation, LONG));
                    assert!(old.upgrade().is_some(), "a reader freed a snapshot");
                    assert_eq!(publisher.collect(), 0, "acknowledged, yet held");
                    assert!(old.upgrade().is_none());
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
