"""The planner: hand-worked and published figures, and properties that any plan must have."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from highrise.compute.devices import Device, catalogue, device
from highrise.compute.layout import fit_serving, fit_training
from highrise.compute.machine import Machine
from highrise.compute.memory import (
    FORMAT_BITS,
    activation_bytes,
    kv_bytes,
    matrix_parameters,
    state_bytes,
    vector_parameters,
    weight_bytes,
)
from highrise.compute.plan import Question, make_plan, tuning_tokens
from highrise.compute.report import describe_plan
from highrise.compute.shapes import known_shapes, shape_from_config, shape_of
from highrise.compute.throughput import decode_bound, prefill_bound, training_seconds
from highrise.core.catalogue import entries, locate
from highrise.core.errors import HighriseError, InputError
from highrise.core.shape import DecoderShape

LLAMA = shape_of("llama-3-8b")
MACHINE = Machine(
    cpu="test",
    architecture="x86_64",
    isa=("sse2",),
    cores_present=2,
    cores=2,
    memory_bytes=8 << 30,
    memory_available_bytes=8 << 30,
    disk_free_bytes=1 << 30,
    matmul_flops=200e9,
    bandwidth=20e9,
)


@pytest.mark.parametrize(
    ("model", "parameters"),  # as the model hub counts the elements of the published weights
    [
        ("smollm2-135m", 134_515_008),
        ("qwen2.5-coder-0.5b", 494_032_768),
        ("qwen2.5-coder-1.5b", 1_543_714_304),
        ("qwen2.5-coder-7b", 7_615_616_512),
        ("qwen2.5-coder-32b", 32_763_876_352),
        ("llama-2-7b", 6_738_415_616),
        ("llama-3-8b", 8_030_261_248),
        ("llama-3-70b", 70_553_706_496),
    ],
)
def test_published_parameter_counts(model: str, parameters: int) -> None:
    assert shape_of(model).num_parameters == parameters


def test_llama_3_8b_by_hand() -> None:
    assert LLAMA.kv_bytes_per_token == 2 * 32 * 8 * 128 * 2 == 131_072
    assert weight_bytes(LLAMA) == 16_060_522_496  # 16.06 GB, the size of the published bf16 files
    assert state_bytes(LLAMA.num_parameters) == 18 * 8_030_261_248
    assert kv_bytes(LLAMA, tokens=8192) == 1 << 30
    # 8h + 4q + 4kv + 6f + 4a = 32768 + 16384 + 4096 + 86016 + 128 a layer; head 10 x 128256
    assert activation_bytes(LLAMA, tokens=1) == 32 * 139_392 + 1_282_560


def test_training_time_by_hand() -> None:
    # 6 x 8.030261248e9 x 1e9 / (989e12 x 0.4) s
    assert training_seconds(LLAMA, device("h100"), tokens=1e9) == pytest.approx(121_793.6, rel=1e-5)


def test_llama_3_1_405b_training_hours_match_the_published_ones() -> None:
    """Meta's model card: 30.84 million H100 hours for 15.6e12 tokens; 6PD needs 34.6 % of the peak to give that."""
    seconds = training_seconds(shape_of("llama-3.1-405b"), device("h100"), tokens=15.6e12, utilisation=0.346)
    assert seconds / 3600 == pytest.approx(30.84e6, rel=0.01)


def test_decode_and_prefill_by_hand() -> None:
    h100 = device("h100")
    decode = decode_bound(LLAMA, h100, bits=16)
    # all but the embedding look-up: (8030261248 - 128256 x 4096) x 2 B / (3.35e12 x 0.8)
    assert decode.limit == "memory bandwidth"
    assert decode.seconds == pytest.approx(15_009_849_344 / 2.68e12, rel=1e-9)
    prefill = prefill_bound(LLAMA, h100, tokens=4096)
    assert prefill.limit == "compute"
    by_hand = 2 * matrix_parameters(LLAMA) * 4096 + 2 * 32 * 32 * 128 * 4096**2
    assert prefill.flops == pytest.approx(by_hand)


def test_sharded_state_is_megatrons_formula() -> None:
    assert state_bytes(1, data_parallel=8, sharding="optimizer") == 6 + 12 / 8
    assert state_bytes(1, data_parallel=8, sharding="full") == 18 / 8


def test_70b_needs_two_h100_to_serve_and_more_than_one_node_to_train() -> None:
    shape, h100 = shape_of("llama-3-70b"), device("h100")
    assert fit_serving(shape, h100, devices=1, tokens=4096) is None
    two = fit_serving(shape, h100, devices=8, tokens=4096)
    assert two is not None and (two.tensor_parallel, two.pipeline_parallel) == (2, 1)
    assert fit_training(shape, h100, devices=8, sequence=4096) is None  # 18 B x 70.6e9 = 1.27 TB over 8 x 82 GB
    layout = fit_training(shape, h100, devices=64, sequence=4096)
    assert layout is not None and layout.sharding == "full" and layout.devices == 64


