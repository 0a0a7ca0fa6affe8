//! Which bytes of a block of 64 are of which class, one bit a byte: by vector instructions where the processor has them, by a
//! table on all others. Knows no pattern.

use crate::blocks::BLOCK;
use crate::unicode::Classes;

/// The classes of ASCII bytes, and what of the others the first byte alone tells.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Masks {
    pub(crate) letter: u64,
    /// Of the letters, those in upper case.
    pub(crate) upper: u64,
    pub(crate) digit: u64,
    /// Blank, tab, newline and the like.
    pub(crate) space: u64,
    pub(crate) blank: u64,
    pub(crate) newline: u64,
    pub(crate) apostrophe: u64,
    pub(crate) slash: u64,
    /// Bytes that are not ASCII.
    pub(crate) high: u64,
    /// Of these, all but the first of a character.
    pub(crate) tail: u64,
    /// First bytes behind which there are letters only, in patterns with case such without case.
    pub(crate) letters_only: u64,
}

/// One way to make the masks; all give the same.
pub(crate) trait Bytes {
    /// The masks of a block.
    fn masks(block: &[u8; BLOCK], classes: &Classes, cased: bool) -> Masks;
}

/// By a table, eight bytes at a time; any processor.
pub(crate) struct Portable;

/// Bits of [`Classes::byte`], in the order of the rows that [`transpose`] makes of them.
pub(crate) mod bit {
    pub(crate) const LETTER: u8 = 1;
    pub(crate) const UPPER: u8 = 2;
    pub(crate) const DIGIT: u8 = 4;
    pub(crate) const SPACE: u8 = 8;
    pub(crate) const BLANK: u8 = 16;
    pub(crate) const NEWLINE: u8 = 32;
    pub(crate) const APOSTROPHE: u8 = 64;
    pub(crate) const SLASH: u8 = 128;
}

/// Rows and columns of 8 x 8 bits exchanged (Warren, Hacker's Delight, section 7-3).
#[inline(always)]
fn transpose(mut rows: u64) -> u64 {
    for (shift, mask) in [(7, 0x00aa_00aa_00aa_00aa_u64), (14, 0x0000_cccc_0000_cccc), (28, 0x0000_0000_f0f0_f0f0)] {
        let swap = (rows ^ rows >> shift) & mask;
        rows ^= swap ^ swap << shift;
    }
    rows
}

impl Bytes for Portable {
    #[inline(always)]
    fn masks(block: &[u8; BLOCK], classes: &Classes, cased: bool) -> Masks {
        let mut masks = Masks::default();
        for (index, eight) in block.chunks_exact(8).enumerate() {
            let mut rows = [0_u8; 8];
            for (row, &byte) in rows.iter_mut().zip(eight) {
                *row = classes.byte[byte as usize];
            }
            let columns = transpose(u64::from_le_bytes(rows)).to_le_bytes();
            let put = |mask: &mut u64, column: u8| *mask |= u64::from(column) << (8 * index);
            put(&mut masks.letter, columns[0]);
            put(&mut masks.upper, columns[1]);
            put(&mut masks.digit, columns[2]);
            put(&mut masks.space, columns[3]);
            put(&mut masks.blank, columns[4]);
            put(&mut masks.newline, columns[5]);
            put(&mut masks.apostrophe, columns[6]);
            put(&mut masks.slash, columns[7]);
            let mut word = [0; 8];
            word.copy_from_slice(eight);
            if u64::from_le_bytes(word) & 0x8080_8080_8080_8080 != 0 {
                for (offset, &byte) in eight.iter().enumerate() {
                    let place = 8 * index + offset;
                    masks.high |= u64::from(byte >= 0x80) << place;
                    masks.tail |= u64::from(byte & 0xc0 == 0x80) << place;
                    masks.letters_only |= u64::from(classes.letters_only(byte, cased)) << place;
                }
            }
        }
        masks
    }
}

