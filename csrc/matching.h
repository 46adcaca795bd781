// The cost of matching a predicted embedding to a target: what is summed over their channels, and what becomes of it.
#pragma once

#include <cmath>

#include "portable.h"

namespace prior_fast {

// The values are part of the interface to Python.
enum class Metric : int { kL1 = 0, kL2 = 1, kCosine = 2 };

// As torch.nn.functional.normalize, which the reference uses: a norm below this counts as this.
constexpr double kCosineEps = 1e-8;

// What a channel adds to the sum over channels of a pair.
template <Metric kMetric, typename A>
PF_INLINE A channel_term(A predicted, A target) {
  if (kMetric == Metric::kL1) return std::fabs(predicted - target);
  if (kMetric == Metric::kL2) return (predicted - target) * (predicted - target);
  return predicted * target;
}

// The cost of a pair, from the sum of the terms; the sums of squares matter for the cosine alone.
template <Metric kMetric, typename A>
PF_INLINE A pair_cost(A sum, A predicted_squares, A target_squares) {
  if (kMetric == Metric::kL1) return sum;
  if (kMetric == Metric::kL2) return std::sqrt(sum);
  const A eps = static_cast<A>(kCosineEps), p = std::sqrt(predicted_squares), t = std::sqrt(target_squares);
  // Not `p > eps ? p : eps`, which would turn a NaN into a number.
  return -sum / ((p < eps ? eps : p) * (t < eps ? eps : t));
}

}  // namespace prior_fast
