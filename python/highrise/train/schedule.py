"""Floor 4, schedule: the learning rate of a step, as a pure function."""

from __future__ import annotations

import math

from highrise.train.config import TrainConfig

__all__ = ["rate_at"]

_LEAST_WARMUP = 10


def rate_at(config: TrainConfig, step: int, num_steps: int) -> float:
    """The learning rate of `step` (0 .. num_steps - 1): it rises linearly, stays, and falls to `final_rate` of itself.

    The rise takes `warmup` of the steps, and at least ten or a tenth of them, whichever is less: a short run that
    starts at the highest rate is thrown off its way. "linear" falls over the last `decay_share` of the steps, "cosine"
    from the end of the warm-up on.
    """
    warmup = round(config.warmup * num_steps)
    if config.warmup:
        warmup = max(warmup, min(_LEAST_WARMUP, num_steps // 10))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    start = warmup if config.decay == "cosine" else num_steps - round(config.decay_share * num_steps)
    if step < start or num_steps - 1 <= start:
        return config.learning_rate
    done = (step - start) / (num_steps - 1 - start)
    left = 0.5 * (1 + math.cos(math.pi * done)) if config.decay == "cosine" else 1 - done
    return config.learning_rate * (config.final_rate + (1 - config.final_rate) * left)
