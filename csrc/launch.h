// Launching a kernel on the device and the current stream of a tensor.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

namespace prior_fast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// More shared memory than this has to be asked for.
constexpr size_t kSharedByDefault = 48 * 1024;

template <class Kernel, class... Arguments>
void launch_kernel(const Tensor& on, Kernel kernel, int blocks, int threads, size_t shared, const Arguments&... arguments) {
  const auto device = on.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  void* stream = nullptr;
  const bool found = aoti_torch_get_current_cuda_stream(device, &stream) == AOTI_TORCH_SUCCESS;
  STD_TORCH_CHECK(found, "no current CUDA stream on device ", device);
  if (shared > kSharedByDefault)
    STD_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
  kernel<<<blocks, threads, shared, static_cast<cudaStream_t>(stream)>>>(arguments...);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace prior_fast
