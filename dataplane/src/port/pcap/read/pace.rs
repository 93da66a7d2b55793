//! When each frame of a capture is due: arithmetic on an absolute clock, without a clock in it.
//!
//! Nothing accumulates: the due time of the n-th frame is computed from n, from the bits before it, or
//! from its time in the capture, in integers of 128 bits. A worker that was held up sends what is
//! overdue at once and is back in time.

/// How fast a capture is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As it was captured, `speed` times as fast.
    Original {
        /// 1 is the original speed, 2 twice as fast.
        speed: f64,
    },
    /// As fast as it is taken.
    Top,
    /// This many frames a second.
    Pps(f64),
    /// This many millions of bits a second, of Ethernet frames from the destination address to the end of
    /// the payload: without preamble, frame check sequence and gap.
    Mbps(f64),
}

/// A pace that cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{what} {value} is not possible; give a number from {MIN_RATE} to {MAX_RATE}")]
pub struct PaceError {
    /// Which number.
    pub what: &'static str,
    /// As given.
    pub value: f64,
}

/// Rates are kept in millionths, so this is the smallest.
const MIN_RATE: f64 = 0.000_001;
/// A frame each nanosecond; no link is faster.
const MAX_RATE: f64 = 1e9;
const MILLION: u128 = 1_000_000;

/// A pace in integers: what one unit of a rate takes is `scale / rate` nanoseconds.
#[derive(Clone, Copy, Debug)]
enum Rate {
    /// By the capture's own time; speed in millionths.
    Original(u128),
    Top,
    /// Frames in a million seconds.
    Frames(u128),
    /// Bits a second.
    Bits(u128),
}

/// Tells when frames are due, in nanoseconds after the first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pacer {
    rate: Rate,
    frames: u64,
    bits: u128,
}

impl Pacer {
    /// A pacer at its first frame.
    pub(super) fn new(pace: Pace) -> Result<Self, PaceError> {
        let millionths = |what, value: f64| {
            if (MIN_RATE..=MAX_RATE).contains(&value) {
                Ok((value * 1e6).round() as u128)
            } else {
                Err(PaceError { what, value })
            }
        };
        Ok(Self {
            rate: match pace {
                Pace::Original { speed } => Rate::Original(millionths("a speed of", speed)?),
                Pace::Top => Rate::Top,
                Pace::Pps(pps) => Rate::Frames(millionths("a pace in frames a second of", pps)?),
                Pace::Mbps(mbps) => {
                    Rate::Bits(millionths("a pace in millions of bits a second of", mbps)?)
                }
            },
            frames: 0,
            bits: 0,
        })
    }

    /// When the next frame is due, if it stands at `at` nanoseconds of the capture's [`Timeline`].
    #[inline]
    pub(crate) fn due(&self, at: u64) -> u64 {
        let due = match self.rate {
            Rate::Top => return 0,
            Rate::Original(speed) => u128::from(at) * MILLION / speed,
            Rate::Frames(rate) => u128::from(self.frames) * (1_000_000_000 * MILLION) / rate,
            Rate::Bits(rate) => self.bits * 1_000_000_000 / rate,
        };
        u64::try_from(due).unwrap_or(u64::MAX)
    }

    /// Goes on to the next frame; this one had `bytes` bytes.
    #[inline]
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.frames += 1;
        self.bits += bytes as u128 * 8;
    }
}

/// The gap between two passes of a capture whose frames all have one time, in nanoseconds.
const GAP_WITHOUT_DURATION: u64 = 1_000_000;

/// Turns the timestamps of a capture that is read several times into one time that never goes back:
/// nanoseconds since the first frame. A frame whose timestamp goes back, or is missing, stands where the
/// frame before it stands; one that follows is placed by the first frame of its pass again.
///
/// A pass begins after the end of the pass before it by the mean distance of that pass's frames, or by a
/// millisecond when it has no duration.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timeline {
    /// Where the pass begins.
    base: u64,
    /// The timestamp that stands there.
    first: Option<u64>,
    /// Where the last frame stands.
    last: u64,
    /// Frames of this pass.
    frames: u64,
}

impl Timeline {
    /// Places the next frame of the pass.
    #[inline]
    pub(super) fn place(&mut self, timestamp: Option<u64>) -> u64 {
        self.frames += 1;
        if let Some(timestamp) = timestamp {
            let first = *self.first.get_or_insert(timestamp);
            let at = self.base.saturating_add(timestamp.saturating_sub(first));
            self.last = self.last.max(at);
        }
        self.last
    }

    /// When a frame of this pass was captured: its timestamp, in later passes moved on by the passes
    /// before. 0 when it has none.
    #[inline]
    pub(crate) fn captured(&self, timestamp: Option<u64>) -> u64 {
        timestamp.map_or(0, |timestamp| self.base.saturating_add(timestamp))
    }

