//! What a worker counts. Plain numbers that only the worker writes; a reader gets a copy of all of
//! them at the end of a batch. The laws they obey:
//!
//! - source: `frames == forwarded + dropped + in_flight`
//! - sink: `offered == frames + dropped + in_flight`

use crate::policy::Reason;

/// How many frames were dropped for each reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drops([u64; Reason::COUNT]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; Reason::COUNT])
    }
}

impl Drops {
    /// Counts `n` more for a reason.
    #[inline]
    pub fn add(&mut self, reason: Reason, n: u64) {
        self.0[reason as usize] += n;
    }

    /// How many for one reason.
    pub fn get(&self, reason: Reason) -> u64 {
        self.0[reason as usize]
    }

    /// How many for all reasons.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL
            .iter()
            .map(|&reason| (reason, self.get(reason)))
            .filter(|&(_, n)| n > 0)
    }
}

/// A port as a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxCounters {
    /// Frames received, those included that were dropped later.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames that were handed to their pipeline's sinks.
    pub forwarded: u64,
    /// Frames that were not, and why.
    pub dropped: Drops,
}

impl RxCounters {
    /// Counts a received frame of `bytes` bytes.
    #[inline]
    pub fn receive(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }

    /// Frames whose fate is not decided.
    pub fn in_flight(&self) -> u64 {
        self.frames - self.forwarded - self.dropped.total()
    }
}

/// A port as a sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxCounters {
    /// Frames that pipelines handed to this sink.
    pub offered: u64,
    /// Frames that the kernel accepted.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames that it did not take, and why.
    pub dropped: Drops,
    /// System calls made to have the kernel transmit (AF_XDP).
    pub kicks: u64,
    /// Frames that were copied because their slot belongs to another region (AF_XDP).
    pub copied: u64,
    /// Writes that carried several TCP segments as one (a TAP with `gso`). The frames count as they came.
    pub trains: u64,
}

impl TxCounters {
    /// Counts an accepted frame of `bytes` bytes.
    #[inline]
    pub fn written(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }

    /// Counts a frame that was not taken.
    #[inline]
    pub(crate) fn drop(&mut self, reason: Reason) {
        self.dropped.add(reason, 1);
    }

    /// Frames offered whose fate is not decided.
    pub fn in_flight(&self) -> u64 {
        self.offered - self.frames - self.dropped.total()
    }
}

/// What the kernel counts beside us, for a port that has such numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelCounters {
    /// `rx_dropped` of XDP_STATISTICS: frames that found no room, for any reason.
    pub rx_dropped: u64,
    /// `rx_invalid_descs`.
    pub rx_invalid_descs: u64,
    /// `tx_invalid_descs`.
    pub tx_invalid_descs: u64,
    /// `rx_ring_full`.
    pub rx_ring_full: u64,
    /// `rx_fill_ring_empty_descs`, contained in `rx_dropped`.
    pub rx_fill_ring_empty_descs: u64,
    /// `tx_ring_empty_descs`.
    pub tx_ring_empty_descs: u64,
}

impl KernelCounters {
    /// Adds another socket's.
    pub fn add(&mut self, other: &Self) {
        self.rx_dropped += other.rx_dropped;
        self.rx_invalid_descs += other.rx_invalid_descs;
        self.tx_invalid_descs += other.tx_invalid_descs;
        self.rx_ring_full += other.rx_ring_full;
        self.rx_fill_ring_empty_descs += other.rx_fill_ring_empty_descs;
        self.tx_ring_empty_descs += other.tx_ring_empty_descs;
    }
}

/// One port, or one queue of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// As a source.
    pub rx: RxCounters,
    /// As a sink.
    pub tx: TxCounters,
    /// Checksums that were finished because the sender had left them to its device.
    pub checksums_finished: u64,
}

/// One pipeline on one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PipelineCounters {
    /// Frames that its sources received.
    pub received: u64,
    /// Frames that the policy looked at.
    pub judged: u64,
    /// Frames that no policy looked at.
    pub unjudged: u64,
    /// Frames handed to all sinks.
    pub forwarded: u64,
    /// Frames that were not, and why.
    pub dropped: Drops,
}
