//! The split of plain ASCII, 64 bytes at a time: one bit a byte for each class, and arithmetic on these words instead of a
//! branch for each piece. Knows only what `split::Rules` says; what it cannot decide it leaves to the scanner there.
//!
//! A block begins where a piece begins. The patterns never look back, so nothing has to be carried in; and of what is
//! found only the starts that no later byte can change are given out, and the next block begins at the last of them.
//!
//! A word of bits is filled along a run by an addition: adding the lowest bit of a run of ones clears the whole run.

use crate::split::Rules;
#[cfg(target_arch = "x86_64")]
use crate::split::{Numbers, Words};

/// Bytes in a block.
pub(crate) const BLOCK: usize = 64;

#[cfg(target_arch = "x86_64")]
/// The classes of the bytes of a block, up to the first byte that is not ASCII.
struct Masks {
    letter: u64,
    /// Of the letters, those in upper case.
    upper: u64,
    digit: u64,
    /// Blank, tab, newline and the like.
    space: u64,
    blank: u64,
    newline: u64,
    apostrophe: u64,
    slash: u64,
    /// Number of bytes before the first that is not ASCII.
    length: u32,
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn masks(block: &[u8; BLOCK]) -> Masks {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi8, _mm_cmpeq_epi8, _mm_cmplt_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128,
        _mm_set1_epi8,
    };
    let mut masks =
        Masks { letter: 0, upper: 0, digit: 0, space: 0, blank: 0, newline: 0, apostrophe: 0, slash: 0, length: 0 };
    let mut high = 0_u64;
    for quarter in 0..4 {
        // SAFETY: SSE2 is part of x86-64, and the 16 bytes lie inside the block.
        unsafe {
            let bytes = _mm_loadu_si128(block.as_ptr().add(quarter * 16).cast::<__m128i>());
            let put = |mask: &mut u64, found: __m128i| {
                *mask |= u64::from(_mm_movemask_epi8(found) as u32) << (quarter * 16);
            };
            let equal = |byte: u8| _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8));
            // Bytes from `first` on, `count` of them, by one signed comparison after a shift to the least value.
            let range = |bytes: __m128i, first: u8, count: i8| {
                let shift = 0x80_u8.wrapping_sub(first) as i8;
                _mm_cmplt_epi8(_mm_add_epi8(bytes, _mm_set1_epi8(shift)), _mm_set1_epi8(i8::MIN + count))
            };
            let blank = equal(b' ');
            put(&mut high, bytes);
            put(&mut masks.letter, range(_mm_or_si128(bytes, _mm_set1_epi8(0x20)), b'a', 26));
            put(&mut masks.upper, range(bytes, b'A', 26));
            put(&mut masks.digit, range(bytes, b'0', 10));
            put(&mut masks.space, _mm_or_si128(range(bytes, 9, 5), blank));
            put(&mut masks.blank, blank);
            put(&mut masks.newline, _mm_or_si128(equal(b'\n'), equal(b'\r')));
            put(&mut masks.apostrophe, equal(b'\''));
            put(&mut masks.slash, equal(b'/'));
        }
    }
    masks.length = high.trailing_zeros();
    masks
}

