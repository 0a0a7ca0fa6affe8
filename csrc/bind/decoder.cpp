// The class `Decoder` of `_csrc`: arrays and words around serve/decoder.h.
#include "serve/decoder.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bind/arrays.h"
#include "bind/module.h"

namespace py = pybind11;

namespace highrise::bind {
namespace {

using serve::Batch;
using serve::BlockType;
using serve::Complaint;
using serve::Decoder;
using serve::DecoderOptions;
using serve::DecoderShape;
using serve::Status;
using serve::TokenMove;
using serve::WeightLimit;

std::string text(int64_t value) { return std::to_string(value); }

void at_least(const char* name, int64_t value, int64_t least) {
  if (value < least)
    throw py::value_error(std::string(name) + " is " + text(value) + "; it must be at least " + text(least));
}

DecoderShape checked_shape(const DecoderShape& shape) {
  constexpr int64_t kMost = int64_t{1} << 24;
  const std::pair<const char*, int64_t> sizes[] = {
      {"hidden_size", shape.hidden_size},
      {"num_hidden_layers", shape.num_hidden_layers},
      {"num_attention_heads", shape.num_attention_heads},
      {"num_key_value_heads", shape.num_key_value_heads},
      {"head_dim", shape.head_dim},
      {"intermediate_size", shape.intermediate_size},
      {"vocab_size", shape.vocab_size},
  };
  for (const auto& [name, value] : sizes) {
    at_least(name, value, 1);
    if (value > kMost)
      throw py::value_error(std::string(name) + " is " + text(value) + "; it may be at most " + text(kMost));
  }
  if (shape.num_attention_heads % shape.num_key_value_heads != 0) {
    throw py::value_error("num_attention_heads " + text(shape.num_attention_heads) +
                          " is not a multiple of num_key_value_heads " + text(shape.num_key_value_heads));
  }
  if (shape.head_dim % 2 != 0) throw py::value_error("head_dim is " + text(shape.head_dim) + "; it must be even");
  if (!(shape.rope_theta > 0.0))
    throw py::value_error("rope_theta is " + std::to_string(shape.rope_theta) + "; it must be above 0");
  if (!(shape.rms_norm_eps >= 0.0))
    throw py::value_error("rms_norm_eps is " + std::to_string(shape.rms_norm_eps) + "; it must not be negative");
  for (const serve::Rotary& table : shape.rotary) {
    const auto turned = 2 * static_cast<int64_t>(table.inverse_frequencies.size());
    if (turned < 2 || turned > shape.head_dim)
      throw py::value_error("a rotary table turns " + text(turned) + " dimensions of heads of " + text(shape.head_dim));
  }
  const auto num_kinds = static_cast<int64_t>(shape.layer_kinds.size());
  if (num_kinds != 0 && num_kinds != shape.num_hidden_layers)
    throw py::value_error(text(num_kinds) + " layer kinds for " + text(shape.num_hidden_layers) + " layers");
  const auto num_tables = std::max<int64_t>(1, static_cast<int64_t>(shape.rotary.size()));
  for (const serve::LayerKind& kind : shape.layer_kinds) {
    at_least("a sliding window", kind.window, 0);
    if (kind.rotary < 0 || kind.rotary >= num_tables)
      throw py::value_error("rotary table " + text(kind.rotary) + " does not exist; there are " + text(num_tables));
  }
  return shape;
}

std::unique_ptr<Decoder> make_decoder(const DecoderShape& shape, int64_t num_pages, int64_t page_size, int threads,
                                      const std::string& isa, const std::string& kv, bool interleaved) {
  DecoderOptions options;
  at_least("num_pages", num_pages, 1);
  at_least("threads", threads, 1);
  if (threads > 1024) throw py::value_error("threads is " + text(threads) + "; it may be at most 1024");
  if (num_pages > INT32_MAX)
    throw py::value_error("num_pages is " + text(num_pages) + "; it may be at most " + text(INT32_MAX));
  if (page_size < 16 || page_size % 16 != 0 || page_size > 65536) {
    throw py::value_error("page_size is " + text(page_size) + "; it must be a multiple of 16 of at most 65536");
  }
  const double bytes = 2.0 * static_cast<double>(num_pages) * static_cast<double>(page_size) *
                       static_cast<double>(shape.head_dim + 15) * static_cast<double>(shape.num_key_value_heads) *
                       static_cast<double>(shape.num_hidden_layers) * 4.0;
  if (bytes > 1e15)
    throw py::value_error("num_pages " + text(num_pages) + " makes a cache of " + std::to_string(bytes / 1e12) + " TB");
  options.num_pages = num_pages;
  options.page_size = page_size;
  options.threads = threads;
  options.kernels = &kernels_of(isa);
  options.cache_type = cache_type_of(kv);
  options.interleaved_heads = interleaved;
  if (options.kernels->keeps_blocks && !shape.is_plain()) {
    throw py::value_error("kernels " + isa + " keep the order of another engine for plain Llama and Qwen2 shapes only");
  }
  auto decoder = std::make_unique<Decoder>(checked_shape(shape), options);
  if (!decoder->ready()) {
    PyErr_SetString(PyExc_MemoryError, ("no memory for a cache of " + text(num_pages) + " pages").c_str());
    throw py::error_already_set();
  }
  return decoder;
}

[[noreturn]] void no_memory(const std::string& what) {
  PyErr_SetString(PyExc_MemoryError, ("no memory for " + what).c_str());
  throw py::error_already_set();
}

void set_tensor(Decoder& decoder, const std::string& name, const py::array& raw, const std::string& type_name,
                int64_t rows, int64_t cols, const std::string& weights) {
  BlockType type;
  WeightLimit limit;
  if (!serve::block_type_of(type_name.c_str(), &type)) {
    throw py::value_error(name + " is of type \"" + type_name + "\"; known are " + serve::block_type_names());
  }
  if (!serve::weight_limit_of(weights.c_str(), &limit)) {
    throw py::value_error("weights is \"" + weights + "\"; it must be stored, int8, int6, int5 or int4");
  }
  int64_t expected_rows = 0, expected_cols = 0;
  if (decoder.expected_shape(name.c_str(), &expected_rows, &expected_cols) != Status::kOk) {
    throw py::key_error("a decoder of this shape has no tensor \"" + name + "\"");
  }
  if (rows != expected_rows || cols != expected_cols) {
    throw py::value_error(name + " is " + text(rows) + " x " + text(cols) + "; this shape wants " +
                          text(expected_rows) + " x " + text(expected_cols));
  }
  if (cols % serve::block_weights(type) != 0) {
    throw py::value_error(name + " has " + text(cols) + " columns, which blocks of " +
                          text(serve::block_weights(type)) + " (" + type_name + ") do not divide");
  }
  const uint8_t* source = checked<uint8_t>(raw, name.c_str(), raw.ndim() == 2 ? 2 : 1);
  const int64_t bytes = rows * serve::row_bytes(type, cols);
  if (raw.size() != bytes) {
    throw py::value_error(name + " holds " + text(raw.size()) + " bytes; " + text(rows) + " x " + text(cols) + " of " +
                          type_name + " are " + text(bytes));
  }
  Status status;
  {
    const py::gil_scoped_release release;
    status = decoder.set_tensor(name.c_str(), source, type, rows, cols, limit);
  }
  if (status == Status::kAlreadySet) throw py::value_error(name + " was set before; a decoder takes each tensor once");
  if (status == Status::kWrongType)
    throw py::value_error(name + " is " + type_name + "; a norm or bias must be F32, F16 or BF16");
  if (status == Status::kNoMemory) no_memory(name);
  if (status != Status::kOk) throw py::value_error(name + " was refused with status " + text(static_cast<int>(status)));
}

[[noreturn]] void unknown_adapter(int64_t adapter) {
  throw py::value_error("adapter " + text(adapter) + " was not added, or was removed");
}

void set_adapter(Decoder& decoder, int32_t adapter, const std::string& name, const py::array& a, const py::array& b,
                 float scale, bool exact) {
  const float* a_values = checked<float>(a, "A", 2);
  const float* b_values = checked<float>(b, "B", 2);
  const int64_t rank = a.shape(0), in = a.shape(1), out = b.shape(0);
  int64_t rows = 0, cols = 0;
  if (decoder.expected_shape(name.c_str(), &rows, &cols) != Status::kOk) {
    throw py::key_error("a decoder of this shape has no tensor \"" + name + "\"");
  }
  if (rank < 1 || b.shape(1) != rank || in != cols || out != rows) {
    throw py::value_error("an adapter with A " + shape_of(a) + " and B " + shape_of(b) + " does not fit " + name +
                          " of " + text(rows) + " x " + text(cols) + ": A must be (rank, " + text(cols) + ") and B (" +
                          text(rows) + ", rank)");
  }
  Status status;
  {
    const py::gil_scoped_release release;
    status = decoder.set_adapter(adapter, name.c_str(), a_values, b_values, rank, in, out, scale, exact);
  }
  if (status == Status::kAdapterRange) unknown_adapter(adapter);
  if (status == Status::kUnknownTensor)
    throw py::key_error(name + " takes no adapter; the projections of attention and MLP do");
  if (status == Status::kNoMemory) no_memory("the adapter of " + name);
}

int32_t add_adapter(Decoder& decoder) {
  const py::gil_scoped_release release;
  return decoder.add_adapter();
}

void remove_adapter(Decoder& decoder, int32_t adapter) {
  Status status;
  {
    const py::gil_scoped_release release;
    status = decoder.remove_adapter(adapter);
  }
  if (status != Status::kOk) unknown_adapter(adapter);
}

void copy_pages(Decoder& decoder, const py::array& from, const py::array& to) {
  const int32_t* from_ids = checked<int32_t>(from, "src", 1);
  const int32_t* to_ids = checked<int32_t>(to, "dst", 1);
  if (from.size() != to.size()) {
    throw py::value_error("src has " + text(from.size()) + " pages and dst " + text(to.size()));
  }
  Complaint complaint;
  Status status;
  {
    const py::gil_scoped_release release;
    status = decoder.copy_pages(from_ids, to_ids, from.size(), &complaint);
  }
  if (status == Status::kPageRange) {
    throw py::value_error("page " + text(complaint.value) + " at index " + text(complaint.index) +
                          " does not exist; there are " + text(complaint.limit));
  }
}

void move_tokens(Decoder& decoder, const py::array& from, const py::array& to, int64_t from_start, int64_t to_start,
                 int64_t count) {
  const TokenMove move{checked<int32_t>(from, "src", 1),
                       from.size(),
                       from_start,
                       checked<int32_t>(to, "dst", 1),
                       to.size(),
                       to_start,
                       count};
  Complaint complaint;
  Status status;
  {
    const py::gil_scoped_release release;
    status = decoder.move_tokens(move, &complaint);
  }
  if (status == Status::kPositionRange) {
    throw py::value_error("tokens " + text(complaint.index) + " to " + text(complaint.value) +
                          " are outside a row of pages for " + text(complaint.limit) + " tokens");
  }
  if (status == Status::kPageRange) {
    throw py::value_error("page " + text(complaint.value) + " at index " + text(complaint.index) +
                          " does not exist; there are " + text(complaint.limit));
  }
}

struct CheckedBatch {
  Batch batch;
  CheckedBatch(const py::array& tokens, const py::array& positions, const py::array& sequences,
               const py::array& page_table, const std::optional<py::array>& adapters) {
    batch.tokens = checked<int32_t>(tokens, "tokens", 1);
    batch.positions = checked<int32_t>(positions, "positions", 1);
    batch.sequences = checked<int32_t>(sequences, "sequence", 1);
    batch.page_table = checked<int32_t>(page_table, "page_table", 2);
    batch.num_tokens = tokens.size();
    batch.num_sequences = page_table.shape(0);
    batch.max_pages = page_table.shape(1);
    if (adapters) {
      batch.adapters = checked<int32_t>(*adapters, "adapters", 1);
      if (adapters->size() != batch.num_sequences) {
        throw py::value_error("adapters has " + text(adapters->size()) + " entries; the page table has " +
                              text(batch.num_sequences) + " rows");
      }
    }
    if (positions.size() != tokens.size() || sequences.size() != tokens.size()) {
      throw py::value_error("tokens, positions and sequence have " + text(tokens.size()) + ", " +
                            text(positions.size()) + " and " + text(sequences.size()) +
                            " entries; they must have the same number");
    }
  }
};

[[noreturn]] void complain(const Decoder& decoder, Status status, const Complaint& at) {
  const std::string index = text(at.index), value = text(at.value), limit = text(at.limit);
  switch (status) {
    case Status::kMissingTensor:
      throw py::value_error(std::string("the tensor ") + decoder.missing_tensor() + " was not set");
    case Status::kTokenRange:
      throw py::value_error("token " + value + " at index " + index + " is outside the vocabulary of " + limit);
    case Status::kPositionRange:
      throw py::value_error("position " + value + " at index " + index + " is outside 0.." + text(at.limit - 1) +
                            ", what a row of the page table covers");
    case Status::kSequenceRange:
      throw py::value_error("sequence " + value + " at index " + index + " is no row of a page table with " + limit +
                            " rows");
    case Status::kPageRange:
      throw py::value_error("page " + value + " in the page table does not exist; there are " + limit +
                            " pages, and the step reads this place");
    case Status::kPositionOrder:
      throw py::value_error("position " + value + " at index " + index + " does not come after position " + limit +
                            " of the same sequence");
    case Status::kLogitRowRange:
      throw py::value_error("logit row " + value + " at index " + index + " is outside the " + limit +
                            " tokens of the batch");
    case Status::kAdapterRange:
      throw py::value_error("adapter " + value + " of sequence " + index + " was not added, or was removed");
    default:
      no_memory("the buffers of a step");
  }
}

py::array_t<float> forward(Decoder& decoder, const py::array& tokens, const py::array& positions,
                           const py::array& sequences, const py::array& page_table, const py::array& logit_rows,
                           const std::optional<py::array>& adapters) {
  const CheckedBatch checked_batch(tokens, positions, sequences, page_table, adapters);
  const int32_t* rows = checked<int32_t>(logit_rows, "logit_rows", 1);
  const int64_t num_rows = logit_rows.size();
  py::array_t<float> logits({static_cast<py::ssize_t>(num_rows), static_cast<py::ssize_t>(decoder.shape().vocab_size)});
  float* out = logits.mutable_data();
  Complaint complaint;
  Status status;
  {
    const py::gil_scoped_release release;
    status = decoder.forward(checked_batch.batch, rows, num_rows, out, nullptr, &complaint);
  }
  if (status != Status::kOk) complain(decoder, status, complaint);
  return logits;
}

py::array_t<float> hidden(Decoder& decoder, const py::array& tokens, const py::array& positions,
                          const py::array& sequences, const py::array& page_table,
                          const std::optional<py::array>& adapters) {
  const CheckedBatch checked_batch(tokens, positions, sequences, page_table, adapters);
  py::array_t<float> states(
      {static_cast<py::ssize_t>(tokens.size()), static_cast<py::ssize_t>(decoder.shape().hidden_size)});
  float* out = states.mutable_data();
  Complaint complaint;
  Status status;
  {
    const py::gil_scoped_release release;
    status = decoder.forward(checked_batch.batch, nullptr, 0, nullptr, out, &complaint);
  }
  if (status != Status::kOk) complain(decoder, status, complaint);
  return states;
}

std::vector<std::string> names_of(const char* const* list) {
  std::vector<std::string> names;
  for (; *list; ++list) names.emplace_back(*list);
  return names;
}

}  // namespace

void register_decoder(py::module_& module) {
  module.def(
      "available_isas", [] { return names_of(serve::available_kernels()); },
      "Instruction sets this CPU has kernels for, best first.");
  module.def(
      "available_orders", [] { return names_of(serve::available_orders()); },
      "Kernels that keep another engine's order of operations, to give the same bits; named like instruction sets.");
  py::class_<Decoder>(module, "Decoder", "One step of a decoder over a paged cache; see csrc/serve/decoder.h.")
      .def(py::init([](int64_t hidden_size, int64_t num_hidden_layers, int64_t num_attention_heads,
                       int64_t num_key_value_heads, int64_t head_dim, int64_t intermediate_size, int64_t vocab_size,
                       double rope_theta, double rms_norm_eps, bool attention_bias, bool tie_word_embeddings,
                       int64_t num_pages, int threads, int64_t page_size, const std::string& isa, const std::string& kv,
                       bool interleaved, bool layer_norm, bool query_key_norm, bool sandwich_norms, bool output_bias,
                       bool mlp_bias, bool gated, const std::string& activation, double embedding_scale,
                       double attention_scale, double attention_softcap, double logit_softcap,
                       const std::vector<std::pair<std::vector<double>, float>>& rotary,
                       const std::vector<std::pair<int64_t, int64_t>>& layer_kinds) {
             DecoderShape shape;
             shape.hidden_size = hidden_size;
             shape.num_hidden_layers = num_hidden_layers;
             shape.num_attention_heads = num_attention_heads;
             shape.num_key_value_heads = num_key_value_heads;
             shape.head_dim = head_dim;
             shape.intermediate_size = intermediate_size;
             shape.vocab_size = vocab_size;
             shape.rope_theta = rope_theta;
             shape.rms_norm_eps = rms_norm_eps;
             shape.attention_bias = attention_bias;
             shape.tie_word_embeddings = tie_word_embeddings;
             shape.layer_norm = layer_norm;
             shape.query_key_norm = query_key_norm;
             shape.sandwich_norms = sandwich_norms;
             shape.output_bias = output_bias;
             shape.mlp_bias = mlp_bias;
             shape.gated = gated;
             shape.gelu = activation == "gelu";
             if (!shape.gelu && (activation != "silu" || !gated)) {
               throw py::value_error("activation is \"" + activation + "\"; it must be silu with a gate, or gelu");
             }
             shape.embedding_scale = embedding_scale;
             shape.attention_scale = attention_scale;
             shape.attention_softcap = attention_softcap;
             shape.logit_softcap = logit_softcap;
             for (const auto& [frequencies, magnitude] : rotary) shape.rotary.push_back({frequencies, magnitude});
             for (const auto& [window, table] : layer_kinds) shape.layer_kinds.push_back({window, table});
             return make_decoder(shape, num_pages, page_size, threads, isa, kv, interleaved);
           }),
           py::kw_only(), py::arg("hidden_size"), py::arg("num_hidden_layers"), py::arg("num_attention_heads"),
           py::arg("num_key_value_heads"), py::arg("head_dim"), py::arg("intermediate_size"), py::arg("vocab_size"),
           py::arg("rope_theta") = 10000.0, py::arg("rms_norm_eps") = 1e-6, py::arg("attention_bias") = false,
           py::arg("tie_word_embeddings") = false, py::arg("num_pages"), py::arg("threads"), py::arg("page_size") = 16,
           py::arg("isa") = "auto", py::arg("kv") = "float16", py::arg("interleaved") = false,
           py::arg("layer_norm") = false, py::arg("query_key_norm") = false, py::arg("sandwich_norms") = false,
           py::arg("output_bias") = false, py::arg("mlp_bias") = false, py::arg("gated") = true,
           py::arg("activation") = "silu", py::arg("embedding_scale") = 1.0, py::arg("attention_scale") = 0.0,
           py::arg("attention_softcap") = 0.0, py::arg("logit_softcap") = 0.0,
           py::arg("rotary") = std::vector<std::pair<std::vector<double>, float>>{},
           py::arg("layer_kinds") = std::vector<std::pair<int64_t, int64_t>>{})
      .def("set_tensor", &set_tensor, py::arg("name"), py::arg("raw"), py::arg("type"), py::arg("rows"),
           py::arg("cols"), py::arg("weights") = "stored",
           "Repacks rows of GGUF blocks under their Hugging Face name; vectors have cols = 1. The source is not kept.")
      .def(
          "missing",
          [](const Decoder& decoder) -> py::object {
            const char* name = decoder.missing_tensor();
            return name ? py::object(py::str(name)) : py::object(py::none());
          },
          "The first tensor that was not set, or None.")
      .def(
          "forward", &forward, py::arg("tokens"), py::arg("positions"), py::arg("sequence"), py::arg("page_table"),
          py::arg("logit_rows"), py::arg("adapters") = py::none(),
          "One step over a mixed batch; float32 logits (len(logit_rows), vocab_size). Keys and values go to the pages. "
          "`adapters` names one for each row of the page table, -1 for none.")
      .def("hidden", &hidden, py::arg("tokens"), py::arg("positions"), py::arg("sequence"), py::arg("page_table"),
           py::arg("adapters") = py::none(),
           "The same step; float32 states after the last norm (len(tokens), hidden_size).")
      .def("copy_pages", &copy_pages, py::arg("src"), py::arg("dst"), "Copies whole pages in every layer.")
      .def("move_tokens", &move_tokens, py::arg("src"), py::arg("dst"), py::arg("src_start"), py::arg("dst_start"),
           py::arg("count"),
           "Copies computed tokens from one row of pages to another, keys turned on to their new positions.")
      .def("add_adapter", &add_adapter, "The number of a new, empty LoRA adapter.")
      .def("set_adapter", &set_adapter, py::arg("adapter"), py::arg("name"), py::arg("a"), py::arg("b"),
           py::arg("scale"), py::arg("exact") = false,
           "Its part beside one projection: output += scale * b @ (a @ input); at 8 bits, or as given with `exact`.")
      .def("remove_adapter", &remove_adapter, py::arg("adapter"), "Frees an adapter that no step will name again.")
      .def_property_readonly("isa", [](const Decoder& decoder) { return decoder.options().kernels->name; })
      .def_property_readonly("threads", [](const Decoder& decoder) { return decoder.options().threads; })
      .def_property_readonly("num_pages", [](const Decoder& decoder) { return decoder.options().num_pages; })
      .def_property_readonly("page_size", [](const Decoder& decoder) { return decoder.options().page_size; })
      .def_property_readonly("memory_bytes", &Decoder::memory_bytes, "Bytes mapped for weights, cache and buffers.");
}

}  // namespace highrise::bind
