//! Capture files as a sink: [`PcapSink`] copies frames into blocks of pcapng, and a [`Recorder`], one thread
//! for all workers, writes the blocks to an [`Output`], rotated and compressed as [`Settings`] say.
//!
//! A worker never waits for a disk: its blocks go round, and when all are on their way its frames are
//! counted as `sink_full`, or a source that can wait is held back. A frame counts as written when the
//! output has taken it.

mod block;
mod compress;
mod recorder;
mod recording;
mod sink;
#[cfg(test)]
mod tests;

pub use recorder::{Recorder, Settings};
pub use recording::{Limits, Output};
pub use sink::PcapSink;
