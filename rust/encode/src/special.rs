//! Finds special tokens in text: the leftmost, of those that start there the longest, as Hugging Face's added tokens are
//! found. Knows nothing of merges.

/// The special tokens that count in one call.
#[derive(Debug, Clone, Default)]
pub struct SpecialMatcher {
    /// For each first byte: (token, id), longest first.
    by_first: Vec<Vec<(Vec<u8>, u32)>>,
    /// Bytes that start none are skipped by this table.
    starts: Vec<bool>,
    any: bool,
}

impl SpecialMatcher {
    /// A matcher of these tokens.
    pub fn new<'a>(tokens: impl IntoIterator<Item = (&'a [u8], u32)>) -> Self {
        let mut this = SpecialMatcher { by_first: vec![Vec::new(); 256], starts: vec![false; 256], any: false };
        for (token, id) in tokens {
            if let Some(&first) = token.first() {
                this.by_first[first as usize].push((token.to_vec(), id));
                this.starts[first as usize] = true;
                this.any = true;
            }
        }
        for list in &mut this.by_first {
            list.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
        }
        this
    }

    /// Start, end and id of the first special token at or after `from`.
    pub fn find(&self, text: &[u8], from: usize) -> Option<(usize, usize, u32)> {
        if !self.any {
            return None;
        }
        let mut at = from;
        while let Some(offset) = text[at..].iter().position(|&byte| self.starts[byte as usize]) {
            at += offset;
            for (token, id) in &self.by_first[text[at] as usize] {
                if text[at..].starts_with(token) {
                    return Some((at, at + token.len(), *id));
                }
            }
            at += 1;
        }
        None
    }
}
