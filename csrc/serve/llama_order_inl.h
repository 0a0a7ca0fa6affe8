// llama.cpp's arithmetic, operation by operation: the roundings of ggml's CPU code and the order of its float sums, so
// that from the same file every intermediate value comes out with the same bits. Made for comparing, not for speed:
// rounding activations to 8 bits turns a difference in the last bit of a sum into another code, and within four layers
// that is as large as all rounding together (docs/log/serve-engine.md), so two engines give the same tokens from
// quantised weights only when nothing differs.
//
// Followed is what ggml does on x86 with AVX2 or AVX-512, without AVX512-FP16, for the block types named below; prompts
// of less than 64 tokens, contexts of less than 512, keys and values in half precision, flash attention. The layouts
// and the order are those of ggml-cpu (arch/x86/quants.c, vec.h, vec.cpp, ops.cpp). Knows nothing of models.
#pragma once

#include <math.h>

#include "serve/attention_inl.h"
#include "serve/gemm_inl.h"
#include "serve/vector_inl.h"

namespace highrise::HIGHRISE_ISA {

using serve::BlockType;

constexpr int kSuper = 256;  // weights of a K block

HIGHRISE_INLINE float half_at(const uint8_t* p) {
  uint16_t bits;
  __builtin_memcpy(&bits, p, sizeof bits);
  return _cvtsh_ss(bits);
}
HIGHRISE_INLINE float through_half(float x) { return _cvtsh_ss(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT)); }

HIGHRISE_INLINE float sum_of(__m256 v) {
  __m128 half = _mm_add_ps(_mm256_extractf128_ps(v, 1), _mm256_castps256_ps128(v));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

// An input of a linear layer in 8 bits. One scale for 32 values, in half precision, beside Q4_1, Q5_0 and Q8_0; one for
// 256 beside Q4_K and Q6_K.
struct Codes {
  int8_t* codes;
  float* scales;
  float* sums;     // scale times the sum of a group of 32 codes, through half precision
  int16_t* parts;  // sums of 16 codes
};

inline Codes codes_in(uint8_t* scratch, int64_t groups) {
  auto* floats = reinterpret_cast<float*>(scratch);
  auto* parts = reinterpret_cast<int16_t*>(floats + 2 * groups);
  return {reinterpret_cast<int8_t*>(parts + 2 * groups), floats, floats + groups, parts};
}
inline int64_t codes_scratch(int64_t groups) { return groups * (2 * 4 + 2 * 2 + 32) + 64; }

inline void quantise_groups(const float* x, int64_t cols, const Codes& to) {
  for (int64_t group = 0; group < cols / 32; ++group, x += 32) {
    __m256 v[4];
    __m256 most = _mm256_setzero_ps();
    for (int i = 0; i < 4; ++i) {
      v[i] = _mm256_loadu_ps(x + 8 * i);
      most = _mm256_max_ps(most, _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v[i]));
    }
    __m128 four = _mm_max_ps(_mm256_extractf128_ps(most, 1), _mm256_castps256_ps128(most));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    const float largest = _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
    const float scale = largest / 127.0f;
    const __m256 inverse = _mm256_set1_ps(largest != 0.0f ? 127.0f / largest : 0.0f);
    int32_t sum = 0;
    for (int i = 0; i < 4; ++i) {
      const __m256 rounded = _mm256_round_ps(_mm256_mul_ps(v[i], inverse), _MM_FROUND_TO_NEAREST_INT);
      int32_t wide[8];
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(wide), _mm256_cvtps_epi32(rounded));
      for (int j = 0; j < 8; ++j) {
        sum += wide[j];
        to.codes[group * 32 + i * 8 + j] = static_cast<int8_t>(wide[j]);
      }
    }
    to.scales[group] = through_half(scale);
    to.sums[group] = through_half(scale * static_cast<float>(sum));
  }
}

