//! Byte-pair merging of one piece: of all neighbours the pair of the lowest rank merges, the leftmost first, until none is
//! left. The shortest pieces in arrays of fixed size, short ones by a linear scan, long ones by a heap, all with the same
//! result.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::vocab::{Merge, Vocabulary, NONE};

/// Up to this many bytes the scan over all pairs is cheaper than the heap.
const LINEAR_LIMIT: usize = 96;

/// Up to this many bytes a piece is merged in arrays of fixed size.
const SHORT: usize = 16;

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
}

/// Appends the tokens of `piece` to `out`. A byte without a token is left out, as Hugging Face's BPE does.
pub fn merge(vocabulary: &Vocabulary, piece: &[u8], scratch: &mut Scratch, out: &mut Vec<u32>) {
    merge_below(vocabulary, piece, NONE, scratch, out);
}

/// The same with merges of rank `limit` and later left out.
pub fn merge_below(vocabulary: &Vocabulary, piece: &[u8], limit: u32, scratch: &mut Scratch, out: &mut Vec<u32>) {
    if (2..=SHORT).contains(&piece.len()) && vocabulary.has_all_bytes() {
        merge_short(vocabulary, piece, limit, out);
        return;
    }
    scratch.symbols.clear();
    scratch.symbols.extend(piece.iter().map(|&byte| vocabulary.byte_id(byte)).filter(|&id| id != NONE));
    let count = scratch.symbols.len();
    if count < 2 {
        out.extend_from_slice(&scratch.symbols);
        return;
    }
    let lookup = |left: u32, right: u32| match vocabulary.merge(left, right) {
        Some(merge) if merge.rank < limit => (merge.rank, merge.id),
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

/// Up to [`SHORT`] bytes in arrays that stay where they are: a list of neighbours instead of moving what is behind, and the
/// pairs of bytes, which every piece begins with, from a table without a search.
fn merge_short(vocabulary: &Vocabulary, piece: &[u8], limit: u32, out: &mut Vec<u32>) {
    let count = piece.len();
    let mut symbols = [NONE; SHORT];
    let mut ranks = [NONE; SHORT];
    let mut results = [NONE; SHORT];
    let mut next = [0_u8; SHORT];
    let mut previous = [0_u8; SHORT];
    let below = |merge: Merge| if merge.rank < limit { (merge.rank, merge.id) } else { (NONE, NONE) };
    let lookup = |left: u32, right: u32| vocabulary.merge(left, right).map_or((NONE, NONE), below);
    for (index, &byte) in piece.iter().enumerate() {
        symbols[index] = vocabulary.byte_id(byte);
        next[index] = index as u8 + 1;
        previous[index] = (index as u8).wrapping_sub(1);
        if index + 1 < count {
            (ranks[index], results[index]) = below(vocabulary.merge_bytes(byte, piece[index + 1]));
        }
    }
    loop {
        let (mut best, mut at) = (NONE, 0);
        for (index, &rank) in ranks[..count].iter().enumerate() {
            if rank < best {
                (best, at) = (rank, index);
            }
        }
        if best == NONE {
            break;
        }
        symbols[at] = results[at];
        let gone = next[at] as usize % SHORT;
        let after = next[gone];
        ranks[gone] = NONE;
        next[at] = after;
        let after = after as usize;
        (ranks[at], results[at]) = if after < count {
            previous[after] = at as u8;
            lookup(symbols[at], symbols[after])
        } else {
            (NONE, NONE)
        };
        if at > 0 {
            let before = previous[at] as usize % SHORT;
            (ranks[before], results[before]) = lookup(symbols[before], symbols[at]);
        }
    }
    let mut at = 0;
    while at < count {
        out.push(symbols[at]);
        at = next[at] as usize;
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
    let Scratch { symbols, ranks, results, next, previous, heap } = scratch;
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
