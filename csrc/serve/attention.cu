// Paged decode attention on CUDA: one query token a sequence, grouped queries, the context split over blocks.
//
// A block owns one key-value head of one sequence and one part of its context, so that keys and values are read once
// for all query heads of the group. head_dim / 8 lanes hold one token (16-byte loads), a warp works on several tokens
// at a time, and every lane group keeps its own online softmax (Milakov and Gimelshein 2018). Parts are merged in
// shared memory, then by a second kernel over the splits (flash-decoding). Memory-bound: what counts is loads in
// flight.
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "cuda/kernels.h"
#include "cuda/launch.cuh"
#include "cuda/number.cuh"
#include "cuda/ptx.cuh"

namespace highrise::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kTokensInFlight = 2;  // of each lane group: keys and values loaded before the first is used
constexpr float kMinusInfinity = -INFINITY;
constexpr unsigned kAllLanes = 0xffffffffU;

// Running softmax of one query head: largest score, sum of weights, weighted sum of values (this lane's eight
// elements).
struct Partial {
  float largest;
  float sum;
  float weighted[kVector];
};

__device__ inline void reset(Partial& partial) {
  partial.largest = kMinusInfinity;
  partial.sum = 0.0F;
#pragma unroll
  for (int i = 0; i < kVector; ++i) partial.weighted[i] = 0.0F;
}

// Factor that brings a part with largest score `own` to the common `largest`; an empty part counts nothing.
__device__ inline float rescale(float own, float largest) {
  return own == kMinusInfinity ? 0.0F : exp2f(own - largest);
}

__device__ inline void merge(Partial& into, float largest, float sum, const float (&weighted)[kVector]) {
  const float common = fmaxf(into.largest, largest);
  const float keep = rescale(into.largest, common);
  const float add = rescale(largest, common);
  into.largest = common;
  into.sum = into.sum * keep + sum * add;
#pragma unroll
  for (int i = 0; i < kVector; ++i) into.weighted[i] = into.weighted[i] * keep + weighted[i] * add;
}

// Partial results of a split in the workspace: head_dim weighted sums, then largest score and sum.
__host__ __device__ constexpr int partial_floats(int head_dim) { return head_dim + 2; }

