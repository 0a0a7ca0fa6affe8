#include "serve/encoder.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "common/arena.h"
#include "common/half.h"
#include "common/team.h"
#include "serve/decoder_state.h"
#include "serve/pack.h"

namespace highrise::serve {
namespace {

constexpr int64_t kPieceTokens = 512;  // whole texts up to this many tokens pass through the layers together
constexpr int64_t kPiecesAMember = 8;  // tasks of a phase for each member: enough that a late one holds up little
constexpr int64_t kPair = 2;           // tiles in one task of the feed-forward layer: one group of the next input
constexpr int64_t kPhasesOfLayer = 9, kPhasesAround = 2;

struct NormWeights {
  std::vector<float> weight, bias;
};

struct EncoderLayer {
  Linear query, key, value, out, up, down;
  NormWeights out_norm, down_norm;
};

struct EncoderSlot {
  int64_t rows = 0, cols = 0;  // cols 1 for a vector
  PackedMatrix* matrix = nullptr;
  std::vector<float>* vector = nullptr;
  bool filled = false;
};

// Buffers of one member of the team: one head of one text in attention, some columns of the feed-forward layer.
struct HeadBuffer {
  std::vector<float> queries, attended, scratch, keys_values;
  std::vector<int32_t> num_visible;
  std::vector<uint8_t> many_scratch;
  std::vector<float> up;
};

}  // namespace

struct Encoder::State {
  State(const EncoderShape& own_shape, const EncoderOptions& own_options)
      : shape(own_shape), options(own_options), team(own_options.threads) {
    layers.resize(static_cast<size_t>(shape.num_hidden_layers));
    add_slots();
  }

  int64_t head_dim() const { return shape.hidden_size / shape.num_attention_heads; }
  int64_t padded_head_dim() const { return round_up_to(head_dim(), 16); }
  int64_t residual_stride() const { return round_up_to(shape.hidden_size, kTileRows); }

  void add_slots() {
    const int64_t hidden = shape.hidden_size, inner = shape.intermediate_size;
    auto add = [&](const std::string& name, int64_t rows, int64_t cols, PackedMatrix* matrix,
                   std::vector<float>* vector) {
      EncoderSlot slot;
      slot.rows = rows;
      slot.cols = cols;
      slot.matrix = matrix;
      slot.vector = vector;
      slots[name] = slot;
    };
    auto linear = [&](const std::string& name, Linear& to, int64_t rows, int64_t cols) {
      add(name + ".weight", rows, cols, &to.matrix, nullptr);
      add(name + ".bias", rows, 1, nullptr, &to.bias);
    };
    auto norm = [&](const std::string& name, NormWeights& to) {
      add(name + ".weight", hidden, 1, nullptr, &to.weight);
      add(name + ".bias", hidden, 1, nullptr, &to.bias);
    };
    norm("embeddings.LayerNorm", embedding_norm);
    for (size_t i = 0; i < layers.size(); ++i) {
      EncoderLayer& layer = layers[i];
      const std::string prefix = "encoder.layer." + std::to_string(i) + ".";
      linear(prefix + "attention.self.query", layer.query, hidden, hidden);
      linear(prefix + "attention.self.key", layer.key, hidden, hidden);
      linear(prefix + "attention.self.value", layer.value, hidden, hidden);
      linear(prefix + "attention.output.dense", layer.out, hidden, hidden);
      norm(prefix + "attention.output.LayerNorm", layer.out_norm);
      linear(prefix + "intermediate.dense", layer.up, inner, hidden);
      linear(prefix + "output.dense", layer.down, hidden, inner);
      norm(prefix + "output.LayerNorm", layer.down_norm);
    }
  }

