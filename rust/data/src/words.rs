//! Words: from bytes to the hash of each word, without allocation.
//!
//! A word is a longest run of ASCII letters, digits, `_` and bytes from 0x80, with two exceptions for scripts that put no space
//! between words: a three-byte sequence that begins with 0xE3..=0xED (U+3000 to U+DFFF: kana, Han, Hangul) is a word of its own, and one
//! that begins with 0xE2 0x80 or 0xE2 0x81 (general punctuation) separates. For ASCII text this is the `\w+` of regular
//! expressions. Bytes that are no UTF-8 are cut by the same rules.
//!
//! Sixty-four bytes at a time become a bit mask (SSE2 on x86-64, a table elsewhere); words are the runs of ones in it.

use crate::hash::{fold, halves, K};

const BLOCK: usize = 64;

const IS_WORD: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte >= 0x80 || byte == b'_' as usize || (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    table
};

/// Masks that keep the first `length` of 16 little-endian bytes.
const KEEP: [(u64, u64); 17] = {
    let mut table = [(0u64, 0u64); 17];
    let mut length = 1;
    while length <= 16 {
        let low = if length >= 8 { u64::MAX } else { (1u64 << (8 * length)) - 1 };
        let high = if length <= 8 {
            0
        } else if length == 16 {
            u64::MAX
        } else {
            (1u64 << (8 * (length - 8))) - 1
        };
        table[length] = (low, high);
        length += 1;
    }
    table
};

/// The hash of one word: 16 bytes at a time, the last block filled up with zeros, the length mixed in.
pub fn hash_word(word: &[u8]) -> u64 {
    let mut hash = (word.len() as u64).wrapping_mul(K[0]);
    for block in word.chunks(16) {
        let mut bytes = [0u8; 16];
        bytes[..block.len()].copy_from_slice(block);
        let (low, high) = halves(&bytes);
        hash = fold(low ^ hash ^ K[1], high ^ K[2]);
    }
    hash
}

/// `hash_word(&text[start..end])`; a word of at most 16 bytes that does not end the text takes one load and one product.
#[inline(always)]
fn hash_at(text: &[u8], start: usize, end: usize) -> u64 {
    let length = end - start;
    if length <= 16 {
        if let Some(block) = text.get(start..start + 16) {
            let (low, high) = halves(block);
            let (keep_low, keep_high) = KEEP[length];
            let hash = (length as u64).wrapping_mul(K[0]);
            return fold((low & keep_low) ^ hash ^ K[1], (high & keep_high) ^ K[2]);
        }
    }
    hash_word(&text[start..end])
}

/// Call `emit` with the hash of every word of `text`, in order.
#[inline(always)]
pub fn for_each_word(text: &[u8], mut emit: impl FnMut(u64)) {
    for_each_span(text, |start, end| emit(hash_at(text, start, end)));
}

/// Call `emit` with the first byte of every word of `text` and the byte after its last, in order.
#[inline(always)]
pub fn for_each_span(text: &[u8], mut emit: impl FnMut(usize, usize)) {
    let mut open: Option<usize> = None;
    let mut base = 0;
    while base < text.len() {
        let (mask, special) = match text.get(base..base + BLOCK) {
            Some(block) => classify(block),
            None => {
                let mut padded = [0u8; BLOCK];
                padded[..text.len() - base].copy_from_slice(&text[base..]);
                classify(&padded)
            }
        };
        if special {
            base = slowly(text, base, &mut open, &mut emit);
            continue;
        }
        // ones where a word begins or ends
        let mut edges = mask ^ ((mask << 1) | u64::from(open.is_some()));
        if let Some(start) = open {
            if edges == 0 {
                base += BLOCK;
                continue;
            }
            emit(start, base + edges.trailing_zeros() as usize);
            edges &= edges - 1;
            open = None;
        }
        while edges != 0 {
            let start = base + edges.trailing_zeros() as usize;
            edges &= edges - 1;
            if edges == 0 {
                open = Some(start);
                break;
            }
            emit(start, base + edges.trailing_zeros() as usize);
            edges &= edges - 1;
        }
        base += BLOCK;
    }
    if let Some(start) = open {
        emit(start, text.len());
    }
}

