//! What a loop did and what it took: frames, processor time, time; and the spread of a number over rounds.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// What one loop did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Frames written.
    pub frames: u64,
    /// Processor time of the thread that wrote them.
    pub cpu: Duration,
    /// Time that passed.
    pub elapsed: Duration,
}

impl Measured {
    /// Processor time per frame, in nanoseconds; NaN without frames.
    pub fn ns_per_frame(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.frames as f64
    }

    /// Millions of frames a second; NaN or infinite without time.
    pub fn mframes(&self) -> f64 {
        self.frames as f64 / self.elapsed.as_secs_f64() / 1e6
    }
}

/// Measures the calling thread.
pub(crate) struct Stopwatch {
    /// Its processor time at the start, pauses added.
    cpu: Duration,
    paused: Option<Duration>,
    at: Instant,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self {
            cpu: thread_time(),
            paused: None,
            at: Instant::now(),
        }
    }

    /// Counts no processor time from here on, if it did.
    #[cold]
    pub(crate) fn pause(&mut self) {
        self.paused.get_or_insert_with(thread_time);
    }

    /// Counts again.
    #[cold]
    pub(crate) fn resume(&mut self) {
        if let Some(paused) = self.paused.take() {
            self.cpu += thread_time() - paused;
        }
    }

    pub(crate) fn stop(mut self, frames: u64) -> Measured {
        self.resume();
        Measured {
            frames,
            cpu: thread_time() - self.cpu,
            elapsed: self.at.elapsed(),
        }
    }
}

/// Processor time of the calling thread.
pub(crate) fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Median, least and most of some rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of at least one number; NaN of none.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        if n == 0 {
            return Self {
                median: f64::NAN,
                min: f64::NAN,
                max: f64::NAN,
            };
        }
        Self {
            median: (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0,
            min: sorted[0],
            max: sorted[n - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_orders_its_numbers() {
        for (numbers, median, min, max) in [
            (vec![3.0], 3.0, 3.0, 3.0),
            (vec![3.0, 1.0], 2.0, 1.0, 3.0),
            (vec![9.0, 1.0, 2.0], 2.0, 1.0, 9.0),
        ] {
            assert_eq!(Spread::of(numbers), Spread { median, min, max });
        }
        assert!(Spread::of([]).median.is_nan());
    }
}
