//! Cuts text into the pieces that byte-pair merges never cross, exactly as the split patterns of GPT-2, cl100k (Llama 3,
//! Qwen 2) and o200k do. One scanner, one table of what differs; knows no vocabulary.
//!
//! The patterns are regular expressions with backtracking; each branch below says which alternative it is and why the
//! first match of the expression ends there.

use std::ops::Range;

use crate::blocks;
#[cfg(target_arch = "x86_64")]
use crate::masks::Avx2;
#[cfg(target_arch = "aarch64")]
use crate::masks::Neon;
use crate::masks::{Bytes, Portable};
use crate::unicode::{classes, Classes, LETTER, LOWER, NEWLINE, NUMBER, SPACE, UPPER};

/// How a run of letters is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    /// ` ?\p{L}+`
    AfterBlank,
    /// `[^\r\n\p{L}\p{N}]?\p{L}+`
    AfterAny,
    /// `[^\r\n\p{L}\p{N}]?` and upper case before lower case, a contraction at the end.
    Cased,
}

/// How a run of digits is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// ` ?\p{N}+`
    AfterBlank,
    /// `\p{N}{1,n}`
    UpTo(usize),
    /// Every digit is cut out first; what lies between is then split as if each part were the whole text.
    Alone,
}

/// What differs between the patterns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) words: Words,
    pub(crate) numbers: Numbers,
    /// `'s` also as `'S` and `'ſ`.
    pub(crate) contractions_any_case: bool,
    /// What may follow other characters: `[\r\n]*` or `[\r\n/]*`.
    pub(crate) newlines_after_other: bool,
    pub(crate) slash_after_other: bool,
    /// `\s*[\r\n]+`
    pub(crate) blank_lines: bool,
    /// `\s++$` before it: blanks at the end of the text stay whole.
    pub(crate) whole_end: bool,
}

const GPT2: Rules = Rules {
    words: Words::AfterBlank,
    numbers: Numbers::AfterBlank,
    contractions_any_case: false,
    newlines_after_other: false,
    slash_after_other: false,
    blank_lines: false,
    whole_end: true,
};
const SMOLLM: Rules = Rules { numbers: Numbers::Alone, ..GPT2 };
const LLAMA3: Rules = Rules {
    words: Words::AfterAny,
    numbers: Numbers::UpTo(3),
    contractions_any_case: true,
    newlines_after_other: true,
    slash_after_other: false,
    blank_lines: true,
    whole_end: false,
};
const CL100K: Rules = Rules { whole_end: true, ..LLAMA3 };
const QWEN2: Rules = Rules { numbers: Numbers::UpTo(1), ..LLAMA3 };
const O200K: Rules = Rules { words: Words::Cased, slash_after_other: true, ..LLAMA3 };

/// A split pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// GPT-2, r50k, p50k.
    Gpt2,
    /// GPT-2 after every digit was cut out.
    Smollm,
    /// OpenAI's cl100k.
    Cl100k,
    /// Llama 3.
    Llama3,
    /// Qwen 2 and later: Llama 3 with digits one by one.
    Qwen2,
    /// OpenAI's o200k.
    O200k,
}

