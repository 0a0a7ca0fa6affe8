//! Equal texts: a 128-bit hash of their forms groups them, a comparison of the forms decides.

use crate::hash::content;
use crate::parallel::for_each_chunk;
use crate::reading::Reading;

/// The content hash of the form of each text.
pub fn contents(texts: &[&[u8]], reading: Reading, threads: usize) -> Vec<(u64, u64)> {
    let mut found = vec![(0, 0); texts.len()];
    for_each_chunk(&mut found, 64, threads, Vec::new, |offset, chunk, buffer| {
        for (position, hash) in chunk.iter_mut().enumerate() {
            *hash = content(reading.form(texts[offset + position], buffer));
        }
    });
    found
}

/// For each text the smallest index of an equal one (itself when there is none before it).
pub fn first_equal(texts: &[&[u8]], contents: &[(u64, u64)], reading: Reading) -> Vec<u32> {
    let mut keyed: Vec<((u64, u64), u32)> = contents.iter().copied().zip(0..).collect();
    keyed.sort_unstable();
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let mut first: Vec<u32> = (0..texts.len() as u32).collect();
    for group in keyed.chunk_by(|left, right| left.0 == right.0) {
        for (position, &(_, index)) in group.iter().enumerate().skip(1) {
            let form = reading.form(texts[index as usize], &mut left);
            let equal = group[..position].iter().find(|&&(_, other)| {
                first[other as usize] == other && reading.form(texts[other as usize], &mut right) == form
            });
            if let Some(&(_, other)) = equal {
                first[index as usize] = other;
            }
        }
    }
    first
}
