"""Floor 6, engine inputs: names, prompts and token ids of the wire, checked and turned into what the engine takes.

Refuses with `ApiError` what does not fit or does not exist. Knows neither generation nor answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from highrise.serve.infill import fit
from highrise.serve.protocol import ApiError

if TYPE_CHECKING:
    from highrise.encode.prompt import Prompt
    from highrise.serve.engine_view import EngineView

__all__ = ["EngineInputs", "beside", "not_served"]

T = TypeVar("T")


_MAX_NAME = 512


_LONG = 50_000
"""Characters that are read beside the event loop: 10 MB of one letter keep a tokenizer busy for seconds."""


async def beside(size: int, work: Callable[[], T]) -> T:
    """The outcome of `work` on a text of `size` characters; a long one does not keep other clients waiting."""
    return work() if size < _LONG else await asyncio.to_thread(work)


def not_served(model: str, served: Sequence[str]) -> ApiError:
    """The refusal of a model's name; `served` are those that there are."""
    return ApiError(
        f"The model '{model}' does not exist here; this server runs {', '.join(map(repr, served))}.",
        status=404,
        param="model",
        code="model_not_found",
    )


class EngineInputs:
    """What every route asks of an engine before it generates; `names` are the model names that are accepted."""

    def __init__(self, engine: EngineView, *, name: str, names: set[str]) -> None:
        self.name = name
        self.tokenizer = engine.tokenizer
        self.prompts = engine.prompts
        self._engine = engine
        self._names = names

    @property
    def max_context(self) -> int:
        """Longest prompt plus answer in tokens."""
        length: int = self._engine.max_context
        return length

    def count(self, text: str) -> int:
        """Tokens of `text`."""
        number: int = self.tokenizer.count(text)
        return number

    def check_model(self, name: str) -> None:
        """Refuse a model that is not served here."""
        self.adapter(name)

    def adapter(self, model: str) -> str | None:
        """The adapter that requests for `model` ask for, None for the model itself; refuse what is not served here."""
        if model in self._names:
            return None
        if model in self._engine.adapters.names:
            return model
        raise not_served(model, [self.name, *self._engine.adapters.names])

    def is_base(self, name: str) -> bool:
        """Whether `name` stands for the model itself."""
        return name in self._names

    def middle(
        self,
        prefix: str,
        suffix: str,
        extra: Sequence[tuple[str, str]],
        max_tokens: int,
        *,
        path: str | None,
        repository: str | None,
        heal: bool = True,
    ) -> tuple[Prompt, bool]:
        """The fill-in-the-middle prompt, cut to leave room for `max_tokens`, and whether it was cut.

        `heal` lets the answer spell the begun word before the cursor, see `PromptFormat.infill`.
        """
        if not self.prompts.supports_infill:
            raise ApiError(
                f"The model '{self.name}' was not made to fill in a middle.", param="suffix", code="infill_unsupported"
            )
        names = {"path": self.count(path or ""), "repository": self.count(repository or "")}
        for param, length in names.items():
            if length > _MAX_NAME:
                raise ApiError(f"'{param}' has {length} tokens; at most {_MAX_NAME} are read.", param=param)
        budget = self.max_context - max_tokens - 32 - sum(names.values())
        if budget < 32:
            raise self._too_long(max_tokens, "max_tokens")
        window = fit(prefix, suffix, extra, budget=budget, count=self.count)
        prompt = self.prompts.infill(
            window.prefix, window.suffix, extra=window.extra, path=path, repository=repository, heal=heal
        )
        return prompt, window.truncated

    def ids(self, prompt: str | list[int], param: str = "prompt") -> list[int]:
        """Token ids of a text, special tokens in it read as such, or given ids checked; a refusal names `param`."""
        if isinstance(prompt, str):
            ids: list[int] = self.tokenizer.encode(prompt, special="all")
            return ids
        for token in prompt:
            if not 0 <= token < self.tokenizer.vocab_size:
                raise ApiError(
                    f"The token id {token} is not among the {self.tokenizer.vocab_size} of the vocabulary.",
                    param=param,
                )
        if not prompt:
            raise ApiError("The prompt is empty; there is nothing to continue.", param=param)
        return prompt

    def room(self, ids: Sequence[int], param: str) -> int:
        """Tokens left for the answer; a prompt that leaves none is refused."""
        if len(ids) >= self.max_context:
            raise self._too_long(len(ids), param)
        return self.max_context - len(ids)

    def _too_long(self, length: int, param: str) -> ApiError:
        return ApiError(
            f"This model's maximum context length is {self.max_context} tokens, but the request needs {length} and "
            "room for the answer; shorten it.",
            param=param,
            code="context_length_exceeded",
        )
