//! Equal texts: a 128-bit content hash groups them, a comparison of the bytes decides.

use crate::hash::content;
use crate::parallel::for_each_chunk;

/// For each text the smallest index of an equal one (itself when there is none before it).
pub fn first_equal(texts: &[&[u8]], threads: usize) -> Vec<u32> {
    let mut keyed: Vec<((u64, u64), u32)> = (0..texts.len() as u32).map(|index| ((0, 0), index)).collect();
    for_each_chunk(
        &mut keyed,
        64,
        threads,
        || (),
        |_, chunk, ()| {
            for entry in chunk {
                entry.0 = content(texts[entry.1 as usize]);
            }
        },
    );
    keyed.sort_unstable();
    let mut first: Vec<u32> = (0..texts.len() as u32).collect();
    for group in keyed.chunk_by(|left, right| left.0 == right.0) {
        for (position, &(_, index)) in group.iter().enumerate().skip(1) {
            let equal = group[..position]
                .iter()
                .find(|&&(_, other)| first[other as usize] == other && texts[other as usize] == texts[index as usize]);
            if let Some(&(_, other)) = equal {
                first[index as usize] = other;
            }
        }
    }
    first
}
