//! The bytes of the tokens that were learned so far. Knows no counts.

/// See the module.
#[derive(Default)]
pub(super) struct Tokens {
    bytes: Vec<u8>,
    /// Where each token ends.
    ends: Vec<usize>,
}

impl Tokens {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    fn start(&self, id: usize) -> usize {
        id.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    pub(super) fn token(&self, id: usize) -> &[u8] {
        &self.bytes[self.start(id)..self.ends[id]]
    }

    /// Two tokens together are the next.
    pub(super) fn join(&mut self, left: u32, right: u32) {
        for part in [left as usize, right as usize] {
            self.bytes.extend_from_within(self.start(part)..self.ends[part]);
        }
        self.ends.push(self.bytes.len());
    }

    /// One byte is the next.
    pub(super) fn add_byte(&mut self, byte: u8) {
        self.bytes.push(byte);
        self.ends.push(self.bytes.len());
    }
}
