"""Floor 2, clean: one file in, what became of it out. The order of the filters is written here and nowhere else.

What becomes of a file depends on its bytes, its name, its licence and whether it is the team's own: `content_key` says
so in 32 digits, by which equal files are cleaned once and a later build takes over what an earlier one found. Knows
nothing of duplicates or splits.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa

from highrise.core.config import fingerprint
from highrise.core.errors import HighriseError
from highrise.data import decode, filters, languages, licenses, syntax
from highrise.data.adapters.ruff import count_findings
from highrise.data.arrays import array_of, strings
from highrise.data.config import DataConfig
from highrise.data.contamination import fingerprint_evaluations, load_evaluations
from highrise.data.extract import extract
from highrise.data.malware import is_obfuscated
from highrise.data.personal import redact_personal
from highrise.data.prose import is_poor_prose, is_repetitive
from highrise.data.quality import comment_share, quality, quality_parts, sample_signals
from highrise.data.secrets import redact
from highrise.data.toxicity import is_toxic

__all__ = ["CLEAN_SCHEMA", "Job", "Record", "clean_bytes", "clean_jobs", "content_key", "new_record", "rules"]


class Record(msgspec.Struct, kw_only=True):
    """What became of one file. `text` is None when it was dropped; `reason` is a key of `filters.REASONS` or ""."""

    path: str
    source: str
    repository: str
    own: bool
    size: int
    text: str | None = None
    language: str = ""
    license: str = licenses.UNKNOWN
    sha256: str = ""
    quality: float = 0.0
    quality_parts: str = "{}"
    encoding: str = ""
    redactions: str = "{}"
    reason: str = ""
    detail: str = ""
    key: str = ""
    contamination: str = ""


CLEAN_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("source", pa.string()),
        ("repository", pa.string()),
        ("own", pa.bool_()),
        ("size", pa.int64()),
        ("text", pa.large_string()),
        ("language", pa.string()),
        ("license", pa.string()),
        ("sha256", pa.string()),
        ("quality", pa.float64()),
        ("quality_parts", pa.string()),
        ("encoding", pa.string()),
        ("redactions", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("key", pa.string()),
        ("contamination", pa.string()),
    ]
)


_PLAIN = tuple(name for name in CLEAN_SCHEMA.names if name != "text")


class Job(msgspec.Struct, kw_only=True, array_like=True):
    """One file on its way to a worker: where it is from and its bytes, or what is known of it already."""

    path: str
    source: str
    repository: str
    own: bool
    license: str
    size: int
    key: str
    data: bytes = b""
    done: Record | None = None


def new_record(job: Job) -> Record:
    """The record of a job before anything is known of it."""
    return Record(
        path=job.path,
        source=job.source,
        repository=job.repository,
        own=job.own,
        size=job.size,
        license=job.license,
        key=job.key,
    )


def clean_jobs(jobs: Sequence[Job], config: DataConfig, mark: Callable[[int], None] = lambda _: None) -> pa.Table:
    """The records of `jobs` as a table of `CLEAN_SCHEMA`, in their order.

    `mark` hears the number of each job before it begins, so that a caller knows which one ended this process. An
    exception costs the file, not the build: it is counted as "crashed".
    """
    records: list[Record] = []
    for number, job in enumerate(jobs):
        record = job.done
        if record is None:
            mark(number)
            record = new_record(job)
            try:
                clean_bytes(record, job.data, config)
            except HighriseError:
                raise
            except Exception as error:
                record = new_record(job)
                record.reason, record.detail = "crashed", f"{type(error).__name__}: {error}"[:200]
        records.append(record)
    mark(-1)
    if config.cleaning.lint:
        _lint([record for job, record in zip(jobs, records, strict=True) if job.done is None], config)
    columns = [
        array_of([getattr(record, name) for record in records], CLEAN_SCHEMA.field(name).type) for name in _PLAIN
    ]
    texts = strings([record.text for record in records], pa.large_string())
    columns.insert(CLEAN_SCHEMA.get_field_index("text"), texts)
    return pa.Table.from_arrays(columns, schema=CLEAN_SCHEMA)


@functools.cache
def _code() -> str:
    """Changes when a line of the modules that clean does, so that nothing is taken over from older rules."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def rules(config: DataConfig) -> str:
    """A fingerprint of what decides how a file is cleaned."""
    return fingerprint(_code(), config.cleaning, config.licenses, fingerprint_evaluations(config.evaluations))


def content_key(rules: str, item_license: str, own: bool, path: str, data: bytes) -> str:
    """32 hex digits that are equal for files of which the same becomes; only the last part of the path counts."""
    digest = hashlib.blake2b(f"{rules}\0{item_license}\0{own}\0{path.rpartition('/')[2]}\0".encode(), digest_size=16)
    digest.update(data)
    return digest.hexdigest()


