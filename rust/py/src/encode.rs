//! Floor `encode` as Python sees it: conversions only, the work is in `highrise-encode`.
//!
//! Texts of more than about a kilobyte are encoded with the interpreter free; below that, giving it back and taking it
//! again costs more than the work.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::Arc;

use highrise_encode::alphabet::Alphabet;
use highrise_encode::count::PieceCounts;
use highrise_encode::special::SpecialMatcher;
use highrise_encode::spill::SpilledCounts;
use highrise_encode::split::{Path, ROOM};
use highrise_encode::stream::Utf8Stream;
use highrise_encode::tokenizer::Offsets;
use highrise_encode::{Allowed, Error, Scheme, SpecialToken, Tokenizer, Vocabulary};
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyInt, PyList, PyString};

use crate::encode_texts::{as_texts, copy_some, flat_texts, hold};
use crate::integers::{integers, list_of, plain_ids, Integers};

/// Below this many bytes of text the interpreter is not given free.
pub(crate) const DETACH_BYTES: usize = 1024;

/// Every error of the crate is bad input; a panic is a failure of ours.
pub(crate) fn raise(py: Python<'_>, class: &str, message: String) -> PyErr {
    match py.import("highrise.core.errors").and_then(|module| module.getattr(class)?.call1((message.clone(),))) {
        Ok(exception) => PyErr::from_value(exception),
        Err(_) => PyRuntimeError::new_err(message),
    }
}

pub(crate) fn to_python<T>(py: Python<'_>, result: Result<T, Error>) -> PyResult<T> {
    result.map_err(|error| raise(py, "InputError", error.to_string()))
}

/// Runs `work`, with the interpreter free if it may take long; a panic becomes an exception that can be caught.
pub(crate) fn run<T: Send>(py: Python<'_>, long: bool, work: impl FnOnce() -> Result<T, Error> + Send) -> PyResult<T> {
    let caught = move || catch_unwind(AssertUnwindSafe(work));
    match if long { py.detach(caught) } else { caught() } {
        Ok(result) => to_python(py, result),
        Err(panic) => {
            let reason = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_string())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "unknown reason".into());
            Err(raise(py, "EncodeError", format!("the tokenizer failed inside ({reason}); please report the input")))
        }
    }
}

fn scheme_of(py: Python<'_>, name: &str) -> PyResult<Scheme> {
    to_python(py, Scheme::from_name(name).ok_or_else(|| Error::UnknownScheme(name.into())))
}

/// (text, id, found in plain text too)
type SpecialArgument = (String, u32, bool);

fn specials_of(specials: Vec<SpecialArgument>) -> Vec<SpecialToken> {
    specials.into_iter().map(|(text, id, in_plain_text)| SpecialToken { text, id, in_plain_text }).collect()
}

/// Ids of all texts, and where each text starts.
pub(crate) type FlatIds<'py> = (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<i64>>);

/// The two sides of a merge.
type TextPair = (String, String);

/// A byte-level BPE tokenizer; see `highrise.encode.tokenizer` for the words.
#[pyclass(frozen, module = "highrise._native")]
struct BytePairTokenizer {
    inner: Tokenizer,
    integers: PyOnceLock<Arc<Integers>>,
}

/// None: no special token counts. True: all. A list: these.
enum SpecialChoice {
    None,
    All,
    These(SpecialMatcher),
}

impl SpecialChoice {
    fn allowed(&self) -> Allowed<'_> {
        match self {
            SpecialChoice::None => Allowed::None,
            SpecialChoice::All => Allowed::All,
            SpecialChoice::These(matcher) => Allowed::These(matcher),
        }
    }
}

impl BytePairTokenizer {
    fn wrap(inner: Tokenizer) -> Self {
        BytePairTokenizer { inner, integers: PyOnceLock::new() }
    }

    fn choice(&self, all: bool, these: Option<Vec<String>>) -> SpecialChoice {
        match these {
            _ if all => SpecialChoice::All,
            None => SpecialChoice::None,
            Some(texts) => SpecialChoice::These(self.inner.matcher(&texts)),
        }
    }

