//! Ids of bytes that need not be UTF-8, such that decoding gives the same bytes back. Knows no special tokens.

use crate::error::Error;
use crate::merge::{merge, Scratch};
use crate::tokenizer::{Allowed, Tokenizer};

impl Tokenizer {
    /// Text where the bytes are UTF-8; each run of bytes that are not is one piece of its own.
    pub fn encode_bytes(&self, content: &[u8]) -> Result<Vec<u32>, Error> {
        let mut ids = Vec::with_capacity(content.len() / 3 + 8);
        let mut scratch = Scratch::default();
        let mut broken: Vec<u8> = Vec::new();
        for chunk in content.utf8_chunks() {
            if !chunk.valid().is_empty() {
                self.merge_broken(&mut broken, &mut scratch, &mut ids);
                self.encode(chunk.valid(), Allowed::None, &mut ids)?;
            }
            broken.extend_from_slice(chunk.invalid());
        }
        self.merge_broken(&mut broken, &mut scratch, &mut ids);
        Ok(ids)
    }

    /// What the merges alone make of one piece.
    pub fn merge_piece(&self, piece: &[u8]) -> Vec<u32> {
        let mut ids = Vec::new();
        merge(self.vocabulary(), piece, &mut Scratch::default(), &mut ids);
        ids
    }

    fn merge_broken(&self, piece: &mut Vec<u8>, scratch: &mut Scratch, ids: &mut Vec<u32>) {
        if piece.is_empty() {
            return;
        }
        let mut found = Vec::new();
        merge(self.vocabulary(), piece, scratch, &mut found);
        ids.append(&mut found);
        piece.clear();
    }
}