impl Scheme {
    /// The names that [`Scheme::from_name`] knows.
    pub const NAMES: [&'static str; 6] = ["gpt2", "smollm", "cl100k", "llama3", "qwen2", "o200k"];

    /// The scheme of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "gpt2" => Scheme::Gpt2,
            "smollm" => Scheme::Smollm,
            "cl100k" => Scheme::Cl100k,
            "llama3" => Scheme::Llama3,
            "qwen2" => Scheme::Qwen2,
            "o200k" => Scheme::O200k,
            _ => return None,
        })
    }

    /// The name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Cuts `text` from byte `start` on and writes the end of each piece to `ends`, which has room for [`ROOM`] at least, until
    /// it is full or the text is at its end. Returns the number of pieces; the text is at its end when the last of them is.
    pub fn split(self, text: &str, start: usize, ends: &mut [usize]) -> usize {
        self.split_on(Path::best(), text, start, ends)
    }

    /// The same on a path of one's choice, as far as the processor has it; every path gives the same pieces.
    pub fn split_on(self, path: Path, text: &str, start: usize, ends: &mut [usize]) -> usize {
        self.split_inside(path, text, start..text.len(), ends)
    }

    /// The same for the text that ends at `range.end`, whatever stands behind it: with 64 bytes there the end of a text is no
    /// slower than its middle.
    pub fn split_inside(self, path: Path, text: &str, range: Range<usize>, ends: &mut [usize]) -> usize {
        assert!(ends.len() >= ROOM, "room for {} pieces is too little, {ROOM} are needed", ends.len());
        match self {
            Scheme::Gpt2 => split_by_path::<0>(path, text, range, ends),
            Scheme::Smollm => split_by_path::<1>(path, text, range, ends),
            Scheme::Cl100k => split_by_path::<2>(path, text, range, ends),
            Scheme::Llama3 => split_by_path::<3>(path, text, range, ends),
            Scheme::Qwen2 => split_by_path::<4>(path, text, range, ends),
            Scheme::O200k => split_by_path::<5>(path, text, range, ends),
        }
    }
}

/// How text is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// By blocks of 64 bytes, with AVX2.
    Avx2,
    /// By blocks of 64 bytes, with NEON.
    Neon,
    /// By blocks of 64 bytes, on any processor.
    Portable,
    /// Character by character.
    Scanner,
}

impl Path {
    /// The names that [`Path::from_name`] knows.
    pub const NAMES: [&'static str; 4] = ["avx2", "neon", "portable", "scanner"];

    /// The path of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "avx2" => Path::Avx2,
            "neon" => Path::Neon,
            "portable" => Path::Portable,
            "scanner" => Path::Scanner,
            _ => return None,
        })
    }

    /// Whether this processor has it.
    #[inline]
    pub fn is_here(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("bmi1")
                    && is_x86_feature_detected!("bmi2")
                    && is_x86_feature_detected!("lzcnt")
                    && is_x86_feature_detected!("popcnt")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Path::Avx2 => false,
            // No processor of that kind is without it.
            Path::Neon => cfg!(target_arch = "aarch64"),
            Path::Portable | Path::Scanner => true,
        }
    }

    /// The fastest here.
    #[inline]
    pub fn best() -> Self {
        if Path::Avx2.is_here() {
            Path::Avx2
        } else if Path::Neon.is_here() {
            Path::Neon
        } else {
            Path::Portable
        }
    }
}

/// In the order of the enum: a constant index makes each scheme its own machine code.
const TABLE: [Rules; 6] = [GPT2, SMOLLM, CL100K, LLAMA3, QWEN2, O200K];

/// Starts are written eight at a time.
const STEP: usize = 8;
/// The least number of pieces that there must be room for: those of a block, and what is written behind them.
pub const ROOM: usize = blocks::BLOCK + STEP;

