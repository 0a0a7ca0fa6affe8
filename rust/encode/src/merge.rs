//! Byte-pair merging of one piece: of all neighbours the pair of the lowest rank merges, the leftmost first, until none is
//! left. Vocabularies as training makes them go the way around in `backtrack.rs`; for all others short pieces are merged by a
//! linear scan, long ones by a heap. All have the same result.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::backtrack::Stack;
use crate::vocab::{Vocabulary, NONE};

/// Up to this many bytes the scan over all pairs is cheaper than the heap.
const LINEAR_LIMIT: usize = 96;

/// A rank and one of 32 places fit a positive number.
const PLACE_BITS: u32 = 5;
const MOST_RANKS: usize = 1 << (31 - PLACE_BITS);
const NO_CANDIDATE: i32 = i32::MAX;

/// Memory that is kept between pieces.
#[derive(Debug, Default)]
pub struct Scratch {
    symbols: Vec<u32>,
    /// Merge of each symbol with the next: rank and result; rank [`NONE`] where they do not merge.
    ranks: Vec<u32>,
    results: Vec<u32>,
    next: Vec<u32>,
    previous: Vec<u32>,
    heap: BinaryHeap<Reverse<u64>>,
    stack: Stack,
}

/// Appends the tokens of `piece` to `out`. A byte without a token is left out, as Hugging Face's BPE does.
pub fn merge(vocabulary: &Vocabulary, piece: &[u8], scratch: &mut Scratch, out: &mut Vec<u32>) {
    if let Some(byte_ranks) = vocabulary.byte_ranks().filter(|_| vocabulary.merges().num_ranks() <= MOST_RANKS) {
        match piece.len() {
            0..=16 => return merge_short::<16>(vocabulary, byte_ranks, piece, out),
            17..=32 => return merge_short::<32>(vocabulary, byte_ranks, piece, out),
            _ => {}
        }
    }
    match vocabulary.backtrack() {
        Some(backtrack) => backtrack.encode(vocabulary.merges(), piece, &mut scratch.stack, out),
        None => merge_below(vocabulary, piece, NONE, scratch, out),
    }
}

/// The same by merging, whatever the vocabulary, with merges of rank `limit` and later left out.
pub fn merge_below(vocabulary: &Vocabulary, piece: &[u8], limit: u32, scratch: &mut Scratch, out: &mut Vec<u32>) {
    scratch.symbols.clear();
    scratch.symbols.extend(piece.iter().map(|&byte| vocabulary.byte_id(byte)).filter(|&id| id != NONE));
    let count = scratch.symbols.len();
    if count < 2 {
        out.extend_from_slice(&scratch.symbols);
        return;
    }
    let lookup = |left: u32, right: u32| match vocabulary.merges().rank(left, right) {
        rank if rank < limit => (rank, vocabulary.merges().result(rank)),
        _ => (NONE, NONE),
    };
    scratch.ranks.clear();
    scratch.results.clear();
    for pair in scratch.symbols.windows(2) {
        let (rank, id) = lookup(pair[0], pair[1]);
        scratch.ranks.push(rank);
        scratch.results.push(id);
    }
    if count <= LINEAR_LIMIT {
        merge_linear(scratch, lookup);
        out.extend_from_slice(&scratch.symbols);
    } else {
        merge_by_heap(scratch, lookup, out);
    }
}

