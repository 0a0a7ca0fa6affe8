//! Normalisers, one step each, as tokenizer.json names them; the tables are those of the crates that `tokenizers` uses, so
//! that characters younger than those tables are treated alike. Knows nothing of tokens.

use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::char::is_combining_mark;
use unicode_normalization_alignments::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

use super::aligned::Aligned;
use super::charsmap::Charsmap;
use super::pattern::Pattern;
use super::sentencepiece::Rules;
use crate::error::Error;

/// The longest grapheme, in bytes, that a character map sees whole.
const SHORT_GRAPHEME: usize = 6;

/// One step.
pub enum Normalizer {
    /// Canonical composition.
    Nfc,
    /// Canonical decomposition.
    Nfd,
    /// Compatibility composition.
    Nfkc,
    /// Compatibility decomposition.
    Nfkd,
    /// Lower case, character by character.
    Lowercase,
    /// White space at the ends goes away.
    Strip {
        /// At the start.
        left: bool,
        /// At the end.
        right: bool,
    },
    /// Combining marks go away.
    StripAccents,
    /// Control characters go away, other white space becomes blanks.
    Nmt,
    /// The four steps of BERT.
    Bert {
        /// Control characters go away, white space becomes blanks.
        clean: bool,
        /// Blanks around CJK ideographs.
        ideographs: bool,
        /// Accents go away.
        accents: bool,
        /// Lower case.
        lowercase: bool,
    },
    /// A text in front, unless there is none.
    Prepend(String),
    /// Matches become a text.
    Replace(Pattern, String),
    /// A character map, grapheme by grapheme.
    Precompiled(Charsmap),
    /// All that SentencePiece does.
    SentencePiece(Box<Rules>),
}

impl Normalizer {
    /// The changed text.
    pub fn apply(&self, mut text: Aligned) -> Result<Aligned, Error> {
        Ok(match self {
            Normalizer::Nfc if text.text.is_ascii() => text,
            Normalizer::Nfd | Normalizer::Nfkc | Normalizer::Nfkd | Normalizer::StripAccents
                if text.text.is_ascii() =>
            {
                text
            }
            Normalizer::Nfc => compose(&text, text.text.nfc()),
            Normalizer::Nfd => compose(&text, text.text.nfd()),
            Normalizer::Nfkc => compose(&text, text.text.nfkc()),
            Normalizer::Nfkd => compose(&text, text.text.nfkd()),
            Normalizer::Lowercase => lowercase(&text),
            Normalizer::Strip { left, right } => {
                let from = if *left { text.text.len() - text.text.trim_start().len() } else { 0 };
                let to = if *right { text.text.trim_end().len().max(from) } else { text.text.len() };
                text.slice(from..to)
            }
            Normalizer::StripAccents => map(&text, |character| (!is_combining_mark(character)).then_some(character)),
            Normalizer::Nmt => map(&text, nmt),
            Normalizer::Bert { clean, ideographs, accents, lowercase: lower } => {
                if *clean {
                    text = map(&text, clean_character);
                }
                if *ideographs {
                    text = space_ideographs(text);
                }
                if *accents && !text.text.is_ascii() {
                    text = compose(&text, text.text.nfd());
                    text = map(&text, |character| (!character.is_mark_nonspacing()).then_some(character));
                }
                if *lower {
                    text = lowercase(&text);
                }
                text
            }
            Normalizer::Prepend(prefix) => {
                if !text.text.is_empty() {
                    text.prepend(prefix);
                }
                text
            }
            Normalizer::Replace(pattern, content) => replace(text, pattern, content)?,
            Normalizer::Precompiled(charsmap) => precompiled(text, charsmap),
            Normalizer::SentencePiece(rules) => rules.apply(&text),
        })
    }
}

/// Rewrites by (character, change): a change above 0 puts a character in, below 0 stands for so many more of the old ones.
fn compose(old: &Aligned, characters: impl Iterator<Item = (char, isize)>) -> Aligned {
    let mut new = old.rewrite();
    let mut source = 0..0;
    let mut rest = old.text.char_indices();
    for (character, change) in characters {
        if change <= 0 {
            let start = source.end;
            let mut end = start;
            for _ in 0..=-change {
                if let Some((at, old)) = rest.next() {
                    end = at + old.len_utf8();
                }
            }
            source = start..end;
        }
        new.push_char(character, source.clone());
    }
    new.finish()
}

