// Element-wise kernels of a decoder layer over common/simd.h: RMSNorm, RoPE, SwiGLU, quantisation of activations and of
// weights. Included once by each kernels_ISA.cpp. Knows nothing of matrices, pages or threads.
#pragma once

#include "common/simd.h"
#include "serve/kernels.h"

namespace highrise::HIGHRISE_ISA {

using serve::Activations;

constexpr float kHalfLimit = 65504.0f;

inline void rms_norm(const float* x, const float* weight, int64_t count, float epsilon, float* out) {
  F squares = zero(), more = zero();
  int64_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
    const F a = load(x + i), b = load(x + i + kLanes);
    squares = fma(a, a, squares);
    more = fma(b, b, more);
  }
  float sum = reduce_add(add(squares, more));
  for (; i < count; ++i) sum += x[i] * x[i];
  const float scale = 1.0f / __builtin_sqrtf(sum / static_cast<float>(count) + epsilon);
  for (i = 0; i + kLanes <= count; i += kLanes) {
    store(out + i, mul(mul(load(x + i), set1(scale)), load(weight + i)));
  }
  for (; i < count; ++i) out[i] = x[i] * scale * weight[i];
}

inline void rotate(float* x, const float* cosine, const float* sine, int64_t count) {
  const int64_t half = count / 2;
  float* upper = x + half;
  int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const F a = load(x + i), b = load(upper + i), c = load(cosine + i), s = load(sine + i);
    store(x + i, sub(mul(a, c), mul(b, s)));
    store(upper + i, add(mul(b, c), mul(a, s)));
  }
  for (; i < half; ++i) {
    const float a = x[i], b = upper[i];
    x[i] = a * cosine[i] - b * sine[i];
    upper[i] = b * cosine[i] + a * sine[i];
  }
}

inline void swiglu(const float* gate, const float* up, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += kLanes) {  // callers pass whole tiles
    const F g = load(gate + i);
    const F sigmoid = div(set1(1.0f), add(set1(1.0f), exp(sub(zero(), g))));
    store(out + i, mul(mul(g, sigmoid), load(up + i)));
  }
}

// 0.5 x (1 + tanh u) is x / (1 + exp(-2u)), with u = sqrt(2 / pi) (x + 0.044715 x^3).
inline void geglu(const float* gate, const float* up, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += kLanes) {  // callers pass whole tiles
    const F g = load(gate + i);
    const F cubic = fma(mul(mul(g, g), g), set1(0.044715f), g);
    const F value = div(g, add(set1(1.0f), exp(mul(set1(-1.5957691216057308f), cubic))));
    store(out + i, up ? mul(value, load(up + i)) : value);
  }
}

inline void layer_norm(const float* x, const float* weight, const float* bias, int64_t count, float epsilon,
                       float* out) {
  F total = zero();
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) total = add(total, load(x + i));
  float sum = reduce_add(total);
  for (; i < count; ++i) sum += x[i];
  const float mean = sum / static_cast<float>(count);
  F squares = zero();
  for (i = 0; i + kLanes <= count; i += kLanes) {
    const F centred = sub(load(x + i), set1(mean));
    squares = fma(centred, centred, squares);
  }
  float variance = reduce_add(squares);
  for (; i < count; ++i) variance += (x[i] - mean) * (x[i] - mean);
  const float scale = 1.0f / __builtin_sqrtf(variance / static_cast<float>(count) + epsilon);
  for (i = 0; i + kLanes <= count; i += kLanes) {
    store(out + i, fma(mul(sub(load(x + i), set1(mean)), set1(scale)), load(weight + i), load(bias + i)));
  }
  for (; i < count; ++i) out[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

// erf(x / sqrt 2) is about tanh(x (a + b x^2 + c x^4)), fitted on [-6, 6]; so GELU(x) = x / (1 + exp(-2 x (a + ...))).
inline void gelu(const float* x, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const F value = max(load(x + i), set1(-13.0f));  // GELU(-13) is below 1e-17, and exp of twice more clamps
    const F square = min(mul(value, value), set1(36.0f));
    const F slope = fma(fma(set1(-3.51516887e-04f), square, set1(3.70056467e-02f)), square, set1(7.97507883e-01f));
    store(out + i, div(value, add(set1(1.0f), exp(mul(mul(set1(-2.0f), value), slope)))));
  }
}

inline void to_half(const float* x, int64_t count, uint16_t* out) {  // count is a multiple of 16
  for (int64_t i = 0; i < count; i += kLanes) {
    store_half(out + i, min(max(load(x + i), set1(-kHalfLimit)), set1(kHalfLimit)));
  }
}

