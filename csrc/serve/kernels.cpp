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

constexpr int kMaxChoices = 5;

struct Choices {
  Choice list[kMaxChoices + 1] = {};
  const char* names[kMaxChoices + 1] = {};
  int count = 0;

  Choices() {
#if defined(__x86_64__)
    const CpuFeatures& cpu = cpu_features();
    if (cpu.amx) offer("amx", amx_kernels());
    if (cpu.avx512vnni) offer("avx512vnni", avx512vnni_kernels());
    if (cpu.avx512) offer("avx512", avx512_kernels());
    if (cpu.avx2) offer("avx2", avx2_kernels());
#endif
    offer("portable", portable_kernels());
  }
  void offer(const char* name, const Kernels* kernels) {
    names[count] = name;
    list[count++] = {name, kernels};
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

const char* const* available_kernels() { return choices().names; }

}  // namespace highrise::serve