inline void quantise_supers(const float* x, int64_t cols, const Codes& to) {
  for (int64_t block = 0; block < cols / kSuper; ++block, x += kSuper) {
    float extreme = 0.0f, largest = 0.0f;
    for (int i = 0; i < kSuper; ++i) {
      const float magnitude = __builtin_fabsf(x[i]);
      if (magnitude > largest) {
        largest = magnitude;
        extreme = x[i];
      }
    }
    const float inverse = largest != 0.0f ? -127.0f / extreme : 0.0f;
    for (int part = 0; part < 16; ++part) {
      int sum = 0;
      for (int i = 0; i < 16; i += 8) {
        const __m256 scaled = _mm256_mul_ps(_mm256_set1_ps(inverse), _mm256_loadu_ps(x + part * 16 + i));
        int32_t wide[8];
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(wide),
                            _mm256_cvtps_epi32(_mm256_round_ps(scaled, _MM_FROUND_TO_NEAREST_INT)));
        for (int j = 0; j < 8; ++j) {
          const int code = wide[j] < 127 ? wide[j] : 127;
          sum += code;
          to.codes[block * kSuper + part * 16 + i + j] = static_cast<int8_t>(code);
        }
      }
      to.parts[block * 16 + part] = static_cast<int16_t>(sum);
    }
    to.scales[block] = largest != 0.0f ? 1.0f / inverse : 0.0f;
  }
}

// Lane l: the products of bytes 4l .. 4l + 3, summed.
HIGHRISE_INLINE __m256i unsigned_products(__m256i codes, __m256i inputs) {
  return _mm256_madd_epi16(_mm256_maddubs_epi16(codes, inputs), _mm256_set1_epi16(1));
}
HIGHRISE_INLINE __m256i signed_products(__m256i codes, __m256i inputs) {
  return unsigned_products(_mm256_sign_epi8(codes, codes), _mm256_sign_epi8(inputs, codes));
}
HIGHRISE_INLINE __m256i input_bytes(const int8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
// 16 bytes as 32 codes: the low nibbles, then the high ones.
HIGHRISE_INLINE __m256i nibbles(const uint8_t* p) {
  const __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(both, 4), both), _mm256_set1_epi8(15));
}
// Bytes of all ones where the bit of the 32 is set.
HIGHRISE_INLINE __m256i bytes_of_bits(const uint8_t* p) {
  uint32_t bits;
  __builtin_memcpy(&bits, p, sizeof bits);
  const __m256i order = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
  const __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(bits)), order);
  const __m256i place = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ULL));
  return _mm256_cmpeq_epi8(_mm256_and_si256(spread, place), place);
}

inline float dot_q4_1(const uint8_t* row, const Codes& x, int64_t cols) {
  __m256 total = _mm256_setzero_ps();
  float minima = 0.0f;
  for (int64_t group = 0; group < cols / 32; ++group, row += 20) {
    minima = __builtin_fmaf(half_at(row + 2), x.sums[group], minima);
    const __m256i products = unsigned_products(nibbles(row + 4), input_bytes(x.codes + group * 32));
    total = _mm256_fmadd_ps(_mm256_set1_ps(half_at(row) * x.scales[group]), _mm256_cvtepi32_ps(products), total);
  }
  return sum_of(total) + minima;
}

inline float dot_q5_0(const uint8_t* row, const Codes& x, int64_t cols) {
  __m256 total = _mm256_setzero_ps();
  for (int64_t group = 0; group < cols / 32; ++group, row += 22) {
    const __m256i low = _mm256_andnot_si256(bytes_of_bits(row + 2), _mm256_set1_epi8(static_cast<char>(0xf0)));
    const __m256i codes = _mm256_or_si256(nibbles(row + 6), low);
    const __m256i products = signed_products(codes, input_bytes(x.codes + group * 32));
    total = _mm256_fmadd_ps(_mm256_set1_ps(half_at(row) * x.scales[group]), _mm256_cvtepi32_ps(products), total);
  }
  return sum_of(total);
}

inline float dot_q8_0(const uint8_t* row, const Codes& x, int64_t cols) {
  __m256 total = _mm256_setzero_ps();
  for (int64_t group = 0; group < cols / 32; ++group, row += 34) {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 2));
    const __m256i products = signed_products(codes, input_bytes(x.codes + group * 32));
    total = _mm256_fmadd_ps(_mm256_set1_ps(half_at(row) * x.scales[group]), _mm256_cvtepi32_ps(products), total);
  }
  return sum_of(total);
}

