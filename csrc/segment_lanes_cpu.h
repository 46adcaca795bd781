// Sixteen float32 numbers at a time, read from and written to float32 or bfloat16 rows, for the kernels of segments.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "numbers_cpu.h"
#include "portable.h"

namespace prior_fast::segments {

constexpr int64_t kLanes = 16;
typedef float Lanes __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef int32_t Integers __attribute__((vector_size(4 * kLanes)));

PF_INLINE void load(const float* from, Lanes& to) { std::memcpy(&to, from, sizeof(to)); }
PF_INLINE void save(const Lanes& from, float* to) { std::memcpy(to, &from, sizeof(from)); }

// The next 32 numbers of a row: float32 in order; of bfloat16 the even ones, then the odd ones, which need no shuffle.
// Sums over a row and sums of rows do not depend on the order, and `save_pair` restores it.
constexpr int64_t kPair = 2 * kLanes;

PF_INLINE void load_pair(const float* from, Lanes& even, Lanes& odd) {
  load(from, even);
  load(from + kLanes, odd);
}
PF_INLINE void load_pair(const BFloat16Bits* from, Lanes& even, Lanes& odd) {
  Words both;
  std::memcpy(&both, from, sizeof(both));
  even = reinterpret_cast<Lanes>(both << 16);
  odd = reinterpret_cast<Lanes>(both & 0xffff0000);
}

// The bits of bfloat16 numbers in the upper halves, as `store` of numbers_cpu.h rounds one number.
PF_INLINE void round_lanes(const Lanes& from, Words& to) {
  const Words bits = reinterpret_cast<Words>(from), sign = bits & 0x80000000;
  Words size = bits & 0x7fffffff;
  size = size < 0x7fc00000 ? size : Words{} + 0x7fc00000;
  to = sign | (size + 0x7fff + ((size >> 16) & 1));
}
PF_INLINE void save_pair(const Lanes& even, const Lanes& odd, float* to) {
  save(even, to);
  save(odd, to + kLanes);
}
PF_INLINE void save_pair(const Lanes& even, const Lanes& odd, BFloat16Bits* to) {
  Words low, high;
  round_lanes(even, low);
  round_lanes(odd, high);
  const Words both = (low >> 16) | (high & 0xffff0000);
  std::memcpy(to, &both, sizeof(both));
}

// The sum of the lanes, in pairs; the greatest lane.
PF_INLINE float total(const Lanes& x) {
  float sums[kLanes];
  save(x, sums);
  for (int64_t apart = kLanes / 2; apart > 0; apart /= 2)
    for (int64_t lane = 0; lane < apart; ++lane) sums[lane] += sums[lane + apart];
  return sums[0];
}
PF_INLINE float greatest(const Lanes& x) {
  float tops[kLanes];
  save(x, tops);
  for (int64_t apart = kLanes / 2; apart > 0; apart /= 2)
    for (int64_t lane = 0; lane < apart; ++lane) tops[lane] = std::max(tops[lane], tops[lane + apart]);
  return tops[0];
}

}  // namespace prior_fast::segments
