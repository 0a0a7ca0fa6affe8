"""The CUDA kernels beside their peers on this GPU: one table, median of event timings, equality asserted first.

    PYTHONPATH=.:build/cuda python bench/gpu/bench_kernels.py

Peers: torch (SDPA over gathered keys, int4 tinygemm), FlashInfer and Marlin, each only if it can be imported; torch
also holds the memory. Marlin knows groups of 128 and no minimum, so its weights are others: it is timed, not
compared. A peer that is absent or fails is named with the reason.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable

import _cuda
import numpy as np
from tests.reference.cuda_kernels import GROUP, dequantise, quantise

try:
    import torch
except ImportError:
    print("bench/gpu needs torch for memory and events; it is not installed")
    sys.exit(0)

Run = Callable[[], "torch.Tensor"]
REPEATS, WARM_UP = 50, 10
DEVICE = torch.cuda.get_device_name(0)


def median_seconds(run: Run) -> float:
    """Median time of one call on the device."""
    for _ in range(WARM_UP):
        run()
    pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(REPEATS)]
    for begin, end in pairs:
        begin.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in pairs) / 1000


def copy_bandwidth() -> float:
    """Bytes a second of a large copy on the device, read and written bytes counted: the ceiling."""
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / median_seconds(lambda: target.copy_(source))


def show(path: str, runs: dict[str, Run], size: int, tolerance: float, ceiling: float) -> None:
    """Check every run against the first, time it, print its line."""
    first = next(iter(runs.values()))().float()
    own = 0.0
    for who, run in runs.items():
        try:
            out = run().float()
            error = ((out - first).norm() / first.norm()).item()
            if not error < tolerance and not who.startswith("marlin"):
                print(f"{path:34} | {who:12} | wrong: relative error {error:.2e}")
                continue
            seconds = median_seconds(run)
        except Exception as error:  # a peer's own failure is a line of the report
            print(f"{path:34} | {who:12} | failed: {str(error).splitlines()[0]}")
            continue
        own = own or seconds
        share = size / seconds / ceiling
        print(
            f"{path:34} | {who:12} | {seconds * 1e6:9.1f} us | {share:6.1%} of copy bandwidth | {seconds / own:5.2f}x"
        )


def flashinfer_run(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, table: torch.Tensor, length: int
) -> Run | None:
    """FlashInfer's paged decode over the same pages, or None."""
    try:
        import flashinfer
    except ImportError:
        return None
    batch, heads, head_dim = query.shape
    _, kv_heads, page_size, _ = keys.shape
    pages = -(-length // page_size)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        torch.empty(128 << 20, dtype=torch.uint8, device="cuda"), "HND", use_tensor_cores=heads // kv_heads >= 4
    )
    indptr = torch.arange(batch + 1, dtype=torch.int32, device="cuda") * pages
    last = torch.full((batch,), (length - 1) % page_size + 1, dtype=torch.int32, device="cuda")
    wrapper.plan(
        indptr, table[:, :pages].reshape(-1), last, heads, kv_heads, head_dim, page_size, q_data_type=query.dtype
    )
    return lambda: wrapper.run(query, (keys, values))


