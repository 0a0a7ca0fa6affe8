"""Floor 2, licences: the SPDX identifier of a file, from its own header or from the nearest licence of its repository.

Texts are recognised by phrases that one licence has and its relatives lack, so that reflowed or renamed copies still
match. No legal advice: what is not recognised is "unknown". Knows nothing of allow lists.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

__all__ = ["UNKNOWN", "RepositoryLicenses", "file_license", "is_allowed", "is_license_file", "text_license"]

UNKNOWN = "unknown"

# identifier, phrases that must all be there, phrases that must be absent; the first row that fits decides
_MIT = "permission is hereby granted, free of charge, to any person obtaining a copy"
_TEXTS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("AGPL-3.0", ("gnu affero general public license", "version 3"), ()),
    ("LGPL-2.1", ("gnu lesser general public license", "version 2.1"), ()),
    ("LGPL-3.0", ("gnu lesser general public license", "version 3"), ()),
    ("LGPL-2.0", ("gnu library general public license", "version 2"), ()),
    ("GPL-3.0", ("gnu general public license", "version 3"), ()),
    ("GPL-2.0", ("gnu general public license", "version 2"), ()),
    ("Apache-2.0", ("apache license", "version 2.0"), ()),
    ("MPL-2.0", ("mozilla public license", "2.0"), ()),
    ("EPL-2.0", ("eclipse public license", "2.0"), ()),
    ("EPL-1.0", ("eclipse public license", "1.0"), ()),
    ("EUPL-1.2", ("european union public licence", "1.2"), ()),
    ("CC0-1.0", ("cc0 1.0 universal",), ()),
    ("CC-BY-SA-4.0", ("attribution-sharealike 4.0 international",), ()),
    ("CC-BY-4.0", ("attribution 4.0 international",), ()),
    ("Unlicense", ("free and unencumbered software released into the public domain",), ()),
    ("WTFPL", ("do what the fuck you want to",), ()),
    ("BSL-1.0", ("boost software license",), ()),
    ("PSF-2.0", ("python software foundation license version 2",), ()),
    ("Zlib", ("provided 'as-is', without any express or implied warranty", "altered source versions"), ()),
    ("Unicode-3.0", ("unicode license v3",), ()),
    ("Unicode-DFS-2016", ("unicode, inc. license agreement",), ()),
    ("Artistic-2.0", ("artistic license 2.0",), ()),
    ("ISC", ("permission to use, copy, modify, and/or distribute this software for any purpose",), ()),
    ("ISC", ("permission to use, copy, modify, and distribute this software for any purpose with or without fee",), ()),
    ("MIT", (_MIT, "the above copyright notice"), ()),
    ("MIT-0", (_MIT,), ("the above copyright notice", "subject to the following conditions", "unicode")),
    ("BSD-4-Clause", ("redistribution and use in source and binary forms", "all advertising materials"), ()),
    (
        "BSD-3-Clause",
        ("redistribution and use in source and binary forms", "redistributions of source code", "endorse or promote"),
        (),
    ),
    ("BSD-2-Clause", ("redistribution and use in source and binary forms", "redistributions of source code"), ()),
)  # fmt: skip
# names as people write them: in headers and in the metadata of packages
_NAMES: tuple[tuple[str, str], ...] = (
    (r"\bmit(?: license|-license|$)", "MIT"),
    (r"\bapache(?: software)?[ -](?:license,? ?)?(?:version |v)?2(?:\.0)?\b", "Apache-2.0"),
    (r"\bbsd[ -]3[ -]clause\b|\bnew bsd\b|\bmodified bsd\b", "BSD-3-Clause"),
    (r"\bbsd[ -]2[ -]clause\b|\bsimplified bsd\b", "BSD-2-Clause"),
    (r"\bmpl[ -]?2(?:\.0)?\b|mozilla\.org/mpl/2\.0", "MPL-2.0"),
    (r"\bpsf license\b|licensed to psf under a contributor agreement", "PSF-2.0"),
    (r"\bagpl[ -]?v?3", "AGPL-3.0"),
    (r"\blgpl[ -]?v?3", "LGPL-3.0"),
    (r"\blgpl[ -]?v?2", "LGPL-2.1"),
    (r"\bgpl[ -]?v?3", "GPL-3.0"),
    (r"\bgpl[ -]?v?2", "GPL-2.0"),
    (r"\bisc license\b", "ISC"),
)
_KNOWN = frozenset(identifier for identifier, *_ in _TEXTS) | {identifier for _, identifier in _NAMES}
_SPDX = re.compile(r"SPDX-License-Identifier:\s*([\w.+() -]+?)\s*(?:\*/|-->|\"|'|$)", re.M)
_PUNCTUATION = re.compile(r"[\s#*/;%>|\"`“”]+|--+")
_LICENSE_FILE = re.compile(r"(?:^|/)(?:(?:un)?licen[cs]e|copying|copyright)(?:[.-][\w.-]*)?$", re.I)
_METADATA_FILE = re.compile(
    r"(?:^|/)(?:pyproject\.toml|Cargo\.toml|package\.json|setup\.cfg|composer\.json|PKG-INFO|METADATA)$"
)
_METADATA = re.compile(
    r"""^\s*["']?(?:license|License|License-Expression)["']?\s*[=:]"""
    r"""\s*(?:\{\s*text\s*=\s*)?["']?([\w.+() /-]{2,60}?)["',}\s]*$""",
    re.M,
)
_HEADER = 4_096