inline float dot_q4_k(const uint8_t* row, const Codes& x, int64_t cols) {
  __m256 total = _mm256_setzero_ps();
  __m128 minima = _mm_setzero_ps();
  for (int64_t block = 0; block < cols / kSuper; ++block, row += 144) {
    const int8_t* inputs = x.codes + block * kSuper;
    const int16_t* parts = x.parts + block * 16;
    const uint8_t* packed = row + 4;
    __m256i sum = _mm256_setzero_si256();
    int32_t of_minima[4] = {};
    for (int group = 0; group < 8; ++group) {
      int scale, minimum;  // six bits each, the upper half of them split
      if (group < 4) {
        scale = packed[group] & 63;
        minimum = packed[group + 4] & 63;
      } else {
        scale = (packed[group + 4] & 15) | packed[group - 4] >> 6 << 4;
        minimum = packed[group + 4] >> 4 | packed[group] >> 6 << 4;
      }
      const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 16 + group / 2 * 32));
      const __m256i shifted = group % 2 == 0 ? both : _mm256_srli_epi16(both, 4);
      const __m256i codes = _mm256_and_si256(shifted, _mm256_set1_epi8(15));
      const __m256i products = unsigned_products(codes, input_bytes(inputs + group * 32));
      sum = _mm256_add_epi32(sum, _mm256_mullo_epi32(products, _mm256_set1_epi32(scale)));
      of_minima[group / 2] += minimum * (parts[2 * group] + parts[2 * group + 1]);
    }
    const float scale = x.scales[block] * half_at(row);
    const float minimum = -x.scales[block] * half_at(row + 2);
    const __m128i four = _mm_loadu_si128(reinterpret_cast<const __m128i*>(of_minima));
    minima = _mm_fmadd_ps(_mm_set1_ps(minimum), _mm_cvtepi32_ps(four), minima);
    total = _mm256_fmadd_ps(_mm256_set1_ps(scale), _mm256_cvtepi32_ps(sum), total);
  }
  minima = _mm_add_ps(minima, _mm_movehl_ps(minima, minima));
  minima = _mm_add_ss(minima, _mm_movehdup_ps(minima));
  return sum_of(total) + _mm_cvtss_f32(minima);
}

inline float dot_q6_k(const uint8_t* row, const Codes& x, int64_t cols) {
  __m256 total = _mm256_setzero_ps();
  for (int64_t block = 0; block < cols / kSuper; ++block, row += 210) {
    const int8_t* inputs = x.codes + block * kSuper;
    const int16_t* parts = x.parts + block * 16;
    const auto* scales = reinterpret_cast<const int8_t*>(row + 192);
    __m256i sum = _mm256_setzero_si256();
    int32_t middles[8];
    for (int group = 0; group < 8; ++group) {
      const int half = group / 4, quarter = group % 4;
      const uint8_t* low_at = row + half * 64 + quarter % 2 * 32;
      const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(low_at));
      const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 128 + half * 32));
      const __m256i low_bits = quarter < 2 ? low : _mm256_srli_epi16(low, 4);
      const __m256i high_bits = _mm256_srl_epi16(high, _mm_cvtsi32_si128(2 * quarter));
      const __m256i codes = _mm256_or_si256(_mm256_and_si256(low_bits, _mm256_set1_epi8(15)),
                                            _mm256_slli_epi16(_mm256_and_si256(high_bits, _mm256_set1_epi8(3)), 4));
      const __m256i products = unsigned_products(codes, input_bytes(inputs + group * 32));
      const int first = scales[2 * group], second = scales[2 * group + 1];
      const __m256i scale = _mm256_set_m128i(_mm_set1_epi32(second), _mm_set1_epi32(first));
      sum = _mm256_add_epi32(sum, _mm256_mullo_epi32(products, scale));
      middles[group] = 32 * (first * parts[2 * group] + second * parts[2 * group + 1]);
    }
    sum = _mm256_sub_epi32(sum, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(middles)));
    total = _mm256_fmadd_ps(_mm256_set1_ps(x.scales[block] * half_at(row + 208)), _mm256_cvtepi32_ps(sum), total);
  }
  return sum_of(total);
}

inline bool keeps_blocks(BlockType type) {
  return type == BlockType::Q4_1 || type == BlockType::Q5_0 || type == BlockType::Q8_0 || type == BlockType::Q4_K ||
         type == BlockType::Q6_K;
}

