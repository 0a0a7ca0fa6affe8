//! Sketch: a MinHash signature by Fast Similarity Sketching (Dahlgaard, Knudsen, Thorup, FOCS 2017, arXiv 1704.04370).
//!
//! In round i every shingle picks a place and a value with hash function i, and a place keeps the smallest (round, value). Rounds go on
//! until every place is filled, so a long text needs one round and a short one a few. The share of equal places of two signatures
//! estimates the Jaccard similarity J without bias, with a standard deviation of at most sqrt(J (1 - J) / places):
//! 0.035 at J = 0.8 and 128 places. Places are stored as 32-bit digests, which adds 2^-32 to the share.

use crate::error::DataError;
use crate::hash::{fold, split_mix, K};
use crate::reading::Reading;

const EMPTY: u64 = u64::MAX;
const VALUE_BITS: u32 = 48;

/// The hash functions of one seed; shared by threads.
#[derive(Debug, Clone)]
pub struct Sketch {
    rounds: Vec<(u64, u64)>,
    num_perm: usize,
    reading: Reading,
}

/// Scratch memory of one thread, reused from text to text.
#[derive(Debug, Default)]
pub struct Scratch {
    shingles: Vec<u64>,
    places: Vec<u64>,
    buffer: Vec<u8>,
}

impl Sketch {
    /// Hash functions for signatures of `num_perm` places over what `reading` gives.
    pub fn new(num_perm: usize, seed: u64, reading: Reading) -> Result<Self, DataError> {
        reading.check()?;
        if num_perm % 8 != 0 || !(8..=1024).contains(&num_perm) {
            return Err(DataError::NumPerm(num_perm));
        }
        let rounds =
            (0..2 * num_perm as u64).map(|i| (split_mix(seed, 2 * i), split_mix(seed, 2 * i + 1) | 1)).collect();
        Ok(Self { rounds, num_perm, reading })
    }

    /// Places of a signature.
    pub fn num_perm(&self) -> usize {
        self.num_perm
    }

    /// Write the signature of `text` (`num_perm` places); returns the number of shingles, repeats included. Without shingles the
    /// signature is all zero and means nothing.
    pub fn signature(&self, text: &[u8], scratch: &mut Scratch, signature: &mut [u32]) -> usize {
        let Scratch { shingles, places, buffer } = scratch;
        shingles.clear();
        let slots = self.empty(places);
        let (key, factor) = self.rounds[0];
        let num_places = self.num_perm as u64;
        self.reading.for_each_shingle(text, buffer, |shingle| {
            shingles.push(shingle);
            place(slots, fold(shingle ^ key, factor), num_places, 0);
        });
        self.fill_up(shingles, places, signature);
        shingles.len()
    }

    /// Write the signature of a set of ready 64-bit shingle hashes.
    pub fn signature_of(&self, shingles: &[u64], scratch: &mut Scratch, signature: &mut [u32]) {
        let slots = self.empty(&mut scratch.places);
        let (key, factor) = self.rounds[0];
        let num_places = self.num_perm as u64;
        for &shingle in shingles {
            place(slots, fold(shingle ^ key, factor), num_places, 0);
        }
        self.fill_up(shingles, &mut scratch.places, signature);
    }

    fn empty<'a>(&self, places: &'a mut Vec<u64>) -> &'a mut [u64] {
        places.clear();
        places.resize(self.num_perm, EMPTY);
        places.as_mut_slice()
    }

    /// The rounds after the first, for places that are still empty.
    fn fill_up(&self, shingles: &[u64], places: &mut [u64], signature: &mut [u32]) {
        debug_assert_eq!(signature.len(), self.num_perm);
        if shingles.is_empty() {
            signature.fill(0);
            return;
        }
        let num_places = self.num_perm as u64;
        let mut round = 1;
        while round < self.num_perm && places.contains(&EMPTY) {
            let (key, factor) = self.rounds[round];
            for &shingle in shingles {
                place(places, fold(shingle ^ key, factor), num_places, round as u64);
            }
            round += 1;
        }
        for (index, slot) in places.iter_mut().enumerate() {
            if *slot == EMPTY {
                // the last rounds of the method: round num_perm + i fills place i alone
                let round = self.num_perm + index;
                let (key, factor) = self.rounds[round];
                let smallest = shingles.iter().map(|&s| value(fold(s ^ key, factor))).min().unwrap_or(0);
                *slot = smallest | (round as u64) << VALUE_BITS;
            }
        }
        for (digest, &slot) in signature.iter_mut().zip(places.iter()) {
            *digest = (fold(slot ^ K[3], K[0]) >> 32) as u32;
        }
    }
}

#[inline(always)]
fn value(hash: u64) -> u64 {
    hash & ((1 << VALUE_BITS) - 1)
}

/// Sixteen bits of the hash choose the place, the other forty-eight are the value.
#[inline(always)]
fn place(places: &mut [u64], hash: u64, num_places: u64, round: u64) {
    let index = (((hash >> VALUE_BITS) * num_places) >> 16) as usize;
    let ranked = value(hash) | round << VALUE_BITS;
    let slot = &mut places[index];
    if ranked < *slot {
        *slot = ranked;
    }
}

/// The share of equal places.
pub fn estimate(left: &[u32], right: &[u32]) -> f64 {
    f64::from(equal_places(left, right)) / left.len() as f64
}

/// The number of equal places.
#[inline]
pub fn equal_places(left: &[u32], right: &[u32]) -> u32 {
    left.iter().zip(right).map(|(a, b)| u32::from(a == b)).sum()
}
