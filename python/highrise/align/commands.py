"""The commands of floor `align`, as data; each function is imported only when its command is called."""

from __future__ import annotations

from highrise.core.command import Argument, Command

__all__ = ["COMMANDS"]

COMMANDS: tuple[Command, ...] = (
    Command(
        path=("align", "tune"),
        help="Tune an adapter on curated documents within a time budget; it is kept only if held-out loss falls.",
        example="highrise align tune qwen2.5-coder-0.5b --data .highrise/data --budget '3 min' --out tuned",
        run="highrise.align.cli:tune",
        arguments=(
            Argument(names=("base",), help="catalogue name, GGUF file or Hugging Face folder"),
            Argument(names=("--data",), required=True, help="folder made by `highrise data build`"),
            Argument(names=("--out",), required=True, help="folder for the adapter and its card"),
            Argument(
                names=("--config",), metavar="CONFIG", help="TOML file with [[align]] tables, as in assistant.toml"
            ),
            Argument(names=("--method",), help="sft (default) or dpo, when there is no --config"),
            Argument(names=("--budget",), help='time limit such as "3 min", when there is no --config'),
            Argument(names=("--feedback",), help="JSON Lines file of pairs for dpo, when there is no --config"),
            Argument(names=("--json",), flag=True, help="print the counts as JSON"),
        ),
    ),
    Command(
        path=("align", "merge"),
        help="Add an adapter to its base weights and write a Hugging Face folder.",
        example="highrise align merge qwen2.5-coder-0.5b tuned/adapter --out merged",
        run="highrise.align.cli:merge",
        arguments=(
            Argument(names=("base",), help="catalogue name, GGUF file or Hugging Face folder"),
            Argument(names=("adapter",), help="adapter folder in PEFT's format"),
            Argument(names=("--out",), required=True, help="folder for the merged weights"),
            Argument(
                names=("--dtype",),
                choices=("float32", "bfloat16"),
                default="bfloat16",
                help="type of the weights (bfloat16; float32 is twice as large and rounds nothing)",
            ),
        ),
    ),
    Command(
        path=("align", "guard"),
        help="Check a text against the guardrails; leaves with 1 when one speaks against it.",
        example="highrise align guard answer.md",
        run="highrise.align.cli_guard:guard",
        arguments=(
            Argument(names=("file",), help="text file, or - for standard input"),
            Argument(
                names=("--direction",),
                choices=("in", "out"),
                default="out",
                help="in: what goes to the model (secrets only); out: what it answers (default)",
            ),
            Argument(names=("--json",), flag=True, help="print the findings as JSON"),
        ),
    ),
)
