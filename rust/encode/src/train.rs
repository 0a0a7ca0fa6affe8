//! Learns the merges of a byte-level BPE vocabulary from counted pieces: again and again the most frequent pair of
//! neighbours becomes a token. Knows no text.
//!
//! The rule is that of Hugging Face's `BpeTrainer`: special tokens have the first ids, the 256 bytes follow in the order
//! of their characters in GPT-2's alphabet, then each merge; of pairs equally frequent the one with the smaller ids goes
//! first. So the merges are the same, and they do not depend on threads or the order of texts.

use std::collections::BinaryHeap;

use crate::alphabet::byte_to_char;
use crate::count::{FoldMap, PieceCounts};
use crate::error::Error;

/// What was learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trained {
    /// The bytes of each id; empty for special tokens.
    pub tokens: Vec<Vec<u8>>,
    /// Pairs of ids in the order they were learned.
    pub merges: Vec<(u32, u32)>,
}

/// Pieces as lists of symbols, all in one array; a merged-away place is closed up at once, so a piece only shrinks.
struct Words {
    symbols: Vec<u32>,
    starts: Vec<u32>,
    lengths: Vec<u32>,
    counts: Vec<i64>,
}

#[derive(Default)]
struct Pair {
    count: i64,
    /// Words that hold or held the pair; one may stand here twice, or hold it no longer.
    words: Vec<u32>,
}

/// In the heap the largest count comes first, then the smallest pair.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    count: i64,
    pair: std::cmp::Reverse<u64>,
}

fn pair_of(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// The 256 bytes in the order of their characters in GPT-2's alphabet.
pub fn bytes_in_order() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.sort_by_key(|&byte| byte_to_char(byte));
    bytes
}

/// Learns until the vocabulary has `vocabulary` tokens, `num_specials` of them special, or no pair occurs `min_count`
/// times any more.
pub fn train(counts: &PieceCounts, vocabulary: usize, num_specials: usize, min_count: u64) -> Result<Trained, Error> {
    let least = 256 + num_specials;
    if vocabulary < least {
        return Err(Error::VocabularyTooSmall { asked: vocabulary, least });
    }
    let order = bytes_in_order();
    let mut tokens: Vec<Vec<u8>> = vec![Vec::new(); num_specials];
    tokens.extend(order.iter().map(|&byte| vec![byte]));
    let mut byte_ids = [0_u32; 256];
    for (index, &byte) in order.iter().enumerate() {
        byte_ids[byte as usize] = (num_specials + index) as u32;
    }
    // Two pairs may spell the same token: it keeps its first id.
    let mut ids: FoldMap<Vec<u8>, u32> =
        tokens.iter().enumerate().skip(num_specials).map(|(id, token)| (token.clone(), id as u32)).collect();

    let mut words = read_words(counts, &byte_ids)?;
    let mut pairs: FoldMap<u64, Pair> = FoldMap::default();
    for word in 0..words.counts.len() {
        let (start, length) = (words.starts[word] as usize, words.lengths[word] as usize);
        for neighbours in words.symbols[start..start + length].windows(2) {
            let pair = pairs.entry(pair_of(neighbours[0], neighbours[1])).or_default();
            pair.count += words.counts[word];
            if pair.words.last() != Some(&(word as u32)) {
                pair.words.push(word as u32);
            }
        }
    }
    let mut heap: BinaryHeap<Candidate> =
        pairs.iter().map(|(&pair, state)| Candidate { count: state.count, pair: std::cmp::Reverse(pair) }).collect();

    let mut merges = Vec::new();
    let mut changed: Vec<u64> = Vec::new();
    let least_count = min_count.max(1) as i64;
    while tokens.len() < vocabulary {
        let Some(Candidate { count, pair: std::cmp::Reverse(pair) }) = heap.pop() else { break };
        let Some(state) = pairs.get(&pair) else { continue };
        if state.count != count {
            // Counts only fall while a candidate waits, except when it was pushed again with the new one.
            if state.count > 0 && state.count < count {
                heap.push(Candidate { count: state.count, pair: std::cmp::Reverse(pair) });
            }
            continue;
        }
        if count < least_count {
            break;
        }
        let (left, right) = ((pair >> 32) as u32, pair as u32);
        let joined = [tokens[left as usize].as_slice(), tokens[right as usize].as_slice()].concat();
        let id = *ids.entry(joined).or_insert_with_key(|joined| {
            tokens.push(joined.clone());
            tokens.len() as u32 - 1
        });
        merges.push((left, right));
        let holders = pairs.remove(&pair).map(|state| state.words).unwrap_or_default();
        changed.clear();
        for word in holders {
            words.merge(word, left, right, id, &mut pairs, &mut changed);
        }
        changed.sort_unstable();
        changed.dedup();
        for &pair in &changed {
            if let Some(state) = pairs.get(&pair) {
                if state.count > 0 {
                    heap.push(Candidate { count: state.count, pair: std::cmp::Reverse(pair) });
                }
            }
        }
    }
    Ok(Trained { tokens, merges })
}

fn read_words(counts: &PieceCounts, byte_ids: &[u32; 256]) -> Result<Words, Error> {
    let mut words = Words { symbols: Vec::new(), starts: Vec::new(), lengths: Vec::new(), counts: Vec::new() };
    counts.for_each(|piece, count| {
        if piece.len() > 1 {
            words.starts.push(words.symbols.len() as u32);
            words.lengths.push(piece.len() as u32);
            words.counts.push(count as i64);
            words.symbols.extend(piece.iter().map(|&byte| byte_ids[byte as usize]));
        }
    });
    if words.symbols.len() > u32::MAX as usize {
        return Err(Error::TooLong(words.symbols.len()));
    }
    Ok(words)
}

impl Words {
    /// Merges every `left right` of one word into `id`, from the left; notes new pairs in `changed`.
    fn merge(
        &mut self,
        word: u32,
        left: u32,
        right: u32,
        id: u32,
        pairs: &mut FoldMap<u64, Pair>,
        changed: &mut Vec<u64>,
    ) {
        let start = self.starts[word as usize] as usize;
        let length = self.lengths[word as usize] as usize;
        let count = self.counts[word as usize];
        let symbols = &mut self.symbols[start..start + length];
        let lose = |pairs: &mut FoldMap<u64, Pair>, pair: u64| {
            // The merged pair itself is no longer there.
            if let Some(state) = pairs.get_mut(&pair) {
                state.count -= count;
            }
        };
        let mut gain = |pairs: &mut FoldMap<u64, Pair>, pair: u64| {
            let state = pairs.entry(pair).or_default();
            state.count += count;
            if state.words.last() != Some(&word) {
                state.words.push(word);
            }
            changed.push(pair);
        };
        let (mut read, mut write) = (0, 0);
        while read < length {
            if read + 1 < length && symbols[read] == left && symbols[read + 1] == right {
                if write > 0 {
                    lose(pairs, pair_of(symbols[write - 1], left));
                    gain(pairs, pair_of(symbols[write - 1], id));
                }
                if read + 2 < length {
                    lose(pairs, pair_of(right, symbols[read + 2]));
                    gain(pairs, pair_of(id, symbols[read + 2]));
                }
                symbols[write] = id;
                read += 2;
            } else {
                symbols[write] = symbols[read];
                read += 1;
            }
            write += 1;
        }
        self.lengths[word as usize] = write as u32;
    }
}
