//! The prefix cache: finds the page that holds given tokens after a given prefix.
//!
//! A chain of hashes over full pages chooses the bucket. Every registered page has a serial number that is never used
//! again; a page is known by the serial of the page before it (or by the salt of its tenant, for the first) and its own
//! tokens, and both are compared on every hit: equal hashes of different content cost a comparison and nothing else. The
//! table is chained through the pages, sized once, and never grows or moves. Knows nothing of who holds a page.
//!
//! A second chain joins the pages that follow the same page; it hangs on that page, so that a new page touches no memory
//! beyond its own and its parent's. Through it a page is found whose first tokens alone agree, and a page that was never
//! filled is found at all: a prompt that grows by a letter then costs a copy of one page.

use crate::pages::NONE;

/// Serials from here on are salts, that is, starts of a sequence.
const SALT_BIT: u64 = 1 << 63;

/// Pages looked at for a beginning in common, the newest first: a bound, so that a popular parent costs no more.
const MOST_SIBLINGS: usize = 8;
/// The same with pages that only share the bucket of their salts.
const MOST_VISITED: usize = 32;
const MOST_ROOTS: usize = 1 << 12;

#[derive(Clone, Copy)]
struct Entry {
    parent: u64,
    /// 0 while the page is not registered.
    serial: u64,
    bucket: u32,
    next: u32,
    /// The page before this one; NONE for the first of a sequence.
    parent_page: u32,
    /// Neighbours among the pages with this parent, the newer one first.
    newer: u32,
    older: u32,
    /// The newest page that follows this one.
    newest_child: u32,
    /// Leading tokens that are known; less than a page is only found by `find_beginning`.
    filled: u32,
}

const EMPTY: Entry = Entry {
    parent: 0,
    serial: 0,
    bucket: 0,
    next: NONE,
    parent_page: NONE,
    newer: NONE,
    older: NONE,
    newest_child: NONE,
    filled: 0,
};

/// What stands before a page: a registered page, or the start of a sequence of some salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    serial: u64,
    page: u32,
}

