#include "serve/pack.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/half.h"

namespace highrise::serve {
namespace {

size_t round_up(size_t value, size_t to) { return (value + to - 1) / to * to; }

int limit_bits(WeightLimit limit) {
  switch (limit) {
    case WeightLimit::kInt4:
      return 4;
    case WeightLimit::kInt5:
      return 5;
    case WeightLimit::kInt6:
      return 6;
    default:
      return 8;
  }
}

// Folds the eight units of a group (64 codes each, one a byte) into its vectors.
void fold_units(const uint8_t (&units)[8][64], int bits, uint8_t* group) {
  if (bits == 8) {
    std::memcpy(group, units, sizeof units);
    return;
  }
  for (int v = 0; v < 4; ++v) {
    for (int i = 0; i < 64; ++i) {
      group[v * 64 + i] = static_cast<uint8_t>((units[v][i] & 0x0f) | (units[v + 4][i] & 0x0f) << 4);
    }
  }
  if (bits == 5) {
    for (int i = 0; i < 64; ++i) {
      int high = 0;
      for (int u = 0; u < 8; ++u) high |= (units[u][i] >> 4 & 1) << u;
      group[256 + i] = static_cast<uint8_t>(high);
    }
  } else if (bits == 6) {
    for (int h = 0; h < 2; ++h) {
      for (int i = 0; i < 64; ++i) {
        int high = 0;
        for (int j = 0; j < 4; ++j) high |= (units[4 * h + j][i] >> 4 & 3) << (2 * j);
        group[256 + h * 64 + i] = static_cast<uint8_t>(high);
      }
    }
  }
}

int get_code(const uint8_t* group, int bits, int unit, int byte) {
  if (bits == 8) return group[unit * 64 + byte];
  int code = group[unit % 4 * 64 + byte] >> (unit >= 4 ? 4 : 0) & 0x0f;
  if (bits == 5) code |= (group[256 + byte] >> unit & 1) << 4;
  if (bits == 6) code |= (group[256 + unit / 4 * 64 + byte] >> (2 * (unit % 4)) & 3) << 4;
  return code;
}

uint16_t* scales_of(PackedMatrix& matrix, int64_t tile) {
  return reinterpret_cast<uint16_t*>(matrix.tile(tile) + matrix.scales_offset);
}
uint16_t* minima_of(PackedMatrix& matrix, int64_t tile) {
  return reinterpret_cast<uint16_t*>(matrix.tile(tile) + matrix.minima_offset);
}

// Codes, scales and minima of the 16 rows of a tile, row after row.
struct TileSource {
  std::vector<uint8_t> codes;
  std::vector<float> scales, minima;
};

void put_tile(PackedMatrix& matrix, int64_t tile, const TileSource& source) {
  const int parts = matrix.scales_per_group;
  const int64_t padded = matrix.groups * kGroup, scales_a_row = padded / 16;
  uint16_t* tile_scales = scales_of(matrix, tile);
  uint16_t* tile_minima = minima_of(matrix, tile);
  for (int64_t group = 0; group < matrix.groups; ++group) {
    uint8_t units[8][64];
    for (int r = 0; r < kTileRows; ++r) {
      const uint8_t* codes = source.codes.data() + r * padded + group * kGroup;
      for (int u = 0; u < 8; ++u) std::memcpy(&units[u][4 * r], codes + 4 * u, 4);
    }
    fold_units(units, matrix.bits, matrix.tile(tile) + static_cast<size_t>(group) * matrix.group_bytes());
    for (int r = 0; r < kTileRows; ++r) {
      const float* scales = source.scales.data() + r * scales_a_row + group * parts;
      const float* minima = source.minima.data() + r * scales_a_row + group * parts;
      for (int part = 0; part < parts; ++part) {
        tile_scales[(group * parts + part) * kTileRows + r] = float_to_half(scales[part]);
        if (matrix.has_minimum) tile_minima[(group * parts + part) * kTileRows + r] = float_to_half(minima[part]);
      }
    }
  }
}

void pack_float_row(BlockType type, const uint8_t* source, PackedMatrix& matrix, int64_t row) {
  uint8_t* tile = matrix.tile(row / kTileRows);
  const int64_t r = row % kTileRows;
  const auto bytes = static_cast<size_t>(matrix.element_bytes());
  const uint8_t* from = source + row * row_bytes(type, matrix.cols);
  for (int64_t column = 0; column < matrix.cols; ++column) {
    std::memcpy(tile + static_cast<size_t>(column * kTileRows + r) * bytes, from + static_cast<size_t>(column) * bytes,
                bytes);
  }
}

// Four bits a weight with a scale and a minimum per group: the least of 32 values is code 0, the largest 15. Chosen by
// perplexity, which a search for the least squared error without a minimum makes worse than plain rounding.
void quantise_from_minimum(const float* x, int64_t groups, uint8_t* codes, float* scales, float* minima) {
  constexpr float kMost = 15.0f;
  for (int64_t group = 0; group < groups; ++group, x += kGroup, codes += kGroup) {
    float lows[8], highs[8];  // eight at a time, which compilers turn into vectors
    std::copy_n(x, 8, lows);
    std::copy_n(x, 8, highs);
    for (int i = 8; i < kGroup; ++i) {
      lows[i % 8] = x[i] < lows[i % 8] ? x[i] : lows[i % 8];
      highs[i % 8] = x[i] > highs[i % 8] ? x[i] : highs[i % 8];
    }
    const float minimum = half_to_float(float_to_half(*std::min_element(lows, lows + 8)));
    const float largest = *std::max_element(highs, highs + 8);
    const float scale = half_to_float(float_to_half((largest - minimum) / kMost));
    const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    scales[group] = scale;
    minima[group] = minimum;
    for (int i = 0; i < kGroup; ++i) {
      const float place = (x[i] - minimum) * inverse + 0.5f;
      codes[i] = static_cast<uint8_t>(place > 0.0f ? std::min(place, kMost) : 0.0f);
    }
  }
}

bool keeps_codes(BlockType type, const PackedMatrix& matrix) {
  return !is_float(type) && code_form(type).bits == matrix.bits;
}

}  // namespace

bool weight_limit_of(const char* name, WeightLimit* limit) {
  constexpr const char* kNames[] = {"stored", "int4", "int5", "int6", "int8"};
  for (int i = 0; i < 5; ++i) {
    if (std::strcmp(name, kNames[i]) == 0) {
      *limit = static_cast<WeightLimit>(i);
      return true;
    }
  }
  return false;
}

PackedMatrix plan_packed(const Kernels& kernels, BlockType type, int64_t rows, int64_t cols, WeightLimit limit,
                         Arena& arena) {
  PackedMatrix matrix;
  matrix.rows = rows;
  matrix.cols = cols;
  matrix.tiles = (rows + kTileRows - 1) / kTileRows;
  matrix.groups = (cols + kGroup - 1) / kGroup;
  if (limit == WeightLimit::kStored && kernels.keeps_blocks && kernels.keeps_blocks(type)) {
    matrix.is_blocks = true;
    matrix.type = type;
    matrix.tile_bytes = static_cast<size_t>(row_bytes(type, cols) * kTileRows);
  } else if (is_float(type) && limit == WeightLimit::kStored) {
    matrix.kind = type == BlockType::F32 ? FloatKind::F32 : type == BlockType::F16 ? FloatKind::F16 : FloatKind::BF16;
    matrix.tile_bytes = round_up(static_cast<size_t>(cols * kTileRows * matrix.element_bytes()), 64);
  } else {
    const bool stored = !is_float(type) && (limit == WeightLimit::kStored || code_form(type).bits <= limit_bits(limit));
    matrix.bits = stored ? code_form(type).bits : limit_bits(limit);
    matrix.scales_per_group = stored ? kGroup / code_form(type).group : 1;
    matrix.has_minimum = stored ? code_form(type).has_minimum : matrix.bits == 4;
    const auto groups = static_cast<size_t>(matrix.groups);
    matrix.scales_offset = groups * matrix.group_bytes();
    const size_t scale_bytes = groups * kTileRows * 2 * static_cast<size_t>(matrix.scales_per_group);
    matrix.minima_offset = matrix.scales_offset + scale_bytes;
    matrix.tile_bytes = round_up(matrix.minima_offset + (matrix.has_minimum ? scale_bytes : 0), 64);
  }
  matrix.data = arena.allocate(matrix.bytes());
  return matrix;
}

void pack_tiles(const Kernels& kernels, BlockType type, const uint8_t* source, PackedMatrix& matrix, int64_t begin,
                int64_t end) {
  const int64_t padded = matrix.groups * kGroup, scales_a_row = padded / 16;
  if (matrix.is_blocks) {
    const int64_t bytes = row_bytes(type, matrix.cols), last = std::min(end * kTileRows, matrix.rows);
    std::memcpy(matrix.tile(begin), source + begin * kTileRows * bytes,
                static_cast<size_t>((last - begin * kTileRows) * bytes));
    return;
  }
  TileSource rows;
  std::vector<float> values(static_cast<size_t>(padded));
  for (int64_t tile = begin; tile < end; ++tile) {
    // Rows beyond the matrix keep a scale of zero.
    rows.codes.assign(static_cast<size_t>(padded * kTileRows), 0);
    rows.scales.assign(static_cast<size_t>(scales_a_row * kTileRows), 0.0f);
    rows.minima.assign(rows.scales.size(), 0.0f);
    const int64_t first = tile * kTileRows, last = std::min(first + kTileRows, matrix.rows);
    for (int64_t row = first; row < last; ++row) {
      const uint8_t* from = source + row * row_bytes(type, matrix.cols);
      uint8_t* codes = rows.codes.data() + (row - first) * padded;
      float* scales = rows.scales.data() + (row - first) * scales_a_row;
      float* minima = rows.minima.data() + (row - first) * scales_a_row;
      if (matrix.bits == 0) {
        pack_float_row(type, source, matrix, row);
      } else if (keeps_codes(type, matrix)) {
        read_codes(type, from, matrix.cols, codes, scales, minima);
      } else {
        read_row(type, from, matrix.cols, values.data());
        if (matrix.has_minimum) {
          quantise_from_minimum(values.data(), matrix.groups, codes, scales, minima);
        } else {
          kernels.quantise_weights(values.data(), matrix.groups, matrix.bits, codes, scales);
        }
      }
    }
    if (matrix.bits != 0) put_tile(matrix, tile, rows);
  }
}

void read_packed_row(const PackedMatrix& matrix, int64_t row, float* out) {
  const uint8_t* tile = matrix.tile(row / kTileRows);
  const int r = static_cast<int>(row % kTileRows);
  if (matrix.is_blocks) return read_row(matrix.type, tile + r * row_bytes(matrix.type, matrix.cols), matrix.cols, out);
  if (matrix.bits == 0) {
    for (int64_t column = 0; column < matrix.cols; ++column) {
      const uint8_t* at = tile + (column * kTileRows + r) * matrix.element_bytes();
      uint16_t small;
      std::memcpy(&small, at, sizeof small);
      if (matrix.kind == FloatKind::F32) {
        std::memcpy(out + column, at, sizeof(float));
      } else {
        out[column] = matrix.kind == FloatKind::F16 ? half_to_float(small) : bfloat_to_float(small);
      }
    }
    return;
  }
  const auto* scales = reinterpret_cast<const uint16_t*>(tile + matrix.scales_offset);
  const auto* minima = reinterpret_cast<const uint16_t*>(tile + matrix.minima_offset);
  const float middle = static_cast<float>(1 << (matrix.bits - 1));
  for (int64_t column = 0; column < matrix.cols; ++column) {
    const int64_t group = column / kGroup;
    const int i = static_cast<int>(column % kGroup), part = i * matrix.scales_per_group / kGroup;
    const uint8_t* codes = tile + static_cast<size_t>(group) * matrix.group_bytes();
    const int64_t at = (group * matrix.scales_per_group + part) * kTileRows + r;
    const float scale = half_to_float(scales[at]);
    const auto code = static_cast<float>(get_code(codes, matrix.bits, i / 4, 4 * r + i % 4));
    out[column] = matrix.has_minimum ? scale * code + half_to_float(minima[at]) : scale * (code - middle);
  }
}

}  // namespace highrise::serve
