"""Floor 2, distributed: the search for near-duplicates as steps over Arrow tables, for an engine of many machines.

Says what each worker computes and which rows must meet; the engine (`adapters/spark.py`, `adapters/ray.py`) moves
them. Knows no engine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from highrise.core.errors import InputError
from highrise.core.native import rust
from highrise.data.columns import hand_over
from highrise.data.duplicates import Settings

__all__ = ["Engine", "Frame", "deduplicate_frame"]

Frame = Any
"""Rows that lie somewhere in the engine."""
Step = Callable[[Any], Any]
Meeting = Callable[[Any, Any], Any]

_PAIR = pa.schema([("left", pa.int64()), ("right", pa.int64())])
_MAX_ROUNDS = 64


class Engine(Protocol):
    """What the algorithm asks of an engine. A step gets Arrow tables and gives one with the columns of `schema`."""

    def map(self, frame: Frame, step: Step, schema: Any) -> Frame:
        """`step` over the rows in parts of any size."""

    def group(self, frame: Frame, key: str, step: Step, schema: Any) -> Frame:
        """`step` over parts such that all rows of one value of `key` (int64) are in one."""

    def meet(self, left: Frame, left_key: str, right: Frame, right_key: str, step: Meeting, schema: Any) -> Frame:
        """`step` over parts of both such that rows with equal keys (int64) are in one."""

    def union(self, frames: list[Frame]) -> Frame:
        """The rows of all."""

    def keep(self, frame: Frame) -> Frame:
        """The same rows, computed once."""

    def collect(self, frame: Frame) -> Any:
        """The rows here, as one Arrow table; asked for only of a row a part."""


def deduplicate_frame(engine: Engine, texts: Frame, settings: Settings) -> Frame:
    """For each row of `texts` (id int64, text) one of id, cluster (the smallest id of its cluster), keep.

    Ids must differ. The clusters are those that `highrise.data.deduplicate` finds over all texts, equality being that
    of a 128-bit hash.
    """
    if settings.threshold is None:
        raise InputError("threshold is None; many machines look for near-duplicates, use a similarity above 0")
    steps = _Steps(settings)
    signed = engine.keep(engine.map(texts, steps.sign, _signed_schema()))
    hashes = engine.map(signed, lambda table: table.select(["id", "first", "second"]), _HASHES)
    firsts = engine.keep(engine.group(hashes, "first", _first_ids, _FIRSTS))
    distinct = engine.keep(engine.meet(signed, "id", firsts, "id", _only_first, _signed_schema()))
    keys = engine.map(distinct, _explode, _KEYS)
    crowded = engine.group(keys, "key", _crowded, _KEYS)
    members = engine.meet(crowded, "id", distinct, "id", _with_signature, _MEMBERS)
    pairs = engine.keep(engine.group(members, "key", steps.compare, _VERDICTS))
    accepted = engine.map(pairs, lambda table: _verdict(table, False), _PAIR)
    roots = _components(engine, accepted)
    borderline = engine.map(pairs, lambda table: _verdict(table, True), _PAIR)
    open_pairs = engine.meet(borderline, "left", roots, "id", _attach_root("left", "left_root"), _OPEN)
    open_pairs = engine.meet(open_pairs, "right", roots, "id", _unconnected, _PAIR)
    open_pairs = engine.group(open_pairs, "left", _distinct_pairs, _PAIR)
    with_left = engine.meet(open_pairs, "left", texts, "id", _attach_text("left", "left_text"), _LEFT_TEXTS)
    similar = engine.meet(with_left, "right", texts, "id", steps.check, _PAIR)
    # the star of each component stands for the pairs it was made of
    stars = engine.map(roots, _as_pairs, _PAIR)
    roots = _components(engine, engine.union([stars, similar]))
    members = engine.meet(roots, "id", distinct, "id", _with_content, _CONTENTS)
    clusters = engine.group(members, "root", steps.stars, _CLUSTERS)
    return engine.meet(firsts, "first_id", clusters, "id", _labels, _RESULT)


def _signed_schema() -> Any:
    return pa.schema(
        [
            ("id", pa.int64()),
            ("first", pa.int64()),
            ("second", pa.int64()),
            ("shingles", pa.int64()),
            ("signature", pa.binary()),
            ("keys", pa.binary()),
        ]
    )


_HASHES = pa.schema([("id", pa.int64()), ("first", pa.int64()), ("second", pa.int64())])
_FIRSTS = pa.schema([("id", pa.int64()), ("first_id", pa.int64())])
_KEYS = pa.schema([("id", pa.int64()), ("band", pa.int64()), ("key", pa.int64())])
_MEMBERS = pa.schema([*_KEYS, ("signature", pa.binary())])
_VERDICTS = pa.schema([*_PAIR, ("borderline", pa.bool_())])
_OPEN = pa.schema([*_PAIR, ("left_root", pa.int64())])
_LEFT_TEXTS = pa.schema([*_PAIR, ("left_text", pa.large_binary())])
_ROOTS = pa.schema([("id", pa.int64()), ("root", pa.int64())])
_CONTENTS = pa.schema([*_ROOTS, ("first", pa.int64()), ("second", pa.int64()), ("signature", pa.binary())])
_CLUSTERS = pa.schema([("id", pa.int64()), ("cluster", pa.int64())])
_RESULT = pa.schema([*_CLUSTERS, ("keep", pa.bool_())])


class _Steps(msgspec.Struct, frozen=True):
    """The steps that need the settings."""

    settings: Settings

    def sign(self, table: Any) -> Any:
        """Signature, keys and content hash of each text."""
        settings = msgspec.structs.replace(self.settings, threads=1)
        texts = hand_over(_large(table.column("text")))
        signatures, shingles = rust.data.signatures(texts, settings)
        hashes = rust.data.content_hashes(texts, settings).view(np.int64)
        keys = rust.data.band_keys(signatures, settings) if len(signatures) else np.zeros((0, 1), dtype=np.uint64)
        columns = {
            "id": table.column("id"),
            "first": hashes[:, 0].copy(),
            "second": hashes[:, 1].copy(),
            "shingles": shingles.astype(np.int64),
            "signature": _blobs(signatures),
            "keys": _blobs(keys),
        }
        return pa.table(columns, schema=_signed_schema())

    def compare(self, table: Any) -> Any:
        """The pairs that the members of each bucket make."""
        table = table.sort_by([("band", "ascending"), ("key", "ascending"), ("id", "ascending")])
        ids, band, key = (_numbers(table, name) for name in ("id", "band", "key"))
        marks = _marks((band[1:] != band[:-1]) | (key[1:] != key[:-1]), len(ids))
        signatures = _matrix(table.column("signature"), np.uint32, self.settings.num_perm)
        accepted, borderline = rust.data.compare_buckets(marks, signatures, self.settings)
        both = np.concatenate([accepted, borderline])
        left, right = ids[both[:, 0]], ids[both[:, 1]]
        flags = np.arange(len(both)) >= len(accepted)
        pairs = {"left": np.minimum(left, right), "right": np.maximum(left, right), "borderline": flags}
        return pa.table(pairs, schema=_VERDICTS).group_by(_VERDICTS.names).aggregate([])

    def check(self, pairs: Any, texts: Any) -> Any:
        """The pairs whose texts are similar."""
        places = _places(texts, "id", _numbers(pairs, "right"))
        pairs, places = pairs.filter(places >= 0), places[places >= 0]
        right = _large(texts.column("text")).take(places)
        near = rust.data.similar(hand_over(_large(pairs.column("left_text"))), hand_over(right), self.settings)
        return pairs.select(["left", "right"]).filter(pa.array(near))

    def stars(self, table: Any) -> Any:
        """The clusters of each component."""
        table = table.sort_by([("root", "ascending"), ("id", "ascending")])
        ids, root = _numbers(table, "id"), _numbers(table, "root")
        hashes = np.stack([_numbers(table, "first"), _numbers(table, "second")], axis=1).view(np.uint64)
        signatures = _matrix(table.column("signature"), np.uint32, self.settings.num_perm)
        rows = rust.data.stars(_marks(root[1:] != root[:-1], len(ids)), signatures, hashes, self.settings)
        return pa.table({"id": ids, "cluster": ids[rows]}, schema=_CLUSTERS)


def _components(engine: Engine, pairs: Frame) -> Frame:
    """For each id that stands in a pair the smallest id connected with it: large star and small star in turn until
    nothing changes (Kiveris et al., Connected Components in MapReduce and Beyond, 2014)."""
    edges = engine.keep(engine.group(pairs, "left", _distinct_pairs, _PAIR))
    seen = None
    for _ in range(_MAX_ROUNDS):
        large = engine.group(engine.map(edges, _both_ways, _PAIR), "left", _large_star, _PAIR)
        edges = engine.keep(engine.group(engine.map(large, _downwards, _PAIR), "left", _small_star, _PAIR))
        total = engine.collect(engine.map(edges, _checksum, _SUM))
        now = (int(pc.sum(total["count"]).as_py() or 0), sum(total["sum"].to_pylist()) & (2**64 - 1))
        if now == seen:
            return engine.keep(engine.group(engine.map(edges, _as_roots, _ROOTS), "id", _smallest_root, _ROOTS))
        seen = now
    raise InputError(f"the components did not settle in {_MAX_ROUNDS} rounds; this is a bug")


_SUM = pa.schema([("count", pa.int64()), ("sum", pa.int64())])


def _both_ways(table: Any) -> Any:
    left, right = _numbers(table, "left"), _numbers(table, "right")
    return _pairs(np.concatenate([left, right]), np.concatenate([right, left]))


def _downwards(table: Any) -> Any:
    left, right = _numbers(table, "left"), _numbers(table, "right")
    return _pairs(np.maximum(left, right), np.minimum(left, right))


def _large_star(table: Any) -> Any:
    """Each larger neighbour of a node is tied to the smallest of its neighbourhood."""
    node, other, smallest = _neighbourhoods(table)
    larger = other > node
    return _unique_pairs(smallest[larger], other[larger])


def _small_star(table: Any) -> Any:
    """A node and its smaller neighbours are tied to the smallest of them."""
    node, other, smallest = _neighbourhoods(table)
    left, right = np.concatenate([smallest, smallest]), np.concatenate([other, node])
    return _unique_pairs(left[left != right], right[left != right])


def _neighbourhoods(table: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Node, neighbour, and the smallest of the node and its neighbours, for each pair."""
    node, other = _numbers(table, "left"), _numbers(table, "right")
    order = np.lexsort((other, node))
    node, other = node[order], other[order]
    marks = _marks(node[1:] != node[:-1], len(node))
    smallest = np.minimum(node, np.repeat(other[marks[:-1]], np.diff(marks)))
    return node, other, smallest


