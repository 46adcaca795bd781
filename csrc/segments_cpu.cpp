// The mean and the softmax-weighted mean of packed segments on the CPU, forward and backward. Rows are float32 or
// bfloat16; the arithmetic is float32.
#include "segments_cpu.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "numbers_cpu.h"
#include "portable.h"
#include "segment_lanes_cpu.h"

namespace prior_fast::segments {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Columns whose sums are in the first-level cache while all rows of the segment are added.
constexpr int64_t kColumns = 1024;

// sums (in pairs, then the last columns) += the next `Count` rows, each times its weight if there are weights.
template <int Count, bool Weighted, typename T>
PF_INLINE void add_rows(Rows<const T> x, const float* weights, int64_t width, float* sums) {
  float weight[Count];
  for (int r = 0; r < Count; ++r) weight[r] = Weighted ? weights[r] : 1.0f;
  int64_t i = 0;
  for (; i + kPair <= width; i += kPair) {
    Lanes sum[2] = {};
    for (int r = 0; r < Count; ++r) {
      Lanes even, odd;
      load_pair(x[r] + i, even, odd);
      sum[0] += weight[r] * even;
      sum[1] += weight[r] * odd;
    }
    Lanes before[2];
    load_pair(sums + i, before[0], before[1]);
    save_pair(before[0] + sum[0], before[1] + sum[1], sums + i);
  }
  for (; i < width; ++i)
    for (int r = 0; r < Count; ++r) sums[i] += weight[r] * wide(x[r][i]);
}

// out = factor times the numbers of a row, which is in pairs.
template <typename T>
PF_INLINE void scale_pairs(const float* pairs, float factor, int64_t width, T* out) {
  int64_t i = 0;
  for (; i + kPair <= width; i += kPair) {
    Lanes even, odd;
    load_pair(pairs + i, even, odd);
    save_pair(factor * even, factor * odd, out + i);
  }
  for (; i < width; ++i) store(factor * pairs[i], out + i);
}

// out = factor times the sum of the rows, each times its weight if there are weights.
template <bool Weighted, typename T>
PF_INLINE void sum_of(Rows<const T> x, int64_t rows, int64_t width, const float* weights, float factor, T* out) {
  float sums[kColumns];
  for (int64_t begin = 0; begin < width; begin += kColumns) {
    const int64_t length = std::min(kColumns, width - begin);
    std::fill_n(sums, length, 0.0f);
    int64_t row = 0;
    for (; row + 4 <= rows; row += 4)
      add_rows<4, Weighted>(Rows<const T>{x[row] + begin, x.stride}, weights + row, length, sums);
    for (; row < rows; ++row)
      add_rows<1, Weighted>(Rows<const T>{x[row] + begin, x.stride}, weights + row, length, sums);
    scale_pairs(sums, factor, length, out + begin);
  }
}

// Every row of dx = dy over the number of rows.
template <typename T>
PF_INLINE void spread(const T* dy, int64_t rows, int64_t width, Rows<T> dx) {
  if (rows == 0) return;
  const T* __restrict from = dy;
  T* __restrict first = dx[0];
  const float factor = 1.0f / static_cast<float>(rows);
  for (int64_t i = 0; i < width; ++i) store(factor * wide(from[i]), first + i);
  for (int64_t row = 1; row < rows; ++row) std::copy_n(dx[0], width, dx[row]);
}

// weights = softmax of the scores, which are `stride` apart.
template <typename T>
PF_INLINE void softmax(const T* scores, int64_t stride, int64_t rows, float* weights) {
  float top = -std::numeric_limits<float>::infinity(), sum = 0.0f;
  for (int64_t row = 0; row < rows; ++row) {
    weights[row] = wide(scores[row * stride]);
    top = std::max(top, weights[row]);
  }
  for (int64_t row = 0; row < rows; ++row) {
    weights[row] = std::exp(weights[row] - top);
    sum += weights[row];
  }
  for (int64_t row = 0; row < rows; ++row) weights[row] /= sum;
}

// products[r] = x[r].y for the next `Count` rows.
template <int Count, typename T>
PF_INLINE void products_with(Rows<const T> x, int64_t width, const T* y, float* products) {
  Lanes sums[2][Count] = {};
  int64_t i = 0;
  for (; i + kPair <= width; i += kPair) {
    Lanes right[2];
    load_pair(y + i, right[0], right[1]);
    for (int r = 0; r < Count; ++r) {
      Lanes left[2];
      load_pair(x[r] + i, left[0], left[1]);
      sums[0][r] += left[0] * right[0];
      sums[1][r] += left[1] * right[1];
    }
  }
  for (int r = 0; r < Count; ++r) products[r] = total(sums[0][r] + sums[1][r]);
  for (; i < width; ++i)
    for (int r = 0; r < Count; ++r) products[r] += wide(x[r][i]) * wide(y[i]);
}

// dx = w dy and dscores = w (dy.x - sum w dy.x). `scratch` holds 2 rows + width numbers.
template <typename T>
PF_INLINE void pool_gradient(const T* dy, Rows<const T> x, const T* scores, int64_t stride, int64_t rows,
                             int64_t width, float* scratch, Rows<T> dx, T* dscores) {
  float *pairs = scratch, *weights = pairs + width, *products = weights + rows;
  softmax(scores, stride, rows, weights);
  int64_t i = 0;
  for (; i + kPair <= width; i += kPair) {
    Lanes even, odd;
    load_pair(dy + i, even, odd);
    save_pair(even, odd, pairs + i);
  }
  for (; i < width; ++i) pairs[i] = wide(dy[i]);
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4)
    products_with<4>(Rows<const T>{x[row], x.stride}, width, dy, products + row);
  for (; row < rows; ++row) products_with<1>(Rows<const T>{x[row], x.stride}, width, dy, products + row);
  float mean = 0.0f;
  for (row = 0; row < rows; ++row) mean += weights[row] * products[row];
  for (row = 0; row < rows; ++row) {
    store(weights[row] * (products[row] - mean), dscores + row);
    scale_pairs(pairs, weights[row], width, dx[row]);
  }
}

