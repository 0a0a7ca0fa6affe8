#include "common/team.h"

#include <unistd.h>

#include <chrono>
#include <memory>
#include <thread>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

namespace highrise {
namespace {

using Clock = std::chrono::steady_clock;

// Longer than a barrier between members that both run, far shorter than a scheduler's time slice.
constexpr auto kSpinInRun = std::chrono::microseconds(60);
// Between runs the caller samples and schedules; waking from sleep costs about 50 microseconds.
constexpr auto kSpinBetweenRuns = std::chrono::microseconds(150);

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

void sleep_while(std::atomic<uint32_t>& word, uint32_t value) {
#if defined(__linux__)
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
#else
  if (word.load(std::memory_order_acquire) == value) std::this_thread::sleep_for(std::chrono::microseconds(50));
#endif
}

void wake_all(std::atomic<uint32_t>& word) {
#if defined(__linux__)
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, 0x7fffffff, nullptr, nullptr, 0);
#else
  (void)word;
#endif
}

// Returns once word differs from value. Counts itself among the sleepers so that nobody pays for waking no one.
void wait_while(std::atomic<uint32_t>& word, std::atomic<int>& sleepers, uint32_t value, Clock::duration spin) {
  if (word.load(std::memory_order_acquire) != value) return;
  const auto end = Clock::now() + spin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (word.load(std::memory_order_acquire) != value) return;
      relax();
    }
  } while (Clock::now() < end);
  sleepers.fetch_add(1);
  while (word.load() == value) sleep_while(word, value);
  sleepers.fetch_sub(1);
}

void advance(std::atomic<uint32_t>& word, std::atomic<int>& sleepers) {
  word.fetch_add(1);
  if (sleepers.load() > 0) wake_all(word);
}

struct Entry {
  Team* team;
  int member;
  uint32_t seen_job;
};

}  // namespace

Team::Team(int members) : size_(members < 1 ? 1 : members) {}

Team::~Team() { stop_members(); }

void* Team::enter(void* argument) {
  const std::unique_ptr<Entry> entry(static_cast<Entry*>(argument));
  entry->team->serve(entry->member, entry->seen_job);
  return nullptr;
}

void Team::start_members() {
  const long process = getpid();
  if (owner_process_ == process) return;
  threads_.clear();  // after fork these are the parent's, gone from this process
  arrived_.store(0);
  task_.store(0);
  job_sleepers_.store(0);
  phase_sleepers_.store(0);
  owner_process_ = process;
  for (int member = 1; member < size_; ++member) {
    pthread_t thread;
    auto* entry = new Entry{this, member, job_.load()};
    if (pthread_create(&thread, nullptr, &Team::enter, entry) != 0) {
      delete entry;
      size_ = member;  // fewer threads are slower, not wrong
      break;
    }
    threads_.push_back(thread);
  }
}

void Team::stop_members() {
  if (threads_.empty() || owner_process_ != getpid()) return;
  stopping_ = true;
  advance(job_, job_sleepers_);
  for (pthread_t thread : threads_) pthread_join(thread, nullptr);
  threads_.clear();
}

void Team::serve(int member, uint32_t seen) {
  for (;;) {
    wait_while(job_, job_sleepers_, seen, kSpinBetweenRuns);
    seen = job_.load(std::memory_order_acquire);
    if (stopping_) return;
    work_(context_, member);
    barrier();
  }
}

void Team::run(Work work, void* context) {
  if (size_ > 1) start_members();
  task_.store(0, std::memory_order_relaxed);
  work_ = work;
  context_ = context;
  if (size_ > 1) advance(job_, job_sleepers_);
  work(context, 0);
  barrier();
}

void Team::barrier() {
  if (size_ == 1) {
    task_.store(0, std::memory_order_relaxed);
    return;
  }
  const uint32_t phase = phase_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    arrived_.store(0, std::memory_order_relaxed);
    task_.store(0, std::memory_order_relaxed);
    advance(phase_, phase_sleepers_);
    return;
  }
  wait_while(phase_, phase_sleepers_, phase, kSpinInRun);
}

}  // namespace highrise
