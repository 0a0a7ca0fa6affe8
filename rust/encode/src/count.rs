//! How often each piece occurs in a corpus: the only thing that training needs to know of it. Knows no tokens.
//!
//! Pieces are cut some hundred at a time, across texts, and looked up after the processor was asked for their lines. A piece of
//! at most 15 bytes is its own key, as in `cache.rs`; a longer one has a hash for a key and its bytes in a store beside,
//! where they are compared.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cache::{hash, is_long, long_bits, short_bits};
#[cfg(target_arch = "x86_64")]
use crate::masks::Avx2;
use crate::masks::Portable;
use crate::pages::Pages;
use crate::probe::Probe;
use crate::split::{Path, Scheme, ROOM};
use crate::vocab::{fold, hash_bytes};

/// Pieces that are cut, then looked up.
const CHUNK: usize = 256;
const LEAST_SIZE: usize = 1 << 10;

/// Texts up to this many bytes are put together, since the end of a text with nothing behind it costs as much as 30 bytes; so many
/// bytes of them, which the first cache still has when they are cut.
const SHORT_TEXT: usize = 512;
const TOGETHER: usize = 1 << 13;
/// What stands behind the last of them.
pub const BEHIND: &str = "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n";

/// A hasher for byte strings, quick and without a seed.
#[derive(Default)]
struct FoldHasher(u64);

impl Hasher for FoldHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = fold(self.0 ^ hash_bytes(bytes));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Two pieces and their counts, one line of the processor's cache. The first is filled first.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    keys: [u128; 2],
    counts: [u64; 2],
    /// Of long pieces, where in the store their length and bytes are.
    places: [usize; 2],
}

const EMPTY: Bucket = Bucket { keys: [0; 2], counts: [0; 2], places: [0; 2] };

/// A piece that waits to be looked up.
#[derive(Clone, Copy)]
struct Waiting<'text> {
    bits: u128,
    hash: u64,
    piece: &'text [u8],
}

/// Counts of pieces under one split pattern.
pub struct PieceCounts {
    scheme: Scheme,
    path: Path,
    buckets: Pages<Bucket>,
    /// 64 less the bits of a place.
    shift: u32,
    used: usize,
    store: Vec<u8>,
    /// Long pieces whose key is that of another.
    twins: HashMap<Box<[u8]>, u64, BuildHasherDefault<FoldHasher>>,
    bytes: u64,
}

impl PieceCounts {
    /// Nothing counted yet.
    pub fn new(scheme: Scheme) -> Self {
        PieceCounts {
            scheme,
            path: Path::best(),
            buckets: Pages::filled(LEAST_SIZE, EMPTY),
            shift: u64::BITS - LEAST_SIZE.trailing_zeros(),
            used: 0,
            store: Vec::new(),
            twins: HashMap::default(),
            bytes: 0,
        }
    }

    /// The same on a path of one's choice, as far as the processor has it; every path counts the same.
    pub fn on_path(mut self, path: Path) -> Self {
        self.path = if path.is_here() { path } else { Path::Portable };
        self
    }

