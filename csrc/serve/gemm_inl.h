// Products of packed weights with quantised (or float) inputs over common/simd.h: one tile of 16 rows times 1, 2, 4 or
// 8 inputs, for every code width. Included once by each kernels_ISA.cpp. The layout is that of packed.h.
//
// The four-way byte product is the one thing that differs: VNNI sums four products into int32 in one step; without it,
// vpmaddubsw sums two into int16, and as many of those are added as cannot overflow (a code of b bits times 127, twice,
// each: 8 steps at 4 bits, 4 at 5, 2 at 6) before they are widened. Eight bits take the sign trick: |w| times sign(w)
// x.
#pragma once

#include "common/simd.h"
#include "serve/kernels.h"

namespace highrise::HIGHRISE_ISA {

using serve::Activations;
using serve::FloatKind;
using serve::kGroup;
using serve::kTileRows;
using serve::MultiplyTask;
using serve::Output;
using serve::PackedMatrix;

constexpr int kVectorBytes = 4 * kLanes;
constexpr int kSlices = kTileRows / kLanes;  // vectors that cover the 16 rows
// How far ahead a tile is read: on Sapphire Rapids 4096 gave 29 GMAC/s from memory, 512 gave 26; Zen 3 minds it little.
constexpr int kPrefetchBytes = 4096;
constexpr int kMaxInputs = kLanes == 16 ? 8 : 4;

// Codes of unit U of a group, as bytes below 2^Bits.
template <int Bits, int U>
HIGHRISE_INLINE B unit(const uint8_t* group) {
  if constexpr (Bits == 8) {
    return load_bytes(group + U * 64);
  } else {
    B low = load_bytes(group + (U % 4) * 64);
    if constexpr (U >= 4) low = shift_right<4>(low);
    low = bit_and(low, splat_byte(0x0f));
    if constexpr (Bits == 5) {
      B high = load_bytes(group + 256);
      if constexpr (U < 4) high = shift_left<4 - U>(high);
      if constexpr (U > 4) high = shift_right<U - 4>(high);
      low = bit_or(low, bit_and(high, splat_byte(0x10)));
    }
    if constexpr (Bits == 6) {
      constexpr int kPlace = 2 * (U % 4);
      B high = load_bytes(group + 256 + (U / 4) * 64);
      if constexpr (kPlace < 4) high = shift_left<4 - kPlace>(high);
      if constexpr (kPlace > 4) high = shift_right<kPlace - 4>(high);
      low = bit_or(low, bit_and(high, splat_byte(0x30)));
    }
    return low;
  }
}

#if defined(__AVX512VNNI__)

// sums[t] += codes of units [From, To) times inputs; what Bias says about the middle code is left to the caller.
template <int Bits, int From, int To, int T>
HIGHRISE_INLINE void dot(const uint8_t* group, const int8_t* inputs, int64_t stride, I (&sums)[T]) {
  unroll<To - From>([&](auto step) HIGHRISE_LAMBDA_INLINE {
    constexpr int kUnit = From + decltype(step)::value;
    const B codes = unit<Bits, kUnit>(group);
    for (int t = 0; t < T; ++t)
      sums[t] = _mm512_dpbusd_epi32(sums[t], codes, splat_four(inputs + t * stride + 4 * kUnit));
  });
}
template <int Bits>
constexpr int kMiddle = 1 << (Bits - 1);

#elif defined(__AVX2__)

#if defined(__AVX512F__)
HIGHRISE_INLINE I pair_products(B a, B b) { return _mm512_maddubs_epi16(a, b); }
HIGHRISE_INLINE I add_words(I a, I b) { return _mm512_add_epi16(a, b); }
HIGHRISE_INLINE I widen(I words) { return _mm512_madd_epi16(words, _mm512_set1_epi16(1)); }
HIGHRISE_INLINE I byte_products(B codes, B inputs) {
  const __mmask64 negative = _mm512_movepi8_mask(codes);
  const I magnitudes = _mm512_abs_epi8(codes);
  return widen(
      _mm512_maddubs_epi16(magnitudes, _mm512_mask_sub_epi8(inputs, negative, _mm512_setzero_si512(), inputs)));
}
HIGHRISE_INLINE B flip_top_bit(B codes) { return _mm512_xor_si512(codes, splat_byte(0x80)); }
#else
HIGHRISE_INLINE I pair_products(B a, B b) { return _mm256_maddubs_epi16(a, b); }
HIGHRISE_INLINE I add_words(I a, I b) { return _mm256_add_epi16(a, b); }
HIGHRISE_INLINE I widen(I words) { return _mm256_madd_epi16(words, _mm256_set1_epi16(1)); }
HIGHRISE_INLINE I byte_products(B codes, B inputs) {
  return widen(_mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(inputs, codes)));
}
HIGHRISE_INLINE B flip_top_bit(B codes) { return _mm256_xor_si256(codes, splat_byte(0x80)); }
#endif

