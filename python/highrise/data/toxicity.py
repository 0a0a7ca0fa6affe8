"""Floor 2, toxicity: comments that attack, threaten or insult people, told from the harsh words that code is full of.

The categories are those of the Perspective API and the Jigsaw data (Lees et al., arXiv 2202.11176): identity attack,
threat, insult, sexual, profanity. The lists are our own and short: words that have a technical meaning (kill, master,
slave, abort, execute, die, retarded, penetration) count only in phrases aimed at a person, since lists of bare words
remove whole groups of people and subjects from a corpus (Dodge et al., arXiv 2104.08758, section 5.3). What no list
names is not found. Knows nothing of files.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection

from highrise.data.gates import Gates
from highrise.data.languages import CODE

__all__ = ["comments", "is_toxic"]

# In rot13, so that this file can be read at work and stays in a corpus that is screened by it.
_SLURS = codecs.decode(
    r"avttref?|avttnf?|snttbgf?|fnaqavttref?|xvxrf?|jrgonpxf?|gbjryurnqf?|entu?rnqf?|genaavrf|furznyrf?"
    r"|hagrezrafpu(?:ra)?",
    "rot13",
)
_FOOLS = (
    r"(?:idiots?|morons?|imbeciles?|cretins?|retards?|dumb ?ass(?:es)?|ass ?holes?|scumbags?|cunts?|bastards?"
    r"|douchebags?)"
)
_HATED = r"(?:women|girls|gays|lesbians|jews|muslims|christians|blacks|whites|asians|mexicans|immigrants|indians|arabs)"
_WORSE = r"(?:stupid|inferior|vermin|animals|die|be killed|not exist)"
_PERSON = r"(?:you(?:r mother| all|'?re| are)?|him|her|them|yourself|yourselves)"
_HARM = r"(?:find|hunt|hurt|beat|stab|shoot|murder)"
_END = r"(?:be (?:shot|hanged|hung|stabbed)|drop dead|burn in hell)"
_WROTE = r"who ?ever (?:wrote|did|made) (?:this|that|it) (?:is|was|must be)"
_ANGRY = r"(?:stupid|fucking|dumb|goddamn)"
_PATTERNS: tuple[tuple[str, str], ...] = (
    ("identity attack", rf"\b(?:{_SLURS})\b"),
    ("identity attack", rf"\b(?:i hate|death to|get rid of|gas|deport) (?:all |the |those )?{_HATED}\b"),
    ("identity attack", rf"\b{_HATED} (?:are|should) (?:all |just )?{_WORSE}\b"),
    ("threat", r"\b(?:go |just |please |and )(?:kill|hang|shoot) yourself\b|\bkys\b"),
    ("threat", rf"\bi(?:'ll| will| am going to|'m going to) {_HARM} (?:you|your family)\b"),
    ("threat", rf"\b(?:you|they|he|she) (?:should|deserves? to) (?:all )?{_END}\b"),
    (
        "insult",
        rf"\b(?:you(?:'re| are)|{_WROTE}) (?:an? |such an? |all |some )?(?:[a-z]+ ){{0,2}}{_FOOLS}\b",
    ),
    ("insult", rf"\b(?:you|these|those|{_ANGRY}) (?:{_ANGRY} )*{_FOOLS}\b"),
    ("insult", rf"\b(?:fuck|screw) (?:off|{_PERSON})\b|\bgo to hell\b"),
    ("insult", r"\bmother ?fuckers?\b|\bsons? of (?:a )?bitch(?:es)?\b"),
    ("sexual", r"\b(?:blow ?jobs?|hand ?jobs?|cum ?shots?|gang ?bangs?|deep ?throat(?:s|ing)?|jerk(?:s|ing)? off)\b"),
    ("sexual", r"\bmasturbat(?:e[sd]?|ing|ion)\b"),
    ("profanity", r"\b(?:fuck(?:ed|er|ers|ing|s)?|shit(?:s|ty|ting)?|bullshit|bitch(?:es|y)?|cunts?|wankers?)\b"),
)
_GAP = r"[\s#*/;%-]"
"""What may stand between the words of a comment that goes over several lines."""


# Small patterns of which one matches wherever the pattern that begins with the key does; others need none.
_HATED_HINTS = (
    "women|girls|gays|lesbians|jews",
    "muslims|christians|asians|mexicans",
    "immigrants|indians|arabs|blacks",
)
_FOOL_HINTS = ("idiot|moron|imbecile|cretin", "retard|scumbag|cunt|bastard", "douchebag|dumb ?ass|ass ?hole")
_HINTS: dict[str, tuple[str, ...]] = {
    rf"\b(?:{_SLURS})": (
        codecs.decode("avtt|snttbg|xvxr", "rot13"),
        codecs.decode("jrgonpx|gbjryurnq|entu?rnq", "rot13"),
        codecs.decode("genaavrf|furznyr|hagrezrafpu", "rot13"),
    ),
    r"\b(?:i hate": (*_HATED_HINTS, r"whites(?:[^a-z]|$)"),
    rf"\b{_HATED}": (*_HATED_HINTS, r"whites(?:[^a-z]|$)"),
    r"\b(?:go |just ": ("yourself|kys",),
    r"\b(?:you|these|those|": _FOOL_HINTS,
    r"\b(?:fuck|screw)": ("fuck |screw ", "go to hell"),
    r"\b(?:fuck(?:ed": ("fuck|shit", "bitch|cunt|wanker"),
}


def _spread(pattern: str) -> str:
    return "(?i)" + pattern.replace(r"\b", "").replace(" ?", f"{_GAP}*").replace(" ", f"{_GAP}+")


def _gate(pattern: str) -> tuple[str, ...]:
    hints = next((hints for begin, hints in _HINTS.items() if pattern.startswith(begin)), ())
    return (*map(_spread, hints), _spread(pattern))


_COMPILED = tuple((category, re.compile(pattern, re.I)) for category, pattern in _PATTERNS)
_GATES = Gates(_gate(pattern) for _, pattern in _PATTERNS)
_COMMENT = re.compile(r"(\"\"\"|''')(.*?)\1|/\*.*?\*/|<!--.*?-->|(?:#|//|--|;|%)[^\n]*", re.S)
_MACHINE = re.compile(
    r"\b(?:process(?:es)?|pids?|threads?|workers?|tasks?|daemons?|signals?|sig(?:kill|term)|child(?:ren)?|instances?"
    r"|nodes?)\b",
    re.I,
)
_SPACE = re.compile(f"{_GAP}+")


def comments(language: str, text: str) -> list[str]:
    """The comments and docstrings of a code file, roughly (what looks like one inside a string counts too); of other
    languages the paragraphs.
    """
    if language not in CODE:
        return text.split("\n\n")
    return [match[0] for match in _COMMENT.finditer(text)]


def is_toxic(language: str, text: str, categories: Collection[str]) -> str | None:
    """The first of `categories` that a comment falls under, with its words; None when none does."""
    if not categories or not _GATES.open(text):
        return None
    for comment in comments(language, text):
        plain = _SPACE.sub(" ", comment)
        for category, pattern in _COMPILED:
            if category not in categories:
                continue
            for match in pattern.finditer(plain):
                around = plain[max(0, match.start() - 60) : match.end() + 60]
                if category != "threat" or not _MACHINE.search(around):
                    return f"{category}: {_masked(match[0])}"
    return None


def _masked(words: str) -> str:
    """The words with their inner letters hidden, since the data card shows them."""
    return " ".join(word if len(word) < 4 else f"{word[0]}{'*' * (len(word) - 2)}{word[-1]}" for word in words.split())