    /// Number of different pieces.
    pub fn len(&self) -> usize {
        self.used + self.twins.len()
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
            return self.add_all(texts);
        }
        // Short texts by the hundred: a turn for each would cost more than its pieces.
        let parts: Vec<&[&str]> = texts.chunks(texts.len().div_ceil(threads * 16)).collect();
        let turn = AtomicUsize::new(0);
        let (scheme, path) = (self.scheme, self.path);
        self.add_counted(threads, || {
            let mut counts = PieceCounts::new(scheme).on_path(path);
            while let Some(part) = parts.get(turn.fetch_add(1, Ordering::Relaxed)) {
                counts.add_all(part);
            }
            counts
        });
    }

    /// The same for texts that lie one after another, each up to one of `ends`: nothing is copied. 64 bytes behind the last make its end
    /// as quick as the others'.
    pub fn add_joined(&mut self, joined: &str, ends: &[usize], threads: usize) {
        let threads = threads.clamp(1, ends.len().max(1));
        if threads == 1 {
            return self.add_part(joined, 0, ends);
        }
        let size = ends.len().div_ceil(threads * 16);
        let scheme = self.scheme;
        let path = self.path;
        let turn = AtomicUsize::new(0);
        let work = || {
            let mut counts = PieceCounts::new(scheme).on_path(path);
            loop {
                let first = turn.fetch_add(size, Ordering::Relaxed);
                let Some(rest) = ends.get(first..).filter(|rest| !rest.is_empty()) else { return counts };
                let start = first.checked_sub(1).map_or(0, |before| ends[before]);
                counts.add_part(joined, start, &rest[..size.min(rest.len())]);
            }
        };
        self.add_counted(threads, work);
    }

    /// Adds what some threads count.
    fn add_counted(&mut self, threads: usize, work: impl Fn() -> PieceCounts + Sync) {
        let counted: Vec<PieceCounts> = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
            handles
                .into_iter()
                .map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        for other in counted {
            self.bytes += other.bytes;
            other.for_each(|piece, count| self.add_piece(piece, count));
        }
    }

    fn add_part(&mut self, joined: &str, start: usize, ends: &[usize]) {
        self.bytes += (ends.last().copied().unwrap_or(start) - start) as u64;
        match self.path {
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => {
                // SAFETY: the path is one that the processor has.
                unsafe { self.add_part_avx2(joined, start, ends) }
            }
            _ => self.add_texts::<Portable>(joined, start, ends),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    fn add_part_avx2(&mut self, joined: &str, start: usize, ends: &[usize]) {
        self.add_texts::<Avx2>(joined, start, ends);
    }

    fn add_all(&mut self, texts: &[&str]) {
        match self.path {
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => {
                // SAFETY: the path is one that the processor has.
                unsafe { self.add_avx2(texts) }
            }
            _ => self.add_by::<Portable>(texts),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    fn add_avx2(&mut self, texts: &[&str]) {
        self.add_by::<Avx2>(texts);
    }

    #[inline(always)]
    fn add_by<P: Probe>(&mut self, texts: &[&str]) {
        let mut together = String::with_capacity(2 * TOGETHER);
        let mut ends = Vec::new();
        for text in texts {
            self.bytes += text.len() as u64;
            if text.len() > SHORT_TEXT {
                self.add_texts::<P>(text, 0, &[text.len()]);
                continue;
            }
            together.push_str(text);
            ends.push(together.len());
            if together.len() > TOGETHER {
                together.push_str(BEHIND);
                self.add_texts::<P>(&together, 0, &ends);
                together.clear();
                ends.clear();
            }
        }
        together.push_str(BEHIND);
        self.add_texts::<P>(&together, 0, &ends);
    }

    /// Texts one after another from `start` on; where each ends.
    #[inline(always)]
    fn add_texts<P: Probe>(&mut self, texts: &str, mut start: usize, text_ends: &[usize]) {
        let bytes = texts.as_bytes();
        let mut ends = [0_usize; CHUNK];
        let mut waiting = [Waiting { bits: 0, hash: 0, piece: &[] }; CHUNK];
        let mut count = 0;
        for &text_end in text_ends {
            while start < text_end {
                if count + ROOM > CHUNK {
                    self.look_up::<P>(&waiting[..count]);
                    count = 0;
                }
                let found = self.scheme.split_inside(self.path, texts, start..text_end, &mut ends[count..]);
                for (wait, &end) in waiting[count..].iter_mut().zip(&ends[count..count + found]) {
                    *wait = Waiting::new::<P>(bytes, start, end);
                    self.buckets.prefetch((wait.hash >> self.shift) as usize);
                    start = end;
                }
                count += found;
            }
        }
        self.look_up::<P>(&waiting[..count]);
    }

    #[inline(always)]
    fn look_up<P: Probe>(&mut self, waiting: &[Waiting<'_>]) {
        for wait in waiting {
            self.add_one::<P>(wait, 1);
        }
    }

    /// Counts a piece so many times, whatever the split pattern says of it.
    pub fn add_piece(&mut self, piece: &[u8], count: u64) {
        if !piece.is_empty() {
            self.add_one::<Portable>(&Waiting::new::<Portable>(piece, 0, piece.len()), count);
        }
    }

    #[inline(always)]
    fn add_one<P: Probe>(&mut self, wait: &Waiting<'_>, count: u64) {
        let mask = self.buckets.len() - 1;
        let mut place = (wait.hash >> self.shift) as usize;
        loop {
            let bucket = &mut self.buckets[place & mask];
            if let Some(index) = P::find(&bucket.keys, &wait.bits) {
                let index = index & 1;
                if !is_long(wait.bits) || stored(&self.store, bucket.places[index]) == wait.piece {
                    bucket.counts[index] += count;
                } else {
                    *self.twins.entry(wait.piece.into()).or_default() += count;
                }
                return;
            }
            if bucket.keys[1] == 0 {
                return self.insert(wait, count);
            }
            place += 1;
        }
    }

    #[inline(never)]
    fn insert(&mut self, wait: &Waiting<'_>, count: u64) {
        if self.used >= self.buckets.len() {
            self.grow();
        }
        let mut place = 0;
        if is_long(wait.bits) {
            place = self.store.len();
            self.store.extend_from_slice(&wait.piece.len().to_le_bytes());
            self.store.extend_from_slice(wait.piece);
        }
        self.used += 1;
        self.put(wait.bits, count, place);
    }

    /// Writes an entry that is not there yet to the first free place.
    fn put(&mut self, key: u128, count: u64, stored: usize) {
        let mask = self.buckets.len() - 1;
        let mut place = (hash(key) >> self.shift) as usize;
        loop {
            let bucket = &mut self.buckets[place & mask];
            if let Some(index) = bucket.keys.iter().position(|&key| key == 0) {
                (bucket.keys[index], bucket.counts[index], bucket.places[index]) = (key, count, stored);
                return;
            }
            place += 1;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let larger = Pages::filled(self.buckets.len() * 2, EMPTY);
        self.shift -= 1;
        for bucket in std::mem::replace(&mut self.buckets, larger).iter() {
            for index in (0..2).filter(|&index| bucket.keys[index] != 0) {
                self.put(bucket.keys[index], bucket.counts[index], bucket.places[index]);
            }
        }
    }

    /// How often a piece was counted.
    pub fn count(&self, piece: &[u8]) -> u64 {
        let wait = Waiting::new::<Portable>(piece, 0, piece.len());
        let mask = self.buckets.len() - 1;
        let mut place = (wait.hash >> self.shift) as usize;
        loop {
            let bucket = &self.buckets[place & mask];
            if let Some(index) = bucket.keys.iter().position(|&key| key == wait.bits) {
                if !is_long(wait.bits) || stored(&self.store, bucket.places[index]) == piece {
                    return bucket.counts[index];
                }
                return self.twins.get(piece).copied().unwrap_or(0);
            }
            if bucket.keys[1] == 0 {
                return 0;
            }
            place += 1;
        }
    }

    /// Every piece with its count, in no particular order.
    pub fn for_each(&self, mut visit: impl FnMut(&[u8], u64)) {
        for bucket in self.buckets.iter() {
            for index in (0..2).filter(|&index| bucket.keys[index] != 0) {
                let key = bucket.keys[index];
                if is_long(key) {
                    visit(stored(&self.store, bucket.places[index]), bucket.counts[index]);
                } else {
                    visit(&key.to_le_bytes()[..(key >> 120) as usize], bucket.counts[index]);
                }
            }
        }
        for (piece, &count) in &self.twins {
            visit(piece, count);
        }
    }
}

impl<'text> Waiting<'text> {
    #[inline(always)]
    fn new<P: Probe>(text: &'text [u8], start: usize, end: usize) -> Self {
        let piece = &text[start..end];
        let bits = match short_bits::<P>(text, start, end) {
            Some(bits) => bits,
            None => long_bits(piece),
        };
        Waiting { bits, hash: hash(bits), piece }
    }
}

/// A long piece in the store.
fn stored(store: &[u8], place: usize) -> &[u8] {
    let Some((length, behind)) = store[place..].split_first_chunk() else { return &[] };
    &behind[..usize::from_le_bytes(*length)]
}
