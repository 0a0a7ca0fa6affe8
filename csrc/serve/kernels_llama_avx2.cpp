// The kernels in llama.cpp's order as its AVX2 build has it, reached only after a CPUID check.
#define HIGHRISE_ISA llama_avx2
#include "serve/llama_order_inl.h"

namespace highrise::serve {

const Kernels* llama_avx2_kernels() {
  static const Kernels table = highrise::HIGHRISE_ISA::llama_table("llama-avx2");
  return &table;
}

}  // namespace highrise::serve
