// The kernels any machine: the compiler's baseline.
#define HIGHRISE_ISA portable
#include "serve/attention_inl.h"
#include "serve/gemm_inl.h"
#include "serve/vector_inl.h"

namespace highrise::serve {

const Kernels* portable_kernels() {
  using namespace highrise::HIGHRISE_ISA;
  static const Kernels table = {"portable", quantise, multiply, INT64_MAX,       nullptr, nullptr,
                                false,      rms_norm, rotate,   swiglu,          geglu,   attend,
                                layer_norm, gelu,     to_half,  quantise_weights};
  return &table;
}

}  // namespace highrise::serve