/// Which registered page holds what.
pub struct Prefix {
    page_size: usize,
    entries: Vec<Entry>,
    tokens: Vec<u32>,
    buckets: Vec<u32>,
    /// The newest first page of each bucket of salts.
    roots: Vec<u32>,
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
            entries: vec![EMPTY; num_pages],
            tokens: vec![0; num_pages * page_size],
            buckets: vec![NONE; num_buckets],
            roots: vec![NONE; num_buckets.min(MOST_ROOTS)],
            mask: num_buckets as u64 - 1,
            seed: seed | 1,
            next_serial: 1,
            num_registered: 0,
        }
    }

    /// What stands before the first page of a sequence with this salt.
    pub fn root(salt: u64) -> Before {
        Before { serial: salt | SALT_BIT, page: NONE }
    }

    /// What stands before the page after `page`.
    pub fn after(&self, page: u32) -> Before {
        Before { serial: self.serial(page), page }
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

    fn find_in(&self, bucket: u32, before: Before, tokens: &[u32]) -> Option<u32> {
        let mut page = self.buckets[bucket as usize];
        while page != NONE {
            let entry = &self.entries[page as usize];
            if entry.parent == before.serial && self.stored(page) == tokens {
                return Some(page);
            }
            page = entry.next;
        }
        None
    }

    /// The registered page that holds these tokens (one full page of them) after `before`; `hash` is the chain's.
    pub fn find(&self, hash: u64, before: Before, tokens: &[u32]) -> Option<u32> {
        self.find_in(self.bucket(hash), before, tokens)
    }

    /// Where the newest page after `before` is kept; `None` when the page before was overwritten meanwhile.
    fn newest(&mut self, before: Before) -> Option<&mut u32> {
        if before.page == NONE {
            let bucket = mix(before.serial ^ self.seed, 0x9fb2_1c65_1e98_df25) as usize % self.roots.len();
            return Some(&mut self.roots[bucket]);
        }
        let entry = &mut self.entries[before.page as usize];
        (entry.serial == before.serial).then_some(&mut entry.newest_child)
    }

    /// The page after `before` that shares the longest beginning with `tokens`, and the length of that.
    pub fn find_beginning(&mut self, before: Before, tokens: &[u32]) -> Option<(u32, usize)> {
        let mut best = None;
        let mut page = *self.newest(before)?;
        let mut siblings = 0;
        for _ in 0..MOST_VISITED {
            let Some(entry) = self.entries.get(page as usize).filter(|_| siblings < MOST_SIBLINGS) else { break };
            if entry.parent == before.serial {
                siblings += 1;
                let known = &self.stored(page)[..entry.filled as usize];
                let common = known.iter().zip(tokens).take_while(|(left, right)| left == right).count();
                if common > best.map_or(0, |(_, longest)| longest) {
                    best = Some((page, common));
                }
            }
            page = entry.older;
        }
        best
    }

    /// Registers a page of which only the first tokens are computed, unless they are known already.
    pub fn register_beginning(&mut self, page: u32, before: Before, tokens: &[u32]) {
        if self.entries[page as usize].serial != 0 || tokens.is_empty() || tokens.len() >= self.page_size {
            return;
        }
        if self.find_beginning(before, tokens).is_some_and(|(_, common)| common == tokens.len()) {
            return;
        }
        self.enter(page, NONE, before, tokens);
    }

    /// Writes an entry and joins it to its siblings; `bucket` is NONE for a page that is not full.
    fn enter(&mut self, page: u32, bucket: u32, before: Before, tokens: &[u32]) {
        let serial = self.next_serial;
        self.next_serial += 1;
        let start = page as usize * self.page_size;
        self.tokens[start..start + tokens.len()].copy_from_slice(tokens);
        let older = self.newest(before).map_or(NONE, |newest| std::mem::replace(newest, page));
        if let Some(entry) = self.entries.get_mut(older as usize) {
            entry.newer = page;
        }
        let next = self.buckets.get(bucket as usize).copied().unwrap_or(NONE);
        let filled = tokens.len() as u32;
        let (parent, parent_page) = (before.serial, before.page);
        let own = Entry { parent, serial, bucket, next, parent_page, older, filled, ..EMPTY };
        self.entries[page as usize] = own;
        self.num_registered += 1;
    }

    /// Registers a computed page unless the same content is known already; what stands before the next one.
    pub fn register(&mut self, page: u32, hash: u64, before: Before, tokens: &[u32]) -> Before {
        let entry = self.entries[page as usize];
        if entry.serial != 0 {
            return self.after(page);
        }
        let bucket = self.bucket(hash);
        if let Some(known) = self.find_in(bucket, before, tokens) {
            return self.after(known);
        }
        self.enter(page, bucket, before, tokens);
        self.buckets[bucket as usize] = page;
        self.after(page)
    }

    fn leave_bucket(&mut self, page: u32, entry: Entry) {
        let head = self.buckets[entry.bucket as usize];
        if head == page {
            self.buckets[entry.bucket as usize] = entry.next;
            return;
        }
        let mut before = head;
        while self.entries[before as usize].next != page {
            before = self.entries[before as usize].next;
        }
        self.entries[before as usize].next = entry.next;
    }

    /// Forgets what a page holds, because it will be overwritten. Says whether it was registered.
    pub fn forget(&mut self, page: u32) -> bool {
        let entry = self.entries[page as usize];
        if entry.serial == 0 {
            return false;
        }
        if entry.bucket != NONE {
            self.leave_bucket(page, entry);
        }
        match entry.newer {
            NONE => {
                let before = Before { serial: entry.parent, page: entry.parent_page };
                if let Some(newest) = self.newest(before).filter(|newest| **newest == page) {
                    *newest = entry.older;
                }
            }
            newer => self.entries[newer as usize].older = entry.older,
        }
        if let Some(older) = self.entries.get_mut(entry.older as usize) {
            older.newer = entry.newer;
        }
        self.entries[page as usize] = EMPTY;
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
    fn beginnings_are_found_among_the_newest_pages_of_a_parent() {
        let mut prefix = Prefix::new(16, 4, 7);
        let root = Prefix::root(0);
        let hash = prefix.chain(prefix.start(0), &[1, 2, 3, 4]);
        let first = prefix.register(0, hash, root, &[1, 2, 3, 4]);
        prefix.register_beginning(1, root, &[1, 2, 9]);
        prefix.register_beginning(2, root, &[1, 2]);
        prefix.register_beginning(3, first, &[5]);
        assert_eq!(prefix.num_registered(), 3, "what is known already is not registered again");
        assert_eq!(prefix.find_beginning(root, &[1, 2, 9, 9]), Some((1, 3)));
        assert_eq!(prefix.find_beginning(root, &[1, 2, 3]), Some((0, 3)));
        assert_eq!(prefix.find_beginning(first, &[5, 6]), Some((3, 1)));
        assert_eq!(prefix.find_beginning(root, &[2]), None);
        assert!(prefix.forget(1));
        assert_eq!(prefix.find_beginning(root, &[1, 2, 9]), Some((0, 2)));
        for page in 4..14 {
            prefix.register_beginning(page, root, &[page, 9]);
        }
        assert_eq!(prefix.find_beginning(root, &[1, 2, 3]), None, "too old to be looked at");
        for page in 0..14 {
            prefix.forget(page);
        }
        assert!(prefix.roots.iter().chain(&prefix.buckets).all(|page| *page == NONE));
    }

    #[test]
    fn what_followed_an_overwritten_page_is_not_found_and_does_no_harm() {
        let mut prefix = Prefix::new(8, 2, 7);
        let root = Prefix::root(0);
        let hash = prefix.chain(prefix.start(0), &[1, 2]);
        let first = prefix.register(0, hash, root, &[1, 2]);
        prefix.register_beginning(1, first, &[3]);
        prefix.register_beginning(2, first, &[4]);
        prefix.forget(0);
        assert_eq!(prefix.find_beginning(first, &[3]), None);
        prefix.register_beginning(3, first, &[5]);
        let again = prefix.register(0, hash, root, &[1, 2]);
        assert_ne!(first, again);
        prefix.register_beginning(4, again, &[3]);
        for page in [2, 3, 1] {
            assert!(prefix.forget(page));
        }
        assert_eq!(prefix.find_beginning(again, &[3]), Some((4, 1)));
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
