//! Reading: what of a text is compared, its form and its shingles.
//!
//! A form is what two texts must share to be called equal: their bytes, their bytes with white space evened out, or their words in
//! lower case. A shingle is the hash of a run of words or of characters of that form, rolled so that each costs two products however
//! long the run is: w0..wn hash to `w0 M^n + w1 M^(n-1) + ... + wn` modulo 2^64. A text of fewer words (characters) than a run
//! has is one shingle of all of them; a text without any has none.

use crate::error::DataError;
use crate::hash::{fold, K};
use crate::words::{for_each_span, for_each_word};

/// The longest run of words or characters.
pub const LONGEST: usize = 64;

const M: u64 = 0xd6e8_feb8_6659_fd93;
/// The usual run of words has its power at compile time.
const USUAL: usize = 5;
const M5: u64 = M.wrapping_mul(M).wrapping_mul(M).wrapping_mul(M).wrapping_mul(M);

/// What two equal texts share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// Every byte.
    #[default]
    Bytes,
    /// All but white space: runs of it count as one blank, none at the ends.
    Spaces,
    /// The words in lower case: punctuation does not count either.
    Words,
}

/// Of what a shingle is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shingle {
    /// A run of so many words.
    Words(usize),
    /// A run of so many characters (UTF-8 sequences).
    Characters(usize),
}

/// What of a text is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// What equal texts share.
    pub form: Form,
    /// What similarity counts.
    pub shingle: Shingle,
}

impl Default for Reading {
    fn default() -> Self {
        Self { form: Form::Bytes, shingle: Shingle::Words(USUAL) }
    }
}

impl Reading {
    /// An error when the run is empty or longer than `LONGEST`.
    pub fn check(&self) -> Result<(), DataError> {
        let (Shingle::Words(length) | Shingle::Characters(length)) = self.shingle;
        match (1..=LONGEST).contains(&length) {
            true => Ok(()),
            false => Err(DataError::Run(length)),
        }
    }

    /// The form of a text: the text itself, or what `buffer` holds then.
    pub fn form<'a>(&self, text: &'a [u8], buffer: &'a mut Vec<u8>) -> &'a [u8] {
        buffer.clear();
        match self.form {
            Form::Bytes => return text,
            Form::Spaces => match std::str::from_utf8(text) {
                Ok(text) => join(buffer, text.split_whitespace().map(str::as_bytes)),
                Err(_) => {
                    let parts = text.split(u8::is_ascii_whitespace);
                    join(buffer, parts.filter(|part| !part.is_empty()));
                }
            },
            Form::Words => {
                let lower: Vec<u8> = match std::str::from_utf8(text) {
                    Ok(text) => text.chars().flat_map(char::to_lowercase).collect::<String>().into_bytes(),
                    Err(_) => text.to_ascii_lowercase(),
                };
                for_each_span(&lower, |start, end| join(buffer, std::iter::once(&lower[start..end])));
            }
        }
        buffer
    }

    /// Call `emit` with the hash of every shingle of a text, in order, repeats included; `buffer` is scratch.
    #[inline(always)]
    pub fn for_each_shingle(&self, text: &[u8], buffer: &mut Vec<u8>, mut emit: impl FnMut(u64)) {
        let text = self.form(text, buffer);
        match self.shingle {
            Shingle::Words(USUAL) => usual_run(text, emit),
            Shingle::Words(length) => {
                let mut run = Run::new(length);
                for_each_word(text, |word| run.push(word, &mut emit));
                run.finish(&mut emit);
            }
            Shingle::Characters(length) => {
                let mut run = Run::new(length);
                for_each_character(text, |character| run.push(character, &mut emit));
                run.finish(&mut emit);
            }
        }
    }
}

/// Append parts to `buffer`, a blank between any two.
fn join<'a>(buffer: &mut Vec<u8>, parts: impl Iterator<Item = &'a [u8]>) {
    for part in parts {
        if !buffer.is_empty() {
            buffer.push(b' ');
        }
        buffer.extend_from_slice(part);
    }
}

