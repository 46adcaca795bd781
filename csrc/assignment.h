// The linear assignment problem by shortest augmenting paths.
//
// Given costs c[i][j] of R rows and C columns, R <= C, give each row a column of its own so that the sum of the costs
// is least. Dual variables u[i], v[j] keep every reduced cost c[i][j] - u[i] - v[j] at zero or above, and at zero where
// row i has column j. Rows get their columns one after the other:
//   1. Scan: from the new row, grow a shortest-path tree over reduced costs, as Dijkstra does. shortest[j] is the
//      length of the best path to an open column j so far, path[j] the row before it.
//   2. Close the open column of least length, a free one if there is a choice. If it has a row, scan from that row.
//   3. If it is free, it ends the path: the rows and columns of the tree get new duals (reduced costs stay >= 0),
//   4. and along the path, from its end, each row takes the column after it and gives up the one before.
// R augmentations of at most R scans of C columns: O(R^2 C). A cost of +inf is a pair that may not be.
//
// Jonker and Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment problems"
// (Computing 38, 1987), in the form for rectangular matrices of Crouse, "On implementing 2D rectangular assignment
// algorithms" (IEEE TAES 52, 2016), without a heuristic start. Duals and lengths are float64 whatever the costs are, so
// that float32 costs of very different size still give the optimum.
//
// A Team runs it: a warp or a block of a GPU (team_cuda.h), or a CPU thread that plays lanes in a loop (team_cpu.h).
// Lane l owns the columns slot * lanes + l; team.each(slot, columns, f) calls f(lane, column) for those that exist. All
// teams take the same steps and break ties alike, so that what is tested on a CPU is what runs on a GPU.
#pragma once

#include <cmath>
#include <cstddef>

#include "portable.h"

namespace prior_fast {

// What became of a problem; the values are part of the Python interface.
enum Status : int { kSolved = 0, kInvalid = 1, kInfeasible = 2 };

// Costs of a problem, row after row, rows <= columns; sign -1 looks for the greatest sum.
template <typename T>
struct Costs {
  const T* values;
  int rows, columns;
  double sign;
};

// What all lanes share. Closed columns are listed in the order of their closing, with their lengths.
struct Tree {
  double *u, *v;             // [rows], [columns]: duals
  int *column_of, *row_of;   // [rows], [columns]: the assignment, -1 for none
  int *path, *closed;        // [columns], [rows]
  double* closed_length;     // [rows]
};

// An open column. The rank is its number, after a bit that is set where it has a row: of equal lengths, the least rank
// is the first free column.
struct Candidate {
  double length;
  unsigned rank;
};

constexpr unsigned kTaken = 1u << 31;

PF_INLINE bool comes_before(const Candidate& a, const Candidate& b) {
  return (a.length < b.length) | ((a.length == b.length) & (a.rank < b.rank));
}

// Whether sums with this cost can't be compared: NaN, or minus infinity.
PF_INLINE bool is_invalid(double cost) { return !(cost > -HUGE_VAL); }

template <class Team, typename T>
PF_INLINE bool has_invalid(Team& team, const Costs<T>& costs) {
  // Looked for before the search, which would pass over a NaN silently: it compares false with every length.
  bool invalid = false;
  const size_t count = static_cast<size_t>(costs.rows) * costs.columns;
  for (size_t k = team.lane(); k < count; k += team.stride()) invalid |= is_invalid(costs.sign * costs.values[k]);
  return team.any(invalid);
}

// Goes on from row i, which is `length` away, to all open columns; the one that is nearest then.
template <class Team, typename T>
PF_INLINE Candidate scan(Team& team, const Costs<T>& costs, const Tree& tree, int i, double length) {
  const T* row = costs.values + static_cast<size_t>(i) * costs.columns;
  // The same in all lanes, so it is made once a scan and not once a cost.
  const double base = length - tree.u[i];
  team.forget_best();
  PF_UNROLL
  for (int slot = 0; slot < team.slots(); ++slot) {
    team.each(slot, costs.columns, [&](int lane, int j) {
      const double reached = base + costs.sign * static_cast<double>(row[j]) - tree.v[j];
      double& shortest = team.shortest(slot, lane);  // minus infinity once the column is closed
      // Selects in place of branches: the lanes of a warp stay together, and the CPU's loop over lanes is vectorized.
      // Only the lane that owns j reads or writes path[j] during the search, so scans need no barrier for it.
      const bool better = reached < shortest;
      shortest = better ? reached : shortest;
      tree.path[j] = better ? i : tree.path[j];
      // ~row_of[j] is 0 for a free column, whose row is -1, and has the top bit, kTaken, set for every other.
      const Candidate here{shortest == -HUGE_VAL ? HUGE_VAL : shortest, (~tree.row_of[j] & kTaken) | j};
      const bool before = comes_before(here, {team.best_length(lane), team.best_rank(lane)});
      team.best_length(lane) = before ? here.length : team.best_length(lane);
      team.best_rank(lane) = before ? here.rank : team.best_rank(lane);
    });
  }
  return team.least();
}

// Fills tree.column_of and tree.row_of; they mean nothing unless the result is kSolved.
template <class Team, typename T>
PF_INLINE Status solve(Team& team, const Costs<T>& costs, const Tree& tree) {
  if (has_invalid(team, costs)) return kInvalid;
  for (int i = team.lane(); i < costs.rows; i += team.stride()) {
    tree.u[i] = 0;
    tree.column_of[i] = -1;
  }
  for (int j = team.lane(); j < costs.columns; j += team.stride()) {
    tree.v[j] = 0;
    tree.row_of[j] = -1;
  }
  team.sync();

  for (int start = 0; start < costs.rows; ++start) {
    // Searches follow one another, and so do the scans of a search. A problem takes the time of all its scans in a row,
    // however many lanes it has.
    team.open_all();
    Candidate nearest{0, 0};
    int closed = 0, end = -1;
    for (int i = start; i >= 0; i = tree.row_of[end]) {
      nearest = scan(team, costs, tree, i, nearest.length);
      // All lanes have the same candidate, so they leave together, and `end` needs no shared memory.
      if (nearest.length == HUGE_VAL) return kInfeasible;
      end = nearest.rank & ~kTaken;
      team.close(end);
      if (team.lane() == 0) {
        tree.closed[closed] = end;
        tree.closed_length[closed] = nearest.length;
      }
      ++closed;
    }
    team.sync();

    // The last column closed is the free one; it has no row, and its dual stays.
    // Only the tree's rows and columns get new duals. Each k has a row and a column of its own: lanes do not collide.
    for (int k = team.lane(); k < closed - 1; k += team.stride()) {
      const double change = nearest.length - tree.closed_length[k];
      tree.v[tree.closed[k]] -= change;
      tree.u[tree.row_of[tree.closed[k]]] += change;
    }
    if (team.lane() == 0) tree.u[start] += nearest.length;
    team.sync();

    // One lane: each step needs the one before, and a path has no more steps than the tree has rows.
    if (team.lane() == 0) {
      for (int j = end, i = -1; i != start;) {
        i = tree.path[j];
        const int before = tree.column_of[i];
        tree.row_of[j] = i;
        tree.column_of[i] = j;
        j = before;
      }
    }
    team.sync();
  }
  return kSolved;
}

}  // namespace prior_fast
