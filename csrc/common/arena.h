// Memory for weights: few large mappings on huge pages, given out in 64-byte aligned pieces, freed all at once.
// Knows nothing of what is stored. Not safe for two threads at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace highrise {

class Arena {
 public:
  Arena() = default;
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Zeroed bytes that live as long as the arena; nullptr when the system has no more memory.
  uint8_t* allocate(size_t bytes);
  // Gives everything back; all pieces become invalid.
  void clear();
  // Bytes given out so far.
  size_t used() const { return used_; }

 private:
  struct Chunk {
    void* base;
    size_t bytes;
  };
  std::vector<Chunk> chunks_;
  uint8_t* next_ = nullptr;
  size_t left_ = 0;
  size_t used_ = 0;
};

}  // namespace highrise
