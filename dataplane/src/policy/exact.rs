//! Exact endpoints: one address with one port, in a hash table of its own making. The hash is keyed
//! with a seed drawn for each snapshot, so that nobody outside can aim at one bucket.

use std::hash::{BuildHasher, RandomState};

use super::clause::Space;
use super::prefetch::prefetch;

/// The secret of one table.
#[derive(Clone, Copy)]
pub(super) struct Seed([u64; 4]);

impl Seed {
    /// Draws a seed. `RandomState` is the standard library's way to the kernel's randomness.
    fn random() -> Self {
        // Odd, so that no multiplication forgets its other operand.
        Self([0, 1, 2, 3].map(|i: u64| RandomState::new().hash_one(i) | 1))
    }
}

/// Both halves of the product, folded: the mixing step of wyhash.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

/// What a table holds.
pub(super) trait Key: Copy + Eq {
    /// A key that no endpoint has.
    const EMPTY: Self;
    fn hash(self, seed: &Seed) -> u64;
    /// 0 for equal keys, 1 for others: `!=` in arithmetic.
    fn differs(self, other: Self) -> u64;
}

/// 1 unless `bits` is 0.
#[inline(always)]
fn any_bit(bits: u64) -> u64 {
    (bits | bits.wrapping_neg()) >> 63
}

/// An IPv4 endpoint: address, port, space + 1.
impl Key for u64 {
    const EMPTY: Self = 0;

    #[inline(always)]
    fn hash(self, Seed([a, b, c, _]): &Seed) -> u64 {
        fold(fold(self ^ a, *b), *c)
    }

    #[inline(always)]
    fn differs(self, other: Self) -> u64 {
        any_bit(self ^ other)
    }
}

/// An IPv6 endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key6 {
    address: u128,
    /// Port and space + 1, as in the IPv4 key.
    tail: u64,
}

impl Key for Key6 {
    const EMPTY: Self = Self {
        address: 0,
        tail: 0,
    };

    #[inline(always)]
    fn hash(self, Seed([a, b, c, d]): &Seed) -> u64 {
        let low = fold(self.address as u64 ^ a, *b);
        let high = fold((self.address >> 64) as u64 ^ low, *c);
        fold(self.tail ^ high, *d)
    }

    #[inline(always)]
    fn differs(self, other: Self) -> u64 {
        let address = self.address ^ other.address;
        any_bit(address as u64 | (address >> 64) as u64 | (self.tail ^ other.tail))
    }
}

#[inline(always)]
fn tail(port: u16, space: Space) -> u64 {
    u64::from(port) << 16 | (space as u64 + 1)
}

/// The key of an IPv4 endpoint.
#[inline(always)]
pub(super) fn key4(address: u32, port: u16, space: Space) -> u64 {
    u64::from(address) << 32 | tail(port, space)
}

/// The key of an IPv6 endpoint.
#[inline(always)]
pub(super) fn key6(address: u128, port: u16, space: Space) -> Key6 {
    Key6 {
        address,
        tail: tail(port, space),
    }
}

/// Keys that one look compares: a cache line of IPv4 keys, two of IPv6. Filled from the front.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Bucket<K, const N: usize>([K; N]);

/// A set of keys. A power of two of buckets, at most half of whose room is taken; what does not fit its bucket
/// is in the next.
pub(super) struct Exact<K, const N: usize> {
    buckets: Box<[Bucket<K, N>]>,
    seed: Seed,
}

impl<K: Key, const N: usize> Exact<K, N> {
    pub(super) fn new(keys: &[K]) -> Self {
        let buckets = match keys.len() {
            0 => 0,
            n => (2 * n).next_power_of_two().div_ceil(N),
        };
        let mut table = Self {
            buckets: vec![Bucket([K::EMPTY; N]); buckets].into_boxed_slice(),
            seed: Seed::random(),
        };
        // Building misses the cache as often as looking up does: it, too, works in batches.
        let mut places = [0; 64];
        for batch in keys.chunks(places.len()) {
            for (place, key) in places.iter_mut().zip(batch) {
                *place = table.place(*key);
                table.prefetch(*place);
            }
            for (place, key) in places.iter().zip(batch) {
                table.insert(*place, *key);
            }
        }
        table
    }

    fn insert(&mut self, mut place: usize, key: K) {
        loop {
            for slot in &mut self.buckets[place].0 {
                if *slot == key {
                    return;
                }
                if *slot == K::EMPTY {
                    *slot = key;
                    return;
                }
            }
            place = (place + 1) & (self.buckets.len() - 1);
        }
    }

    /// The bucket where a key belongs.
    #[inline(always)]
    pub(super) fn place(&self, key: K) -> usize {
        key.hash(&self.seed) as usize & self.buckets.len().wrapping_sub(1)
    }

    #[inline(always)]
    pub(super) fn prefetch(&self, place: usize) {
        if let Some(bucket) = self.buckets.get(place) {
            prefetch(bucket);
            if size_of::<Bucket<K, N>>() > 64 {
                prefetch(&bucket.0[N / 2]);
            }
        }
    }

    /// Whether the table holds a key whose bucket is `place`.
    #[inline(always)]
    pub(super) fn contains(&self, mut place: usize, key: K) -> bool {
        // At most half of the room is taken: a bucket with room is always met.
        while let Some(Bucket(keys)) = self.buckets.get(place) {
            // All compared, none branched on: one prediction instead of N. With `==` and `|` the
            // compiler would make branches of it: 12 ns a frame instead of 7.
            if keys.iter().fold(1, |all, slot| all & slot.differs(key)) == 0 {
                return true;
            }
            if keys[N - 1] == K::EMPTY {
                return false;
            }
            place = (place + 1) & (self.buckets.len() - 1);
        }
        false
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn agrees<K: Key + std::hash::Hash + std::fmt::Debug, const N: usize>(
        keys: &[K],
        others: &[K],
    ) {
        let table = Exact::<K, N>::new(keys);
        let model: HashSet<_> = keys.iter().copied().collect();
        for &key in keys.iter().chain(others) {
            let found = table.contains(table.place(key), key);
            assert_eq!(found, model.contains(&key), "{key:?}");
        }
        let room = table.buckets.len() * N;
        assert!(room >= 2 * model.len(), "{} keys in {room}", model.len());
    }

    impl std::hash::Hash for Key6 {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            (self.address, self.tail).hash(state);
        }
    }

    proptest! {
        #[test]
        fn the_table_holds_its_keys_and_no_others(
            keys in prop::collection::vec(1u64..200, 0..150),
            wide in prop::collection::vec((any::<u16>(), 0u16..4), 0..300),
        ) {
            let others: Vec<u64> = (1..250).collect();
            agrees::<u64, 8>(&keys, &others);
            let key = |(address, port): (u16, u16)| key6(u128::from(address) << 100, port, Space::TcpTo);
            let keys: Vec<_> = wide.iter().copied().map(key).collect();
            let others: Vec<_> = (0..2000).map(|a| key((a, a % 5))).collect();
            agrees::<Key6, 4>(&keys, &others);
        }
    }

    #[test]
    fn no_endpoint_is_the_empty_key_and_none_is_another() {
        let spaces = [Space::TcpTo, Space::UdpTo, Space::TcpReply, Space::UdpFrom];
        let mut seen = HashSet::new();
        for address in [0, 1, u32::MAX] {
            for port in [0, 1, u16::MAX] {
                for space in spaces {
                    assert_ne!(key4(address, port, space), u64::EMPTY);
                    assert_ne!(key6(0, port, space), Key6::EMPTY);
                    assert!(seen.insert(key4(address, port, space)));
                }
            }
        }
    }
}
