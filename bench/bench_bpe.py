"""Byte-level BPE beside its peers: same vocabulary, same texts, one thread, ids equal first, processor time.

The vocabulary is OpenAI's cl100k where its rank file is on this machine, else Qwen2.5-Coder's, else one trained here.
"unseen" encodes text that the warmed tokenizer has not met yet, "repeated" the same text again; a service sees
something in between. A peer that is not installed, or does not know the vocabulary, is skipped.
"""

from __future__ import annotations

import base64
import functools
import json
import os
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

MEASURED, WARM, TRAIN = 2_400_000, 1_200_000, 3_000_000
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
    if who == "fastokens":
        loaded = (
            module.Tokenizer.from_tiktoken(str(ranks), encoding=name)
            if ranks.exists()
            else module.Tokenizer.from_file(str(json_file))
        )
        _on_one_thread(loaded.encode_batch_flat)
        return loaded
    return module.Tokenizer(str(json_file))


@functools.cache
def shared(who: str) -> Any:
    """A tokenizer for what does not depend on the texts it has seen before."""
    return peer(who)


def _on_one_thread(batch: Callable[[list[str]], Any]) -> None:
    """Lets a peer's pool of threads begin while it is told to have one; a pool begun later is not touched."""
    before = os.environ.get("RAYON_NUM_THREADS")
    os.environ["RAYON_NUM_THREADS"] = "1"
    batch(["a", "b"])
    del os.environ["RAYON_NUM_THREADS"]
    if before is not None:
        os.environ["RAYON_NUM_THREADS"] = before


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
    # Of many languages there is less.
    texts, warm = taken(kind, *(MEASURED, WARM) if kind != "multilingual" else (MEASURED // 2, WARM // 2))
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
    if who == "tokenizers" and kind != "code":
        pytest.skip("some seconds for a figure that hardly differs from that of code")
    encode, texts = warmed(who, kind)
    # Compared first: pytest would write out how a million ids differ.
    equal = [list(encode(text)) for text in texts] == measured(kind)[2]
    assert equal
    rounds = {"highrise": 5, "fastokens": 5, "gigatoken": 3}.get(who, 1)
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
    texts = measured("code")[0]
    short = [text[at : at + 200] for text in texts for at in range(0, len(text), 200)]
    encode = lists(who, shared(who))
    assert [list(encode(text)) for text in short] == [vocabulary()[1].encode(text) for text in short]
    benchmark.pedantic(run_all, args=(encode, short), rounds=5, warmup_rounds=1)
    note(benchmark, "bpe-encode-200-bytes", who, megabytes(short))


def flat(who: str, loaded: Any) -> tuple[Callable[[list[str]], Any], Callable[[Any], list[int]]]:
    """Texts to one array of ids in whatever form a peer has it, on one thread; and that as a list."""
    if who == "highrise":
        return loaded.encode_batch, lambda found: found[0].tolist()
    if who == "fastokens":
        plain = functools.partial(loaded.encode_batch_flat, split_special_tokens=True)
        return plain, lambda found: np.frombuffer(found[0], np.uint32).tolist()
    alone = functools.partial(loaded.encode_batch, parallel=False)
    return alone, lambda found: [token for one in found.to_list() for token in one]


@TIMER
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("who", LISTS[:3])
def test_encode_flat(benchmark: Any, who: str, kind: str) -> None:
    texts, _, ids = measured(kind)
    encode, as_list = flat(who, shared(who))
    equal = as_list(encode(texts)) == [token for one in ids for token in one]
    assert equal
    benchmark.pedantic(encode, args=(texts,), rounds=9, warmup_rounds=1)
    note(benchmark, f"bpe-encode-flat-{kind}", who, megabytes(texts))


@TIMER
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("who", ["highrise", "toktok-rs", "tuetoken"])
def test_count(benchmark: Any, who: str, kind: str) -> None:
    texts, _, ids = measured(kind)
    loaded = shared(who)
    count = loaded.count_tokens if who == "tuetoken" else loaded.count
    assert [count(text) for text in texts] == [len(one) for one in ids]
    benchmark.pedantic(run_all, args=(count, texts), rounds=7)
    note(benchmark, f"bpe-count-{kind}", who, megabytes(texts))


@TIMER
@pytest.mark.parametrize("who", ["highrise", "tuetoken", "toktok-rs", "gigatoken", "tiktoken", "tokenizers"])
def test_decode(benchmark: Any, who: str) -> None:
    texts, _, ids = measured("code")
    decode = shared(who).decode
    text_of = (lambda found: found.decode()) if who == "gigatoken" else (lambda found: found)
    assert [text_of(decode(one)) for one in ids] == texts
    benchmark.pedantic(run_all, args=(decode, ids), rounds=5)
    note(benchmark, "bpe-decode", who, megabytes(texts))


@pytest.mark.parametrize("threads", [1, 2])
def test_threads(benchmark: Any, threads: int) -> None:
    texts = measured("code")[0] * 4
    encode = shared("highrise").encode_batch
    benchmark.pedantic(encode, args=(texts,), kwargs={"threads": threads}, rounds=7, warmup_rounds=1)
    who = "highrise" if threads == 1 else "highrise 2 threads"
    note(benchmark, "bpe-encode-batch-wall", who, megabytes(texts), f"{threads} threads, wall")


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def merges_of(loaded: Tokenizer) -> list[tuple[str, str]]:
    return [(left, right) for left, right in json.loads(loaded.to_json())["model"]["merges"]]


@TIMER
@pytest.mark.parametrize("who", ["highrise", "gigabpe", "rustbpe", "tokenizers"])
def test_train(benchmark: Any, who: str, tmp_path: Path) -> None:
    """The same lines and the same split for all; gigabpe reads files by lines and knows only the bytes it has seen."""
    lines, size = "".join(taken("code", TRAIN)[0]).split("\n"), 8000

    def ours() -> Tokenizer:
        return Tokenizer.train(lines, vocabulary=size, pattern="gpt2", min_count=0)

    if who == "highrise":
        benchmark.pedantic(ours, rounds=5)
    elif who == "tokenizers":
        module = pytest.importorskip(who)
        trained = module.Tokenizer(module.models.BPE())
        trained.pre_tokenizer = module.pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = module.pre_tokenizers.ByteLevel.alphabet()
        trainer = module.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        benchmark.pedantic(trained.train_from_iterator, args=(lines, trainer), rounds=1)
        found = [(left, right) for left, right in json.loads(trained.to_str())["model"]["merges"]]
        assert found == merges_of(ours())
    elif who == "rustbpe":
        module = pytest.importorskip(who)

        def run() -> dict[bytes, int]:
            trained = module.Tokenizer()
            trained.train_from_iterator(iter(lines), size, pattern=GPT2)
            return {bytes(token): rank for token, rank in trained.get_mergeable_ranks()}

        # Bytes have other numbers there, so equally frequent pairs come in another order: the same tokens all the same.
        known = ours()
        assert set(benchmark.pedantic(run, rounds=1)) == {known.token(index) for index in range(size)}
    else:
        module = pytest.importorskip(who)
        (tmp_path / "corpus.txt").write_text("\n".join(lines))
        run = lambda: module.train_bpe(  # noqa: E731
            [str(tmp_path / "corpus.txt")], size, threads=1, pretokenizer="bytelevel"
        )
        found, known = [tuple(pair) for pair in benchmark.pedantic(run, rounds=5)[1]], merges_of(ours())
        assert found[: len(known)] == known
    note(benchmark, "bpe-train", who, len("\n".join(lines).encode()) / 1e6, "vocabulary 8,000")
