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

// Longer than the end of a phase while all members run, far shorter than a scheduler's time slice.
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

// Returns once reached(word). Counts itself among the sleepers so that nobody pays for waking no one.
template <class Reached>
void wait_until(std::atomic<uint32_t>& word, std::atomic<int>& sleepers, Clock::duration spin, Reached reached) {
  if (reached(word.load(std::memory_order_acquire))) return;
  const auto end = Clock::now() + spin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (reached(word.load(std::memory_order_acquire))) return;
      relax();
    }
  } while (Clock::now() < end);
  sleepers.fetch_add(1);
  for (uint32_t value; !reached(value = word.load());) sleep_while(word, value);
  sleepers.fetch_sub(1);
}

void wake_sleepers(std::atomic<uint32_t>& word, std::atomic<int>& sleepers) {
  if (sleepers.load() > 0) wake_all(word);
}

struct Entry {
  Team* team;
  int index;
  uint32_t seen_job;
};

}  // namespace

int64_t Member::take(int64_t) {
  return team_.phases_[static_cast<size_t>(phase_)].next.fetch_add(1, std::memory_order_relaxed);
}

void Member::finish(int64_t count) {
  std::atomic<uint32_t>& done = team_.phases_[static_cast<size_t>(phase_)].done;
  if (done.fetch_add(1) + 1 == static_cast<uint32_t>(count)) wake_sleepers(done, team_.sleepers_);
}

void Member::leave(int64_t count) {
  wait_until(team_.phases_[static_cast<size_t>(phase_)].done, team_.sleepers_, kSpinInRun,
             [count](uint32_t done) { return done >= static_cast<uint32_t>(count); });
  ++phase_;
}

Team::Team(int members) : size_(members < 1 ? 1 : members) {}

Team::~Team() { stop_members(); }

void* Team::enter(void* argument) {
  const std::unique_ptr<Entry> entry(static_cast<Entry*>(argument));
  entry->team->serve(entry->index, entry->seen_job);
  return nullptr;
}

void Team::start_members() {
  const long process = getpid();
  if (owner_process_ == process) return;
  threads_.clear();  // after fork these are the parent's, gone from this process
  sleepers_.store(0);
  inside_.store(0);
  owner_process_ = process;
  for (int index = 1; index < size_; ++index) {
    pthread_t thread;
    auto* entry = new Entry{this, index, job_.load()};
    if (pthread_create(&thread, nullptr, &Team::enter, entry) != 0) {
      delete entry;  // fewer threads are slower, not wrong
      break;
    }
    threads_.push_back(thread);
  }
}

void Team::stop_members() {
  if (threads_.empty() || owner_process_ != getpid()) return;
  stopping_.store(true);
  job_.fetch_add(1);
  wake_all(job_);
  for (pthread_t thread : threads_) pthread_join(thread, nullptr);
  threads_.clear();
}

void Team::serve(int index, uint32_t seen) {
  for (;;) {
    wait_until(job_, sleepers_, kSpinBetweenRuns, [seen](uint32_t job) { return job != seen; });
    seen = job_.load();
    if (stopping_.load()) return;
    inside_.fetch_add(1);
    if (open_.load() != 0) {  // the caller closes before it looks who is inside
      Member member(*this, index);
      work_(context_, member);
    }
    if (inside_.fetch_sub(1) == 1) wake_sleepers(inside_, sleepers_);
  }
}

void Team::prepare_phases(int64_t count) {
  if (phases_.size() < static_cast<size_t>(count)) phases_ = std::vector<Phase>(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    phases_[static_cast<size_t>(i)].next.store(0, std::memory_order_relaxed);
    phases_[static_cast<size_t>(i)].done.store(0, std::memory_order_relaxed);
  }
}

void Team::run(Work work, void* context, int64_t num_phases) {
  if (size_ > 1) start_members();
  prepare_phases(num_phases);
  work_ = work;
  context_ = context;
  if (size_ > 1) {
    open_.store(1);
    job_.fetch_add(1);
    wake_sleepers(job_, sleepers_);
  }
  Member member(*this, 0);
  work(context, member);
  if (size_ > 1) {
    open_.store(0);
    wait_until(inside_, sleepers_, kSpinInRun, [](uint32_t inside) { return inside == 0; });
  }
}

}  // namespace highrise
