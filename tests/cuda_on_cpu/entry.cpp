// C names for the CUDA launchers compiled as plain C++, for ctypes; and two kernels that must be caught.
#include "cuda/kernels.h"
#include "cuda/launch.cuh"
#include "cuda/ptx.cuh"

extern "C" {

void set_options(unsigned seed, int eager_copies) { cuda_on_cpu::options = {seed, eager_copies != 0}; }

const char* last_error() { return cuda_on_cpu::last_error.c_str(); }

int attention(const void* query, const void* key_pages, const void* value_pages, const std::int32_t* page_table,
              const std::int32_t* lengths, void* output, float* workspace, int batch, int num_heads, int num_kv_heads,
              int head_dim, int page_size, int max_pages, int splits, float scale, int bfloat) {
  using namespace highrise::cuda;
  const PagedAttention call{query,     key_pages,    value_pages, page_table,
                            lengths,   output,       workspace,   batch,
                            num_heads, num_kv_heads, head_dim,    page_size,
                            max_pages, splits,       scale,       bfloat ? Number::kBFloat16 : Number::kFloat16};
  return attention_decode(call, nullptr);
}

std::size_t workspace_bytes(int batch, int num_heads, int head_dim, int splits) {
  return highrise::cuda::attention_workspace_bytes(batch, num_heads, head_dim, splits);
}

int gemm(const void* input, const std::uint8_t* packed, const void* scale, const void* minimum, void* output, int m,
         int n, int k, int bfloat) {
  using namespace highrise::cuda;
  const GemmInt4 call{input, packed, scale, minimum, output, m, n, k, bfloat ? Number::kBFloat16 : Number::kFloat16};
  return gemm_int4(call, nullptr);
}

// Conversions of the twins, checked against numpy.
void round_trip(const float* in, float* out, int count, int bfloat) {
  for (int i = 0; i < count; ++i) {
    out[i] = bfloat ? __bfloat162float(__float2bfloat16_rn(in[i])) : __half2float(__float2half_rn(in[i]));
  }
}

// A block whose odd threads skip a barrier: must be found.
void divergent_kernel(int) {
  if (threadIdx.x % 2 == 0) __syncthreads();
  __shfl_xor_sync(0xffffffffU, 1.0F, 1);
}

void overrun_kernel(int bytes) {
  if (threadIdx.x == 0) highrise::cuda::shared_memory()[bytes] = 1;
}

int launch_divergent() { return highrise::cuda::launch(divergent_kernel, dim3(1), 64, 0, nullptr, 0); }

int launch_overrun() { return highrise::cuda::launch(overrun_kernel, dim3(1), 32, 128, nullptr, 128); }
}