inline float dot_row(BlockType type, const uint8_t* row, const Codes& x, int64_t cols) {
  switch (type) {
    case BlockType::Q4_1:
      return dot_q4_1(row, x, cols);
    case BlockType::Q5_0:
      return dot_q5_0(row, x, cols);
    case BlockType::Q8_0:
      return dot_q8_0(row, x, cols);
    case BlockType::Q4_K:
      return dot_q4_k(row, x, cols);
    default:
      return dot_q6_k(row, x, cols);
  }
}

// Rows of blocks one after the other; what was packed into tiles (other types, adapters) has no order to follow.
inline void multiply_blocks(const MultiplyTask& task, uint8_t* scratch) {
  const PackedMatrix& matrix = *task.matrix;
  if (!matrix.is_blocks) return multiply(task);
  const Codes x = codes_in(scratch, task.inputs->groups);
  const bool super = matrix.type == BlockType::Q4_K || matrix.type == BlockType::Q6_K;
  const auto row_bytes = static_cast<int64_t>(matrix.tile_bytes) / kTileRows;
  for (int64_t t = task.first; t < task.last; ++t) {
    const float* values = task.inputs->values + t * task.inputs->stride;
    if (super) {
      quantise_supers(values, matrix.cols, x);
    } else {
      quantise_groups(values, matrix.cols, x);
    }
    for (int64_t tile = task.tile_begin; tile < task.tile_end; ++tile) {
      float result[kTileRows];
      const int64_t left = matrix.rows - tile * kTileRows;
      for (int64_t r = 0; r < (left < kTileRows ? left : kTileRows); ++r)
        result[r] = dot_row(matrix.type, matrix.tile(tile) + r * row_bytes, x, matrix.cols);
      finish_tile(task, tile, t, 1, result, kTileRows);
    }
  }
}

inline void ordered_rms_norm(const float* x, const float* weight, int64_t count, float epsilon, float* out) {
  double sum = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    const float square = x[i] * x[i];
    sum += static_cast<double>(square);
  }
  const auto mean = static_cast<float>(sum / static_cast<double>(count));
  const float scale = 1.0f / __builtin_sqrtf(mean + epsilon);
  for (int64_t i = 0; i < count; ++i) out[i] = x[i] * scale * weight[i];
}

inline void ordered_rotate(float* x, const float* cosine, const float* sine, int64_t count) {
  const int64_t half = count / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[half + i];
    x[i] = __builtin_fmaf(a, cosine[i], -(b * sine[i]));
    x[half + i] = __builtin_fmaf(a, sine[i], b * cosine[i]);
  }
}

// The angle of each pair is the one before times a constant, all in single precision.
inline void ordered_angles(int32_t position, double theta, int64_t head_dim, float* cosine, float* sine) {
  const float ratio = powf(static_cast<float>(theta), -2.0f / static_cast<float>(head_dim));
  auto angle = static_cast<float>(position);
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    cosine[i] = cosf(angle);
    sine[i] = sinf(angle);
    angle *= ratio;
  }
}

// exp as in Arm's optimised routines, which ggml uses; magnitudes above 87 go to infinity or zero soon enough.
HIGHRISE_INLINE F ordered_exp(F x) {
  const F shift = set1(0x1.8p23f);
  const F power = sub(fma(x, set1(0x1.715476p+0f), shift), shift);
  const F minus = sub(zero(), power);
  const F rest = fma(minus, set1(0x1.7f7d1cp-20f), fma(minus, set1(0x1.62e4p-1f), x));
  const F square = mul(rest, rest);
  const F upper = fma(fma(set1(0x1.0e4020p-7f), rest, set1(0x1.573e2ep-5f)), square,
                      fma(set1(0x1.555e66p-3f), rest, set1(0x1.fffdb6p-2f)));
#if defined(__AVX512F__)
  return scale_by_power_of_two(fma(upper, square, fma(set1(0x1.ffffecp-1f), rest, set1(1.0f))), power);
#else
  const F limited = min(max(power, set1(-126.0f)), set1(126.0f));
  const F unit = scale_by_power_of_two(set1(1.0f), limited);
  return fma(fma(upper, square, mul(set1(0x1.ffffecp-1f), rest)), unit, unit);
#endif
}

