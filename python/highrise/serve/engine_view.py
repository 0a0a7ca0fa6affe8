"""Floor 6, engine view: what the routes ask of an engine, whichever thread or process it runs in.

`EngineView` tells what it is, `Runner` runs requests on it. `Engine` and `EngineRunner` are the pair in this process,
`serve/engine_process.py` has the pair for an engine in a process of its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from highrise.core.errors import ServeError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from highrise.encode.prompt import PromptFormat
    from highrise.encode.tokenizer import Tokenizer
    from highrise.serve.constraint import Grammar
    from highrise.serve.engine_stats import EngineStats
    from highrise.serve.loaded_adapters import LoadedAdapter
    from highrise.serve.request import Output, Request

__all__ = ["AdapterNames", "EngineView", "RestartingError", "Runner"]


class RestartingError(ServeError):
    """The engine ended and is being started again; whoever asks again in `seconds` may be answered."""

    def __init__(self, message: str, *, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class AdapterNames(Protocol):
    """Adapters that requests may name."""

    most: int
    """How many may be loaded at a time."""

    @property
    def names(self) -> tuple[str, ...]:
        """In the order of loading."""

    def find(self, name: str) -> LoadedAdapter:
        """The adapter of that name; `UnknownAdapterError` when there is none."""


class EngineView(Protocol):
    """What does not change from request to request, but for the adapters."""

    name: str

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's vocabulary."""

    @property
    def prompts(self) -> PromptFormat:
        """How this model wants its prompts."""

    @property
    def max_context(self) -> int:
        """Most tokens of prompt and answer together."""

    @property
    def adapters(self) -> AdapterNames:
        """Adapters that requests may name."""

    @property
    def default_adapter(self) -> LoadedAdapter | None:
        """What requests run under that name no adapter."""


class Runner(Protocol):
    """Runs requests on an engine, for any asyncio loop."""

    num_restarts: int
    """How often the engine was started again."""

    def check(self) -> None:
        """Return when requests are answered; raise `RestartingError` when they soon are, `ServeError` when never."""

    def generate(self, request: Request) -> AsyncGenerator[Output, None]:
        """Outputs of one request as they come; leaving early cancels it."""

    async def compile(self, grammar: Grammar) -> None:
        """Make `grammar` ready for requests that name it; `InputError` says what is wrong with it."""

    async def embed(self, prompts: Sequence[Sequence[int]], *, adapter: str | None = None) -> npt.NDArray[np.float32]:
        """`Engine.embed`, one prompt between two steps."""

    async def load_adapter(self, name: str, folder: Path, *, replace: bool = False) -> None:
        """Load an adapter beside the running steps."""

    async def unload_adapter(self, name: str) -> None:
        """Drop one; requests under way end with it."""

    def stats(self) -> EngineStats:
        """The engine's counts, at most a fraction of a second old."""

    def close(self) -> None:
        """End the engine; requests in flight fail with `ServeError`."""
