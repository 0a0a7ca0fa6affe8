//! Character classes as the split patterns need them. Generated ranges in, tables out; knows no pattern.
//!
//! The ranges in `unicode_ranges.rs` come from the tables of the `regex-syntax` crate, which `tiktoken` matches with
//! (`tests/unicode.rs` writes the file and holds every code point to that crate).

use std::sync::OnceLock;

use crate::masks::bit;
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

/// More than one class begins with these two bytes.
const MIXED: u8 = 0xff;

/// The class bits of every code point, and tables made of them.
pub struct Classes {
    all: Box<[u8; NUM_CODE_POINTS]>,
    /// Of ASCII bytes, in the bits that [`crate::masks`] wants.
    pub(crate) byte: [u8; 256],
    /// The class of all characters that begin with two bytes, at the lower six bits of both; or [`MIXED`].
    pairs: [u8; 1 << 12],
    /// At the lower half of a first byte, a bit for each of the upper halves 0xc to 0xf: letters only follow. Once for patterns
    /// without case, once for those with.
    letters_only: [[u8; 16]; 2],
}

/// The tables, built on first use (1.1 MB).
pub fn classes() -> &'static Classes {
    static TABLES: OnceLock<Classes> = OnceLock::new();
    TABLES.get_or_init(|| {
        let mut all = vec![0_u8; NUM_CODE_POINTS];
        for &(first, last, class) in RANGES {
            all[first as usize..=last as usize].fill(class);
        }
        match all.into_boxed_slice().try_into() {
            Ok(all) => Classes::new(all),
            Err(_) => unreachable!("the table was made with NUM_CODE_POINTS entries"),
        }
    })
}

impl Classes {
    fn new(all: Box<[u8; NUM_CODE_POINTS]>) -> Self {
        let mut this = Classes { all, byte: [0; 256], pairs: [MIXED; 1 << 12], letters_only: [[0; 16]; 2] };
        for byte in 0..128_u8 {
            let class = this.all[byte as usize];
            let put = |holds: bool, bit: u8| if holds { bit } else { 0 };
            this.byte[byte as usize] = put(class & LETTER != 0, bit::LETTER)
                | put(byte.is_ascii_uppercase(), bit::UPPER)
                | put(class & NUMBER != 0, bit::DIGIT)
                | put(class & SPACE != 0, bit::SPACE)
                | put(byte == b' ', bit::BLANK)
                | put(class & NEWLINE != 0, bit::NEWLINE)
                | put(byte == b'\'', bit::APOSTROPHE)
                | put(byte == b'/', bit::SLASH);
        }
        for lead in 0xc2..=0xf4_u8 {
            let mut of_lead = Vec::new();
            for second in 0x80..=0xbf_u8 {
                let bytes = |next: u8| [lead, second, next, next];
                let first = decode(bytes(0x80)).0 as usize;
                let last = decode(bytes(0xbf)).0 as usize;
                // Outside the code points, or a longer form of a shorter character.
                let possible =
                    last < NUM_CODE_POINTS && (lead < 0xe0 || first >= 0x800) && (lead < 0xf0 || first >= 0x1_0000);
                if possible {
                    let class = this.all[first];
                    let uniform = this.all[first..=last].iter().all(|&other| other == class);
                    this.pairs[pair(lead, second)] = if uniform { class } else { MIXED };
                    of_lead.extend_from_slice(&this.all[first..=last]);
                }
            }
            for (cased, table) in this.letters_only.iter_mut().enumerate() {
                let (mask, wanted) =
                    if cased == 1 { (LETTER | UPPER | LOWER, LETTER | UPPER | LOWER) } else { (LETTER, LETTER) };
                if of_lead.iter().all(|&class| class & mask == wanted) {
                    table[lead as usize & 15] |= 1 << ((lead >> 4) - 12);
                }
            }
        }
        this
    }

    /// The class of a code point; none above the last.
    #[inline(always)]
    pub fn of(&self, code_point: u32) -> u8 {
        self.all.get(code_point as usize).copied().unwrap_or(0)
    }

    /// The class of the character of two to four bytes at `at`.
    #[inline(always)]
    pub(crate) fn wide(&self, text: &[u8], at: usize) -> u8 {
        let class = self.pairs[pair(text[at], text[at + 1])];
        if class == MIXED {
            self.wide_with_width(text, at).0
        } else {
            class
        }
    }

    /// The same and the number of bytes.
    #[inline]
    pub(crate) fn wide_with_width(&self, text: &[u8], at: usize) -> (u8, usize) {
        let byte = |offset: usize| text.get(at + offset).copied().unwrap_or(0);
        let (code_point, width) = decode([byte(0), byte(1), byte(2), byte(3)]);
        (self.of(code_point), width)
    }

    /// Whether all characters that begin with this byte are letters, in patterns with case such without case.
    #[inline(always)]
    pub(crate) fn letters_only(&self, lead: u8, cased: bool) -> bool {
        lead >= 0xc0 && self.letters_only[usize::from(cased)][lead as usize & 15] >> ((lead >> 4) - 12) & 1 != 0
    }

    /// See the field.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[inline(always)]
    pub(crate) fn letters_only_table(&self, cased: bool) -> &[u8; 16] {
        &self.letters_only[usize::from(cased)]
    }
}

#[inline(always)]
fn pair(lead: u8, second: u8) -> usize {
    (lead as usize & 63) << 6 | second as usize & 63
}

/// Code point and width of the character that begins with these bytes, the first of which is at least 0xc0.
#[inline(always)]
fn decode(bytes: [u8; 4]) -> (u32, usize) {
    let [first, second, third, fourth] = bytes.map(u32::from);
    if first < 0xe0 {
        ((first & 0x1f) << 6 | second & 0x3f, 2)
    } else if first < 0xf0 {
        ((first & 0x0f) << 12 | (second & 0x3f) << 6 | third & 0x3f, 3)
    } else {
        ((first & 0x07) << 18 | (second & 0x3f) << 12 | (third & 0x3f) << 6 | fourth & 0x3f, 4)
    }
}
