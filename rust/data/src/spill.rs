//! Spill: the search of `cluster` for more texts than memory holds.
//!
//! Every text leaves its signature, content hash and one key a band in files of a folder, row by row, so that a file cut to a number of rows is
//! the state after so many. Content hashes and the keys of each band are sorted there. Which rows are equal, connected and labelled
//! stands in arrays that the caller maps into memory. Each step can be repeated after it was stopped anywhere: unions only ever join what belongs
//! together. Equality is that of the 128-bit content hash.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::bands;
use crate::check::{check, Sets};
use crate::cluster::{cut_components, signatures, Counts};
use crate::compare::{Comparer, Pair};
use crate::error::DataError;
use crate::exact::contents;
use crate::jaccard::ShingleSet;
use crate::options::Options;
use crate::parallel::for_each_chunk;
use crate::record::Record;
use crate::rows::{read_at, InFile};
use crate::sketch::Sketch;
use crate::sorted::{for_each_group, Sorter};
use crate::union::Union;

/// The files of one folder.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    options: Options,
    /// Bytes that a step may hold, about.
    memory: usize,
}

/// A file that grows, cut to what is known to be whole.
fn grow(path: &Path, bytes: u64) -> Result<BufWriter<File>, DataError> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let size = file.metadata()?.len();
    if size < bytes {
        return Err(DataError::File(format!(
            "{} has {size} bytes where {bytes} were written; remove the folder and start again",
            path.display()
        )));
    }
    file.set_len(bytes)?;
    Ok(BufWriter::with_capacity(1 << 16, file))
}

fn records<T: Record>(path: &Path) -> Result<impl Iterator<Item = Result<T, DataError>>, DataError> {
    let file = File::open(path)?;
    let count = file.metadata()?.len() / T::SIZE as u64;
    let mut file = BufReader::with_capacity(1 << 18, file);
    let mut bytes = vec![0u8; T::SIZE];
    Ok((0..count).map(move |_| {
        file.read_exact(&mut bytes)?;
        Ok(T::take(&bytes))
    }))
}

