//! The split of text 64 bytes at a time: one bit a byte for each class, and arithmetic on these words instead of a branch for
//! each piece. Knows only what `split::Rules` says; what it cannot decide it leaves to the scanner there.
//!
//! A block begins where a piece begins. The patterns never look back, so nothing has to be carried in; and of what is
//! found only the starts that no later byte can change are given out, and the next block begins at the last of them.
//!
//! A word of bits is filled along a run by an addition: adding the lowest bit of a run of ones clears the whole run. All bytes
//! of a character have its class, so what holds for runs of bytes holds for runs of characters. Rare characters of more
//! than one byte (blanks, digits, words that mix scripts with and without case) end the block.

use crate::masks::{Bytes, Masks};
use crate::split::{Numbers, Rules, Words};
use crate::unicode::{Classes, LETTER, LOWER, NUMBER, SPACE, UPPER};

/// Bytes in a block.
pub(crate) const BLOCK: usize = 64;

/// What is known of a block: masks of whole characters.
struct Block {
    /// Letters; for patterns with upper and lower case marks as well.
    letter: u64,
    /// Of these, those that are upper case only.
    upper: u64,
    /// Bytes that go on with a character.
    tail: u64,
    /// Number of bytes from the start of which all is known.
    length: u32,
}

/// Bits below `length`, which is 1 to 64.
#[inline(always)]
fn below(length: u32) -> u64 {
    u64::MAX >> (u64::BITS - length)
}

/// The places behind the characters that begin at `first`.
#[inline(always)]
fn behind(first: u64, tail: u64) -> u64 {
    let mut next = first << 1;
    if tail != 0 {
        for _ in 0..3 {
            next = next & !tail | (next & tail) << 1;
        }
    }
    next
}

/// All bytes of the characters that begin at `first`.
#[inline(always)]
fn whole(first: u64, tail: u64) -> u64 {
    let mut all = first;
    for _ in 0..3 {
        all |= all << 1 & tail;
    }
    all
}

/// Classes of a block with characters of more than one byte.
#[inline(always)]
fn with_wide(text: &[u8], at: usize, found: &Masks, length: u32, cased: bool, classes: &Classes) -> Block {
    let (tail, leads) = (found.tail & below(length), found.high & !found.tail & below(length));
    let mut length = length;
    // A character that the block cuts is not known.
    if leads != 0 {
        let last = u64::BITS - 1 - leads.leading_zeros();
        let width = text[at + last as usize].leading_ones();
        if last + width > length {
            length = last;
        }
    }
    let (mut no_letter, mut upper, mut lower, mut mark) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut unknown = leads & !found.letters_only;
    while unknown != 0 {
        let place = unknown.trailing_zeros();
        if place >= length {
            break;
        }
        unknown &= unknown - 1;
        let class = classes.wide(text, at + place as usize);
        if class & (NUMBER | SPACE) != 0 {
            length = place;
            break;
        }
        let bit = |flag: bool| u64::from(flag) << place;
        if cased {
            let case = class & (UPPER | LOWER);
            upper |= bit(case == UPPER);
            lower |= bit(case == LOWER);
            no_letter |= bit(case == 0);
            mark |= bit(case != 0 && class & LETTER == 0);
        } else {
            no_letter |= bit(class & LETTER == 0);
        }
    }
    let letter = found.letter | found.high & !whole(no_letter, tail);
    let mut block = Block { letter, upper: found.upper | whole(upper, tail), tail, length };
    if cased && length > 0 {
        let with_case = found.letter | whole(upper | lower, tail);
        let without = letter & !with_case;
        // A mark that follows no letter may belong to other characters.
        let astray = mark & !(letter << 1);
        let mixed = without & with_case << 1 | with_case & without << 1;
        let known = below(length);
        if astray & known != 0 {
            block.length = astray.trailing_zeros();
        }
        if mixed & known != 0 {
            let before = !letter & ((1 << mixed.trailing_zeros()) - 1);
            block.length = block.length.min(u64::BITS - before.leading_zeros());
        }
    }
    block
}

/// Where the pieces of the block at `at` start, besides the one at its first byte: bit i for byte `at + i`. The end of the text
/// counts as a start where it ends a piece for certain. Zero when nothing is certain. The text is `buffer[..end]`; what
/// stands behind it may be anything, and is not looked at. `contraction` gives the length of one at a place, or 0.
#[inline(always)]
pub(crate) fn starts<B: Bytes>(
    buffer: &[u8],
    end: usize,
    at: usize,
    rules: &Rules,
    classes: &Classes,
    contraction: impl Fn(usize) -> usize,
) -> u64 {
    let cased = rules.words == Words::Cased;
    let (text, rest) = (&buffer[..end], end - at);
    let found = match buffer[at..].first_chunk::<BLOCK>() {
        Some(block) => B::masks(block, classes, cased),
        None => {
            let mut block = [0; BLOCK];
            block[..rest].copy_from_slice(&text[at..]);
            B::masks(&block, classes, cased)
        }
    };
    let length = rest.min(BLOCK) as u32;
    let block = if found.high == 0 {
        Block { letter: found.letter, upper: found.upper, tail: 0, length }
    } else {
        with_wide(text, at, &found, length, cased, classes)
    };
    if block.length < 2 {
        return 0;
    }
    let known = below(block.length);
    let (letter, digit, space) = (block.letter & known, found.digit & known, found.space & known);
    let (blank, newline) = (found.blank & known, found.newline & known);
    let other = known & !(letter | digit | space);

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
        Words::AfterAny | Words::Cased => !behind(other_start, block.tail) & !((space & !newline) << 1),
    };
    if cased {
        letter_start |= block.upper & ((letter & !block.upper) << 1) & known;
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
    if space >> (block.length - 1) & 1 != 0 {
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
    // Nothing is hidden where the text ends.
    if certain == known && block.length as usize == rest && rest < BLOCK {
        return starts & !1 | 1 << rest;
    }
    starts & certain & !1
}
