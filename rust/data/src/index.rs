//! Index: the search of `cluster`, fed in batches and kept between them.
//!
//! Of each unequal text the signature stays, and its set of shingles where borderline pairs are compared exactly. The keys of each band lie in
//! sorted runs whose sizes grow geometrically, so a batch of any size finds what shares its bands in logarithmic time. After every batch the
//! components are those that one search over all texts so far would find.

use std::collections::HashMap;

use crate::bands;
use crate::cap;
use crate::check::{check, Sets};
use crate::cluster::{cut, signatures, Counts};
use crate::compare::{Comparer, Pair};
use crate::error::DataError;
use crate::exact::contents;
use crate::jaccard::ShingleSet;
use crate::options::{Options, Verify};
use crate::parallel::for_each_chunk;
use crate::rows::InMemory;
use crate::sketch::Sketch;
use crate::union::Union;

/// Borderline pairs of one text with one component that are put off to the next pass when there are more.
const PER_COMPONENT: usize = 4;

/// Texts seen so far, each an item once, and how they are connected.
#[derive(Debug)]
pub struct Index {
    pub(crate) options: Options,
    sketch: Sketch,
    /// For each text its item.
    pub(crate) items: Vec<u32>,
    /// For each item the first text of it.
    pub(crate) firsts: Vec<u32>,
    /// For each item the hash of its form.
    pub(crate) contents: Vec<(u64, u64)>,
    item_of: HashMap<(u64, u64), u32>,
    /// For each item its signature, and whether it has shingles.
    pub(crate) places: Vec<u32>,
    pub(crate) has_shingles: Vec<u8>,
    /// For each item where its shingles begin; one more at the end.
    pub(crate) marks: Vec<u64>,
    pub(crate) shingles: Vec<u64>,
    pub(crate) union: Union,
    /// For each band the sorted runs of (key, item), the largest first.
    runs: Vec<Vec<Vec<(u64, u32)>>>,
    pub(crate) counts: Counts,
}

impl Index {
    /// Nothing seen.
    pub fn new(options: Options) -> Result<Self, DataError> {
        options.check()?;
        let sketch = Sketch::new(options.num_perm, options.seed, options.reading)?;
        let (bands, _) = options.bands();
        Ok(Self {
            options,
            sketch,
            items: Vec::new(),
            firsts: Vec::new(),
            contents: Vec::new(),
            item_of: HashMap::new(),
            places: Vec::new(),
            has_shingles: Vec::new(),
            marks: vec![0],
            shingles: Vec::new(),
            union: Union::with_members(Vec::new()),
            runs: vec![Vec::new(); bands],
            counts: Counts::default(),
        })
    }

    /// What is not kept in a file: found again from what is.
    pub(crate) fn rebuild(&mut self, threads: usize) {
        self.item_of = self.contents.iter().copied().zip(0..).collect();
        let items: Vec<u32> =
            (0..self.firsts.len() as u32).filter(|&item| self.has_shingles.get(item as usize) == Some(&1)).collect();
        let (count, height) = self.options.bands();
        let keys = bands::sorted_keys(&self.places, self.options.num_perm, height, &items, 0..count, threads);
        self.runs = keys.into_iter().map(|keys| vec![keys]).collect();
    }

    /// The number of texts seen.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether no text was seen.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// What was asked for.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What was counted; `cut_off` is of the last call of [`Index::labels`].
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Bytes that stay in memory between batches, about.
    pub fn memory(&self) -> usize {
        let runs: usize = self.runs.iter().flatten().map(|run| 16 * run.len()).sum();
        4 * (self.items.len() + 3 * self.firsts.len() + self.places.len())
            + 8 * (self.shingles.len() + self.marks.len())
            + 48 * self.contents.len()
            + runs
    }

    fn keeps_sets(&self) -> bool {
        self.options.threshold.is_some() && matches!(self.options.verify, Verify::Borderline | Verify::Exact)
    }

    /// See these texts too; returns for each of them the smallest text of its cluster, as clusters are now.
    pub fn add(&mut self, texts: &[&[u8]], threads: usize) -> Result<Vec<u32>, DataError> {
        if self.items.len() + texts.len() >= u32::MAX as usize {
            return Err(DataError::TooMany(self.items.len() + texts.len()));
        }
        let threads = threads.max(1);
        let before = self.items.len();
        let first_new = self.firsts.len() as u32;
        let mut unlike: Vec<&[u8]> = Vec::new();
        for (position, hash) in contents(texts, self.options.reading, threads).into_iter().enumerate() {
            let next = self.firsts.len() as u32;
            let item = *self.item_of.entry(hash).or_insert(next);
            self.items.push(item);
            if item == next {
                self.firsts.push((before + position) as u32);
                self.contents.push(hash);
                unlike.push(texts[position]);
            }
        }
        self.counts.bytes += texts.iter().map(|text| text.len() as u64).sum::<u64>();
        self.counts.exact_duplicates += (texts.len() - unlike.len()) as u64;
        for _ in first_new..self.firsts.len() as u32 {
            self.union.push();
        }
        if self.options.threshold.is_some() {
            let (places, shingles) = signatures(&unlike, &self.sketch, threads);
            self.places.extend(places);
            self.has_shingles.extend(shingles.iter().map(|&count| u8::from(count > 0)));
            if self.keeps_sets() {
                self.keep_sets(&unlike, threads);
            }
            self.search(first_new, threads)?;
        }
        self.labels_from(before)
    }

