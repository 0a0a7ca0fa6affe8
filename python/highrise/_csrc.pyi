"""Types of the C++ module. It lies in the shared object of `_native` and is opened by `highrise.core.native`, so no
file has its name; `scripts/stubtest.py` holds these lines to it, parameter by parameter.
"""

from collections.abc import Sequence
from typing import final

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float32]
_Integers = npt.NDArray[np.int32]

class _Class(type): ...

def available_isas() -> list[str]: ...
def available_orders() -> list[str]: ...

@final
class Decoder(metaclass=_Class):
    def __init__(
        self,
        *,
        hidden_size: int,
        num_hidden_layers: int,
        num_attention_heads: int,
        num_key_value_heads: int,
        head_dim: int,
        intermediate_size: int,
        vocab_size: int,
        rope_theta: float = 10000.0,
        rms_norm_eps: float = 1e-06,
        attention_bias: bool = False,
        tie_word_embeddings: bool = False,
        num_pages: int,
        threads: int,
        page_size: int = 16,
        isa: str = "auto",
        kv: str = "float16",
        interleaved: bool = False,
        layer_norm: bool = False,
        query_key_norm: bool = False,
        sandwich_norms: bool = False,
        output_bias: bool = False,
        mlp_bias: bool = False,
        gated: bool = True,
        activation: str = "silu",
        embedding_scale: float = 1.0,
        attention_scale: float = 0.0,
        attention_softcap: float = 0.0,
        logit_softcap: float = 0.0,
        rotary: Sequence[tuple[Sequence[float], float]] = [],
        layer_kinds: Sequence[tuple[int, int]] = [],
    ) -> None: ...
    def set_tensor(
        self, name: str, raw: npt.NDArray[np.uint8], type: str, rows: int, cols: int, weights: str = "stored"
    ) -> None: ...
    def missing(self) -> str | None: ...
    def forward(
        self,
        tokens: _Integers,
        positions: _Integers,
        sequence: _Integers,
        page_table: _Integers,
        logit_rows: _Integers,
        adapters: _Integers | None = None,
    ) -> _Floats: ...
    def hidden(
        self,
        tokens: _Integers,
        positions: _Integers,
        sequence: _Integers,
        page_table: _Integers,
        adapters: _Integers | None = None,
    ) -> _Floats: ...
    def copy_pages(self, src: _Integers, dst: _Integers) -> None: ...
    def move_tokens(self, src: _Integers, dst: _Integers, src_start: int, dst_start: int, count: int) -> None: ...
    def add_adapter(self) -> int: ...
    def set_adapter(
        self, adapter: int, name: str, a: _Floats, b: _Floats, scale: float, exact: bool = False
    ) -> None: ...
    def remove_adapter(self, adapter: int) -> None: ...
    @property
    def isa(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def num_pages(self) -> int: ...
    @property
    def page_size(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...

@final
class Encoder(metaclass=_Class):
    def __init__(
        self,
        *,
        hidden_size: int,
        num_hidden_layers: int,
        num_attention_heads: int,
        intermediate_size: int,
        layer_norm_eps: float = 1e-12,
        threads: int,
        isa: str = "auto",
    ) -> None: ...
    def set_tensor(self, name: str, values: _Floats) -> None: ...
    def missing(self) -> str | None: ...
    def encode(self, embedded: _Floats, offsets: npt.NDArray[np.int64]) -> _Floats: ...
    @property
    def isa(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...

@final
class PackedMatrix(metaclass=_Class):
    def __init__(
        self,
        raw: npt.NDArray[np.uint8],
        type: str,
        rows: int,
        cols: int,
        weights: str = "stored",
        isa: str = "auto",
    ) -> None: ...
    def unpack(self) -> _Floats: ...
    def multiply(self, inputs: QuantisedInputs, isa: str = "auto") -> _Floats: ...
    @property
    def bits(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

@final
class QuantisedInputs(metaclass=_Class):
    def __init__(self, x: _Floats, isa: str = "auto") -> None: ...
    @property
    def codes(self) -> npt.NDArray[np.int8]: ...
    @property
    def scales(self) -> _Floats: ...

def rms_norm(x: _Floats, weight: _Floats, epsilon: float, isa: str = "auto") -> _Floats: ...
def rotate(x: _Floats, cosine: _Floats, sine: _Floats, isa: str = "auto") -> _Floats: ...
def swiglu(gate: _Floats, up: _Floats, isa: str = "auto") -> _Floats: ...
def layer_norm(x: _Floats, weight: _Floats, bias: _Floats, epsilon: float, isa: str = "auto") -> _Floats: ...
def gelu(x: _Floats, isa: str = "auto") -> _Floats: ...
def attend(
    queries: _Floats,
    visible: _Integers,
    cache: npt.NDArray[np.uint8],
    page_table: _Integers,
    page_size: int,
    kv: str,
    isa: str = "auto",
) -> _Floats: ...
