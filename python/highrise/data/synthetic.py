"""Floor 2, synthetic: training records that a served model writes about the documents of a data folder.

Two kinds: a function from its signature and docstring, and a question to which a function is the answer (OSS-Instruct,
Wei et al., arXiv 2312.02120, takes seeds from real code likewise). What is refused, cut or no code is counted and left
out. A model is whatever answers `Teacher.ask`. The file is JSON lines that `highrise data build` reads as a source, so
that records are screened and de-duplicated like all else. Knows nothing of protocols or servers.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from highrise.core.config import Config
from highrise.core.document import Document
from highrise.core.errors import ConfigError, InputError
from highrise.core.files import atomic_write
from highrise.core.manifest import Counts, Manifest, build_stage
from highrise.core.progress import Progress
from highrise.data.shards import data_manifest, read_documents

__all__ = ["Answer", "SyntheticConfig", "Teacher", "synthesise"]

Kind = Literal["code", "question"]

_FILE = "synthetic.jsonl"
_JOURNAL = "journal.jsonl"
_FENCE = re.compile(r"```[\w+-]*[ \t]*\n(.*?)(?:```|\Z)", re.S)
_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) sorry|i (?:can(?:'t|not)|am (?:unable|not able)|won't)|as an ai|i do not have access)\b",
    re.I,
)
_ASK = {
    "code": "Write the Python function that this signature and docstring describe. Answer with the whole function "
    "in one ```python block and nothing else.\n\n```python\n{given}\n```",
    "question": "Here is a Python function.\n\n```python\n{given}\n```\n\nWrite one question that a developer might "
    "ask and that this function answers. Do not name the function. Answer with the question alone.",
}  # fmt: skip
_MIN_DOCSTRING, _MAX_CODE = 20, 4_000
_MIN_QUESTION, _MAX_QUESTION = 15, 600


class Answer(msgspec.Struct, frozen=True):
    """What a model said, and whether it had ended ("stop") or was cut ("length")."""

    text: str
    finish_reason: str = "stop"


class Teacher(Protocol):
    """A model that answers, named so that a record can say who wrote it."""

    name: str

    def ask(self, prompt: str, *, max_tokens: int, temperature: float, seed: int) -> Answer:
        """The answer to one message of a user. Raises `DataError` when there is none to be had."""


class SyntheticConfig(Config, frozen=True):
    """Which records are asked for."""

    kinds: tuple[Kind, ...] = ("code", "question")
    count: int = 100
    """Functions to ask about, of each kind."""
    per_document: int = 2
    """Functions of one document, at most."""
    max_tokens: int = 512
    temperature: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("count", "per_document", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; use 1 or more")
        if not 0 <= self.temperature <= 2:
            raise ConfigError(f"temperature is {self.temperature}; use 0 to 2")
        if not self.kinds:
            raise ConfigError("kinds is empty; name code, question or both")


class _Task(msgspec.Struct, frozen=True):
    kind: Kind
    document: Document
    name: str
    given: str
    code: str
    seed: int


class _Line(msgspec.Struct, omit_defaults=True):
    """One task in the journal: its key, and why there is no record, or the record."""

    key: str
    reason: str = ""
    record: dict[str, object] | None = None


def synthesise(
    folder: Path, out: Path, config: SyntheticConfig, teacher: Teacher, *, concurrency: int = 4
) -> tuple[Manifest, bool]:
    """Ask `teacher` about functions of the training side of the data folder `folder` and write `out/synthetic.jsonl`;
    the second value says whether it was there already.

    Up to `concurrency` questions are open at a time. A run that was killed goes on behind the answers it had. Raises
    `InputError` when the folder has no Python function with a docstring, or no answer was usable.
    """
    manifest = data_manifest(folder)
    return build_stage(
        out,
        stage="synthetic",
        config=config,
        inputs={"data": manifest.fingerprint, "teacher": teacher.name},
        build=lambda into: _build(folder, into, config, teacher, max(1, concurrency)),
    )


def _build(folder: Path, out: Path, config: SyntheticConfig, teacher: Teacher, concurrency: int) -> Counts:
    tasks = _tasks(folder, config)
    if not tasks:
        raise InputError(f"{folder} has no Python function with a docstring to ask about; build it from other sources")
    lines = _answered(out / _JOURNAL)
    left = [task for task in tasks if _key(task) not in lines]
    with (
        Progress("data: ask the model", unit="answers", total=len(tasks)) as progress,
        (out / _JOURNAL).open("ab") as journal,
        ThreadPoolExecutor(concurrency) as pool,
    ):
        progress.advance(len(tasks) - len(left))
        for start in range(0, len(left), concurrency):
            for line in pool.map(lambda task: _ask(task, config, teacher), left[start : start + concurrency]):
                lines[line.key] = line
                journal.write(msgspec.json.encode(line) + b"\n")
                progress.advance(1)
            journal.flush()
            os.fsync(journal.fileno())
    done = [lines[_key(task)] for task in tasks]
    records = [line.record for line in done if line.record is not None]
    reasons = Counter(line.reason for line in done if line.reason)
    if not records:
        told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        raise InputError(f"{teacher.name} answered none of {len(done)} questions usably ({told}); use a stronger model")
    with atomic_write(out / _FILE) as file:
        file.writelines(msgspec.json.encode(record) + b"\n" for record in records)
    (out / _JOURNAL).unlink()
    kinds = Counter(str(record["kind"]) for record in records)
    counts: dict[str, int | float | str] = {"asked": len(done), "records": len(records)}
    counts |= {f"kind: {kind}": number for kind, number in sorted(kinds.items())}
    return counts | {f"dropped: {reason}": number for reason, number in sorted(reasons.items())}


def _answered(path: Path) -> dict[str, _Line]:
    """The lines of the journal that are whole; a torn last one is cut off."""
    lines: dict[str, _Line] = {}
    if not path.exists():
        return lines
    whole = 0
    with path.open("rb+") as file:
        for raw in file:
            try:
                line = msgspec.json.decode(raw, type=_Line)
            except msgspec.DecodeError:
                break
            if not raw.endswith(b"\n"):
                break
            lines[line.key] = line
            whole += len(raw)
        file.truncate(whole)
    return lines


def _tasks(folder: Path, config: SyntheticConfig) -> list[_Task]:
    """The questions, in an order by the seed and the texts alone."""
    found: list[tuple[bytes, Document, str, str, str]] = []
    for document in read_documents(folder, split="train"):
        if document.language == "python":
            functions = _functions(document.text)
            chosen = sorted(
                (_order(config.seed, document.sha256, name), name, given, code) for name, given, code in functions
            )
            found += [
                (order, document, name, given, code) for order, name, given, code in chosen[: config.per_document]
            ]
    found.sort(key=lambda task: task[0])
    return [
        _Task(
            kind=kind,
            document=document,
            name=name,
            given=given if kind == "code" else code,
            code=code,
            seed=int.from_bytes(order[:4]) >> 1,
        )
        for order, document, name, given, code in found[: config.count]
        for kind in config.kinds
    ]


def _order(seed: int, digest: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{digest}:{name}".encode()).digest()


def _key(task: _Task) -> str:
    return f"{task.kind} {task.document.sha256} {task.name}"


def _functions(text: str) -> Iterator[tuple[str, str, str]]:
    """Name, head (signature and docstring) and code of each documented top-level function, the first of a name."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    lines = text.split("\n")
    seen: set[str] = set()
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name in seen or len(node.body) < 2:
            continue
        first = node.body[0]
        documented = len(ast.get_docstring(node) or "") >= _MIN_DOCSTRING
        code = "\n".join(lines[node.lineno - 1 : node.end_lineno])
        if documented and len(code) <= _MAX_CODE and first.lineno > node.lineno:
            seen.add(node.name)
            yield node.name, "\n".join(lines[node.lineno - 1 : first.end_lineno]), code