def _checksum(table: Any) -> Any:
    left, right = _numbers(table, "left").view(np.uint64), _numbers(table, "right").view(np.uint64)
    mixed = (left * np.uint64(0x9E3779B97F4A7C15)) ^ (right * np.uint64(0xD6E8FEB86659FD93))
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    total = int(mixed.sum(dtype=np.uint64)) if len(mixed) else 0
    return pa.table({"count": [len(mixed)], "sum": [total - 2**64 if total >= 2**63 else total]}, schema=_SUM)


def _as_roots(table: Any) -> Any:
    left, right = _numbers(table, "left"), _numbers(table, "right")
    return pa.table({"id": np.concatenate([right, left]), "root": np.concatenate([left, left])}, schema=_ROOTS)


def _smallest_root(table: Any) -> Any:
    found = table.group_by("id").aggregate([("root", "min")])
    return pa.table({"id": found["id"], "root": found["root_min"]}, schema=_ROOTS)


def _as_pairs(table: Any) -> Any:
    root, other = _numbers(table, "root"), _numbers(table, "id")
    return _pairs(root[root != other], other[root != other])


def _first_ids(table: Any) -> Any:
    found = table.group_by(["first", "second"]).aggregate([("id", "min")])
    joined = table.join(found, ["first", "second"])
    return pa.table({"id": joined["id"], "first_id": joined["id_min"]}, schema=_FIRSTS)