// Compilers make a clone for each kind of processor only of a function that is no template.
#define PF_FOR(T)                                                                                                     \
  PF_CLONES void mean(Rows<const T> x, int64_t rows, int64_t width, T* y) {                                           \
    sum_of<false>(x, rows, width, nullptr, 1.0f / static_cast<float>(std::max<int64_t>(rows, 1)), y);                 \
  }                                                                                                                   \
  PF_CLONES void mean_gradient(const T* dy, int64_t rows, int64_t width, Rows<T> dx) { spread(dy, rows, width, dx); } \
  PF_CLONES void pool(Rows<const T> x, const T* scores, int64_t stride, int64_t rows, int64_t width, float* scratch,  \
                      T* y) {                                                                                         \
    softmax(scores, stride, rows, scratch);                                                                           \
    sum_of<true>(x, rows, width, scratch, 1.0f, y);                                                                   \
  }                                                                                                                   \
  PF_CLONES void gradient(const T* dy, Rows<const T> x, const T* scores, int64_t stride, int64_t rows, int64_t width, \
                          float* scratch, Rows<T> dx, T* dscores) {                                                   \
    pool_gradient(dy, x, scores, stride, rows, width, scratch, dx, dscores);                                          \
  }
PF_FOR(float)
PF_FOR(BFloat16Bits)
#undef PF_FOR

// Numbers of one thread, as many as its longest segment needs.
float* room(std::vector<float>& scratch, int64_t count) {
  if (static_cast<int64_t>(scratch.size()) < count) scratch.resize(count);
  return scratch.data();
}

template <typename T>
void mean_all(const Tensor& x, const Offsets& offsets, Tensor& y) {
  const Rows<const T> from = rows_of<T>(x);
  const Rows<T> to = rows_to<T>(y);
  const int64_t width = x.size(1);
  for_each_segment(offsets, width, [&](int64_t s) {
    mean({from[offsets.begin(s)], from.stride}, offsets.length(s), width, to[s]);
  });
}

template <typename T>
void mean_gradient_all(const Tensor& dy, const Offsets& offsets, Tensor& dx) {
  const Rows<const T> from = rows_of<T>(dy);
  const Rows<T> to = rows_to<T>(dx);
  const int64_t width = dy.size(1);
  for_each_segment(offsets, width, [&](int64_t s) {
    mean_gradient(from[s], offsets.length(s), width, {to[offsets.begin(s)], to.stride});
  });
}

