// The class `Encoder` of `_csrc`: arrays and words around serve/encoder.h.
#include "serve/encoder.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <string>

#include "bind/arrays.h"
#include "bind/module.h"

namespace py = pybind11;

namespace highrise::bind {
namespace {

using serve::Encoder;
using serve::EncoderOptions;
using serve::EncoderShape;
using serve::EncoderStatus;

std::unique_ptr<Encoder> make_encoder(const EncoderShape& shape, int threads, const std::string& isa) {
  constexpr int64_t kMost = int64_t{1} << 20;
  const std::pair<const char*, int64_t> sizes[] = {
      {"hidden_size", shape.hidden_size},
      {"num_hidden_layers", shape.num_hidden_layers},
      {"num_attention_heads", shape.num_attention_heads},
      {"intermediate_size", shape.intermediate_size},
      {"threads", threads},
  };
  for (const auto& [name, value] : sizes) {
    const int64_t most = std::string(name) == "threads" ? 1024 : kMost;
    if (value < 1 || value > most) {
      throw py::value_error(std::string(name) + " is " + std::to_string(value) + "; it must be within 1 and " +
                            std::to_string(most));
    }
  }
  if (shape.hidden_size % shape.num_attention_heads != 0) {
    throw py::value_error("hidden_size " + std::to_string(shape.hidden_size) +
                          " is not a multiple of num_attention_heads " + std::to_string(shape.num_attention_heads));
  }
  if (!(shape.layer_norm_eps >= 0.0)) {
    throw py::value_error("layer_norm_eps is " + std::to_string(shape.layer_norm_eps) + "; it must not be negative");
  }
  EncoderOptions options;
  options.threads = threads;
  options.kernels = &kernels_of(isa);
  return std::make_unique<Encoder>(shape, options);
}

[[noreturn]] void no_memory(const std::string& what) {
  PyErr_SetString(PyExc_MemoryError, ("no memory for " + what).c_str());
  throw py::error_already_set();
}

void set_tensor(Encoder& encoder, const std::string& name, const py::array& values) {
  int64_t rows = 0, cols = 0;
  if (encoder.expected_shape(name.c_str(), &rows, &cols) != EncoderStatus::kOk) {
    throw py::key_error("an encoder of this shape has no tensor \"" + name + "\"");
  }
  const float* source = checked<float>(values, name.c_str(), cols == 1 ? 1 : 2);
  if (values.shape(0) != rows || (cols != 1 && values.shape(1) != cols)) {
    throw py::value_error(name + " has shape " + shape_of(values) + "; this encoder wants " + std::to_string(rows) +
                          (cols == 1 ? "" : " x " + std::to_string(cols)));
  }
  EncoderStatus status;
  {
    const py::gil_scoped_release release;
    status = encoder.set_tensor(name.c_str(), source, rows, cols);
  }
  if (status == EncoderStatus::kAlreadySet)
    throw py::value_error(name + " was set before; an encoder takes each tensor once");
  if (status != EncoderStatus::kOk) no_memory(name);
}

py::array_t<float> encode(Encoder& encoder, const py::array& embedded, const py::array& offsets) {
  const int64_t hidden = encoder.shape().hidden_size;
  const float* rows = checked<float>(embedded, "embedded", 2);
  const int64_t* bounds = checked<int64_t>(offsets, "offsets", 1);
  if (embedded.shape(1) != hidden) {
    throw py::value_error("embedded " + shape_of(embedded) + " has not hidden_size " + std::to_string(hidden) +
                          " columns");
  }
  const int64_t num_texts = offsets.size() - 1;
  if (num_texts < 0 || bounds[0] != 0 || bounds[num_texts] != embedded.shape(0)) {
    throw py::value_error("offsets must begin with 0 and end with the number of tokens, " +
                          std::to_string(embedded.shape(0)));
  }
  constexpr int64_t kLongest = int64_t{1} << 16;
  for (int64_t i = 0; i < num_texts; ++i) {
    const int64_t length = bounds[i + 1] - bounds[i];
    if (length < 1 || length > kLongest) {
      throw py::value_error("text " + std::to_string(i) + " has " + std::to_string(length) +
                            " tokens; it must have 1 to " + std::to_string(kLongest));
    }
  }
  py::array_t<float> out({num_texts, hidden});
  float* to = out.mutable_data();
  EncoderStatus status;
  {
    const py::gil_scoped_release release;
    status = encoder.encode(rows, bounds, num_texts, to);
  }
  if (status == EncoderStatus::kMissingTensor)
    throw py::value_error(std::string("tensor ") + encoder.missing_tensor() + " was not set");
  if (status != EncoderStatus::kOk) no_memory("the buffers of " + std::to_string(embedded.shape(0)) + " tokens");
  return out;
}

}  // namespace

void register_encoder(py::module_& module) {
  py::class_<Encoder>(module, "Encoder", "A BERT-shaped encoder in 16-bit floats; see csrc/serve/encoder.h.")
      .def(py::init([](int64_t hidden_size, int64_t num_hidden_layers, int64_t num_attention_heads,
                       int64_t intermediate_size, double layer_norm_eps, int threads, const std::string& isa) {
             return make_encoder(
                 {hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, layer_norm_eps}, threads,
                 isa);
           }),
           py::kw_only(), py::arg("hidden_size"), py::arg("num_hidden_layers"), py::arg("num_attention_heads"),
           py::arg("intermediate_size"), py::arg("layer_norm_eps") = 1e-12, py::arg("threads"), py::arg("isa") = "auto")
      .def("set_tensor", &set_tensor, py::arg("name"), py::arg("values"),
           "Packs a float32 matrix in 16 bits, or keeps a vector, under its Hugging Face name. The source is not kept.")
      .def(
          "missing",
          [](const Encoder& encoder) -> py::object {
            const char* name = encoder.missing_tensor();
            return name ? py::object(py::str(name)) : py::object(py::none());
          },
          "The first tensor that was not set, or None.")
      .def("encode", &encode, py::arg("embedded"), py::arg("offsets"),
           "Embedded tokens float32 (tokens, hidden_size) of texts at int64 offsets (texts + 1); float32 (texts, "
           "hidden_size), rows of length one.")
      .def_property_readonly("isa", [](const Encoder& encoder) { return encoder.options().kernels->name; })
      .def_property_readonly("threads", [](const Encoder& encoder) { return encoder.options().threads; })
      .def_property_readonly("memory_bytes", &Encoder::memory_bytes, "Bytes held for weights.");
}

}  // namespace highrise::bind
