//! Store: an index in a file.
//!
//! Little-endian: eight bytes of name, a version, the options, the lengths of the sections, the sections, and a 128-bit check sum of all
//! before it. Reading refuses, in one sentence, a file that is none of ours, is of another version, ends too early or is damaged.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use crate::error::DataError;
use crate::hash::{fold, K};
use crate::index::Index;
use crate::options::{Options, Verify};
use crate::reading::{Form, Reading, Shingle};
use crate::record::Record;
use crate::union::Union;

const NAME: &[u8; 8] = b"HRDEDUP\0";
const VERSION: u64 = 1;
/// Numbers before the sections: version, eleven of the options, five counts, seven lengths.
const HEAD: usize = 24;
const NO_NUMBER: u64 = u64::MAX;

/// A running 128-bit sum over numbers; it finds damage, not malice.
#[derive(Debug, Clone, Copy)]
struct Sum(u64, u64);

impl Sum {
    fn new() -> Self {
        Self(K[0], K[1])
    }

    fn update(&mut self, bytes: &[u8]) {
        for block in bytes.chunks(8) {
            let mut raw = [0u8; 8];
            raw[..block.len()].copy_from_slice(block);
            let number = u64::from_le_bytes(raw);
            self.0 = fold(self.0 ^ number, K[2]).wrapping_add(self.0.rotate_left(29));
            self.1 = self.1.wrapping_add(number).rotate_left(17).wrapping_mul(K[3]);
        }
    }
}

/// Numbers that are written at once.
const CHUNK: usize = 1 << 16;

fn write_section<T: Record>(file: &mut impl Write, sum: &mut Sum, numbers: &[T]) -> Result<(), DataError> {
    let mut bytes = Vec::with_capacity(CHUNK * T::SIZE);
    for chunk in numbers.chunks(CHUNK) {
        bytes.clear();
        chunk.iter().for_each(|&number| number.put(&mut bytes));
        sum.update(&bytes);
        file.write_all(&bytes)?;
    }
    Ok(())
}

fn read_section<T: Record>(file: &mut impl Read, sum: &mut Sum, count: u64) -> Result<Vec<T>, DataError> {
    let mut left = count as usize;
    let mut numbers = Vec::with_capacity(left);
    let mut bytes = vec![0u8; CHUNK.min(left.max(1)) * T::SIZE];
    while left > 0 {
        let now = left.min(CHUNK);
        let bytes = &mut bytes[..now * T::SIZE];
        file.read_exact(bytes)?;
        sum.update(bytes);
        numbers.extend(bytes.chunks_exact(T::SIZE).map(T::take));
        left -= now;
    }
    Ok(numbers)
}

impl Index {
    /// Write everything to `path`, replacing what is there; not synced.
    pub fn save(&self, path: &Path) -> Result<(), DataError> {
        let mut file = BufWriter::new(File::create(path)?);
        let mut sum = Sum::new();
        file.write_all(NAME)?;
        let counts = &self.counts;
        let mut head = vec![VERSION];
        head.extend(option_numbers(&self.options));
        head.extend([
            counts.bytes,
            counts.exact_duplicates,
            counts.candidate_pairs,
            counts.exact_checks,
            counts.cut_off,
        ]);
        let lengths =
            [self.items.len(), self.firsts.len(), self.places.len(), self.has_shingles.len(), self.marks.len()];
        head.extend(lengths.map(|length| length as u64));
        head.extend([self.shingles.len() as u64, self.union.parents().len() as u64]);
        debug_assert_eq!(head.len(), HEAD);
        write_section(&mut file, &mut sum, &head)?;
        write_section(&mut file, &mut sum, &self.items)?;
        write_section(&mut file, &mut sum, &self.firsts)?;
        write_section(&mut file, &mut sum, &self.contents)?;
        write_section(&mut file, &mut sum, &self.places)?;
        write_section(&mut file, &mut sum, &self.has_shingles)?;
        write_section(&mut file, &mut sum, &self.marks)?;
        write_section(&mut file, &mut sum, &self.shingles)?;
        write_section(&mut file, &mut sum, self.union.parents())?;
        let Sum(first, second) = sum;
        write_section(&mut file, &mut sum, &[first, second])?;
        file.flush()?;
        Ok(())
    }

