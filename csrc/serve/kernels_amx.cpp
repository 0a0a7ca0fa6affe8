// The VNNI kernels, and for many inputs a product on AMX tiles in bfloat16: compiled for AMX, reached only after CPUID
// and after the operating system granted the tile state.
//
// Weights are dequantised once into bfloat16 tiles that stay in the first cache and are used for all inputs, so no
// scale is applied in the inner loop; a chunk of columns at a time, with partial sums in a buffer of the second cache.
// Rounding inputs and weights to 8 bits of mantissa costs less accuracy than the int8 codes of the other kernels.
#define HIGHRISE_ISA amx
#include "serve/attention_inl.h"
#include "serve/gemm_inl.h"
#include "serve/vector_inl.h"

namespace highrise::amx {

constexpr int kChunkGroups = 16;    // 512 columns: 32 rows of them in bfloat16 are 32 KiB
constexpr int kTileInputs = 16;     // inputs of one AMX tile
constexpr int kBlockInputs = 32;    // two tiles of inputs times two of weights: four products for four loads
constexpr int kTileElements = 512;  // bfloats of one AMX tile: 16 x 32
constexpr int64_t kMaxManyInputs = 512;
constexpr int64_t kWeightBytes = 2 * kChunkGroups * kTileElements * 2;
constexpr int64_t kSumStride = 2 * kTileRows;

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Bfloats of an even column (lower half) and of the odd one beside it, as pairs: [row][2].
HIGHRISE_INLINE void store_pairs(uint16_t* out, __m512i both) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  _mm512_storeu_si512(out, _mm512_permutexvar_epi16(order, both));
}

HIGHRISE_INLINE void store_pairs(uint16_t* out, F even, F odd) {
  store_pairs(out, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even)));
}

// Weights that are stored as bfloats, [column][16 rows], only change places.
inline void pair_columns(const PackedMatrix& matrix, const uint8_t* tile, int64_t first, int64_t count, uint16_t* out) {
  const auto* bfloats = reinterpret_cast<const uint16_t*>(tile);
  const auto column = [&](int64_t index) {
    return index < matrix.cols ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bfloats + index * kTileRows))
                               : _mm256_setzero_si256();
  };
  for (int64_t pair = first * kGroup; pair < (first + count) * kGroup; pair += 2, out += 2 * kTileRows) {
    store_pairs(out, _mm512_inserti64x4(_mm512_castsi256_si512(column(pair)), column(pair + 1), 1));
  }
}

template <int Bits, int Parts, bool HasMinimum>
HIGHRISE_INLINE void widen_groups(const PackedMatrix& matrix, const uint8_t* tile, int64_t first, int64_t count,
                                  uint16_t* out) {
  constexpr int kGroupBytes = Bits == 8 ? 512 : Bits * 64;
  const auto* scales = reinterpret_cast<const uint16_t*>(tile + matrix.scales_offset);
  const auto* minima = reinterpret_cast<const uint16_t*>(tile + matrix.minima_offset);
  const __m512i byte = _mm512_set1_epi32(0xff);
  for (int64_t group = first; group < first + count; ++group, out += kTileElements) {
    const uint8_t* codes = tile + group * kGroupBytes;
    F scale[Parts], minimum[Parts];
    for (int part = 0; part < Parts; ++part) {
      scale[part] = load_half(scales + (group * Parts + part) * kTileRows);
      minimum[part] = HasMinimum ? load_half(minima + (group * Parts + part) * kTileRows)
                                 : mul(scale[part], set1(-static_cast<float>(1 << (Bits - 1))));
    }
    unroll<8>([&](auto step) HIGHRISE_LAMBDA_INLINE {
      constexpr int kUnit = decltype(step)::value, kPart = Parts == 2 ? kUnit / 4 : 0;
      const __m512i four = unit<Bits, kUnit>(codes);
      const auto value = [&](__m512i code)
                             HIGHRISE_LAMBDA_INLINE { return fma(to_float(code), scale[kPart], minimum[kPart]); };
      store_pairs(out + 2 * kUnit * kTileRows * 2, value(_mm512_and_si512(four, byte)),
                  value(_mm512_and_si512(_mm512_srli_epi32(four, 8), byte)));
      store_pairs(out + (2 * kUnit + 1) * kTileRows * 2, value(_mm512_and_si512(_mm512_srli_epi32(four, 16), byte)),
                  value(_mm512_srli_epi32(four, 24)));
    });
  }
}

