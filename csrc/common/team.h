// A persistent team of threads that goes through the phases of a run together.
//
// A phase is a number of tasks; it is over when its tasks are done, not when every member has come: a member whose core
// was taken by another process holds up the others only by the task it has in hand, and a member that missed phases
// skips them. Waiting spins for some microseconds, then sleeps, so a team gives its time away instead of burning it.
// The caller is member 0. Members do not survive fork: the child starts new ones at its first run. Knows nothing of the
// work.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

namespace highrise {

class Team;

// One member inside a run. Every member must go through the same phases with the same numbers of tasks.
class Member {
 public:
  Member(Team& team, int index) : team_(team), index_(index) {}
  int index() const { return index_; }

  // Takes tasks 0..count-1 of the next phase as long as there are any, then waits until all are done.
  template <class Function>
  void phase(int64_t count, Function function) {
    for (int64_t task; (task = take(count)) < count;) {
      function(task);
      finish(count);
    }
    leave(count);
  }

  // Calls function(begin, end) for pieces of [0, count), about `pieces_a_member` for each member, as one phase.
  template <class Function>
  void share(int64_t count, int64_t pieces_a_member, Function function) {
    const int64_t pieces = std::max<int64_t>(1, std::min(count, team_size() * pieces_a_member));
    phase(pieces, [&](int64_t task) { function(task * count / pieces, (task + 1) * count / pieces); });
  }

 private:
  int64_t team_size() const;
  int64_t take(int64_t count);
  void finish(int64_t count);
  void leave(int64_t count);

  Team& team_;
  int index_;
  int64_t phase_ = 0;
};

class Team {
 public:
  using Work = void (*)(void* context, Member& member);

  explicit Team(int members);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return size_; }
  // Runs work on the caller and on every member that comes in time, through at most `num_phases` phases. One run at a
  // time. Nobody is inside when it returns.
  void run(Work work, void* context, int64_t num_phases);

 private:
  friend class Member;
  struct alignas(64) Phase {
    std::atomic<int64_t> next{0};
    std::atomic<uint32_t> done{0};
  };

  static void* enter(void* argument);
  void serve(int index, uint32_t seen_job);
  void start_members();
  void stop_members();
  void prepare_phases(int64_t count);

  int size_;
  long owner_process_ = 0;
  std::vector<pthread_t> threads_;
  std::vector<Phase> phases_;
  Work work_ = nullptr;
  void* context_ = nullptr;
  std::atomic<bool> stopping_{false};
  std::atomic<int> sleepers_{0};
  alignas(64) std::atomic<uint32_t> job_{0};     // counts runs
  alignas(64) std::atomic<uint32_t> open_{0};    // 1 while members may come in
  alignas(64) std::atomic<uint32_t> inside_{0};  // members in the run, the caller left out
};

inline int64_t Member::team_size() const { return team_.size(); }

}  // namespace highrise
