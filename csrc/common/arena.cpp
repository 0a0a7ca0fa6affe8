#include "common/arena.h"

#include <sys/mman.h>

#include <algorithm>

namespace highrise {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kChunk = size_t{32} << 20;

size_t round_up(size_t value, size_t to) { return (value + to - 1) / to * to; }

}  // namespace

Arena::~Arena() { clear(); }

void Arena::clear() {
  for (const Chunk& chunk : chunks_) munmap(chunk.base, chunk.bytes);
  chunks_.clear();
  next_ = nullptr;
  left_ = used_ = 0;
}

uint8_t* Arena::allocate(size_t bytes) {
  bytes = round_up(std::max<size_t>(bytes, 1), 64);
  if (bytes > left_) {
    const size_t usable = bytes >= kChunk / 4 ? round_up(bytes, kHugePage) : kChunk;
    const size_t mapped = usable + kHugePage;  // room to start on a huge-page border
    void* base = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return nullptr;
    chunks_.push_back({base, mapped});
    const auto start = round_up(reinterpret_cast<uintptr_t>(base), kHugePage);
    auto* first = reinterpret_cast<uint8_t*>(start);
#if defined(MADV_HUGEPAGE)
    madvise(first, usable, MADV_HUGEPAGE);
#endif
    if (usable - bytes < left_) {  // a piece of its own; the rest of the older chunk stays in use
      used_ += bytes;
      return first;
    }
    next_ = first;
    left_ = usable;
  }
  uint8_t* piece = next_;
  next_ += bytes;
  left_ -= bytes;
  used_ += bytes;
  return piece;
}

}  // namespace highrise
