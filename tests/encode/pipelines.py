"""Tokenizers of every kind that `tokenizers` and SentencePiece can train, made from the tests' corpus."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable

import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from highrise.encode import Tokenizer
from tests.encode.vocabularies import corpus

BLANK = "\u2581"
DEEPSEEK = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _added(text: str, **flags: bool) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(text, **flags)


def _train(tokenizer: tokenizers.Tokenizer, trainer: object) -> tokenizers.Tokenizer:
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def _bert(*, lowercase: bool) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    _train(made, trainers.WordPieceTrainer(vocab_size=900, special_tokens=special))
    cls, sep = (made.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    made.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    made.decoder = decoders.WordPiece()
    made.add_special_tokens([_added("[MASK]", lstrip=True, special=True)])
    return made


def _unigram(*, byte_fallback: bool) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "</s>", "<unk>", *([f"<0x{byte:02X}>" for byte in range(256)] if byte_fallback else [])]
    _train(made, trainers.UnigramTrainer(vocab_size=900, special_tokens=special, unk_token="<unk>"))
    made = _with_short_scores(made)
    made.decoder = decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return made


def _with_short_scores(made: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The same with scores of nine digits: `tokenizers` reads longer ones off by a last bit, which decides between cuts
    that are equally good, so that it would not agree with its own saved file.
    """
    file = json.loads(made.to_str())
    file["model"]["vocab"] = [[token, round(score, 9)] for token, score in file["model"]["vocab"]]
    return tokenizers.Tokenizer.from_str(json.dumps(file))


def _llama2() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend(BLANK), normalizers.Replace(" ", BLANK)])
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    _train(made, trainers.BpeTrainer(vocab_size=1200, special_tokens=special, limit_alphabet=150))
    made.pre_tokenizer = None
    made.decoder = decoders.Sequence(
        [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    made.add_tokens([_added(BLANK * 2, normalized=False), _added("naïve", single_word=True)])
    return made


def _metaspace_first() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=False))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    _train(made, trainers.BpeTrainer(vocab_size=900, special_tokens=["<unk>", "<sep>"], limit_alphabet=100))
    made.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    made.add_special_tokens([_added("<sep>", rstrip=True, special=True)])
    return made


def _byte_level(*steps: object, prefix: bool = False, use_regex: bool = True) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    last = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)
    made.pre_tokenizer = pre_tokenizers.Sequence([*steps, last]) if steps else last
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _train(made, trainers.BpeTrainer(vocab_size=1200, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"]))
    made.decoder = decoders.ByteLevel()
    return made


def _roberta() -> tokenizers.Tokenizer:
    made = _byte_level(prefix=True)
    made.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    made.add_special_tokens([_added("<mask>", lstrip=True, special=True)])
    return made


def _deepseek() -> tokenizers.Tokenizer:
    def split(expression: str) -> pre_tokenizers.PreTokenizer:
        return pre_tokenizers.Split(tokenizers.Regex(expression), "isolated")

    return _byte_level(split(r"\p{N}{1,3}"), split(r"[一-龥\u0800-一가-퟿]+"), split(DEEPSEEK), use_regex=False)


def _suffix() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    made.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents(), normalizers.Strip()]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(True)])
    _train(made, trainers.BpeTrainer(vocab_size=900, special_tokens=["<unk>"], end_of_word_suffix="</w>"))
    made.decoder = decoders.BPEDecoder()
    made.add_tokens([_added("WE'LL"), _added("don", single_word=True)])
    return made


def _words() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.WordLevel(unk_token="<unk>"))
    made.normalizer = normalizers.NFKD()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.CharDelimiterSplit("_"),
            pre_tokenizers.Punctuation("merged_with_previous"),
            pre_tokenizers.Digits(False),
            pre_tokenizers.Split(tokenizers.Regex(r"[A-Z][a-z\w]*"), "merged_with_next"),
            pre_tokenizers.Split("::", "contiguous"),
        ]
    )
    return _train(made, trainers.WordLevelTrainer(vocab_size=900, special_tokens=["<unk>"]))


_MAKERS: dict[str, Callable[[], tokenizers.Tokenizer]] = {
    "bert uncased": lambda: _bert(lowercase=True),
    "bert cased": lambda: _bert(lowercase=False),
    "unigram": lambda: _unigram(byte_fallback=False),
    "unigram with bytes": lambda: _unigram(byte_fallback=True),
    "llama 2": _llama2,
    "metaspace first": _metaspace_first,
    "roberta": _roberta,
    "deepseek": _deepseek,
    "end of word": _suffix,
    "words": _words,
}
KINDS = tuple(_MAKERS)


@functools.cache
def theirs(kind: str) -> tokenizers.Tokenizer:
    return _MAKERS[kind]()


@functools.cache
def ours(kind: str) -> Tokenizer:
    return Tokenizer.from_bytes(theirs(kind).to_str().encode(), name=f"{kind}.json")


SENTENCEPIECE: dict[str, dict[str, object]] = {
    "unigram": {"model_type": "unigram"},
    "unigram with bytes": {"model_type": "unigram", "byte_fallback": True, "normalization_rule_name": "nfkc_cf"},
    "unigram with own symbols": {"model_type": "unigram", "user_defined_symbols": ["<sep>", "naïve"]},
    "bpe": {"model_type": "bpe", "normalization_rule_name": "identity", "remove_extra_whitespaces": False},
    "bpe with bytes": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"},
    "bpe normalised": {"model_type": "bpe"},
    "bpe with own symbols": {
        "model_type": "bpe",
        "byte_fallback": True,
        "add_dummy_prefix": False,
        "user_defined_symbols": ["<sep>", "naïve", BLANK * 2],
    },
    "bpe with blanks behind": {"model_type": "bpe", "treat_whitespace_as_suffix": True},
}


@functools.cache
def sentencepiece_model(kind: str) -> bytes:
    out = io.BytesIO()
    lines = [line for text in corpus() for line in text.split("\n")]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=out,
        vocab_size=900,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **SENTENCEPIECE[kind],
    )
    return out.getvalue()


@functools.cache
def as_sentencepiece(kind: str) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model(kind))


@functools.cache
def ours_sentencepiece(kind: str) -> Tokenizer:
    return Tokenizer.from_bytes(sentencepiece_model(kind), name=f"{kind}.model")
