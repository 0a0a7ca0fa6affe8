//! The vocabulary: the bytes of every id, the id of some bytes, and which two tokens merge into which third.
//! Knows neither split patterns nor special tokens.

use crate::alphabet::Alphabet;
use crate::backtrack::Backtrack;
use crate::error::Error;
use crate::pages::Pages;
use crate::pairs::MergeTable;

/// No token.
pub const NONE: u32 = u32::MAX;

/// Hash of a short byte string; the quality is enough for open addressing.
#[inline]
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        state = fold(state ^ u64::from_le_bytes(word));
    }
    let mut word = [0; 8];
    word[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    fold(state ^ u64::from_le_bytes(word))
}

/// Both halves of a 64 x 64 bit product, folded together.
#[inline(always)]
pub(crate) fn fold(word: u64) -> u64 {
    let product = u128::from(word) * 0x2d35_8dcc_aa6c_78a5_8bb8_4b93_962e_acc9_u128 as u64 as u128;
    (product as u64) ^ ((product >> 64) as u64)
}

/// Bytes of all tokens in one array, and an open-addressing table from bytes to id.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    bytes: Vec<u8>,
    /// Token `id` is `bytes[starts[id]..starts[id + 1]]`.
    starts: Vec<u32>,
    slots: Vec<u32>,
    byte_ids: [u32; 256],
    has_all_bytes: bool,
    merges: MergeTable,
    /// The ranks at which two single bytes merge, at `left * 256 + right`; [`NONE`] where they do not. There only where every
    /// byte has a token.
    byte_ranks: Option<Pages<u32>>,
    /// There for vocabularies as training makes them.
    backtrack: Option<Backtrack>,
    /// A piece that is a token is that token, whatever the merges say.
    whole_pieces: bool,
}

impl Vocabulary {
    /// A vocabulary with merges in order of rank, each two ids of `tokens`.
    ///
    /// An empty token is a hole in the ids. Where two ids have the same bytes the first has them.
    pub fn from_merges(tokens: &[Vec<u8>], merges: &[(u32, u32)], whole_pieces: bool) -> Result<Self, Error> {
        Self::without_merges(tokens, whole_pieces)?.with_merges(merges)
    }

    fn with_merges(mut self, merges: &[(u32, u32)]) -> Result<Self, Error> {
        let mut table = self.table(merges.len(), merges.len())?;
        let mut results = Vec::with_capacity(merges.len());
        let mut joined = Vec::new();
        for (rank, &(left, right)) in merges.iter().enumerate() {
            joined.clear();
            joined.extend_from_slice(self.token(left).unwrap_or_default());
            joined.extend_from_slice(self.token(right).unwrap_or_default());
            let Some(id) = self.id(&joined) else {
                return Err(Error::BadMerge {
                    rank,
                    merge: String::from_utf8_lossy(&joined).into_owned(),
                    reason: "makes no token of the vocabulary",
                });
            };
            table.insert(left, right, rank as u32, id);
            results.push((left, right, id));
        }
        if self.has_all_bytes {
            self.backtrack = Backtrack::new(&self.tokens(), &results, &table);
        }
        self.set_merges(table);
        Ok(self)
    }

    /// A vocabulary as files have it: tokens in GPT-2's byte alphabet, merges as "left right".
    ///
    /// Special tokens are no part of it: their ids are holes here, and no text merges into them.
    pub fn from_byte_level(
        alphabet: &Alphabet,
        tokens: &[&str],
        merges: &[&str],
        is_special: &dyn Fn(usize) -> bool,
        whole_pieces: bool,
    ) -> Result<Self, Error> {
        let bytes = |(id, token): (usize, &&str)| {
            if is_special(id) {
                return Ok(Vec::new());
            }
            alphabet.bytes(token).ok_or_else(|| Error::NotByteLevel { id, token: (*token).to_string() })
        };
        let tokens: Vec<Vec<u8>> = tokens.iter().enumerate().map(bytes).collect::<Result<_, _>>()?;
        let this = Self::without_merges(&tokens, whole_pieces)?;
        let mut pairs = Vec::with_capacity(merges.len());
        for (rank, merge) in merges.iter().enumerate() {
            let wrong = |reason| Error::BadMerge { rank, merge: (*merge).to_string(), reason };
            let (left, right) = merge.split_once(' ').ok_or_else(|| wrong("is not two tokens with a blank between"))?;
            let id = |token: &str| alphabet.bytes(token).and_then(|bytes| this.id(&bytes));
            match (id(left), id(right)) {
                (Some(left), Some(right)) => pairs.push((left, right)),
                _ => return Err(wrong("names a token that the vocabulary does not have")),
            }
        }
        this.with_merges(&pairs)
    }

