"""The one TOML: composes the floors' configuration into the description of an assistant, and finds the file or preset.

Knows which floors have keys and nothing of how they work; the keys themselves are declared in each floor's `config.py`.
"""

from __future__ import annotations

import importlib.resources
import tomllib
from pathlib import Path

import msgspec

from highrise.agent.config import AgentConfig
from highrise.align.config import MethodConfig
from highrise.compute.config import ComputeConfig
from highrise.core.config import Config, convert, dump, load_toml
from highrise.core.errors import ConfigError
from highrise.data.config import DataConfig
from highrise.encode.config import TokenizerConfig
from highrise.encode.index_config import IndexConfig
from highrise.serve.config import ServeConfig
from highrise.train.config import TrainConfig

__all__ = ["DEFAULT_FILE", "DEFAULT_PRESET", "Assistant", "find", "load_preset", "presets", "render"]

DEFAULT_FILE = "assistant.toml"
DEFAULT_PRESET = "laptop"


class Assistant(Config, frozen=True):
    """One assistant, from its sources to its tools."""

    name: str
    compute: ComputeConfig = ComputeConfig()
    data: DataConfig = DataConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    """Used only when a model is trained from zero: existing weights bring their vocabulary."""
    index: IndexConfig = IndexConfig()
    train: TrainConfig = TrainConfig()
    align: tuple[MethodConfig, ...] = ()
    serve: ServeConfig = ServeConfig()
    agent: AgentConfig = AgentConfig()

    def __post_init__(self) -> None:
        if not self.name.strip(".") or not all(letter.isalnum() or letter in "-_." for letter in self.name):
            raise ConfigError(
                f'name is "{self.name}"; use letters, digits, "-", "_" and "." (it names a folder, so not only dots)'
            )
        if self.serve.upstream is not None and self.align:
            raise ConfigError(
                f"serve.upstream = {self.serve.upstream!r} answers with its own weights, so what align makes would "
                "not be served; take one of the two away"
            )


def presets() -> dict[str, str]:
    """The text of every preset by name."""
    folder = importlib.resources.files("highrise.presets")
    return {
        file.name.removesuffix(".toml"): file.read_text("utf-8")
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".toml")
    }


def load_preset(name: str) -> Assistant:
    """The assistant of a preset; `ConfigError` with the known names otherwise."""
    known = presets()
    if name not in known:
        raise ConfigError(f'there is no preset "{name}"; known are {", ".join(known)}')
    return convert(tomllib.loads(known[name]), Assistant, where=f"preset {name}")


def find(path: str | None, preset: str | None) -> tuple[Assistant, Path, str]:
    """The assistant that was asked for, the folder its paths are relative to, and where the description came from.

    An explicit file wins; then `assistant.toml` of the current folder, unless a preset was named; then the preset.
    """
    if path is not None and preset is not None:
        raise ConfigError(f"both the file {path} and the preset {preset} were given; give one")
    file = Path(path) if path is not None else Path(DEFAULT_FILE)
    if path is not None or (preset is None and file.exists()):
        return load_toml(file, Assistant), file.resolve().parent, str(file)
    chosen = preset or DEFAULT_PRESET
    return load_preset(chosen), Path.cwd(), f"preset {chosen}"


def render(assistant: Assistant) -> str:
    """The resolved configuration, every default written out, one line a key."""
    lines: list[str] = []

    def walk(prefix: str, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for number, inner in enumerate(value):
                walk(f"{prefix}[{number}]", inner)
        else:
            lines.append(f"  {prefix} = {msgspec.json.encode(value).decode()}")

    walk("", dump(assistant))
    return "\n".join(lines)
