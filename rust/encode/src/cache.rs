//! Pieces and their tokens: those that are tokens themselves from the start, others once they were seen. One cache belongs to
//! one thread at a time; its memory has a limit, at which it starts anew. Knows no merges.
//!
//! A piece of at most 15 bytes is its own key: its bytes and its length in one 128-bit number, next to up to four tokens, in
//! 32 bytes, so that a hit reads one half of a cache line and nothing else. A longer one has a hash for a key and its bytes
//! in a store beside, where they are compared.

use crate::masks::Portable;
use crate::pages::Pages;
use crate::probe::Probe;
use crate::vocab::{fold, Vocabulary};

/// Longest piece that fits a key.
pub(crate) const SHORT: usize = 15;
/// Longest piece that is kept at all; longer ones hardly come again.
pub(crate) const LONGEST: usize = 255;
/// Most tokens that fit an entry.
pub(crate) const INLINE: usize = 4;

/// No token: fills up an entry. In the first place it says that the tokens are in the store.
pub(crate) const NO_ID: u32 = u32::MAX;

const LEAST_SIZE: usize = 1 << 9;
/// 32 MB of buckets, and twice the vocabulary at least.
const MOST_SIZE: usize = 1 << 19;
const MOST_STORED_BYTES: usize = 8 << 20;
const MOST_STORED_IDS: usize = 2 << 20;

/// What a piece is looked for by, and where the search starts.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Key {
    pub(crate) bits: u128,
    /// The bucket where the search starts, in a cache of the size that it was made for.
    place: usize,
}

impl Key {
    /// Of no piece.
    pub(crate) const NONE: Key = Key { bits: 0, place: 0 };

    #[inline(always)]
    fn is_long(self) -> bool {
        is_long(self.bits)
    }

    /// Whether it is [`Key::NONE`].
    #[inline(always)]
    pub(crate) fn is_none(self) -> bool {
        self.bits == 0
    }
}

/// The bytes of a piece of at most 15 with their number in the highest byte; `None` of a longer one.
#[inline(always)]
pub(crate) fn short_bits<P: Probe>(text: &[u8], start: usize, end: usize) -> Option<u128> {
    if end - start > SHORT {
        return None;
    }
    Some(match text[start..].first_chunk() {
        Some(window) => P::pack(window, end - start),
        None => short_bits_at_end(text, start, end),
    })
}

/// The same where no 16 bytes follow: those before, if there are as many.
#[inline(always)]
fn short_bits_at_end(text: &[u8], start: usize, end: usize) -> u128 {
    let length = end - start;
    let bits = match text[..end].last_chunk() {
        Some(window) => u128::from_le_bytes(*window) >> (128 - 8 * length),
        None => {
            let mut word = [0_u8; 16];
            word[..length].copy_from_slice(&text[start..end]);
            u128::from_le_bytes(word)
        }
    };
    bits | (length as u128) << 120
}

/// A hash of a piece of at least 16 bytes.
#[inline(never)]
pub(crate) fn long_bits(piece: &[u8]) -> u128 {
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
    (u128::from(state[0]) << 64 | u128::from(state[1])) | 1 << 127
}

/// The same if such a piece is kept, else 0.
#[inline(always)]
fn long_key_bits(piece: &[u8]) -> u128 {
    if piece.len() <= LONGEST {
        long_bits(piece)
    } else {
        0
    }
}

/// Whether it is of [`long_bits`].
#[inline(always)]
pub(crate) fn is_long(bits: u128) -> bool {
    bits >> 127 != 0
}

/// Two products, whose highest bits depend on all of the key.
#[inline(always)]
pub(crate) fn hash(bits: u128) -> u64 {
    (bits as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(((bits >> 64) as u64).wrapping_mul(0xd6e8_feb8_6659_fd93))
}

/// Two pieces and their tokens, one line of the processor's cache: a piece that another is in the place of is found next to it,
/// without a branch that could be guessed wrong. The first is filled first.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Bucket {
    pub(crate) keys: [u128; 2],
    pub(crate) ids: [[u32; INLINE]; 2],
}

