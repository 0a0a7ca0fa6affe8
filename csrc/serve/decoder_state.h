// What a decoder holds between steps: packed weights, the paged cache, buffers, the team. Shared by decoder.cpp (which
// fills it) and decoder_step.cpp (which runs over it); nobody else includes this.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/arena.h"
#include "common/team.h"
#include "serve/decoder.h"

namespace highrise::serve {

constexpr int64_t kHeadTiles = 8;        // tiles of the output head in one task
constexpr int64_t kMaxStepTokens = 512;  // a longer batch is run in pieces, so that buffers stay small

inline int64_t round_up_to(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

// A low-rank addition to a linear layer; the scale is folded into `b`.
struct LowRank {
  PackedMatrix a, b;
};

struct Linear {
  PackedMatrix matrix;
  std::vector<float> bias;         // empty, or one for each row, zero-padded to whole tiles
  std::vector<LowRank> low_ranks;  // by adapter; may be shorter than their number

  // What the adapter adds here, or nullptr.
  const LowRank* low_rank(int32_t adapter) const {
    if (adapter < 0 || static_cast<size_t>(adapter) >= low_ranks.size()) return nullptr;
    const LowRank& found = low_ranks[static_cast<size_t>(adapter)];
    return found.a ? &found : nullptr;
  }
};

struct Norm {
  std::vector<float> weight, bias;  // bias of LayerNorm only
};

struct Layer {
  Norm input_norm, middle_norm;           // before attention, before the MLP
  Norm attention_out_norm, mlp_out_norm;  // of sandwich norms
  std::vector<float> query_norm, key_norm;
  Linear q, k, v, o, gate, up, down;
};

// Rows of the embedding: the file's own blocks, or the packed matrix that the head uses too.
struct Embedding {
  BlockType type = BlockType::F32;
  const uint8_t* blocks = nullptr;
  PackedMatrix packed;
};

// Storage behind one Activations structure.
struct ActivationBuffer {
  Activations view;
  std::vector<float> values, scales;
  std::vector<int8_t> codes;
  std::vector<int32_t> sums, part_sums;
  std::vector<float> scaled_sums, scaled_part_sums;
  std::vector<uint16_t> bfloats;

  void resize(int64_t rows, int64_t cols, bool with_bfloats);
  size_t bytes() const;
};

// Buffers of one member of the team.
struct MemberBuffer {
  std::vector<float> queries, attended, scratch, gate, up, logits;
  std::vector<int32_t> num_visible, first_visible;
  std::vector<uint8_t> many_scratch;
};

struct Workspace {
  int64_t num_tokens = 0;
  std::vector<float> residual, branch, qkv, cosine, sine;  // branch: what sandwich norms are to normalise
  ActivationBuffer normed, attended, middle, head, low_rank[3];
  std::vector<MemberBuffer> members;
};

// Where set_tensor puts what it is given.
struct Slot {
  int64_t rows = 0, cols = 0;  // cols 1 for a vector
  Linear* linear = nullptr;
  std::vector<float>* vector = nullptr;
  bool embedding = false;
  bool required = true;
  bool filled = false;
};

struct Decoder::State {
  State(const DecoderShape& shape, const DecoderOptions& options);
  ~State();

  DecoderShape shape;
  DecoderOptions options;
  Team team;
  Arena arena;
  std::vector<std::unique_ptr<Arena>> adapters;  // what each holds; nullptr where one was removed
  std::mutex busy;
  std::map<std::string, Slot> slots;
  std::vector<Layer> layers;
  Norm last_norm;
  Embedding embedding;
  Linear head;
  std::vector<Rotary> rotary;
  int64_t rotary_stride = 0;  // cosines of all tables of one token
  uint8_t* cache = nullptr;
  size_t cache_bytes = 0;
  int64_t padded_head_dim = 0;
  int64_t head_page_bytes = 0;  // one head of one page: keys, then values
  int64_t page_bytes = 0;       // all heads of one page in one layer
  int64_t layer_bytes = 0;
  Workspace workspace;
  int64_t max_rank = 0;  // of all adapters so far

  const Rotary& rotary_of(int64_t layer) const { return rotary[static_cast<size_t>(kind_of(layer).rotary)]; }
  LayerKind kind_of(int64_t layer) const {
    return shape.layer_kinds.empty() ? LayerKind{} : shape.layer_kinds[static_cast<size_t>(layer)];
  }
  int64_t query_cols() const { return shape.num_attention_heads * shape.head_dim; }
  int64_t key_value_cols() const { return shape.num_key_value_heads * shape.head_dim; }
  bool prepare_workspace(int64_t num_tokens, int64_t num_head_rows);
  const PackedMatrix& head_matrix() const { return shape.tie_word_embeddings ? embedding.packed : head.matrix; }
};

// A piece of a batch, small enough for the workspace, with what the step needs to know beside it.
struct StepPiece {
  Batch batch;
  const int64_t* logit_tokens = nullptr;  // token of the piece behind each row of logits
  float* const* logit_outputs = nullptr;  // where each row goes
  int64_t num_logit_rows = 0;
  float* hidden = nullptr;  // [num_tokens][hidden], or nullptr
};

void run_step(Decoder::State& state, const StepPiece& piece);

}  // namespace highrise::serve
