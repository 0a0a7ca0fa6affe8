"""A whole server over the slow decoder in numpy: real engine, thread, routes; an alphabet for a vocabulary."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

from highrise.serve.engine import Engine
from highrise.serve.engine_backend import EngineBackend
from highrise.serve.engine_process import STEP_TIMEOUT, EngineProcess
from highrise.serve.runner import EngineRunner
from tests.serve.engine_parts import EOS, Letters, tiny_engine
from tests.serve.scripted import ScriptedPrompt, ScriptedPrompts


class Alphabet(Letters):
    """`Letters` with the rest of `Tokenizer`: one token a character, anything beyond ASCII is a question mark."""

    special_tokens = {"<end>": EOS}  # noqa: RUF012

    def encode(self, text: str, *, special: object = "none") -> list[int]:
        return [ord(letter) - 32 if 32 <= ord(letter) < 127 else 31 for letter in text]

    def count(self, text: str, *, limit: int | None = None) -> int:
        return len(text)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(32 + one) for one in ids)

    def token(self, token_id: int) -> bytes:
        return b"<end>" if token_id == EOS else bytes([32 + token_id])


class AlphabetPrompts(ScriptedPrompts):
    def chat(self, messages: list[dict[str, Any]], **options: Any) -> ScriptedPrompt:
        return self._letters(super().chat(messages, **options))

    def infill(self, prefix: str, suffix: str, **options: Any) -> ScriptedPrompt:
        return self._letters(super().infill(prefix, suffix, **options))

    @staticmethod
    def _letters(prompt: ScriptedPrompt) -> ScriptedPrompt:
        return ScriptedPrompt(Alphabet().encode(bytes(prompt.ids).decode("utf-8", "replace")))


def tiny_model(*, breaks: int | None = None, slow: float = 0.0, **options: Any) -> Engine:
    """The engine alone. Its step number `breaks` fails, and each takes `slow` seconds more."""
    engine = tiny_engine(**{"num_pages": 64, "page_size": 4, "max_context": 120, "step_tokens": 32, **options})
    engine.tokenizer = Alphabet()  # type: ignore[assignment]
    engine._prompts = AlphabetPrompts()  # type: ignore[assignment]
    forward, calls = engine.decoder.forward, itertools.count(1)

    def watched(*arguments: Any) -> Any:
        time.sleep(slow)
        if next(calls) == breaks:
            raise RuntimeError("the decoder broke")
        return forward(*arguments)

    engine.decoder.forward = watched  # type: ignore[method-assign]
    return engine


def tiny_backend(*, max_waiting: int = 64, **options: Any) -> EngineBackend:
    """An `EngineBackend`; `backend.runner.engine.cache` tells of its pages."""
    engine = tiny_model(**options)
    return EngineBackend(engine, EngineRunner(engine), name="tiny", max_waiting=max_waiting)


def tiny_process(*, step_timeout: float = STEP_TIMEOUT, **options: Any) -> EngineProcess:
    """The same engine in a process of its own, from the root of the repository."""
    opener = "tests.serve.tiny_backend:tiny_model"
    return EngineProcess(options, opener=opener, say=lambda _: None, step_timeout=step_timeout)


def process_backend(process: EngineProcess, *, max_waiting: int = 64) -> EngineBackend:
    """An `EngineBackend` over such a process."""
    view = process.view(Alphabet(), AlphabetPrompts())  # type: ignore[arg-type]
    return EngineBackend(view, process, name="tiny", max_waiting=max_waiting)
