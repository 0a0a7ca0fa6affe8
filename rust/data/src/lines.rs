//! Lines: those that stand in many texts, such as licence headers and blocks of imports.
//!
//! A line counts without the white space around it, once a text, by a 64-bit hash. Lines shorter than a limit do not count: brackets and
//! `return` repeat without being boilerplate.

use std::collections::HashMap;

use crate::hash::content;
use crate::parallel::for_each_chunk;

/// In how many texts each line stands.
#[derive(Debug, Clone, Default)]
pub struct LineCounts {
    shortest: usize,
    counts: HashMap<u64, u32>,
}

/// Bytes `start..end` of text `text`, one line with its end of line, which stands in `texts` texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrequentLine {
    /// Number of the text.
    pub text: u32,
    /// First byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
    /// Texts that it stands in.
    pub texts: u32,
}

impl LineCounts {
    /// Nothing counted; lines of fewer than `shortest` bytes never are.
    pub fn new(shortest: usize) -> Self {
        Self { shortest, counts: HashMap::new() }
    }

    /// Number of different lines counted.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether no line was counted.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Count the lines of these texts.
    pub fn add(&mut self, texts: &[&[u8]], threads: usize) {
        let shortest = self.shortest;
        let mut hashes: Vec<Vec<u64>> = vec![Vec::new(); texts.len()];
        for_each_chunk(
            &mut hashes,
            16,
            threads,
            || (),
            |offset, chunk, ()| {
                for (position, found) in chunk.iter_mut().enumerate() {
                    for_each_line(texts[offset + position], shortest, |hash, _, _| found.push(hash));
                    found.sort_unstable();
                    found.dedup();
                }
            },
        );
        for hash in hashes.into_iter().flatten() {
            let count = self.counts.entry(hash).or_insert(0);
            *count = count.saturating_add(1);
        }
    }

    /// Forget lines that stand in one text only: to be called when all texts were counted, it saves memory.
    pub fn keep_repeated(&mut self, more_than: u32) {
        self.counts.retain(|_, count| *count > more_than);
        self.counts.shrink_to_fit();
    }

    /// The lines of these texts that stand in more than `more_than` of the texts counted.
    pub fn frequent(&self, texts: &[&[u8]], more_than: u32) -> Vec<FrequentLine> {
        let mut found = Vec::new();
        for (number, text) in texts.iter().enumerate() {
            for_each_line(text, self.shortest, |hash, start, end| {
                if let Some(&count) = self.counts.get(&hash).filter(|&&count| count > more_than) {
                    found.push(FrequentLine {
                        text: number as u32,
                        start: start as u64,
                        end: end as u64,
                        texts: count,
                    });
                }
            });
        }
        found
    }
}

/// Call `emit(hash, start, end)` for each line that is long enough.
fn for_each_line(text: &[u8], shortest: usize, mut emit: impl FnMut(u64, usize, usize)) {
    let mut start = 0;
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let end = start + line.len();
        let bare = line.trim_ascii();
        if !bare.is_empty() && bare.len() >= shortest {
            emit(content(bare).0, start, end);
        }
        start = end;
    }
}
