//! Byte-pair encoding of a piece by its longest tokens instead of by merges: take the longest token that goes with the one
//! before it, go back where none does. The work is linear in the length of the piece.
//!
//! It rests on a property of merges: tokens are the encoding of a text exactly if every two neighbours are the encoding of
//! their own text. The method and the test for two neighbours are those of the `bpe` crate of github/rust-gems. It needs a
//! vocabulary as training makes it; [`Backtrack::new`] says whether one is. Knows no split and no cache.

use crate::pairs::MergeTable;
use crate::trie::Trie;
use crate::vocab::NONE;

/// Up to so many bytes a token is short.
const SHORT_TOKEN: usize = 4;
/// So many bytes ahead the processor is asked for the first steps of the trie.
const AHEAD: usize = 16;

/// How a token was made.
#[derive(Debug, Clone, Copy)]
struct Origin {
    /// One more than the rank of its merge; 0 for a single byte, [`NONE`] if merges never make it.
    order: u32,
    left: u32,
    right: u32,
    /// The next shorter token that it begins with.
    prefix: u32,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Backtrack {
    trie: Trie,
    origins: Vec<Origin>,
    lengths: Vec<u32>,
}

/// Memory that is kept between pieces.
#[derive(Debug, Default)]
pub(crate) struct Stack {
    tokens: Vec<u32>,
    /// A bit for each place from which nothing is known to fail.
    open: Vec<u64>,
}

impl Backtrack {
    /// For merges in order of rank (left, right, result); `None` where these are not as training makes them: a token from two
    /// pairs of tokens, or from a token that a later merge makes.
    pub(crate) fn new(tokens: &[&[u8]], merges: &[(u32, u32, u32)], table: &MergeTable) -> Option<Self> {
        let mut this = Self::without_merges(tokens)?;
        for (rank, &(left, right, id)) in merges.iter().enumerate() {
            let origin = &mut this.origins[id as usize];
            if origin.order != NONE {
                return None;
            }
            (origin.order, origin.left, origin.right) = (rank as u32 + 1, left, right);
        }
        for (rank, &(left, right, id)) in merges.iter().enumerate() {
            let (before, after) = (this.origins[left as usize].order, this.origins[right as usize].order);
            let parts_are_made = before != NONE && after != NONE;
            if parts_are_made && before.max(after) > rank as u32 {
                return None;
            }
            // Two sides that do not go together never meet, and then the token is never made.
            if !parts_are_made || !this.go_together(table, left, right, rank as u32 + 1) {
                this.origins[id as usize].order = NONE;
            }
        }
        this.forget_unmade(tokens)?;
        Some(this)
    }

    /// For ranks in tiktoken's sense, where two tokens merge whenever their bytes together are a token. Finds the pair that
    /// makes each token and puts it into `table`; `None` where some token can be put together but not in the order of ranks.
    pub(crate) fn from_ranks(
        tokens: &[&[u8]],
        id_of: impl Fn(&[u8]) -> Option<u32>,
        table: &mut MergeTable,
    ) -> Option<Self> {
        let mut this = Self::without_merges(tokens)?;
        for (id, token) in tokens.iter().enumerate().filter(|(_, token)| token.len() > 1) {
            let order = id as u32 + 1;
            if id_of(token) != Some(id as u32) {
                continue;
            }
            let (mut splits, mut found) = (false, None);
            let mut left = this.origins[id].prefix;
            while left != NONE && found.is_none() {
                if let Some(right) = id_of(&token[tokens[left as usize].len()..]) {
                    splits = true;
                    let made = |part: u32| this.origins[part as usize].order < order;
                    if made(left) && made(right) && this.go_together(table, left, right, NONE) {
                        found = Some(right);
                        break;
                    }
                }
                left = this.origins[left as usize].prefix;
            }
            match found {
                Some(right) => {
                    table.insert(left, right, id as u32, id as u32);
                    let origin = &mut this.origins[id];
                    (origin.order, origin.left, origin.right) = (order, left, right);
                }
                None if splits => return None,
                None => {}
            }
        }
        this.forget_unmade(tokens)?;
        Some(this)
    }

