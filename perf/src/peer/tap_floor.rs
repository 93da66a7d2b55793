//! The TAP floor: what the kernel takes to receive a frame from a TAP's descriptor. One frame, hot in
//! the cache, written again and again; nobody can forward to a TAP faster.

use std::os::fd::AsFd;

use control::link::{NetNs, netns::on_core_in_netns};

use super::{
    listener::{Audience, Heard},
    tap::passive_tap,
    writer::{BATCH, Way, Writer},
};
use crate::error::BenchError;
use crate::lab::{Cores, Interrupt};
use crate::measure::{Measured, Stopwatch};

/// Writes `count` frames of these lengths in turn, each the beginning of `frame`.
pub(crate) fn measure(
    cores: Cores,
    frame: &[u8],
    lengths: &[usize],
    count: u64,
    way: Way,
    audience: Audience,
    interrupt: &Interrupt,
) -> Result<(Measured, Heard), BenchError> {
    on_core_in_netns(cores.worker, &NetNs::own(), || {
        let tap = passive_tap("floor")?;
        let listeners = audience.listen(&tap.name, tap.ifindex)?;
        let mut memory = frame.to_vec();
        let failed = BenchError::bare("TAP floor");
        // SAFETY: `memory` outlives the writer, which is dropped before it.
        let mut writer =
            unsafe { Writer::new(tap.fds[0].as_fd(), memory.as_mut_ptr(), memory.len(), way) }
                .map_err(&failed)?;
        let mut lengths = lengths.iter().cycle();
        let mut written = 0;
        let stopwatch = Stopwatch::start();
        while written < count {
            for length in lengths.by_ref().take(BATCH) {
                // SAFETY: the frame is all of the writer's memory and is not changed; no length is longer.
                unsafe { writer.push(memory.as_ptr(), *length.min(&memory.len()) as u32) }
                    .map_err(&failed)?;
            }
            written += writer.finish().map_err(&failed)? as u64;
            interrupt.check()?;
        }
        let measured = stopwatch.stop(written);
        Ok((measured, listeners.finish()?))
    })?
}
