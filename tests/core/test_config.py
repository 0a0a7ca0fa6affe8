"""Configuration: each mistake is one sentence that names file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from highrise.core.config import Config, fingerprint, load_toml, parse_duration
from highrise.core.errors import ConfigError


class Inner(Config, frozen=True):
    sources: tuple[str, ...] = (".",)


class Outer(Config, frozen=True):
    name: str
    data: Inner = Inner()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"\n[data]\nsource = ["."]', r"unknown field `source` - at `\$.data`"),
        ("name = 3", r"Expected `str`, got `int` - at `\$.name`"),
        ("", r"missing required field `name`"),
        ("name = ", "is not valid TOML"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "assistant.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as raised:
        load_toml(path, Outer)
    assert str(path) in str(raised.value)
    assert raised.value.exit_code == 2


def test_an_absent_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_toml(tmp_path / "absent.toml", Outer)


def test_fingerprint_depends_on_every_value() -> None:
    assert fingerprint(Outer(name="a")) == fingerprint(Outer(name="a"))
    assert fingerprint(Outer(name="a")) != fingerprint(Outer(name="a", data=Inner(sources=("x",))))


@pytest.mark.parametrize(("text", "seconds"), [("3 min", 180), ("90 s", 90), ("1.5 h", 5400), ("250ms", 0.25)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_a_wrong_duration_shows_how() -> None:
    with pytest.raises(ConfigError, match='cannot read "soon" as a duration; write for example "3 min"'):
        parse_duration("soon")