template <typename T, int kHeadDim, int kHeads>
__global__ void __launch_bounds__(kThreads) split_kernel(PagedAttention call, int tiles) {
  constexpr int kLanes = kHeadDim / kVector;  // lanes of a token
  constexpr int kTokens = 32 / kLanes;        // tokens of a warp
  constexpr int kStride = kWarps * kTokens;

  const int split = static_cast<int>(blockIdx.x);
  const int kv_head = static_cast<int>(blockIdx.y) / tiles;
  const int tile = static_cast<int>(blockIdx.y) % tiles;
  const int sequence = static_cast<int>(blockIdx.z);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int part = lane % kLanes;
  const int row = warp * kTokens + lane / kLanes;

  const int group = call.num_heads / call.num_kv_heads;
  const int first_head = kv_head * group + tile * kHeads;
  const int heads = min(kHeads, group - tile * kHeads);

  const int length = call.lengths[sequence];
  const int chunk = (length + call.splits - 1) / call.splits;
  const int begin = min(split * chunk, length);
  const int end = min(begin + chunk, length);

  float query[kHeads][kVector];
  Partial partial[kHeads];
  const float scale = call.scale * 1.44269504088896341F;  // exp2 instead of exp
#pragma unroll
  for (int head = 0; head < kHeads; ++head) {
    reset(partial[head]);
    if (head < heads) {
      const auto* source = static_cast<const Vector<T>*>(call.query) +
                           (static_cast<std::int64_t>(sequence) * call.num_heads + first_head + head) * kLanes + part;
      const Vector<T> loaded = *source;
#pragma unroll
      for (int i = 0; i < kVector; ++i) query[head][i] = to_float(loaded.item[i]) * scale;
    } else {
#pragma unroll
      for (int i = 0; i < kVector; ++i) query[head][i] = 0.0F;
    }
  }

  const std::int32_t* table = call.page_table + static_cast<std::int64_t>(sequence) * call.max_pages;
  const auto* keys = static_cast<const Vector<T>*>(call.key_pages);
  const auto* values = static_cast<const Vector<T>*>(call.value_pages);
  for (int base = begin; base < end; base += kStride * kTokensInFlight) {
    Vector<T> key[kTokensInFlight];
    Vector<T> value[kTokensInFlight];
    bool inside[kTokensInFlight];
#pragma unroll
    for (int flight = 0; flight < kTokensInFlight; ++flight) {
      const int token = base + flight * kStride + row;
      inside[flight] = token < end;
      const int read = inside[flight] ? token : begin;  // any valid token; its score is dropped
      const std::int64_t page = table[read / call.page_size];
      const std::int64_t slot = (page * call.num_kv_heads + kv_head) * call.page_size + read % call.page_size;
      key[flight] = keys[slot * kLanes + part];
      value[flight] = values[slot * kLanes + part];
    }
#pragma unroll
    for (int flight = 0; flight < kTokensInFlight; ++flight) {
#pragma unroll
      for (int head = 0; head < kHeads; ++head) {
        float score = 0.0F;
#pragma unroll
        for (int i = 0; i < kVector; ++i) score += query[head][i] * to_float(key[flight].item[i]);
#pragma unroll
        for (int step = kLanes / 2; step > 0; step /= 2) score += __shfl_xor_sync(kAllLanes, score, step);
        if (!inside[flight]) continue;
        float weighted[kVector];
#pragma unroll
        for (int i = 0; i < kVector; ++i) weighted[i] = to_float(value[flight].item[i]);
        merge(partial[head], score, 1.0F, weighted);
      }
    }
  }

  // Merge the lane groups of the block, one head at a time, through shared memory: [kStride][kHeadDim + 2].
  auto* shared = reinterpret_cast<float*>(shared_memory());
  constexpr int kFloats = partial_floats(kHeadDim);
#pragma unroll
  for (int head = 0; head < kHeads; ++head) {
    float* own = shared + row * kFloats;
#pragma unroll
    for (int i = 0; i < kVector; ++i) own[part * kVector + i] = partial[head].weighted[i];
    if (part == 0) {
      own[kHeadDim] = partial[head].largest;
      own[kHeadDim + 1] = partial[head].sum;
    }
    __syncthreads();
    if (head < heads) {
      float largest = kMinusInfinity;
      for (int other = 0; other < kStride; ++other) largest = fmaxf(largest, shared[other * kFloats + kHeadDim]);
      float sum = 0.0F;
      for (int other = 0; other < kStride; ++other) {
        const float* theirs = shared + other * kFloats;
        sum += theirs[kHeadDim + 1] * rescale(theirs[kHeadDim], largest);
      }
      const std::int64_t at = static_cast<std::int64_t>(sequence) * call.num_heads + first_head + head;
      for (int element = static_cast<int>(threadIdx.x); element < kHeadDim; element += kThreads) {
        float total = 0.0F;
        for (int other = 0; other < kStride; ++other) {
          const float* theirs = shared + other * kFloats;
          total += theirs[element] * rescale(theirs[kHeadDim], largest);
        }
        if (call.splits == 1) {
          static_cast<T*>(call.output)[at * kHeadDim + element] = from_float<T>(sum > 0.0F ? total / sum : 0.0F);
        } else {
          call.workspace[(at * call.splits + split) * kFloats + element] = total;
        }
      }
      if (call.splits > 1 && threadIdx.x == 0) {
        float* out = call.workspace + (at * call.splits + split) * kFloats;
        out[kHeadDim] = largest;
        out[kHeadDim + 1] = sum;
      }
    }
    __syncthreads();
  }
}

