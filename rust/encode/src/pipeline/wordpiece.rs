//! WordPiece: the longest known piece again and again (Schuster and Nakajima 2012). Knows nothing of normalisation.

use super::model::{Cut, QuickMap};
use crate::error::Error;

/// See the module.
#[derive(Debug, Clone)]
pub struct WordPiece {
    first: QuickMap<Box<[u8]>, u32>,
    /// Tokens that go on with a word, without their prefix.
    rest: QuickMap<Box<[u8]>, u32>,
    longest: usize,
    unknown: Option<u32>,
    max_characters: usize,
}

impl WordPiece {
    /// Of tokens by id; "" is a hole.
    pub fn new(tokens: &[String], unknown: Option<u32>, prefix: &str, max_characters: usize) -> Self {
        let mut first = QuickMap::default();
        let mut rest = QuickMap::default();
        let mut longest = 0;
        for (id, token) in tokens.iter().enumerate().filter(|(_, token)| !token.is_empty()) {
            longest = longest.max(token.len());
            first.insert(token.as_bytes().into(), id as u32);
            if let Some(tail) = token.strip_prefix(prefix).filter(|tail| !tail.is_empty()) {
                rest.insert(tail.as_bytes().into(), id as u32);
            }
        }
        WordPiece { first, rest, longest, unknown, max_characters }
    }

    /// Appends the tokens of one word; one piece that is missing makes the whole word unknown.
    pub fn encode(&self, word: &str, out: &mut Vec<Cut>) -> Result<(), Error> {
        let before = out.len();
        if word.len() <= self.max_characters || word.chars().count() <= self.max_characters {
            let mut start = 0;
            while start < word.len() {
                let known = if start == 0 { &self.first } else { &self.rest };
                let mut end = word.len().min(start + self.longest);
                while !word.is_char_boundary(end) {
                    end -= 1;
                }
                let found = loop {
                    if end <= start {
                        break None;
                    }
                    if let Some(&id) = known.get(&word.as_bytes()[start..end]) {
                        break Some(id);
                    }
                    end -= 1;
                    while !word.is_char_boundary(end) {
                        end -= 1;
                    }
                };
                let Some(id) = found else { break };
                out.push(Cut { id, end: end as u32 });
                start = end;
            }
            if start == word.len() {
                return Ok(());
            }
        }
        out.truncate(before);
        let id = self.unknown.ok_or_else(|| Error::NoUnknown(word.chars().next().unwrap_or_default()))?;
        out.push(Cut { id, end: word.len() as u32 });
        Ok(())
    }
}
