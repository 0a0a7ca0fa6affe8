"""Floor 2, plots: horizontal bars as SVG, written by hand so that a data card needs no plotting library.

Knows nothing of what is counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from xml.sax.saxutils import escape

__all__ = ["bars", "histogram"]

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 640, 150, 90, 22, 40


def bars(title: str, labels: Sequence[str], values: Sequence[float], *, unit: str = "") -> str:
    """An SVG with one bar a label, in the given order; the longest bar fills the width."""
    height = _TOP + _ROW * len(labels) + 10
    most = max([float(value) for value in values], default=0.0) or 1.0
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="10" y="22" font-size="15">{escape(title)}</text>',
    ]
    for row, (label, value) in enumerate(zip(labels, values, strict=True)):
        y = _TOP + row * _ROW
        length = (_WIDTH - _LEFT - _RIGHT) * float(value) / most
        lines += [
            f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(label[:24])}</text>',
            f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_ROW - 5}" fill="#3b6ea5"/>',
            f'<text x="{_LEFT + length + 6:.1f}" y="{y + 13}">{value:,.0f}{escape(unit)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def histogram(title: str, counts: Sequence[int], edges: Sequence[float], *, digits: int = 0) -> str:
    """Bars of how many values lie from one edge to the next; the last is open upward."""
    names = [f"{low:,.{digits}f} - {high:,.{digits}f}" for low, high in itertools.pairwise(edges)]
    return bars(title, [*names, f"{edges[-1]:,.{digits}f} and more"], [int(count) for count in counts])