const EMPTY: Bucket = Bucket { keys: [0; 2], ids: [[NO_ID; INLINE]; 2] };

/// See the module.
pub(crate) struct Cache {
    buckets: Pages<Bucket>,
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
        let size = (vocabulary.len() * 3 / 2).next_power_of_two().max(LEAST_SIZE);
        let most = MOST_SIZE.max(size * 2);
        let shift = u64::BITS - size.trailing_zeros();
        let buckets = Pages::filled(size, EMPTY);
        let mut this = Cache { buckets, shift, used: 0, most, bytes: Vec::new(), ids: Vec::new() };
        this.add_tokens(vocabulary);
        this
    }

    fn start_anew(&mut self, vocabulary: &Vocabulary) {
        self.buckets.fill(EMPTY);
        self.used = 0;
        self.bytes.clear();
        self.ids.clear();
        self.add_tokens(vocabulary);
    }

    fn add_tokens(&mut self, vocabulary: &Vocabulary) {
        for id in (0..vocabulary.len() as u32).filter(|&id| vocabulary.is_own_encoding(id)) {
            let token = vocabulary.token(id).unwrap_or_default();
            let key = self.key(token);
            if !key.is_none() {
                self.place(key, token, &[id]);
            }
        }
    }

    /// Bytes in use.
    #[cfg(test)]
    fn memory(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>() + self.bytes.capacity() + self.ids.capacity() * 4
    }

    /// The key of a piece.
    fn key(&self, piece: &[u8]) -> Key {
        let bits = short_bits::<Portable>(piece, 0, piece.len()).unwrap_or_else(|| long_key_bits(piece));
        Key { bits, place: (hash(bits) >> self.shift) as usize }
    }

    /// The keys of the pieces between neighbouring `ends`, one more than there are keys; the processor is asked for the line of
    /// each ahead of [`Cache::look`].
    #[inline(always)]
    pub(crate) fn find_places<P: Probe>(&self, text: &[u8], ends: &[usize], keys: &mut [Key]) {
        assert!(ends.len() == keys.len() + 1 && ends.is_sorted() && ends[keys.len()] <= text.len());
        let shift = self.shift;
        for (key, pair) in keys.iter_mut().zip(ends.windows(2)) {
            let (start, end) = (pair[0], pair[1]);
            key.bits = if end - start > SHORT {
                long_key_bits(&text[start..end])
            } else if start + 16 <= text.len() {
                // SAFETY: the 16 bytes lie inside the text.
                P::pack(unsafe { &*text.as_ptr().add(start).cast() }, end - start)
            } else {
                short_bits_at_end(text, start, end)
            };
            key.place = (hash(key.bits) >> shift) as usize;
            self.buckets.prefetch(key.place);
        }
    }

    /// What stands beside a key: tokens and [`NO_ID`] behind them, or a first [`NO_ID`] and what [`Cache::stored`] reads; of
    /// [`Key::NONE`] nothing or a first [`NO_ID`]. `None` if the piece has not been seen.
    #[inline(always)]
    pub(crate) fn look<P: Probe>(&self, key: &Key) -> Option<&[u32; INLINE]> {
        let mask = self.buckets.len() - 1;
        let mut place = key.place;
        loop {
            let bucket = &self.buckets[place & mask];
            if let Some(index) = P::find(&bucket.keys, &key.bits) {
                return Some(&bucket.ids[index & 1]);
            }
            if bucket.keys[1] == 0 {
                return None;
            }
            place += 1;
        }
    }

    /// The tokens that an entry with a first [`NO_ID`] stands for. `None` if they are another piece's with the same hash; the
    /// second of two such is never kept.
    #[inline(never)]
    pub(crate) fn stored(&self, entry: &[u32; INLINE], key: Key, piece: &[u8]) -> Option<&[u32]> {
        let [_, bytes_at, ids_at, num_ids] = entry.map(|word| word as usize);
        if key.is_long() && self.bytes.get(bytes_at..bytes_at + piece.len()) != Some(piece) {
            return None;
        }
        Some(&self.ids[ids_at..ids_at + num_ids])
    }

    /// Keeps the tokens of a piece that [`Cache::look`] did not find. Returns whether the places of all keys have changed.
    pub(crate) fn insert(&mut self, key: Key, piece: &[u8], tokens: &[u32], vocabulary: &Vocabulary) -> bool {
        if key.is_none() || tokens.is_empty() {
            return false;
        }
        let shift = self.shift;
        let full =
            self.bytes.len() + piece.len() > MOST_STORED_BYTES || self.ids.len() + tokens.len() > MOST_STORED_IDS;
        if full || self.used >= self.buckets.len() {
            if full || self.buckets.len() >= self.most {
                self.start_anew(vocabulary);
            } else {
                self.grow();
            }
        }
        self.place(key, piece, tokens);
        self.shift != shift
    }

    fn place(&mut self, key: Key, piece: &[u8], tokens: &[u32]) {
        let mut ids = [NO_ID; INLINE];
        if tokens.len() > INLINE || key.is_long() {
            ids = [NO_ID, self.bytes.len() as u32, self.ids.len() as u32, tokens.len() as u32];
        } else {
            ids[..tokens.len()].copy_from_slice(tokens);
        }
        if !self.put(key.bits, ids) {
            return;
        }
        self.used += 1;
        if ids[0] == NO_ID {
            self.ids.extend_from_slice(tokens);
            if key.is_long() {
                self.bytes.extend_from_slice(piece);
            }
        }
    }

    /// Writes an entry to the first free place; `false` if the key is there already.
    fn put(&mut self, key: u128, ids: [u32; INLINE]) -> bool {
        let mask = self.buckets.len() - 1;
        let mut place = (hash(key) >> self.shift) as usize;
        loop {
            let bucket = &mut self.buckets[place & mask];
            for index in 0..2 {
                if bucket.keys[index] == 0 {
                    (bucket.keys[index], bucket.ids[index]) = (key, ids);
                    return true;
                }
                if bucket.keys[index] == key {
                    return false;
                }
            }
            place += 1;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let larger = Pages::filled(self.buckets.len() * 2, EMPTY);
        self.shift -= 1;
        for bucket in std::mem::replace(&mut self.buckets, larger).iter() {
            for (&key, &ids) in bucket.keys.iter().zip(&bucket.ids).filter(|(&key, _)| key != 0) {
                self.put(key, ids);
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
        let key = cache.key(piece);
        let entry = cache.look::<Portable>(&key)?;
        match Portable::count(entry) {
            0 => cache.stored(entry, key, piece).map(<[u32]>::to_vec),
            count => Some(entry[..count].to_vec()),
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
            cache.insert(cache.key(&piece), &piece, &tokens, &vocabulary);
            if length <= LONGEST {
                assert_eq!(tokens_of(&cache, &piece), Some(tokens));
            }
        }
    }

    #[test]
    fn the_memory_has_a_limit() {
        let vocabulary = bytes_only();
        let mut cache = Cache::new(&vocabulary);
        let most = MOST_SIZE * size_of::<Bucket>() + 2 * (MOST_STORED_BYTES + 4 * MOST_STORED_IDS);
        for number in 0..1_500_000_u64 {
            let mut piece = [7; 40];
            piece[..8].copy_from_slice(&number.to_le_bytes());
            let piece = &piece[..9 + (number % 32) as usize];
            cache.insert(cache.key(piece), piece, &[1, 2, 3, 4, 5], &vocabulary);
        }
        assert!(cache.memory() <= most, "{} bytes", cache.memory());
        assert_eq!(tokens_of(&cache, b"z"), Some(vec![122]));
    }
}
