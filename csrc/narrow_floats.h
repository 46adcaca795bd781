// Reading bfloat16 and float16 on a GPU. CUDA's own headers for them need a package that pip's nvcc comes without.
#pragma once

#include <cstdint>

#include "portable.h"

namespace prior_fast {

struct BFloat16 {
  uint16_t bits;
  PF_DEVICE explicit operator float() const { return __uint_as_float(static_cast<unsigned>(bits) << 16); }
};

struct Float16 {
  uint16_t bits;
  PF_DEVICE explicit operator float() const {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
  }
};

}  // namespace prior_fast
