"""From files to a native decoder: the plan, every tensor in its place, adapters beside the weights, errors in words."""

from __future__ import annotations

import json

import numpy as np
import pytest

from highrise.core.errors import ConfigError, InputError
from highrise.core.native import csrc
from highrise.core.safetensors import write_safetensors
from highrise.core.weights import open_weights
from highrise.serve.adapter import read_adapter
from highrise.serve.loader import PAGE_SIZE, make_decoder, plan_memory
from tests.reference import packed_int4
from tests.reference.decoder import logits as reference_logits
from tests.reference.paged_decoder import TINY, PagedDecoder, random_weights

WEIGHTS = random_weights(TINY, seed=4)
MODULE = "model.layers.1.self_attn.q_proj"


def write_model(folder):
    config = {
        "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48, "vocab_size": 96, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 256, "tie_word_embeddings": True, "rope_theta": 10_000.0, "hidden_act": "silu",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    write_safetensors(folder / "model.safetensors", WEIGHTS)
    return open_weights(folder)


@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_a_packed_folder_runs_as_its_weights_say(tmp_path, method):
    """Every projection packed, the rest as it was: the folder decodes as the weights that it stands for do."""
    generator = np.random.default_rng(3)
    stored, expected = {}, {}
    for name, value in WEIGHTS.items():
        if not name.endswith("_proj.weight") or value.shape[1] % 32:
            stored[name] = expected[name] = value
            continue
        rows, cols = value.shape
        groups = np.arange(cols) // 32
        codes = generator.integers(0, 16, (cols, rows))
        zeros = generator.integers(1, 16, (cols // 32, rows))
        scales = generator.uniform(0.02, 0.05, zeros.shape).astype(np.float16)
        stem = name.removesuffix(".weight")
        if method == "awq":
            words = packed_int4.pack_awq(codes), packed_int4.pack_awq(zeros)
        else:
            words = packed_int4.pack_gptq_codes(codes), packed_int4.pack_gptq_zeros(zeros - 1)
            stored[f"{stem}.g_idx"] = groups.astype(np.int32)
        stored |= {f"{stem}.qweight": words[0], f"{stem}.qzeros": words[1], f"{stem}.scales": scales}
        expected[name] = packed_int4.weights(codes, zeros, scales, groups)
    write_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4, "group_size": 32}
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_safetensors(tmp_path / "model.safetensors", stored)
    file = open_weights(tmp_path)
    assert {tensor.type for tensor in file.tensors.values()} == {"F32", "Q5_0"}
    decoder = make_decoder(file, plan(), weights="float32", isa="portable", kv="fp32")
    np.testing.assert_allclose(logits(decoder), reference_logits(TINY, expected, list(range(3, 23))), atol=5e-4)
    at_stored_bits = logits(make_decoder(file, plan(), weights="stored", isa="portable", kv="fp32"))
    off = at_stored_bits - logits(decoder)
    assert np.sqrt((off**2).mean()) < 0.1 * logits(decoder).std()


def write_adapter(folder, *, rank=3, alpha=6.0, modules=(MODULE, "model.layers.0.mlp.down_proj"), **config):
    generator = np.random.default_rng(1)
    tensors = {}
    for module in modules:
        rows, cols = WEIGHTS.get(f"{module}.weight", np.zeros((8, 8))).shape
        tensors[f"base_model.model.{module}.lora_A.weight"] = generator.standard_normal((rank, cols)).astype(np.float32)
        tensors[f"base_model.model.{module}.lora_B.weight"] = generator.standard_normal((rows, rank)).astype(np.float32)
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": ["q_proj"], "bias": "none"}
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**settings, **config}))
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    return tensors


def logits(decoder, count=20, adapter=-1):
    tokens = np.arange(3, 3 + count, dtype=np.int32)
    positions = np.arange(count, dtype=np.int32)
    table = np.array([[2, 0, 3, 1]], dtype=np.int32)
    adapters = np.array([adapter], dtype=np.int32)
    return decoder.forward(tokens, positions, np.zeros(count, dtype=np.int32), table, positions, adapters)


def plan(**options):
    return plan_memory(TINY, **{"threads": 1, "num_pages": 4, "max_context": None, **options})


