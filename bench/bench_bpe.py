"""Byte-level BPE beside its peers: same vocabulary, same texts, one thread, ids equal first, processor time.

The vocabulary is OpenAI's cl100k where its rank file is on this machine, else Qwen2.5-Coder's, else one trained here.
"unseen" encodes text that the warmed tokenizer has not met yet, "repeated" the same text again; a service sees
something in between. A peer that is not installed, or does not know the vocabulary, is skipped.
"""

from __future__ import annotations

import base64
import functools
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench.texts import KINDS, megabytes, taken

from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError
from highrise.encode import Tokenizer

MEASURED, WARM, TRAIN = 1_200_000, 600_000, 3_000_000
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LISTS = ("highrise", "fastokens", "gigatoken", "toktok-rs", "tuetoken", "tiktoken", "tokenizers")
TIMER = pytest.mark.benchmark(timer=time.process_time)


@functools.cache
def vocabulary() -> tuple[str, Tokenizer]:
    """Name and tokenizer."""
    try:
        return "cl100k_base", Tokenizer.named("cl100k_base")
    except HighriseError:
        pass
    try:
        return "Qwen2.5-Coder", Tokenizer.for_weights(locate("qwen2.5-coder-0.5b"))
    except HighriseError:
        texts = taken("code", 3_000_000)[0]
        return "trained 16,000", Tokenizer.train(texts, vocabulary=16_000, pattern="qwen2", special=("<|endoftext|>",))


@functools.cache
def files() -> tuple[Path, Path]:
    """The vocabulary as tokenizer.json and as ranks."""
    name, known = vocabulary()
    folder = Path(tempfile.mkdtemp())
    (folder / "tokenizer.json").write_bytes(known.to_json())
    ranks = folder / f"{name}.tiktoken"
    if name == "cl100k_base":
        ranks.write_bytes(known.to_ranks())
    return folder / "tokenizer.json", ranks


