//! Counts of pieces for corpora whose different pieces do not fit into memory: sorted runs in a folder, merged at the
//! end. Knows no tokens, and of pieces only that they are bytes.
//!
//! When too many pieces are held they are sorted and written as a run, and counting begins anew. At the end all runs are
//! read side by side, so each piece comes once, with its whole count. If that are more pieces than training may hold, the
//! rarest are left out, all of one count or none, and told.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::count::PieceCounts;
use crate::error::Error;
use crate::split::Scheme;

/// Files that are read at once; more are merged into one in between.
const MOST_RUNS: usize = 64;
/// Counts that are told apart when pieces are left out; all above are kept.
const TOLD_APART: usize = 1 << 16;
const BUFFER: usize = 1 << 18;

/// What was left out for want of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Number of pieces.
    pub pieces: u64,
    /// How often they occur in all.
    pub occurrences: u64,
    /// Pieces that occur so often or more were kept.
    pub least: u64,
}

/// Counts under one split pattern, of which at most some are in memory.
pub struct SpilledCounts {
    counts: PieceCounts,
    folder: PathBuf,
    most: usize,
    room: usize,
    runs: Vec<PathBuf>,
    written: usize,
    bytes: u64,
}

impl SpilledCounts {
    /// Nothing counted yet. Once `most` different pieces are held they go to a file in `folder`, which must exist; the files
    /// are removed with this value.
    pub fn new(counts: PieceCounts, folder: &Path, most: usize) -> Self {
        let most = most.max(1);
        SpilledCounts { counts, folder: folder.into(), most, room: most, runs: Vec::new(), written: 0, bytes: 0 }
    }

    /// With room for another number of pieces at the end than while counting.
    pub fn with_room(mut self, room: usize) -> Self {
        self.room = room;
        self
    }

    /// Counts the pieces of some texts; see [`PieceCounts::add`].
    pub fn add(&mut self, texts: &[&str], threads: usize) -> Result<(), Error> {
        self.counts.add(texts, threads);
        if self.counts.len() >= self.most {
            self.spill()?;
        }
        Ok(())
    }

    /// The same for texts that lie one after another; see [`PieceCounts::add_joined`].
    pub fn add_joined(&mut self, joined: &str, ends: &[usize], threads: usize) -> Result<(), Error> {
        self.counts.add_joined(joined, ends, threads);
        if self.counts.len() >= self.most {
            self.spill()?;
        }
        Ok(())
    }

    /// Number of different pieces in memory; those in files are not known to be different.
    pub fn num_held(&self) -> usize {
        self.counts.len()
    }

    /// Bytes of all texts so far.
    pub fn bytes(&self) -> u64 {
        self.bytes + self.counts.bytes()
    }

    /// The counts in memory: all of them where nothing was written.
    pub fn held(&self) -> &PieceCounts {
        &self.counts
    }

    /// The split pattern.
    pub fn scheme(&self) -> Scheme {
        self.counts.scheme()
    }

    /// Number of files that were written.
    pub fn num_written(&self) -> usize {
        self.written
    }

    /// Every piece with its whole count, as many as there is room for, and what was left out.
    pub fn finish(mut self) -> Result<(PieceCounts, LeftOut), Error> {
        if self.runs.is_empty() {
            let nothing = PieceCounts::new(self.counts.scheme());
            let counts = std::mem::replace(&mut self.counts, nothing);
            return Ok((counts, LeftOut { least: 1, ..LeftOut::default() }));
        }
        self.spill()?;
        let mut numbers = vec![0_u64; TOLD_APART];
        let mut num_frequent = 0_u64;
        let together = self.merge_runs(|_, count| match numbers.get_mut(count as usize) {
            Some(number) => *number += 1,
            None => num_frequent += 1,
        })?;
        let mut left_out = LeftOut { least: 1, ..LeftOut::default() };
        let mut kept = num_frequent + numbers.iter().sum::<u64>();
        while kept > self.room as u64 && (left_out.least as usize) < TOLD_APART {
            let number = numbers[left_out.least as usize];
            left_out.pieces += number;
            left_out.occurrences += number * left_out.least;
            left_out.least += 1;
            kept -= number;
        }
        let mut counts = PieceCounts::new(self.counts.scheme());
        let mut run = Run::open(&together)?;
        while run.next(&together)? {
            if run.count >= left_out.least {
                counts.add_piece(&run.piece, run.count);
            }
        }
        Ok((counts, left_out))
    }

    fn spill(&mut self) -> Result<(), Error> {
        let scheme = self.counts.scheme();
        let counts = std::mem::replace(&mut self.counts, PieceCounts::new(scheme));
        self.bytes += counts.bytes();
        if counts.is_empty() {
            return Ok(());
        }
        // Sorted in one store of bytes: a box for each piece would take as much again as the pieces.
        let mut store = Vec::new();
        let mut places = Vec::with_capacity(counts.len());
        counts.for_each(|piece, count| {
            places.push((store.len(), piece.len(), count));
            store.extend_from_slice(piece);
        });
        drop(counts);
        places.sort_unstable_by(|left, right| store[left.0..left.0 + left.1].cmp(&store[right.0..right.0 + right.1]));
        let path = self.next_path();
        let mut writer = RunWriter::create(&path)?;
        for (start, length, count) in places {
            writer.write(&store[start..start + length], count)?;
        }
        writer.finish()?;
        self.runs.push(path);
        if self.runs.len() == MOST_RUNS {
            self.merge_runs(|_, _| ())?;
        }
        Ok(())
    }

