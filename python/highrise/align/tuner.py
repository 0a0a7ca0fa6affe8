"""Floor 5, tuner: trains an adapter on one task within a time budget, between two looks at the held-out loss.

The first steps are measured, and from them it is planned what fits; the plan is corrected as long as it runs, and the
second look is cut short rather than late. Seconds spent are part of the checkpoint, so a killed run goes on with what
time was left. The rate falls with the time that is gone. Knows nothing of documents or prompts.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from highrise.align.lora import adapter_parameters, adapter_state, as_it_was, set_adapter_state
from highrise.align.outcome import KindOutcome, Outcome, Skipped
from highrise.align.pace import Pace
from highrise.core.progress import Progress, human_seconds
from highrise.train.checkpoint import write_checkpoint
from highrise.train.model import Decoder
from highrise.train.optimiser import adamw
from highrise.train.step import train_step

__all__ = ["Task", "run_task"]

_RISE_STEPS = 5
_LONG = 1_000_000
_FINAL_RATE = 0.05

Looked = list[list[tuple[str, float, int]]]
"""For each held-out row its samples: kind, summed loss, number of targets."""


class Task(Protocol):
    """What the tuner needs of a method."""

    name: str
    default_rate: float
    held_out: list[Any]
    judged: frozenset[str]
    """The kinds of held-out samples that decide."""

    def steps(self) -> Iterator[tuple[list[Any], int]]:
        """Batches of each step, and their tokens."""

    def accumulate(
        self, decoder: Decoder, batches: Sequence[Any], *, device: str, precision: str, backward: bool = True
    ) -> tuple[float, int]:
        """Summed loss and what it is divided by."""

    def look(self, decoder: Decoder, row: Any, *, device: str, precision: str) -> list[tuple[str, float, int]]:
        """Kind, summed loss and number of targets of each sample in a held-out row."""


def run_task(
    task: Task,
    decoder: Decoder,
    *,
    budget: float,
    minimum_tokens: int,
    rate: float,
    start: dict[str, torch.Tensor] | None,
    device: str,
    precision: str,
    checkpoint: Path,
    checkpoint_every: float,
    saved: dict[str, Any] | None,
    keep: dict[str, Any],
    say: Callable[[str], None],
) -> Outcome | Skipped:
    """Train the adapter on `decoder` so that all of it, the looks included, takes `budget` seconds.

    `start` is the adapter as it stands (None: there is none yet). Skipped when the measured steps say that fewer than
    `minimum_tokens` fit. `saved` is what an earlier, killed process left in `checkpoint`; `keep` is stored beside it.
    """
    optimiser = adamw(adapter_parameters(decoder), learning_rate=rate, betas=(0.9, 0.99))
    state: dict[str, Any] = {"steps": 0, "tokens": 0, "train_seconds": 0.0, "before": None, "planned": None}
    state["planned_steps"] = _LONG
    pace = Pace(budget=budget, num_rows=len(task.held_out))
    if saved is not None:
        set_adapter_state(decoder, saved["adapter"])
        optimiser.load_state_dict(saved["optimiser"])
        state, pace = dict(saved["task"]), Pace.restored(saved["pace"])
        say(f"align: {task.name} goes on after {state['steps']} steps and {pace.gone():.0f} s")
    last_save = time.monotonic()
    batches = itertools.islice(task.steps(), state["steps"], None)
    with Progress(f"align {task.name}", unit="tokens", total=state["planned"]) as progress:
        progress.done = state["tokens"]
        while True:
            if pace.measured and state["before"] is None:
                state["planned"] = state["tokens"] + pace.tokens_left()
                state["planned_steps"] = state["planned"] * state["steps"] // max(1, state["tokens"])
                if state["planned"] < minimum_tokens:
                    return Skipped(_too_slow(state["planned"], pace, budget, minimum_tokens))
                say(
                    f"align: {task.name}: {pace.tokens_per_second():,.0f} tokens/s measured, about "
                    f"{state['planned']:,} tokens fit into {human_seconds(budget)} beside two looks at held-out files"
                )
                with as_it_was(decoder, start):
                    first = _look(task, decoder, pace, pace.look_until(), device, precision)
                state["before"] = first
                pace.looked(len(first))
            if not pace.another_step():
                break
            began = time.monotonic()
            rows, num_tokens = next(batches)
            share = _share(state["steps"], pace.share_gone(), state["planned_steps"])
            result = train_step(
                decoder,
                optimiser,
                rows,
                rate=rate * share,
                clip=1.0,
                device=device,
                precision=precision,
                loss=task.accumulate,
            )
            seconds = time.monotonic() - began
            pace.stepped(num_tokens, seconds)
            state["steps"] += 1
            state["tokens"] += num_tokens
            state["train_seconds"] += seconds
            progress.total = state["tokens"] + pace.tokens_left()
            progress.advance(num_tokens, note=f"loss {result.loss:.3f}")
            if time.monotonic() - last_save >= checkpoint_every:
                parts = {"adapter": adapter_state(decoder), "optimiser": optimiser.state_dict()}
                write_checkpoint(checkpoint, {**keep, **parts, "task": dict(state), "pace": pace.state()})
                last_save = time.monotonic()
    before: Looked = state["before"] or []
    if not before:
        return Skipped(_too_slow(state["tokens"], pace, budget, minimum_tokens))
    after = _look(task, decoder, pace, budget, device, precision, rows=len(before))
    kinds = _compare(before[: len(after)], after, task.judged)
    return Outcome(
        before=_mean(before[: len(after)], task.judged),
        after=_mean(after, task.judged),
        kinds=kinds,
        num_rows=len(after),
        steps=state["steps"],
        tokens=state["tokens"],
        planned_tokens=state["planned"],
        seconds=pace.gone(),
        train_seconds=state["train_seconds"],
    )


def _too_slow(tokens: int, pace: Pace, budget: float, minimum_tokens: int) -> str:
    return (
        f"about {tokens:,} tokens fit into {human_seconds(budget)} at the {pace.tokens_per_second():,.1f} tokens/s "
        f"measured, fewer than {minimum_tokens:,} teach nothing; raise the budget, or lower minimum_tokens"
    )


def _share(step: int, gone: float, planned_steps: int) -> float:
    """The rate as a share of the highest: up over five steps (of a short run a sixth), level to half the time, down."""
    rise = max(1, min(_RISE_STEPS, planned_steps // 6))
    return min(1.0, (step + 1) / rise) * max(_FINAL_RATE, min(1.0, 2 * (1 - gone)))


def _look(
    task: Task, decoder: Decoder, pace: Pace, until: float, device: str, precision: str, *, rows: int | None = None
) -> Looked:
    """The held-out rows one after another (at least one) until `until` seconds of the budget are gone."""
    found: Looked = []
    for row in task.held_out[:rows]:
        began = pace.gone()
        found.append(task.look(decoder, row, device=device, precision=precision))
        if pace.gone() + 0.5 * (pace.gone() - began) > until:
            break
    return found


def _mean(rows: Looked, judged: frozenset[str]) -> float:
    chosen = [(loss, count) for row in rows for kind, loss, count in row if kind in judged]
    return sum(loss for loss, _ in chosen) / max(1, sum(count for _, count in chosen))


def _compare(before: Looked, after: Looked, judged: frozenset[str]) -> dict[str, KindOutcome]:
    kinds: dict[str, KindOutcome] = {}
    for kind in dict.fromkeys(kind for row in after for kind, _, _ in row):
        only = frozenset({kind})
        counts = [count for row in after for name, _, count in row if name == kind]
        kinds[kind] = KindOutcome(
            before=_mean(before, only),
            after=_mean(after, only),
            num_targets=sum(counts),
            num_samples=len(counts),
            judged=kind in judged,
        )
    return kinds