inline void ordered_swiglu(const float* gate, const float* up, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += kLanes) {  // callers pass whole tiles
    const F g = load(gate + i);
    const F silu = div(g, add(set1(1.0f), ordered_exp(sub(zero(), g))));
    store(out + i, mul(silu, load(up + i)));
  }
}

// Four sums of kLanes each, folded; what four vectors do not cover is added one by one.
inline float ordered_dot(const float* a, const float* b, int count) {
  constexpr int kStep = 4 * kLanes;
  F sum[4] = {zero(), zero(), zero(), zero()};
  int i = 0;
  for (; i + kStep <= count; i += kStep) {
    for (int v = 0; v < 4; ++v) sum[v] = fma(load(a + i + v * kLanes), load(b + i + v * kLanes), sum[v]);
  }
  const F folded = add(add(sum[0], sum[2]), add(sum[1], sum[3]));
#if defined(__AVX512F__)
  double total = static_cast<double>(reduce_add(folded));
#else
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(folded), _mm256_extractf128_ps(folded, 1));
  const __m128 two = _mm_hadd_ps(four, four);
  double total = static_cast<double>(_mm_cvtss_f32(_mm_hadd_ps(two, two)));
#endif
  for (; i < count; ++i) {
    const float product = a[i] * b[i];
    total += static_cast<double>(product);
  }
  return static_cast<float>(total);
}

HIGHRISE_INLINE F through_half(F v) {
#if defined(__AVX512F__)
  return _mm512_cvtph_ps(_mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  return _mm256_cvtph_ps(_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
#endif
}

// Key after key: the output is kept in half precision and rescaled whenever a score is the highest so far.
inline void ordered_attend(const AttentionTask& task) {
  const int head_dim = task.head_dim;
  if (task.cache_type != serve::CacheType::kHalf || head_dim > serve::kMaxOrderedHead) return attend(task);
  float key[serve::kMaxOrderedHead], query[serve::kMaxOrderedHead];
  for (int r = 0; r < task.num_rows; ++r) {
    float* out = task.out + static_cast<int64_t>(r) * head_dim;
    const float* given = task.queries + static_cast<int64_t>(r) * head_dim;
    for (int d = 0; d < head_dim; ++d) {
      query[d] = through_half(given[task.interleaved ? d % 2 * (head_dim / 2) + d / 2 : d]);
      out[d] = 0.0f;
    }
    float highest = -INFINITY, total = 0.0f;
    for (int position = 0; position < task.num_visible[r]; ++position) {
      const uint8_t* page = task.cache + task.page_table[position / task.page_size] * task.page_bytes;
      const int slot = position % task.page_size;
      const auto* keys = reinterpret_cast<const uint16_t*>(page) + slot / 16 * 16 * head_dim + slot % 16;
      const auto* values = reinterpret_cast<const uint16_t*>(page) + (task.page_size + slot) * head_dim;
      for (int d = 0; d < head_dim; ++d)
        key[d] = _cvtsh_ss(keys[(task.interleaved ? d % 2 * (head_dim / 2) + d / 2 : d) * 16]);
      const float score = ordered_dot(key, query, head_dim) * task.scale;
      float before = 1.0f, weight = 1.0f;
      if (score > highest) {
        before = expf(highest - score);
        highest = score;
        for (int d = 0; d < head_dim; d += kLanes) store(out + d, through_half(mul(load(out + d), set1(before))));
      } else {
        weight = expf(score - highest);
      }
      for (int d = 0; d < head_dim; d += kLanes)
        store(out + d, through_half(fma(load_half(values + d), set1(weight), load(out + d))));
      total = __builtin_fmaf(total, before, weight);
    }
    const float inverse = 1.0f / total;
    for (int d = 0; d < head_dim; ++d) out[d] *= inverse;
  }
}

inline serve::Kernels llama_table(const char* name) {
  serve::Kernels table = {name,
                          quantise,
                          multiply,
                          1,
                          multiply_blocks,
                          codes_scratch,
                          false,
                          ordered_rms_norm,
                          ordered_rotate,
                          ordered_swiglu,
                          geglu,
                          ordered_attend,
                          layer_norm,
                          gelu,
                          to_half,
                          quantise_weights};
  table.keeps_blocks = keeps_blocks;
  table.angles = ordered_angles;
  table.scales_scores = true;
  return table;
}

}  // namespace highrise::HIGHRISE_ISA
