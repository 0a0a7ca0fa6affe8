"""Floor 0, configuration: TOML in, frozen msgspec Structs out, and a fingerprint of what was resolved.

Knows nothing of any floor's keys: a floor's `config.py` declares them as `Config` subclasses.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TypeVar

import msgspec

from highrise.core.errors import ConfigError

__all__ = ["Config", "convert", "dump", "fingerprint", "load_toml", "parse_duration", "parse_size"]

T = TypeVar("T")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every configuration struct: immutable, and an unknown key is an error."""


def load_toml(path: Path, kind: type[T]) -> T:
    """Read `path` as `kind`; every mistake becomes one `ConfigError` that names file and key."""
    import tomllib

    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    try:
        return convert(tomllib.loads(text.decode("utf-8")), kind, where=str(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def convert(value: object, kind: type[T], *, where: str) -> T:
    """Turn plain data into `kind`; `where` stands at the front of the error."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        reason = str(error).replace("Object contains unknown field", "unknown field")
        raise ConfigError(f"{where}: {reason}") from error


def dump(config: object) -> dict[str, object]:
    """The configuration as plain data, with every default written out."""
    plain = msgspec.to_builtins(config)
    assert isinstance(plain, dict)
    return plain


def fingerprint(*parts: object) -> str:
    """Sixteen hex digits that change when any part does; parts are anything msgspec can encode."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(msgspec.json.encode(part, order="sorted"))
        digest.update(b"\0")
    return digest.hexdigest()[:16]


_UNITS = {"ms": 0.001, "s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str, *, where: str = "duration") -> float:
    """Seconds of a duration such as "3 min", "90 s" or "1.5 h"."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)\s*", text)
    if match is None or match[2] not in _UNITS:
        raise ConfigError(f'{where}: cannot read "{text}" as a duration; write for example "3 min", "90 s" or "1.5 h"')
    return float(match[1]) * _UNITS[match[2]]


def parse_size(text: str, *, where: str = "size") -> int:
    """Bytes of a size such as "512M", "1.5 GB", "300 mb" or "2 GiB"; without an i a letter is a power of 1000."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kMGT]?)(i?)B?\s*", text, re.IGNORECASE | re.ASCII)
    if match is None:
        raise ConfigError(f'{where}: cannot read "{text}" as a size; write for example "512M", "1.5 GB" or "2 GiB"')
    return int(float(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index(match[2].upper() or " "))
