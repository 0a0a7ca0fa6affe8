// The CUDA kernels as plain functions: device pointers and sizes in, status out. Knows neither Python nor torch.
// Nothing here waits: the work is queued on `stream` (a cudaStream_t, null for the default one).
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/status.h"

namespace highrise::cuda {

enum class Number { kFloat16, kBFloat16 };

// One query token a sequence against keys and values in pages. Axes: B sequences, H query heads, G key-value heads,
// D head size, P pages, S slots of a page. `query` and `output` are [B, H, D]; `key_pages` and `value_pages` [P, G, S,
// D]; `page_table` [B, max_pages]; `lengths` [B], the tokens of each sequence (0 gives zeros).
struct PagedAttention {
  const void* query;
  const void* key_pages;
  const void* value_pages;
  const std::int32_t* page_table;
  const std::int32_t* lengths;
  void* output;
  float* workspace;  // attention_workspace_bytes(), may be null when splits is 1
  int batch;
  int num_heads;
  int num_kv_heads;
  int head_dim;
  int page_size;
  int max_pages;
  int splits;  // parts of the context that run side by side
  float scale;
  Number number;
};

std::size_t attention_workspace_bytes(int batch, int num_heads, int head_dim, int splits);

Status attention_decode(const PagedAttention& call, void* stream);

// output[M, N] = input[M, K] x weight[N, K]^T, accumulated in float32. Weights are 4-bit integers q in groups of 32
// along K, weight = scale * q + minimum. `packed` is [N, K / 2] bytes: byte j of a group's 16 holds element j (low
// nibble) and element j + 16 (high nibble). `scale` and `minimum` are [N, K / 32] in float16, whatever the type of the
// activations.
struct GemmInt4 {
  const void* input;
  const std::uint8_t* packed;
  const void* scale;
  const void* minimum;
  void* output;
  int m;
  int n;
  int k;
  Number number;
};

Status gemm_int4(const GemmInt4& call, void* stream);

}  // namespace highrise::cuda
