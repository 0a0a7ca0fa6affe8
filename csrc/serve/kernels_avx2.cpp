// The kernels compiled for avx2, reached only after a CPUID check.
#define HIGHRISE_ISA avx2
#include "serve/attention_inl.h"
#include "serve/gemm_inl.h"
#include "serve/vector_inl.h"

namespace highrise::serve {

const Kernels* avx2_kernels() {
  using namespace highrise::HIGHRISE_ISA;
  static const Kernels table = {"avx2", quantise, multiply, INT64_MAX, nullptr,    nullptr, false,   rms_norm,
                                rotate, swiglu,   geglu,    attend,    layer_norm, gelu,    to_half, quantise_weights};
  return &table;
}

}  // namespace highrise::serve
