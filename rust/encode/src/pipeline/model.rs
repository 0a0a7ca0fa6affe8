//! From a piece of text to tokens: the kinds of vocabulary, and what they share. Knows nothing of normalisation.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::bpe::CharacterBpe;
use super::sentencepiece::SentencePieceBpe;
use super::unigram::Unigram;
use super::wordpiece::WordPiece;
use crate::error::Error;
use crate::merge::{merge, Scratch};
use crate::vocab::{fold, Vocabulary};

/// A token and where it ends in its piece, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The id.
    pub id: u32,
    /// One byte after its last.
    pub end: u32,
}

/// A quick hash for short keys that come from a vocabulary, not from an enemy.
#[derive(Default, Clone, Copy)]
pub struct QuickHasher(u64);

impl Hasher for QuickHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = fold(self.0 ^ crate::vocab::hash_bytes(bytes));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = fold(self.0 ^ word);
    }

    fn write_u8(&mut self, _: u8) {}

    fn write_usize(&mut self, _: usize) {}
}

/// A map from byte strings.
pub type QuickMap<K, V> = HashMap<K, V, BuildHasherDefault<QuickHasher>>;

/// The tokens `<0x00>` to `<0xFF>`.
#[derive(Debug, Clone)]
pub struct ByteTokens(pub [Option<u32>; 256]);

impl ByteTokens {
    /// By their names in a vocabulary.
    pub fn find(id: impl Fn(&str) -> Option<u32>) -> Self {
        let mut ids = [None; 256];
        for (byte, slot) in ids.iter_mut().enumerate() {
            *slot = id(&format!("<0x{byte:02X}>"));
        }
        ByteTokens(ids)
    }

    /// The tokens of some bytes, if all are there.
    pub fn all(&self, bytes: &[u8]) -> Option<Vec<u32>> {
        bytes.iter().map(|&byte| self.0[byte as usize]).collect()
    }
}

/// A kind of vocabulary.
pub enum Model {
    /// Byte-level BPE.
    Bytes(Box<Vocabulary>),
    /// BPE over characters, with the rules of `tokenizers`.
    Characters(Box<CharacterBpe>),
    /// BPE with the rules of SentencePiece.
    SentencePiece(Box<SentencePieceBpe>),
    /// The unigram language model.
    Unigram(Box<Unigram>),
    /// Longest match.
    WordPiece(Box<WordPiece>),
    /// Whole words, and the id of the others.
    Words(QuickMap<Box<[u8]>, u32>, Option<u32>),
}

impl Model {
    /// The mark before which text may be cut without a change of ids, if there is one: no token goes across it.
    pub fn safe_mark(&self) -> Option<char> {
        let mark = '\u{2581}';
        let safe = match self {
            Model::Characters(model) => model.is_cut_by(mark),
            Model::SentencePiece(model) => model.is_cut_by(mark),
            _ => false,
        };
        safe.then_some(mark)
    }

    /// Appends the tokens of one piece.
    pub fn encode(&self, piece: &str, scratch: &mut Scratch, out: &mut Vec<Cut>) -> Result<(), Error> {
        match self {
            Model::Bytes(vocabulary) => {
                if vocabulary.whole_pieces() {
                    if let Some(id) = vocabulary.id(piece.as_bytes()) {
                        out.push(Cut { id, end: piece.len() as u32 });
                        return Ok(());
                    }
                }
                let mut ids = Vec::new();
                merge(vocabulary, piece.as_bytes(), scratch, &mut ids);
                let mut end = 0;
                for id in ids {
                    end += vocabulary.token(id).map_or(0, <[u8]>::len) as u32;
                    out.push(Cut { id, end });
                }
                Ok(())
            }
            Model::Characters(model) => {
                model.encode(piece, out);
                Ok(())
            }
            Model::SentencePiece(model) => {
                model.encode(piece, out);
                Ok(())
            }
            Model::Unigram(model) => model.encode(piece, out),
            Model::WordPiece(model) => model.encode(piece, out),
            Model::Words(words, unknown) => {
                let id = words.get(piece.as_bytes()).copied().or(*unknown);
                let first = || piece.chars().next().unwrap_or_default();
                let id = id.ok_or_else(|| Error::NoUnknown(first()))?;
                out.push(Cut { id, end: piece.len() as u32 });
                Ok(())
            }
        }
    }
}
