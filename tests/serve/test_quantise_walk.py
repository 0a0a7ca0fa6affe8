"""Texts go through every architecture as through the slow decoder, and what a text helped to round is put in its place:
the written file computes what was seen while rounding, whatever took up scales and however its matrices lie there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from highrise.core.gguf import Gguf
from highrise.core.weights import file_rows, open_weights, parts_of
from highrise.serve.quantise import Widths, kinds_by_matrix, quantise_file
from highrise.serve.quantise_calibrated import CALIBRATED, calibrate
from highrise.serve.quantise_kept import Kept
from highrise.serve.quantise_walk import Site, walk
from tests.reference import decoder as reference
from tests.serve.test_architectures import MODELS, TOKENS, build, write_gguf

WINDOWS = np.array(TOKENS[:144], np.int64).reshape(3, 48)
STORED = ["llama", "qwen3", "gemma2", "phi3", "starcoder2"]
"""Architectures with the same name in transformers and in GGUF."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    result = {}
    for name in MODELS:
        result[name] = tmp_path_factory.mktemp(name)
        build(name, result[name])
    return result


def states_of(path: Path) -> np.ndarray:
    """States after the last norm by the slow decoder, window by window."""
    file = open_weights(path)
    weights = {name: tensor.dequantise() for name, tensor in file.tensors.items()}
    return np.concatenate([reference.hidden_states(file.shape, weights, window.tolist()) for window in WINDOWS])


@pytest.mark.parametrize("name", list(MODELS))
def test_a_text_goes_through_as_through_the_slow_decoder(folders, name: str) -> None:
    file = open_weights(folders[name])
    sites: list[tuple[Site, np.ndarray]] = []
    layers: list[np.ndarray] = []

    def visit(site, inputs, matrices):
        assert all(matrices[part].shape[1] == inputs.shape[1] == len(site.columns) for part in site.names)
        sites.append((site, inputs))
        return matrices

    walk(file, WINDOWS, visit, layers.append)
    assert len(layers) == file.shape.num_hidden_layers + 1
    np.testing.assert_allclose(sites[-1][1], states_of(folders[name]), atol=2e-4, rtol=1e-4)
    seen = [part for site, _ in sites for part in site.names]
    assert len(seen) == len(set(seen))
    matrices = {part for part, tensor in file.tensors.items() if len(tensor.shape) == 2}
    tied = {"model.embed_tokens.weight"} if not file.shape.tie_word_embeddings else set()
    assert set(seen) == matrices - tied


@pytest.mark.parametrize("name", STORED)
def test_rows_lie_as_the_file_has_them(folders, tmp_path: Path, name: str) -> None:
    write_gguf(open_weights(folders[name]), tmp_path / "model.gguf", name)
    file, stored = open_weights(tmp_path / "model.gguf"), Gguf(tmp_path / "model.gguf")
    for key, tensor in stored.tensors.items():
        parts = [file.tensors[part].raw() for part in parts_of(file, key)]
        rows = np.concatenate([part.reshape(file.tensors[own].shape[0], -1)
                               for own, part in zip(parts_of(file, key), parts, strict=True)])  # fmt: skip
        np.testing.assert_array_equal(file_rows(file, key, rows).reshape(-1), stored.read(tensor.name), err_msg=key)


@pytest.mark.parametrize("method", list(CALIBRATED))
@pytest.mark.parametrize("name", STORED)
def test_the_file_computes_what_was_seen_while_rounding(folders, tmp_path: Path, name: str, method: str) -> None:
    source, out = tmp_path / "model.gguf", tmp_path / "out.gguf"
    write_gguf(open_weights(folders[name]), source, name)
    widths = Widths(weights="int4")
    file, kinds = open_weights(source), kinds_by_matrix(source, widths)
    kept = calibrate(file, WINDOWS, kinds, CALIBRATED[method], tmp_path / "kept")
    layers = {part for part in kinds if part.startswith("model.layers.")}
    assert {part for part in kept.names() if kept.get(part).dtype == np.uint8} == layers
    assert (kept.names() > layers) == CALIBRATED[method].scales
    quantise_file(source, out, widths, calibrated=kept)
    after = open_weights(out)
    assert {after.tensors[part].type for part in layers} == {"Q4_1"}
    after.tensors["model.embed_tokens.weight"] = file.tensors["model.embed_tokens.weight"]  # as while rounding
    seen: list[np.ndarray] = []
    walk(after, WINDOWS, lambda site, inputs, matrices: matrices, seen.append, head=False)
    np.testing.assert_allclose(seen[-1], kept.states, atol=0.02 * np.abs(kept.states).max())


def test_a_killed_run_goes_on_after_the_last_layer(folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "model.gguf"
    write_gguf(open_weights(folders["qwen3"]), source, "qwen3")
    file, kinds = open_weights(source), kinds_by_matrix(source, Widths(weights="int4", head="int4"))
    method = CALIBRATED["awq-gptq"]
    whole = calibrate(file, WINDOWS, kinds, method, tmp_path / "whole")
    assert whole.layers == file.shape.num_hidden_layers + 1

    class KillError(Exception):
        pass

    done: list[int] = []

    def advance(count: int) -> None:
        done.append(count)
        if len(done) == 3:
            raise KillError

    with pytest.raises(KillError):
        calibrate(file, WINDOWS, kinds, method, tmp_path / "part", advance)
    done = [0] * 3  # no more deaths
    again = calibrate(file, WINDOWS, kinds, method, tmp_path / "part", advance)
    assert done[3] == 2 * WINDOWS.size
    assert len(done) == 4 + whole.layers - 2
    assert again.names() == whole.names()
    for name in whole.names():
        np.testing.assert_array_equal(again.get(name), whole.get(name), err_msg=name)
    # Other work finds nothing to go on with, and a damaged folder is no obstacle.
    for file_name in ("states.safetensors", "layer-001.safetensors"):
        (tmp_path / "part" / file_name).write_bytes(b"x")
        assert Kept(tmp_path / "part", "other").layers == 0
    again.remove()
    assert not (tmp_path / "part").exists()
