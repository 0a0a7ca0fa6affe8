"""Floor 5, card: what tuning did, for people: losses before and after, what was kept, what was skipped, and why.

Knows nothing of torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from highrise.align.outcome import Outcome
from highrise.compute.machine import Machine
from highrise.core.files import atomic_write

__all__ = ["CARD", "MethodReport", "write_card"]

CARD = "CARD.md"


class MethodReport(msgspec.Struct, kw_only=True):
    """One method: what was planned, and what came of it."""

    method: str
    config: dict[str, object]
    planned_tokens: int
    skipped: str = ""
    outcome: Outcome | None = None
    kept: bool = False


def write_card(out: Path, *, base: Path, machine: Machine, reports: Sequence[MethodReport], kept: bool) -> None:
    """Write CARD.md into `out`."""
    lines = [
        f"# Adapter for {base.name}" if kept else f"# No adapter for {base.name}",
        "",
        f"Tuned on {machine.cpu}, {machine.cores} cores."
        if any(report.outcome for report in reports)
        else "Nothing was tuned.",
        "",
        "| method | held-out loss before | after | change | steps | tokens | tokens/s | time | kept |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for report in reports:
        lines.append(_row(report))
    lines.append("")
    for report in reports:
        lines += _details(report)
    lines += [
        "The held-out loss is the mean over answers drawn from documents of the split `validation`, which no method",
        "saw. It says how well the weights predict such code, not that answers are right. Quantising the weights for",
        "serving is not part of the measurement.",
        "",
    ]
    with atomic_write(out / CARD) as file:
        file.write("\n".join(lines).encode())


def _row(report: MethodReport) -> str:
    outcome = report.outcome
    if outcome is None:
        return f"| {report.method} | - | - | - | 0 | 0 | - | - | skipped |"
    change = 100 * (outcome.after / outcome.before - 1) if outcome.before else 0.0
    speed = outcome.tokens / outcome.train_seconds if outcome.train_seconds else 0.0
    return (
        f"| {report.method} | {outcome.before:.4f} | {outcome.after:.4f} | {change:+.2f} % | {outcome.steps} | "
        f"{outcome.tokens:,} | {speed:,.0f} | {outcome.seconds:.0f} s | {'yes' if report.kept else 'no'} |"
    )


def _details(report: MethodReport) -> list[str]:
    if report.skipped:
        return [f"- {report.method} was skipped: {report.skipped}.", ""]
    assert report.outcome is not None
    settings = ", ".join(f"{key} = {value}" for key, value in report.config.items())
    verdict = (
        "the loss fell, so the change is kept"
        if report.kept
        else "the loss did not fall, so the weights stay as they were"
    )
    return [
        f"- {report.method}: {verdict}. Looked at {report.outcome.num_rows} held-out rows; the planner expected "
        f"{report.planned_tokens:,} tokens.",
        f"  Settings: {settings}.",
        "",
    ]
