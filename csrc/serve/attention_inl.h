// Attention over a paged cache with an online softmax (Milakov and Gimelshein 2018; FlashAttention), over
// common/simd.h. The query heads that share a key-value head, and neighbouring tokens of one sequence, are rows of one
// task, so that each key and value is read and widened once for all of them. Keys lie transposed in blocks of 16
// tokens: scores of 16 keys come out of plain fused multiply-adds, with no sum across lanes. Knows nothing of models or
// allocation.
#pragma once

#include "common/simd.h"
#include "serve/kernels.h"

namespace highrise::HIGHRISE_ISA {

using serve::AttentionTask;
using serve::CacheType;
using serve::kCacheGroup;
using serve::kKeyChunk;

constexpr int kKeyBlock = 16;
constexpr int kKeyVectors = kKeyBlock / kLanes;
constexpr int kMaxQueryRows = kLanes == 16 ? 8 : 4;
constexpr float kHidden = -1e30f;

template <CacheType Type>
HIGHRISE_INLINE F load_cached(const uint8_t* base, int64_t index) {
  if constexpr (Type == CacheType::kHalf) return load_half(reinterpret_cast<const uint16_t*>(base) + index);
  if constexpr (Type == CacheType::kInt8) return load_int8(reinterpret_cast<const int8_t*>(base) + index);
  return load(reinterpret_cast<const float*>(base) + index);
}

// scores[r][0..15] = queries[r] . keys of one block of 16. Codes are summed over a group, then scaled.
template <CacheType Type, int R>
HIGHRISE_INLINE void score_block(const float* queries, int head_dim, const uint8_t* keys, const uint16_t* scales,
                                 float* scores) {
  F sum[R][kKeyVectors];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < kKeyVectors; ++v) sum[r][v] = zero();
  }
  if constexpr (Type == CacheType::kInt8) {
    for (int begin = 0; begin < head_dim; begin += kCacheGroup, scales += kKeyBlock) {
      const int end = begin + kCacheGroup < head_dim ? begin + kCacheGroup : head_dim;
      F part[R][kKeyVectors];
      for (int r = 0; r < R; ++r) {
        for (int v = 0; v < kKeyVectors; ++v) part[r][v] = zero();
      }
      for (int d = begin; d < end; ++d) {
        for (int v = 0; v < kKeyVectors; ++v) {
          const F key = load_cached<Type>(keys, d * kKeyBlock + v * kLanes);
          for (int r = 0; r < R; ++r) part[r][v] = fma(key, set1(queries[r * head_dim + d]), part[r][v]);
        }
      }
      for (int v = 0; v < kKeyVectors; ++v) {
        const F scale = load_half(scales + v * kLanes);
        for (int r = 0; r < R; ++r) sum[r][v] = fma(part[r][v], scale, sum[r][v]);
      }
    }
  } else {
    for (int d = 0; d < head_dim; ++d) {
      for (int v = 0; v < kKeyVectors; ++v) {
        const F key = load_cached<Type>(keys, d * kKeyBlock + v * kLanes);
        for (int r = 0; r < R; ++r) sum[r][v] = fma(key, set1(queries[r * head_dim + d]), sum[r][v]);
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < kKeyVectors; ++v) store(scores + r * kKeyChunk + v * kLanes, sum[r][v]);
  }
}

// out[r][d..d+15] += weights[r][0..count) times values, for one page's run of tokens.
template <CacheType Type, int R>
HIGHRISE_INLINE void add_values(const float* weights, int count, const uint8_t* values, const uint16_t* scales,
                                int head_dim, float* out) {
  float token_scales[kKeyBlock];  // of the group that d is in
  for (int d = 0; d < head_dim; d += kKeyBlock) {
    if (Type == CacheType::kInt8 && d % kCacheGroup == 0) {
      for (int v = 0; v < kKeyBlock; v += kLanes)
        store(token_scales + v, load_half(scales + d / kCacheGroup * kKeyBlock + v));
    }
    F sum[R][kKeyVectors];
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < kKeyVectors; ++v) sum[r][v] = load(out + r * head_dim + d + v * kLanes);
    }
    for (int token = 0; token < count; ++token) {
      for (int v = 0; v < kKeyVectors; ++v) {
        F value = load_cached<Type>(values, static_cast<int64_t>(token) * head_dim + d + v * kLanes);
        if constexpr (Type == CacheType::kInt8) value = mul(value, set1(token_scales[token]));
        for (int r = 0; r < R; ++r) sum[r][v] = fma(value, set1(weights[r * kKeyChunk + token]), sum[r][v]);
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < kKeyVectors; ++v) store(out + r * head_dim + d + v * kLanes, sum[r][v]);
    }
  }
}

// softcap * tanh(score / softcap), with tanh x = 1 - 2 / (1 + exp 2x).
HIGHRISE_INLINE void cap_scores(float* scores, int keys, float softcap) {
  const F twice = set1(2.0f / softcap);
  for (int k = 0; k < keys; k += kLanes) {
    const F raised = exp(mul(load(scores + k), twice));
    store(scores + k, mul(set1(softcap), sub(set1(1.0f), div(set1(2.0f), add(raised, set1(1.0f))))));
  }
}