inline void quantise(const Activations& inputs, int64_t first, int64_t last) {
  constexpr int kVectors = serve::kGroup / kLanes;
  for (int64_t row = first; row < last; ++row) {
    const float* values = inputs.values + row * inputs.stride;
#if defined(__AVX512BF16__)
    if (inputs.bfloats) {
      uint16_t* bfloats = inputs.bfloats + row * inputs.stride;
      for (int64_t i = 0; i < inputs.stride; i += kLanes) {
        const __m256bh rounded = _mm512_cvtneps_pbh(load(values + i));
        __builtin_memcpy(bfloats + i, &rounded, sizeof rounded);
      }
    }
#endif
    if (!inputs.codes) continue;
    int8_t* codes = inputs.codes + row * inputs.stride;
    for (int64_t group = 0; group < inputs.groups; ++group) {
      F x[kVectors];
      F most = zero();
      for (int v = 0; v < kVectors; ++v) {
        x[v] = load(values + group * serve::kGroup + v * kLanes);
        most = max(most, abs(x[v]));
      }
      const float largest = reduce_max(most);
      const float scale = largest / 127.0f;
      const F inverse = set1(largest > 0.0f ? 127.0f / largest : 0.0f);
      F part[2] = {zero(), zero()};
      for (int v = 0; v < kVectors; ++v) {
        const F code = round(mul(x[v], inverse));
        store_as_bytes(codes + group * serve::kGroup + v * kLanes, code);
        part[v * 2 / kVectors] = add(part[v * 2 / kVectors], code);
      }
      const auto low = static_cast<int32_t>(reduce_add(part[0])), high = static_cast<int32_t>(reduce_add(part[1]));
      const int64_t at = row * inputs.groups + group;
      inputs.scales[at] = scale;
      inputs.sums[at] = low + high;
      inputs.part_sums[2 * at] = low;
      inputs.part_sums[2 * at + 1] = high;
      inputs.scaled_sums[at] = scale * static_cast<float>(low + high);
      inputs.scaled_part_sums[2 * at] = scale * static_cast<float>(low);
      inputs.scaled_part_sums[2 * at + 1] = scale * static_cast<float>(high);
    }
  }
}

// For each of 17 candidate scales round, then take the scale that fits these codes best (least squares), and keep the
// candidate with the least squared error. The extreme value may land on either end of the lopsided range.
inline void quantise_weights(const float* x, int64_t groups, int bits, uint8_t* codes, float* scales) {
  constexpr int kVectors = serve::kGroup / kLanes, kCandidates = 17;
  const float middle = static_cast<float>(1 << (bits - 1));
  for (int64_t group = 0; group < groups; ++group, x += serve::kGroup, codes += serve::kGroup) {
    F value[kVectors];
    F high = zero(), low = zero();
    for (int v = 0; v < kVectors; ++v) {
      value[v] = load(x + v * kLanes);
      high = max(high, value[v]);
      low = max(low, sub(zero(), value[v]));
    }
    const float highest = reduce_max(high), lowest = -reduce_max(low);
    const float signed_largest = highest > -lowest ? highest : lowest;
    const float largest = highest > -lowest ? highest : -lowest;
    if (!(largest > 0.0f)) {
      scales[group] = 0.0f;
      for (int i = 0; i < serve::kGroup; ++i) codes[i] = static_cast<uint8_t>(middle);
      continue;
    }
    float best_gain = -1.0f, best_inverse = 0.0f, best_scale = 0.0f;
    for (int candidate = 0; candidate < kCandidates; ++candidate) {
      const float reach = middle + (static_cast<float>(candidate) - 10.0f) * 0.1f * (bits >= 8 ? 0.1f : 1.0f);
      const float inverse = -reach / signed_largest;
      F cross = zero(), square = zero();
      for (int v = 0; v < kVectors; ++v) {
        const F code = min(max(round(mul(value[v], set1(inverse))), set1(-middle)), set1(middle - 1.0f));
        cross = fma(code, value[v], cross);
        square = fma(code, code, square);
      }
      const float c = reduce_add(cross), s = reduce_add(square);
      if (s > 0.0f && c * c > best_gain * s) {  // the error is |x|^2 - c^2 / s
        best_gain = c * c / s;
        best_inverse = inverse;
        best_scale = c / s;
      }
    }
    scales[group] = best_scale;
    for (int v = 0; v < kVectors; ++v) {
      const F code = min(max(round(mul(value[v], set1(best_inverse))), set1(-middle)), set1(middle - 1.0f));
      store_as_bytes(codes + v * kLanes, add(code, set1(middle)));
    }
  }
}

}  // namespace highrise::HIGHRISE_ISA
