// What the contrastive loss of packed segments computes with: products of rows, and exponentials of numbers below 0.
#pragma once

#include <algorithm>
#include <cstdint>

#include "portable.h"
#include "segment_lanes_cpu.h"
#include "segments_cpu.h"

namespace prior_fast::segments {

// out[r][c] = x[r].y[c] for R rows and C rows. Each row that is read serves C or R products.
template <int R, int C, typename T>
PF_INLINE void dot_tile(Rows<const T> x, Rows<const T> y, int64_t width, Rows<float> out) {
  Lanes sums[R][C] = {};
  int64_t i = 0;
  for (; i + kPair <= width; i += kPair) {
    Lanes left[R][2];
    for (int r = 0; r < R; ++r) load_pair(x[r] + i, left[r][0], left[r][1]);
    for (int c = 0; c < C; ++c) {
      Lanes right[2];
      load_pair(y[c] + i, right[0], right[1]);
      for (int r = 0; r < R; ++r) sums[r][c] += left[r][0] * right[0];
      for (int r = 0; r < R; ++r) sums[r][c] += left[r][1] * right[1];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) out[r][c] = total(sums[r][c]);
  for (; i < width; ++i)
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) out[r][c] += wide(x[r][i]) * wide(y[c][i]);
}

template <int R, typename T>
PF_INLINE void dot_rows(Rows<const T> x, Rows<const T> y, int64_t count, int64_t width, Rows<float> out) {
  int64_t c = 0;
  for (; c + 4 <= count; c += 4)
    dot_tile<R, 4>(x, Rows<const T>{y[c], y.stride}, width, Rows<float>{out.first + c, out.stride});
  const Rows<const T> last{y[c], y.stride};
  const Rows<float> to{out.first + c, out.stride};
  if (count - c == 3) dot_tile<R, 3>(x, last, width, to);
  if (count - c == 2) dot_tile<R, 2>(x, last, width, to);
  if (count - c == 1) dot_tile<R, 1>(x, last, width, to);
}

// out = x y^T, for `count` rows of each.
template <typename T>
PF_INLINE void dots(Rows<const T> x, Rows<const T> y, int64_t count, int64_t width, Rows<float> out) {
  int64_t r = 0;
  for (; r + 4 <= count; r += 4)
    dot_rows<4>(Rows<const T>{x[r], x.stride}, y, count, width, Rows<float>{out[r], out.stride});
  const Rows<const T> last{x[r], x.stride};
  const Rows<float> to{out[r], out.stride};
  if (count - r == 3) dot_rows<3>(last, y, count, width, to);
  if (count - r == 2) dot_rows<2>(last, y, count, width, to);
  if (count - r == 1) dot_rows<1>(last, y, count, width, to);
}

// out[r] = factor sum_j g(r, j) y[j] for R rows, where g(r, j) is at r * across + j * along.
template <int R, typename T>
PF_INLINE void combine_rows(const float* g, int64_t across, int64_t along, Rows<const T> y, int64_t count,
                            int64_t width, float factor, Rows<T> out) {
  int64_t i = 0;
  for (; i + kPair <= width; i += kPair) {
    Lanes sums[R][2] = {};
    for (int64_t j = 0; j < count; ++j) {
      Lanes a, b;
      load_pair(y[j] + i, a, b);
      for (int r = 0; r < R; ++r) {
        const float weight = g[r * across + j * along];
        sums[r][0] += weight * a;
        sums[r][1] += weight * b;
      }
    }
    for (int r = 0; r < R; ++r) save_pair(factor * sums[r][0], factor * sums[r][1], out[r] + i);
  }
  for (; i < width; ++i)
    for (int r = 0; r < R; ++r) {
      float sum = 0.0f;
      for (int64_t j = 0; j < count; ++j) sum += g[r * across + j * along] * wide(y[j][i]);
      store(factor * sum, out[r] + i);
    }
}

// out = factor g y.
template <typename T>
PF_INLINE void combine(const float* g, int64_t across, int64_t along, Rows<const T> y, int64_t count, int64_t width,
                       float factor, Rows<T> out) {
  int64_t r = 0;
  for (; r + 4 <= count; r += 4)
    combine_rows<4>(g + r * across, across, along, y, count, width, factor, Rows<T>{out[r], out.stride});
  const float* last = g + r * across;
  const Rows<T> to{out[r], out.stride};
  if (count - r == 3) combine_rows<3>(last, across, along, y, count, width, factor, to);
  if (count - r == 2) combine_rows<2>(last, across, along, y, count, width, factor, to);
  if (count - r == 1) combine_rows<1>(last, across, along, y, count, width, factor, to);
}

// exp(x) for x <= 0, 0 below -87; its error is at most 2 units in the last place.
PF_INLINE void exp_below_zero(const Lanes& x, Lanes& out) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, which is in the lowest bits
  const Lanes least = Lanes{} - 87.0f, bounded = x < least ? least : x;
  const Lanes shifted = bounded * 1.44269504f + kMagic, power = shifted - kMagic;
  // ln 2 in two parts: the first has few digits, so that its product with an integer is exact.
  const Lanes r = (bounded - power * 0.693359375f) - power * -2.12194440e-4f;
  // Taylor's series: |r| <= ln(2) / 2, where the next term is 5e-9.
  Lanes sum = r * (1.0f / 5040.0f) + (1.0f / 720.0f);
  sum = sum * r + (1.0f / 120.0f);
  sum = sum * r + (1.0f / 24.0f);
  sum = sum * r + (1.0f / 6.0f);
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  const Integers exponent = (reinterpret_cast<Integers>(shifted) + 127) << 23;
  const Lanes value = sum * reinterpret_cast<Lanes>(exponent);
  out = x < least ? Lanes{} : value;
}

}  // namespace prior_fast::segments
