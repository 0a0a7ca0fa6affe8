//! Cluster: texts in, one label a text out.
//!
//! Equal texts are joined first. Of the rest, pairs that share a band are compared: an estimate far from the threshold decides at once, a
//! borderline one is replaced by the exact similarity. Clusters are the connected components of the accepted pairs, so pairs that are
//! connected already need no check, and the result depends neither on the order of the texts nor on the number of threads.

use std::collections::HashSet;

use crate::bands;
use crate::error::DataError;
use crate::exact::first_equal;
use crate::jaccard::ShingleSet;
use crate::parallel::for_each_chunk;
use crate::sketch::{equal_places, Scratch, Sketch};
use crate::union::Union;

/// Which candidates are compared exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// None: the estimate decides.
    Estimate,
    /// Those whose estimate is within three standard deviations of the threshold.
    Borderline,
    /// All.
    Exact,
}

/// What to look for and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Jaccard similarity from which two texts are one; `None` finds equal texts only.
    pub threshold: Option<f64>,
    /// Places of a signature, a multiple of 8.
    pub num_perm: usize,
    /// Threads to work with, at least 1.
    pub threads: usize,
    /// Of the hash functions.
    pub seed: u64,
    /// Which candidates are compared exactly.
    pub verify: Verify,
}

/// The labels and what was counted on the way.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Clusters {
    /// For each text the smallest index in its cluster.
    pub labels: Vec<u32>,
    /// Texts equal to one before them.
    pub exact_duplicates: usize,
    /// Texts joined to an unequal one before them.
    pub near_duplicates: usize,
    /// Pairs compared by estimate.
    pub candidate_pairs: u64,
    /// Pairs compared exactly.
    pub exact_checks: u64,
    /// Bands and rows of each.
    pub bands: (usize, usize),
    /// Bytes of all texts.
    pub bytes: u64,
}

/// Borderline pairs of one text with one component that are put off to the next pass when there are more.
const PER_COMPONENT: usize = 4;
/// Borderline pairs compared exactly before components are looked at again.
const BATCH: usize = 256;

/// Signatures of `num_perm` places for every text, row by row, and the number of shingles of each.
pub fn signatures(texts: &[&[u8]], sketch: &Sketch, threads: usize) -> (Vec<u32>, Vec<u32>) {
    let num_perm = sketch.num_perm();
    let mut rows = vec![0u32; texts.len() * num_perm];
    let mut work: Vec<(&mut [u32], u32)> = rows.chunks_mut(num_perm).map(|row| (row, 0)).collect();
    for_each_chunk(&mut work, 16, threads, Scratch::default, |offset, chunk, scratch| {
        for (index, (row, count)) in chunk.iter_mut().enumerate() {
            let found = sketch.signature(texts[offset + index], scratch, row);
            *count = u32::try_from(found).unwrap_or(u32::MAX);
        }
    });
    let counts = work.iter().map(|(_, count)| *count).collect();
    (rows, counts)
}

/// Find clusters of equal and nearly equal texts.
pub fn deduplicate(texts: &[&[u8]], options: &Options) -> Result<Clusters, DataError> {
    if texts.len() >= u32::MAX as usize {
        return Err(DataError::TooMany(texts.len()));
    }
    let threads = options.threads.max(1);
    let labels = first_equal(texts, threads);
    let distinct: Vec<u32> = (0..texts.len() as u32).filter(|&index| labels[index as usize] == index).collect();
    let mut clusters = Clusters {
        exact_duplicates: texts.len() - distinct.len(),
        bytes: texts.iter().map(|text| text.len() as u64).sum(),
        labels,
        ..Clusters::default()
    };
    let Some(threshold) = options.threshold else { return Ok(clusters) };
    if !(threshold > 0.0 && threshold <= 1.0) {
        return Err(DataError::Threshold(threshold));
    }
    let sketch = Sketch::new(options.num_perm, options.seed)?;
    let unlike: Vec<&[u8]> = distinct.iter().map(|&index| texts[index as usize]).collect();
    let (rows, counts) = signatures(&unlike, &sketch, threads);
    let mut search = Search::new(&unlike, &rows, options, threshold);
    search.run(&counts, threads);
    clusters.candidate_pairs = search.candidate_pairs;
    clusters.exact_checks = search.exact_checks;
    clusters.bands = search.bands;
    for (position, &index) in distinct.iter().enumerate() {
        let root = search.union.find(position as u32);
        clusters.near_duplicates += usize::from(root != position as u32);
        clusters.labels[index as usize] = distinct[root as usize];
    }
    for index in 0..clusters.labels.len() {
        // the label of an equal text that stands before this one is final already
        let label = clusters.labels[index] as usize;
        clusters.labels[index] = clusters.labels[label];
    }
    Ok(clusters)
}

/// Two texts to compare exactly; the flag, first to sort by, says that the estimate is below the threshold.
type Pair = (bool, u32, u32);

