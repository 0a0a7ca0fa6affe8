//! Tokenizers of many steps as Python sees them: the steps come as dictionaries, each with a "type", from
//! `highrise/encode/pipeline.py`, which has checked them. Conversions only.

use highrise_encode::pipeline::added::AddedToken;
use highrise_encode::pipeline::bpe::{BpeOptions, CharacterBpe};
use highrise_encode::pipeline::charsmap::Charsmap;
use highrise_encode::pipeline::decode::{byte_of, Decoder, Kind};
use highrise_encode::pipeline::model::{ByteTokens, Model, QuickMap};
use highrise_encode::pipeline::normalize::Normalizer;
use highrise_encode::pipeline::pattern::{Behavior, Pattern};
use highrise_encode::pipeline::sentencepiece::{Rules, SentencePieceBpe};
use highrise_encode::pipeline::split::{PreTokenizer, Prepend};
use highrise_encode::pipeline::trie::Trie;
use highrise_encode::pipeline::unigram::Unigram;
use highrise_encode::pipeline::wordpiece::WordPiece;
use highrise_encode::pipeline::{Choice, Parts, Pipeline};
use highrise_encode::tokenizer::Offsets;
use highrise_encode::{alphabet::Alphabet, Error, Scheme, Vocabulary};
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::encode::{ids_of, raise, run, text_of, to_python, FlatIds, DETACH_BYTES};
use crate::encode_texts::{as_texts, flat_texts, hold};

/// (text, id, special, single word, strips left, strips right, normalised)
type AddedArgument = (String, u32, bool, bool, bool, bool, bool);

/// SentencePiece's numbers for kinds of pieces.
const NORMAL: u8 = 1;
const UNKNOWN: u8 = 2;
const CONTROL: u8 = 3;
const USER_DEFINED: u8 = 4;
const UNUSED: u8 = 5;
const BYTE: u8 = 6;

/// One step as Python gives it.
struct Step<'py>(Bound<'py, PyDict>);

