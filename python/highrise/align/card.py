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
    skipped: str = ""
    outcome: Outcome | None = None
    kept: bool = False
    reason: str = ""


def write_card(out: Path, *, base: Path, machine: Machine, reports: Sequence[MethodReport], kept: bool) -> None:
    """Write CARD.md into `out`."""
    lines = [
        f"# Adapter for {base.name}" if kept else f"# No adapter for {base.name}",
        "",
        f"Tuned on {machine.cpu}, {machine.cores} cores."
        if any(report.outcome for report in reports)
        else "Nothing was tuned.",
        "",
        "| method | held-out loss | after | change | steps | tokens (planned) | tokens/s | time (budget) | kept |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for report in reports:
        lines.append(_row(report))
    lines.append("")
    for report in reports:
        lines += _details(report)
    lines += [
        "The held-out loss is the mean over answers drawn from documents that no method saw: files of the split",
        "`validation`, and own files held back where a language was short there. It says how well the weights predict",
        "such text, not that answers are right. Quantising the weights for serving is not part of the measurement.",
        "",
    ]
    with atomic_write(out / CARD) as file:
        file.write("\n".join(lines).encode())


def _row(report: MethodReport) -> str:
    outcome = report.outcome
    if outcome is None:
        return f"| {report.method} | - | - | - | 0 | 0 | - | - | skipped |"
    speed = outcome.tokens / outcome.train_seconds if outcome.train_seconds else 0.0
    return (
        f"| {report.method} | {outcome.before:.4f} | {outcome.after:.4f} | {_change(outcome.before, outcome.after)} | "
        f"{outcome.steps} | {outcome.tokens:,} ({outcome.planned_tokens:,}) | {speed:,.0f} | {outcome.seconds:.0f} s "
        f"({report.config['budget']}) | {'yes' if report.kept else 'no'} |"
    )


def _change(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.2f} %" if before else "-"


def _details(report: MethodReport) -> list[str]:
    if report.skipped:
        return [f"- {report.method} was skipped: {report.skipped}.", ""]
    assert report.outcome is not None
    settings = ", ".join(f"{key} = {value}" for key, value in report.config.items())
    lines = [
        f"- {report.method}: {report.reason}. Looked at {report.outcome.num_rows} held-out rows.",
        f"  Settings: {settings}.",
        "",
        "| held-out samples | number | tokens asked for | loss before | after | change | decides |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, kind in sorted(report.outcome.kinds.items()):
        lines.append(
            f"| {name} | {kind.num_samples} | {kind.num_targets:,} | {kind.before:.4f} | {kind.after:.4f} | "
            f"{_change(kind.before, kind.after)} | {'yes' if kind.judged else 'no'} |"
        )
    return [*lines, ""]
