"""The build of one assistant: which stages it has, in which order, and what each is made from.

Every stage is a folder with a manifest under `.highrise/NAME/`; a stage that is whole and unchanged is reused. Knows
the floors' entry points and nothing of what they do. One stage, one function, one printed line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from highrise.align.config import MethodConfig
from highrise.assistant import Assistant
from highrise.core.catalogue import Kind, bytes_to_fetch, locate
from highrise.core.config import Config
from highrise.core.manifest import Manifest, build_stage, is_made_of, read_manifest
from highrise.core.progress import human_bytes, human_seconds, say
from highrise.core.weights import open_weights

__all__ = ["Built", "build_assistant", "check_inputs", "state_folder"]

Counts = Mapping[str, int | float | str]


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What serving needs: weights, an adapter when one was kept, the index when there is one."""

    weights: Path | None
    adapter: Path | None
    index: Path | None
    embedder: str | None


class _Methods(Config, frozen=True):
    """The configuration of the align stage: every method in order."""

    methods: tuple[MethodConfig, ...]


def state_folder(assistant: Assistant) -> Path:
    """Where the stages of this assistant lie, below the current folder."""
    return Path(".highrise") / assistant.name


def build_assistant(assistant: Assistant, *, retune: bool = False) -> Built:
    """Build what is not built and return where it lies; configured paths are relative to the current folder.

    With `retune` the adapter is tuned again even when nothing, or little, has changed.
    """
    state = state_folder(assistant)
    state.mkdir(parents=True, exist_ok=True)
    (state.parent / ".gitignore").write_text("*\n")
    embedder = _embedder(assistant)
    base = locate(assistant.train.base, kind="decoder", download=True, say=say) if assistant.train.base else None
    data = _data(assistant, state)
    index = _index(assistant, state, data)
    weights = base
    if assistant.serve.upstream is None and (base is None or assistant.train.continues):
        vocabulary = _tokenizer(assistant, state, data) if base is None else base
        weights = _train(assistant, state, _tokens(assistant, state, data, vocabulary))
    adapter = None
    if assistant.align and weights is not None:
        adapter = _align(assistant, state, data, weights, retune=retune)
    return Built(weights=weights, adapter=adapter, index=index, embedder=embedder)


def check_inputs(assistant: Assistant) -> None:
    """What a build would stumble over in its sources and models, as `InputError`; says what it would fetch."""
    from highrise.data.sources import check_sources

    check_sources(assistant.data)
    models: list[tuple[str, Kind]] = []
    if assistant.train.base is not None:
        models.append((assistant.train.base, "decoder"))
    if assistant.index.enabled and assistant.index.budget_seconds > 0:
        models.append((assistant.index.embedder, "embedder"))
    for name, kind in models:
        if size := bytes_to_fetch(name, kind=kind):
            say(f"{name} would be fetched: {human_bytes(size)}")
        elif kind == "decoder":
            open_weights(locate(name))


def _embedder(assistant: Assistant) -> str | None:
    """The name of the embedding weights, fetched when the index wants any."""
    if not assistant.index.enabled or assistant.index.budget_seconds == 0:
        return None
    locate(assistant.index.embedder, kind="embedder", download=True, say=say)
    return assistant.index.embedder


def _data(assistant: Assistant, state: Path) -> Path:
    from highrise.compute.machine import detect
    from highrise.data.build import build_data

    folder = state / "data"
    _report(folder, *build_data(assistant.data, folder, workers=detect().cores))
    return folder


def _index(assistant: Assistant, state: Path, data: Path) -> Path | None:
    if not assistant.index.enabled:
        return None
    from highrise.encode.index_build import build_index

    folder = state / "index"
    return _stage(
        folder,
        assistant.index,
        {"data": read_manifest(data).fingerprint},
        lambda out: build_index(assistant.index, data, out, previous=folder if folder.exists() else None),
    )


