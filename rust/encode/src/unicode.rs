//! Character classes as the split patterns need them. Generated ranges in, one flat table out; knows no pattern.
//!
//! The ranges in `unicode_ranges.rs` come from the tables of the `regex-syntax` crate, which `tiktoken` matches with
//! (`tests/unicode.rs` writes the file and holds every code point to that crate).

use std::sync::OnceLock;

use crate::unicode_ranges::RANGES;

/// `\p{L}`
pub const LETTER: u8 = 1;
/// `\p{N}`
pub const NUMBER: u8 = 2;
/// `\s`
pub const SPACE: u8 = 4;
/// `[\r\n]`
pub const NEWLINE: u8 = 8;
/// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`
pub const UPPER: u8 = 16;
/// `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`
pub const LOWER: u8 = 32;

/// One past the last code point.
pub const NUM_CODE_POINTS: usize = 0x11_0000;

/// The class bits of every code point, built on first use (1.1 MB).
pub fn classes() -> &'static [u8; NUM_CODE_POINTS] {
    static TABLE: OnceLock<Box<[u8; NUM_CODE_POINTS]>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = vec![0_u8; NUM_CODE_POINTS];
        for &(first, last, class) in RANGES {
            table[first as usize..=last as usize].fill(class);
        }
        match table.into_boxed_slice().try_into() {
            Ok(table) => table,
            Err(_) => unreachable!("the table was made with NUM_CODE_POINTS entries"),
        }
    })
}