template <typename T>
void pool_all(const Tensor& x, const Tensor& scores, const Offsets& offsets, Tensor& y) {
  const Rows<const T> from = rows_of<T>(x), logits{read<T>(scores), scores.stride(0)};
  const Rows<T> to = rows_to<T>(y);
  const int64_t width = x.size(1);
  for_each_segment(offsets, width, [&](int64_t s) {
    static thread_local std::vector<float> scratch;
    const int64_t begin = offsets.begin(s), rows = offsets.length(s);
    pool({from[begin], from.stride}, logits[begin], logits.stride, rows, width, room(scratch, rows), to[s]);
  });
}

template <typename T>
void pool_gradient_all(const Tensor& dy, const Tensor& x, const Tensor& scores, const Offsets& offsets, Tensor& dx,
                       Tensor& dscores) {
  const Rows<const T> dys = rows_of<T>(dy), xs = rows_of<T>(x), logits{read<T>(scores), scores.stride(0)};
  const Rows<T> dxs = rows_to<T>(dx);
  T* slopes = write<T>(dscores);
  const int64_t width = x.size(1);
  for_each_segment(offsets, 2 * width, [&](int64_t s) {
    static thread_local std::vector<float> scratch;
    const int64_t begin = offsets.begin(s), rows = offsets.length(s);
    gradient(dys[s], {xs[begin], xs.stride}, logits[begin], logits.stride, rows, width,
             room(scratch, 2 * rows + width), {dxs[begin], dxs.stride}, slopes + begin);
  });
}

// x [T, D], cu_seqlens [S + 1] -> the means of the segments' rows [S, D].
Tensor segment_mean(const Tensor& x, const Tensor& cu_seqlens) {
  const Tensor rows = with_rows(x);
  const Offsets offsets(cu_seqlens, x.size(0));
  Tensor y = torch::stable::new_empty(x, {offsets.segments, x.size(1)});
  is_narrow(x) ? mean_all<BFloat16Bits>(rows, offsets, y) : mean_all<float>(rows, offsets, y);
  return y;
}

// dy [S, D] -> dx [rows, D].
Tensor segment_mean_backward(const Tensor& dy, const Tensor& cu_seqlens, int64_t rows) {
  const Tensor dys = with_rows(dy);
  const Offsets offsets(cu_seqlens, rows);
  Tensor dx = torch::stable::new_empty(dy, {rows, dy.size(1)});
  is_narrow(dy) ? mean_gradient_all<BFloat16Bits>(dys, offsets, dx) : mean_gradient_all<float>(dys, offsets, dx);
  return dx;
}

// x [T, D], scores [T], cu_seqlens [S + 1] -> the sums of the segments' rows, weighted with the softmax [S, D].
Tensor segment_softmax_pool(const Tensor& x, const Tensor& scores, const Tensor& cu_seqlens) {
  const Tensor rows = with_rows(x);
  const Offsets offsets(cu_seqlens, x.size(0));
  Tensor y = torch::stable::new_empty(x, {offsets.segments, x.size(1)});
  is_narrow(x) ? pool_all<BFloat16Bits>(rows, scores, offsets, y) : pool_all<float>(rows, scores, offsets, y);
  return y;
}

// dy [S, D] -> dx [T, D], dscores [T].
std::tuple<Tensor, Tensor> segment_softmax_pool_backward(const Tensor& dy, const Tensor& x, const Tensor& scores,
                                                         const Tensor& cu_seqlens) {
  const Tensor dys = with_rows(dy), rows = with_rows(x);
  const Offsets offsets(cu_seqlens, x.size(0));
  Tensor dx = torch::stable::new_empty(x, {x.size(0), x.size(1)});
  Tensor dscores = torch::stable::new_empty(scores, {x.size(0)});
  is_narrow(x) ? pool_gradient_all<BFloat16Bits>(dys, rows, scores, offsets, dx, dscores)
               : pool_gradient_all<float>(dys, rows, scores, offsets, dx, dscores);
  return {dx, dscores};
}

}  // namespace
}  // namespace prior_fast::segments

STABLE_TORCH_LIBRARY_IMPL(prior_fast, CPU, library) {
  library.impl("segment_mean_cpp", TORCH_BOX(&prior_fast::segments::segment_mean));
  library.impl("segment_mean_cpp_backward", TORCH_BOX(&prior_fast::segments::segment_mean_backward));
  library.impl("segment_softmax_pool_cpp", TORCH_BOX(&prior_fast::segments::segment_softmax_pool));
  library.impl("segment_softmax_pool_cpp_backward", TORCH_BOX(&prior_fast::segments::segment_softmax_pool_backward));
}
