"""Floor 2, card: DATACARD.md and the counts of the manifest, both from the tables of what became of every file.

Tables come one after another and only counts are kept of them. Every file that a source listed appears in exactly one
count. Knows nothing of how the decisions were made.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from highrise.core.files import atomic_write
from highrise.core.progress import human_bytes
from highrise.data.arrays import scalar, values
from highrise.data.config import DataConfig
from highrise.data.decide import Fates
from highrise.data.filters import REASONS
from highrise.data.plots import bars, histogram
from highrise.data.sources import Source

__all__ = ["Tally", "write_card"]

_EXAMPLES = 3
_LENGTHS = (0, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)
_FAMILIES = {"1": (1, 1), "2": (2, 2), "3 - 4": (3, 4), "5 - 9": (5, 9), "10 and more": (10, 1 << 62)}
_SCORES = 1_001
"""Scores are rounded to three places, so their counts say everything."""


class _Problem:
    """The documents that hold a piece of one problem: how many, how many dropped, and the largest share."""

    __slots__ = ("documents", "dropped", "worst")

    def __init__(self) -> None:
        self.documents = self.dropped = 0
        self.worst = (-1.0, "")

    def add(self, share: float, name: str, *, dropped: bool) -> None:
        self.documents += 1
        self.dropped += dropped
        self.worst = max(self.worst, (share, name))


class Tally:
    """What the card says of the files, counted table by table; `num_records` bounds the labels of clusters."""

    def __init__(self, num_records: int) -> None:
        self.files = self.kept = self.kept_bytes = self.own = 0
        self.by_reason: Counter[str] = Counter()
        self.examples: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self.by_split: Counter[str] = Counter()
        self.by_source: Counter[str] = Counter()
        self.kept_by_source: Counter[str] = Counter()
        self.documents: dict[str, Counter[str]] = {"language": Counter(), "license": Counter()}
        self.bytes: dict[str, Counter[str]] = {"language": Counter(), "license": Counter()}
        self.redactions: Counter[str] = Counter()
        self.encodings: Counter[str] = Counter()
        self.problems: dict[str, _Problem] = defaultdict(_Problem)
        self.lengths = np.zeros(len(_LENGTHS), dtype=np.int64)
        self.scores = np.zeros(_SCORES, dtype=np.int64)
        self._families = np.zeros(num_records, dtype=np.int32)

    def add(self, files: pa.Table) -> None:
        """Count the rows of a table of `files.FILES_SCHEMA`."""
        self.files += len(files)
        reasons = _counts(files, "reason")
        self.by_reason.update({reason: count for reason, count in reasons.items() if reason})
        for reason in reasons:
            if reason and (missing := _EXAMPLES - len(self.examples[reason])) > 0:
                rows = files.filter(pc.equal(files.column("reason"), scalar(reason))).slice(0, missing)
                self.examples[reason] += zip(
                    *(rows.column(name).to_pylist() for name in ("path", "detail")), strict=True
                )
        self.by_source.update(_counts(files, "source"))
        for found, count in _counts(files, "redactions").items():
            kinds = msgspec.json.decode(found, type=dict[str, int])
            self.redactions.update({kind: number * count for kind, number in kinds.items()})
        self.encodings.update(_counts(files, "encoding"))
        clusters = values(files.column("cluster"))
        np.add.at(self._families, clusters[clusters >= 0], 1)
        touched = files.filter(pc.not_equal(files.column("contamination"), scalar("")))
        for row in touched.select(["repository", "path", "reason", "contamination"]).to_pylist():
            problem, _, share = row["contamination"].rpartition(" ")
            name = f"{row['repository']}/{row['path']}"
            self.problems[problem].add(float(share), name, dropped=row["reason"] == "contaminated")
        self._add_kept(files.filter(pc.equal(files.column("reason"), scalar(""))))

    def _add_kept(self, kept: pa.Table) -> None:
        sizes = values(kept.column("size"))
        self.kept += len(kept)
        self.kept_bytes += int(sizes.sum())
        self.own += int(np.count_nonzero(values(kept.column("own"))))
        self.by_split.update(_counts(kept, "split"))
        self.kept_by_source.update(_counts(kept, "source"))
        for name in self.documents:
            groups = kept.column(name).combine_chunks().dictionary_encode()
            numbers = values(groups.indices)
            names = groups.dictionary.to_pylist()
            self.documents[name].update(
                dict(zip(names, np.bincount(numbers, minlength=len(names)).tolist(), strict=True))
            )
            sums = np.bincount(numbers, weights=sizes, minlength=len(names)).astype(np.int64)
            self.bytes[name].update(dict(zip(names, sums.tolist(), strict=True)))
        self.lengths += np.histogram(sizes, bins=[*_LENGTHS, np.inf])[0]
        scores = np.rint(values(kept.column("quality")) * (_SCORES - 1)).astype(np.int64)
        self.scores += np.bincount(scores, minlength=_SCORES)

    def families(self) -> list[int]:
        """How many families of equal and nearly equal files have as many members as each key of `_FAMILIES` says."""
        return [
            int(np.count_nonzero((self._families >= low) & (self._families <= high)))
            for low, high in _FAMILIES.values()
        ]

    def score_at(self, share: float) -> float:
        """The score below which this share of the kept documents lies."""
        place = int(share * (self.kept - 1))
        return float(np.searchsorted(np.cumsum(self.scores), place, side="right")) / (_SCORES - 1)

    def reasons(self) -> str:
        """Why files were dropped, the most frequent reason first."""
        return ", ".join(f"{count} {reason}" for reason, count in self.by_reason.most_common())


def _counts(table: pa.Table, column: str) -> dict[str, int]:
    found: Any = table.column(column).value_counts().to_pylist()
    return {row["values"]: row["counts"] for row in found}


def write_card(
    out: Path, config: DataConfig, sources: list[Source], tally: Tally, fates: Fates, num_shards: int
) -> dict[str, int | float | str]:
    """Write `out/DATACARD.md`; returns the counts for the manifest."""
    text = "\n".join(
        [
            "# Data card",
            "",
            f"{tally.kept} of {tally.files} files kept ({human_bytes(tally.kept_bytes)}), in {num_shards} "
            f"shard{'s' if num_shards > 1 else ''}.",
            "",
            *_sources(sources, tally),
            *_plots(out, tally),
            *_dropped(tally),
            *_duplicates(config, fates.statistics, tally.by_reason),
            *_contamination(config, tally),
            *_table("Licences", "licence", tally, "license"),
            *_table("Languages", "language", tally, "language"),
            *_split(fates.levels, tally, config),
            *_rest(tally),
        ]
    )
    with atomic_write(out / "DATACARD.md") as file:
        file.write(text.encode())
    counts: dict[str, int | float | str] = {
        "files": tally.files,
        "documents": tally.kept,
        "bytes": tally.kept_bytes,
        "train": tally.by_split["train"],
        "validation": tally.by_split["validation"],
        "own": tally.own,
        "dropped": tally.files - tally.kept,
        "redactions": sum(tally.redactions.values()),
        "shards": num_shards,
    }
    return counts | {f"dropped: {reason}": tally.by_reason[reason] for reason in REASONS if tally.by_reason[reason]}


def _plots(out: Path, tally: Tally) -> list[str]:
    """Write `plots/*.svg`; returns the lines that show them."""
    top = tally.bytes["language"].most_common(15)
    tenths = [*tally.scores[:1000].reshape(10, 100).sum(axis=1)]
    tenths[-1] += tally.scores[1000]
    charts = {
        "length": histogram("Documents by size in bytes", tally.lengths.tolist(), _LENGTHS),
        "language": bars("Bytes by language, in kB", [name for name, _ in top], [size / 1000 for _, size in top]),
        "duplicates": bars("Families of equal and nearly equal files, by members", list(_FAMILIES), tally.families()),
        "quality": histogram("Documents by quality score", tenths, [n / 10 for n in range(10)], digits=1),
    }
    for name, chart in charts.items():
        with atomic_write(out / "plots" / f"{name}.svg") as file:
            file.write(chart.encode())
    return ["## Plots", "", *(f"![{name}](plots/{name}.svg)" for name in charts), ""]


def _sources(sources: list[Source], tally: Tally) -> list[str]:
    lines = ["## Sources", "", "| source | repository | own | revision | files | kept |", "|---|---|---|---|---|---|"]
    for source in sources:
        lines.append(
            f"| {_cell(source.name)} | {_cell(source.repository)} | {'yes' if source.own else 'no'} | "
            f"{source.head[:12] or 'none'} | {tally.by_source[source.name]} | {tally.kept_by_source[source.name]} |"
        )
    return [*lines, ""]


def _dropped(tally: Tally) -> list[str]:
    lines = ["## Dropped", "", "| reason | files | what it means | for example |", "|---|---|---|---|"]
    for reason, meaning in REASONS.items():
        if tally.by_reason[reason]:
            examples = "; ".join(
                f"`{_cell(path)}`" + (f" ({_cell(detail)})" if detail else "")
                for path, detail in tally.examples[reason]
            )
            lines.append(f"| {reason} | {tally.by_reason[reason]} | {meaning} | {examples} |")
    if len(lines) == 4:
        return ["## Dropped", "", "Nothing.", ""]
    return [*lines, ""]


def _duplicates(config: DataConfig, stats: dict[str, int], dropped: Counter[str]) -> list[str]:
    lines = [
        "## Duplicates",
        "",
        f"{dropped['duplicate']} documents equal another, {dropped['near duplicate']} nearly do"
        + (
            f" (Jaccard of word 5-grams at least {config.near_duplicate})."
            if config.near_duplicate
            else " (not looked for)."
        ),
        "The team's own document is kept before reference material, then the better score, then the first path.",
    ]
    if config.near_duplicate:
        lines.append(
            f"{stats['candidate_pairs']} candidate pairs from {stats['bands']} bands of {stats['rows']} rows; "
            f"{stats['exact_checks']} borderline ones were compared exactly."
        )
    return [*lines, ""]


def _contamination(config: DataConfig, tally: Tally) -> list[str]:
    """Overlap with evaluation sets, a line a problem: the document that holds most of it."""
    if not config.evaluations:
        return []
    least = config.cleaning.max_contamination / 3
    worst = sorted(((found.worst, problem) for problem, found in tally.problems.items()), reverse=True)
    lines = [
        "## Contamination",
        "",
        f"Compared with {', '.join(config.evaluations)} by word 10-grams. {len(worst)} problems share a piece with "
        "some document, "
        f"{sum(share >= least for (share, _), _ in worst)} at least {least:.0%} of theirs. Dropped from "
        f"{config.cleaning.max_contamination:.0%} on.",
        "",
        "| problem | documents | dropped | largest share | in |",
        "|---|---|---|---|---|",
    ]
    for (share, name), problem in worst[:20]:
        found = tally.problems[problem]
        lines.append(f"| {_cell(problem)} | {found.documents} | {found.dropped} | {share:.1%} | `{_cell(name)}` |")
    return [*lines, ""]


def _table(title: str, head: str, tally: Tally, column: str) -> list[str]:
    lines = [f"## {title}", "", f"| {head} | documents | bytes |", "|---|---|---|"]
    for name, count in tally.documents[column].most_common():
        lines.append(f"| {_cell(name)} | {count} | {human_bytes(tally.bytes[column][name])} |")
    return [*lines, ""]


def _split(levels: dict[str, str], tally: Tally, config: DataConfig) -> list[str]:
    train = tally.by_split["train"]
    lines = [
        "## Split",
        "",
        f"{train} documents to train on, {tally.kept - train} held out (share asked for: {config.validation}).",
    ]
    lines += [f"- {label} documents are held out by whole {level}" for label, level in levels.items()]
    if tally.kept == train:
        lines.append("Nothing is held out: there are too few documents, or the share is 0.")
    return [*lines, ""]


def _rest(tally: Tally) -> list[str]:
    odd = [(name, count) for name, count in tally.encodings.most_common() if name not in ("", "utf-8")]
    found = ", ".join(f"{count} {kind}" for kind, count in tally.redactions.most_common())
    lines = ["## Secrets, encodings, quality", ""]
    lines.append(f"- secrets replaced by placeholders: {found or 'none'}")
    lines.append(f"- files not in UTF-8: {', '.join(f'{count} {name}' for name, count in odd) or 'none'}")
    if tally.kept:
        tenth, half, last = map(tally.score_at, (0.1, 0.5, 0.9))
        lines.append(f"- quality score: 10 % below {tenth:.2f}, half below {half:.2f}, 90 % below {last:.2f}")
    return [*lines, ""]


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ").replace("`", "'")[:120]