    fn ids(&self, py: Python<'_>, text: &str, all: bool, these: Option<Vec<String>>) -> PyResult<Vec<u32>> {
        let choice = self.choice(all, these);
        run(py, text.len() >= DETACH_BYTES, || {
            let mut ids = Vec::with_capacity(text.len() / 3 + 8);
            self.inner.encode(text, choice.allowed(), &mut ids)?;
            Ok(ids)
        })
    }

    fn list<'py>(&self, py: Python<'py>, ids: &[u32]) -> PyResult<Bound<'py, PyList>> {
        let integers = self.integers.get_or_try_init(py, || integers(py, self.inner.vocab_size()))?;
        list_of(py, integers, ids)
    }
}

#[pymethods]
impl BytePairTokenizer {
    /// From tokens in GPT-2's byte alphabet in the order of their ids, and merges "left right" in the order of their ranks.
    #[staticmethod]
    #[pyo3(signature = (tokens, merges, *, scheme, specials, whole_pieces, nfc))]
    fn from_byte_level(
        py: Python<'_>,
        tokens: Vec<PyBackedStr>,
        merges: Vec<PyBackedStr>,
        scheme: &str,
        specials: Vec<SpecialArgument>,
        whole_pieces: bool,
        nfc: bool,
    ) -> PyResult<Self> {
        let scheme = scheme_of(py, scheme)?;
        let specials = specials_of(specials);
        let inner = run(py, true, move || {
            let tokens: Vec<&str> = tokens.iter().map(|token| &**token).collect();
            let merges: Vec<&str> = merges.iter().map(|merge| &**merge).collect();
            let special: std::collections::HashSet<u32> = specials.iter().map(|special| special.id).collect();
            let is_special = |id: usize| special.contains(&(id as u32));
            let vocabulary =
                Vocabulary::from_byte_level(&Alphabet::default(), &tokens, &merges, &is_special, whole_pieces)?;
            Ok(Tokenizer::new(vocabulary, scheme, specials, nfc))
        })?;
        Ok(Self::wrap(inner))
    }

    /// From tiktoken's ranks: the bytes of each id; an empty one is a hole.
    #[staticmethod]
    #[pyo3(signature = (tokens, *, scheme, specials))]
    fn from_ranks(
        py: Python<'_>,
        tokens: Vec<Vec<u8>>,
        scheme: &str,
        specials: Vec<SpecialArgument>,
    ) -> PyResult<Self> {
        let scheme = scheme_of(py, scheme)?;
        let specials = specials_of(specials);
        let inner =
            run(py, true, move || Ok(Tokenizer::new(Vocabulary::from_ranks(&tokens)?, scheme, specials, false)))?;
        Ok(Self::wrap(inner))
    }

