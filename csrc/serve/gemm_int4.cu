// Matrix product with 4-bit weights on CUDA: activations in 16 bits, a scale and a minimum per 32 weights.
//
// Up to 7 rows of activations it is a matrix-vector product: a warp owns one output feature, a lane one group of 32
// weights at a time (16-byte loads), and a group costs scale * (q . x) + minimum * sum(x). From 8 rows on, a block of
// four warps owns 64 features x 64 rows, weights are the 16-row operand of mma.sync and are unpacked in registers: the
// group layout puts what a lane needs for two neighbouring k-steps into one byte pair. Tiles travel by cp.async, three
// stages deep.
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/kernels.h"
#include "cuda/launch.cuh"
#include "cuda/number.cuh"
#include "cuda/ptx.cuh"

namespace highrise::cuda {
namespace {

constexpr int kGroup = 32;
constexpr int kGroupBytes = kGroup / 2;
constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr unsigned kAllLanes = 0xffffffffU;

struct alignas(16) PackedGroup {
  std::uint8_t byte[kGroupBytes];
};

// ---- few rows: matrix-vector
// -----------------------------------------------------------------------------------------

constexpr int kMaxVectorRows = 7;

template <typename T, int kRows>
__global__ void __launch_bounds__(kThreads) vector_kernel(GemmInt4 call) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t feature = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (feature >= call.n) return;  // a whole warp leaves together
  const int groups = call.k / kGroup;
  const auto* packed = reinterpret_cast<const PackedGroup*>(call.packed) + feature * groups;
  const auto* scales = static_cast<const __half*>(call.scale) + feature * groups;
  const auto* minimums = static_cast<const __half*>(call.minimum) + feature * groups;
  const auto* input = static_cast<const Vector<T>*>(call.input);

  float total[kRows];
#pragma unroll
  for (int row = 0; row < kRows; ++row) total[row] = 0.0F;
  for (int group = lane; group < groups; group += 32) {
    const PackedGroup bytes = packed[group];
    const float scale = __half2float(scales[group]);
    const float minimum = __half2float(minimums[group]);
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      const Vector<T>* x = input + (static_cast<std::int64_t>(row) * call.k + group * kGroup) / kVector;
      float dot = 0.0F;
      float sum = 0.0F;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Vector<T> low = x[half];
        const Vector<T> high = x[half + 2];
#pragma unroll
        for (int i = 0; i < kVector; ++i) {
          const unsigned byte = bytes.byte[half * kVector + i];
          const float first = to_float(low.item[i]);
          const float second = to_float(high.item[i]);
          dot += static_cast<float>(byte & 15U) * first + static_cast<float>(byte >> 4U) * second;
          sum += first + second;
        }
      }
      total[row] += scale * dot + minimum * sum;
    }
  }
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) total[row] += __shfl_xor_sync(kAllLanes, total[row], step);
    if (lane == 0) {
      static_cast<T*>(call.output)[static_cast<std::int64_t>(row) * call.n + feature] = from_float<T>(total[row]);
    }
  }
}

template <typename T, int kRows = 1>
Status launch_vector(const GemmInt4& call, void* stream) {
  if constexpr (kRows < kMaxVectorRows) {
    if (call.m > kRows) return launch_vector<T, kRows + 1>(call, stream);
  }
  const dim3 grid(static_cast<unsigned>((call.n + kWarps - 1) / kWarps));
  return launch(vector_kernel<T, kRows>, grid, kThreads, 0, stream, call);
}

// ---- many rows: tensor cores
// -----------------------------------------------------------------------------------------

constexpr int kTileFeatures = 16 * kWarps;
constexpr int kTileRows = 64;
constexpr int kTileK = 64;
constexpr int kTileGroups = kTileK / kGroup;
constexpr int kStages = 3;
constexpr int kPadding = 8;  // 16 bytes a row: the eight rows that a warp reads at once fall into different banks
constexpr int kColumns = kTileRows / 8;

template <typename T>
struct Stage {
  alignas(16) T input[kTileRows][kTileK + kPadding];
  PackedGroup packed[kTileFeatures][kTileGroups];
};

// Starts the copies of k-tile `tile` into `stage`: rows past m, features past n and groups past k become zeros.
template <typename T>
__device__ void load_stage(Stage<T>& stage, const GemmInt4& call, int first_feature, int first_row, int tile) {
  constexpr int kVectors = kTileK / kVector;
  for (int index = static_cast<int>(threadIdx.x); index < kTileRows * kVectors; index += kThreads) {
    const int row = index / kVectors;
    const int column = index % kVectors * kVector;
    const int k = tile * kTileK + column;
    const bool valid = first_row + row < call.m && k < call.k;
    const std::int64_t at = valid ? static_cast<std::int64_t>(first_row + row) * call.k + k : 0;
    copy_async(&stage.input[row][column], static_cast<const T*>(call.input) + at, valid);
  }
  const int groups = call.k / kGroup;
  for (int index = static_cast<int>(threadIdx.x); index < kTileFeatures * kTileGroups; index += kThreads) {
    const int feature = index / kTileGroups;
    const int group = tile * kTileGroups + index % kTileGroups;
    const bool valid = first_feature + feature < call.n && group < groups;
    const std::int64_t at = valid ? static_cast<std::int64_t>(first_feature + feature) * groups + group : 0;
    copy_async(&stage.packed[feature][index % kTileGroups], call.packed + at * kGroupBytes, valid);
  }
}

