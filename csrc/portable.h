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

// For functions of the CPU: wider vectors where the processor has them; the library still runs where it has not.
#if defined(__x86_64__) && defined(__linux__) && !defined(__clang__) && !defined(__CUDACC__)
#define PF_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define PF_CLONES
#endif
