//! The longest token that a text begins with. Knows bytes and ids, no merges.
//!
//! A node is named by the token that ends there, or by a number above all ids where none does; so a step from a node by a
//! byte is one look into one table, and a node below `num_ids` is itself the answer.

use crate::pages::Pages;
use crate::vocab::{fold, NONE};

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Trie {
    /// The node of one byte.
    first: [u32; 256],
    /// The node of two bytes, without a search: every look-up begins here.
    second: Vec<u32>,
    /// Open addressing: node and byte in the upper half, the next node in the lower.
    steps: Pages<u64>,
    used: usize,
    num_ids: u32,
    num_nodes: u32,
}

const EMPTY: u64 = u64::MAX;
/// Nodes have 24 bits, so that a node and a byte fit half an entry.
const MAX_NODES: u32 = (1 << 24) - 1;

impl Trie {
    /// A trie of the tokens for which `include` holds; `None` if there are more nodes than it can name.
    pub(crate) fn new(tokens: &[&[u8]], include: impl Fn(u32) -> bool) -> Option<Self> {
        let num_ids = u32::try_from(tokens.len()).ok().filter(|&count| count < MAX_NODES)?;
        let mut this = Trie {
            first: [NONE; 256],
            second: vec![NONE; 1 << 16],
            steps: Pages::filled((tokens.len() * 2).next_power_of_two().max(64), EMPTY),
            used: 0,
            num_ids,
            num_nodes: num_ids,
        };
        // Shorter ones first: then a node that is a token is always made as that token.
        let mut order: Vec<u32> = (0..num_ids).filter(|&id| !tokens[id as usize].is_empty() && include(id)).collect();
        order.sort_by_key(|&id| tokens[id as usize].len());
        for id in order {
            this.insert(tokens[id as usize], id)?;
        }
        Some(this)
    }

    fn insert(&mut self, token: &[u8], id: u32) -> Option<()> {
        let mut node = NONE;
        for (depth, &byte) in token.iter().enumerate() {
            let last = depth + 1 == token.len();
            let place = match depth {
                0 => &mut self.first[byte as usize],
                1 => &mut self.second[(token[0] as usize) << 8 | byte as usize],
                _ => {
                    let found = self.step(node, byte);
                    node = if found == NONE { self.add_step(node, byte, last.then_some(id))? } else { found };
                    continue;
                }
            };
            if *place == NONE {
                *place = if last { id } else { self.num_nodes };
                self.num_nodes += u32::from(!last);
            }
            node = *place;
        }
        (self.num_nodes < MAX_NODES).then_some(())
    }

    fn add_step(&mut self, node: u32, byte: u8, id: Option<u32>) -> Option<u32> {
        let child = id.unwrap_or(self.num_nodes);
        self.num_nodes += u32::from(id.is_none());
        if self.num_nodes >= MAX_NODES {
            return None;
        }
        if self.used * 3 >= self.steps.len() * 2 {
            let larger = Pages::filled(self.steps.len() * 2, EMPTY);
            for &entry in std::mem::replace(&mut self.steps, larger).iter() {
                if entry != EMPTY {
                    self.place(entry);
                }
            }
        }
        self.used += 1;
        self.place(u64::from(node << 8 | u32::from(byte)) << 32 | u64::from(child));
        Some(child)
    }

    fn place(&mut self, entry: u64) {
        let mask = self.steps.len() - 1;
        let mut slot = fold(entry >> 32) as usize & mask;
        while self.steps[slot] != EMPTY {
            slot = (slot + 1) & mask;
        }
        self.steps[slot] = entry;
    }

    /// Asks the processor for what [`Trie::longest`] will read for the third byte of `text`.
    #[inline(always)]
    pub(crate) fn ask_third(&self, text: &[u8]) {
        if let [first, second, third, ..] = *text {
            self.ask(self.second[(first as usize) << 8 | second as usize], third);
        }
    }

    /// The same for the fourth, best when what the third needs is there.
    #[inline(always)]
    pub(crate) fn ask_fourth(&self, text: &[u8]) {
        if let [first, second, third, fourth, ..] = *text {
            let node = self.second[(first as usize) << 8 | second as usize];
            if node != NONE {
                self.ask(self.step(node, third), fourth);
            }
        }
    }

    #[inline(always)]
    fn ask(&self, node: u32, byte: u8) {
        if node != NONE {
            let key = node << 8 | u32::from(byte);
            self.steps.prefetch(fold(u64::from(key)) as usize & (self.steps.len() - 1));
        }
    }

    #[inline(always)]
    fn step(&self, node: u32, byte: u8) -> u32 {
        let key = node << 8 | u32::from(byte);
        let mask = self.steps.len() - 1;
        let mut slot = fold(u64::from(key)) as usize;
        loop {
            let entry = self.steps[slot & mask];
            if (entry >> 32) as u32 == key {
                return entry as u32;
            }
            if entry == EMPTY {
                return NONE;
            }
            slot += 1;
        }
    }

    /// The longest token that `text` begins with, and the longest one before it on the same way; [`NONE`] where there is none.
    #[inline(always)]
    fn longest_two(&self, text: &[u8]) -> (u32, u32) {
        let (mut best, mut before) = (NONE, NONE);
        let mut take = |node: u32| {
            if node < self.num_ids {
                (before, best) = (best, node);
            }
        };
        let Some(&byte) = text.first() else { return (best, before) };
        take(self.first[byte as usize]);
        if let Some(&next) = text.get(1) {
            let mut node = self.second[(byte as usize) << 8 | next as usize];
            take(node);
            for &byte in text.get(2..).unwrap_or_default() {
                if node == NONE {
                    break;
                }
                node = self.step(node, byte);
                take(node);
            }
        }
        (best, before)
    }

    /// The longest token that `text` begins with; [`NONE`] if there is none.
    #[inline(always)]
    pub(crate) fn longest(&self, text: &[u8]) -> u32 {
        self.longest_two(text).0
    }

    /// The longest token that is a prefix of `token`, itself a token, and shorter; [`NONE`] if there is none.
    pub(crate) fn prefix(&self, token: &[u8]) -> u32 {
        self.longest_two(token).1
    }
}
