// A weight matrix repacked for the kernels: tiles of 16 rows, inside a tile groups of 32 columns. One layout serves
// every instruction set. Knows nothing of GGUF; pack.h fills it, gemm_inl.h reads it.
//
// Codes of one group of a tile: "unit" u (0..7) holds the codes of columns 4u..4u+3, byte 4r+i that of row r, column
// 4u+i, which is what a four-way byte dot product wants. Vectors of 64 bytes:
//   4 bits: vector v = unit v in the low nibbles, unit v+4 in the high ones
//   5 bits: the four above, then one vector whose bit u is the fifth bit of unit u
//   6 bits: the four above, then two vectors; bits 2j, 2j+1 of vector h are the top bits of unit 4h+j
//   8 bits: vector v = unit v
// weight = scale * code + minimum; without stored minima, minimum = -scale * 2^(bits-1). After the codes of a tile come
// half-precision scales [group][part][16 rows], part 0 for columns 0..15 and 1 for 16..31 when scales_per_group is 2,
// then minima [group][part][16 rows].
// Float matrices (bits 0) hold [column][16 rows] of the stored type. Rows beyond the matrix are zero weights;
// columns beyond it meet inputs that are zero.
#pragma once

#include <cstddef>
#include <cstdint>

#include "serve/blocks.h"

namespace highrise::serve {

constexpr int kTileRows = 16;
constexpr int kGroup = 32;

enum class FloatKind { F32, F16, BF16 };

struct PackedMatrix {
  int64_t rows = 0, cols = 0;
  int64_t tiles = 0, groups = 0;
  int bits = 0;
  int scales_per_group = 1;
  bool has_minimum = false;
  FloatKind kind = FloatKind::F32;
  bool rounds_inputs = false;  // of BF16 floats: products may round the inputs to bfloats too, where tiles are faster
  bool is_blocks = false;  // a tile is 16 rows of the file's own blocks, one after the other, and nothing below holds
  BlockType type = BlockType::F32;
  size_t tile_bytes = 0;
  size_t scales_offset = 0;  // within a tile
  size_t minima_offset = 0;
  uint8_t* data = nullptr;

  size_t group_bytes() const { return bits == 8 ? 512 : static_cast<size_t>(bits) * 64; }
  int element_bytes() const { return kind == FloatKind::F32 ? 4 : 2; }
  size_t bytes() const { return static_cast<size_t>(tiles) * tile_bytes; }
  const uint8_t* tile(int64_t index) const { return data + static_cast<size_t>(index) * tile_bytes; }
  uint8_t* tile(int64_t index) { return data + static_cast<size_t>(index) * tile_bytes; }
  explicit operator bool() const { return data != nullptr; }
};

}  // namespace highrise::serve
