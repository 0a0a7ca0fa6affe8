"""The commands of floor `data` on finished data folders, as data."""

from __future__ import annotations

from highrise.core.command import Argument, Command

__all__ = ["CURATE"]

_JSON = Argument(names=("--json",), help="print JSON for a program to read", flag=True)
_CLI = "highrise.data.cli_curate"

CURATE: tuple[Command, ...] = (
    Command(
        path=("data", "diff"),
        help="say what changed between two builds, file by file",
        example="highrise data diff old-data .highrise/data",
        run=f"{_CLI}:diff",
        arguments=(
            Argument(names=("first",), help="the earlier data folder", metavar="A"),
            Argument(names=("second",), help="the later data folder", metavar="B"),
            _JSON,
        ),
    ),
    Command(
        path=("data", "mix"),
        help="write a data folder in which sources are seen as often as weights and epochs say",
        example="highrise data mix .highrise/data mixed --weight stdlib=0.5 --temperature 2 --epochs 2",
        run=f"{_CLI}:mixture",
        arguments=(
            Argument(names=("folder",), help="a folder made by `highrise data build`", metavar="FOLDER"),
            Argument(names=("out",), help="the folder to write", metavar="OUT"),
            Argument(
                names=("--by",),
                help="what a group is (default: source)",
                choices=("source", "repository", "language", "license"),
            ),
            Argument(
                names=("--weight",),
                help="weights of groups; 0 leaves one out (default: 1)",
                nargs="+",
                metavar="NAME=W",
            ),
            Argument(
                names=("--temperature",), help="above 1 raises small groups (default: 1)", type=float, metavar="T"
            ),
            Argument(
                names=("--epochs",), help="size in sizes of the training side (default: 1)", type=float, metavar="N"
            ),
            Argument(
                names=("--max-epochs",), help="how often one document may be seen (default: 4)", type=float, metavar="N"
            ),
            Argument(
                names=("--order",),
                help="a curriculum: in each pass short texts first, or those of low quality (default: seed)",
                choices=("seed", "length", "quality"),
            ),
            Argument(names=("--seed",), help="of the draw and the order", type=int, metavar="N"),
            Argument(
                names=("--memory",),
                help="texts held at once; more go through files (default: 1G)",
                metavar="N",
            ),
            _JSON,
        ),
    ),
    Command(
        path=("data", "synthesise"),
        help="have a served model write records about the functions of a data folder",
        example="highrise data synthesise .highrise/data synthetic --model qwen2.5-coder-0.5b --count 500",
        run=f"{_CLI}:synthetic",
        arguments=(
            Argument(names=("folder",), help="a folder made by `highrise data build`", metavar="FOLDER"),
            Argument(
                names=("out",), help="the folder to write; OUT/synthetic.jsonl is a source for a build", metavar="OUT"
            ),
            Argument(names=("--url",), help="a server of the OpenAI protocol", default="http://127.0.0.1:8080/v1"),
            Argument(names=("--model",), help="the model's name there", required=True, metavar="NAME"),
            Argument(names=("--key-file",), help="a file that holds the server's key", metavar="FILE"),
            Argument(
                names=("--kinds",),
                help="code: a function from its docstring; question: one that a function answers (default: both)",
                choices=("code", "question"),
                nargs="+",
            ),
            Argument(names=("--count",), help="functions to ask about (default: 100)", type=int, metavar="N"),
            Argument(names=("--max-tokens",), help="of an answer (default: 512)", type=int, metavar="N"),
            Argument(names=("--temperature",), help="of the answers (default: 0.7)", type=float, metavar="T"),
            Argument(names=("--seed",), help="of the choice and the answers", type=int, metavar="N"),
            Argument(names=("--concurrency",), help="questions open at a time", type=int, default=4, metavar="N"),
            _JSON,
        ),
    ),
    Command(
        path=("data", "label"),
        help="write documents as Label Studio tasks for people to judge",
        example="highrise data label .highrise/data tasks.json --count 200 --worst",
        run=f"{_CLI}:label",
        arguments=(
            Argument(names=("folder",), help="a folder made by `highrise data build`", metavar="FOLDER"),
            Argument(names=("out",), help="the JSON file to write", metavar="OUT"),
            Argument(names=("--count",), help="how many", type=int, default=100, metavar="N"),
            Argument(names=("--worst",), help="the lowest quality scores instead of a sample", flag=True),
            Argument(names=("--seed",), help="of the sample", type=int, default=0, metavar="N"),
        ),
    ),
)
