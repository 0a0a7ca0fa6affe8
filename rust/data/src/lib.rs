//! Floor 2, data: near-duplicate detection from UTF-8 bytes to clusters. Knows nothing of Python or files.
//!
//! `words` cuts bytes into word hashes, `shingle` rolls them into 5-grams, `sketch` makes a MinHash signature of those, `bands`
//! finds candidate pairs, `jaccard` compares borderline ones exactly, `union` joins, `exact` finds equal texts,
//! `cluster` is the whole way. Each has a slow twin in `tests/reference/minhash.py`.

pub mod bands;
pub mod cluster;
pub mod error;
pub mod exact;
pub mod hash;
pub mod jaccard;
mod parallel;
pub mod shingle;
pub mod sketch;
pub mod union;
pub mod words;

pub use cluster::{deduplicate, Clusters, Options, Verify};
pub use error::DataError;
