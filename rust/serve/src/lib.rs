//! Floor 6, serve: which page of the KV cache holds which tokens. Knows nothing of tensors, models or Python.
//!
//! [`pages`] holds the pages and who is free, [`prefix`] finds a page by what was computed into it, [`table`] keeps one
//! list of pages a sequence and offers the operations. The invariant of all: pages free + pages held = all pages.

pub mod pages;
pub mod prefix;
pub mod table;

pub use table::{Admission, PageAllocator, Statistics};

/// What a caller did wrong; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The page size was 0.
    PageSizeZero,
    /// More pages than a 31-bit page table can name.
    TooManyPages(usize),
    /// The handle was released, or never given out.
    UnknownHandle(u64),
    /// A sequence needs at least one token.
    EmptySequence,
    /// More tokens were called computed than the sequence has.
    BeyondEnd {
        /// What was asked for.
        asked: usize,
        /// How many tokens the sequence has.
        length: usize,
    },
    /// A page table row is too short for a sequence.
    RowTooShort {
        /// Pages of the sequence.
        pages: usize,
        /// Room in the row.
        room: usize,
    },
    /// A pinned prefix cannot be appended to.
    Pinned(u64),
    /// The sequence holds no pages until it is swapped in.
    Swapped(u64),
    /// The sequence has pages, so nothing can be swapped in.
    NotSwapped(u64),
    /// A sequence that gave back its beginning cannot be swapped out.
    Slid(u64),
}

impl std::fmt::Display for Error {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PageSizeZero => write!(out, "the page size is 0; give at least 1 token a page"),
            Self::TooManyPages(count) => write!(out, "{count} pages were asked for; at most {} can be named", i32::MAX),
            Self::UnknownHandle(handle) => {
                write!(out, "sequence {handle:#x} is not held; it was released or never allocated")
            }
            Self::EmptySequence => write!(out, "a sequence needs at least one token"),
            Self::BeyondEnd { asked, length } => write!(out, "{asked} tokens named in a sequence of {length}"),
            Self::RowTooShort { pages, room } => {
                write!(out, "a page table row has room for {room} pages, a sequence has {pages}")
            }
            Self::Swapped(handle) => {
                write!(out, "sequence {handle:#x} is swapped out; it can only be swapped in, released or measured")
            }
            Self::NotSwapped(handle) => write!(out, "sequence {handle:#x} is not swapped out"),
            Self::Slid(handle) => {
                write!(
                    out,
                    "sequence {handle:#x} gave back its beginning to a sliding window; it cannot be swapped out"
                )
            }
            Self::Pinned(handle) => {
                write!(out, "sequence {handle:#x} is a pinned prefix; it can only be released or read")
            }
        }
    }
}

impl std::error::Error for Error {}
