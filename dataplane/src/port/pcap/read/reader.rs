//! The thread that reads and decompresses a capture into blocks, ahead of its worker.
//!
//! A fixed number of blocks goes round: full ones to the worker, empty ones back, so that nothing is
//! allocated on the way. The thread sleeps while no block is empty, and in `poll` while a pipe has
//! nothing; in both it can be stopped at once. (In a read of a regular file it cannot: a disk that hangs
//! holds up whoever stops it.) The end, or what went wrong, follows the last block.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use crossbeam_queue::ArrayQueue;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::eventfd::{EfdFlags, EventFd},
    unistd::Pid,
};

use super::{
    super::park::Bed,
    OpenedCapture,
    format::{CaptureReader, MAX_FRAME, ReadError},
    pace::Timeline,
};
use crate::worker::wake::Waker;

/// Blocks that go round: the worker has one, the thread fills one, the others are in between.
const BLOCKS: usize = 8;
/// Bytes of frames in a block: at least the longest frame.
const BLOCK_BYTES: usize = MAX_FRAME;
/// Frames in a block: its bytes in the shortest frames that Ethernet knows.
const BLOCK_FRAMES: usize = BLOCK_BYTES / 64;

/// Where a frame is in its block, and in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Nanoseconds of the capture's [`Timeline`].
    pub(super) at: u64,
    /// Nanoseconds since 1970; 0 when the file does not say.
    pub(super) captured: u64,
    offset: u32,
    length: u32,
}

/// Some frames, in order.
#[derive(Debug)]
pub(super) struct Block {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

impl Block {
    fn new() -> Box<Self> {
        Box::new(Self {
            bytes: Vec::with_capacity(BLOCK_BYTES),
            entries: Vec::with_capacity(BLOCK_FRAMES),
        })
    }

    fn has_room(&self, length: usize) -> bool {
        self.entries.len() < BLOCK_FRAMES && length <= BLOCK_BYTES - self.bytes.len()
    }

    fn push(&mut self, at: u64, captured: u64, frame: &[u8]) {
        self.entries.push(Entry {
            at,
            captured,
            offset: self.bytes.len() as u32,
            length: frame.len() as u32,
        });
        self.bytes.extend_from_slice(frame);
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// The `n`-th frame's place and bytes.
    #[inline]
    pub(super) fn frame(&self, n: usize) -> Option<(Entry, &[u8])> {
        let entry = *self.entries.get(n)?;
        let start = entry.offset as usize;
        Some((entry, &self.bytes[start..start + entry.length as usize]))
    }
}

/// What the thread has for the worker.
#[derive(Debug)]
pub(super) enum Message {
    /// More frames.
    Frames(Box<Block>),
    /// There are no more. Nothing follows.
    End(Result<(), ReadError>),
}

struct Shared {
    /// Has room for every block and the end.
    full: ArrayQueue<Message>,
    empty: ArrayQueue<Box<Block>>,
    /// Where the thread waits for an empty block.
    bed: Bed,
    stop: AtomicBool,
    /// Readable once the thread is to stop.
    stopped: EventFd,
    waker: Arc<Waker>,
}

/// The worker's end. Dropping it stops the thread and waits for it.
pub(super) struct Reader {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Starts the thread. `waker` is woken for every block and at the end.
    /// To be called by the worker, whose processors the thread leaves alone where it has others.
    pub(super) fn start(mut capture: OpenedCapture, waker: Arc<Waker>) -> io::Result<Self> {
        // Woken by the worker, it would often run where that runs, and hold up a whole block's frames.
        if let Some(processors) = &mut capture.processors
            && let Ok(worker) = sched_getaffinity(Pid::from_raw(0))
        {
            *processors = beside(processors, &worker);
        }
        let shared = Arc::new(Shared {
            full: ArrayQueue::new(BLOCKS + 1),
            empty: ArrayQueue::new(BLOCKS),
            bed: Bed::default(),
            stop: AtomicBool::new(false),
            stopped: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            waker,
        });
        for _ in 0..BLOCKS {
            let pushed = shared.empty.push(Block::new());
            debug_assert!(pushed.is_ok());
        }
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("capture-reader".to_owned())
            .spawn(move || run(capture, &theirs))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// The next message, if there is one.
    #[inline]
    pub(super) fn next(&self) -> Option<Message> {
        self.shared.full.pop()
    }

    /// Gives a block back to be filled again.
    pub(super) fn give_back(&self, mut block: Box<Block>) {
        block.clear();
        // There are only as many blocks as the queue has room for.
        let pushed = self.shared.empty.push(block);
        debug_assert!(pushed.is_ok());
        self.shared.bed.wake();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // The counter of an eventfd is full only after 2^64 - 2 writes.
        let _ = self.shared.stopped.write(1);
        self.shared.bed.wake();
        if let Some(thread) = self.thread.take() {
            // A panic was caught and reported as the end.
            let _ = thread.join();
        }
    }
}

/// The thread's end: fills blocks.
struct Filler<'a> {
    shared: &'a Shared,
    block: Option<Box<Block>>,
}

impl Filler<'_> {
    fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    /// Hands on what there is, if there is anything.
    fn publish(&mut self) {
        if let Some(block) = self.block.take_if(|block| !block.entries.is_empty()) {
            self.send(Message::Frames(block));
        }
    }

    fn send(&self, message: Message) {
        let pushed = self.shared.full.push(message);
        debug_assert!(pushed.is_ok());
        self.shared.waker.wake();
    }

