"""Which licence a text, a file or a folder has, and which expressions an allow list lets through."""

from __future__ import annotations

from pathlib import Path

import pytest

from highrise.data.licenses import UNKNOWN, RepositoryLicenses, file_license, is_allowed, text_license

MIT = """Permission is hereby granted, free of charge, to any person
obtaining a copy of this software ... subject to the following conditions:
The above copyright notice and this permission notice shall be included"""
BSD3 = """Redistribution and use in source and binary forms, with or without modification, are permitted
* Redistributions of source code must retain ... to endorse or promote products"""
BSD2 = BSD3.replace("endorse or promote", "do nothing with")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MIT, "MIT"),
        (BSD3, "BSD-3-Clause"),
        (BSD2, "BSD-2-Clause"),
        ("Apache License\n   Version 2.0, January 2004", "Apache-2.0"),
        ("GNU GENERAL PUBLIC LICENSE\n Version 3, 29 June 2007", "GPL-3.0"),
        ("GNU LESSER GENERAL PUBLIC LICENSE\nVersion 2.1, February 1999", "LGPL-2.1"),
        ("GNU AFFERO GENERAL PUBLIC LICENSE\nVersion 3", "AGPL-3.0"),
        ("Mozilla Public License Version 2.0", "MPL-2.0"),
        ("This is free and unencumbered software released into the public domain.", "Unlicense"),
        ("# SPDX-License-Identifier: MIT OR Apache-2.0\n", "MIT OR Apache-2.0"),
        ("/* SPDX-License-Identifier: GPL-2.0-only */", "GPL-2.0-only"),
        ("All rights reserved.", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_texts(text: str, expected: str) -> None:
    assert text_license(text) == expected


def test_our_own_licence_file() -> None:
    assert text_license((Path(__file__).parents[2] / "LICENSE").read_text("utf-8")) == "Apache-2.0"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('# Licensed under the Apache License, Version 2.0 (the "License");\nimport x\n', "Apache-2.0"),
        ("// This Source Code Form is subject to the terms of the Mozilla Public\n// License, v. 2.0.\n", "MPL-2.0"),
        ('"""Tool.\n\nLicense: MIT license\n"""\nx = 1\n', "MIT"),
        ("# Licensed to PSF under a Contributor Agreement.\n", "PSF-2.0"),
        ("<!--\nSPDX-License-Identifier: CC0-1.0\n-->\n", "CC0-1.0"),
        ("/*\n" + "\n".join(" * " + line for line in MIT.split("\n")) + "\n */\nint x;\n", "MIT"),
        ("import x\nLICENSES = ['MIT license', 'Apache License, Version 2.0']\n", UNKNOWN),
        ("def license():\n    return 'GPLv3'\n", UNKNOWN),
        ("# permission denied\n", UNKNOWN),
    ],
)
def test_headers(text: str, expected: str) -> None:
    assert file_license(text) == expected


def test_folders_inherit_and_metadata_decides() -> None:
    files = {
        "LICENSE": MIT,
        "a/x.py": "",
        "b/COPYING.txt": "GNU GENERAL PUBLIC LICENSE Version 3",
        "b/c/y.py": "",
        "d/LICENSE-MIT": MIT,
        "d/LICENSE-APACHE": "Apache License Version 2.0",
        "d/Cargo.toml": 'name = "d"\nlicense = "MIT OR Apache-2.0"\n',
        "e/LICENSE-MIT": MIT,
        "e/LICENSE.zlib": "provided 'as-is', without any express or implied warranty. altered source versions",
        "f/package.json": '{\n  "license": "ISC"\n}',
        "g/pyproject.toml": "license = { text = 'MIT License' }\n",
        "h/LICENSE": "ask our lawyers",
    }
    found = RepositoryLicenses(files, files.get)
    expected = {
        "a/x.py": "MIT",
        "b/c/y.py": "GPL-3.0",
        "d/z.rs": "MIT OR Apache-2.0",
        "e/z.rs": "MIT AND Zlib",
        "f/i.js": "ISC",
        "g/i.py": "MIT",
        "h/i.py": "MIT",
    }
    assert {path: found.of(path) for path in expected} == expected
    assert RepositoryLicenses([], files.get).of("x/y") == UNKNOWN


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", True),
        ("GPL-3.0 OR MIT", True),
        ("MIT AND GPL-3.0", False),
        ("(MIT AND Apache-2.0) OR GPL-3.0", True),
        ("unknown", False),
    ],
)
def test_allow_list(expression: str, expected: bool) -> None:
    assert is_allowed(expression, ["MIT", "Apache-2.0"]) is expected
