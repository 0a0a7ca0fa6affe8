//! The unigram language model: of all ways to cut a piece into tokens, the one with the highest sum of scores (Kudo 2018).
//!
//! Sums are kept as the tool keeps them that a file is for, since their last bits decide between cuts that are equally good:
//! `tokenizers` adds in 64 bits, SentencePiece 0.2.3 in 32, and begins anew from 0 where a sum has become large.

use super::model::{ByteTokens, Cut};
use super::trie::{Trie, NONE};
use crate::error::Error;

/// How much worse than the worst token an unknown character is.
const UNKNOWN_PENALTY: f64 = 10.0;

/// SentencePiece takes a sum beyond it, up or down, for the new 0.
const LARGE: f64 = 100_000.0;

/// See the module.
#[derive(Debug, Clone)]
pub struct Unigram {
    trie: Trie,
    scores: Vec<f64>,
    unknown: u32,
    unknown_score: f64,
    bytes: Option<ByteTokens>,
    /// SentencePiece's rules; otherwise those of `tokenizers`.
    single: bool,
}

/// What is the best way to get to a place in the piece.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    start: u32,
    id: u32,
}

impl Unigram {
    /// With the rules of `tokenizers`.
    pub fn new(tokens: &[String], scores: Vec<f64>, unknown: Option<u32>, bytes: Option<ByteTokens>) -> Self {
        let unknown = unknown.unwrap_or(NONE);
        let least = scores.iter().copied().fold(f64::INFINITY, f64::min);
        let keys = tokens.iter().enumerate().map(|(id, token)| (token.as_bytes(), id as u32));
        Unigram { trie: Trie::new(keys), unknown_score: least - UNKNOWN_PENALTY, scores, unknown, bytes, single: false }
    }

    /// With SentencePiece's rules. `normal` and `chosen` (user-defined) say of what kind each token is; the other kinds are
    /// never found in text.
    pub fn sentencepiece(
        tokens: &[String],
        mut scores: Vec<f64>,
        normal: &[bool],
        chosen: &[bool],
        unknown: u32,
        bytes: Option<ByteTokens>,
    ) -> Self {
        let of_normal = scores.iter().zip(normal).filter(|(_, &normal)| normal).map(|(&score, _)| score as f32);
        let least = of_normal.fold(f32::MAX, f32::min);
        for (id, score) in scores.iter_mut().enumerate() {
            if chosen[id] {
                // Any cut through a user-defined token is worse than the token.
                *score = f64::from((0.1 * (tokens[id].len() as f64 - 1.0)) as f32);
            }
        }
        let keys = tokens.iter().enumerate().filter(|&(id, _)| normal[id] || chosen[id]);
        let trie = Trie::new(keys.map(|(id, token)| (token.as_bytes(), id as u32)));
        let unknown_score = f64::from(least - UNKNOWN_PENALTY as f32);
        Unigram { trie, scores, unknown, unknown_score, bytes, single: true }
    }

    /// Appends the tokens of `piece` and where each ends.
    pub fn encode(&self, piece: &str, out: &mut Vec<Cut>) -> Result<(), Error> {
        let bytes = piece.as_bytes();
        let mut best = vec![Best { score: 0.0, start: NONE, id: NONE }; bytes.len() + 1];
        let better = |best: &mut Best, score: f64, start: usize, id: u32| {
            if best.start == NONE || score > best.score {
                *best = Best { score, start: start as u32, id };
            }
        };
        let (mut at, mut reached) = (0, 0);
        for character in piece.chars() {
            let width = character.len_utf8();
            let mut here = best[at].score;
            if self.single && here.abs() > LARGE {
                for node in best[at..=reached].iter_mut().filter(|node| node.start != NONE) {
                    node.score = self.add(node.score, -here);
                }
                here = 0.0;
            }
            let mut known = false;
            self.trie.prefixes(&bytes[at..], |length, id| {
                let sum = self.add(self.scores[id as usize], here);
                better(&mut best[at + length], sum, at, id);
                reached = reached.max(at + length);
                known |= length == width;
            });
            if !known {
                if self.unknown == NONE && !self.single {
                    return Err(Error::NoUnknown(character));
                }
                better(&mut best[at + width], self.add(self.unknown_score, here), at, self.unknown);
                reached = reached.max(at + width);
            }
            at += width;
        }
        let first = out.len();
        let mut end = bytes.len();
        while end > 0 {
            let node = best[end];
            out.push(Cut { id: node.id, end: end as u32 });
            end = node.start as usize;
        }
        out[first..].reverse();
        if out[first..].iter().any(|cut| cut.id == self.unknown) {
            self.resolve_unknown(piece, first, out);
        }
        Ok(())
    }

    #[inline(always)]
    fn add(&self, score: f64, here: f64) -> f64 {
        if self.single {
            f64::from(score as f32 + here as f32)
        } else {
            score + here
        }
    }

    /// Neighbouring unknown characters become one token, or bytes where the vocabulary has them.
    fn resolve_unknown(&self, piece: &str, first: usize, out: &mut Vec<Cut>) {
        let cuts: Vec<Cut> = out.drain(first..).collect();
        let mut start = 0;
        let mut index = 0;
        while index < cuts.len() {
            if cuts[index].id != self.unknown {
                start = cuts[index].end;
                out.push(cuts[index]);
                index += 1;
                continue;
            }
            if self.single && self.bytes.is_some() {
                // SentencePiece takes each unknown character apart for itself.
                self.push_bytes(piece, start, cuts[index].end, out);
                start = cuts[index].end;
                index += 1;
                continue;
            }
            let mut end = cuts[index].end;
            while index + 1 < cuts.len() && cuts[index + 1].id == self.unknown {
                index += 1;
                end = cuts[index].end;
            }
            match self.trie.get(&piece.as_bytes()[start as usize..end as usize]) {
                Some(id) if !self.single => out.push(Cut { id, end }),
                _ => self.push_bytes(piece, start, end, out),
            }
            start = end;
            index += 1;
        }
    }

    fn push_bytes(&self, piece: &str, start: u32, end: u32, out: &mut Vec<Cut>) {
        let part = &piece.as_bytes()[start as usize..end as usize];
        match self.bytes.as_ref().and_then(|bytes| bytes.all(part)) {
            Some(ids) => out.extend(ids.into_iter().map(|id| Cut { id, end })),
            None => out.push(Cut { id: self.unknown, end }),
        }
    }
}
