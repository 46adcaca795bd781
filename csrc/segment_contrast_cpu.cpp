// The symmetric contrastive loss within packed segments on the CPU, forward and backward. Rows are float32 or bfloat16;
// the arithmetic is float32.
//
// With t_ij = sign(scale) a_i.b_j and s = |scale|, the logits are s t_ij, and the greatest logit is where t is
// greatest. Differences of t are taken before they are multiplied, and the diagonal of the gradient, a softmax's weight
// less 1, is the negative sum of the other weights: large logits and losses near 0 keep the precision of the products.
#include "segment_contrast_cpu.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>
#include <vector>

#include "numbers_cpu.h"
#include "portable.h"
#include "segment_lanes_cpu.h"
#include "segments_cpu.h"

namespace prior_fast::segments {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

struct Sums {
  double loss, slope;
};

// Of the softmaxes of one side's rows: where t is greatest; over the logits off the diagonal the sum of
// exp(s (t - greatest)), and of (t - greatest) exp(s (t - greatest)); one over the sum with the diagonal.
struct Side {
  float *top, *rest, *moment, *peak;
  static constexpr int64_t kNumbers = 4;
  Side(float* numbers, int64_t stride)
      : top(numbers), rest(numbers + stride), moment(numbers + 2 * stride), peak(numbers + 3 * stride) {}
};

PF_INLINE int64_t padded(int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

// The lanes of columns below `count`, and of them those that are not column `row`, as masks of bits.
struct Masks {
  Integers valid, others;
  PF_INLINE Masks(int64_t row, int64_t begin, int64_t count) {
    // By the signs of differences: compilers take comparisons of such vectors apart.
    const Integers lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const Integers apart = lane + static_cast<int32_t>(begin - row);
    valid = (lane + static_cast<int32_t>(begin - count)) >> 31;
    others = valid & ((apart | -apart) >> 31);
  }
};

PF_INLINE void mask(const Integers& bits, Lanes& x) {
  x = reinterpret_cast<Lanes>(reinterpret_cast<Integers>(x) & bits);
}

// The loss of row i less that of a perfect row, and its derivative by s, from its side; fills the peak.
PF_INLINE void finish(const Side& side, int64_t i, float own, float s, Sums& sums) {
  const float behind = side.top[i] - own, rest = side.rest[i], all = rest + std::exp(-s * behind);
  side.peak[i] = 1.0f / all;
  // Where the pair itself is the greatest, the loss is log(1 + rest), and log1p keeps a small rest.
  sums.loss += s * behind + (behind == 0.0f ? std::log1p(rest) : std::log(all));
  sums.slope += (side.moment[i] + behind * rest) / all;
}

// t [count, stride], products of rows -> d loss / d product times `share`, in place; the sums of the rows' losses and
// slopes by the scale. `scratch` holds 2 * Side::kNumbers * padded(count) numbers.
PF_INLINE Sums losses(Rows<float> t, int64_t count, float scale, float share, float* scratch) {
  const int64_t width = padded(count);
  const float s = std::fabs(scale), sign = scale < 0.0f ? -1.0f : 1.0f;
  const Side rows(scratch, width), columns(scratch + Side::kNumbers * width, width);
  const Lanes none = Lanes{} - std::numeric_limits<float>::infinity();
  for (int64_t j = 0; j < width; j += kLanes) {
    save(none, columns.top + j);
    save(Lanes{}, columns.rest + j);
    save(Lanes{}, columns.moment + j);
  }
  for (int64_t i = 0; i < count; ++i) {
    std::fill_n(t[i] + count, width - count, 0.0f);
    Lanes highest = none;
    for (int64_t j = 0; j < width; j += kLanes) {
      Lanes x, top;
      load(t[i] + j, x);
      load(columns.top + j, top);
      x *= sign;
      save(x, t[i] + j);
      save(x > top ? x : top, columns.top + j);
      // Past the end there is 0, which may be the greatest.
      const Integers valid = Masks(i, j, count).valid;
      mask(valid, x);
      x = reinterpret_cast<Lanes>(reinterpret_cast<Integers>(x) | (reinterpret_cast<Integers>(none) & ~valid));
      highest = x > highest ? x : highest;
    }
    rows.top[i] = greatest(highest);
  }
  for (int64_t i = 0; i < count; ++i) {
    Lanes rest{}, moment{};
    for (int64_t j = 0; j < width; j += kLanes) {
      const Integers others = Masks(i, j, count).others;
      Lanes x, top, column_rest, column_moment, weight, column_weight;
      load(t[i] + j, x);
      load(columns.top + j, top);
      load(columns.rest + j, column_rest);
      load(columns.moment + j, column_moment);
      Lanes away = x - rows.top[i], column_away = x - top;
      exp_below_zero(s * away, weight);
      exp_below_zero(s * column_away, column_weight);
      for (Lanes* numbers : {&away, &column_away, &weight, &column_weight}) mask(others, *numbers);
      rest += weight;
      moment += weight * away;
      save(column_rest + column_weight, columns.rest + j);
      save(column_moment + column_weight * column_away, columns.moment + j);
    }
    rows.rest[i] = total(rest);
    rows.moment[i] = total(moment);
  }
  Sums sums{0.0, 0.0};
  for (int64_t i = 0; i < count; ++i) {
    finish(rows, i, t[i][i], s, sums);
    finish(columns, i, t[i][i], s, sums);
  }
  sums.loss *= share;
  sums.slope *= share * sign;
  const float factor = share * scale;
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t j = 0; j < width; j += kLanes) {
      Lanes x, top, peak, p, q;
      load(t[i] + j, x);
      load(columns.top + j, top);
      load(columns.peak + j, peak);
      exp_below_zero(s * (x - rows.top[i]), p);
      exp_below_zero(s * (x - top), q);
      save(factor * (p * rows.peak[i] + q * peak), t[i] + j);
    }
    t[i][i] = -factor * (rows.rest[i] * rows.peak[i] + columns.rest[i] * columns.peak[i]);
  }
  return sums;
}

