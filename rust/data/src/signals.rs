//! Signals: what the surface of one text is like: lines, letters, names, comments; all of it in one pass over its lines.
//!
//! White space is that of ASCII, a character is a code point. Knows nothing of languages, thresholds or scores; the slow twin is
//! `tests/reference/signals.py`.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

/// Counts of one text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signals {
    /// Lines that are not empty without the white space around them.
    pub filled: usize,
    /// Characters of these lines without the white space around them.
    pub solid: usize,
    /// Different ones among these lines.
    pub unique: usize,
    /// Letters; every character beyond ASCII counts as one.
    pub letters: usize,
    /// Lines with something behind 24 spaces or 6 tabs.
    pub deep: usize,
    /// Different names: runs of ASCII letters, digits and `_` of at most 64 that begin with no digit, beside no character beyond ASCII.
    pub names: usize,
    /// Characters of these names.
    pub name_letters: usize,
    /// Characters of lines that begin like a comment, without the white space around them.
    pub commented: usize,
    /// Lines that begin like a definition or a class of Python with a name that does not begin with `_`.
    pub definitions: usize,
    /// Characters inside strings of three quotes that begin a line, without the white space around their lines.
    pub documented: usize,
}

/// Lengths that tell minified and encoded text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// Lines; what follows the last end of line counts unless it is empty.
    pub lines: usize,
    /// Characters of the longest line.
    pub longest_line: usize,
    /// Letters; every character beyond ASCII counts as one.
    pub letters: usize,
    /// Spaces, tabs and ends of lines.
    pub blank: usize,
    /// Bytes of the longest run of the characters of base-64, if there are 64 or more; else 0.
    pub longest_run: usize,
}

/// Hashes lines and names: eight bytes a step, good enough for sets that live as long as one text.
#[derive(Debug, Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
    fn write(&mut self, bytes: &[u8]) {
        let mut step = |word: u64| self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            step(u64::from_le_bytes(chunk.try_into().unwrap_or_default()));
        }
        step(chunks.remainder().iter().fold(bytes.len() as u64, |word, &byte| word << 8 | u64::from(byte)));
    }
    fn write_u8(&mut self, _: u8) {}
    fn write_usize(&mut self, _: usize) {}
}

type Set<T> = HashSet<T, BuildHasherDefault<Quick>>;

/// Count the signals of `text`.
pub fn signals(text: &str) -> Signals {
    let mut found = Signals { documented: documented(text), ..Signals::default() };
    let plain = text.is_ascii();
    let mut lines: Set<&[u8]> = Set::default();
    let mut names: Set<&[u8]> = Set::default();
    for line in text.as_bytes().split(|&byte| byte == b'\n') {
        let bare = trimmed(line);
        if bare.is_empty() {
            continue;
        }
        let size = if plain { bare.len() } else { bare.iter().filter(|&&byte| byte & 0xc0 != 0x80).count() };
        found.filled += 1;
        found.solid += size;
        lines.insert(bare);
        found.letters += bare.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
        if !plain {
            found.letters += size - bare.iter().filter(|byte| byte.is_ascii()).count();
        }
        found.deep += usize::from(is_deep(line));
        if is_comment(bare) {
            found.commented += size;
        }
        found.definitions += usize::from(is_definition(bare));
        add_names(bare, &mut names);
    }
    found.unique = lines.len();
    found.names = names.len();
    found.name_letters = names.iter().map(|name| name.len()).sum();
    found
}

/// What a byte is to a name.
const NOTHING: u8 = 0;
const LETTER: u8 = 1;
const DIGIT: u8 = 2;
const FOREIGN: u8 = 3;
const KINDS: [u8; 256] = {
    let mut kinds = [NOTHING; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => LETTER,
            b'0'..=b'9' => DIGIT,
            128.. => FOREIGN,
            _ => NOTHING,
        };
        byte += 1;
    }
    kinds
};

fn add_names<'a>(line: &'a [u8], names: &mut Set<&'a [u8]>) {
    let mut at = 0;
    while at < line.len() {
        let first = KINDS[usize::from(line[at])];
        if first == NOTHING {
            at += 1;
            continue;
        }
        let (begin, mut most) = (at, first);
        while at < line.len() && KINDS[usize::from(line[at])] != NOTHING {
            most = most.max(KINDS[usize::from(line[at])]);
            at += 1;
        }
        if first == LETTER && most != FOREIGN && at - begin <= 64 {
            names.insert(&line[begin..at]);
        }
    }
}

/// A line without the white space around it.
fn trimmed(line: &[u8]) -> &[u8] {
    let space = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'\x0b';
    let begin = line.iter().position(|byte| !space(byte)).unwrap_or(line.len());
    let end = line.iter().rposition(|byte| !space(byte)).map_or(begin, |last| last + 1);
    &line[begin..end]
}

