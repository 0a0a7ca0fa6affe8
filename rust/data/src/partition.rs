//! Partition: the steps of `cluster` over the part of the rows that one worker of a cluster of machines holds.
//!
//! Rows are numbered by their place in the part. Who moves rows between workers, and who joins pairs to components, is the caller's.

use crate::bands;
use crate::cap;
use crate::compare::{Comparer, Pair};
use crate::error::DataError;
use crate::jaccard::ShingleSet;
use crate::options::Options;
use crate::rows::InMemory;
use crate::union::Union;

/// The key of each band of each signature, row by row.
pub fn band_keys(places: &[u32], options: &Options) -> Vec<u64> {
    let (bands, height) = options.bands();
    places.chunks_exact(options.num_perm).flat_map(|row| row.chunks_exact(height).take(bands).map(bands::key)).collect()
}

/// Compare the rows of each bucket, bucket i from `marks[i]` to `marks[i + 1]`. Returns pairs that connect what the estimate
/// accepts, and borderline pairs.
#[allow(clippy::type_complexity)]
pub fn compare_buckets(
    marks: &[usize],
    places: &[u32],
    options: &Options,
) -> Result<(Vec<(u32, u32)>, Vec<(u32, u32)>), DataError> {
    let mut rows = InMemory { places, num_perm: options.num_perm };
    let mut union = Union::new(places.len() / options.num_perm);
    let mut comparer = Comparer::new(options.limits(), usize::MAX);
    let (mut accepted, mut borderline) = (Vec::new(), Vec::new());
    for ends in marks.windows(2) {
        let bucket: Vec<u32> = (ends[0] as u32..ends[1] as u32).collect();
        let mut pairs: Vec<Pair> = Vec::new();
        comparer.bucket(&bucket, 0, &mut rows, &mut union, &mut pairs)?;
        borderline.extend(pairs.into_iter().map(|(_, left, right)| (left, right)));
        for item in bucket {
            let root = union.find(item);
            if root != item {
                accepted.push((root, item));
            }
        }
    }
    borderline.retain(|&(left, right)| !union.same(left, right));
    Ok((accepted, borderline))
}

/// Whether the texts of each pair are similar, exactly.
pub fn similar(left: &[&[u8]], right: &[&[u8]], options: &Options) -> Vec<bool> {
    let threshold = options.threshold.unwrap_or(1.0);
    let mut table = ShingleSet::default();
    let mut scratch = ShingleSet::default();
    let mut filled: Option<&[u8]> = None;
    let mut found = Vec::with_capacity(left.len());
    for (&left, &right) in left.iter().zip(right) {
        if filled != Some(left) {
            table.fill(&scratch.distinct(left, options.reading));
            filled = Some(left);
        }
        found.push(table.jaccard(&scratch.distinct(right, options.reading)) >= threshold);
    }
    found
}

/// For each row the first row of its star; component i has the rows from `marks[i]` to `marks[i + 1]`.
pub fn stars(
    marks: &[usize],
    places: &[u32],
    contents: &[(u64, u64)],
    options: &Options,
) -> Result<Vec<u32>, DataError> {
    let mut rows = InMemory { places, num_perm: options.num_perm };
    let mut labels: Vec<u32> = vec![0; contents.len()];
    for ends in marks.windows(2) {
        let members: Vec<u32> = (ends[0] as u32..ends[1] as u32).collect();
        match options.limits().floor {
            Some(floor) if members.len() > 2 => {
                cap::label_stars(&members, &contents[ends[0]..ends[1]], floor, &mut rows, |member, label| {
                    labels[member as usize] = label;
                })?;
            }
            _ => labels[ends[0]..ends[1]].fill(ends[0] as u32),
        }
    }
    Ok(labels)
}