/// The rules byte by byte for one block; returns where the next block begins.
#[cold]
fn slowly(text: &[u8], base: usize, open: &mut Option<usize>, emit: &mut impl FnMut(usize, usize)) -> usize {
    let stop = (base + BLOCK).min(text.len());
    let mut at = base;
    while at < stop {
        let byte = text[at];
        let whole = at + 2 < text.len();
        let own = whole && (0xE3..=0xED).contains(&byte);
        let separates = whole && byte == 0xE2 && matches!(text[at + 1], 0x80 | 0x81);
        if own || separates || !IS_WORD[usize::from(byte)] {
            if let Some(start) = open.take() {
                emit(start, at);
            }
            if own {
                emit(at, at + 3);
            }
            at += if own || separates { 3 } else { 1 };
        } else {
            open.get_or_insert(at);
            at += 1;
        }
    }
    at
}

/// Bit i of the mask: byte i belongs to a word; the flag: some byte needs `slowly`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn classify(block: &[u8]) -> (u64, bool) {
    use std::arch::x86_64::*;
    let block: &[u8; BLOCK] = match block.try_into() {
        Ok(block) => block,
        Err(_) => return (0, true),
    };
    let (mut mask, mut special) = (0u64, 0u64);
    // SAFETY: SSE2 belongs to the x86-64 baseline, and the four loads of 16 bytes lie inside the 64 of `block`.
    unsafe {
        let within = |bytes: __m128i, first: u8, count: u8| {
            // shifts `first` to -128, so that one signed comparison tests the range
            let moved = _mm_add_epi8(bytes, _mm_set1_epi8(0x80u8.wrapping_sub(first) as i8));
            _mm_cmplt_epi8(moved, _mm_set1_epi8(0x80u8.wrapping_add(count) as i8))
        };
        for quarter in 0..4 {
            let bytes = _mm_loadu_si128(block.as_ptr().add(16 * quarter).cast());
            let letters = within(_mm_or_si128(bytes, _mm_set1_epi8(0x20)), b'a', 26);
            let digits = within(bytes, b'0', 10);
            let bars = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'_' as i8));
            let beyond = _mm_movemask_epi8(bytes) as u32;
            let ascii = _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(letters, digits), bars)) as u32;
            mask |= u64::from(ascii | beyond) << (16 * quarter);
            if beyond != 0 {
                special |= u64::from(_mm_movemask_epi8(within(bytes, 0xE2, 12)) as u32);
            }
        }
    }
    (mask, special != 0)
}

/// Bit i of the mask: byte i belongs to a word; the flag: some byte needs `slowly`.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn classify(block: &[u8]) -> (u64, bool) {
    let (mut mask, mut special) = (0u64, false);
    for (position, &byte) in block.iter().enumerate() {
        mask |= u64::from(IS_WORD[usize::from(byte)]) << position;
        special |= (0xE2..=0xED).contains(&byte);
    }
    (mask, special)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &[u8]) -> Vec<u64> {
        let mut hashes = Vec::new();
        for_each_word(text, |hash| hashes.push(hash));
        hashes
    }

    fn expected(words: &[&str]) -> Vec<u64> {
        words.iter().map(|word| hash_word(word.as_bytes())).collect()
    }

    #[test]
    fn words_of_code() {
        let text = "def f(x_1, y):\n    return x_1 + a_very_long_identifier_of_more_than_sixteen_bytes * 2";
        let words = ["def", "f", "x_1", "y", "return", "x_1", "a_very_long_identifier_of_more_than_sixteen_bytes", "2"];
        assert_eq!(cut(text.as_bytes()), expected(&words));
    }

    #[test]
    fn words_across_blocks_at_every_offset() {
        for lead in 0..130 {
            let text = format!("{}alpha beta_2 gamma", " ".repeat(lead));
            assert_eq!(cut(text.as_bytes()), expected(&["alpha", "beta_2", "gamma"]), "{lead}");
        }
        assert_eq!(cut("x".repeat(300).as_bytes()), expected(&["x".repeat(300).as_str()]));
    }

    #[test]
    fn scripts_without_spaces_and_punctuation() {
        assert_eq!(cut("“naïve” 日本x語".as_bytes()), expected(&["naïve", "日", "本", "x", "語"]));
        assert_eq!(cut(b"\xe3\x81"), vec![hash_word(b"\xe3\x81")]);
        assert!(cut(b"").is_empty() && cut(b" \n").is_empty());
    }
}
