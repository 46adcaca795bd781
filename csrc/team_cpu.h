// A CPU thread that plays a warp: what the lanes do side by side is a loop of fixed length, which compilers vectorize.
#pragma once

#include <cmath>
#include <vector>

#include "assignment.h"
#include "tree_memory.h"

namespace prior_fast {

class LoopTeam {
 public:
  // Eight float64 are one vector of AVX-512 and two of AVX2.
  static constexpr int kLanes = 8;

  explicit LoopTeam(int columns) : shortest_((columns + kLanes - 1) / kLanes * kLanes) {}

  // Steps that are not worth a vector are taken by one lane.
  static PF_INLINE int lane() { return 0; }
  static PF_INLINE int stride() { return 1; }
  static PF_INLINE bool any(bool mine) { return mine; }
  static PF_INLINE void sync() {}

  PF_INLINE int slots() const { return static_cast<int>(shortest_.size()) / kLanes; }
  PF_INLINE double& shortest(int slot, int lane) { return shortest_[slot * kLanes + lane]; }
  PF_INLINE double& best_length(int lane) { return best_length_[lane]; }
  PF_INLINE unsigned& best_rank(int lane) { return best_rank_[lane]; }
  PF_INLINE void open_all() { shortest_.assign(shortest_.size(), HUGE_VAL); }
  PF_INLINE void close(int column) { shortest_[column] = -HUGE_VAL; }

  template <class F>
  PF_INLINE void each(int slot, int columns, F f) {
    const int first = slot * kLanes;
    if (first + kLanes <= columns) {
      // Lanes write different columns, which the compiler cannot know of pointers.
#pragma GCC ivdep
      for (int lane = 0; lane < kLanes; ++lane) f(lane, first + lane);
    } else {
      for (int lane = 0; first + lane < columns; ++lane) f(lane, first + lane);
    }
  }

  PF_INLINE void forget_best() {
    for (int lane = 0; lane < kLanes; ++lane) {
      best_length_[lane] = HUGE_VAL;
      best_rank_[lane] = ~0u;
    }
  }
  PF_INLINE Candidate least() const {
    Candidate least{best_length_[0], best_rank_[0]};
    for (int lane = 1; lane < kLanes; ++lane) {
      const Candidate other{best_length_[lane], best_rank_[lane]};
      if (comes_before(other, least)) least = other;
    }
    return least;
  }

 private:
  std::vector<double> shortest_;
  double best_length_[kLanes];
  unsigned best_rank_[kLanes];
};

// A thread's memory for problems of one size.
class CpuSolver {
 public:
  CpuSolver(int rows, int columns)
      : team_(columns),
        memory_(tree_bytes(rows, columns) / sizeof(double) + 1),
        tree_(tree_in(memory_.data(), rows, columns)) {}

  Status solve(const Costs<float>& costs) { return solve_float(team_, costs, tree_); }
  Status solve(const Costs<double>& costs) { return solve_double(team_, costs, tree_); }
  const Tree& tree() const { return tree_; }

 private:
  // Vectors are chosen for a function that is no template.
  PF_CLONES static Status solve_float(LoopTeam& team, const Costs<float>& costs, const Tree& tree) {
    return prior_fast::solve(team, costs, tree);
  }
  PF_CLONES static Status solve_double(LoopTeam& team, const Costs<double>& costs, const Tree& tree) {
    return prior_fast::solve(team, costs, tree);
  }

  LoopTeam team_;
  std::vector<double> memory_;
  Tree tree_;
};

}  // namespace prior_fast
