// prior_fast::solve_assignment on a GPU: a warp for each small problem, a block for each large one.
#include <cuda_runtime.h>

#include <cstdint>
#include <tuple>

#include "launch.h"
#include "team_cuda.h"
#include "tree_memory.h"

namespace prior_fast {
namespace {

constexpr int kWarpColumns = 128;                // the most that a warp solves
constexpr int kColumns = 4096;                   // the most that a block solves
constexpr size_t kStagedBytes = 16 * 1024;       // costs up to this size are copied to shared memory first

template <typename T>
struct Problems {
  const T* costs;    // [problems, rows, columns]
  int64_t* answers;  // [problems, rows], by_column [problems, columns]
  int32_t* status;   // [problems]
  int rows, columns;
  double sign;
  bool by_column, staged;
};

template <class Team, typename T>
__device__ void solve_problem(Team& team, const Problems<T>& problems, double* memory) {
  const int rows = problems.rows, columns = problems.columns;
  const size_t count = static_cast<size_t>(rows) * columns;
  Costs<T> costs{problems.costs + blockIdx.x * count, rows, columns, problems.sign};
  const Tree tree = tree_in(memory, rows, columns);
  if (problems.staged) {
    T* staged = reinterpret_cast<T*>(reinterpret_cast<char*>(memory) + tree_bytes(rows, columns));
    for (size_t k = team.lane(); k < count; k += team.stride()) staged[k] = costs.values[k];
    costs.values = staged;
    team.sync();
  }
  const Status status = solve(team, costs, tree);
  const int* answer = problems.by_column ? tree.row_of : tree.column_of;
  const int size = problems.by_column ? columns : rows;
  int64_t* out = problems.answers + static_cast<size_t>(blockIdx.x) * size;
  for (int k = team.lane(); k < size; k += team.stride()) out[k] = status == kSolved ? answer[k] : -1;
  if (team.lane() == 0) problems.status[blockIdx.x] = status;
}

template <int kSlots, typename T>
__global__ void __launch_bounds__(32) assignment_warp_kernel(Problems<T> problems) {
  extern __shared__ double memory[];
  WarpTeam<kSlots> team;
  solve_problem(team, problems, memory);
}

template <int kSlots, typename T>
__global__ void __launch_bounds__(1024) assignment_block_kernel(Problems<T> problems) {
  extern __shared__ double memory[];
  __shared__ Candidate exchange[2][32];
  BlockTeam<kSlots> team(exchange);
  solve_problem(team, problems, memory);
}

template <typename T>
void launch(const Tensor& cost, Tensor& answers, Tensor& status, bool maximize, bool by_column) {
  const int count = static_cast<int>(cost.size(0)), rows = static_cast<int>(cost.size(1));
  const int columns = static_cast<int>(cost.size(2));
  const size_t cost_bytes = sizeof(T) * rows * columns;
  const bool staged = columns <= kWarpColumns && cost_bytes <= kStagedBytes;
  const size_t shared = tree_bytes(rows, columns) + (staged ? cost_bytes : 0);
  const Problems<T> problems{static_cast<const T*>(cost.const_data_ptr()),
                             static_cast<int64_t*>(answers.mutable_data_ptr()),
                             static_cast<int32_t*>(status.mutable_data_ptr()),
                             rows,
                             columns,
                             maximize ? -1.0 : 1.0,
                             by_column,
                             staged};
  const auto run = [&](auto kernel, int threads) { launch_kernel(cost, kernel, count, threads, shared, problems); };
  const auto warps = [&](int slots) { return (columns + 32 * slots - 1) / (32 * slots); };
  if (columns <= 32) return run(assignment_warp_kernel<1, T>, 32);
  if (columns <= 64) return run(assignment_warp_kernel<2, T>, 32);
  if (columns <= kWarpColumns) return run(assignment_warp_kernel<4, T>, 32);
  if (columns <= 1024) return run(assignment_block_kernel<2, T>, 32 * warps(2));
  return run(assignment_block_kernel<4, T>, 32 * warps(4));
}

// cost [B, R, C], R <= C <= 4096, contiguous, float32 or float64 -> as on the CPU (assignment_cpu.cpp), without reading
// anything back: a caller that cares looks at the status when it wants to.
std::tuple<Tensor, Tensor> solve_assignment(const Tensor& cost, bool maximize, bool by_column) {
  const int64_t problems = cost.size(0), rows = cost.size(1), columns = cost.size(2);
  STD_TORCH_CHECK(rows <= columns && columns <= kColumns, "solve_assignment takes R <= C <= ", kColumns, ", got R = ",
                  rows, ", C = ", columns);
  Tensor answers = torch::stable::new_empty(cost, {problems, by_column ? columns : rows}, ScalarType::Long);
  Tensor status = torch::stable::new_empty(cost, {problems}, ScalarType::Int);
  if (problems > 0) {
    if (cost.scalar_type() == ScalarType::Double)
      launch<double>(cost, answers, status, maximize, by_column);
    else
      launch<float>(cost, answers, status, maximize, by_column);
  }
  return {answers, status};
}

}  // namespace
}  // namespace prior_fast

STABLE_TORCH_LIBRARY_IMPL(prior_fast, CUDA, library) {
  library.impl("solve_assignment", TORCH_BOX(&prior_fast::solve_assignment));
}
