//! SentencePiece's compiled character map: a double-array trie (Darts) from byte strings to their replacements, as it stands
//! in model files and in tokenizer.json. Every index is checked: a damaged map maps nothing, it does not panic.

use crate::error::Error;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Charsmap {
    units: Vec<u32>,
    replacements: Vec<u8>,
}

impl Charsmap {
    /// Reads the map; empty bytes are the map that changes nothing.
    pub fn new(content: &[u8]) -> Result<Self, Error> {
        if content.is_empty() {
            return Ok(Self::default());
        }
        let wrong = |reason| Error::BadPart { part: "precompiled_charsmap", reason };
        let size = content.get(..4).ok_or_else(|| wrong("it is shorter than its header".into()))?;
        let size = u32::from_le_bytes([size[0], size[1], size[2], size[3]]) as usize;
        let rest = &content[4..];
        if size > rest.len() || size % 4 != 0 {
            return Err(wrong(format!("its trie should have {size} bytes and {} are left", rest.len())));
        }
        let unit = |chunk: &[u8]| u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        let units = rest[..size].chunks_exact(4).map(unit).collect();
        let replacements = rest[size..].to_vec();
        if std::str::from_utf8(&replacements).is_err() {
            return Err(wrong("its replacements are not UTF-8".into()));
        }
        Ok(Charsmap { units, replacements })
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// The first (shortest) key that `text` begins with, and the longest: (length in bytes, place of the replacement).
    fn search(&self, text: &[u8]) -> Option<((usize, usize), (usize, usize))> {
        let offset = |unit: u32| ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize;
        let mut found: Option<((usize, usize), (usize, usize))> = None;
        let mut unit = *self.units.first()?;
        let mut node = offset(unit);
        for (index, &byte) in text.iter().enumerate() {
            if byte == 0 {
                break;
            }
            node ^= byte as usize;
            unit = match self.units.get(node) {
                Some(&unit) => unit,
                None => break,
            };
            if unit & (1 << 31 | 0xff) != u32::from(byte) {
                break;
            }
            node ^= offset(unit);
            if unit >> 8 & 1 == 1 {
                let value = match self.units.get(node) {
                    Some(&value) => (value & (u32::MAX >> 1)) as usize,
                    None => break,
                };
                found = Some((found.map_or((index + 1, value), |(first, _)| first), (index + 1, value)));
            }
        }
        found
    }

    fn replacement(&self, place: usize) -> &str {
        let rest = self.replacements.get(place..).unwrap_or_default();
        let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
        std::str::from_utf8(&rest[..end]).unwrap_or_default()
    }

    /// What the longest key at the start of `text` becomes, and its length in bytes; SentencePiece's rule.
    pub fn longest(&self, text: &[u8]) -> Option<(usize, &str)> {
        self.search(text).map(|(_, (length, place))| (length, self.replacement(place)))
    }

    /// What the shortest key at the start of `text` becomes, in place of all of `text`; the rule of `tokenizers`.
    pub fn shortest(&self, text: &[u8]) -> Option<&str> {
        self.search(text).map(|((_, place), _)| self.replacement(place))
    }
}
