//! Pieces to ids, the loop that everything else is around: some hundred pieces are cut, then their places in the cache are asked
//! for, then their ids are written, so that no step waits for memory. What the cache does not have is merged. Knows no
//! special tokens.

use crate::cache::{Key, INLINE};
#[cfg(target_arch = "x86_64")]
use crate::masks::Avx2;
use crate::masks::Portable;
use crate::merge::merge;
use crate::probe::Probe;
#[cfg(target_arch = "x86_64")]
use crate::split::Path;
use crate::tokenizer::{Offsets, Tokenizer, Worker};
use crate::vocab::Vocabulary;

/// Pieces that are cut, then looked up, then written: far enough ahead for a prefetch, small enough for the first cache.
const CHUNK: usize = 256;

/// Where ids go.
pub(crate) trait Sink {
    /// Whether [`Sink::placed`] is wanted.
    const PLACES: bool;

    /// Number of ids so far.
    fn len(&self) -> usize;

    /// Makes room for so many ids more; they are written from here plus [`Sink::len`] on.
    fn room(&mut self, more: usize) -> *mut u32;

    /// Writes four ids, of which some may count.
    ///
    /// # Safety
    /// `base` is from [`Sink::room`], and at `len` there is room for four.
    unsafe fn write(base: *mut u32, len: usize, ids: &[u32; INLINE]);

    /// Says how many ids there are now.
    ///
    /// # Safety
    /// All of them are written.
    unsafe fn set_len(&mut self, len: usize);

    /// Adds some ids.
    fn add(&mut self, ids: &[u32]);

    /// Says where in the text the ids since the last call stand.
    fn placed(&mut self, vocabulary: &Vocabulary, start: usize, end: usize) {
        let _ = (vocabulary, start, end);
    }

    /// Until [`Sink::release`], all ids stand from `start` to `end`, whatever [`Sink::placed`] says.
    fn hold(&mut self, start: usize, end: usize) {
        let _ = (start, end);
    }

    /// See [`Sink::hold`].
    fn release(&mut self) {}
}

impl Sink for Vec<u32> {
    const PLACES: bool = false;

    #[inline(always)]
    fn len(&self) -> usize {
        Vec::len(self)
    }

    #[inline(always)]
    fn room(&mut self, more: usize) -> *mut u32 {
        self.reserve(more);
        self.as_mut_ptr()
    }

    #[inline(always)]
    unsafe fn write(base: *mut u32, len: usize, ids: &[u32; INLINE]) {
        // SAFETY: the caller has made room.
        unsafe { base.add(len).cast::<[u32; INLINE]>().write_unaligned(*ids) };
    }

    #[inline(always)]
    unsafe fn set_len(&mut self, len: usize) {
        // SAFETY: as the caller says.
        unsafe { Vec::set_len(self, len) };
    }

    #[inline(always)]
    fn add(&mut self, ids: &[u32]) {
        self.extend_from_slice(ids);
    }
}

/// Counts ids and forgets them.
#[derive(Debug, Default)]
pub(crate) struct Counter(usize);

impl Sink for Counter {
    const PLACES: bool = false;

    #[inline(always)]
    fn len(&self) -> usize {
        self.0
    }

    #[inline(always)]
    fn room(&mut self, _more: usize) -> *mut u32 {
        std::ptr::null_mut()
    }

    #[inline(always)]
    unsafe fn write(_base: *mut u32, _len: usize, _ids: &[u32; INLINE]) {}

    #[inline(always)]
    unsafe fn set_len(&mut self, len: usize) {
        self.0 = len;
    }

    #[inline(always)]
    fn add(&mut self, ids: &[u32]) {
        self.0 += ids.len();
    }
}

/// Ids and where each stands in the text, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    pub(crate) ids: Vec<u32>,
    pub(crate) offsets: Offsets,
    held: Option<(usize, usize)>,
}

impl Sink for Placed {
    const PLACES: bool = true;

    fn len(&self) -> usize {
        self.ids.len()
    }

    fn room(&mut self, more: usize) -> *mut u32 {
        self.ids.room(more)
    }

    #[inline(always)]
    unsafe fn write(base: *mut u32, len: usize, ids: &[u32; INLINE]) {
        // SAFETY: as the caller says.
        unsafe { Vec::write(base, len, ids) };
    }

    unsafe fn set_len(&mut self, len: usize) {
        // SAFETY: as the caller says.
        unsafe { self.ids.set_len(len) };
    }

