// Packed segments on a CPU: where each begins, and how threads share them.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>

#include "numbers_cpu.h"
#include "portable.h"

namespace prior_fast::segments {

// Offsets [S + 1], int32 or int64. Those that do not fit the rows give wrong results, but no access outside of them.
class Offsets {
 public:
  const int64_t segments;

  Offsets(const torch::stable::Tensor& cu_seqlens, int64_t rows)
      : segments(cu_seqlens.size(0) - 1),
        values_(cu_seqlens.const_data_ptr()),
        wide_(cu_seqlens.scalar_type() == torch::headeronly::ScalarType::Long),
        stride_(cu_seqlens.stride(0)),
        rows_(rows) {}

  int64_t begin(int64_t segment) const {
    const int64_t at = segment * stride_;
    const int64_t value = wide_ ? static_cast<const int64_t*>(values_)[at] : static_cast<const int32_t*>(values_)[at];
    return std::min(std::max<int64_t>(value, 0), rows_);
  }
  int64_t length(int64_t segment) const { return std::max<int64_t>(begin(segment + 1) - begin(segment), 0); }

  // The first segment s with s + begin(s) >= place: the segments' places in the order of rows, empty ones included.
  int64_t from_place(int64_t place) const {
    int64_t low = 0, high = segments;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (middle + begin(middle) < place)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  }
  int64_t places() const { return rows_ + segments; }

 private:
  const void* values_;
  bool wide_;
  int64_t stride_, rows_;
};

// Numbers that are worth waking a thread for.
constexpr int64_t kGrain = 1 << 15;

// Calls `run(segment)` for each segment. A segment belongs to one thread, which has others beside it with, together,
// as many rows as each other thread's: so the rows that a thread reads forward are in its cache backward.
template <typename Run>
void for_each_segment(const Offsets& offsets, int64_t width, const Run& run) {
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(width, 1));
  torch::stable::parallel_for(0, offsets.places(), grain, [&](int64_t first, int64_t last) {
    const int64_t end = offsets.from_place(last);
    for (int64_t segment = offsets.from_place(first); segment < end; ++segment) run(segment);
  });
}

// The rows of a matrix whose columns are contiguous.
template <typename T>
struct Rows {
  T* first;
  int64_t stride;
  PF_INLINE T* operator[](int64_t row) const { return first + row * stride; }
};

// x itself if its columns are contiguous, else a copy.
inline torch::stable::Tensor with_rows(const torch::stable::Tensor& x) {
  return x.stride(1) == 1 || x.size(1) <= 1 ? x : torch::stable::contiguous(x);
}

template <typename T>
Rows<const T> rows_of(const torch::stable::Tensor& x) {
  return {read<T>(x), x.stride(0)};
}

template <typename T>
Rows<T> rows_to(torch::stable::Tensor& x) {
  return {write<T>(x), x.size(1)};
}

}  // namespace prior_fast::segments
