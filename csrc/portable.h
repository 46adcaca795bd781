// Words that let one source compile for the GPU with nvcc and for the CPU with any C++17 compiler.
#pragma once

#ifdef __CUDACC__
#define PF_INLINE __host__ __device__ __forceinline__
#define PF_DEVICE __device__ __forceinline__
#else
#define PF_INLINE inline __attribute__((always_inline))
#endif

// Host compilers do not know the pragma, and do not need it.
#ifdef __CUDA_ARCH__
#define PF_UNROLL _Pragma("unroll")
#else
#define PF_UNROLL
#endif
