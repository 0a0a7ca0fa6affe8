//! How often a pair must occur so that it can still be merged. Knows neither pairs nor words.
//!
//! Each token is spelled like one piece at most. So while more pieces of some count are no tokens than there are tokens left to
//! learn, one of them is not whole before the last token, and a pair inside it occurs as often as the piece: no pair that
//! occurs less often will be the most frequent one. Most pairs are so rare, and need not be kept.

/// See the module.
pub(super) struct Least {
    /// The different counts of pieces, the largest first, and how many pieces of each are no tokens.
    counts: Vec<u64>,
    pieces: Vec<usize>,
    /// The first counts, up to this one, have `sum` pieces.
    last: usize,
    sum: usize,
    /// Tokens left to learn.
    rest: usize,
    min_count: u64,
}

impl Least {
    /// For so many tokens to learn, of pairs that occur `min_count` times.
    pub(super) fn new(counts: &[u64], pieces: &[usize], rest: usize, min_count: u64) -> Self {
        let (last, sum) = (counts.len().saturating_sub(1), pieces.iter().sum());
        let mut this = Least { counts: counts.to_vec(), pieces: pieces.to_vec(), last, sum, rest, min_count };
        this.settle();
        this
    }

    /// Once a token was learned, and which of the counts the piece has that is spelled like it, if there is one.
    pub(super) fn learned(&mut self, piece: Option<usize>) {
        self.rest -= 1;
        if let Some(class) = piece {
            self.pieces[class] -= 1;
            self.sum -= usize::from(class <= self.last);
        }
        self.settle();
    }

    fn settle(&mut self) {
        while self.last > 0 && self.sum - self.pieces[self.last] >= self.rest.max(1) {
            self.sum -= self.pieces[self.last];
            self.last -= 1;
        }
    }

    /// The least count.
    pub(super) fn count(&self) -> u64 {
        match self.counts.get(self.last) {
            Some(&count) if self.sum >= self.rest.max(1) => count.max(self.min_count),
            _ => self.min_count,
        }
    }
}
