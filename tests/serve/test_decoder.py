"""The decoder step against the numpy reference: random models, any batch and page layout, every instruction set."""

from __future__ import annotations

import os
import threading

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.core.native import csrc
from highrise.core.shape import DecoderShape
from tests.reference import decoder as reference
from tests.reference.paged_decoder import PagedDecoder
from tests.serve.isas import each_isa

PLAIN = DecoderShape(
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    intermediate_size=72,
    vocab_size=101,
    max_position_embeddings=512,
    head_dim=8,
    tie_word_embeddings=True,
)
QWEN = DecoderShape(
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=160,
    vocab_size=130,
    max_position_embeddings=512,
    head_dim=16,
    rope_theta=1e6,
    attention_bias=True,
)


def random_weights(shape: DecoderShape, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)

    def draw(*size: int) -> np.ndarray:
        return (rng.standard_normal(size) / np.sqrt(size[-1])).astype(np.float32)

    query, key_value = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    hidden, middle = shape.hidden_size, shape.intermediate_size
    weights = {
        "model.embed_tokens.weight": rng.standard_normal((shape.vocab_size, hidden)).astype(np.float32),
        "model.norm.weight": rng.uniform(0.5, 1.5, hidden).astype(np.float32),
    }
    if not shape.tie_word_embeddings:
        weights["lm_head.weight"] = draw(shape.vocab_size, hidden)
    for layer in range(shape.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}{name}.weight"] = rng.uniform(0.5, 1.5, hidden).astype(np.float32)
        for name, rows, cols in (
            ("self_attn.q_proj", query, hidden),
            ("self_attn.k_proj", key_value, hidden),
            ("self_attn.v_proj", key_value, hidden),
            ("self_attn.o_proj", hidden, query),
            ("mlp.gate_proj", middle, hidden),
            ("mlp.up_proj", middle, hidden),
            ("mlp.down_proj", hidden, middle),
        ):
            weights[f"{prefix}{name}.weight"] = draw(rows, cols)
            if shape.attention_bias and name[:-5] in ("self_attn.q", "self_attn.k", "self_attn.v"):
                weights[f"{prefix}{name}.bias"] = rng.standard_normal(rows).astype(np.float32)
    return weights


def make_decoder(shape: DecoderShape, weights: dict[str, np.ndarray], **options: object) -> csrc.Decoder:
    fields = msgspec.structs.asdict(shape)
    del fields["max_position_embeddings"]
    limit = options.pop("limit", "stored")
    decoder = csrc.Decoder(**fields, **{"num_pages": 40, "threads": 2, "kv": "float32"} | options)
    for name, value in weights.items():
        rows, cols = (*value.shape, 1)[:2]
        decoder.set_tensor(name, value.reshape(-1).view(np.uint8), "F32", rows, cols, limit)
    assert decoder.missing() is None
    return decoder


def int32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def run_whole(decoder: csrc.Decoder, tokens: list[int], adapter: int = -1) -> np.ndarray:
    count = len(tokens)
    table = np.arange(decoder.num_pages, dtype=np.int32)[None]
    rows = np.arange(count, dtype=np.int32)
    return decoder.forward(int32(*tokens), rows, np.zeros(count, np.int32), table, rows, int32(adapter))


@each_isa
@pytest.mark.parametrize("shape", [PLAIN, QWEN], ids=["plain", "qwen"])
@pytest.mark.parametrize("count", [1, 7, 90])
def test_whole_sequence(isa: str, shape: DecoderShape, count: int) -> None:
    weights = random_weights(shape)
    tokens = np.random.default_rng(count).integers(0, shape.vocab_size, count).tolist()
    decoder = make_decoder(shape, weights, isa=isa)
    np.testing.assert_allclose(run_whole(decoder, tokens), reference.logits(shape, weights, tokens), atol=2e-4)


