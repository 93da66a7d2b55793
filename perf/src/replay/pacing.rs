//! How far arrivals are from an even pace.

use crate::report::Quantity;

/// How far from its length a gap between two frames is, whichever way: half of the gaps are no further.
pub(super) const GAP_P50: Quantity = Quantity::cost("gap error, p50", "µs", 2);
/// 99 of a hundred gaps are no further.
pub(super) const GAP_P99: Quantity = Quantity::cost("gap error, p99", "µs", 2);
/// The worst gap.
pub(super) const GAP_MAX: Quantity = Quantity::cost("gap error, max", "µs", 1);
/// How late a frame is on the schedule that the earliest frame sets: half are no later.
pub(super) const LATE_P50: Quantity = Quantity::cost("late, p50", "µs", 2);
/// 99 of a hundred frames are no later.
pub(super) const LATE_P99: Quantity = Quantity::cost("late, p99", "µs", 2);
/// The latest frame.
pub(super) const LATE_MAX: Quantity = Quantity::cost("late, max", "µs", 1);
/// The pace itself.
pub(super) const PACE: Quantity = Quantity::cost("off the rate", "%", 4);

/// Errors in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Errors {
    /// Of each gap, as a distance; sorted.
    pub(super) gaps: Vec<u64>,
    /// How late each frame is on an absolute schedule; sorted. The schedule begins such that no frame is early.
    pub(super) late: Vec<u64>,
    /// How far the mean rate is off, as a share.
    pub(super) rate: f64,
}

impl Errors {
    /// Of arrivals in nanoseconds, in order, at least two, that should be `rate` a second.
    pub(super) fn of(times: &[u64], rate: u64) -> Self {
        // From the number of the frame: no rounding adds up over the run.
        let due = |n: usize| (n as u128 * 1_000_000_000 / u128::from(rate)) as i64;
        let offset = |n: usize| (times[n] - times[0]) as i64 - due(n);
        let earliest = (0..times.len()).map(offset).min().unwrap_or_default();
        let mut late: Vec<u64> = (0..times.len())
            .map(|n| (offset(n) - earliest) as u64)
            .collect();
        let mut gaps: Vec<u64> = (1..times.len())
            .map(|n| (offset(n) - offset(n - 1)).unsigned_abs())
            .collect();
        late.sort_unstable();
        gaps.sort_unstable();
        let last = times.len() - 1;
        let mean = last as f64 * 1e9 / (times[last] - times[0]) as f64;
        Self {
            gaps,
            late,
            rate: (mean / rate as f64 - 1.0).abs(),
        }
    }

    /// What a report says of them, in microseconds and percent.
    pub(super) fn figures(&self) -> [(Quantity, f64); 7] {
        let micros = |sorted: &[u64], share| quantile(sorted, share) as f64 / 1e3;
        [
            (GAP_P50, micros(&self.gaps, 0.5)),
            (GAP_P99, micros(&self.gaps, 0.99)),
            (GAP_MAX, micros(&self.gaps, 1.0)),
            (LATE_P50, micros(&self.late, 0.5)),
            (LATE_P99, micros(&self.late, 0.99)),
            (LATE_MAX, micros(&self.late, 1.0)),
            (PACE, self.rate * 100.0),
        ]
    }
}

/// The least number that `share` of all are not above.
fn quantile(sorted: &[u64], share: f64) -> u64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_pace_has_no_error() {
        let times: Vec<u64> = (0..1000).map(|n| 5_000_000 + n * 10_000).collect();
        let errors = Errors::of(&times, 100_000);
        assert!(errors.gaps.iter().chain(&errors.late).all(|&e| e == 0));
        assert_eq!(errors.gaps.len() + 1, errors.late.len());
        assert!(errors.rate < 1e-12);
    }

    #[test]
    fn a_late_frame_costs_two_gaps_and_one_place() {
        let mut times: Vec<u64> = (0..100).map(|n| n * 10_000).collect();
        times[50] += 4_000;
        let errors = Errors::of(&times, 100_000);
        assert_eq!(errors.gaps[96..], [0, 4_000, 4_000]);
        assert_eq!(errors.late[98..], [0, 4_000]);
    }

    #[test]
    fn a_late_start_is_not_held_against_all_others() {
        let mut times: Vec<u64> = (1..100).map(|n| n * 1_000_000).collect();
        times[0] += 7_000;
        let errors = Errors::of(&times, 1_000);
        assert_eq!(errors.late[97..], [0, 7_000]);
    }

    #[test]
    fn what_drifts_is_late_in_the_end() {
        // One in a thousand too slow.
        let times: Vec<u64> = (0..1001).map(|n| n * 1_001).collect();
        let errors = Errors::of(&times, 1_000_000);
        assert_eq!((errors.gaps[0], errors.gaps[999]), (1, 1));
        assert_eq!(errors.late[1000], 1000);
        assert!((errors.rate - 0.000_999).abs() < 1e-6, "{}", errors.rate);
    }

    #[test]
    fn quantiles_are_numbers_of_the_list() {
        let sorted: Vec<u64> = (1..=100).collect();
        for (share, expected) in [(0.0, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100)] {
            assert_eq!(quantile(&sorted, share), expected, "{share}");
        }
    }
}
