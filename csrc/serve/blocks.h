// The block formats of GGUF files: how one row of them is read. The layouts are those of ggml's quantisation sources.
// Knows nothing of tiles, kernels or files.
#pragma once

#include <cstdint>

namespace highrise::serve {

enum class BlockType { F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS };

// False for a name that is none of the above.
bool block_type_of(const char* name, BlockType* type);
const char* block_type_name(BlockType type);
// All names, separated by commas.
const char* block_type_names();
// Weights in one block (1 for floats) and bytes of it.
int block_weights(BlockType type);
int block_bytes(BlockType type);
inline int64_t row_bytes(BlockType type, int64_t cols) { return cols / block_weights(type) * block_bytes(type); }
inline bool is_float(BlockType type) { return type <= BlockType::BF16; }

// How a block type maps onto unsigned codes: weight = scale * code + minimum, where without minima
// minimum = -scale * 2^(bits-1). Exact up to the rounding of scale and minimum.
struct CodeForm {
  int bits;          // 4, 5, 6 or 8
  int group;         // weights that share a scale: 32 or 16
  bool has_minimum;  // minima are stored
};
CodeForm code_form(BlockType type);  // not for floats

// One row of `cols` weights as floats.
void read_row(BlockType type, const uint8_t* row, int64_t cols, float* out);
// One row as codes (one byte each), scales and minima (cols / group each; minima untouched when the form has none).
void read_codes(BlockType type, const uint8_t* row, int64_t cols, uint8_t* codes, float* scales, float* minima);

}  // namespace highrise::serve
