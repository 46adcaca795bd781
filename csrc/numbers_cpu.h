// The numbers of float32 and bfloat16 tensors on a CPU; the arithmetic is float32.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "portable.h"

namespace prior_fast {

struct BFloat16Bits {
  uint16_t bits;
};

PF_INLINE float wide(float x) { return x; }
PF_INLINE float wide(BFloat16Bits x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

PF_INLINE void store(float value, float* out) { *out = value; }
PF_INLINE void store(float value, BFloat16Bits* out) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  // To the nearest, ties to even. NaNs of arithmetic are quiet, 0x7fc00000 or more without the sign: they become that
  // one, which rounding leaves alone. A choice between two results took twice as long, since each was packed to 16 bits.
  const uint32_t sign = bits & 0x80000000, size = std::min<uint32_t>(bits & 0x7fffffff, 0x7fc00000);
  out->bits = static_cast<uint16_t>((sign | (size + 0x7fff + ((size >> 16) & 1))) >> 16);
}

template <typename T>
PF_INLINE const T* read(const torch::stable::Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}

template <typename T>
PF_INLINE T* write(torch::stable::Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

// Whether the numbers are BFloat16Bits; otherwise they are float.
PF_INLINE bool is_narrow(const torch::stable::Tensor& x) {
  return x.scalar_type() == torch::headeronly::ScalarType::BFloat16;
}

}  // namespace prior_fast
