"""Floor 6, loader: a weight file becomes an engine. Chooses what was left open (threads, pages, context) and says so.

Every tensor goes from its mapped file straight into the decoder's tiles; nothing is dequantised in Python. Knows no
scheduling. An adapter in PEFT's format runs beside the weights and is merged into nothing.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from highrise.compute.machine import detect
from highrise.core.errors import ConfigError, InputError
from highrise.core.native import csrc
from highrise.core.progress import human_bytes
from highrise.core.shape import DecoderShape
from highrise.core.weights import WeightFile, open_weights
from highrise.encode.prompt import PromptFormat
from highrise.encode.tokenizer import Tokenizer
from highrise.serve.draft_model import DraftModel
from highrise.serve.engine import Engine

__all__ = ["PAGE_SIZE", "Plan", "check_kernels", "load_engine", "plan_memory"]

PAGE_SIZE = 16
_LARGEST_POOL = 512_000_000
_SHARE_OF_MEMORY = 0.25

WeightBits = Literal["stored", "int8", "int4", "float32"]
CacheType = Literal["fp16", "fp32", "int8"]

_KEPT = {"fp16": "float16", "fp32": "float32", "int8": "int8"}  # in the words of the decoder
_CACHE_GROUP = 32  # dimensions that share a scale at 8 bits, csrc/serve/kernels.h


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What was derived for one model on one machine."""

    threads: int
    num_pages: int
    max_context: int
    pool_bytes: int


