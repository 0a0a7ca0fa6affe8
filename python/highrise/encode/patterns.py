"""Floor 3, patterns: regular expressions of split patterns as files have them, and the scanner that splits
the same. Knows no file format.
"""

from __future__ import annotations

__all__ = ["EXPRESSIONS", "PATTERNS"]

_WORDS = r"[^\r\n\p{L}\p{N}]?"
_TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CASED = (
    rf"{_WORDS}{_UPPER}*{_LOWER}+{_ENDINGS}?|{_WORDS}{_UPPER}+{_LOWER}*{_ENDINGS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{_TAIL}"
)
_LLAMA3 = rf"{_ENDINGS}|{_WORDS}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*{_TAIL}"
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_GPT2_POSSESSIVE = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
# OpenAI's own has `\p{N}{1,3}+`, which Oniguruma, the engine of `tokenizers`, takes for "any number of times".
_CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
_CL100K_OLD = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*" + (
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)

PATTERNS: dict[str, str] = {
    _GPT2: "gpt2",
    _GPT2_POSSESSIVE: "gpt2",
    _LLAMA3: "llama3",
    _CL100K_OLD: "llama3",
    _CL100K: "cl100k",
    _QWEN2: "qwen2",
    _CASED: "o200k",
}
"""Regular expressions as files have them, and the scheme that splits the same."""

EXPRESSIONS: dict[str, str] = {"gpt2": _GPT2, "llama3": _LLAMA3, "cl100k": _CL100K, "qwen2": _QWEN2, "o200k": _CASED}
"""The expression that is written for a scanner that needs one."""