def clean_bytes(record: Record, data: bytes, config: DataConfig) -> None:
    """Run every filter on the bytes of a file and fill in `record`; changes nothing else."""
    name = record.path.rpartition("/")[2]
    try:
        found = extract(name, data)
    except ValueError as error:
        record.reason, record.detail = "damaged", str(error)[:200]
        return
    if found is not None:
        name, data = found
    if not data.strip(b"\0 \t\r\n"):
        record.reason = "empty"
        return
    if decode.is_binary(data, max_control_share=config.cleaning.max_control_share):
        record.reason = "binary"
        return
    raw, record.encoding = decode.decode(data)
    text = decode.normalise(raw)
    if not text:
        record.reason = "empty"
        return
    record.language = languages.identify(name, text)
    reason, detail = _objection(name, record.language, text, config)
    if reason:
        record.reason, record.detail = reason, detail
        return
    problem, errors = syntax.inspect(record.language, text, config.cleaning)
    if problem is not None:
        record.reason, record.detail = "broken", problem
        return
    signals = sample_signals(text)
    commented = comment_share(record.language, text, signals)
    if (objection := filters.is_commentary(record.language, commented, config.cleaning)) is not None:
        record.reason, record.detail = "commentary", objection
        return
    stated = licenses.file_license(text)
    if stated != licenses.UNKNOWN:
        record.license = stated
    if config.licenses != "any" and not record.own and not licenses.is_allowed(record.license, config.licenses):
        record.reason, record.detail = "license", record.license
        return
    if not record.own and (against := _foreign(record, text, config)) is not None:
        record.reason, record.detail = against
        return
    if config.evaluations and (overlap := load_evaluations(config.evaluations).find(text)) is not None:
        record.contamination = f"{overlap.problem} {overlap.share:.3f}"
        if overlap.share >= config.cleaning.max_contamination:
            record.reason, record.detail = "contaminated", f"{overlap.share:.0%} of {overlap.problem}"
            return
    text = _redact(record, text, config)
    record.text = text
    record.sha256 = hashlib.sha256(text.encode()).hexdigest()
    if record.redactions != "{}":
        signals = sample_signals(text)
    parts = quality_parts(record.language, text, error_share=errors, commented=commented, found=signals)
    _score(record, parts, config)


def _score(record: Record, parts: dict[str, float], config: DataConfig) -> None:
    record.quality_parts = msgspec.json.encode(parts).decode()
    record.quality = quality(parts)
    if record.quality < config.cleaning.min_quality:
        record.reason, record.detail = "low quality", f"{record.quality:.3f}"
        record.text, record.sha256 = None, ""


def _lint(records: list[Record], config: DataConfig) -> None:
    """Add ruff's findings to the score of Python: none a hundred lines is 1, ten are 0."""
    chosen = [(record, record.text) for record in records if record.language == "python" and record.text is not None]
    for (record, text), count in zip(chosen, count_findings([text for _, text in chosen]), strict=True):
        parts = msgspec.json.decode(record.quality_parts, type=dict[str, float])
        parts["lint"] = round(max(0.0, 1 - 10 * count / (text.count("\n") + 1)), 3)
        _score(record, parts, config)


def _foreign(record: Record, text: str, config: DataConfig) -> tuple[str, str] | None:
    """What speaks against reference material only: rules for prose from the web (`.web.`), signs of malware,
    toxic comments.
    """
    rules = config.cleaning
    if record.language in languages.PROSE and ".web." in record.path.rpartition("/")[2]:
        if (detail := is_poor_prose(text, rules.prose)) is not None:
            return "prose", detail
        if (detail := is_repetitive(text, rules.prose)) is not None:
            return "repetitive", detail
    if rules.drop_obfuscated and (detail := is_obfuscated(text)) is not None:
        return "obfuscated", detail
    if (detail := is_toxic(record.language, text, rules.toxic)) is not None:
        return "toxic", detail
    return None


def _redact(record: Record, text: str, config: DataConfig) -> str:
    found: dict[str, int] = {}
    if config.cleaning.redact_secrets:
        text, found = redact(text)
    if config.cleaning.redact_personal == "all" or (config.cleaning.redact_personal == "reference" and not record.own):
        text, personal = redact_personal(text, config.cleaning.personal)
        found = {**found, **personal}
    record.redactions = msgspec.json.encode(found, order="sorted").decode()
    return text


def _objection(name: str, language: str, text: str, config: DataConfig) -> tuple[str, str]:
    """The first filter that objects, cheap ones first, and its detail; ("", "") when none does."""
    checks: tuple[tuple[str, Callable[[], str | None]], ...] = (
        ("generated", lambda: filters.is_generated(name, text)),
        ("minified", lambda: filters.is_minified(language, text, config.cleaning)),
        ("data", lambda: filters.is_data(language, text, config.cleaning)),
        ("data", lambda: filters.is_encoded(language, text, config.cleaning)),
        ("data", lambda: filters.is_hollow(language, text, config.cleaning)),
    )
    for reason, check in checks:
        if (detail := check()) is not None:
            return reason, detail
    return "", ""
