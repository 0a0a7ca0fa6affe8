// Test-only twin of CUDA's header: keywords that mean nothing to a C++ compiler, indices, barriers, shuffles, the
// launch.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "fibres.h"

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

using cudaStream_t = void*;
using cudaError_t = int;

struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

inline cuda_on_cpu::Index blockIdx;
struct ThreadIndex {
  struct X {
    operator unsigned() const { return cuda_on_cpu::Block::current_block->current; }
  } x;
};
inline ThreadIndex threadIdx;

inline void __syncthreads() { cuda_on_cpu::Block::current_block->block_barrier(); }

inline float __shfl_xor_sync(unsigned, float value, int step) {
  auto& block = *cuda_on_cpu::Block::current_block;
  auto& own = block.self();
  const unsigned set = own.exchanges++ % 2;
  own.slot.value[set] = value;
  block.warp_barrier();
  return block.lane((block.current % 32) ^ static_cast<unsigned>(step)).slot.value[set];
}

inline int min(int a, int b) { return a < b ? a : b; }

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  constexpr cudaError_t kInvalidConfiguration = 9;
  constexpr cudaError_t kLaunchFailure = 719;
  const unsigned threads = config->blockDim.x;
  if (threads == 0 || threads > 1024 || config->dynamicSmemBytes > 48 * 1024) return kInvalidConfiguration;
  if (config->gridDim.x == 0 || config->gridDim.y == 0 || config->gridDim.y > 65535 || config->gridDim.z > 65535) {
    return kInvalidConfiguration;
  }
  try {
    cuda_on_cpu::Block block(threads, config->dynamicSmemBytes);
    for (unsigned z = 0; z < config->gridDim.z; ++z) {
      for (unsigned y = 0; y < config->gridDim.y; ++y) {
        for (unsigned x = 0; x < config->gridDim.x; ++x) {
          blockIdx = {x, y, z};
          block.run([&] { kernel(static_cast<Parameters>(arguments)...); });
        }
      }
    }
  } catch (const std::exception& error) {
    cuda_on_cpu::last_error = error.what();
    return kLaunchFailure;
  }
  return 0;
}
