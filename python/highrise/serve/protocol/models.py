"""Floor 6, wire: what /v1/models lists."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Model", "ModelList"]


class Model(msgspec.Struct, kw_only=True):
    """One model of /v1/models; `root`, `max_model_len` and `parent` are vLLM's.

    `root` is the model's own name, when it was asked for by another, or an adapter's folder.
    """

    id: str
    root: str | None = None
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "highrise"
    max_model_len: int | None = None
    parent: str | None = None
    """Of an adapter: the model that it runs beside."""


class ModelList(msgspec.Struct):
    """The answer of /v1/models."""

    data: list[Model]
    object: Literal["list"] = "list"
