"""Prints one table from a pytest-benchmark file: each path, who ran it, the rate, and the ratio to ours.

usage: python bench/report.py .benchmarks/latest.json

A benchmark says what it measured in `extra_info`: path, who ("highrise" or the peer), amount and unit of a call.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

OURS = "highrise"


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def version_of(who: str) -> str:
    try:
        return f"{who} {importlib.metadata.version(who.split()[0])}"
    except importlib.metadata.PackageNotFoundError:
        return who


def rate_of(benchmark: dict[str, Any]) -> float:
    return float(benchmark["extra_info"]["amount"]) / float(benchmark["stats"]["median"])


def table(benchmarks: list[dict[str, Any]]) -> list[str]:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for benchmark in benchmarks:
        if "path" in benchmark.get("extra_info", {}):
            groups[benchmark["extra_info"]["path"]].append(benchmark)
    lines = ["| path | who | rate (median) | ours / theirs | notes |", "|---|---|---|---|---|"]
    for path in sorted(groups):
        ours = [rate_of(item) for item in groups[path] if item["extra_info"]["who"] == OURS]
        for item in sorted(groups[path], key=lambda item: (item["extra_info"]["who"] != OURS, -rate_of(item))):
            info = item["extra_info"]
            ratio = "" if info["who"] == OURS or not ours else f"{ours[0] / rate_of(item):.2f}x"
            note = str(info.get("isa", info.get("note", "")))
            lines.append(
                f"| {path} | {version_of(info['who'])} | {rate_of(item):,.4g} {info['unit']}/s | {ratio} | {note} |"
            )
    return lines


def main(path: str) -> None:
    measured = json.loads(Path(path).read_text())
    print(f"\n{measured['datetime'][:10]}, {cpu_name()}, Python {platform.python_version()}\n")
    print("\n".join(table(measured["benchmarks"])))


if __name__ == "__main__":
    main(sys.argv[1])