def _ask(task: _Task, config: SyntheticConfig, teacher: Teacher) -> _Line:
    prompt = _ASK[task.kind].format(given=task.given)
    answer = teacher.ask(prompt, max_tokens=config.max_tokens, temperature=config.temperature, seed=task.seed)
    text = answer.text.strip()
    line = _Line(key=_key(task))
    if not text:
        line.reason = "empty"
    elif answer.finish_reason == "length":
        line.reason = "cut off"
    elif _REFUSAL.search(text[:200]):
        line.reason = "refused"
    else:
        written = _code(text, task) if task.kind == "code" else _question(text, task)
        if isinstance(written, str):
            line.reason = written
        else:
            line.record = _record(task, teacher.name, *written)
    return line


def _code(text: str, task: _Task) -> tuple[str, str] | str:
    """What to ask and the function as an answer, or why the text is none."""
    block = match[1] if (match := _FENCE.search(text)) else text
    try:
        tree = ast.parse(block)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "does not parse"
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    mine = next((node for node in functions if node.name == task.name), None)
    if mine is None:
        return "another function"
    body = [node for node in mine.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
    if all(isinstance(node, ast.Pass) for node in body):
        return "no body"
    if ast.dump(ast.parse(task.code).body[0]) == ast.dump(mine):
        return "a copy"
    return f"Write this Python function.\n\n```python\n{task.given}\n```", block.strip() + "\n"


def _question(text: str, task: _Task) -> tuple[str, str] | str:
    """The question and the function as its answer, or why the text is none."""
    if not _MIN_QUESTION <= len(text) <= _MAX_QUESTION or "?" not in text:
        return "no question"
    if re.search(rf"\b{re.escape(task.name)}\b", text):
        return "names the function"
    return text, task.code + "\n"


def _record(task: _Task, teacher: str, question: str, code: str) -> dict[str, object]:
    document = task.document
    return {
        "text": code if task.kind == "code" else f"{question}\n\n```python\n{code}```\n",
        "path": f"{document.path.removesuffix('.py')}.{task.name}.{'py' if task.kind == 'code' else 'md'}",
        "repository": document.repository,
        "license": document.license,
        "kind": task.kind,
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": f"```python\n{code}```"},
        ],
        "teacher": teacher,
        "of": document.sha256,
    }
