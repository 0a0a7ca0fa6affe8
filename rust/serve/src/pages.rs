//! The pages: how often each is held, and the queue of those that are free, longest unused first.
//!
//! One arena, linked by indices, so that a page leaves the middle of the queue in constant time. Knows nothing of tokens.

/// No page.
pub const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Page {
    references: u32,
    previous: u32,
    next: u32,
}

/// Reference counts and the free queue of all pages.
pub struct Pages {
    pages: Vec<Page>,
    first: u32,
    last: u32,
    num_free: usize,
}

impl Pages {
    /// All pages free, in the order of their numbers.
    pub fn new(count: usize) -> Self {
        let end = count as u32;
        let pages = (0..end)
            .map(|index| Page {
                references: 0,
                previous: if index == 0 { NONE } else { index - 1 },
                next: if index + 1 == end { NONE } else { index + 1 },
            })
            .collect();
        let (first, last) = if count == 0 { (NONE, NONE) } else { (0, end - 1) };
        Self { pages, first, last, num_free: count }
    }

    /// Number of pages.
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Whether there is no page at all.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Number of pages that nobody holds.
    pub fn num_free(&self) -> usize {
        self.num_free
    }

    /// How often a page is held.
    pub fn references(&self, page: u32) -> u32 {
        self.pages[page as usize].references
    }

    /// The page that [`Pages::take`] would give.
    pub fn peek(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    /// Takes the longest unused free page, held once.
    pub fn take(&mut self) -> Option<u32> {
        let page = self.peek()?;
        self.hold(page);
        Some(page)
    }

    /// Holds a page once more, out of the free queue if it was there. Says whether it was free.
    pub fn hold(&mut self, page: u32) -> bool {
        let Page { references, previous, next } = self.pages[page as usize];
        self.pages[page as usize].references = references + 1;
        if references > 0 {
            return false;
        }
        match previous {
            NONE => self.first = next,
            index => self.pages[index as usize].next = next,
        }
        match next {
            NONE => self.last = previous,
            index => self.pages[index as usize].previous = previous,
        }
        self.num_free -= 1;
        true
    }

    /// Drops one hold. The last one frees the page: to the end of the queue if it is worth keeping, else to the front.
    pub fn drop_hold(&mut self, page: u32, keep: bool) -> bool {
        let entry = &mut self.pages[page as usize];
        debug_assert!(entry.references > 0, "page {page} is free already");
        entry.references -= 1;
        if entry.references > 0 {
            return false;
        }
        if keep {
            entry.previous = self.last;
            entry.next = NONE;
            match self.last {
                NONE => self.first = page,
                index => self.pages[index as usize].next = page,
            }
            self.last = page;
        } else {
            entry.previous = NONE;
            entry.next = self.first;
            match self.first {
                NONE => self.last = page,
                index => self.pages[index as usize].previous = page,
            }
            self.first = page;
        }
        self.num_free += 1;
        true
    }

    /// The free pages in the order in which they would be taken; for tests.
    pub fn free_order(&self) -> Vec<u32> {
        let mut order = Vec::with_capacity(self.num_free);
        let mut page = self.first;
        while page != NONE {
            order.push(page);
            page = self.pages[page as usize].next;
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_leaves_the_middle_of_the_queue() {
        let mut pages = Pages::new(4);
        assert!(pages.hold(2));
        assert!(!pages.hold(2));
        assert_eq!(pages.free_order(), [0, 1, 3]);
        assert!(!pages.drop_hold(2, true));
        assert!(pages.drop_hold(2, true));
        assert_eq!(pages.free_order(), [0, 1, 3, 2]);
        assert_eq!(pages.take(), Some(0));
        assert!(pages.drop_hold(0, false));
        assert_eq!(pages.free_order(), [0, 1, 3, 2]);
    }

    #[test]
    fn the_queue_runs_empty_and_fills_again() {
        let mut pages = Pages::new(2);
        assert_eq!((pages.take(), pages.take(), pages.take()), (Some(0), Some(1), None));
        pages.drop_hold(1, true);
        pages.drop_hold(0, false);
        assert_eq!(pages.free_order(), [0, 1]);
        assert_eq!(pages.num_free(), 2);
    }
}
