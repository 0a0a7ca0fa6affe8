//! A vocabulary, a split pattern and special tokens, made into ids and back. Knows no file format.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use unicode_normalization::{is_nfc_quick, IsNormalized, UnicodeNormalization};

use crate::batch::encode_batch;
use crate::cache::Cache;
use crate::error::Error;
use crate::merge::Scratch;
use crate::pieces::{Counter, Placed, Sink};
use crate::special::SpecialMatcher;
use crate::split::{Path, Scheme};
use crate::vocab::Vocabulary;

/// A token that no merge makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecialToken {
    /// Its text.
    pub text: String,
    /// Its id, which may lie above the vocabulary.
    pub id: u32,
    /// Found in every text, like the runs of blanks that some vocabularies add; the others only where allowed.
    pub in_plain_text: bool,
}

/// Which special tokens are found in a text.
#[derive(Debug, Clone, Copy)]
pub enum Allowed<'a> {
    /// None: all text is plain.
    None,
    /// All.
    All,
    /// Those of a matcher made by [`Tokenizer::matcher`].
    These(&'a SpecialMatcher),
}

/// Byte offsets of each token in the text it came from.
pub type Offsets = Vec<(usize, usize)>;

/// See the module. Shared between threads; each call borrows a worker (cache, scratch) from a pool.
pub struct Tokenizer {
    pub(crate) vocabulary: Vocabulary,
    pub(crate) scheme: Scheme,
    pub(crate) path: Path,
    specials: Vec<SpecialToken>,
    plain: SpecialMatcher,
    all: SpecialMatcher,
    nfc: bool,
    vocab_size: usize,
    special_of_id: HashMap<u32, usize>,
    workers: Mutex<Vec<Worker>>,
}

pub(crate) struct Worker {
    pub(crate) cache: Cache,
    pub(crate) scratch: Scratch,
    /// The ids of a piece that is new, before they are known to be kept.
    pub(crate) ids: Vec<u32>,
}

impl Tokenizer {
    /// Puts the parts together; `nfc` normalises text first, as some Hugging Face files ask for.
    pub fn new(vocabulary: Vocabulary, scheme: Scheme, specials: Vec<SpecialToken>, nfc: bool) -> Self {
        let pairs = |all: bool| {
            let chosen = specials.iter().filter(move |special| all || special.in_plain_text);
            SpecialMatcher::new(chosen.map(|special| (special.text.as_bytes(), special.id)))
        };
        let (plain, all) = (pairs(false), pairs(true));
        let above = specials.iter().map(|special| special.id as usize + 1).max().unwrap_or(0);
        let vocab_size = vocabulary.len().max(above);
        let special_of_id = specials.iter().enumerate().map(|(index, special)| (special.id, index)).collect();
        let workers = Mutex::new(Vec::new());
        let path = Path::best();
        Tokenizer { vocabulary, scheme, path, specials, plain, all, nfc, vocab_size, special_of_id, workers }
    }

    /// The same on a path of one's choice, as far as the processor has it; every path gives the same ids.
    pub fn on_path(mut self, path: Path) -> Self {
        self.path = if path.is_here() { path } else { Path::Portable };
        self
    }

    /// The vocabulary without the special tokens above it.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The split pattern.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether text is normalised to NFC first.
    pub fn nfc(&self) -> bool {
        self.nfc
    }

    /// The special tokens as given.
    pub fn specials(&self) -> &[SpecialToken] {
        &self.specials
    }

    /// One more than the highest id.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// A matcher of some special tokens, by their texts, and of those found in plain text anyway.
    pub fn matcher(&self, texts: &[String]) -> SpecialMatcher {
        let chosen = self.specials.iter().filter(|special| special.in_plain_text || texts.contains(&special.text));
        SpecialMatcher::new(chosen.map(|special| (special.text.as_bytes(), special.id)))
    }

    /// The bytes of an id.
    pub fn token(&self, id: u32) -> Option<&[u8]> {
        match self.vocabulary.token(id) {
            Some(bytes) if !bytes.is_empty() => Some(bytes),
            _ => self.special_of_id.get(&id).map(|&index| self.specials[index].text.as_bytes()),
        }
    }

    /// The id of a token or of a special token.
    pub fn id(&self, token: &[u8]) -> Option<u32> {
        let special = self.specials.iter().find(|special| special.text.as_bytes() == token).map(|special| special.id);
        special.or_else(|| self.vocabulary.id(token))
    }

    /// Appends the ids of `text` to `out`.
    pub fn encode(&self, text: &str, allowed: Allowed<'_>, out: &mut Vec<u32>) -> Result<(), Error> {
        self.with_worker(|worker| self.encode_in(worker, text, allowed, usize::MAX, out))
    }

