//! Rows: signatures by number, in memory or in a file read at random through a small cache.

use std::fs::File;
use std::io;

use crate::error::DataError;
use crate::sketch::equal_places;

/// Signatures by number.
pub trait Rows {
    /// Places of a signature.
    fn num_perm(&self) -> usize;
    /// The number of equal places of two signatures.
    fn equal(&mut self, left: u32, right: u32) -> Result<u32, DataError>;
    /// Copy a signature.
    fn copy(&mut self, item: u32, signature: &mut [u32]) -> Result<(), DataError>;
}

/// Signatures in memory, row by row.
#[derive(Debug, Clone, Copy)]
pub struct InMemory<'a> {
    /// Places, all of the first signature first.
    pub places: &'a [u32],
    /// Places of a signature.
    pub num_perm: usize,
}

impl<'a> InMemory<'a> {
    #[inline(always)]
    fn row(&self, item: u32) -> &'a [u32] {
        &self.places[item as usize * self.num_perm..][..self.num_perm]
    }
}

impl Rows for InMemory<'_> {
    fn num_perm(&self) -> usize {
        self.num_perm
    }

    #[inline]
    fn equal(&mut self, left: u32, right: u32) -> Result<u32, DataError> {
        Ok(equal_places(self.row(left), self.row(right)))
    }

    fn copy(&mut self, item: u32, signature: &mut [u32]) -> Result<(), DataError> {
        signature.copy_from_slice(self.row(item));
        Ok(())
    }
}

/// Signatures in a file of little-endian places; a cache holds the rows last asked for.
#[derive(Debug)]
pub struct InFile {
    file: File,
    num_perm: usize,
    /// For each place of the cache the row it holds.
    held: Vec<u32>,
    cache: Vec<u32>,
    bytes: Vec<u8>,
}

impl InFile {
    /// Rows of `file`; about `memory` bytes of them stay in memory.
    pub fn new(file: File, num_perm: usize, memory: usize) -> Self {
        // even and odd rows never share a place, so that two rows can be held at once
        let slots = (memory / (4 * num_perm + 4)).clamp(64, 1 << 22).next_power_of_two();
        Self {
            file,
            num_perm,
            held: vec![u32::MAX; slots],
            cache: vec![0; slots * num_perm],
            bytes: vec![0; 4 * num_perm],
        }
    }

    /// The place in the cache that holds `item` now; never the place `other`.
    fn load(&mut self, item: u32, other: usize) -> Result<usize, DataError> {
        let mask = self.held.len() - 1;
        let mut slot = (u64::from(item).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & mask;
        if slot == other && self.held[slot] != item {
            slot = (slot + 1) & mask;
        }
        if self.held[slot] != item {
            read_at(&self.file, &mut self.bytes, u64::from(item) * 4 * self.num_perm as u64)?;
            let row = &mut self.cache[slot * self.num_perm..][..self.num_perm];
            for (place, bytes) in row.iter_mut().zip(self.bytes.chunks_exact(4)) {
                *place = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            self.held[slot] = item;
        }
        Ok(slot)
    }
}

impl Rows for InFile {
    fn num_perm(&self) -> usize {
        self.num_perm
    }

    fn equal(&mut self, left: u32, right: u32) -> Result<u32, DataError> {
        let left = self.load(left, usize::MAX)?;
        let right = self.load(right, left)?;
        let row = |slot: usize| &self.cache[slot * self.num_perm..][..self.num_perm];
        Ok(equal_places(row(left), row(right)))
    }

    fn copy(&mut self, item: u32, signature: &mut [u32]) -> Result<(), DataError> {
        let slot = self.load(item, usize::MAX)?;
        signature.copy_from_slice(&self.cache[slot * self.num_perm..][..self.num_perm]);
        Ok(())
    }
}

/// Fill `bytes` from a place of a file without moving in it.
#[cfg(unix)]
pub(crate) fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

/// Fill `bytes` from a place of a file.
#[cfg(not(unix))]
pub(crate) fn read_at(mut file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(bytes)
}