/// Where the pieces of the block at `at` start, besides the one at its first byte: bit i for byte `at + i`. Zero when
/// nothing is certain. `contraction` gives the length of one at a place, or 0.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn starts(text: &[u8], at: usize, rules: &Rules, contraction: impl Fn(usize) -> usize) -> u64 {
    let Some(block) = text.get(at..at + BLOCK).and_then(|block| <&[u8; BLOCK]>::try_from(block).ok()) else {
        return 0;
    };
    let found = masks(block);
    if found.length < 2 {
        return 0;
    }
    let known = u64::MAX >> (BLOCK as u32 - found.length);
    let (letter, digit, space) = (found.letter & known, found.digit & known, found.space & known);
    let (blank, newline) = (found.blank & known, found.newline & known);
    let other = known & !(letter | digit | space);
    let cased = rules.words == Words::Cased;

    // Newlines that other characters take with them, and slashes behind those.
    let first = if rules.newlines_after_other { (other << 1) & newline } else { 0 };
    let absorbed = if rules.slash_after_other {
        let run = newline | found.slash & known;
        let mut filled = first;
        while filled != filled | (filled << 1) & run {
            filled |= (filled << 1) & run;
        }
        filled
    } else {
        newline & !newline.wrapping_add(first)
    };
    let other = other & !absorbed;

    // A run of other characters starts where none is before it, unless a blank before it comes along.
    let other_start = other & !(other << 1) & !(blank << 1);

    let mut letter_start = letter & !(letter << 1);
    letter_start &= match rules.words {
        Words::AfterBlank => !(blank << 1),
        // One character before a word comes along, if it is not a newline and no part of a longer run.
        Words::AfterAny | Words::Cased => !(other_start << 1) & !((space & !newline) << 1),
    };
    if cased {
        letter_start |= found.upper & ((letter & !found.upper) << 1) & known;
    }

    let digit_start = match rules.numbers {
        Numbers::AfterBlank => digit & !(digit << 1) & !(blank << 1),
        Numbers::Alone | Numbers::UpTo(1) => digit,
        Numbers::UpTo(most) => {
            // Of a run every `most`-th: all of the digits on the way to the next must be there.
            let mut whole = digit;
            for offset in 1..most {
                whole &= digit << offset;
            }
            let mut last = digit & !(digit << 1);
            let mut all = last;
            while last != 0 {
                last = (last << most) & whole;
                all |= last;
            }
            all
        }
    };

    // Blanks: the run starts a piece, and the last one another, which what follows may take along.
    let free = space & !absorbed;
    let mut space_start = free & !(free << 1);
    let before_text = free & !(space >> 1);
    if rules.blank_lines {
        // After the last newline of a run the rest is by itself. It is the last if only other blanks lead from it to
        // what is no blank; filled backwards from there.
        let rest = free & !newline;
        let reversed = rest.reverse_bits();
        let ending = reversed & !reversed.wrapping_add((before_text & rest).reverse_bits());
        space_start |= ending.reverse_bits() & ((newline & free) << 1);
        space_start |= before_text & !newline;
    } else if rules.numbers == Numbers::Alone {
        space_start |= before_text & !(digit >> 1);
    } else {
        space_start |= before_text;
    }

    let mut starts = other_start | letter_start | digit_start | space_start;

    // What the end of the block hides: whether blanks there go on, and whether an apostrophe begins a contraction.
    let mut certain = known;
    if space >> (found.length - 1) & 1 != 0 {
        let run_start = u64::BITS - (known & !space).leading_zeros();
        let run = free & !((1 << run_start) - 1);
        if run != 0 {
            certain &= ((run & run.wrapping_neg()) << 1).wrapping_sub(1);
        }
    }
    let cut_off = found.apostrophe & known & !(known >> 3);
    if cut_off != 0 {
        certain &= (cut_off & cut_off.wrapping_neg()) - 1;
    }

    let before = if cased { letter << 1 } else { other_start };
    let mut candidates = found.apostrophe & before & (letter >> 1) & certain;
    let mut last_end = BLOCK;
    while candidates != 0 {
        let place = candidates.trailing_zeros() as usize;
        candidates &= candidates - 1;
        // What ends a word is no word that another could end.
        let length = if cased && place == last_end { 0 } else { contraction(at + place) };
        if length != 0 {
            last_end = place + length;
            let inside = ((1 << length) - 1) << place;
            starts &= !if cased { inside } else { inside & (inside << 1) };
            starts |= letter & (1 << last_end);
        }
    }
    starts & certain & !1
}

/// Other processors go the scanner's way.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn starts(_: &[u8], _: usize, _: &Rules, _: impl Fn(usize) -> usize) -> u64 {
    0
}
