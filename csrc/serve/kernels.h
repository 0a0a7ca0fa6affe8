// The table of kernels of one instruction set, and the plain structures they work on. The decoder step (decoder.cpp)
// calls through the table and never asks which set it is.
#pragma once

#include <cstdint>

#include "serve/packed.h"

namespace highrise::serve {

// The inputs of a linear layer, `rows` of them, in every form that some kernel reads. Row r of a buffer starts at
// r * stride (values, codes, bfloats) or r * groups (scales, sums) or 2 * r * groups (part sums).
struct Activations {
  int64_t stride = 0;            // columns rounded up to a multiple of 32; what lies beyond the columns is zero
  int64_t groups = 0;            // stride / 32
  float* values = nullptr;       // filled by the producer
  int8_t* codes = nullptr;       // round(value / scale), within -127..127; nullptr where only floats are multiplied
  float* scales = nullptr;       // largest magnitude of a group of 32, divided by 127
  int32_t* sums = nullptr;       // sum of the codes of a group
  int32_t* part_sums = nullptr;  // the same for each half of a group
  float* scaled_sums = nullptr;  // both times the scale, for weights with minima
  float* scaled_part_sums = nullptr;
  uint16_t* bfloats = nullptr;  // nullptr where no kernel wants them; readable for 32 rows beyond the last
};

enum class Output { kStore, kAdd };

// out[t - first][row] for the rows of tiles [tile_begin, tile_end) and inputs t in [first, last).
struct MultiplyTask {
  const PackedMatrix* matrix;
  int64_t tile_begin, tile_end;
  const Activations* inputs;
  int64_t first, last;
  float* out;          // row `tile_begin * 16` of the matrix lands at out[0]
  int64_t out_stride;  // floats between inputs
  const float* bias;   // nullptr, or one for each row of the matrix
  Output output;
};

// How keys and values lie in a page: as floats, or as codes of 8 bits with a half-precision scale for each kCacheGroup
// dimensions of a token (what llama.cpp's q8_0 is).
enum class CacheType { kFloat, kHalf, kInt8 };
constexpr int kCacheGroup = 32;
constexpr int64_t cache_groups(int64_t head_dim) { return (head_dim + kCacheGroup - 1) / kCacheGroup; }
// One head of one page: keys [page_size / 16][head_dim][16], values [page_size][head_dim], and with 8 bits the scales
// of the keys and then of the values, [page_size / 16][groups][16] each.
constexpr int64_t head_page_bytes(CacheType type, int64_t page_size, int64_t head_dim) {
  const int64_t element = type == CacheType::kFloat ? 4 : type == CacheType::kHalf ? 2 : 1;
  const int64_t scales = type == CacheType::kInt8 ? 2 * page_size * cache_groups(head_dim) * 2 : 0;
  return 2 * page_size * head_dim * element + scales;
}

// Attention of `num_rows` query rows, all of one sequence and one key-value head, over a paged cache.
struct AttentionTask {
  const float* queries;        // [num_rows][head_dim], times 1 / sqrt(head_dim) unless scales_scores; 8 rows of slack
  const int32_t* num_visible;  // keys each row may look at, ascending is not required, at least 1
  int num_rows;
  int head_dim;  // a multiple of 16
  CacheType cache_type;
  const uint8_t* cache;
  int64_t page_bytes;
  const int32_t* page_table;
  int page_size;       // a multiple of 16
  float* out;          // [num_rows][head_dim]; 8 rows of slack
  float* scratch;      // attention_scratch(num_rows) floats
  float scale = 1.0f;  // what scores are still to be multiplied with: 1 / sqrt(head_dim) for scales_scores
  bool interleaved =
      false;  // the file kept the pairs that are rotated together side by side, and not half a head apart
  const int32_t* first_visible = nullptr;  // the first key each row may look at; nullptr is 0 for all
  float softcap = 0.0f;                    // above 0, scores become softcap * tanh(score / softcap)
};
constexpr int kKeyChunk = 128;
constexpr int64_t attention_scratch(int64_t num_rows) { return (num_rows + 8) * (kKeyChunk + 4); }

struct Kernels {
  const char* name;
  // Codes, scales and sums (and bfloats, if the buffer is there) of inputs [first, last) from their values.
  void (*quantise)(const Activations& inputs, int64_t first, int64_t last);
  void (*multiply)(const MultiplyTask& task);
  // From `many_from` inputs on, multiply_many is faster; it needs `many_scratch(groups)` bytes of its own thread.
  int64_t many_from;
  void (*multiply_many)(const MultiplyTask& task, uint8_t* scratch);
  int64_t (*many_scratch)(int64_t groups);
  bool wants_bfloats;
  void (*rms_norm)(const float* x, const float* weight, int64_t count, float epsilon, float* out);
  // Rotates halves: (a, b) -> (a cos - b sin, b cos + a sin) with a = x[i], b = x[i + count / 2].
  void (*rotate)(float* x, const float* cosine, const float* sine, int64_t count);
  void (*swiglu)(const float* gate, const float* up, int64_t count, float* out);
  // GELU in its tanh form of `gate`, times `up` unless that is nullptr; whole tiles, `out` may be `gate`.
  void (*geglu)(const float* gate, const float* up, int64_t count, float* out);
  void (*attend)(const AttentionTask& task);
  // (x - mean) / sqrt(variance + epsilon) * weight + bias; `out` may be `x`.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, int64_t count, float epsilon, float* out);
  // GELU within 3e-5; `count` is a multiple of 16, `out` may be `x`.
  void (*gelu)(const float* x, int64_t count, float* out);
  // Stores one token's key or value of one head; magnitudes are held below the half-precision limit.
  void (*to_half)(const float* x, int64_t count, uint16_t* out);
  // Codes and scales of groups of 32 floats without minima, at `bits`, by a search for the least squared error.
  void (*quantise_weights)(const float* x, int64_t groups, int bits, uint8_t* codes, float* scales);

  // What only kernels that follow another engine's order of operations have.
  // Block types whose stored matrices stay the file's blocks, for multiply_many.
  bool (*keeps_blocks)(BlockType type) = nullptr;
  // Cosines and sines of a position (head_dim / 2 each) in place of the decoder's own, computed in double precision.
  void (*angles)(int32_t position, double theta, int64_t head_dim, float* cosine, float* sine) = nullptr;
  // attend multiplies scores, not queries, by 1 / sqrt(head_dim); with a cache in half precision and heads of at most
  // kMaxOrderedHead. Otherwise it keeps no order and takes queries that were scaled, like the others.
  bool scales_scores = false;
};
constexpr int kMaxOrderedHead = 1024;

const Kernels* portable_kernels();
// nullptr when this build has no such path; the caller has asked cpu_features().
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
const Kernels* avx512vnni_kernels();
const Kernels* amx_kernels();
const Kernels* llama_avx2_kernels();
const Kernels* llama_avx512_kernels();

// Kernels by name ("auto" takes the fastest of this CPU); nullptr when the name is unknown or the CPU lacks it.
const Kernels* find_kernels(const char* isa);
// The instruction sets find_kernels would accept here, best first, ended by nullptr.
const char* const* available_kernels();
// And the kernels that keep the order of operations of another engine: those a build of it for this CPU has come first.
const char* const* available_orders();

}  // namespace highrise::serve
