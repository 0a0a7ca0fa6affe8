"""Floor 2, secrets: keys, tokens and passwords found in a text and replaced by placeholders that keep its syntax.

A placeholder is one word of letters and underscores, so that it may stand inside quotes, in a URL or bare in a shell
script, and no line is added or removed. Known formats come first; an assignment to a telling name counts only when
its value looks random. Rules are checked against planted secrets and against look-alikes. Knows nothing of files.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter

from highrise.data.gates import Gates
from highrise.data.lines import sub_on_lines

__all__ = ["RULES", "redact", "shannon_entropy"]

_ARTIFACTORY = re.compile(r"(?<![\w+/-])(?:AKC[a-zA-Z0-9]{10,}|AP[0-9A-F](?=[A-Za-z]*\d)[a-zA-Z0-9]{8,})(?=[\s\"'`]|$)")
# kind, literals of which one must be in the text, the pattern; its group "secret" is replaced, else all of it
RULES: tuple[tuple[str, tuple[str, ...], re.Pattern[str]], ...] = (
    ("AWS_KEY_ID", ("AKIA", "ASIA"), re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("GITHUB_TOKEN", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b")),
    ("GITHUB_TOKEN", ("github_pat_",), re.compile(r"\bgithub_pat_[A-Za-z0-9_]{60,255}\b")),
    ("GITLAB_TOKEN", ("glpat-",), re.compile(r"\bglpat-[A-Za-z0-9_-]{20,64}(?![\w-])")),
    ("SLACK_TOKEN", ("xox",), re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{20,255}")),
    ("SLACK_WEBHOOK", ("hooks.slack.com",), re.compile(r"hooks\.slack\.com/services/(?P<secret>T\w+/B\w+/\w{16,})")),
    ("GOOGLE_API_KEY", ("AIza",), re.compile(r"\bAIza[0-9A-Za-z_-]{35}(?![\w-])")),
    ("STRIPE_KEY", ("_live_",), re.compile(r"\b[rs]k_live_[0-9a-zA-Z]{20,255}\b")),
    ("OPENAI_KEY", ("sk-",), re.compile(r"\bsk-(?:proj-|svcacct-|ant-[a-z0-9]+-)?[A-Za-z0-9_-]{32,255}(?![\w-])")),
    ("HUGGINGFACE_TOKEN", ("hf_",), re.compile(r"\bhf_[A-Za-z0-9]{34,}\b")),
    ("PYPI_TOKEN", ("pypi-AgE",), re.compile(r"\bpypi-AgE[A-Za-z0-9_-]{50,}")),
    ("NPM_TOKEN", ("npm_",), re.compile(r"\bnpm_[A-Za-z0-9]{36}\b")),
    ("SENDGRID_KEY", ("SG.",), re.compile(r"\bSG\.[\w-]{22}\.[\w-]{43}(?![\w-])")),
    ("ARTIFACTORY_TOKEN", ("AKC", "AP"), _ARTIFACTORY),
    ("AZURE_STORAGE_KEY", ("AccountKey=",), re.compile(r"AccountKey=(?P<secret>[a-zA-Z0-9+/=]{88})")),
    ("DISCORD_TOKEN", (".",), re.compile(r"\b[MNO][a-zA-Z\d_-]{23,25}\.[a-zA-Z\d_-]{6}\.[a-zA-Z\d_-]{27}(?![\w-])")),
    ("MAILCHIMP_KEY", ("-us",), re.compile(r"\b[0-9a-z]{32}-us[0-9]{1,2}\b")),
    ("SQUARE_TOKEN", ("sq0",), re.compile(r"\bsq0(?:csp|atp)-[0-9A-Za-z_-]{22,43}")),
    ("TELEGRAM_TOKEN", (":A",), re.compile(r"\b\d{8,10}:[0-9A-Za-z_-]{35}(?![\w-])")),
    ("TWILIO_KEY", ("AC", "SK"), re.compile(r"\b(?:AC|SK)[a-f0-9]{32}\b")),
    ("NPM_TOKEN", ("_authToken",), re.compile(r"_authToken\s*=\s*(?P<secret>(?:npm_.{20,}|[A-Fa-f0-9-]{36}))")),
    ("JWT", ("eyJ",), re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,}")),
    ("PASSWORD", ("://",), re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@'\"<>{}$]{1,64}:(?P<secret>[^\s:/@'\"<>{}$%*]{3,128})@[\w.-]")),
)  # fmt: skip
_KEY_BEGIN = re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----")
_KEY_END = re.compile(r"-----END (?:[A-Z0-9]+ ){0,4}PRIVATE KEY")
_KEY_LINE = re.compile(r"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/=]{16,}")
_ASSIGNMENT = re.compile(
    r"""(?ix)
    (?<![a-z]) [\w.-]{0,40} (?:secret|token(?!i[sz])|passw(?:or)?d|passwd|credential
        |(?:api|access|auth|private|client|encryption)[_-]?key) [\w-]{0,20} ["']? \]?
    \s* (?: = | : | := | => | , ) \s*
    (?: (?P<quote>["'`]) (?P<quoted>[A-Za-z0-9+/=_.~!@\#$^&*-]{12,200}) (?P=quote)
      | (?<=[=:\s]) (?P<bare>[A-Za-z0-9+/=_-]{20,200}) (?=\s*$) )
    """,
    re.M,
)
_ASSIGNMENT_GATE = (
    r"(?i)(?:secret|token|passw(?:or)?d|passwd|credential|(?:api|access|auth|private|client|encryption)[_-]?key)"
    r"[\w\x80-\xff-]*[\"']?\]?[\s\x1c-\x1f\x80-\xff]*(?:=|:|,)[=>\s\x1c-\x1f\x80-\xff]*"
    r"(?:[\"'`][A-Za-z0-9+/=_.~!@#$^&*-]{12}|[A-Za-z0-9+/=_-]{20})"
)
_ASSIGNMENT_HINT = "(?i)secret|token|passw|credential|key"
_GATES = Gates([*(pattern for _, _, pattern in RULES), (_ASSIGNMENT_HINT, _ASSIGNMENT_GATE)])
_ASSIGNMENT_HINTS = (
    *("secret", "token", "passw", "credential", "_key", "-key"),
    *("apikey", "accesskey", "authkey", "privatekey", "clientkey", "encryptionkey"),
)
_EXAMPLE = re.compile(
    r"example|sample|dummy|fake|placeholder|changeme|change_me|redacted|your|insert|foobar|xxxx|0000|1234567|123e4567|abcdef|\*\*\*|\.\.\.",
    re.I,
)
_DUMMY_PASSWORDS = frozenset(
    [
        "password",
        "passwd",
        "pass",
        "secret",
        "pwd",
        "user",
        "username",
        "test",
        "postgres",
        "root",
        "admin",
        "guest",
        "xxx",
        "foo",
        "bar",
        "baz",
    ]
)
_WORDY = re.compile(r"[A-Za-z]*[a-z]{3,}[A-Za-z]*|[A-Z]{3,}|v?\d{1,4}|(?:[A-Z]*+[a-z]{4,}+|[A-Z]{4,}+|\d{1,2})+")


def shannon_entropy(value: str) -> float:
    """Bits per character of the character distribution of `value`."""
    return -sum(count / len(value) * math.log2(count / len(value)) for count in Counter(value).values())


def redact(text: str) -> tuple[str, dict[str, int]]:
    """The text with every secret replaced by REDACTED_KIND, and how many of each kind there were."""
    found: Counter[str] = Counter()
    possible = frozenset(_GATES.open(text))
    for number, (kind, _, pattern) in enumerate(RULES):
        if number in possible:
            text = pattern.sub(lambda match, kind=kind: _replace(match, kind, found), text)  # type: ignore[misc]
    if "PRIVATE KEY" in text:
        text = _redact_keys(text, found)
    if len(RULES) in possible or found:
        replace = functools.partial(_redact_value, found=found)
        text = sub_on_lines(_ASSIGNMENT, replace, text, _ASSIGNMENT_HINTS, lowered=text.lower(), following=1)
    return text, {kind: count for kind, count in found.items() if count}


def _replace(match: re.Match[str], kind: str, found: Counter[str]) -> str:
    whole = match[0]
    secret = match["secret"] if "secret" in match.re.groupindex else whole
    if kind == "PASSWORD":
        if (
            secret.lower().strip("_-") in _DUMMY_PASSWORDS
            or _EXAMPLE.search(secret)
            or re.fullmatch(r"[A-Z_]+", secret)
        ):
            return whole
    elif _EXAMPLE.search(secret) or shannon_entropy(secret) < 2.5:
        return whole
    found[kind] += 1
    at = whole.rindex(secret)
    return f"{whole[:at]}REDACTED_{kind}{whole[at + len(secret) :]}"


def _redact_keys(text: str, found: Counter[str]) -> str:
    """Replace the base-64 lines of private keys; one pass, however many beginnings have no end."""
    pieces: list[str] = []
    done = 0
    while (begin := _KEY_BEGIN.search(text, done)) and (end := _KEY_END.search(text, begin.end())):
        start = text.rfind("-----BEGIN", begin.start(), end.start())  # a beginning without an end is skipped
        body, count = _KEY_LINE.subn("REDACTED_PRIVATE_KEY", text[start : end.start()])
        found["PRIVATE_KEY"] += count > 0
        pieces += (text[done:start], body)
        done = end.start()
    return "".join((*pieces, text[done:])) if pieces else text


def _redact_value(match: re.Match[str], found: Counter[str]) -> str:
    value = match["quoted"] or match["bare"]
    if not _looks_random(value):
        return match[0]
    found["SECRET"] += 1
    at = match[0].rindex(value)
    return f"{match[0][:at]}REDACTED_SECRET{match[0][at + len(value) :]}"


def _looks_random(value: str) -> bool:
    """Whether a value is a key rather than a name, a path, a sentence or an example."""
    if (
        value.startswith("REDACTED")
        or _EXAMPLE.search(value)
        or not re.search(r"\d", value)
        or not re.search(r"[A-Za-z]", value)
    ):
        return False
    pieces = re.split(r"[_.\-/=+~!@#$^&*]+", value.strip("=_.-"))
    if all(not piece or _WORDY.fullmatch(piece) for piece in pieces):
        return False
    if re.fullmatch(r"[0-9a-fA-F-]+", value):
        return len(value) >= 24 and shannon_entropy(value.lower()) >= 3.0
    return shannon_entropy(value) >= 3.2 and len(set(value)) >= 10