    /// The ids of `text` and where each stands in it, in bytes. Where NFC changed the text between two special tokens,
    /// each token there has the offsets of that whole text.
    pub fn encode_with_offsets(&self, text: &str, allowed: Allowed<'_>) -> Result<(Vec<u32>, Offsets), Error> {
        let mut placed = Placed::default();
        self.with_worker(|worker| self.encode_in(worker, text, allowed, usize::MAX, &mut placed))?;
        Ok((placed.ids, placed.offsets))
    }

    /// Number of ids of `text`; with a limit, the counting stops once more than `limit` were found.
    pub fn count(&self, text: &str, allowed: Allowed<'_>, limit: Option<usize>) -> Result<usize, Error> {
        let mut counter = Counter::default();
        let limit = limit.unwrap_or(usize::MAX);
        self.with_worker(|worker| self.encode_in(worker, text, allowed, limit, &mut counter))?;
        Ok(counter.len())
    }

    /// All ids one after another, and where each text starts (one more than there are texts).
    pub fn encode_batch(
        &self,
        texts: &[&str],
        allowed: Allowed<'_>,
        threads: usize,
    ) -> Result<(Vec<u32>, Vec<i64>), Error> {
        encode_batch(texts, threads, |texts, ids, ends| {
            self.with_worker(|worker| {
                for text in texts {
                    self.encode_in(worker, text, allowed, usize::MAX, ids)?;
                    ends.push(ids.len());
                }
                Ok(())
            })
        })
    }

    /// The bytes of some ids.
    pub fn decode(&self, ids: &[u32]) -> Result<Vec<u8>, Error> {
        let mut bytes: Vec<u8> = Vec::with_capacity(ids.len() * 5 + 16);
        for &id in ids {
            // Most tokens are short: 16 bytes are copied whatever the length, without a call, and cut.
            if let Some((slot, length)) = self.vocabulary.short_token(id) {
                if bytes.capacity() - bytes.len() < slot.len() {
                    bytes.reserve(ids.len() + slot.len());
                }
                // SAFETY: there is room for 16 more, all 16 are written, and `length` is at most 16.
                unsafe {
                    bytes.as_mut_ptr().add(bytes.len()).cast::<[u8; 16]>().write_unaligned(*slot);
                    bytes.set_len(bytes.len() + length);
                }
            } else {
                match self.token(id) {
                    Some(token) => bytes.extend_from_slice(token),
                    None => return Err(Error::UnknownId { id, vocab_size: self.vocab_size }),
                }
            }
        }
        Ok(bytes)
    }

    fn with_worker<T>(&self, work: impl FnOnce(&mut Worker) -> T) -> T {
        let taken = self.workers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut worker = taken.unwrap_or_else(|| Worker {
            cache: Cache::new(&self.vocabulary),
            scratch: Scratch::default(),
            ids: Vec::new(),
        });
        let result = work(&mut worker);
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
        result
    }

    fn encode_in<S: Sink>(
        &self,
        worker: &mut Worker,
        text: &str,
        allowed: Allowed<'_>,
        limit: usize,
        out: &mut S,
    ) -> Result<(), Error> {
        if text.len() >= u32::MAX as usize {
            return Err(Error::TooLong(text.len()));
        }
        let matcher = match allowed {
            Allowed::None => &self.plain,
            Allowed::All => &self.all,
            Allowed::These(matcher) => matcher,
        };
        let limit = out.len().saturating_add(limit);
        let mut at = 0;
        while at < text.len() && out.len() <= limit {
            let found = matcher.find(text.as_bytes(), at);
            let end = found.map_or(text.len(), |(start, ..)| start);
            match self.normalise(&text[at..end]) {
                Cow::Borrowed(_) => self.encode_plain(worker, &text[..end], at, limit, out),
                Cow::Owned(changed) => {
                    out.hold(at, end);
                    self.encode_plain(worker, &changed, 0, limit, out);
                    out.release();
                }
            }
            at = end;
            if let Some((start, end, id)) = found {
                if out.len() <= limit {
                    out.add(&[id]);
                    out.placed(&self.vocabulary, start, end);
                }
                at = end;
            }
        }
        Ok(())
    }

    /// The text between special tokens in NFC where the vocabulary asks for it; most text is in NFC already.
    fn normalise<'text>(&self, text: &'text str) -> Cow<'text, str> {
        if !self.nfc || text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
            return Cow::Borrowed(text);
        }
        let changed: String = text.nfc().collect();
        if changed == text {
            Cow::Borrowed(text)
        } else {
            Cow::Owned(changed)
        }
    }
}
