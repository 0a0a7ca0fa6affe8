"""Products and decoder give the numbers of tests/golden/kernels.json: every instruction set, every weight form.

The other tests compare with references that can change together with the kernels; these numbers stay. The weights come
from a hash of their names, so nothing depends on a random generator. `python -m tests.serve.test_kernels_golden` writes
the file anew from the portable kernels.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from highrise.core.native import csrc
from tests.serve.isas import each_isa
from tests.serve.test_decoder import QWEN, int32, make_decoder, random_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "kernels.json"
PROMPT = [(7 * i * i + 3) % QWEN.vocab_size for i in range(40)]
ANSWER = [5, 99, 31]
SHOWN = [0, 1, 17, 63, 128, 129]
# Absolute, of logits with a standard deviation of 0.6. With rounded inputs another order of sums can turn a code that
# lies on an edge, and the layers after it carry that on: 0.043 was the most among the instruction sets of one machine.
TOLERANCE = {"stored": 2e-4, "int8": 0.1, "int4": 0.1}


def weights() -> dict[str, np.ndarray]:
    """Evenly spread numbers of the size that keeps activations near 1."""
    result = {}
    for name, like in random_weights(QWEN).items():
        digest = hashlib.shake_128(name.encode()).digest(4 * like.size)
        even = np.frombuffer(digest, "<u4").astype(np.float64) / 2**32 - 0.5
        spread = even * np.sqrt(12 / like.shape[-1]) if like.ndim == 2 else 1 + even
        result[name] = spread.reshape(like.shape).astype(np.float32)
    return result


def compute(isa: str, form: str) -> list[list[float]]:
    """Some logits after the last token of a prompt in one step, then after each token of an answer."""
    decoder = make_decoder(QWEN, weights(), isa=isa, limit=form)
    table = np.arange(decoder.num_pages, dtype=np.int32)[None]
    places = np.arange(len(PROMPT), dtype=np.int32)
    steps = [decoder.forward(int32(*PROMPT), places, np.zeros_like(places), table, int32(len(PROMPT) - 1))]
    for position, token in enumerate(ANSWER, len(PROMPT)):
        steps.append(decoder.forward(int32(token), int32(position), int32(0), table, int32(0)))
    return [logits[0, SHOWN].astype(float).tolist() for logits in steps]


def product(isa: str, form: str) -> list[float]:
    """One product of the same codes everywhere: of a down projection with one input."""
    matrix = weights()["model.layers.0.mlp.down_proj.weight"]
    packed = csrc.PackedMatrix(matrix.reshape(-1).view(np.uint8), "F32", *matrix.shape, form, isa="portable")
    x = np.sin(np.arange(matrix.shape[1], dtype=np.float64))[None].astype(np.float32)
    out = packed.multiply(csrc.QuantisedInputs(x, isa=isa), isa=isa)
    return [float(out[0, row]) for row in SHOWN[:4]]


@each_isa
@pytest.mark.parametrize("form", list(TOLERANCE))
def test_the_products_are_the_golden_ones(isa: str, form: str) -> None:
    np.testing.assert_allclose(product(isa, form), json.loads(GOLDEN.read_text())["product"][form], atol=2e-5)


@each_isa
@pytest.mark.parametrize("form", list(TOLERANCE))
def test_the_logits_are_the_golden_ones(isa: str, form: str) -> None:
    np.testing.assert_allclose(compute(isa, form), json.loads(GOLDEN.read_text())["logits"][form], atol=TOLERANCE[form])


if __name__ == "__main__":
    logits = {form: [[round(x, 5) for x in row] for row in compute("portable", form)] for form in TOLERANCE}
    products = {form: [round(x, 6) for x in product("portable", form)] for form in TOLERANCE}
    GOLDEN.write_text(json.dumps({"product": products, "logits": logits}, indent=1) + "\n")