// Turns scores of one chunk into weights, keeps the running maximum and sum, and rescales what was gathered before.
HIGHRISE_INLINE void soften(float* scores, int64_t before_window, int64_t visible, int keys, float* maximum, float* sum,
                            float* out, int head_dim) {
  const int64_t unseen = before_window < keys ? before_window : keys;
  for (int64_t k = 0; k < unseen; ++k) scores[k] = kHidden;
  for (int64_t k = visible < 0 ? 0 : visible; k < keys; ++k) scores[k] = kHidden;
  F most = set1(*maximum);
  for (int k = 0; k < keys; k += kLanes) most = max(most, load(scores + k));
  const float next = reduce_max(most);
  float before[kLanes];
  store(before, exp(set1(*maximum - next)));
  F total = zero();
  for (int k = 0; k < keys; k += kLanes) {
    const F weight = exp(sub(load(scores + k), set1(next)));
    store(scores + k, weight);
    total = add(total, weight);
  }
  // exp clamps instead of reaching zero: hidden keys must not count even where all seen scores are as low
  for (int64_t k = visible < 0 ? 0 : visible; k < keys; ++k) scores[k] = 0.0f;
  for (int64_t k = 0; k < unseen; ++k) scores[k] = 0.0f;
  if (visible < keys || unseen > 0) {
    total = zero();
    for (int k = 0; k < keys; k += kLanes) total = add(total, load(scores + k));
  }
  *sum = *sum * before[0] + reduce_add(total);
  *maximum = next;
  for (int d = 0; d < head_dim; d += kLanes) store(out + d, mul(load(out + d), set1(before[0])));
}

template <CacheType Type, int R>
void attend_rows(const AttentionTask& task, int first, int rows) {
  constexpr int kBytes = Type == CacheType::kHalf ? 2 : Type == CacheType::kInt8 ? 1 : 4;
  const int head_dim = task.head_dim;
  const float* queries = task.queries + static_cast<int64_t>(first) * head_dim;
  float* out = task.out + static_cast<int64_t>(first) * head_dim;
  float* scores = task.scratch;
  float maximum[R], sum[R];
  int longest = 0, begin = task.first_visible ? INT32_MAX : 0;
  for (int r = 0; r < R; ++r) {
    maximum[r] = kHidden;
    sum[r] = 0.0f;
    if (r < rows && task.num_visible[first + r] > longest) longest = task.num_visible[first + r];
    if (r < rows && task.first_visible && task.first_visible[first + r] < begin) begin = task.first_visible[first + r];
    for (int d = 0; d < head_dim; ++d) out[r * head_dim + d] = 0.0f;
  }
  const int64_t values_offset = static_cast<int64_t>(task.page_size) * head_dim * kBytes;
  const int64_t groups = serve::cache_groups(head_dim), key_scales = 2 * values_offset;
  const int64_t value_scales = key_scales + task.page_size * groups * 2;
  const auto scales_at = [](const uint8_t* place) { return reinterpret_cast<const uint16_t*>(place); };
  // Chunks begin at the same places for all rows, so that a row's sums do not depend on its company.
  for (int start = begin / kKeyChunk * kKeyChunk; start < longest; start += kKeyChunk) {
    const int seen = longest - start < kKeyChunk ? longest - start : kKeyChunk;
    const int keys = (seen + kKeyBlock - 1) / kKeyBlock * kKeyBlock;
    for (int k = 0; k < keys; k += kKeyBlock) {
      const int position = start + k;
      const uint8_t* page = task.cache + task.page_table[position / task.page_size] * task.page_bytes;
      const int64_t offset = static_cast<int64_t>(position % task.page_size) * head_dim * kBytes;
      const uint16_t* scales = scales_at(page + key_scales) + position % task.page_size * groups;
      score_block<Type, R>(queries, head_dim, page + offset, scales, scores + k);
    }
    for (int r = 0; r < R; ++r) {
      const int64_t visible = r < rows ? static_cast<int64_t>(task.num_visible[first + r]) - start : 0;
      const int64_t unseen = r < rows && task.first_visible ? task.first_visible[first + r] - start : 0;
      if (task.softcap > 0.0f) cap_scores(scores + r * kKeyChunk, keys, task.softcap);
      soften(scores + r * kKeyChunk, unseen, visible, keys, maximum + r, sum + r, out + r * head_dim, head_dim);
    }
    for (int k = 0; k < seen; k += kKeyBlock) {
      const int position = start + k;
      const int count = seen - k < kKeyBlock ? seen - k : kKeyBlock;
      const uint8_t* page = task.cache + task.page_table[position / task.page_size] * task.page_bytes;
      const int64_t offset = static_cast<int64_t>(position % task.page_size) * head_dim * kBytes;
      const uint16_t* scales = scales_at(page + value_scales) + position % task.page_size * groups;
      add_values<Type, R>(scores + k, count, page + values_offset + offset, scales, head_dim, out);
    }
  }
  for (int r = 0; r < rows; ++r) {
    const F inverse = set1(1.0f / sum[r]);
    for (int d = 0; d < head_dim; d += kLanes)
      store(out + r * head_dim + d, mul(load(out + r * head_dim + d), inverse));
  }
}

template <CacheType Type>
void attend_all(const AttentionTask& task) {
  int row = 0;
  while (row < task.num_rows) {
    const int left = task.num_rows - row;
    // Rows beyond the last are slack: computed on whatever lies there and never read.
    if (left >= 5 && kMaxQueryRows == 8) {
      attend_rows<Type, kMaxQueryRows>(task, row, left < 8 ? left : 8);
      row += 8;
    } else if (left >= 3) {
      attend_rows<Type, 4>(task, row, left < 4 ? left : 4);
      row += 4;
    } else if (left == 2) {
      attend_rows<Type, 2>(task, row, 2);
      row += 2;
    } else {
      attend_rows<Type, 1>(task, row, 1);
      row += 1;
    }
  }
}

inline void attend(const AttentionTask& task) {
  switch (task.cache_type) {
    case CacheType::kFloat:
      return attend_all<CacheType::kFloat>(task);
    case CacheType::kHalf:
      return attend_all<CacheType::kHalf>(task);
    case CacheType::kInt8:
      return attend_all<CacheType::kInt8>(task);
  }
}

}  // namespace highrise::HIGHRISE_ISA
