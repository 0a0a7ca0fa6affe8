"""Floor 5, configuration: the methods that tune weights, each its own struct, told apart by `method`.

Knows nothing of torch.
"""

from __future__ import annotations

import math
from typing import Literal

from highrise.core.config import Config, parse_duration
from highrise.core.errors import ConfigError
from highrise.train.config import check_threads

__all__ = ["DpoConfig", "LoraConfig", "MethodConfig", "SftConfig"]

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


_LEAST = {"sequence": 64, "batch_tokens": 1, "evaluation_samples": 1, "minimum_tokens": 0, "seed": 0}


class LoraConfig(Config, frozen=True):
    """Low-rank adapters: W + alpha / rank * B A (Hu et al. 2021), on the named linear layers."""

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = TARGETS

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"lora.rank is {self.rank}; give at least 1")
        if not math.isfinite(self.alpha):
            raise ConfigError(f"lora.alpha is {self.alpha}; give a number, twice the rank for example")
        unknown = [name for name in self.targets if name not in TARGETS]
        if unknown or not self.targets:
            raise ConfigError(f"lora.targets {list(self.targets)}: choose among {', '.join(TARGETS)}")


class _Method(Config, frozen=True):
    adapter: Literal["lora"] = "lora"
    lora: LoraConfig = LoraConfig()
    budget: str = "3 min"
    """Time for this method, its evaluations included; a slower machine sees fewer tokens, not a longer wait."""
    learning_rate: float = 0.0
    """Highest rate of AdamW; 0 takes the method's own: 2e-4 for SFT, 5e-5 for DPO."""
    sequence: int = 384
    """Longest sample in tokens."""
    batch_tokens: int = 1024
    """Tokens of one optimiser step, about."""
    minimum_tokens: int = 2_000
    """When fewer tokens than this fit into the budget, the method is skipped."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int | None = None
    checkpoint_every: str = "30 s"
    evaluation_samples: int = 48
    """Held-out samples whose loss decides whether the adapter is kept."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("budget", "checkpoint_every"):
            parse_duration(getattr(self, name), where=f"align.{name}")
        if not 0 <= self.learning_rate < math.inf:
            raise ConfigError(f"align.learning_rate is {self.learning_rate}; give a number above 0, or 0 (the default)")
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(f"align.{name} is {getattr(self, name)}; give at least {least}")
        check_threads("align.threads", self.threads)


class SftConfig(_Method, frozen=True, tag_field="method", tag="sft"):
    """Supervised tuning: loss on the answer only, of chat pairs and fill-in-the-middle samples from curated sources."""

    infill_share: float = 0.9
    """Share of fill-in-the-middle samples; the rest are chat pairs made from docstrings."""

    text_share: float = 0.0
    """Share of plain windows of the same files, every token of them asked for, beside the records."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.infill_share <= 1:
            raise ConfigError(f"align.infill_share is {self.infill_share}; it is a share between 0 and 1")
        if not 0 <= self.text_share <= 0.9:
            raise ConfigError(f"align.text_share is {self.text_share}; it is a share between 0 and 0.9")


class DpoConfig(_Method, frozen=True, tag_field="method", tag="dpo"):
    """Direct preference optimisation (Rafailov et al. 2023, sigmoid loss) on pairs of a better and a worse answer."""

    beta: float = 0.1
    feedback: str = "auto"
    """"auto" makes pairs from the sources (the real middle against a damaged one); else a JSON Lines file of pairs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta < math.inf:
            raise ConfigError(f"align.beta is {self.beta}; it must be a number above 0")
        if not self.feedback.strip():
            raise ConfigError(
                'align.feedback is empty, and DPO needs pairs: write "auto" or the path of a JSON Lines file'
            )


MethodConfig = SftConfig | DpoConfig
