//! What a caller may do wrong, one line a cause.

use std::fmt;

/// A bad argument; the message holds the value and the remedy.
#[derive(Debug, Clone, PartialEq)]
pub enum DataError {
    /// `num_perm` is no multiple of 8 between 8 and 1024.
    NumPerm(usize),
    /// `threshold` is outside (0, 1].
    Threshold(f64),
    /// More texts than labels can count.
    TooMany(usize),
}

impl fmt::Display for DataError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NumPerm(value) => write!(formatter, "num_perm is {value}; use a multiple of 8 from 8 to 1024"),
            Self::Threshold(value) => write!(formatter, "threshold is {value}; use a similarity above 0 and at most 1"),
            Self::TooMany(value) => write!(formatter, "{value} texts at once are too many; use at most {}", u32::MAX),
        }
    }
}

impl std::error::Error for DataError {}
