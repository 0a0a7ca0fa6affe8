"""Ghost text with and without an adapter: greedy answers of the own engine on lines that tuning did not see.

    python scripts/infill_gain.py MODEL DATA ADAPTER [--lines 100] [--weights int4]

MODEL is a catalogue name or a path, DATA a folder of `highrise data build` (or `.highrise/NAME/data`), ADAPTER a folder
in PEFT's format. Lines are drawn from the held-out code of `align.choice`, cut at a random place; the answer is
compared with the rest of the line. Prints exact matches, the mean edit similarity (difflib, 0 to 1) and how many lines
got better or worse.
"""

from __future__ import annotations

import argparse
import difflib
import random
from pathlib import Path
from typing import NamedTuple

from highrise.align.choice import choose, is_prose
from highrise.core.catalogue import locate
from highrise.serve.engine import Engine
from highrise.serve.request import Request, Sampling

_BEFORE, _AFTER = 1200, 500


class Line(NamedTuple):
    """Text before the cursor, the rest of its line, text after the line."""

    prefix: str
    rest: str
    suffix: str


def draw_lines(data: Path, number: int, seed: int) -> list[Line]:
    """`number` lines of held-out code, each cut inside its text."""
    draw = random.Random(seed)
    files = [document.text for document in choose(data).held_out if not is_prose(document) and document.own]
    found: list[Line] = []
    for _ in range(number * 50):
        text = draw.choice(files)
        start = text.rfind("\n", 0, draw.randrange(len(text))) + 1
        end = text.find("\n", start)
        line = text[start : len(text) if end < 0 else end]
        if len(line.strip()) < 16:
            continue
        at = start + len(line) - len(line.lstrip()) + draw.randrange(4, len(line.strip()) - 6)
        rest = text[at : start + len(line)]
        found.append(Line(text[max(0, at - _BEFORE) : at], rest, text[start + len(line) :][:_AFTER]))
        if len(found) == number:
            break
    return found


def answers(engine: Engine, lines: list[Line]) -> list[str]:
    """The greedy rest of each line, up to its end."""
    requests = []
    for line in lines:
        prompt = engine.prompts.infill(line.prefix, line.suffix)
        sampling = Sampling(temperature=0.0, max_tokens=48, stop=("\n",), stop_ids=tuple(prompt.stop_ids))
        requests.append(Request(id="", prompt_ids=prompt.ids, sampling=sampling))
    return ["".join(output.text for output in outputs) for outputs in engine.generate(requests)]


def similarity(found: str, rest: str) -> float:
    """Edit similarity of two strings without their trailing white space."""
    return difflib.SequenceMatcher(None, found.rstrip(), rest.rstrip(), autojunk=False).ratio()


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--lines", type=int, default=100)
    parser.add_argument("--weights", default="int4")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="print the lines where the two differ")
    given = parser.parse_args()
    lines = draw_lines(given.data, given.lines, given.seed)
    results: dict[str, list[str]] = {}
    for name, adapter in (("without", None), ("with", given.adapter)):
        engine = Engine.load(locate(given.model), weights=given.weights, adapter=adapter, max_context=2048)
        results[name] = answers(engine, lines)
        scores = [similarity(found, line.rest) for found, line in zip(results[name], lines, strict=True)]
        exact = sum(found.rstrip() == line.rest.rstrip() for found, line in zip(results[name], lines, strict=True))
        print(f"{name:<8} exact {exact} of {len(lines)}, edit similarity {sum(scores) / len(scores):.4f}", flush=True)
    pairs = [
        (similarity(a, line.rest), similarity(b, line.rest))
        for a, b, line in zip(results["without"], results["with"], lines, strict=True)
    ]
    better, worse = sum(b > a for a, b in pairs), sum(b < a for a, b in pairs)
    print(f"with the adapter {better} lines are nearer to what was written, {worse} farther, the rest as near")
    for line, a, b in zip(lines, results["without"], results["with"], strict=True):
        if given.show and a != b:
            print(f"{line.prefix[-40:]!r}\n  written {line.rest!r}\n  without {a!r}\n  with    {b!r}")


if __name__ == "__main__":
    main()
