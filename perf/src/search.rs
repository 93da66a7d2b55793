//! The highest rate without loss, by halving, as RFC 2544 (section 26.1) looks for a throughput.

/// Where and how closely to look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// The lowest rate that is of interest, above 0.
    pub least: u64,
    /// The highest that is tried, and the first.
    pub most: u64,
    /// How near the answer must be, as a share of it: 0.02 is two percent.
    pub resolution: f64,
    /// How often a rate must fail to count as too high: a machine that others use stands still now and then.
    pub attempts: usize,
}

impl Search {
    /// The highest rate that `passes`, or none if the least does not.
    ///
    /// # Errors
    ///
    /// The first error of a trial.
    pub fn highest<E>(
        &self,
        mut passes: impl FnMut(u64) -> Result<bool, E>,
    ) -> Result<Option<u64>, E> {
        let mut holds = |rate| {
            for _ in 0..self.attempts.max(1) {
                if passes(rate)? {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        if holds(self.most)? {
            return Ok(Some(self.most));
        }
        let (mut good, mut bad) = (None, self.most);
        loop {
            let low = good.unwrap_or(self.least);
            let near = (low as f64 * self.resolution).max(1.0);
            if bad.saturating_sub(low) as f64 <= near {
                if good.is_none() && low < bad && holds(low)? {
                    good = Some(low);
                }
                return Ok(good);
            }
            let middle = low + (bad - low) / 2;
            if holds(middle)? {
                good = Some(middle);
            } else {
                bad = middle;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const SEARCH: Search = Search {
        least: 1000,
        most: 3_000_000,
        resolution: 0.01,
        attempts: 1,
    };

    #[test]
    fn the_answer_is_near_the_limit_and_below_it() {
        for limit in [1000, 1001, 5000, 77_777, 1_499_999, 1_500_000, 2_999_999] {
            let found = SEARCH.highest(|rate| Ok::<_, Infallible>(rate <= limit));
            let found = found.expect("nothing fails").expect("the least passes");
            assert!(found <= limit, "{found} of {limit}");
            assert!(
                (limit - found) as f64 <= limit as f64 * 0.01 + 1.0,
                "{found} of {limit}"
            );
        }
    }

    #[test]
    fn what_always_passes_is_tried_once_and_what_never_does_ends() {
        let mut tried = 0;
        let found = SEARCH.highest(|_| {
            tried += 1;
            Ok::<_, Infallible>(true)
        });
        assert_eq!((found, tried), (Ok(Some(SEARCH.most)), 1));
        assert_eq!(SEARCH.highest(|_| Ok::<_, Infallible>(false)), Ok(None));
        assert_eq!(SEARCH.highest(|_| Err("broken")), Err("broken"));
    }

    #[test]
    fn a_rate_that_fails_once_is_tried_again() {
        let search = Search {
            attempts: 2,
            ..SEARCH
        };
        let mut seen = std::collections::BTreeSet::new();
        let found = search.highest(|rate| Ok::<_, Infallible>(!seen.insert(rate)));
        assert_eq!(found, Ok(Some(SEARCH.most)));
    }
}
