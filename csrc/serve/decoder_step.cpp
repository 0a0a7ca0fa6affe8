// The program of one step, as every member of the team runs it: phases separated by barriers, inside a phase tasks
// taken from a shared counter, so that a member whose core was taken away delays the others by one task and not by its
// share.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/half.h"
#include "serve/decoder_state.h"
#include "serve/quantised_cache.h"

namespace highrise::serve {
namespace {

constexpr int64_t kQueryRows = 64;  // query rows of one attention task
constexpr int64_t kPair = 2;        // tiles of gate and of up in one task: 32 rows, one group of the next input

// At most: with adapters everywhere a layer has 14 phases, with sandwich norms 4 more; embedding, states and logits
// have 4.
constexpr int64_t kPhasesOfLayer = 18, kPhasesAround = 4;

// Consecutive tokens of one sequence, few enough for one attention task.
struct Run {
  int64_t first, count;
};

// Consecutive tokens under one adapter.
struct Span {
  int64_t first, last;
  int32_t adapter;
};

class Step {  // shared by all members: only the tasks of a phase may write to it or through it
 public:
  Step(Decoder::State& state, const StepPiece& piece)
      : state_(state),
        shape_(state.shape),
        kernels_(*state.options.kernels),
        work_(state.workspace),
        batch_(piece.batch),
        piece_(piece),
        n_(piece.batch.num_tokens),
        residual_stride_(round_up_to(shape_.hidden_size, kTileRows)),
        qkv_stride_(state.query_cols() + 2 * state.key_value_cols()) {
    split_runs();
    split_spans();
  }

  void run(Member& member) {
    embed(member);
    for (int64_t i = 0; i < shape_.num_hidden_layers; ++i) {
      Layer& layer = state_.layers[static_cast<size_t>(i)];
      normalise(member, layer.input_norm, work_.normed);
      Linear* const projections[] = {&layer.q, &layer.k, &layer.v};
      reduce_ranks(projections, 3, work_.normed, member);
      project_qkv(layer, member);
      write_cache(layer, i, member);
      attend(i, member);
      quantise(member, work_.attended);
      Linear* const output[] = {&layer.o};
      reduce_ranks(output, 1, work_.attended, member);
      add_to_residual(layer.o, work_.attended, layer.attention_out_norm, member);
      normalise(member, layer.middle_norm, work_.normed);
      Linear* const gated[] = {&layer.gate, &layer.up};
      reduce_ranks(gated, 2, work_.normed, member);
      project_middle(layer, member);
      quantise(member, work_.middle);
      Linear* const down[] = {&layer.down};
      reduce_ranks(down, 1, work_.middle, member);
      add_to_residual(layer.down, work_.middle, layer.mlp_out_norm, member);
    }
    if (piece_.hidden) write_hidden(member);
    if (piece_.num_logit_rows > 0) project_logits(member);
  }

 private:
  void split_runs() {
    const int64_t group = shape_.num_attention_heads / shape_.num_key_value_heads;
    const int64_t most = std::max<int64_t>(1, kQueryRows / group);
    for (int64_t i = 0; i < n_; ++i) {
      if (!runs_.empty() && runs_.back().count < most && batch_.sequences[i] == batch_.sequences[i - 1]) {
        ++runs_.back().count;
      } else {
        runs_.push_back({i, 1});
      }
    }
  }

  void split_spans() {
    for (int64_t i = 0; batch_.adapters && i < n_; ++i) {
      const int32_t adapter = batch_.adapters[batch_.sequences[i]];
      if (adapter < 0) continue;
      if (!spans_.empty() && spans_.back().last == i && spans_.back().adapter == adapter) {
        ++spans_.back().last;
      } else {
        spans_.push_back({i, i + 1, adapter});
      }
    }
  }

  float* residual(int64_t token) { return work_.residual.data() + token * residual_stride_; }

