// Runs a block of CUDA threads on one CPU thread: each is a fibre with its own stack, and barriers are real: a fibre
// that arrives sleeps until the last one has arrived. A barrier that some never reach is found and reported, not waited
// for.
//
// Fibres run in an order that a seed shuffles at every turn, so a missing barrier changes results between seeds. Shared
// memory is poisoned before every block and has a guard behind it.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace cuda_on_cpu {

struct Options {
  unsigned seed = 0;          // 0: in order of thread numbers
  bool eager_copies = false;  // cp.async lands at once; otherwise as late as its wait allows
};

inline Options options;
inline std::string last_error;

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

// What one lane shows to the others of its warp; two sets, so that one barrier an exchange is enough.
struct LaneSlot {
  float value[2];
  std::uint32_t a[2][4];
  std::uint32_t b[2][2];
};

struct Copy {
  void* to;
  const void* from;
  bool valid;
};

struct Fibre {
  ucontext_t context;
  std::unique_ptr<unsigned char[]> stack;
  enum class State { kReady, kAtBlockBarrier, kAtWarpBarrier, kDone } state = State::kReady;
  unsigned exchanges = 0;
  LaneSlot slot;
  std::vector<std::vector<Copy>> committed;
  std::vector<Copy> started;
};

class Block {
 public:
  static constexpr std::size_t kStackBytes = 256 << 10;
  static constexpr std::size_t kGuardBytes = 4096;

  Block(unsigned threads, std::size_t shared_bytes) : fibres(threads), shared_bytes_(shared_bytes) {
    shared.resize(shared_bytes + kGuardBytes + 16);
    for (auto& fibre : fibres) fibre.stack.reset(new unsigned char[kStackBytes]);
  }

  unsigned char* shared_begin() {
    auto address = reinterpret_cast<std::uintptr_t>(shared.data());
    return shared.data() + (16 - address % 16) % 16;
  }

  void run(const std::function<void()>& body) {
    body_ = &body;
    std::fill(shared.begin(), shared.end(), static_cast<unsigned char>(0xff));
    for (auto& fibre : fibres) {
      fibre.state = Fibre::State::kReady;
      fibre.exchanges = 0;
      fibre.committed.clear();
      fibre.started.clear();
      getcontext(&fibre.context);
      fibre.context.uc_stack.ss_sp = fibre.stack.get();
      fibre.context.uc_stack.ss_size = kStackBytes;
      fibre.context.uc_link = &scheduler_;
      makecontext(&fibre.context, &Block::enter, 0);
    }
    current_block = this;
    std::vector<unsigned> order(fibres.size());
    for (unsigned i = 0; i < order.size(); ++i) order[i] = i;
    std::mt19937 generator(options.seed);
    for (bool alive = true; alive;) {
      alive = false;
      bool moved = false;
      if (options.seed != 0) std::shuffle(order.begin(), order.end(), generator);
      for (unsigned thread : order) {
        if (fibres[thread].state == Fibre::State::kReady) {
          current = thread;
          swapcontext(&scheduler_, &fibres[thread].context);
          moved = true;
        }
        alive = alive || fibres[thread].state != Fibre::State::kDone;
      }
      if (alive && !moved) throw std::runtime_error("a barrier was not reached by all threads");
    }
    const unsigned char* guard = shared_begin() + shared_bytes_;
    for (std::size_t i = 0; i < kGuardBytes; ++i) {
      if (guard[i] != 0xff) throw std::runtime_error("shared memory was written past its end");
    }
  }

  void block_barrier() { arrive(Fibre::State::kAtBlockBarrier, 0, fibres.size()); }

  void warp_barrier() {
    const std::size_t first = current / 32 * 32;
    arrive(Fibre::State::kAtWarpBarrier, first, std::min(first + 32, fibres.size()));
  }

  Fibre& self() { return fibres[current]; }
  Fibre& lane(unsigned number) { return fibres[current / 32 * 32 + number]; }

  std::vector<Fibre> fibres;
  std::vector<unsigned char> shared;
  unsigned current = 0;

  static inline Block* current_block = nullptr;

 private:
  static void enter() {
    Block* block = current_block;
    (*block->body_)();
    block->self().state = Fibre::State::kDone;
    block->release(Fibre::State::kAtBlockBarrier, 0, block->fibres.size());
    const std::size_t first = block->current / 32 * 32;
    block->release(Fibre::State::kAtWarpBarrier, first, std::min(first + 32, block->fibres.size()));
  }

  // Lets the waiting go on when every living fibre of the range waits at this kind of barrier.
  bool release(Fibre::State barrier, std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      if (fibres[i].state != barrier && fibres[i].state != Fibre::State::kDone) return false;
    }
    for (std::size_t i = begin; i < end; ++i) {
      if (fibres[i].state == barrier) fibres[i].state = Fibre::State::kReady;
    }
    return true;
  }

  void arrive(Fibre::State barrier, std::size_t begin, std::size_t end) {
    Fibre& own = self();
    own.state = barrier;
    release(barrier, begin, end);
    swapcontext(&own.context, &scheduler_);
  }

  std::size_t shared_bytes_;
  const std::function<void()>* body_ = nullptr;
  ucontext_t scheduler_{};
};

}  // namespace cuda_on_cpu
