// Single kernels of `_csrc`, as the tests compare them with numpy and the benchmarks time them: a packed matrix and its
// product, the element-wise kernels, attention over pages. Serving goes through `Decoder` instead.
#include "serve/kernels.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "bind/arrays.h"
#include "bind/module.h"
#include "common/arena.h"
#include "serve/decoder_state.h"
#include "serve/pack.h"

namespace py = pybind11;

namespace highrise::bind {
namespace {

using serve::ActivationBuffer;
using serve::BlockType;
using serve::Kernels;
using serve::PackedMatrix;
using serve::WeightLimit;
using FloatArray = py::array_t<float>;

struct OwnedMatrix {
  Arena arena;
  PackedMatrix matrix;
  std::string isa;
};

std::unique_ptr<OwnedMatrix> pack(const py::array& raw, const std::string& type_name, int64_t rows, int64_t cols,
                                  const std::string& weights, const std::string& isa) {
  const Kernels& kernels = kernels_of(isa);
  BlockType type;
  WeightLimit limit;
  if (!serve::block_type_of(type_name.c_str(), &type) || !serve::weight_limit_of(weights.c_str(), &limit)) {
    throw py::value_error("unknown block type \"" + type_name + "\" or weights \"" + weights + "\"");
  }
  if (rows < 1 || cols < 1 || rows > (1 << 24) || cols > (1 << 24) || cols % serve::block_weights(type) != 0 ||
      raw.size() != rows * serve::row_bytes(type, cols)) {
    throw py::value_error(std::to_string(raw.size()) + " bytes are not " + std::to_string(rows) + " x " +
                          std::to_string(cols) + " of " + type_name);
  }
  const uint8_t* source = checked<uint8_t>(raw, "raw", 1);
  auto owned = std::make_unique<OwnedMatrix>();
  owned->isa = isa;
  const py::gil_scoped_release release;
  owned->matrix = serve::plan_packed(kernels, type, rows, cols, limit, owned->arena);
  if (!owned->matrix) throw std::bad_alloc();
  serve::pack_tiles(kernels, type, source, owned->matrix, 0, owned->matrix.tiles);
  return owned;
}

FloatArray unpack(const OwnedMatrix& owned) {
  const PackedMatrix& matrix = owned.matrix;
  FloatArray out({matrix.rows, matrix.cols});
  float* to = out.mutable_data();
  const py::gil_scoped_release release;
  for (int64_t row = 0; row < matrix.rows; ++row) serve::read_packed_row(matrix, row, to + row * matrix.cols);
  return out;
}

// Inputs of a product, quantised; kept apart so that a benchmark can time the product alone.
struct Inputs {
  ActivationBuffer buffer;
  int64_t rows, cols;
};

std::unique_ptr<Inputs> quantise(const py::array& x, const std::string& isa) {
  const Kernels& kernels = kernels_of(isa);
  const float* values = checked<float>(x, "x", 2);
  auto inputs = std::make_unique<Inputs>();
  inputs->rows = x.shape(0);
  inputs->cols = x.shape(1);
  if (inputs->rows < 1 || inputs->cols < 1) throw py::value_error("x has shape " + shape_of(x) + "; it holds nothing");
  const py::gil_scoped_release release;
  inputs->buffer.resize(inputs->rows, inputs->cols, kernels.wants_bfloats);
  for (int64_t row = 0; row < inputs->rows; ++row) {
    std::memcpy(inputs->buffer.values.data() + row * inputs->buffer.view.stride, values + row * inputs->cols,
                static_cast<size_t>(inputs->cols) * sizeof(float));
  }
  kernels.quantise(inputs->buffer.view, 0, inputs->rows);
  return inputs;
}

FloatArray multiply(const OwnedMatrix& owned, const Inputs& inputs, const std::string& isa) {
  const Kernels& kernels = kernels_of(isa);
  if (inputs.cols != owned.matrix.cols) {
    throw py::value_error("inputs of " + std::to_string(inputs.cols) + " columns times a matrix of " +
                          std::to_string(owned.matrix.cols));
  }
  if (kernels.wants_bfloats && !inputs.buffer.view.bfloats) {
    throw py::value_error("these inputs were quantised for another isa than " + isa);
  }
  if (owned.matrix.is_blocks && !kernels.keeps_blocks) {
    throw py::value_error("this matrix was packed for " + owned.isa + " and cannot be multiplied with " + isa);
  }
  FloatArray out({inputs.rows, owned.matrix.rows});
  float* to = out.mutable_data();
  const py::gil_scoped_release release;
  const serve::MultiplyTask task{
      &owned.matrix,     0,       owned.matrix.tiles,   &inputs.buffer.view, 0, inputs.rows, to,
      owned.matrix.rows, nullptr, serve::Output::kStore};
  if (kernels.multiply_many && inputs.rows >= kernels.many_from) {
    std::vector<uint8_t> scratch(static_cast<size_t>(kernels.many_scratch(owned.matrix.groups)));
    kernels.multiply_many(task, scratch.data());
  } else {
    kernels.multiply(task);
  }
  return out;
}

FloatArray rms_norm(const py::array& x, const py::array& weight, float epsilon, const std::string& isa) {
  const Kernels& kernels = kernels_of(isa);
  const float* from = checked<float>(x, "x", 1);
  const float* scale = checked<float>(weight, "weight", 1);
  if (x.size() != weight.size())
    throw py::value_error("x " + shape_of(x) + " and weight " + shape_of(weight) + " differ");
  FloatArray out(x.size());
  kernels.rms_norm(from, scale, x.size(), epsilon, out.mutable_data());
  return out;
}

FloatArray rotate(const py::array& x, const py::array& cosine, const py::array& sine, const std::string& isa) {
  const Kernels& kernels = kernels_of(isa);
  const float* from = checked<float>(x, "x", 1);
  const float* c = checked<float>(cosine, "cosine", 1);
  const float* s = checked<float>(sine, "sine", 1);
  if (cosine.size() * 2 != x.size() || sine.size() * 2 != x.size()) {
    throw py::value_error("x " + shape_of(x) + " wants half as many cosines and sines, not " + shape_of(cosine));
  }
  FloatArray out(x.size());
  std::memcpy(out.mutable_data(), from, static_cast<size_t>(x.size()) * sizeof(float));
  kernels.rotate(out.mutable_data(), c, s, x.size());
  return out;
}

FloatArray swiglu(const py::array& gate, const py::array& up, const std::string& isa) {
  const Kernels& kernels = kernels_of(isa);
  const float* g = checked<float>(gate, "gate", 1);
  const float* u = checked<float>(up, "up", 1);
  if (gate.size() != up.size() || gate.size() % serve::kTileRows != 0) {
    throw py::value_error("gate " + shape_of(gate) + " and up " + shape_of(up) +
                          " must agree and be whole tiles of 16");
  }
  FloatArray out(gate.size());
  kernels.swiglu(g, u, gate.size(), out.mutable_data());
  return out;
}

FloatArray layer_norm(const py::array& x, const py::array& weight, const py::array& bias, float epsilon,
                      const std::string& isa) {
  const Kernels& kernels = kernels_of(isa);
  const float* from = checked<float>(x, "x", 1);
  const float* scale = checked<float>(weight, "weight", 1);
  const float* shift = checked<float>(bias, "bias", 1);
  if (x.size() < 1 || x.size() != weight.size() || x.size() != bias.size()) {
    throw py::value_error("x " + shape_of(x) + ", weight " + shape_of(weight) + " and bias " + shape_of(bias) +
                          " must agree and not be empty");
  }
  FloatArray out(x.size());
  kernels.layer_norm(from, scale, shift, x.size(), epsilon, out.mutable_data());
  return out;
}

FloatArray gelu(const py::array& x, const std::string& isa) {
  const Kernels& kernels = kernels_of(isa);
  const float* from = checked<float>(x, "x", 1);
  if (x.size() % serve::kTileRows != 0) throw py::value_error("x " + shape_of(x) + " must be whole tiles of 16");
  FloatArray out(x.size());
  kernels.gelu(from, x.size(), out.mutable_data());
  return out;
}

// queries (rows, head_dim) against one head whose pages lie in `cache` (num_pages, bytes) as kernels.h describes.
FloatArray attend(const py::array& queries, const py::array& visible, const py::array& cache,
                  const py::array& page_table, int page_size, const std::string& kv, const std::string& isa) {
  const serve::CacheType type = cache_type_of(kv);
  const Kernels& kernels = kernels_of(isa);
  const float* from = checked<float>(queries, "queries", 2);
  const int32_t* num_visible = checked<int32_t>(visible, "visible", 1);
  const uint8_t* pages = checked<uint8_t>(cache, "cache", 2);
  const int32_t* table = checked<int32_t>(page_table, "page_table", 1);
  const int64_t rows = queries.shape(0), head_dim = queries.shape(1);
  const int64_t needed = serve::head_page_bytes(type, page_size, head_dim);
  if (page_size < 16 || page_size % 16 != 0 || head_dim < 16 || head_dim % 16 != 0 || cache.shape(1) < needed) {
    throw py::value_error("page_size " + std::to_string(page_size) + " and head_dim " + std::to_string(head_dim) +
                          " must be multiples of 16, and a page have " + std::to_string(needed) + " bytes");
  }
  if (visible.size() != rows) throw py::value_error("visible " + shape_of(visible) + " wants one entry for each query");
  for (int64_t r = 0; r < rows; ++r) {
    if (num_visible[r] < 1 || num_visible[r] > page_table.size() * page_size) {
      throw py::value_error("visible[" + std::to_string(r) + "] is " + std::to_string(num_visible[r]));
    }
  }
  for (int64_t i = 0; i < page_table.size(); ++i) {
    if (table[i] < 0 || table[i] >= cache.shape(0))
      throw py::value_error("page " + std::to_string(table[i]) + " does not exist");
  }
  FloatArray out({rows, head_dim});
  std::vector<float> padded(static_cast<size_t>((rows + 8) * head_dim)), result(padded.size());
  std::vector<float> scratch(static_cast<size_t>(serve::attention_scratch(rows)));
  std::memcpy(padded.data(), from, static_cast<size_t>(rows * head_dim) * sizeof(float));
  const int64_t page_bytes = cache.shape(1);
  {
    const py::gil_scoped_release release;
    kernels.attend({padded.data(), num_visible, static_cast<int>(rows), static_cast<int>(head_dim), type, pages,
                    page_bytes, table, page_size, result.data(), scratch.data()});
  }
  std::memcpy(out.mutable_data(), result.data(), static_cast<size_t>(rows * head_dim) * sizeof(float));
  return out;
}

}  // namespace

serve::CacheType cache_type_of(const std::string& kv) {
  if (kv == "float32") return serve::CacheType::kFloat;
  if (kv == "float16") return serve::CacheType::kHalf;
  if (kv == "int8") return serve::CacheType::kInt8;
  throw py::value_error("kv is \"" + kv + "\"; it must be float32, float16 or int8");
}

void register_kernels(py::module_& module) {
  py::class_<OwnedMatrix>(module, "PackedMatrix", "A weight matrix in tiles; see csrc/serve/packed.h.")
      .def(py::init(&pack), py::arg("raw"), py::arg("type"), py::arg("rows"), py::arg("cols"),
           py::arg("weights") = "stored", py::arg("isa") = "auto")
      .def("unpack", &unpack, "The weights as float32 (rows, cols).")
      .def("multiply", &multiply, py::arg("inputs"), py::arg("isa") = "auto", "float32 (inputs, rows).")
      .def_property_readonly("bits", [](const OwnedMatrix& owned) { return owned.matrix.bits; })
      .def_property_readonly("nbytes", [](const OwnedMatrix& owned) { return owned.matrix.bytes(); });
  py::class_<Inputs>(module, "QuantisedInputs", "Inputs of a product as int8 codes with a scale for each 32.")
      .def(py::init(&quantise), py::arg("x"), py::arg("isa") = "auto")
      .def_property_readonly("codes",
                             [](const Inputs& inputs) {
                               return py::array_t<int8_t>({inputs.rows, inputs.buffer.view.stride},
                                                          inputs.buffer.codes.data());
                             })
      .def_property_readonly("scales", [](const Inputs& inputs) {
        return FloatArray({inputs.rows, inputs.buffer.view.groups}, inputs.buffer.scales.data());
      });
  module.def("rms_norm", &rms_norm, py::arg("x"), py::arg("weight"), py::arg("epsilon"), py::arg("isa") = "auto");
  module.def("rotate", &rotate, py::arg("x"), py::arg("cosine"), py::arg("sine"), py::arg("isa") = "auto");
  module.def("swiglu", &swiglu, py::arg("gate"), py::arg("up"), py::arg("isa") = "auto");
  module.def("layer_norm", &layer_norm, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("epsilon"),
             py::arg("isa") = "auto");
  module.def("gelu", &gelu, py::arg("x"), py::arg("isa") = "auto");
  module.def("attend", &attend, py::arg("queries"), py::arg("visible"), py::arg("cache"), py::arg("page_table"),
             py::arg("page_size"), py::arg("kv"), py::arg("isa") = "auto");
}

}  // namespace highrise::bind
