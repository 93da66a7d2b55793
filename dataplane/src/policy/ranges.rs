//! Longest-prefix match. Nested prefixes are cut into disjoint ranges of addresses, each of which
//! knows the rule set of the longest prefix around it; a range is found in a static search tree whose
//! nodes are whole cache lines. Depth depends on the number of prefixes alone, never on their length:
//! hosts, IPv4 and IPv6 all cost the same few lines, and memory is linear in the prefixes.

use super::prefetch::prefetch;

/// An address, as a number.
pub(super) trait Address: Copy + Ord + Default + Into<u128> {
    const MAX: Self;
    /// Whether it is of IPv6.
    const V6: bool;
    /// From the number that stands for an address of either family.
    fn narrow(number: u128) -> Self;
    fn checked_next(self) -> Option<Self>;
}

impl Address for u32 {
    const MAX: Self = Self::MAX;
    const V6: bool = false;

    #[inline(always)]
    fn narrow(number: u128) -> Self {
        number as Self
    }

    fn checked_next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Address for u128 {
    const MAX: Self = Self::MAX;
    const V6: bool = true;

    #[inline(always)]
    fn narrow(number: u128) -> Self {
        number
    }

    fn checked_next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Node<A, const N: usize>([A; N]);

/// A map from every address to a value; the default value where nothing was said.
pub(super) struct Ranges<A, const N: usize> {
    /// Level by level from the root. A key is the first address below it; missing keys are `MAX`.
    nodes: Vec<Node<A, N>>,
    /// Where each level begins in `nodes`.
    levels: Vec<usize>,
    /// The value of each range, in the order of the lowest level's keys.
    values: Vec<u32>,
}

impl<A: Address, const N: usize> Ranges<A, N> {
    /// `ranges`: the first address of each range, rising from 0, and its value. Empty: all default.
    pub(super) fn new(ranges: &[(A, u32)]) -> Self {
        let mut level: Vec<A> = ranges.iter().map(|&(first, _)| first).collect();
        let mut levels = Vec::new();
        while !level.is_empty() {
            let nodes: Vec<_> = level
                .chunks(N)
                .map(|keys| {
                    let mut node = Node([A::MAX; N]);
                    node.0[..keys.len()].copy_from_slice(keys);
                    node
                })
                .collect();
            level = match nodes.len() {
                1 => Vec::new(),
                _ => nodes.iter().map(|node| node.0[0]).collect(),
            };
            levels.push(nodes);
        }
        levels.reverse();
        let mut begin = 0;
        Self {
            levels: levels
                .iter()
                .map(|level| {
                    begin += level.len();
                    begin - level.len()
                })
                .collect(),
            nodes: levels.concat(),
            values: ranges.iter().map(|&(_, value)| value).collect(),
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Writes the values of a batch of addresses into `values`. All descend one level at a time, so
    /// that their misses overlap.
    #[inline]
    pub(super) fn lookup(&self, addresses: &[A], values: &mut [u32]) {
        let at = values;
        at.fill(0);
        for (depth, &begin) in self.levels.iter().enumerate() {
            let end = self.levels.get(depth + 1).copied();
            let nodes = &self.nodes[begin..end.unwrap_or(self.nodes.len())];
            let (below, last) = match end {
                Some(end) => (&self.nodes[end..], self.width(depth + 1) - 1),
                None => (&[][..], self.values.len() - 1),
            };
            for (at, &address) in at.iter_mut().zip(addresses) {
                let Some(Node(keys)) = nodes.get(*at as usize) else {
                    continue;
                };
                // The keys rise, so that those at most the address are the first ones: their number is that
                // of the trailing ones of a mask, which needs no instruction that old processors lack.
                let below_or_at: u32 = keys.iter().enumerate().fold(0, |mask: u32, (bit, key)| {
                    mask | u32::from(*key <= address) << bit
                });
                let rank = below_or_at.trailing_ones();
                // The first key of a node is at most the address, which is how we came here. The
                // padding counts only for the highest address, whence the limit.
                let next = (*at as usize * N + rank as usize).wrapping_sub(1).min(last);
                *at = next as u32;
                match below.get(next) {
                    Some(node) => prefetch(node),
                    None => {
                        if let Some(value) = self.values.get(next) {
                            prefetch(value);
                        }
                    }
                }
            }
        }
        for at in at.iter_mut() {
            *at = self.values.get(*at as usize).copied().unwrap_or(0);
        }
    }

    /// How many nodes a level has.
    fn width(&self, depth: usize) -> usize {
        let end = self.levels.get(depth + 1).copied();
        end.unwrap_or(self.nodes.len()) - self.levels[depth]
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.nodes) + size_of_val(&*self.values)
    }
}

/// Cuts prefixes into ranges. Fed prefixes by their first address, longer ones behind the shorter
/// ones that they share it with.
pub(super) struct Cutter<A, T> {
    ranges: Vec<(A, u32)>,
    /// The prefixes around the current address, outermost first: last address, value, what belongs to it.
    open: Vec<(A, u32, T)>,
}

impl<A: Address, T> Cutter<A, T> {
    pub(super) fn new() -> Self {
        Self {
            ranges: Vec::new(),
            open: Vec::new(),
        }
    }

    /// The innermost prefix that holds the address, after closing those that end before it.
    pub(super) fn enclosing(&mut self, first: A) -> Option<&T> {
        while let Some(&(last, ..)) = self.open.last()
            && last < first
        {
            self.close();
        }
        self.open.last().map(|(_, _, belonging)| belonging)
    }

    /// Opens a prefix, whose [`enclosing`](Self::enclosing) one was asked for just before.
    pub(super) fn open(&mut self, first: A, last: A, value: u32, belonging: T) {
        if self.ranges.is_empty() && first > A::default() {
            self.ranges.push((A::default(), 0));
        }
        self.begin(first, value);
        self.open.push((last, value, belonging));
    }

    /// The ranges of everything fed.
    pub(super) fn finish(mut self) -> Vec<(A, u32)> {
        while !self.open.is_empty() {
            self.close();
        }
        self.ranges
    }

    fn close(&mut self) {
        let Some((last, ..)) = self.open.pop() else {
            return;
        };
        let around = self.open.last().map_or(0, |&(_, value, _)| value);
        if let Some(next) = last.checked_next() {
            self.begin(next, around);
        }
    }

    fn begin(&mut self, first: A, value: u32) {
        if let Some(last) = self.ranges.last_mut()
            && last.0 == first
        {
            last.1 = value;
        } else {
            self.ranges.push((first, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The value of the longest of the prefixes (first, length, value) around an address.
    fn longest(prefixes: &[(u32, u8, u32)], address: u32) -> u32 {
        prefixes
            .iter()
            .filter(|&&(first, length, _)| {
                length == 0 || (first ^ address) >> (32 - u32::from(length)) == 0
            })
            .max_by_key(|&&(_, length, _)| length)
            .map_or(0, |&(_, _, value)| value)
    }

    fn mask(length: u8) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
    }

    fn cut(prefixes: &mut Vec<(u32, u8, u32)>) -> Vec<(u32, u32)> {
        prefixes.sort_unstable();
        prefixes.dedup_by_key(|&mut (first, length, _)| (first, length));
        let mut cutter = Cutter::new();
        for &(first, length, value) in &*prefixes {
            cutter.enclosing(first);
            cutter.open(first, first | !mask(length), value, ());
        }
        cutter.finish()
    }

    proptest! {
        #[test]
        fn the_longest_prefix_wins(
            prefixes in prop::collection::vec((any::<u32>(), 0u8..=32, 1u32..50), 0..120),
            crowded in prop::collection::vec((0u32..64, 24u8..=32, 1u32..50), 0..60),
            probes in prop::collection::vec(any::<u32>(), 1..64),
        ) {
            let crowded = crowded.into_iter().flat_map(|(low, length, value)| {
                // At both ends of the address space, where padding and overflow live.
                [(low, length, value), (u32::MAX - low, length, value)]
            });
            let mut prefixes: Vec<_> = prefixes
                .into_iter()
                .chain(crowded)
                .map(|(address, length, value)| (address & mask(length), length, value))
                .collect();
            let ranges = cut(&mut prefixes);
            prop_assert!(ranges.is_sorted_by(|a, b| a.0 < b.0));
            let probes: Vec<u32> = probes
                .into_iter()
                .chain((0..64).flat_map(|low| [low, u32::MAX - low]))
                .chain(ranges.iter().flat_map(|&(first, _)| [first, first.wrapping_sub(1)]))
                .collect();
            let mut values = vec![0; probes.len()];
            Ranges::<u32, 16>::new(&ranges).lookup(&probes, &mut values);
            for (&probe, &value) in probes.iter().zip(&values) {
                prop_assert_eq!(value, longest(&prefixes, probe), "{:#x}", probe);
            }
            // A node of another width, and wide keys: the same answers.
            let wide: Vec<_> = ranges.iter().map(|&(first, value)| (u128::from(first), value)).collect();
            let wide_probes: Vec<_> = probes.iter().map(|&probe| u128::from(probe)).collect();
            let mut wide_values = vec![0; probes.len()];
            Ranges::<u128, 8>::new(&wide).lookup(&wide_probes, &mut wide_values);
            prop_assert_eq!(values, wide_values);
        }
    }

    #[test]
    fn every_size_of_tree_finds_every_key() {
        for size in (0..70).chain([255, 256, 257, 4095, 4096, 4097]) {
            let ranges: Vec<_> = (0..size).map(|i| (i * 10, i + 1)).collect();
            let tree = Ranges::<u32, 16>::new(&ranges);
            assert_eq!(tree.is_empty(), size == 0);
            let probes: Vec<_> = (0..size * 10).chain([u32::MAX]).collect();
            let mut values = vec![0; probes.len()];
            tree.lookup(&probes, &mut values);
            for (&probe, &value) in probes.iter().zip(&values) {
                let expected = if size == 0 {
                    0
                } else {
                    probe.min(size * 10 - 1) / 10 + 1
                };
                assert_eq!(value, expected, "{probe} in {size}");
            }
        }
    }
}
