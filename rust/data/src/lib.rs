//! Floor 2, data: near-duplicate detection from UTF-8 bytes to clusters. Knows nothing of Python.
//!
//! `words` cuts bytes into word hashes, `reading` rolls them into shingles, `sketch` makes a MinHash signature of those, `bands`
//! finds candidate pairs, `compare` looks at as few of them as decide, `check` and `jaccard` compare borderline ones exactly, `union` joins,
//! `cap` cuts what closure joined too far, `exact` finds equal texts, `cluster` is the whole way at once and `index` the same in batches
//! that can be kept (`store`). `spill` is the same again in files, for more than memory holds (`sorted`, `record`). `rows` says where signatures lie. `partition` has the steps for one of many machines, `spans` and `lines` find what repeats inside texts, `numbers` counts digests, `signals` measures one text, `gates` says which patterns it may match, `python` (of `python_tokens`) whether it parses. Each has a slow twin in `tests/reference/minhash.py`.

pub mod bands;
pub mod cap;
pub mod check;
pub mod cluster;
pub mod compare;
pub mod error;
pub mod exact;
pub mod gates;
pub mod hash;
pub mod index;
pub mod jaccard;
pub mod lines;
pub mod numbers;
pub mod options;
mod parallel;
pub mod partition;
pub mod python;
pub mod python_tokens;
pub mod reading;
pub mod record;
pub mod rows;
pub mod signals;
pub mod sketch;
pub mod sorted;
pub mod spans;
pub mod spill;
mod store;
pub mod union;
pub mod words;

pub use cluster::{deduplicate, Clusters, Counts};
pub use error::DataError;
pub use index::Index;
pub use options::{Options, Verify};
pub use reading::{Form, Reading, Shingle};
