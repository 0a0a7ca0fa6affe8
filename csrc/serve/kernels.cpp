// Chooses a table of kernels by name or by what the CPU offers.
#include "serve/kernels.h"

#include <cstring>

#include "common/cpu.h"

namespace highrise::serve {
namespace {

struct Choice {
  const char* name;
  const Kernels* kernels;
};

constexpr int kMaxChoices = 7;

struct Choices {
  Choice list[kMaxChoices] = {};
  const char* isas[kMaxChoices + 1] = {};
  const char* orders[kMaxChoices + 1] = {};
  int count = 0, num_isas = 0, num_orders = 0;

  Choices() {
#if defined(__x86_64__)
    const CpuFeatures& cpu = cpu_features();
    if (cpu.amx) offer(amx_kernels(), isas, &num_isas);
    if (cpu.avx512vnni) offer(avx512vnni_kernels(), isas, &num_isas);
    if (cpu.avx512) offer(avx512_kernels(), isas, &num_isas);
    if (cpu.avx2) offer(avx2_kernels(), isas, &num_isas);
#endif
    offer(portable_kernels(), isas, &num_isas);
#if defined(__x86_64__)
    if (cpu.avx512) offer(llama_avx512_kernels(), orders, &num_orders);
    if (cpu.avx2) offer(llama_avx2_kernels(), orders, &num_orders);
#endif
  }
  void offer(const Kernels* kernels, const char** names, int* place) {
    list[count++] = {kernels->name, kernels};
    names[(*place)++] = kernels->name;
  }
};

const Choices& choices() {
  static const Choices all;
  return all;
}

}  // namespace

const Kernels* find_kernels(const char* isa) {
  const Choices& all = choices();
  if (std::strcmp(isa, "auto") == 0) return all.list[0].kernels;
  for (int i = 0; i < all.count; ++i) {
    if (std::strcmp(isa, all.list[i].name) == 0) return all.list[i].kernels;
  }
  return nullptr;
}

const char* const* available_kernels() { return choices().isas; }
const char* const* available_orders() { return choices().orders; }

}  // namespace highrise::serve