def bench_attention(batch: int, length: int, heads: int, kv_heads: int, head_dim: int, ceiling: float) -> None:
    """One shape of decode attention."""
    page_size = 16
    pages = -(-length // page_size)
    shape = (batch * pages, kv_heads, page_size, head_dim)
    query = torch.randn(batch, heads, head_dim, device="cuda", dtype=torch.float16)
    keys, values = (torch.randn(shape, device="cuda", dtype=torch.float16) for _ in range(2))
    table = torch.randperm(batch * pages, device="cuda").to(torch.int32).reshape(batch, pages)
    lengths = torch.full((batch,), length, dtype=torch.int32, device="cuda")
    output = torch.empty_like(query)
    blocks = torch.cuda.get_device_properties(0).multi_processor_count * 4
    splits = max(1, min(blocks // (batch * kv_heads), length // 128))
    size = _cuda.attention_workspace_bytes(batch, heads, head_dim, splits)
    workspace = torch.empty(max(16, size), dtype=torch.uint8, device="cuda")

    def ours() -> torch.Tensor:
        _cuda.attention_decode(
            query=query.data_ptr(),
            key_pages=keys.data_ptr(),
            value_pages=values.data_ptr(),
            page_table=table.data_ptr(),
            lengths=lengths.data_ptr(),
            output=output.data_ptr(),
            workspace=workspace.data_ptr(),
            batch=batch,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            page_size=page_size,
            max_pages=pages,
            splits=splits,
            scale=head_dim**-0.5,
            type="float16",
            stream=torch.cuda.current_stream().cuda_stream,
        )
        return output

    # SDPA knows no pages: it gets its keys gathered in advance, which is to its advantage
    flat_keys, flat_values = (
        part[table.long()].permute(0, 2, 1, 3, 4).reshape(batch, kv_heads, pages * page_size, head_dim)[:, :, :length]
        for part in (keys, values)
    )
    runs: dict[str, Run] = {
        "highrise": ours,
        "torch SDPA": lambda: torch.nn.functional.scaled_dot_product_attention(
            query[:, :, None], flat_keys, flat_values, enable_gqa=True
        )[:, :, 0],
    }
    peer = flashinfer_run(query, keys, values, table, length)
    if peer is not None:
        runs["flashinfer"] = peer
    moved = 2 * batch * length * kv_heads * head_dim * 2
    show(f"attention b{batch} n{length} h{heads}/{kv_heads} d{head_dim}", runs, moved, 5e-3, ceiling)


def tinygemm_run(x: torch.Tensor, packed: np.ndarray, scale: np.ndarray, minimum: np.ndarray) -> Run:
    """torch's int4 product over the same weights: (q - 8) * scale + zero, so zero = minimum + 8 * scale."""
    n, groups = scale.shape
    nibbles = packed.reshape(n, groups, GROUP // 2)
    q = np.concatenate([nibbles & 15, nibbles >> 4], axis=2).reshape(n, groups * GROUP)
    pairs = torch.from_numpy((q[:, ::2] << 4 | q[:, 1::2]).astype(np.uint8)).cuda()
    weights = torch.ops.aten._convert_weight_to_int4pack(pairs, 8)
    scales = torch.from_numpy(scale.astype(np.float32)).cuda()
    zeros = torch.from_numpy(minimum.astype(np.float32)).cuda() + 8 * scales
    both = torch.stack([scales, zeros], dim=2).transpose(0, 1).contiguous().to(torch.bfloat16)
    return lambda: torch.ops.aten._weight_int4pack_mm(x, weights, GROUP, both)


def marlin_run(m: int, n: int, k: int) -> Run:
    """Marlin's float16 x int4 product of the same size, random weights."""
    import marlin

    x = torch.randn(m, k, device="cuda", dtype=torch.float16)
    weights = torch.randint(-(2**31), 2**31 - 1, (k // 16, n * 2), dtype=torch.int32, device="cuda")
    scales = torch.rand(k // 128, n, device="cuda", dtype=torch.float16)
    workspace = torch.zeros(n // 128 * 16, dtype=torch.int32, device="cuda")
    out = torch.empty(m, n, device="cuda", dtype=torch.float16)

    def run() -> torch.Tensor:
        marlin.mul(x, weights, out, scales, workspace)
        return out

    return run


def bench_gemm(m: int, n: int, k: int, ceiling: float) -> None:
    """One shape of the int4 product in bfloat16."""
    generator = np.random.default_rng(0)
    packed, scale, minimum = quantise(generator.standard_normal((n, k)).astype(np.float32))
    device = [torch.from_numpy(array).cuda() for array in (packed, scale, minimum)]
    x = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
    output = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)

    def ours() -> torch.Tensor:
        _cuda.gemm_int4(
            input=x.data_ptr(),
            packed=device[0].data_ptr(),
            scale=device[1].data_ptr(),
            minimum=device[2].data_ptr(),
            output=output.data_ptr(),
            m=m,
            n=n,
            k=k,
            type="bfloat16",
            stream=torch.cuda.current_stream().cuda_stream,
        )
        return output

    dense = torch.from_numpy(dequantise(packed, scale, minimum)).cuda().to(torch.bfloat16).T.contiguous()
    runs: dict[str, Run] = {"highrise": ours, "torch bf16": lambda: x @ dense}
    for who, make in (
        ("tinygemm", lambda: tinygemm_run(x, packed, scale, minimum)),
        ("marlin g128", lambda: marlin_run(m, n, k)),
    ):
        try:
            runs[who] = make()
        except Exception as error:  # not installed, or of another release
            print(f"{who} cannot be set up: {str(error).splitlines()[0]}")
    moved = sum(part.nbytes for part in device) + x.nbytes + output.nbytes
    show(f"int4 gemm m{m} n{n} k{k}", runs, moved, 2e-2, ceiling)


def main() -> None:
    """Print the table."""
    ceiling = copy_bandwidth()
    print(f"{DEVICE}, torch {torch.__version__}, copy {ceiling / 1e12:.2f} TB/s")
    for batch, length in ((1, 4096), (1, 32768), (16, 4096), (64, 4096)):
        bench_attention(batch, length, 32, 8, 128, ceiling)
    bench_attention(16, 4096, 14, 2, 64, ceiling)
    for m in (1, 4, 8, 16, 64):
        for n, k in ((4096, 4096), (28672, 4096), (4864, 896)):
            bench_gemm(m, n, k, ceiling)


if __name__ == "__main__":
    main()
