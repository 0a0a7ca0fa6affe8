//! Learns the merges of a byte-level BPE vocabulary from counted pieces: again and again the most frequent pair of
//! neighbours becomes a token. Knows no text.
//!
//! The rule is that of Hugging Face's `BpeTrainer`: special tokens have the first ids, the 256 bytes follow in the order
//! of their characters in GPT-2's alphabet, then each merge; of pairs equally frequent the one with the smaller ids goes
//! first. So the merges are the same, and they do not depend on threads or the order of texts.
//!
//! A pair of symbols comes into being when the younger of the two is made, all its places at once, and can only become rarer
//! after that. So its count is taken then and not kept up: when its turn comes and one of its symbols was merged with others
//! since, it is counted again, and waits if it has become rarer. That costs a look at each of its places and no table of pairs.
//!
//! No two pairs spell the same token. Inside two neighbours merges went as they go in a text of just their bytes, since none went
//! beyond them; and once these bytes are a token, such a text is that token.

mod candidates;
mod least;
mod tokens;
mod words;

use std::ops::Range;

use crate::alphabet::byte_to_char;
use crate::count::PieceCounts;
use crate::error::Error;

use candidates::{Candidate, Candidates};
use least::Least;
use tokens::Tokens;
use words::Words;

/// What was learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trained {
    /// The bytes of each id; empty for special tokens.
    pub tokens: Vec<Vec<u8>>,
    /// Pairs of ids in the order they were learned.
    pub merges: Vec<(u32, u32)>,
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
    let fewest = 256 + num_specials;
    if vocabulary < fewest {
        return Err(Error::VocabularyTooSmall { asked: vocabulary, least: fewest });
    }
    let mut learner = Learner::new(counts, vocabulary - num_specials, min_count.max(1))?;
    while learner.step() {}
    let first = num_specials as u32;
    let mut tokens = vec![Vec::new(); num_specials];
    tokens.extend((0..learner.tokens.len()).map(|id| learner.tokens.token(id).to_vec()));
    let merges = learner.merges.iter().map(|&(left, right)| (left + first, right + first)).collect();
    Ok(Trained { tokens, merges })
}

/// The state between two merges; ids here begin with the bytes.
struct Learner {
    tokens: Tokens,
    words: Words,
    candidates: Candidates,
    least: Least,
    most: usize,
    merges: Vec<(u32, u32)>,
    /// When each symbol was last a part of what was merged.
    merged: Vec<u32>,
    /// Ticks with each merge and each count.
    time: u32,
}

impl Learner {
    fn new(counts: &PieceCounts, most: usize, min_count: u64) -> Result<Self, Error> {
        let (mut ids, mut tokens) = ([0; 256], Tokens::default());
        for (id, byte) in bytes_in_order().into_iter().enumerate() {
            ids[byte as usize] = id as u32;
            tokens.add_byte(byte);
        }
        let mut words = Words::new(counts, &ids)?;
        let least = Least::new(&words.counts, &words.pieces, most - tokens.len(), min_count);
        let (mut all, time) = (Vec::new(), 1);
        words.first_pairs(least.count(), |left, right, count, list| {
            all.push(Candidate::new(left, right, count, list, time));
        });
        let candidates = Candidates::new(all);
        Ok(Learner { tokens, words, candidates, least, most, merges: Vec::new(), merged: vec![0; 256], time })
    }

    /// Merges the most frequent pair, or finds that it has become rarer; `false` when nothing is left to do.
    fn step(&mut self) -> bool {
        if self.tokens.len() >= self.most {
            return false;
        }
        let least = self.least.count();
        let Some(candidate) = self.candidates.pop(least) else { return false };
        let (left, right) = candidate.pair();
        let mut list = candidate.list();
        if self.merged[left as usize].max(self.merged[right as usize]) >= candidate.time {
            self.time += 1;
            let count = self.words.count(&mut list, left, right);
            if count != candidate.count {
                if count >= least {
                    self.candidates.push(Candidate::new(left, right, count, list, self.time));
                }
                return true;
            }
        }
        self.merge(left, right, list);
        true
    }

    fn merge(&mut self, left: u32, right: u32, list: Range<usize>) {
        self.time += 1;
        let time = self.time;
        self.merged[left as usize] = time;
        self.merged[right as usize] = time;
        self.merged.push(0);
        self.merges.push((left, right));
        self.tokens.join(left, right);
        let piece = self.words.merge(list, left, right);
        self.least.learned(piece);
        let candidates = &mut self.candidates;
        self.words.new_pairs(self.least.count(), |left, right, count, list| {
            candidates.push(Candidate::new(left, right, count, list, time));
        });
    }
}