def plan_memory(
    shape: DecoderShape,
    *,
    threads: int | None,
    num_pages: int | None,
    max_context: int | None,
    cache_bytes: int | None = None,
    kv: CacheType = "fp16",
    sharers: int = 1,
) -> Plan:
    """Fill in what is None: all usable cores, and pages for a quarter of the free memory, at most 512 MB.

    What is derived is one share of as many as `sharers`, for several engines on one machine.

    `ConfigError` when one request of `max_context` tokens would not fit into the pages.
    """
    machine = detect()
    page_bytes = PAGE_SIZE * _bytes_per_token(shape, kv)
    wanted = min(max_context or shape.max_position_embeddings, shape.max_position_embeddings)
    if num_pages is None:
        budget = cache_bytes
        if budget is None:
            budget = int(min(_LARGEST_POOL, _SHARE_OF_MEMORY * machine.memory_available_bytes) / sharers)
            if max_context is not None:
                budget = max(budget, (-(-wanted // PAGE_SIZE) + 1) * page_bytes)
        num_pages = budget // page_bytes
    if num_pages < 2:
        raise ConfigError(
            f"{human_bytes(cache_bytes or num_pages * page_bytes)} of memory hold no two pages of {PAGE_SIZE} tokens "
            f"({human_bytes(page_bytes)} each); give the cache at least {human_bytes(2 * page_bytes)}"
        )
    if max_context is not None and wanted > num_pages * PAGE_SIZE:
        raise ConfigError(
            f"a context of {wanted} tokens does not fit into {num_pages} pages of {PAGE_SIZE} tokens; "
            f"ask for at most {num_pages * PAGE_SIZE} tokens or give the cache {human_bytes(wanted * page_bytes / 16)}"
        )
    return Plan(
        threads=max(machine.cores // sharers, 1) if threads is None else threads,
        num_pages=num_pages,
        max_context=min(wanted, num_pages * PAGE_SIZE),
        pool_bytes=num_pages * page_bytes,
    )


def load_engine(
    path: Path,
    *,
    weights: WeightBits = "stored",
    adapter: Path | None = None,
    adapters: Mapping[str, Path] | None = None,
    draft: Path | None = None,
    threads: int | None = None,
    isa: str = "auto",
    num_pages: int | None = None,
    max_context: int | None = None,
    cache_bytes: int | None = None,
    kv: CacheType = "fp16",
    sharers: int = 1,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> Engine:
    """An engine over a GGUF file or a Hugging Face folder.

    `weights` keeps the stored bits, or quantises again where the file has more ("int8", "int4"); "float32" expands them
    and computes without quantising anything, slowly, to have something to compare with. `say` hears one line about what
    was derived, one share of `sharers`. Requests run under the one of `adapters` that they name, and without a name
    under `adapter`. `draft` is a smaller model of the same vocabulary that guesses ahead. `options` are the engine's
    own (`step_tokens`, `max_running`, `max_waiting`, `name`).
    Raises `InputError` for weights, adapters or instruction sets that cannot be used.
    """
    started = time.perf_counter()
    file = open_weights(path)
    plan = plan_memory(
        file.shape,
        threads=threads,
        num_pages=num_pages,
        max_context=max_context,
        cache_bytes=cache_bytes,
        kv=kv,
        sharers=sharers,
    )
    decoder = make_decoder(file, plan, weights=weights, isa=isa, kv=kv)
    tokenizer = Tokenizer.for_weights(path)
    prompts = PromptFormat.for_weights(path, tokenizer)
    options.setdefault("name", path.stem if path.is_file() else path.name)
    engine = Engine(
        decoder,
        shape=file.shape,
        tokenizer=tokenizer,
        prompts=prompts,
        num_pages=plan.num_pages,
        page_size=PAGE_SIZE,
        max_context=plan.max_context,
        exact_adapters=weights == "float32",
        draft=None if draft is None else open_draft(draft, tokenizer, plan, weights=weights, isa=isa, kv=kv),
        **options,
    )
    if adapter is not None:
        engine.load_adapter(adapter.name, adapter, default=True)
    for name, folder in (adapters or {}).items():
        engine.load_adapter(name, folder)
    if say is not None:
        beside = f", adapters {', '.join(engine.adapters.names)}" if engine.adapters.names else ""
        say(
            f"{engine.name}: weights {weights}{beside}, kernels {decoder.isa}, {plan.threads} threads, context "
            f"{plan.max_context:,} tokens, {plan.num_pages:,} pages of {PAGE_SIZE} tokens "
            f"({human_bytes(plan.pool_bytes)} at most), loaded in {time.perf_counter() - started:.1f} s"
        )
    return engine


def check_kernels(isa: str) -> None:
    """`ConfigError` unless the kernels of that name run on this CPU."""
    available = csrc.available_isas() + csrc.available_orders()
    if isa != "auto" and isa not in available:
        raise ConfigError(f'kernels "{isa}" do not run on this CPU; choose auto or one of {", ".join(available)}')


def open_draft(
    path: Path, tokenizer: Tokenizer, plan: Plan, *, weights: WeightBits, isa: str, kv: CacheType
) -> DraftModel:
    """The draft model of a file or folder, with pages for as many tokens as the large one has.

    `InputError` when its vocabulary is another one.
    """
    file = open_weights(path)
    own = Tokenizer.for_weights(path)
    size = min(own.vocab_size, tokenizer.vocab_size, file.shape.vocab_size)
    other = next((token for token in range(size) if own.token(token) != tokenizer.token(token)), None)
    if other is not None or size < tokenizer.vocab_size:
        where = f"{size} tokens" if other is None else f"{own.token(other)!r} as token {other}"
        raise InputError(f"{path} cannot guess for this model: its vocabulary is another one (it has {where})")
    decoder = make_decoder(file, plan, weights=weights, isa=isa, kv=kv)
    return DraftModel(decoder, num_pages=plan.num_pages, page_size=PAGE_SIZE)


def make_decoder(
    file: WeightFile, plan: Plan, *, weights: WeightBits, isa: str = "auto", kv: CacheType = "fp16"
) -> Any:
    """The native decoder with every tensor of `file` in it."""
    shape = file.shape
    check_kernels(isa)
    fields = msgspec.structs.asdict(shape)
    del fields["max_position_embeddings"]  # what the plan makes of it is its own
    if isa in csrc.available_orders() and not shape.is_plain:
        raise ConfigError(f'kernels "{isa}" follow llama.cpp for plain llama and qwen2 only, not {file.architecture}')
    decoder = csrc.Decoder(
        **fields,
        num_pages=plan.num_pages,
        threads=plan.threads,
        page_size=PAGE_SIZE,
        isa=isa,
        kv=_KEPT[kv],
        interleaved=file.kind == "gguf" and file.architecture == "llama",
    )
    for name, tensor in file.tensors.items():
        rows, cols = (tensor.shape[0], 1) if len(tensor.shape) == 1 else tensor.shape
        raw, kind, keep = tensor.raw(), tensor.type, weights
        if weights == "float32":
            raw, kind, keep = np.ascontiguousarray(tensor.dequantise()).reshape(-1).view(np.uint8), "F32", "stored"
        try:
            decoder.set_tensor(name, raw, kind, rows, cols, keep)
        except (ValueError, KeyError) as error:
            raise InputError(f"{file.path} cannot be run: {error}") from error
        _let_go(raw)
    missing = decoder.missing()
    if missing is not None:
        raise InputError(f"{file.path} lacks the tensor {missing}")
    return decoder


def _bytes_per_token(shape: DecoderShape, kv: CacheType) -> int:
    """Of keys and values of all layers; at 8 bits a half-precision scale goes with each 32 dimensions."""
    if kv != "int8":
        return shape.kv_bytes_per_token * (2 if kv == "fp32" else 1)
    scales = 2 * -(-shape.head_dim // _CACHE_GROUP)
    return 2 * shape.num_hidden_layers * shape.num_key_value_heads * (shape.head_dim + scales)


def _let_go(raw: object) -> None:
    """Drop the pages of a mapped file that was read, so that file and tiles are not both resident at the peak."""
    while raw is not None and not isinstance(raw, mmap.mmap):
        raw = getattr(raw, "base", None) if isinstance(raw, np.ndarray) else getattr(raw, "obj", None)
    if raw is not None and hasattr(raw, "madvise"):
        raw.madvise(mmap.MADV_DONTNEED)
