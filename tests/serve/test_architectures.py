"""Every architecture: small random models of transformers, read from their folder, give transformers' logits.

First through the plain numpy decoder, which shows that the shape describes the model, then through the native one on
each instruction set, whole and in steps over scattered pages. The same weights written as GGUF give the same shape and
the same tensors.
"""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import msgspec
import numpy as np
import pytest
import torch
import transformers

from highrise.core.errors import ConfigError, InputError
from highrise.core.native import csrc
from highrise.core.weights import WeightFile, open_weights
from highrise.serve.loader import make_decoder, plan_memory
from highrise.train.weights_io import load_decoder
from tests.reference import decoder as reference
from tests.serve.isas import each_isa

SIZE = {
    "vocab_size": 130, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
MODELS: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("Llama", {}),
    "llama-biased": ("Llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama-linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
    "llama-dynamic": ("Llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}}),
    "llama-llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "qwen2-yarn": ("Qwen2", {"rope_parameters": YARN}),
    "qwen2-windows": ("Qwen2", {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1}),
    "mistral": ("Mistral", {"sliding_window": 24, "head_dim": 24}),
    "qwen3": ("Qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "gemma": ("Gemma", {"head_dim": 32}),
    "gemma2": ("Gemma2", {"head_dim": 32, "sliding_window": 24, "query_pre_attn_scalar": 24}),
    "gemma3": (
        "Gemma3Text",
        {
            "head_dim": 32, "sliding_window": 24, "query_pre_attn_scalar": 24,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
            },
        },
    ),
    "phi3": ("Phi3", {"sliding_window": 30}),
    "phi3-partial": ("Phi3", {"partial_rotary_factor": 0.5}),
    "starcoder2": ("Starcoder2", {"sliding_window": 40, "residual_dropout": 0.0, "embedding_dropout": 0.0}),
}  # fmt: skip
TOKENS = np.random.default_rng(7).integers(3, 130, 150).tolist()


def build(name: str, folder: Path) -> tuple[transformers.PreTrainedModel, np.ndarray]:
    """The model with every weight drawn (norms and biases too), saved, and its logits of `TOKENS`."""
    kind, options = MODELS[name]
    config = getattr(transformers, f"{kind}Config")(**SIZE, **options)
    config._attn_implementation = "eager"
    torch.manual_seed(len(name))
    model = getattr(transformers, f"{kind.removesuffix('Text')}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5))
            if parameter.ndim == 1 and not name.startswith("gemma"):
                parameter.add_(0.7)
        logits = model(torch.tensor([TOKENS])).logits[0].numpy()
    model.save_pretrained(folder)
    return model, logits


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, np.ndarray]]:
    result = {}
    for name in MODELS:
        folder = tmp_path_factory.mktemp(name)
        result[name] = (folder, build(name, folder)[1])
    return result


def native(file: WeightFile, isa: str) -> csrc.Decoder:
    plan = plan_memory(file.shape, threads=2, num_pages=24, max_context=None)
    return make_decoder(file, plan, weights="float32", isa=isa, kv="fp32")


def in_steps(decoder: csrc.Decoder, tokens: list[int], steps: list[int]) -> np.ndarray:
    """Logits of every token, computed in chunks over pages that lie scattered."""
    table = np.random.default_rng(3).permutation(decoder.num_pages).astype(np.int32)[None]
    rows, first = [], 0
    for count in steps:
        places = np.arange(first, first + count, dtype=np.int32)
        ids = np.array(tokens[first : first + count], np.int32)
        rows.append(decoder.forward(ids, places, np.zeros(count, np.int32), table, np.arange(count, dtype=np.int32)))
        first += count
    return np.concatenate(rows)


@pytest.mark.parametrize("name", list(MODELS))
def test_the_slow_decoder_gives_the_logits_of_transformers(models, name: str) -> None:
    folder, expected = models[name]
    file = open_weights(folder)
    weights = {key: tensor.dequantise() for key, tensor in file.tensors.items()}
    np.testing.assert_allclose(reference.logits(file.shape, weights, TOKENS), expected, atol=2e-4, rtol=1e-4)


@each_isa
@pytest.mark.parametrize("name", list(MODELS))
def test_the_native_decoder_gives_the_logits_of_transformers(models, name: str, isa: str) -> None:
    folder, expected = models[name]
    decoder = native(open_weights(folder), isa)
    got = in_steps(decoder, TOKENS, [50, 1, 1, 37, 1, 60])
    np.testing.assert_allclose(got, expected, atol=5e-4, rtol=1e-4)


@each_isa
@pytest.mark.parametrize("name", ["gemma2", "mistral"])
def test_the_same_bits_however_the_text_is_cut(models, name: str, isa: str) -> None:
    """A window begins where it begins for the token, whatever stands beside it in the step."""
    file = open_weights(models[name][0])
    whole = in_steps(native(file, isa), TOKENS, [150])
    np.testing.assert_array_equal(in_steps(native(file, isa), TOKENS, [40, *[1] * 20, 90]), whole)


@pytest.mark.parametrize("name", ["gemma3", "phi3-partial", "qwen2-yarn"])
def test_moved_tokens_turn_with_the_table_of_their_layer(models, name: str) -> None:
    """Twenty tokens that follow nothing, moved on by 7: the next token sees the same distances, but for the window."""
    file = open_weights(models[name][0])
    decoder = native(file, "auto")
    at = np.arange(20, dtype=np.int32)
    zeros = np.zeros(20, np.int32)
    old, new = np.array([3, 4], np.int32), np.array([7, 8], np.int32)
    decoder.forward(np.array(TOKENS[:20], np.int32), at, zeros, old[None], np.zeros(0, np.int32))
    decoder.move_tokens(old, new, 0, 0, 20)
    last, row = np.array([TOKENS[20]], np.int32), np.zeros(1, np.int32)
    expected = decoder.forward(last, row + 20, row, old[None], row)
    np.testing.assert_allclose(decoder.forward(last, row + 20, row, new[None], row), expected, atol=1e-5)
    # There and back again is where it was.
    decoder.move_tokens(new, old, 0, 9, 20)
    decoder.move_tokens(old, new, 9, 0, 20)
    np.testing.assert_allclose(decoder.forward(last, row + 20, row, new[None], row), expected, atol=1e-4)


def change(folder: Path, to: Path, **fields: object) -> Path:
    to.mkdir()
    config = json.loads((folder / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(config | fields))
    (to / "model.safetensors").symlink_to(folder / "model.safetensors")
    return to


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("llama", {"architectures": ["MambaForCausalLM"]}, "names the architecture MambaForCausalLM; LlamaForCausalLM"),
        ("llama", {"hidden_act": "relu2"}, "has the activation relu2; silu"),
        ("starcoder2", {"hidden_act": "silu"}, "has the activation silu; StarCoder2 runs with gelu_pytorch_tanh"),
        ("phi3", {"rope_parameters": {"rope_type": "longrope", "factor": 2.0}}, "embeddings by 'longrope'; default"),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "original_max_position_embeddings"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 0}}, "by the factor 0"),
        ("gemma3", {"layer_types": ["chunked_attention"] * 3}, "has the layer_types"),
        ("mistral", {"sliding_window": -3}, "has the sliding_window -3"),
        ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar 0"),
        ("phi3", {"intermediate_size": 97}, "lacks the tensor model.layers.0.mlp.gate_proj.weight"),
        ("qwen3", {"head_dim": 16}, "self_attn.q_proj.weight has shape"),
    ],
)  # fmt: skip
def test_what_is_not_run_is_one_sentence_with_its_name(models, tmp_path: Path, name, fields, message) -> None:
    folder = change(models[name][0], tmp_path / "changed", **fields)
    with pytest.raises(InputError, match=message) as raised:
        open_weights(folder)
    assert raised.value.exit_code == 2
    assert str(folder) in str(raised.value)


