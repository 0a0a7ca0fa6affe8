//! Check: borderline pairs, compared exactly.
//!
//! Likely ones come first, so that they connect what makes the others needless; pairs that are connected by then are left out.

use std::collections::HashSet;
use std::fs::File;

use crate::compare::Pair;
use crate::error::DataError;
use crate::jaccard::ShingleSet;
use crate::parallel::for_each_chunk;
use crate::reading::Reading;
use crate::rows::read_at;
use crate::union::Union;

/// Pairs compared before components are looked at again.
const BATCH: usize = 256;

/// Where the distinct shingles of an item come from.
#[derive(Debug)]
pub enum Sets<'a> {
    /// Cut from the texts when they are asked for.
    Texts(&'a [&'a [u8]], Reading),
    /// Kept in memory, those of item i from `marks[i]` to `marks[i + 1]`.
    Kept(&'a [u64], &'a [u64]),
    /// Kept in a file: (item, first shingle, shingles), ascending.
    Filed(File, &'a [(u32, u64, u64)]),
}

impl<'a> Sets<'a> {
    /// Sets cut from texts.
    pub fn of_texts(texts: &'a [&'a [u8]], reading: Reading) -> Self {
        Self::Texts(texts, reading)
    }

    /// The sets of these items, in their order.
    fn load(&mut self, items: Vec<u32>, threads: usize) -> Result<Vec<(u32, Vec<u64>)>, DataError> {
        let mut sets: Vec<(u32, Vec<u64>)> = items.into_iter().map(|item| (item, Vec::new())).collect();
        match self {
            Self::Texts(texts, reading) => {
                for_each_chunk(&mut sets, 4, threads, ShingleSet::default, |_, chunk, scratch| {
                    for (item, set) in chunk {
                        *set = scratch.distinct(texts[*item as usize], *reading);
                    }
                });
            }
            Self::Kept(marks, shingles) => {
                for (item, set) in &mut sets {
                    let (start, end) = (marks[*item as usize], marks[*item as usize + 1]);
                    set.extend_from_slice(&shingles[start as usize..end as usize]);
                }
            }
            Self::Filed(file, places) => {
                let mut bytes = Vec::new();
                for (item, set) in &mut sets {
                    let Ok(position) = places.binary_search_by_key(item, |&(other, ..)| other) else { continue };
                    let (_, first, count) = places[position];
                    bytes.resize(8 * count as usize, 0);
                    read_at(file, &mut bytes, 8 * first)?;
                    set.extend(bytes.chunks_exact(8).map(|raw| {
                        let mut number = [0u8; 8];
                        number.copy_from_slice(raw);
                        u64::from_le_bytes(number)
                    }));
                }
            }
        }
        Ok(sets)
    }
}

/// Join the pairs that are similar, remember the others as rejected; returns the number of comparisons.
pub fn check<P: AsMut<[u32]>>(
    pairs: &mut Vec<Pair>,
    sets: &mut Sets<'_>,
    threshold: f64,
    union: &mut Union<P>,
    rejected: &mut HashSet<(u32, u32)>,
    threads: usize,
) -> Result<u64, DataError> {
    pairs.sort_unstable();
    pairs.dedup();
    let mut checks = 0;
    for batch in pairs.chunks(BATCH) {
        let mut open: Vec<(u32, u32, bool)> = batch
            .iter()
            .filter(|&&(_, left, right)| !union.same(left, right))
            .map(|&(_, left, right)| (left, right, false))
            .collect();
        let mut involved: Vec<u32> = open.iter().flat_map(|&(left, right, _)| [left, right]).collect();
        involved.sort_unstable();
        involved.dedup();
        let loaded = sets.load(involved, threads)?;
        let set_of = |item: u32| match loaded.binary_search_by_key(&item, |&(other, _)| other) {
            Ok(position) => loaded[position].1.as_slice(),
            Err(_) => &[],
        };
        for_each_chunk(&mut open, 16, threads, ShingleSet::default, |_, chunk, table| {
            let mut filled = None;
            for (left, right, near) in chunk {
                if filled != Some(*left) {
                    table.fill(set_of(*left));
                    filled = Some(*left);
                }
                *near = table.jaccard(set_of(*right)) >= threshold;
            }
        });
        checks += open.len() as u64;
        for (left, right, near) in open {
            if near {
                union.join(left, right);
            } else {
                rejected.insert((left, right));
            }
        }
    }
    Ok(checks)
}
