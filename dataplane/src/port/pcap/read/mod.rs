//! Capture files as a source. [`open()`] looks at a file's header, [`PcapSource`] sends its frames at its
//! [`Pace`]; a thread of its own does the reading.
//!
//! A frame is copied once, from the reader's block into a slot of the worker's own region, when it is
//! due. The file can wait: without a free slot nothing is lost, the frame is only late.

mod open;
mod pace;
mod reader;

use std::fmt;

pub use open::{OpenError, OpenedCapture, Options, open};
use pace::Pacer;
pub use pace::{Pace, PaceError};
use reader::{Block, Message, Reader};

use super::format;
use crate::{
    frame::{Frame, RegionId, Staged},
    policy::Reason,
    port::{Io, Place, Port, PortFailure, PortIndex, SHORTEST, Wait},
};

/// A capture as a port. Time begins with the first frame that [`Port::receive`] finds, so that a start
/// that is held back moves the whole capture.
// Control boxes the ports of all workers one after another: by its alignment (x86 fetches lines in pairs) none
// shares a cache line with a port of another worker.
#[repr(align(128))]
pub struct PcapSource {
    path: String,
    pacer: Pacer,
    /// Until `attach`.
    capture: Option<OpenedCapture>,
    /// From `attach` to `close`.
    reader: Option<Reader>,
    index: PortIndex,
    region: Option<RegionId>,
    /// The block in hand, and which of its frames is next.
    block: Option<Box<Block>>,
    next: usize,
    /// The worker's clock when the first frame was due.
    start: Option<u64>,
    delivered: u64,
    ended: bool,
    failure: Option<PortFailure>,
}

impl fmt::Debug for PcapSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PcapSource")
            .field("path", &self.path)
            .field("delivered", &self.delivered)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl PcapSource {
    /// The port of an opened capture.
    pub fn new(capture: OpenedCapture) -> Self {
        Self {
            path: capture.path().to_owned(),
            pacer: capture.pacer,
            capture: Some(capture),
            reader: None,
            index: PortIndex(0),
            region: None,
            block: None,
            next: 0,
            start: None,
            delivered: 0,
            ended: false,
            failure: None,
        }
    }

    /// Has a block in hand with a frame in it, unless none is there.
    #[inline]
    fn advance(&mut self) -> bool {
        let Some(reader) = &self.reader else {
            return false;
        };
        loop {
            if self
                .block
                .as_ref()
                .is_some_and(|b| b.frame(self.next).is_some())
            {
                return true;
            }
            if let Some(block) = self.block.take() {
                reader.give_back(block);
            }
            if self.ended {
                return false;
            }
            match reader.next() {
                None => return false,
                Some(Message::Frames(block)) => {
                    self.next = 0;
                    self.block = Some(block);
                }
                Some(Message::End(outcome)) => {
                    self.ended = true;
                    self.failure = outcome.err().map(|error| {
                        PortFailure::fatal(format!(
                            "{}: {error}; {} frames came before it",
                            self.path, self.delivered
                        ))
                    });
                }
            }
        }
    }
}

impl Port for PcapSource {
    /// Starts the reader.
    fn attach(&mut self, io: &mut Io, place: Place) -> Result<(), PortFailure> {
        self.index = place.index;
        self.region = Some(io.region_for(&self.path, 0)?);
        let fail = |message: String| PortFailure::fatal(message);
        let Some(capture) = self.capture.take() else {
            return Err(fail(format!("{}: attached twice", self.path)));
        };
        let reader = Reader::start(capture, io.waker.clone())
            .map_err(|e| fail(format!("{}: no thread to read it: {e}", self.path)))?;
        self.reader = Some(reader);
        Ok(())
    }

    fn receive(&mut self, io: &mut Io, batch: &mut Vec<Frame>, budget: usize) {
        let Some(region) = self.region else { return };
        let longest = io.pool.region(region).capacity();
        for _ in 0..budget {
            if !self.advance() {
                io.trouble |= self.failure.is_some();
                return;
            }
            let Some((entry, bytes)) = self.block.as_ref().and_then(|b| b.frame(self.next)) else {
                return;
            };
            let start = *self.start.get_or_insert(io.now);
            if start.saturating_add(self.pacer.due(entry.at)) > io.now {
                return;
            }
            let unfit = if bytes.len() > longest {
                Some(Reason::TooLong)
            } else if bytes.len() < SHORTEST {
                Some(Reason::TooShort)
            } else {
                None
            };
            match unfit {
                None => {
                    let Some(mut frame) = io.pool.alloc(region) else {
                        return;
                    };
                    let fits = io.pool.fill(&mut frame, bytes);
                    debug_assert!(fits);
                    frame.set_time(entry.captured);
                    batch.push(frame);
                    io.counters[self.index.0 as usize].rx.receive(bytes.len());
                }
                Some(reason) => {
                    let rx = &mut io.counters[self.index.0 as usize].rx;
                    rx.receive(bytes.len());
                    rx.dropped.add(reason, 1);
                }
            }
            self.pacer.advance(bytes.len());
            self.next += 1;
            self.delivered += 1;
        }
    }

    fn wait(&mut self, io: &mut Io) -> Wait {
        if !self.advance() {
            io.trouble |= self.failure.is_some();
            return if self.ended || self.reader.is_none() {
                Wait::Done
            } else {
                // The reader wakes the worker when it has a block.
                Wait::Event
            };
        }
        let next = self.block.as_ref().and_then(|b| b.frame(self.next));
        let due = match (next, self.start) {
            (Some((entry, _)), Some(start)) => start.saturating_add(self.pacer.due(entry.at)),
            _ => io.now,
        };
        if due > io.now {
            Wait::Until(due)
        } else if self.region.is_some_and(|r| io.pool.free_slots(r) == 0) {
            // A slot becomes free by a completion.
            Wait::Event
        } else {
            Wait::Ready
        }
    }

    /// A capture file is no sink; the configuration refuses it. Whatever comes all the same is counted.
    fn stage(&mut self, io: &mut Io, frames: &mut Vec<Staged>) {
        io.refuse_all(self.index, frames, Reason::WriteError);
    }

    /// Stops the reader. Frames that it had read ahead were never received: they count nowhere.
    fn close(&mut self, _io: &mut Io, _reason: Reason) {
        self.reader = None;
        self.block = None;
        self.capture = None;
        self.ended = true;
    }

    fn failure(&mut self) -> Option<PortFailure> {
        self.failure.take()
    }
}

#[cfg(test)]
mod tests;
