// Test-only twins of csrc/cuda/ptx.cuh: shared memory, asynchronous copies that land at the latest moment allowed (or
// at once), and the tensor-core product, put together from the fragments of 32 fibres as the PTX manual lays them out.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

#include "cuda/number.cuh"

namespace highrise::cuda {

inline unsigned char* shared_memory() { return cuda_on_cpu::Block::current_block->shared_begin(); }

inline void land(const cuda_on_cpu::Copy& copy) {
  if (copy.valid) {
    std::memcpy(copy.to, copy.from, 16);
  } else {
    std::memset(copy.to, 0, 16);
  }
}

inline void copy_async(void* shared, const void* global, bool valid) {
  if (reinterpret_cast<std::uintptr_t>(shared) % 16 || reinterpret_cast<std::uintptr_t>(global) % 16) {
    throw std::runtime_error("cp.async with an address that is no multiple of 16");
  }
  const cuda_on_cpu::Copy copy{shared, global, valid};
  if (cuda_on_cpu::options.eager_copies) {
    land(copy);
  } else {
    cuda_on_cpu::Block::current_block->self().started.push_back(copy);
  }
}

inline void copy_commit() {
  auto& self = cuda_on_cpu::Block::current_block->self();
  self.committed.push_back(std::move(self.started));
  self.started.clear();
}

template <int kPending>
void copy_wait() {
  auto& committed = cuda_on_cpu::Block::current_block->self().committed;
  while (committed.size() > kPending) {
    for (const auto& copy : committed.front()) land(copy);
    committed.erase(committed.begin());
  }
}

template <typename T>
float element(std::uint32_t bits, int which) {
  T value;
  const auto half = static_cast<std::uint16_t>(bits >> (16 * which));
  std::memcpy(&value, &half, sizeof value);
  return to_float(value);
}

template <typename T>
void mma_16x8x16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  auto& block = *cuda_on_cpu::Block::current_block;
  auto& own = block.self();
  const unsigned set = own.exchanges++ % 2;
  std::memcpy(own.slot.a[set], a, sizeof a);
  std::memcpy(own.slot.b[set], b, sizeof b);
  block.warp_barrier();
  const unsigned lane = block.current % 32;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4 + i / 2 * 8;
    const unsigned column = lane % 4 * 2 + i % 2;
    float total = d[i];
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned pair_lane = k % 8 / 2;
      const auto& from_a = block.lane(row % 8 * 4 + pair_lane).slot.a[set][row / 8 + k / 8 * 2];
      const auto& from_b = block.lane(column * 4 + pair_lane).slot.b[set][k / 8];
      total += element<T>(from_a, static_cast<int>(k % 2)) * element<T>(from_b, static_cast<int>(k % 2));
    }
    d[i] = total;
  }
}

}  // namespace highrise::cuda