@each_isa
@pytest.mark.parametrize(("limit", "tolerance"), [("int8", 0.03), ("int6", 0.08), ("int4", 0.3)])
def test_quantised_weights_stay_near(isa: str, limit: str, tolerance: float) -> None:
    weights = random_weights(QWEN)
    tokens = np.random.default_rng(3).integers(0, QWEN.vocab_size, 40).tolist()
    got = run_whole(make_decoder(QWEN, weights, isa=isa, limit=limit, kv="float16"), tokens)
    expected = reference.logits(QWEN, weights, tokens)
    assert np.sqrt(((got - expected) ** 2).mean()) < tolerance * expected.std()


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    page_size=st.sampled_from([16, 32]),
    threads=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_mixture_of_chunks(lengths: list[int], page_size: int, threads: int, seed: int) -> None:
    """However sequences are cut into steps and wherever their pages lie, every logit is that of the whole sequence."""
    shape, weights = QWEN, random_weights(QWEN)
    rng = np.random.default_rng(seed)
    sequences = [rng.integers(0, shape.vocab_size, length).tolist() for length in lengths]
    decoder = make_decoder(shape, weights, page_size=page_size, threads=threads)
    max_pages = 60 // page_size + 1
    table = rng.permutation(decoder.num_pages)[: len(lengths) * max_pages].astype(np.int32).reshape(len(lengths), -1)
    done = [0] * len(lengths)
    got: list[list[np.ndarray]] = [[] for _ in lengths]
    while any(done[i] < lengths[i] for i in range(len(lengths))):
        entries = []
        for i, tokens in enumerate(sequences):
            take = min(int(rng.integers(0, 25)) * int(rng.integers(0, 2)), len(tokens) - done[i])
            entries += [(tokens[p], p, i) for p in range(done[i], done[i] + take)]
            done[i] += take
        if not entries:
            continue
        tokens_, positions, owners = (np.array(column, np.int32) for column in zip(*entries, strict=True))
        rows = np.arange(len(entries), dtype=np.int32)[::-1].copy()
        logits = decoder.forward(tokens_, positions, owners, table, rows)[::-1]
        for row, owner in zip(logits, owners, strict=True):
            got[owner].append(row)
    for tokens, rows_ in zip(sequences, got, strict=True):
        np.testing.assert_allclose(np.array(rows_), reference.logits(shape, weights, tokens), atol=2e-4)


def test_more_tokens_than_one_piece() -> None:
    weights = random_weights(PLAIN)
    tokens = np.random.default_rng(2).integers(0, PLAIN.vocab_size, 600).tolist()
    got = run_whole(make_decoder(PLAIN, weights), tokens)
    np.testing.assert_allclose(got, reference.logits(PLAIN, weights, tokens), atol=5e-4)


def test_hidden_states() -> None:
    weights = random_weights(QWEN)
    decoder = make_decoder(QWEN, weights)
    tokens, rows = int32(1, 2, 3, 4), np.arange(4, dtype=np.int32)
    got = decoder.hidden(tokens, rows, np.zeros(4, np.int32), np.arange(4, dtype=np.int32)[None])
    np.testing.assert_allclose(got, reference.hidden_states(QWEN, weights, tokens.tolist()), atol=1e-4)


def test_copied_pages_continue_alike() -> None:
    weights = random_weights(QWEN)
    decoder = make_decoder(QWEN, weights)
    tokens = np.random.default_rng(9).integers(0, QWEN.vocab_size, 20).tolist()
    zeros = np.zeros(19, np.int32)
    decoder.forward(int32(*tokens[:19]), np.arange(19, dtype=np.int32), zeros, int32(3, 4)[None], int32())
    decoder.copy_pages(int32(3, 4), int32(11, 7))
    after = decoder.forward(int32(tokens[19]), int32(19), int32(0), int32(11, 7)[None], int32(0))
    np.testing.assert_allclose(after, reference.logits(QWEN, weights, tokens)[-1:], atol=2e-4)


def after_a_move(distance: int, kv: str) -> list[np.ndarray]:
    """Logits of the fast and of the slow decoder: both compute 20 tokens, move 11 of them, and go on behind them."""
    weights = random_weights(QWEN)
    fast = make_decoder(QWEN, weights, kv=kv)
    slow = PagedDecoder(QWEN, weights, num_pages=12, page_size=16)
    tokens = np.random.default_rng(9).integers(0, QWEN.vocab_size, 20).astype(np.int32)
    old, new = int32(3, 4), int32(5, 7, 9, 11)
    results = []
    for decoder in (fast, slow):
        decoder.forward(tokens, np.arange(20, dtype=np.int32), np.zeros(20, np.int32), old[None], int32(19))
        start = 9 + distance
        before = np.arange(start, dtype=np.int32)
        if start:
            decoder.forward(tokens[before % 20], before, np.zeros_like(before), new[None], int32(0))
        decoder.move_tokens(old, new, 9, start, 11)
        results.append(decoder.forward(int32(5), int32(start + 11), int32(0), new[None], int32(0)))
    return results


@pytest.mark.parametrize("kv", ["float16", "float32"])
@pytest.mark.parametrize("distance", [-9, 0, 1, 40])
def test_moved_tokens_are_those_of_the_slow_decoder(kv: str, distance: int) -> None:
    """To another place of other pages."""
    results = after_a_move(distance, kv)
    np.testing.assert_allclose(results[0], results[1], atol=4e-3 if kv == "float16" else 3e-4)


