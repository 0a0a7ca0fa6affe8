"""Perplexity of one text at stored bits, int8, int4 and after each quantiser, beside llama.cpp's `llama-perplexity`.

Windows of 512 tokens, the second half of each judged, as that program counts; its windows begin with the token that
begins a text where the model has one, so such models are compared without it (`--override-kv`). Quantised files are
kept in a folder, named by what made them: the same command goes on where it was stopped. The calibration text must be
another one than the text that is judged.

`python -m bench.evaluate_perplexity qwen2.5-coder-0.5b --text python/highrise/serve --bytes 110000 \\
     --calibration python/highrise/data python/highrise/encode --methods round clip hqq awq gptq awq-gptq \\
     --llama-perplexity .cache/llama.cpp/build/bin/llama-perplexity`
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from highrise.cli import main as highrise
from highrise.core.catalogue import locate
from highrise.core.weights import open_weights
from highrise.encode.tokenizer import Tokenizer
from highrise.serve.loader import WeightBits, make_decoder, plan_memory
from highrise.serve.perplexity import perplexity
from highrise.serve.quantise_text import read_texts

WINDOW = 512


def ours(path: Path, text: str, weights: WeightBits, arguments: argparse.Namespace) -> float:
    """By the engine's decoder."""
    file = open_weights(path)
    plan = plan_memory(file.shape, threads=arguments.threads, num_pages=WINDOW // 16, max_context=None)
    ids = Tokenizer.for_weights(path).encode(text)
    kernels = "auto" if weights == "float32" else arguments.kernels
    return perplexity(make_decoder(file, plan, weights=weights, isa=kernels), ids, window=WINDOW)


def theirs(path: Path, text: str, arguments: argparse.Namespace) -> float:
    """By llama-perplexity over the same bytes, without repacking (its AMX path crashes where AMX is not permitted)."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        command = [arguments.llama_perplexity, "-m", str(path), "-f", file.name, "-c", str(WINDOW), "-b", str(WINDOW)]
        command += ["-t", str(arguments.threads), "-ngl", "0", "--no-repack"]
        command += ["--override-kv", "tokenizer.ggml.add_bos_token=bool:false"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Final estimate: PPL = ([0-9.]+)", ran.stdout + ran.stderr)
    if found is None:
        sys.exit(f"{' '.join(command)} left with {ran.returncode}:\n{ran.stderr[-2000:]}")
    return float(found[1])


def quantised(method: str, arguments: argparse.Namespace) -> Path:
    """The file of a method such as "gptq" or "gptq:int4-symmetric", made unless it is there."""
    name, _, weights = method.partition(":")
    weights = weights or "int4"
    stem = f"{Path(arguments.model).stem}-{name}-{weights}-head-{arguments.head}"
    out = Path(arguments.files) / f"{stem}.gguf"
    if not out.exists():
        command = [
            "quantise",
            arguments.model,
            str(out),
            "--method",
            name,
            "--weights",
            weights,
            "--head",
            arguments.head,
        ]
        if name in ("awq", "gptq", "awq-gptq"):
            command += ["--calibration", *arguments.calibration]
            command += ["--calibration-tokens", str(arguments.calibration_tokens), "--no-measure"]
        if highrise(command) != 0:
            sys.exit(f"highrise {' '.join(command)} failed")
    return out


def main() -> None:
    """Read the command line, print one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a name of the catalogue or a GGUF file")
    parser.add_argument("--text", nargs="+", required=True, help="files and folders to judge by")
    parser.add_argument("--bytes", type=int, default=110_000, help="of the text")
    parser.add_argument("--weights", nargs="*", default=["stored", "int8", "int4"], help="float32 too, which is slow")
    parser.add_argument(
        "--methods", nargs="*", default=[], help='of highrise quantise; "gptq:int4-symmetric" for its type'
    )
    parser.add_argument("--head", default="int8")
    parser.add_argument("--calibration", nargs="+", default=[])
    parser.add_argument("--calibration-tokens", type=int, default=16_384)
    parser.add_argument("--files", default=".cache/quantised", help="where quantised files are kept")
    parser.add_argument("--kernels", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--llama-perplexity", help="path of llama.cpp's program")
    arguments = parser.parse_args()
    path = locate(arguments.model)
    text = "".join(read_texts(arguments.text)).encode()[: arguments.bytes].decode("utf-8", "ignore")
    print(f"{arguments.model}, {len(text.encode()):,} bytes, load {os.getloadavg()[0]:.1f}", flush=True)
    base: float | None = None

    def show(label: str, value: float, began: float) -> None:
        nonlocal base
        base = value if base is None else base
        print(
            f"{label:32} {value:.4f} {100 * (value / base - 1):+.2f} % {time.perf_counter() - began:.0f} s", flush=True
        )

    for weights in arguments.weights:
        began = time.perf_counter()
        show(weights, ours(path, text, weights, arguments), began)
    if arguments.llama_perplexity:
        began = time.perf_counter()
        show("llama.cpp, stored", theirs(path, text, arguments), began)
    for method in arguments.methods:
        file = quantised(method, arguments)
        for weights in ("stored", "int4"):
            began = time.perf_counter()
            show(f"{method}, served as {weights}", ours(file, text, weights, arguments), began)


if __name__ == "__main__":
    main()