#define PF_FOR(T)                                                                                                     \
  PF_CLONES Sums forward(Rows<const T> a, Rows<const T> b, int64_t count, int64_t width, float scale, float share,    \
                         float* scratch, Rows<float> g) {                                                             \
    dots(a, b, count, width, g);                                                                                      \
    return losses(g, count, scale, share, scratch);                                                                   \
  }                                                                                                                   \
  PF_CLONES void backward(Rows<const float> g, Rows<const T> a, Rows<const T> b, int64_t count, int64_t width,        \
                          float factor, Rows<T> da, Rows<T> db) {                                                     \
    combine(g.first, g.stride, 1, b, count, width, factor, da);                                                       \
    combine(g.first, 1, g.stride, a, count, width, factor, db);                                                       \
  }
PF_FOR(float)
PF_FOR(BFloat16Bits)
#undef PF_FOR

// Calls `run(segment)` for each segment; a thread that is done takes the next one, since their work differs.
template <typename Run>
void take_segments(int64_t segments, int64_t numbers, const Run& run) {
  const int64_t grain = std::max<int64_t>(1, segments * kGrain / std::max<int64_t>(numbers, 1));
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, segments, grain, [&](int64_t, int64_t) {
    for (int64_t segment = next++; segment < segments; segment = next++) run(segment);
  });
}

double number(const Tensor& x) {
  const void* at = x.const_data_ptr();
  switch (x.scalar_type()) {
    case ScalarType::Double: return *static_cast<const double*>(at);
    case ScalarType::BFloat16: return static_cast<float>(*static_cast<const torch::headeronly::BFloat16*>(at));
    case ScalarType::Half: return static_cast<float>(*static_cast<const torch::headeronly::Half*>(at));
    default: return *static_cast<const float*>(at);
  }
}

void set_number(Tensor& x, double value) {
  void* at = x.mutable_data_ptr();
  switch (x.scalar_type()) {
    case ScalarType::Double: *static_cast<double*>(at) = value; break;
    case ScalarType::BFloat16:
      *static_cast<torch::headeronly::BFloat16*>(at) = torch::headeronly::BFloat16(static_cast<float>(value));
      break;
    case ScalarType::Half:
      *static_cast<torch::headeronly::Half*>(at) = torch::headeronly::Half(static_cast<float>(value));
      break;
    default: *static_cast<float*>(at) = static_cast<float>(value);
  }
}