impl Folder {
    /// The folder `path`, which must exist.
    pub fn new(path: &Path, options: Options, memory: usize) -> Result<Self, DataError> {
        options.check()?;
        Ok(Self { path: path.to_owned(), options, memory })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn sorter<T: Record + Ord>(&self) -> Sorter<T> {
        Sorter::new(&self.file("sorting"), self.memory / 2)
    }

    fn rows(&self) -> Result<InFile, DataError> {
        let file = File::open(self.file("signatures"))?;
        Ok(InFile::new(file, self.options.num_perm, self.memory / 4))
    }

    /// Rows equal to one before them; `first[row]` becomes the first row of the same content.
    pub fn find_equal(&self, first: &mut [u32]) -> Result<u64, DataError> {
        let mut sorter: Sorter<((u64, u64), u32)> = self.sorter();
        for (row, content) in records(&self.file("contents"))?.enumerate() {
            sorter.push((content?, row as u32))?;
        }
        let mut equal = 0;
        for_each_group(
            sorter.finish()?,
            |&(content, _)| content,
            |group| {
                for &(_, row) in group {
                    first[row as usize] = group[0].1;
                }
                equal += group.len() as u64 - 1;
                Ok(())
            },
        )?;
        Ok(equal)
    }

    /// Compare what shares a band; borderline pairs go to a file. Returns the pairs compared by estimate.
    pub fn compare_band(&self, band: usize, first: &[u32], parents: &mut [u32]) -> Result<u64, DataError> {
        let mut sorter: Sorter<(u64, u32)> = self.sorter();
        let marks = records::<u8>(&self.file("marks"))?;
        for ((row, key), mark) in records(&self.file(&format!("band-{band}")))?.enumerate().zip(marks) {
            if mark? > 0 && first[row] == row as u32 {
                sorter.push((key?, row as u32))?;
            }
        }
        let mut rows = self.rows()?;
        let mut union = Union::over(parents);
        let mut comparer = Comparer::new(self.options.limits(), usize::MAX);
        let mut borderline: Vec<Pair> = Vec::new();
        let mut file = grow(&self.file(&format!("borderline-{band}")), 0)?;
        let mut bytes = Vec::new();
        for_each_group(
            sorter.finish()?,
            |&(key, _)| key,
            |group| {
                if group.len() < 2 {
                    return Ok(());
                }
                let bucket: Vec<u32> = group.iter().map(|&(_, row)| row).collect();
                comparer.bucket(&bucket, 0, &mut rows, &mut union, &mut borderline)?;
                bytes.clear();
                borderline.drain(..).for_each(|pair| pair.put(&mut bytes));
                Ok(file.write_all(&bytes)?)
            },
        )?;
        file.flush()?;
        Ok(comparer.candidate_pairs)
    }

    fn borderline(&self) -> Result<impl Iterator<Item = Result<Pair, DataError>>, DataError> {
        let (bands, _) = self.options.bands();
        let files: Result<Vec<_>, _> =
            (0..bands).map(|band| records::<Pair>(&self.file(&format!("borderline-{band}")))).collect();
        Ok(files?.into_iter().flatten())
    }

    /// Mark the rows whose texts an exact comparison needs; returns their number.
    pub fn mark_needed(&self, parents: &mut [u32], needed: &mut [u8]) -> Result<u64, DataError> {
        let mut union = Union::over(parents);
        for pair in self.borderline()? {
            let (_, left, right) = pair?;
            if !union.same(left, right) {
                needed[left as usize] = 1;
                needed[right as usize] = 1;
            }
        }
        Ok(needed.iter().map(|&need| u64::from(need)).sum())
    }

    /// Compare the borderline pairs exactly; returns the number of comparisons.
    pub fn check_borderline(&self, parents: &mut [u32], threads: usize) -> Result<u64, DataError> {
        let mut union = Union::over(parents);
        let mut sorter: Sorter<Pair> = self.sorter();
        for pair in self.borderline()? {
            let pair = pair?;
            if !union.same(pair.1, pair.2) {
                sorter.push(pair)?;
            }
        }
        let mut places: Vec<(u32, u64, u64)> = Vec::new();
        let mut first = 0;
        if self.file("set-sizes").exists() {
            for record in records::<(u32, u64)>(&self.file("set-sizes"))? {
                let (row, count) = record?;
                places.push((row, first, count));
                first += count;
            }
        } else {
            return Ok(0);
        }
        let mut sets = Sets::Filed(File::open(self.file("sets"))?, &places);
        let threshold = self.options.threshold.unwrap_or(1.0);
        let mut checks = 0;
        let mut rejected = HashSet::new();
        let mut chunk: Vec<Pair> = Vec::new();
        let mut sorted = sorter.finish()?.peekable();
        while sorted.peek().is_some() {
            for pair in sorted.by_ref().take(1 << 16) {
                chunk.push(pair?);
            }
            checks += check(&mut chunk, &mut sets, threshold, &mut union, &mut rejected, threads)?;
            rejected.clear();
            chunk.clear();
        }
        Ok(checks)
    }

    /// The label of every row; returns how many rows were cut off.
    pub fn label(&self, first: &[u32], parents: &mut [u32], labels: &mut [u32]) -> Result<u64, DataError> {
        let mut union = Union::over(parents);
        let mut sorter: Sorter<(u32, u32)> = self.sorter();
        for row in 0..labels.len() as u32 {
            let root = union.find(row);
            labels[row as usize] = root;
            if root != row {
                sorter.push((root, row))?;
            }
        }
        let mut counts = Counts::default();
        if self.options.threshold.is_some() {
            let file = File::open(self.file("contents"))?;
            let mut bytes = [0u8; 16];
            let hash_of = |row: u32| {
                read_at(&file, &mut bytes, 16 * u64::from(row))?;
                Ok(Record::take(&bytes))
            };
            let mut rows = self.rows()?;
            cut_components(sorter.finish()?, hash_of, &mut rows, &self.options, &mut counts, |row, label| {
                labels[row as usize] = label;
            })?;
        }
        for row in 0..labels.len() {
            // the label of an equal row that stands before this one is final already
            labels[row] = labels[first[row] as usize];
        }
        Ok(counts.cut_off)
    }
}

/// Writes what each text leaves.
#[derive(Debug)]
pub struct Writer {
    options: Options,
    sketch: Sketch,
    rows: u64,
    signatures: BufWriter<File>,
    contents: BufWriter<File>,
    marks: BufWriter<File>,
    bands: Vec<BufWriter<File>>,
    /// Contents seen lately: a text that was seen needs no signature.
    seen: HashSet<(u64, u64)>,
    seen_limit: usize,
}

impl Writer {
    /// Go on after `rows` rows; what was written beyond them is cut off.
    pub fn open(folder: &Folder, rows: u64) -> Result<Self, DataError> {
        let options = folder.options.clone();
        let sketch = Sketch::new(options.num_perm, options.seed, options.reading)?;
        let bands = if options.threshold.is_some() { options.bands().0 } else { 0 };
        let bands: Result<Vec<_>, _> =
            (0..bands).map(|band| grow(&folder.file(&format!("band-{band}")), 8 * rows)).collect();
        let width = if options.threshold.is_some() { 4 * options.num_perm as u64 } else { 0 };
        Ok(Self {
            sketch,
            rows,
            signatures: grow(&folder.file("signatures"), width * rows)?,
            contents: grow(&folder.file("contents"), 16 * rows)?,
            marks: grow(&folder.file("marks"), rows)?,
            bands: bands?,
            seen: HashSet::new(),
            seen_limit: folder.memory / 8 / 40,
            options,
        })
    }