def test_moves_outside_of_the_pages_are_sentences() -> None:
    decoder = make_decoder(QWEN, random_weights(QWEN))
    with pytest.raises(ValueError, match="tokens 10 to 40 are outside a row of pages for 32 tokens"):
        decoder.move_tokens(int32(3, 4), int32(5, 6, 7), 10, 0, 30)
    with pytest.raises(ValueError, match="tokens -1 to 2 are outside"):
        decoder.move_tokens(int32(3, 4), int32(5, 6, 7), -1, 0, 3)
    with pytest.raises(ValueError, match="page 40 at index 1 does not exist"):
        decoder.move_tokens(int32(3, 40), int32(5, 6, 7), 10, 0, 10)


@pytest.mark.parametrize("rank", [1, 8, 40])
@pytest.mark.parametrize("count", [1, 40])
def test_adapter_beside_the_weights(rank: int, count: int) -> None:
    weights = random_weights(QWEN)
    rng = np.random.default_rng(rank)
    decoder = make_decoder(QWEN, weights)
    tokens = rng.integers(0, QWEN.vocab_size, count).tolist()
    plain = run_whole(decoder, tokens)
    merged = dict(weights)
    adapter = decoder.add_adapter()
    for name in [name for name in weights if "_proj.weight" in name]:
        rows, cols = weights[name].shape
        a = (rng.standard_normal((rank, cols)) / np.sqrt(cols)).astype(np.float32)
        b = (rng.standard_normal((rows, rank)) * 0.1 / np.sqrt(rank)).astype(np.float32)
        decoder.set_adapter(adapter, name, a, b, 2.0)
        merged[name] = weights[name] + 2.0 * b @ a
    expected = reference.logits(QWEN, merged, tokens)
    got = run_whole(decoder, tokens, adapter)
    assert np.abs(got - expected).mean() < 0.05 * np.abs(plain - expected).mean()
    np.testing.assert_array_equal(run_whole(decoder, tokens), plain)
    decoder.remove_adapter(adapter)
    np.testing.assert_array_equal(run_whole(decoder, tokens), plain)


def test_threads_and_two_callers_give_the_same() -> None:
    weights = random_weights(QWEN)
    tokens = list(range(50))
    expected = run_whole(make_decoder(QWEN, weights, threads=1), tokens)
    decoder = make_decoder(QWEN, weights, threads=4)
    results: list[np.ndarray] = []
    callers = [threading.Thread(target=lambda: results.append(run_whole(decoder, tokens))) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_works_after_fork() -> None:
    decoder = make_decoder(QWEN, random_weights(QWEN), threads=3)
    expected = run_whole(decoder, [1, 2, 3])
    child = os.fork()
    if child == 0:
        ok = False
        try:
            ok = bool(np.array_equal(run_whole(decoder, [1, 2, 3]), expected))
        finally:
            os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(run_whole(decoder, [1, 2, 3]), expected)


TABLE = np.array([[0, 1, -1]], np.int32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((int32(130), int32(0), int32(0), TABLE, int32(0)), "token 130 at index 0 is outside the vocabulary of 130"),
        ((int32(-1), int32(0), int32(0), TABLE, int32(0)), "token -1 at index 0"),
        ((int32(1), int32(48), int32(0), TABLE, int32(0)), r"position 48 at index 0 is outside 0\.\.47"),
        ((int32(1), int32(-1), int32(0), TABLE, int32(0)), "position -1 at index 0"),
        (
            (int32(1), int32(0), int32(1), TABLE, int32(0)),
            "sequence 1 at index 0 is no row of a page table with 1 rows",
        ),
        ((int32(1), int32(40), int32(0), TABLE, int32(0)), "page -1 in the page table does not exist; there are 40"),
        ((int32(1), int32(0), int32(0), int32(40)[None], int32(0)), "page 40 in the page table does not exist"),
        (
            (int32(1, 1), int32(3, 3), int32(0, 0), TABLE, int32(0)),
            "position 3 at index 1 does not come after position 3",
        ),
        ((int32(1), int32(0), int32(0), TABLE, int32(1)), "logit row 1 at index 0 is outside the 1 tokens"),
        ((int32(1, 2), int32(0), int32(0), TABLE, int32(0)), "have 2, 1 and 1 entries"),
        ((int32(1), int32(0), int32(0), TABLE[0], int32(0)), r"page_table has shape \(3\); it must have 2 axes"),
        ((int32(1, 2)[::-1], int32(0, 1), int32(0, 0), TABLE, int32(0)), "tokens of shape .* is not contiguous"),
    ],
)
def test_wrong_batches(arguments: tuple[np.ndarray, ...], message: str) -> None:
    decoder = make_decoder(QWEN, random_weights(QWEN))
    with pytest.raises(ValueError, match=message):
        decoder.forward(*arguments)


