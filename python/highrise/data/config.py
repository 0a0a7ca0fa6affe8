"""Floor 2, configuration: which sources, what counts as clean, what is a duplicate, what is held out.

Every threshold of the cleaning functions stands here with its default. Knows nothing of files or tables.
"""

from __future__ import annotations

from typing import Literal

from highrise.core.config import Config, parse_duration, parse_size
from highrise.core.errors import ConfigError

__all__ = ["PERSONAL_KINDS", "TOXIC_CATEGORIES", "CleaningConfig", "DataConfig", "ProseConfig", "parse_memory"]

TOXIC_CATEGORIES = ("identity attack", "threat", "insult", "sexual", "profanity")
"""What `toxicity.py` tells apart."""

PERSONAL_KINDS = ("email", "ip", "phone", "author")
"""What `personal.py` replaces."""

_MAX_BYTES = 1 << 40


def parse_memory(text: str) -> int:
    """Bytes of a size such as "512M" or "2 GiB", at least 64 MB."""
    return max(parse_size(text, where="--memory"), 64_000_000)


class ProseConfig(Config, frozen=True):
    """Thresholds of `prose.py`: Gopher's values (arXiv 2112.11446, A1.1) unless another source is named."""

    min_words: int = 50
    max_words: int = 100_000
    min_mean_word_length: float = 3.0
    max_mean_word_length: float = 10.0
    max_symbol_ratio: float = 0.1
    max_bullet_lines: float = 0.9
    max_ellipsis_lines: float = 0.3
    min_alphabetic_words: float = 0.8
    min_stop_words: int = 2
    """English; 0 for texts in other languages."""
    min_sentences: int = 3
    """C4 asks for five sentences, its code for three."""
    min_punctuated_lines: float = 0.12
    """FineWeb's share of lines that end in punctuation."""
    max_repeated_lines: float = 0.3
    max_top_ngram: tuple[float, float, float] = (0.20, 0.18, 0.16)
    """Share of the characters in the most frequent 2-, 3- and 4-gram of words."""


class CleaningConfig(Config, frozen=True):
    """Thresholds of the filters, each used by the function of `filters.py` or `syntax.py` named in its comment."""

    max_control_share: float = 0.05
    """is_binary: share of control characters in the first 8 KiB above which a file without NUL is binary."""
    max_line_length: int = 2_000
    """is_minified: longest line of a code file in characters."""
    max_mean_line_length: float = 160.0
    """is_minified: mean length of the lines of a code file, in characters."""
    min_letter_share: float = 0.25
    """is_data: share of letters in a text below which it is data (The Stack's rule)."""
    max_literal_share: float = 0.6
    """is_data: share of a code file's non-space characters inside numeric literals and their commas."""
    max_data_file_bytes: int = 65_536
    """is_data: size of a JSON, YAML, XML, CSV or SVG file above which it is data, not configuration."""
    max_syntax_error_share: float = 0.02
    """is_broken: share of bytes inside tree-sitter error nodes; Python must parse or have no error node at all."""
    max_encoded_share: float = 0.5
    """is_encoded: share of a text inside runs of base-64, hex or escapes (The Stack v2, arXiv 2402.19173)."""
    max_encoded_run: int = 1_024
    """is_encoded: longest single run, in characters, in code."""
    min_visible_share: float = 0.2
    """is_hollow: share of an HTML file that is visible text (StarCoder)."""
    max_comment_share: float = 0.98
    """is_commentary: share of a code file that is comments (StarCoder: 0.8, which costs whole modules of networkx)."""
    min_comment_share: float = 0.0
    """is_commentary: 0.01 is StarCoder's value; 0 keeps files without comments."""
    prose: ProseConfig = ProseConfig()
    """Thresholds for pages of web archives and texts of dumps; prose in repositories and packages is not asked."""
    drop_obfuscated: bool = True
    """is_obfuscated: drop reference material that carries signs of hiding what it does."""
    toxic: tuple[str, ...] = ("identity attack", "threat", "insult", "sexual")
    """is_toxic: categories for which reference material is dropped; there is also "profanity"."""
    max_contamination: float = 0.3
    """contamination: share of a problem's word 10-grams in one document from which it is dropped."""
    redact_personal: Literal["none", "reference", "all"] = "reference"
    """Whose e-mail and IP addresses, telephone numbers and authors' names are replaced."""
    personal: tuple[str, ...] = PERSONAL_KINDS
    """Which of them."""
    lint: bool = False
    """Let ruff look at Python, as a part of the quality score (needs the program ruff)."""
    min_quality: float = 0.0
    """low quality: documents with a lower score are dropped; 0 keeps all."""
    redact_secrets: bool = True
    """Replace keys, tokens and passwords by placeholders that keep the syntax."""

    def __post_init__(self) -> None:
        if stray := sorted(set(self.personal) - set(PERSONAL_KINDS)):
            raise ConfigError(f'data.cleaning.personal names "{stray[0]}"; use {", ".join(PERSONAL_KINDS)}')
        if stray := sorted(set(self.toxic) - set(TOXIC_CATEGORIES)):
            raise ConfigError(f'data.cleaning.toxic names "{stray[0]}"; use {", ".join(TOXIC_CATEGORIES)}')
        shares = "max_control_share min_letter_share max_literal_share max_syntax_error_share max_encoded_share"
        for name in f"{shares} min_visible_share max_comment_share min_comment_share max_contamination".split():
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"data.cleaning.{name} is {getattr(self, name)}; use a share from 0 to 1")
        for name in ("max_line_length", "max_mean_line_length", "max_data_file_bytes", "max_encoded_run"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"data.cleaning.{name} is {getattr(self, name)}; use a number above 0")