  // Makes room for a piece of `num_tokens` tokens whose longest text has `longest`.
  void prepare(int64_t num_tokens, int64_t longest) {
    const bool bfloats = options.kernels->wants_bfloats;
    const auto n = static_cast<size_t>(num_tokens);
    if (n > tokens_held) {
      residual.assign(n * static_cast<size_t>(residual_stride()), 0.0f);
      qkv.assign(n * static_cast<size_t>(3 * shape.hidden_size), 0.0f);
      normed.resize(num_tokens, shape.hidden_size, bfloats);
      attended.resize(num_tokens, shape.hidden_size, bfloats);
      middle.resize(num_tokens, shape.intermediate_size, bfloats);
      for (ActivationBuffer* buffer : {&normed, &attended, &middle})
        buffer->view.codes = nullptr;  // no integer product
      tokens_held = n;
    }
    members.resize(static_cast<size_t>(team.size()));
    for (HeadBuffer& own : members) {
      const auto rows = static_cast<size_t>(round_up_to(longest, 16) + 8);
      const auto padded = static_cast<size_t>(padded_head_dim());
      if (own.num_visible.size() < rows) {
        own.num_visible.resize(rows);
        own.queries.assign(rows * padded, 0.0f);
        own.attended.assign(rows * padded, 0.0f);
        own.keys_values.assign(2 * rows * padded, 0.0f);
        own.scratch.resize(static_cast<size_t>(attention_scratch(static_cast<int64_t>(rows))));
      }
      if (own.up.size() < n * kPair * kTileRows) own.up.resize(n * kPair * kTileRows);
      if (options.kernels->multiply_many && own.many_scratch.empty()) {
        const int64_t cols = std::max(shape.hidden_size, shape.intermediate_size);
        own.many_scratch.resize(static_cast<size_t>(options.kernels->many_scratch(round_up_to(cols, kGroup) / kGroup)));
      }
    }
  }

  EncoderShape shape;
  EncoderOptions options;
  Team team;
  Arena arena;
  std::mutex busy;
  std::map<std::string, EncoderSlot> slots;
  NormWeights embedding_norm;
  std::vector<EncoderLayer> layers;
  size_t tokens_held = 0;
  std::vector<float> residual, qkv;
  ActivationBuffer normed, attended, middle;
  std::vector<HeadBuffer> members;
};

namespace {

// A few whole texts on their way through the layers.
class EncoderStep {
 public:
  EncoderStep(Encoder::State& state, const float* embedded, const int64_t* offsets, int64_t num_texts, float* out)
      : state_(state),
        kernels_(*state.options.kernels),
        embedded_(embedded),
        offsets_(offsets),
        num_texts_(num_texts),
        out_(out),
        n_(offsets[num_texts] - offsets[0]),
        hidden_(state.shape.hidden_size),
        stride_(state.residual_stride()) {}

  void run(Member& member) {
    member.share(n_, kPiecesAMember, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const float* from = embedded_ + (offsets_[0] + i) * hidden_;
        std::copy(from, from + hidden_, residual(i));
      }
      normalise(state_.embedding_norm, begin, end);
    });
    for (EncoderLayer& layer : state_.layers) {
      project_qkv(layer, member);
      attend(member);
      quantise(member, state_.attended);
      add_to_residual(layer.out, state_.attended, member);
      member.share(n_, kPiecesAMember, [&](int64_t begin, int64_t end) { normalise(layer.out_norm, begin, end); });
      widen(layer, member);
      quantise(member, state_.middle);
      add_to_residual(layer.down, state_.middle, member);
      member.share(n_, kPiecesAMember, [&](int64_t begin, int64_t end) { normalise(layer.down_norm, begin, end); });
    }
    member.share(num_texts_, kPiecesAMember, [&](int64_t begin, int64_t end) {
      for (int64_t text = begin; text < end; ++text) pool(text);
    });
  }

 private:
  float* residual(int64_t token) { return state_.residual.data() + token * stride_; }

  void quantise(Member& member, ActivationBuffer& buffer) {
    member.share(n_, kPiecesAMember, [&](int64_t begin, int64_t end) { kernels_.quantise(buffer.view, begin, end); });
  }

  // The residual stream itself is normalised; a copy of it becomes the next layer's input.
  void normalise(const NormWeights& norm, int64_t begin, int64_t end) {
    const Activations& to = state_.normed.view;
    for (int64_t i = begin; i < end; ++i) {
      kernels_.layer_norm(residual(i), norm.weight.data(), norm.bias.data(), hidden_,
                          static_cast<float>(state_.shape.layer_norm_eps), residual(i));
      std::copy(residual(i), residual(i) + hidden_, to.values + i * to.stride);
    }
    kernels_.quantise(to, begin, end);
  }

  void multiply(const Linear& linear, int64_t begin, int64_t end, const ActivationBuffer& inputs, float* out,
                int64_t out_stride, Output output, Member& member) {
    if (begin >= end) return;
    const MultiplyTask task{&linear.matrix,     begin, end, &inputs.view, 0, n_, out, out_stride,
                            linear.bias.data(), output};
    if (kernels_.multiply_many) {
      kernels_.multiply_many(task, state_.members[static_cast<size_t>(member.index())].many_scratch.data());
    } else {
      kernels_.multiply(task);
    }
  }