    #[getter]
    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }

    #[getter]
    fn scheme(&self) -> &'static str {
        self.inner.scheme().name()
    }

    #[getter]
    fn nfc(&self) -> bool {
        self.inner.nfc()
    }

    #[getter]
    fn whole_pieces(&self) -> bool {
        self.inner.vocabulary().whole_pieces()
    }

    /// (text, id, found in plain text too) of each special token.
    fn specials(&self) -> Vec<SpecialArgument> {
        self.inner.specials().iter().map(|special| (special.text.clone(), special.id, special.in_plain_text)).collect()
    }

    #[pyo3(signature = (text, *, all_specials=false, specials=None))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        all_specials: bool,
        specials: Option<Vec<String>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let ids = self.ids(py, text, all_specials, specials)?;
        self.list(py, &ids)
    }

    /// The ids as one uint32 array.
    #[pyo3(signature = (text, *, all_specials=false, specials=None))]
    fn encode_array<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        all_specials: bool,
        specials: Option<Vec<String>>,
    ) -> PyResult<Bound<'py, PyArray1<u32>>> {
        Ok(PyArray1::from_vec(py, self.ids(py, text, all_specials, specials)?))
    }

    /// All ids of all texts (uint32) and where each text starts (int64, one more than there are texts).
    #[pyo3(signature = (texts, *, threads=1, all_specials=false, specials=None))]
    fn encode_batch<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        threads: usize,
        all_specials: bool,
        specials: Option<Vec<String>>,
    ) -> PyResult<FlatIds<'py>> {
        let choice = self.choice(all_specials, specials);
        let held = hold(texts)?;
        let (ids, starts) = run(py, true, || self.inner.encode_batch(&as_texts(&held)?, choice.allowed(), threads))?;
        Ok((PyArray1::from_vec(py, ids), PyArray1::from_vec(py, starts)))
    }

    /// The same for texts that lie one after another in `data`, text i at `offsets[i]` to `offsets[i + 1]`.
    #[pyo3(signature = (data, offsets, *, threads=1, all_specials=false, specials=None))]
    fn encode_flat<'py>(
        &self,
        py: Python<'py>,
        data: PyReadonlyArray1<'py, u8>,
        offsets: PyReadonlyArray1<'py, i64>,
        threads: usize,
        all_specials: bool,
        specials: Option<Vec<String>>,
    ) -> PyResult<FlatIds<'py>> {
        let choice = self.choice(all_specials, specials);
        let flat = flat_texts(py, &data, &offsets)?;
        let (ids, starts) = run(py, true, || self.inner.encode_batch(&flat.texts()?, choice.allowed(), threads))?;
        Ok((PyArray1::from_vec(py, ids), PyArray1::from_vec(py, starts)))
    }

    /// The ids of any bytes: text where they are UTF-8, single bytes and their merges where they are not.
    fn encode_bytes<'py>(&self, py: Python<'py>, content: PyBackedBytes) -> PyResult<Bound<'py, PyList>> {
        let ids = run(py, content.len() >= DETACH_BYTES, || self.inner.encode_bytes(&content))?;
        self.list(py, &ids)
    }

    /// What the merges alone make of some bytes, without the split pattern.
    fn merge_piece(&self, piece: &[u8]) -> Vec<u32> {
        self.inner.merge_piece(piece)
    }

    /// The ids and, for each, its first byte and the one after its last in the UTF-8 of the text.
    #[pyo3(signature = (text, *, all_specials=false, specials=None))]
    fn encode_with_offsets(
        &self,
        py: Python<'_>,
        text: &str,
        all_specials: bool,
        specials: Option<Vec<String>>,
    ) -> PyResult<(Vec<u32>, Offsets)> {
        let choice = self.choice(all_specials, specials);
        run(py, true, || self.inner.encode_with_offsets(text, choice.allowed()))
    }

    #[pyo3(signature = (text, *, limit=None, all_specials=false, specials=None))]
    fn count(
        &self,
        py: Python<'_>,
        text: &str,
        limit: Option<usize>,
        all_specials: bool,
        specials: Option<Vec<String>>,
    ) -> PyResult<usize> {
        let choice = self.choice(all_specials, specials);
        run(py, text.len() >= DETACH_BYTES, || self.inner.count(text, choice.allowed(), limit))
    }

    fn decode_bytes<'py>(&self, py: Python<'py>, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let ids = ids_of(ids)?;
        let bytes = run(py, ids.len() * 4 >= DETACH_BYTES, || self.inner.decode(&ids))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// As text; bytes that are no UTF-8 become U+FFFD.
    fn decode<'py>(&self, py: Python<'py>, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
        let ids = ids_of(ids)?;
        let bytes = run(py, ids.len() * 4 >= DETACH_BYTES, || self.inner.decode(&ids))?;
        Ok(text_of(py, &bytes))
    }

    /// The bytes of one id.
    fn token<'py>(&self, py: Python<'py>, id: u32) -> PyResult<Bound<'py, PyBytes>> {
        let unknown = || Error::UnknownId { id, vocab_size: self.inner.vocab_size() };
        Ok(PyBytes::new(py, to_python(py, self.inner.token(id).ok_or_else(unknown))?))
    }

    /// The id of the bytes of a token or the text of a special one.
    fn id(&self, token: &[u8]) -> Option<u32> {
        self.inner.id(token)
    }

    /// Tokens in the byte alphabet in the order of their ids ("" for holes and special tokens), and merges "left right".
    fn byte_level(&self, py: Python<'_>) -> PyResult<(Vec<String>, Vec<TextPair>)> {
        run(py, true, || {
            let alphabet = Alphabet::default();
            let vocabulary = self.inner.vocabulary();
            let text = |id: u32| alphabet.text(vocabulary.token(id).unwrap_or_default());
            let tokens = (0..vocabulary.len() as u32).map(text).collect();
            let merges =
                vocabulary.merges_in_order().into_iter().map(|(left, right)| (text(left), text(right))).collect();
            Ok((tokens, merges))
        })
    }
}