/// 32 bytes at a time.
#[cfg(target_arch = "x86_64")]
pub(crate) struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Bytes for Avx2 {
    /// Called inside functions that are compiled for AVX2 and run after a check only.
    #[inline(always)]
    fn masks(block: &[u8; BLOCK], classes: &Classes, cased: bool) -> Masks {
        use std::arch::x86_64::{
            __m128i, __m256i, _mm256_add_epi8, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_cmpeq_epi8,
            _mm256_cmpgt_epi8, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8,
            _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi16, _mm_loadu_si128,
        };
        let mut masks = Masks::default();
        // SAFETY: AVX2 is there (see above); all loads lie inside the block or the tables.
        unsafe {
            let halves: [__m256i; 2] =
                std::array::from_fn(|half| _mm256_loadu_si256(block.as_ptr().add(half * 32).cast()));
            let both = |found: &dyn Fn(__m256i) -> __m256i| {
                let bits = |half: usize| u64::from(_mm256_movemask_epi8(found(halves[half])) as u32);
                bits(0) | bits(1) << 32
            };
            let equal = |bytes: __m256i, byte: u8| _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(byte as i8));
            // Bytes from `first` on, `count` of them, by one signed comparison after a shift to the least value.
            let range = |bytes: __m256i, first: u8, count: i8| {
                let shift = _mm256_set1_epi8(0x80_u8.wrapping_sub(first) as i8);
                _mm256_cmpgt_epi8(_mm256_set1_epi8(i8::MIN + count), _mm256_add_epi8(bytes, shift))
            };
            masks.letter = both(&|bytes| range(_mm256_or_si256(bytes, _mm256_set1_epi8(0x20)), b'a', 26));
            masks.digit = both(&|bytes| range(bytes, b'0', 10));
            masks.blank = both(&|bytes| equal(bytes, b' '));
            masks.space = masks.blank | both(&|bytes| range(bytes, 9, 5));
            masks.newline = both(&|bytes| _mm256_or_si256(equal(bytes, b'\n'), equal(bytes, b'\r')));
            masks.apostrophe = both(&|bytes| equal(bytes, b'\''));
            if cased {
                masks.upper = both(&|bytes| range(bytes, b'A', 26));
                masks.slash = both(&|bytes| equal(bytes, b'/'));
            }
            masks.high = both(&|bytes| bytes);
            if masks.high != 0 {
                masks.tail = both(&|bytes| _mm256_cmpgt_epi8(_mm256_set1_epi8(-64), bytes));
                let table =
                    |table: &[u8; 16]| _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast::<__m128i>()));
                let low_table = table(classes.letters_only_table(cased));
                let high_table = table(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8]);
                let nibble = _mm256_set1_epi8(0x0f);
                masks.letters_only = !both(&|bytes| {
                    let low = _mm256_shuffle_epi8(low_table, _mm256_and_si256(bytes, nibble));
                    let high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);
                    let found = _mm256_and_si256(low, _mm256_shuffle_epi8(high_table, high));
                    _mm256_cmpeq_epi8(found, _mm256_setzero_si256())
                });
            }
        }
        masks
    }
}

/// 16 bytes at a time.
#[cfg(target_arch = "aarch64")]
pub(crate) struct Neon;

