//! Which two tokens merge, how early, and into which third. Knows no bytes.

use crate::pages::Pages;
use crate::vocab::{fold, NONE};

/// Open addressing over (left, right): both and the rank in the 64 bits of an entry, so that the table of a common vocabulary
/// fits the second cache.
#[derive(Debug, Clone)]
pub(crate) struct MergeTable {
    entries: Pages<u64>,
    /// One bit for each hash of a pair that is there, sixteen times as many bits as entries: most pairs that are asked for do
    /// not merge.
    filter: Pages<u64>,
    /// Bits of an id; two of them above the rank.
    id_bits: u32,
    /// The token that each rank makes.
    results: Vec<u32>,
}

const EMPTY: u64 = u64::MAX;

impl MergeTable {
    /// Room for `count` pairs of ids below `num_ids` and with ranks below `num_ranks`; `None` if these are too many for an entry.
    pub(crate) fn new(num_ids: usize, num_ranks: usize, count: usize) -> Option<Self> {
        // No id has all bits set, so no entry looks empty.
        let id_bits = usize::BITS - num_ids.leading_zeros();
        if id_bits > 24 || num_ranks > 1 << (u64::BITS - 2 * id_bits) {
            return None;
        }
        let size = (count + count / 4).next_power_of_two().max(64);
        let (entries, filter) = (Pages::filled(size, EMPTY), Pages::filled(size / 4, 0));
        Some(MergeTable { entries, filter, id_bits, results: vec![NONE; num_ranks] })
    }

    /// The first merge of a pair stays.
    pub(crate) fn insert(&mut self, left: u32, right: u32, rank: u32, result: u32) {
        let (key, rank_bits) = (self.key(left, right), self.rank_bits());
        let hash = fold(key);
        let (word, bit) = self.place(hash);
        self.filter[word] |= bit;
        let mask = self.entries.len() - 1;
        let mut slot = hash as usize & mask;
        while self.entries[slot] != EMPTY {
            if self.entries[slot] >> rank_bits == key {
                return;
            }
            slot = (slot + 1) & mask;
        }
        self.entries[slot] = key << rank_bits | u64::from(rank);
        self.results[rank as usize] = result;
    }

    /// The rank at which two neighbours merge; [`NONE`] if they do not.
    #[inline(always)]
    pub(crate) fn rank(&self, left: u32, right: u32) -> u32 {
        let (key, rank_bits) = (self.key(left, right), self.rank_bits());
        let hash = fold(key);
        let (word, bit) = self.place(hash);
        if self.filter[word] & bit == 0 {
            return NONE;
        }
        let mask = self.entries.len() - 1;
        let mut slot = hash as usize;
        loop {
            let entry = self.entries[slot & mask];
            if entry >> rank_bits == key {
                return (entry & ((1 << rank_bits) - 1)) as u32;
            }
            if entry == EMPTY {
                return NONE;
            }
            slot += 1;
        }
    }

    /// The token that the merge of a rank makes.
    #[inline(always)]
    pub(crate) fn result(&self, rank: u32) -> u32 {
        self.results[rank as usize]
    }

    /// One more than the highest rank there is room for.
    pub(crate) fn num_ranks(&self) -> usize {
        self.results.len()
    }

    #[inline(always)]
    fn key(&self, left: u32, right: u32) -> u64 {
        u64::from(left) << self.id_bits | u64::from(right)
    }

    #[inline(always)]
    fn rank_bits(&self) -> u32 {
        u64::BITS - 2 * self.id_bits
    }

    /// Word and bit of a hash in the filter; from the upper half, the slot is from the lower.
    #[inline(always)]
    fn place(&self, hash: u64) -> (usize, u64) {
        ((hash >> 38) as usize & (self.filter.len() - 1), 1 << (hash >> 32 & 63))
    }

    /// All pairs with their ranks, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u32, u32)> + '_ {
        let (id_bits, rank_bits) = (self.id_bits, self.rank_bits());
        let id = move |bits: u64| (bits & ((1 << id_bits) - 1)) as u32;
        self.entries.iter().filter(|&&entry| entry != EMPTY).map(move |&entry| {
            (id(entry >> (rank_bits + id_bits)), id(entry >> rank_bits), (entry & ((1 << rank_bits) - 1)) as u32)
        })
    }
}
