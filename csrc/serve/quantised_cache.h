// One token's keys and values of one head in a page of 8-bit codes: read and written, slowly, one at a time. The layout
// is that of head_page_bytes in kernels.h; attention_inl.h reads whole blocks of it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "common/half.h"
#include "serve/kernels.h"

namespace highrise::serve {

class QuantisedPage {
 public:
  QuantisedPage(uint8_t* page, int64_t page_size, int64_t head_dim)
      : keys_(reinterpret_cast<int8_t*>(page)),
        values_(keys_ + page_size * head_dim),
        key_scales_(reinterpret_cast<uint16_t*>(values_ + page_size * head_dim)),
        value_scales_(key_scales_ + page_size * cache_groups(head_dim)),
        head_dim_(head_dim),
        groups_(cache_groups(head_dim)) {}

  int8_t* key(int64_t slot) const { return keys_ + slot / 16 * 16 * head_dim_ + slot % 16; }  // dimensions 16 apart
  int8_t* value(int64_t slot) const { return values_ + slot * head_dim_; }
  uint16_t* key_scale(int64_t slot) const { return key_scales_ + slot / 16 * 16 * groups_ + slot % 16; }  // 16 apart
  uint16_t* value_scale(int64_t slot) const { return value_scales_ + slot / 16 * 16 * groups_ + slot % 16; }
  int64_t groups() const { return groups_; }

  // `x` has head_dim floats; beyond what the model has they are zero.
  void put_key(int64_t slot, const float* x) const { put(x, key(slot), 16, key_scale(slot)); }
  void put_value(int64_t slot, const float* x) const { put(x, value(slot), 1, value_scale(slot)); }

  void get_key(int64_t slot, float* x) const {
    for (int64_t d = 0; d < head_dim_; ++d)
      x[d] = half_to_float(key_scale(slot)[d / kCacheGroup * 16]) * static_cast<float>(key(slot)[d * 16]);
  }

 private:
  void put(const float* x, int8_t* codes, int64_t stride, uint16_t* scales) const {
    for (int64_t begin = 0; begin < head_dim_; begin += kCacheGroup) {
      const int64_t end = std::min<int64_t>(begin + kCacheGroup, head_dim_);
      float most = 0.0f;
      for (int64_t d = begin; d < end; ++d) most = std::max(most, std::fabs(x[d]));
      const uint16_t half = float_to_half(std::min(most / 127.0f, 65504.0f));
      const float scale = half_to_float(half), inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
      scales[begin / kCacheGroup * 16] = half;
      for (int64_t d = begin; d < end; ++d) {
        const float code = std::min(127.0f, std::max(-127.0f, x[d] * inverse));
        codes[d * stride] = static_cast<int8_t>(std::lrintf(code));
      }
    }
  }

  int8_t* keys_;
  int8_t* values_;
  uint16_t* key_scales_;
  uint16_t* value_scales_;
  int64_t head_dim_, groups_;
};

}  // namespace highrise::serve