@pytest.mark.parametrize("isa", csrc.available_isas())
def test_a_folder_runs_as_the_slow_decoder_does(tmp_path, isa):
    decoder = make_decoder(write_model(tmp_path), plan(), weights="float32", isa=isa, kv="fp32")
    expected = logits(PagedDecoder(TINY, WEIGHTS, num_pages=4, page_size=PAGE_SIZE))
    np.testing.assert_allclose(logits(decoder), expected, atol=2e-3 * abs(expected).max())


def test_an_adapter_beside_the_weights_equals_one_merged_into_them(tmp_path):
    decoder = make_decoder(write_model(tmp_path), plan(), weights="float32", kv="fp32", isa="portable")
    before = logits(decoder)
    tensors = write_adapter(tmp_path / "adapter")
    merged = dict(WEIGHTS)
    adapter = decoder.add_adapter()
    for module, low in read_adapter(tmp_path / "adapter", TINY).items():
        assert low.scale == 2.0
        a, b = (tensors[f"base_model.model.{module}.lora_{kind}.weight"] for kind in "AB")
        assert (low.a_RI == a).all() and (low.b_OR == b).all()
        decoder.set_adapter(adapter, f"{module}.weight", low.a_RI, low.b_OR, low.scale)
        merged[f"{module}.weight"] = merged[f"{module}.weight"] + 2.0 * b @ a
    expected = logits(PagedDecoder(TINY, merged, num_pages=4, page_size=PAGE_SIZE))
    found = logits(decoder, adapter=adapter)
    # The decoder rounds adapters and what goes into them to 8 bits.
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected - before)


def test_scales_follow_peft(tmp_path):
    write_adapter(tmp_path, rank=4, alpha=8.0, use_rslora=True)
    assert read_adapter(tmp_path, TINY)[MODULE].scale == 4.0
    write_adapter(tmp_path, rank=4, alpha=8.0, alpha_pattern={"q_proj": 2.0})
    adapter = read_adapter(tmp_path, TINY)
    assert (adapter[MODULE].scale, adapter["model.layers.0.mlp.down_proj"].scale) == (0.5, 2.0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "kind IA3"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "trained biases"),
        ({"modules_to_save": ["lm_head"]}, "whole modules"),
        ({"r": 0}, "rank 0"),
        ({"lora_alpha": "x"}, "damaged or not PEFT's"),
    ],
)
def test_other_kinds_of_adapter_are_refused(tmp_path, config, message):
    write_adapter(tmp_path, **config)
    with pytest.raises(InputError, match=message):
        read_adapter(tmp_path, TINY)


def test_adapters_of_other_models_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"it has no adapter_config\.json"):
        read_adapter(tmp_path, TINY)
    write_adapter(tmp_path, modules=["model.layers.7.self_attn.q_proj"])
    with pytest.raises(InputError, match=r"adapts model\.layers\.7\.self_attn\.q_proj"):
        read_adapter(tmp_path, TINY)
    write_adapter(tmp_path, modules=["model.embed_tokens"])
    with pytest.raises(InputError, match=r"adapts model\.embed_tokens"):
        read_adapter(tmp_path, TINY)
    tensors = write_adapter(tmp_path)
    name = f"base_model.model.{MODULE}.lora_A.weight"
    write_safetensors(tmp_path / "adapter_model.safetensors", {**tensors, name: np.zeros((3, 31), np.float32)})
    with pytest.raises(InputError, match="made for another model"):
        read_adapter(tmp_path, TINY)
    del tensors[name]
    write_safetensors(tmp_path / "adapter_model.safetensors", tensors)
    with pytest.raises(InputError, match="both matrices are needed"):
        read_adapter(tmp_path, TINY)


def test_the_plan_fills_what_was_left_open():
    open_plan = plan(num_pages=None, threads=None)
    assert open_plan.threads >= 1
    assert open_plan.pool_bytes <= 512_000_000
    assert open_plan.max_context == TINY.max_position_embeddings
    small = plan(num_pages=None, cache_bytes=100_000)
    assert small.num_pages == 100_000 // (PAGE_SIZE * TINY.kv_bytes_per_token)
    assert plan(num_pages=4, max_context=40).max_context == 40


def test_plans_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="context of 100 tokens does not fit into 4 pages"):
        plan(max_context=100)
    with pytest.raises(ConfigError, match="hold no two pages"):
        plan(num_pages=None, cache_bytes=10)


def test_an_instruction_set_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match='kernels "sse9" do not run on this CPU; choose auto or one of'):
        make_decoder(write_model(tmp_path), plan(), weights="stored", isa="sse9")
