"""Floor 6, sampling: one row of logits in, one token out. Knows neither batches nor text.

The order is that of Hugging Face and vLLM: bias and penalties, temperature, top-k, top-p, min-p. Every request has its
own generator, so a seed gives the same tokens whatever else is computed. Rows are wide (152k) and filters keep few:
candidates are found by exact bounds (`_top`, `_nucleus`) and only they are sorted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from highrise.core.errors import InputError
from highrise.serve.request import FinishReason, Sampling, TokenLogprob

if TYPE_CHECKING:
    from highrise.serve.constraint import Constraint

__all__ = ["Sampler", "log_softmax_at", "token_logprob"]

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.intp]

_BLOCKS = 64


class Sampler:
    """Chooses the tokens of one request; keeps its generator and the counts that penalties need."""

    __slots__ = (
        "_adjusts",
        "_answer",
        "_bias",
        "_bias_ids",
        "_constraint",
        "_forbidden",
        "_generator",
        "_seen",
        "_vocab",
        "sampling",
    )

    def __init__(
        self,
        sampling: Sampling,
        prompt_ids: list[int],
        *,
        vocab_size: int,
        eos_ids: tuple[int, ...],
        constraint: Constraint | None = None,
    ) -> None:
        self.sampling = sampling
        self._constraint = constraint
        self._vocab = vocab_size
        seed = sampling.seed
        self._generator = np.random.Generator(np.random.PCG64(None if seed is None else seed & (2**64 - 1)))
        for token in sampling.logit_bias:
            if not 0 <= token < vocab_size:
                raise InputError(f"logit_bias names token {token}; the vocabulary has {vocab_size}")
        self._bias_ids = np.fromiter(sampling.logit_bias.keys(), dtype=np.intp)
        self._bias = np.fromiter(sampling.logit_bias.values(), dtype=np.float32)
        ends = {*eos_ids, *sampling.stop_ids}
        self._forbidden = np.array(sorted(token for token in ends if 0 <= token < vocab_size), dtype=np.intp)
        repeats = sampling.repetition_penalty != 1.0
        self._seen: npt.NDArray[np.bool_] | None = None
        if repeats:
            self._seen = np.zeros(vocab_size, dtype=bool)
            self._seen[np.asarray(prompt_ids, dtype=np.intp)] = True
        self._answer: dict[int, int] | None = (
            {} if sampling.presence_penalty != 0.0 or sampling.frequency_penalty != 0.0 else None
        )
        self._adjusts = bool(repeats or self._answer is not None or len(self._bias_ids))

    def choose(self, logits_V: Floats, num_generated: int) -> int:  # noqa: N803
        """The next token. `logits_V` is not modified; `num_generated` tokens were chosen before."""
        row = logits_V
        sampling = self.sampling
        withhold = num_generated < sampling.min_tokens and len(self._forbidden) > 0
        if self._adjusts or withhold:
            row = self._adjust(row.copy(), withhold)
        if self._constraint is not None:
            row = self._constrain(self._constraint, row, logits_V, withhold)
        token = int(np.argmax(row)) if sampling.greedy else self._draw(row)
        if self._seen is not None:
            self._seen[token] = True
        if self._answer is not None:
            self._answer[token] = self._answer.get(token, 0) + 1
        if self._constraint is not None:
            self._constraint.accept(token)
        return token

    @property
    def ended(self) -> FinishReason | None:
        """Why no more tokens may be chosen: the grammar is whole ("stop") or was given up ("length"); else None."""
        if self._constraint is None or not self._constraint.finished:
            return None
        return "length" if self._constraint.failure else "stop"

    def _constrain(self, constraint: Constraint, row: Floats, logits_V: Floats, withhold: bool) -> Floats:  # noqa: N803
        """Only what the grammar allows; where that is only the end of the text, `min_tokens` gives way."""
        masked = constraint.mask(row)
        if withhold and not np.isfinite(masked.max()):
            masked = constraint.mask(self._adjust(logits_V.copy(), False))
        return masked

    def _adjust(self, row: Floats, withhold: bool) -> Floats:
        sampling = self.sampling
        if len(self._bias_ids):
            row[self._bias_ids] += self._bias
        if self._seen is not None:
            places = np.flatnonzero(self._seen)
            values = row[places]
            penalty = np.float32(sampling.repetition_penalty)
            row[places] = np.where(values > 0, values / penalty, values * penalty)
        if self._answer:
            places = np.fromiter(self._answer.keys(), dtype=np.intp, count=len(self._answer))
            counts = np.fromiter(self._answer.values(), dtype=np.float32, count=len(self._answer))
            row[places] -= np.float32(sampling.presence_penalty) + np.float32(sampling.frequency_penalty) * counts
        if withhold:
            row[self._forbidden] = -np.inf
        return row

    def _draw(self, row: Floats) -> int:
        sampling = self.sampling
        uniform = self._generator.random()
        highest = row.max()
        if not np.isfinite(highest):
            return int(np.argmax(row))
        ids: Ids | None = None
        values = row
        if 0 < sampling.top_k < len(row):
            ids = _top(row, sampling.top_k)
            values = row[ids]
        scaled = (values - highest) * np.float32(1.0 / max(sampling.temperature, 1e-5))
        weights = np.exp(scaled, out=scaled)
        if sampling.top_p < 1.0:
            places = _nucleus(weights, sampling.top_p)
            ids = places if ids is None else ids[places]
            weights = weights[places]
        if sampling.min_p > 0.0:
            places = np.flatnonzero(weights >= np.float32(sampling.min_p) * weights.max())
            ids = places if ids is None else ids[places]
            weights = weights[places]
        sums = np.cumsum(weights, dtype=np.float64)
        place = min(int(np.searchsorted(sums, uniform * sums[-1], side="right")), len(sums) - 1)
        return place if ids is None else int(ids[place])


def _top(row: Floats, k: int) -> Ids:
    """Places of the k largest values, largest first; ties go to the smaller place.

    The k-th largest of the maxima of strided blocks bounds the k-th largest value from below, so few values are sorted.
    """
    width = len(row) // _BLOCKS
    candidates: Ids
    if k < width:
        maxima = row[: width * _BLOCKS].reshape(_BLOCKS, width).max(axis=0)
        bound = np.partition(maxima, width - k)[width - k]
        candidates = np.flatnonzero(row >= bound)
    else:
        candidates = np.arange(len(row), dtype=np.intp)
    order = np.argsort(-row[candidates], kind="stable")[:k]
    return candidates[order]


def _nucleus(weights: Floats, top_p: float) -> Ids:
    """Places of the smallest set of largest weights that holds the share `top_p`, largest first.

    Weights of at most (1 - top_p) / n of the sum cannot add up to more than 1 - top_p: none of them is in the set.
    """
    total = float(weights.sum(dtype=np.float64))
    candidates = np.flatnonzero(weights > (1.0 - top_p) * total / len(weights))
    if len(candidates) == 0:
        candidates = np.arange(len(weights), dtype=np.intp)
    order = np.argsort(-weights[candidates], kind="stable")
    sums = np.cumsum(weights[candidates][order], dtype=np.float64)
    count = int(np.searchsorted(sums, top_p * total, side="left")) + 1
    return candidates[order[:count]]


def log_softmax_at(logits_V: Floats, ids: Ids) -> npt.NDArray[np.float64]:  # noqa: N803
    """Log-probabilities of the tokens `ids`, in natural logarithms."""
    highest = logits_V.max()
    total = np.log(np.exp(logits_V - highest).sum(dtype=np.float64))
    return logits_V[ids].astype(np.float64) - float(highest) - float(total)


def token_logprob(logits_V: Floats, token: int, num_top: int) -> TokenLogprob:  # noqa: N803
    """Log-probability of `token` and of the `num_top` likeliest, from logits as the model gave them."""
    best = _top(logits_V, num_top) if num_top else np.empty(0, dtype=np.intp)
    values = log_softmax_at(logits_V, np.append(best, token))
    top = tuple((int(place), float(value)) for place, value in zip(best, values[:-1], strict=True))
    return TokenLogprob(token, float(values[-1]), top)
