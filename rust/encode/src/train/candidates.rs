//! The pairs that may be merged, the most frequent first, of equally frequent ones the smaller. Knows no words.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

/// A pair with what was known of it at some time. Its count has not grown since.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    pub(super) count: u64,
    pair: Reverse<u64>,
    start: usize,
    length: u32,
    /// When it was counted.
    pub(super) time: u32,
}

impl Candidate {
    /// A pair of symbols that occurs `count` times, at the places of a list.
    pub(super) fn new(left: u32, right: u32, count: u64, list: Range<usize>, time: u32) -> Self {
        let pair = Reverse(u64::from(left) << 32 | u64::from(right));
        Candidate { count, pair, start: list.start, length: list.len() as u32, time }
    }

    pub(super) fn pair(&self) -> (u32, u32) {
        ((self.pair.0 >> 32) as u32, self.pair.0 as u32)
    }

    pub(super) fn list(&self) -> Range<usize> {
        self.start..self.start + self.length as usize
    }
}

/// See the module. Those far less frequent than the first wait without an order; the others are sorted at once, and only those
/// that come later go through a heap.
pub(super) struct Candidates {
    sorted: Vec<Candidate>,
    late: BinaryHeap<Candidate>,
    /// Whoever occurs less often than this waits.
    floor: u64,
    waiting: Vec<Candidate>,
}

impl Candidates {
    /// From some in any order.
    pub(super) fn new(all: Vec<Candidate>) -> Self {
        Candidates { sorted: Vec::new(), late: BinaryHeap::new(), floor: u64::MAX, waiting: all }
    }

    pub(super) fn push(&mut self, candidate: Candidate) {
        if candidate.count >= self.floor {
            self.late.push(candidate);
        } else {
            self.waiting.push(candidate);
        }
    }

    /// The first; those that occur less often than `least` are forgotten.
    pub(super) fn pop(&mut self, least: u64) -> Option<Candidate> {
        if self.sorted.is_empty() && self.late.is_empty() {
            let most = self.waiting.iter().map(|candidate| candidate.count).max()?;
            // Of the rare ones there are many of each count.
            self.floor = if most < 64 { most } else { most / 2 };
            let mut index = 0;
            while index < self.waiting.len() {
                let count = self.waiting[index].count;
                if count >= self.floor {
                    self.sorted.push(self.waiting.swap_remove(index));
                } else if count < least {
                    self.waiting.swap_remove(index);
                } else {
                    index += 1;
                }
            }
            self.sorted.sort_unstable();
        }
        if self.late.peek() > self.sorted.last() {
            self.late.pop()
        } else {
            self.sorted.pop()
        }
    }
}