// One block a query head: adds up the splits. Threads are elements of the head.
template <typename T, int kHeadDim>
__global__ void __launch_bounds__(kHeadDim) combine_kernel(const float* workspace, T* output, int splits) {
  constexpr int kFloats = partial_floats(kHeadDim);
  const std::int64_t at = blockIdx.x;
  const float* parts = workspace + at * splits * kFloats;
  const int element = static_cast<int>(threadIdx.x);
  float largest = kMinusInfinity;
  for (int split = 0; split < splits; ++split) largest = fmaxf(largest, parts[split * kFloats + kHeadDim]);
  float sum = 0.0F;
  float total = 0.0F;
  for (int split = 0; split < splits; ++split) {
    const float* part = parts + split * kFloats;
    const float factor = rescale(part[kHeadDim], largest);
    sum += part[kHeadDim + 1] * factor;
    total += part[element] * factor;
  }
  output[at * kHeadDim + element] = from_float<T>(sum > 0.0F ? total / sum : 0.0F);
}

template <typename T, int kHeadDim, int kHeads>
Status launch_split(const PagedAttention& call, void* stream) {
  const int group = call.num_heads / call.num_kv_heads;
  const int tiles = (group + kHeads - 1) / kHeads;
  const dim3 grid(static_cast<unsigned>(call.splits), static_cast<unsigned>(call.num_kv_heads * tiles),
                  static_cast<unsigned>(call.batch));
  constexpr int kRows = kWarps * 32 / (kHeadDim / kVector);
  return launch(split_kernel<T, kHeadDim, kHeads>, grid, kThreads, kRows * partial_floats(kHeadDim) * sizeof(float),
                stream, call, tiles);
}

template <typename T, int kHeadDim>
Status launch_attention(const PagedAttention& call, void* stream) {
  const int group = call.num_heads / call.num_kv_heads;
  Status status = kOk;
  if (group == 1) {
    status = launch_split<T, kHeadDim, 1>(call, stream);
  } else if (group == 2) {
    status = launch_split<T, kHeadDim, 2>(call, stream);
  } else if (group <= 4) {
    status = launch_split<T, kHeadDim, 4>(call, stream);
  } else {
    status = launch_split<T, kHeadDim, 8>(call, stream);
  }
  if (status != kOk || call.splits == 1) return status;
  return launch(combine_kernel<T, kHeadDim>, dim3(static_cast<unsigned>(call.batch * call.num_heads)), kHeadDim, 0,
                stream, static_cast<const float*>(call.workspace), static_cast<T*>(call.output), call.splits);
}

template <typename T>
Status dispatch_head_dim(const PagedAttention& call, void* stream) {
  switch (call.head_dim) {
    case 64:
      return launch_attention<T, 64>(call, stream);
    case 128:
      return launch_attention<T, 128>(call, stream);
    case 256:
      return launch_attention<T, 256>(call, stream);
    default:
      return kUnsupportedHeadDim;
  }
}

}  // namespace

std::size_t attention_workspace_bytes(int batch, int num_heads, int head_dim, int splits) {
  if (splits <= 1) return 0;
  return static_cast<std::size_t>(batch) * static_cast<std::size_t>(num_heads) * static_cast<std::size_t>(splits) *
         static_cast<std::size_t>(partial_floats(head_dim)) * sizeof(float);
}

Status attention_decode(const PagedAttention& call, void* stream) {
  const bool sizes = call.batch > 0 && call.num_heads > 0 && call.num_kv_heads > 0 && call.page_size > 0 &&
                     call.max_pages > 0 && call.splits > 0;
  if (!sizes || (call.splits > 1 && call.workspace == nullptr)) return kBadSize;
  if (call.num_heads % call.num_kv_heads != 0) return kBadHeads;
  return call.number == Number::kFloat16 ? dispatch_head_dim<__half>(call, stream)
                                         : dispatch_head_dim<__nv_bfloat16>(call, stream);
}

}  // namespace highrise::cuda