    /// A vocabulary in tiktoken's sense: two neighbours merge when their bytes together are a token, lowest id first.
    pub fn from_ranks(tokens: &[Vec<u8>]) -> Result<Self, Error> {
        let mut this = Self::without_merges(tokens, true)?;
        if let Some(byte) = this.byte_ids.iter().position(|&id| id == NONE) {
            return Err(Error::MissingByte(byte as u8));
        }
        let mut table = this.table(tokens.len(), tokens.len())?;
        this.backtrack = Backtrack::from_ranks(&this.tokens(), |token| this.id(token), &mut table);
        if this.backtrack.is_none() {
            table = this.all_pairs()?;
        }
        this.set_merges(table);
        Ok(this)
    }

    /// Every pair of tokens whose bytes together are a token.
    fn all_pairs(&self) -> Result<MergeTable, Error> {
        let mut pairs = Vec::new();
        for (rank, token) in self.tokens().iter().enumerate() {
            for middle in 1..token.len() {
                if let (Some(left), Some(right)) = (self.id(&token[..middle]), self.id(&token[middle..])) {
                    pairs.push((left, right, rank as u32));
                }
            }
        }
        let mut table = self.table(self.len(), pairs.len())?;
        for (left, right, rank) in pairs {
            table.insert(left, right, rank, rank);
        }
        Ok(table)
    }

    fn table(&self, num_ranks: usize, num_pairs: usize) -> Result<MergeTable, Error> {
        let too_large = Error::VocabularyTooLarge { tokens: self.len(), merges: num_pairs };
        MergeTable::new(self.len(), num_ranks, num_pairs).ok_or(too_large)
    }

    fn tokens(&self) -> Vec<&[u8]> {
        (0..self.len() as u32).map(|id| self.token(id).unwrap_or_default()).collect()
    }

    fn without_merges(tokens: &[Vec<u8>], whole_pieces: bool) -> Result<Self, Error> {
        let mut bytes = Vec::with_capacity(tokens.iter().map(Vec::len).sum());
        let mut starts = Vec::with_capacity(tokens.len() + 1);
        for token in tokens {
            starts.push(bytes.len() as u32);
            bytes.extend_from_slice(token);
        }
        starts.push(bytes.len() as u32);
        // So that 16 bytes can be read from the start of every token.
        bytes.extend_from_slice(&[0; 16]);
        let slots = vec![NONE; (tokens.len() * 2).next_power_of_two().max(16)];
        let mut this = Vocabulary {
            bytes,
            starts,
            slots,
            byte_ids: [NONE; 256],
            has_all_bytes: false,
            merges: MergeTable::new(0, 0, 0).ok_or(Error::VocabularyTooLarge { tokens: 0, merges: 0 })?,
            byte_ranks: None,
            backtrack: None,
            whole_pieces,
        };
        for (id, token) in tokens.iter().enumerate() {
            if !token.is_empty() {
                this.insert(id as u32, token);
            }
        }
        for byte in 0..=255_u8 {
            this.byte_ids[byte as usize] = this.id(&[byte]).unwrap_or(NONE);
        }
        this.has_all_bytes = !this.byte_ids.contains(&NONE);
        Ok(this)
    }

    fn set_merges(&mut self, table: MergeTable) {
        self.merges = table;
        if self.has_all_bytes {
            let mut ranks = Pages::filled(1 << 16, NONE);
            for (index, rank) in ranks.iter_mut().enumerate() {
                *rank = self.merges.rank(self.byte_ids[index >> 8], self.byte_ids[index & 255]);
            }
            self.byte_ranks = Some(ranks);
        }
    }