def test_405b_leaves_the_scale_up_domain() -> None:
    layout = fit_serving(shape_of("llama-3.1-405b"), device("h100"), devices=16, tokens=4096)
    assert layout is not None and (layout.tensor_parallel, layout.pipeline_parallel) == (8, 2)


def shapes() -> st.SearchStrategy[DecoderShape]:
    def make(groups: int, ratio: int, half: int, layers: int, hidden: int, wide: int, tied: bool) -> DecoderShape:
        return DecoderShape(
            hidden_size=hidden * 8,
            num_hidden_layers=layers,
            num_attention_heads=groups * ratio,
            num_key_value_heads=groups,
            intermediate_size=wide * 8,
            vocab_size=hidden * 100,
            max_position_embeddings=4096,
            head_dim=2 * half,
            attention_bias=tied,
            tie_word_embeddings=tied,
        )

    small = st.integers(1, 64)
    return st.builds(make, st.integers(1, 8), st.integers(1, 8), small, small, small, small, st.booleans())


devices = st.sampled_from(sorted(catalogue())).map(device)


@given(shape=shapes())
def test_parts_sum_to_all_parameters(shape: DecoderShape) -> None:
    embedding = 0 if shape.tie_word_embeddings else shape.vocab_size * shape.hidden_size
    assert matrix_parameters(shape) + vector_parameters(shape) + embedding == shape.num_parameters


@given(shape=shapes(), low=st.sampled_from([4.0, 5.0, 8.0, 8.5]), high=st.sampled_from([16.0, 32.0]))
def test_more_bits_more_bytes(shape: DecoderShape, low: float, high: float) -> None:
    assert weight_bytes(shape, bits=low) < weight_bytes(shape, bits=high)
    assert kv_bytes(shape, tokens=10, bits=low) <= kv_bytes(shape, tokens=10, bits=high)


@given(shape=shapes(), tokens=st.integers(1, 10_000), more=st.integers(1, 10_000))
def test_memory_grows_with_tokens(shape: DecoderShape, tokens: int, more: int) -> None:
    assert kv_bytes(shape, tokens=tokens) + kv_bytes(shape, tokens=more) == kv_bytes(shape, tokens=tokens + more)
    assert activation_bytes(shape, tokens=tokens) < activation_bytes(shape, tokens=tokens + more)
    if shape.num_hidden_layers > 1:
        whole = activation_bytes(shape, tokens=tokens)
        assert activation_bytes(shape, tokens=tokens, recompute=True) < whole


@given(ranks=st.integers(2, 4096))
def test_more_sharding_less_state(ranks: int) -> None:
    none, optimizer, full = (
        state_bytes(1e9, data_parallel=ranks, sharding=sharding) for sharding in ("none", "optimizer", "full")
    )
    assert none > optimizer > full
    assert full * ranks == pytest.approx(none)


@given(shape=shapes(), where=devices, batch=st.integers(1, 256), context=st.integers(1, 8192))
def test_a_decoding_step_never_gets_cheaper(shape: DecoderShape, where: Device, batch: int, context: int) -> None:
    one = decode_bound(shape, where, batch=batch, context=context)
    assert decode_bound(shape, where, batch=batch + 1, context=context).seconds >= one.seconds
    assert decode_bound(shape, where, batch=batch, context=context + 1).seconds >= one.seconds
    assert decode_bound(shape, where, batch=batch, context=context, bits=5.0).seconds <= one.seconds
    # but a token does: weights are shared by the batch
    assert decode_bound(shape, where, batch=batch * 2, context=context).seconds <= 2 * one.seconds * (1 + 1e-9)


@given(shape=shapes(), where=devices, count=st.sampled_from([1, 2, 4, 8, 16, 64]), sequence=st.integers(1, 4096))
def test_a_training_layout_fits_and_uses_every_device(
    shape: DecoderShape, where: Device, count: int, sequence: int
) -> None:
    layout = fit_training(shape, where, devices=count, sequence=sequence)
    if layout is not None:
        assert layout.devices == count
        assert layout.total_bytes <= where.memory_bytes - where.reserved_bytes
        assert layout.tensor_parallel <= where.scale_up_devices
        assert layout.pipeline_parallel <= shape.num_hidden_layers
        assert shape.num_attention_heads % layout.tensor_parallel == 0


@given(shape=shapes(), where=devices, count=st.sampled_from([1, 2, 8, 16]), tokens=st.integers(1, 1_000_000))
def test_a_serving_layout_fits(shape: DecoderShape, where: Device, count: int, tokens: int) -> None:
    layout = fit_serving(shape, where, devices=count, tokens=tokens)
    if layout is None:
        return
    assert layout.tensor_parallel * layout.pipeline_parallel <= count
    assert layout.weight_bytes + layout.kv_bytes <= where.memory_bytes - where.reserved_bytes
    assert layout.max_tokens >= tokens


