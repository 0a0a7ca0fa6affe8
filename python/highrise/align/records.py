"""Floor 5, records: what is learnt from, made of curated documents through the one prompt module.

Fill-in-the-middle samples and chat pairs for supervised tuning; pairs of a better and a worse middle for preferences.
Everything is drawn by a seed. Knows nothing of torch or losses.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from highrise.core.document import Document
from highrise.core.errors import ConfigError
from highrise.core.json_text import decode_json
from highrise.encode.prompt import PromptFormat
from highrise.train.infill import Cut, cut_infill, pieces

__all__ = [
    "Pair",
    "PairLine",
    "Sample",
    "chat_samples",
    "damage",
    "infill_samples",
    "pairs",
    "read_pair_lines",
    "read_pairs",
    "text_samples",
]

Sample = tuple[list[int], list[bool]]
"""Token ids, and for each whether the assistant wrote it."""
_CHARACTERS_PER_TOKEN = 2.5
_LONGEST_MIDDLE = 400


class Pair(NamedTuple):
    """The same prompt with a better and a worse answer."""

    chosen: Sample
    rejected: Sample


def infill_samples(
    documents: Sequence[Document], prompts: PromptFormat, *, sequence: int, seed: int
) -> Iterator[Sample]:
    """One sample of at most `sequence` tokens from each piece of the documents, in a shuffled order.

    Every second one names its file, as the editor's prompt does when it brings context from other files.
    """
    draw = random.Random(seed)
    for document, cut in _cuts(documents, sequence, draw):
        path = document.path if draw.random() < 0.5 else None
        sample = prompts.infill_sample(cut.prefix, cut.middle, cut.suffix, path=path)
        if len(sample.ids) <= sequence:
            yield sample.ids, sample.loss_mask


def chat_samples(documents: Sequence[Document], prompts: PromptFormat, *, sequence: int, seed: int) -> Iterator[Sample]:
    """Documented Python functions as a question (name, signature, docstring) and an answer (the code)."""
    if not prompts.supports_chat:
        return
    draw = random.Random(seed)
    order = [document for document in documents if document.language == "python"]
    draw.shuffle(order)
    for document in order:
        for question, answer in _functions(document.text):
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            sample = prompts.chat_sample(messages)
            if len(sample.ids) <= sequence and any(sample.loss_mask):
                yield sample.ids, sample.loss_mask


def text_samples(documents: Sequence[Document], prompts: PromptFormat, *, sequence: int, seed: int) -> Iterator[Sample]:
    """Plain windows of at most `sequence` tokens from the documents, every token but the first asked for."""
    draw = random.Random(seed)
    longest = int(sequence * _CHARACTERS_PER_TOKEN)
    places = [piece for document in documents for piece in pieces(document.text, longest)]
    draw.shuffle(places)
    for piece in places:
        ids = prompts.tokenizer.encode(piece)[:sequence]
        if len(ids) >= 2:
            yield ids, [False] + [True] * (len(ids) - 1)


def pairs(documents: Sequence[Document], prompts: PromptFormat, *, sequence: int, seed: int) -> Iterator[Pair]:
    """The middle that a person wrote against a damaged one: feedback that needs nobody."""
    draw = random.Random(seed)
    for document, cut in _cuts(documents, sequence, draw):
        worse = damage(cut, document.text, draw)
        if worse is None:
            continue
        chosen = prompts.infill_sample(cut.prefix, cut.middle, cut.suffix)
        rejected = prompts.infill_sample(cut.prefix, worse, cut.suffix)
        if max(len(chosen.ids), len(rejected.ids)) <= sequence:
            yield Pair((chosen.ids, chosen.loss_mask), (rejected.ids, rejected.loss_mask))


def damage(cut: Cut, text: str, draw: random.Random) -> str | None:
    """A middle that is worse, in a way that models err: None when it comes out as the right one.

    It runs on into the suffix, says its last line twice, breaks off early, takes the wrong name, or is from elsewhere.
    """
    middle = cut.middle
    kind = draw.randrange(5)
    if kind == 0:
        worse = middle + cut.suffix[: draw.randint(20, 120)]
    elif kind == 1:
        last = middle.rstrip("\n").split("\n")[-1]
        worse = middle.rstrip("\n") + "\n" + last
    elif kind == 2:
        worse = middle[: max(1, len(middle) * draw.randint(2, 7) // 10)]
    elif kind == 3:
        mine = sorted(set(re.findall(r"[A-Za-z_]\w{2,}", middle)))
        others = sorted(set(re.findall(r"[A-Za-z_]\w{2,}", text)) - set(mine))
        if not mine or not others:
            return None
        worse = re.sub(rf"\b{draw.choice(mine)}\b", draw.choice(others), middle)
    else:
        at = draw.randrange(max(1, len(text) - len(middle)))
        worse = text[at : at + len(middle)]
    return worse if worse.strip() and worse.strip() != middle.strip() else None


class PairLine(msgspec.Struct, forbid_unknown_fields=True):
    """One line of a file of pairs."""

    chosen: str
    rejected: str
    prompt: str | list[dict[str, str]] | None = None
    prefix: str | None = None
    suffix: str = ""


def read_pair_lines(path: Path) -> list[PairLine]:
    """The lines of a JSON Lines file: `chosen` and `rejected` with `prompt` (text, messages), or `prefix`, `suffix`."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(
            f'align.feedback: cannot read {path} ({error.strerror}); write "auto" or name a file'
        ) from error
    found: list[PairLine] = []
    for number, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        try:
            line = decode_json(raw, PairLine)
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{path}:{number} is no preference pair: {error}") from error
        if (line.prompt is None) == (line.prefix is None):
            raise ConfigError(f"{path}:{number} needs either prompt, or prefix and suffix")
        found.append(line)
    return found


