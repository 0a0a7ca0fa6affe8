"""Byte-level BPE beside tiktoken, tokenizers and fastokens: same vocabulary, same texts, one thread, ids equal first.

The vocabulary is Qwen2.5-Coder's where its weights are in the cache, else one trained here on other files than those
measured. Texts are pieces of 8 kB of the standard library. "unseen" encodes text that the warmed tokenizer has not met
yet, "repeated" the same text again; a service sees something in between. A peer that is not installed is skipped.
"""

from __future__ import annotations

import functools
import random
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError
from highrise.encode import Tokenizer

WARM_BYTES, TEXT_BYTES, PIECE = 800_000, 1_600_000, 8192
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PEERS = ("highrise", "tiktoken", "tokenizers", "fastokens")
TIMER = pytest.mark.benchmark(timer=time.process_time)


@functools.cache
def texts() -> tuple[list[str], list[str], list[str]]:
    """Texts to train on, to warm up with, and to measure."""
    pieces = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if "site-packages" not in path.parts:
            text = path.read_text("utf-8", "replace")
            pieces += [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
    random.Random(3).shuffle(pieces)

    def take(size: int) -> list[str]:
        taken: list[str] = []
        while size > 0:
            taken.append(pieces.pop())
            size -= len(taken[-1].encode())
        return taken

    return take(3_000_000), take(WARM_BYTES), take(TEXT_BYTES)


def megabytes(pieces: list[str]) -> float:
    return sum(len(text.encode()) for text in pieces) / 1e6


@functools.cache
def vocabulary() -> tuple[str, bytes, Tokenizer]:
    """Name, tokenizer.json and tokenizer."""
    try:
        name, tokenizer = "Qwen2.5-Coder 151,936", Tokenizer.for_weights(locate("qwen2.5-coder-0.5b"))
    except HighriseError:
        tokenizer = Tokenizer.train(texts()[0], vocabulary=16_000, pattern="qwen2", special=("<|endoftext|>",))
        name = "trained 16,000"
    return name, tokenizer.to_json(), tokenizer


def fresh(who: str) -> Callable[[str], list[int]]:
    """A new encoder that has seen the warm-up texts only."""
    _, content, known = vocabulary()
    encode: Callable[[str], list[int]]
    if who == "highrise":
        encode = Tokenizer.from_bytes(content).encode
    elif who == "tiktoken":
        tiktoken = pytest.importorskip("tiktoken")
        special = set(known.special_tokens.values())
        ranks = {known.token(index): index for index in range(known.vocab_size) if index not in special}
        encode = tiktoken.Encoding("bench", pat_str=QWEN2, mergeable_ranks=ranks, special_tokens={}).encode_ordinary
    elif who == "tokenizers":
        loaded = pytest.importorskip("tokenizers").Tokenizer.from_str(content.decode())
        loaded.encode_special_tokens = True
        encode = lambda text: loaded.encode(text, add_special_tokens=False).ids  # noqa: E731
    else:
        other = pytest.importorskip("fastokens").Tokenizer.from_json_str(content.decode())
        encode = lambda text: other.encode_ordinary(text).ids  # noqa: E731
    for text in texts()[1]:
        encode(text)
    return encode


@functools.cache
def expected() -> list[list[int]]:
    return [vocabulary()[2].encode(text) for text in texts()[2]]


def note(benchmark: Any, path: str, who: str, amount: float) -> None:
    benchmark.extra_info.update(path=path, who=who, amount=amount, unit="MB", note=vocabulary()[0])


def all_of(encode: Callable[[str], Any]) -> None:
    for text in texts()[2]:
        encode(text)


@TIMER
@pytest.mark.parametrize("who", PEERS)
def test_encode_unseen(benchmark: Any, who: str) -> None:
    assert [list(ids) for ids in map(fresh(who), texts()[2])] == expected()
    rounds = 3 if who in ("highrise", "fastokens") else 1
    benchmark.pedantic(all_of, setup=lambda: ((fresh(who),), {}), rounds=rounds)
    note(benchmark, "bpe-encode-unseen", who, megabytes(texts()[2]))


@TIMER
@pytest.mark.parametrize("who", PEERS)
def test_encode_repeated(benchmark: Any, who: str) -> None:
    encode = fresh(who)
    assert [list(ids) for ids in map(encode, texts()[2])] == expected()
    benchmark.pedantic(all_of, args=(encode,), rounds=5 if who in ("highrise", "fastokens") else 1)
    note(benchmark, "bpe-encode", who, megabytes(texts()[2]))


@TIMER
@pytest.mark.parametrize("who", ["highrise", "fastokens"])
def test_encode_flat(benchmark: Any, who: str) -> None:
    whole = [token for ids in expected() for token in ids]
    flat: Callable[[list[str]], Any]
    if who == "highrise":
        flat = vocabulary()[2].encode_batch
        assert flat(texts()[2])[0].tolist() == whole
    else:
        flat = pytest.importorskip("fastokens").Tokenizer.from_json_str(vocabulary()[1].decode()).encode_batch_flat
        assert np.frombuffer(flat(texts()[2])[0], np.uint32).tolist() == whole
    benchmark.pedantic(flat, args=(texts()[2],), rounds=5, warmup_rounds=1)
    note(benchmark, "bpe-encode-flat", who, megabytes(texts()[2]))


@TIMER
def test_count(benchmark: Any) -> None:
    count = vocabulary()[2].count
    assert [count(text) for text in texts()[2]] == [len(ids) for ids in expected()]
    benchmark.pedantic(all_of, args=(count,), rounds=5)
    note(benchmark, "bpe-count", "highrise", megabytes(texts()[2]))


@TIMER
@pytest.mark.parametrize("who", ["highrise", "tokenizers"])
def test_decode(benchmark: Any, who: str) -> None:
    decode = vocabulary()[2].decode
    if who == "tokenizers":
        decode = pytest.importorskip("tokenizers").Tokenizer.from_str(vocabulary()[1].decode()).decode
    assert [decode(ids) for ids in expected()] == texts()[2]
    benchmark.pedantic(lambda: [decode(ids) for ids in expected()], rounds=3)
    note(benchmark, "bpe-decode", who, megabytes(texts()[2]))


@TIMER
@pytest.mark.parametrize("who", ["highrise", "tokenizers"])
def test_train(benchmark: Any, who: str) -> None:
    corpus, size = texts()[0], 8000
    ours = Tokenizer.train(corpus, vocabulary=size, pattern="gpt2", min_count=0)

    def theirs() -> Any:
        from tokenizers import Tokenizer as Peer
        from tokenizers import models, pre_tokenizers, trainers

        peer = Peer(models.BPE())
        peer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        peer.train_from_iterator(
            corpus, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        )
        return peer

    if who == "highrise":
        run: Callable[[], Any] = lambda: Tokenizer.train(corpus, vocabulary=size, pattern="gpt2", min_count=0)  # noqa: E731
        benchmark.pedantic(run, rounds=3)
    else:
        pytest.importorskip("tokenizers")
        peer = benchmark.pedantic(theirs, rounds=1)
        import json

        assert json.loads(peer.to_str())["model"]["merges"] == json.loads(ours.to_json())["model"]["merges"]
    note(benchmark, "bpe-train", who, megabytes(corpus))
    benchmark.extra_info.update(note="vocabulary 8,000")
