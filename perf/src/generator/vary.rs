//! In what the frames of one run may differ: length, flow, and the time at which each left.

use super::{GeneratorError, frame};

/// The simple IMIX, 7:4:1 of 64, 594 and 1,518 bytes on the wire; here without the check sequence. Long
/// frames spread among the short ones.
pub const IMIX: [u16; 12] = [60, 590, 60, 60, 590, 60, 1514, 60, 590, 60, 590, 60];

/// Most flows: 4,096 ports of each address of 10.9.0.0/16 that ends as the original's.
pub const MAX_FLOWS: u32 = 1 << 20;

/// Room for lengths in `perf/bpf/generator.c`.
pub(super) const MAX_SIZES: usize = 64;

/// In what frames differ. By default in nothing: all are copies of the one given.
///
/// Frames that differ have no UDP checksum (0, RFC 768); all else in them is right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vary {
    /// Lengths in turn, none above that of the frame given; none: all as long as it.
    pub sizes: Vec<u16>,
    /// Flows in turn, [`frame::flow`] says which; 0: the one of the frame given.
    pub flows: u32,
    /// The time of sending, CLOCK_MONOTONIC in nanoseconds, is in the 8 bytes at [`frame::STAMP`], least byte
    /// first.
    pub stamped: bool,
}

impl Vary {
    /// Whether all are copies.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// How long the frame number `at` is, where the original has `full` bytes.
    pub fn size(&self, at: u64, full: usize) -> usize {
        match self.sizes.len() {
            0 => full,
            n => self.sizes[(at % n as u64) as usize].into(),
        }
    }

    /// Bytes of the first `frames` frames.
    pub fn bytes(&self, frames: u64, full: usize) -> u64 {
        let round = self.sizes.len().max(1) as u64;
        let of = |n: u64| (0..n).map(|at| self.size(at, full) as u64).sum::<u64>();
        frames / round * of(round) + of(frames % round)
    }

    /// What keeps copies of `original` from being varied so.
    pub(super) fn check(&self, original: &[u8]) -> Result<(), GeneratorError> {
        let refused = |message: String| Err(GeneratorError::Vary(message));
        if self.is_plain() {
            return Ok(());
        }
        let least = frame::STAMP + 8;
        if original.len() < least || !frame::is_udp(original) {
            return refused(format!(
                "frames that differ are UDP over IPv4 without options, of {least} bytes and more"
            ));
        }
        if self.sizes.len() > MAX_SIZES {
            return refused(format!(
                "{} lengths in turn: at most {MAX_SIZES}",
                self.sizes.len()
            ));
        }
        let longest = original.len();
        if let Some(size) = self
            .sizes
            .iter()
            .find(|&&size| !(least..=longest).contains(&size.into()))
        {
            return refused(format!(
                "a length of {size} bytes: {least} to {longest}, that of the frame, are possible"
            ));
        }
        if self.flows > MAX_FLOWS {
            return refused(format!("{} flows: at most {MAX_FLOWS}", self.flows));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_imix_is_seven_to_four_to_one() {
        let count = |size| IMIX.iter().filter(|&&s| s == size).count();
        assert_eq!([60, 590, 1514].map(count), [7, 4, 1]);
    }

    #[test]
    fn bytes_are_those_of_the_frames() {
        let imix = Vary {
            sizes: IMIX.to_vec(),
            ..Vary::default()
        };
        for (vary, frames, bytes) in [
            (&Vary::default(), 3, 300),
            (&imix, 0, 0),
            (&imix, 2, 650),
            (&imix, 12, 4294),
            (&imix, 25, 2 * 4294 + 60),
        ] {
            assert_eq!(vary.bytes(frames, 100), bytes, "{frames}");
        }
    }

    #[test]
    fn what_cannot_be_varied_is_refused() {
        let plain = Vary::default();
        let vary = |sizes: &[u16], flows| Vary {
            sizes: sizes.to_vec(),
            flows,
            stamped: false,
        };
        let udp = frame::udp(100);
        for (vary, original, fits) in [
            (&plain, &[0; 14][..], true),
            (&vary(&[], 1), &[0; 60], false),
            (&vary(&[60, 100], 1), &udp, true),
            (&vary(&[60, 101], 1), &udp, false),
            (&vary(&[49], 1), &udp, false),
            (&vary(&[60; MAX_SIZES + 1], 1), &udp, false),
            (&vary(&[], MAX_FLOWS), &udp, true),
            (&vary(&[], MAX_FLOWS + 1), &udp, false),
            (&vary(&[], 1), &frame::udp(49), false),
        ] {
            assert_eq!(vary.check(original).is_ok(), fits, "{vary:?}");
        }
    }
}
