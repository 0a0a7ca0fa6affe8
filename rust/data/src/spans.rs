//! Spans: stretches of at least so many bytes that stood in the texts before.
//!
//! A window of N bytes is repeated when an equal one stands in a text before, or earlier in the same text without overlapping it. A span is a
//! longest run of repeated windows. Fingerprints of windows of about N/2 bytes are kept for every s-th place only, s = N/2, and looked
//! for at every place, rolled: any equal window of N bytes holds a kept one whole (as in rsync, Tridgell 1999). A hit is compared
//! byte by byte and extended in both directions. Places inside a match need no keeping: what begins there stands before. A fingerprint
//! that stands in more than 64 places is followed at the last 64.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Places of one fingerprint that are followed.
const PLACES: usize = 64;
const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;

/// Bytes `start..end` of text `text`, which stood first at `first_start` of `first_text`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Number of the text.
    pub text: u32,
    /// First byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
    /// The text in which the longest match stands first.
    pub first_text: u32,
    /// The first byte of that match.
    pub first_start: u64,
}

/// All repeated spans of at least `length` bytes, in order; spans of one text that touch are one, the source is that of the longest part.
/// They are cut at the borders of UTF-8 sequences, inwards, so that what is left of valid UTF-8 is valid.
///
/// What is kept of the texts takes `memory` bytes at most, about: beyond that the texts are read several times, each time with a share of
/// the fingerprints. A window that is kept in one pass is found in that pass, so the spans are the same.
pub fn repeated_spans(texts: &[&[u8]], length: usize, memory: usize) -> Vec<Span> {
    let length = length.max(8);
    let step = length / 2;
    let expected: usize = texts.iter().map(|text| text.len() / step + 1).sum();
    let passes = (expected.saturating_mul(KEPT_BYTES) / memory.max(1) + 1).min(MOST_PASSES) as u64;
    let mut found = Vec::new();
    if passes == 1 {
        pass(texts, length, expected, &|_| true, &mut |spans, text| merge(spans, text, &mut found));
        return found;
    }
    let mut all: Vec<Span> = Vec::new();
    for number in 0..passes {
        let mine = |hash: u64| (hash.wrapping_mul(FACTOR) >> 40) % passes == number;
        pass(texts, length, expected / passes as usize, &mine, &mut |spans, _| all.extend(spans));
    }
    all.sort_unstable_by_key(|span| span.text);
    for spans in all.chunk_by(|left, right| left.text == right.text) {
        merge(spans.to_vec(), texts[spans[0].text as usize], &mut found);
    }
    found
}

/// Bytes that one kept fingerprint takes, with what tables leave empty.
const KEPT_BYTES: usize = 64;
/// Beyond this many passes memory is given instead.
const MOST_PASSES: usize = 1 << 10;

/// One pass over the texts with the fingerprints that are `mine`; `done` is told what was found in each text.
fn pass(
    texts: &[&[u8]],
    length: usize,
    expected: usize,
    mine: &dyn Fn(u64) -> bool,
    done: &mut dyn FnMut(Vec<Span>, &[u8]),
) {
    let step = length / 2;
    let window = length - step + 1;
    let leaving = (0..window).fold(1u64, |power, _| power.wrapping_mul(FACTOR));
    let mut kept = Kept::new(expected);
    for (number, &text) in texts.iter().enumerate() {
        let mut spans: Vec<Span> = Vec::new();
        let mut rolling = Rolling { text, window, leaving, at: 0, hash: 0, ready: false };
        let (mut at, mut next_kept) = (0, 0);
        // places that need no look: from..to of the longest match around the last hit
        let mut skip = (usize::MAX, 0);
        while at + window <= text.len() {
            // a window of this text can only be the source of one that does not overlap it
            while next_kept + length <= at {
                kept.insert_unless_covered(&spans, text, number, next_kept, window, length, mine);
                next_kept += step;
            }
            let before = spans.len();
            kept.matches(rolling.hash_at(at), texts, number, at, window, length, &mut spans);
            if let Some(longest) = spans[before..].iter().max_by_key(|span| span.end - span.start) {
                // what sticks out of the match on the left is hit before, on the right is hit from
                skip = (longest.start as usize + step, (longest.end as usize + 1).saturating_sub(length));
            }
            at += 1;
            if at >= skip.0 && at < skip.1 {
                at = skip.1;
            }
        }
        while next_kept + window <= text.len() {
            kept.insert_unless_covered(&spans, text, number, next_kept, window, length, mine);
            next_kept += step;
        }
        done(spans, text);
    }
}

/// Join spans that touch or overlap and cut them at borders of characters.
fn merge(mut spans: Vec<Span>, text: &[u8], found: &mut Vec<Span>) {
    spans.sort_unstable_by_key(|span| (span.start, span.end));
    let mut joined: Vec<(Span, u64)> = Vec::new();
    for span in spans {
        let size = span.end - span.start;
        match joined.last_mut() {
            Some((last, longest)) if span.start <= last.end => {
                last.end = last.end.max(span.end);
                if size > *longest {
                    *longest = size;
                    (last.first_text, last.first_start) = (span.first_text, span.first_start);
                }
            }
            _ => joined.push((span, size)),
        }
    }
    let continues = |place: u64| text.get(place as usize).is_some_and(|byte| byte & 0xC0 == 0x80);
    for (mut span, _) in joined {
        while span.start < span.end && continues(span.start) {
            span.start += 1;
            span.first_start += 1;
        }
        while span.end > span.start && continues(span.end) {
            span.end -= 1;
        }
        if span.start < span.end {
            found.push(span);
        }
    }
}

