//! Cluster: texts in, one label a text out.
//!
//! Equal texts are joined first. Of the rest, pairs that share a band are compared (`compare`), borderline ones exactly. The connected
//! components of the accepted pairs are cut where closure went too far (`cap`). The result depends neither on the order of the texts nor on
//! the number of threads.

use crate::bands;
use crate::cap;
use crate::check::{check, Sets};
use crate::compare::{Comparer, Pair};
use crate::error::DataError;
use crate::exact::{contents, first_equal};
use crate::options::Options;
use crate::parallel::for_each_chunk;
use crate::rows::{InMemory, Rows};
use crate::sketch::{Scratch, Sketch};
use crate::sorted::for_each_group;
use crate::union::Union;

/// The labels and what was counted on the way.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Clusters {
    /// For each text the smallest index in its cluster.
    pub labels: Vec<u32>,
    /// For each text the smallest index of those it is connected with, before any is cut off.
    pub connected: Vec<u32>,
    /// What was counted.
    pub counts: Counts,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counts {
    /// Bytes of all texts.
    pub bytes: u64,
    /// Texts equal to one before them.
    pub exact_duplicates: u64,
    /// Pairs compared by estimate.
    pub candidate_pairs: u64,
    /// Pairs compared exactly.
    pub exact_checks: u64,
    /// Unequal texts that closure had joined to a representative unlike them.
    pub cut_off: u64,
}

/// Borderline pairs of one text with one component that are put off to the next pass when there are more.
const PER_COMPONENT: usize = 4;

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

/// Signatures of sets of ready shingle hashes, row by row.
pub fn signatures_of(sets: &[&[u64]], sketch: &Sketch, threads: usize) -> Vec<u32> {
    let num_perm = sketch.num_perm();
    let mut rows = vec![0u32; sets.len() * num_perm];
    let mut work: Vec<&mut [u32]> = rows.chunks_mut(num_perm).collect();
    for_each_chunk(&mut work, 16, threads, Scratch::default, |offset, chunk, scratch| {
        for (index, row) in chunk.iter_mut().enumerate() {
            sketch.signature_of(sets[offset + index], scratch, row);
        }
    });
    rows
}

/// Find clusters of equal and nearly equal texts.
pub fn deduplicate(texts: &[&[u8]], options: &Options) -> Result<Clusters, DataError> {
    options.check()?;
    if texts.len() >= u32::MAX as usize {
        return Err(DataError::TooMany(texts.len()));
    }
    let threads = options.threads.max(1);
    let contents = contents(texts, options.reading, threads);
    let labels = first_equal(texts, &contents, options.reading);
    let distinct: Vec<u32> = (0..texts.len() as u32).filter(|&index| labels[index as usize] == index).collect();
    let mut clusters = Clusters { connected: labels.clone(), labels, counts: Counts::default() };
    clusters.counts.exact_duplicates = (texts.len() - distinct.len()) as u64;
    clusters.counts.bytes = texts.iter().map(|text| text.len() as u64).sum();
    if options.threshold.is_none() {
        return Ok(clusters);
    }
    let sketch = Sketch::new(options.num_perm, options.seed, options.reading)?;
    let unlike: Vec<&[u8]> = distinct.iter().map(|&index| texts[index as usize]).collect();
    let (places, shingles) = signatures(&unlike, &sketch, threads);
    let items: Vec<u32> = (0..unlike.len() as u32).filter(|&item| shingles[item as usize] > 0).collect();
    let mut rows = InMemory { places: &places, num_perm: options.num_perm };
    let mut union = Union::new(unlike.len());
    search(&unlike, &items, &mut rows, &mut union, options, &mut clusters.counts)?;
    let contents: Vec<(u64, u64)> = distinct.iter().map(|&index| contents[index as usize]).collect();
    let whole: Vec<u32> = (0..unlike.len() as u32).map(|item| union.find(item)).collect();
    let roots = cut(&mut union, unlike.len(), &contents, &mut rows, options, &mut clusters.counts)?;
    relabel(&mut clusters.connected, &distinct, &whole);
    relabel(&mut clusters.labels, &distinct, &roots);
    Ok(clusters)
}

