//! The TAP floor: what the kernel takes to receive a frame from a TAP's descriptor. One frame, hot in
//! the cache, written again and again; nobody can forward to a TAP faster.

use std::os::fd::AsFd;

use control::link::{NetNs, netns::on_core_in_netns};

use super::{
    tap::passive_tap,
    writer::{BATCH, Writer},
};
use crate::error::BenchError;
use crate::lab::{Cores, Interrupt};
use crate::measure::{Measured, Stopwatch};

/// Writes `count` frames.
pub(crate) fn measure(
    cores: Cores,
    frame: &[u8],
    count: u64,
    interrupt: &Interrupt,
) -> Result<Measured, BenchError> {
    on_core_in_netns(cores.worker, &NetNs::own(), || {
        let tap = passive_tap("floor0")?;
        let mut memory = frame.to_vec();
        let failed = BenchError::bare("TAP floor");
        // SAFETY: `memory` outlives the writer, which is dropped before it.
        let mut writer =
            unsafe { Writer::new(tap.fds[0].as_fd(), memory.as_mut_ptr(), memory.len()) }
                .map_err(&failed)?;
        let mut written = 0;
        let stopwatch = Stopwatch::start();
        while written < count {
            for _ in 0..BATCH {
                // SAFETY: the frame is all of the registered memory and is not changed.
                unsafe { writer.push(memory.as_ptr(), memory.len() as u32) };
            }
            written += writer.write(BATCH).map_err(&failed)? as u64;
            interrupt.check()?;
        }
        Ok(stopwatch.stop(written))
    })?
}
