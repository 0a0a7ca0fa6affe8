//! The different pieces of a corpus as symbols that merge, and where each pair of neighbours stands. Knows not which pair is
//! merged next.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::count::PieceCounts;
use crate::error::Error;

/// Between two pieces.
const BORDER: u32 = u32::MAX;
/// Where a symbol began that is now part of one to its left.
const GONE: u32 = u32::MAX - 1;
/// So far ahead the processor is asked for the symbols of a place.
const AHEAD: usize = 12;
/// Counts below this have a table of their own.
const DIRECT: usize = 1 << 12;

/// Where a pair stands: the first byte of its left symbol, and which of the different counts its piece has.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    at: u32,
    count: u32,
}

/// See the module.
pub(super) struct Words {
    /// A number for each byte. A symbol stands at its first byte and at its last, so that both of its neighbours are one step and
    /// a length away; what stands between these is of the past.
    symbols: Vec<u32>,
    /// Number of bytes of each symbol.
    lengths: Vec<u32>,
    /// The different counts of pieces, the largest first.
    pub(super) counts: Vec<u64>,
    /// How many pieces have each.
    pub(super) pieces: Vec<usize>,
    /// All lists of places one after another.
    places: Vec<Place>,
    /// Neighbours to the left and to the right of what is merged.
    left: Neighbours,
    right: Neighbours,
}

impl Words {
    /// All pieces of two bytes and more; byte b becomes symbol `ids[b]`.
    pub(super) fn new(pieces: &PieceCounts, ids: &[u32; 256]) -> Result<Self, Error> {
        // Number of pieces and of bytes for each count.
        let mut few = vec![(0_usize, 0_usize); DIRECT];
        let mut many: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
        pieces.for_each(|piece, count| {
            if piece.len() > 1 {
                let sum = match few.get_mut(count as usize) {
                    Some(sum) => sum,
                    None => many.entry(count).or_default(),
                };
                *sum = (sum.0 + 1, sum.1 + piece.len() + 1);
            }
        });
        let large = many.iter().rev().map(|(&count, &sum)| (count, sum));
        let small = few.iter().enumerate().rev().map(|(count, &sum)| (count as u64, sum));
        let used: Vec<(u64, (usize, usize))> = large.chain(small).filter(|(_, sum)| sum.0 > 0).collect();
        let length = 1 + used.iter().map(|(_, sum)| sum.1).sum::<usize>();
        if length > u32::MAX as usize {
            return Err(Error::TooLong(length));
        }
        // From now on the class of each count, and where its next piece goes: frequent ones are neighbours in memory.
        let mut symbols = vec![BORDER; length];
        let mut next = 1;
        for (class, &(count, sum)) in used.iter().enumerate() {
            match few.get_mut(count as usize) {
                Some(small) => *small = (class, next),
                None => drop(many.insert(count, (class, next))),
            }
            next += sum.1;
        }
        pieces.for_each(|piece, count| {
            if piece.len() > 1 {
                let (_, next) = match few.get_mut(count as usize) {
                    Some(small) => small,
                    None => many.entry(count).or_default(),
                };
                for (symbol, &byte) in symbols[*next..].iter_mut().zip(piece) {
                    *symbol = ids[byte as usize];
                }
                *next += piece.len() + 1;
            }
        });
        Ok(Words {
            symbols,
            lengths: vec![1; 256],
            counts: used.iter().map(|&(count, _)| count).collect(),
            pieces: used.iter().map(|&(_, sum)| sum.0).collect(),
            places: Vec::new(),
            left: Neighbours::new(256),
            right: Neighbours::new(256),
        })
    }

    /// Every two neighbours that occur `least` times, while each symbol is still a byte: the pair, its count, and the list of
    /// its places.
    pub(super) fn first_pairs(&mut self, least: u64, mut visit: impl FnMut(u32, u32, u64, Range<usize>)) {
        let mut sides = vec![Side::default(); 1 << 16];
        let number = |left: u32, right: u32| (left as usize) << 8 | right as usize;
        self.each_pair(|left, right, place, counts| {
            let side = &mut sides[number(left, right)];
            side.count += counts[place.count as usize];
            side.places += 1;
        });
        let mut end = 0;
        let mut starts = vec![usize::MAX; 1 << 16];
        for (pair, side) in sides.iter().enumerate().filter(|(_, side)| side.count >= least && side.places > 0) {
            let length = side.places as usize;
            visit((pair >> 8) as u32, pair as u32 & 255, side.count, end..end + length);
            starts[pair] = end;
            end += length;
        }
        let mut places = vec![Place::default(); end];
        self.each_pair(|left, right, place, _| {
            let start = &mut starts[number(left, right)];
            if *start != usize::MAX {
                places[*start] = place;
                *start += 1;
            }
        });
        self.places = places;
    }

    fn each_pair(&self, mut visit: impl FnMut(u32, u32, Place, &[u64])) {
        let (mut class, mut rest) = (0, self.pieces.first().copied().unwrap_or(0));
        let mut before = BORDER;
        for (at, &symbol) in self.symbols.iter().enumerate().skip(1) {
            if symbol == BORDER {
                rest -= 1;
                if rest == 0 {
                    class += 1;
                    rest = self.pieces.get(class).copied().unwrap_or(0);
                }
            } else if before != BORDER {
                visit(before, symbol, Place { at: at as u32 - 1, count: class as u32 }, &self.counts);
            }
            before = symbol;
        }
    }

