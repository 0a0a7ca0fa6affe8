"""Floor 6, llguidance: which tokens a grammar allows next, as a bit a token, computed in Rust without the GIL.

Special tokens of the vocabulary are never text of a grammar; only the ends of text among them may come, where the
grammar is whole. Knows neither the wire nor the sampler.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from highrise.core.errors import InputError, ServeError
from highrise.serve.constraint import JSON_STYLE, Grammar

if TYPE_CHECKING:
    from highrise.encode.tokenizer import Tokenizer

__all__ = ["Matcher", "compile_grammar"]

Floats = npt.NDArray[np.float32]

_vocabularies: WeakKeyDictionary[Tokenizer, Any] = WeakKeyDictionary()
_lock = threading.Lock()


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise ServeError(f"structured output needs llguidance ({error}): install highrise[serve]") from error
    return llguidance


def compile_grammar(grammar: Grammar, tokenizer: Tokenizer) -> Matcher:
    """A matcher at the beginning of `grammar`; `InputError` with the library's reason when it cannot be compiled."""
    library = _library()
    make = library.LLMatcher
    try:
        if grammar.kind == "json":
            source = make.grammar_from_json_schema(grammar.text, defaults=JSON_STYLE)
        elif grammar.kind == "regex":
            source = make.grammar_from_regex(grammar.text)
        else:
            source = make.grammar_from_lark(_lark(grammar.text))
    except ValueError as error:
        raise InputError(_one_line(str(error))) from error
    matcher = make(_vocabulary(library, tokenizer), source, log_level=0)
    if matcher.is_error():
        raise InputError(_one_line(matcher.get_error()))
    return Matcher(matcher, tokenizer.vocab_size)


def _lark(text: str) -> str:
    """A grammar in Lark's syntax; llama.cpp's GBNF is told by its `::=` and translated."""
    if "::=" not in text:
        return text
    from llguidance.gbnf_to_lark import any_to_lark

    try:
        lark: str = any_to_lark(text)
    except Exception as error:  # the translator raises nothing more precise
        raise InputError(_one_line(str(error))) from error
    return lark


def _one_line(reason: str) -> str:
    """The reason without the copy of the source and the position marks that stand around it."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    lines = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")] or lines
    return (lines[0] if lines else "the grammar is empty").rstrip(".")[:300]


def _vocabulary(library: Any, tokenizer: Tokenizer) -> Any:
    """The library's view of a vocabulary, made once: it sorts all tokens into a tree."""
    with _lock:
        if tokenizer not in _vocabularies:
            tokens = [tokenizer.token(number) for number in range(tokenizer.vocab_size)]
            view = _Vocabulary(tokenizer, tokens)
            _vocabularies[tokenizer] = library.LLTokenizer(
                view, n_vocab=tokenizer.vocab_size, eos_token=list(tokenizer.eos_ids)
            )
        return _vocabularies[tokenizer]


class _Vocabulary:
    """What the library asks of a tokenizer."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, tokens: list[bytes]) -> None:
        self.eos_token_id = tokenizer.eos_ids[0]
        self.tokens = tokens
        self.special_token_ids = sorted(tokenizer.special_tokens.values())
        self._encode = tokenizer.encode

    def __call__(self, text: bytes | str) -> list[int]:
        ids: list[int] = self._encode(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)
        return ids


class Matcher:
    """One answer under its grammar; see `serve/constraint.py`."""

    __slots__ = ("_bits", "_masked", "_matcher", "_vocab_size")

    def __init__(self, matcher: Any, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._bits = np.zeros(-(-vocab_size // 32), dtype=np.int32)
        self._masked: Floats = np.empty(0, dtype=np.float32)

    def mask(self, logits_V: Floats) -> Floats:  # noqa: N803
        """A copy with -inf at what may not come, valid until the next call; as it was once the grammar was given up."""
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        if self._matcher.is_error():
            return logits_V
        allowed = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[: min(self._vocab_size, len(logits_V))]
        if len(self._masked) != len(logits_V):
            self._masked = np.empty(len(logits_V), dtype=np.float32)
        masked = self._masked
        masked.fill(-np.inf)
        np.copyto(masked[: len(allowed)], logits_V[: len(allowed)], where=allowed.view(np.bool_))
        return masked

    def accept(self, token: int) -> None:
        """`token` came; one that the grammar forbids makes it give up."""
        self._matcher.consume_token(token)

    @property
    def finished(self) -> bool:
        """Whether only the end of the text may come."""
        return bool(self._matcher.is_stopped())

    @property
    def failure(self) -> str:
        """Why the grammar was given up."""
        return _one_line(self._matcher.get_error()) if self._matcher.is_error() else ""

    def fresh(self) -> Matcher:
        """Another one at the beginning."""
        copy = self._matcher.deep_copy()
        copy.reset()
        return Matcher(copy, self._vocab_size)