    /// Read what [`Index::save`] wrote.
    pub fn load(path: &Path, threads: usize) -> Result<Self, DataError> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut file = BufReader::with_capacity(1 << 20, file);
        let refuse = |why: String| DataError::File(format!("{} {why}", path.display()));
        let mut name = [0u8; 8];
        if size < 8 || file.read_exact(&mut name).is_err() || &name != NAME {
            return Err(refuse("is no saved Deduplicator".to_owned()));
        }
        let short =
            || refuse(format!("ends too early: {size} bytes are not all of a saved Deduplicator; save it again"));
        let mut sum = Sum::new();
        let head: Vec<u64> = read_section(&mut file, &mut sum, HEAD as u64).map_err(|_| short())?;
        if head[0] != VERSION {
            return Err(refuse(format!(
                "has version {} of a saved Deduplicator; this Highrise reads version {VERSION}",
                head[0]
            )));
        }
        let damaged = || refuse("is damaged: its check sum does not fit; save it again".to_owned());
        let options = options_of(&head[1..12]).ok_or_else(damaged)?;
        let lengths = &head[17..24];
        let widths: [u64; 7] = [4, 20, 4, 1, 8, 8, 4];
        let body = lengths
            .iter()
            .zip(widths)
            .try_fold(0u64, |sum, (&length, width)| length.checked_mul(width).and_then(|bytes| sum.checked_add(bytes)));
        match body.and_then(|body| body.checked_add(8 + 8 * HEAD as u64 + 16)) {
            Some(wanted) if wanted > size => return Err(short()),
            Some(wanted) if wanted == size => {}
            _ => return Err(damaged()),
        }
        let mut index = Index::new(options).map_err(|_| damaged())?;
        index.items = read_section(&mut file, &mut sum, lengths[0])?;
        index.firsts = read_section(&mut file, &mut sum, lengths[1])?;
        index.contents = read_section(&mut file, &mut sum, lengths[1])?;
        index.places = read_section(&mut file, &mut sum, lengths[2])?;
        index.has_shingles = read_section(&mut file, &mut sum, lengths[3])?;
        index.marks = read_section(&mut file, &mut sum, lengths[4])?;
        index.shingles = read_section(&mut file, &mut sum, lengths[5])?;
        let parents: Vec<u32> = read_section(&mut file, &mut sum, lengths[6])?;
        let expected = [sum.0, sum.1];
        let held: Vec<u64> = read_section(&mut file, &mut sum, 2)?;
        if held != expected || parents.iter().zip(0..).any(|(&parent, item)| parent > item) {
            return Err(damaged());
        }
        index.union = Union::with_members(parents);
        let [bytes, exact_duplicates, candidate_pairs, exact_checks, cut_off] =
            [head[12], head[13], head[14], head[15], head[16]];
        index.counts = crate::cluster::Counts { bytes, exact_duplicates, candidate_pairs, exact_checks, cut_off };
        index.rebuild(threads.max(1));
        Ok(index)
    }
}

fn option_numbers(options: &Options) -> [u64; 11] {
    let float = |value: Option<f64>| value.map_or(NO_NUMBER, f64::to_bits);
    let (unit, length) = match options.reading.shingle {
        Shingle::Words(length) => (0, length),
        Shingle::Characters(length) => (1, length),
    };
    let form = match options.reading.form {
        Form::Bytes => 0,
        Form::Spaces => 1,
        Form::Words => 2,
    };
    let verify = match options.verify {
        Verify::None => 0,
        Verify::Estimate => 1,
        Verify::Borderline => 2,
        Verify::Exact => 3,
    };
    let (bands, rows) = options.bands.unwrap_or((0, 0));
    [
        float(options.threshold),
        options.num_perm as u64,
        options.seed,
        verify,
        unit,
        length as u64,
        form,
        float(options.slack),
        bands as u64,
        rows as u64,
        0,
    ]
}

fn options_of(numbers: &[u64]) -> Option<Options> {
    let float = |bits: u64| (bits != NO_NUMBER).then(|| f64::from_bits(bits));
    let size = |number: u64| usize::try_from(number).ok();
    let length = size(numbers[5])?;
    Some(Options {
        threshold: float(numbers[0]),
        num_perm: size(numbers[1])?,
        threads: 1,
        seed: numbers[2],
        verify: [Verify::None, Verify::Estimate, Verify::Borderline, Verify::Exact].get(size(numbers[3])?).copied()?,
        reading: Reading {
            shingle: if numbers[4] == 0 { Shingle::Words(length) } else { Shingle::Characters(length) },
            form: [Form::Bytes, Form::Spaces, Form::Words].get(size(numbers[6])?).copied()?,
        },
        slack: float(numbers[7]),
        bands: (numbers[8] > 0).then_some((size(numbers[8])?, size(numbers[9])?)),
    })
}
