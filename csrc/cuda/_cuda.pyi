"""CUDA kernels of Highrise; the module is built by csrc/cuda/CMakeLists.txt. Pointers and streams are integers."""

from typing import Final

from typing_extensions import Buffer

ARCHITECTURES: Final[str]
RUNTIME_VERSION: Final[int]

def device_count() -> tuple[int, int]: ...
def error_words(status: int) -> str: ...
def attention_workspace_bytes(batch: int, num_heads: int, head_dim: int, splits: int) -> int: ...
def attention_decode(
    *,
    query: int,
    key_pages: int,
    value_pages: int,
    page_table: int,
    lengths: int,
    output: int,
    workspace: int,
    batch: int,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    page_size: int,
    max_pages: int,
    splits: int,
    scale: float,
    type: str,
    stream: int = 0,
) -> None: ...
def gemm_int4(
    *,
    input: int,
    packed: int,
    scale: int,
    minimum: int,
    output: int,
    m: int,
    n: int,
    k: int,
    type: str,
    stream: int = 0,
) -> None: ...
def allocate(bytes: int) -> int: ...
def release(memory: int) -> None: ...
def copy_to_device(memory: int, array: Buffer) -> None: ...
def copy_to_host(array: Buffer, memory: int) -> None: ...
def synchronize() -> None: ...
