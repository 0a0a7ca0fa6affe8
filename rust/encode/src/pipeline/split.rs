//! Pre-tokenisers, one step each, as tokenizer.json names them. They cut normalised text into pieces for the model; two of
//! them put a blank in front first. Knows nothing of vocabularies.

use unicode_categories::UnicodeCategories;

use super::aligned::Aligned;
use super::pattern::{stretches_of, Behavior, Pattern};
use crate::error::Error;
use crate::split::{Scheme, ROOM};

/// Which pieces get a mark in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepend {
    /// All.
    Always,
    /// The one at the start of the whole text.
    First,
    /// None.
    Never,
}

/// One step.
pub enum PreTokenizer {
    /// A split pattern that has a scanner.
    Scheme(Scheme),
    /// A blank in front of a piece that has none.
    PrefixBlank,
    /// Matches of a pattern, or what lies between them.
    Split(Pattern, Behavior, bool),
    /// Blanks become a mark, which begins a piece.
    Metaspace {
        /// The mark.
        mark: char,
        /// Which pieces get one.
        prepend: Prepend,
        /// Whether pieces are cut before marks.
        split: bool,
    },
    /// White space goes away.
    WhitespaceSplit,
    /// Runs of word characters, and runs of other characters that are no white space.
    Whitespace(Pattern),
    /// White space goes away, punctuation stands alone.
    Bert,
    /// Punctuation.
    Punctuation(Behavior),
    /// Digits: each alone, or as runs.
    Digits(bool),
    /// A character goes away.
    Delimiter(char),
    /// Pieces of so many characters.
    FixedLength(usize),
}

/// A piece on its way to the model.
#[derive(Debug, Clone, Default)]
pub struct Piece {
    /// Its text.
    pub text: Aligned,
    /// Whether it stands at the start of the whole text.
    pub is_first: bool,
}

/// Punctuation as BERT and `tokenizers` see it.
pub fn is_punctuation(character: char) -> bool {
    character.is_ascii_punctuation() || character.is_punctuation()
}

impl PreTokenizer {
    /// The pieces of each piece; empty ones are left out.
    pub fn apply(&self, pieces: Vec<Piece>) -> Result<Vec<Piece>, Error> {
        let mut found = Vec::with_capacity(pieces.len() * 4);
        for mut piece in pieces {
            let text = piece.text.text.as_str();
            let ranges = match self {
                PreTokenizer::Scheme(scheme) => {
                    let mut ends = vec![0; text.len() + ROOM];
                    let count = scheme.split(text, 0, &mut ends);
                    let mut start = 0;
                    ends[..count].iter().map(|&end| (std::mem::replace(&mut start, end), end)).collect()
                }
                PreTokenizer::PrefixBlank => {
                    if !text.is_empty() && !text.starts_with(' ') {
                        piece.text.prepend(" ");
                    }
                    found.push(piece);
                    continue;
                }
                PreTokenizer::Split(pattern, behavior, invert) => {
                    let mut stretches = pattern.stretches(text)?;
                    if *invert {
                        stretches.iter_mut().for_each(|part| part.2 = !part.2);
                    }
                    behavior.pieces(stretches)
                }
                PreTokenizer::Metaspace { mark, prepend, split } => {
                    if text.is_empty() {
                        continue;
                    }
                    piece.text = put_marks(piece.text, *mark);
                    let wanted = match prepend {
                        Prepend::Always => true,
                        Prepend::First => piece.is_first,
                        Prepend::Never => false,
                    };
                    if wanted && !piece.text.text.starts_with(*mark) {
                        let mut buffer = [0; 4];
                        piece.text.prepend(mark.encode_utf8(&mut buffer));
                    }
                    if !split {
                        found.push(piece);
                        continue;
                    }
                    Behavior::MergedWithNext.pieces(stretches_of(&piece.text.text, |character| character == *mark))
                }
                PreTokenizer::WhitespaceSplit => Behavior::Removed.pieces(stretches_of(text, char::is_whitespace)),
                PreTokenizer::Whitespace(pattern) => {
                    let mut stretches = pattern.stretches(text)?;
                    stretches.iter_mut().for_each(|part| part.2 = !part.2);
                    Behavior::Removed.pieces(stretches)
                }
                PreTokenizer::Bert => bert(text),
                PreTokenizer::Punctuation(behavior) => behavior.pieces(stretches_of(text, is_punctuation)),
                PreTokenizer::Digits(each) => {
                    let behavior = if *each { Behavior::Isolated } else { Behavior::Contiguous };
                    behavior.pieces(stretches_of(text, char::is_numeric))
                }
                PreTokenizer::Delimiter(delimiter) => {
                    Behavior::Removed.pieces(stretches_of(text, |character| character == *delimiter))
                }
                PreTokenizer::FixedLength(length) => {
                    let starts: Vec<usize> = text.char_indices().step_by((*length).max(1)).map(|(at, _)| at).collect();
                    let ends = starts.iter().skip(1).copied().chain([text.len()]);
                    starts.iter().copied().zip(ends).collect()
                }
            };
            if ranges.len() == 1 && ranges[0] == (0, piece.text.text.len()) {
                found.push(piece);
                continue;
            }
            for (start, end) in ranges.into_iter().filter(|(start, end)| start < end) {
                found.push(Piece { text: piece.text.slice(start..end), is_first: piece.is_first && start == 0 });
            }
        }
        found.retain(|piece| !piece.text.text.is_empty());
        Ok(found)
    }
}

fn put_marks(old: Aligned, mark: char) -> Aligned {
    if !old.text.contains(' ') {
        return old;
    }
    let mut new = old.rewrite();
    let mut at = 0;
    for (start, part) in old.text.match_indices(' ') {
        new.keep(at..start);
        new.push_char(mark, start..start + part.len());
        at = start + part.len();
    }
    new.keep(at..old.text.len());
    new.finish()
}

fn bert(text: &str) -> Vec<(usize, usize)> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for (at, character) in text.char_indices() {
        let end = at + character.len_utf8();
        let alone = is_punctuation(character);
        if alone || character.is_whitespace() {
            if start < at {
                pieces.push((start, at));
            }
            if alone {
                pieces.push((at, end));
            }
            start = end;
        }
    }
    if start < text.len() {
        pieces.push((start, text.len()));
    }
    pieces
}
