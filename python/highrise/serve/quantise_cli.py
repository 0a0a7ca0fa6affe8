"""Floor 6, command line: `highrise quantise MODEL OUT`, with the perplexity before and after when texts are given."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

import msgspec

from highrise.core.catalogue import locate
from highrise.core.errors import InputError
from highrise.core.progress import Progress, human_bytes, say
from highrise.core.weights import open_weights
from highrise.encode.tokenizer import Tokenizer
from highrise.serve.loader import make_decoder, plan_memory
from highrise.serve.perplexity import perplexity
from highrise.serve.quantise import num_weights, quantise_file

__all__ = ["quantise"]

_WINDOW = 512


def quantise(arguments: argparse.Namespace) -> int:
    """Write the file, measure both if there is a text, print what came out."""
    source, out = locate(arguments.model, download=True, say=say), Path(arguments.out)
    text = "".join(_read(Path(name)) for name in arguments.text or ())
    if out.exists():
        raise InputError(f"{out} exists; give another name or remove it")
    bits: Literal[4, 8] = 4 if arguments.weights == "int4" else 8
    total = num_weights(source, bits) if source.is_file() else 0
    with Progress("quantising", unit="weights", total=total) as progress:
        counts = quantise_file(source, out, bits=bits, method=arguments.method, advance=progress.advance)
    report: dict[str, object] = {
        "out": str(out),
        "bytes_before": source.stat().st_size,
        "bytes_after": out.stat().st_size,
        "types": counts,
    }
    say(f"{out}: {human_bytes(out.stat().st_size)} ({human_bytes(source.stat().st_size)} before), types {counts}")
    if text:
        before, after = (_perplexity(path, text, arguments) for path in (source, out))
        report |= {"perplexity_before": before, "perplexity_after": after}
        say(f"perplexity {before:.4f} before, {after:.4f} after ({100 * (after / before - 1):+.2f} %)")
    if arguments.json:
        print(msgspec.json.encode(report).decode())
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"cannot read the text {path}: {error.strerror or error}") from error


def _perplexity(path: Path, text: str, arguments: argparse.Namespace) -> float:
    file = open_weights(path)
    plan = plan_memory(file.shape, threads=arguments.threads, num_pages=_WINDOW // 16, max_context=None)
    ids = Tokenizer.for_weights(path).encode(text)
    decoder = make_decoder(file, plan, weights="stored", isa=arguments.kernels)
    with Progress(f"perplexity of {path.name}", unit="tokens", total=len(ids)) as progress:
        return perplexity(decoder, ids, window=_WINDOW, advance=progress.advance)