    fn next_path(&mut self) -> PathBuf {
        self.written += 1;
        self.folder.join(format!("{:06}.run", self.written))
    }

    /// All runs become one; `visit` sees each piece once, with its whole count.
    fn merge_runs(&mut self, mut visit: impl FnMut(&[u8], u64)) -> Result<PathBuf, Error> {
        let target = self.next_path();
        let mut writer = RunWriter::create(&target)?;
        let mut runs = self.runs.iter().map(|path| Run::open(path)).collect::<Result<Vec<_>, _>>()?;
        let mut heap = BinaryHeap::new();
        for (index, run) in runs.iter_mut().enumerate() {
            if run.next(&self.runs[index])? {
                heap.push(Reverse((std::mem::take(&mut run.piece), index)));
            }
        }
        let mut piece: Vec<u8> = Vec::new();
        let mut count = 0_u64;
        while let Some(Reverse((next, index))) = heap.pop() {
            if count > 0 && next != piece {
                visit(&piece, count);
                writer.write(&piece, count)?;
                count = 0;
            }
            count = count.saturating_add(runs[index].count);
            // The buffer of the piece before serves the run that this one came from.
            runs[index].piece = std::mem::replace(&mut piece, next);
            if runs[index].next(&self.runs[index])? {
                heap.push(Reverse((std::mem::take(&mut runs[index].piece), index)));
            }
        }
        if count > 0 {
            visit(&piece, count);
            writer.write(&piece, count)?;
        }
        writer.finish()?;
        for path in std::mem::replace(&mut self.runs, vec![target.clone()]) {
            // What cannot be removed is left to whoever removes the folder.
            let _ = std::fs::remove_file(path);
        }
        Ok(target)
    }
}

impl Drop for SpilledCounts {
    fn drop(&mut self) {
        for path in &self.runs {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn failed(path: &Path, doing: &'static str, error: &io::Error) -> Error {
    Error::Spill { path: path.display().to_string(), doing, reason: error.to_string() }
}

/// Writes pieces in their order: length, bytes and count, both numbers seven bits a byte.
struct RunWriter<'path> {
    file: BufWriter<File>,
    path: &'path Path,
}

impl<'path> RunWriter<'path> {
    fn create(path: &'path Path) -> Result<Self, Error> {
        let file = File::create(path).map_err(|error| failed(path, "written", &error))?;
        Ok(RunWriter { file: BufWriter::with_capacity(BUFFER, file), path })
    }

    fn write(&mut self, piece: &[u8], count: u64) -> Result<(), Error> {
        let done = write_number(&mut self.file, piece.len() as u64)
            .and_then(|()| self.file.write_all(piece))
            .and_then(|()| write_number(&mut self.file, count));
        done.map_err(|error| failed(self.path, "written", &error))
    }

    fn finish(mut self) -> Result<(), Error> {
        self.file.flush().map_err(|error| failed(self.path, "written", &error))
    }
}

/// A file of sorted pieces and the one that was read last.
struct Run {
    file: BufReader<File>,
    piece: Vec<u8>,
    count: u64,
}

impl Run {
    fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|error| failed(path, "read", &error))?;
        Ok(Run { file: BufReader::with_capacity(BUFFER, file), piece: Vec::new(), count: 0 })
    }

    /// Reads the next piece; `false` at the end.
    fn next(&mut self, path: &Path) -> Result<bool, Error> {
        self.read().map_err(|error| failed(path, "read", &error))
    }

    fn read(&mut self) -> io::Result<bool> {
        let Some(length) = read_number(&mut self.file)? else { return Ok(false) };
        self.piece.clear();
        if (&mut self.file).take(length).read_to_end(&mut self.piece)? as u64 != length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.count = read_number(&mut self.file)?.ok_or(ErrorKind::UnexpectedEof)?;
        Ok(true)
    }
}

fn write_number(file: &mut impl Write, mut number: u64) -> io::Result<()> {
    while number >= 0x80 {
        file.write_all(&[number as u8 | 0x80])?;
        number >>= 7;
    }
    file.write_all(&[number as u8])
}

/// `None` at the end of the file; an end inside a number is an error.
fn read_number(file: &mut impl Read) -> io::Result<Option<u64>> {
    let (mut number, mut shift) = (0_u64, 0);
    let mut byte = [0];
    loop {
        if file.read(&mut byte)? == 0 {
            return if shift == 0 { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
        }
        number |= u64::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] < 0x80 {
            return Ok(Some(number));
        }
        if shift > 63 {
            return Err(ErrorKind::InvalidData.into());
        }
    }
}
