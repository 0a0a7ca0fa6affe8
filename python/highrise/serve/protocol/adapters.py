"""Floor 6, wire: vLLM's requests to load and unload a LoRA adapter."""

from __future__ import annotations

import msgspec

__all__ = ["LoadAdapterRequest", "UnloadAdapterRequest"]


class LoadAdapterRequest(msgspec.Struct, kw_only=True):
    """The body of /v1/load_lora_adapter; the folder is one on the server's machine."""

    lora_name: str
    lora_path: str
    load_inplace: bool = False
    """Take the place of an adapter of that name."""


class UnloadAdapterRequest(msgspec.Struct, kw_only=True):
    """The body of /v1/unload_lora_adapter."""

    lora_name: str