// Two weights of one row for k-step `half` (0: elements 0 to 15, low nibbles; 1: elements 16 to 31, high nibbles).
template <typename T>
__device__ inline std::uint32_t unpack(unsigned two_bytes, int half, float scale, float minimum) {
  const unsigned shifted = two_bytes >> (4 * half);
  const auto low = static_cast<float>(shifted & 15U);
  const auto high = static_cast<float>((shifted >> 8U) & 15U);
  return pair<T>(scale * low + minimum, scale * high + minimum);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) tensor_kernel(GemmInt4 call) {
  auto* stages = reinterpret_cast<Stage<T>*>(shared_memory());
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int quad = lane / 4;  // row of a, column of b and row of d in this lane's fragments
  const int rest = lane % 4;  // which pair along k, and which pair of columns of d
  const int first_feature = static_cast<int>(blockIdx.x) * kTileFeatures;
  const int first_row = static_cast<int>(blockIdx.y) * kTileRows;
  const int groups = call.k / kGroup;
  const int tiles = (call.k + kTileK - 1) / kTileK;

  float total[kColumns][4];
#pragma unroll
  for (int column = 0; column < kColumns; ++column) {
#pragma unroll
    for (int i = 0; i < 4; ++i) total[column][i] = 0.0F;
  }
#pragma unroll
  for (int tile = 0; tile < kStages - 1; ++tile) {
    if (tile < tiles) load_stage(stages[tile], call, first_feature, first_row, tile);
    copy_commit();
  }
  for (int tile = 0; tile < tiles; ++tile) {
    copy_wait<kStages - 2>();
    __syncthreads();  // this tile is there for all, and the stage of the tile before is free
    const int next = tile + kStages - 1;
    if (next < tiles) load_stage(stages[next % kStages], call, first_feature, first_row, next);
    copy_commit();
    const Stage<T>& stage = stages[tile % kStages];
#pragma unroll
    for (int part = 0; part < kTileGroups; ++part) {
      const int group = tile * kTileGroups + part;
      float scale[2];
      float minimum[2];
      unsigned bytes[2][2];  // [upper or lower eight rows][elements 2 * rest, then eight further on]
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        const int feature = warp * 16 + side * 8 + quad;
        const bool valid = first_feature + feature < call.n && group < groups;
        const std::int64_t at = static_cast<std::int64_t>(first_feature + feature) * groups + group;
        scale[side] = valid ? __half2float(static_cast<const __half*>(call.scale)[at]) : 0.0F;
        minimum[side] = valid ? __half2float(static_cast<const __half*>(call.minimum)[at]) : 0.0F;
        const std::uint8_t* packed = stage.packed[feature][part].byte + 2 * rest;
        bytes[side][0] = *reinterpret_cast<const std::uint16_t*>(packed);
        bytes[side][1] = *reinterpret_cast<const std::uint16_t*>(packed + 8);
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const std::uint32_t a[4] = {
            unpack<T>(bytes[0][0], half, scale[0], minimum[0]), unpack<T>(bytes[1][0], half, scale[1], minimum[1]),
            unpack<T>(bytes[0][1], half, scale[0], minimum[0]), unpack<T>(bytes[1][1], half, scale[1], minimum[1])};
        const int k = part * kGroup + half * 16 + 2 * rest;
#pragma unroll
        for (int column = 0; column < kColumns; ++column) {
          const T* input = &stage.input[column * 8 + quad][k];
          const std::uint32_t b[2] = {*reinterpret_cast<const std::uint32_t*>(input),
                                      *reinterpret_cast<const std::uint32_t*>(input + 8)};
          mma_16x8x16<T>(total[column], a, b);
        }
      }
    }
  }
#pragma unroll
  for (int column = 0; column < kColumns; ++column) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int feature = first_feature + warp * 16 + i / 2 * 8 + quad;
      const int row = first_row + column * 8 + 2 * rest + i % 2;
      if (feature < call.n && row < call.m) {
        static_cast<T*>(call.output)[static_cast<std::int64_t>(row) * call.n + feature] =
            from_float<T>(total[column][i]);
      }
    }
  }
}

template <typename T>
Status launch_gemm(const GemmInt4& call, void* stream) {
  if (call.m <= kMaxVectorRows) return launch_vector<T>(call, stream);
  const dim3 grid(static_cast<unsigned>((call.n + kTileFeatures - 1) / kTileFeatures),
                  static_cast<unsigned>((call.m + kTileRows - 1) / kTileRows));
  return launch(tensor_kernel<T>, grid, kThreads, kStages * sizeof(Stage<T>), stream, call);
}

}  // namespace

Status gemm_int4(const GemmInt4& call, void* stream) {
  if (call.m < 1 || call.n < 1 || call.k < 1) return kBadSize;
  if (call.k % kGroup != 0) return kBadGroup;
  return call.number == Number::kFloat16 ? launch_gemm<__half>(call, stream) : launch_gemm<__nv_bfloat16>(call, stream);
}

}  // namespace highrise::cuda
