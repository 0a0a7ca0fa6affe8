"""Floor 1, shapes: a decoder's dimensions from a known name, a GGUF file, a Hugging Face `config.json`, or numbers.

Reads headers, no weights. Dense decoders only: a mixture of experts is refused, because its memory and time obey other
formulas.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import msgspec

from highrise.core.config import convert
from highrise.core.errors import InputError
from highrise.core.shape import DecoderShape
from highrise.core.weights import open_weights

__all__ = ["known_shapes", "shape_from_config", "shape_of"]

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_MAX_SIZE = 10**9
_KEYS = tuple(field.name for field in msgspec.structs.fields(DecoderShape))


def shape_from_config(config: Mapping[str, object], *, where: str = "config.json") -> DecoderShape:
    """The shape that a Hugging Face configuration describes; absent keys take Hugging Face's defaults."""
    experts = next((key for key in _EXPERTS if config.get(key)), None)
    if experts:
        raise InputError(
            f"{where} has {experts} = {config[experts]}: mixtures of experts are not planned, dense ones are"
        )
    values = {key: config[key] for key in _KEYS if config.get(key) is not None}
    heads, hidden = values.get("num_attention_heads"), values.get("hidden_size")
    if isinstance(heads, int) and heads > 0:
        values.setdefault("num_key_value_heads", heads)
        if isinstance(hidden, int):
            values.setdefault("head_dim", hidden // heads)
    values.setdefault("max_position_embeddings", 2048)
    if config.get("model_type") == "qwen2":
        values.setdefault("attention_bias", True)
    shape = convert(values, DecoderShape, where=where)
    _check(shape, where)
    return shape


def _check(shape: DecoderShape, where: str) -> None:
    for key in _KEYS:
        value = getattr(shape, key)
        if isinstance(value, int) and not isinstance(value, bool) and not 1 <= value <= _MAX_SIZE:
            raise InputError(f"{where}: {key} is {value}; it must be from 1 to {_MAX_SIZE:,}")


@functools.cache
def known_shapes() -> dict[str, DecoderShape]:
    """Every shape of shapes.toml by name."""
    text = resources.files("highrise.compute").joinpath("shapes.toml").read_text(encoding="utf-8")
    return {name: shape_from_config(value, where=f"shapes.toml: {name}") for name, value in tomllib.loads(text).items()}


def _is_gguf(path: Path) -> bool:
    """By its first bytes: files in caches and containers often have no suffix. A cut file is one by its name."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF" or path.suffix == ".gguf"
    except OSError:
        return False


def shape_of(model: str) -> DecoderShape:
    """The shape of a known name, of a GGUF file, of a `config.json`, or of a folder that holds one."""
    known = known_shapes()
    if model in known:
        return known[model]
    path = Path(model)
    if _is_gguf(path):
        return open_weights(path).shape
    path = path / "config.json" if path.is_dir() else path
    try:
        content = msgspec.json.decode(path.read_bytes())
    except PermissionError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except OSError:
        raise InputError(
            f"{model!r} is neither a known model ({', '.join(known)}) nor a GGUF file nor a readable config.json; "
            "or give --layers, --hidden, ..."
        ) from None
    except msgspec.DecodeError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object")
    return shape_from_config(content, where=str(path))