    fn add(&mut self, ids: &[u32]) {
        self.ids.extend_from_slice(ids);
    }

    fn placed(&mut self, vocabulary: &Vocabulary, start: usize, end: usize) {
        let new = &self.ids[self.offsets.len()..];
        if let Some(all) = self.held {
            self.offsets.extend(std::iter::repeat_n(all, new.len()));
            return;
        }
        let mut token_start = start;
        for (index, &id) in new.iter().enumerate() {
            let length = vocabulary.token(id).map_or(0, <[u8]>::len);
            let token_end = if index + 1 == new.len() { end } else { token_start + length };
            self.offsets.push((token_start, token_end));
            token_start = token_end;
        }
    }

    fn hold(&mut self, start: usize, end: usize) {
        self.held = Some((start, end));
    }

    fn release(&mut self) {
        self.held = None;
    }
}

impl Tokenizer {
    /// Encodes `text[from..]`; the split sees the end of `text` as the end of everything.
    pub(crate) fn encode_plain<S: Sink>(
        &self,
        worker: &mut Worker,
        text: &str,
        from: usize,
        limit: usize,
        out: &mut S,
    ) {
        match self.path {
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => {
                // SAFETY: a tokenizer has only paths that the processor has.
                unsafe { self.encode_avx2(worker, text, from, limit, out) }
            }
            _ => self.encode_by::<Portable, S>(worker, text, from, limit, out),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    fn encode_avx2<S: Sink>(&self, worker: &mut Worker, text: &str, from: usize, limit: usize, out: &mut S) {
        self.encode_by::<Avx2, S>(worker, text, from, limit, out);
    }

    #[inline(always)]
    fn encode_by<P: Probe, S: Sink>(&self, worker: &mut Worker, text: &str, from: usize, limit: usize, out: &mut S) {
        let bytes = text.as_bytes();
        let mut ends = [0_usize; CHUNK + 1];
        let mut keys = [Key::NONE; CHUNK];
        ends[0] = from;
        loop {
            let count = self.scheme.split_on(self.path, text, ends[0], &mut ends[1..]);
            let (ends, keys) = (&mut ends[..=count], &mut keys[..count]);
            worker.cache.find_places::<P>(bytes, ends, keys);
            // Room for all that is inline; what is longer makes its own.
            let (mut base, mut len) = (out.room(count * INLINE), out.len());
            let mut index = 0;
            while index < count {
                let found = worker.cache.look::<P>(&keys[index]);
                let number = found.map_or(0, P::count);
                if let (Some(ids), 1..) = (found, number) {
                    // SAFETY: there is room for four for this piece and each that follows.
                    unsafe { S::write(base, len, ids) };
                    len += number;
                } else {
                    // SAFETY: all up to here was written.
                    unsafe { out.set_len(len) };
                    let piece = &bytes[ends[index]..ends[index + 1]];
                    if self.encode_rare(worker, piece, keys[index], out) {
                        worker.cache.find_places::<P>(bytes, &ends[index..], &mut keys[index..]);
                    }
                    (base, len) = (out.room((count - index) * INLINE), out.len());
                }
                if S::PLACES {
                    // SAFETY: as above.
                    unsafe { out.set_len(len) };
                    out.placed(&self.vocabulary, ends[index], ends[index + 1]);
                }
                index += 1;
            }
            // SAFETY: as above.
            unsafe { out.set_len(len) };
            ends[0] = ends[count];
            if ends[0] == text.len() || len > limit {
                return;
            }
        }
    }

    /// A piece whose ids are not beside its key. Returns whether places in the cache have changed.
    #[inline(never)]
    fn encode_rare<S: Sink>(&self, worker: &mut Worker, piece: &[u8], key: Key, out: &mut S) -> bool {
        if !key.is_none() {
            let found = worker.cache.look::<Portable>(&key);
            if let Some(ids) = found.and_then(|entry| worker.cache.stored(entry, key, piece)) {
                out.add(ids);
                return false;
            }
        }
        let Worker { cache, scratch, ids } = worker;
        ids.clear();
        // The cache has had every short token from the start, so a piece with a key that was missed is none.
        let known = (key.is_none() && self.vocabulary.whole_pieces()).then(|| self.vocabulary.id(piece)).flatten();
        match known {
            Some(id) => ids.push(id),
            None => merge(&self.vocabulary, piece, scratch, ids),
        }
        out.add(ids);
        cache.insert(key, piece, ids, &self.vocabulary)
    }
}
