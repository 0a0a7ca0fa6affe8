"""The table of `make bench`: ratios are ours over theirs, and only a peer is called one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

_SPEC = importlib.util.spec_from_file_location("report", Path(__file__).parents[1] / "bench" / "report.py")
assert _SPEC is not None and _SPEC.loader is not None
report = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(report)


def measured(path: str, who: str, seconds: float, **more: Any) -> dict[str, Any]:
    return {"extra_info": {"path": path, "who": who, "amount": 6, "unit": "MB", **more}, "stats": {"median": seconds}}


RUN = [
    measured("count", "slow peer", 3.0),
    measured("count", "highrise", 1.0, note="one thread"),
    measured("count", "highrise portable", 1.5),
    measured("count", "peer", 2.0),
    measured("alone", "highrise", 1.0),
    {"extra_info": {}, "stats": {"median": 1.0}},
]


def test_the_whole_table() -> None:
    lines = report.table(RUN)[2:]
    assert [line.split(" | ")[3] for line in lines] == ["", "", "1.50x", "2.00x", "3.00x"]
    assert lines[1].startswith("| count | highrise ") and lines[1].endswith("| 6 MB/s |  | one thread |")


def test_the_short_table_has_the_best_peer_of_each_path() -> None:
    assert report.short_table(RUN)[2:] == ["| count | 6 MB/s | peer, 3 MB/s | 2.00x | one thread |"]