/// Give each of the `distinct` texts the text of its root, and each text equal to one before it that one's label.
fn relabel(labels: &mut [u32], distinct: &[u32], roots: &[u32]) {
    for (&index, &root) in distinct.iter().zip(roots) {
        labels[index as usize] = distinct[root as usize];
    }
    for index in 0..labels.len() {
        // the label of an equal text that stands before this one is final already
        labels[index] = labels[labels[index] as usize];
    }
}

/// Join all accepted pairs of unequal texts.
fn search(
    texts: &[&[u8]],
    items: &[u32],
    rows: &mut InMemory<'_>,
    union: &mut Union,
    options: &Options,
    counts: &mut Counts,
) -> Result<(), DataError> {
    let threads = options.threads.max(1);
    let threshold = options.threshold.unwrap_or(1.0);
    let (count, height) = options.bands();
    let mut comparer = Comparer::new(options.limits(), PER_COMPONENT);
    let mut sets = Sets::of_texts(texts, options.reading);
    loop {
        let mut borderline: Vec<Pair> = Vec::new();
        comparer.put_off = false;
        for first in (0..count).step_by(threads) {
            let wave = first..(first + threads).min(count);
            for keys in bands::sorted_keys(rows.places, rows.num_perm, height, items, wave, threads) {
                for bucket in keys.chunk_by(|left, right| left.0 == right.0).filter(|bucket| bucket.len() > 1) {
                    let bucket: Vec<u32> = bucket.iter().map(|&(_, item)| item).collect();
                    comparer.bucket(&bucket, 0, rows, union, &mut borderline)?;
                }
            }
        }
        counts.exact_checks += check(&mut borderline, &mut sets, threshold, union, &mut comparer.rejected, threads)?;
        if !comparer.put_off {
            counts.candidate_pairs += comparer.candidate_pairs;
            return Ok(());
        }
    }
}

/// For each item the smallest one of its cluster, when components are cut as the options say. All items must be unequal.
pub fn cut<R: Rows, P: AsMut<[u32]>>(
    union: &mut Union<P>,
    items: usize,
    contents: &[(u64, u64)],
    rows: &mut R,
    options: &Options,
    counts: &mut Counts,
) -> Result<Vec<u32>, DataError> {
    let mut roots: Vec<u32> = (0..items as u32).map(|item| union.find(item)).collect();
    let mut joined: Vec<(u32, u32)> = roots.iter().copied().zip(0..).filter(|&(root, item)| root != item).collect();
    joined.sort_unstable();
    let hash_of = |item: u32| Ok(contents[item as usize]);
    cut_components(joined.into_iter().map(Ok), hash_of, rows, options, counts, |item, label| {
        roots[item as usize] = label;
    })?;
    Ok(roots)
}

/// Cut components given by their (root, other member), ascending; `label(item, smallest of its cluster)` for what is cut.
pub fn cut_components<R: Rows>(
    joined: impl Iterator<Item = Result<(u32, u32), DataError>>,
    mut hash_of: impl FnMut(u32) -> Result<(u64, u64), DataError>,
    rows: &mut R,
    options: &Options,
    counts: &mut Counts,
    mut label: impl FnMut(u32, u32),
) -> Result<(), DataError> {
    let Some(floor) = options.limits().floor else { return Ok(()) };
    for_each_group(
        joined,
        |&(root, _)| root,
        |group| {
            if group.len() < 2 {
                return Ok(()); // two that were compared with each other
            }
            let root = group[0].0;
            let members: Vec<u32> = std::iter::once(root).chain(group.iter().map(|&(_, item)| item)).collect();
            let hashes: Vec<(u64, u64)> = members.iter().map(|&item| hash_of(item)).collect::<Result<_, _>>()?;
            cap::label_stars(&members, &hashes, floor, rows, |item, star| {
                label(item, star);
                counts.cut_off += u64::from(star != root);
            })
        },
    )
}
