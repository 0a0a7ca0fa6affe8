//! SentencePiece's own rules: how it normalises text, and its BPE, which merges by the scores of pieces (Kudo and Richardson
//! 2018). Knows no file format.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::aligned::Aligned;
use super::bpe::has_inner;
use super::charsmap::Charsmap;
use super::model::{ByteTokens, Cut, QuickMap};
use super::trie::Trie;

/// What stands for a blank in pieces.
pub const BLANK: &str = "\u{2581}";

/// How text is normalised.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Replacements of characters.
    pub charsmap: Charsmap,
    /// A blank in front of every text.
    pub add_dummy_prefix: bool,
    /// Blanks at both ends go away, runs of them become one.
    pub remove_extra_whitespaces: bool,
    /// Blanks are written as U+2581.
    pub escape_whitespaces: bool,
    /// The blank stands behind a word, not in front.
    pub whitespace_as_suffix: bool,
    /// User-defined pieces stay as they are.
    pub chosen: Trie,
}

impl Rules {
    /// What the start of `text` becomes, and how many bytes of it that was.
    fn prefix<'text>(&'text self, text: &'text str) -> (&'text str, usize) {
        if let Some((length, _)) = self.chosen.longest(text.as_bytes()) {
            return (&text[..length], length);
        }
        if let Some((length, replacement)) = self.charsmap.longest(text.as_bytes()) {
            // A key of a damaged map may end inside a character.
            if text.is_char_boundary(length) {
                return (replacement, length);
            }
        }
        let length = text.chars().next().map_or(0, char::len_utf8);
        (&text[..length], length)
    }

    /// The normalised text.
    pub fn apply(&self, old: &Aligned) -> Aligned {
        let text = old.text.as_str();
        let mut at = 0;
        if self.remove_extra_whitespaces {
            while at < text.len() {
                let (becomes, length) = self.prefix(&text[at..]);
                if becomes != " " {
                    break;
                }
                at += length;
            }
        }
        let mut new = old.rewrite();
        if at == text.len() {
            return new.finish();
        }
        let blank = if self.escape_whitespaces { BLANK } else { " " };
        if self.add_dummy_prefix && !self.whitespace_as_suffix {
            new.push(blank, at..at);
        }
        let mut after_blank = self.remove_extra_whitespaces;
        while at < text.len() {
            let (becomes, length) = self.prefix(&text[at..]);
            let becomes = if after_blank { becomes.trim_start_matches(' ') } else { becomes };
            if !becomes.is_empty() {
                for (index, part) in becomes.split(' ').enumerate() {
                    if index > 0 {
                        new.push(blank, at..at + length);
                    }
                    new.push(part, at..at + length);
                }
                after_blank = self.remove_extra_whitespaces && becomes.ends_with(' ');
            } else if !self.remove_extra_whitespaces {
                after_blank = false;
            }
            at += length;
        }
        let mut new = new.finish();
        if self.remove_extra_whitespaces {
            let kept = new.text.trim_end_matches(blank).len();
            new = new.slice(0..kept);
        }
        if self.add_dummy_prefix && self.whitespace_as_suffix {
            let end = old.span(text.len()..text.len());
            new.text.push_str(blank);
            if let Some(from) = &mut new.from {
                from.extend(std::iter::repeat_n(end, blank.len()));
            }
        }
        new
    }
}

/// BPE by scores.
#[derive(Debug)]
pub struct SentencePieceBpe {
    /// Pieces that text may become: (id, whether it is only a step of other merges).
    pieces: QuickMap<Box<[u8]>, (u32, bool)>,
    scores: Vec<f32>,
    chosen: Trie,
    unknown: u32,
    bytes: Option<ByteTokens>,
}

struct Symbol {
    start: u32,
    end: u32,
    previous: i32,
    next: i32,
    frozen: bool,
}

#[derive(PartialEq)]
struct Candidate {
    score: f32,
    left: i32,
    right: i32,
    size: u32,
}

impl Eq for Candidate {}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl SentencePieceBpe {
    /// Of pieces by id. `mergeable` says which ones text may become, `unused` which of these only on the way to others.
    pub fn new(
        tokens: &[String],
        scores: Vec<f32>,
        mergeable: &[bool],
        unused: &[bool],
        chosen: Trie,
        unknown: u32,
        bytes: Option<ByteTokens>,
    ) -> Self {
        let mut pieces = QuickMap::default();
        for (id, token) in tokens.iter().enumerate().filter(|&(id, token)| mergeable[id] && !token.is_empty()) {
            pieces.insert(Box::from(token.as_bytes()), (id as u32, unused[id]));
        }
        // Zero of either sign is one score to SentencePiece.
        let scores = scores.into_iter().map(|score| if score == 0.0 { 0.0 } else { score }).collect();
        SentencePieceBpe { pieces, scores, chosen, unknown, bytes }
    }

