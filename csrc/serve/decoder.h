// One step of a decoder over a paged cache of keys and values: a mixed batch of prompt chunks and
// single tokens goes in, logits of the rows asked for come out. Everything runs on one persistent team of threads.
//
// Takes plain pointers and returns a Status; bind/decoder.cpp checks arrays and words the errors. Knows nothing of
// Python, files, tokenizers, sampling, or which page belongs to whom: the caller's page table is believed once in
// range.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "serve/blocks.h"
#include "serve/kernels.h"
#include "serve/pack.h"

namespace highrise::serve {

// Turns of rotary embeddings: angle = position * inverse_frequencies[i], and cosine and sine times `magnitude`. Fewer
// frequencies than half a head leave the rest of it unturned.
struct Rotary {
  std::vector<double> inverse_frequencies;
  float magnitude = 1.0f;
};

// What may differ from layer to layer.
struct LayerKind {
  int64_t window = 0;  // tokens that a token sees, itself included; 0 is all of them
  int64_t rotary = 0;  // which of the shape's rotary tables
};

struct DecoderShape {
  int64_t hidden_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t intermediate_size = 0;
  int64_t vocab_size = 0;
  double rope_theta = 10000.0;
  double rms_norm_eps = 1e-6;
  bool attention_bias = false;
  bool tie_word_embeddings = false;
  bool layer_norm = false;      // norms take the mean away and have biases
  bool query_key_norm = false;  // RMSNorm of each head of queries and keys, before they are turned
  bool sandwich_norms = false;  // what attention and MLP give is normalised too before it is added
  bool output_bias = false;     // of o_proj
  bool mlp_bias = false;
  bool gated = true;  // down(act(gate) * up), else down(act(up))
  bool gelu = false;  // the tanh form; else SiLU
  double embedding_scale = 1.0;
  double attention_scale = 0.0;    // 0 is 1 / sqrt(head_dim)
  double attention_softcap = 0.0;  // scores become cap * tanh(score / cap); 0 leaves them
  double logit_softcap = 0.0;
  std::vector<Rotary> rotary;          // empty: one plain table from rope_theta
  std::vector<LayerKind> layer_kinds;  // empty, or one for each layer

  // What kernels that keep another engine's order of operations can run.
  bool is_plain() const {
    return rotary.empty() && layer_kinds.empty() && !layer_norm && !query_key_norm && !sandwich_norms && !output_bias &&
           !mlp_bias && gated && !gelu && embedding_scale == 1.0 && attention_scale == 0.0 &&
           attention_softcap == 0.0 && logit_softcap == 0.0;
  }
};

struct DecoderOptions {
  int64_t num_pages = 0;
  int64_t page_size = 16;  // a multiple of 16
  int threads = 1;
  const Kernels* kernels = nullptr;
  CacheType cache_type = CacheType::kHalf;
  bool interleaved_heads = false;  // as AttentionTask has it; matters to kernels that keep the order of another engine
};

enum class Status {
  kOk,
  kUnknownTensor,  // no such name in this shape
  kWrongShape,     // rows or cols differ from what the shape says
  kAlreadySet,     // a tensor is packed once
  kWrongType,      // a norm or bias that is not F32, F16 or BF16
  kNoMemory,
  kMissingTensor,  // a step was asked for before every tensor was there
  kTokenRange,     // a token id outside the vocabulary
  kPositionRange,  // a position that is negative or beyond the page table's row
  kSequenceRange,  // a row of the page table that does not exist
  kPageRange,      // a page id that does not exist, at a place that the step reads
  kPositionOrder,  // positions of one sequence must ascend within a step
  kLogitRowRange,  // a row to give logits for that is not in the batch
  kAdapterRange,   // an adapter that was not added, or was removed
};

// Where in the arguments a failed check stands.
struct Complaint {
  int64_t index = 0;
  int64_t value = 0;
  int64_t limit = 0;
};

struct Batch {
  const int32_t* tokens;
  const int32_t* positions;
  const int32_t* sequences;  // row of the page table of each token
  int64_t num_tokens;
  const int32_t* page_table;  // [num_sequences][max_pages]
  int64_t num_sequences, max_pages;
  const int32_t* adapters = nullptr;  // [num_sequences], -1 for none; nullptr when no sequence has one
};

// Tokens of one row of pages, to be copied to places of another. The two must share no page that is written.
struct TokenMove {
  const int32_t* from_row;
  int64_t from_pages, from_start;
  const int32_t* to_row;
  int64_t to_pages, to_start;
  int64_t count;
};

class Decoder {
 public:
  Decoder(const DecoderShape& shape, const DecoderOptions& options);
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  // False when the cache or the first buffers could not be had; nothing else may be called then.
  bool ready() const;
  const DecoderShape& shape() const;
  const DecoderOptions& options() const;
  // Bytes held for weights, cache and buffers.
  size_t memory_bytes() const;

  // What a name of this shape must look like; kUnknownTensor for another name.
  Status expected_shape(const char* name, int64_t* rows, int64_t* cols) const;
  // Repacks rows of GGUF blocks under their Hugging Face name; `source` is not kept.
  Status set_tensor(const char* name, const uint8_t* source, BlockType type, int64_t rows, int64_t cols,
                    WeightLimit limit);
  // The first tensor that is still missing, or nullptr.
  const char* missing_tensor() const;

  // Adapters, any number beside each other; each row of a step runs under the one of its sequence. A new one is empty.
  int32_t add_adapter();
  // Its part beside one linear layer: output += scale * B (A x), A [rank][in], B [out][rank], row-major. Kept at 8
  // bits, or as the floats given with `exact`. May be called while another thread steps.
  Status set_adapter(int32_t adapter, const char* name, const float* a, const float* b, int64_t rank, int64_t in,
                     int64_t out, float scale, bool exact);
  // Frees its memory; its number may be given to another one. No step may name it afterwards.
  Status remove_adapter(int32_t adapter);

  Status copy_pages(const int32_t* from, const int32_t* to, int64_t count, Complaint* complaint);

  // Copies keys and values of `count` tokens, keys turned on to their new positions (decoder_move.cpp).
  Status move_tokens(const TokenMove& move, Complaint* complaint);

  // Exactly one of `logits` ([num_logit_rows][vocab]) and `hidden` ([num_tokens][hidden], after the last norm) is
  // given.
  Status forward(const Batch& batch, const int32_t* logit_rows, int64_t num_logit_rows, float* logits, float* hidden,
                 Complaint* complaint);

  struct State;  // decoder_state.h

 private:
  std::unique_ptr<State> state_;
};

}  // namespace highrise::serve
