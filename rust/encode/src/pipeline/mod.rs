//! Tokenizers that are no plain byte-level BPE: text goes through normalisers, pre-tokenisers and a model, one step after
//! the other, as a tokenizer.json or a SentencePiece model describes it. Knows no file format.

pub mod added;
pub mod aligned;
pub mod bpe;
pub mod charsmap;
pub mod decode;
pub mod model;
pub mod normalize;
pub mod pattern;
pub mod sentencepiece;
pub mod split;
pub mod trie;
pub mod unigram;
pub mod wordpiece;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::batch::encode_batch;
use crate::error::Error;
use crate::merge::Scratch;
use crate::tokenizer::Offsets;
use added::{AddedToken, Matcher};
use aligned::Aligned;
use decode::{Decoder, Kind};
use model::{Cut, Model, QuickMap};
use normalize::Normalizer;
use split::{Piece, PreTokenizer, Prepend};

/// Pieces longer than this are not remembered.
const LONGEST_REMEMBERED: usize = 64;

/// So many pieces are remembered, then all are forgotten: at most about 16 MB for a worker.
const MOST_REMEMBERED: usize = 1 << 16;

/// All parts of a [`Pipeline`].
pub struct Parts {
    /// From pieces to tokens.
    pub model: Model,
    /// In order.
    pub normalizers: Vec<Normalizer>,
    /// In order.
    pub pre_tokenizers: Vec<PreTokenizer>,
    /// In order.
    pub decoders: Vec<Decoder>,
    /// Added tokens.
    pub added: Vec<AddedToken>,
    /// How each id is spelled in the vocabulary; "" is a hole.
    pub tokens: Vec<String>,
    /// What SentencePiece must know of each id; empty for others.
    pub kinds: Vec<Kind>,
}

/// See the module. Shared between threads; each call borrows a worker from a pool.
pub struct Pipeline {
    parts: Parts,
    raw: Matcher,
    normalized: Matcher,
    ids: HashMap<String, u32>,
    of_id: HashMap<u32, usize>,
    /// What each added token is in decoded text: one that is looked for in normalised text stands there normalised.
    shown: Vec<String>,
    /// Pieces may be cut before this mark without a change of ids.
    cut_before: Option<char>,
    remember: bool,
    vocab_size: usize,
    workers: Mutex<Vec<Worker>>,
}

#[derive(Default)]
struct Worker {
    known: QuickMap<Box<[u8]>, Box<[Cut]>>,
    cuts: Vec<Cut>,
    scratch: Scratch,
}

/// Which special tokens count.
pub enum Choice {
    /// None.
    None,
    /// All.
    All,
    /// Those of these texts.
    These(Vec<String>),
}

impl Choice {
    fn allows(&self, token: &AddedToken) -> bool {
        !token.special
            || match self {
                Choice::None => false,
                Choice::All => true,
                Choice::These(texts) => texts.contains(&token.text),
            }
    }
}

struct Output<'call> {
    ids: &'call mut Vec<u32>,
    offsets: Option<&'call mut Offsets>,
    limit: usize,
}

impl Output<'_> {
    fn is_full(&self) -> bool {
        self.ids.len() > self.limit
    }

    fn push(&mut self, id: u32, span: (u32, u32)) {
        self.ids.push(id);
        if let Some(offsets) = &mut self.offsets {
            offsets.push((span.0 as usize, span.1 as usize));
        }
    }
}

impl Pipeline {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Result<Self, Error> {
        let mut ids = HashMap::with_capacity(parts.tokens.len());
        for (id, token) in parts.tokens.iter().enumerate().filter(|(_, token)| !token.is_empty()) {
            ids.entry(token.clone()).or_insert(id as u32);
        }
        let above = parts.added.iter().map(|token| token.id as usize + 1).max().unwrap_or(0);
        let of_id = parts.added.iter().enumerate().map(|(index, token)| (token.id, index)).collect();
        let (mut raw, mut normalized) = (Vec::new(), Vec::new());
        let mut shown = Vec::with_capacity(parts.added.len());
        for (index, token) in parts.added.iter().enumerate() {
            ids.insert(token.text.clone(), token.id);
            if token.normalized {
                let mut text = Aligned::new(&token.text, 0, false);
                for normalizer in &parts.normalizers {
                    text = normalizer.apply(text)?;
                }
                shown.push(if text.text.is_empty() { token.text.clone() } else { text.text.clone() });
                normalized.push((text.text, index));
            } else {
                shown.push(token.text.clone());
                raw.push((token.text.clone(), index));
            }
        }
        let first = |step: &PreTokenizer| matches!(step, PreTokenizer::Metaspace { prepend: Prepend::First, .. });
        Ok(Pipeline {
            raw: Matcher::new(raw)?,
            normalized: Matcher::new(normalized)?,
            ids,
            of_id,
            shown,
            cut_before: parts.model.safe_mark(),
            remember: !parts.normalizers.is_empty() && parts.pre_tokenizers.iter().any(first),
            vocab_size: parts.tokens.len().max(above),
            parts,
            workers: Mutex::new(Vec::new()),
        })
    }

