//! Numbers: a number for each 128-bit digest, about 40 bytes an entry. Knows nothing of what was digested.

use std::collections::hash_map::Entry;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::error::DataError;

/// Digests are hashes already.
#[derive(Debug, Default)]
struct Low(u64);

impl Hasher for Low {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().take(8).fold(0, |hash, &byte| hash << 8 | u64::from(byte));
    }
    fn write_u128(&mut self, digest: u128) {
        self.0 = digest as u64;
    }
}

/// Digests with a number each.
#[derive(Debug, Default)]
pub struct Numbers {
    numbers: HashMap<u128, u64, BuildHasherDefault<Low>>,
}

impl Numbers {
    /// The number of `digest`, and whether it had one before; new ones are numbered in the order in which they come.
    pub fn number(&mut self, digest: &[u8]) -> Result<(u64, bool), DataError> {
        let next = self.numbers.len() as u64;
        match self.numbers.entry(key(digest)?) {
            Entry::Occupied(entry) => Ok((*entry.get(), true)),
            Entry::Vacant(entry) => Ok((*entry.insert(next), false)),
        }
    }

    /// Give `digest` this number, instead of the one that it had.
    pub fn put(&mut self, digest: &[u8], number: u64) -> Result<(), DataError> {
        self.numbers.insert(key(digest)?, number);
        Ok(())
    }

    /// The number of `digest`, if it has one.
    pub fn find(&self, digest: &[u8]) -> Result<Option<u64>, DataError> {
        Ok(self.numbers.get(&key(digest)?).copied())
    }

    /// How many digests have a number.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
}

/// The first 16 bytes of a digest.
fn key(digest: &[u8]) -> Result<u128, DataError> {
    let bytes = digest.first_chunk::<16>().ok_or(DataError::Digest(digest.len()))?;
    Ok(u128::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_order_and_as_put() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.number(&[1; 16]).unwrap(), (0, false));
        assert_eq!(numbers.number(&[2; 32]).unwrap(), (1, false));
        assert_eq!(numbers.number(&[1; 16]).unwrap(), (0, true));
        numbers.put(&[1; 16], 9).unwrap();
        assert_eq!((numbers.find(&[1; 16]).unwrap(), numbers.find(&[3; 16]).unwrap()), (Some(9), None));
        assert_eq!((numbers.len(), numbers.is_empty()), (2, false));
        assert!(numbers.find(&[1; 15]).unwrap_err().to_string().contains("15 bytes"));
    }
}