/// Ids as a list of integers or a uint32 array.
pub(crate) fn ids_of(ids: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    let py = ids.py();
    if let Ok(list) = ids.cast::<PyList>() {
        if let Some(ids) = plain_ids(list) {
            return Ok(ids);
        }
        let id = |item: Bound<'_, PyAny>| match item.extract::<u32>() {
            Ok(id) => Ok(id),
            Err(error) if item.is_instance_of::<PyInt>() => {
                drop(error);
                Err(raise(py, "InputError", format!("{item} is no token id: ids start at 0 and fit 32 bits")))
            }
            Err(error) => Err(error),
        };
        return list.iter().map(id).collect();
    }
    Ok(ids.extract::<PyReadonlyArray1<'_, u32>>()?.as_array().to_vec())
}

/// Bytes as text; what is no UTF-8 becomes U+FFFD. The search for that goes byte by byte, so whether there is any is asked first.
pub(crate) fn text_of<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    match std::str::from_utf8(bytes) {
        Ok(text) => PyString::new(py, text),
        Err(_) => PyString::new(py, &String::from_utf8_lossy(bytes)),
    }
}

/// Bytes in, text out, never half a character.
#[pyclass(module = "highrise._native")]
struct TextStream {
    inner: Utf8Stream,
}

#[pymethods]
impl TextStream {
    #[new]
    fn new() -> Self {
        TextStream { inner: Utf8Stream::default() }
    }

    fn push(&mut self, bytes: &[u8]) -> String {
        self.inner.push(bytes)
    }

    fn finish(&mut self) -> String {
        self.inner.finish()
    }
}

/// Counts the pieces of a corpus and learns merges from them.
#[pyclass(module = "highrise._native")]
struct BytePairTrainer {
    counts: SpilledCounts,
    folder: PathBuf,
    most: usize,
    room: usize,
}

impl BytePairTrainer {
    fn hold(&self, counts: PieceCounts) -> SpilledCounts {
        SpilledCounts::new(counts, &self.folder, self.most).with_room(self.room)
    }
}

#[pymethods]
impl BytePairTrainer {
    /// Without a folder all counts stay in memory; with one, more than `most` different pieces go to files in it, and at the
    /// end the most frequent `room` pieces are learned from.
    #[new]
    #[pyo3(signature = (scheme, *, folder=None, most=None, room=None))]
    fn new(
        py: Python<'_>,
        scheme: &str,
        folder: Option<PathBuf>,
        most: Option<usize>,
        room: Option<usize>,
    ) -> PyResult<Self> {
        let most = if folder.is_some() { most.unwrap_or(usize::MAX) } else { usize::MAX };
        let (folder, room) = (folder.unwrap_or_default(), room.unwrap_or(usize::MAX));
        let counts = SpilledCounts::new(PieceCounts::new(scheme_of(py, scheme)?), &folder, most).with_room(room);
        Ok(BytePairTrainer { counts, folder, most, room })
    }

    /// Counts the texts of a list of str and bytes from `start` on, until `size` bytes of them are counted or the list is at its
    /// end. Returns where the next begins.
    fn add_some(
        &mut self,
        py: Python<'_>,
        texts: &Bound<'_, PyList>,
        start: usize,
        size: usize,
        threads: usize,
    ) -> PyResult<usize> {
        let (copied, next) = copy_some(texts, start, size)?;
        let counts = &mut self.counts;
        run(py, true, || counts.add_joined(&copied.text, &copied.ends, threads))?;
        Ok(next)
    }

