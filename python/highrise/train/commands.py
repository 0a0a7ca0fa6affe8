"""The commands of floor `train`, as data; each function is imported only when its command is called."""

from __future__ import annotations

from highrise.core.command import Argument, Command

__all__ = ["COMMANDS"]

COMMANDS: tuple[Command, ...] = (
    Command(
        path=("train", "corpus"),
        help="Turn curated documents into packed token files, a share of them as fill-in-the-middle samples.",
        example="highrise train corpus .highrise/data --tokenizer .highrise/tokenizer --out tokens",
        run="highrise.train.cli:corpus",
        arguments=(
            Argument(names=("data",), help="folder made by `highrise data build`"),
            Argument(
                names=("--tokenizer",), required=True, help="folder with tokenizer.json, GGUF file or catalogue name"
            ),
            Argument(names=("--config",), metavar="CONFIG", help="TOML file with the keys of train"),
            Argument(names=("--out",), required=True, help="folder for the token files"),
        ),
    ),
    Command(
        path=("train", "run"),
        help="Train a decoder on packed token files; a killed run goes on where it stopped.",
        example="highrise train run --tokens tokens --depth 4 --budget '5 min' --out weights",
        run="highrise.train.cli:run",
        arguments=(
            Argument(names=("config",), nargs="?", metavar="CONFIG", help="TOML file with the keys of train"),
            Argument(names=("--tokens",), required=True, help="folder made by `highrise train corpus`"),
            Argument(names=("--out",), required=True, help="folder for the weights"),
            Argument(names=("--depth",), type=int, help="layers; every other size follows"),
            Argument(names=("--base",), help="weights to start from: catalogue name, GGUF file or folder"),
            Argument(names=("--budget",), help='time limit such as "5 min"'),
            Argument(names=("--threads",), type=int, help="threads torch may use"),
            Argument(names=("--json",), flag=True, help="print the counts as JSON"),
        ),
    ),
    Command(
        path=("train", "eval"),
        help="Bits per byte of a model on files: what it says of text it has not seen.",
        example="highrise train eval smollm2-135m src/*.py",
        run="highrise.train.cli:evaluate",
        arguments=(
            Argument(names=("model",), help="catalogue name, GGUF file or Hugging Face folder"),
            Argument(names=("files",), nargs="+", help="text files"),
            Argument(names=("--sequence",), type=int, default=512, help="tokens of a window (512)"),
            Argument(names=("--threads",), type=int, help="threads torch may use"),
            Argument(names=("--json",), flag=True, help="print the result as JSON"),
        ),
    ),
)