    /// One more than the highest id.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The added tokens as given.
    pub fn added(&self) -> &[AddedToken] {
        &self.parts.added
    }

    /// How an id is spelled in the vocabulary.
    pub fn spelling(&self, id: u32) -> Result<&str, Error> {
        if let Some(&index) = self.of_id.get(&id) {
            return Ok(&self.parts.added[index].text);
        }
        match self.parts.tokens.get(id as usize) {
            Some(token) if !token.is_empty() => Ok(token),
            _ => Err(Error::UnknownId { id, vocab_size: self.vocab_size }),
        }
    }

    fn shown(&self, id: u32) -> Result<&str, Error> {
        self.of_id.get(&id).map_or_else(|| self.spelling(id), |&index| Ok(&self.shown[index]))
    }

    /// The id of a spelling.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    /// All ids one after another, and where each text starts (one more than there are texts).
    pub fn encode_batch(&self, texts: &[&str], choice: &Choice, threads: usize) -> Result<(Vec<u32>, Vec<i64>), Error> {
        encode_batch(texts, threads, |texts, ids, ends| {
            for text in texts {
                self.encode(text, choice, usize::MAX, ids, None)?;
                ends.push(ids.len());
            }
            Ok(())
        })
    }

    /// Appends the ids of `text` to `ids`, and to `offsets` the bytes of `text` that each stands for; ends early once there
    /// are more than `limit` ids.
    pub fn encode(
        &self,
        text: &str,
        choice: &Choice,
        limit: usize,
        ids: &mut Vec<u32>,
        offsets: Option<&mut Offsets>,
    ) -> Result<(), Error> {
        if text.len() >= u32::MAX as usize {
            return Err(Error::TooLong(text.len()));
        }
        let taken = self.workers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut worker = taken.unwrap_or_default();
        let limit = ids.len().saturating_add(limit);
        let mut out = Output { ids, offsets, limit };
        let result = self.encode_in(&mut worker, text, choice, &mut out);
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
        result
    }

