// Copies computed tokens of one sequence to other places of another: keys are turned on by the difference of positions
// (rotary embedding is additive in the position: Su et al. 2021, section 3.2), values stay as they are.
//
// What stands behind a text that grows is so kept without being computed again. It is exact in the position and not in
// the content: the states behind it still saw the text as it was. Knows nothing of who asks, or when that is good
// enough.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/half.h"
#include "serve/decoder_state.h"
#include "serve/quantised_cache.h"

namespace highrise::serve {
namespace {

float load(const uint16_t* from) { return half_to_float(*from); }
float load(const float* from) { return *from; }
void store(float value, uint16_t* to) { *to = float_to_half(value); }
void store(float value, float* to) { *to = value; }

// One head of one layer. Keys lie in blocks of 16 tokens, one row of 16 for each dimension; values follow token by
// token.
template <class Element>
void move_head(const Decoder::State& state, uint8_t* base, const TokenMove& move, const float* cosine,
               const float* sine, int64_t half) {
  const int64_t page_size = state.options.page_size, padded = state.padded_head_dim, head_dim = state.shape.head_dim;
  const bool turns = move.from_start != move.to_start;
  const auto page_at = [&](const int32_t* row, int64_t place) {
    return reinterpret_cast<Element*>(base + row[place / page_size] * state.page_bytes);
  };
  for (int64_t i = 0; i < move.count; ++i) {
    const int64_t from_slot = (move.from_start + i) % page_size, to_slot = (move.to_start + i) % page_size;
    const Element* from_page = page_at(move.from_row, move.from_start + i);
    Element* to_page = page_at(move.to_row, move.to_start + i);
    const Element* from = from_page + from_slot / 16 * 16 * padded + from_slot % 16;
    Element* to = to_page + to_slot / 16 * 16 * padded + to_slot % 16;
    for (int64_t d = turns ? 2 * half : 0; d < head_dim; ++d) to[d * 16] = from[d * 16];
    for (int64_t d = 0; turns && d < half; ++d) {
      const float first = load(from + d * 16), second = load(from + (d + half) * 16);
      store(first * cosine[d] - second * sine[d], to + d * 16);
      store(second * cosine[d] + first * sine[d], to + (d + half) * 16);
    }
    std::memcpy(to_page + (page_size + to_slot) * padded, from_page + (page_size + from_slot) * padded,
                static_cast<size_t>(padded) * sizeof(Element));
  }
}

// The same over codes: a key that is turned is rounded again, everything else is copied as it is.
void move_codes(const Decoder::State& state, uint8_t* base, const TokenMove& move, const float* cosine,
                const float* sine, int64_t half) {
  const int64_t page_size = state.options.page_size, padded = state.padded_head_dim;
  const auto page_at = [&](const int32_t* row, int64_t place) {
    return QuantisedPage(base + row[place / page_size] * state.page_bytes, page_size, padded);
  };
  std::vector<float> key(static_cast<size_t>(padded));
  for (int64_t i = 0; i < move.count; ++i) {
    const int64_t from_slot = (move.from_start + i) % page_size, to_slot = (move.to_start + i) % page_size;
    const QuantisedPage from = page_at(move.from_row, move.from_start + i);
    const QuantisedPage to = page_at(move.to_row, move.to_start + i);
    if (move.from_start == move.to_start) {
      for (int64_t d = 0; d < padded; ++d) to.key(to_slot)[d * 16] = from.key(from_slot)[d * 16];
      for (int64_t g = 0; g < from.groups(); ++g) to.key_scale(to_slot)[g * 16] = from.key_scale(from_slot)[g * 16];
    } else {
      from.get_key(from_slot, key.data());
      for (int64_t d = 0; d < half; ++d) {
        const float first = key[static_cast<size_t>(d)], second = key[static_cast<size_t>(d + half)];
        key[static_cast<size_t>(d)] = first * cosine[d] - second * sine[d];
        key[static_cast<size_t>(d + half)] = second * cosine[d] + first * sine[d];
      }
      to.put_key(to_slot, key.data());
    }
    std::copy_n(from.value(from_slot), padded, to.value(to_slot));
    for (int64_t g = 0; g < from.groups(); ++g) to.value_scale(to_slot)[g * 16] = from.value_scale(from_slot)[g * 16];
  }
}

Status check_row(const Decoder::State& state, const int32_t* row, int64_t row_pages, int64_t start, int64_t count,
                 Complaint* complaint) {
  const int64_t page_size = state.options.page_size;
  if (start < 0 || count < 0 || start + count > row_pages * page_size) {
    *complaint = {start, start + count, row_pages * page_size};
    return Status::kPositionRange;
  }
  if (count == 0) return Status::kOk;
  for (int64_t page = start / page_size; page <= (start + count - 1) / page_size; ++page) {
    if (row[page] < 0 || row[page] >= state.options.num_pages) {
      *complaint = {page, row[page], state.options.num_pages};
      return Status::kPageRange;
    }
  }
  return Status::kOk;
}

}  // namespace

Status Decoder::move_tokens(const TokenMove& move, Complaint* complaint) {
  const std::lock_guard<std::mutex> lock(state_->busy);
  State& state = *state_;
  Status status = check_row(state, move.from_row, move.from_pages, move.from_start, move.count, complaint);
  if (status == Status::kOk)
    status = check_row(state, move.to_row, move.to_pages, move.to_start, move.count, complaint);
  if (status != Status::kOk || move.count == 0) return status;
  const auto distance = static_cast<double>(move.to_start - move.from_start);
  const size_t tables = state.rotary.size();
  std::vector<std::vector<float>> cosine(tables), sine(tables);
  for (size_t table = 0; table < tables; ++table) {
    for (const double frequency : state.rotary[table].inverse_frequencies) {
      cosine[table].push_back(static_cast<float>(std::cos(distance * frequency)));
      sine[table].push_back(static_cast<float>(std::sin(distance * frequency)));
    }
  }
  const int64_t heads = state.shape.num_key_value_heads;
  struct Context {
    State& state;
    const TokenMove& move;
    const std::vector<std::vector<float>>&cosine, &sine;
    int64_t heads;
  } context{state, move, cosine, sine, heads};
  state.team.run(
      [](void* given, Member& member) {
        const auto& own = *static_cast<Context*>(given);
        member.phase(own.state.shape.num_hidden_layers * own.heads, [&](int64_t task) {
          State& state = own.state;
          uint8_t* base = state.cache + task / own.heads * state.layer_bytes + task % own.heads * state.head_page_bytes;
          const auto table = static_cast<size_t>(state.kind_of(task / own.heads).rotary);
          const std::vector<float>&cosine = own.cosine[table], &sine = own.sine[table];
          const auto half = static_cast<int64_t>(cosine.size());
          switch (state.options.cache_type) {
            case CacheType::kFloat:
              return move_head<float>(state, base, own.move, cosine.data(), sine.data(), half);
            case CacheType::kHalf:
              return move_head<uint16_t>(state, base, own.move, cosine.data(), sine.data(), half);
            case CacheType::kInt8:
              return move_codes(state, base, own.move, cosine.data(), sine.data(), half);
          }
        });
      },
      &context, 1);
  return Status::kOk;
}

}  // namespace highrise::serve
