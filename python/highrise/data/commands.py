"""The commands of floor `data`, as data; each function is imported only when its command is called."""

from __future__ import annotations

from highrise.core.command import Argument, Command

__all__ = ["COMMANDS"]

_DATA = Argument(
    names=("--data",), help="a folder made by `highrise data build`", default=".highrise/data", metavar="FOLDER"
)
_JSON = Argument(names=("--json",), help="print JSON for a program to read", flag=True)
_THREADS = Argument(names=("--threads",), help="how many to use (default: every core)", type=int, metavar="N")
_CLI = "highrise.data.cli"

COMMANDS: tuple[Command, ...] = (
    Command(
        path=("data", "build"),
        help="read sources, clean, screen and de-duplicate them, and write Parquet with a data card",
        example="highrise data build . stdlib --out .highrise/data --near-duplicate 0.8",
        run=f"{_CLI}:build",
        arguments=(
            Argument(
                names=("sources",),
                help='folders, git work trees, git URLs, or "stdlib" (default: . stdlib)',
                nargs="*",
                metavar="SOURCES",
            ),
            Argument(names=("--out",), help="the folder to write", default=".highrise/data", metavar="FOLDER"),
            Argument(names=("--config",), help="a TOML file with the keys of DataConfig", metavar="FILE"),
            Argument(
                names=("--near-duplicate",),
                help="similarity from which two documents are one; 0 switches it off (default: 0.8)",
                type=float,
                metavar="J",
            ),
            Argument(
                names=("--include",), help="patterns as in .gitignore of files to take", nargs="+", metavar="PATTERN"
            ),
            Argument(
                names=("--exclude",), help="patterns as in .gitignore of files to leave", nargs="+", metavar="PATTERN"
            ),
            Argument(
                names=("--licenses",),
                help="SPDX identifiers that reference material may have (default: any)",
                nargs="+",
                metavar="SPDX",
            ),
            Argument(names=("--max-file-bytes",), help="larger files are dropped", type=int, metavar="N"),
            Argument(names=("--validation",), help="share of the documents to hold out", type=float, metavar="SHARE"),
            Argument(names=("--seed",), help="of the split and the hash functions", type=int, metavar="N"),
            Argument(names=("--refresh",), help="clone git URLs again", flag=True),
            _THREADS,
            _JSON,
        ),
    ),
    Command(
        path=("data", "dedup"),
        help="remove equal and nearly equal texts from a Parquet or JSONL file (in memory)",
        example="highrise data dedup texts.parquet kept.parquet --threshold 0.8",
        run=f"{_CLI}:dedup",
        arguments=(
            Argument(names=("input",), help="a .parquet or .jsonl file with a text column", metavar="IN"),
            Argument(names=("output",), help="the kept rows; OUT.clusters.parquet gets a label a row", metavar="OUT"),
            Argument(names=("--column",), help="the text column", default="text", metavar="NAME"),
            Argument(
                names=("--threshold",), help="Jaccard similarity of word 5-grams", type=float, default=0.8, metavar="J"
            ),
            Argument(names=("--num-perm",), help="places of a signature", type=int, default=128, metavar="N"),
            Argument(
                names=("--verify",),
                help="which candidate pairs are compared exactly",
                choices=("estimate", "borderline", "exact"),
                default="borderline",
            ),
            Argument(names=("--seed",), help="of the hash functions", type=int, default=0, metavar="N"),
            _THREADS,
            _JSON,
        ),
    ),
    Command(
        path=("data", "inspect"),
        help="show what a data folder holds: counts, drop reasons, a sample",
        example="highrise data inspect .highrise/data --sample 5",
        run=f"{_CLI}:inspect",
        arguments=(
            Argument(names=("folder",), help="a folder made by `highrise data build`", metavar="FOLDER"),
            Argument(names=("--sample",), help="documents to show", type=int, default=3, metavar="N"),
            _JSON,
        ),
    ),
    Command(
        path=("data", "why"),
        help="say what happened to one file and why",
        example="highrise data why src/generated.py --data .highrise/data",
        run=f"{_CLI}:why",
        arguments=(Argument(names=("path",), help="the file, or the end of its path", metavar="PATH"), _DATA, _JSON),
    ),
)