    fn encode_in(&self, worker: &mut Worker, text: &str, choice: &Choice, out: &mut Output<'_>) -> Result<(), Error> {
        let allowed = |token: &AddedToken| choice.allows(token);
        let remember = self.remember || out.offsets.is_some();
        let added = &self.parts.added;
        for (start, end, token) in self.raw.split(text, added, &allowed) {
            if out.is_full() {
                return Ok(());
            }
            if let Some(index) = token {
                out.push(added[index].id, (start as u32, end as u32));
                continue;
            }
            let mut part = Aligned::new(&text[start..end], start, remember);
            for normalizer in &self.parts.normalizers {
                part = normalizer.apply(part)?;
            }
            let parts = self.normalized.split(&part.text, added, &allowed);
            let whole = parts.len() == 1;
            for (from, to, token) in parts {
                if let Some(index) = token {
                    out.push(added[index].id, part.span(from..to));
                    continue;
                }
                let is_first =
                    start == 0 && if part.from.is_some() { part.span(from..from + 1).0 == 0 } else { from == 0 };
                let text = if whole { std::mem::take(&mut part) } else { part.slice(from..to) };
                let mut pieces = vec![Piece { text, is_first }];
                for step in &self.parts.pre_tokenizers {
                    pieces = step.apply(pieces)?;
                }
                for piece in &pieces {
                    self.encode_piece(worker, &piece.text, out)?;
                    if out.is_full() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    fn encode_piece(&self, worker: &mut Worker, piece: &Aligned, out: &mut Output<'_>) -> Result<(), Error> {
        let Some(mark) = self.cut_before else { return self.encode_range(worker, piece, 0, piece.text.len(), out) };
        let mut start = 0;
        let mut before = mark;
        for (at, character) in piece.text.char_indices() {
            if character == mark && before != mark {
                self.encode_range(worker, piece, start, at, out)?;
                if out.is_full() {
                    return Ok(());
                }
                start = at;
            }
            before = character;
        }
        self.encode_range(worker, piece, start, piece.text.len(), out)
    }

    fn encode_range(
        &self,
        worker: &mut Worker,
        piece: &Aligned,
        start: usize,
        end: usize,
        out: &mut Output<'_>,
    ) -> Result<(), Error> {
        let text = &piece.text[start..end];
        let short = text.len() <= LONGEST_REMEMBERED;
        if let Some(cuts) = short.then(|| worker.known.get(text.as_bytes())).flatten() {
            push_cuts(piece, start, cuts, out);
            return Ok(());
        }
        worker.cuts.clear();
        self.parts.model.encode(text, &mut worker.scratch, &mut worker.cuts)?;
        push_cuts(piece, start, &worker.cuts, out);
        if short {
            if worker.known.len() >= MOST_REMEMBERED {
                worker.known.clear();
            }
            worker.known.insert(text.as_bytes().into(), worker.cuts.as_slice().into());
        }
        Ok(())
    }

    /// The text of ids as the tool a file is for makes it; bytes, because byte tokens need not be UTF-8.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<Vec<u8>, Error> {
        let skips = |id: u32| skip_special && self.of_id.get(&id).is_some_and(|&index| self.parts.added[index].special);
        let ids = ids.iter().copied().filter(|&id| !skips(id));
        if let Model::Bytes(vocabulary) = &self.parts.model {
            let mut bytes = Vec::new();
            for id in ids {
                match vocabulary.token(id).filter(|token| !token.is_empty() && !self.of_id.contains_key(&id)) {
                    Some(token) => bytes.extend_from_slice(token),
                    None => bytes.extend_from_slice(self.shown(id)?.as_bytes()),
                }
            }
            return Ok(bytes);
        }
        if let [Decoder::SentencePiece(drops_blank, drops_all, unknown)] = &self.parts.decoders[..] {
            let tokens = ids.map(|id| Ok((self.shown(id)?, self.kind(id)))).collect::<Result<Vec<_>, Error>>()?;
            return Ok(decode::sentencepiece((*drops_blank, *drops_all, unknown), &tokens));
        }
        let mut tokens = ids.map(|id| self.shown(id).map(str::to_string)).collect::<Result<Vec<_>, Error>>()?;
        if self.parts.decoders.is_empty() {
            return Ok(tokens.join(" ").into_bytes());
        }
        for decoder in &self.parts.decoders {
            tokens = decoder.apply(tokens)?;
        }
        Ok(tokens.concat().into_bytes())
    }

    fn kind(&self, id: u32) -> Kind {
        self.parts.kinds.get(id as usize).copied().unwrap_or(Kind::Normal)
    }

    /// The bytes that one id adds to a text, as its first token or behind others.
    pub fn streamed(&self, id: u32, first: bool) -> Result<Vec<u8>, Error> {
        let spelling = self.shown(id)?;
        if let Model::Bytes(vocabulary) = &self.parts.model {
            let known = vocabulary.token(id).filter(|token| !token.is_empty() && !self.of_id.contains_key(&id));
            return Ok(known.unwrap_or(spelling.as_bytes()).to_vec());
        }
        decode::streamed(&self.parts.decoders, spelling, self.kind(id), first)
    }
}

fn push_cuts(piece: &Aligned, start: usize, cuts: &[Cut], out: &mut Output<'_>) {
    if out.offsets.is_none() {
        out.ids.extend(cuts.iter().map(|cut| cut.id));
        return;
    }
    let mut from = start;
    let mut span = (0, 0);
    for cut in cuts {
        let to = start + cut.end as usize;
        // The bytes of one character end at the same place; each stands for the character.
        if to > from || from == start {
            span = piece.span(from..to);
        }
        out.push(cut.id, span);
        from = to;
    }
}