def test_wrong_dtype() -> None:
    decoder = make_decoder(QWEN, random_weights(QWEN))
    with pytest.raises(TypeError, match="tokens holds int64; it must be int32"):
        decoder.forward(np.array([1]), int32(0), int32(0), TABLE, int32(0))


def test_empty_batch_gives_nothing() -> None:
    decoder = make_decoder(QWEN, random_weights(QWEN))
    assert decoder.forward(int32(), int32(), int32(), TABLE, int32()).shape == (0, 130)


@pytest.mark.parametrize(
    ("name", "raw", "kind", "rows", "cols", "error", "message"),
    [
        ("model.layers.9.mlp.up_proj.weight", np.zeros(4, np.uint8), "F32", 1, 1, KeyError, "has no tensor"),
        ("model.norm.weight", np.zeros(256, np.uint8), "F32", 32, 1, ValueError, "is 32 x 1; this shape wants 64 x 1"),
        (
            "model.norm.weight",
            np.zeros(255, np.uint8),
            "F32",
            64,
            1,
            ValueError,
            "holds 255 bytes; 64 x 1 of F32 are 256",
        ),
        ("model.norm.weight", np.zeros(255, np.uint8), "Q4_0", 64, 1, ValueError, "1 columns, which blocks of 32"),
        ("model.norm.weight", np.zeros(255, np.uint8), "IQ1_S", 64, 1, ValueError, 'is of type "IQ1_S"; known are'),
        ("lm_head.weight", np.zeros(130 * 36 - 1, np.uint8), "Q4_0", 130, 64, ValueError, "holds 4679 bytes"),
    ],
)
def test_wrong_tensors(
    name: str, raw: np.ndarray, kind: str, rows: int, cols: int, error: type[Exception], message: str
) -> None:
    fields = msgspec.structs.asdict(QWEN)
    del fields["max_position_embeddings"]
    decoder = csrc.Decoder(**fields, num_pages=2, threads=1)
    with pytest.raises(error, match=message):
        decoder.set_tensor(name, raw, kind, rows, cols)


def test_missing_and_repeated_tensors() -> None:
    fields = msgspec.structs.asdict(QWEN)
    del fields["max_position_embeddings"]
    decoder = csrc.Decoder(**fields, num_pages=2, threads=1)
    assert decoder.missing() == "lm_head.weight"
    with pytest.raises(ValueError, match=r"the tensor lm_head\.weight was not set"):
        decoder.forward(int32(1), int32(0), int32(0), int32(0)[None], int32(0))
    norm = np.zeros(256, np.uint8)
    decoder.set_tensor("model.norm.weight", norm, "F32", 64, 1)
    with pytest.raises(ValueError, match="was set before"):
        decoder.set_tensor("model.norm.weight", norm, "F32", 64, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_pages": 0}, "num_pages is 0; it must be at least 1"),
        ({"page_size": 24}, "page_size is 24; it must be a multiple of 16"),
        ({"threads": 0}, "threads is 0; it must be at least 1"),
        ({"kv": "int3"}, 'kv is "int3"; it must be float32, float16 or int8'),
        ({"isa": "mmx"}, 'isa "mmx" is not to be had'),
        ({"num_key_value_heads": 3}, "num_attention_heads 4 is not a multiple of num_key_value_heads 3"),
        ({"hidden_size": -1}, "hidden_size is -1; it must be at least 1"),
        ({"head_dim": 7}, "head_dim is 7; it must be even"),
        ({"vocab_size": 2**40}, "vocab_size is 1099511627776; it may be at most"),
        ({"num_pages": 2**31 - 1, "num_hidden_layers": 2**24}, "makes a cache of"),
        ({"rope_theta": 0.0}, "rope_theta is 0"),
    ],
)
def test_wrong_shapes_and_options(change: dict[str, object], message: str) -> None:
    fields = msgspec.structs.asdict(QWEN)
    del fields["max_position_embeddings"]
    with pytest.raises(ValueError, match=message):
        csrc.Decoder(**{**fields, "num_pages": 2, "threads": 1, **change})


def test_more_threads_than_cores_never_stall() -> None:
    """Members come late to most phases here: what a busy machine does to a team."""
    decoder = make_decoder(QWEN, random_weights(QWEN), threads=12)
    expected = run_whole(decoder, [5, 6, 7])
    for _ in range(300):
        np.testing.assert_array_equal(run_whole(decoder, [5, 6, 7]), expected)