def _tokenizer(assistant: Assistant, state: Path, data: Path) -> Path:
    from highrise.encode.train import build_tokenizer

    return _stage(
        state / "tokenizer",
        assistant.tokenizer,
        {"data": read_manifest(data).fingerprint},
        lambda out: build_tokenizer(assistant.tokenizer, data, out),
    )


def _tokens(assistant: Assistant, state: Path, data: Path, vocabulary: Path) -> Path:
    """Packed token files; `vocabulary` is a tokenizer folder or the weights that bring theirs."""
    from highrise.data.shards import read_documents
    from highrise.train.corpus import build_corpus

    return _stage(
        state / "tokens",
        assistant.train,
        {"data": read_manifest(data).fingerprint, "tokenizer": _fingerprint_of_weights(vocabulary)},
        lambda out: build_corpus(assistant.train, read_documents(data), vocabulary, out),
    )


def _train(assistant: Assistant, state: Path, tokens: Path) -> Path:
    from highrise.train.pretrain import pretrain

    return _stage(
        state / "weights",
        assistant.train,
        {"tokens": read_manifest(tokens).fingerprint},
        lambda out: pretrain(assistant.train, tokens, out, say=say),
    )


def _align(assistant: Assistant, state: Path, data: Path, weights: Path, *, retune: bool) -> Path | None:
    """Tune; the adapter folder when it lowered the held-out loss, else None."""
    from highrise.align.tune import tune

    config = _Methods(methods=assistant.align)
    inputs = {"data": read_manifest(data).fingerprint, "weights": _fingerprint_of_weights(weights)}
    folder = _stage(
        state / "align",
        config,
        inputs | {"asked": str(time.time_ns())} if retune else _kept_inputs(state / "align", config, inputs, data),
        lambda out: tune(assistant.align, weights, data, out, say=say),
    )
    adapter = folder / "adapter"
    return adapter if adapter.exists() else None


def _kept_inputs(folder: Path, config: _Methods, inputs: dict[str, str], data: Path) -> dict[str, str]:
    """The inputs of the adapter that is there, when it still fits; else `inputs`, and it is tuned again."""
    from highrise.align.reuse import RETUNE_SHARE, changed_share

    if not (folder / "manifest.json").exists():
        return inputs
    there = read_manifest(folder)
    same = all(there.inputs.get(name) == value for name, value in inputs.items() if name != "data")
    if not same or not is_made_of(there, folder.name, config):
        return inputs
    if there.inputs.get("data") == inputs["data"]:
        return there.inputs
    share = changed_share(folder, data)
    if share is None:
        return inputs
    again = share >= RETUNE_SHARE
    say(
        f"align: {100 * share:.1f} % of the text that the adapter was made of has changed, so it is "
        + (
            "tuned again"
            if again
            else f"kept (from {100 * RETUNE_SHARE:.0f} % on, or with --retune, it is tuned again)"
        )
    )
    return inputs if again else there.inputs


def _fingerprint_of_weights(weights: Path) -> str:
    if weights.is_dir():
        return read_manifest(weights).fingerprint if (weights / "manifest.json").exists() else str(weights.resolve())
    status = weights.stat()
    return f"{weights.name} {status.st_size} {status.st_mtime_ns}"


def _stage(folder: Path, config: msgspec.Struct, inputs: Mapping[str, str], build: Callable[[Path], Counts]) -> Path:
    """Run or reuse one stage and print its line."""
    _report(folder, *build_stage(folder, stage=folder.name, config=config, inputs=inputs, build=build))
    return folder


def _report(folder: Path, manifest: Manifest, reused: bool) -> None:
    shown = [_count(key, value) for key, value in list(manifest.counts.items())[:6]]
    took = "reused" if reused else human_seconds(manifest.seconds)
    say(f"{folder.name:<10} {took:>8}  {', '.join(shown).replace('_', ' ')}  -> {folder}")


def _count(key: str, value: float | str) -> str:
    if isinstance(value, int):
        return f"{value:,} {key}"
    return f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