    /// Puts a frame into a block. `false` when the thread is to stop.
    fn push(&mut self, at: u64, captured: u64, frame: &[u8]) -> bool {
        if !self.block.as_ref().is_some_and(|b| b.has_room(frame.len())) {
            self.publish();
            if self.block.is_none() {
                self.block = self.empty_block();
            }
        }
        if self.is_stopped() {
            return false;
        }
        if let Some(block) = &mut self.block {
            block.push(at, captured, frame);
        }
        true
    }

    /// Waits for an empty block. `None` when the thread is to stop.
    fn empty_block(&self) -> Option<Box<Block>> {
        loop {
            if let Some(block) = self.shared.empty.pop() {
                return Some(block);
            }
            let shared = self.shared;
            let found = || !shared.empty.is_empty() || self.is_stopped();
            shared.bed.sleep_unless(None, found);
            if self.is_stopped() {
                return None;
            }
        }
    }
}

/// The file, read so that frames do not wait behind a pipe that has nothing to give.
struct Source<'a> {
    file: &'a File,
    head: &'a [u8],
    /// A regular file is never waited for.
    regular: bool,
    filler: Rc<RefCell<Filler<'a>>>,
}

impl Source<'_> {
    /// Waits until the pipe has something. What was read before is published first.
    fn wait(&self) -> io::Result<()> {
        let shared = self.filler.borrow().shared;
        let mut limit = PollTimeout::ZERO;
        loop {
            let mut fds = [
                PollFd::new(self.file.as_fd(), PollFlags::POLLIN),
                PollFd::new(shared.stopped.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, limit) {
                Ok(0) => {
                    self.filler.borrow_mut().publish();
                    limit = PollTimeout::NONE;
                }
                // Readable, at its end, or broken, which the read will tell.
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl Read for Source<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if !self.head.is_empty() {
            return self.head.read(into);
        }
        loop {
            if !self.regular {
                self.wait()?;
            }
            if self.filler.borrow().is_stopped() {
                return Err(io::Error::other("stopped"));
            }
            match self.file.read(into) {
                // A pipe that someone made non-blocking, emptied by another reader of it.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }
}

/// The processors of `all` that are not the worker's; all of them when there are no others.
fn beside(all: &CpuSet, worker: &CpuSet) -> CpuSet {
    let mut others = CpuSet::new();
    let mut any = false;
    for processor in 0..CpuSet::count() {
        let is = |set: &CpuSet| set.is_set(processor).unwrap_or(false);
        if is(all) && !is(worker) {
            any |= others.set(processor).is_ok();
        }
    }
    if any { others } else { *all }
}

fn run(capture: OpenedCapture, shared: &Shared) {
    if let Some(processors) = &capture.processors {
        // Without it the thread shares its worker's processor: slower, not wrong.
        let _ = sched_setaffinity(Pid::from_raw(0), processors);
    }
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let filler = Rc::new(RefCell::new(Filler {
            shared,
            block: None,
        }));
        let outcome = read(&capture, &filler);
        filler.borrow_mut().publish();
        outcome
    }))
    .unwrap_or(Err(ReadError::Panicked));
    let filler = Filler {
        shared,
        block: None,
    };
    filler.send(Message::End(outcome));
}

/// Reads all passes. When the thread is to stop, whatever it returns is not looked at.
fn read<'a>(capture: &'a OpenedCapture, filler: &Rc<RefCell<Filler<'a>>>) -> Result<(), ReadError> {
    let mut timeline = Timeline::default();
    let mut buffer: Box<[u8]> = vec![0; MAX_FRAME].into();
    let mut pass = 0;
    loop {
        let source = Source {
            file: &capture.file,
            head: &capture.head,
            regular: capture.origin.is_some(),
            filler: Rc::clone(filler),
        };
        let mut reader = CaptureReader::with_buffer(source, buffer)?;
        while let Some(record) = reader.next_record()? {
            let at = timeline.place(record.timestamp);
            let captured = timeline.captured(record.timestamp);
            let mut filler = filler.borrow_mut();
            if !filler.push(at, captured, record.data) {
                return Ok(());
            }
        }
        pass += 1;
        // An empty capture would be read for ever without a frame.
        if timeline.end_pass() == 0 || pass == capture.loops {
            return Ok(());
        }
        if capture.loops == 0 {
            pass = 0;
        }
        buffer = reader.into_buffer();
        if let Some(origin) = capture.origin {
            (&capture.file)
                .seek(SeekFrom::Start(origin))
                .map_err(|source| ReadError::Io {
                    offset: 0,
                    stream: super::format::Stream(None),
                    source,
                })?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_leaves_its_worker_alone_where_it_can() {
        let set = |processors: &[usize]| {
            let mut set = CpuSet::new();
            for &processor in processors {
                set.set(processor).expect("a small number");
            }
            set
        };
        let cases: [(&[usize], &[usize], &[usize]); 5] = [
            (&[0, 1, 2, 3], &[2], &[0, 1, 3]),
            (&[0, 1], &[1], &[0]),
            (&[1], &[1], &[1]),
            (&[0, 1], &[0, 1], &[0, 1]),
            (&[4, 5], &[1], &[4, 5]),
        ];
        for (all, worker, expected) in cases {
            assert_eq!(
                beside(&set(all), &set(worker)),
                set(expected),
                "{all:?} without {worker:?}"
            );
        }
    }
}
