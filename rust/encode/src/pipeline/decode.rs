//! From tokens back to text: the decoders of tokenizer.json, and SentencePiece's own. Knows no ids.

use super::pattern::Pattern;
use super::sentencepiece::BLANK;
use crate::error::Error;

/// What SentencePiece must know of a token to decode it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Normal,
    /// Nothing.
    Control,
    /// The text for what is unknown.
    Unknown,
    /// One byte.
    Byte(u8),
}

/// One step.
pub enum Decoder {
    /// The byte alphabet back to bytes; with byte-level BPE the tokens are bytes already.
    ByteLevel,
    /// Marks become blanks; those of the first token go away.
    Metaspace(char, bool),
    /// Words get a blank in front, pieces lose their prefix; and blanks before punctuation go away.
    WordPiece(String, bool),
    /// `<0x..>` become bytes, if together they are text.
    ByteFallback,
    /// All tokens become one.
    Fuse,
    /// A character at the start (so many times) and at the end goes away.
    Strip(char, usize, usize),
    /// Matches become a text.
    Replace(Pattern, String),
    /// The end of a word becomes a blank.
    Suffix(String),
    /// All of SentencePiece: whether a leading blank goes away, whether all do, the text for what is unknown.
    SentencePiece(bool, bool, String),
}

/// The byte of a token `<0x..>`.
pub fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

fn clean_up(text: &str) -> String {
    const RULES: [(&str, &str); 11] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" do not", " don't"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    RULES.iter().fold(text.to_string(), |text, (from, to)| text.replace(from, to))
}

fn strip(token: &str, content: char, start: usize, stop: usize) -> String {
    let characters: Vec<char> = token.chars().collect();
    let from = characters.iter().take(start).take_while(|&&character| character == content).count();
    let behind = characters.iter().rev().take(stop).take_while(|&&character| character == content).count();
    characters[from..(characters.len() - behind).max(from)].iter().collect()
}

fn fall_back(tokens: Vec<String>) -> Vec<String> {
    let mut found = Vec::with_capacity(tokens.len());
    let mut bytes: Vec<u8> = Vec::new();
    let flush = |bytes: &mut Vec<u8>, found: &mut Vec<String>| match String::from_utf8(std::mem::take(bytes)) {
        Ok(text) if text.is_empty() => {}
        Ok(text) => found.push(text),
        Err(error) => found.extend(error.as_bytes().iter().map(|_| "\u{fffd}".to_string())),
    };
    for token in tokens {
        match byte_of(&token) {
            Some(byte) => bytes.push(byte),
            None => {
                flush(&mut bytes, &mut found);
                found.push(token);
            }
        }
    }
    flush(&mut bytes, &mut found);
    found
}

impl Decoder {
    /// The changed tokens.
    pub fn apply(&self, tokens: Vec<String>) -> Result<Vec<String>, Error> {
        let last = tokens.len().saturating_sub(1);
        Ok(match self {
            Decoder::ByteLevel => {
                let alphabet = crate::alphabet::Alphabet::default();
                let bytes: Vec<u8> = tokens
                    .into_iter()
                    .flat_map(|token| alphabet.bytes(&token).unwrap_or_else(|| token.into_bytes()))
                    .collect();
                vec![String::from_utf8_lossy(&bytes).into_owned()]
            }
            Decoder::Metaspace(..) | Decoder::WordPiece(..) | Decoder::Strip(..) => {
                tokens.iter().enumerate().map(|(index, token)| self.single(token, index == 0)).collect()
            }
            Decoder::ByteFallback => fall_back(tokens),
            Decoder::Fuse => vec![tokens.concat()],
            Decoder::Replace(pattern, content) => {
                tokens.iter().map(|token| replace(token, pattern, content)).collect::<Result<_, _>>()?
            }
            Decoder::Suffix(suffix) => tokens
                .iter()
                .enumerate()
                .map(|(index, token)| token.replace(suffix.as_str(), if index == last { "" } else { " " }))
                .collect(),
            Decoder::SentencePiece(..) => tokens,
        })
    }

    /// What becomes of one token, where the step looks at nothing but whether it is the first.
    fn single(&self, token: &str, first: bool) -> String {
        match self {
            Decoder::Metaspace(mark, drops_first) => token
                .chars()
                .filter(|&character| !(character == *mark && first && *drops_first))
                .map(|character| if character == *mark { ' ' } else { character })
                .collect(),
            Decoder::WordPiece(prefix, cleans) => {
                let word = match token.strip_prefix(prefix.as_str()) {
                    _ if first => token.to_string(),
                    Some(rest) => rest.to_string(),
                    None => format!(" {token}"),
                };
                if *cleans {
                    clean_up(&word)
                } else {
                    word
                }
            }
            Decoder::Strip(content, start, stop) => strip(token, *content, *start, *stop),
            _ => token.to_string(),
        }
    }
}

fn replace(token: &str, pattern: &Pattern, content: &str) -> Result<String, Error> {
    let parts = pattern.stretches(token)?;
    Ok(parts.into_iter().map(|(start, end, is_match)| if is_match { content } else { &token[start..end] }).collect())
}

/// Text of tokens as SentencePiece makes it.
pub fn sentencepiece(decoder: (bool, bool, &str), tokens: &[(&str, Kind)]) -> Vec<u8> {
    let (drops_blank, drops_all, unknown) = decoder;
    let mut text: Vec<u8> = Vec::new();
    let (mut at_start, mut blank_seen) = (true, false);
    for &(token, kind) in tokens {
        if let Kind::Byte(byte) = kind {
            text.push(byte);
            continue;
        }
        if blank_seen || !text.is_empty() {
            at_start = false;
        }
        blank_seen = false;
        match kind {
            Kind::Control | Kind::Byte(_) => {}
            Kind::Unknown => text.extend_from_slice(unknown.as_bytes()),
            Kind::Normal => {
                let rest = token.strip_prefix(BLANK).filter(|_| at_start && drops_blank);
                blank_seen = rest.is_some() && !drops_all;
                text.extend_from_slice(rest.unwrap_or(token).replace(BLANK, " ").as_bytes());
            }
        }
    }
    text
}

/// The bytes that one token adds to a text that is decoded token by token.
pub fn streamed(decoders: &[Decoder], token: &str, kind: Kind, first: bool) -> Result<Vec<u8>, Error> {
    let mut text = token.to_string();
    let mut fused = false;
    for decoder in decoders {
        match decoder {
            Decoder::ByteLevel => {
                return Ok(crate::alphabet::Alphabet::default().bytes(&text).unwrap_or(text.into_bytes()))
            }
            Decoder::ByteFallback => {
                if let Some(byte) = byte_of(&text) {
                    return Ok(vec![byte]);
                }
            }
            Decoder::Fuse => fused = true,
            Decoder::Strip(content, start, _) if fused => {
                if first {
                    text = strip(&text, *content, *start, 0);
                }
            }
            Decoder::Replace(pattern, content) => text = replace(&text, pattern, content)?,
            Decoder::Suffix(suffix) => text = text.replace(suffix.as_str(), " "),
            Decoder::SentencePiece(drops_blank, drops_all, unknown) => {
                return Ok(sentencepiece((*drops_blank && first, *drops_all && first, unknown), &[(&text, kind)]));
            }
            _ => text = decoder.single(&text, first),
        }
    }
    Ok(text.into_bytes())
}
