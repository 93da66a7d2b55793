//! Blocks of pcapng that go round between the workers and the recorder, and what they share.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use crossbeam_queue::ArrayQueue;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::super::{format::write::LONGEST_PACKET, park::Bed};
use crate::{port::PortFailure, worker::wake::Waker};

/// Blocks of one worker. With their size, how long an output may stall before frames are lost: 16 MiB are
/// 130 ms of a full gigabit. Memory that is never needed is never touched.
pub(super) const BLOCKS: usize = 64;

/// Bytes of a block: at least the longest frame.
pub(super) const BLOCK_BYTES: usize = LONGEST_PACKET;

/// Reports that wait for a worker to pass them on.
const NEWS: usize = 8;

/// Some frames of one worker, as enhanced packet blocks, and then what became of them.
#[derive(Debug)]
pub(super) struct Block {
    /// Whose it is: a place in [`Shared::lanes`].
    pub(super) lane: usize,
    pub(super) bytes: Vec<u8>,
    pub(super) frames: u64,
    pub(super) outcome: Outcome,
}

/// What became of a block's frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) written: u64,
    /// Bytes of the frames that were written.
    pub(super) written_bytes: u64,
    pub(super) disk_full: u64,
    pub(super) write_error: u64,
}

impl Outcome {
    pub(super) fn total(&self) -> u64 {
        self.written + self.disk_full + self.write_error
    }
}

impl Block {
    pub(super) fn new(lane: usize) -> Self {
        Self {
            lane,
            bytes: Vec::with_capacity(BLOCK_BYTES),
            frames: 0,
            outcome: Outcome::default(),
        }
    }

    pub(super) fn room(&self) -> usize {
        BLOCK_BYTES - self.bytes.len()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.frames = 0;
        self.outcome = Outcome::default();
    }
}

/// What one worker and the recorder share.
#[derive(Debug)]
pub(super) struct Lane {
    /// Has room for every block of the worker.
    pub(super) returned: ArrayQueue<Block>,
    pub(super) waker: OnceLock<Arc<Waker>>,
    /// The worker has counted what it had not got back; nothing more of it is to be written.
    pub(super) closed: AtomicBool,
}

/// What all workers and the recorder share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Has room for every block of every worker.
    full: ArrayQueue<Block>,
    pub(super) lanes: Box<[Lane]>,
    /// Where the recorder sleeps while there is nothing to write.
    pub(super) bed: Bed,
    /// A worker ends: nothing is to be held for company.
    pub(super) draining: AtomicBool,
    /// The recorder is to end.
    pub(super) stop: AtomicBool,
    /// Readable once it is, for an output that waits.
    pub(super) stopped: EventFd,
    /// The output can do no more.
    pub(super) gone: AtomicBool,
    /// The recorder has ended without giving back all blocks: what was in the others is lost.
    pub(super) abandoned: AtomicBool,
    /// What a worker is to report.
    pub(super) news: ArrayQueue<PortFailure>,
}

impl Shared {
    pub(super) fn new(workers: usize) -> io::Result<Self> {
        let lane = |_| Lane {
            returned: ArrayQueue::new(BLOCKS),
            waker: OnceLock::new(),
            closed: AtomicBool::new(false),
        };
        Ok(Self {
            full: ArrayQueue::new(BLOCKS * workers.max(1)),
            lanes: (0..workers).map(lane).collect(),
            bed: Bed::default(),
            draining: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            stopped: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            gone: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            news: ArrayQueue::new(NEWS),
        })
    }

    /// A worker's: hands a block on.
    pub(super) fn hand_on(&self, block: Block) {
        // There are only as many blocks as the queue has room for.
        let pushed = self.full.push(block);
        debug_assert!(pushed.is_ok());
        self.bed.wake();
    }

    /// The recorder's: the next block that somebody still waits for.
    pub(super) fn take(&self) -> Option<Block> {
        loop {
            let block = self.full.pop()?;
            if !self.is_closed(block.lane) {
                return Some(block);
            }
        }
    }

    pub(super) fn has_work(&self) -> bool {
        !self.full.is_empty()
    }

    pub(super) fn is_closed(&self, lane: usize) -> bool {
        self.lanes[lane].closed.load(Ordering::Acquire)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// The recorder's: gives a block back with its outcome.
    pub(super) fn give_back(&self, block: Block) {
        debug_assert_eq!(block.outcome.total(), block.frames);
        let lane = &self.lanes[block.lane];
        let pushed = lane.returned.push(block);
        debug_assert!(pushed.is_ok());
        if let Some(waker) = lane.waker.get() {
            waker.wake();
        }
    }

    /// The recorder's: something for a worker to report. More than a worker asks for are lost.
    pub(super) fn tell(&self, news: PortFailure) {
        let _ = self.news.push(news);
    }

    /// The recorder's: it can do no more.
    pub(super) fn give_up(&self, message: String) {
        if !self.gone.swap(true, Ordering::AcqRel) {
            self.tell(PortFailure::fatal(message));
        }
        for waker in self.lanes.iter().filter_map(|lane| lane.waker.get()) {
            waker.wake();
        }
    }
}
