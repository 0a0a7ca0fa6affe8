#include "serve/decoder.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "serve/decoder_state.h"

namespace highrise::serve {
namespace {

constexpr int kLoadTiles = 4;  // tiles packed as one task

// Runs function(task) for tasks 0..count-1 on the whole team.
template <class Function>
void run_together(Team& team, int64_t count, Function function) {
  struct Context {
    int64_t count;
    Function& function;
  } context{count, function};
  team.run(
      [](void* given, Member& member) {
        auto& own = *static_cast<Context*>(given);
        member.phase(own.count, own.function);
      },
      &context, 1);
}

void pack_all(Decoder::State& state, BlockType type, const uint8_t* source, PackedMatrix& matrix) {
  run_together(state.team, (matrix.tiles + kLoadTiles - 1) / kLoadTiles, [&](int64_t task) {
    const int64_t begin = task * kLoadTiles;
    pack_tiles(*state.options.kernels, type, source, matrix, begin, std::min(begin + kLoadTiles, matrix.tiles));
  });
}

void add_slots(Decoder::State& state) {
  const DecoderShape& shape = state.shape;
  const int64_t hidden = shape.hidden_size, query = state.query_cols(), key_value = state.key_value_cols();
  auto matrix = [&](const std::string& name, Linear& linear, int64_t rows, int64_t cols) {
    Slot slot;
    slot.rows = rows;
    slot.cols = cols;
    slot.linear = &linear;
    state.slots[name + ".weight"] = slot;
  };
  auto vector = [&](const std::string& name, std::vector<float>& to, int64_t rows) {
    Slot slot;
    slot.rows = rows;
    slot.cols = 1;
    slot.vector = &to;
    state.slots[name] = slot;
  };
  auto norm = [&](const std::string& name, Norm& to) {
    vector(name + ".weight", to.weight, hidden);
    if (shape.layer_norm) vector(name + ".bias", to.bias, hidden);
  };
  Slot embedding;
  embedding.rows = shape.vocab_size;
  embedding.cols = hidden;
  embedding.embedding = true;
  state.slots["model.embed_tokens.weight"] = embedding;
  norm("model.norm", state.last_norm);
  if (!shape.tie_word_embeddings) matrix("lm_head", state.head, shape.vocab_size, hidden);
  for (size_t i = 0; i < state.layers.size(); ++i) {
    Layer& layer = state.layers[i];
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    norm(prefix + "input_layernorm", layer.input_norm);
    if (shape.sandwich_norms) {
      norm(prefix + "post_attention_layernorm", layer.attention_out_norm);
      norm(prefix + "pre_feedforward_layernorm", layer.middle_norm);
      norm(prefix + "post_feedforward_layernorm", layer.mlp_out_norm);
    } else {
      norm(prefix + "post_attention_layernorm", layer.middle_norm);
    }
    if (shape.query_key_norm) {
      vector(prefix + "self_attn.q_norm.weight", layer.query_norm, shape.head_dim);
      vector(prefix + "self_attn.k_norm.weight", layer.key_norm, shape.head_dim);
    }
    matrix(prefix + "self_attn.q_proj", layer.q, query, hidden);
    matrix(prefix + "self_attn.k_proj", layer.k, key_value, hidden);
    matrix(prefix + "self_attn.v_proj", layer.v, key_value, hidden);
    matrix(prefix + "self_attn.o_proj", layer.o, hidden, query);
    if (shape.gated) matrix(prefix + "mlp.gate_proj", layer.gate, shape.intermediate_size, hidden);
    matrix(prefix + "mlp.up_proj", layer.up, shape.intermediate_size, hidden);
    matrix(prefix + "mlp.down_proj", layer.down, hidden, shape.intermediate_size);
    if (shape.attention_bias) {
      vector(prefix + "self_attn.q_proj.bias", layer.q.bias, query);
      vector(prefix + "self_attn.k_proj.bias", layer.k.bias, key_value);
      vector(prefix + "self_attn.v_proj.bias", layer.v.bias, key_value);
    }
    if (shape.output_bias) vector(prefix + "self_attn.o_proj.bias", layer.o.bias, hidden);
    if (shape.mlp_bias) {
      if (shape.gated) vector(prefix + "mlp.gate_proj.bias", layer.gate.bias, shape.intermediate_size);
      vector(prefix + "mlp.up_proj.bias", layer.up.bias, shape.intermediate_size);
      vector(prefix + "mlp.down_proj.bias", layer.down.bias, hidden);
    }
  }
}

}  // namespace

void ActivationBuffer::resize(int64_t rows, int64_t cols, bool with_bfloats) {
  const int64_t stride = round_up_to(cols, kGroup), groups = stride / kGroup;
  const auto count = static_cast<size_t>(rows * stride), group_count = static_cast<size_t>(rows * groups);
  if (values.size() < count || view.stride != stride) {
    values.assign(count, 0.0f);
    codes.assign(count, 0);
    scales.assign(group_count, 0.0f);
    sums.assign(group_count, 0);
    part_sums.assign(2 * group_count, 0);
    scaled_sums.assign(group_count, 0.0f);
    scaled_part_sums.assign(2 * group_count, 0.0f);
    if (with_bfloats) bfloats.assign(count + static_cast<size_t>(32 * stride), 0);
  }
  view.stride = stride;
  view.groups = groups;
  view.values = values.data();
  view.codes = codes.data();
  view.scales = scales.data();
  view.sums = sums.data();
  view.part_sums = part_sums.data();
  view.scaled_sums = scaled_sums.data();
  view.scaled_part_sums = scaled_part_sums.data();
  view.bfloats = with_bfloats ? bfloats.data() : nullptr;
}

size_t ActivationBuffer::bytes() const {
  const size_t numbers =
      values.size() + scales.size() + sums.size() + part_sums.size() + scaled_sums.size() + scaled_part_sums.size();
  return numbers * 4 + codes.size() + bfloats.size() * 2;
}

Decoder::State::State(const DecoderShape& own_shape, const DecoderOptions& own_options)
    : shape(own_shape), options(own_options), team(own_options.threads) {
  layers.resize(static_cast<size_t>(shape.num_hidden_layers));
  rotary = shape.rotary;
  if (rotary.empty()) {
    rotary.emplace_back();
    for (int64_t i = 0; i < shape.head_dim / 2; ++i) {
      const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(shape.head_dim);
      rotary[0].inverse_frequencies.push_back(std::pow(shape.rope_theta, exponent));
    }
  }
  for (const Rotary& table : rotary) {
    rotary_stride = std::max(rotary_stride, static_cast<int64_t>(table.inverse_frequencies.size()));
  }
  rotary_stride *= static_cast<int64_t>(rotary.size());
  padded_head_dim = round_up_to(shape.head_dim, 16);
  head_page_bytes = serve::head_page_bytes(options.cache_type, options.page_size, padded_head_dim);
  page_bytes = head_page_bytes * shape.num_key_value_heads;
  layer_bytes = page_bytes * options.num_pages;
  cache_bytes = static_cast<size_t>(layer_bytes * shape.num_hidden_layers);
  // Untouched pages take no memory: the mapping is zero until written.
  void* mapped = mmap(nullptr, cache_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  cache = mapped == MAP_FAILED ? nullptr : static_cast<uint8_t*>(mapped);
  add_slots(*this);
}

Decoder::State::~State() {
  if (cache) munmap(cache, cache_bytes);
}

bool Decoder::State::prepare_workspace(int64_t num_tokens, int64_t num_head_rows) {
  Workspace& w = workspace;
  const bool bfloats = options.kernels->wants_bfloats;
  try {
    if (num_tokens > w.num_tokens) {
      const auto n = static_cast<size_t>(num_tokens);
      w.residual.resize(n * static_cast<size_t>(round_up_to(shape.hidden_size, kTileRows)));
      w.qkv.resize(n * static_cast<size_t>(query_cols() + 2 * key_value_cols()));
      if (shape.sandwich_norms) w.branch.resize(w.residual.size());
      w.cosine.resize(n * static_cast<size_t>(rotary_stride));
      w.sine.resize(n * static_cast<size_t>(rotary_stride));
      w.normed.resize(num_tokens, shape.hidden_size, bfloats);
      w.attended.resize(num_tokens, query_cols(), bfloats);
      w.middle.resize(num_tokens, shape.intermediate_size, bfloats);
      w.members.resize(static_cast<size_t>(team.size()));
      const int64_t group = shape.num_attention_heads / shape.num_key_value_heads;
      const int64_t rows = std::max<int64_t>(64, group) + 8;
      for (MemberBuffer& member : w.members) {
        member.queries.resize(static_cast<size_t>(rows * padded_head_dim));
        member.attended.resize(static_cast<size_t>(rows * padded_head_dim));
        member.scratch.resize(static_cast<size_t>(attention_scratch(rows)));
        member.num_visible.resize(static_cast<size_t>(rows));
        member.first_visible.resize(static_cast<size_t>(rows));
        member.gate.resize(n * 2 * kTileRows);
        member.up.resize(n * 2 * kTileRows);
        if (options.kernels->multiply_many) {
          const int64_t cols = std::max({shape.hidden_size, query_cols(), shape.intermediate_size});
          member.many_scratch.resize(
              static_cast<size_t>(options.kernels->many_scratch(round_up_to(cols, kGroup) / kGroup)));
        }
      }
      w.num_tokens = num_tokens;
    }
    w.head.resize(std::max<int64_t>(num_head_rows, 1), shape.hidden_size, bfloats);
    for (MemberBuffer& member : w.members) {
      const auto needed = static_cast<size_t>(num_head_rows * kHeadTiles * kTileRows);
      if (member.logits.size() < needed) member.logits.resize(needed);
    }
    if (max_rank > 0) {
      for (ActivationBuffer& buffer : w.low_rank) buffer.resize(w.num_tokens, max_rank, false);
    }
  } catch (const std::bad_alloc&) {
    return false;
  }
  return true;
}

Decoder::Decoder(const DecoderShape& shape, const DecoderOptions& options)
    : state_(std::make_unique<State>(shape, options)) {}

Decoder::~Decoder() = default;

bool Decoder::ready() const { return state_->cache != nullptr; }
const DecoderShape& Decoder::shape() const { return state_->shape; }
const DecoderOptions& Decoder::options() const { return state_->options; }

size_t Decoder::memory_bytes() const {
  const Workspace& w = state_->workspace;
  size_t buffers = (w.residual.size() + w.branch.size() + w.qkv.size() + w.cosine.size() + w.sine.size()) * 4;
  for (const ActivationBuffer* buffer : {&w.normed, &w.attended, &w.middle, &w.head}) buffers += buffer->bytes();
  for (const auto& adapter : state_->adapters) buffers += adapter ? adapter->used() : 0;
  return state_->arena.used() + state_->cache_bytes + buffers;
}

Status Decoder::expected_shape(const char* name, int64_t* rows, int64_t* cols) const {
  const auto found = state_->slots.find(name);
  if (found == state_->slots.end()) return Status::kUnknownTensor;
  *rows = found->second.rows;
  *cols = found->second.cols;
  return Status::kOk;
}

Status Decoder::set_tensor(const char* name, const uint8_t* source, BlockType type, int64_t rows, int64_t cols,
                           WeightLimit limit) {
  const std::lock_guard<std::mutex> lock(state_->busy);
  const auto found = state_->slots.find(name);
  if (found == state_->slots.end()) return Status::kUnknownTensor;
  Slot& slot = found->second;
  if (slot.rows != rows || slot.cols != cols) return Status::kWrongShape;
  if (slot.filled) return Status::kAlreadySet;
  if (slot.vector) {
    if (!is_float(type)) return Status::kWrongType;
    slot.vector->assign(static_cast<size_t>(round_up_to(rows, kTileRows)), 0.0f);
    read_row(type, source, rows, slot.vector->data());
    slot.filled = true;
    return Status::kOk;
  }
  if (slot.embedding && !state_->shape.tie_word_embeddings && (!is_float(type) || limit == WeightLimit::kStored)) {
    const auto bytes = static_cast<size_t>(rows * row_bytes(type, cols));
    uint8_t* blocks = state_->arena.allocate(bytes);
    if (!blocks) return Status::kNoMemory;
    std::memcpy(blocks, source, bytes);
    state_->embedding.type = type;
    state_->embedding.blocks = blocks;
    slot.filled = true;
    return Status::kOk;
  }
  const Kernels& kernels = *state_->options.kernels;
  PackedMatrix matrix = plan_packed(kernels, type, rows, cols, limit, state_->arena);
  if (!matrix) return Status::kNoMemory;
  pack_all(*state_, type, source, matrix);
  (slot.embedding ? state_->embedding.packed : slot.linear->matrix) = matrix;
  slot.filled = true;
  return Status::kOk;
}

const char* Decoder::missing_tensor() const {
  for (const auto& [name, slot] : state_->slots) {
    if (slot.required && !slot.filled) return name.c_str();
  }
  return nullptr;
}

int32_t Decoder::add_adapter() {
  const std::lock_guard<std::mutex> lock(state_->busy);
  auto& adapters = state_->adapters;
  const auto free = std::find(adapters.begin(), adapters.end(), nullptr);
  const auto place = free - adapters.begin();
  if (free == adapters.end()) adapters.emplace_back();
  adapters[static_cast<size_t>(place)] = std::make_unique<Arena>();
  return static_cast<int32_t>(place);
}

Status Decoder::set_adapter(int32_t adapter, const char* name, const float* a, const float* b, int64_t rank, int64_t in,
                            int64_t out, float scale, bool exact) {
  const std::lock_guard<std::mutex> lock(state_->busy);
  const auto index = static_cast<size_t>(adapter);
  if (adapter < 0 || index >= state_->adapters.size() || !state_->adapters[index]) return Status::kAdapterRange;
  const auto found = state_->slots.find(name);
  if (found == state_->slots.end() || !found->second.linear) return Status::kUnknownTensor;
  const Slot& slot = found->second;
  if (slot.linear == &state_->head) return Status::kUnknownTensor;
  if (slot.rows != out || slot.cols != in) return Status::kWrongShape;
  const Kernels& kernels = *state_->options.kernels;
  const WeightLimit limit = exact ? WeightLimit::kStored : WeightLimit::kInt8;
  Arena& arena = *state_->adapters[index];
  LowRank low;
  low.a = plan_packed(kernels, BlockType::F32, rank, in, limit, arena);
  low.b = plan_packed(kernels, BlockType::F32, out, rank, limit, arena);
  if (!low.a || !low.b) return Status::kNoMemory;
  std::vector<float> scaled(b, b + out * rank);
  for (float& value : scaled) value *= scale;
  pack_all(*state_, BlockType::F32, reinterpret_cast<const uint8_t*>(a), low.a);
  pack_all(*state_, BlockType::F32, reinterpret_cast<const uint8_t*>(scaled.data()), low.b);
  std::vector<LowRank>& low_ranks = slot.linear->low_ranks;
  if (low_ranks.size() <= index) low_ranks.resize(index + 1);
  low_ranks[index] = low;
  if (rank > state_->max_rank) {
    state_->max_rank = rank;
    for (ActivationBuffer& buffer : state_->workspace.low_rank) buffer = ActivationBuffer{};
  }
  return Status::kOk;
}

Status Decoder::remove_adapter(int32_t adapter) {
  const std::lock_guard<std::mutex> lock(state_->busy);
  const auto index = static_cast<size_t>(adapter);
  if (adapter < 0 || index >= state_->adapters.size() || !state_->adapters[index]) return Status::kAdapterRange;
  for (auto& [name, slot] : state_->slots) {
    if (slot.linear && slot.linear->low_ranks.size() > index) slot.linear->low_ranks[index] = LowRank{};
  }
  state_->adapters[index] = nullptr;
  return Status::kOk;
}

Status Decoder::copy_pages(const int32_t* from, const int32_t* to, int64_t count, Complaint* complaint) {
  const std::lock_guard<std::mutex> lock(state_->busy);
  for (int64_t i = 0; i < count; ++i) {
    for (const int32_t page : {from[i], to[i]}) {
      if (page < 0 || page >= state_->options.num_pages) {
        *complaint = {i, page, state_->options.num_pages};
        return Status::kPageRange;
      }
    }
  }
  for (int64_t layer = 0; layer < state_->shape.num_hidden_layers; ++layer) {
    uint8_t* base = state_->cache + layer * state_->layer_bytes;
    for (int64_t i = 0; i < count; ++i) {
      std::memmove(base + to[i] * state_->page_bytes, base + from[i] * state_->page_bytes,
                   static_cast<size_t>(state_->page_bytes));
    }
  }
  return Status::kOk;
}

namespace {

// Tokens that any layer looks back, itself included; 0 when some layer looks at all of them.
int64_t widest_window(const DecoderShape& shape) {
  int64_t widest = 0;
  for (const LayerKind& kind : shape.layer_kinds) {
    if (kind.window == 0) return 0;
    widest = std::max(widest, kind.window);
  }
  return widest;
}

Status check_batch(const Decoder::State& state, const Batch& batch, const int32_t* logit_rows, int64_t num_logit_rows,
                   Complaint* complaint) {
  const int64_t page_size = state.options.page_size;
  const int64_t window = widest_window(state.shape);
  std::vector<int32_t> last(static_cast<size_t>(batch.num_sequences), -1);
  std::vector<int32_t> first(static_cast<size_t>(batch.num_sequences), 0);
  for (int64_t i = 0; i < batch.num_tokens; ++i) {
    const int32_t token = batch.tokens[i], position = batch.positions[i], sequence = batch.sequences[i];
    if (token < 0 || token >= state.shape.vocab_size) {
      *complaint = {i, token, state.shape.vocab_size};
      return Status::kTokenRange;
    }
    if (sequence < 0 || sequence >= batch.num_sequences) {
      *complaint = {i, sequence, batch.num_sequences};
      return Status::kSequenceRange;
    }
    if (position < 0 || position >= batch.max_pages * page_size) {
      *complaint = {i, position, batch.max_pages * page_size};
      return Status::kPositionRange;
    }
    int32_t& before = last[static_cast<size_t>(sequence)];
    if (position <= before) {
      *complaint = {i, position, before};
      return Status::kPositionOrder;
    }
    if (before < 0) first[static_cast<size_t>(sequence)] = position;
    before = position;
  }
  for (int64_t sequence = 0; sequence < batch.num_sequences; ++sequence) {
    const int32_t position = last[static_cast<size_t>(sequence)];
    if (position < 0) continue;
    const int64_t visible = window > 0 ? std::max<int64_t>(first[static_cast<size_t>(sequence)] + 1 - window, 0) : 0;
    for (int64_t page = visible / kKeyChunk * kKeyChunk / page_size; page <= position / page_size; ++page) {
      const int32_t id = batch.page_table[sequence * batch.max_pages + page];
      if (id < 0 || id >= state.options.num_pages) {
        *complaint = {sequence * batch.max_pages + page, id, state.options.num_pages};
        return Status::kPageRange;
      }
    }
  }
  for (int64_t sequence = 0; batch.adapters && sequence < batch.num_sequences; ++sequence) {
    const int32_t adapter = batch.adapters[sequence];
    const auto count = static_cast<int32_t>(state.adapters.size());
    if (adapter < -1 || adapter >= count || (adapter >= 0 && !state.adapters[static_cast<size_t>(adapter)])) {
      *complaint = {sequence, adapter, count};
      return Status::kAdapterRange;
    }
  }
  for (int64_t i = 0; i < num_logit_rows; ++i) {
    if (logit_rows[i] < 0 || logit_rows[i] >= batch.num_tokens) {
      *complaint = {i, logit_rows[i], batch.num_tokens};
      return Status::kLogitRowRange;
    }
  }
  return Status::kOk;
}

}  // namespace

Status Decoder::forward(const Batch& batch, const int32_t* logit_rows, int64_t num_logit_rows, float* logits,
                        float* hidden, Complaint* complaint) {
  const std::lock_guard<std::mutex> lock(state_->busy);
  if (missing_tensor()) return Status::kMissingTensor;
  const Status status = check_batch(*state_, batch, logit_rows, num_logit_rows, complaint);
  if (status != Status::kOk) return status;
  std::vector<int64_t> logit_tokens;
  std::vector<float*> logit_outputs;
  for (int64_t first = 0; first < batch.num_tokens; first += kMaxStepTokens) {
    StepPiece piece;
    piece.batch = batch;
    piece.batch.tokens += first;
    piece.batch.positions += first;
    piece.batch.sequences += first;
    piece.batch.num_tokens = std::min(kMaxStepTokens, batch.num_tokens - first);
    logit_tokens.clear();
    logit_outputs.clear();
    for (int64_t i = 0; i < num_logit_rows; ++i) {
      const int64_t token = logit_rows[i] - first;
      if (token < 0 || token >= piece.batch.num_tokens) continue;
      logit_tokens.push_back(token);
      logit_outputs.push_back(logits + i * state_->shape.vocab_size);
    }
    piece.logit_tokens = logit_tokens.data();
    piece.logit_outputs = logit_outputs.data();
    piece.num_logit_rows = static_cast<int64_t>(logit_tokens.size());
    piece.hidden = hidden ? hidden + first * state_->shape.hidden_size : nullptr;
    if (!state_->prepare_workspace(piece.batch.num_tokens, piece.num_logit_rows)) return Status::kNoMemory;
    run_step(*state_, piece);
  }
  return Status::kOk;
}

}  // namespace highrise::serve