  void embed(Member& member) {
    const int64_t stride = state_.rotary_stride, tables = static_cast<int64_t>(state_.rotary.size());
    member.share(n_, 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Embedding& embedding = state_.embedding;
        if (embedding.blocks) {
          const uint8_t* row = embedding.blocks + batch_.tokens[i] * row_bytes(embedding.type, shape_.hidden_size);
          read_row(embedding.type, row, shape_.hidden_size, residual(i));
        } else {
          read_packed_row(embedding.packed, batch_.tokens[i], residual(i));
        }
        if (shape_.embedding_scale != 1.0) {
          const auto scale = static_cast<float>(shape_.embedding_scale);
          for (int64_t d = 0; d < shape_.hidden_size; ++d) residual(i)[d] *= scale;
        }
        if (kernels_.angles) {
          kernels_.angles(batch_.positions[i], shape_.rope_theta, shape_.head_dim, work_.cosine.data() + i * stride,
                          work_.sine.data() + i * stride);
          continue;
        }
        for (int64_t table = 0; table < tables; ++table) {
          const Rotary& rotary = state_.rotary[static_cast<size_t>(table)];
          auto at = static_cast<size_t>(i * stride + table * (stride / tables));
          for (const double frequency : rotary.inverse_frequencies) {
            const double angle = batch_.positions[i] * frequency;
            work_.cosine[at] = static_cast<float>(std::cos(angle)) * rotary.magnitude;
            work_.sine[at++] = static_cast<float>(std::sin(angle)) * rotary.magnitude;
          }
        }
      }
    });
  }

  void normalise_row(const float* from, const Norm& norm, float* to) {
    const auto epsilon = static_cast<float>(shape_.rms_norm_eps);
    if (shape_.layer_norm) {
      kernels_.layer_norm(from, norm.weight.data(), norm.bias.data(), shape_.hidden_size, epsilon, to);
    } else {
      kernels_.rms_norm(from, norm.weight.data(), shape_.hidden_size, epsilon, to);
    }
  }

