//! The allocator: one list of pages a sequence, over [`Pages`] and [`Prefix`].
//!
//! Allocate with prefix reuse (whole pages are shared, the beginning of one more is copied), append, commit what was computed, fork with copy-on-write, truncate, slide, pin, swap, release.
//! Every operation costs a constant time per page it touches. Knows nothing of why a scheduler asks.

use std::hash::BuildHasher;

use crate::pages::{Pages, NONE};
use crate::prefix::{Before, Prefix};
use crate::Error;

struct Sequence {
    pages: Vec<u32>,
    tokens: Vec<u32>,
    /// Full pages whose content is computed and registered (or known under another page).
    num_committed: usize,
    /// Leading tokens that have their keys and values, the last page that is not full included.
    num_computed: usize,
    /// The last committed page, as what stands before the next one.
    before: Before,
    /// Hash of all committed pages.
    hash: u64,
    /// Leading pages given back by the sliding window.
    num_slid: usize,
    pinned: bool,
    salt: u64,
    /// Its pages were given back and their content is kept by the caller.
    swapped: bool,
}

struct Slot {
    generation: u32,
    sequence: Option<Sequence>,
}

/// What [`PageAllocator::allocate`] gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Names the sequence from now on.
    pub handle: u64,
    /// Leading tokens whose keys and values lie in the cache already.
    pub num_cached: usize,
    /// A page whose first tokens are wanted, and the page of the sequence to copy it to before the next step.
    pub copy: Option<(u32, u32)>,
}

/// Counts since the start, and the state now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// All pages.
    pub num_pages: usize,
    /// Pages nobody holds.
    pub num_free: usize,
    /// Pages somebody holds.
    pub num_held: usize,
    /// Pages found by content, free or held.
    pub num_registered: usize,
    /// Sequences, pins included.
    pub num_sequences: usize,
    /// Pins.
    pub num_pins: usize,
    /// Sequences that are swapped out.
    pub num_swapped: usize,
    /// Tokens asked for by `allocate`.
    pub queried_tokens: u64,
    /// Tokens of those that were in the cache.
    pub cached_tokens: u64,
    /// Tokens of those that came with a copy of a page that agreed in its beginning.
    pub copied_tokens: u64,
    /// Registered pages that were overwritten.
    pub evictions: u64,
    /// Pages copied because two sequences went different ways.
    pub copies: u64,
}

/// Hands out the pages of one KV cache.
pub struct PageAllocator {
    page_size: usize,
    pages: Pages,
    prefix: Prefix,
    slots: Vec<Slot>,
    free_slots: Vec<u32>,
    counts: Statistics,
}

impl PageAllocator {
    /// All pages free and nothing cached.
    pub fn new(num_pages: usize, page_size: usize) -> Result<Self, Error> {
        if page_size == 0 {
            return Err(Error::PageSizeZero);
        }
        if num_pages > i32::MAX as usize || num_pages.checked_mul(page_size).is_none() {
            return Err(Error::TooManyPages(num_pages));
        }
        let seed = std::collections::hash_map::RandomState::new().hash_one(0);
        Ok(Self {
            page_size,
            pages: Pages::new(num_pages),
            prefix: Prefix::new(num_pages, page_size, seed),
            slots: Vec::new(),
            free_slots: Vec::new(),
            counts: Statistics::default(),
        })
    }

    /// Tokens a page.
    pub fn page_size(&self) -> usize {
        self.page_size
    }

    fn slot_of(&self, handle: u64) -> Result<usize, Error> {
        let slot = (handle & u64::from(u32::MAX)) as usize;
        match self.slots.get(slot) {
            Some(found) if u64::from(found.generation) == handle >> 32 && found.sequence.is_some() => Ok(slot),
            _ => Err(Error::UnknownHandle(handle)),
        }
    }

    fn get(&self, handle: u64) -> Result<&Sequence, Error> {
        let slot = self.slot_of(handle)?;
        match &self.slots[slot].sequence {
            Some(sequence) if sequence.swapped => Err(Error::Swapped(handle)),
            Some(sequence) => Ok(sequence),
            None => Err(Error::UnknownHandle(handle)),
        }
    }

    fn get_mut(&mut self, handle: u64) -> Result<&mut Sequence, Error> {
        self.get(handle)?;
        let slot = self.slot_of(handle)?;
        self.slots[slot].sequence.as_mut().ok_or(Error::UnknownHandle(handle))
    }