  void project_qkv(const EncoderLayer& layer, Member& member) {
    const Linear* linears[] = {&layer.query, &layer.key, &layer.value};
    const int64_t tiles = layer.query.matrix.tiles;
    member.share(3 * tiles, kPiecesAMember, [&](int64_t begin, int64_t end) {
      for (int64_t i = 0; i < 3; ++i) {
        const int64_t from = std::max(begin - i * tiles, int64_t{0}), to = std::min(end - i * tiles, tiles);
        multiply(*linears[i], from, to, state_.normed, state_.qkv.data() + i * hidden_ + from * kTileRows, 3 * hidden_,
                 Output::kStore, member);
      }
    });
  }

  // One task is one head of one text: its keys and values are laid out as one page of the paged cache.
  void attend(Member& member) {
    const int64_t heads = state_.shape.num_attention_heads, head_dim = state_.head_dim();
    const int64_t padded = state_.padded_head_dim();
    const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
    HeadBuffer& own = state_.members[static_cast<size_t>(member.index())];
    member.phase(num_texts_ * heads, [&](int64_t task) {
      const int64_t text = task / heads, head = task % heads;
      const int64_t first = offsets_[text] - offsets_[0], length = offsets_[text + 1] - offsets_[text];
      const int64_t page = round_up_to(length, 16);
      float* keys = own.keys_values.data();
      float* values = keys + page * padded;
      for (int64_t token = 0; token < length; ++token) {
        const float* row = state_.qkv.data() + (first + token) * 3 * hidden_ + head * head_dim;
        float* key = keys + token / 16 * 16 * padded + token % 16;
        for (int64_t d = 0; d < head_dim; ++d) {
          own.queries[static_cast<size_t>(token * padded + d)] = row[d] * scale;
          key[d * 16] = row[hidden_ + d];
          values[token * padded + d] = row[2 * hidden_ + d];
        }
        for (int64_t d = head_dim; d < padded; ++d) {
          own.queries[static_cast<size_t>(token * padded + d)] = 0.0f;
          key[d * 16] = 0.0f;
          values[token * padded + d] = 0.0f;
        }
        own.num_visible[static_cast<size_t>(token)] = static_cast<int32_t>(length);
      }
      for (int64_t token = length; token < page; ++token) {  // hidden from every query, but read
        for (int64_t d = 0; d < padded; ++d) keys[token / 16 * 16 * padded + d * 16 + token % 16] = 0.0f;
      }
      const int32_t only_page = 0;
      kernels_.attend({own.queries.data(), own.num_visible.data(), static_cast<int>(length), static_cast<int>(padded),
                       CacheType::kFloat, reinterpret_cast<const uint8_t*>(keys), 0, &only_page, static_cast<int>(page),
                       own.attended.data(), own.scratch.data()});
      const Activations& to = state_.attended.view;
      for (int64_t token = 0; token < length; ++token) {
        const float* from = own.attended.data() + token * padded;
        std::copy(from, from + head_dim, to.values + (first + token) * to.stride + head * head_dim);
      }
    });
  }

  void add_to_residual(const Linear& linear, const ActivationBuffer& inputs, Member& member) {
    member.share(linear.matrix.tiles, kPiecesAMember, [&](int64_t begin, int64_t end) {
      multiply(linear, begin, end, inputs, state_.residual.data() + begin * kTileRows, stride_, Output::kAdd, member);
    });
  }

  void widen(const EncoderLayer& layer, Member& member) {
    HeadBuffer& own = state_.members[static_cast<size_t>(member.index())];
    const Activations& middle = state_.middle.view;
    const int64_t tiles = layer.up.matrix.tiles, inner = state_.shape.intermediate_size;
    constexpr int64_t kWidth = kPair * kTileRows;
    member.share((tiles + kPair - 1) / kPair, kPiecesAMember, [&](int64_t first, int64_t last) {
      for (int64_t pair = first; pair < last; ++pair) {
        const int64_t begin = pair * kPair, end = std::min(begin + kPair, tiles), row = begin * kTileRows;
        multiply(layer.up, begin, end, state_.normed, own.up.data(), kWidth, Output::kStore, member);
        const int64_t valid = std::min((end - begin) * kTileRows, inner - row);
        for (int64_t i = 0; i < n_; ++i) {
          float* from = own.up.data() + i * kWidth;
          kernels_.gelu(from, (end - begin) * kTileRows, from);
          std::copy(from, from + valid, middle.values + i * middle.stride + row);
        }
      }
    });
  }

