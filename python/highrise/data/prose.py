"""Floor 2, prose: the published rules for natural-language text, each a function that names the rule it breaks.

Gopher's quality and repetition rules (Rae et al., arXiv 2112.11446, section A1.1), C4's (Raffel et al., arXiv
1910.10683, section 2.2), FineWeb's custom rules (arXiv 2406.17557, section 3.5). Meant for web pages and dumps: a
README breaks some of them and is none the worse, so own documents are not asked. Knows nothing of files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from highrise.data.config import ProseConfig

__all__ = ["is_poor_prose", "is_repetitive"]

_STOP_WORDS = frozenset(["the", "be", "to", "of", "and", "that", "have", "with"])
_BULLETS = ("-", "*", "\u2022", "\u25cf", "\u2023", "\u25e6")
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s|$)")
_SAMPLE = 200_000


def is_poor_prose(text: str, config: ProseConfig) -> str | None:
    """Gopher's and C4's quality rules: length, words, symbols, bullets, ellipses, stop words, placeholder text."""
    sample = text[:_SAMPLE]
    words = sample.split()
    if not config.min_words <= len(words) <= config.max_words:
        return f"{len(words)} words"
    mean = sum(map(len, words)) / len(words)
    if not config.min_mean_word_length <= mean <= config.max_mean_word_length:
        return f"words of {mean:.1f} characters on average"
    symbols = sample.count("#") + sample.count("...") + sample.count("\u2026")
    if symbols > config.max_symbol_ratio * len(words):
        return f"{symbols / len(words):.0%} symbols a word"
    letters = sum(any(character.isalpha() for character in word) for word in words)
    if letters < config.min_alphabetic_words * len(words):
        return f"{letters / len(words):.0%} of the words have letters"
    lines = [line.strip() for line in sample.split("\n") if line.strip()]
    bullets = sum(line.startswith(_BULLETS) for line in lines)
    if bullets > config.max_bullet_lines * len(lines):
        return f"{bullets / len(lines):.0%} of the lines are list items"
    trailing = sum(line.endswith(("...", "\u2026")) for line in lines)
    if trailing > config.max_ellipsis_lines * len(lines):
        return f"{trailing / len(lines):.0%} of the lines end in an ellipsis"
    if len(_STOP_WORDS.intersection(word.lower() for word in words)) < config.min_stop_words:
        return "no English function words"
    if "lorem ipsum" in sample.lower():
        return "lorem ipsum"
    if len(_SENTENCE_END.findall(sample)) < config.min_sentences:
        return f"fewer than {config.min_sentences} sentences"
    ended = sum(line.endswith((".", "!", "?", '"', "'", ":", ";", ",")) for line in lines)
    if ended < config.min_punctuated_lines * len(lines):
        return f"{ended / len(lines):.0%} of the lines end in punctuation"
    return None


def is_repetitive(text: str, config: ProseConfig) -> str | None:
    """Gopher's repetition rules: lines and paragraphs that repeat, and word n-grams that fill the text."""
    sample = text[:_SAMPLE]
    rules: tuple[tuple[str, Callable[[], Sequence[str]], float], ...] = (
        ("lines", lambda: [line for line in sample.split("\n") if line.strip()], config.max_repeated_lines),
        (
            "paragraphs",
            lambda: [part for part in re.split(r"\n{2,}", sample) if part.strip()],
            config.max_repeated_lines,
        ),
    )
    for name, split, limit in rules:
        pieces = split()
        if not pieces:
            continue
        repeated = len(pieces) - len(set(pieces))
        if repeated > limit * len(pieces):
            return f"{repeated / len(pieces):.0%} of the {name} repeat"
    words = sample.split()
    size = sum(map(len, words))
    for n, limit in zip((2, 3, 4), config.max_top_ngram, strict=True):
        grams = Counter(zip(*(words[place:] for place in range(n)), strict=False))
        if not grams:
            break
        gram, count = grams.most_common(1)[0]
        share = count * sum(map(len, gram)) / size
        if count > 1 and share > limit:
            return f'"{" ".join(gram)[:60]}" fills {share:.0%}'
    return None
