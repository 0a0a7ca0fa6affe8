//! Pieces seen before and their tokens. One cache belongs to one thread at a time; its memory has a limit, at which it
//! starts anew. Knows no vocabulary.
//!
//! A piece of at most 15 bytes is its own key: its bytes and its length in one 128-bit number, next to up to four
//! tokens, in 32 bytes, so that a hit reads one half of a cache line and nothing else.

use std::collections::HashMap;

use crate::vocab::{fold, NONE};

/// Longest piece that fits a key.
pub const SHORT: usize = 15;
/// Most tokens that fit an entry.
pub const INLINE: usize = 4;

const FIRST_SIZE: usize = 1 << 12;
const MAX_SIZE: usize = 1 << 19;
const MAX_LONG_BYTES: usize = 8 << 20;

#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Entry {
    key: u128,
    ids: [u32; INLINE],
}

const EMPTY: Entry = Entry { key: 0, ids: [NONE; INLINE] };

/// See the module.
pub struct Cache {
    entries: Vec<Entry>,
    used: usize,
    long: HashMap<Box<[u8]>, Box<[u32]>>,
    long_bytes: usize,
}

impl Default for Cache {
    fn default() -> Self {
        Cache { entries: vec![EMPTY; FIRST_SIZE], used: 0, long: HashMap::new(), long_bytes: 0 }
    }
}

/// The key of `text[start..end]`, which is 1 to 15 bytes long.
#[inline(always)]
pub fn key(text: &[u8], start: usize, end: usize) -> u128 {
    let length = end - start;
    debug_assert!((1..=SHORT).contains(&length));
    let mut word = [0_u8; 16];
    if let Some(window) = text.get(start..start + 16) {
        word.copy_from_slice(window);
        let bits = u128::from_le_bytes(word) & (u128::MAX >> (128 - 8 * length));
        return bits | (length as u128) << 120;
    }
    word[..length].copy_from_slice(&text[start..end]);
    u128::from_le_bytes(word) | (length as u128) << 120
}

/// Where the search for a key starts, before the mask.
#[inline(always)]
pub fn hash(key: u128) -> u64 {
    fold(key as u64 ^ fold((key >> 64) as u64 ^ 0x9e37_79b9_7f4a_7c15))
}

impl Cache {
    /// Asks the processor for the line of a hash ahead of [`Cache::get`].
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        #[cfg(target_arch = "x86_64")]
        {
            let slot = hash as usize & (self.entries.len() - 1);
            // SAFETY: a prefetch never faults, and the address lies inside `entries`.
            unsafe {
                use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
                _mm_prefetch(self.entries.as_ptr().add(slot).cast(), _MM_HINT_T0);
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = hash;
    }

    /// The tokens of a key, filled up with [`NONE`].
    #[inline(always)]
    pub fn get(&self, key: u128, hash: u64) -> Option<&[u32; INLINE]> {
        let mask = self.entries.len() - 1;
        let mut slot = hash as usize;
        loop {
            let entry = &self.entries[slot & mask];
            if entry.key == key {
                return Some(&entry.ids);
            }
            if entry.key == 0 {
                return None;
            }
            slot += 1;
        }
    }

    /// Adds a key that is not there; more than four tokens are not kept.
    pub fn insert(&mut self, key: u128, hash: u64, tokens: &[u32]) {
        if tokens.is_empty() || tokens.len() > INLINE {
            return;
        }
        if self.used * 2 >= self.entries.len() {
            self.grow();
        }
        let mut ids = [NONE; INLINE];
        ids[..tokens.len()].copy_from_slice(tokens);
        self.place(Entry { key, ids }, hash);
        self.used += 1;
    }

    fn place(&mut self, entry: Entry, hash: u64) {
        let mask = self.entries.len() - 1;
        let mut slot = hash as usize & mask;
        while self.entries[slot].key != 0 {
            slot = (slot + 1) & mask;
        }
        self.entries[slot] = entry;
    }

    #[cold]
    fn grow(&mut self) {
        if self.entries.len() >= MAX_SIZE {
            self.entries.fill(EMPTY);
            self.used = 0;
            return;
        }
        let larger = vec![EMPTY; self.entries.len() * 4];
        for entry in std::mem::replace(&mut self.entries, larger) {
            if entry.key != 0 {
                self.place(entry, hash(entry.key));
            }
        }
    }

    /// The tokens of a piece of more than 15 bytes.
    pub fn get_long(&self, piece: &[u8]) -> Option<&[u32]> {
        self.long.get(piece).map(AsRef::as_ref)
    }

    /// Keeps the tokens of a long piece, unless it is so long that it will hardly come again.
    pub fn insert_long(&mut self, piece: &[u8], tokens: &[u32]) {
        if piece.len() > 256 {
            return;
        }
        let bytes = piece.len() + 4 * tokens.len() + 64;
        if self.long_bytes + bytes > MAX_LONG_BYTES {
            self.long.clear();
            self.long_bytes = 0;
        }
        self.long_bytes += bytes;
        self.long.insert(piece.into(), tokens.into());
    }
}