def read_pairs(path: Path, prompts: PromptFormat, *, sequence: int) -> list[Pair]:
    """Pairs of a JSON Lines file as samples of at most `sequence` tokens; longer ones are left out."""
    found: list[Pair] = []
    for line in read_pair_lines(path):
        both = [_answer(line, answer, prompts) for answer in (line.chosen, line.rejected)]
        if max(len(ids) for ids, _ in both) <= sequence:
            found.append(Pair(*both))
    if not found:
        raise ConfigError(
            f"DPO has no pairs: {path} holds none of at most {sequence} tokens; raise align.sequence or add some"
        )
    return found


def _answer(line: PairLine, answer: str, prompts: PromptFormat) -> Sample:
    if line.prefix is not None:
        sample = prompts.infill_sample(line.prefix, answer, line.suffix)
    else:
        asked = line.prompt
        messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else list(asked or [])
        sample = prompts.chat_sample([*messages, {"role": "assistant", "content": answer}])
        # Earlier turns of the assistant are given, not judged: only the last marked stretch counts.
        last = len(sample.loss_mask) - sample.loss_mask[::-1].index(True)
        first = last
        while first > 0 and sample.loss_mask[first - 1]:
            first -= 1
        return sample.ids, [first <= index < last for index in range(len(sample.ids))]
    return sample.ids, sample.loss_mask


def _cuts(documents: Sequence[Document], sequence: int, draw: random.Random) -> Iterator[tuple[Document, Cut]]:
    longest = int(sequence * _CHARACTERS_PER_TOKEN)
    places = [(document, piece) for document in documents for piece in pieces(document.text, longest)]
    draw.shuffle(places)
    for document, piece in places:
        cut = cut_infill(piece, draw, longest=_LONGEST_MIDDLE)
        if cut is not None:
            yield document, cut


def _functions(text: str) -> Iterator[tuple[str, str]]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        described, source = ast.get_docstring(node), ast.get_source_segment(text, node)
        if described is None or source is None or len(node.body) < 2:
            continue
        kind = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        signature = f"{kind} {node.name}({ast.unparse(node.args)}){returns}"
        indent = " " * node.col_offset
        lines = [line.removeprefix(indent) for line in source.split("\n")]
        code = "\n".join(lines)
        yield f"Write the Python function `{signature}`: {described.strip()}", f"```python\n{code}\n```"