    fn insert(&mut self, sequence: Sequence) -> u64 {
        self.counts.num_sequences += 1;
        self.counts.num_pins += usize::from(sequence.pinned);
        let slot = match self.free_slots.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Slot { generation: 0, sequence: None });
                self.slots.len() as u32 - 1
            }
        };
        let entry = &mut self.slots[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.sequence = Some(sequence);
        u64::from(entry.generation) << 32 | u64::from(slot)
    }

    /// A free page to be overwritten; `None` when there is none.
    fn take(&mut self) -> Option<u32> {
        let page = self.pages.take()?;
        self.counts.evictions += u64::from(self.prefix.forget(page));
        Some(page)
    }

    fn give(&mut self, page: u32) {
        let keep = self.prefix.serial(page) != 0;
        self.pages.drop_hold(page, keep);
    }

    /// How many leading tokens of this prompt lie in the cache. At least the last token is never counted, because its
    /// logits are wanted.
    pub fn lookup(&mut self, tokens: &[u32], salt: u64) -> usize {
        let reusable = tokens.len().saturating_sub(1);
        let mut before = Prefix::root(salt);
        let mut hash = self.prefix.start(salt);
        let mut count = 0;
        for chunk in tokens[..reusable].chunks_exact(self.page_size) {
            hash = self.prefix.chain(hash, chunk);
            let Some(page) = self.prefix.find(hash, before, chunk) else { break };
            before = self.prefix.after(page);
            count += self.page_size;
        }
        count + self.prefix.find_beginning(before, &tokens[count..reusable]).map_or(0, |(_, common)| common)
    }

    /// Pages for a whole prompt, sharing those that hold its beginning already; `None` when there is no room, and then
    /// nothing has changed. `headroom` free pages must remain.
    pub fn allocate(&mut self, tokens: &[u32], salt: u64, headroom: usize) -> Result<Option<Admission>, Error> {
        if tokens.is_empty() {
            return Err(Error::EmptySequence);
        }
        let total = tokens.len().div_ceil(self.page_size);
        let reusable = tokens.len() - 1;
        let mut pages = Vec::with_capacity(total + 1);
        let mut before = Prefix::root(salt);
        let mut hash = self.prefix.start(salt);
        for chunk in tokens[..reusable].chunks_exact(self.page_size) {
            let next = self.prefix.chain(hash, chunk);
            let Some(page) = self.prefix.find(next, before, chunk) else { break };
            (hash, before) = (next, self.prefix.after(page));
            self.pages.hold(page);
            pages.push(page);
        }
        let num_shared = pages.len();
        if self.pages.num_free() < total - num_shared + headroom {
            for page in pages.into_iter().rev() {
                self.give(page);
            }
            return Ok(None);
        }
        // Held meanwhile, so that the page copied from is not the one that is overwritten. Without a page to spare for that,
        // its tokens are computed instead.
        let start = num_shared * self.page_size;
        let mut beginning = self.prefix.find_beginning(before, &tokens[start..reusable]);
        if let Some((page, _)) = beginning {
            self.pages.hold(page);
            if self.pages.num_free() < total - num_shared + headroom {
                self.give(page);
                beginning = None;
            }
        }
        while pages.len() < total {
            match self.take() {
                Some(page) => pages.push(page),
                None => break,
            }
        }
        let copy = beginning.map(|(page, _)| (page, pages[num_shared]));
        let num_copied = beginning.map_or(0, |(_, common)| common);
        if let Some((page, _)) = beginning {
            self.give(page);
            self.counts.copies += 1;
        }
        let num_cached = start + num_copied;
        self.counts.queried_tokens += tokens.len() as u64;
        self.counts.cached_tokens += num_cached as u64;
        self.counts.copied_tokens += num_copied as u64;
        let handle = self.insert(Sequence {
            pages,
            tokens: tokens.to_vec(),
            num_committed: num_shared,
            num_computed: num_cached,
            before,
            hash,
            num_slid: 0,
            pinned: false,
            salt,
            swapped: false,
        });
        Ok(Some(Admission { handle, num_cached, copy }))
    }

    /// Appends one token; `Ok(false)` when a page is needed and none is free. A page shared with a fork is replaced by a
    /// fresh one first, and `copies` gets (from, to).
    pub fn append(&mut self, handle: u64, token: u32, copies: &mut Vec<(u32, u32)>) -> Result<bool, Error> {
        let page_size = self.page_size;
        let sequence = self.get(handle)?;
        if sequence.pinned {
            return Err(Error::Pinned(handle));
        }
        let room = sequence.pages.len() * page_size - sequence.tokens.len();
        let last = sequence.pages.last().copied().unwrap_or(NONE);
        if room == 0 {
            let Some(page) = self.take() else { return Ok(false) };
            self.get_mut(handle)?.pages.push(page);
        } else if self.pages.references(last) > 1 {
            let Some(page) = self.take() else { return Ok(false) };
            copies.push((last, page));
            self.counts.copies += 1;
            self.give(last);
            if let Some(entry) = self.get_mut(handle)?.pages.last_mut() {
                *entry = page;
            }
        }
        self.get_mut(handle)?.tokens.push(token);
        Ok(true)
    }

    /// Says that the first `num_computed` tokens have their keys and values; full pages become shareable.
    pub fn commit(&mut self, handle: u64, num_computed: usize) -> Result<(), Error> {
        self.get(handle)?;
        let slot = self.slot_of(handle)?;
        let page_size = self.page_size;
        let Self { slots, prefix, .. } = self;
        let sequence = slots[slot].sequence.as_mut().ok_or(Error::UnknownHandle(handle))?;
        let length = sequence.tokens.len();
        if num_computed > length {
            return Err(Error::BeyondEnd { asked: num_computed, length });
        }
        let first = sequence.num_committed;
        let ready = sequence.tokens[first * page_size..].chunks_exact(page_size).zip(&sequence.pages[first..]);
        let ready = ready.take((num_computed / page_size).saturating_sub(first));
        let mut hash = sequence.hash;
        // Hash all, then register all: the memory of a page is on its way while the next one is hashed.
        let hashes: Vec<u64> = ready
            .clone()
            .map(|(tokens, page)| {
                hash = prefix.chain(hash, tokens);
                prefix.prefetch(hash, *page);
                hash
            })
            .collect();
        for ((tokens, page), hash) in ready.zip(hashes) {
            sequence.before = prefix.register(*page, hash, sequence.before, tokens);
            sequence.hash = hash;
            sequence.num_committed += 1;
        }
        sequence.num_computed = sequence.num_computed.max(num_computed);
        Ok(())
    }

    /// A second sequence with the same tokens and the same pages.
    pub fn fork(&mut self, handle: u64) -> Result<u64, Error> {
        let source = self.get(handle)?;
        if source.pinned {
            return Err(Error::Pinned(handle));
        }
        let child = Sequence {
            pages: source.pages.clone(),
            tokens: source.tokens.clone(),
            num_committed: source.num_committed,
            num_computed: source.num_computed,
            before: source.before,
            hash: source.hash,
            num_slid: source.num_slid,
            pinned: false,
            salt: source.salt,
            swapped: false,
        };
        Ok(self.hold_and_insert(child))
    }

    /// Keeps the committed pages of a sequence in the cache until the returned handle is released.
    pub fn pin(&mut self, handle: u64) -> Result<u64, Error> {
        let source = self.get(handle)?;
        let num_pages = source.num_committed;
        let pin = Sequence {
            pages: source.pages[..num_pages].to_vec(),
            tokens: source.tokens[..num_pages * self.page_size].to_vec(),
            num_committed: num_pages,
            num_computed: num_pages * self.page_size,
            before: source.before,
            hash: source.hash,
            num_slid: source.num_slid.min(num_pages),
            pinned: true,
            salt: source.salt,
            swapped: false,
        };
        Ok(self.hold_and_insert(pin))
    }

    fn hold_and_insert(&mut self, sequence: Sequence) -> u64 {
        for page in sequence.pages.iter().filter(|page| **page != NONE) {
            self.pages.hold(*page);
        }
        self.insert(sequence)
    }

    /// Cuts a sequence back to `length` tokens (at least 1) and frees the pages behind.
    pub fn truncate(&mut self, handle: u64, length: usize) -> Result<(), Error> {
        let page_size = self.page_size;
        let sequence = self.get_mut(handle)?;
        if sequence.pinned {
            return Err(Error::Pinned(handle));
        }
        let floor = sequence.num_committed * page_size;
        if length == 0 || length > sequence.tokens.len() || length < floor {
            return Err(Error::BeyondEnd { asked: length, length: sequence.tokens.len() });
        }
        sequence.tokens.truncate(length);
        sequence.num_computed = sequence.num_computed.min(length);
        let dropped = sequence.pages.split_off(length.div_ceil(page_size));
        for page in dropped.into_iter().rev() {
            self.give(page);
        }
        Ok(())
    }

    /// Gives back the pages that lie wholly before the last `window` tokens; their table entries become -1.
    pub fn slide(&mut self, handle: u64, window: usize) -> Result<usize, Error> {
        let page_size = self.page_size;
        let sequence = self.get_mut(handle)?;
        if sequence.pinned {
            return Err(Error::Pinned(handle));
        }
        let behind = sequence.tokens.len().saturating_sub(window) / page_size;
        let end = behind.min(sequence.num_committed).max(sequence.num_slid);
        let start = sequence.num_slid;
        sequence.num_slid = end;
        let freed: Vec<u32> = sequence.pages[start..end].iter_mut().map(|page| std::mem::replace(page, NONE)).collect();
        for page in &freed {
            self.give(*page);
        }
        Ok(freed.len())
    }

    /// Gives back all pages of a sequence, which stays; the pages, in order, whose content the caller keeps. Content that is
    /// shared with others, or is not overwritten meanwhile, will be found again by `swap_in`.
    pub fn swap_out(&mut self, handle: u64) -> Result<Vec<u32>, Error> {
        let sequence = self.get_mut(handle)?;
        if sequence.pinned {
            return Err(Error::Pinned(handle));
        }
        if sequence.num_slid > 0 {
            return Err(Error::Slid(handle));
        }
        sequence.swapped = true;
        let pages = std::mem::take(&mut sequence.pages);
        for page in pages.iter().rev() {
            self.give(*page);
        }
        self.counts.num_swapped += 1;
        Ok(pages)
    }

    /// Pages for a sequence that was swapped out: the (place, page) pairs that the caller fills with what it kept. `None`
    /// when there is no room for that and `headroom` more; then nothing has changed.
    pub fn swap_in(&mut self, handle: u64, headroom: usize) -> Result<Option<Vec<(u32, u32)>>, Error> {
        let slot = self.slot_of(handle)?;
        let page_size = self.page_size;
        let Some(sequence) = self.slots[slot].sequence.as_ref().filter(|sequence| sequence.swapped) else {
            return Err(Error::NotSwapped(handle));
        };
        let total = sequence.tokens.len().div_ceil(page_size);
        let mut before = Prefix::root(sequence.salt);
        let mut hash = self.prefix.start(sequence.salt);
        let mut pages = Vec::with_capacity(total + 1);
        for chunk in sequence.tokens.chunks_exact(page_size).take(sequence.num_committed) {
            let next = self.prefix.chain(hash, chunk);
            let Some(page) = self.prefix.find(next, before, chunk) else { break };
            (hash, before) = (next, self.prefix.after(page));
            pages.push(page);
        }
        for page in &pages {
            self.pages.hold(*page);
        }
        let num_found = pages.len();
        if self.pages.num_free() < total - num_found + headroom {
            for page in pages.into_iter().rev() {
                self.give(page);
            }
            return Ok(None);
        }
        while pages.len() < total {
            match self.take() {
                Some(page) => pages.push(page),
                None => break,
            }
        }
        let wanted = pages.iter().enumerate().skip(num_found).map(|(place, page)| (place as u32, *page)).collect();
        if let Some(sequence) = self.slots[slot].sequence.as_mut() {
            sequence.swapped = false;
            sequence.pages = pages;
            sequence.num_committed = num_found;
            sequence.hash = hash;
            sequence.before = before;
        }
        self.counts.num_swapped -= 1;
        Ok(Some(wanted))
    }

    /// Ends a sequence. Its pages become free, last first, so that beginnings stay longest in the cache; a last page that is
    /// computed in part can be found, too.
    pub fn release(&mut self, handle: u64) -> Result<(), Error> {
        let slot = self.slot_of(handle)?;
        let sequence = self.slots[slot].sequence.take().ok_or(Error::UnknownHandle(handle))?;
        self.free_slots.push(slot as u32);
        self.counts.num_sequences -= 1;
        self.counts.num_pins -= usize::from(sequence.pinned);
        self.counts.num_swapped -= usize::from(sequence.swapped);
        let (first, end) = (sequence.num_committed * self.page_size, sequence.num_computed);
        if let Some(page) = sequence.pages.get(sequence.num_committed).filter(|page| **page != NONE && first < end) {
            if self.pages.references(*page) == 1 {
                self.prefix.register_beginning(*page, sequence.before, &sequence.tokens[first..end]);
            }
        }
        for page in sequence.pages.into_iter().rev().filter(|page| *page != NONE) {
            self.give(page);
        }
        Ok(())
    }

    /// Tokens of a sequence.
    pub fn length(&self, handle: u64) -> Result<usize, Error> {
        let slot = self.slot_of(handle)?;
        let sequence = self.slots[slot].sequence.as_ref().ok_or(Error::UnknownHandle(handle))?;
        Ok(sequence.tokens.len())
    }

    /// The pages of a sequence in order.
    pub fn pages(&self, handle: u64) -> Result<&[u32], Error> {
        Ok(&self.get(handle)?.pages)
    }

    /// Writes the pages of a sequence into a row, -1 where there is none.
    pub fn write_row(&self, handle: u64, row: &mut [i32]) -> Result<usize, Error> {
        let pages = &self.get(handle)?.pages;
        if pages.len() > row.len() {
            return Err(Error::RowTooShort { pages: pages.len(), room: row.len() });
        }
        for (out, page) in row.iter_mut().zip(pages) {
            *out = if *page == NONE { -1 } else { *page as i32 };
        }
        row[pages.len()..].fill(-1);
        Ok(pages.len())
    }

    /// Free pages.
    pub fn num_free(&self) -> usize {
        self.pages.num_free()
    }

    /// Forgets every cached prefix; sequences keep their pages, and new ones share nothing with them.
    pub fn clear_cache(&mut self) {
        for page in 0..self.pages.len() as u32 {
            self.prefix.forget(page);
        }
    }

    /// Counts and state.
    pub fn statistics(&self) -> Statistics {
        let num_free = self.pages.num_free();
        let num_pages = self.pages.len();
        Statistics {
            num_pages,
            num_free,
            num_held: num_pages - num_free,
            num_registered: self.prefix.num_registered(),
            ..self.counts
        }
    }

    /// Counts every reference anew and compares, for tests: a sentence about the first difference, or nothing.
    pub fn check(&self) -> Result<(), String> {
        let mut expected = vec![0u32; self.pages.len()];
        for sequence in self.slots.iter().filter_map(|slot| slot.sequence.as_ref()) {
            for page in sequence.pages.iter().filter(|page| **page != NONE) {
                expected[*page as usize] += 1;
            }
        }
        for (page, count) in expected.iter().enumerate() {
            let found = self.pages.references(page as u32);
            if found != *count {
                return Err(format!("page {page} has {found} references, its sequences hold it {count} times"));
            }
        }
        let free = self.pages.free_order();
        let unheld = expected.iter().filter(|count| **count == 0).count();
        if free.len() != unheld || free.len() != self.pages.num_free() {
            return Err(format!("{} pages in the free queue, {unheld} are not held", free.len()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(range: std::ops::Range<u32>) -> Vec<u32> {
        range.collect()
    }

    #[test]
    fn a_prefix_is_shared_only_after_it_was_computed() {
        let mut pool = PageAllocator::new(16, 4).unwrap();
        let first = pool.allocate(&tokens(0..10), 0, 0).unwrap().unwrap();
        let early = pool.allocate(&tokens(0..10), 0, 0).unwrap().unwrap();
        assert_eq!(early.num_cached, 0);
        pool.commit(first.handle, 10).unwrap();
        let late = pool.allocate(&tokens(0..10), 0, 0).unwrap().unwrap();
        assert_eq!((late.num_cached, late.copy), (8, None));
        assert_eq!(pool.pages(late.handle).unwrap()[..2], pool.pages(first.handle).unwrap()[..2]);
        assert_eq!(pool.allocate(&tokens(0..10), 1, 0).unwrap().unwrap().num_cached, 0);
        pool.check().unwrap();
    }

    #[test]
    fn released_pages_are_found_again_until_they_are_overwritten() {
        let mut pool = PageAllocator::new(3, 2).unwrap();
        let first = pool.allocate(&tokens(0..5), 0, 0).unwrap().unwrap();
        pool.commit(first.handle, 5).unwrap();
        pool.release(first.handle).unwrap();
        assert_eq!(pool.lookup(&tokens(0..5), 0), 4);
        let other = pool.allocate(&[9, 9, 9], 0, 0).unwrap().unwrap();
        assert_eq!(pool.lookup(&tokens(0..5), 0), 2, "the deeper page goes first");
        pool.release(other.handle).unwrap();
        assert_eq!(pool.release(first.handle), Err(Error::UnknownHandle(first.handle)));
        pool.check().unwrap();
    }

    #[test]
    fn a_fork_copies_the_last_page_when_it_is_written() {
        let mut pool = PageAllocator::new(8, 4).unwrap();
        let one = pool.allocate(&tokens(0..6), 0, 0).unwrap().unwrap().handle;
        pool.commit(one, 6).unwrap();
        let two = pool.fork(one).unwrap();
        let mut copies = Vec::new();
        assert!(pool.append(two, 7, &mut copies).unwrap());
        assert_eq!(copies.len(), 1);
        assert!(pool.append(one, 8, &mut copies).unwrap());
        assert_eq!(copies.len(), 1, "nobody shares the page any more");
        assert_ne!(pool.pages(one).unwrap()[1], pool.pages(two).unwrap()[1]);
        assert_eq!(pool.pages(one).unwrap()[0], pool.pages(two).unwrap()[0]);
        pool.check().unwrap();
    }

    #[test]
    fn no_room_changes_nothing() {
        let mut pool = PageAllocator::new(4, 4).unwrap();
        let one = pool.allocate(&tokens(0..12), 0, 0).unwrap().unwrap().handle;
        let before = pool.statistics();
        assert_eq!(pool.allocate(&tokens(50..60), 0, 0).unwrap(), None);
        assert_eq!(pool.allocate(&tokens(50..52), 0, 1).unwrap(), None);
        assert_eq!(pool.statistics(), before);
        let mut copies = Vec::new();
        for token in 0..4 {
            assert!(pool.append(one, token, &mut copies).unwrap());
        }
        assert!(!pool.append(one, 4, &mut copies).unwrap());
        assert_eq!(pool.length(one).unwrap(), 16);
    }

    #[test]
    fn swapped_sequences_come_back_with_what_was_not_overwritten() {
        let mut pool = PageAllocator::new(4, 2).unwrap();
        let one = pool.allocate(&tokens(0..5), 0, 0).unwrap().unwrap().handle;
        pool.commit(one, 5).unwrap();
        assert_eq!(pool.swap_out(one).unwrap(), [0, 1, 2]);
        assert_eq!((pool.num_free(), pool.length(one).unwrap()), (4, 5));
        assert_eq!(pool.append(one, 1, &mut Vec::new()), Err(Error::Swapped(one)));
        assert_eq!(pool.swap_out(one), Err(Error::Swapped(one)));
        let other = pool.allocate(&[9, 9, 9], 0, 0).unwrap().unwrap().handle;
        assert_eq!(pool.swap_in(one, 0).unwrap(), None, "one page is missing, and nothing has changed");
        assert_eq!(pool.num_free(), 2);
        pool.release(other).unwrap();
        let back = pool.swap_in(one, 0).unwrap().unwrap();
        assert_eq!(back.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [2]);
        assert_eq!(pool.swap_in(one, 0), Err(Error::NotSwapped(one)));
        pool.commit(one, 5).unwrap();
        pool.swap_out(one).unwrap();
        pool.release(one).unwrap();
        assert_eq!(pool.statistics().num_swapped, 0);
        pool.check().unwrap();
    }

    #[test]
    fn slide_truncate_and_pin() {
        let mut pool = PageAllocator::new(8, 2).unwrap();
        let one = pool.allocate(&tokens(0..9), 0, 0).unwrap().unwrap().handle;
        pool.commit(one, 8).unwrap();
        let pin = pool.pin(one).unwrap();
        assert_eq!(pool.append(pin, 1, &mut Vec::new()), Err(Error::Pinned(pin)));
        assert_eq!(pool.slide(one, 4).unwrap(), 2);
        let mut row = [7; 6];
        assert_eq!(pool.write_row(one, &mut row).unwrap(), 5);
        assert_eq!((row[0], row[1], row[5]), (-1, -1, -1));
        assert!(row[2] >= 0);
        pool.truncate(one, 8).unwrap();
        assert!(pool.truncate(one, 7).is_err(), "a committed page is not cut");
        pool.release(one).unwrap();
        assert_eq!(pool.num_free(), 4);
        assert_eq!(pool.lookup(&tokens(0..9), 0), 8);
        pool.release(pin).unwrap();
        assert_eq!(pool.num_free(), 8);
        pool.check().unwrap();
    }
}
