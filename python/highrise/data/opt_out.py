"""Floor 2, opt-out: repositories whose owners asked to be left out. Knows nothing of what they hold."""

from __future__ import annotations

import fnmatch
import functools
from pathlib import Path

from highrise.core.errors import InputError

__all__ = ["OptOut"]


class OptOut:
    """Names and patterns of repositories; `@FILE` stands for the lines of a file (empty ones and `#` comments left
    out).
    """

    def __init__(self, entries: tuple[str, ...]) -> None:
        patterns: list[str] = []
        for entry in entries:
            patterns += _lines(entry[1:]) if entry.startswith("@") else [entry]
        self._patterns = tuple(pattern.lower() for pattern in patterns)
        self._find = functools.lru_cache(maxsize=4096)(self._match)

    def __call__(self, repository: str) -> str | None:
        """The entry that names `repository` (case is ignored); None when none does."""
        return self._find(repository.lower())

    def _match(self, repository: str) -> str | None:
        return next((pattern for pattern in self._patterns if fnmatch.fnmatchcase(repository, pattern)), None)


def _lines(name: str) -> list[str]:
    try:
        text = Path(name).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"opt-out list {name} cannot be read: {error}; name a text file with one entry a line"
        ) from error
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