template <int Bits, int From, int To, int T>
HIGHRISE_INLINE void dot(const uint8_t* group, const int8_t* inputs, int64_t stride, I (&sums)[T]) {
  if constexpr (Bits == 8) {
    unroll<To - From>([&](auto step) HIGHRISE_LAMBDA_INLINE {
      constexpr int kUnit = From + decltype(step)::value;
      const B codes = flip_top_bit(unit<8, kUnit>(group));
      for (int t = 0; t < T; ++t) {
        sums[t] = add(sums[t], byte_products(codes, splat_four(inputs + t * stride + 4 * kUnit)));
      }
    });
  } else {
    constexpr int kSafe = Bits == 4 ? 8 : Bits == 5 ? 4 : 2;
    constexpr int kRun = kSafe < To - From ? kSafe : To - From;
    unroll<(To - From) / kRun>([&](auto run) HIGHRISE_LAMBDA_INLINE {
      I words[T];
      unroll<kRun>([&](auto step) HIGHRISE_LAMBDA_INLINE {
        constexpr int kStep = decltype(step)::value;
        constexpr int kUnit = From + decltype(run)::value * kRun + kStep;
        const B codes = unit<Bits, kUnit>(group);
        for (int t = 0; t < T; ++t) {
          const I products = pair_products(codes, splat_four(inputs + t * stride + 4 * kUnit));
          words[t] = kStep == 0 ? products : add_words(words[t], products);
        }
      });
      for (int t = 0; t < T; ++t) sums[t] = add(sums[t], widen(words[t]));
    });
  }
}
template <int Bits>
constexpr int kMiddle = Bits == 8 ? 0 : 1 << (Bits - 1);  // eight bits were made signed on the way

#else

template <int Bits, int From, int To, int T>
HIGHRISE_INLINE void dot(const uint8_t* group, const int8_t* inputs, int64_t stride, I (&sums)[T]) {
  unroll<To - From>([&](auto step) {
    constexpr int kUnit = From + decltype(step)::value;
    const B codes = unit<Bits, kUnit>(group);
    for (int t = 0; t < T; ++t) {
      const int8_t* four = inputs + t * stride + 4 * kUnit;
      for (int lane = 0; lane < kLanes; ++lane) {
        int32_t sum = 0;
        for (int i = 0; i < 4; ++i) sum += static_cast<int32_t>(codes.v[4 * lane + i]) * four[i];
        sums[t].v[lane] += sum;
      }
    }
  });
}
template <int Bits>
constexpr int kMiddle = 1 << (Bits - 1);

#endif

// total[t] += minima of 16 rows times the sums of the inputs' groups. Apart from the codes, where the registers are
// few: that takes a seventh from eight inputs (docs/log/serve-quality.md). Two chains, alike for every T, so that a
// token has the same bits in any company.
template <int Parts, int T>
HIGHRISE_INLINE void add_minima(const uint16_t* minima, const Activations& inputs, int64_t first, int64_t groups,
                                F (&total)[T]) {
  const float* sums = Parts == 2 ? inputs.scaled_part_sums : inputs.scaled_sums;
  const int64_t stride = inputs.groups * Parts, count = groups * Parts;
  sums += first * stride;
  F even[T], odd[T];
  for (int t = 0; t < T; ++t) even[t] = odd[t] = zero();
  int64_t at = 0;
  for (; at + 2 <= count; at += 2) {
    const F one = load_half(minima + at * kTileRows), other = load_half(minima + (at + 1) * kTileRows);
    for (int t = 0; t < T; ++t) {
      even[t] = fma(one, set1(sums[t * stride + at]), even[t]);
      odd[t] = fma(other, set1(sums[t * stride + at + 1]), odd[t]);
    }
  }
  if (at < count) {
    const F one = load_half(minima + at * kTileRows);
    for (int t = 0; t < T; ++t) even[t] = fma(one, set1(sums[t * stride + at]), even[t]);
  }
  for (int t = 0; t < T; ++t) total[t] = add(total[t], add(even[t], odd[t]));
}