    /// Write what these texts leave, and return their bytes. An absent one is like no other.
    pub fn add(&mut self, texts: &[&[u8]], absent: &[bool], threads: usize) -> Result<u64, DataError> {
        if self.rows + texts.len() as u64 >= u64::from(u32::MAX) {
            return Err(DataError::TooMany(self.rows as usize + texts.len()));
        }
        let mut hashes = contents(texts, self.options.reading, threads);
        let mut fresh: Vec<usize> = Vec::with_capacity(texts.len());
        for (position, hash) in hashes.iter_mut().enumerate() {
            if absent.get(position) == Some(&true) {
                *hash = (u64::MAX, self.rows + position as u64);
            } else if !self.seen.contains(hash) {
                fresh.push(position);
                if self.seen.len() < self.seen_limit {
                    self.seen.insert(*hash);
                }
            }
        }
        let mut bytes = Vec::with_capacity(16 * hashes.len());
        hashes.iter().for_each(|&hash| hash.put(&mut bytes));
        self.contents.write_all(&bytes)?;
        let mut marks = vec![0u8; texts.len()];
        if self.options.threshold.is_some() {
            let num_perm = self.options.num_perm;
            let (bands, height) = self.options.bands();
            let chosen: Vec<&[u8]> = fresh.iter().map(|&position| texts[position]).collect();
            let (places, counts) = signatures(&chosen, &self.sketch, threads);
            let mut keys = vec![0u64; bands * texts.len()];
            let mut signed = places.chunks_exact(num_perm).zip(counts).zip(&fresh).peekable();
            for (position, mark) in marks.iter_mut().enumerate() {
                bytes.clear();
                match signed.peek() {
                    Some(&((row, count), &at)) if at == position => {
                        signed.next();
                        row.iter().for_each(|&place| place.put(&mut bytes));
                        *mark = u8::from(count > 0);
                        for (band, rows) in row.chunks_exact(height).take(bands).enumerate() {
                            keys[band * texts.len() + position] = bands::key(rows);
                        }
                    }
                    _ => bytes.resize(4 * num_perm, 0),
                }
                self.signatures.write_all(&bytes)?;
            }
            for (file, keys) in self.bands.iter_mut().zip(keys.chunks_exact(texts.len().max(1))) {
                bytes.clear();
                keys.iter().for_each(|&key| key.put(&mut bytes));
                file.write_all(&bytes)?;
            }
        }
        self.marks.write_all(&marks)?;
        self.rows += texts.len() as u64;
        Ok(texts.iter().map(|text| text.len() as u64).sum())
    }

    /// Make everything so far durable; returns the number of rows.
    pub fn sync(&mut self) -> Result<u64, DataError> {
        let own = [&mut self.signatures, &mut self.contents, &mut self.marks];
        for file in own.into_iter().chain(&mut self.bands) {
            file.flush()?;
            file.get_ref().sync_data()?;
        }
        Ok(self.rows)
    }
}

/// Writes the sets of shingles of rows that are compared exactly.
#[derive(Debug)]
pub struct SetWriter {
    options: Options,
    sizes: BufWriter<File>,
    sets: BufWriter<File>,
    count: u64,
}

impl SetWriter {
    /// Go on after `count` sets.
    pub fn open(folder: &Folder, count: u64) -> Result<Self, DataError> {
        let path = folder.file("set-sizes");
        let sizes = grow(&path, 12 * count)?;
        let mut shingles = 0;
        for record in records::<(u32, u64)>(&path)? {
            shingles += record?.1;
        }
        let sets = grow(&folder.file("sets"), 8 * shingles)?;
        Ok(Self { options: folder.options.clone(), sizes, sets, count })
    }

    /// Write the sets of these rows, ascending.
    pub fn add(&mut self, rows: &[u32], texts: &[&[u8]], threads: usize) -> Result<(), DataError> {
        let reading = self.options.reading;
        let mut sets: Vec<Vec<u64>> = vec![Vec::new(); texts.len()];
        for_each_chunk(&mut sets, 16, threads, ShingleSet::default, |offset, chunk, scratch| {
            for (position, set) in chunk.iter_mut().enumerate() {
                *set = scratch.distinct(texts[offset + position], reading);
            }
        });
        let mut bytes = Vec::new();
        for (&row, set) in rows.iter().zip(&sets) {
            bytes.clear();
            (row, set.len() as u64).put(&mut bytes);
            self.sizes.write_all(&bytes)?;
            bytes.clear();
            set.iter().for_each(|&hash| hash.put(&mut bytes));
            self.sets.write_all(&bytes)?;
        }
        self.count += rows.len() as u64;
        Ok(())
    }

    /// Make everything so far durable; returns the number of sets.
    pub fn sync(&mut self) -> Result<u64, DataError> {
        // sizes last: a size is only written when its set is
        for file in [&mut self.sets, &mut self.sizes] {
            file.flush()?;
            file.get_ref().sync_data()?;
        }
        Ok(self.count)
    }
}
