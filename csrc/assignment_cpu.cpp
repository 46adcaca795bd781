// prior_fast::solve_assignment on the CPU: each thread solves some of the problems, one after the other.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <tuple>

#include "team_cpu.h"

namespace prior_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Rows times columns, over all problems of a thread, that are worth waking it for.
constexpr int64_t kGrain = 4096;

template <typename T>
void solve_range(const Tensor& cost, double sign, bool by_column, Tensor& answers, Tensor& status, int64_t first,
                 int64_t last) {
  const int rows = static_cast<int>(cost.size(1)), columns = static_cast<int>(cost.size(2));
  CpuSolver solver(rows, columns);
  const int* answer = by_column ? solver.tree().row_of : solver.tree().column_of;
  const int size = by_column ? columns : rows;
  for (int64_t problem = first; problem < last; ++problem) {
    const T* values = static_cast<const T*>(cost.const_data_ptr()) + problem * rows * columns;
    const Status result = solver.solve(Costs<T>{values, rows, columns, sign});
    int64_t* out = static_cast<int64_t*>(answers.mutable_data_ptr()) + problem * size;
    for (int k = 0; k < size; ++k) out[k] = result == kSolved ? answer[k] : -1;
    static_cast<int32_t*>(status.mutable_data_ptr())[problem] = result;
  }
}

// cost [B, R, C], R <= C, contiguous, float32 or float64 -> the column of each row [B, R] (by_column: the row of each
// column [B, C]) int64, -1 for none, and the status [B] int32.
std::tuple<Tensor, Tensor> solve_assignment(const Tensor& cost, bool maximize, bool by_column) {
  const int64_t problems = cost.size(0), rows = cost.size(1), columns = cost.size(2);
  Tensor answers = torch::stable::new_empty(cost, {problems, by_column ? columns : rows}, ScalarType::Long);
  Tensor status = torch::stable::new_empty(cost, {problems}, ScalarType::Int);
  const double sign = maximize ? -1.0 : 1.0;
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, rows * columns));
  torch::stable::parallel_for(0, problems, grain, [&](int64_t first, int64_t last) {
    if (cost.scalar_type() == ScalarType::Double)
      solve_range<double>(cost, sign, by_column, answers, status, first, last);
    else
      solve_range<float>(cost, sign, by_column, answers, status, first, last);
  });
  return {answers, status};
}

}  // namespace
}  // namespace prior_fast

STABLE_TORCH_LIBRARY_IMPL(prior_fast, CPU, library) {
  library.impl("solve_assignment", TORCH_BOX(&prior_fast::solve_assignment));
}
