// A BERT-shaped encoder: post-norm layers, GELU, attention in both directions, the mean over a text's tokens brought to
// length one. Embedded tokens of many texts go in, one vector for each text comes out; everything runs on one
// persistent team of threads, without padding.
//
// A row depends on its own text only, bit for bit: a product takes the same path for one token as for many. Takes plain
// pointers and returns a status; bind/encoder.cpp checks arrays and words the errors. Knows nothing of Python, files,
// tokenizers or embedding tables.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "serve/kernels.h"

namespace highrise::serve {

struct EncoderShape {
  int64_t hidden_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;  // divides hidden_size
  int64_t intermediate_size = 0;
  double layer_norm_eps = 1e-12;
};

struct EncoderOptions {
  int threads = 1;
  const Kernels* kernels = nullptr;
};

enum class EncoderStatus {
  kOk,
  kUnknownTensor,  // no such name in this shape
  kWrongShape,     // rows or cols differ from what the shape says
  kAlreadySet,     // a tensor is packed once
  kMissingTensor,  // a text was given before every tensor was there
  kNoMemory,
};

class Encoder {
 public:
  Encoder(const EncoderShape& shape, const EncoderOptions& options);
  ~Encoder();
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;

  const EncoderShape& shape() const;
  const EncoderOptions& options() const;
  // Bytes held for weights.
  size_t memory_bytes() const;

  // Packs a float matrix [rows][cols] in 16 bits (8 would turn vectors by more than a cosine of 0.9999: docs/log), or
  // keeps a vector (cols 1), under its Hugging Face name without the prefix "bert.": "embeddings.LayerNorm.weight",
  // "encoder.layer.0.attention.self.query.weight", ...
  EncoderStatus set_tensor(const char* name, const float* source, int64_t rows, int64_t cols);
  EncoderStatus expected_shape(const char* name, int64_t* rows, int64_t* cols) const;
  // The first tensor that is still missing, or nullptr.
  const char* missing_tensor() const;

  // Text i has the embedded tokens [offsets[i], offsets[i + 1]) of `embedded` ([num_tokens][hidden], the sums of the
  // embedding tables, before the first norm), at least one; row i of `out` ([num_texts][hidden]) is its vector.
  EncoderStatus encode(const float* embedded, const int64_t* offsets, int64_t num_texts, float* out);

  struct State;  // encoder.cpp

 private:
  std::unique_ptr<State> state_;
};

}  // namespace highrise::serve
