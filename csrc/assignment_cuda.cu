// The assignment solver on a GPU: a warp for each small problem, a block for each large one.
#include "launch_cuda.h"
#include "team_cuda.h"
#include "tree_memory.h"

namespace prior_fast {
namespace {

// The most columns that a warp solves, four a lane: a warp's minimum takes shuffles or redux.sync, a block's a barrier.
constexpr int kWarpColumns = 128;
// Costs up to this size are copied to shared memory first: a row may be scanned once for each row that is added. Larger
// ones would leave the multiprocessor few blocks, and come from the caches.
constexpr size_t kStagedBytes = 16 * 1024;

// One problem a block: problems take different numbers of scans, and none waits for another. Latency sets the time of
// small batches: an H200 takes 35 us for 128 and for 512 problems of 16 x 16 in bfloat16 (docs/h200.md).
template <class Team, typename T>
__device__ void solve_problem(Team& team, const AssignmentArguments& arguments, bool staged, double* memory) {
  const int rows = arguments.rows, columns = arguments.columns;
  const size_t count = static_cast<size_t>(rows) * columns;
  Costs<T> costs{static_cast<const T*>(arguments.costs) + blockIdx.x * count, rows, columns, arguments.sign};
  const Tree tree = tree_in(memory, rows, columns);
  if (staged) {
    T* copy = reinterpret_cast<T*>(reinterpret_cast<char*>(memory) + tree_bytes(rows, columns));
    // Neighbouring lanes read neighbouring costs.
    for (size_t k = team.lane(); k < count; k += team.stride()) copy[k] = costs.values[k];
    costs.values = copy;
    team.sync();
  }
  const Status status = solve(team, costs, tree);
  const int* answer = arguments.by_column ? tree.row_of : tree.column_of;
  const int size = arguments.by_column ? columns : rows;
  int64_t* out = arguments.answers + static_cast<size_t>(blockIdx.x) * size;
  for (int k = team.lane(); k < size; k += team.stride()) out[k] = status == kSolved ? answer[k] : -1;
  if (team.lane() == 0) arguments.status[blockIdx.x] = status;
}

// Registers hold all that a lane keeps (team_cuda.h): 40 to 44 in the warp's kernels and 30 to 32 in the block's,
// without a stack, as built for sm_80 and sm_90. Shared memory holds the duals, the tree and staged costs.
template <int kSlots, typename T>
__global__ void __launch_bounds__(32) assignment_warp_kernel(AssignmentArguments arguments, bool staged) {
  extern __shared__ double memory[];
  WarpTeam<kSlots> team;
  solve_problem<WarpTeam<kSlots>, T>(team, arguments, staged, memory);
}

template <int kSlots, typename T>
__global__ void __launch_bounds__(1024) assignment_block_kernel(AssignmentArguments arguments, bool staged) {
  extern __shared__ double memory[];
  // Two buffers of one candidate a warp, for 32 warps at most (BlockTeam).
  __shared__ Candidate exchange[2][32];
  BlockTeam<kSlots> team(exchange);
  solve_problem<BlockTeam<kSlots>, T>(team, arguments, staged, memory);
}

template <typename T>
cudaError_t launch(const AssignmentArguments& arguments, cudaStream_t stream) {
  const int rows = arguments.rows, columns = arguments.columns;
  const size_t cost_bytes = sizeof(T) * rows * columns;
  const bool staged = columns <= kWarpColumns && cost_bytes <= kStagedBytes;
  const size_t shared = tree_bytes(rows, columns) + (staged ? cost_bytes : 0);
  const auto run = [&](auto kernel, int threads) {
    const cudaError_t error = allow_shared_memory(kernel, shared);
    if (error != cudaSuccess) return error;
    kernel<<<arguments.problems, threads, shared, stream>>>(arguments, staged);
    return cudaGetLastError();
  };
  const auto warps = [&](int slots) { return (columns + 32 * slots - 1) / (32 * slots); };
  // Slots are constants of a kernel, so that a lane's columns are registers and not an array in local memory. A block
  // has two columns a lane up to 16 warps, then four, with which 32 warps reach kAssignmentColumns.
  if (columns <= 32) return run(assignment_warp_kernel<1, T>, 32);
  if (columns <= 64) return run(assignment_warp_kernel<2, T>, 32);
  if (columns <= kWarpColumns) return run(assignment_warp_kernel<4, T>, 32);
  if (columns <= 1024) return run(assignment_block_kernel<2, T>, 32 * warps(2));
  return run(assignment_block_kernel<4, T>, 32 * warps(4));
}

}  // namespace

cudaError_t launch_assignment(const AssignmentArguments& arguments, Float type, cudaStream_t stream) {
  return type == Float::kFloat64 ? launch<double>(arguments, stream) : launch<float>(arguments, stream);
}

}  // namespace prior_fast
