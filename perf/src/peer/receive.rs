//! A bare AF_XDP receive loop: frames are taken from the ring, their first bytes asked for, and given back.

use std::time::{Duration, Instant};

use control::link::{NetNs, netns::on_core_in_netns};
use xsk_rs::FrameDesc;

use super::{
    bare::{Options, Queue},
    tap::passive_tap,
    writer::BATCH,
};
use crate::{
    error::BenchError,
    generator::{Generator, Traffic},
    lab::{Cores, Interrupt, SOURCE},
    measure::Measured,
};

/// Receives for `time`. Processor time is that of rounds that found frames.
pub(crate) fn measure(
    cores: Cores,
    traffic: &Traffic,
    time: Duration,
    options: Options,
    interrupt: &Interrupt,
) -> Result<Measured, BenchError> {
    on_core_in_netns(cores.worker, &NetNs::own(), || {
        let tap = passive_tap("bare0")?;
        let mut queue = Queue::open(&tap, options)?;
        let generator = Generator::start(&NetNs::own(), SOURCE, traffic.clone())?;
        let mut batch = [FrameDesc::default(); BATCH];
        let (mut frames, mut busy) = (0, Duration::ZERO);
        let mut first = None;
        let mut now = Instant::now();
        loop {
            let n = queue.receive(&mut batch);
            queue.give_back(&batch[..n]);
            frames += n as u64;
            // One clock read a round, as a worker has it; a round that found nothing is no work.
            let before = std::mem::replace(&mut now, Instant::now());
            if n > 0 {
                busy += now - before;
                first.get_or_insert(before);
            } else {
                std::hint::spin_loop();
                if interrupt.is_set() || generator.is_finished() {
                    break;
                }
            }
            if first.is_some_and(|first| now - first > time) {
                break;
            }
        }
        interrupt.check()?;
        generator.stop()?;
        Ok(Measured {
            frames,
            cpu: busy,
            elapsed: first.map_or(Duration::ZERO, |first| now - first),
        })
    })?
}
