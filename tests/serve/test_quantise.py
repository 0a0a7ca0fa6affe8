"""Quantised GGUF files: their blocks are what they should be, our reader and the `gguf` package agree on them, and bad
input is one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import highrise
from highrise.cli import main
from highrise.core.blocks import dequantise
from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError, InputError
from highrise.core.gguf import Gguf
from highrise.core.weights import open_weights
from highrise.serve.loader import make_decoder, plan_memory
from highrise.serve.perplexity import perplexity
from highrise.serve.quantise import Widths, num_weights, quantise_file
from highrise.serve.quantise_blocks import round_matrix
from highrise.serve.quantise_text import cut_windows, hold_out, read_texts
from tests.reference import decoder as reference

HIDDEN, INNER, HEADS, VOCABULARY = 64, 96, 4, 130


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A decoder of two layers with random weights in float32."""
    rng = np.random.default_rng(5)
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_block_count(2)
    writer.add_context_length(1024)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_string("general.name", "größe")
    shapes = {"token_embd": (VOCABULARY, HIDDEN), "output_norm": (HIDDEN,)}
    for layer in range(2):
        parts = {
            "attn_norm": (HIDDEN,), "ffn_norm": (HIDDEN,), "attn_q_norm": (16,), "attn_k_norm": (16,),
            "attn_q": (HIDDEN, HIDDEN), "attn_k": (HIDDEN, HIDDEN), "attn_v": (HIDDEN, HIDDEN),
            "attn_output": (HIDDEN, HIDDEN), "ffn_gate": (INNER, HIDDEN), "ffn_up": (INNER, HIDDEN),
            "ffn_down": (HIDDEN, INNER),
        }  # fmt: skip
        shapes |= {f"blk.{layer}.{part}": shape for part, shape in parts.items()}
    for name, shape in shapes.items():
        spread = shape[-1] ** -0.5 if len(shape) == 2 else 1.0
        writer.add_tensor(f"{name}.weight", (rng.standard_normal(shape) * spread).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@settings(max_examples=30)
@given(
    groups=st.integers(1, 5),
    kind=st.sampled_from(["Q4_0", "Q4_1", "Q8_0"]),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 50.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_clipping_is_never_worse_than_rounding(groups: int, kind: str, scale: float, seed: int) -> None:
    x = (np.random.default_rng(seed).standard_t(3, 32 * groups) * scale).astype(np.float32)
    errors = []
    for rounding in ("round", "clip"):
        raw = round_matrix(x.reshape(groups, 32), kind, rounding).blocks().reshape(-1)
        held = dequantise(raw, kind)
        theirs = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind]).reshape(-1)
        np.testing.assert_array_equal(held, theirs)
        errors.append(((held - x).reshape(-1, 32) ** 2).sum(axis=1))
    assert np.all(errors[1] <= errors[0] * (1 + 1e-5) + 1e-12)


@pytest.mark.parametrize(
    ("weights", "kinds"),
    [
        ("int4", {"Q4_1": 14, "Q8_0": 1, "F32": 9}),
        ("int4-symmetric", {"Q4_0": 14, "Q8_0": 1, "F32": 9}),
        ("int8", {"Q8_0": 15, "F32": 9}),
    ],
)
def test_a_file_keeps_everything_but_its_matrices(model: Path, tmp_path: Path, weights, kinds) -> None:
    out, widths = tmp_path / "out.gguf", Widths(weights=weights)
    done: list[int] = []
    assert quantise_file(model, out, widths, advance=done.append) == kinds
    assert sum(done) == num_weights(model, widths)
    before, after = Gguf(model), Gguf(out)
    assert after.metadata == before.metadata
    assert list(after.tensors) == list(before.tensors)
    for name in before.tensors:
        old, new = (dequantise(file.read(name), file.tensors[name].type) for file in (before, after))
        if after.tensors[name].type == "F32":
            np.testing.assert_array_equal(new, old)
        else:
            most = {"Q4_0": 0.11, "Q4_1": 0.1, "Q8_0": 0.01}[after.tensors[name].type]
            assert np.sqrt(((new - old) ** 2).mean()) < most * old.std()
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(out).tensors}
    assert {name: tensor.tensor_type.name for name, tensor in theirs.items()} == {
        name: tensor.type for name, tensor in after.tensors.items()
    }
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(np.asarray(tensor.data).reshape(-1).view(np.uint8), after.read(name))
    # What has no more bits than asked for stays, so a second pass changes nothing.
    again = tmp_path / "again.gguf"
    quantise_file(out, again, widths)
    assert again.read_bytes() == out.read_bytes()


