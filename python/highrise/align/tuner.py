"""Floor 5, tuner: trains an adapter on one task within a time budget, between two looks at the held-out loss.

Seconds spent are part of the checkpoint, so a killed run goes on with what time was left. The rate falls with the time
that is gone, not with steps: the number of steps is known only at the end. Knows nothing of documents or prompts.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from highrise.align.lora import adapter_parameters, adapter_state, set_adapter_state
from highrise.align.outcome import Outcome
from highrise.core.progress import Progress
from highrise.train.checkpoint import write_checkpoint
from highrise.train.model import Decoder
from highrise.train.optimiser import adamw
from highrise.train.step import train_step

__all__ = ["Task", "run_task"]

_WARMUP_STEPS = 5
_FINAL_RATE = 0.05
_EVALUATION_SHARE = 0.15


class Task(Protocol):
    """What the tuner needs of a method."""

    name: str
    unit: str
    default_rate: float
    held_out: list[Any]
    num_held_out: int

    def steps(self) -> Iterator[tuple[list[Any], int]]:
        """Batches of each step, and their tokens."""

    def accumulate(
        self, decoder: Decoder, batches: Sequence[Any], *, device: str, precision: str, backward: bool = True
    ) -> tuple[float, int]:
        """Summed loss and what it is divided by."""


def run_task(
    task: Task,
    decoder: Decoder,
    *,
    budget: float,
    rate: float,
    device: str,
    precision: str,
    checkpoint: Path,
    checkpoint_every: float,
    saved: dict[str, Any] | None,
    keep: dict[str, Any],
    say: Callable[[str], None],
) -> Outcome:
    """Train the adapter on `decoder` until `budget` seconds are nearly gone; the last of them are for the second look.

    `saved` is what an earlier, killed process left in `checkpoint`; `keep` is stored beside it for the caller.
    """
    optimiser = adamw(adapter_parameters(decoder), learning_rate=rate, betas=(0.9, 0.99))
    state: dict[str, Any] = {"steps": 0, "tokens": 0, "spent": 0.0, "train_seconds": 0.0, "before": None}
    if saved is not None:
        set_adapter_state(decoder, saved["adapter"])
        optimiser.load_state_dict(saved["optimiser"])
        state = dict(saved["task"])
        say(f"align: {task.name} goes on after {state['steps']} steps and {state['spent']:.0f} s")
    started = time.monotonic() - state["spent"]

    def save() -> None:
        state["spent"] = time.monotonic() - started
        parts = {"adapter": adapter_state(decoder), "optimiser": optimiser.state_dict(), "task": dict(state)}
        write_checkpoint(checkpoint, {**keep, **parts})

    if state["before"] is None:
        looked = time.monotonic()
        loss, rows = _look(task, decoder, None, _EVALUATION_SHARE * budget, device, precision)
        state |= {"before": loss, "rows": rows, "look_seconds": time.monotonic() - looked}
    end = started + budget - 1.1 * state["look_seconds"]
    last_save, step_seconds = time.monotonic(), 0.0
    batches = itertools.islice(task.steps(), state["steps"], None)
    with Progress(f"align {task.name}", unit="tokens") as progress:
        while (now := time.monotonic()) + step_seconds < end:
            rows_of_step, num_tokens = next(batches)
            result = train_step(
                decoder,
                optimiser,
                rows_of_step,
                rate=rate * _share(state["steps"], (now - started) / budget),
                clip=1.0,
                device=device,
                precision=precision,
                loss=task.accumulate,
            )
            step_seconds = time.monotonic() - now
            state["steps"] += 1
            state["tokens"] += num_tokens
            state["train_seconds"] += step_seconds
            if state["steps"] == 2:
                fits = int(num_tokens * max(0.0, end - time.monotonic()) / step_seconds) + state["tokens"]
                say(f"align: {task.name} at {num_tokens / step_seconds:,.0f} tokens/s, about {fits:,} tokens fit")
            progress.advance(num_tokens, note=f"loss {result.loss:.3f}")
            if time.monotonic() - last_save >= checkpoint_every:
                save()
                last_save = time.monotonic()
    if state["steps"]:
        after, _ = _look(task, decoder, state["rows"], None, device, precision)
    else:
        after = state["before"]
    return Outcome(
        before=state["before"],
        after=after,
        num_rows=state["rows"],
        steps=state["steps"],
        tokens=state["tokens"],
        seconds=time.monotonic() - started,
        train_seconds=state["train_seconds"],
    )


def _share(step: int, gone: float) -> float:
    """The rate as a share of the highest: up over the first steps, level to half of the time, then down."""
    return min(1.0, (step + 1) / _WARMUP_STEPS) * max(_FINAL_RATE, min(1.0, 2 * (1 - gone)))


def _look(
    task: Task, decoder: Decoder, rows: int | None, limit: float | None, device: str, precision: str
) -> tuple[float, int]:
    """Mean held-out loss over the first `rows` rows (None: as many as `limit` seconds allow, at least two)."""
    started, total, divisor, seen = time.monotonic(), 0.0, 0, 0
    with torch.no_grad():
        for batch in task.held_out[:rows]:
            loss, count = task.accumulate(decoder, [batch], device=device, precision=precision, backward=False)
            total, divisor, seen = total + loss, divisor + count, seen + 1
            if limit is not None and seen >= 2 and time.monotonic() - started > limit:
                break
    return total / max(1, divisor), seen
