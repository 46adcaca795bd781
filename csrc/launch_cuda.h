// What the kernels take, and the functions that launch them: between bindings_cuda.cpp, which knows torch, and the .cu
// files, which compile several times faster without it. All pointers are of the current device.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "matching.h"

namespace prior_fast {

// The most that a block solves: four columns for each of 1,024 threads. The tree of a square problem of this size takes
// 160 KB of shared memory and the exchange 1 KB; a block of sm_80 may have 163 KB.
constexpr int kAssignmentColumns = 4096;
constexpr int kMatchingQueries = 32;      // the most that a warp solves, a column a lane

// Float types of costs and embeddings.
enum class Float { kFloat64, kFloat32, kBFloat16, kFloat16 };

struct AssignmentArguments {
  const void* costs;  // [problems, rows, columns], rows <= columns <= kAssignmentColumns, float32 or float64
  int64_t* answers;   // [problems, rows], by_column [problems, columns]
  int32_t* status;    // [problems]
  int problems, rows, columns;
  double sign;
  bool by_column;
};

struct MatchingArguments {
  const void* prediction;  // [reports, queries, channels], queries <= kMatchingQueries
  const void* target;      // [sentences, channels]
  const void* cu_seqlens;  // [reports + 1], int64 or int32
  bool wide_offsets;
  int64_t* match;   // [reports, queries]
  int32_t* status;  // [reports]
  int reports, queries, channels;
};

cudaError_t launch_assignment(const AssignmentArguments& arguments, Float type, cudaStream_t stream);
cudaError_t launch_matching(const MatchingArguments& arguments, Float type, Metric metric, cudaStream_t stream);

}  // namespace prior_fast
