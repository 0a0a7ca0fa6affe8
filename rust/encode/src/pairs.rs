//! Which two tokens merge, into which third and how early. Knows no bytes.

use crate::pages::Pages;
use crate::vocab::{fold, NONE};

/// What two neighbouring tokens merge into, and how early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merge {
    /// Merges of lower rank happen first.
    pub rank: u32,
    /// The token they become.
    pub id: u32,
}

/// Open addressing over (left, right); 16 bytes an entry, at most half full.
#[derive(Debug, Clone)]
pub(crate) struct MergeTable {
    entries: Pages<(u64, Merge)>,
    /// One bit for each hash of a pair that is there, eight times as many bits as entries: most pairs that are asked for do
    /// not merge, and this much stays in the second cache.
    filter: Vec<u64>,
}

impl MergeTable {
    const EMPTY: u64 = u64::MAX;

    /// Room for so many pairs.
    pub(crate) fn with_capacity(count: usize) -> Self {
        let size = (count * 2).next_power_of_two().max(16);
        MergeTable {
            entries: Pages::filled(size, (Self::EMPTY, Merge { rank: 0, id: NONE })),
            filter: vec![0; size / 8],
        }
    }

    /// The first merge of a pair stays.
    pub(crate) fn insert(&mut self, left: u32, right: u32, merge: Merge) {
        let key = u64::from(left) << 32 | u64::from(right);
        let mask = self.entries.len() - 1;
        let hash = fold(key);
        let (word, bit) = self.place(hash);
        self.filter[word] |= bit;
        let mut slot = hash as usize & mask;
        while self.entries[slot].0 != Self::EMPTY {
            if self.entries[slot].0 == key {
                return;
            }
            slot = (slot + 1) & mask;
        }
        self.entries[slot] = (key, merge);
    }

    #[inline(always)]
    pub(crate) fn get(&self, left: u32, right: u32) -> Option<Merge> {
        let key = u64::from(left) << 32 | u64::from(right);
        let mask = self.entries.len() - 1;
        let hash = fold(key);
        let (word, bit) = self.place(hash);
        if self.filter[word] & bit == 0 {
            return None;
        }
        let mut slot = hash as usize & mask;
        loop {
            let (found, merge) = self.entries[slot & mask];
            if found == key {
                return Some(merge);
            }
            if found == Self::EMPTY {
                return None;
            }
            slot += 1;
        }
    }

    /// Word and bit of a hash in the filter; from the upper half, the slot is from the lower.
    #[inline(always)]
    fn place(&self, hash: u64) -> (usize, u64) {
        ((hash >> 38) as usize & (self.filter.len() - 1), 1 << (hash >> 32 & 63))
    }

    /// All pairs, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u32, Merge)> + '_ {
        self.entries
            .iter()
            .filter(|(key, _)| *key != Self::EMPTY)
            .map(|&(key, merge)| ((key >> 32) as u32, key as u32, merge))
    }
}
