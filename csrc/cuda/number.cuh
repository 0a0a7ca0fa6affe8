// The two 16-bit number types behind one pair of conversions, and eight of them as one 16-byte load.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace highrise::cuda {

__device__ inline float to_float(__half value) { return __half2float(value); }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
__device__ T from_float(float value);
template <>
__device__ inline __half from_float<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

constexpr int kVector = 8;  // 16-bit numbers in a 16-byte load

template <typename T>
struct alignas(16) Vector {
  T item[kVector];
};

// Two numbers as the 32-bit register that mma.sync takes, the first in the low half.
template <typename T>
__device__ inline std::uint32_t pair(float low, float high) {
  union {
    T item[2];
    std::uint32_t bits;
  } both{};
  both.item[0] = from_float<T>(low);
  both.item[1] = from_float<T>(high);
  return both.bits;
}

}  // namespace highrise::cuda
