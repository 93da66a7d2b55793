//! One verdict in a batch of 64, and the lookup of the same keys in sets.

use std::{collections::HashSet, hint::black_box, time::Instant};

use dataplane::{
    packet::Headers,
    policy::{PolicySpec, Reason, Rule, Snapshot, Verdict, judge},
};

use super::rules::{self, Kind, Traffic};
use crate::{measure::Spread, peer::flat_set::FlatSet};

/// Frames of a batch, as a worker judges them.
const BATCH: usize = 64;
/// Batches that are made, then judged, at a time: few enough for their headers to stay in the cache, so many
/// that reading the clock costs nothing.
const BATCHES: usize = 32;

/// One policy, and the same rules in what it is compared with.
pub(super) struct Subjects {
    snapshot: Snapshot,
    /// For rules that are keys.
    sets: Option<(HashSet<u64>, FlatSet)>,
}

/// Nanoseconds a frame.
pub(super) struct Cost {
    pub(super) judge: f64,
    /// Of the standard library's set, and of the flat one.
    pub(super) sets: Option<(f64, f64)>,
}

impl Subjects {
    pub(super) fn new(kind: Kind, rules: Vec<Rule>) -> Result<Self, String> {
        let sets = (kind == Kind::Exact).then(|| {
            let keys: Vec<u64> = (0..rules.len())
                .map(|at| rules::key(&rules::frame(&rules, at as u64, Traffic::Hit)))
                .collect();
            let flat = FlatSet::new(keys.iter().copied());
            (keys.into_iter().collect(), flat)
        });
        let spec = PolicySpec {
            rules,
            ..PolicySpec::default()
        };
        let snapshot = Snapshot::compile(&spec, 1).map_err(|e| e.to_string())?;
        Ok(Self { snapshot, sets })
    }

    /// Judges at least so many frames, each once: every batch is new and random, so that large tables miss the
    /// caches as they do in use. The cost is the median over groups of batches.
    pub(super) fn measure(&self, traffic: Traffic, frames: usize, seed: u64) -> Cost {
        let mut random = rules::scattered(seed);
        let mut headers = vec![[Headers::default(); BATCH]; BATCHES];
        let mut keys = vec![[0; BATCH]; BATCHES];
        let mut verdicts = [Verdict::Drop(Reason::Shutdown); BATCH];
        let mut found = [false; BATCH];
        let (mut judged, mut hashed, mut flat) = (Vec::new(), Vec::new(), Vec::new());
        let each = |began: Instant| began.elapsed().as_nanos() as f64 / (BATCH * BATCHES) as f64;
        for _ in 0..frames.div_ceil(BATCH * BATCHES) {
            fill(&mut headers, self.snapshot.rules(), &mut random, traffic);
            let began = Instant::now();
            for batch in &headers {
                judge(black_box(batch), &self.snapshot, &mut verdicts);
                black_box(&verdicts);
            }
            judged.push(each(began));

            let Some((set, table)) = &self.sets else {
                continue;
            };
            // New frames for each, or the first would warm the caches for the next.
            fill(&mut headers, self.snapshot.rules(), &mut random, traffic);
            to_keys(&headers, &mut keys);
            let began = Instant::now();
            for batch in &keys {
                for (found, key) in found.iter_mut().zip(black_box(batch)) {
                    *found = set.contains(key);
                }
                black_box(&found);
            }
            hashed.push(each(began));

            fill(&mut headers, self.snapshot.rules(), &mut random, traffic);
            to_keys(&headers, &mut keys);
            let began = Instant::now();
            for batch in &keys {
                table.contains(black_box(batch), &mut found);
                black_box(&found);
            }
            flat.push(each(began));
        }
        let median = |numbers: Vec<f64>| Spread::of(numbers).median;
        Cost {
            judge: median(judged),
            sets: self.sets.is_some().then(|| (median(hashed), median(flat))),
        }
    }
}

fn fill(
    batches: &mut [[Headers; BATCH]],
    rules: &[Rule],
    random: &mut impl Iterator<Item = u64>,
    traffic: Traffic,
) {
    let frames = batches.iter_mut().flatten();
    for (headers, random) in frames.zip(random) {
        *headers = rules::frame(rules, random, traffic);
    }
}

fn to_keys(batches: &[[Headers; BATCH]], keys: &mut [[u64; BATCH]]) {
    for (headers, key) in batches.iter().flatten().zip(keys.iter_mut().flatten()) {
        *key = rules::key(headers);
    }
}
