"""Floor 3, cli_tokenize: the commands that need a vocabulary only. What they print on stdout, a program may read."""

from __future__ import annotations

import argparse
import itertools
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from highrise.core.catalogue import locate
from highrise.core.errors import InputError
from highrise.core.progress import Progress, human_bytes
from highrise.encode.config import TokenizerConfig
from highrise.encode.formats_tiktoken import NAMED
from highrise.encode.pack import PackOptions, pack_texts
from highrise.encode.prompt_template import CHATML
from highrise.encode.tables import TABLES, read_table
from highrise.encode.text_files import flat_parts
from highrise.encode.tokenizer import Tokenizer
from highrise.encode.train import train_tokenizer, write_tokenizer_folder

__all__ = ["count", "decode", "ids", "open_tokenizer", "pack", "read_texts", "train"]


_LARGE_BYTES = 16 << 20
"""A file from this size on is not held whole where that is not needed."""


def ids(arguments: argparse.Namespace) -> int:
    """`highrise encode ids`."""
    tokenizer = open_tokenizer(arguments.tokenizer)
    special = "all" if arguments.special else "none"
    found = {name: tokenizer.encode(text, special=special) for name, text in read_texts(arguments.files)}
    if arguments.json:
        _print_json([{"file": name, "ids": values} for name, values in found.items()])
    else:
        for values in found.values():
            print(" ".join(map(str, values)))
    return 0


def decode(arguments: argparse.Namespace) -> int:
    """`highrise encode decode`."""
    tokenizer = open_tokenizer(arguments.tokenizer)
    for name, text in read_texts(arguments.files):
        words = re.split(r"[\s,]+", text.strip().strip("[]").strip())
        try:
            values = [int(word) for word in words if word]
        except ValueError as error:
            raise InputError(f"{name} holds something that is no token id ({error}); give numbers") from error
        sys.stdout.buffer.write(tokenizer.decode_bytes(values))
    sys.stdout.buffer.flush()
    return 0