def _only_first(signed: Any, firsts: Any) -> Any:
    places = _places(firsts, "id", _numbers(signed, "id"))
    own = _numbers(firsts, "first_id")[places] == _numbers(signed, "id")
    return signed.filter(own & (_numbers(signed, "shingles") > 0))


def _explode(table: Any) -> Any:
    keys = _matrix(table.column("keys"), np.int64, -1)
    rows, bands = keys.shape
    columns = {
        "id": np.repeat(_numbers(table, "id"), bands),
        "band": np.tile(np.arange(bands, dtype=np.int64), rows),
        "key": keys.ravel(),
    }
    return pa.table(columns, schema=_KEYS)


def _crowded(table: Any) -> Any:
    counts = table.group_by(["band", "key"]).aggregate([("id", "count")])
    counts = counts.filter(pc.greater(counts["id_count"], 1)).select(["band", "key"])
    return table.join(counts, ["band", "key"], join_type="inner").select(_KEYS.names)


def _with_signature(members: Any, distinct: Any) -> Any:
    places = _places(distinct, "id", _numbers(members, "id"))
    return members.append_column("signature", distinct["signature"].take(places))


def _with_content(roots: Any, distinct: Any) -> Any:
    places = _places(distinct, "id", _numbers(roots, "id"))
    found = distinct.select(["first", "second", "signature"]).take(places)
    return pa.table(
        {"id": roots["id"], "root": roots["root"], **dict(zip(found.column_names, found.columns, strict=True))}
    )


