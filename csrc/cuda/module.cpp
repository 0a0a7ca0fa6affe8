// The pybind11 module `_cuda`: device pointers as integers in, sentences with values out. Holds no memory but what the
// caller asked for by `allocate`; streams are integers (0 is the default stream), as cuda-python hands them out.
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "cuda/kernels.h"

namespace py = pybind11;

namespace {

using highrise::cuda::Number;
using highrise::cuda::Status;

std::string words(Status status) {
  switch (status) {
    case highrise::cuda::kUnsupportedHeadDim:
      return "the head size must be 64, 128 or 256";
    case highrise::cuda::kBadHeads:
      return "the query heads must be a multiple of the key-value heads";
    case highrise::cuda::kBadGroup:
      return "the inner dimension must be a multiple of 32";
    case highrise::cuda::kBadSize:
      return "every size must be at least 1, and more than one split needs a workspace";
    default:
      return std::string(cudaGetErrorName(static_cast<cudaError_t>(status))) + ": " +
             cudaGetErrorString(static_cast<cudaError_t>(status));
  }
}

void check(Status status, const std::string& doing) {
  if (status == highrise::cuda::kOk) return;
  const std::string sentence = doing + " failed with status " + std::to_string(status) + ": " + words(status);
  if (status < 0) throw py::value_error(sentence);
  throw std::runtime_error(sentence);
}

void check(cudaError_t error, const std::string& doing) { check(static_cast<Status>(error), doing); }

template <typename T>
T* pointer(std::uintptr_t address, const char* name) {
  if (address == 0) throw py::value_error(std::string(name) + " is a null pointer");
  if (address % 16 != 0) {
    throw py::value_error(std::string(name) + " is at " + std::to_string(address) + ", not a multiple of 16 bytes");
  }
  return reinterpret_cast<T*>(address);
}

Number number(const std::string& type) {
  if (type == "float16") return Number::kFloat16;
  if (type == "bfloat16") return Number::kBFloat16;
  throw py::value_error("number type \"" + type + "\" is neither float16 nor bfloat16");
}

void attention_decode(std::uintptr_t query, std::uintptr_t key_pages, std::uintptr_t value_pages,
                      std::uintptr_t page_table, std::uintptr_t lengths, std::uintptr_t output,
                      std::uintptr_t workspace, int batch, int num_heads, int num_kv_heads, int head_dim, int page_size,
                      int max_pages, int splits, float scale, const std::string& type, std::uintptr_t stream) {
  const highrise::cuda::PagedAttention call{
      pointer<const void>(query, "query"),
      pointer<const void>(key_pages, "key_pages"),
      pointer<const void>(value_pages, "value_pages"),
      pointer<const std::int32_t>(page_table, "page_table"),
      pointer<const std::int32_t>(lengths, "lengths"),
      pointer<void>(output, "output"),
      workspace == 0 ? nullptr : pointer<float>(workspace, "workspace"),
      batch,
      num_heads,
      num_kv_heads,
      head_dim,
      page_size,
      max_pages,
      splits,
      scale,
      number(type),
  };
  Status status = highrise::cuda::kOk;
  {
    const py::gil_scoped_release release;
    status = highrise::cuda::attention_decode(call, reinterpret_cast<void*>(stream));
  }
  check(status, "attention of " + std::to_string(batch) + " sequences, " + std::to_string(num_heads) + " heads over " +
                    std::to_string(num_kv_heads) + " of size " + std::to_string(head_dim) + ", in " +
                    std::to_string(splits) + " splits");
}

void gemm_int4(std::uintptr_t input, std::uintptr_t packed, std::uintptr_t scale, std::uintptr_t minimum,
               std::uintptr_t output, int m, int n, int k, const std::string& type, std::uintptr_t stream) {
  const highrise::cuda::GemmInt4 call{
      pointer<const void>(input, "input"),
      pointer<const std::uint8_t>(packed, "packed"),
      pointer<const void>(scale, "scale"),
      pointer<const void>(minimum, "minimum"),
      pointer<void>(output, "output"),
      m,
      n,
      k,
      number(type),
  };
  Status status = highrise::cuda::kOk;
  {
    const py::gil_scoped_release release;
    status = highrise::cuda::gemm_int4(call, reinterpret_cast<void*>(stream));
  }
  check(status,
        "int4 product of " + std::to_string(m) + " x " + std::to_string(k) + " by " + std::to_string(n) + " features");
}

py::tuple device_count() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  return py::make_tuple(static_cast<int>(error), error == cudaSuccess ? count : 0);
}

