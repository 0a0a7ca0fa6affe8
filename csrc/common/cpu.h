// Which instruction sets this CPU and this operating system offer, asked once. Knows nothing of kernels.
#pragma once

namespace highrise {

struct CpuFeatures {
  bool avx2 = false;        // AVX2, FMA and F16C
  bool avx512 = false;      // AVX-512 F, BW, VL, DQ
  bool avx512vnni = false;  // the above and VNNI
  bool amx = false;         // the above, AVX-512 BF16, and AMX tiles with bfloat16, granted by the kernel
};

const CpuFeatures& cpu_features();

}  // namespace highrise
