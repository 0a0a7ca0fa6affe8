//! Pieces and their tokens: those that are tokens themselves from the start, others once they were seen. One cache belongs to
//! one thread at a time; its memory has a limit, at which it starts anew. Knows no merges.
//!
//! A piece of at most 15 bytes is its own key: its bytes and its length in one 128-bit number, next to up to four tokens, in
//! 32 bytes, so that a hit reads one half of a cache line and nothing else. A longer one has a hash for a key and its bytes
//! in a store beside, where they are compared.

use crate::pages::Pages;
use crate::vocab::{fold, Vocabulary};

/// Longest piece that fits a key.
pub(crate) const SHORT: usize = 15;
/// Longest piece that is kept at all; longer ones hardly come again.
pub(crate) const LONGEST: usize = 255;
/// Most tokens that fit an entry.
pub(crate) const INLINE: usize = 4;

/// No token: fills up an entry.
const NO_ID: u32 = u32::MAX;
/// Stands in place of the first token where the tokens are in the store.
const STORED: u32 = u32::MAX - 1;

const LEAST_SIZE: usize = 1 << 10;
/// 32 MB of entries, and twice the vocabulary at least.
const MOST_SIZE: usize = 1 << 20;
const MOST_STORED_BYTES: usize = 8 << 20;
const MOST_STORED_IDS: usize = 2 << 20;

/// What a piece is looked for by, and where the search starts.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    bits: u128,
    hash: u64,
}

impl Key {
    /// Of no piece.
    pub(crate) const NONE: Key = Key { bits: 0, hash: 0 };

    /// The key of `text[start..end]`; [`Key::NONE`] if it is longer than [`LONGEST`].
    #[inline(always)]
    pub(crate) fn new(text: &[u8], start: usize, end: usize) -> Self {
        if end - start <= SHORT {
            let bits = packed(text, start, end);
            Key { bits, hash: hash(bits) }
        } else {
            Self::long(&text[start..end])
        }
    }

    #[inline(never)]
    fn long(piece: &[u8]) -> Self {
        if piece.len() > LONGEST {
            return Self::NONE;
        }
        let mut state = [piece.len() as u64, 0x9e37_79b9_7f4a_7c15];
        let mut add = |half: &[u8; 16]| {
            let bits = u128::from_le_bytes(*half);
            state = [fold(state[0] ^ bits as u64), fold(state[1] ^ (bits >> 64) as u64 ^ state[0])];
        };
        let mut halves = piece.chunks_exact(16);
        halves.by_ref().for_each(|half| {
            let mut word = [0; 16];
            word.copy_from_slice(half);
            add(&word);
        });
        // The last 16 bytes, some of them a second time.
        let mut word = [0; 16];
        word.copy_from_slice(&piece[piece.len() - 16..]);
        add(&word);
        // The highest bit tells it from a short key, whose highest byte is a length.
        let bits = (u128::from(state[0]) << 64 | u128::from(state[1])) | 1 << 127;
        Key { bits, hash: hash(bits) }
    }

    #[inline(always)]
    fn is_long(self) -> bool {
        self.bits >> 127 != 0
    }

    /// Whether it is [`Key::NONE`].
    #[inline(always)]
    pub(crate) fn is_none(self) -> bool {
        self.bits == 0
    }
}