  void normalise(Member& member, const Norm& norm, ActivationBuffer& to) {
    member.share(n_, 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) normalise_row(residual(i), norm, to.view.values + i * to.view.stride);
      kernels_.quantise(to.view, begin, end);
    });
  }

  void quantise(Member& member, ActivationBuffer& buffer) {
    member.share(n_, 4, [&](int64_t begin, int64_t end) { kernels_.quantise(buffer.view, begin, end); });
  }

  void multiply(const MultiplyTask& task, Member& member) {
    if (kernels_.multiply_many && task.last - task.first >= kernels_.many_from) {
      kernels_.multiply_many(task, work_.members[static_cast<size_t>(member.index())].many_scratch.data());
    } else {
      kernels_.multiply(task);
    }
  }

  // The adapters' first halves: low_rank[i] = A x of linear i, quantised for the second half.
  void reduce_ranks(Linear* const* linears, int count, const ActivationBuffer& inputs, Member& member) {
    bool any = false;
    for (const Span& span : spans_) {
      for (int i = 0; i < count; ++i) any = any || linears[i]->low_rank(span.adapter);
    }
    if (!any) return;
    member.share(n_, 4, [&](int64_t begin, int64_t end) {
      for (const Span& span : spans_) {
        const int64_t from = std::max(begin, span.first), to = std::min(end, span.last);
        if (from >= to) continue;
        for (int i = 0; i < count; ++i) {
          const LowRank* own = linears[i]->low_rank(span.adapter);
          if (!own) continue;
          const Activations& low = work_.low_rank[i].view;
          kernels_.multiply({&own->a, 0, own->a.tiles, &inputs.view, from, to, low.values + from * low.stride,
                             low.stride, nullptr, Output::kStore});
          // What an adapter of higher rank left behind must not move the scales of this one's codes.
          for (int64_t row = from; row < to; ++row) {
            std::fill(low.values + row * low.stride + own->a.rows, low.values + (row + 1) * low.stride, 0.0f);
          }
          kernels_.quantise(low, from, to);
        }
      }
    });
  }

  // Tiles [begin, end) of one linear layer with the adapters beside it, for all tokens.
  void apply(const Linear& linear, int which, int64_t begin, int64_t end, const ActivationBuffer& inputs, float* out,
             int64_t out_stride, Output output, Member& member) {
    const float* bias = linear.bias.empty() ? nullptr : linear.bias.data();
    multiply({&linear.matrix, begin, end, &inputs.view, 0, n_, out, out_stride, bias, output}, member);
    for (const Span& span : spans_) {
      if (const LowRank* own = linear.low_rank(span.adapter)) {
        kernels_.multiply({&own->b, begin, end, &work_.low_rank[which].view, span.first, span.last,
                           out + span.first * out_stride, out_stride, nullptr, Output::kAdd});
      }
    }
  }

  void project_qkv(const Layer& layer, Member& member) {
    const Linear* linears[] = {&layer.q, &layer.k, &layer.v};
    const int64_t starts[] = {0, state_.query_cols(), state_.query_cols() + state_.key_value_cols()};
    const int64_t total = layer.q.matrix.tiles + layer.k.matrix.tiles + layer.v.matrix.tiles;
    member.share(total, pieces(), [&](int64_t begin, int64_t end) {
      int64_t before = 0;
      for (int i = 0; i < 3; ++i) {
        const int64_t tiles = linears[i]->matrix.tiles;
        const int64_t from = std::max(begin - before, int64_t{0}), to = std::min(end - before, tiles);
        if (from < to) {
          apply(*linears[i], i, from, to, work_.normed, work_.qkv.data() + starts[i] + from * kTileRows, qkv_stride_,
                Output::kStore, member);
        }
        before += tiles;
      }
    });
  }

  int64_t pieces() const { return 8; }

  uint8_t* cache_of(int64_t layer, int64_t page, int64_t head) {
    return state_.cache + layer * state_.layer_bytes + page * state_.page_bytes + head * state_.head_page_bytes;
  }

  int32_t page_of(int64_t token) const {
    const int64_t page = batch_.positions[token] / state_.options.page_size;
    return batch_.page_table[batch_.sequences[token] * batch_.max_pages + page];
  }

  void write_cache(const Layer& norms, int64_t layer, Member& member) {
    const int64_t head_dim = shape_.head_dim, stride = state_.rotary_stride;
    const int64_t turned = 2 * static_cast<int64_t>(state_.rotary_of(layer).inverse_frequencies.size());
    const int64_t table = stride / static_cast<int64_t>(state_.rotary.size()) * state_.kind_of(layer).rotary;
    member.share(n_, 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        float* row = work_.qkv.data() + i * qkv_stride_;
        const float* cosine = work_.cosine.data() + i * stride + table;
        const float* sine = work_.sine.data() + i * stride + table;
        for (int64_t head = 0; head < shape_.num_attention_heads + shape_.num_key_value_heads; ++head) {
          float* values = row + head * head_dim;
          if (shape_.query_key_norm) {
            const auto& norm = head < shape_.num_attention_heads ? norms.query_norm : norms.key_norm;
            kernels_.rms_norm(values, norm.data(), head_dim, static_cast<float>(shape_.rms_norm_eps), values);
          }
          kernels_.rotate(values, cosine, sine, turned);
        }
        const float* keys = row + state_.query_cols();
        const float* values = keys + state_.key_value_cols();
        const int64_t slot = batch_.positions[i] % state_.options.page_size;
        for (int64_t head = 0; head < shape_.num_key_value_heads; ++head) {
          uint8_t* page = cache_of(layer, page_of(i), head);
          const float *key = keys + head * head_dim, *value = values + head * head_dim;
          switch (state_.options.cache_type) {
            case CacheType::kFloat:
              store_token<float>(page, slot, key, value);
              break;
            case CacheType::kHalf:
              store_token<uint16_t>(page, slot, key, value);
              break;
            case CacheType::kInt8:
              store_codes(page, slot, key, value);
              break;
          }
        }
      }
    });
  }

  template <class Element>
  void store_token(uint8_t* page, int64_t slot, const float* key, const float* value) {
    const int64_t padded = state_.padded_head_dim, head_dim = shape_.head_dim;
    auto* keys = reinterpret_cast<Element*>(page) + slot / 16 * 16 * padded + slot % 16;
    auto* values = reinterpret_cast<Element*>(page) + (state_.options.page_size + slot) * padded;
    for (int64_t d = 0; d < head_dim; d += 16) {
      const int64_t count = std::min<int64_t>(16, head_dim - d);
      float padded_key[16] = {}, padded_value[16] = {};
      std::copy(key + d, key + d + count, padded_key);
      std::copy(value + d, value + d + count, padded_value);
      Element stored[16];
      convert(padded_key, stored);
      for (int64_t i = 0; i < count; ++i) keys[(d + i) * 16] = stored[i];
      convert(padded_value, values + d);
    }
  }

  void store_codes(uint8_t* page, int64_t slot, const float* key, const float* value) {
    const int64_t padded = state_.padded_head_dim, head_dim = shape_.head_dim;
    const QuantisedPage codes(page, state_.options.page_size, padded);
    if (padded == head_dim) {
      codes.put_key(slot, key);
      codes.put_value(slot, value);
      return;
    }
    std::vector<float> longer(static_cast<size_t>(padded), 0.0f);
    std::copy(key, key + head_dim, longer.begin());
    codes.put_key(slot, longer.data());
    std::copy(value, value + head_dim, longer.begin());
    codes.put_value(slot, longer.data());
  }

  void convert(const float* from, uint16_t* to) { kernels_.to_half(from, 16, to); }
  void convert(const float* from, float* to) { std::copy(from, from + 16, to); }

  void attend(int64_t layer, Member& member) {
    const int64_t heads = shape_.num_key_value_heads, group = shape_.num_attention_heads / heads;
    const int64_t head_dim = shape_.head_dim, padded = state_.padded_head_dim;
    const float whole = shape_.attention_scale > 0.0 ? static_cast<float>(shape_.attention_scale)
                                                     : 1.0f / std::sqrt(static_cast<float>(head_dim));
    const int64_t window = state_.kind_of(layer).window;
    const bool scores =
        kernels_.scales_scores && state_.options.cache_type == CacheType::kHalf && padded <= kMaxOrderedHead;
    const float scale = scores ? 1.0f : whole, score_scale = scores ? whole : 1.0f;
    MemberBuffer& own = work_.members[static_cast<size_t>(member.index())];
    const auto num_runs = static_cast<int64_t>(runs_.size());
    member.phase(num_runs * heads, [&](int64_t index) {
      const Run& run = runs_[static_cast<size_t>(num_runs - 1 - index / heads)];  // the longest contexts first
      const int64_t head = index % heads;
      float* query = own.queries.data();
      int32_t* visible = own.num_visible.data();
      int32_t* first_visible = own.first_visible.data();
      for (int64_t i = run.first; i < run.first + run.count; ++i) {
        for (int64_t g = 0; g < group; ++g, query += padded) {
          const float* from = work_.qkv.data() + i * qkv_stride_ + (head * group + g) * head_dim;
          for (int64_t d = 0; d < head_dim; ++d) query[d] = from[d] * scale;
          *visible++ = batch_.positions[i] + 1;
          *first_visible++ = static_cast<int32_t>(std::max<int64_t>(0, batch_.positions[i] + 1 - window));
        }
      }
      kernels_.attend({own.queries.data(), own.num_visible.data(), static_cast<int>(run.count * group),
                       static_cast<int>(padded), state_.options.cache_type, cache_of(layer, 0, head), state_.page_bytes,
                       batch_.page_table + batch_.sequences[run.first] * batch_.max_pages,
                       static_cast<int>(state_.options.page_size), own.attended.data(), own.scratch.data(), score_scale,
                       state_.options.interleaved_heads, window > 0 ? own.first_visible.data() : nullptr,
                       static_cast<float>(shape_.attention_softcap)});
      const float* result = own.attended.data();
      for (int64_t i = run.first; i < run.first + run.count; ++i) {
        for (int64_t g = 0; g < group; ++g, result += padded) {
          std::copy(result, result + head_dim,
                    work_.attended.view.values + i * work_.attended.view.stride + (head * group + g) * head_dim);
        }
      }
    });
  }

  void add_to_residual(const Linear& linear, const ActivationBuffer& inputs, const Norm& norm, Member& member) {
    float* out = shape_.sandwich_norms ? work_.branch.data() : work_.residual.data();
    const Output output = shape_.sandwich_norms ? Output::kStore : Output::kAdd;
    member.share(linear.matrix.tiles, pieces(), [&](int64_t begin, int64_t end) {
      if (begin < end) apply(linear, 0, begin, end, inputs, out + begin * kTileRows, residual_stride_, output, member);
    });
    if (!shape_.sandwich_norms) return;
    member.share(n_, 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        float* branch = out + i * residual_stride_;
        normalise_row(branch, norm, branch);
        for (int64_t d = 0; d < shape_.hidden_size; ++d) residual(i)[d] += branch[d];
      }
    });
  }

  void project_middle(const Layer& layer, Member& member) {
    const auto activate = shape_.gelu ? kernels_.geglu : kernels_.swiglu;
    MemberBuffer& own = work_.members[static_cast<size_t>(member.index())];
    const Activations& middle = work_.middle.view;
    const int64_t tiles = layer.up.matrix.tiles;
    member.share((tiles + kPair - 1) / kPair, pieces(), [&](int64_t first, int64_t last) {
      for (int64_t pair = first; pair < last; ++pair) {
        const int64_t begin = pair * kPair, end = std::min(begin + kPair, tiles);
        const int64_t row = begin * kTileRows;
        const int64_t count = (end - begin) * kTileRows, stride = kPair * kTileRows;
        if (shape_.gated)
          apply(layer.gate, 0, begin, end, work_.normed, own.gate.data(), stride, Output::kStore, member);
        apply(layer.up, 1, begin, end, work_.normed, own.up.data(), stride, Output::kStore, member);
        const int64_t valid = std::min(count, shape_.intermediate_size - row);
        for (int64_t i = 0; i < n_; ++i) {
          float* up = own.up.data() + i * stride;
          float* gate = shape_.gated ? own.gate.data() + i * stride : up;
          activate(gate, shape_.gated ? up : nullptr, count, gate);
          std::copy(gate, gate + valid, middle.values + i * middle.stride + row);
        }
      }
    });
  }

  void write_hidden(Member& member) {
    member.share(n_, 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        normalise_row(residual(i), state_.last_norm, piece_.hidden + i * shape_.hidden_size);
      }
    });
  }

  void project_logits(Member& member) {
    const Activations& head = work_.head.view;
    member.share(piece_.num_logit_rows, 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        normalise_row(residual(piece_.logit_tokens[i]), state_.last_norm, head.values + i * head.stride);
      }
      kernels_.quantise(head, begin, end);
    });
    const PackedMatrix& matrix = state_.head_matrix();
    MemberBuffer& own = work_.members[static_cast<size_t>(member.index())];
    // Rows go to places of the caller's choice, so some tiles at a time pass through the member's own buffer.
    const int64_t m = piece_.num_logit_rows;
    member.share((matrix.tiles + kHeadTiles - 1) / kHeadTiles, 16, [&](int64_t first, int64_t last) {
      for (int64_t block = first; block < last; ++block) {
        const int64_t begin = block * kHeadTiles, end = std::min(begin + kHeadTiles, matrix.tiles);
        const int64_t row = begin * kTileRows, stride = kHeadTiles * kTileRows;
        multiply({&matrix, begin, end, &head, 0, m, own.logits.data(), stride, nullptr, Output::kStore}, member);
        const int64_t valid = std::min((end - begin) * kTileRows, matrix.rows - row);
        for (int64_t i = 0; i < m; ++i) {
          const float* from = own.logits.data() + i * stride;
          float* to = piece_.logit_outputs[i] + row;
          std::copy(from, from + valid, to);
          if (shape_.logit_softcap > 0.0) {
            const auto cap = static_cast<float>(shape_.logit_softcap);
            for (int64_t r = 0; r < valid; ++r) to[r] = cap * std::tanh(to[r] / cap);
          }
        }
      }
    });
  }

  Decoder::State& state_;
  const DecoderShape& shape_;
  const Kernels& kernels_;
  Workspace& work_;
  const Batch& batch_;
  const StepPiece& piece_;
  const int64_t n_;
  const int64_t residual_stride_;
  const int64_t qkv_stride_;
  std::vector<Run> runs_;
  std::vector<Span> spans_;
};

}  // namespace

void run_step(Decoder::State& state, const StepPiece& piece) {
  Step step(state, piece);
  state.team.run([](void* context, Member& member) { static_cast<Step*>(context)->run(member); }, &step,
                 kPhasesAround + kPhasesOfLayer * state.shape.num_hidden_layers);
}

}  // namespace highrise::serve
