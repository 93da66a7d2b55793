//! Which batch a slot went out with, and when the last slot of a batch came back: the residence of a
//! batch, without a clock read a frame.

/// Batches that can be unfinished at a time. The oldest of more lose their residence, not their slots.
const MARKS: usize = 4096;

/// A batch whose last write has been completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// When it was received, in the worker's clock.
    pub received: u64,
    /// How many slots went out with it.
    pub frames: u32,
}

/// When a batch was received, and how many of its slots are still out.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    received: u64,
    out: u32,
    frames: u32,
}

/// The batches that are on their way, in a ring.
#[derive(Debug)]
pub(super) struct Marks {
    marks: Vec<Mark>,
    current: u16,
    finished: Vec<Finished>,
}

impl Marks {
    pub(super) fn new() -> Self {
        Self {
            marks: vec![Mark::default(); MARKS],
            current: 0,
            finished: Vec::with_capacity(MARKS),
        }
    }

    /// What is added from here on was received at `now`.
    #[inline]
    pub(super) fn begin(&mut self, now: u64) {
        if self.marks[self.current as usize].out != 0 {
            self.current = (self.current + 1) % MARKS as u16;
        }
        self.marks[self.current as usize] = Mark {
            received: now,
            out: 0,
            frames: 0,
        };
    }

    /// One more slot of the current batch goes out. Answers with what [`Marks::end`] wants to know.
    #[inline]
    pub(super) fn add(&mut self) -> u16 {
        let mark = &mut self.marks[self.current as usize];
        mark.out += 1;
        mark.frames += 1;
        self.current
    }

    /// A slot has come back.
    #[inline]
    pub(super) fn end(&mut self, mark: u16) {
        let mark = &mut self.marks[mark as usize];
        if mark.out == 0 {
            // Its batch was forgotten for a later one.
            return;
        }
        mark.out -= 1;
        if mark.out == 0 && self.finished.len() < self.finished.capacity() {
            self.finished.push(Finished {
                received: mark.received,
                frames: std::mem::take(&mut mark.frames),
            });
        }
    }

    /// Batches that ended since the last call.
    #[inline]
    pub(super) fn finished(&mut self) -> impl Iterator<Item = Finished> + '_ {
        self.finished.drain(..)
    }
}
