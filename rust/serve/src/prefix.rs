//! The prefix cache: finds the page that holds given tokens after a given prefix.
//!
//! A chain of hashes over full pages chooses the bucket. Every registered page has a serial number that is never used
//! again; a page is known by the serial of the page before it (or by the salt of its tenant, for the first) and its own
//! tokens, and both are compared on every hit: equal hashes of different content cost a comparison and nothing else. The
//! table is chained through the pages, sized once, and never grows or moves. Knows nothing of who holds a page.

use crate::pages::NONE;

/// Serials from here on are salts, that is, starts of a sequence.
const SALT_BIT: u64 = 1 << 63;

#[derive(Clone, Copy)]
struct Entry {
    parent: u64,
    /// 0 while the page is not registered.
    serial: u64,
    bucket: u32,
    next: u32,
}

/// Which registered page holds what.
pub struct Prefix {
    page_size: usize,
    entries: Vec<Entry>,
    tokens: Vec<u32>,
    buckets: Vec<u32>,
    mask: u64,
    seed: u64,
    next_serial: u64,
    num_registered: usize,
}

fn mix(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    (product as u64) ^ ((product >> 64) as u64)
}

impl Prefix {
    /// An empty cache over `num_pages` pages; `seed` keys the hash, so that nobody can aim at one bucket.
    pub fn new(num_pages: usize, page_size: usize, seed: u64) -> Self {
        let num_buckets = num_pages.max(1).next_power_of_two();
        Self {
            page_size,
            entries: vec![Entry { parent: 0, serial: 0, bucket: 0, next: NONE }; num_pages],
            tokens: vec![0; num_pages * page_size],
            buckets: vec![NONE; num_buckets],
            mask: num_buckets as u64 - 1,
            seed: seed | 1,
            next_serial: 1,
            num_registered: 0,
        }
    }

    /// The serial that stands before the first page of a sequence with this salt.
    pub fn root(salt: u64) -> u64 {
        salt | SALT_BIT
    }

    /// Number of registered pages.
    pub fn num_registered(&self) -> usize {
        self.num_registered
    }

    /// The serial of a page, or 0 when it is not registered.
    pub fn serial(&self, page: u32) -> u64 {
        self.entries[page as usize].serial
    }

    /// The hash before the first page of a sequence with this salt.
    pub fn start(&self, salt: u64) -> u64 {
        mix(salt ^ self.seed, 0x9e37_79b9_7f4a_7c15)
    }

    /// The hash of one page of tokens after a beginning with the hash `before`.
    pub fn chain(&self, before: u64, tokens: &[u32]) -> u64 {
        let mut hash = before ^ self.seed;
        for pair in tokens.chunks(2) {
            let low = u64::from(pair[0]);
            let high = pair.get(1).map_or(0, |token| u64::from(*token));
            hash = mix(hash ^ (low | high << 32), 0xd6e8_feb8_6659_fd93);
        }
        mix(hash ^ self.seed, 0xa076_1d64_78bd_642f)
    }

    fn bucket(&self, hash: u64) -> u32 {
        (hash & self.mask) as u32
    }

    /// Tells the memory that the bucket of `hash` and what is kept of `page` will be wanted soon.
    pub fn prefetch(&self, hash: u64, page: u32) {
        touch_soon(&self.buckets, self.bucket(hash) as usize);
        touch_soon(&self.entries, page as usize);
        touch_soon(&self.tokens, page as usize * self.page_size);
    }

    fn stored(&self, page: u32) -> &[u32] {
        let start = page as usize * self.page_size;
        &self.tokens[start..start + self.page_size]
    }

    fn find_in(&self, bucket: u32, parent: u64, tokens: &[u32]) -> Option<u32> {
        let mut page = self.buckets[bucket as usize];
        while page != NONE {
            let entry = &self.entries[page as usize];
            if entry.parent == parent && self.stored(page) == tokens {
                return Some(page);
            }
            page = entry.next;
        }
        None
    }

    /// The registered page that holds these tokens (one full page of them) after `parent`; `hash` is the chain's.
    pub fn find(&self, hash: u64, parent: u64, tokens: &[u32]) -> Option<u32> {
        self.find_in(self.bucket(hash), parent, tokens)
    }

    /// Registers a computed page unless the same content is known already; the serial of whichever page stands for it.
    pub fn register(&mut self, page: u32, hash: u64, parent: u64, tokens: &[u32]) -> u64 {
        let entry = self.entries[page as usize];
        if entry.serial != 0 {
            return entry.serial;
        }
        let bucket = self.bucket(hash);
        if let Some(known) = self.find_in(bucket, parent, tokens) {
            return self.entries[known as usize].serial;
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        let start = page as usize * self.page_size;
        self.tokens[start..start + self.page_size].copy_from_slice(tokens);
        self.entries[page as usize] = Entry { parent, serial, bucket, next: self.buckets[bucket as usize] };
        self.buckets[bucket as usize] = page;
        self.num_registered += 1;
        serial
    }

    /// Forgets what a page holds, because it will be overwritten. Says whether it was registered.
    pub fn forget(&mut self, page: u32) -> bool {
        let entry = self.entries[page as usize];
        if entry.serial == 0 {
            return false;
        }
        let head = self.buckets[entry.bucket as usize];
        if head == page {
            self.buckets[entry.bucket as usize] = entry.next;
        } else {
            let mut before = head;
            while self.entries[before as usize].next != page {
                before = self.entries[before as usize].next;
            }
            self.entries[before as usize].next = entry.next;
        }
        self.entries[page as usize].serial = 0;
        self.num_registered -= 1;
        true
    }
}

/// Asks for the cache line of one element; an index out of range is ignored.
fn touch_soon<T>(items: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(item) = items.get(index) {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        // SAFETY: SSE is part of every x86-64, and a prefetch reads nothing; the address lies inside `items`.
        unsafe { _mm_prefetch(std::ptr::from_ref(item).cast(), _MM_HINT_T0) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (items, index);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_and_history_must_both_agree() {
        let mut prefix = Prefix::new(8, 2, 7);
        let (root, other) = (Prefix::root(0), Prefix::root(1));
        let one = prefix.chain(prefix.start(0), &[1, 2]);
        let two = prefix.chain(one, &[3, 4]);
        let first = prefix.register(0, one, root, &[1, 2]);
        let second = prefix.register(1, two, first, &[3, 4]);
        assert_eq!(prefix.find(one, root, &[1, 2]), Some(0));
        assert_eq!(prefix.find(two, first, &[3, 4]), Some(1));
        assert_eq!(prefix.find(one, other, &[1, 2]), None, "another tenant, even with the same hash");
        assert_eq!(prefix.find(two, root, &[3, 4]), None, "another beginning, even with the same hash");
        assert_eq!(prefix.find(one, root, &[3, 4]), None, "other tokens, even with the same hash");
        assert_eq!(prefix.register(5, two, first, &[3, 4]), second, "a duplicate keeps the first page");
        assert!(!prefix.forget(5));
    }

    #[test]
    fn a_full_bucket_is_still_right() {
        let mut prefix = Prefix::new(64, 1, 3);
        for page in 0..64 {
            prefix.register(page, 5, Prefix::root(9), &[page]);
        }
        for page in (0..64).step_by(3) {
            assert!(prefix.forget(page));
        }
        for page in 0..64 {
            assert_eq!(prefix.find(5, Prefix::root(9), &[page]), (page % 3 != 0).then_some(page));
        }
    }
}