    /// Ends the pass. Answers how many frames it had.
    pub(crate) fn end_pass(&mut self) -> u64 {
        let frames = self.frames;
        let gap = match (self.last - self.base, frames) {
            (0, _) | (_, 0..=1) => GAP_WITHOUT_DURATION,
            (duration, frames) => duration / (frames - 1),
        };
        let base = self.last.saturating_add(gap);
        *self = Self {
            base,
            first: None,
            last: base,
            frames: 0,
        };
        frames
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_are_exact_however_long_they_last() {
        // (pace, frames sent, their bytes, due after that)
        let cases = [
            (Pace::Pps(3.0), 3, 60, 1_000_000_000),
            (Pace::Pps(3.0), 1, 60, 333_333_333),
            (Pace::Pps(0.5), 1, 60, 2_000_000_000),
            (Pace::Pps(1000.0), 1_000_000, 60, 1_000_000_000_000),
            (Pace::Mbps(8.0), 1, 1000, 1_000_000),
            (Pace::Mbps(10.0), 1250, 1000, 1_000_000_000),
            (Pace::Top, 5, 1500, 0),
        ];
        for (pace, frames, bytes, due) in cases {
            let mut pacer = Pacer::new(pace).expect("a pace");
            assert_eq!(pacer.due(0), 0, "{pace:?}: the first is due at once");
            for _ in 0..frames {
                pacer.advance(bytes);
            }
            assert_eq!(pacer.due(0), due, "{pace:?}");
        }
        // A year of a million frames a second is not a nanosecond off.
        let year = 365 * 86_400u64;
        let mut pacer = Pacer::new(Pace::Pps(1e6)).expect("a pace");
        pacer.frames = year * 1_000_000;
        assert_eq!(pacer.due(0), year * 1_000_000_000);
    }

    #[test]
    fn impossible_paces_are_refused() {
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-9, 1e10] {
            for pace in [
                Pace::Original { speed: value },
                Pace::Pps(value),
                Pace::Mbps(value),
            ] {
                assert!(Pacer::new(pace).is_err(), "{pace:?}");
            }
        }
        let error = Pacer::new(Pace::Pps(0.0)).expect_err("a stop");
        assert_eq!(
            error.to_string(),
            "a pace in frames a second of 0 is not possible; give a number from 0.000001 to 1000000000"
        );
    }

    #[test]
    fn time_does_not_go_back() {
        let mut timeline = Timeline::default();
        let pass = [
            Some(1000),
            Some(900),
            Some(1300),
            None,
            Some(1200),
            Some(1600),
        ];
        let placed: Vec<_> = pass.iter().map(|&t| timeline.place(t)).collect();
        assert_eq!(placed, [0, 0, 300, 300, 300, 600]);
        // 600 ns in 5 steps: the next pass begins 120 later.
        assert_eq!(timeline.end_pass(), 6);
        let placed: Vec<_> = pass.iter().map(|&t| timeline.place(t)).collect();
        assert_eq!(placed, [720, 720, 1020, 1020, 1020, 1320]);
    }

    #[test]
    fn a_pass_without_duration_is_repeated_each_millisecond() {
        let mut timeline = Timeline::default();
        for pass in 0..3 {
            assert_eq!(timeline.place(Some(77)), pass * 1_000_000);
            assert_eq!(timeline.end_pass(), 1);
        }
        assert_eq!(timeline.end_pass(), 0);
    }

    proptest! {
        /// Against a model with unbounded rationals in place of state.
        #[test]
        fn rates_are_within_a_nanosecond_of_the_model(
            lengths in proptest::collection::vec(0usize..10_000, 1..200),
            rate in 1u64..1_000_000_000,
            bits: bool,
        ) {
            let pace = if bits { Pace::Mbps(rate as f64) } else { Pace::Pps(rate as f64) };
            let mut pacer = Pacer::new(pace).expect("a pace");
            let mut before = 0u128;
            for length in lengths {
                let due = u128::from(pacer.due(12345));
                // due = floor(before * 1e9 / rate), without dividing:
                let rate = u128::from(rate) * if bits { 1_000_000 } else { 1 };
                prop_assert!(due * rate <= before * 1_000_000_000);
                prop_assert!((due + 1) * rate > before * 1_000_000_000);
                pacer.advance(length);
                before += if bits { length as u128 * 8 } else { 1 };
            }
        }

        #[test]
        fn the_original_pace_is_the_greatest_offset_so_far(
            times in proptest::collection::vec(any::<u64>(), 1..60),
            speed in 1u64..1000,
        ) {
            let mut timeline = Timeline::default();
            let pacer = Pacer::new(Pace::Original { speed: speed as f64 }).expect("a pace");
            for n in 0..times.len() {
                let at = timeline.place(Some(times[n]));
                let model = times[..=n].iter().map(|t| t.saturating_sub(times[0])).max();
                prop_assert_eq!(Some(at), model);
                prop_assert_eq!(pacer.due(at), at / speed);
            }
        }
    }
}