/// Up to `N` bytes (at most 32) in arrays that stay where they are: a bit for each place that still begins a symbol instead of
/// a list, and rank and place in one number, so that the next merge is the least of a fixed number of them.
fn merge_short<const N: usize>(vocabulary: &Vocabulary, byte_ranks: &[u32], piece: &[u8], out: &mut Vec<u32>) {
    let (count, merges) = (piece.len().min(N), vocabulary.merges());
    let mut symbols = [NONE; N];
    let mut candidates = [NO_CANDIDATE; N];
    let candidate = |rank: u32, at: usize| {
        if rank == NONE {
            NO_CANDIDATE
        } else {
            (rank << PLACE_BITS | at as u32) as i32
        }
    };
    for (at, &byte) in piece[..count].iter().enumerate() {
        symbols[at] = vocabulary.byte_id(byte);
    }
    for at in 1..count {
        candidates[at - 1] = candidate(byte_ranks[piece[at - 1] as usize * 256 + piece[at] as usize], at - 1);
    }
    let mut alive = (1_u64 << count) - 1;
    loop {
        let best = candidates.iter().fold(NO_CANDIDATE, |best, &next| best.min(next));
        if best == NO_CANDIDATE {
            break;
        }
        let at = best as usize % (1 << PLACE_BITS) % N;
        let symbol = merges.result(best as u32 >> PLACE_BITS);
        symbols[at] = symbol;
        let behind = alive & (u64::MAX << 1 << at);
        let gone = behind.trailing_zeros() as usize % N;
        candidates[gone] = NO_CANDIDATE;
        candidates[at] = NO_CANDIDATE;
        alive &= !(1 << gone);
        let behind = behind & behind.wrapping_sub(1);
        if behind != 0 {
            candidates[at] = candidate(merges.rank(symbol, symbols[behind.trailing_zeros() as usize % N]), at);
        }
        let before = alive & ((1 << at) - 1);
        if before != 0 {
            let before = (u64::BITS - 1 - before.leading_zeros()) as usize % N;
            candidates[before] = candidate(merges.rank(symbols[before], symbol), before);
        }
    }
    while alive != 0 {
        out.push(symbols[alive.trailing_zeros() as usize % N]);
        alive &= alive - 1;
    }
}

fn merge_linear(scratch: &mut Scratch, lookup: impl Fn(u32, u32) -> (u32, u32)) {
    let Scratch { symbols, ranks, results, .. } = scratch;
    loop {
        let (mut best, mut at) = (NONE, 0);
        for (index, &rank) in ranks.iter().enumerate() {
            if rank < best {
                (best, at) = (rank, index);
            }
        }
        if best == NONE {
            return;
        }
        symbols[at] = results[at];
        symbols.remove(at + 1);
        ranks.remove(at);
        results.remove(at);
        if at < ranks.len() {
            (ranks[at], results[at]) = lookup(symbols[at], symbols[at + 1]);
        }
        if at > 0 {
            (ranks[at - 1], results[at - 1]) = lookup(symbols[at - 1], symbols[at]);
        }
    }
}

/// Symbols as a linked list, candidates in a heap; a candidate counts only while its rank is still the one at its place.
fn merge_by_heap(scratch: &mut Scratch, lookup: impl Fn(u32, u32) -> (u32, u32), out: &mut Vec<u32>) {
    let Scratch { symbols, ranks, results, next, previous, heap, .. } = scratch;
    let count = symbols.len();
    ranks.push(NONE);
    results.push(NONE);
    next.clear();
    next.extend(1..=count as u32);
    previous.clear();
    previous.extend((0..count as u32).map(|index| index.wrapping_sub(1)));
    heap.clear();
    heap.extend(ranks.iter().enumerate().filter(|(_, &rank)| rank != NONE).map(|(at, &rank)| Reverse(key(rank, at))));
    while let Some(Reverse(candidate)) = heap.pop() {
        let (rank, at) = ((candidate >> 32) as u32, candidate as u32 as usize);
        if ranks[at] != rank {
            continue;
        }
        symbols[at] = results[at];
        let gone = next[at] as usize;
        let after = next[gone] as usize;
        ranks[gone] = NONE;
        next[at] = after as u32;
        ranks[at] = NONE;
        if after < count {
            previous[after] = at as u32;
            (ranks[at], results[at]) = lookup(symbols[at], symbols[after]);
            if ranks[at] != NONE {
                heap.push(Reverse(key(ranks[at], at)));
            }
        }
        let before = previous[at] as usize;
        if before < count {
            (ranks[before], results[before]) = lookup(symbols[before], symbols[at]);
            if ranks[before] != NONE {
                heap.push(Reverse(key(ranks[before], before)));
            }
        }
    }
    let mut at = 0;
    while at < count {
        out.push(symbols[at]);
        at = next[at] as usize;
    }
}

fn key(rank: u32, at: usize) -> u64 {
    u64::from(rank) << 32 | at as u64
}
