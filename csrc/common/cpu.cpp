#include "common/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace highrise {
namespace {

#if defined(__x86_64__)

unsigned long long enabled_state() {
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<unsigned long long>(high) << 32) | low;
}

// Linux hands out the 8 KiB of tile state only to a process that asks for it.
bool request_tiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

CpuFeatures detect() {
  CpuFeatures features;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return features;
  const bool xsave = c & (1u << 27), avx = c & (1u << 28), fma = c & (1u << 12), f16c = c & (1u << 29);
  if (!xsave || !avx) return features;
  const unsigned long long state = enabled_state();
  const bool ymm = (state & 0x6) == 0x6, zmm = (state & 0xe6) == 0xe6, tiles = (state & 0x60000) == 0x60000;
  unsigned b7 = 0, c7 = 0, d7 = 0;
  if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7)) return features;
  features.avx2 = ymm && fma && f16c && (b7 & (1u << 5));
  const unsigned needed = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);  // F, DQ, BW, VL
  features.avx512 = features.avx2 && zmm && (b7 & needed) == needed;
  features.avx512vnni = features.avx512 && (c7 & (1u << 11));
  unsigned a71 = 0;
  if (__get_cpuid_count(7, 1, &a71, &b, &c, &d)) {
    const bool bf16 = a71 & (1u << 5), amx = (d7 & (1u << 22)) && (d7 & (1u << 24));
    features.amx = features.avx512vnni && bf16 && amx && tiles && request_tiles();
  }
  return features;
}

#else

CpuFeatures detect() { return CpuFeatures{}; }

#endif

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

}  // namespace highrise