    fn without_merges(tokens: &[&[u8]]) -> Option<Self> {
        let trie = Trie::new(tokens, |_| true)?;
        let origin = |token: &&[u8]| Origin {
            order: if token.len() == 1 { 0 } else { NONE },
            left: NONE,
            right: NONE,
            prefix: trie.prefix(token),
        };
        let origins = tokens.iter().map(origin).collect();
        Some(Backtrack { origins, lengths: tokens.iter().map(|token| token.len() as u32).collect(), trie })
    }

    /// Takes tokens that no merge makes out of the trie.
    fn forget_unmade(&mut self, tokens: &[&[u8]]) -> Option<()> {
        let made: Vec<bool> = self.origins.iter().map(|origin| origin.order != NONE).collect();
        let all = tokens.iter().zip(&made).all(|(token, made)| *made || token.is_empty());
        if !all {
            self.trie = Trie::new(tokens, |id| made[id as usize])?;
            for (origin, token) in self.origins.iter_mut().zip(tokens) {
                origin.prefix = if origin.order == NONE { NONE } else { self.trie.prefix(token) };
            }
        }
        Some(())
    }

    /// Whether merges ever make this token.
    pub(crate) fn makes(&self, id: u32) -> bool {
        self.origins[id as usize].order != NONE
    }

    /// Whether the text of two tokens encodes to just these, by merges of an order below `limit`.
    ///
    /// The merges that made the two are undone from the last to the first; after each it is asked whether what lies to both
    /// sides of the border would have merged before.
    #[inline(always)]
    fn go_together(&self, table: &MergeTable, mut left: u32, mut right: u32, mut limit: u32) -> bool {
        loop {
            let rank = table.rank(left, right);
            if rank != NONE && rank + 1 < limit {
                return false;
            }
            let (before, after) = (&self.origins[left as usize], &self.origins[right as usize]);
            // Of two equal merges the left one comes first.
            if before.order > after.order {
                (limit, left) = (before.order, before.right);
            } else if after.order > 0 {
                (limit, right) = (after.order + 1, after.left);
            } else {
                return true;
            }
        }
    }

    /// Appends the tokens of `piece` to `out`.
    pub(crate) fn encode(&self, table: &MergeTable, piece: &[u8], stack: &mut Stack, out: &mut Vec<u32>) {
        let Stack { tokens, open } = stack;
        tokens.clear();
        open.clear();
        open.resize(piece.len() / 64 + 1, u64::MAX);
        let (mut at, mut asked) = (0, 0);
        let mut token = self.trie.longest(piece);
        while token != NONE {
            let end = at + self.lengths[token as usize] as usize;
            let last = tokens.last().copied();
            let fits = open[end / 64] >> (end % 64) & 1 != 0
                && last.is_none_or(|last| self.go_together(table, last, token, NONE));
            if fits {
                // Where tokens are short each step of the trie waits for memory, so it is asked for what comes.
                if end - at <= SHORT_TOKEN {
                    let until = piece.len().min(end + AHEAD);
                    for place in asked.max(end)..until {
                        self.trie.ask_third(&piece[place..]);
                        self.trie.ask_fourth(&piece[place - (AHEAD / 2).min(place)..]);
                    }
                    asked = asked.max(until);
                }
                tokens.push(token);
                at = end;
                token = self.trie.longest(&piece[at..]);
                continue;
            }
            token = self.origins[token as usize].prefix;
            if token == NONE {
                let Some(last) = tokens.pop() else { break };
                open[at / 64] &= !(1 << (at % 64));
                at -= self.lengths[last as usize] as usize;
                token = last;
            }
        }
        out.extend_from_slice(tokens);
    }
}