impl<'py> Step<'py> {
    fn get<T: for<'a> FromPyObject<'a, 'py>>(&self, key: &str) -> PyResult<T> {
        let py = self.0.py();
        let wrong = || raise(py, "InputError", format!("the step {} has no usable {key}", self.0));
        self.0.get_item(key)?.ok_or_else(wrong)?.extract::<T>().map_err(|_| wrong())
    }

    fn kind(&self) -> PyResult<String> {
        self.get("type")
    }

    fn unknown(&self, what: &str) -> PyErr {
        raise(self.0.py(), "InputError", format!("the {what} {} is not known", self.0))
    }

    fn pattern(&self) -> PyResult<Pattern> {
        let text: String = self.get("pattern")?;
        if self.get("is_regex")? {
            to_python(self.0.py(), Pattern::regex(&text))
        } else {
            Ok(Pattern::Literal(text))
        }
    }

    fn behavior(&self) -> PyResult<Behavior> {
        Behavior::from_name(&self.get::<String>("behavior")?).ok_or_else(|| self.unknown("split behavior in"))
    }

    fn charsmap(&self) -> PyResult<Charsmap> {
        to_python(self.0.py(), Charsmap::new(&self.get::<Vec<u8>>("charsmap")?))
    }

    fn normalizer(&self, chosen: &Trie) -> PyResult<Normalizer> {
        Ok(match self.kind()?.as_str() {
            "NFC" => Normalizer::Nfc,
            "NFD" => Normalizer::Nfd,
            "NFKC" => Normalizer::Nfkc,
            "NFKD" => Normalizer::Nfkd,
            "Lowercase" => Normalizer::Lowercase,
            "StripAccents" => Normalizer::StripAccents,
            "Nmt" => Normalizer::Nmt,
            "Strip" => Normalizer::Strip { left: self.get("strip_left")?, right: self.get("strip_right")? },
            "BertNormalizer" => Normalizer::Bert {
                clean: self.get("clean_text")?,
                ideographs: self.get("handle_chinese_chars")?,
                accents: self.get("strip_accents")?,
                lowercase: self.get("lowercase")?,
            },
            "Prepend" => Normalizer::Prepend(self.get("prepend")?),
            "Replace" => Normalizer::Replace(self.pattern()?, self.get("content")?),
            "Precompiled" => Normalizer::Precompiled(self.charsmap()?),
            "SentencePiece" => Normalizer::SentencePiece(Box::new(Rules {
                charsmap: self.charsmap()?,
                add_dummy_prefix: self.get("add_dummy_prefix")?,
                remove_extra_whitespaces: self.get("remove_extra_whitespaces")?,
                escape_whitespaces: self.get("escape_whitespaces")?,
                whitespace_as_suffix: self.get("treat_whitespace_as_suffix")?,
                chosen: chosen.clone(),
            })),
            _ => return Err(self.unknown("normalizer")),
        })
    }

    fn pre_tokenizer(&self) -> PyResult<PreTokenizer> {
        let py = self.0.py();
        Ok(match self.kind()?.as_str() {
            "Scheme" => {
                let name: String = self.get("scheme")?;
                PreTokenizer::Scheme(to_python(py, Scheme::from_name(&name).ok_or(Error::UnknownScheme(name)))?)
            }
            "PrefixBlank" => PreTokenizer::PrefixBlank,
            "Split" => PreTokenizer::Split(self.pattern()?, self.behavior()?, self.get("invert")?),
            "Metaspace" => PreTokenizer::Metaspace {
                mark: self.get("replacement")?,
                prepend: match self.get::<String>("prepend_scheme")?.as_str() {
                    "always" => Prepend::Always,
                    "first" => Prepend::First,
                    "never" => Prepend::Never,
                    _ => return Err(self.unknown("prepend_scheme in")),
                },
                split: self.get("split")?,
            },
            "WhitespaceSplit" => PreTokenizer::WhitespaceSplit,
            "Whitespace" => PreTokenizer::Whitespace(to_python(py, Pattern::regex(r"\w+|[^\w\s]+"))?),
            "BertPreTokenizer" => PreTokenizer::Bert,
            "Punctuation" => PreTokenizer::Punctuation(self.behavior()?),
            "Digits" => PreTokenizer::Digits(self.get("individual_digits")?),
            "CharDelimiterSplit" => PreTokenizer::Delimiter(self.get("delimiter")?),
            "FixedLength" => PreTokenizer::FixedLength(self.get("length")?),
            _ => return Err(self.unknown("pre_tokenizer")),
        })
    }

    fn decoder(&self) -> PyResult<Decoder> {
        Ok(match self.kind()?.as_str() {
            "ByteLevel" => Decoder::ByteLevel,
            "Metaspace" => Decoder::Metaspace(self.get("replacement")?, self.get("drops_first")?),
            "WordPiece" => Decoder::WordPiece(self.get("prefix")?, self.get("cleanup")?),
            "ByteFallback" => Decoder::ByteFallback,
            "Fuse" => Decoder::Fuse,
            "Strip" => Decoder::Strip(self.get("content")?, self.get("start")?, self.get("stop")?),
            "Replace" => Decoder::Replace(self.pattern()?, self.get("content")?),
            "BPEDecoder" => Decoder::Suffix(self.get("suffix")?),
            "SentencePiece" => {
                Decoder::SentencePiece(self.get("drops_blank")?, self.get("drops_all")?, self.get("unknown")?)
            }
            _ => return Err(self.unknown("decoder")),
        })
    }

    fn model(&self, tokens: &[String], kinds: &[u8], chosen: &Trie, special: &[u32]) -> PyResult<Model> {
        let py = self.0.py();
        let id = |name: &str| tokens.iter().position(|token| token == name).map(|id| id as u32);
        let unknown = || self.get::<Option<u32>>("unknown");
        let scores = || {
            let scores: Vec<f64> = self.get("scores")?;
            if scores.len() != tokens.len() || scores.iter().any(|score| score.is_nan()) {
                let (scores, tokens) = (scores.len(), tokens.len());
                let message = format!("there are {scores} scores for {tokens} tokens, or one is no number");
                return Err(raise(py, "InputError", message));
            }
            Ok(scores)
        };
        let bytes = |wanted: bool| {
            let names: QuickMap<&[u8], u32> =
                tokens.iter().enumerate().rev().map(|(id, token)| (token.as_bytes(), id as u32)).collect();
            wanted.then(|| ByteTokens::find(|name| names.get(name.as_bytes()).copied()))
        };
        let of_kind = |wanted: &[u8]| -> Vec<bool> { kinds.iter().map(|kind| wanted.contains(kind)).collect() };
        Ok(match self.kind()?.as_str() {
            "ByteLevelBPE" => {
                let merges: Vec<String> = self.get("merges")?;
                let whole: bool = self.get("ignore_merges")?;
                let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
                let merges: Vec<&str> = merges.iter().map(String::as_str).collect();
                let is_special = |id: usize| special.contains(&(id as u32));
                let made = Vocabulary::from_byte_level(&Alphabet::default(), &tokens, &merges, &is_special, whole);
                Model::Bytes(Box::new(to_python(py, made)?))
            }
            "BPE" => {
                let options = BpeOptions {
                    unknown: unknown()?,
                    fuse_unknown: self.get("fuse_unk")?,
                    byte_fallback: self.get("byte_fallback")?,
                    whole_pieces: self.get("ignore_merges")?,
                    prefix: self.get("continuing_subword_prefix")?,
                    suffix: self.get("end_of_word_suffix")?,
                };
                let merges: Vec<(String, String)> = self.get("merges")?;
                Model::Characters(Box::new(to_python(py, CharacterBpe::new(tokens, &merges, options))?))
            }
            "WordPiece" => Model::WordPiece(Box::new(WordPiece::new(
                tokens,
                unknown()?,
                &self.get::<String>("continuing_subword_prefix")?,
                self.get("max_input_chars_per_word")?,
            ))),
            "Unigram" => {
                let bytes = bytes(self.get("byte_fallback")?);
                Model::Unigram(Box::new(Unigram::new(tokens, scores()?, unknown()?, bytes)))
            }
            "WordLevel" => {
                let words = tokens.iter().enumerate().filter(|(_, token)| !token.is_empty());
                let words = words.map(|(id, token)| (Box::from(token.as_bytes()), id as u32)).collect();
                Model::Words(words, unknown()?)
            }
            "SentencePieceUnigram" => {
                let (normal, chosen) = (of_kind(&[NORMAL]), of_kind(&[USER_DEFINED]));
                let bytes = bytes(self.get("byte_fallback")?);
                let unknown = unknown()?.unwrap_or(u32::MAX);
                Model::Unigram(Box::new(Unigram::sentencepiece(tokens, scores()?, &normal, &chosen, unknown, bytes)))
            }
            "SentencePieceBPE" => {
                let scores = scores()?.into_iter().map(|score| score as f32).collect();
                let mergeable = of_kind(&[NORMAL, USER_DEFINED, UNUSED]);
                let bytes = bytes(self.get("byte_fallback")?);
                let unknown = unknown()?.or_else(|| id("<unk>")).unwrap_or(0);
                let unused = of_kind(&[UNUSED]);
                let model = SentencePieceBpe::new(tokens, scores, &mergeable, &unused, chosen.clone(), unknown, bytes);
                Model::SentencePiece(Box::new(model))
            }
            _ => return Err(self.unknown("model")),
        })
    }
}

