// Costs and assignment of a report in one block, in one launch for all reports.
#include "launch_cuda.h"
#include "matching.h"
#include "narrow_floats.h"
#include "team_cuda.h"
#include "tree_memory.h"

namespace prior_fast {
namespace {

// 16 warps: as many as a full report of PRIOR, 16 queries and 16 columns, has tiles, so that each warp makes one.
constexpr int kThreads = 512;
constexpr int kTile = 4;  // a warp makes kTile x kTile costs from 2 kTile loads a channel

__device__ int64_t offset_of(const MatchingArguments& arguments, int report) {
  return arguments.wide_offsets ? static_cast<const int64_t*>(arguments.cu_seqlens)[report]
                                : static_cast<const int32_t*>(arguments.cu_seqlens)[report];
}

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
  // Lanes share the channels of a tile, not its pairs: neighbouring lanes read neighbouring channels. An H200 takes
  // 55 us for costs and assignments of 128 reports in float32, and 81 us in bfloat16, half the bytes (docs/h200.md).
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const int down = (queries + kTile - 1) / kTile, across = (columns + kTile - 1) / kTile;
  for (int tile = threadIdx.x / 32; tile < down * across; tile += warps) {
    const int row = tile / across * kTile, column = tile % across * kTile;
    // All in registers, which constant loop ends allow. For L1 and L2 the squares are dead and the compiler drops them:
    // the kernel takes 40 registers in place of the cosine's 50 (float32, sm_80).
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
        // 16 sums of five shuffles each, once a tile: few beside the 24 rounds over 768 channels.
        const A sum = warp_sum(sums[i][j]);
        if (lane == 0 && row + i < queries && column + j < columns)
          costs[(row + i) * queries + column + j] = pair_cost<kMetric>(sum, p_squares[i], t_squares[j]);
      }
  }
}

template <Metric kMetric, typename A, typename T>
__global__ void __launch_bounds__(kThreads) matching_kernel(MatchingArguments arguments) {
  extern __shared__ double memory[];
  const int queries = arguments.queries, channels = arguments.channels;
  // The tree and the costs of 16 queries are 1.7 KB of shared memory: costs never reach the device's memory.
  const Tree tree = tree_in(memory, queries, queries);
  A* costs = reinterpret_cast<A*>(reinterpret_cast<char*>(memory) + tree_bytes(queries, queries));

  const int64_t first = offset_of(arguments, blockIdx.x);
  // Offsets are not checked here; wrong ones must not lead out of the shared memory.
  const int64_t length = offset_of(arguments, blockIdx.x + 1) - first;
  const int sentences = static_cast<int>(max(int64_t{0}, min(length, static_cast<int64_t>(queries))));
  // All padding is alike: one column of it is enough, and is copied.
  const int columns = min(sentences + 1, queries);
  tile_costs<kMetric, A>(static_cast<const T*>(arguments.prediction) + static_cast<size_t>(blockIdx.x) * queries * channels,
                         static_cast<const T*>(arguments.target) + first * channels, sentences, columns, queries,
                         channels, costs);
  __syncthreads();
  // One warp solves, a column a lane. The others leave, so nothing below may wait for the block.
  if (threadIdx.x >= 32) return;
  for (int k = threadIdx.x; k < queries * queries; k += 32)
    if (k % queries >= columns) costs[k] = costs[k / queries * queries + columns - 1];
  __syncwarp();

  WarpTeam<1> team;
  const Status status = solve(team, Costs<A>{costs, queries, queries, 1.0}, tree);
  for (int i = threadIdx.x; i < queries; i += 32) {
    const int column = status == kSolved ? tree.column_of[i] : -1;
    arguments.match[static_cast<size_t>(blockIdx.x) * queries + i] = column < sentences ? column : -1;
  }
  if (threadIdx.x == 0) arguments.status[blockIdx.x] = status;
}

template <Metric kMetric, typename A, typename T>
cudaError_t launch(const MatchingArguments& arguments, cudaStream_t stream) {
  const size_t queries = arguments.queries, shared = tree_bytes(queries, queries) + sizeof(A) * queries * queries;
  const cudaError_t error = allow_shared_memory(matching_kernel<kMetric, A, T>, shared);
  if (error != cudaSuccess) return error;
  matching_kernel<kMetric, A, T><<<arguments.reports, kThreads, shared, stream>>>(arguments);
  return cudaGetLastError();
}

template <Metric kMetric>
cudaError_t by_type(const MatchingArguments& arguments, Float type, cudaStream_t stream) {
  switch (type) {
    case Float::kFloat64:
      return launch<kMetric, double, double>(arguments, stream);
    case Float::kBFloat16:
      return launch<kMetric, float, BFloat16>(arguments, stream);
    case Float::kFloat16:
      return launch<kMetric, float, Float16>(arguments, stream);
    default:
      return launch<kMetric, float, float>(arguments, stream);
  }
}

}  // namespace

cudaError_t launch_matching(const MatchingArguments& arguments, Float type, Metric metric, cudaStream_t stream) {
  switch (metric) {
    case Metric::kL1:
      return by_type<Metric::kL1>(arguments, type, stream);
    case Metric::kL2:
      return by_type<Metric::kL2>(arguments, type, stream);
    default:
      return by_type<Metric::kCosine>(arguments, type, stream);
  }
}

}  // namespace prior_fast
