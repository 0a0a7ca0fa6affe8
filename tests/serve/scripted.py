"""An engine that says what the test wrote: same interface as the real one, no model, a byte as a token."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

from highrise.core.errors import ServeError
from highrise.serve.constraint import Constraints, Grammar
from highrise.serve.engine_backend import EngineBackend
from highrise.serve.loaded_adapters import LoadedAdapters
from highrise.serve.request import Output, Request, TokenLogprob
from tests.reference.paged_decoder import TINY

EOS = 256


class ByteTokenizer:
    vocab_size = 257
    eos_ids = (EOS,)
    special_tokens: ClassVar[dict[str, int]] = {"<end>": EOS}

    def encode(self, text: str, *, special: object = "none") -> list[int]:
        return list(text.encode())

    def count(self, text: str, limit: int | None = None) -> int:
        return len(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(one for one in ids if one < 256).decode("utf-8", "replace")

    def token(self, token: int) -> bytes:
        return bytes([token]) if token < 256 else b"<eos>"


@dataclass
class ScriptedPrompt:
    ids: list[int]
    stop_ids: tuple[int, ...] = ()
    floating: tuple[int, int] | None = None
    begun: str = ""


@dataclass
class ScriptedCall:
    name: str
    arguments_json: str


class ScriptedPrompts:
    supports_infill = True
    stop_ids = (EOS,)

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def chat(
        self, messages: list[dict[str, Any]], *, tools: Any = None, add_generation_prompt: bool = True
    ) -> ScriptedPrompt:
        self.seen.append((messages, tools))
        return ScriptedPrompt(list("".join(f"{one['role']}:{one['content']}\n" for one in messages).encode()))

    def infill(
        self, prefix: str, suffix: str, *, extra: Any = (), path: Any = None, repository: Any = None, heal: bool = False
    ) -> ScriptedPrompt:
        self.seen.append((prefix, suffix, tuple(extra), path))
        text = "".join(f"<file>{name}\n{body}" for name, body in extra) + f"<pre>{prefix}<suf>{suffix}<mid>"
        return ScriptedPrompt(list(text.encode()))

    def parse_tool_calls(self, text: str) -> tuple[str, list[ScriptedCall]]:
        import json

        calls = []
        rest = text
        if "<tool_call>" in text:
            rest, _, tail = text.partition("<tool_call>")
            try:
                found, _ = json.JSONDecoder().raw_decode(tail.strip())
                calls.append(ScriptedCall(found["name"], json.dumps(found["arguments"])))
            except (ValueError, KeyError):
                return text, []
        return rest, calls


@dataclass
class ScriptedRunner:
    """Gives the script's text, a byte a token, `delay` seconds apart; remembers what was asked and cancelled."""

    say: Callable[[str], str]
    delay: float = 0.0
    asked: list[Request] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    alive: bool = True
    num_restarts: int = 0

    def check(self) -> None:
        if not self.alive:
            raise ServeError("the script has ended")

    async def compile(self, grammar: Grammar) -> None:
        await Constraints(ByteTokenizer()).compile(grammar)  # type: ignore[arg-type]

    def stats(self) -> Any:
        return SimpleNamespace(
            num_running=1,
            num_waiting=0,
            page_usage=0.5,
            num_preemptions=2,
            drafted_tokens=8,
            accepted_tokens=5,
            running_adapters=(),
            waiting_adapters=(),
        )

    def close(self) -> None:
        self.alive = False

    async def embed(self, prompts: Sequence[Sequence[int]], *, adapter: str | None = None) -> Any:
        import numpy as np

        return np.array([[len(ids), 1.0] for ids in prompts], dtype=np.float32)

    async def generate(self, request: Request) -> AsyncIterator[Output]:
        self.asked.append(request)
        sampling = request.sampling
        data = self.say(bytes(one for one in request.prompt_ids if one < 256).decode("utf-8", "replace")).encode()
        ids = [*data, EOS]
        limit = len(ids) if sampling.max_tokens is None else sampling.max_tokens
        finished = False
        ended = min([len(data), *(data.index(one.encode()) for one in sampling.stop if one.encode() in data)])
        decoder = codecs.getincrementaldecoder("utf-8")()
        out = 0
        try:
            for number, token in enumerate(ids[:limit] or [EOS]):
                await asyncio.sleep(self.delay)
                piece = decoder.decode(bytes([token])) if token < 256 and out < ended else ""
                out += 1
                reason = None
                if token == EOS or (out >= ended and ended < len(data)):
                    reason = "stop"
                elif number + 1 == limit:
                    reason = "length"
                logprobs = None
                if sampling.logprobs is not None:
                    logprobs = (TokenLogprob(token, -0.5, ((token, -0.5), (65, -1.5))[: sampling.logprobs]),)
                prompt_logprobs = None
                if sampling.echo and sampling.logprobs is not None and number == 0:
                    prompt_logprobs = (None, *(TokenLogprob(one, -1.0) for one in request.prompt_ids[1:]))
                finished = reason is not None
                yield Output(
                    request_id=request.id,
                    ids=(token,),
                    text=piece,
                    logprobs=logprobs,
                    prompt_logprobs=prompt_logprobs,
                    finish_reason=reason,  # type: ignore[arg-type]
                    num_prompt_tokens=len(request.prompt_ids),
                    num_cached_tokens=3,
                    num_generated=number + 1,
                )
                if finished:
                    return
        finally:
            if not finished:
                self.cancelled.append(request.id)


class ScriptedEmbedder:
    name = "scripted-embedder"

    def embed(self, texts: Sequence[str]) -> Any:
        import numpy as np

        rows = np.array([[len(text), text.count("a"), 1.0, 2.0] for text in texts], dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def scripted_backend(
    say: Callable[[str], str] | str,
    *,
    delay: float = 0.0,
    max_context: int = 1000,
    max_waiting: int = 64,
    embedder: Any = None,
    aliases: Sequence[str] = (),
) -> EngineBackend:
    """An `EngineBackend` over a scripted engine."""
    speak = (lambda _prompt: say) if isinstance(say, str) else say
    engine = SimpleNamespace(
        name="scripted",
        tokenizer=ByteTokenizer(),
        prompts=ScriptedPrompts(),
        max_context=max_context,
        adapters=LoadedAdapters(None, TINY),  # type: ignore[arg-type]
        default_adapter=None,
    )
    runner = ScriptedRunner(speak, delay=delay)
    return EngineBackend(engine, runner, embedder=embedder, max_waiting=max_waiting, aliases=aliases)  # type: ignore[arg-type]
