"""Floor 4, chart: the loss curve of a run as a PNG, drawn from its metrics file. Knows nothing of training."""

from __future__ import annotations

from pathlib import Path

import msgspec

from highrise.core.files import atomic_write

__all__ = ["draw_losses", "read_metrics"]


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a metrics file, one dict a step; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    return [msgspec.json.decode(line, type=dict[str, float]) for line in lines[:-1]]


def draw_losses(metrics: list[dict[str, float]], path: Path, *, title: str) -> None:
    """Loss over tokens (left axis, with a running mean) and learning rate (right axis)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    tokens = [line["tokens"] for line in metrics]
    losses = [line["loss"] for line in metrics]
    axis.plot(tokens, losses, color="0.8", linewidth=0.8, label="step")
    axis.plot(tokens, _running_mean(losses), color="tab:blue", linewidth=1.6, label="running mean")
    axis.set(xlabel="tokens", ylabel="loss, nats a token", title=title)
    axis.grid(alpha=0.3)
    rates = axis.twinx()
    rates.plot(tokens, [line["rate"] for line in metrics], color="tab:orange", linewidth=0.8, linestyle="--")
    rates.set_ylabel("learning rate (dashed)")
    axis.legend(loc="upper right")
    with atomic_write(path) as file:
        canvas.print_png(file)  # type: ignore[no-untyped-call]


def _running_mean(values: list[float]) -> list[float]:
    mean, out = 0.0, []
    keep = max(1, len(values) // 40)
    for index, value in enumerate(values):
        share = max(1 / keep, 1 / (index + 1))
        mean += (value - mean) * share
        out.append(mean)
    return out