fn split_by_path<const SCHEME: usize>(path: Path, text: &str, range: Range<usize>, ends: &mut [usize]) -> usize {
    match path {
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 if path.is_here() => {
            // SAFETY: the processor has what the function is compiled for.
            unsafe { split_avx2::<SCHEME>(text, range, ends) }
        }
        #[cfg(target_arch = "aarch64")]
        Path::Neon => split_by::<SCHEME, Neon, true>(text, range, ends),
        #[cfg(not(target_arch = "aarch64"))]
        Path::Neon => split_by::<SCHEME, Portable, true>(text, range, ends),
        Path::Avx2 | Path::Portable => split_by::<SCHEME, Portable, true>(text, range, ends),
        Path::Scanner => split_by::<SCHEME, Portable, false>(text, range, ends),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn split_avx2<const SCHEME: usize>(text: &str, range: Range<usize>, ends: &mut [usize]) -> usize {
    split_by::<SCHEME, Avx2, true>(text, range, ends)
}

#[inline(always)]
fn split_by<const SCHEME: usize, B: Bytes, const BLOCKS: bool>(
    text: &str,
    range: Range<usize>,
    ends: &mut [usize],
) -> usize {
    let classes = classes();
    let scanner = Scanner { text: &text.as_bytes()[..range.end], classes };
    let rules = &TABLE[SCHEME];
    let (mut at, mut count) = (range.start, 0);
    while at < range.end && count + ROOM <= ends.len() {
        if BLOCKS {
            let contraction = |place| scanner.contraction(place, rules.contractions_any_case);
            let mut starts = blocks::starts::<B>(text.as_bytes(), range.end, at, rules, classes, contraction);
            if starts != 0 {
                let found = starts.count_ones() as usize;
                let base = at;
                at = base + (u64::BITS - 1 - starts.leading_zeros()) as usize;
                let places = &mut ends[count..count + ROOM];
                let mut written = 0;
                // All eight whatever there are: a branch for each would be guessed wrong too often.
                while written < found {
                    for place in &mut places[written..written + STEP] {
                        *place = base + starts.trailing_zeros() as usize;
                        starts &= starts.wrapping_sub(1);
                    }
                    written += STEP;
                }
                count += found;
                continue;
            }
        }
        at = scanner.next_end(at, rules);
        ends[count] = at;
        count += 1;
    }
    count
}

struct Scanner<'text> {
    text: &'text [u8],
    classes: &'static Classes,
}

/// A pseudo class for the end of the text: no bit of any class.
const END: u8 = 64;

impl Scanner<'_> {
    /// Class and width in bytes of the character at `at`; [`END`] and 0 past the end.
    #[inline(always)]
    fn class(&self, at: usize) -> (u8, usize) {
        match self.text.get(at) {
            None => (END, 0),
            Some(&byte) if byte < 0x80 => (self.classes.of(u32::from(byte)), 1),
            Some(_) => self.classes.wide_with_width(self.text, at),
        }
    }

    /// End of the run from `at` whose classes have a bit of `any` and none of `none`.
    #[inline(always)]
    fn run(&self, mut at: usize, any: u8) -> usize {
        loop {
            let (class, width) = self.class(at);
            if class & any == 0 {
                return at;
            }
            at += width;
        }
    }

    /// End of the run of characters that are neither letter, number nor blank.
    #[inline(always)]
    fn run_other(&self, mut at: usize) -> usize {
        loop {
            let (class, width) = self.class(at);
            if class & (LETTER | NUMBER | SPACE | END) != 0 {
                return at;
            }
            at += width;
        }
    }

    /// Length of `'s 't 'm 'd 're 've 'll` at `at`, 0 if none is there.
    #[inline(always)]
    fn contraction(&self, at: usize, any_case: bool) -> usize {
        if self.text[at..].first() != Some(&b'\'') {
            return 0;
        }
        let fold = if any_case { 0x20 } else { 0 };
        let letter = |offset: usize| self.text.get(at + offset).map_or(0, |byte| byte | (fold & byte >> 1));
        match letter(1) {
            b's' | b't' | b'm' | b'd' => 2,
            b'r' | b'v' if letter(2) == b'e' => 3,
            b'l' if letter(2) == b'l' => 3,
            // U+017F, the long s, folds to s.
            0xc5 | 0xe5 if any_case && self.text[at + 1..].starts_with("\u{17f}".as_bytes()) => 3,
            _ => 0,
        }
    }

    /// End of the piece that starts at `at`, which is before the end of the text.
    #[inline(always)]
    fn next_end(&self, at: usize, rules: &Rules) -> usize {
        let (class, width) = self.class(at);
        let first = self.text[at];
        let next = at + width;

        if rules.words == Words::Cased {
            if let Some(end) = self.cased_word(at, class, width) {
                return end + self.contraction(end, rules.contractions_any_case);
            }
        } else {
            if class & LETTER != 0 {
                return self.run(next, LETTER);
            }
            let contraction = self.contraction(at, rules.contractions_any_case);
            if contraction != 0 {
                return at + contraction;
            }
            let may_precede_letters = match rules.words {
                Words::AfterBlank => first == b' ',
                _ => class & (NUMBER | NEWLINE) == 0,
            };
            if may_precede_letters && self.class(next).0 & LETTER != 0 {
                return self.run(next, LETTER);
            }
        }
        if class & NUMBER != 0 {
            return match rules.numbers {
                Numbers::AfterBlank => self.run(next, NUMBER),
                Numbers::Alone => next,
                Numbers::UpTo(most) => {
                    let mut end = next;
                    for _ in 1..most {
                        let (class, width) = self.class(end);
                        if class & NUMBER == 0 {
                            break;
                        }
                        end += width;
                    }
                    end
                }
            };
        }
        if class & SPACE == 0 {
            return self.after_other(self.run_other(next), rules);
        }
        if first == b' ' {
            let (class, _) = self.class(next);
            if class & (LETTER | NUMBER | SPACE | END) == 0 {
                return self.after_other(self.run_other(next), rules);
            }
            if rules.numbers == Numbers::AfterBlank && class & NUMBER != 0 {
                return self.run(next, NUMBER);
            }
        }
        self.blanks(at, rules)
    }

    #[inline(always)]
    fn after_other(&self, mut at: usize, rules: &Rules) -> usize {
        if rules.newlines_after_other {
            while let Some(&byte) = self.text.get(at) {
                if !(byte == b'\n' || byte == b'\r' || rules.slash_after_other && byte == b'/') {
                    break;
                }
                at += 1;
            }
        }
        at
    }

    /// A run of blanks that no word, number or other character takes its last one from.
    #[inline(always)]
    fn blanks(&self, at: usize, rules: &Rules) -> usize {
        let (mut end, mut last, mut after_newline) = (at, at, at);
        let follower = loop {
            let (class, width) = self.class(end);
            if class & SPACE == 0 {
                break class;
            }
            last = end;
            end += width;
            if class & NEWLINE != 0 {
                after_newline = end;
            }
        };
        if follower == END && rules.whole_end {
            return end;
        }
        // `\s*[\r\n]+`: the first part gives blanks back until the last newline of the run is left for the second.
        if rules.blank_lines && after_newline > at {
            return after_newline;
        }
        // `\s+(?!\S)`: all of it before the end, one less before anything else; `\s+`: the one that is left.
        let at_end = follower == END || rules.numbers == Numbers::Alone && follower & NUMBER != 0;
        if at_end || last == at {
            end
        } else {
            last
        }
    }

    /// `[^\r\n\p{L}\p{N}]?[UPPER]*[LOWER]+` or, failing that, `[^\r\n\p{L}\p{N}]?[UPPER]+[LOWER]*`.
    #[inline(always)]
    fn cased_word(&self, at: usize, class: u8, width: usize) -> Option<usize> {
        let after_prefix = (class & (LETTER | NUMBER | NEWLINE) == 0).then_some(at + width);
        let starts = [after_prefix, Some(at)];
        let starts = || starts.iter().flatten().copied();
        for start in starts() {
            if let Some(end) = self.upper_then_lower(start) {
                return Some(end);
            }
        }
        for start in starts() {
            let upper = self.run(start, UPPER);
            if upper > start {
                return Some(self.run(upper, LOWER));
            }
        }
        None
    }

    /// `[UPPER]*[LOWER]+`: the first part gives back until the second has one.
    #[inline(always)]
    fn upper_then_lower(&self, start: usize) -> Option<usize> {
        let (mut at, mut given_back) = (start, None);
        loop {
            let (class, width) = self.class(at);
            if class & UPPER == 0 {
                break;
            }
            at += width;
            if class & LOWER != 0 {
                given_back = Some(at);
            }
        }
        let end = self.run(at, LOWER);
        if end > at {
            Some(end)
        } else {
            given_back
        }
    }
}
