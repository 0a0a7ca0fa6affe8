"""Floor 6, command line: `highrise quantise MODEL OUT`, with the perplexity before and after when there is a text."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from highrise.core.catalogue import locate
from highrise.core.errors import ConfigError, InputError
from highrise.core.progress import Progress, human_bytes, say
from highrise.core.weights import open_weights
from highrise.encode.tokenizer import Tokenizer
from highrise.serve.loader import make_decoder, plan_memory
from highrise.serve.perplexity import perplexity
from highrise.serve.quantise import Widths, kinds_by_matrix, num_weights, quantise_file
from highrise.serve.quantise_blocks import Rounding
from highrise.serve.quantise_calibrated import CALIBRATED, calibrate
from highrise.serve.quantise_kept import Kept
from highrise.serve.quantise_text import cut_windows, hold_out, read_texts

__all__ = ["quantise"]

_WINDOW = 512


def quantise(arguments: argparse.Namespace) -> int:
    """Write the file, measure both if there is a text, print what came out."""
    out, method = Path(arguments.out), str(arguments.method)
    if out.exists():
        raise InputError(f"{out} exists; give another name or remove it")
    if method in CALIBRATED and not arguments.calibration:
        raise ConfigError(f"--method {method} needs a text: give files or folders with --calibration, or take clip")
    if method in CALIBRATED and arguments.calibration_tokens < _WINDOW:
        raise ConfigError(f"--calibration-tokens is {arguments.calibration_tokens}; at least {_WINDOW} are needed")
    if method in CALIBRATED and arguments.weights == "int8":
        raise ConfigError(f"--method {method} is for 4 bits; at 8 bits clip loses nothing worth it")
    if method == "hqq" and arguments.weights != "int4":
        raise ConfigError(f"--method hqq moves the minimum of each group, which {arguments.weights} does not have")
    source = locate(arguments.model, download=True, say=say)
    calibration, held = hold_out(read_texts(arguments.calibration)) if arguments.calibration else ("", "")
    text = "".join(read_texts(arguments.text)) if arguments.text else held
    widths = Widths(weights=arguments.weights, head=arguments.head)
    total = num_weights(source, widths)
    calibrated = None
    if method in CALIBRATED:
        beside = out.with_name(f".{out.name}.calibration")
        calibrated = _calibrated(source, calibration, widths, method, arguments.calibration_tokens, beside)
    rounding: Rounding = "round" if method == "round" else "hqq" if method == "hqq" else "clip"
    with Progress("quantising", unit="weights", total=total) as progress:
        counts = quantise_file(source, out, widths, rounding=rounding, calibrated=calibrated, advance=progress.advance)
    if calibrated is not None:
        calibrated.remove()
    report: dict[str, object] = {
        "out": str(out),
        "bytes_before": source.stat().st_size,
        "bytes_after": out.stat().st_size,
        "types": counts,
    }
    say(f"{out}: {human_bytes(out.stat().st_size)} ({human_bytes(source.stat().st_size)} before), types {counts}")
    if text and not arguments.no_measure:
        before, after = (_perplexity(path, text, arguments) for path in (source, out))
        report |= {"perplexity_before": before, "perplexity_after": after}
        say(f"perplexity {before:.4f} before, {after:.4f} after ({100 * (after / before - 1):+.2f} %)")
    if arguments.json:
        print(msgspec.json.encode(report).decode())
    return 0


def _calibrated(source: Path, text: str, widths: Widths, method: str, tokens: int, folder: Path) -> Kept:
    file = open_weights(source)
    windows = cut_windows(Tokenizer.for_weights(source).encode(text), _WINDOW, max(1, tokens // _WINDOW))
    total = windows.size * file.shape.num_hidden_layers
    with Progress(f"{method} over {windows.size:,} tokens", unit="tokens", total=total) as progress:
        return calibrate(file, windows, kinds_by_matrix(source, widths), CALIBRATED[method], folder, progress.advance)


def _perplexity(path: Path, text: str, arguments: argparse.Namespace) -> float:
    file = open_weights(path)
    plan = plan_memory(file.shape, threads=arguments.threads, num_pages=_WINDOW // 16, max_context=None)
    ids = Tokenizer.for_weights(path).encode(text)
    decoder = make_decoder(file, plan, weights="stored", isa=arguments.kernels)
    with Progress(f"perplexity of {path.name}", unit="tokens", total=len(ids)) as progress:
        return perplexity(decoder, ids, window=_WINDOW, advance=progress.advance)
