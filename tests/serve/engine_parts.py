"""An engine over the slow decoder of `tests/reference`, with a tokenizer of 96 letters, for the tests here."""

from __future__ import annotations

import functools
from typing import ClassVar

from highrise.serve.engine import Engine
from highrise.serve.request import Output, Request, Sampling
from tests.reference.paged_decoder import TINY, PagedDecoder, random_weights

EOS = 95


class LetterStream:
    def __init__(self) -> None:
        self._held = ""

    def push(self, id: int) -> str:
        """Every tenth id is half a character: it comes out with the next one."""
        text = self._held + chr(32 + id)
        self._held = text if id % 10 == 9 else ""
        return "" if self._held else text

    def finish(self) -> str:
        text, self._held = self._held, ""
        return text


class Letters:
    """The part of `Tokenizer` that the engine uses."""

    vocab_size = 96
    eos_ids = (EOS,)
    special_tokens: ClassVar[dict[str, int]] = {"<end>": EOS}

    def token(self, id: int) -> bytes:
        return bytes([32 + id])

    def decode_stream(self) -> LetterStream:
        return LetterStream()


@functools.cache
def weights(seed: int = 0):
    return random_weights(TINY, seed)


def tiny_engine(*, num_pages: int = 64, page_size: int = 4, **options) -> Engine:
    decoder = PagedDecoder(TINY, weights(), num_pages=num_pages, page_size=page_size)
    return Engine(
        decoder, shape=TINY, tokenizer=Letters(), prompts=None, num_pages=num_pages, page_size=page_size, **options
    )


def alone(engine: Engine, requests: list[Request]) -> list[list[int]]:
    """The ids of each request when nothing else runs and nothing is cached; leaves nothing cached."""
    found = []
    for request in requests:
        engine.cache.clear()
        found.append(ids_of(engine.generate([request])[0]))
    engine.cache.clear()
    return found


def greedy(prompt, count: int = 12, **options) -> Request:
    sampling = {"temperature": 0.0, "max_tokens": count, "ignore_eos": True}
    sampling |= {key: options.pop(key) for key in list(options) if key in Sampling.__struct_fields__}
    return Request(prompt_ids=list(prompt), sampling=Sampling(**sampling), **options)


def ids_of(outputs: list[Output]) -> list[int]:
    return [token for output in outputs for token in output.ids]


def text_of(outputs: list[Output]) -> str:
    return "".join(output.text for output in outputs)