  void pool(int64_t text) {
    float* out = out_ + text * hidden_;
    std::fill(out, out + hidden_, 0.0f);
    for (int64_t i = offsets_[text] - offsets_[0]; i < offsets_[text + 1] - offsets_[0]; ++i) {
      const float* from = residual(i);
      for (int64_t d = 0; d < hidden_; ++d) out[d] += from[d];
    }
    double squares = 0.0;
    for (int64_t d = 0; d < hidden_; ++d) squares += static_cast<double>(out[d]) * static_cast<double>(out[d]);
    const auto scale = static_cast<float>(1.0 / std::max(std::sqrt(squares), 1e-30));
    for (int64_t d = 0; d < hidden_; ++d) out[d] *= scale;
  }

  Encoder::State& state_;
  const Kernels& kernels_;
  const float* embedded_;
  const int64_t* offsets_;
  const int64_t num_texts_;
  float* out_;
  const int64_t n_;
  const int64_t hidden_;
  const int64_t stride_;
};

}  // namespace

Encoder::Encoder(const EncoderShape& shape, const EncoderOptions& options)
    : state_(std::make_unique<State>(shape, options)) {}

Encoder::~Encoder() = default;

const EncoderShape& Encoder::shape() const { return state_->shape; }
const EncoderOptions& Encoder::options() const { return state_->options; }
size_t Encoder::memory_bytes() const { return state_->arena.used(); }

EncoderStatus Encoder::expected_shape(const char* name, int64_t* rows, int64_t* cols) const {
  const auto found = state_->slots.find(name);
  if (found == state_->slots.end()) return EncoderStatus::kUnknownTensor;
  *rows = found->second.rows;
  *cols = found->second.cols;
  return EncoderStatus::kOk;
}

EncoderStatus Encoder::set_tensor(const char* name, const float* source, int64_t rows, int64_t cols) {
  const std::lock_guard<std::mutex> lock(state_->busy);
  const auto found = state_->slots.find(name);
  if (found == state_->slots.end()) return EncoderStatus::kUnknownTensor;
  EncoderSlot& slot = found->second;
  if (slot.rows != rows || slot.cols != cols) return EncoderStatus::kWrongShape;
  if (slot.filled) return EncoderStatus::kAlreadySet;
  if (slot.vector) {
    slot.vector->assign(static_cast<size_t>(round_up_to(rows, kTileRows)), 0.0f);
    std::copy(source, source + rows, slot.vector->begin());
  } else {
    const Kernels& kernels = *state_->options.kernels;
    const BlockType type = kernels.wants_bfloats ? BlockType::BF16 : BlockType::F16;
    PackedMatrix matrix = plan_packed(kernels, type, rows, cols, WeightLimit::kStored, state_->arena);
    if (!matrix) return EncoderStatus::kNoMemory;
    matrix.rounds_inputs = type == BlockType::BF16;
    std::vector<uint16_t> narrow(static_cast<size_t>(rows * cols));
    std::transform(source, source + rows * cols, narrow.begin(),
                   type == BlockType::BF16 ? float_to_bfloat : float_to_half);
    pack_tiles(kernels, type, reinterpret_cast<const uint8_t*>(narrow.data()), matrix, 0, matrix.tiles);
    *slot.matrix = matrix;
  }
  slot.filled = true;
  return EncoderStatus::kOk;
}

const char* Encoder::missing_tensor() const {
  for (const auto& [name, slot] : state_->slots) {
    if (!slot.filled) return name.c_str();
  }
  return nullptr;
}

EncoderStatus Encoder::encode(const float* embedded, const int64_t* offsets, int64_t num_texts, float* out) {
  const std::lock_guard<std::mutex> lock(state_->busy);
  if (missing_tensor()) return EncoderStatus::kMissingTensor;
  for (int64_t first = 0; first < num_texts;) {
    int64_t last = first + 1, longest = offsets[last] - offsets[first];
    while (last < num_texts && offsets[last + 1] - offsets[first] <= kPieceTokens) {
      longest = std::max(longest, offsets[last + 1] - offsets[last]);
      ++last;
    }
    try {
      state_->prepare(offsets[last] - offsets[first], longest);
    } catch (const std::bad_alloc&) {
      return EncoderStatus::kNoMemory;
    }
    EncoderStep step(*state_, embedded, offsets + first, last - first, out + first * state_->shape.hidden_size);
    state_->team.run([](void* context, Member& member) { static_cast<EncoderStep*>(context)->run(member); }, &step,
                     kPhasesAround + kPhasesOfLayer * state_->shape.num_hidden_layers);
    first = last;
  }
  return EncoderStatus::kOk;
}

}  // namespace highrise::serve
