//! Sorted: records in ascending order, however many there are: sorted in memory as far as they fit, in files of sorted runs beyond.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::record::Record;

/// Runs that are merged at once; more become one before.
const FAN_IN: usize = 128;

/// Takes records in any order.
#[derive(Debug)]
pub struct Sorter<T> {
    folder: PathBuf,
    held: Vec<T>,
    limit: usize,
    runs: Vec<PathBuf>,
    count: usize,
}

impl<T: Record + Ord> Sorter<T> {
    /// Holds about `memory` bytes; runs go to `folder`, which this sorter has for itself.
    pub fn new(folder: &Path, memory: usize) -> Self {
        let limit = (memory / std::mem::size_of::<T>()).max(1024);
        Self { folder: folder.to_owned(), held: Vec::new(), limit, runs: Vec::new(), count: 0 }
    }

    /// One more record.
    pub fn push(&mut self, record: T) -> Result<(), DataError> {
        if self.held.len() == self.limit {
            self.spill()?;
        }
        self.held.push(record);
        Ok(())
    }

    fn spill(&mut self) -> Result<(), DataError> {
        self.held.sort_unstable();
        let held = std::mem::take(&mut self.held);
        self.write_run(held.iter().map(|&record| Ok(record)))?;
        self.held = held;
        self.held.clear();
        if self.runs.len() == FAN_IN {
            let runs = std::mem::take(&mut self.runs);
            let merged = Merge::of_runs(&runs)?;
            self.write_run(merged)?;
            for run in runs {
                fs::remove_file(run)?;
            }
        }
        Ok(())
    }

    fn write_run(&mut self, records: impl Iterator<Item = Result<T, DataError>>) -> Result<(), DataError> {
        fs::create_dir_all(&self.folder)?;
        let path = self.folder.join(format!("run-{}", self.count));
        self.count += 1;
        let mut file = BufWriter::with_capacity(1 << 18, File::create(&path)?);
        let mut bytes = Vec::with_capacity(T::SIZE);
        for record in records {
            bytes.clear();
            record?.put(&mut bytes);
            file.write_all(&bytes)?;
        }
        file.flush()?;
        self.runs.push(path);
        Ok(())
    }

    /// All records, ascending.
    pub fn finish(mut self) -> Result<Merge<T>, DataError> {
        self.held.sort_unstable();
        let mut merge = Merge::of_runs(&self.runs)?;
        let held = std::mem::take(&mut self.held);
        merge.add(Run::Held(held.into_iter()))?;
        merge.folder = Some(self.folder);
        Ok(merge)
    }
}

/// Records of several sorted runs, ascending; the files go when it goes.
#[derive(Debug)]
pub struct Merge<T> {
    runs: Vec<Run<T>>,
    next: BinaryHeap<Reverse<(T, usize)>>,
    folder: Option<PathBuf>,
}

#[derive(Debug)]
enum Run<T> {
    Held(std::vec::IntoIter<T>),
    Filed(BufReader<File>, u64),
}

impl<T: Record> Run<T> {
    fn next(&mut self) -> Result<Option<T>, DataError> {
        match self {
            Self::Held(records) => Ok(records.next()),
            Self::Filed(_, 0) => Ok(None),
            Self::Filed(file, left) => {
                let mut bytes = [0u8; 32];
                file.read_exact(&mut bytes[..T::SIZE])?;
                *left -= 1;
                Ok(Some(T::take(&bytes[..T::SIZE])))
            }
        }
    }
}

impl<T: Record + Ord> Merge<T> {
    fn of_runs(paths: &[PathBuf]) -> Result<Self, DataError> {
        let mut merge = Self { runs: Vec::new(), next: BinaryHeap::new(), folder: None };
        for path in paths {
            let file = File::open(path)?;
            let left = file.metadata()?.len() / T::SIZE as u64;
            merge.add(Run::Filed(BufReader::with_capacity(1 << 16, file), left))?;
        }
        Ok(merge)
    }

    fn add(&mut self, mut run: Run<T>) -> Result<(), DataError> {
        if let Some(record) = run.next()? {
            self.next.push(Reverse((record, self.runs.len())));
        }
        self.runs.push(run);
        Ok(())
    }
}

impl<T: Record + Ord> Iterator for Merge<T> {
    type Item = Result<T, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let ([Run::Held(records)], true) = (self.runs.as_mut_slice(), self.next.len() <= 1) {
            // all of it was in memory: no heap is needed
            return self.next.pop().map(|Reverse((record, _))| record).or_else(|| records.next()).map(Ok);
        }
        let Reverse((record, number)) = self.next.pop()?;
        match self.runs[number].next() {
            Ok(Some(following)) => self.next.push(Reverse((following, number))),
            Ok(None) => {}
            Err(error) => return Some(Err(error)),
        }
        Some(Ok(record))
    }
}

impl<T> Drop for Merge<T> {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            // what is left over costs disk only; the folder of the whole job is removed at its end
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// Call `work` with each group of records of one key; an error ends it.
pub fn for_each_group<T: Copy, K: PartialEq>(
    records: impl Iterator<Item = Result<T, DataError>>,
    key: impl Fn(&T) -> K,
    mut work: impl FnMut(&[T]) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut group: Vec<T> = Vec::new();
    for record in records {
        let record = record?;
        if group.first().is_some_and(|first| key(first) != key(&record)) {
            work(&group)?;
            group.clear();
        }
        group.push(record);
    }
    if group.is_empty() {
        return Ok(());
    }
    work(&group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::split_mix;

    #[test]
    fn more_than_fits_is_sorted() -> Result<(), DataError> {
        let folder = std::env::temp_dir().join(format!("highrise-sorted-{}", std::process::id()));
        for count in [0u64, 1, 1000, 300_000] {
            let mut sorter: Sorter<(u64, u32)> = Sorter::new(&folder, 1);
            let mut expected: Vec<(u64, u32)> = (0..count).map(|i| (split_mix(1, i) % 1000, i as u32)).collect();
            for &record in &expected {
                sorter.push(record)?;
            }
            expected.sort_unstable();
            let found: Result<Vec<_>, _> = sorter.finish()?.collect();
            assert_eq!(found?, expected);
            assert!(!folder.exists());
        }
        Ok(())
    }
}
