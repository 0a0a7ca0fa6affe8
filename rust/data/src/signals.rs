//! Signals: what the surface of one text is like: lines, letters, names, comments; all of it in one pass over its lines.
//!
//! White space is that of ASCII, a character is a code point. Knows nothing of languages, thresholds or scores; the slow twin is
//! `tests/reference/signals.py`.

use std::collections::HashSet;

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
}

/// Lengths that tell minified and encoded text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// Lines; what follows the last end of line counts unless it is empty.
    pub lines: usize,
    /// Characters of the longest line.
    pub longest_line: usize,
    /// Bytes of the longest run without white space.
    pub longest_word: usize,
}

/// Count the signals of `text`.
pub fn signals(text: &str) -> Signals {
    let mut found = Signals::default();
    let mut lines: HashSet<&str> = HashSet::new();
    let mut names: HashSet<&[u8]> = HashSet::new();
    for line in text.split('\n') {
        let bare = line.trim_matches(is_space);
        if bare.is_empty() {
            continue;
        }
        let size = characters(bare);
        found.filled += 1;
        found.solid += size;
        lines.insert(bare);
        found.letters += bare.bytes().filter(u8::is_ascii_alphabetic).count() + size - ascii(bare);
        found.deep += usize::from(is_deep(line.as_bytes()));
        if is_comment(bare.as_bytes()) {
            found.commented += size;
        }
        found.definitions += usize::from(is_definition(bare.as_bytes()));
        let runs = bare.as_bytes().split(|&byte| !is_word(byte));
        names.extend(runs.filter(|run| is_name(run)));
    }
    found.unique = lines.len();
    found.names = names.len();
    found.name_letters = names.iter().map(|name| name.len()).sum();
    found
}

/// Measure the shape of `text`.
pub fn shape(text: &str) -> Shape {
    let mut found = Shape::default();
    for line in text.split('\n') {
        found.lines += 1;
        if line.len() > found.longest_line {
            found.longest_line = found.longest_line.max(characters(line));
        }
        if line.len() > found.longest_word {
            let longest = line.as_bytes().split(u8::is_ascii_whitespace).map(<[u8]>::len).max();
            found.longest_word = found.longest_word.max(longest.unwrap_or(0));
        }
    }
    found.lines -= usize::from(text.is_empty() || text.ends_with('\n'));
    found
}

fn is_space(character: char) -> bool {
    character.is_ascii_whitespace() || character == '\u{b}'
}

fn characters(text: &str) -> usize {
    text.bytes().filter(|byte| byte & 0xc0 != 0x80).count()
}

fn ascii(text: &str) -> usize {
    text.bytes().filter(u8::is_ascii).count()
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

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn is_name(run: &[u8]) -> bool {
    run.first().is_some_and(|byte| !byte.is_ascii_digit()) && run.len() <= 64 && run.is_ascii()
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
        assert_eq!(shape("a b\u{e9}\nccc dd"), Shape { lines: 2, longest_line: 6, longest_word: 3 });
    }
}