def _read_ranks(path: Path) -> dict[bytes, int]:
    lines = (line.split() for line in path.read_bytes().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def peer(who: str) -> Any:
    """A new tokenizer of a peer, or of ours."""
    name, known = vocabulary()
    json_file, ranks = files()
    if who == "highrise":
        return Tokenizer.from_ranks(ranks, scheme="cl100k") if ranks.exists() else Tokenizer.from_file(json_file)
    module = pytest.importorskip({"toktok-rs": "toktok"}.get(who, who))
    if who == "tiktoken":
        special = set(known.special_tokens.values())
        table = _read_ranks(ranks) if ranks.exists() else {}
        if not table:
            special = set(known.special_tokens.values())
            table = {known.token(index): index for index in range(known.vocab_size) if index not in special}
        pattern = CL100K if name == "cl100k_base" else QWEN2
        return module.Encoding("bench", pat_str=pattern, mergeable_ranks=table, special_tokens={})
    if who == "tokenizers":
        loaded = module.Tokenizer.from_file(str(json_file))
        loaded.encode_special_tokens = True
        return loaded
    if who == "toktok-rs":
        if name != "cl100k_base":
            pytest.skip("toktok-rs has its own vocabularies only")
        return module._Tokenizer(name, "")
    if who == "gigatoken":
        return (
            module.Tokenizer.from_tiktoken(ranks, pretokenizer="cl100k")
            if ranks.exists()
            else module.Tokenizer(json_file)
        )
    if who == "fastokens" and ranks.exists():
        return module.Tokenizer.from_tiktoken(str(ranks), encoding=name)
    if who == "fastokens":
        return module.Tokenizer.from_file(str(json_file))
    return module.Tokenizer(str(json_file))


def lists(who: str, loaded: Any) -> Callable[[str], list[int]]:
    """Text to a list of ids, special tokens being plain text."""
    encoders: dict[str, Callable[[], Callable[[str], list[int]]]] = {
        "highrise": lambda: loaded.encode,
        "tiktoken": lambda: loaded.encode_ordinary,
        "toktok-rs": lambda: loaded.encode_ordinary,
        "tuetoken": lambda: loaded.encode_ordinary,
        "fastokens": lambda: lambda text: loaded.encode_ordinary(text).ids,
        "gigatoken": lambda: lambda text: loaded.encode(text).tolist(),
        "tokenizers": lambda: lambda text: loaded.encode(text, add_special_tokens=False).ids,
    }
    return encoders[who]()


@functools.cache
def measured(kind: str) -> tuple[list[str], list[str], list[list[int]]]:
    """Texts to measure, texts to warm up with, and the ids of the first."""
    texts, warm = taken(kind, MEASURED, WARM)
    return texts, warm, [vocabulary()[1].encode(text) for text in texts]


def warmed(who: str, kind: str) -> tuple[Callable[[str], list[int]], list[str]]:
    """A new encoder that has seen the warm-up texts only, and texts that no earlier round has touched."""
    texts, warm, _ = measured(kind)
    encode = lists(who, peer(who))
    for text in warm:
        encode(text)
    return encode, [text[:1] + text[1:] for text in texts]


def run_all(encode: Callable[[Any], Any], texts: list[Any]) -> None:
    for text in texts:
        encode(text)


def note(benchmark: Any, path: str, who: str, amount: float, remark: str = "") -> None:
    benchmark.extra_info.update(path=path, who=who, amount=amount, unit="MB", note=remark or vocabulary()[0])


@TIMER
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("who", LISTS)
def test_encode_unseen(benchmark: Any, who: str, kind: str) -> None:
    encode, texts = warmed(who, kind)
    assert [list(encode(text)) for text in texts] == measured(kind)[2]
    rounds = 3 if who in ("highrise", "fastokens") else 1
    benchmark.pedantic(run_all, setup=lambda: (warmed(who, kind), {}), rounds=rounds)
    note(benchmark, f"bpe-encode-unseen-{kind}", who, megabytes(texts))


@TIMER
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("who", LISTS[:3])
def test_encode_repeated(benchmark: Any, who: str, kind: str) -> None:
    encode, texts = warmed(who, kind)
    benchmark.pedantic(run_all, args=(encode, texts), rounds=5, warmup_rounds=1)
    note(benchmark, f"bpe-encode-repeated-{kind}", who, megabytes(texts))


@TIMER
@pytest.mark.parametrize("who", LISTS[:5])
def test_encode_short(benchmark: Any, who: str) -> None:
    encode, texts = warmed(who, "code")
    short = [text[at : at + 200] for text in texts for at in range(0, len(text), 200)]
    benchmark.pedantic(run_all, args=(encode, short), rounds=5, warmup_rounds=1)
    note(benchmark, "bpe-encode-200-bytes", who, megabytes(short))


@TIMER
@pytest.mark.parametrize("who", ["highrise", "fastokens"])
def test_encode_flat(benchmark: Any, who: str) -> None:
    texts, _, ids = measured("code")
    flat = peer(who).encode_batch if who == "highrise" else peer(who).encode_batch_flat
    first = flat(texts)[0]
    whole = first.tolist() if who == "highrise" else np.frombuffer(first, np.uint32).tolist()
    assert whole == [token for one in ids for token in one]
    benchmark.pedantic(flat, args=(texts,), rounds=7, warmup_rounds=1)
    note(benchmark, "bpe-encode-flat", who, megabytes(texts))


@TIMER
@pytest.mark.parametrize("who", ["highrise", "toktok-rs", "tuetoken"])
def test_count(benchmark: Any, who: str) -> None:
    texts, _, ids = measured("code")
    loaded = peer(who)
    count = loaded.count_tokens if who == "tuetoken" else loaded.count
    assert [count(text) for text in texts] == [len(one) for one in ids]
    benchmark.pedantic(run_all, args=(count, texts), rounds=5)
    note(benchmark, "bpe-count", who, megabytes(texts))


@TIMER
@pytest.mark.parametrize("who", ["highrise", "tuetoken", "toktok-rs", "tiktoken", "tokenizers"])
def test_decode(benchmark: Any, who: str) -> None:
    texts, _, ids = measured("code")
    decode = peer(who).decode
    assert [decode(one) for one in ids] == texts
    benchmark.pedantic(run_all, args=(decode, ids), rounds=5)
    note(benchmark, "bpe-decode", who, megabytes(texts))


@pytest.mark.parametrize("threads", [1, 2])
def test_threads(benchmark: Any, threads: int) -> None:
    texts = measured("code")[0] * 4
    encode = peer("highrise").encode_batch
    benchmark.pedantic(encode, args=(texts,), kwargs={"threads": threads}, rounds=7, warmup_rounds=1)
    who = "highrise" if threads == 1 else "highrise 2 threads"
    note(benchmark, "bpe-encode-batch-wall", who, megabytes(texts), f"{threads} threads, wall")


@TIMER
@pytest.mark.parametrize("who", ["highrise", "rustbpe", "gigabpe", "tokenizers"])
def test_train(benchmark: Any, who: str, tmp_path: Path) -> None:
    corpus, size = taken("code", TRAIN)[0], 8000

    def ours() -> Tokenizer:
        return Tokenizer.train(corpus, vocabulary=size, pattern="gpt2", min_count=0)

    if who == "highrise":
        benchmark.pedantic(ours, rounds=3)
    elif who == "tokenizers":
        module = pytest.importorskip(who)
        trained = module.Tokenizer(module.models.BPE())
        trained.pre_tokenizer = module.pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = module.pre_tokenizers.ByteLevel.alphabet()
        trainer = module.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        benchmark.pedantic(trained.train_from_iterator, args=(corpus, trainer), rounds=1)
        expected = json.loads(ours().to_json())["model"]["merges"]
        assert json.loads(trained.to_str())["model"]["merges"] == expected
    elif who == "rustbpe":
        module = pytest.importorskip(who)
        pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
        run = lambda: module.Tokenizer().train_from_iterator(iter(corpus), size, pattern=pattern)  # noqa: E731
        benchmark.pedantic(run, rounds=1)
    else:
        module = pytest.importorskip(who)
        (tmp_path / "corpus.txt").write_text("".join(corpus))
        run = lambda: module.train_bpe([str(tmp_path / "corpus.txt")], size, threads=1)  # noqa: E731
        benchmark.pedantic(run, rounds=1)
    note(benchmark, "bpe-train", who, megabytes(corpus), "vocabulary 8,000")