fn kind_of(number: u8, token: &str) -> Kind {
    match number {
        UNKNOWN => Kind::Unknown,
        CONTROL => Kind::Control,
        BYTE => byte_of(token).map_or(Kind::Normal, Kind::Byte),
        _ => Kind::Normal,
    }
}

/// A tokenizer of many steps; see `highrise.encode.tokenizer` for the words.
#[pyclass(frozen, module = "highrise._native")]
struct PipelineTokenizer {
    inner: Pipeline,
}

fn choice(all: bool, these: Option<Vec<String>>) -> Choice {
    match these {
        _ if all => Choice::All,
        None => Choice::None,
        Some(texts) => Choice::These(texts),
    }
}

#[pymethods]
impl PipelineTokenizer {
    /// From tokens by id ("" is a hole), SentencePiece's kinds of them or none, steps, and added tokens.
    #[new]
    #[pyo3(signature = (*, tokens, kinds, model, normalizers, pre_tokenizers, decoders, added))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        tokens: Vec<String>,
        kinds: Vec<u8>,
        model: Bound<'_, PyDict>,
        normalizers: Vec<Bound<'_, PyDict>>,
        pre_tokenizers: Vec<Bound<'_, PyDict>>,
        decoders: Vec<Bound<'_, PyDict>>,
        added: Vec<AddedArgument>,
    ) -> PyResult<Self> {
        if !kinds.is_empty() && kinds.len() != tokens.len() {
            let message = format!("there are {} kinds for {} tokens", kinds.len(), tokens.len());
            return Err(raise(py, "InputError", message));
        }
        let chosen = kinds.iter().enumerate().filter(|(_, &kind)| kind == USER_DEFINED);
        let chosen = Trie::new(chosen.map(|(id, _)| (tokens[id].as_bytes(), id as u32)));
        let special: Vec<u32> = added.iter().map(|token| token.1).collect();
        let added = added
            .into_iter()
            .map(|(text, id, special, single_word, lstrip, rstrip, normalized)| AddedToken {
                text,
                id,
                special,
                single_word,
                lstrip,
                rstrip,
                normalized,
            })
            .collect();
        let parts = Parts {
            model: Step(model).model(&tokens, &kinds, &chosen, &special)?,
            normalizers: normalizers.into_iter().map(|step| Step(step).normalizer(&chosen)).collect::<PyResult<_>>()?,
            pre_tokenizers: pre_tokenizers
                .into_iter()
                .map(|step| Step(step).pre_tokenizer())
                .collect::<PyResult<_>>()?,
            decoders: decoders.into_iter().map(|step| Step(step).decoder()).collect::<PyResult<_>>()?,
            kinds: kinds.iter().zip(&tokens).map(|(&kind, token)| kind_of(kind, token)).collect(),
            added,
            tokens,
        };
        Ok(PipelineTokenizer { inner: run(py, true, move || Pipeline::new(parts))? })
    }

    #[getter]
    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }

    #[pyo3(signature = (text, *, all_specials=false, specials=None))]
    fn encode(
        &self,
        py: Python<'_>,
        text: &str,
        all_specials: bool,
        specials: Option<Vec<String>>,
    ) -> PyResult<Vec<u32>> {
        let choice = choice(all_specials, specials);
        run(py, text.len() >= DETACH_BYTES, || self.ids(text, &choice, usize::MAX))
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
        Ok(PyArray1::from_vec(py, self.encode(py, text, all_specials, specials)?))
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
        let choice = choice(all_specials, specials);
        let held = hold(texts)?;
        let (ids, starts) = run(py, true, || self.inner.encode_batch(&as_texts(&held)?, &choice, threads))?;
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
        let choice = choice(all_specials, specials);
        let flat = flat_texts(py, &data, &offsets)?;
        let (ids, starts) = run(py, true, || self.inner.encode_batch(&flat.texts()?, &choice, threads))?;
        Ok((PyArray1::from_vec(py, ids), PyArray1::from_vec(py, starts)))
    }

    /// The ids of bytes, which must be UTF-8.
    fn encode_bytes(&self, py: Python<'_>, content: &[u8]) -> PyResult<Vec<u32>> {
        run(py, content.len() >= DETACH_BYTES, || {
            let text = std::str::from_utf8(content)
                .map_err(|error| Error::NotUtf8 { index: 0, position: error.valid_up_to() })?;
            self.ids(text, &Choice::None, usize::MAX)
        })
    }

    /// The ids and, for each, the bytes of the UTF-8 of the text that it stands for.
    #[pyo3(signature = (text, *, all_specials=false, specials=None))]
    fn encode_with_offsets(
        &self,
        py: Python<'_>,
        text: &str,
        all_specials: bool,
        specials: Option<Vec<String>>,
    ) -> PyResult<(Vec<u32>, Offsets)> {
        let choice = choice(all_specials, specials);
        run(py, true, || {
            let (mut ids, mut offsets) = (Vec::new(), Vec::new());
            self.inner.encode(text, &choice, usize::MAX, &mut ids, Some(&mut offsets))?;
            Ok((ids, offsets))
        })
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
        let choice = choice(all_specials, specials);
        run(py, text.len() >= DETACH_BYTES, || Ok(self.ids(text, &choice, limit.unwrap_or(usize::MAX))?.len()))
    }

    /// The bytes of the text of ids.
    #[pyo3(signature = (ids, *, skip_special=false))]
    fn decode_bytes<'py>(
        &self,
        py: Python<'py>,
        ids: &Bound<'py, PyAny>,
        skip_special: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let ids = ids_of(ids)?;
        let bytes = run(py, ids.len() * 4 >= DETACH_BYTES, || self.inner.decode(&ids, skip_special))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// As text; bytes that are no UTF-8 become U+FFFD.
    #[pyo3(signature = (ids, *, skip_special=false))]
    fn decode<'py>(
        &self,
        py: Python<'py>,
        ids: &Bound<'py, PyAny>,
        skip_special: bool,
    ) -> PyResult<Bound<'py, PyString>> {
        let ids = ids_of(ids)?;
        let bytes = run(py, ids.len() * 4 >= DETACH_BYTES, || self.inner.decode(&ids, skip_special))?;
        Ok(text_of(py, &bytes))
    }

    /// The bytes that one id adds to a text, as its first token or behind others.
    #[pyo3(signature = (id, *, first=false))]
    fn token<'py>(&self, py: Python<'py>, id: u32, first: bool) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &to_python(py, self.inner.streamed(id, first))?))
    }

    /// How one id is spelled in the vocabulary.
    fn spelling(&self, py: Python<'_>, id: u32) -> PyResult<String> {
        Ok(to_python(py, self.inner.spelling(id))?.to_string())
    }

    /// The id of a spelling.
    fn id(&self, token: &[u8]) -> Option<u32> {
        std::str::from_utf8(token).ok().and_then(|token| self.inner.id(token))
    }
}

impl PipelineTokenizer {
    fn ids(&self, text: &str, choice: &Choice, limit: usize) -> Result<Vec<u32>, Error> {
        let mut ids = Vec::with_capacity(if limit == usize::MAX { text.len() / 3 + 8 } else { 0 });
        self.inner.encode(text, choice, limit, &mut ids, None)?;
        Ok(ids)
    }
}

/// Adds the names of this file to `highrise._native`.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PipelineTokenizer>()
}
