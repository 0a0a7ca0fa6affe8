//! How often each piece occurs in a corpus: the only thing that training needs to know of it. Knows no tokens.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cache::{packed, SHORT};
use crate::split::Scheme;
use crate::vocab::{fold, hash_bytes};

/// A hasher for keys that are numbers or byte strings, quick and without a seed.
#[derive(Default)]
pub(crate) struct FoldHasher(u64);

impl Hasher for FoldHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = fold(self.0 ^ hash_bytes(bytes));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = fold(self.0 ^ word ^ 0x9e37_79b9_7f4a_7c15);
    }

    fn write_u128(&mut self, word: u128) {
        self.write_u64(word as u64);
        self.write_u64((word >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

pub(crate) type FoldMap<K, V> = HashMap<K, V, BuildHasherDefault<FoldHasher>>;

/// Counts of pieces under one split pattern.
pub struct PieceCounts {
    scheme: Scheme,
    /// Pieces of at most 15 bytes, packed with their length in one number.
    short: FoldMap<u128, u64>,
    long: FoldMap<Box<[u8]>, u64>,
    bytes: u64,
}

impl PieceCounts {
    /// Nothing counted yet.
    pub fn new(scheme: Scheme) -> Self {
        PieceCounts { scheme, short: FoldMap::default(), long: FoldMap::default(), bytes: 0 }
    }

    /// Number of different pieces.
    pub fn len(&self) -> usize {
        self.short.len() + self.long.len()
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all texts so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The split pattern.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Counts the pieces of some texts with several threads; the result does not depend on their number.
    pub fn add(&mut self, texts: &[&str], threads: usize) {
        let threads = threads.clamp(1, texts.len().max(1));
        if threads == 1 {
            for text in texts {
                self.add_one(text);
            }
            return;
        }
        let turn = AtomicUsize::new(0);
        let scheme = self.scheme;
        let parts: Vec<PieceCounts> = std::thread::scope(|scope| {
            let work = || {
                let mut part = PieceCounts::new(scheme);
                while let Some(text) = texts.get(turn.fetch_add(1, Ordering::Relaxed)) {
                    part.add_one(text);
                }
                part
            };
            let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            handles
                .into_iter()
                .map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        for part in parts {
            self.merge(part);
        }
    }

    fn merge(&mut self, other: PieceCounts) {
        self.bytes += other.bytes;
        for (piece, count) in other.short {
            *self.short.entry(piece).or_default() += count;
        }
        for (piece, count) in other.long {
            *self.long.entry(piece).or_default() += count;
        }
    }

    fn add_one(&mut self, text: &str) {
        let bytes = text.as_bytes();
        self.bytes += bytes.len() as u64;
        let mut ends = [0; 256];
        let mut start = 0;
        loop {
            let count = self.scheme.split(text, start, &mut ends);
            for &end in &ends[..count] {
                if end - start <= SHORT {
                    *self.short.entry(packed(bytes, start, end)).or_default() += 1;
                } else if let Some(count) = self.long.get_mut(&bytes[start..end]) {
                    *count += 1;
                } else {
                    self.long.insert(bytes[start..end].into(), 1);
                }
                start = end;
            }
            if start == text.len() {
                return;
            }
        }
    }

    /// Every piece with its count, in no particular order.
    pub fn for_each(&self, mut visit: impl FnMut(&[u8], u64)) {
        for (&key, &count) in &self.short {
            let length = (key >> 120) as usize;
            visit(&key.to_le_bytes()[..length], count);
        }
        for (piece, &count) in &self.long {
            visit(piece, count);
        }
    }
}
