//! Watches somebody who runs already and does not end: how much arrives in a while, and what it takes.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{error::BenchError, measure::Measured, report::Quantity, session::Session};

/// What another thread of the product takes to read a capture file.
pub(crate) const READER: Quantity = Quantity::cost("reader's cpu", "ns/frame", 1);

/// That thread's name.
pub(crate) const READER_THREAD: &str = "capture-reader";

/// Until caches, clocks and files are what they stay.
pub(crate) const WARM: Duration = Duration::from_millis(200);

/// How long the first frames may take, and all of those that are watched beyond what they should.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What has been seen up to a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Frames that arrived.
    pub(crate) frames: u64,
    /// Processor time of who sends them.
    pub(crate) cpu: Duration,
    /// Processor time of who helps.
    pub(crate) helper: Duration,
}

/// Waits for the first frame and a little longer, then watches for `length`. Answers with the sender's frames,
/// processor time and time, and with the helper's processor time.
pub(crate) fn watch(
    session: &Session<'_>,
    length: Duration,
    mut seen: impl FnMut() -> Result<Seen, BenchError>,
) -> Result<(Measured, Duration), BenchError> {
    let deadline = Instant::now() + PATIENCE;
    let idle = seen()?.frames;
    while seen()?.frames == idle {
        session.interrupt.check()?;
        if Instant::now() > deadline {
            return Err(BenchError::peer("what is watched", "no frame arrives"));
        }
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(WARM);
    let (at, before) = (Instant::now(), seen()?);
    thread::sleep(length);
    let (elapsed, after) = (at.elapsed(), seen()?);
    session.interrupt.check()?;
    let measured = Measured {
        frames: after.frames - before.frames,
        cpu: after.cpu - before.cpu,
        elapsed,
    };
    Ok((measured, after.helper - before.helper))
}
