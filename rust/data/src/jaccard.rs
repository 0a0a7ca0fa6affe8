//! Jaccard: the exact similarity of two texts, from the sets of their shingle hashes.
//!
//! The sets are open-addressing tables whose memory is reused. Two different shingles share a 64-bit hash with a chance of 2^-64.

use crate::reading::Reading;

/// A set of shingle hashes.
#[derive(Debug, Default)]
pub struct ShingleSet {
    slots: Vec<u64>,
    shift: u32,
    len: usize,
    has_zero: bool,
    buffer: Vec<u8>,
}

impl ShingleSet {
    /// Number of distinct shingles.
    pub fn len(&self) -> usize {
        self.len + usize::from(self.has_zero)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forget everything and make room for about `expected` hashes.
    fn reset(&mut self, expected: usize) {
        let capacity = (expected + expected / 3).next_power_of_two().max(64);
        self.slots.clear();
        self.slots.resize(capacity, 0);
        self.shift = 64 - capacity.trailing_zeros();
        self.len = 0;
        self.has_zero = false;
    }

    #[inline(always)]
    fn slot(&self, hash: u64) -> usize {
        (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    /// Add a hash; true when it was not there.
    #[inline(always)]
    fn insert(&mut self, hash: u64) -> bool {
        if hash == 0 {
            return !std::mem::replace(&mut self.has_zero, true);
        }
        let mask = self.slots.len() - 1;
        let mut at = self.slot(hash);
        loop {
            let held = self.slots[at];
            if held == hash {
                return false;
            }
            if held == 0 {
                self.slots[at] = hash;
                self.len += 1;
                if 4 * self.len > 3 * self.slots.len() {
                    self.grow();
                }
                return true;
            }
            at = (at + 1) & mask;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let doubled = vec![0; 2 * self.slots.len()];
        let old = std::mem::replace(&mut self.slots, doubled);
        self.shift -= 1;
        self.len = 0;
        for hash in old.into_iter().filter(|&hash| hash != 0) {
            self.insert(hash);
        }
    }

    #[inline(always)]
    fn contains(&self, hash: u64) -> bool {
        if hash == 0 {
            return self.has_zero;
        }
        let mask = self.slots.len() - 1;
        let mut at = self.slot(hash);
        loop {
            match self.slots[at] {
                0 => return false,
                held if held == hash => return true,
                _ => at = (at + 1) & mask,
            }
        }
    }

    /// The distinct shingles of `text` in the order in which they first stand there; this set is scratch.
    pub fn distinct(&mut self, text: &[u8], reading: Reading) -> Vec<u64> {
        // two bytes a word is the least there can be, about nine is usual; `grow` corrects a guess that was too small
        self.reset(text.len() / 8);
        let mut found = Vec::with_capacity(text.len() / 8);
        let mut buffer = std::mem::take(&mut self.buffer);
        reading.for_each_shingle(text, &mut buffer, |hash| {
            if self.insert(hash) {
                found.push(hash);
            }
        });
        self.buffer = buffer;
        found
    }

    /// Become the set of these distinct shingles.
    pub fn fill(&mut self, distinct: &[u64]) {
        self.reset(distinct.len());
        for &hash in distinct {
            self.insert(hash);
        }
    }

    /// Similarity of this set with that of distinct shingles. Two empty sets have 0.
    pub fn jaccard(&self, distinct: &[u64]) -> f64 {
        let shared = distinct.iter().filter(|&&hash| self.contains(hash)).count();
        match self.len() + distinct.len() - shared {
            0 => 0.0,
            together => shared as f64 / together as f64,
        }
    }
}

/// The exact similarity of two texts.
pub fn jaccard(left: &[u8], right: &[u8], reading: Reading) -> f64 {
    let mut set = ShingleSet::default();
    let (left, right) = (set.distinct(left, reading), set.distinct(right, reading));
    set.fill(&left);
    set.jaccard(&right)
}