/// The search for near duplicates among unequal texts.
struct Search<'a> {
    texts: &'a [&'a [u8]],
    signatures: &'a [u32],
    num_perm: usize,
    threshold: f64,
    /// Equal places from which the estimate alone accepts, at the threshold, and below which it rejects.
    accept: u32,
    likely: u32,
    reject: u32,
    bands: (usize, usize),
    union: Union,
    rejected: HashSet<(u32, u32)>,
    candidate_pairs: u64,
    exact_checks: u64,
}

impl<'a> Search<'a> {
    fn new(texts: &'a [&'a [u8]], signatures: &'a [u32], options: &Options, threshold: f64) -> Self {
        let places = options.num_perm as f64;
        let margin = match options.verify {
            Verify::Estimate => 0.0,
            Verify::Borderline => 3.0 * (threshold * (1.0 - threshold) / places).sqrt(),
            Verify::Exact => 2.0,
        };
        Self {
            texts,
            signatures,
            num_perm: options.num_perm,
            threshold,
            accept: ((threshold + margin) * places).ceil() as u32,
            likely: (threshold * places).ceil() as u32,
            reject: ((threshold - margin) * places).ceil().max(0.0) as u32,
            bands: bands::choose(threshold, options.num_perm),
            union: Union::new(texts.len()),
            rejected: HashSet::new(),
            candidate_pairs: 0,
            exact_checks: 0,
        }
    }

    fn run(&mut self, counts: &[u32], threads: usize) {
        let items: Vec<u32> = (0..self.texts.len() as u32).filter(|&item| counts[item as usize] > 0).collect();
        loop {
            let mut borderline: Vec<Pair> = Vec::new();
            let mut put_off = false;
            let (count, rows) = self.bands;
            for first in (0..count).step_by(threads) {
                let wave = first..(first + threads).min(count);
                for keys in bands::sorted_keys(self.signatures, self.num_perm, rows, &items, wave, threads) {
                    for bucket in keys.chunk_by(|left, right| left.0 == right.0).filter(|bucket| bucket.len() > 1) {
                        put_off |= self.compare_bucket(bucket, &mut borderline);
                    }
                }
            }
            borderline.sort_unstable();
            borderline.dedup();
            self.check(&borderline, threads);
            if !put_off {
                return;
            }
        }
    }

    /// Compare each item of a bucket with the components before it; true when borderline pairs were put off.
    fn compare_bucket(&mut self, bucket: &[(u64, u32)], borderline: &mut Vec<Pair>) -> bool {
        let mut components: Vec<Vec<u32>> = Vec::new();
        let mut put_off = false;
        for &(_, item) in bucket {
            for component in &components {
                put_off |= self.compare(item, component, borderline);
            }
            let root = self.union.find(item);
            let mut own = vec![item];
            let mut index = 0;
            while index < components.len() {
                if self.union.find(components[index][0]) == root {
                    own.append(&mut components.swap_remove(index));
                } else {
                    index += 1;
                }
            }
            components.push(own);
        }
        put_off
    }

    /// Compare an item with the members of a component until one accepts it.
    fn compare(&mut self, item: u32, component: &[u32], borderline: &mut Vec<Pair>) -> bool {
        if self.union.same(item, component[0]) {
            return false;
        }
        let before = borderline.len();
        for &other in component {
            let equal = equal_places(self.signature(item), self.signature(other));
            self.candidate_pairs += 1;
            if equal >= self.accept {
                self.union.join(item, other);
                borderline.truncate(before);
                return false;
            }
            let (left, right) = (item.min(other), item.max(other));
            if equal >= self.reject && !self.rejected.contains(&(left, right)) {
                if borderline.len() - before == PER_COMPONENT {
                    return true;
                }
                borderline.push((equal < self.likely, left, right));
            }
        }
        false
    }

    fn signature(&self, item: u32) -> &'a [u32] {
        &self.signatures[item as usize * self.num_perm..][..self.num_perm]
    }

    /// Compare borderline pairs exactly, those that are connected by then left out; likely ones come first, so that they
    /// connect what makes the others needless.
    fn check(&mut self, pairs: &[Pair], threads: usize) {
        for batch in pairs.chunks(BATCH) {
            let mut open: Vec<(u32, u32, bool)> = batch
                .iter()
                .filter(|&&(_, left, right)| !self.union.same(left, right))
                .map(|&(_, left, right)| (left, right, false))
                .collect();
            let mut involved: Vec<u32> = open.iter().flat_map(|&(left, right, _)| [left, right]).collect();
            involved.sort_unstable();
            involved.dedup();
            let (texts, threshold) = (self.texts, self.threshold);
            let mut sets: Vec<(u32, Vec<u64>)> = involved.into_iter().map(|item| (item, Vec::new())).collect();
            for_each_chunk(&mut sets, 4, threads, ShingleSet::default, |_, chunk, scratch| {
                for (item, set) in chunk {
                    *set = scratch.distinct(texts[*item as usize]);
                }
            });
            let set_of = |item: u32| match sets.binary_search_by_key(&item, |&(other, _)| other) {
                Ok(position) => sets[position].1.as_slice(),
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
            self.exact_checks += open.len() as u64;
            for (left, right, near) in open {
                if near {
                    self.union.join(left, right);
                } else {
                    self.rejected.insert((left, right));
                }
            }
        }
    }
}
