// One small vector vocabulary for every instruction set: `kLanes` floats (F), as many int32 (I), 4 * kLanes bytes (B).
//
// A kernels_ISA.cpp defines HIGHRISE_ISA and includes this before the *_inl.h files, so the same kernel source is
// compiled once for each set, inside a namespace of its own: no inline function of one set can be linked in place of
// another's. Nothing here may use the standard library's templates, for the same reason. Knows nothing of models.
#pragma once

#ifndef HIGHRISE_ISA
#error "define HIGHRISE_ISA before including common/simd.h"
#endif

#include <stdint.h>

#if defined(__AVX2__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own AVX-512 headers (bug 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#else
#include <string.h>

#include "common/half.h"
#endif

#define HIGHRISE_INLINE inline __attribute__((always_inline))
#define HIGHRISE_LAMBDA_INLINE __attribute__((always_inline))

namespace highrise::HIGHRISE_ISA {

#if defined(__AVX512F__)

constexpr int kLanes = 16;
using F = __m512;
using I = __m512i;
using B = __m512i;

HIGHRISE_INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
HIGHRISE_INLINE void store(float* p, F v) { _mm512_storeu_ps(p, v); }
HIGHRISE_INLINE F set1(float v) { return _mm512_set1_ps(v); }
HIGHRISE_INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
HIGHRISE_INLINE F sub(F a, F b) { return _mm512_sub_ps(a, b); }
HIGHRISE_INLINE F mul(F a, F b) { return _mm512_mul_ps(a, b); }
HIGHRISE_INLINE F div(F a, F b) { return _mm512_div_ps(a, b); }
HIGHRISE_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
HIGHRISE_INLINE F max(F a, F b) { return _mm512_max_ps(a, b); }
HIGHRISE_INLINE F min(F a, F b) { return _mm512_min_ps(a, b); }
HIGHRISE_INLINE F abs(F a) { return _mm512_abs_ps(a); }
HIGHRISE_INLINE F round(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
HIGHRISE_INLINE F load_half(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
HIGHRISE_INLINE F load_int8(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
HIGHRISE_INLINE void store_half(uint16_t* p, F v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
HIGHRISE_INLINE F load_bfloat(const uint16_t* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
HIGHRISE_INLINE F scale_by_power_of_two(F v, F exponent) { return _mm512_scalef_ps(v, exponent); }
HIGHRISE_INLINE float reduce_add(F v) { return _mm512_reduce_add_ps(v); }
HIGHRISE_INLINE float reduce_max(F v) { return _mm512_reduce_max_ps(v); }
HIGHRISE_INLINE F to_float(I v) { return _mm512_cvtepi32_ps(v); }
HIGHRISE_INLINE I set1(int32_t v) { return _mm512_set1_epi32(v); }
HIGHRISE_INLINE I add(I a, I b) { return _mm512_add_epi32(a, b); }
// Stores each lane, already rounded and in range, as one byte.
HIGHRISE_INLINE void store_as_bytes(void* p, F v) {
  _mm_storeu_si128(static_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
}
HIGHRISE_INLINE B load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
HIGHRISE_INLINE B splat_byte(uint8_t v) { return _mm512_set1_epi8(static_cast<char>(v)); }
HIGHRISE_INLINE B bit_and(B a, B b) { return _mm512_and_si512(a, b); }
HIGHRISE_INLINE B bit_or(B a, B b) { return _mm512_or_si512(a, b); }
// Shifts within 16 bits; the caller masks what crosses a byte.
template <int N>
HIGHRISE_INLINE B shift_left(B v) {
  return _mm512_slli_epi16(v, N);
}
template <int N>
HIGHRISE_INLINE B shift_right(B v) {
  return _mm512_srli_epi16(v, N);
}
HIGHRISE_INLINE B splat_four(const int8_t* p) { return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(p)); }

#elif defined(__AVX2__)

constexpr int kLanes = 8;
using F = __m256;
using I = __m256i;
using B = __m256i;

HIGHRISE_INLINE F load(const float* p) { return _mm256_loadu_ps(p); }
HIGHRISE_INLINE void store(float* p, F v) { _mm256_storeu_ps(p, v); }
HIGHRISE_INLINE F set1(float v) { return _mm256_set1_ps(v); }
HIGHRISE_INLINE F add(F a, F b) { return _mm256_add_ps(a, b); }
HIGHRISE_INLINE F sub(F a, F b) { return _mm256_sub_ps(a, b); }
HIGHRISE_INLINE F mul(F a, F b) { return _mm256_mul_ps(a, b); }
HIGHRISE_INLINE F div(F a, F b) { return _mm256_div_ps(a, b); }
HIGHRISE_INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
HIGHRISE_INLINE F max(F a, F b) { return _mm256_max_ps(a, b); }
HIGHRISE_INLINE F min(F a, F b) { return _mm256_min_ps(a, b); }
HIGHRISE_INLINE F abs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
HIGHRISE_INLINE F round(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
HIGHRISE_INLINE F load_half(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
HIGHRISE_INLINE F load_int8(const int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
HIGHRISE_INLINE void store_half(uint16_t* p, F v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
HIGHRISE_INLINE F load_bfloat(const uint16_t* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
HIGHRISE_INLINE F scale_by_power_of_two(F v, F exponent) {
  const __m256i bits = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(exponent), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(v, _mm256_castsi256_ps(bits));
}
HIGHRISE_INLINE float reduce_add(F v) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_shuffle_ps(half, half, 1)));
}
HIGHRISE_INLINE float reduce_max(F v) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_shuffle_ps(half, half, 1)));
}
HIGHRISE_INLINE F to_float(I v) { return _mm256_cvtepi32_ps(v); }
HIGHRISE_INLINE I set1(int32_t v) { return _mm256_set1_epi32(v); }
HIGHRISE_INLINE I add(I a, I b) { return _mm256_add_epi32(a, b); }
HIGHRISE_INLINE void store_as_bytes(void* p, F v) {
  const __m256i wide = _mm256_cvtps_epi32(v);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  // Codes of weights may reach 255 and codes of activations -127: keep the low byte of each word.
  const __m128i low = _mm_shuffle_epi8(words, _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, -1, -1, -1, -1, -1, -1, -1, -1));
  _mm_storel_epi64(static_cast<__m128i*>(p), low);
}
HIGHRISE_INLINE B load_bytes(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
HIGHRISE_INLINE B splat_byte(uint8_t v) { return _mm256_set1_epi8(static_cast<char>(v)); }
HIGHRISE_INLINE B bit_and(B a, B b) { return _mm256_and_si256(a, b); }
HIGHRISE_INLINE B bit_or(B a, B b) { return _mm256_or_si256(a, b); }
template <int N>
HIGHRISE_INLINE B shift_left(B v) {
  return _mm256_slli_epi16(v, N);
}
template <int N>
HIGHRISE_INLINE B shift_right(B v) {
  return _mm256_srli_epi16(v, N);
}
HIGHRISE_INLINE B splat_four(const int8_t* p) { return _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(p)); }

#else  // any machine: four lanes of plain arrays, which compilers turn into the baseline's vectors

constexpr int kLanes = 4;
struct F {
  float v[4];
};
struct I {
  int32_t v[4];
};
struct B {
  uint8_t v[16];
};

template <class Function>
HIGHRISE_INLINE F map(Function function) {
  F out;
  for (int i = 0; i < 4; ++i) out.v[i] = function(i);
  return out;
}

HIGHRISE_INLINE F load(const float* p) {
  return map([&](int i) { return p[i]; });
}
HIGHRISE_INLINE void store(float* p, F v) {
  for (int i = 0; i < 4; ++i) p[i] = v.v[i];
}
HIGHRISE_INLINE F set1(float v) {
  return map([&](int) { return v; });
}
HIGHRISE_INLINE F add(F a, F b) {
  return map([&](int i) { return a.v[i] + b.v[i]; });
}
HIGHRISE_INLINE F sub(F a, F b) {
  return map([&](int i) { return a.v[i] - b.v[i]; });
}
HIGHRISE_INLINE F mul(F a, F b) {
  return map([&](int i) { return a.v[i] * b.v[i]; });
}
HIGHRISE_INLINE F div(F a, F b) {
  return map([&](int i) { return a.v[i] / b.v[i]; });
}
HIGHRISE_INLINE F fma(F a, F b, F c) {
  return map([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
HIGHRISE_INLINE F max(F a, F b) {
  return map([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
HIGHRISE_INLINE F min(F a, F b) {
  return map([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
HIGHRISE_INLINE F abs(F a) {
  return map([&](int i) { return a.v[i] < 0 ? -a.v[i] : a.v[i]; });
}
// Adding and taking away 1.5 * 2^23 rounds to nearest even for magnitudes below 2^22, all that is asked here.
HIGHRISE_INLINE F round(F a) {
  return map([&](int i) {
    volatile float shifted = a.v[i] + 12582912.0f;
    return shifted - 12582912.0f;
  });
}
HIGHRISE_INLINE F load_half(const uint16_t* p) {
  return map([&](int i) { return half_to_float(p[i]); });
}
HIGHRISE_INLINE F load_int8(const int8_t* p) {
  return map([&](int i) { return static_cast<float>(p[i]); });
}
HIGHRISE_INLINE void store_half(uint16_t* p, F v) {
  for (int i = 0; i < 4; ++i) p[i] = float_to_half(v.v[i]);
}
HIGHRISE_INLINE F load_bfloat(const uint16_t* p) {
  return map([&](int i) { return bfloat_to_float(p[i]); });
}
HIGHRISE_INLINE F scale_by_power_of_two(F v, F exponent) {
  return map([&](int i) {
    return v.v[i] * bits_to_float(static_cast<uint32_t>(static_cast<int32_t>(exponent.v[i]) + 127) << 23);
  });
}
HIGHRISE_INLINE float reduce_add(F v) { return (v.v[0] + v.v[1]) + (v.v[2] + v.v[3]); }
HIGHRISE_INLINE float reduce_max(F v) {
  float most = v.v[0];
  for (int i = 1; i < 4; ++i) most = v.v[i] > most ? v.v[i] : most;
  return most;
}
HIGHRISE_INLINE F to_float(I v) {
  return map([&](int i) { return static_cast<float>(v.v[i]); });
}
HIGHRISE_INLINE I set1(int32_t v) { return I{{v, v, v, v}}; }
HIGHRISE_INLINE I add(I a, I b) {
  for (int i = 0; i < 4; ++i) a.v[i] += b.v[i];
  return a;
}
HIGHRISE_INLINE void store_as_bytes(void* p, F v) {
  for (int i = 0; i < 4; ++i) static_cast<uint8_t*>(p)[i] = static_cast<uint8_t>(static_cast<int32_t>(v.v[i]));
}
HIGHRISE_INLINE B load_bytes(const uint8_t* p) {
  B out;
  memcpy(out.v, p, 16);
  return out;
}
HIGHRISE_INLINE B splat_byte(uint8_t v) {
  B out;
  memset(out.v, v, 16);
  return out;
}
HIGHRISE_INLINE B bit_and(B a, B b) {
  for (int i = 0; i < 16; ++i) a.v[i] &= b.v[i];
  return a;
}
HIGHRISE_INLINE B bit_or(B a, B b) {
  for (int i = 0; i < 16; ++i) a.v[i] |= b.v[i];
  return a;
}
template <int N>
HIGHRISE_INLINE B shift_left(B v) {
  for (int i = 0; i < 16; ++i) v.v[i] = static_cast<uint8_t>(v.v[i] << N);
  return v;
}
template <int N>
HIGHRISE_INLINE B shift_right(B v) {
  for (int i = 0; i < 16; ++i) v.v[i] = static_cast<uint8_t>(v.v[i] >> N);
  return v;
}
HIGHRISE_INLINE B splat_four(const int8_t* p) {
  B out;
  for (int i = 0; i < 4; ++i) memcpy(out.v + 4 * i, p, 4);
  return out;
}

#endif

HIGHRISE_INLINE F zero() { return set1(0.0f); }

// e^x with a relative error below 2e-7 (degree 6 after splitting off a power of two); results below 2^-126 become zero.
HIGHRISE_INLINE F exp(F x) {
  x = min(max(x, set1(-87.0f)), set1(88.0f));
  const F power = round(mul(x, set1(1.44269504088896341f)));
  F rest = fma(power, set1(-0.693359375f), x);
  rest = fma(power, set1(2.12194440e-4f), rest);
  F value = set1(1.9875691500e-4f);
  value = fma(value, rest, set1(1.3981999507e-3f));
  value = fma(value, rest, set1(8.3334519073e-3f));
  value = fma(value, rest, set1(4.1665795894e-2f));
  value = fma(value, rest, set1(1.6666665459e-1f));
  value = fma(value, rest, set1(5.0000001201e-1f));
  value = fma(value, mul(rest, rest), add(rest, set1(1.0f)));
  return scale_by_power_of_two(value, power);
}

// Calls function(0), ..., function(N - 1) with the numbers as compile-time constants.
template <int Value>
struct Constant {
  static constexpr int value = Value;
};
template <int N, class Function>
HIGHRISE_INLINE void unroll(Function&& function) {
  if constexpr (N > 0) {
    unroll<N - 1>(function);
    function(Constant<N - 1>{});
  }
}

}  // namespace highrise::HIGHRISE_ISA