def _verdict(table: Any, borderline: bool) -> Any:
    flags = table["borderline"]
    return table.filter(flags if borderline else pc.invert(flags)).select(["left", "right"])


def _attach_root(side: str, name: str) -> Meeting:
    def attach(pairs: Any, roots: Any) -> Any:
        return pairs.append_column(name, pa.array(_root_of(pairs, side, roots)))

    return attach


def _root_of(pairs: Any, side: str, roots: Any) -> npt.NDArray[np.int64]:
    """The root of one side of each pair; its own where it is in no component."""
    ids = _numbers(pairs, side)
    places = _places(roots, "id", ids)
    found = ids.copy()
    found[places >= 0] = _numbers(roots, "root")[places[places >= 0]]
    return found


def _unconnected(pairs: Any, roots: Any) -> Any:
    apart = _root_of(pairs, "right", roots) != _numbers(pairs, "left_root")
    return pairs.select(["left", "right"]).filter(pa.array(apart))


def _attach_text(side: str, name: str) -> Meeting:
    def attach(pairs: Any, texts: Any) -> Any:
        places = _places(texts, "id", _numbers(pairs, side))
        return pairs.append_column(name, _large(texts["text"]).take(places))

    return attach


def _labels(firsts: Any, clusters: Any) -> Any:
    ids, first = _numbers(firsts, "id"), _numbers(firsts, "first_id")
    places = _places(clusters, "id", first)
    labels = first.copy()
    labels[places >= 0] = _numbers(clusters, "cluster")[places[places >= 0]]
    return pa.table({"id": ids, "cluster": labels, "keep": labels == ids}, schema=_RESULT)


def _distinct_pairs(table: Any) -> Any:
    return table.group_by(["left", "right"]).aggregate([])


def _pairs(left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> Any:
    return pa.table({"left": left, "right": right}, schema=_PAIR)


def _unique_pairs(left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> Any:
    return _distinct_pairs(_pairs(left, right))


def _numbers(table: Any, name: str) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = table[name].to_numpy()
    return found


def _marks(changes: npt.NDArray[np.bool_], rows: int) -> npt.NDArray[np.int64]:
    """Where runs begin, and the end."""
    if not rows:
        return np.zeros(1, dtype=np.int64)
    return np.concatenate([[0], np.flatnonzero(changes) + 1, [rows]]).astype(np.int64)


def _places(table: Any, name: str, wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The row of `table` with each wanted value; -1 where there is none."""
    held = _numbers(table, name)
    if not len(held):
        return np.full(len(wanted), -1, dtype=np.int64)
    order = np.argsort(held, kind="stable")
    found = np.minimum(np.searchsorted(held[order], wanted), len(held) - 1)
    places = order[found].astype(np.int64)
    places[held[places] != wanted] = -1
    return places


def _large(column: Any) -> Any:
    """A column of bytes with 64-bit offsets, in one piece, absent texts as empty ones."""
    whole = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    whole = whole.cast(pa.large_binary())
    return whole.fill_null(b"") if whole.null_count else whole


def _blobs(matrix: npt.NDArray[Any]) -> Any:
    """Each row of a matrix as bytes."""
    width = matrix.shape[1] * matrix.itemsize
    offsets = np.arange(len(matrix) + 1, dtype=np.int32) * width
    return pa.BinaryArray.from_buffers(pa.binary(), len(matrix), [None, pa.py_buffer(offsets), pa.py_buffer(matrix)])


def _matrix(column: Any, kind: Any, width: int) -> npt.NDArray[Any]:
    """Bytes of equal lengths as the rows of a matrix; `width` -1 takes it from the first."""
    blobs = [chunk for chunk in column.chunks if len(chunk)]
    size = np.dtype(kind).itemsize
    if not blobs:
        return np.zeros((0, max(width, 1)), dtype=kind)
    parts = []
    for chunk in blobs:
        _, offsets, data = chunk.buffers()
        marks = np.frombuffer(offsets, dtype=np.int64 if "large" in str(chunk.type) else np.int32)
        marks = marks[chunk.offset : chunk.offset + len(chunk) + 1]
        flat = np.frombuffer(data, dtype=np.uint8)[marks[0] : marks[-1]]
        parts.append(flat.reshape(len(chunk), -1))
    whole = np.ascontiguousarray(np.concatenate(parts))
    found: npt.NDArray[Any] = whole.view(kind)
    assert width < 0 or found.shape[1] == width, f"rows of {found.shape[1] * size} bytes, not of {width * size}"
    return found