// out[t][16] = one tile times inputs first .. first + T - 1.
template <int Bits, int Parts, bool HasMinimum, int T>
void multiply_tile(const PackedMatrix& matrix, const uint8_t* tile, const Activations& inputs, int64_t first,
                   float* out) {
  constexpr int kGroupBytes = Bits == 8 ? 512 : Bits * 64;
  const auto* tile_scales = reinterpret_cast<const uint16_t*>(tile + matrix.scales_offset);
  const auto* tile_minima = reinterpret_cast<const uint16_t*>(tile + matrix.minima_offset);
  const int8_t* codes = inputs.codes + first * inputs.stride;
  const float* input_scales = inputs.scales + first * inputs.groups;
  const int32_t* sums = inputs.sums + first * inputs.groups;
  const int32_t* part_sums = inputs.part_sums + 2 * first * inputs.groups;
  // Few inputs take a tile as the stream of bytes that it is; what is read ahead runs into the next tiles.
  constexpr int kTogether = T <= 2 ? kSlices : 1;
  constexpr int kStreamBytes = kGroupBytes + Parts * (HasMinimum ? 2 : 1) * kTileRows * 2;
  const uint8_t* ahead = tile + kPrefetchBytes;
  for (int slice = 0; slice < kSlices; slice += kTogether) {
    const uint8_t* group_codes = tile + slice * kVectorBytes;
    const uint16_t* scales = tile_scales + slice * kLanes;
    F total[kTogether][T];
    for (int s = 0; s < kTogether; ++s) {
      for (int t = 0; t < T; ++t) total[s][t] = zero();
    }
    for (int64_t group = 0; group < matrix.groups; ++group) {
      if (T == 1 || (kSlices > 1 && slice == 0)) {
        for (int line = 0; line < kStreamBytes; line += 64) __builtin_prefetch(ahead + line);
        ahead += kStreamBytes;
      }
      for (int part = 0; part < Parts; ++part) {
        unroll<kTogether>([&](auto place) HIGHRISE_LAMBDA_INLINE {
          constexpr int s = decltype(place)::value;
          I sum[T];
          for (int t = 0; t < T; ++t) {
            const int64_t at = t * inputs.groups + group;
            const int32_t of_codes = Parts == 2 ? part_sums[2 * at + part] : sums[at];
            sum[t] = set1(HasMinimum ? 0 : -kMiddle<Bits> * of_codes);
          }
          const uint8_t* own = group_codes + s * kVectorBytes;
          if constexpr (Parts == 1) {
            dot<Bits, 0, 8, T>(own, codes + group * kGroup, inputs.stride, sum);
          } else if (part == 0) {
            dot<Bits, 0, 4, T>(own, codes + group * kGroup, inputs.stride, sum);
          } else {
            dot<Bits, 4, 8, T>(own, codes + group * kGroup, inputs.stride, sum);
          }
          const F scale = load_half(scales + part * kTileRows + s * kLanes);
          for (int t = 0; t < T; ++t) {
            const F input_scale = set1(input_scales[t * inputs.groups + group]);
            total[s][t] = fma(to_float(sum[t]), mul(scale, input_scale), total[s][t]);
          }
        });
      }
      group_codes += kGroupBytes;
      scales += Parts * kTileRows;
    }
    for (int s = 0; s < kTogether; ++s) {
      const int from = (slice + s) * kLanes;
      if constexpr (HasMinimum) add_minima<Parts, T>(tile_minima + from, inputs, first, matrix.groups, total[s]);
      for (int t = 0; t < T; ++t) store(out + t * kTileRows + from, total[s][t]);
    }
  }
}

template <FloatKind Kind>
HIGHRISE_INLINE F load_element(const uint8_t* p) {
  if constexpr (Kind == FloatKind::F32) return load(reinterpret_cast<const float*>(p));
  if constexpr (Kind == FloatKind::F16) return load_half(reinterpret_cast<const uint16_t*>(p));
  if constexpr (Kind == FloatKind::BF16) return load_bfloat(reinterpret_cast<const uint16_t*>(p));
}

template <FloatKind Kind, int T>
void multiply_float_tile(const PackedMatrix& matrix, const uint8_t* tile, const Activations& inputs, int64_t first,
                         float* out) {
  constexpr int kBytes = Kind == FloatKind::F32 ? 4 : 2;
  const float* values = inputs.values + first * inputs.stride;
  F total[T][kSlices];
  for (int t = 0; t < T; ++t) {
    for (int slice = 0; slice < kSlices; ++slice) total[t][slice] = zero();
  }
  for (int64_t column = 0; column < matrix.cols; ++column) {
    for (int slice = 0; slice < kSlices; ++slice) {
      const F weight = load_element<Kind>(tile + (column * kTileRows + slice * kLanes) * kBytes);
      for (int t = 0; t < T; ++t) {
        total[t][slice] = fma(weight, set1(values[t * inputs.stride + column]), total[t][slice]);
      }
    }
  }
  for (int t = 0; t < T; ++t) {
    for (int slice = 0; slice < kSlices; ++slice) store(out + t * kTileRows + slice * kLanes, total[t][slice]);
  }
}

