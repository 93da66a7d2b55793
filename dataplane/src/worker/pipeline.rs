//! What happens to a batch between its source and its sinks: parse all, judge all, finish checksums,
//! stage all.

use super::{counters::PipelineCounters, spec::SourceSpec};
use crate::{
    frame::{Frame, Pool, Staged},
    packet::{Headers, finish_partial, finish_partial_parts, parse, parse_head},
    policy::{Mode, Reader, Reason, Verdict, judge},
    port::{Io, Port, PortIndex},
};

/// A pipeline as its worker runs it.
pub(super) struct Pipeline {
    pub(super) policy: Option<Reader>,
    pub(super) sinks: Vec<PortIndex>,
    pub(super) counters: PipelineCounters,
}

/// Room for one batch, made once.
pub(super) struct Scratch {
    headers: Vec<Headers>,
    verdicts: Vec<Verdict>,
    forward: Vec<Staged>,
    shares: Vec<Staged>,
}

impl Scratch {
    pub(super) fn new(batch: usize) -> Self {
        Self {
            headers: Vec::with_capacity(batch),
            verdicts: Vec::with_capacity(batch),
            forward: Vec::with_capacity(batch),
            shares: Vec::with_capacity(batch),
        }
    }
}

impl Pipeline {
    /// Looks at the policy, so that whoever published a new one knows that it is in force here.
    #[inline]
    pub(super) fn acknowledge(&mut self) {
        if let Some(policy) = &mut self.policy {
            policy.load();
        }
    }

    /// How many frames all sinks take at this moment.
    pub(super) fn room(&self, io: &Io, ports: &[Option<Box<dyn Port>>]) -> usize {
        let sinks = self
            .sinks
            .iter()
            .filter_map(|s| ports[s.0 as usize].as_ref());
        sinks.map(|sink| sink.room(io)).min().unwrap_or(usize::MAX)
    }

    /// Takes all of `batch`: each frame is staged on every sink, or freed and counted.
    pub(super) fn run(
        &mut self,
        io: &mut Io,
        ports: &mut [Option<Box<dyn Port>>],
        source: SourceSpec,
        batch: &mut Vec<Frame>,
        scratch: &mut Scratch,
    ) {
        let received = batch.len() as u64;
        self.counters.received += received;
        io.pool.begin_batch(io.now);

        // One load a batch: no batch is judged by two generations.
        let snapshot = self.policy.as_mut().map(|reader| reader.load());
        let judged = snapshot.is_some_and(|s| s.spec().mode != Mode::Direct);
        if judged || source.finish_checksums {
            scratch.headers.clear();
            scratch
                .headers
                .extend(batch.iter().map(|frame| headers_of(&io.pool, frame)));
        }
        scratch.verdicts.clear();
        scratch.verdicts.resize(batch.len(), Verdict::Forward);
        match snapshot {
            Some(snapshot) if judged => {
                judge(&scratch.headers, snapshot, &mut scratch.verdicts);
                self.counters.judged += received;
            }
            _ => self.counters.unjudged += received,
        }

        let mut finished = 0;
        for (i, mut frame) in batch.drain(..).enumerate() {
            match scratch.verdicts[i] {
                Verdict::Forward => {
                    if source.finish_checksums
                        && finish(&mut io.pool, &mut frame, &scratch.headers[i])
                    {
                        finished += 1;
                    }
                    scratch.forward.push(io.pool.stage(frame));
                }
                Verdict::Drop(reason) => {
                    io.pool.free(frame);
                    self.counters.dropped.add(reason, 1);
                    io.count(source.port).rx.dropped.add(reason, 1);
                }
            }
        }
        let forwarded = scratch.forward.len() as u64;
        self.counters.forwarded += forwarded;
        let counters = io.count(source.port);
        counters.rx.forwarded += forwarded;
        counters.checksums_finished += finished;
        if forwarded > 0 {
            io.from = source.port;
            self.stage(io, ports, scratch);
        }
    }

    /// A share for each sink; the last takes the originals.
    fn stage(&self, io: &mut Io, ports: &mut [Option<Box<dyn Port>>], scratch: &mut Scratch) {
        let Some((&last, others)) = self.sinks.split_last() else {
            for staged in scratch.forward.drain(..) {
                io.pool.release(staged);
            }
            return;
        };
        for &sink in others {
            scratch
                .shares
                .extend(scratch.forward.iter().map(|staged| io.pool.share(staged)));
            offer(io, ports, sink, &mut scratch.shares);
        }
        offer(io, ports, last, &mut scratch.forward);
    }
}

#[inline]
fn headers_of(pool: &Pool, frame: &Frame) -> Headers {
    let bytes = pool.bytes(frame);
    match frame.is_chain() {
        false => parse(bytes),
        true => parse_head(bytes, frame.len() - bytes.len()),
    }
}

#[inline]
fn finish(pool: &mut Pool, frame: &mut Frame, headers: &Headers) -> bool {
    match frame.is_chain() {
        false => finish_partial(pool.bytes_mut(frame), headers),
        true => {
            let (head, rest) = pool.split_mut(frame);
            finish_partial_parts(head, rest, headers)
        }
    }
}

/// Hands shares to a sink, or counts them where the sink's link is down.
fn offer(
    io: &mut Io,
    ports: &mut [Option<Box<dyn Port>>],
    sink: PortIndex,
    frames: &mut Vec<Staged>,
) {
    match &mut ports[sink.0 as usize] {
        Some(port) => port.stage(io, frames),
        None => io.refuse_all(sink, frames, Reason::LinkDown),
    }
}
