"""Floor 4, configuration: hyperparameters of a training run, and what follows from them.

With `base` the run starts from existing weights; without it `depth` sets every size (after karpathy/nanochat,
scripts/base_train.py: width = 64 x depth). Knows nothing of torch.
"""

from __future__ import annotations

import math
from typing import Literal

from highrise.core.config import Config, parse_duration
from highrise.core.cores import MAX_THREADS
from highrise.core.errors import ConfigError
from highrise.core.shape import DecoderShape

__all__ = ["TrainConfig", "check_threads", "derive_shape"]

DEFAULT_DEPTH = 4
HEAD_DIM = 64


class TrainConfig(Config, frozen=True):
    """One training run. A value of None is derived, and printed when the run starts."""

    base: str | None = None
    """Weights to start from: a catalogue name, a GGUF file or a Hugging Face folder. None starts from random ones."""
    depth: int | None = None
    """Layers of a new model; width, heads and the rest follow. None with no base means 4 (about 5 M parameters)."""
    hidden_size: int | None = None
    """Width of a new model, instead of 64 x depth."""
    num_attention_heads: int | None = None
    """Heads of a new model, instead of width / 64."""
    tie_word_embeddings: bool = False
    tokens: int | None = None
    """Tokens to train on. None: 20 a parameter, or what fits into `budget`. With `base`, None trains on nothing."""
    budget: str | None = None
    """A time limit such as "5 min": the step count is cut to what fits, so that the decay still ends at its end."""
    sequence: int = 512
    """Tokens of a training window, and the longest context of a new model."""
    batch_tokens: int = 8192
    """Tokens of one optimiser step."""
    micro_batch: int = 8
    """Windows that go through the model at once; the rest of a step is accumulated."""
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    """Largest norm of the gradient of all weights; 0 turns clipping off."""
    warmup: float = 0.03
    """Share of the steps in which the rate rises."""
    decay: Literal["linear", "cosine"] = "linear"
    decay_share: float = 0.5
    """Share of the steps, at the end, in which the rate falls (linear); cosine falls from the warm-up on."""
    final_rate: float = 0.05
    """The last step's rate as a share of the highest."""
    infill_share: float = 0.5
    """Share of documents that are turned into fill-in-the-middle samples before they are encoded."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 autocast where a matrix product in it is faster on this machine (measured), else float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    """Threads torch may use; None: all cores this process has."""
    evaluation_documents: int = 200
    checkpoint_every: str = "60 s"
    seed: int = 0

    @property
    def continues(self) -> bool:
        """Whether weights that exist are to be trained further: there is a base, and tokens or a budget for it."""
        return self.base is not None and (self.tokens is not None or self.budget is not None)

    def __post_init__(self) -> None:
        if self.base is not None:
            for name in ("depth", "hidden_size", "num_attention_heads"):
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"train has both base = {self.base!r} and {name} = {getattr(self, name)}: weights that exist "
                        f"have their sizes; take one of the two away"
                    )
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"train.{name} is {value}; give a larger number, at least {least}")
        check_threads("train.threads", self.threads)
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"train.{name} is {getattr(self, name)}; it is at least 0 and below 1")
        for name in ("weight_decay", "clip"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"train.{name} is {getattr(self, name)}; it is a number of at least 0")
        for name in ("infill_share", "warmup", "decay_share", "final_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"train.{name} is {getattr(self, name)}; it is a share between 0 and 1")
        if self.warmup + self.decay_share > 1:
            raise ConfigError(
                f"train.warmup {self.warmup} and train.decay_share {self.decay_share} are together more than the run; "
                f"lower one so that their sum is at most 1"
            )
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"train.learning_rate is {self.learning_rate}; it must be a number above 0")
        if self.batch_tokens % self.sequence:
            near = max(1, round(self.batch_tokens / self.sequence)) * self.sequence
            raise ConfigError(
                f"train.batch_tokens {self.batch_tokens} is no multiple of train.sequence {self.sequence}; try {near}"
            )
        if self.budget is not None:
            parse_duration(self.budget, where="train.budget")
        parse_duration(self.checkpoint_every, where="train.checkpoint_every")
        if self.base is None:
            derive_shape(self, vocab_size=1)


_LEAST = {
    **dict.fromkeys(("depth", "hidden_size", "num_attention_heads", "tokens", "batch_tokens", "micro_batch"), 1),
    **dict.fromkeys(("evaluation_documents", "seed"), 0),
    "sequence": 2,
}


def check_threads(name: str, threads: int | None) -> None:
    """Refuse a number of threads that no machine starts; OpenMP would end the process without a word of ours."""
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise ConfigError(f"{name} is {threads}; it must be from 1 to {MAX_THREADS:,}")


def derive_shape(config: TrainConfig, *, vocab_size: int) -> DecoderShape:
    """Every size of a new decoder from `depth`.

    Width 64 x depth, heads of 64, half as many key-value heads where that divides, inner width 8/3 of the width rounded
    up to a multiple of 256, contexts of one training window.
    """
    depth = config.depth or DEFAULT_DEPTH
    width = config.hidden_size or 64 * depth
    heads = config.num_attention_heads or max(1, width // HEAD_DIM)
    if width % heads:
        near = next(n for n in range(heads, 0, -1) if width % n == 0)
        raise ConfigError(
            f"train.hidden_size {width} cannot be divided among {heads} attention heads; try {near} heads"
        )
    return DecoderShape(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2 if heads % 2 == 0 else heads,
        intermediate_size=-(-width * 8 // 3 // 256) * 256,
        vocab_size=vocab_size,
        max_position_embeddings=config.sequence,
        head_dim=width // heads,
        tie_word_embeddings=config.tie_word_embeddings,
    )
