// What this machine can do at best: bytes read from memory, and products of bytes and of floats, with 1, 2, ...
// threads. Plain loops over nothing but the instruction in question, by each thread's own CPU time, so that a busy
// machine tells nearly the same as a quiet one. Knows nothing of models.
//
// c++ -O3 -std=c++17 -pthread bench/machine_bounds.cpp -o bounds && ./bounds 2
#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <numeric>
#include <thread>
#include <vector>

namespace {

volatile int64_t sink;

double cpu_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The best of some runs, each on all threads at once: work done in a second of CPU time, summed over the threads.
double best(int threads, double amount, const std::function<void(int)>& work) {
  double most = 0;
  for (int run = 0; run < 5; ++run) {
    std::vector<double> rates(static_cast<size_t>(threads));
    std::vector<std::thread> team;
    for (int i = 0; i < threads; ++i) {
      team.emplace_back([&, i] {
        const double began = cpu_seconds();
        work(i);
        rates[static_cast<size_t>(i)] = amount / (cpu_seconds() - began);
      });
    }
    for (std::thread& one : team) one.join();
    most = std::max(most, std::accumulate(rates.begin(), rates.end(), 0.0));
  }
  return most;
}

void read_memory(const uint64_t* from, size_t count) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i < count; i += 8) {
    __builtin_prefetch(from + i + 512);
    for (int k = 0; k < 8; ++k) sums[k] += from[i + static_cast<size_t>(k)];
  }
  for (uint64_t sum : sums) sink = sink + static_cast<int64_t>(sum);
}

constexpr int64_t kSteps = 10'000'000;

__attribute__((target("avx512f,avx512vnni"))) void byte_products_vnni() {
  __m512i sums[10];
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  const __m512i a = _mm512_set1_epi8(3);
  __m512i b = _mm512_set1_epi8(5);
  for (int64_t i = 0; i < kSteps; ++i) {
    for (__m512i& sum : sums) sum = _mm512_dpbusd_epi32(sum, a, b);
    __asm__ volatile("" : "+v"(b));
  }
  for (int k = 1; k < 10; ++k) sums[0] = _mm512_add_epi32(sums[0], sums[k]);
  int32_t out[16];
  _mm512_storeu_si512(out, sums[0]);
  sink = out[0];
}

__attribute__((target("avx2"))) void byte_products_avx2() {
  __m256i sums[10];
  for (__m256i& sum : sums) sum = _mm256_setzero_si256();
  const __m256i a = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
  __m256i b = _mm256_set1_epi8(5);
  for (int64_t i = 0; i < kSteps; ++i) {
    for (__m256i& sum : sums) sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
    __asm__ volatile("" : "+v"(b));
  }
  for (int k = 1; k < 10; ++k) sums[0] = _mm256_add_epi32(sums[0], sums[k]);
  sink = _mm256_extract_epi32(sums[0], 0);
}

__attribute__((target("avx512f"))) void float_products_avx512() {
  __m512 sums[10];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  const __m512 a = _mm512_set1_ps(1.5f);
  __m512 b = _mm512_set1_ps(0.5f);
  for (int64_t i = 0; i < kSteps; ++i) {
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(a, b, sum);
    __asm__ volatile("" : "+v"(b));
  }
  for (int k = 1; k < 10; ++k) sums[0] = _mm512_add_ps(sums[0], sums[k]);
  float out[16];
  _mm512_storeu_ps(out, sums[0]);
  sink = static_cast<int64_t>(out[0]);
}

__attribute__((target("avx2,fma"))) void float_products_avx2() {
  __m256 sums[10];
  for (__m256& sum : sums) sum = _mm256_setzero_ps();
  const __m256 a = _mm256_set1_ps(1.5f);
  __m256 b = _mm256_set1_ps(0.5f);
  for (int64_t i = 0; i < kSteps; ++i) {
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(a, b, sum);
    __asm__ volatile("" : "+v"(b));
  }
  for (int k = 1; k < 10; ++k) sums[0] = _mm256_add_ps(sums[0], sums[k]);
  sink = static_cast<int64_t>(_mm256_cvtss_f32(sums[0]));
}

}  // namespace

int main(int argc, char** argv) {
  const int most = argc > 1 ? std::atoi(argv[1]) : 1;
  const size_t bytes = size_t{256} << 20;
  std::vector<const uint64_t*> memory;
  for (int i = 0; i < most; ++i) {
    void* place = mmap(nullptr, bytes + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) return 1;
    madvise(place, bytes, MADV_HUGEPAGE);  // as weights lie
    std::memset(place, 1, bytes + 4096);
    memory.push_back(static_cast<const uint64_t*>(place));
  }
  for (int threads = 1; threads <= most; ++threads) {
    const double read = best(threads, static_cast<double>(bytes),
                             [&](int i) { read_memory(memory[static_cast<size_t>(i)], bytes / 8); });
    std::printf("read %d %.4g bytes/s\n", threads, read);
    const bool wide = __builtin_cpu_supports("avx512f");
    if (__builtin_cpu_supports("avx512vnni"))
      std::printf("bytes-vnni %d %.4g products/s\n", threads,
                  best(threads, 64.0 * 10 * kSteps, [](int) { byte_products_vnni(); }));
    if (__builtin_cpu_supports("avx2"))
      std::printf("bytes-avx2 %d %.4g products/s\n", threads,
                  best(threads, 32.0 * 10 * kSteps, [](int) { byte_products_avx2(); }));
    if (wide)
      std::printf("floats-avx512 %d %.4g products/s\n", threads,
                  best(threads, 16.0 * 10 * kSteps, [](int) { float_products_avx512(); }));
    if (__builtin_cpu_supports("fma"))
      std::printf("floats-avx2 %d %.4g products/s\n", threads,
                  best(threads, 8.0 * 10 * kSteps, [](int) { float_products_avx2(); }));
  }
  return 0;
}
