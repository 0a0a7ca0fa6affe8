"""Floor 6, load plot: latencies over the request rate as one SVG file, written by hand. Knows no load."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from highrise.serve.load import PERCENTILES, Report

__all__ = ["plot"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 420, 260, 56, 40, 28
_COLOURS = ("#2b6cb0", "#dd6b20", "#c53030")


def plot(reports: Sequence[Report], title: str) -> str:
    """Time to the first token, time between tokens and tokens a second, side by side."""
    charts: list[tuple[str, Sequence[Sequence[float]]]] = [
        ("first token, ms", [report.first_ms.get("all", (0.0,) * len(PERCENTILES)) for report in reports]),
        ("between tokens, ms", [report.gap_ms for report in reports]),
        ("tokens a second", [(report.tokens_per_second,) for report in reports]),
    ]
    names = ["all at once" if report.rate is None else f"{report.rate:g}/s" for report in reports]
    body = "".join(
        f'<g transform="translate({index * _WIDTH} 24)">{_chart(name, values, names)}</g>'
        for index, (name, values) in enumerate(charts)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{3 * _WIDTH}" height="{_HEIGHT + 24}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="8" y="16" font-size="13">{escape(title)}</text>{body}</svg>\n'
    )


def _chart(name: str, values: Sequence[Sequence[float]], names: Sequence[str]) -> str:
    highest = max((value for row in values for value in row), default=0.0) or 1.0
    step = (_WIDTH - _LEFT - 20) / max(len(values), 1)

    def place(index: int, value: float) -> tuple[float, float]:
        return _LEFT + step * (index + 0.5), _HEIGHT - _BOTTOM - value / highest * (_HEIGHT - _BOTTOM - _TOP)

    parts = [f'<text x="{_LEFT}" y="16" font-weight="bold">{escape(name)}</text>']
    for share in (0, 0.5, 1):
        _, y = place(0, share * highest)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - 16}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share * highest:,.4g}</text>')
    for index, label in enumerate(names):
        x, _ = place(index, 0)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{escape(label)}</text>')
    many = len(values[0]) > 1 if values else False
    for line in range(len(values[0]) if values else 0):
        points = [place(index, row[line]) for index, row in enumerate(values)]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{joined}" fill="none" stroke="{_COLOURS[line]}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{_COLOURS[line]}"/>' for x, y in points]
        if many:
            parts.append(
                f'<text x="{_WIDTH - 120 + 40 * line}" y="16" fill="{_COLOURS[line]}">p{PERCENTILES[line]}</text>'
            )
    return "".join(parts)
