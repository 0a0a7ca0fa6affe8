"""Small vocabularies for tests, one for each split pattern, and the same ones as tiktoken and tokenizers see them."""

from __future__ import annotations

import functools
from pathlib import Path

import hypothesis.strategies as st
import tiktoken
import tokenizers

from highrise.encode import Tokenizer
from tests.reference import bpe

SCHEMES = ("gpt2", "smollm", "cl100k", "llama3", "qwen2", "o200k")
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_end|>x")

_ROOT = Path(__file__).parents[2]
_WORLD = (
    "Straße naïve Ελληνικά русский текст עברית العربية हिन्दी ไทย 中文文本 日本語のテキスト 한국어 ǅungla ÅNGSTRÖM "
    "e\u0301a\u0300 ½ ² Ⅷ ٣٤٥ \uff11\uff12\uff13 \U0001d7d8\U0001d7d9 \U0001f600\U0001f468\u200d\U0001f469 "
    "\u3000\u00a0\u2028 don't WE'LL it'\u017f I'M you'Re\r\n\t\n  \n"
)


@functools.cache
def corpus() -> tuple[str, ...]:
    """Code, prose and many scripts: about 200 kB."""
    files = [*sorted((_ROOT / "python" / "highrise" / "core").glob("*.py")), _ROOT / "LICENSE"]
    return (*(file.read_text() for file in files), _WORLD * 20)


@functools.cache
def made(scheme: str) -> Tokenizer:
    """A vocabulary of about 2,000 tokens trained under a split pattern."""
    return Tokenizer.train(corpus(), vocabulary=2000, pattern=scheme, special=SPECIALS)


@functools.cache
def as_tiktoken(scheme: str) -> tiktoken.Encoding:
    """The same tokens as ranks. tiktoken cannot cut digits first, so not for smollm."""
    tokenizer = made(scheme)
    first = len(SPECIALS)
    ranks = {tokenizer.token(index): index for index in range(first, tokenizer.vocab_size)}
    return tiktoken.Encoding(
        scheme, pat_str=bpe.PATTERNS[scheme], mergeable_ranks=ranks, special_tokens=tokenizer.special_tokens
    )


@functools.cache
def as_tokenizers(scheme: str) -> tokenizers.Tokenizer:
    """The same tokenizer.json in Hugging Face's tokenizers."""
    loaded = tokenizers.Tokenizer.from_str(made(scheme).to_json().decode())
    loaded.encode_special_tokens = True
    return loaded


FRAGMENTS = [
    *(
        " ",
        "  ",
        "\n",
        "\r\n",
        "\r",
        "\t",
        "\u00a0",
        "\u3000",
        "\u0085",
        "\u2028",
        "\x1c",
        "'",
        "'s",
        "'S",
        "'\u017f",
        "'ll",
        "'Re",
    ),
    *(
        "a",
        "Z",
        "ab",
        "É",
        "ß",
        "ǅ",
        "ʰ",
        "中",
        "ﷺ",
        "\u0301",
        "\u0903",
        "1",
        "12345",
        "½",
        "٣",
        "Ⅷ",
        "/",
        "//",
        ".",
        "!?",
        "_",
        "<",
    ),
    *(
        "\U0001f600",
        "\u200d",
        "\ufeff",
        "\ud7ff",
        "\U0010ffff",
        "<|im_end|>",
        "def f(x):",
        "don't",
        "HTTPServer",
        "\u017f",
    ),
]


def texts(max_size: int = 30) -> st.SearchStrategy[str]:
    """Texts around everything that the patterns tell apart, from characters that every Unicode version here knows."""
    character = st.characters(exclude_categories=("Cs", "Cn"))
    return st.lists(st.one_of(st.sampled_from(FRAGMENTS), character), max_size=max_size).map("".join)
