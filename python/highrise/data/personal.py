"""Floor 2, personal data: e-mail and IP addresses, telephone numbers and names in authorship lines, replaced in place.

A placeholder has the form of what it replaces (an address of example.com, of TEST-NET-1, a number that is set aside
for fiction), so that code which reads it still does. What is no one's is kept: example addresses, addresses of
machines (git@, noreply@), private and special networks, version numbers; and copyright lines, which licences ask one
to keep. Knows nothing of secrets or files.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections import Counter

from highrise.data.config import PERSONAL_KINDS
from highrise.data.gates import Gates
from highrise.data.lines import sub_on_lines

__all__ = ["redact_personal"]

_EMAIL = re.compile(
    r"(?<![\w.+/:@-])([A-Za-z0-9][\w.+-]{0,63})@((?:[A-Za-z0-9-]{1,63}\.){1,6}([A-Za-z]{2,24}))(?![\w@-])"
)
_NOBODY = re.compile(
    r"^(?:git|noreply|no-reply|donotreply|info|support|security|contact|admin|root|hello|help|user|username|name|you|me|foo|bar|"
    r"test|someone|somebody|your.*|example|postmaster|webmaster|hostmaster|abuse|[\w.-]*-(?:dev|users?|list|announce))$",
    re.I,
)
_EXAMPLE_HOST = re.compile(
    r"(?:^|\.)(?:example|test|invalid|localhost|local|domain)(?:\.|$)|^(?:x|y|z|a|b|foo|bar|host|server|email)\.", re.I
)
_NOT_TOP_LEVEL = frozenset(
    [
        "py",
        "js",
        "ts",
        "rs",
        "go",
        "c",
        "h",
        "cc",
        "cpp",
        "java",
        "rb",
        "php",
        "png",
        "jpg",
        "gif",
        "svg",
        "css",
        "html",
        "json",
        "yaml",
        "yml",
        "toml",
        "md",
        "txt",
        "sh",
        "so",
        "dll",
    ]
)
_IPV4 = re.compile(r"(?<![\w.+-])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\w-]|\.\d)")
_VERSION = re.compile(r"(?:version|release|\bv|[=<>~^!]=|-)\s*[\"']?$", re.I)
_PHONE = re.compile(r"(?<![\w.+/-])(?:\+\d{1,3}[ .-]?)\(?\d{2,4}\)?(?:[ .-]?\d{2,4}){2,4}(?![\w-]|\.\d)")
# a comment, docstring or directive line; a trailer of a commit; a value in code or package metadata
_AUTHOR = re.compile(
    r"(?im)^(?P<mark>[ \t]*(?:#|//|/?\*+|--|;|%|\"\"\"|\.\.)?[ \t]*:?(?:@author|\\author|authors?|written by|"
    r"created by|maintainers?|contributors?|reviewed by|(?:module|section|code)author)[ \t]*(?:::?|=)?[ \t]+"
    r"|[ \t]*(?:#|//|\*)?[ \t]*(?:signed-off|co-authored|reviewed|acked|tested|reported|suggested)-by:[ \t]*"
    r"|[ \t]*[\"']?(?:__(?:author|maintainer)s?__|authors?|maintainers?)[\"']?[ \t]*[=:][ \t]*[\[({]{0,2}"
    r"(?:[ \t]*[\"']?name[\"']?[ \t]*[=:])?[ \t]*[\"'])"
    r"(?P<names>[^\W\d_][^\n\"'<({@;]{2,200})"
)
_BETWEEN = re.compile(r"([ \t]*,[ \t]*(?:and[ \t]+)?|[ \t]+(?:and|&)[ \t]+)")
_AUTHOR_HINTS = ("author", "written by", "created by", "maintainer", "contributor", "reviewed by", "-by:")
# an IPv6 address of 2000::/3, the only block of public ones, with four or more groups (2000::2 is a slice)
_IPV6 = re.compile(r"(?<![\w:.])[23][0-9a-fA-F]{3}(?::{1,2}[0-9a-fA-F]{1,4}){3,7}(?:::)?(?![\w:]|\.\d)")
_KINDS_GATED = ("author", "email", "phone", "ip", "ip6")
_GATES = Gates(
    [
        "(?i)" + "|".join(_AUTHOR_HINTS),
        r"@[A-Za-z0-9-]+\.",
        r"\+\d",
        r"\d\.\d{1,3}\.\d{1,3}\.\d",
        r"[23][0-9a-fA-F]{3}:[0-9a-fA-F:]{4}",
    ]
)
_NAME = re.compile(r"^[^\W\d_][\w.'-]*(?: [^\W\d_][\w.'-]*){1,3}$")
_SAFE_EMAIL, _SAFE_IP, _SAFE_PHONE, _SAFE_NAME = "redacted@example.com", "192.0.2.1", "+1-555-0100", "Redacted Author"
_SAFE_IPV6 = "2001:db8::1"


def redact_personal(text: str, kinds: tuple[str, ...] = PERSONAL_KINDS) -> tuple[str, dict[str, int]]:
    """The text without personal data of `kinds`, and how many of each kind were replaced. No line is added or
    removed.
    """
    found: Counter[str] = Counter()
    possible = {_KINDS_GATED[number] for number in _GATES.open(text)}
    if "author" in kinds and "author" in possible:
        replace = functools.partial(_author, found=found)
        text = sub_on_lines(_AUTHOR, replace, text, _AUTHOR_HINTS, lowered=text.lower())
    if "email" in kinds and "email" in possible:
        text = sub_on_lines(_EMAIL, functools.partial(_email, found=found), text, ("@",))
    if "ip" in kinds and "ip" in possible:
        text = _IPV4.sub(functools.partial(_ip, found=found), text)
    if "ip" in kinds and "ip6" in possible:
        text = sub_on_lines(_IPV6, functools.partial(_ipv6, found=found), text, (":",))
    if "phone" in kinds and "phone" in possible:
        text = sub_on_lines(_PHONE, functools.partial(_phone, found=found), text, ("+",))
    return text, dict(found)


def _email(match: re.Match[str], found: Counter[str]) -> str:
    local, host, top = match.groups()
    if (
        _NOBODY.match(local)
        or _EXAMPLE_HOST.search(host)
        or top.lower() in _NOT_TOP_LEVEL
        or local.startswith("redacted")
    ):
        return match[0]
    found["EMAIL"] += 1
    return _SAFE_EMAIL


def _ip(match: re.Match[str], found: Counter[str]) -> str:
    try:
        address = ipaddress.IPv4Address(match[0])
    except ValueError:
        return match[0]
    before = match.string[max(0, match.start() - 12) : match.start()]
    if not address.is_global or match[0].endswith((".0", ".0.0")) or match[0] in _PUBLIC or _VERSION.search(before):
        return match[0]
    if sorted(map(int, match[0].split(".")))[2] < 20:  # 1.2.3.4, 8.2.4.44, 7.1.4.34: examples, sections, versions
        return match[0]
    found["IP"] += 1
    return _SAFE_IP


def _ipv6(match: re.Match[str], found: Counter[str]) -> str:
    try:
        address = ipaddress.IPv6Address(match[0])
    except ValueError:
        return match[0]
    if not address.is_global or address.compressed in _PUBLIC:
        return match[0]
    found["IP"] += 1
    return _SAFE_IPV6


_PUBLIC = frozenset(
    [
        "8.8.8.8",
        "8.8.4.4",
        "1.1.1.1",
        "9.9.9.9",
        "208.67.222.222",
        "2001:4860:4860::8888",
        "2001:4860:4860::8844",
        "2606:4700:4700::1111",
        "2606:4700:4700::1001",
        "2620:fe::fe",
    ]
)


def _phone(match: re.Match[str], found: Counter[str]) -> str:
    digits = sum(character.isdigit() for character in match[0])
    if not 9 <= digits <= 15 or "555" in match[0] or not re.search(r"[ .()-]", match[0]):
        return match[0]
    found["PHONE"] += 1
    return _SAFE_PHONE


def _author(match: re.Match[str], found: Counter[str]) -> str:
    """Replace each name of a list of names; a piece that is none ("the team", "see AUTHORS") stays."""
    pieces = _BETWEEN.split(match["names"])
    for place in range(0, len(pieces), 2):
        name = pieces[place].rstrip().rstrip(".")
        if not _NAME.match(name) or name == _SAFE_NAME or not all(name.split()[at][:1].isupper() for at in (0, -1)):
            continue
        found["AUTHOR"] += 1
        pieces[place] = _SAFE_NAME + pieces[place][len(name) :]
    return match["mark"] + "".join(pieces)
