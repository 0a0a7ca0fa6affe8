//! A trie over byte strings in flat arrays: the children of a node are neighbours, sorted by their byte.

/// No node, no value.
pub const NONE: u32 = u32::MAX;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Trie {
    /// Children of node n are `first[n]..first[n + 1]`.
    first: Vec<u32>,
    labels: Vec<u8>,
    values: Vec<u32>,
    root: Vec<u32>,
}

impl Trie {
    /// Of keys and their values; where a key comes twice the later value counts. Empty keys are left out.
    pub fn new<'key>(keys: impl Iterator<Item = (&'key [u8], u32)>) -> Self {
        let mut keys: Vec<(&[u8], u32)> = keys.filter(|(key, _)| !key.is_empty()).collect();
        keys.sort_by(|a, b| a.0.cmp(b.0));
        keys.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                earlier.1 = later.1;
            }
            same
        });
        let mut this = Trie { first: Vec::new(), labels: vec![0], values: vec![NONE], root: vec![NONE; 256] };
        // Breadth first: each entry is a range of keys with a common prefix of `depth` bytes.
        let mut level = vec![(0, keys.len())];
        let mut depth = 0;
        while !level.is_empty() {
            let mut next = Vec::new();
            for (start, end) in level {
                this.first.push(this.labels.len() as u32);
                let mut at = start;
                // A key that ends here is the first of its range.
                if depth > 0 && keys[at].0.len() == depth {
                    at += 1;
                }
                while at < end {
                    let byte = keys[at].0[depth];
                    let mut stop = at;
                    while stop < end && keys[stop].0[depth] == byte {
                        stop += 1;
                    }
                    if depth == 0 {
                        this.root[byte as usize] = this.labels.len() as u32;
                    }
                    this.labels.push(byte);
                    this.values.push(if keys[at].0.len() == depth + 1 { keys[at].1 } else { NONE });
                    next.push((at, stop));
                    at = stop;
                }
            }
            level = next;
            depth += 1;
        }
        this.first.push(this.labels.len() as u32);
        this
    }

    #[inline]
    fn child(&self, node: u32, byte: u8) -> u32 {
        if node == 0 {
            return self.root[byte as usize];
        }
        let (start, end) = (self.first[node as usize] as usize, self.first[node as usize + 1] as usize);
        let labels = &self.labels[start..end];
        let found = if labels.len() <= 8 {
            labels.iter().position(|&label| label == byte)
        } else {
            labels.binary_search(&byte).ok()
        };
        found.map_or(NONE, |index| (start + index) as u32)
    }

    /// Calls `found(length, value)` for each key that `text` begins with, the shortest first.
    #[inline]
    pub fn prefixes(&self, text: &[u8], mut found: impl FnMut(usize, u32)) {
        if self.root.is_empty() {
            return;
        }
        let mut node = 0;
        for (index, &byte) in text.iter().enumerate() {
            node = self.child(node, byte);
            if node == NONE {
                return;
            }
            let value = self.values[node as usize];
            if value != NONE {
                found(index + 1, value);
            }
        }
    }

    /// The longest key that `text` begins with.
    pub fn longest(&self, text: &[u8]) -> Option<(usize, u32)> {
        let mut last = None;
        self.prefixes(text, |length, value| last = Some((length, value)));
        last
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<u32> {
        self.longest(key).filter(|(length, _)| *length == key.len()).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_put_in() {
        let keys: Vec<Vec<u8>> =
            (0..3000_u32).map(|n| format!("{:b}", n.wrapping_mul(2_654_435_761) >> 16).into_bytes()).collect();
        let trie = Trie::new(keys.iter().enumerate().map(|(index, key)| (key.as_slice(), index as u32)));
        for key in &keys {
            let value = trie.get(key).expect("present");
            assert_eq!(&keys[value as usize], key);
            let mut found = Vec::new();
            trie.prefixes(key, |length, _| found.push(length));
            let expected: Vec<usize> = (1..=key.len()).filter(|&n| keys.iter().any(|k| k == &key[..n])).collect();
            assert_eq!(found, expected);
        }
        assert_eq!(trie.get(b"2"), None);
        assert_eq!(Trie::default().longest(b"x"), None);
    }
}