fn map(old: &Aligned, change: impl Fn(char) -> Option<char>) -> Aligned {
    let mut new = old.rewrite();
    for (at, character) in old.text.char_indices() {
        if let Some(changed) = change(character) {
            new.push_char(changed, at..at + character.len_utf8());
        }
    }
    new.finish()
}

fn lowercase(old: &Aligned) -> Aligned {
    if old.text.is_ascii() {
        return Aligned { text: old.text.to_ascii_lowercase(), from: old.from.clone() };
    }
    let mut new = old.rewrite();
    for (at, character) in old.text.char_indices() {
        for lower in character.to_lowercase() {
            new.push_char(lower, at..at + character.len_utf8());
        }
    }
    new.finish()
}

fn nmt(character: char) -> Option<char> {
    match character as u32 {
        0x01..=0x08 | 0x0b | 0x0e..=0x1f | 0x7f | 0x8f | 0x9f => None,
        0x09 | 0x0a | 0x0c | 0x0d | 0x1680 | 0x200b..=0x200f | 0x2028 | 0x2029 | 0x2581 | 0xfeff | 0xfffd => Some(' '),
        _ => Some(character),
    }
}

fn clean_character(character: char) -> Option<char> {
    match character {
        '\t' | '\n' | '\r' => Some(' '),
        '\0' | '\u{fffd}' => None,
        _ if character.is_other() => None,
        _ if character.is_whitespace() => Some(' '),
        _ => Some(character),
    }
}

fn is_ideograph(character: char) -> bool {
    matches!(
        character as u32,
        0x4e00..=0x9fff
            | 0x3400..=0x4dbf
            | 0x20000..=0x2a6df
            | 0x2a700..=0x2b73f
            | 0x2b740..=0x2b81f
            | 0x2b920..=0x2ceaf
            | 0xf900..=0xfaff
            | 0x2f800..=0x2fa1f
    )
}

fn space_ideographs(old: Aligned) -> Aligned {
    if old.text.is_ascii() {
        return old;
    }
    let mut new = old.rewrite();
    for (at, character) in old.text.char_indices() {
        let source = at..at + character.len_utf8();
        if is_ideograph(character) {
            new.push(" ", at..at);
            new.push_char(character, source.clone());
            new.push(" ", source.end..source.end);
        } else {
            new.push_char(character, source);
        }
    }
    new.finish()
}

fn replace(old: Aligned, pattern: &Pattern, content: &str) -> Result<Aligned, Error> {
    if let (Pattern::Literal(literal), None) = (pattern, &old.from) {
        if literal.is_empty() || !old.text.contains(literal.as_str()) {
            return Ok(old);
        }
        return Ok(Aligned { text: old.text.replace(literal.as_str(), content), from: None });
    }
    let mut new = old.rewrite();
    for (start, end, is_match) in pattern.stretches(&old.text)? {
        if is_match {
            new.push(content, start..end);
        } else {
            new.keep(start..end);
        }
    }
    Ok(new.finish())
}

fn precompiled(old: Aligned, charsmap: &Charsmap) -> Aligned {
    if charsmap.is_empty() {
        return old;
    }
    let mut new = old.rewrite();
    for (at, grapheme) in old.text.grapheme_indices(true) {
        if grapheme.len() < SHORT_GRAPHEME {
            if let Some(replacement) = charsmap.shortest(grapheme.as_bytes()) {
                new.push(replacement, at..at + grapheme.len());
                continue;
            }
        }
        for (offset, character) in grapheme.char_indices() {
            let source = at + offset..at + offset + character.len_utf8();
            match charsmap.shortest(old.text[source.clone()].as_bytes()) {
                Some(replacement) => new.push(replacement, source),
                None => new.keep(source),
            }
        }
    }
    new.finish()
}