    /// How often a pair occurs now, of the places in a list; those where it is no longer are taken out of the list.
    pub(super) fn count(&mut self, list: &mut Range<usize>, left: u32, right: u32) -> u64 {
        let length = self.lengths[left as usize] as usize;
        let mut count = 0;
        let mut kept = list.start;
        for index in list.clone() {
            self.ask_ahead(index, list.end);
            let place = self.places[index];
            let at = place.at as usize;
            if self.symbols[at] == left && self.symbols[at + length] == right {
                count += self.counts[place.count as usize];
                self.places[kept] = place;
                kept += 1;
            }
        }
        list.end = kept;
        count
    }

    /// Merges a pair wherever it is, of the places in a list, from the left, into the next symbol. Returns which of the counts the
    /// piece has that is whole now, if there is one.
    pub(super) fn merge(&mut self, list: Range<usize>, left: u32, right: u32) -> Option<usize> {
        let length = self.lengths[left as usize] as usize;
        let whole = length + self.lengths[right as usize] as usize;
        let id = self.lengths.len() as u32;
        self.lengths.push(whole as u32);
        self.left.sides.push(Side::default());
        self.right.sides.push(Side::default());
        let mut piece = None;
        for index in list.clone() {
            self.ask_ahead(index, list.end);
            let place = self.places[index];
            let at = place.at as usize;
            if self.symbols[at] != left || self.symbols[at + length] != right {
                continue;
            }
            self.symbols[at + length] = GONE;
            self.symbols[at + whole - 1] = id;
            self.symbols[at] = id;
            let (before, after) = (self.symbols[at - 1], self.symbols[at + whole]);
            let count = self.counts[place.count as usize];
            if before != BORDER {
                let start = place.at - self.lengths[before as usize];
                self.left.add(before, Place { at: start, count: place.count }, count);
            }
            if after != BORDER {
                self.right.add(after, place, count);
            } else if before == BORDER {
                piece = Some(place.count as usize);
            }
        }
        piece
    }

    /// The pairs of the last symbol with its neighbours where it was made, if they occur `least` times: left and right symbol,
    /// count, and the list of its places. Some of the right neighbours may have been merged themselves a moment later.
    pub(super) fn new_pairs(&mut self, least: u64, mut visit: impl FnMut(u32, u32, u64, Range<usize>)) {
        let id = self.lengths.len() as u32 - 1;
        self.left.finish(least, &mut self.places, |before, count, list| visit(before, id, count, list));
        self.right.finish(least, &mut self.places, |after, count, list| visit(id, after, count, list));
    }

    #[inline(always)]
    fn ask_ahead(&self, index: usize, end: usize) {
        #[cfg(target_arch = "x86_64")]
        if index + AHEAD < end {
            let at = self.places[index + AHEAD].at as usize;
            // SAFETY: a prefetch never faults.
            unsafe {
                use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
                _mm_prefetch(self.symbols.as_ptr().wrapping_add(at).cast(), _MM_HINT_T0);
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (index, end, AHEAD);
    }
}

/// A symbol on one side of what is merged: how often, at how many places, and where in the new lists the next place goes.
#[derive(Clone, Copy, Default)]
struct Side {
    count: u64,
    places: u32,
    next: u32,
}

/// No list.
const NO_LIST: u32 = u32::MAX;

/// All symbols on one side of what is merged.
struct Neighbours {
    sides: Vec<Side>,
    seen: Vec<u32>,
    noted: Vec<(u32, Place)>,
}

impl Neighbours {
    /// None yet, of so many symbols.
    fn new(symbols: usize) -> Self {
        Neighbours { sides: vec![Side::default(); symbols], seen: Vec::new(), noted: Vec::new() }
    }

    #[inline(always)]
    fn add(&mut self, symbol: u32, place: Place, count: u64) {
        let side = &mut self.sides[symbol as usize];
        if side.places == 0 {
            self.seen.push(symbol);
        }
        side.count += count;
        side.places += 1;
        self.noted.push((symbol, place));
    }

    /// Makes a list for each symbol that was seen `least` times, and forgets all.
    fn finish(&mut self, least: u64, places: &mut Vec<Place>, mut visit: impl FnMut(u32, u64, Range<usize>)) {
        let start = places.len();
        let mut end = 0;
        for &symbol in &self.seen {
            let side = &mut self.sides[symbol as usize];
            side.next = NO_LIST;
            if side.count >= least {
                side.next = end;
                end += side.places;
                visit(symbol, side.count, start + side.next as usize..start + end as usize);
            }
        }
        if end > 0 {
            places.resize(start + end as usize, Place::default());
            for &(symbol, place) in &self.noted {
                let side = &mut self.sides[symbol as usize];
                if side.next != NO_LIST {
                    places[start + side.next as usize] = place;
                    side.next += 1;
                }
            }
        }
        for &symbol in &self.seen {
            self.sides[symbol as usize] = Side::default();
        }
        self.seen.clear();
        self.noted.clear();
    }
}
