"""Floor 4, optimiser: AdamW with weight decay on matrices only, and the clipping of the gradient."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

__all__ = ["adamw", "clip_gradient"]


def adamw(
    parameters: Iterable[nn.Parameter],
    *,
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.95),
    weight_decay: float = 0.0,
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) over the parameters that are trained; vectors (norms, biases) do not decay."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, betas=betas, fused=True)


def clip_gradient(parameters: Iterable[nn.Parameter], largest: float) -> float:
    """Scale all gradients so that their common norm is at most `largest` (0: leave them); returns the norm before."""
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    return float(nn.utils.clip_grad_norm_(trained, largest if largest > 0 else float("inf")))
