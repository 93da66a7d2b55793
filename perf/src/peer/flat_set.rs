//! The least that a lookup can cost: a flat table of 64-bit keys, at most half full, with one multiplication as
//! its hash. Of a batch, all first slots are read before any is compared, so that their misses overlap.

/// A set of keys above 0.
pub(crate) struct FlatSet {
    slots: Vec<u64>,
    shift: u32,
}

impl FlatSet {
    /// Of these keys.
    pub(crate) fn new(keys: impl ExactSizeIterator<Item = u64>) -> Self {
        let size = (keys.len() * 2).next_power_of_two().max(2);
        let mut set = Self {
            slots: vec![0; size],
            shift: 64 - size.trailing_zeros(),
        };
        for key in keys {
            let mut at = set.first(key);
            while set.slots[at] != 0 && set.slots[at] != key {
                at = (at + 1) & (size - 1);
            }
            set.slots[at] = key;
        }
        set
    }

    fn first(&self, key: u64) -> usize {
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    /// Which of a batch are in it.
    pub(crate) fn contains(&self, keys: &[u64; 64], found: &mut [bool; 64]) {
        let mut slots = [(0, 0); 64];
        for (slot, &key) in slots.iter_mut().zip(keys) {
            let at = self.first(key);
            *slot = (at, self.slots[at]);
        }
        for ((found, &key), &(mut at, mut slot)) in found.iter_mut().zip(keys).zip(&slots) {
            while slot != 0 && slot != key {
                at = (at + 1) & (self.slots.len() - 1);
                slot = self.slots[at];
            }
            *found = slot == key;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_what_it_was_given() {
        // Multiples collide in any table this small.
        let set = FlatSet::new((1..33_u32).map(|n| u64::from(n) << 40));
        let keys = std::array::from_fn(|n| (n as u64 + 1) << 40);
        let mut found = [false; 64];
        set.contains(&keys, &mut found);
        for (n, found) in found.iter().enumerate() {
            assert_eq!(*found, n < 32, "{n}");
        }
    }
}