std::uintptr_t allocate(std::size_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, bytes), "allocating " + std::to_string(bytes) + " bytes on the device");
  return reinterpret_cast<std::uintptr_t>(memory);
}

void release(std::uintptr_t memory) { check(cudaFree(reinterpret_cast<void*>(memory)), "freeing device memory"); }

void copy_to_device(std::uintptr_t memory, const py::buffer& array) {
  const py::buffer_info info = array.request();
  const auto bytes = static_cast<std::size_t>(info.size) * static_cast<std::size_t>(info.itemsize);
  check(cudaMemcpy(reinterpret_cast<void*>(memory), info.ptr, bytes, cudaMemcpyHostToDevice),
        "copying " + std::to_string(bytes) + " bytes to the device");
}

void copy_to_host(const py::buffer& array, std::uintptr_t memory) {
  const py::buffer_info info = array.request(true);
  const auto bytes = static_cast<std::size_t>(info.size) * static_cast<std::size_t>(info.itemsize);
  check(cudaMemcpy(info.ptr, reinterpret_cast<const void*>(memory), bytes, cudaMemcpyDeviceToHost),
        "copying " + std::to_string(bytes) + " bytes from the device");
}

void synchronize() {
  const py::gil_scoped_release release;
  check(cudaDeviceSynchronize(), "waiting for the device");
}

}  // namespace

PYBIND11_MODULE(_cuda, module) {
  module.doc() = "CUDA kernels of Highrise; imports without a driver and says so in device_count().";
  module.attr("ARCHITECTURES") = HIGHRISE_CUDA_ARCHITECTURES;
  module.attr("RUNTIME_VERSION") = CUDART_VERSION;
  module.def("device_count", &device_count, "(status, count): status 0, or CUDA's error code, 35 without a driver.");
  module.def("error_words", [](int status) { return words(status); }, py::arg("status"), "A status in words.");
  module.def("attention_workspace_bytes", &highrise::cuda::attention_workspace_bytes, py::arg("batch"),
             py::arg("num_heads"), py::arg("head_dim"), py::arg("splits"), "Device bytes that attention_decode needs.");
  module.def("attention_decode", &attention_decode, py::kw_only(), py::arg("query"), py::arg("key_pages"),
             py::arg("value_pages"), py::arg("page_table"), py::arg("lengths"), py::arg("output"), py::arg("workspace"),
             py::arg("batch"), py::arg("num_heads"), py::arg("num_kv_heads"), py::arg("head_dim"), py::arg("page_size"),
             py::arg("max_pages"), py::arg("splits"), py::arg("scale"), py::arg("type"), py::arg("stream") = 0,
             "Paged attention of one query token a sequence; shapes in csrc/cuda/kernels.h.");
  module.def("gemm_int4", &gemm_int4, py::kw_only(), py::arg("input"), py::arg("packed"), py::arg("scale"),
             py::arg("minimum"), py::arg("output"), py::arg("m"), py::arg("n"), py::arg("k"), py::arg("type"),
             py::arg("stream") = 0, "Activations times transposed int4 weights; layout in csrc/cuda/kernels.h.");
  module.def("allocate", &allocate, py::arg("bytes"), "Device memory; for tests and tools, engines use cuda-python.");
  module.def("release", &release, py::arg("memory"), "Give memory of allocate() back.");
  module.def("copy_to_device", &copy_to_device, py::arg("memory"), py::arg("array"), "Copy a host buffer; waits.");
  module.def("copy_to_host", &copy_to_host, py::arg("array"), py::arg("memory"), "Copy into a host buffer; waits.");
  module.def("synchronize", &synchronize, "Wait for all work; raises what a kernel did wrong.");
}
