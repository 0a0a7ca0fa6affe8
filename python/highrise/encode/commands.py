"""The commands of floor `encode`, as data; each function is imported only when its command is called."""

from __future__ import annotations

from highrise.core.command import Argument, Command
from highrise.encode.commands_index import COMMANDS as INDEX_COMMANDS

__all__ = ["COMMANDS", "TOKENIZER_COMMANDS"]

_MODEL = Argument(
    names=("--tokenizer", "-t"),
    help="a catalogue model, an encoding of tiktoken (cl100k_base ...), or any vocabulary file or folder of one",
    default="qwen2.5-coder-0.5b",
    metavar="MODEL",
)
_FILES = Argument(names=("files",), help="text files, or - for standard input", nargs="*", metavar="FILE")
_JSON = Argument(names=("--json",), help="write JSON", flag=True)
_SPECIAL = Argument(names=("--special",), help="let special tokens in the text count", flag=True)
_FIELD = Argument(names=("--field",), help="field or column that holds the text of a row", default="text")
_THREADS = Argument(names=("--threads",), help="number of threads", type=int, default=2)

TOKENIZER_COMMANDS: tuple[Command, ...] = (
    Command(
        path=("encode", "ids"),
        help="Turn text into token ids.",
        example="highrise encode ids main.py",
        run="highrise.encode.cli_tokenize:ids",
        arguments=(_FILES, _MODEL, _SPECIAL, _JSON),
    ),
    Command(
        path=("encode", "decode"),
        help="Turn token ids (numbers with blanks or commas between, or a JSON list) back into text.",
        example="highrise encode decode ids.txt",
        run="highrise.encode.cli_tokenize:decode",
        arguments=(_FILES, _MODEL),
    ),
    Command(
        path=("encode", "count"),
        help="Count the tokens of files.",
        example="highrise encode count src/*.py",
        run="highrise.encode.cli_tokenize:count",
        arguments=(_FILES, _MODEL, _SPECIAL, _JSON),
    ),
    Command(
        path=("encode", "inspect"),
        help="Show what the tokens of a text are: on coloured grounds, between bars, or one a line with --ids.",
        example="highrise encode inspect --tokenizer cl100k_base main.py",
        run="highrise.encode.cli_look:inspect",
        arguments=(
            _FILES,
            _MODEL,
            _SPECIAL,
            Argument(names=("--ids",), help="one token a line: id, character, spelling", flag=True),
            Argument(names=("--colour",), help="colours even where no terminal is", flag=True),
            _JSON,
        ),
    ),
    Command(
        path=("encode", "compare"),
        help="Encode the same files with two vocabularies and tell whether the ids are the same.",
        example="highrise encode compare tokenizer.json cl100k_base src/*.py",
        run="highrise.encode.cli_look:compare",
        arguments=(
            Argument(names=("first",), help="one vocabulary, named as with --tokenizer", metavar="A"),
            Argument(names=("second",), help="the other", metavar="B"),
            _FILES,
            Argument(names=("--check",), help="leave with 1 where the ids differ", flag=True),
            _JSON,
        ),
    ),
    Command(
        path=("encode", "train"),
        help="Train a new vocabulary on text files, folders of them, or a data folder, and write its tokenizer.json.",
        example="highrise encode train --vocabulary 8000 --out my-tokenizer src/",
        run="highrise.encode.cli_tokenize:train",
        arguments=(
            Argument(
                names=("sources",),
                help="text files, JSONL or Parquet, folders, or a data folder",
                nargs="+",
                metavar="SOURCE",
            ),
            Argument(names=("--out", "-o"), help="folder to write", required=True, metavar="FOLDER"),
            Argument(names=("--vocabulary",), help="number of ids", type=int, default=4096),
            Argument(
                names=("--pattern",),
                help="split pattern",
                default="qwen2",
                choices=("gpt2", "smollm", "cl100k", "llama3", "qwen2", "o200k"),
            ),
            _FIELD,
            Argument(
                names=("--memory",),
                help='what counts may take, for example "1G"; more goes to files. All in memory when absent',
                metavar="SIZE",
            ),
            Argument(names=("--min-count",), help="least count of a pair that is merged", type=int, default=2),
            _THREADS,
            _JSON,
        ),
    ),
    Command(
        path=("encode", "pack"),
        help="Turn text files, folders of them, or a data folder into one packed token file.",
        example="highrise encode pack --out corpus.tokens src/",
        run="highrise.encode.cli_tokenize:pack",
        arguments=(
            Argument(
                names=("sources",),
                help="text files, JSONL or Parquet, folders, or a data folder",
                nargs="+",
                metavar="SOURCE",
            ),
            Argument(names=("--out", "-o"), help="file to write", required=True, metavar="FILE"),
            _MODEL,
            _FIELD,
            Argument(names=("--split",), help="of a data folder, only this split", choices=("train", "validation")),
            Argument(names=("--no-end",), help="put no end-of-text token after each document", flag=True),
            Argument(
                names=("--middle",),
                help="share of the documents that become fill-in-the-middle samples, half of them suffix first",
                type=float,
                default=0.0,
                metavar="RATE",
            ),
            Argument(names=("--seed",), help="seed of the cuts that --middle makes", type=int, default=0),
            Argument(names=("--shuffle",), help="mix documents, or rows, by this seed", type=int, metavar="SEED"),
            Argument(
                names=("--rows",),
                help="best-fit rows of so many tokens, filled with the end token; FILE.documents tells documents apart",
                type=int,
                metavar="LENGTH",
            ),
            _THREADS,
            _JSON,
        ),
    ),
)

COMMANDS: tuple[Command, ...] = (*TOKENIZER_COMMANDS, *INDEX_COMMANDS)