    fn insert(&mut self, id: u32, token: &[u8]) {
        let mask = self.slots.len() - 1;
        let mut slot = hash_bytes(token) as usize & mask;
        while self.slots[slot] != NONE {
            if self.token(self.slots[slot]) == Some(token) {
                return;
            }
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = id;
    }

    /// Number of ids, holes included.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether there is no token at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of an id; `None` outside the vocabulary.
    #[inline]
    pub fn token(&self, id: u32) -> Option<&[u8]> {
        let start = *self.starts.get(id as usize)?;
        let end = *self.starts.get(id as usize + 1)?;
        Some(&self.bytes[start as usize..end as usize])
    }

    /// The token of an id if it has 1 to 16 bytes: 16 bytes that begin with it, and its length.
    #[inline(always)]
    pub(crate) fn short_token(&self, id: u32) -> Option<(&[u8; 16], usize)> {
        let &[start, end] = self.starts.get(id as usize..)?.first_chunk::<2>()?;
        let length = (end - start) as usize;
        let slot = self.bytes.get(start as usize..)?.first_chunk::<16>()?;
        (1..=16).contains(&length).then_some((slot, length))
    }

    /// The id whose bytes these are.
    #[inline]
    pub fn id(&self, token: &[u8]) -> Option<u32> {
        let mask = self.slots.len() - 1;
        let mut slot = hash_bytes(token) as usize & mask;
        loop {
            let id = self.slots[slot];
            if id == NONE {
                return None;
            }
            if self.token(id) == Some(token) {
                return Some(id);
            }
            slot = (slot + 1) & mask;
        }
    }

    /// The id of a single byte, [`NONE`] if it has none.
    #[inline(always)]
    pub fn byte_id(&self, byte: u8) -> u32 {
        self.byte_ids[byte as usize]
    }

    /// Whether every byte has a token.
    #[inline(always)]
    pub fn has_all_bytes(&self) -> bool {
        self.has_all_bytes
    }

    /// The way around merging, where the vocabulary allows it.
    #[inline(always)]
    pub(crate) fn backtrack(&self) -> Option<&Backtrack> {
        self.backtrack.as_ref()
    }

    /// Which tokens merge.
    #[inline(always)]
    pub(crate) fn merges(&self) -> &MergeTable {
        &self.merges
    }

    /// The ranks at which two bytes merge, at `left * 256 + right`, where every byte has a token.
    #[inline(always)]
    pub(crate) fn byte_ranks(&self) -> Option<&[u32]> {
        self.byte_ranks.as_deref()
    }

    /// Whether a piece with the bytes of this token is this token, as far as is known without merging.
    pub(crate) fn is_own_encoding(&self, id: u32) -> bool {
        let known = self.whole_pieces || self.backtrack.as_ref().is_some_and(|backtrack| backtrack.makes(id));
        known && self.token(id).is_some_and(|token| !token.is_empty() && self.id(token) == Some(id))
    }

    /// Whether a piece that is a token skips the merges.
    pub fn whole_pieces(&self) -> bool {
        self.whole_pieces
    }

    /// The merges in order of rank, each pair of ids once.
    ///
    /// Where ranks allow several pairs for a token, its pair is what merging its bytes leaves just before the last step.
    pub fn merges_in_order(&self) -> Vec<(u32, u32)> {
        let mut all: Vec<(u32, u32, u32)> = self.merges.iter().map(|(left, right, rank)| (rank, left, right)).collect();
        all.sort_unstable();
        if self.backtrack.is_some() || !self.ranks_are_ids() {
            return all.into_iter().map(|(_, left, right)| (left, right)).collect();
        }
        let mut scratch = crate::merge::Scratch::default();
        let mut ids = Vec::new();
        let mut found = Vec::new();
        for id in 0..self.len() as u32 {
            let token = self.token(id).unwrap_or_default();
            if token.len() < 2 {
                continue;
            }
            ids.clear();
            crate::merge::merge_below(self, token, id, &mut scratch, &mut ids);
            if let [left, right] = ids[..] {
                found.push((left, right));
            }
        }
        found
    }

    fn ranks_are_ids(&self) -> bool {
        self.merges.iter().all(|(.., rank)| self.merges.result(rank) == rank)
    }
}
