#include "serve/blocks.h"

#include <cstring>
#include <string>

#include "common/half.h"

namespace highrise::serve {
namespace {

struct Entry {
  const char* name;
  int weights;
  int bytes;
  CodeForm form;
};

// In the order of BlockType.
constexpr Entry kTable[] = {
    {"F32", 1, 4, {}},
    {"F16", 1, 2, {}},
    {"BF16", 1, 2, {}},
    {"Q4_0", 32, 18, {4, 32, false}},
    {"Q4_1", 32, 20, {4, 32, true}},
    {"Q5_0", 32, 22, {5, 32, false}},
    {"Q5_1", 32, 24, {5, 32, true}},
    {"Q8_0", 32, 34, {8, 32, false}},
    {"Q2_K", 256, 84, {4, 16, true}},
    {"Q3_K", 256, 110, {4, 16, false}},
    {"Q4_K", 256, 144, {4, 32, true}},
    {"Q5_K", 256, 176, {5, 32, true}},
    {"Q6_K", 256, 210, {6, 16, false}},
    {"IQ4_NL", 32, 18, {8, 32, false}},
    {"IQ4_XS", 256, 136, {8, 32, false}},
};

const Entry& entry(BlockType type) { return kTable[static_cast<int>(type)]; }

uint16_t read_u16(const uint8_t* at) {
  uint16_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

uint32_t read_u32(const uint8_t* at) {
  uint32_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

float read_half(const uint8_t* at) { return half_to_float(read_u16(at)); }

// Low nibbles are the first half of a block, high nibbles the second.
void split_nibbles(const uint8_t* packed, int count, uint8_t* codes) {
  for (int i = 0; i < count; ++i) {
    codes[i] = packed[i] & 0x0f;
    codes[i + count] = packed[i] >> 4;
  }
}

void add_fifth_bit(uint32_t bits, uint8_t* codes) {
  for (int i = 0; i < 32; ++i) codes[i] = static_cast<uint8_t>(codes[i] | (((bits >> i) & 1u) << 4));
}

// The eight 6-bit scales and minima of a K block, packed into 12 bytes.
void unpack_k_scale(const uint8_t* packed, int index, int* scale, int* minimum) {
  if (index < 4) {
    *scale = packed[index] & 63;
    *minimum = packed[index + 4] & 63;
  } else {
    *scale = (packed[index + 4] & 0x0f) | ((packed[index - 4] >> 6) << 4);
    *minimum = (packed[index + 4] >> 4) | ((packed[index] >> 6) << 4);
  }
}

void read_k_scales(const uint8_t* block, float* scales, float* minima) {
  const float scale_unit = read_half(block), minimum_unit = read_half(block + 2);
  for (int group = 0; group < 8; ++group) {
    int scale = 0, minimum = 0;
    unpack_k_scale(block + 4, group, &scale, &minimum);
    scales[group] = scale_unit * static_cast<float>(scale);
    minima[group] = -minimum_unit * static_cast<float>(minimum);
  }
}

// 16 sub-blocks of 16: two bits a code with 4-bit scales and minima.
void read_q2_k(const uint8_t* block, uint8_t* codes, float* scales, float* minima) {
  const float scale_unit = read_half(block + 80), minimum_unit = read_half(block + 82);
  for (int i = 0; i < 256; ++i) {
    codes[i] = static_cast<uint8_t>(block[16 + i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3);
  }
  for (int group = 0; group < 16; ++group) {
    scales[group] = scale_unit * static_cast<float>(block[group] & 0x0f);
    minima[group] = -minimum_unit * static_cast<float>(block[group] >> 4);
  }
}

// Three bits a code around 4 with 6-bit scales around 32; four bits hold them around 8.
void read_q3_k(const uint8_t* block, uint8_t* codes, float* scales) {
  const float unit = read_half(block + 108);
  for (int i = 0; i < 256; ++i) {
    const int low = block[32 + i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3, high = block[i % 32] >> (i / 32) & 1;
    codes[i] = static_cast<uint8_t>(4 + (low | high << 2));
  }
  for (int group = 0; group < 16; ++group) {
    const int low = block[96 + group % 8] >> (group / 8 * 4) & 0x0f,
              high = block[104 + group % 4] >> (group / 4 * 2) & 3;
    scales[group] = unit * static_cast<float>((low | high << 4) - 32);
  }
}

// The sixteen values of IQ4 lie unevenly; as bytes around 128 they are exact.
void read_uneven(const uint8_t* packed, uint8_t* codes) {
  constexpr uint8_t kValues[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};
  for (int i = 0; i < 16; ++i) {
    codes[i] = kValues[packed[i] & 0x0f];
    codes[i + 16] = kValues[packed[i] >> 4];
  }
}

void read_iq4_xs(const uint8_t* block, uint8_t* codes, float* scales) {
  const float unit = read_half(block);
  const int high = read_u16(block + 2);
  for (int group = 0; group < 8; ++group) {
    const int low = block[4 + group / 2] >> (group % 2 * 4) & 0x0f;
    scales[group] = unit * static_cast<float>((low | (high >> (2 * group) & 3) << 4) - 32);
    read_uneven(block + 8 + 16 * group, codes + 32 * group);
  }
}

void read_q6_k(const uint8_t* block, uint8_t* codes, float* scales) {
  const uint8_t* low = block;
  const uint8_t* high = block + 128;
  const auto* scale = reinterpret_cast<const int8_t*>(block + 192);
  const float unit = read_half(block + 208);
  for (int half = 0; half < 2; ++half) {
    for (int i = 0; i < 32; ++i) {
      const uint8_t h = high[half * 32 + i], a = low[half * 64 + i], b = low[half * 64 + 32 + i];
      uint8_t* out = codes + half * 128 + i;
      out[0] = static_cast<uint8_t>((a & 0x0f) | ((h & 3) << 4));
      out[32] = static_cast<uint8_t>((b & 0x0f) | (((h >> 2) & 3) << 4));
      out[64] = static_cast<uint8_t>((a >> 4) | (((h >> 4) & 3) << 4));
      out[96] = static_cast<uint8_t>((b >> 4) | (((h >> 6) & 3) << 4));
    }
  }
  for (int group = 0; group < 16; ++group) scales[group] = unit * static_cast<float>(scale[group]);
}

void read_block(BlockType type, const uint8_t* block, uint8_t* codes, float* scales, float* minima) {
  switch (type) {
    case BlockType::Q4_0:
      scales[0] = read_half(block);
      split_nibbles(block + 2, 16, codes);
      return;
    case BlockType::Q4_1:
      scales[0] = read_half(block);
      minima[0] = read_half(block + 2);
      split_nibbles(block + 4, 16, codes);
      return;
    case BlockType::Q5_0:
      scales[0] = read_half(block);
      split_nibbles(block + 6, 16, codes);
      add_fifth_bit(read_u32(block + 2), codes);
      return;
    case BlockType::Q5_1:
      scales[0] = read_half(block);
      minima[0] = read_half(block + 2);
      split_nibbles(block + 8, 16, codes);
      add_fifth_bit(read_u32(block + 4), codes);
      return;
    case BlockType::Q8_0:
      scales[0] = read_half(block);
      for (int i = 0; i < 32; ++i) codes[i] = block[2 + i] ^ 0x80;
      return;
    case BlockType::Q2_K:
      read_q2_k(block, codes, scales, minima);
      return;
    case BlockType::Q3_K:
      read_q3_k(block, codes, scales);
      return;
    case BlockType::IQ4_NL:
      scales[0] = read_half(block);
      read_uneven(block + 2, codes);
      return;
    case BlockType::IQ4_XS:
      read_iq4_xs(block, codes, scales);
      return;
    case BlockType::Q4_K:
      read_k_scales(block, scales, minima);
      for (int pair = 0; pair < 4; ++pair) split_nibbles(block + 16 + pair * 32, 32, codes + pair * 64);
      return;
    case BlockType::Q5_K:
      read_k_scales(block, scales, minima);
      for (int pair = 0; pair < 4; ++pair) {
        split_nibbles(block + 48 + pair * 32, 32, codes + pair * 64);
        for (int i = 0; i < 64; ++i) {
          const int bit = (block[16 + i % 32] >> (pair * 2 + i / 32)) & 1;
          codes[pair * 64 + i] = static_cast<uint8_t>(codes[pair * 64 + i] | (bit << 4));
        }
      }
      return;
    case BlockType::Q6_K:
      read_q6_k(block, codes, scales);
      return;
    default:
      return;
  }
}

void read_floats(BlockType type, const uint8_t* row, int64_t cols, float* out) {
  if (type == BlockType::F32) {
    std::memcpy(out, row, static_cast<size_t>(cols) * sizeof(float));
  } else if (type == BlockType::F16) {
    for (int64_t i = 0; i < cols; ++i) out[i] = read_half(row + 2 * i);
  } else {
    for (int64_t i = 0; i < cols; ++i) out[i] = bfloat_to_float(read_u16(row + 2 * i));
  }
}

}  // namespace

bool block_type_of(const char* name, BlockType* type) {
  for (int i = 0; i < static_cast<int>(sizeof kTable / sizeof *kTable); ++i) {
    if (std::strcmp(kTable[i].name, name) == 0) {
      *type = static_cast<BlockType>(i);
      return true;
    }
  }
  return false;
}

const char* block_type_names() {
  static const std::string names = [] {
    std::string all;
    for (const Entry& one : kTable) all += (all.empty() ? "" : ", ") + std::string(one.name);
    return all;
  }();
  return names.c_str();
}

const char* block_type_name(BlockType type) { return entry(type).name; }
int block_weights(BlockType type) { return entry(type).weights; }
int block_bytes(BlockType type) { return entry(type).bytes; }
CodeForm code_form(BlockType type) { return entry(type).form; }

void read_codes(BlockType type, const uint8_t* row, int64_t cols, uint8_t* codes, float* scales, float* minima) {
  const int weights = block_weights(type), bytes = block_bytes(type), groups = weights / code_form(type).group;
  for (int64_t block = 0; block < cols / weights; ++block) {
    read_block(type, row + block * bytes, codes + block * weights, scales + block * groups, minima + block * groups);
  }
}

void read_row(BlockType type, const uint8_t* row, int64_t cols, float* out) {
  if (is_float(type)) return read_floats(type, row, cols, out);
  const int weights = block_weights(type), bytes = block_bytes(type);
  const CodeForm form = code_form(type);
  const float middle = static_cast<float>(1 << (form.bits - 1));
  uint8_t codes[256];
  float scales[16], minima[16];
  for (int64_t block = 0; block < cols / weights; ++block) {
    read_block(type, row + block * bytes, codes, scales, minima);
    for (int i = 0; i < weights; ++i) {
      const int group = i / form.group;
      const float code = static_cast<float>(codes[i]);
      out[block * weights + i] =
          form.has_minimum ? scales[group] * code + minima[group] : scales[group] * (code - middle);
    }
  }
}

}  // namespace highrise::serve
