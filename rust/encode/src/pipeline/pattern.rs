//! What a split or a replacement looks for: a literal text or a regular expression, and what becomes of the matches.
//! Knows nothing of tokens.

use fancy_regex::RegexBuilder;

use crate::error::Error;

/// Steps that one match may take before it is given up; far more than any text of a gigabyte needs.
const MOST_STEPS: usize = 1 << 40;

/// Something to find in a text.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// A text.
    Literal(String),
    /// A regular expression; `^` and `$` match at lines, as in Oniguruma.
    Regex(Box<fancy_regex::Regex>),
}

/// A stretch of text and whether it is a match.
pub type Stretch = (usize, usize, bool);

impl Pattern {
    /// Compiles an expression.
    pub fn regex(expression: &str) -> Result<Self, Error> {
        let whole = format!("(?m:{expression})");
        match RegexBuilder::new(&whole).backtrack_limit(MOST_STEPS).build() {
            Ok(regex) => Ok(Pattern::Regex(Box::new(regex))),
            Err(error) => {
                let reason = format!("\"{expression}\" cannot be compiled ({error})");
                Err(Error::BadPart { part: "the pattern", reason })
            }
        }
    }

    /// The whole text as matches and what lies between them.
    pub fn stretches(&self, text: &str) -> Result<Vec<Stretch>, Error> {
        let mut found = Vec::new();
        let mut at = 0;
        let mut add = |start: usize, end: usize| {
            if start > at {
                found.push((at, start, false));
            }
            found.push((start, end, true));
            at = end;
        };
        match self {
            Pattern::Literal(literal) if literal.is_empty() => {}
            Pattern::Literal(literal) => {
                text.match_indices(literal).for_each(|(start, part)| add(start, start + part.len()))
            }
            Pattern::Regex(regex) => {
                for found in regex.find_iter(text) {
                    let found = found.map_err(|error| Error::BadPart {
                        part: "the pattern",
                        reason: format!("{:?} failed on a text of {} bytes ({error})", regex.as_str(), text.len()),
                    })?;
                    add(found.start(), found.end());
                }
            }
        }
        if at < text.len() {
            found.push((at, text.len(), false));
        }
        Ok(found)
    }
}

/// The stretches of a text by a property of its characters; each such character is a match of its own.
pub fn stretches_of(text: &str, matches: impl Fn(char) -> bool) -> Vec<Stretch> {
    let mut found = Vec::new();
    let mut at = 0;
    for (start, character) in text.char_indices() {
        if matches(character) {
            if start > at {
                found.push((at, start, false));
            }
            at = start + character.len_utf8();
            found.push((start, at, true));
        }
    }
    if at < text.len() {
        found.push((at, text.len(), false));
    }
    found
}

/// What becomes of a match, in the words of `tokenizers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behavior {
    /// It goes away.
    Removed,
    /// It is a piece.
    Isolated,
    /// It ends the piece before it.
    MergedWithPrevious,
    /// It begins the piece after it.
    MergedWithNext,
    /// Neighbouring matches are one piece.
    Contiguous,
}

impl Behavior {
    /// By the name in a file.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "Removed" => Behavior::Removed,
            "Isolated" => Behavior::Isolated,
            "MergedWithPrevious" => Behavior::MergedWithPrevious,
            "MergedWithNext" => Behavior::MergedWithNext,
            "Contiguous" => Behavior::Contiguous,
            _ => return None,
        })
    }

    /// The pieces that the stretches make.
    pub fn pieces(self, stretches: Vec<Stretch>) -> Vec<(usize, usize)> {
        let mut pieces: Vec<(usize, usize)> = Vec::with_capacity(stretches.len());
        let mut previous = false;
        match self {
            Behavior::Removed => stretches.iter().filter(|part| !part.2).for_each(|part| pieces.push((part.0, part.1))),
            Behavior::Isolated => stretches.iter().for_each(|part| pieces.push((part.0, part.1))),
            Behavior::Contiguous | Behavior::MergedWithPrevious => {
                for (start, end, is_match) in stretches {
                    let joins = if self == Behavior::Contiguous { is_match == previous } else { is_match && !previous };
                    match pieces.last_mut() {
                        Some(last) if joins => last.1 = end,
                        _ => pieces.push((start, end)),
                    }
                    previous = is_match;
                }
            }
            Behavior::MergedWithNext => {
                for (start, end, is_match) in stretches.into_iter().rev() {
                    match pieces.last_mut() {
                        Some(last) if is_match && !previous => last.0 = start,
                        _ => pieces.push((start, end)),
                    }
                    previous = is_match;
                }
                pieces.reverse();
            }
        }
        pieces.retain(|(start, end)| start < end);
        pieces
    }
}