inline void widen_any(const PackedMatrix& matrix, const uint8_t* tile, int64_t first, int64_t count, uint16_t* out) {
  if (matrix.bits == 0) return pair_columns(matrix, tile, first, count, out);
  switch (matrix.bits * 10 + (matrix.scales_per_group == 2 ? 2 : 0) + (matrix.has_minimum ? 1 : 0)) {
    case 40:
      return widen_groups<4, 1, false>(matrix, tile, first, count, out);
    case 41:
      return widen_groups<4, 1, true>(matrix, tile, first, count, out);
    case 42:
      return widen_groups<4, 2, false>(matrix, tile, first, count, out);
    case 43:
      return widen_groups<4, 2, true>(matrix, tile, first, count, out);
    case 50:
      return widen_groups<5, 1, false>(matrix, tile, first, count, out);
    case 51:
      return widen_groups<5, 1, true>(matrix, tile, first, count, out);
    case 60:
      return widen_groups<6, 1, false>(matrix, tile, first, count, out);
    case 62:
      return widen_groups<6, 2, false>(matrix, tile, first, count, out);
    default:
      return widen_groups<8, 1, false>(matrix, tile, first, count, out);
  }
}

// sums[32 inputs][32 rows] (+)= inputs times two tiles of weights over `groups` groups.
inline void multiply_block(const uint16_t* inputs, int64_t stride, const uint16_t* weights, int64_t groups, bool first,
                           float* sums) {
  constexpr int64_t kSecondTile = kChunkGroups * kTileElements;
  const int64_t input_bytes = stride * 2, sum_bytes = kSumStride * 4;
  if (first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums, sum_bytes);
    _tile_loadd(1, sums + kTileRows, sum_bytes);
    _tile_loadd(2, sums + kTileInputs * kSumStride, sum_bytes);
    _tile_loadd(3, sums + kTileInputs * kSumStride + kTileRows, sum_bytes);
  }
  for (int64_t group = 0; group < groups; ++group) {
    _tile_loadd(4, inputs + group * kGroup, input_bytes);
    _tile_loadd(6, weights + group * kTileElements, 64);
    _tile_loadd(7, weights + kSecondTile + group * kTileElements, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, inputs + kTileInputs * stride + group * kGroup, input_bytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, sum_bytes);
  _tile_stored(1, sums + kTileRows, sum_bytes);
  _tile_stored(2, sums + kTileInputs * kSumStride, sum_bytes);
  _tile_stored(3, sums + kTileInputs * kSumStride + kTileRows, sum_bytes);
}

int64_t many_scratch(int64_t) { return kWeightBytes + (kMaxManyInputs + kBlockInputs) * kSumStride * 4 + 128; }

void multiply_many(const MultiplyTask& task, uint8_t* scratch) {
  if (task.matrix->bits == 0 && !task.matrix->rounds_inputs) return multiply(task);
  scratch += -reinterpret_cast<uintptr_t>(scratch) & 63;
  auto* weights = reinterpret_cast<uint16_t*>(scratch);
  auto* sums = reinterpret_cast<float*>(scratch + kWeightBytes);
  const Activations& inputs = *task.inputs;
  const int64_t groups = task.matrix->groups;
  const TileConfig config;
  _tile_loadconfig(&config);
  for (int64_t begin = task.first; begin < task.last; begin += kMaxManyInputs) {
    const int64_t end = begin + kMaxManyInputs < task.last ? begin + kMaxManyInputs : task.last;
    for (int64_t tile = task.tile_begin; tile < task.tile_end; tile += 2) {
      const int tiles = tile + 1 < task.tile_end ? 2 : 1;
      for (int64_t group = 0; group < groups; group += kChunkGroups) {
        const int64_t count = groups - group < kChunkGroups ? groups - group : kChunkGroups;
        // A tile alone is multiplied twice, which is simpler than a second kernel and rare.
        for (int i = 0; i < 2; ++i) {
          widen_any(*task.matrix, task.matrix->tile(tile + (i < tiles ? i : 0)), group, count,
                    weights + i * kChunkGroups * kTileElements);
        }
        for (int64_t input = begin; input < end; input += kBlockInputs) {
          multiply_block(inputs.bfloats + input * inputs.stride + group * kGroup, inputs.stride, weights, count,
                         group == 0, sums + (input - begin) * kSumStride);
        }
      }
      for (int i = 0; i < tiles; ++i) finish_tile(task, tile + i, begin, end - begin, sums + i * kTileRows, kSumStride);
    }
  }
  _tile_release();
}

}  // namespace highrise::amx

namespace highrise::serve {

const Kernels* amx_kernels() {
  using namespace highrise::amx;
  static const Kernels table = {"amx",    quantise,        multiply, 32,    multiply_many, many_scratch, true,
                                rms_norm, rotate,          swiglu,   geglu, attend,        layer_norm,   gelu,
                                to_half,  quantise_weights};
  return &table;
}

}  // namespace highrise::serve
