// A warp, or a block of several warps, as a team.
#pragma once

#include <cmath>

#include "assignment.h"

namespace prior_fast {

constexpr unsigned kAllLanes = ~0u;

// More dynamic shared memory than this has to be asked for.
constexpr size_t kSharedByDefault = 48 * 1024;

template <class Kernel>
cudaError_t allow_shared_memory(Kernel kernel, size_t bytes) {
  if (bytes <= kSharedByDefault) return cudaSuccess;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
}

// A float64 as an unsigned integer of the same order; -0 becomes 0, as they are equal.
// Integer minima then serve for lengths, since redux.sync has no minimum of 64-bit floats.
PF_DEVICE unsigned long long ordered(double value) {
  const unsigned long long bits = static_cast<unsigned long long>(__double_as_longlong(value + 0.0));
  return bits >> 63 ? ~bits : bits | (1ull << 63);
}

PF_DEVICE double from_ordered(unsigned long long key) {
  return __longlong_as_double(static_cast<long long>(key >> 63 ? key & ~(1ull << 63) : ~key));
}

PF_DEVICE unsigned warp_min(unsigned value) {
  // One instruction from sm_80 on, in place of five shuffles that wait for each other.
#if __CUDA_ARCH__ >= 800
  return __reduce_min_sync(kAllLanes, value);
#else
  for (int offset = 16; offset > 0; offset /= 2) value = min(value, __shfl_xor_sync(kAllLanes, value, offset));
  return value;
#endif
}

// The first of the candidates of a warp's lanes. Three integer minima, of the length's halves and the rank, take the
// place of five rounds of shuffles of twelve bytes each.
PF_DEVICE Candidate warp_least(const Candidate& mine) {
  const unsigned long long key = ordered(mine.length);
  const unsigned upper = static_cast<unsigned>(key >> 32), lower = static_cast<unsigned>(key);
  const unsigned least_upper = warp_min(upper);
  const unsigned least_lower = warp_min(upper == least_upper ? lower : ~0u);
  const bool is_least = upper == least_upper && lower == least_lower;
  const unsigned rank = warp_min(is_least ? mine.rank : ~0u);
  return {from_ordered(static_cast<unsigned long long>(least_upper) << 32 | least_lower), rank};
}

// What a lane keeps in registers: every loop over slots has a constant end, so that no index is dynamic.
template <int kSlots>
class Registers {
 public:
  static PF_DEVICE constexpr int slots() { return kSlots; }
  PF_DEVICE double& shortest(int slot, int) { return shortest_[slot]; }
  PF_DEVICE double& best_length(int) { return best_.length; }
  PF_DEVICE unsigned& best_rank(int) { return best_.rank; }
  PF_DEVICE void forget_best() { best_ = {HUGE_VAL, ~0u}; }
  PF_DEVICE void open_all() {
#pragma unroll
    for (int slot = 0; slot < kSlots; ++slot) shortest_[slot] = HUGE_VAL;
  }

 protected:
  PF_DEVICE void close_own(int column, int lane, int stride) {
    // Every lane compares: shortest_[column / stride] would be a dynamic index, which moves the array to local memory.
#pragma unroll
    for (int slot = 0; slot < kSlots; ++slot)
      if (slot * stride + lane == column) shortest_[slot] = -HUGE_VAL;
  }
  template <class F>
  PF_DEVICE void each_own(int slot, int lane, int stride, int columns, F f) {
    // Neighbouring lanes own neighbouring columns, so a scan's loads of a row of costs are coalesced.
    const int column = slot * stride + lane;
    if (column < columns) f(lane, column);
  }

  double shortest_[kSlots];
  Candidate best_;
};

template <int kSlots>
class WarpTeam : public Registers<kSlots> {
 public:
  static PF_DEVICE int lane() { return threadIdx.x % 32; }
  static PF_DEVICE int stride() { return 32; }
  static PF_DEVICE bool any(bool mine) { return __any_sync(kAllLanes, mine); }
  static PF_DEVICE void sync() { __syncwarp(); }

  PF_DEVICE void close(int column) { this->close_own(column, lane(), 32); }
  PF_DEVICE Candidate least() const { return warp_least(this->best_); }
  template <class F>
  PF_DEVICE void each(int slot, int columns, F f) {
    this->each_own(slot, lane(), 32, columns, f);
  }
};

template <int kSlots>
class BlockTeam : public Registers<kSlots> {
 public:
  // exchange: the warps' candidates, in two buffers that take turns: a warp may be one call ahead of another, not two.
  PF_DEVICE explicit BlockTeam(Candidate (*exchange)[32]) : exchange_(exchange) {}

  static PF_DEVICE int lane() { return threadIdx.x; }
  static PF_DEVICE int stride() { return blockDim.x; }
  static PF_DEVICE bool any(bool mine) { return __syncthreads_or(mine); }
  static PF_DEVICE void sync() { __syncthreads(); }

  PF_DEVICE void close(int column) { this->close_own(column, lane(), stride()); }
  template <class F>
  PF_DEVICE void each(int slot, int columns, F f) {
    this->each_own(slot, lane(), stride(), columns, f);
  }

  // One barrier a scan: every warp reduces the warps' candidates for itself, so none has to be told the result, and the
  // buffers take turns, so no barrier has to protect them from the next call.
  PF_DEVICE Candidate least() {
    Candidate* buffer = exchange_[turn_];
    turn_ ^= 1;
    const Candidate of_warp = warp_least(this->best_);
    const int warp = threadIdx.x / 32, place = threadIdx.x % 32;
    if (place == 0) buffer[warp] = of_warp;
    __syncthreads();
    // Lanes without a warp offer what comes after every candidate.
    return warp_least(place < blockDim.x / 32 ? buffer[place] : Candidate{HUGE_VAL, ~0u});
  }

 private:
  Candidate (*exchange_)[32];
  int turn_ = 0;
};

}  // namespace prior_fast
