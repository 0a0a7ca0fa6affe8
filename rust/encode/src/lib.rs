//! Floor 3, encode: exact byte-level BPE, encoding and training. Knows nothing of Python or prompts.

pub mod alphabet;
mod backtrack;
mod batch;
mod blocks;
mod bytes;
mod cache;
pub mod count;
pub mod error;
mod masks;
pub mod merge;
mod pages;
mod pairs;
mod pieces;
pub mod pipeline;
mod probe;
pub mod special;
pub mod spill;
pub mod split;
pub mod stream;
pub mod tokenizer;
pub mod train;
mod trie;
pub mod unicode;
mod unicode_ranges;
pub mod vocab;

pub use error::Error;
pub use split::Scheme;
pub use tokenizer::{Allowed, SpecialToken, Tokenizer};
pub use vocab::Vocabulary;
