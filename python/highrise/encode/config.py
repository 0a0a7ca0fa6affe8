"""Floor 3, config: what a new vocabulary is to be. The index has its own file, `index_config.py`."""

from __future__ import annotations

from highrise.core.config import Config, parse_size
from highrise.core.errors import ConfigError

__all__ = ["DEFAULT_SPECIALS", "LEAST_MEMORY", "MAX_IDS", "TokenizerConfig"]

DEFAULT_SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_call>",
    "</tool_call>",
)
"""Those of Qwen2.5-Coder, so that chat, tool calls and fill-in-the-middle work with a vocabulary of one's own."""

MAX_IDS = 1 << 24
"""No vocabulary is that large; a file that says so is damaged, and would fill the memory."""

LEAST_MEMORY = 64 << 20
"""Bytes that training is at least given."""

_SCHEMES = ("gpt2", "smollm", "cl100k", "llama3", "qwen2", "o200k")


class TokenizerConfig(Config, frozen=True):
    """A vocabulary trained on the curated documents."""

    vocabulary: int = 4096
    """Number of ids: the special tokens, the 256 bytes, and as many merges as are left."""
    pattern: str = "qwen2"
    """Name of the split pattern."""
    special: tuple[str, ...] = DEFAULT_SPECIALS
    min_count: int = 2
    """A pair of tokens that occurs less often is not merged."""
    threads: int = 2
    memory: str | None = None
    """What counting words may take, for example "1 GB": more goes to files. Without it all stays in memory."""

    def __post_init__(self) -> None:
        least = 256 + len(self.special)
        if self.vocabulary < least:
            raise ConfigError(
                f"vocabulary = {self.vocabulary} is too small: 256 bytes and {len(self.special)} special tokens "
                f"need {least}"
            )
        if self.vocabulary > MAX_IDS:
            raise ConfigError(f"vocabulary = {self.vocabulary} is too large: {MAX_IDS} ids are the most")
        if not 1 <= self.min_count < 2**31:
            raise ConfigError(f"min_count = {self.min_count}: give a number from 1 to {2**31 - 1}")
        if self.pattern not in _SCHEMES:
            raise ConfigError(f'pattern = "{self.pattern}" is not known; known are {", ".join(_SCHEMES)}')
        if len(set(self.special)) != len(self.special) or not all(self.special):
            raise ConfigError(f"special = {list(self.special)} has an empty token or one twice")
        if (memory := self.memory_bytes()) is not None and memory < LEAST_MEMORY:
            raise ConfigError(f'memory = "{self.memory}" is too little to train with; give at least "64 MiB"')
        if self.threads < 1:
            raise ConfigError(f"threads = {self.threads}: at least one thread is needed")

    def memory_bytes(self) -> int | None:
        """`memory` in bytes."""
        return None if self.memory is None else parse_size(self.memory, where="memory")