fn hash_of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |hash: u64, &byte| hash.wrapping_mul(FACTOR).wrapping_add(u64::from(byte) + 1))
}

/// The hash of a window that moves on.
struct Rolling<'a> {
    text: &'a [u8],
    window: usize,
    leaving: u64,
    at: usize,
    hash: u64,
    ready: bool,
}

impl Rolling<'_> {
    #[inline(always)]
    fn hash_at(&mut self, at: usize) -> u64 {
        if !self.ready || at < self.at || at - self.at > self.window {
            self.hash = hash_of(&self.text[at..at + self.window]);
            (self.at, self.ready) = (at, true);
        }
        while self.at < at {
            let (out, into) = (self.text[self.at], self.text[self.at + self.window]);
            self.hash = self
                .hash
                .wrapping_mul(FACTOR)
                .wrapping_add(u64::from(into) + 1)
                .wrapping_sub((u64::from(out) + 1).wrapping_mul(self.leaving));
            self.at += 1;
        }
        self.hash
    }
}

/// Fingerprints are hashes already.
#[derive(Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Fingerprints kept, each with its places.
struct Kept {
    /// Bits of fingerprints that are kept, a power of two of them: most places end here.
    filter: Vec<u64>,
    /// For each fingerprint the last of its places.
    last: HashMap<u64, u32, BuildHasherDefault<AsIs>>,
    /// Text, the place before of the same fingerprint, first byte.
    places: Vec<(u32, u32, u64)>,
}

const NONE: u32 = u32::MAX;

impl Kept {
    fn new(expected: usize) -> Self {
        let words = (expected / 8).next_power_of_two().clamp(64, 1 << 26);
        Self { filter: vec![0; words], last: HashMap::default(), places: Vec::new() }
    }

    #[inline(always)]
    fn bit(&self, hash: u64) -> (usize, u64) {
        let place = (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as usize & (64 * self.filter.len() - 1);
        (place / 64, 1 << (place % 64))
    }

    /// Keep the window at `start` if its fingerprint is `mine`, unless all windows of `length` bytes around it lie in one match.
    #[allow(clippy::too_many_arguments)]
    fn insert_unless_covered(
        &mut self,
        spans: &[Span],
        text: &[u8],
        number: usize,
        start: usize,
        window: usize,
        length: usize,
        mine: &dyn Fn(u64) -> bool,
    ) {
        let from = (start + window).saturating_sub(length) as u64;
        let to = (start + length).min(text.len()) as u64;
        if spans.iter().rev().take(PLACES).any(|span| span.start <= from && to <= span.end) {
            return;
        }
        let hash = hash_of(&text[start..start + window]);
        if !mine(hash) {
            return;
        }
        let (word, bit) = self.bit(hash);
        self.filter[word] |= bit;
        let place = self.places.len() as u32;
        let before = self.last.insert(hash, place).unwrap_or(NONE);
        self.places.push((number as u32, before, start as u64));
    }

    /// Add the matches of `length` bytes or more around `at` of windows kept.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn matches(
        &self,
        hash: u64,
        texts: &[&[u8]],
        number: usize,
        at: usize,
        window: usize,
        length: usize,
        spans: &mut Vec<Span>,
    ) {
        let (word, bit) = self.bit(hash);
        if self.filter[word] & bit == 0 {
            return;
        }
        let mut place = self.last.get(&hash).copied().unwrap_or(NONE);
        let text = texts[number];
        for _ in 0..PLACES {
            let Some(&(source, before, begin)) = self.places.get(place as usize) else { return };
            place = before;
            let (other, begin) = (texts[source as usize], begin as usize);
            if (source as usize == number && at - begin < length)
                || other[begin..begin + window] != text[at..at + window]
            {
                continue;
            }
            let left = text[..at].iter().rev().zip(other[..begin].iter().rev()).take_while(|(a, b)| a == b).count();
            let right = text[at + window..].iter().zip(&other[begin + window..]).take_while(|(a, b)| a == b).count();
            if left + window + right >= length {
                spans.push(Span {
                    text: number as u32,
                    start: (at - left) as u64,
                    end: (at + window + right) as u64,
                    first_text: source,
                    first_start: (begin - left) as u64,
                });
            }
        }
    }
}

/// What is left of a text without these stretches, which are in order and do not overlap.
pub fn without(text: &[u8], stretches: &[(u64, u64)]) -> Vec<u8> {
    let mut left = Vec::with_capacity(text.len());
    let mut at = 0;
    for &(start, end) in stretches {
        left.extend_from_slice(&text[at..start as usize]);
        at = end as usize;
    }
    left.extend_from_slice(&text[at..]);
    left
}
