// prior_fast::solve_assignment and prior_fast::solve_matching on GPUs. Nothing is read back: a caller that cares about
// the status reads it when it needs it.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <tuple>

#include "launch_cuda.h"

namespace prior_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

Float float_type(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Double:
      return Float::kFloat64;
    case ScalarType::BFloat16:
      return Float::kBFloat16;
    case ScalarType::Half:
      return Float::kFloat16;
    default:
      return Float::kFloat32;
  }
}

// Runs launch(stream) on the device and the current stream of x.
template <class F>
void on_stream_of(const Tensor& x, F launch) {
  const auto device = x.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  void* stream = nullptr;
  const bool found = aoti_torch_get_current_cuda_stream(device, &stream) == AOTI_TORCH_SUCCESS;
  STD_TORCH_CHECK(found, "no current CUDA stream on device ", device);
  STD_CUDA_CHECK(launch(static_cast<cudaStream_t>(stream)));
}

// As on the CPU (assignment_cpu.cpp), for C <= 4096.
std::tuple<Tensor, Tensor> solve_assignment(const Tensor& cost, bool maximize, bool by_column) {
  const int64_t problems = cost.size(0), rows = cost.size(1), columns = cost.size(2);
  STD_TORCH_CHECK(rows <= columns && columns <= kAssignmentColumns, "solve_assignment takes R <= C <= ",
                  kAssignmentColumns, ", got R = ", rows, ", C = ", columns);
  Tensor answers = torch::stable::new_empty(cost, {problems, by_column ? columns : rows}, ScalarType::Long);
  Tensor status = torch::stable::new_empty(cost, {problems}, ScalarType::Int);
  if (problems > 0) {
    const AssignmentArguments arguments{cost.const_data_ptr(),
                                        static_cast<int64_t*>(answers.mutable_data_ptr()),
                                        static_cast<int32_t*>(status.mutable_data_ptr()),
                                        static_cast<int>(problems),
                                        static_cast<int>(rows),
                                        static_cast<int>(columns),
                                        maximize ? -1.0 : 1.0,
                                        by_column};
    on_stream_of(cost, [&](cudaStream_t stream) { return launch_assignment(arguments, float_type(cost), stream); });
  }
  return {answers, status};
}

// As on the CPU (matching_cpu.cpp), for Q <= 32, bfloat16 and float16 too.
std::tuple<Tensor, Tensor> solve_matching(const Tensor& prediction, const Tensor& target, const Tensor& cu_seqlens,
                                          int64_t metric) {
  const int64_t reports = prediction.size(0), queries = prediction.size(1);
  STD_TORCH_CHECK(queries <= kMatchingQueries, "solve_matching takes Q <= ", kMatchingQueries, ", got ", queries);
  Tensor match = torch::stable::new_empty(prediction, {reports, queries}, ScalarType::Long);
  Tensor status = torch::stable::new_empty(prediction, {reports}, ScalarType::Int);
  if (reports > 0) {
    const MatchingArguments arguments{prediction.const_data_ptr(),
                                      target.const_data_ptr(),
                                      cu_seqlens.const_data_ptr(),
                                      cu_seqlens.scalar_type() == ScalarType::Long,
                                      static_cast<int64_t*>(match.mutable_data_ptr()),
                                      static_cast<int32_t*>(status.mutable_data_ptr()),
                                      static_cast<int>(reports),
                                      static_cast<int>(queries),
                                      static_cast<int>(prediction.size(2))};
    on_stream_of(prediction, [&](cudaStream_t stream) {
      return launch_matching(arguments, float_type(prediction), static_cast<Metric>(metric), stream);
    });
  }
  return {match, status};
}

}  // namespace
}  // namespace prior_fast

STABLE_TORCH_LIBRARY_IMPL(prior_fast, CUDA, library) {
  library.impl("solve_assignment", TORCH_BOX(&prior_fast::solve_assignment));
  library.impl("solve_matching", TORCH_BOX(&prior_fast::solve_matching));
}