class DataConfig(Config, frozen=True):
    """What the data floor builds from `sources`.

    A source is a folder, a git work tree, a git URL, a bare repository, `REPOSITORY@REVISION` (`@*`: every content of
    its history once), an archive, dump or table or a pattern of them (`sdists/*.tar.gz`), an address of an object
    store (`s3://bucket/prefix`), or "stdlib".
    """

    sources: tuple[str, ...] = (".", "stdlib")
    """"stdlib" is the standard library of the running Python: reference material, not the team's own."""
    include: tuple[str, ...] = ()
    """Patterns as in .gitignore; when there are any, a file must match one."""
    exclude: tuple[str, ...] = ()
    """Patterns as in .gitignore; a file that matches one is dropped (and counted)."""
    own: tuple[str, ...] = ()
    """Sources that are the team's own although they are archives, dumps or tables."""
    reference: tuple[str, ...] = ()
    """Sources that are reference material although they are folders or repositories."""
    text_column: str = "text"
    """The column of JSON lines and Parquet that holds the text."""
    max_unpacked_bytes: int = 16_000_000_000
    """Of one archive or dump; what would unpack to more stops there and is counted."""
    max_unpacked_ratio: int = 200
    """Unpacked bytes a packed byte, from 16 MB on."""
    file_timeout: str = "60 s"
    """How long one file may take to clean; one that takes longer is dropped and counted."""
    evaluations: tuple[str, ...] = ()
    """Evaluation sets whose problems must not be in the data: "humaneval", or files (JSON lines, or one problem a
    file).
    """
    opt_out: tuple[str, ...] = ()
    """Repositories that asked to be left out: names or patterns (`team/*`), or `@FILE` with one a line."""
    verdicts: str = ""
    """A JSON export of Label Studio (`highrise data label` makes the tasks): what people rejected is dropped."""
    licenses: tuple[str, ...] | str = "any"
    """"any", or the SPDX identifiers to keep ("unknown" may stand among them). Own sources are always kept."""
    max_file_bytes: int = 1_000_000
    near_duplicate: float = 0.8
    """Jaccard similarity of word 5-grams from which two documents are one; 0 switches near-duplicates off."""
    search_memory: int = 1_000_000_000
    """Bytes that the duplicate search may hold; more texts than half of it are searched in files, to the same end."""
    num_perm: int = 128
    """Places of a MinHash signature."""
    validation: float = 0.05
    """Share of the documents that is held out."""
    seed: int = 0
    shard_bytes: int = 64_000_000
    """Text bytes of one Parquet shard."""
    clone_timeout: str = "5 min"
    """How long one `git clone` may take."""
    cleaning: CleaningConfig = CleaningConfig()

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError('data.sources is empty; name at least one folder, git URL or "stdlib"')
        if isinstance(self.licenses, str) and self.licenses != "any":
            raise ConfigError(
                f'data.licenses is "{self.licenses}"; write "any" or a list such as ["MIT", "Apache-2.0"]'
            )
        if self.near_duplicate != 0 and not 0.3 <= self.near_duplicate <= 1:
            raise ConfigError(f"data.near_duplicate is {self.near_duplicate}; use 0 (off) or a value from 0.3 to 1")
        if not 0 <= self.validation <= 0.5:
            raise ConfigError(f"data.validation is {self.validation}; use a share from 0 to 0.5")
        if self.num_perm % 8 or not 8 <= self.num_perm <= 1024:
            raise ConfigError(f"data.num_perm is {self.num_perm}; use a multiple of 8 from 8 to 1024")
        for name in ("max_file_bytes", "shard_bytes", "search_memory"):
            if not 0 < getattr(self, name) <= _MAX_BYTES:
                raise ConfigError(f"data.{name} is {getattr(self, name)}; use 1 to {_MAX_BYTES} bytes")
        if not 0 <= self.seed < 2**64:
            raise ConfigError(f"data.seed is {self.seed}; use 0 to {2**64 - 1}")
        if not 0 < self.max_unpacked_ratio <= _MAX_BYTES or not 0 < self.max_unpacked_bytes <= 2**60:
            raise ConfigError(
                f"data.max_unpacked_ratio is {self.max_unpacked_ratio} and data.max_unpacked_bytes "
                f"{self.max_unpacked_bytes}; use numbers above 0"
            )
        for name, listed in (("own", self.own), ("reference", self.reference)):
            if stray := sorted(set(listed) - set(self.sources)):
                raise ConfigError(f'data.{name} names "{stray[0]}", which is not among data.sources')
        parse_duration(self.clone_timeout, where="data.clone_timeout")
        parse_duration(self.file_timeout, where="data.file_timeout")