def test_perplexity_is_that_of_the_slow_decoder(model: Path) -> None:
    file = open_weights(model)
    weights = {name: tensor.dequantise() for name, tensor in file.tensors.items()}
    ids = np.random.default_rng(1).integers(0, VOCABULARY, 700).tolist()
    losses = []
    for begin in (0, 256):
        window = ids[begin : begin + 256]
        logits = reference.logits(file.shape, weights, window).astype(np.float64)
        rows = np.arange(128, 255)
        norm = np.log(np.exp(logits[rows]).sum(axis=1))
        losses.append(norm - logits[rows, np.array(window)[rows + 1]])
    plan = plan_memory(file.shape, threads=1, num_pages=16, max_context=None)
    decoder = make_decoder(file, plan, weights="float32", isa="portable", kv="fp32")
    got = perplexity(decoder, ids[:600], window=256)
    assert got == pytest.approx(np.exp(np.concatenate(losses).mean()), rel=1e-4)
    with pytest.raises(InputError, match="the text has 40 tokens; perplexity needs at least one window of 256"):
        perplexity(decoder, ids[:40], window=256)


def test_the_command_writes_and_refuses(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, empty, few = tmp_path / "int4.gguf", tmp_path / "empty", ("--calibration-tokens", "100")
    empty.mkdir()
    (empty / "picture.png").write_bytes(b"\x89PNG\0\xff")
    assert main(["quantise", str(model), str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bytes_after"] == out.stat().st_size < report["bytes_before"]
    for arguments, message in (
        ([str(model), str(out)], "exists; give another name"),
        ([str(tmp_path), str(tmp_path / "x.gguf")], "is a folder; GGUF files are quantised"),
        ([str(model), str(tmp_path / "x.gguf"), "--text", str(tmp_path / "no.txt")], "cannot read the text"),
        ([str(model), str(tmp_path / "x.gguf"), "--method", "gptq"], "--method gptq needs a text"),
        (
            [str(model), str(tmp_path / "x.gguf"), "--method", "awq", "--weights", "int8", "--calibration", "x"],
            "is for 4 bits",
        ),
        ([str(model), str(tmp_path / "x.gguf"), "--method", "hqq", "--weights", "int4-symmetric"], "does not have"),
        (
            [str(model), str(tmp_path / "x.gguf"), "--method", "gptq", "--calibration", str(empty)],
            "there is no text in",
        ),
        (
            [str(model), str(tmp_path / "x.gguf"), "--method", "gptq", "--calibration", "x", *few],
            "--calibration-tokens is 100; at least 512",
        ),
    ):
        assert main(["quantise", *arguments]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "x.gguf").exists()


def test_a_text_is_held_out_and_cut(tmp_path: Path) -> None:
    for index in range(20):
        (tmp_path / f"{index:02}.txt").write_text(f"<{index}>")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("hidden")
    (tmp_path / "binary").write_bytes(b"a\0b")
    texts = read_texts([str(tmp_path)])
    assert texts == [f"<{index}>" for index in range(20)]
    assert hold_out(texts)[1] == "<9><19>"
    assert sorted("".join(hold_out(texts))) == sorted("".join(texts))
    assert hold_out(["a" * 95, "b" * 5]) == ("a" * 90, "a" * 5 + "b" * 5)
    windows = cut_windows(list(range(103)), 10, 4)
    assert windows.shape == (4, 10)
    assert windows[0].tolist() == list(range(10))
    assert windows[-1].tolist() == list(range(90, 100))
    assert len(cut_windows(list(range(103)), 10, 99)) == 10
    with pytest.raises(InputError, match="the text has 9 tokens; at least one window of 10"):
        cut_windows(list(range(9)), 10, 4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_gptq_over_own_text_halves_what_4_bits_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """smollm2, from 4 bits with a minimum to 4 bits without, over 4,096 tokens of this package."""
    try:
        locate("smollm2-135m")
    except HighriseError as error:
        pytest.skip(f"smollm2-135m is not in the local cache: {error}")
    package = Path(highrise.__file__).parent
    rise = {}
    for method in ("round", "gptq"):
        command = [
            "quantise",
            "smollm2-135m",
            str(tmp_path / f"{method}.gguf"),
            "--weights",
            "int4-symmetric",
            "--json",
        ]
        command += ["--method", method, "--text", *sorted(map(str, package.glob("core/*.py")))[:6]]
        if method == "gptq":
            command += ["--calibration", str(package / "data"), "--calibration-tokens", "4096"]
        assert main(command) == 0
        report = json.loads(capsys.readouterr().out)
        rise[method] = report["perplexity_after"] / report["perplexity_before"] - 1
    assert not (tmp_path / ".gptq.gguf.calibration").exists()
    assert 0 < rise["gptq"] < 0.6 * rise["round"]
