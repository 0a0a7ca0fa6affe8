"""Floor 6, constraint: what keeps an answer to a grammar, token by token, and where compiled grammars are kept.

The sampler asks a `Constraint` which tokens may come and tells it which came. The library that knows grammars is
imported by the first request that has one; what a request may ask for is `serve/grammar.py`. Knows no wire.
"""

from __future__ import annotations

import asyncio
import collections
import threading
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from highrise.encode.tokenizer import Tokenizer

__all__ = ["JSON_STYLE", "Constraint", "Constraints", "Grammar"]

Floats = npt.NDArray[np.float32]

JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""Spaces as `json.dumps` writes them: with free white space a small model may write blanks until its limit."""

_KEPT = 64


class Grammar(msgspec.Struct, frozen=True):
    """A JSON schema, a regular expression, or a grammar in the syntax of Lark or GBNF; `param` named it."""

    kind: Literal["json", "regex", "lark"]
    text: str
    param: str = ""


class Constraint(Protocol):
    """The state of one answer under its grammar. Not thread-safe: it belongs to one sequence."""

    def mask(self, logits_V: Floats) -> Floats:  # noqa: N803
        """A copy of a row of logits with -inf at every token that may not come now; valid until the next call."""

    def accept(self, token: int) -> None:
        """`token` came."""

    @property
    def finished(self) -> bool:
        """Whether nothing but the end of the text may come, or nothing is known any more (`failure`)."""

    @property
    def failure(self) -> str:
        """Why the grammar was given up on the way, such as a limit of its size; empty when all is well."""

    def fresh(self) -> Constraint:
        """Another one at the beginning, sharing what was compiled."""


class Constraints:
    """Compiles grammars for one vocabulary; the last ones are kept. Any thread may ask."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._compiled: collections.OrderedDict[Grammar, Constraint] = collections.OrderedDict()

    async def compile(self, grammar: Grammar | None) -> Constraint | None:
        """A constraint at its beginning, None for no grammar; `InputError` says what is wrong with it.

        Runs beside the event loop: the first one reads the vocabulary (about a second for 150,000 tokens).
        """
        if grammar is None:
            return None
        return self.known(grammar) or await asyncio.to_thread(self.compile_now, grammar)

    def known(self, grammar: Grammar) -> Constraint | None:
        """A constraint of a grammar that was compiled and is kept still, without waiting."""
        with self._lock:
            compiled = self._compiled.get(grammar)
            if compiled is None:
                return None
            self._compiled.move_to_end(grammar)
            return compiled.fresh()

    def compile_now(self, grammar: Grammar) -> Constraint:
        """What `compile` gives, in the calling thread."""
        from highrise.serve.adapters.llguidance import compile_grammar

        if (known := self.known(grammar)) is not None:
            return known
        compiled = compile_grammar(grammar, self._tokenizer)
        with self._lock:
            self._compiled[grammar] = compiled
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        return compiled.fresh()