def count(arguments: argparse.Namespace) -> int:
    """`highrise encode count`."""
    tokenizer = open_tokenizer(arguments.tokenizer)
    special = "all" if arguments.special else "none"
    rows = [
        (name, tokenizer.count(text, special=special), len(text.encode())) for name, text in read_texts(arguments.files)
    ]
    if arguments.json:
        _print_json([{"file": name, "tokens": tokens, "bytes": size} for name, tokens, size in rows])
        return 0
    if len(rows) > 1:
        rows.append(("total", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    for name, tokens, size in rows:
        print(f"{tokens:>10,} tokens  {size / max(tokens, 1):5.2f} bytes a token  {name}")
    return 0


def train(arguments: argparse.Namespace) -> int:
    """`highrise encode train`."""
    config = TokenizerConfig(
        vocabulary=arguments.vocabulary,
        pattern=arguments.pattern,
        min_count=arguments.min_count,
        threads=arguments.threads,
        memory=arguments.memory,
    )
    out = Path(arguments.out)
    if out.is_file():
        raise InputError(f"{out} is a file; give a folder to write tokenizer.json into")
    started = time.monotonic()
    with Progress("train tokenizer", unit="B") as progress:
        tokenizer = train_tokenizer(
            _documents(arguments.sources, None, arguments.field, parts=True),
            vocabulary=config.vocabulary,
            pattern=config.pattern,
            special=config.special,
            min_count=config.min_count,
            threads=config.threads,
            memory=config.memory_bytes(),
            progress=progress,
        )
        size = progress.done
    write_tokenizer_folder(tokenizer, out, chat_template=CHATML)
    seconds = time.monotonic() - started
    if arguments.json:
        _print_json({"folder": str(out), "vocabulary": tokenizer.vocab_size, "bytes": int(size), "seconds": seconds})
    else:
        print(
            f"{out / 'tokenizer.json'}: {tokenizer.vocab_size:,} tokens from {human_bytes(size)} "
            f"in {seconds:.2f} s ({human_bytes(size / seconds)}/s)"
        )
    return 0


def pack(arguments: argparse.Namespace) -> int:
    """`highrise encode pack`."""
    tokenizer = open_tokenizer(arguments.tokenizer)
    end = (
        None if arguments.no_end else tokenizer.special_tokens.get("<|endoftext|>", next(iter(tokenizer.eos_ids), None))
    )
    options = PackOptions(end, arguments.middle, arguments.seed, arguments.shuffle, arguments.rows)
    started = time.monotonic()
    out = Path(arguments.out)
    with Progress("pack", unit="B") as progress:
        texts = _documents(arguments.sources, arguments.split, arguments.field)
        first = next(texts, None)
        if first is None:
            raise InputError(f"there is no text in {', '.join(arguments.sources)}")
        found = pack_texts(
            itertools.chain([first], texts),
            tokenizer,
            out,
            options=options,
            key=_key(arguments.sources, arguments.split, arguments.field),
            threads=arguments.threads,
            progress=progress,
        )
        size = progress.done
    seconds = time.monotonic() - started
    if arguments.json:
        _print_json({"file": str(out), **msgspec.structs.asdict(found), "bytes": int(size), "seconds": seconds})
        return 0
    before = f", {found.resumed:,} documents of them by an earlier run" if found.resumed else ""
    what = "documents" if options.rows is None else f"rows of {options.rows:,}"
    print(
        f"{out}: {found.tokens:,} tokens in {found.documents:,} {what} from {human_bytes(size)} "
        f"in {seconds:.2f} s ({human_bytes(size / seconds)}/s){before}"
    )
    return 0


def _key(sources: Sequence[str], split: str | None, field: str) -> str:
    """Names, sizes and times of all files that texts come from."""
    lines = [repr((split, field))]
    for source in sources:
        path = Path(source)
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            status = file.stat()
            lines.append(repr((str(file), status.st_size, status.st_mtime_ns)))
    return "\n".join(lines)


def open_tokenizer(name: str) -> Tokenizer:
    """By path, by the name of an encoding of tiktoken, or by the name of a model of the catalogue."""
    path = Path(name)
    if path.exists():
        return Tokenizer.for_weights(path)
    if name in NAMED:
        return Tokenizer.named(name)
    return Tokenizer.for_weights(locate(name))


def read_texts(files: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and text of each file; "-" or nothing is standard input."""
    for name in files or ["-"]:
        try:
            content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {name}: {error.strerror or error}") from error
        try:
            yield name, content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{name} is no UTF-8 text: {error}") from error


def _documents(sources: Sequence[str], split: str | None, field: str = "text", *, parts: bool = False) -> Iterator[str]:
    """Texts of files, of rows of tables, of all files below folders, or of the documents of a data folder.

    With `parts` a large file comes in parts, which are held one after another.
    """
    for source in sources:
        path = Path(source)
        if not path.exists():
            raise InputError(f"there is no {source}")
        if (path / "shards").is_dir():
            from highrise.data.shards import read_documents

            yield from (document.text for document in read_documents(path, split=split))
            continue
        if split is not None:
            raise InputError(f"--split needs a data folder, and {source} is none (it has no shards/)")
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if _is_visible(file, path))
        skipped = 0
        for file in files:
            if file.suffix in TABLES:
                yield from read_table(file, field)
                continue
            try:
                if parts and file.stat().st_size > _LARGE_BYTES:
                    for data, offsets in flat_parts(file):
                        yield from (data[a:b].tobytes().decode() for a, b in itertools.pairwise(offsets.tolist()))
                else:
                    yield file.read_bytes().decode("utf-8")
            except UnicodeDecodeError:
                skipped += 1
            except OSError as error:
                raise InputError(f"cannot read {file}: {error.strerror or error}") from error
        if skipped:
            print(f"{source}: skipped {skipped} of {len(files)} files that are no UTF-8 text", file=sys.stderr)


def _is_visible(file: Path, root: Path) -> bool:
    return file.is_file() and not any(part.startswith(".") for part in file.relative_to(root).parts)


def _print_json(value: object) -> None:
    print(msgspec.json.encode(value).decode())