def is_license_file(path: str) -> bool:
    """Whether a file's name says that it holds a licence or names one for its folder."""
    return _LICENSE_FILE.search(path) is not None or _METADATA_FILE.search(path) is not None


def _plain(text: str) -> str:
    return _PUNCTUATION.sub(" ", text.lower().replace("\u2019", "'").replace("licence", "license"))


def text_license(text: str) -> str:
    """The identifier of a whole licence text or of a notice in a header; `UNKNOWN` when nothing matches."""
    if match := _SPDX.search(text):
        return " ".join(match[1].split())
    plain = _plain(text)
    for identifier, needed, absent in _PLAIN_TEXTS:
        if all(phrase in plain for phrase in needed) and not any(phrase in plain for phrase in absent):
            return identifier
    return UNKNOWN


_PLAIN_TEXTS = tuple((name, (*map(_plain, needed),), (*map(_plain, absent),)) for name, needed, absent in _TEXTS)
_HINTS = ("license", "licence", "spdx", "redistribution", "permission", "copyright")


def file_license(text: str) -> str:
    """The licence that a file's first 4 KiB state; `UNKNOWN` when they state none."""
    head = text[:_HEADER]
    lowered = head.lower()
    if not any(hint in lowered for hint in _HINTS):
        return UNKNOWN
    comment = _comments(head)
    if (identifier := text_license(comment)) != UNKNOWN:
        return identifier
    return _named(comment)


def _comments(head: str) -> str:
    """The leading comment and docstring lines of a file, so that code that merely speaks of licences does not count."""
    kept: list[str] = []
    quote = ""
    for line in head.split("\n"):
        bare = line.strip()
        if quote:
            kept.append(bare)
            quote = "" if quote in bare else quote
        elif not bare or bare.startswith(("#", "//", "/*", "*", "--", ";", "%", "<!--", "..")):
            kept.append(bare)
            if bare.startswith("/*") and "*/" not in bare:
                quote = "*/"
            elif bare.startswith("<!--") and "-->" not in bare:
                quote = "-->"
        elif match := re.match(r"[rRuUbB]{0,2}(\"\"\"|''')", bare):
            kept.append(bare)
            quote = match[1] if bare.count(match[1]) == 1 else ""
        else:
            break
    return "\n".join(kept)


def _expression(text: str) -> str:
    """An SPDX expression of known identifiers, or the identifier of a name as people write it, or `UNKNOWN`."""
    plain = re.sub(r"\s*/\s*", " OR ", " ".join(text.split()))
    names = [word for word in re.split(r"[\s()]+", plain) if word not in ("", "OR", "AND", "WITH")]
    if names and all(name.removesuffix("-only").removesuffix("-or-later") in _KNOWN for name in names):
        return plain
    return _named(text)


def is_allowed(expression: str, allowed: Iterable[str]) -> bool:
    """Whether one alternative of an SPDX expression ("MIT OR Zlib") has only allowed parts; brackets are ignored."""
    listed = frozenset(allowed)
    return any(
        all(part.strip("() ") in listed for part in alternative.split(" AND "))
        for alternative in expression.split(" OR ")
    )


def _named(text: str) -> str:
    plain = text.lower().replace("licence", "license")
    return next((identifier for pattern, identifier in _NAMES if re.search(pattern, plain, re.M)), UNKNOWN)


class RepositoryLicenses:
    """The licence that holds in each folder of a repository: that of the nearest licence file going up."""

    def __init__(self, paths: Iterable[str], read: Callable[[str], str | None]) -> None:
        """`paths` are all files of the source, `read` gives the text of one or None.

        What a package's metadata states as an SPDX expression counts before the licence texts beside it; several texts
        without it all hold ("MIT AND Zlib").
        """
        texts: dict[str, set[str]] = {}
        stated: dict[str, str] = {}
        for path in filter(is_license_file, paths):
            text, folder = read(path), path.rpartition("/")[0]
            if text is None:
                continue
            if not _LICENSE_FILE.search(path):
                if match := _METADATA.search(text):
                    stated[folder] = _expression(match[1])
            elif (identifier := text_license(text)) != UNKNOWN:
                texts.setdefault(folder, set()).add(identifier)
        self._by_folder = {folder: " AND ".join(sorted(found)) for folder, found in texts.items()}
        self._by_folder.update((folder, value) for folder, value in stated.items() if value != UNKNOWN)

    def of(self, path: str) -> str:
        """The identifier for a file, or `UNKNOWN`."""
        folder = path.rpartition("/")[0]
        while True:
            if folder in self._by_folder:
                return self._by_folder[folder]
            if not folder:
                return UNKNOWN
            folder = folder.rpartition("/")[0]

    @property
    def found(self) -> dict[str, str]:
        """Folder -> identifier, of every licence that was recognised."""
        return dict(self._by_folder)