/// Call `emit` with a hash of every character: a byte with the continuation bytes after it, three at most.
#[inline(always)]
fn for_each_character(text: &[u8], mut emit: impl FnMut(u64)) {
    let mut at = 0;
    while at < text.len() {
        let mut character = u64::from(text[at]);
        at += 1;
        if character >= 0xC0 {
            for _ in 0..3 {
                match text.get(at) {
                    Some(&next) if next & 0xC0 == 0x80 => character = character << 8 | u64::from(next),
                    _ => break,
                }
                at += 1;
            }
        }
        emit(fold(character ^ K[1], K[2]));
    }
}

/// Runs of five words.
#[inline(always)]
fn usual_run(text: &[u8], mut emit: impl FnMut(u64)) {
    let mut last = [0u64; 8];
    let mut count = 0usize;
    let mut rolling = 0u64;
    for_each_word(text, |word| {
        let leaving = last[count.wrapping_sub(USUAL) & 7];
        last[count & 7] = word;
        count += 1;
        rolling = rolling.wrapping_mul(M).wrapping_add(word).wrapping_sub(leaving.wrapping_mul(M5));
        if count >= USUAL {
            emit(rolling);
        }
    });
    if (1..USUAL).contains(&count) {
        emit(rolling);
    }
}

/// Runs of any length.
struct Run {
    last: [u64; LONGEST],
    length: usize,
    power: u64,
    count: usize,
    rolling: u64,
}

impl Run {
    fn new(length: usize) -> Self {
        let power = (0..length).fold(1u64, |power, _| power.wrapping_mul(M));
        Self { last: [0; LONGEST], length, power, count: 0, rolling: 0 }
    }

    #[inline(always)]
    fn push(&mut self, item: u64, emit: &mut impl FnMut(u64)) {
        let place = &mut self.last[self.count % self.length];
        let leaving = std::mem::replace(place, item);
        self.count += 1;
        self.rolling = self.rolling.wrapping_mul(M).wrapping_add(item).wrapping_sub(leaving.wrapping_mul(self.power));
        if self.count >= self.length {
            emit(self.rolling);
        }
    }

    fn finish(&self, emit: &mut impl FnMut(u64)) {
        if (1..self.length).contains(&self.count) {
            emit(self.rolling);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::hash_word;

    fn read(reading: Reading, text: &[u8]) -> Vec<u64> {
        let mut found = Vec::new();
        reading.for_each_shingle(text, &mut Vec::new(), |hash| found.push(hash));
        found
    }

    #[test]
    fn rolled_equals_direct() {
        let words: Vec<String> = (0..40).map(|n| format!("w{}", n * n)).collect();
        for length in [1, 2, 5, 7, 39, 64] {
            let reading = Reading { shingle: Shingle::Words(length), ..Reading::default() };
            for count in 0..words.len() {
                let hashes: Vec<u64> = words[..count].iter().map(|word| hash_word(word.as_bytes())).collect();
                let direct: Vec<u64> = match count {
                    0 => Vec::new(),
                    _ => hashes
                        .windows(count.min(length))
                        .map(|run| run.iter().fold(0u64, |sum, &word| sum.wrapping_mul(M).wrapping_add(word)))
                        .collect(),
                };
                assert_eq!(read(reading, words[..count].join(" ").as_bytes()), direct, "{length} {count}");
            }
        }
    }

    #[test]
    fn characters_are_sequences() {
        let reading = Reading { shingle: Shingle::Characters(3), ..Reading::default() };
        assert_eq!(read(reading, "a日本語".as_bytes()).len(), 2);
        assert_eq!(read(reading, b"ab").len(), 1);
        assert_eq!(read(reading, b"\x80\x80\x80\xff").len(), 2);
        assert!(read(reading, b"").is_empty());
    }

    #[test]
    fn forms() {
        let form = |form, text: &[u8]| Reading { form, ..Reading::default() }.form(text, &mut Vec::new()).to_vec();
        assert_eq!(form(Form::Bytes, b" a  B "), b" a  B ");
        assert_eq!(form(Form::Spaces, "\u{3000}a \n B\t".as_bytes()), b"a B");
        assert_eq!(form(Form::Spaces, b"\xff  b"), b"\xff b");
        assert_eq!(form(Form::Words, "Ärger, (B)=c".as_bytes()), "ärger b c".as_bytes());
    }
}
