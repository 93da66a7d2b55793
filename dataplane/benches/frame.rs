//! What slots and rings cost a batch of 64: the frame token's way through the pool, and io_uring itself, with
//! operations that do nothing. divan's "item" is one frame; allocations are reported beside the time.
//! Run with `cargo bench -p dataplane --bench frame`.

use dataplane::frame::{HugePages, Pool, Region, RegionId};
use divan::{Bencher, black_box, counter::ItemsCount};
use io_uring::{IoUring, opcode};

#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

const BATCH: usize = 64;

fn main() {
    divan::main();
}

fn pool() -> (Pool, RegionId) {
    let region = Region::map(8192, 2048, 256, HugePages::Off).unwrap_or_else(|e| panic!("{e}"));
    let mut pool = Pool::new();
    let id = pool.add(region).unwrap_or_else(|| panic!("a first region"));
    (pool, id)
}

/// A slot taken and given back.
#[divan::bench]
fn alloc_and_free(bencher: Bencher<'_, '_>) {
    let (mut pool, id) = pool();
    let mut held = Vec::with_capacity(BATCH);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        held.extend((0..BATCH).filter_map(|_| pool.alloc(id)));
        for frame in held.drain(..) {
            pool.free(black_box(frame));
        }
    });
}

/// A frame that several sinks are to write, each of which lets go of it.
#[divan::bench(args = [1, 2, 3])]
fn stage_and_release(bencher: Bencher<'_, '_>, sinks: usize) {
    let (mut pool, id) = pool();
    let mut staged = Vec::with_capacity(BATCH * sinks);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        for _ in 0..BATCH {
            let Some(frame) = pool.alloc(id) else { return };
            let first = pool.stage(frame);
            for _ in 1..sinks {
                staged.push(pool.share(&first));
            }
            staged.push(first);
        }
        for share in staged.drain(..) {
            pool.release(black_box(share));
        }
    });
}

/// Entries of a batch queued, submitted with one system call, their completions read.
#[divan::bench]
fn io_uring_nop(bencher: Bencher<'_, '_>) {
    let ring: Result<IoUring, _> = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(256);
    let mut ring = ring.unwrap_or_else(|e| panic!("io_uring: {e}; Linux 6.1 or newer is needed"));
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        for number in 0..BATCH as u64 {
            let entry = opcode::Nop::new().build().user_data(number);
            // SAFETY: a NOP refers to no memory.
            let pushed = unsafe { ring.submission().push(&entry) };
            assert!(pushed.is_ok(), "there is room for a batch");
        }
        assert_eq!(ring.submit_and_wait(BATCH).ok(), Some(BATCH));
        assert_eq!(black_box(ring.completion().count()), BATCH);
    });
}
