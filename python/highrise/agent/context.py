"""Floor 7, context: weaves pieces of the indexed sources into prompts, under one budget of tokens.

Chat: pieces that answer the last question stand before it. Ghost text: pieces that the code above the cursor refers
to go to the prompt's `input_extra`; prefix, suffix and pieces share `completion_context` tokens. What was woven for a
place in a file stays the same while a line is typed, so that the engine's prefix cache hits at every key. Knows no
special tokens.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from highrise.agent.config import AgentConfig
from highrise.core.errors import HighriseError
from highrise.serve.infill import fit
from highrise.serve.protocol import ChatMessage, ChatRequest, CompletionRequest, InfillExtra, InfillRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from highrise.encode.index import Hit, SearchIndex

__all__ = ["Context", "question_of"]

_log = logging.getLogger("highrise.agent")


_QUERY_LINES = 8
_CACHED_PLACES = 200
_KEPT_SECONDS = 120.0
_PATIENCE = 0.5  # seconds that a ghost text waits for the index; a chat waits as long as it takes
_SMALL_TALK = frozenset(
    str.split(
        "hi hello hey thanks thank you yes no ok okay please good morning evening bye great cool nice why how what"
    )
)
_WORDS = re.compile(r"[A-Za-z_]\w+")
_DEFINED = re.compile(
    r"\b(?:def|class|fn|func|function|struct|enum|trait|interface|type|const|let|var)\s+([A-Za-z_]\w+)"
)
_COMMON = frozenset(
    str.split(
        "import from class self return async await else elif while break continue with yield lambda None True "
        "False this static public private const void struct func function list dict tuple float bool print "
        "range value values name string args kwargs type isinstance super init __init__ annotations "
        "__future__ typing"
    )
)
_SHARED_NAMES = 3


class Context:
    """Finds and fits pieces; `count` gives the tokens of a text, `screen` takes out what must not reach a model."""

    def __init__(
        self,
        index: SearchIndex | None,
        config: AgentConfig,
        count: Callable[[str], int],
        *,
        screen: Callable[[str], str] = lambda text: text,
    ) -> None:
        self._index = index
        self._config = config
        self._count = count
        self._screen = screen
        self._places: OrderedDict[tuple[str, str], tuple[float, list[Hit]]] = OrderedDict()

    # --------------------------------------------------------------------------------------------------------- chat

    async def weave_chat(
        self, request: ChatRequest, *, max_context: int | None = None
    ) -> tuple[ChatRequest, list[Hit]]:
        """The request with pieces of the sources before its last question, and the pieces; both may be unchanged.

        A client that brings its own tools, or says `use_context: false`, finds its context itself.
        """
        question = question_of(request.messages)
        wanted = self._index is not None and self._config.chat_context > 0 and request.use_context is not False
        if not wanted or request.tools or not _is_worth_a_search(question):
            return request, []
        budget = self._config.chat_context
        if max_context is not None:
            spoken = sum(self._count(text_of(message)) for message in request.messages)
            budget = min(budget, (max_context - spoken) // 2)
        hits = self._fitting(await self._search(question, 8), budget)
        if not hits:
            return request, []
        place = max(place for place, message in enumerate(request.messages) if message.role == "user")
        woven = self._screen("\n\n".join(_quote(hit) for hit in hits))
        text = f"These pieces of our sources may help:\n\n{woven}\n\n{question}"
        messages = list(request.messages)
        messages[place] = msgspec.structs.replace(messages[place], content=text)
        return msgspec.structs.replace(request, messages=messages), hits

    def _fitting(self, hits: Sequence[Hit], budget: int) -> list[Hit]:
        """The best pieces that fit; one that is too long is passed over for shorter ones behind it."""
        kept = []
        for hit in hits:
            size = self._count(_quote(hit)) + 2
            if size <= budget:
                budget -= size
                kept.append(hit)
        return kept

    # --------------------------------------------------------------------------------------------------- ghost text

    async def weave_completion(self, request: CompletionRequest) -> CompletionRequest:
        """A fill-in request cut to the budget, with pieces of other files."""
        if request.suffix is None or not isinstance(request.prompt, str):
            return request
        extra = request.input_extra or []
        prefix, suffix, pieces = await self._fill(request.prompt, request.suffix, extra, request.path)
        return msgspec.structs.replace(request, prompt=prefix, suffix=suffix, input_extra=pieces)

    async def weave_infill(self, request: InfillRequest) -> InfillRequest:
        """The same for llama.cpp's /infill."""
        extra = request.input_extra or []
        begun = request.input_prefix + (request.prompt or "")
        prefix, suffix, pieces = await self._fill(begun, request.input_suffix, extra, request.path)
        return msgspec.structs.replace(
            request, input_prefix=prefix, prompt=None, input_suffix=suffix, input_extra=pieces
        )

    async def _fill(
        self, prefix: str, suffix: str, given: Sequence[InfillExtra], path: str | None
    ) -> tuple[str, str, list[InfillExtra]]:
        budget = self._config.completion_context
        share = int(budget * self._config.context_share)
        offered = [(piece.filename, piece.text) for piece in given]
        if self._index is not None and share:
            for hit in await self._near(prefix, path):
                text = hit.text.strip("\n")
                if text and text not in prefix and text not in suffix:
                    offered.append((hit.path, text + "\n"))
        pieces, used = [], 0
        for name, text in offered:
            size = self._count(text) + self._count(name) + 4
            if used + size <= share:
                used += size
                pieces.append((name, text))
        window = fit(prefix, suffix, (), budget=budget - used, count=self._count)
        return window.prefix, window.suffix, [InfillExtra(text=text, filename=name) for name, text in pieces]

    async def _near(self, prefix: str, path: str | None) -> list[Hit]:
        """Pieces like the lines above the current one; the same for every key typed in that line and near it."""
        above = prefix.rsplit("\n", 1)[0] if "\n" in prefix else ""
        query = "\n".join([line for line in above.split("\n") if line.strip()][-_QUERY_LINES:])
        if len(_WORDS.findall(query)) < 3:
            return []
        # Pieces stand before the text that grows: new ones make the model read all of it again. So they stay for some
        # lines, where the file has a name to know it by.
        lines = above.count("\n") + 1
        place = (path, str(lines // _QUERY_LINES)) if path else ("", query)
        found = self._places.get(place)
        if found is not None and time.monotonic() - found[0] < _KEPT_SECONDS:
            self._places.move_to_end(place)
            return found[1]
        try:
            async with asyncio.timeout(_PATIENCE):
                hits = await self._search(query, 6)
        except TimeoutError:
            return []
        hits = _relevant(query, [hit for hit in hits if path is None or hit.path != path])
        self._places[place] = (time.monotonic(), hits)
        if len(self._places) > _CACHED_PLACES:
            self._places.popitem(last=False)
        return hits

    async def _search(self, query: str, limit: int) -> list[Hit]:
        assert self._index is not None
        try:
            return await asyncio.to_thread(self._index.search, query[:2000], limit=limit)
        except HighriseError as error:
            _log.warning("the index cannot be searched, the prompt goes without it: %s", error)
            return []


def text_of(message: ChatMessage) -> str:
    """The text of a message, whichever form its content has."""
    if isinstance(message.content, list):
        return "\n".join(str(part.get("text", "")) for part in message.content)
    return message.content or ""


def question_of(messages: Sequence[ChatMessage]) -> str:
    """What the person asked last."""
    return next((text_of(message) for message in reversed(messages) if message.role == "user"), "")


def _is_worth_a_search(question: str) -> bool:
    words = [word for word in _WORDS.findall(question) if word.lower() not in _SMALL_TALK]
    return len(words) >= 2 or any("_" in word or not (word.islower() or word.istitle()) for word in words)


def _relevant(query: str, hits: Sequence[Hit]) -> list[Hit]:
    """What helps to write on: pieces that define a name used just above, then pieces that share several of its names.

    The index always finds something, and a small model takes whatever it is shown for the matter at hand: with pieces
    that are merely the nearest, it completes worse than with none (docs/log/agent.md).
    """
    names = {name for name in _WORDS.findall(query) if len(name) > 3} - _COMMON
    ranked: list[tuple[int, Hit]] = []
    for hit in hits:
        if names.intersection(_DEFINED.findall(hit.text)):
            ranked.append((0, hit))
        elif len(names.intersection(_WORDS.findall(hit.text))) >= _SHARED_NAMES:
            ranked.append((1, hit))
    return [hit for _, hit in sorted(ranked, key=lambda one: one[0])]


def _quote(hit: Hit) -> str:
    return f"{hit.path}:{hit.start_line}-{hit.end_line}\n```{hit.language}\n{hit.text.rstrip()}\n```"