#[cfg(target_arch = "aarch64")]
impl Bytes for Neon {
    #[inline(always)]
    fn masks(block: &[u8; BLOCK], classes: &Classes, cased: bool) -> Masks {
        use std::arch::aarch64::{
            uint8x16_t, vandq_u8, vceqq_u8, vcgeq_u8, vcltq_u8, vdupq_n_u8, vgetq_lane_u64, vld1q_u8, vorrq_u8,
            vpaddq_u8, vqtbl1q_u8, vreinterpretq_u64_u8, vshrq_n_u8, vsubq_u8, vtstq_u8,
        };
        const WEIGHTS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];
        const HIGH: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8];
        let mut masks = Masks::default();
        // SAFETY: NEON is part of the architecture; all loads lie inside the block or the tables.
        unsafe {
            let quarters: [uint8x16_t; 4] = std::array::from_fn(|quarter| vld1q_u8(block.as_ptr().add(quarter * 16)));
            let weights = vld1q_u8(WEIGHTS.as_ptr());
            // There is no instruction for one bit of each byte: each byte that was found keeps its bit, and three rounds of sums of
            // neighbours put eight of them into one.
            let all = |found: &dyn Fn(uint8x16_t) -> uint8x16_t| {
                let bits = |quarter: usize| vandq_u8(found(quarters[quarter]), weights);
                let halves = vpaddq_u8(vpaddq_u8(bits(0), bits(1)), vpaddq_u8(bits(2), bits(3)));
                vgetq_lane_u64::<0>(vreinterpretq_u64_u8(vpaddq_u8(halves, halves)))
            };
            let equal = |bytes: uint8x16_t, byte: u8| vceqq_u8(bytes, vdupq_n_u8(byte));
            // Bytes from `first` on, `count` of them.
            let range = |bytes: uint8x16_t, first: u8, count: u8| {
                vcltq_u8(vsubq_u8(bytes, vdupq_n_u8(first)), vdupq_n_u8(count))
            };
            masks.letter = all(&|bytes| range(vorrq_u8(bytes, vdupq_n_u8(0x20)), b'a', 26));
            masks.digit = all(&|bytes| range(bytes, b'0', 10));
            masks.blank = all(&|bytes| equal(bytes, b' '));
            masks.space = masks.blank | all(&|bytes| range(bytes, 9, 5));
            masks.newline = all(&|bytes| vorrq_u8(equal(bytes, b'\n'), equal(bytes, b'\r')));
            masks.apostrophe = all(&|bytes| equal(bytes, b'\''));
            if cased {
                masks.upper = all(&|bytes| range(bytes, b'A', 26));
                masks.slash = all(&|bytes| equal(bytes, b'/'));
            }
            masks.high = all(&|bytes| vcgeq_u8(bytes, vdupq_n_u8(0x80)));
            if masks.high != 0 {
                masks.tail = all(&|bytes| range(bytes, 0x80, 0x40));
                let low_table = vld1q_u8(classes.letters_only_table(cased).as_ptr());
                let high_table = vld1q_u8(HIGH.as_ptr());
                masks.letters_only = all(&|bytes| {
                    let low = vqtbl1q_u8(low_table, vandq_u8(bytes, vdupq_n_u8(0x0f)));
                    vtstq_u8(low, vqtbl1q_u8(high_table, vshrq_n_u8::<4>(bytes)))
                });
            }
        }
        masks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unicode::classes;

    #[test]
    fn all_ways_give_the_same_masks() {
        for first in 0..=255_u8 {
            let block: [u8; BLOCK] = std::array::from_fn(|at| first.wrapping_add((at * at * 5) as u8));
            for cased in [false, true] {
                let expected = Portable::masks(&block, classes(), cased);
                for (at, &byte) in block.iter().enumerate() {
                    let is = |mask: u64| mask >> at & 1 != 0;
                    assert_eq!(is(expected.letter), byte.is_ascii_alphabetic());
                    assert_eq!(is(expected.digit), byte.is_ascii_digit());
                    assert_eq!(is(expected.space), matches!(byte, 9..=13 | b' '));
                    assert_eq!(is(expected.newline), matches!(byte, b'\n' | b'\r'));
                    assert_eq!(is(expected.high), !byte.is_ascii());
                    assert_eq!(is(expected.tail), byte & 0xc0 == 0x80);
                }
                #[cfg(target_arch = "x86_64")]
                if is_x86_feature_detected!("avx2") {
                    let mut found = Avx2::masks(&block, classes(), cased);
                    if !cased {
                        (found.upper, found.slash) = (expected.upper, expected.slash);
                    }
                    assert_eq!(found, expected);
                }
                #[cfg(target_arch = "aarch64")]
                {
                    let mut found = Neon::masks(&block, classes(), cased);
                    if !cased {
                        (found.upper, found.slash) = (expected.upper, expected.slash);
                    }
                    assert_eq!(found, expected);
                }
            }
        }
    }
}