    fn keep_sets(&mut self, texts: &[&[u8]], threads: usize) {
        let reading = self.options.reading;
        let mut sets: Vec<Vec<u64>> = vec![Vec::new(); texts.len()];
        for_each_chunk(&mut sets, 16, threads, ShingleSet::default, |offset, chunk, scratch| {
            for (position, set) in chunk.iter_mut().enumerate() {
                *set = scratch.distinct(texts[offset + position], reading);
            }
        });
        for set in sets {
            self.shingles.extend(set);
            self.marks.push(self.shingles.len() as u64);
        }
    }

    /// Connect the items from `first_new` on with what is similar, and add their keys.
    fn search(&mut self, first_new: u32, threads: usize) -> Result<(), DataError> {
        let fresh: Vec<u32> =
            (first_new..self.firsts.len() as u32).filter(|&item| self.has_shingles[item as usize] > 0).collect();
        let (count, height) = self.options.bands();
        let num_perm = self.options.num_perm;
        let mut keys = bands::sorted_keys(&self.places, num_perm, height, &fresh, 0..count, threads);
        let mut rows = InMemory { places: &self.places, num_perm };
        let mut comparer = Comparer::new(self.options.limits(), PER_COMPONENT);
        let union = &mut self.union;
        let mut buckets: Vec<(Vec<u32>, usize)> = Vec::new();
        for (band, keys) in keys.iter().enumerate() {
            for same in keys.chunk_by(|left, right| left.0 == right.0) {
                let key = same[0].0;
                let mut bucket: Vec<u32> = Vec::new();
                for run in &self.runs[band] {
                    let start = run.partition_point(|&(other, _)| other < key);
                    bucket.extend(run[start..].iter().take_while(|&&(other, _)| other == key).map(|&(_, item)| item));
                }
                let known = bucket.len();
                bucket.extend(same.iter().map(|&(_, item)| item));
                if bucket.len() > 1 {
                    buckets.push((bucket, known));
                }
            }
        }
        loop {
            let mut borderline: Vec<Pair> = Vec::new();
            comparer.put_off = false;
            for (bucket, known) in &buckets {
                comparer.bucket(bucket, *known, &mut rows, union, &mut borderline)?;
            }
            let mut sets = Sets::Kept(&self.marks, &self.shingles);
            let threshold = self.options.threshold.unwrap_or(1.0);
            self.counts.exact_checks +=
                check(&mut borderline, &mut sets, threshold, union, &mut comparer.rejected, threads)?;
            if !comparer.put_off {
                break;
            }
        }
        self.counts.candidate_pairs += comparer.candidate_pairs;
        for (runs, keys) in self.runs.iter_mut().zip(&mut keys) {
            add_run(runs, std::mem::take(keys));
        }
        Ok(())
    }

    /// The labels of the texts from `start` on.
    fn labels_from(&mut self, start: usize) -> Result<Vec<u32>, DataError> {
        let mut rows = InMemory { places: &self.places, num_perm: self.options.num_perm };
        let floor = self.options.threshold.and(self.options.limits().floor);
        let mut label_of: HashMap<u32, u32> = HashMap::new();
        for &item in &self.items[start..] {
            if label_of.contains_key(&item) {
                continue;
            }
            let root = self.union.find(item);
            let members = match floor {
                Some(_) => self.union.members(item),
                None => vec![],
            };
            match floor {
                Some(floor) if members.len() > 2 => {
                    let hashes: Vec<_> = members.iter().map(|&member| self.contents[member as usize]).collect();
                    cap::label_stars(&members, &hashes, floor, &mut rows, |member, label| {
                        label_of.insert(member, label);
                    })?;
                }
                _ => {
                    label_of.insert(item, root);
                }
            }
        }
        Ok(self.items[start..].iter().map(|item| self.firsts[label_of[item] as usize]).collect())
    }

    /// The smallest text of the cluster of each text.
    pub fn labels(&mut self) -> Result<Vec<u32>, DataError> {
        let mut rows = InMemory { places: &self.places, num_perm: self.options.num_perm };
        let mut counts = Counts::default();
        let items = self.firsts.len();
        let roots = cut(&mut self.union, items, &self.contents, &mut rows, &self.options, &mut counts)?;
        self.counts.cut_off = counts.cut_off;
        Ok(self.items.iter().map(|&item| self.firsts[roots[item as usize] as usize]).collect())
    }
}

/// Add a sorted run; runs of similar size become one, so that there are never more than about log2 of them.
fn add_run(runs: &mut Vec<Vec<(u64, u32)>>, run: Vec<(u64, u32)>) {
    if run.is_empty() {
        return;
    }
    runs.push(run);
    while let [.., left, right] = runs.as_slice() {
        if left.len() > 2 * right.len() {
            return;
        }
        let (Some(right), Some(left)) = (runs.pop(), runs.pop()) else { return };
        let mut merged = left;
        merged.extend(right);
        merged.sort(); // a stable sort merges two sorted runs in one pass
        runs.push(merged);
    }
}
