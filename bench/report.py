"""Prints one table from pytest-benchmark files: each path, who ran it, the rate, and the ratio to ours.

usage: python bench/report.py [--short] .benchmarks/latest.json ...

With --short a path takes one line: ours beside its best peer. A benchmark says what it measured in `extra_info`: path,
who ("highrise" or the peer), amount and unit of a call.
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


def by_path(benchmarks: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The benchmarks of each path, ours first, then the fastest first."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for benchmark in benchmarks:
        if "path" in benchmark.get("extra_info", {}):
            groups[benchmark["extra_info"]["path"]].append(benchmark)
    for group in groups.values():
        group.sort(key=lambda item: (item["extra_info"]["who"] != OURS, -rate_of(item)))
    return dict(sorted(groups.items()))


def said(item: dict[str, Any]) -> str:
    return f"{rate_of(item):,.4g} {item['extra_info']['unit']}/s"


def note_of(item: dict[str, Any]) -> str:
    return str(item["extra_info"].get("isa", item["extra_info"].get("note", "")))


def table(benchmarks: list[dict[str, Any]]) -> list[str]:
    lines = ["| path | who | rate (median) | ours / theirs | notes |", "|---|---|---|---|---|"]
    for path, group in by_path(benchmarks).items():
        ours = [rate_of(item) for item in group if item["extra_info"]["who"] == OURS]
        for item in group:
            who = item["extra_info"]["who"]
            ratio = "" if who == OURS or not ours else f"{ours[0] / rate_of(item):.2f}x"
            lines.append(f"| {path} | {version_of(who)} | {said(item)} | {ratio} | {note_of(item)} |")
    return lines


def short_table(benchmarks: list[dict[str, Any]]) -> list[str]:
    """Ours beside the fastest peer; paths without a peer are left out, and other settings of ours are no peers."""
    lines = ["| path | Highrise | the best peer | ours / theirs | notes |", "|---|---|---|---|---|"]
    for path, group in by_path(benchmarks).items():
        ours = [item for item in group if item["extra_info"]["who"] == OURS]
        peers = [item for item in group if not item["extra_info"]["who"].startswith(OURS)]
        if ours and peers:
            best = f"{version_of(peers[0]['extra_info']['who'])}, {said(peers[0])}"
            ratio = rate_of(ours[0]) / rate_of(peers[0])
            lines.append(f"| {path} | {said(ours[0])} | {best} | {ratio:.2f}x | {note_of(ours[0])} |")
    return lines


def main(arguments: list[str]) -> None:
    paths = [Path(one) for one in arguments if one != "--short"]
    files = [json.loads(path.read_text()) for path in paths]
    benchmarks = [benchmark for file in files for benchmark in file["benchmarks"]]
    lines = short_table(benchmarks) if "--short" in arguments else table(benchmarks)
    print(f"\n{min(file['datetime'] for file in files)[:10]}, {cpu_name()}, Python {platform.python_version()}\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
