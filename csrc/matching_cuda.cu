// prior_fast::solve_matching on a GPU: costs and assignment of a report in one block, in one launch for all reports.
#include <cuda_runtime.h>

#include <cstdint>
#include <tuple>

#include "launch.h"
#include "matching.h"
#include "narrow_floats.h"
#include "team_cuda.h"
#include "tree_memory.h"

namespace prior_fast {
namespace {

constexpr int kThreads = 512;
constexpr int kTile = 4;      // a warp makes kTile x kTile costs from 2 kTile loads a channel
constexpr int kQueries = 32;  // the most that the one warp which solves takes, a column a lane

template <typename T>
struct Reports {
  const T* prediction;     // [reports, queries, channels]
  const T* target;         // [sentences, channels]
  const void* cu_seqlens;  // [reports + 1], int64 or int32
  bool wide_offsets;
  int64_t* match;   // [reports, queries]
  int32_t* status;  // [reports]
  int queries, channels;

  __device__ int64_t offset(int report) const {
    return wide_offsets ? static_cast<const int64_t*>(cu_seqlens)[report]
                        : static_cast<const int32_t*>(cu_seqlens)[report];
  }
};

template <typename A>
__device__ A warp_sum(A value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(kAllLanes, value, offset);
  return value;
}

// Costs of the queries with columns 0 .. columns - 1 into costs [queries, queries]; columns from `sentences` on are
// padding, zero vectors.
template <Metric kMetric, typename A, typename T>
__device__ void tile_costs(const T* prediction, const T* target, int sentences, int columns, int queries, int channels,
                           A* costs) {
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const int down = (queries + kTile - 1) / kTile, across = (columns + kTile - 1) / kTile;
  for (int tile = threadIdx.x / 32; tile < down * across; tile += warps) {
    const int row = tile / across * kTile, column = tile % across * kTile;
    A sums[kTile][kTile] = {}, p_squares[kTile] = {}, t_squares[kTile] = {};
    for (int d = lane; d < channels; d += 32) {
      A p[kTile], t[kTile];
#pragma unroll
      for (int k = 0; k < kTile; ++k) {
        p[k] = row + k < queries ? static_cast<A>(prediction[static_cast<size_t>(row + k) * channels + d]) : A(0);
        t[k] = column + k < sentences ? static_cast<A>(target[static_cast<size_t>(column + k) * channels + d]) : A(0);
        p_squares[k] += p[k] * p[k];
        t_squares[k] += t[k] * t[k];
      }
#pragma unroll
      for (int i = 0; i < kTile; ++i)
#pragma unroll
        for (int j = 0; j < kTile; ++j) sums[i][j] += channel_term<kMetric>(p[i], t[j]);
    }
    if (kMetric == Metric::kCosine) {
#pragma unroll
      for (int k = 0; k < kTile; ++k) {
        p_squares[k] = warp_sum(p_squares[k]);
        t_squares[k] = warp_sum(t_squares[k]);
      }
    }
#pragma unroll
    for (int i = 0; i < kTile; ++i)
#pragma unroll
      for (int j = 0; j < kTile; ++j) {
        const A sum = warp_sum(sums[i][j]);
        if (lane == 0 && row + i < queries && column + j < columns)
          costs[(row + i) * queries + column + j] = pair_cost<kMetric>(sum, p_squares[i], t_squares[j]);
      }
  }
}

template <Metric kMetric, typename A, typename T>
__global__ void __launch_bounds__(kThreads) matching_kernel(Reports<T> reports) {
  extern __shared__ double memory[];
  const int queries = reports.queries, channels = reports.channels;
  const Tree tree = tree_in(memory, queries, queries);
  A* costs = reinterpret_cast<A*>(reinterpret_cast<char*>(memory) + tree_bytes(queries, queries));

  const int64_t first = reports.offset(blockIdx.x);
  const int sentences = static_cast<int>(min(reports.offset(blockIdx.x + 1) - first, static_cast<int64_t>(queries)));
  // All padding is alike: one column of it is enough, and is copied.
  const int columns = min(sentences + 1, queries);
  tile_costs<kMetric, A>(reports.prediction + static_cast<size_t>(blockIdx.x) * queries * channels,
                         reports.target + first * channels, sentences, columns, queries, channels, costs);
  __syncthreads();
  if (threadIdx.x >= 32) return;
  for (int k = threadIdx.x; k < queries * queries; k += 32)
    if (k % queries >= columns) costs[k] = costs[k / queries * queries + columns - 1];
  __syncwarp();

  WarpTeam<1> team;
  const Status status = solve(team, Costs<A>{costs, queries, queries, 1.0}, tree);
  for (int i = threadIdx.x; i < queries; i += 32) {
    const int column = status == kSolved ? tree.column_of[i] : -1;
    reports.match[static_cast<size_t>(blockIdx.x) * queries + i] = column < sentences ? column : -1;
  }
  if (threadIdx.x == 0) reports.status[blockIdx.x] = status;
}

template <Metric kMetric, typename A, typename T>
void launch(const Tensor& prediction, const Tensor& target, const Tensor& cu_seqlens, Tensor& match, Tensor& status) {
  const int queries = static_cast<int>(prediction.size(1)), channels = static_cast<int>(prediction.size(2));
  const Reports<T> reports{static_cast<const T*>(prediction.const_data_ptr()),
                           static_cast<const T*>(target.const_data_ptr()),
                           cu_seqlens.const_data_ptr(),
                           cu_seqlens.scalar_type() == ScalarType::Long,
                           static_cast<int64_t*>(match.mutable_data_ptr()),
                           static_cast<int32_t*>(status.mutable_data_ptr()),
                           queries,
                           channels};
  const size_t shared = tree_bytes(queries, queries) + sizeof(A) * queries * queries;
  launch_kernel(prediction, matching_kernel<kMetric, A, T>, static_cast<int>(prediction.size(0)), kThreads, shared,
                reports);
}

template <Metric kMetric>
void by_dtype(const Tensor& prediction, const Tensor& target, const Tensor& cu_seqlens, Tensor& match, Tensor& status) {
  switch (prediction.scalar_type()) {
    case ScalarType::Double:
      return launch<kMetric, double, double>(prediction, target, cu_seqlens, match, status);
    case ScalarType::BFloat16:
      return launch<kMetric, float, BFloat16>(prediction, target, cu_seqlens, match, status);
    case ScalarType::Half:
      return launch<kMetric, float, Float16>(prediction, target, cu_seqlens, match, status);
    default:
      return launch<kMetric, float, float>(prediction, target, cu_seqlens, match, status);
  }
}

// prediction [B, Q, D], Q <= 32, target [S, D] of its dtype, cu_seqlens [B + 1], all contiguous -> the sentence of each
// query [B, Q] int64, -1 for padding or where the report can't be solved, and the status [B] int32.
std::tuple<Tensor, Tensor> solve_matching(const Tensor& prediction, const Tensor& target, const Tensor& cu_seqlens,
                                          int64_t metric) {
  const int64_t reports = prediction.size(0), queries = prediction.size(1);
  STD_TORCH_CHECK(queries <= kQueries, "solve_matching takes Q <= ", kQueries, ", got ", queries);
  Tensor match = torch::stable::new_empty(prediction, {reports, queries}, ScalarType::Long);
  Tensor status = torch::stable::new_empty(prediction, {reports}, ScalarType::Int);
  if (reports == 0) return {match, status};
  switch (static_cast<Metric>(metric)) {
    case Metric::kL1:
      by_dtype<Metric::kL1>(prediction, target, cu_seqlens, match, status);
      break;
    case Metric::kL2:
      by_dtype<Metric::kL2>(prediction, target, cu_seqlens, match, status);
      break;
    default:
      by_dtype<Metric::kCosine>(prediction, target, cu_seqlens, match, status);
  }
  return {match, status};
}

}  // namespace
}  // namespace prior_fast

STABLE_TORCH_LIBRARY_IMPL(prior_fast, CUDA, library) {
  library.impl("solve_matching", TORCH_BOX(&prior_fast::solve_matching));
}
