// prior_fast::solve_matching on the CPU: each thread makes the costs of some of the reports and solves them.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <vector>

#include "matching.h"
#include "team_cpu.h"

namespace prior_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Sums that run side by side, as the lanes of a warp do: one after the other, floats would neither be vectorized nor as
// exact.
constexpr int kSums = 16;

template <Metric kMetric, typename T>
PF_INLINE T cost_of(const T* predicted, const T* target, int channels) {
  T sums[kSums] = {}, p_squares[kSums] = {}, t_squares[kSums] = {};
  const auto add = [&](int k, int d) {
    sums[k] += channel_term<kMetric>(predicted[d], target[d]);
    if (kMetric == Metric::kCosine) {
      p_squares[k] += predicted[d] * predicted[d];
      t_squares[k] += target[d] * target[d];
    }
  };
  // Whole rounds first: their inner loop has a constant length, which lets it become vector instructions.
  int first = 0;
  for (; first + kSums <= channels; first += kSums)
    for (int k = 0; k < kSums; ++k) add(k, first + k);
  for (int k = 0; first + k < channels; ++k) add(k, first + k);
  for (int k = 1; k < kSums; ++k) {
    sums[0] += sums[k];
    p_squares[0] += p_squares[k];
    t_squares[0] += t_squares[k];
  }
  return pair_cost<kMetric>(sums[0], p_squares[0], t_squares[0]);
}

// A report's costs [queries, queries]: its sentences, then padding, zero vectors, of which one column is computed.
template <typename T>
struct Report {
  const T *prediction, *target, *zeros;
  int queries, sentences, channels;
  T* costs;
};

template <Metric kMetric, typename T>
PF_INLINE void make_costs(const Report<T>& report) {
  for (int i = 0; i < report.queries; ++i) {
    const T* predicted = report.prediction + static_cast<int64_t>(i) * report.channels;
    T* costs = report.costs + static_cast<int64_t>(i) * report.queries;
    for (int j = 0; j < report.sentences; ++j)
      costs[j] = cost_of<kMetric>(predicted, report.target + static_cast<int64_t>(j) * report.channels, report.channels);
    if (report.sentences < report.queries)
      std::fill(costs + report.sentences, costs + report.queries,
                cost_of<kMetric>(predicted, report.zeros, report.channels));
  }
}

// Vectors are chosen for functions that are no templates.
PF_CLONES void make_costs_of(Metric metric, const Report<float>& report) {
  if (metric == Metric::kL1) return make_costs<Metric::kL1>(report);
  if (metric == Metric::kL2) return make_costs<Metric::kL2>(report);
  make_costs<Metric::kCosine>(report);
}
PF_CLONES void make_costs_of(Metric metric, const Report<double>& report) {
  if (metric == Metric::kL1) return make_costs<Metric::kL1>(report);
  if (metric == Metric::kL2) return make_costs<Metric::kL2>(report);
  make_costs<Metric::kCosine>(report);
}

template <typename T>
void solve_range(const Tensor& prediction, const Tensor& target, const Tensor& cu_seqlens, Metric metric, Tensor& match,
                 Tensor& status, int64_t first, int64_t last) {
  const int queries = static_cast<int>(prediction.size(1)), channels = static_cast<int>(prediction.size(2));
  const bool wide = cu_seqlens.scalar_type() == ScalarType::Long;
  const auto offset = [&](int64_t k) {
    return wide ? static_cast<const int64_t*>(cu_seqlens.const_data_ptr())[k]
                : static_cast<const int32_t*>(cu_seqlens.const_data_ptr())[k];
  };
  CpuSolver solver(queries, queries);
  std::vector<T> costs(static_cast<size_t>(queries) * queries), zeros(channels);
  for (int64_t report = first; report < last; ++report) {
    const int64_t begin = offset(report);
    const int sentences = static_cast<int>(std::min<int64_t>(offset(report + 1) - begin, queries));
    make_costs_of(metric, Report<T>{static_cast<const T*>(prediction.const_data_ptr()) + report * queries * channels,
                                    static_cast<const T*>(target.const_data_ptr()) + begin * channels, zeros.data(),
                                    queries, sentences, channels, costs.data()});
    const Status result = solver.solve(Costs<T>{costs.data(), queries, queries, 1.0});
    int64_t* out = static_cast<int64_t*>(match.mutable_data_ptr()) + report * queries;
    for (int i = 0; i < queries; ++i) {
      const int column = result == kSolved ? solver.tree().column_of[i] : -1;
      out[i] = column < sentences ? column : -1;
    }
    static_cast<int32_t*>(status.mutable_data_ptr())[report] = result;
  }
}

// prediction [B, Q, D], target [S, D] of its dtype, float32 or float64, cu_seqlens [B + 1], all contiguous -> the
// sentence of each query [B, Q] int64, -1 for padding or where the report can't be solved, and the status [B] int32.
std::tuple<Tensor, Tensor> solve_matching(const Tensor& prediction, const Tensor& target, const Tensor& cu_seqlens,
                                          int64_t metric) {
  const int64_t reports = prediction.size(0), queries = prediction.size(1);
  Tensor match = torch::stable::new_empty(prediction, {reports, queries}, ScalarType::Long);
  Tensor status = torch::stable::new_empty(prediction, {reports}, ScalarType::Int);
  torch::stable::parallel_for(0, reports, 1, [&](int64_t first, int64_t last) {
    const Metric kind = static_cast<Metric>(metric);
    if (prediction.scalar_type() == ScalarType::Double)
      solve_range<double>(prediction, target, cu_seqlens, kind, match, status, first, last);
    else
      solve_range<float>(prediction, target, cu_seqlens, kind, match, status, first, last);
  });
  return {match, status};
}

}  // namespace
}  // namespace prior_fast

STABLE_TORCH_LIBRARY_IMPL(prior_fast, CPU, library) {
  library.impl("solve_matching", TORCH_BOX(&prior_fast::solve_matching));
}
