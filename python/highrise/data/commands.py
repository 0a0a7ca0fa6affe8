"""The commands of floor `data`, as data; each function is imported only when its command is called."""

from __future__ import annotations

from highrise.core.command import Argument, Command
from highrise.data.commands_curate import CURATE

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
                help="folders, git work trees, URLs and REPOSITORY@REVISION, archives, dumps, tables "
                '(also by a pattern), s3:// az:// gs:// addresses, or "stdlib" (default: . stdlib)',
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
        help="remove equal and nearly equal texts from Parquet or JSON lines, of any size",
        example="highrise data dedup crawl/ kept/ --memory 4G --threshold 0.8",
        run=f"{_CLI}:dedup",
        arguments=(
            Argument(
                names=("input",), help="a .parquet or .jsonl file with a text column, or a folder of them", metavar="IN"
            ),
            Argument(
                names=("output",),
                help="the kept rows, a file or a folder; OUT.clusters.parquet gets a label a row; a run that was "
                "killed goes on in OUT.dedup-work",
                metavar="OUT",
            ),
            Argument(names=("--column",), help="the text column", default="text", metavar="NAME"),
            Argument(
                names=("--memory",), help="to hold at most, about; the rest lies on disk", default="1G", metavar="SIZE"
            ),
            Argument(
                names=("--threshold",),
                help="Jaccard similarity from which two texts are one; 0 removes equal ones only",
                type=float,
                default=0.8,
                metavar="J",
            ),
            Argument(
                names=("--shingle",), help='what similarity counts: "5 words", "13 characters"', default="5 words"
            ),
            Argument(
                names=("--equal",),
                help="what equal texts share",
                choices=("bytes", "spaces", "words"),
                default="bytes",
            ),
            Argument(names=("--num-perm",), help="places of a signature", type=int, default=128, metavar="N"),
            Argument(
                names=("--verify",),
                help="how candidate pairs are compared",
                choices=("none", "estimate", "borderline", "exact"),
                default="borderline",
            ),
            Argument(
                names=("--slack",),
                help="how far below the threshold a text may be from the representative of its cluster; -1 joins "
                "whatever is connected",
                type=float,
                default=0.03,
                metavar="S",
            ),
            Argument(names=("--seed",), help="of the hash functions", type=int, default=0, metavar="N"),
            _THREADS,
            _JSON,
        ),
    ),
    Command(
        path=("data", "spans"),
        help="cut out spans that stood in the texts before, of Parquet or JSON lines",
        example="highrise data spans texts.parquet cut.parquet --min-bytes 200",
        run=f"{_CLI}:spans",
        arguments=(
            Argument(names=("input",), help="a .parquet or .jsonl file with a text column", metavar="IN"),
            Argument(
                names=("output",),
                help="the same rows; OUT.spans.parquet says what was cut, and where it stood",
                metavar="OUT",
            ),
            Argument(names=("--column",), help="the text column", default="text", metavar="NAME"),
            Argument(names=("--min-bytes",), help="the shortest span", type=int, default=100, metavar="N"),
            Argument(
                names=("--memory",), help="to hold at most, about; the rest lies on disk", default="1G", metavar="SIZE"
            ),
            _JSON,
        ),
    ),
    Command(
        path=("data", "lines"),
        help="cut out lines that stand in many texts, such as licence headers, of Parquet or JSON lines",
        example="highrise data lines texts.parquet cut.parquet --more-than 20",
        run=f"{_CLI}:lines",
        arguments=(
            Argument(names=("input",), help="a .parquet or .jsonl file with a text column", metavar="IN"),
            Argument(
                names=("output",),
                help="the same rows; OUT.lines.parquet has each line and in how many texts it stood",
                metavar="OUT",
            ),
            Argument(names=("--column",), help="the text column", default="text", metavar="NAME"),
            Argument(names=("--more-than",), help="texts a line may stand in", type=int, default=10, metavar="K"),
            Argument(names=("--min-bytes",), help="shorter lines stay", type=int, default=20, metavar="N"),
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
    *CURATE,
)