template <int T>
HIGHRISE_INLINE void multiply_any(const PackedMatrix& matrix, const uint8_t* tile, const Activations& inputs,
                                  int64_t first, float* out) {
  const int form = matrix.bits * 10 + (matrix.scales_per_group == 2 ? 2 : 0) + (matrix.has_minimum ? 1 : 0);
  switch (form) {
    case 40:
      return multiply_tile<4, 1, false, T>(matrix, tile, inputs, first, out);
    case 41:
      return multiply_tile<4, 1, true, T>(matrix, tile, inputs, first, out);
    case 42:
      return multiply_tile<4, 2, false, T>(matrix, tile, inputs, first, out);
    case 43:
      return multiply_tile<4, 2, true, T>(matrix, tile, inputs, first, out);
    case 50:
      return multiply_tile<5, 1, false, T>(matrix, tile, inputs, first, out);
    case 51:
      return multiply_tile<5, 1, true, T>(matrix, tile, inputs, first, out);
    case 60:
      return multiply_tile<6, 1, false, T>(matrix, tile, inputs, first, out);
    case 62:
      return multiply_tile<6, 2, false, T>(matrix, tile, inputs, first, out);
    case 80:
      return multiply_tile<8, 1, false, T>(matrix, tile, inputs, first, out);
    default:
      break;
  }
  switch (matrix.kind) {
    case FloatKind::F32:
      return multiply_float_tile<FloatKind::F32, T>(matrix, tile, inputs, first, out);
    case FloatKind::F16:
      return multiply_float_tile<FloatKind::F16, T>(matrix, tile, inputs, first, out);
    case FloatKind::BF16:
      return multiply_float_tile<FloatKind::BF16, T>(matrix, tile, inputs, first, out);
  }
}

// Writes the rows of one tile for `count` inputs, leaving out rows beyond the matrix.
inline void finish_tile(const MultiplyTask& task, int64_t tile, int64_t first, int64_t count, const float* result,
                        int64_t result_stride) {
  const int64_t row = tile * kTileRows;
  const int64_t left = task.matrix->rows - row;
  const int64_t rows = left < kTileRows ? left : kTileRows;
  for (int64_t t = 0; t < count; ++t) {
    float* out = task.out + (first - task.first + t) * task.out_stride + (tile - task.tile_begin) * kTileRows;
    const float* from = result + t * result_stride;
    if (rows == kTileRows) {
      for (int slice = 0; slice < kSlices; ++slice) {
        F value = load(from + slice * kLanes);
        if (task.bias) value = add(value, load(task.bias + row + slice * kLanes));
        if (task.output == Output::kAdd) value = add(value, load(out + slice * kLanes));
        store(out + slice * kLanes, value);
      }
    } else {
      for (int64_t r = 0; r < rows; ++r) {
        const float value = from[r] + (task.bias ? task.bias[row + r] : 0.0f);
        out[r] = task.output == Output::kAdd ? out[r] + value : value;
      }
    }
  }
}

// One tile times inputs [begin, end), as many at a time as the registers hold.
inline void multiply_rows(const MultiplyTask& task, int64_t tile, int64_t begin, int64_t end) {
  float result[kMaxInputs * kTileRows];
  const PackedMatrix& matrix = *task.matrix;
  const uint8_t* data = matrix.tile(tile);
  for (int64_t first = begin; first < end;) {
    const int64_t left = end - first;
    int64_t count = 1;
    if (left >= kMaxInputs) {
      count = kMaxInputs;
      multiply_any<kMaxInputs>(matrix, data, *task.inputs, first, result);
    } else if (left >= 4) {
      count = 4;
      multiply_any<4>(matrix, data, *task.inputs, first, result);
    } else if (left >= 2) {
      count = 2;
      multiply_any<2>(matrix, data, *task.inputs, first, result);
    } else {
      multiply_any<1>(matrix, data, *task.inputs, first, result);
    }
    finish_tile(task, tile, first, count, result, kTileRows);
    first += count;
  }
}

// Inputs of one block stay in the first cache while the tiles, which are fewer bytes, come from the second again.
inline void multiply(const MultiplyTask& task) {
  constexpr int64_t kBlockBytes = 24 * 1024;
  const int64_t fit = kBlockBytes / task.inputs->stride / kMaxInputs * kMaxInputs;
  const int64_t block = fit > kMaxInputs ? fit : kMaxInputs;
  for (int64_t begin = task.first; begin < task.last; begin += block) {
    const int64_t end = begin + block < task.last ? begin + block : task.last;
    for (int64_t tile = task.tile_begin; tile < task.tile_end; ++tile) multiply_rows(task, tile, begin, end);
  }
}

}  // namespace highrise::HIGHRISE_ISA
