//! What a caller may do wrong and what a file system may refuse, one line a cause.

use std::{fmt, io};

/// A bad argument, a bad file or a refusal; the message holds the value and the remedy.
#[derive(Debug)]
pub enum DataError {
    /// `num_perm` is no multiple of 8 between 8 and 1024.
    NumPerm(usize),
    /// `threshold` is outside (0, 1].
    Threshold(f64),
    /// `slack` is outside [0, 1].
    Slack(f64),
    /// A shingle of so many words or characters.
    Run(usize),
    /// Bands and rows that a signature of so many places does not have.
    Bands(usize, usize, usize),
    /// More texts than labels can count.
    TooMany(usize),
    /// A digest of fewer bytes than 16.
    Digest(usize),
    /// A pattern that is none; the sentence says why.
    Pattern(String),
    /// A file that is none of ours, is of another version, or is damaged; the sentence says which.
    File(String),
    /// The operating system refused.
    Io(io::Error),
}

impl fmt::Display for DataError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NumPerm(value) => write!(formatter, "num_perm is {value}; use a multiple of 8 from 8 to 1024"),
            Self::Threshold(value) => write!(formatter, "threshold is {value}; use a similarity above 0 and at most 1"),
            Self::Slack(value) => write!(formatter, "slack is {value}; use 0 to 1, or none"),
            Self::Run(value) => write!(formatter, "a shingle has {value} words or characters; use 1 to 64"),
            Self::Bands(bands, rows, places) => {
                write!(formatter, "{bands} bands of {rows} places are not in a signature of {places} places")
            }
            Self::TooMany(value) => write!(formatter, "{value} texts at once are too many; use at most {}", u32::MAX),
            Self::Digest(value) => write!(formatter, "a digest has {value} bytes; give 16 or more"),
            Self::Pattern(sentence) => write!(formatter, "{sentence}"),
            Self::File(sentence) => write!(formatter, "{sentence}"),
            Self::Io(error) => write!(formatter, "{error}"),
        }
    }
}

impl std::error::Error for DataError {}

impl From<io::Error> for DataError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
