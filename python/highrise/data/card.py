"""Floor 2, card: DATACARD.md and the counts of the manifest, both from the table of what became of every file.

Every file that a source listed appears in exactly one count. Knows nothing of how the decisions were made.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import msgspec
import pyarrow as pa

from highrise.core.files import atomic_write
from highrise.core.progress import human_bytes
from highrise.data.config import DataConfig
from highrise.data.duplicates import Duplicates
from highrise.data.filters import REASONS
from highrise.data.plots import bars, histogram
from highrise.data.sources import Source
from highrise.data.split import Split

__all__ = ["write_card"]

_EXAMPLES = 3


def write_card(
    out: Path,
    config: DataConfig,
    sources: list[Source],
    files: pa.Table,
    split: Split,
    duplicates: Duplicates,
    num_shards: int,
) -> dict[str, int | float | str]:
    """Write `out/DATACARD.md`; returns the counts for the manifest."""
    rows = files.drop_columns(["key", "sha256", "quality_parts"]).to_pylist()
    kept = [row for row in rows if row["reason"] == ""]
    dropped: dict[str, list[dict[str, object]]] = defaultdict(list)
    for row in rows:
        if row["reason"]:
            dropped[row["reason"]].append(row)
    redactions: Counter[str] = Counter()
    for row in rows:
        redactions.update(msgspec.json.decode(row["redactions"], type=dict[str, int]))
    counts = _counts(rows, kept, dropped, redactions, num_shards)
    text = "\n".join(
        [
            "# Data card",
            "",
            f"{len(kept)} of {len(rows)} files kept ({human_bytes(sum(row['size'] for row in kept))}), in {num_shards} "
            f"shard{'s' if num_shards > 1 else ''}.",
            "",
            *_sources(sources, rows),
            *_plots(out, rows, kept),
            *_dropped(dropped),
            *_duplicates(config, duplicates, {reason: len(rows) for reason, rows in dropped.items()}),
            *_contamination(config, rows),
            *_table("Licences", "licence", kept, "license"),
            *_table("Languages", "language", kept, "language"),
            *_split(split, kept, config),
            *_rest(rows, kept, redactions),
        ]
    )
    with atomic_write(out / "DATACARD.md") as file:
        file.write(text.encode())
    return counts


def _counts(
    rows: list[dict[str, object]],
    kept: list[dict[str, object]],
    dropped: dict[str, list[dict[str, object]]],
    redactions: Counter[str],
    num_shards: int,
) -> dict[str, int | float | str]:
    counts: dict[str, int | float | str] = {
        "files": len(rows),
        "documents": len(kept),
        "bytes": sum(int(str(row["size"])) for row in kept),
        "train": sum(row["split"] == "train" for row in kept),
        "validation": sum(row["split"] == "validation" for row in kept),
        "own": sum(bool(row["own"]) for row in kept),
        "dropped": len(rows) - len(kept),
        "redactions": sum(redactions.values()),
        "shards": num_shards,
    }
    for reason in REASONS:
        if reason in dropped:
            counts[f"dropped: {reason}"] = len(dropped[reason])
    return counts


def _plots(out: Path, rows: list[dict[str, object]], kept: list[dict[str, object]]) -> list[str]:
    """Write `plots/*.svg`; returns the lines that show them."""
    sizes = [float(str(row["size"])) for row in kept]
    scores = [float(str(row["quality"])) for row in kept]
    languages: Counter[str] = Counter()
    for row in kept:
        languages[str(row["language"])] += int(str(row["size"]))
    families = Counter(Counter(str(row["cluster"]) for row in rows if str(row["cluster"]) != "-1").values())
    groups = {"1": (1, 1), "2": (2, 2), "3 - 4": (3, 4), "5 - 9": (5, 9), "10 and more": (10, 10**9)}
    counted = [sum(n for size, n in families.items() if low <= size <= high) for low, high in groups.values()]
    top = languages.most_common(15)
    charts = {
        "length": histogram(
            "Documents by size in bytes", sizes, [0, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000]
        ),
        "language": bars("Bytes by language, in kB", [name for name, _ in top], [size / 1000 for _, size in top]),
        "duplicates": bars("Families of equal and nearly equal files, by members", list(groups), counted),
        "quality": histogram("Documents by quality score", scores, [n / 10 for n in range(10)], digits=1),
    }
    for name, chart in charts.items():
        with atomic_write(out / "plots" / f"{name}.svg") as file:
            file.write(chart.encode())
    return ["## Plots", "", *(f"![{name}](plots/{name}.svg)" for name in charts), ""]


def _sources(sources: list[Source], rows: list[dict[str, object]]) -> list[str]:
    lines = ["## Sources", "", "| source | repository | own | revision | files | kept |", "|---|---|---|---|---|---|"]
    for source in sources:
        mine = [row for row in rows if row["source"] == source.name]
        good = sum(row["reason"] == "" for row in mine)
        lines.append(
            f"| {_cell(source.name)} | {_cell(source.repository)} | {'yes' if source.own else 'no'} | "
            f"{source.head[:12] or 'none'} | {len(mine)} | {good} |"
        )
    return [*lines, ""]


def _dropped(dropped: dict[str, list[dict[str, object]]]) -> list[str]:
    lines = ["## Dropped", "", "| reason | files | what it means | for example |", "|---|---|---|---|"]
    for reason, meaning in REASONS.items():
        rows = dropped.get(reason, [])
        if rows:
            examples = "; ".join(
                f"`{_cell(row['path'])}`" + (f" ({_cell(row['detail'])})" if row["detail"] else "")
                for row in rows[:_EXAMPLES]
            )
            lines.append(f"| {reason} | {len(rows)} | {meaning} | {examples} |")
    if len(lines) == 4:
        return ["## Dropped", "", "Nothing.", ""]
    return [*lines, ""]


def _duplicates(config: DataConfig, duplicates: Duplicates, dropped: dict[str, int]) -> list[str]:
    stats = duplicates.statistics
    lines = [
        "## Duplicates",
        "",
        f"{dropped.get('duplicate', 0)} documents equal another, {dropped.get('near duplicate', 0)} nearly do"
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


def _contamination(config: DataConfig, rows: list[dict[str, object]]) -> list[str]:
    """Overlap with evaluation sets, a line a problem: the document that holds most of it."""
    if not config.evaluations:
        return []
    found: dict[str, list[tuple[float, str, bool]]] = defaultdict(list)
    for row in rows:
        problem, _, share = str(row["contamination"]).rpartition(" ")
        if problem:
            name = f"{row['repository']}/{row['path']}"
            found[problem].append((float(share), name, row["reason"] == "contaminated"))
    least = config.cleaning.max_contamination / 3
    worst = sorted(((max(hits), problem, hits) for problem, hits in found.items()), reverse=True)
    lines = [
        "## Contamination",
        "",
        f"Compared with {', '.join(config.evaluations)} by word 10-grams. {len(found)} problems share a piece with "
        "some document, "
        f"{sum(hit[0] >= least for hit, _, _ in worst)} at least {least:.0%} of theirs. Dropped from "
        f"{config.cleaning.max_contamination:.0%} on.",
        "",
        "| problem | documents | dropped | largest share | in |",
        "|---|---|---|---|---|",
    ]
    for (largest, name, _), problem, hits in worst[:20]:
        dropped = sum(hit[2] for hit in hits)
        lines.append(f"| {_cell(problem)} | {len(hits)} | {dropped} | {largest:.1%} | `{_cell(name)}` |")
    return [*lines, ""]


def _table(title: str, head: str, rows: list[dict[str, object]], column: str) -> list[str]:
    number: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for row in rows:
        number[str(row[column])] += 1
        size[str(row[column])] += int(str(row["size"]))
    lines = [f"## {title}", "", f"| {head} | documents | bytes |", "|---|---|---|"]
    lines += [f"| {_cell(name)} | {count} | {human_bytes(size[name])} |" for name, count in number.most_common()]
    return [*lines, ""]


def _split(split: Split, kept: list[dict[str, object]], config: DataConfig) -> list[str]:
    train = sum(row["split"] == "train" for row in kept)
    lines = [
        "## Split",
        "",
        f"{train} documents to train on, {len(kept) - train} held out (share asked for: {config.validation}).",
    ]
    lines += [f"- {label} documents are held out by whole {level}" for label, level in split.levels.items()]
    if len(kept) == train:
        lines.append("Nothing is held out: there are too few documents, or the share is 0.")
    return [*lines, ""]


def _rest(rows: list[dict[str, object]], kept: list[dict[str, object]], redactions: Counter[str]) -> list[str]:
    odd = Counter(str(row["encoding"]) for row in rows if row["encoding"] not in ("", "utf-8"))
    scores = sorted(float(str(row["quality"])) for row in kept)
    lines = ["## Secrets, encodings, quality", ""]
    found = ", ".join(f"{count} {kind}" for kind, count in redactions.most_common())
    lines.append(f"- secrets replaced by placeholders: {found or 'none'}")
    lines.append(f"- files not in UTF-8: {', '.join(f'{count} {name}' for name, count in odd.most_common()) or 'none'}")
    if scores:
        tenth, half, last = (scores[int(share * (len(scores) - 1))] for share in (0.1, 0.5, 0.9))
        lines.append(f"- quality score: 10 % below {tenth:.2f}, half below {half:.2f}, 90 % below {last:.2f}")
    return [*lines, ""]


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ").replace("`", "'")[:120]
