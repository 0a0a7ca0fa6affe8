//! Bands: which signatures might be similar. Two are candidates when all rows of one band are equal.

use crate::hash::{fold, K};
use crate::parallel::for_each_chunk;

/// Chance with which a pair somewhat above the threshold must become a candidate.
const RECALL: f64 = 0.99;

/// Number of bands and rows of each for a threshold.
///
/// The most rows (so the fewest false candidates) for which a pair a quarter of the way from the threshold to 1 is found with a
/// chance of 0.99: 16 bands of 8 rows at 0.8 with 128 places.
pub fn choose(threshold: f64, num_perm: usize) -> (usize, usize) {
    let similarity = threshold + 0.25 * (1.0 - threshold);
    (1..=num_perm)
        .rev()
        .map(|rows| (num_perm / rows, rows))
        .find(|&(bands, rows)| chance(similarity, bands, rows) >= RECALL)
        .unwrap_or((num_perm, 1))
}

/// The key of one band of one signature.
pub fn key(rows: &[u32]) -> u64 {
    let mut hash = K[0];
    for pair in rows.chunks(2) {
        let both = u64::from(pair[0]) | pair.get(1).map_or(0, |&row| u64::from(row)) << 32;
        hash = fold(hash ^ both, K[1]);
    }
    hash
}

/// The chance that a pair of a similarity shares a band.
pub fn chance(similarity: f64, bands: usize, rows: usize) -> f64 {
    1.0 - (1.0 - similarity.powi(rows as i32)).powi(bands as i32)
}

/// For each of the `wanted` bands, (key, item) of every item in ascending order.
pub(crate) fn sorted_keys(
    signatures: &[u32],
    num_perm: usize,
    rows: usize,
    items: &[u32],
    wanted: std::ops::Range<usize>,
    threads: usize,
) -> Vec<Vec<(u64, u32)>> {
    let mut bands: Vec<(usize, Vec<(u64, u32)>)> = wanted.map(|band| (band, Vec::new())).collect();
    for_each_chunk(
        &mut bands,
        1,
        threads,
        || (),
        |_, chunk, ()| {
            for (band, keys) in chunk {
                keys.extend(items.iter().map(|&item| {
                    let start = item as usize * num_perm + *band * rows;
                    (key(&signatures[start..start + rows]), item)
                }));
                keys.sort_unstable();
            }
        },
    );
    bands.into_iter().map(|(_, keys)| keys).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_choices() {
        assert_eq!(choose(0.8, 128), (16, 8));
        assert_eq!(choose(1.0, 128), (1, 128));
        let (bands, rows) = choose(0.5, 128);
        assert!(bands * rows <= 128 && rows <= 5);
    }
}