template <typename T>
void forward_all(const Tensor& a, const Tensor& b, float scale, const Offsets& offsets, Tensor& g,
                 std::vector<Sums>& sums) {
  int64_t counted = 0;
  for (int64_t s = 0; s < offsets.segments; ++s) counted += offsets.length(s) > 0;
  const Rows<const T> x = rows_of<T>(a), y = rows_of<T>(b);
  const Rows<float> out = rows_to<float>(g);
  const int64_t width = a.size(1);
  take_segments(offsets.segments, 2 * a.size(0) * width, [&](int64_t s) {
    static thread_local std::vector<float> scratch;
    const int64_t begin = offsets.begin(s), count = std::min(offsets.length(s), out.stride);
    if (count == 0) return;
    const size_t wanted = 2 * Side::kNumbers * padded(count);
    if (scratch.size() < wanted) scratch.resize(wanted);
    const float share = 1.0f / (2.0f * static_cast<float>(count) * static_cast<float>(counted));
    sums[s] = forward({x[begin], x.stride}, {y[begin], y.stride}, count, width, scale, share, scratch.data(),
                      {out[begin], out.stride});
  });
}

template <typename T>
void backward_all(float factor, const Tensor& a, const Tensor& b, const Offsets& offsets, const Tensor& g, Tensor& da,
                  Tensor& db) {
  const Rows<const T> x = rows_of<T>(a), y = rows_of<T>(b);
  const Rows<const float> slopes = rows_of<float>(g);
  const Rows<T> dx = rows_to<T>(da), dy = rows_to<T>(db);
  const int64_t width = a.size(1);
  take_segments(offsets.segments, 4 * a.size(0) * width, [&](int64_t s) {
    const int64_t begin = offsets.begin(s), count = std::min(offsets.length(s), slopes.stride);
    if (count > 0)
      backward({slopes[begin], slopes.stride}, {x[begin], x.stride}, {y[begin], y.stride}, count, width, factor,
               {dx[begin], dx.stride}, {dy[begin], dy.stride});
  });
}

// a, b [T, D], scale [], cu_seqlens [B + 1], columns: a multiple of 16, at least the rows of the longest segment -> the
// loss [] and its derivative by the scale [], float32; g [T, columns]: row i has the derivatives by the products of a_i
// with the rows of b in its segment.
std::tuple<Tensor, Tensor, Tensor> segment_info_nce(const Tensor& a, const Tensor& b, const Tensor& scale,
                                                    const Tensor& cu_seqlens, int64_t columns) {
  const Tensor x = with_rows(a), y = with_rows(b);
  const Offsets offsets(cu_seqlens, a.size(0));
  Tensor loss = torch::stable::new_empty(a, {}, ScalarType::Float);
  Tensor slope = torch::stable::new_empty(a, {}, ScalarType::Float);
  Tensor g = torch::stable::new_empty(a, {a.size(0), columns}, ScalarType::Float);
  const float factor = static_cast<float>(number(scale));
  std::vector<Sums> sums(offsets.segments, Sums{0.0, 0.0});
  is_narrow(a) ? forward_all<BFloat16Bits>(x, y, factor, offsets, g, sums)
               : forward_all<float>(x, y, factor, offsets, g, sums);
  // In the order of the segments, whichever thread was done first.
  Sums all{0.0, 0.0};
  for (const Sums& each : sums) {
    all.loss += each.loss;
    all.slope += each.slope;
  }
  set_number(loss, all.loss);
  set_number(slope, all.slope);
  return {loss, slope, g};
}

// dloss [] -> da, db [T, D], and the gradient of scale.
std::tuple<Tensor, Tensor, Tensor> segment_info_nce_backward(const Tensor& dloss, const Tensor& a, const Tensor& b,
                                                             const Tensor& scale, const Tensor& cu_seqlens,
                                                             const Tensor& slope, const Tensor& g) {
  const Tensor x = with_rows(a), y = with_rows(b);
  const Offsets offsets(cu_seqlens, a.size(0));
  Tensor da = torch::stable::new_empty(a, {a.size(0), a.size(1)});
  Tensor db = torch::stable::new_empty(b, {b.size(0), b.size(1)});
  Tensor dscale = torch::stable::empty_like(scale);
  const double factor = number(dloss);
  is_narrow(a) ? backward_all<BFloat16Bits>(static_cast<float>(factor), x, y, offsets, g, da, db)
               : backward_all<float>(static_cast<float>(factor), x, y, offsets, g, da, db);
  set_number(dscale, factor * number(slope));
  return {da, db, dscale};
}

}  // namespace
}  // namespace prior_fast::segments

STABLE_TORCH_LIBRARY_IMPL(prior_fast, CPU, library) {
  library.impl("segment_info_nce_cpp", TORCH_BOX(&prior_fast::segments::segment_info_nce));
  library.impl("segment_info_nce_cpp_backward", TORCH_BOX(&prior_fast::segments::segment_info_nce_backward));
}