    /// The same for texts that lie one after another in `data`, text i at `offsets[i]` to `offsets[i + 1]`.
    fn add_flat(
        &mut self,
        py: Python<'_>,
        data: PyReadonlyArray1<'_, u8>,
        offsets: PyReadonlyArray1<'_, i64>,
        threads: usize,
    ) -> PyResult<()> {
        let flat = flat_texts(py, &data, &offsets)?;
        let counts = &mut self.counts;
        run(py, true, || counts.add(&flat.texts()?, threads))
    }

    /// Number of different pieces in memory, of bytes counted, and of files written.
    fn size(&self) -> (usize, u64, usize) {
        (self.counts.num_held(), self.counts.bytes(), self.counts.num_written())
    }

    /// Brings the counts together; what was left out for want of room: the number of pieces, how often they occur in all, and
    /// how often those do at least that were kept.
    fn finish(&mut self, py: Python<'_>) -> PyResult<(u64, u64, u64)> {
        let nothing = PieceCounts::new(self.counts.scheme());
        let nothing = self.hold(nothing);
        let counts = std::mem::replace(&mut self.counts, nothing);
        let (counts, left_out) = run(py, true, || counts.finish())?;
        self.counts = self.hold(counts);
        Ok((left_out.pieces, left_out.occurrences, left_out.least))
    }

    /// Tokens in the byte alphabet ("" for special ones, which come first), and merges "left right", of the counts in memory.
    fn train(
        &self,
        py: Python<'_>,
        vocabulary: usize,
        num_specials: usize,
        min_count: u64,
    ) -> PyResult<(Vec<String>, Vec<String>)> {
        run(py, true, || {
            let trained = highrise_encode::train::train(self.counts.held(), vocabulary, num_specials, min_count)?;
            let alphabet = Alphabet::default();
            let tokens: Vec<String> = trained.tokens.iter().map(|token| alphabet.text(token)).collect();
            let text = |id: u32| tokens[id as usize].as_str();
            let merges =
                trained.merges.iter().map(|&(left, right)| format!("{} {}", text(left), text(right))).collect();
            Ok((tokens, merges))
        })
    }
}

/// Ends of the pieces that a split pattern cuts a text into, in bytes; on the fastest path or one of [`split_paths`].
#[pyfunction]
#[pyo3(signature = (text, scheme, *, path=None))]
fn split_pieces(py: Python<'_>, text: &str, scheme: &str, path: Option<&str>) -> PyResult<Vec<usize>> {
    let scheme = scheme_of(py, scheme)?;
    let path = match path.map(|name| Path::from_name(name).filter(|path| path.is_here()).ok_or(name)) {
        None => Path::best(),
        Some(Ok(path)) => path,
        Some(Err(name)) => {
            let message =
                format!("this processor has no way to split called {name:?}; it has {}", split_paths().join(", "));
            return Err(raise(py, "InputError", message));
        }
    };
    run(py, true, || {
        let mut ends = vec![0; text.len() + ROOM];
        let count = scheme.split_on(path, text, 0, &mut ends);
        ends.truncate(count);
        Ok(ends)
    })
}

/// Names of the ways to split that this processor has; all give the same pieces.
#[pyfunction]
fn split_paths() -> Vec<&'static str> {
    Path::NAMES.into_iter().filter(|name| Path::from_name(name).is_some_and(Path::is_here)).collect()
}

/// Names of the split patterns.
#[pyfunction]
fn split_schemes() -> Vec<&'static str> {
    Scheme::NAMES.to_vec()
}

/// Adds the names of this floor to `highrise._native`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    crate::encode_pipeline::register(module)?;
    module.add_class::<BytePairTokenizer>()?;
    module.add_class::<BytePairTrainer>()?;
    module.add_class::<TextStream>()?;
    module.add_function(wrap_pyfunction!(split_paths, module)?)?;
    module.add_function(wrap_pyfunction!(split_pieces, module)?)?;
    module.add_function(wrap_pyfunction!(split_schemes, module)?)?;
    Ok(())
}
