//! Added tokens: texts that become one id before a model sees them, with the conditions that `tokenizers` puts on them.
//! Knows nothing of models.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};

use crate::error::Error;

/// One of them, as a file has it.
#[derive(Debug, Clone, Default)]
pub struct AddedToken {
    /// Its text.
    pub text: String,
    /// Its id.
    pub id: u32,
    /// Not found in text unless the caller allows it.
    pub special: bool,
    /// Only where no word goes on at either side.
    pub single_word: bool,
    /// With the white space in front.
    pub lstrip: bool,
    /// With the white space behind.
    pub rstrip: bool,
    /// Looked for after normalisation, and normalised itself.
    pub normalized: bool,
}

/// A matcher of some of them.
#[derive(Debug, Default)]
pub struct Matcher {
    automaton: Option<AhoCorasick>,
    tokens: Vec<usize>,
}

impl Matcher {
    /// Of (spelling, index of the token); empty spellings are left out.
    pub fn new(spellings: Vec<(String, usize)>) -> Result<Self, Error> {
        let spellings: Vec<(String, usize)> = spellings.into_iter().filter(|(text, _)| !text.is_empty()).collect();
        if spellings.is_empty() {
            return Ok(Self::default());
        }
        let texts = spellings.iter().map(|(text, _)| text);
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts);
        let wrong =
            |error| Error::BadPart { part: "the added tokens", reason: format!("no matcher can be made ({error})") };
        Ok(Matcher {
            automaton: Some(automaton.map_err(wrong)?),
            tokens: spellings.into_iter().map(|(_, index)| index).collect(),
        })
    }

    /// The whole text as (start, end, index of the token or none). `allowed` says which special tokens count; a match of
    /// one that does not is passed over, and what lies in it is not looked at again.
    pub fn split(
        &self,
        text: &str,
        tokens: &[AddedToken],
        allowed: &dyn Fn(&AddedToken) -> bool,
    ) -> Vec<(usize, usize, Option<usize>)> {
        let mut found = Vec::new();
        let mut at = 0;
        for hit in self.automaton.iter().flat_map(|automaton| automaton.find_iter(text)) {
            let index = self.tokens[hit.pattern().as_usize()];
            let token = &tokens[index];
            let (mut start, mut end) = (hit.start(), hit.end());
            if !allowed(token) {
                continue;
            }
            let touches = |character: Option<char>| character.is_some_and(is_word);
            if token.single_word && (touches(text[..start].chars().next_back()) || touches(text[end..].chars().next()))
            {
                continue;
            }
            if token.lstrip {
                start = text[..start].trim_end().len().max(at);
            }
            if token.rstrip {
                end += text[end..].len() - text[end..].trim_start().len();
            }
            // White space that the token before took is not taken twice.
            start = start.max(at);
            if end <= start {
                continue;
            }
            if at < start {
                found.push((at, start, None));
            }
            found.push((start, end, Some(index)));
            at = end;
        }
        if at < text.len() {
            found.push((at, text.len(), None));
        }
        found
    }
}

/// A word character of the `regex` crate, which is what `tokenizers` asks.
fn is_word(character: char) -> bool {
    static WORD: LazyLock<Option<fancy_regex::Regex>> = LazyLock::new(|| fancy_regex::Regex::new(r"\w").ok());
    let mut buffer = [0; 4];
    let text = character.encode_utf8(&mut buffer);
    character == '_' || WORD.as_ref().is_some_and(|word| word.is_match(text).unwrap_or(false))
}
