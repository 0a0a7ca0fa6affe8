//! BPE over characters, with unknown ones as bytes or as one token: the rules of `tokenizers`. Knows nothing of bytes as an
//! alphabet (`vocab.rs`) or of scores (`sentencepiece.rs`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::model::{ByteTokens, Cut, QuickMap};
use crate::error::Error;

const NONE: u32 = u32::MAX;

/// What two neighbouring tokens merge into, and how early.
#[derive(Debug, Clone, Copy)]
struct Merge {
    rank: u32,
    id: u32,
}

/// What a file says beside tokens and merges.
#[derive(Debug, Clone, Default)]
pub struct BpeOptions {
    /// The token for what is unknown.
    pub unknown: Option<u32>,
    /// Neighbouring unknown characters are one token.
    pub fuse_unknown: bool,
    /// Unknown characters become `<0x..>` tokens where there are such.
    pub byte_fallback: bool,
    /// A piece that is a token is that token.
    pub whole_pieces: bool,
    /// In front of every character but the first of a piece.
    pub prefix: String,
    /// Behind the last character of a piece.
    pub suffix: String,
}

/// See the module.
#[derive(Debug)]
pub struct CharacterBpe {
    ids: QuickMap<Box<[u8]>, u32>,
    merges: QuickMap<u64, Merge>,
    bytes: Option<ByteTokens>,
    options: BpeOptions,
}

/// Whether `mark` stands behind another character in `token`.
pub(super) fn has_inner(token: &str, mark: char) -> bool {
    token.chars().zip(token.chars().skip(1)).any(|(before, character)| character == mark && before != mark)
}

#[derive(Clone, Copy)]
struct Symbol {
    id: u32,
    length: u32,
    previous: u32,
    next: u32,
}

fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

impl CharacterBpe {
    /// Of tokens by id ("" is a hole) and merges by rank.
    pub fn new(tokens: &[String], merges: &[(String, String)], options: BpeOptions) -> Result<Self, Error> {
        let mut ids = QuickMap::default();
        for (id, token) in tokens.iter().enumerate().filter(|(_, token)| !token.is_empty()) {
            ids.insert(Box::from(token.as_bytes()), id as u32);
        }
        let mut table = QuickMap::default();
        for (rank, (left, right)) in merges.iter().enumerate() {
            let wrong = |reason| Error::BadMerge { rank, merge: format!("{left} {right}"), reason };
            let id = |token: &str| ids.get(token.as_bytes()).copied();
            let (Some(first), Some(second)) = (id(left), id(right)) else {
                return Err(wrong("names a token that the vocabulary does not have"));
            };
            let tail = right.strip_prefix(options.prefix.as_str()).unwrap_or(right);
            let joined = id(&format!("{left}{tail}")).ok_or_else(|| wrong("makes no token of the vocabulary"))?;
            // Where a pair comes twice the later merge counts, as in `tokenizers`.
            table.insert(key(first, second), Merge { rank: rank as u32, id: joined });
        }
        let bytes = options.byte_fallback.then(|| ByteTokens::find(|name| ids.get(name.as_bytes()).copied()));
        Ok(CharacterBpe { ids, merges: table, bytes, options })
    }

    /// Whether text may be cut before each `mark` behind another character: the mark is a token, and none has it inside.
    pub fn is_cut_by(&self, mark: char) -> bool {
        let plain = self.options.prefix.is_empty() && self.options.suffix.is_empty();
        let crosses = |token: &[u8]| std::str::from_utf8(token).is_ok_and(|token| has_inner(token, mark));
        plain && self.ids.contains_key(mark.to_string().as_bytes()) && !self.ids.keys().any(|token| crosses(token))
    }

    /// Appends the tokens of one piece.
    pub fn encode(&self, piece: &str, out: &mut Vec<Cut>) {
        if self.options.whole_pieces {
            if let Some(&id) = self.ids.get(piece.as_bytes()) {
                out.push(Cut { id, end: piece.len() as u32 });
                return;
            }
        }
        let mut symbols = self.symbols(piece);
        self.merge(&mut symbols);
        let mut end = 0;
        for symbol in symbols.iter().filter(|symbol| symbol.length > 0) {
            end += symbol.length;
            out.push(Cut { id: symbol.id, end });
        }
    }

    fn symbols(&self, piece: &str) -> Vec<Symbol> {
        let mut symbols = Vec::with_capacity(piece.len());
        let mut waiting: Option<u32> = None;
        let mut add = |id: u32, length: u32| {
            let index = symbols.len() as u32;
            symbols.push(Symbol { id, length, previous: index.wrapping_sub(1), next: index + 1 });
        };
        let unknown = self.options.unknown;
        let BpeOptions { prefix, suffix, .. } = &self.options;
        let mut spelled = String::new();
        for (at, character) in piece.char_indices() {
            let length = character.len_utf8() as u32;
            let part = &piece[at..at + length as usize];
            let is_last = at + length as usize == piece.len();
            let spelled = if (at == 0 || prefix.is_empty()) && (!is_last || suffix.is_empty()) {
                part
            } else {
                spelled.clear();
                spelled.push_str(if at == 0 { "" } else { prefix });
                spelled.push_str(part);
                spelled.push_str(if is_last { suffix } else { "" });
                &spelled
            };
            if let Some(&id) = self.ids.get(spelled.as_bytes()) {
                if let (Some(length), Some(unknown)) = (waiting.take(), unknown) {
                    add(unknown, length);
                }
                add(id, length);
                continue;
            }
            if let Some(ids) = self.bytes.as_ref().and_then(|bytes| bytes.all(spelled.as_bytes())) {
                ids.into_iter().for_each(|id| add(id, 1));
                continue;
            }
            let Some(unknown) = unknown else { continue };
            waiting = match waiting {
                Some(before) if self.options.fuse_unknown => Some(before + length),
                Some(before) => {
                    add(unknown, before);
                    Some(length)
                }
                None => Some(length),
            };
        }
        if let (Some(length), Some(unknown)) = (waiting, unknown) {
            add(unknown, length);
        }
        if let Some(last) = symbols.last_mut() {
            last.next = NONE;
        }
        symbols
    }

    fn merge(&self, symbols: &mut [Symbol]) {
        let mut queue = BinaryHeap::with_capacity(symbols.len());
        for index in 1..symbols.len() {
            if let Some(merge) = self.merges.get(&key(symbols[index - 1].id, symbols[index].id)) {
                queue.push(Reverse((merge.rank, index as u32 - 1, merge.id)));
            }
        }
        while let Some(Reverse((_, at, id))) = queue.pop() {
            let left = symbols[at as usize];
            if left.length == 0 || left.next == NONE {
                continue;
            }
            let right = symbols[left.next as usize];
            if self.merges.get(&key(left.id, right.id)).is_none_or(|merge| merge.id != id) {
                continue;
            }
            symbols[left.next as usize].length = 0;
            let merged = Symbol { id, length: left.length + right.length, next: right.next, ..left };
            symbols[at as usize] = merged;
            if merged.next != NONE {
                symbols[merged.next as usize].previous = at;
                if let Some(merge) = self.merges.get(&key(id, symbols[merged.next as usize].id)) {
                    queue.push(Reverse((merge.rank, at, merge.id)));
                }
            }
            if merged.previous != NONE {
                if let Some(merge) = self.merges.get(&key(symbols[merged.previous as usize].id, id)) {
                    queue.push(Reverse((merge.rank, merged.previous, merge.id)));
                }
            }
        }
    }
}