/// Characters inside the strings of three quotes that begin a line.
fn documented(text: &str) -> usize {
    let (mut at, mut found) = (0, 0);
    while let Some(line) = text.get(at..) {
        let bare = line.trim_start_matches([' ', '\t']);
        let quoted = bare.strip_prefix(['r', 'R', 'u', 'U']).unwrap_or(bare);
        let quote = quoted.get(..3).filter(|quote| matches!(*quote, "\"\"\"" | "'''"));
        let inside = quote.and_then(|quote| quoted[3..].find(quote).map(|end| &quoted[3..3 + end]));
        if let Some(inside) = inside {
            found += inside.split('\n').map(|line| characters(line.trim_matches(is_space))).sum::<usize>();
            at = text.len() - quoted.len() + inside.len() + 6;
        }
        match text.get(at..).and_then(|rest| rest.find('\n')) {
            Some(end) => at += end + 1,
            None => break,
        }
    }
    found
}

/// Measure the shape of `text`.
pub fn shape(text: &str) -> Shape {
    let mut found = Shape { longest_run: longest_run(text.as_bytes()), ..Shape::default() };
    for line in text.split('\n') {
        found.lines += 1;
        if line.len() > found.longest_line {
            found.longest_line = found.longest_line.max(characters(line));
        }
    }
    found.lines -= usize::from(text.is_empty() || text.ends_with('\n'));
    // sums of bytes, so that the compiler adds sixteen at a time
    for chunk in text.as_bytes().chunks(192) {
        let (mut letters, mut blank) = (0u8, 0u8);
        for &byte in chunk {
            letters += u8::from((byte | 32).wrapping_sub(b'a') < 26 && byte < 128) + u8::from(byte >= 0xc0);
            blank += u8::from(byte == b' ') + u8::from(byte == b'\n') + u8::from(byte == b'\t');
        }
        found.letters += usize::from(letters);
        found.blank += usize::from(blank);
    }
    found
}

const RUN: usize = 64;

/// The longest run of base-64 characters of at least `RUN` bytes. Of shorter ones only every so many bytes are looked at.
fn longest_run(text: &[u8]) -> usize {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    let (mut longest, mut begin) = (RUN - 1, 0);
    while let Some(window) = text.get(begin..=begin + longest) {
        // a longer run that begins here holds the whole window, one that begins later what follows its last misfit
        match window.iter().rposition(|&byte| !fits(byte)) {
            Some(place) => begin += place + 1,
            None => {
                longest = text[begin..].iter().take_while(|&&byte| fits(byte)).count();
                begin += longest;
            }
        }
    }
    if longest >= RUN {
        longest
    } else {
        0
    }
}

fn is_space(character: char) -> bool {
    character.is_ascii_whitespace() || character == '\u{b}'
}

fn characters(text: &str) -> usize {
    text.bytes().filter(|byte| byte & 0xc0 != 0x80).count()
}

fn is_deep(line: &[u8]) -> bool {
    let spaces = line.iter().take_while(|&&byte| byte == b' ').count();
    spaces >= 24 || line.iter().take_while(|&&byte| byte == b'\t').count() >= 6
}

fn is_comment(line: &[u8]) -> bool {
    match line {
        [b'#', b'!', ..] => false,
        [b'#' | b';' | b'%', ..] | [b'/', b'/' | b'*', ..] | [b'*', b' ' | b'/', ..] => true,
        [b'-', b'-', next, ..] => next.is_ascii_whitespace(),
        _ => false,
    }
}

fn is_definition(line: &[u8]) -> bool {
    let rest = after(line, b"async").unwrap_or(line);
    let name = after(rest, b"def").or_else(|| after(rest, b"class"));
    name.is_some_and(|name| name.first().is_some_and(u8::is_ascii_alphabetic))
}

/// What follows `word` and at least one space or tab.
fn after<'a>(line: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(word)?;
    let gap = rest.iter().take_while(|&&byte| byte == b' ' || byte == b'\t').count();
    (gap > 0).then(|| &rest[gap..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_module() {
        let text = "#!/bin/x\n# caf\u{e9}\n\ndef one(x):\n    return x1 + x\n    return x1 + x\nasync  def _two(): pass\nclass A: pass\n";
        let found = signals(text);
        assert_eq!((found.filled, found.unique, found.definitions), (7, 6, 2));
        assert_eq!(found.commented, 6);
        // bin, x, def, one, return, x1, async, _two, pass, class, A
        assert_eq!((found.names, found.name_letters), (11, 37));
        assert_eq!(shape(text).lines, 8);
        assert_eq!(shape("").lines, 0);
        let mixed = Shape { lines: 2, longest_line: 6, letters: 8, blank: 3, longest_run: 0 };
        assert_eq!(shape("a b\u{e9}\nccc dd"), mixed);
        assert_eq!(shape(&format!("x{}=\n{}-", "a".repeat(63), "b".repeat(65))).longest_run, 65);
        assert_eq!(shape(&format!("{}-{}", "a".repeat(63), "b".repeat(63))).longest_run, 0);
    }
}
