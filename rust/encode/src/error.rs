//! What can be wrong with a vocabulary or a request, one line a cause; the texts are for users.

use std::fmt;

/// A failure of this crate; `Display` is one sentence with the values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The split pattern is none of [`crate::split::Scheme::NAMES`].
    UnknownScheme(String),
    /// A token of a byte-level vocabulary holds a character outside the byte alphabet.
    NotByteLevel {
        /// Position in the vocabulary.
        id: usize,
        /// The token as the file has it.
        token: String,
    },
    /// A merge is not two tokens of the vocabulary with a blank between them, or its result is no token.
    BadMerge {
        /// Position in the list of merges.
        rank: usize,
        /// The merge as the file has it.
        merge: String,
        /// What is missing.
        reason: &'static str,
    },
    /// A single byte has no token, so some texts could not be encoded.
    MissingByte(u8),
    /// An id outside the vocabulary was decoded.
    UnknownId {
        /// The id.
        id: u32,
        /// Number of ids, special tokens included.
        vocab_size: usize,
    },
    /// The training target is smaller than the 256 bytes and the special tokens together.
    VocabularyTooSmall {
        /// What was asked for.
        asked: usize,
        /// The least possible.
        least: usize,
    },
    /// A part of a file that cannot be used.
    BadPart {
        /// Which part.
        part: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A character that the vocabulary does not know, and no token for what is unknown.
    NoUnknown(char),
    /// More tokens or merges than the tables can name.
    VocabularyTooLarge {
        /// Number of tokens.
        tokens: usize,
        /// Number of merges.
        merges: usize,
    },
    /// A text of a batch is bytes that are no UTF-8.
    NotUtf8 {
        /// Which text of the batch.
        index: usize,
        /// The first byte that belongs to no character.
        position: usize,
    },
    /// More text than 32-bit positions can count.
    TooLong(usize),
    /// A file of counts that did not fit into memory.
    Spill {
        /// Its place.
        path: String,
        /// "written" or "read".
        doing: &'static str,
        /// What the system says.
        reason: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::UnknownScheme(name) => {
                let known = crate::split::Scheme::NAMES.join(", ");
                write!(out, "the split pattern \"{name}\" is not known; known are {known}")
            }
            Error::NotByteLevel { id, token } => {
                write!(out, "token {id} \"{token}\" has a character outside the byte-level alphabet")
            }
            Error::BadMerge { rank, merge, reason } => write!(out, "merge {rank} \"{merge}\" {reason}"),
            Error::MissingByte(byte) => write!(out, "the vocabulary has no token for the byte 0x{byte:02x}"),
            Error::UnknownId { id, vocab_size } => {
                write!(out, "token id {id} is outside the vocabulary of {vocab_size} tokens")
            }
            Error::VocabularyTooLarge { tokens, merges } => {
                write!(out, "a vocabulary of {tokens} tokens with {merges} merges is too large: 2 million of both are possible")
            }
            Error::VocabularyTooSmall { asked, least } => {
                write!(out, "a vocabulary of {asked} is too small: the 256 bytes and the special tokens need {least}")
            }
            Error::BadPart { part, reason } => write!(out, "{part} cannot be used: {reason}"),
            Error::NoUnknown(character) => {
                write!(out, "the vocabulary has no token for {character:?}, and none for what is unknown (unk_token)")
            }
            Error::NotUtf8 { index, position } => write!(
                out,
                "text {index} is not UTF-8 at byte {position}; decode it first, or use encode_bytes, which keeps such bytes"
            ),
            Error::TooLong(bytes) => write!(out, "a text of {bytes} bytes is longer than 4 GiB; split it first"),
            Error::Spill { path, doing, reason } => {
                write!(out, "the counts that did not fit into memory cannot be {doing} ({path}: {reason}); is there room on the disk?")
            }
        }
    }
}

impl std::error::Error for Error {}
