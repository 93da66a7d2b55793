//! How long stamped frames took to the ingress of an interface, seen from outside: `perf/bpf/latency.c` before
//! all other programs there (TCX, Linux 6.6).

use aya::{
    Ebpf, EbpfError, EbpfLoader, include_bytes_aligned,
    maps::{MapError, PerCpuArray},
    programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, tc::TcAttachOptions},
};

/// `BITS` of the program.
const BITS: u32 = 6;
/// `BUCKETS` of the program.
const BUCKETS: u32 = 32 << BITS;

/// The program on one interface; dropped, it is gone.
pub struct Probe {
    ebpf: Ebpf,
}

impl Probe {
    /// Attaches it to an interface of the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// Without privilege, interface or TCX.
    pub fn attach(interface: &str) -> Result<Self, EbpfError> {
        let mut ebpf = EbpfLoader::new().load(include_bytes_aligned!("../bpf/latency.bpf.o"))?;
        let program: &mut SchedClassifier = ebpf
            .program_mut("latency")
            .ok_or(ProgramError::NotLoaded)?
            .try_into()?;
        program.load()?;
        program.attach_with_options(
            interface,
            TcAttachType::Ingress,
            TcAttachOptions::TcxOrder(LinkOrder::first()),
        )?;
        Ok(Self { ebpf })
    }

    /// What it has seen so far.
    ///
    /// # Errors
    ///
    /// When the kernel does not hand out the counts.
    pub fn read(&self) -> Result<Distribution, EbpfError> {
        let map = |name: &str| {
            let map = self.ebpf.map(name).ok_or_else(|| MapError::InvalidName {
                name: name.to_owned(),
            })?;
            PerCpuArray::<_, u64>::try_from(map)
        };
        let (histogram, longest) = (map("histogram")?, map("longest")?);
        let counts = (0..BUCKETS)
            .map(|bucket| Ok(histogram.get(&bucket, 0)?.iter().sum()))
            .collect::<Result<_, MapError>>()?;
        Ok(Distribution {
            counts,
            longest: longest.get(&0, 0)?.iter().copied().max().unwrap_or(0),
        })
    }
}

/// How long frames took, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    counts: Vec<u64>,
    longest: u64,
}

impl Distribution {
    /// Frames.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The longest.
    pub fn max(&self) -> u64 {
        self.longest
    }

    /// The time that a share of the frames, 0 to 1, did not exceed. 0 without frames.
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                let (from, width) = bounds(bucket as u32);
                return (from + width - 1).min(self.longest);
            }
        }
        self.longest
    }

    /// The standard deviation. 0 without frames.
    pub fn deviation(&self) -> f64 {
        let total = self.count().max(1) as f64;
        let values = || {
            self.counts.iter().enumerate().map(|(bucket, &count)| {
                let (from, width) = bounds(bucket as u32);
                (from as f64 + (width - 1) as f64 / 2.0, count as f64)
            })
        };
        let mean = values().map(|(value, count)| value * count).sum::<f64>() / total;
        let square = values().map(|(value, count)| (value - mean).powi(2) * count);
        (square.sum::<f64>() / total).sqrt()
    }
}

/// The least value of a bucket, and how many it holds.
fn bounds(bucket: u32) -> (u64, u64) {
    let group = bucket >> BITS;
    if group < 2 {
        return (bucket.into(), 1);
    }
    let shift = group - 1;
    let steps = u64::from(bucket - (shift << BITS));
    (steps << shift, 1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bucket of a value, as the program finds it.
    fn bucket(value: u64) -> u32 {
        if value >> BITS == 0 {
            return value as u32;
        }
        let shift = value.ilog2() - BITS;
        ((shift << BITS) + (value >> shift) as u32).min(BUCKETS - 1)
    }

    #[test]
    fn buckets_follow_each_other_and_are_narrow() {
        let mut next = 0;
        for bucket in 0..BUCKETS {
            let (from, width) = bounds(bucket);
            assert_eq!(from, next, "{bucket}");
            assert!(width == 1 || width * 64 <= from, "{bucket}");
            next = from + width;
        }
        for value in [0, 1, 63, 64, 127, 128, 129, 1000, 65_535, 1 << 30, next - 1] {
            let (from, width) = bounds(bucket(value));
            assert!((from..from + width).contains(&value), "{value}");
        }
    }

    #[test]
    fn a_distribution_knows_its_quantiles() {
        let of = |values: &[(u64, u64)]| {
            let mut counts = vec![0; BUCKETS as usize];
            for &(value, n) in values {
                counts[bucket(value) as usize] += n;
            }
            let longest = values.iter().map(|(value, _)| *value).max();
            Distribution {
                counts,
                longest: longest.unwrap_or(0),
            }
        };
        let some = of(&[(10, 50), (20, 49), (1_000_000, 1)]);
        assert_eq!(
            [0.5, 0.51, 0.99, 0.999].map(|q| some.quantile(q)),
            [10, 20, 20, 1_000_000]
        );
        assert_eq!(of(&[(7, 1000)]).deviation(), 0.0);
        assert_eq!(of(&[(10, 5), (30, 5)]).deviation(), 10.0);
        assert_eq!((of(&[]).quantile(0.5), of(&[]).deviation()), (0, 0.0));
    }
}
