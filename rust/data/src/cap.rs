//! Cap: what transitive closure may join.
//!
//! A chain of similar pairs can connect texts that are not similar at all. So each component is cut into stars: its members stand in order
//! of how typical they are (places that agree with the most common value of the component), each member that is unlike every representative so
//! far becomes one, and then each member goes to the representative it is most similar to. Ties are broken by content, so the
//! result depends on the set of texts alone. Similarity here is the estimate.

use crate::error::DataError;
use crate::rows::Rows;
use crate::sketch::equal_places;

/// Members, those with the smallest content hashes, from which the most common values are taken.
const SAMPLE: usize = 1024;

/// For each of `members` the position of its representative. `contents` are content hashes of the members, all different.
pub fn split<R: Rows>(
    members: &[u32],
    contents: &[(u64, u64)],
    floor: u32,
    rows: &mut R,
) -> Result<Vec<usize>, DataError> {
    let num_perm = rows.num_perm();
    let mut row = vec![0u32; num_perm];
    let mut by_content: Vec<usize> = (0..members.len()).collect();
    by_content.sort_unstable_by_key(|&position| contents[position]);
    let mut columns: Vec<Vec<u32>> = vec![Vec::new(); num_perm];
    for &position in by_content.iter().take(SAMPLE) {
        rows.copy(members[position], &mut row)?;
        for (column, &value) in columns.iter_mut().zip(&row) {
            column.push(value);
        }
    }
    let typical: Vec<u32> = columns.into_iter().map(most_common).collect();
    let mut order: Vec<(u32, usize)> = Vec::with_capacity(members.len());
    for &position in &by_content {
        rows.copy(members[position], &mut row)?;
        order.push((equal_places(&row, &typical), position));
    }
    order.sort_by_key(|&(agreeing, _)| std::cmp::Reverse(agreeing));
    let mut representatives: Vec<(usize, Vec<u32>)> = Vec::new();
    for &(_, position) in &order {
        rows.copy(members[position], &mut row)?;
        if !representatives.iter().any(|(_, other)| equal_places(&row, other) >= floor) {
            representatives.push((position, row.clone()));
        }
    }
    let mut nearest = vec![0; members.len()];
    for (position, &member) in members.iter().enumerate() {
        rows.copy(member, &mut row)?;
        let mut best = None;
        for (other, signature) in &representatives {
            let equal = if *other == position { u32::MAX } else { equal_places(&row, signature) };
            if best.is_none_or(|best| equal > best) {
                (best, nearest[position]) = (Some(equal), *other);
            }
        }
    }
    Ok(nearest)
}

/// The most common value, of several the smallest.
fn most_common(mut values: Vec<u32>) -> u32 {
    values.sort_unstable();
    let (mut best, mut count) = (0, 0);
    for run in values.chunk_by(|left, right| left == right) {
        if run.len() > count {
            (best, count) = (run[0], run.len());
        }
    }
    best
}

/// Cut the component of `members` (ascending) with [`split`] and call `label(member, smallest member of its star)` for each.
pub fn label_stars<R: Rows>(
    members: &[u32],
    contents: &[(u64, u64)],
    floor: u32,
    rows: &mut R,
    mut label: impl FnMut(u32, u32),
) -> Result<(), DataError> {
    let nearest = split(members, contents, floor, rows)?;
    let mut first = vec![u32::MAX; members.len()];
    for (&member, &representative) in members.iter().zip(&nearest) {
        first[representative] = first[representative].min(member);
    }
    for (&member, &representative) in members.iter().zip(&nearest) {
        label(member, first[representative]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::InMemory;

    #[test]
    fn a_chain_is_cut_where_it_is_long() -> Result<(), DataError> {
        // eight rows of eight places, each with one more place changed than the row before
        let places: Vec<u32> = (0..8u32).flat_map(|row| (0..8u32).map(move |place| u32::from(place < row))).collect();
        let members: Vec<u32> = (0..8).collect();
        let contents: Vec<(u64, u64)> = (0..8).map(|row| (row * 7 % 8, row)).collect();
        let mut rows = InMemory { places: &places, num_perm: 8 };
        let mut labels = vec![0; 8];
        label_stars(&members, &contents, 5, &mut rows, |member, label| labels[member as usize] = label)?;
        for (member, &label) in labels.iter().enumerate() {
            assert!(member.abs_diff(label as usize) <= 6, "{labels:?}");
        }
        assert!(labels.contains(&0) && labels.iter().any(|&label| label > 0), "{labels:?}");
        label_stars(&members, &contents, 0, &mut rows, |_, label| assert_eq!(label, 0))
    }
}