@given(tokens=st.floats(1, 1e15), count=st.integers(1, 10_000), price=st.floats(0.01, 100))
def test_money_is_hours_times_price_and_more_devices_cost_the_same(tokens: float, count: int, price: float) -> None:
    plan = make_plan("m", LLAMA, device("h100"), Question(devices=1, tokens=tokens, price=price))
    seconds = training_seconds(LLAMA, device("h100"), tokens=tokens, devices=count)
    assert plan.money is not None and plan.device_hours is not None
    assert plan.money == pytest.approx(plan.device_hours * price)
    assert seconds * count / 3600 == pytest.approx(plan.device_hours)


@given(seconds=st.floats(0, 1e5), more=st.floats(0, 1e5))
def test_tuning_tokens_grow_with_the_budget(seconds: float, more: float) -> None:
    shape = shape_of("qwen2.5-coder-0.5b")
    assert tuning_tokens(shape, seconds, MACHINE) <= tuning_tokens(shape, seconds + more, MACHINE)


def test_tuning_tokens_by_hand() -> None:
    shape = shape_of("qwen2.5-coder-0.5b")
    assert tuning_tokens(shape, 180, MACHINE, utilisation=0.5) == int(180 * 100e9 / (4 * matrix_parameters(shape)))
    assert tuning_tokens(shape, 0, MACHINE) == 0
    with pytest.raises(InputError, match="negative"):
        tuning_tokens(shape, -1, MACHINE)


def test_every_device_has_its_sources_and_sane_figures() -> None:
    assert {"h100", "h200", "b200", "a100", "mi300x", "tpu-v5p", "tpu-v6e"} <= set(catalogue())
    for name, entry in catalogue().items():
        assert entry.sources, name
        assert 1e13 < entry.peak_16bit < 1e16, name
        assert 1e11 < entry.bandwidth < 1e14, name
        assert 1e10 < entry.memory_bytes < 1e12, name


def test_shape_from_a_folder_equals_the_known_one(tmp_path: Path) -> None:
    known = known_shapes()["qwen2.5-coder-0.5b"]
    config = {
        key: value for key, value in msgspec.to_builtins(known).items() if key not in ("head_dim", "attention_bias")
    }
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "qwen2", "architectures": ["X"]}))
    assert shape_of(str(tmp_path)) == known


@pytest.mark.parametrize("name", [name for name, entry in entries().items() if entry.kind == "decoder"])
def test_every_decoder_of_the_model_catalogue_is_known_as_its_weights_say(name: str, tmp_path: Path) -> None:
    known = known_shapes()[name]
    try:
        path = locate(name)
    except InputError as error:
        pytest.skip(str(error))
    (tmp_path / "blob").symlink_to(path)
    assert shape_of(str(tmp_path / "blob")) == shape_of(str(path)), "a GGUF file is known by its first bytes"
    real = shape_of(str(path))
    # a GGUF file may store a tied embedding a second time as its head: the same product a token, more bytes
    assert matrix_parameters(real) == matrix_parameters(known)
    ignored = ("rope_theta", "rms_norm_eps", "max_position_embeddings", "tie_word_embeddings")
    same = [field.name for field in msgspec.structs.fields(DecoderShape) if field.name not in ignored]
    assert [getattr(real, key) for key in same] == [getattr(known, key) for key in same]


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"num_local_experts": 8}, "experts"),
        ({"hidden_size": 8}, "num_hidden_layers"),
        ({"hidden_size": "big"}, "hidden_size"),
        (
            {
                "hidden_size": 8,
                "num_hidden_layers": 0,
                "num_attention_heads": 2,
                "intermediate_size": 8,
                "vocab_size": 8,
            },
            "from 1 to",
        ),
    ],
)
def test_bad_configurations_are_one_sentence(config: dict[str, object], word: str) -> None:
    with pytest.raises(HighriseError, match=word) as caught:
        shape_from_config(config)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"devices": 0}, {"utilisation": 1.5}, {"weights": "int3"}, {"tokens": -1.0}, {"price": -2.0}]
)
def test_bad_questions(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Question(**options)  # type: ignore[arg-type]


def test_the_report_says_every_number_and_its_formula() -> None:
    text = describe_plan(make_plan("llama-3-8b", LLAMA, device("h100"), Question(devices=8, tokens=1e12, price=2.5)))
    for part in ("16.1 GB", "131,072 B", "18 B a parameter", "6 x 8.03e9 x 1e+12", "at $2.5", "source:", "TP 1"):
        assert part in text
    assert all(name in FORMAT_BITS for name in ("bf16", "int8", "int4"))