/// The bytes of `text[start..end]`, at most 15, with their number in the highest byte.
#[inline(always)]
pub(crate) fn packed(text: &[u8], start: usize, end: usize) -> u128 {
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

/// Two products, whose highest bits depend on all of the key.
#[inline(always)]
fn hash(bits: u128) -> u64 {
    (bits as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(((bits >> 64) as u64).wrapping_mul(0xd6e8_feb8_6659_fd93))
}

#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Entry {
    key: u128,
    ids: [u32; INLINE],
}

const EMPTY: Entry = Entry { key: 0, ids: [NO_ID; INLINE] };

/// The tokens of a piece.
pub(crate) enum Found<'cache> {
    /// One to four, and how many.
    Inline(&'cache [u32; INLINE], usize),
    /// More.
    Stored(&'cache [u32]),
    /// Not seen yet.
    Missing,
}

/// See the module.
pub(crate) struct Cache {
    entries: Pages<Entry>,
    /// 64 less the bits of a place.
    shift: u32,
    used: usize,
    most: usize,
    bytes: Vec<u8>,
    ids: Vec<u32>,
}

impl Cache {
    /// A cache that knows each piece that is a token.
    pub(crate) fn new(vocabulary: &Vocabulary) -> Self {
        let size = (vocabulary.len() * 3).next_power_of_two().max(LEAST_SIZE);
        let most = MOST_SIZE.max(size * 2);
        let shift = u64::BITS - size.trailing_zeros();
        let entries = Pages::filled(size, EMPTY);
        let mut this = Cache { entries, shift, used: 0, most, bytes: Vec::new(), ids: Vec::new() };
        this.add_tokens(vocabulary);
        this
    }

    fn start_anew(&mut self, vocabulary: &Vocabulary) {
        self.entries.fill(EMPTY);
        self.used = 0;
        self.bytes.clear();
        self.ids.clear();
        self.add_tokens(vocabulary);
    }

    fn add_tokens(&mut self, vocabulary: &Vocabulary) {
        for id in (0..vocabulary.len() as u32).filter(|&id| vocabulary.is_own_encoding(id)) {
            let token = vocabulary.token(id).unwrap_or_default();
            let key = Key::new(token, 0, token.len());
            if !key.is_none() {
                self.place(key, token, &[id]);
            }
        }
    }

    /// Bytes in use.
    #[cfg(test)]
    fn memory(&self) -> usize {
        self.entries.len() * size_of::<Entry>() + self.bytes.capacity() + self.ids.capacity() * 4
    }

    /// Asks the processor for the line of a key ahead of [`Cache::get`].
    #[inline(always)]
    pub(crate) fn prefetch(&self, key: Key) {
        #[cfg(target_arch = "x86_64")]
        {
            let slot = (key.hash >> self.shift) as usize;
            // SAFETY: a prefetch never faults, and the address lies inside `entries`.
            unsafe {
                use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
                _mm_prefetch(self.entries.as_ptr().add(slot).cast(), _MM_HINT_T0);
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = key;
    }

    /// The tokens of a piece whose key is not [`Key::NONE`].
    #[inline(always)]
    pub(crate) fn get(&self, key: Key, piece: impl Fn() -> (usize, usize), text: &[u8]) -> Found<'_> {
        let mask = self.entries.len() - 1;
        let mut slot = (key.hash >> self.shift) as usize;
        loop {
            let entry = &self.entries[slot & mask];
            if entry.key == key.bits {
                if entry.ids[0] != STORED {
                    let length = 1 + entry.ids[1..].iter().map(|&id| usize::from(id != NO_ID)).sum::<usize>();
                    return Found::Inline(&entry.ids, length);
                }
                let (start, end) = piece();
                return self.stored(entry, key, &text[start..end]);
            }
            if entry.key == 0 {
                return Found::Missing;
            }
            slot += 1;
        }
    }

    #[inline(never)]
    fn stored(&self, entry: &Entry, key: Key, piece: &[u8]) -> Found<'_> {
        let [_, bytes_at, ids_at, num_ids] = entry.ids.map(|word| word as usize);
        // Two pieces with one hash: the second is never kept.
        if key.is_long() && self.bytes.get(bytes_at..bytes_at + piece.len()) != Some(piece) {
            return Found::Missing;
        }
        Found::Stored(&self.ids[ids_at..ids_at + num_ids])
    }

    /// Keeps the tokens of a piece that [`Cache::get`] did not find.
    pub(crate) fn insert(&mut self, key: Key, piece: &[u8], tokens: &[u32], vocabulary: &Vocabulary) {
        if key.is_none() || tokens.is_empty() {
            return;
        }
        let full =
            self.bytes.len() + piece.len() > MOST_STORED_BYTES || self.ids.len() + tokens.len() > MOST_STORED_IDS;
        if full || self.used * 2 >= self.entries.len() {
            if full || self.entries.len() >= self.most {
                self.start_anew(vocabulary);
            } else {
                self.grow();
            }
        }
        self.place(key, piece, tokens);
    }

    fn place(&mut self, key: Key, piece: &[u8], tokens: &[u32]) {
        let mask = self.entries.len() - 1;
        let mut slot = (key.hash >> self.shift) as usize;
        while self.entries[slot].key != 0 {
            if self.entries[slot].key == key.bits {
                return;
            }
            slot = (slot + 1) & mask;
        }
        let mut ids = [NO_ID; INLINE];
        if tokens.len() > INLINE || key.is_long() {
            ids = [STORED, self.bytes.len() as u32, self.ids.len() as u32, tokens.len() as u32];
            self.ids.extend_from_slice(tokens);
            if key.is_long() {
                self.bytes.extend_from_slice(piece);
            }
        } else {
            ids[..tokens.len()].copy_from_slice(tokens);
        }
        self.entries[slot] = Entry { key: key.bits, ids };
        self.used += 1;
    }

    #[cold]
    fn grow(&mut self) {
        let larger = Pages::filled(self.entries.len() * 2, EMPTY);
        self.shift -= 1;
        let mask = larger.len() - 1;
        for entry in std::mem::replace(&mut self.entries, larger).iter().copied() {
            if entry.key != 0 {
                let mut slot = (hash(entry.key) >> self.shift) as usize;
                while self.entries[slot].key != 0 {
                    slot = (slot + 1) & mask;
                }
                self.entries[slot] = entry;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_only() -> Vocabulary {
        let tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
        Vocabulary::from_ranks(&tokens).expect("every byte has a token")
    }

    fn tokens_of(cache: &Cache, piece: &[u8]) -> Option<Vec<u32>> {
        match cache.get(Key::new(piece, 0, piece.len()), || (0, piece.len()), piece) {
            Found::Inline(ids, count) => Some(ids[..count].to_vec()),
            Found::Stored(ids) => Some(ids.to_vec()),
            Found::Missing => None,
        }
    }

    #[test]
    fn pieces_of_every_length_are_found_again() {
        let vocabulary = bytes_only();
        let mut cache = Cache::new(&vocabulary);
        assert_eq!(tokens_of(&cache, b"a"), Some(vec![97]));
        for length in 2..=LONGEST + 1 {
            let piece: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8).collect();
            let tokens: Vec<u32> = (0..length as u32 / 2).collect();
            assert_eq!(tokens_of(&cache, &piece[..length.min(LONGEST)]), None);
            cache.insert(Key::new(&piece, 0, length), &piece, &tokens, &vocabulary);
            if length <= LONGEST {
                assert_eq!(tokens_of(&cache, &piece), Some(tokens));
            }
        }
    }

    #[test]
    fn the_memory_has_a_limit() {
        let vocabulary = bytes_only();
        let mut cache = Cache::new(&vocabulary);
        let most = MOST_SIZE * size_of::<Entry>() + 2 * (MOST_STORED_BYTES + 4 * MOST_STORED_IDS);
        for number in 0..1_500_000_u64 {
            let mut piece = [7; 40];
            piece[..8].copy_from_slice(&number.to_le_bytes());
            let piece = &piece[..9 + (number % 32) as usize];
            cache.insert(Key::new(piece, 0, piece.len()), piece, &[1, 2, 3, 4, 5], &vocabulary);
        }
        assert!(cache.memory() <= most, "{} bytes", cache.memory());
        assert_eq!(tokens_of(&cache, b"z"), Some(vec![122]));
    }
}