    /// Whether text may be cut before each `mark` behind another character: the mark is a piece, and none has it inside.
    pub fn is_cut_by(&self, mark: char) -> bool {
        let crosses = |token: &[u8]| std::str::from_utf8(token).is_ok_and(|token| has_inner(token, mark));
        self.pieces.contains_key(mark.to_string().as_bytes()) && !self.pieces.keys().any(|token| crosses(token))
    }

    /// Appends the tokens of one piece of text.
    pub fn encode(&self, piece: &str, out: &mut Vec<Cut>) {
        let text = piece.as_bytes();
        let mut symbols: Vec<Symbol> = Vec::with_capacity(text.len());
        let mut at = 0;
        while at < text.len() {
            let (length, frozen) = match self.chosen.longest(&text[at..]) {
                Some((length, _)) => (length, true),
                None => (piece[at..].chars().next().map_or(1, char::len_utf8), false),
            };
            let index = symbols.len() as i32;
            symbols.push(Symbol {
                start: at as u32,
                end: (at + length) as u32,
                previous: index - 1,
                next: if at + length < text.len() { index + 1 } else { -1 },
                frozen,
            });
            at += length;
        }
        let mut queue = BinaryHeap::with_capacity(symbols.len());
        let mut steps: QuickMap<Box<[u8]>, usize> = QuickMap::default();
        for right in 1..symbols.len() as i32 {
            self.add(text, &symbols, right - 1, right, &mut queue, &mut steps);
        }
        while let Some(Candidate { left, right, size, .. }) = queue.pop() {
            let (first, second) = (&symbols[left as usize], &symbols[right as usize]);
            let (first_size, second_size) = (first.end - first.start, second.end - second.start);
            if first_size == 0 || second_size == 0 || first_size + second_size != size {
                continue;
            }
            let (end, next) = (second.end, second.next);
            symbols[left as usize].end = end;
            symbols[left as usize].next = next;
            symbols[right as usize].end = symbols[right as usize].start;
            if next >= 0 {
                symbols[next as usize].previous = left;
            }
            let previous = symbols[left as usize].previous;
            self.add(text, &symbols, previous, left, &mut queue, &mut steps);
            self.add(text, &symbols, left, next, &mut queue, &mut steps);
        }
        let first = out.len();
        let mut index = if symbols.is_empty() { -1 } else { 0 };
        while index >= 0 {
            let symbol = &symbols[index as usize];
            self.push(text, symbol.start as usize, symbol.end as usize, &steps, first, out);
            index = symbol.next;
        }
    }

    fn add(
        &self,
        text: &[u8],
        symbols: &[Symbol],
        left: i32,
        right: i32,
        queue: &mut BinaryHeap<Candidate>,
        steps: &mut QuickMap<Box<[u8]>, usize>,
    ) {
        if left < 0 || right < 0 {
            return;
        }
        let (first, second) = (&symbols[left as usize], &symbols[right as usize]);
        if first.frozen || second.frozen {
            return;
        }
        let joined = &text[first.start as usize..second.end as usize];
        let Some(&(id, unused)) = self.pieces.get(joined) else { return };
        queue.push(Candidate { score: self.scores[id as usize], left, right, size: joined.len() as u32 });
        if unused {
            steps.insert(joined.into(), (first.end - first.start) as usize);
        }
    }

    /// The token of a symbol, or of its parts where it was only a step, or of its bytes where it is unknown.
    fn push(
        &self,
        text: &[u8],
        start: usize,
        end: usize,
        steps: &QuickMap<Box<[u8]>, usize>,
        first: usize,
        out: &mut Vec<Cut>,
    ) {
        let part = &text[start..end];
        match self.pieces.get(part) {
            Some(&(id, unused)) => match steps.get(part).filter(|_| unused) {
                Some(&length) => {
                    self.push(text, start, start + length, steps, first, out);
                    self.push(text, start + length, end, steps, first, out);
                }
                None => out.push(Cut { id, end: end as u32 }),
            },
            None => {
                if let Some(ids) = self.bytes.as_ref().and_then(|bytes| bytes.all(part)) {
                    out.extend(ids.into_iter().map(|id| Cut { id, end: end as u32 }));
                    return;
                }
                match out[first..].last_mut() {
                    Some(last) if last.id == self.unknown => last.end = end as u32,
                    _ => out.push(Cut { id: self.unknown, end: end as u32 }),
                }
            }
        }
    }
}