def test_only_plain_shapes_are_trained_and_follow_llama_cpp(models) -> None:
    folder = models["gemma2"][0]
    with pytest.raises(ConfigError, match="trained are the shapes of llama and qwen2"):
        load_decoder(folder)
    for isa in csrc.available_orders():
        with pytest.raises(ConfigError, match="plain llama and qwen2 only, not gemma2"):
            native(open_weights(folder), isa)


GGUF_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "post_attention_layernorm": "ffn_norm", "self_attn.qkv_proj": "attn_qkv",
}  # fmt: skip
GGUF_SANDWICH = {
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip
"""From llama.cpp's converter (`gguf-py/gguf/tensor_mapping.py`)."""


def write_gguf(file: WeightFile, path: Path, architecture: str) -> None:
    """What the converter makes of a folder: its names and keys, one added to norms, matrices of Phi fused."""
    shape = file.shape
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    (writer.add_layer_norm_eps if shape.layer_norm else writer.add_layer_norm_rms_eps)(shape.rms_norm_eps)
    window = max((kind.window for kind in shape.layer_kinds), default=0)
    if window and architecture != "starcoder2":
        writer.add_sliding_window(window)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(shape.attention_softcap)
        writer.add_final_logit_softcapping(shape.logit_softcap)
    if architecture == "phi3":
        writer.add_rope_dimension_count(2 * len(shape.rotary[0].frequencies) if shape.rotary else shape.head_dim)
    values = {name: tensor.dequantise() for name, tensor in file.tensors.items()}
    if architecture == "phi3":
        for layer in range(shape.num_hidden_layers):
            prefix = f"model.layers.{layer}."
            parts = [values.pop(f"{prefix}self_attn.{part}_proj.weight") for part in "qkv"]
            values[f"{prefix}self_attn.qkv_proj.weight"] = np.concatenate(parts)
            parts = [values.pop(f"{prefix}mlp.{part}_proj.weight") for part in ("gate", "up")]
            values[f"{prefix}mlp.up_proj.weight"] = np.concatenate(parts)
    names = GGUF_NAMES | (GGUF_SANDWICH if shape.sandwich_norms else {})
    top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for name, value in values.items():
        stem, _, last = name.rpartition(".")
        if stem in top:
            stored = f"{top[stem]}.{last}"
        else:
            _, _, layer, part = stem.split(".", 3)
            stored = f"blk.{layer}.{names[part]}.{last}"
        writer.add_tensor(stored, np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("name", "architecture"),
    [("qwen3", "qwen3"), ("gemma", "gemma"), ("gemma2", "gemma2"), ("phi3", "phi3"), ("phi3-partial", "phi3"),
     ("starcoder2", "starcoder2")],
)  # fmt: skip
def test_gguf_describes_the_same_decoder(models, tmp_path: Path, name: str, architecture: str) -> None:
    folder = open_weights(models[name][0])
    write_gguf(folder, tmp_path / "model.gguf", architecture)
    file = open_weights(tmp_path / "model.gguf")
    expected = folder.shape
    # The query scalar of Gemma 2 and the window of StarCoder2 are not in the format.
    lost = {"gemma2": {"attention_scale": 0.0}, "starcoder2": {"layer_kinds": ()}}.get(name, {})
    expected = msgspec.structs.replace(expected, **lost)
    for field in msgspec.structs.fields(expected):
        got, wanted = getattr(file.shape, field.name), getattr(expected, field.name)
        if isinstance(wanted, float):
            assert got == pytest.approx(wanted, rel=1e-6), field.name
        elif field.name == "rotary":
            for ours, theirs in zip(got, wanted, strict=True):
                np.testing.assert_allclose(ours.frequencies, theirs.frequencies, rtol=1e-6)
        else:
            assert got == wanted, field.name
    assert set(file.tensors) == set(folder.tensors)
    for key, tensor in file.tensors.items():
        np.testing.assert_array_equal(tensor.dequantise(), folder.tensors[key].dequantise(), err_msg=key)


def test_gguf_of_llama_3_divides_its_frequencies(models, tmp_path: Path) -> None:
    """`rope_freqs.weight` holds a divisor for each frequency; metadata names the linear and YaRN forms."""
    scaled, plain = open_weights(models["llama-llama3"][0]), open_weights(models["llama"][0])
    head_dim = plain.shape.head_dim
    table = np.array(reference.plain_table(head_dim, 1e4).frequencies)
    divisors = (table / np.array(scaled.shape.rotary[0].frequencies)).astype(np.float32)
    writer = gguf.GGUFWriter(tmp_path / "llama.gguf", "llama")
    shape = plain.shape
    writer.add_block_count(0)
    writer.add_context_length(512)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tensor("token_embd.weight", np.zeros((130, shape.hidden_size), np.float32))
    writer.add_tensor("output_norm.weight", np.ones(shape.hidden_size, np.float32))
    writer.add_tensor("rope_freqs.weight", divisors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    got = open_weights(tmp_path / "llama.gguf").shape.rotary[0]
    np.testing.assert_allclose(got.frequencies, scaled.shape.rotary[0].frequencies, rtol=1e-6)
