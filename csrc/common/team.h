// A persistent team of threads that runs one function together, with barriers that spin for a moment and then sleep.
//
// The caller is member 0. A member that waits spins only some microseconds, so a team whose cores are taken by another
// process gives its time away instead of burning it. Members do not survive fork: the child starts new ones at its
// first run. Knows nothing of what it runs.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <vector>

namespace highrise {

class Team {
 public:
  using Work = void (*)(void* context, int member);

  explicit Team(int members);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return size_; }
  // Runs work(context, member) once on every member and returns when all are done. One run at a time.
  void run(Work work, void* context);
  // Inside a run: waits until every member has arrived, and sets the task counter back to zero.
  void barrier();
  // Inside a run: the next task number since the last barrier, each number given to one member only.
  int64_t next_task() { return task_.fetch_add(1, std::memory_order_relaxed); }

 private:
  static void* enter(void* argument);
  void serve(int member, uint32_t seen_job);
  void start_members();
  void stop_members();

  int size_;
  long owner_process_ = 0;
  std::vector<pthread_t> threads_;
  Work work_ = nullptr;
  void* context_ = nullptr;
  bool stopping_ = false;
  alignas(64) std::atomic<uint32_t> job_{0};
  std::atomic<int> job_sleepers_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
  std::atomic<int> phase_sleepers_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int64_t> task_{0};
};

}  // namespace highrise
