// Batch normalization on the CPU, alone or with a ReLU before or after it, in parts, between which processes exchange
// sums: moments, normalization, and the two of the gradient. Tensors of any shape are rows [N, C] in memory, float32 or
// bfloat16; the arithmetic is float32, and sums over many rows are float64.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <vector>

#include "numbers_cpu.h"
#include "portable.h"

namespace prior_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Numbers that an inner loop is at least long: rows of few channels are taken several at a time.
constexpr int64_t kWidth = 256;
// Terms that are added in float32 before their sum goes to a float64.
constexpr int64_t kSteps = 32;
// Numbers of a part, which one thread adds up. It does not depend on the threads, and so neither does the rounding.
constexpr int64_t kPart = 1 << 18;
// Numbers that are worth waking a thread for.
constexpr int64_t kGrain = 1 << 15;
// What is done besides the normalization: nothing, a ReLU before it, or a ReLU after it.
enum Activation : int64_t { kNone, kBefore, kAfter };
// The rows of `scales`.
enum { kMean, kUnbiased, kDeviation, kScale, kShift, kScales };

// A NaN stays a NaN, and its gradient is not stopped, as in torch.
PF_INLINE float rectified(float x) { return x < 0.0f ? 0.0f : x; }
PF_INLINE float passed(float gradient, float x) { return x <= 0.0f ? 0.0f : gradient; }

// The numbers that are normalized.
template <Activation A, typename T>
PF_INLINE float input(T x) {
  return A == kBefore ? rectified(wide(x)) : wide(x);
}

// The gradient of the normalized numbers.
template <Activation A, typename T>
PF_INLINE float output_gradient(T dy, T x, float scale, float shift) {
  return A == kAfter ? passed(wide(dy), wide(x) * scale + shift) : wide(dy);
}

// How the rows of a part are read: `copies` rows of all channels side by side are `width` columns.
struct Block {
  int64_t copies, width;
  Block(int64_t rows, int64_t channels)
      : copies(std::max<int64_t>(1, std::min(rows, kWidth / channels))), width(copies * channels) {}
};

// The mean and the sum of squared deviations from it of `count` numbers, and their joining (Chan, Golub and LeVeque,
// "Updating formulae and a pairwise algorithm for computing sample variances", 1979).
PF_INLINE void join(double count, double& mean, double& squares, double other, double other_mean,
                    double other_squares) {
  const double share = other / (count + other), apart = other_mean - mean;
  mean += apart * share;
  squares += other_squares + apart * apart * count * share;
}

// rows [rows, channels] -> the channels' means and squared deviations; rows > 0.
template <Activation A, typename T>
PF_INLINE void moments_of(const T* __restrict x, int64_t rows, int64_t channels, double* mean, double* squares) {
  const Block block(rows, channels);
  const int64_t width = block.width, groups = rows / block.copies;
  std::vector<float> shift(width, 0.0f), sum(width), square(width);
  std::vector<double> means(width, 0.0), deviations(width, 0.0);
  float* __restrict shifts = shift.data();
  float* __restrict sums = sum.data();
  float* __restrict others = square.data();
  double* __restrict all_means = means.data();
  double* __restrict all_deviations = deviations.data();
  const int64_t first = std::min(groups, kSteps);
  for (int64_t step = 0; step < first; ++step)
    for (int64_t w = 0; w < width; ++w) shifts[w] += input<A>(x[step * width + w]);
  for (int64_t w = 0; w < width; ++w) shifts[w] /= static_cast<float>(first);
  for (int64_t begin = 0; begin < groups; begin += kSteps) {
    const int64_t steps = std::min(groups - begin, kSteps);
    std::fill_n(sums, width, 0.0f);
    std::fill_n(others, width, 0.0f);
    for (int64_t step = begin; step < begin + steps; ++step) {
      const T* __restrict row = x + step * width;
      // From the mean so far: squares of the numbers themselves would lose the digits of a small variance.
      for (int64_t w = 0; w < width; ++w) {
        const float apart = input<A>(row[w]) - shifts[w];
        sums[w] += apart;
        others[w] += apart * apart;
      }
    }
    const double count = static_cast<double>(steps), before = static_cast<double>(begin);
    const double share = count / (before + count);
    for (int64_t w = 0; w < width; ++w) {
      const double part = sums[w] / count, apart = shifts[w] + part - all_means[w];
      all_means[w] += apart * share;
      all_deviations[w] += others[w] - part * sums[w] + apart * apart * before * share;
      shifts[w] = static_cast<float>(all_means[w]);
    }
  }
  std::copy_n(all_means, channels, mean);
  std::copy_n(all_deviations, channels, squares);
  for (int64_t copy = 1; copy < block.copies; ++copy)
    for (int64_t c = 0; c < channels; ++c)
      join(static_cast<double>(copy * groups), mean[c], squares[c], static_cast<double>(groups),
           all_means[copy * channels + c], all_deviations[copy * channels + c]);
  for (int64_t row = groups * block.copies; row < rows; ++row)
    for (int64_t c = 0; c < channels; ++c)
      join(static_cast<double>(row), mean[c], squares[c], 1.0, input<A>(x[row * channels + c]), 0.0);
}

// The sums over the rows of dy and of dy * (x - mean). scales: the rows of `norm_scales`.
template <Activation A, typename T>
PF_INLINE void gradient_sums_of(const T* __restrict dy, const T* __restrict x, int64_t rows, int64_t channels,
                                const float* scales, double* of_dy, double* of_product) {
  const Block block(rows, channels);
  const int64_t width = block.width;
  std::vector<float> center(width), scale(width), shift(width), sum(width), product(width);
  std::vector<double> total(width, 0.0), total_product(width, 0.0);
  float* __restrict centers = center.data();
  float* __restrict factors = scale.data();
  float* __restrict offsets = shift.data();
  float* __restrict sums = sum.data();
  float* __restrict products = product.data();
  double* __restrict totals = total.data();
  double* __restrict total_products = total_product.data();
  for (int64_t w = 0; w < width; ++w) {
    centers[w] = scales[kMean * channels + w % channels];
    factors[w] = scales[kScale * channels + w % channels];
    offsets[w] = scales[kShift * channels + w % channels];
  }
  // The last rows, fewer than `copies`, are a step of fewer columns.
  for (int64_t begin = 0; begin < rows; begin += kSteps * block.copies) {
    std::fill_n(sums, width, 0.0f);
    std::fill_n(products, width, 0.0f);
    const int64_t end = std::min(begin + kSteps * block.copies, rows);
    for (int64_t row = begin; row < end; row += block.copies) {
      const int64_t length = std::min(block.copies, end - row) * channels;
      const T* __restrict dys = dy + row * channels;
      const T* __restrict xs = x + row * channels;
      for (int64_t w = 0; w < length; ++w) {
        const float gradient = output_gradient<A>(dys[w], xs[w], factors[w], offsets[w]);
        sums[w] += gradient;
        products[w] += gradient * (input<A>(xs[w]) - centers[w]);
      }
    }
    for (int64_t w = 0; w < width; ++w) {
      totals[w] += sums[w];
      total_products[w] += products[w];
    }
  }
  std::fill_n(of_dy, channels, 0.0);
  std::fill_n(of_product, channels, 0.0);
  for (int64_t w = 0; w < width; ++w) {
    of_dy[w % channels] += totals[w];
    of_product[w % channels] += total_products[w];
  }
}

// y = x * scale + shift for numbers [begin, end), a multiple of the columns' number from the start.
template <Activation A, typename T>
PF_INLINE void normalize_range(const T* __restrict x, int64_t begin, int64_t end, int64_t width,
                               const float* __restrict scale, const float* __restrict shift, T* __restrict y) {
  for (int64_t i = begin; i < end; i += width) {
    const int64_t length = std::min(width, end - i);
    for (int64_t w = 0; w < length; ++w) {
      const float value = input<A>(x[i + w]) * scale[w] + shift[w];
      store(A == kAfter ? rectified(value) : value, y + i + w);
    }
  }
}

// y = ReLU(x * scale + shift + residual), likewise.
template <typename T>
PF_INLINE void add_range(const T* __restrict x, const T* __restrict residual, int64_t begin, int64_t end,
                         int64_t width, const float* __restrict scale, const float* __restrict shift,
                         T* __restrict y) {
  for (int64_t i = begin; i < end; i += width) {
    const int64_t length = std::min(width, end - i);
    for (int64_t w = 0; w < length; ++w)
      store(rectified(wide(x[i + w]) * scale[w] + shift[w] + wide(residual[i + w])), y + i + w);
  }
}

// Columns of what the gradient of x is computed from.
struct Slopes {
  std::vector<float> scale, shift, mean, offset, slope;
};

// dx = scale * (dy - offset - (x - mean) * slope), likewise.
template <Activation A, typename T>
PF_INLINE void gradient_range(const T* __restrict dy, const T* __restrict x, int64_t begin, int64_t end, int64_t width,
                              const Slopes& slopes, T* __restrict dx) {
  const float* __restrict scale = slopes.scale.data();
  const float* __restrict shift = slopes.shift.data();
  const float* __restrict mean = slopes.mean.data();
  const float* __restrict offset = slopes.offset.data();
  const float* __restrict slope = slopes.slope.data();
  for (int64_t i = begin; i < end; i += width) {
    const int64_t length = std::min(width, end - i);
    for (int64_t w = 0; w < length; ++w) {
      const float gradient = output_gradient<A>(dy[i + w], x[i + w], scale[w], shift[w]);
      const float value = scale[w] * (gradient - offset[w] - (input<A>(x[i + w]) - mean[w]) * slope[w]);
      store(A == kBefore ? passed(value, wide(x[i + w])) : value, dx + i + w);
    }
  }
}

// Compilers make a clone for each kind of processor only of a function that is no template.
#define PF_FOR_ACTIVATION(T, A)                                                                                     \
  PF_CLONES void moments##A(const T* x, int64_t rows, int64_t channels, double* mean, double* squares) {            \
    moments_of<A>(x, rows, channels, mean, squares);                                                                \
  }                                                                                                                 \
  PF_CLONES void gradient_sums##A(const T* dy, const T* x, int64_t rows, int64_t channels, const float* scales,     \
                                  double* of_dy, double* of_product) {                                              \
    gradient_sums_of<A>(dy, x, rows, channels, scales, of_dy, of_product);                                          \
  }                                                                                                                 \
  PF_CLONES void normalize##A(const T* x, int64_t begin, int64_t end, int64_t width, const float* scale,            \
                              const float* shift, T* y) {                                                           \
    normalize_range<A>(x, begin, end, width, scale, shift, y);                                                      \
  }                                                                                                                 \
  PF_CLONES void gradient##A(const T* dy, const T* x, int64_t begin, int64_t end, int64_t width,                    \
                             const Slopes& slopes, T* dx) {                                                         \
    gradient_range<A>(dy, x, begin, end, width, slopes, dx);                                                        \
  }
#define PF_FOR(T)                                                                                                   \
  PF_FOR_ACTIVATION(T, kNone)                                                                                       \
  PF_FOR_ACTIVATION(T, kBefore)                                                                                     \
  PF_FOR_ACTIVATION(T, kAfter)                                                                                      \
  PF_CLONES void add(const T* x, const T* residual, int64_t begin, int64_t end, int64_t width, const float* scale,  \
                     const float* shift, T* y) {                                                                    \
    add_range(x, residual, begin, end, width, scale, shift, y);                                                     \
  }
PF_FOR(float)
PF_FOR(BFloat16Bits)
#undef PF_FOR
#undef PF_FOR_ACTIVATION
// `call` of the function for an activation that is known when the program runs.
#define PF_CALL(function, activation, ...)         \
  ((activation) == kBefore  ? function##kBefore(__VA_ARGS__) \
   : (activation) == kAfter ? function##kAfter(__VA_ARGS__)  \
                            : function##kNone(__VA_ARGS__))

// The rows of part `part` of `parts` are [first(part), first(part + 1)).
struct Parts {
  int64_t rows, count;
  Parts(int64_t rows, int64_t channels)
      : rows(rows), count(std::max<int64_t>(1, std::min(rows, rows * channels / kPart))) {}
  int64_t first(int64_t part) const { return rows * part / count; }
};

// Row c of `channels` numbers, repeated to fill the columns.
std::vector<float> repeated(const float* values, int64_t channels, int64_t width) {
  std::vector<float> out(width);
  for (int64_t w = 0; w < width; ++w) out[w] = values[w % channels];
  return out;
}

// x, rows [N, channels] in memory -> [ranks, 1 + 2 C] float64: in row `rank` N, the channels' means, and their sums of squared deviations;
// zeros in the other rows, which the sum over all ranks fills.
Tensor norm_moments(const Tensor& x, int64_t channels, int64_t rank, int64_t ranks, int64_t activation) {
  const int64_t rows = x.numel() / channels, stride = 1 + 2 * channels;
  Tensor out = torch::stable::new_empty(x, {ranks, stride}, ScalarType::Double);
  double* found = write<double>(out);
  std::fill_n(found, ranks * stride, 0.0);
  if (rows == 0) return out;
  found += rank * stride;
  const Parts parts(rows, channels);
  std::vector<double> each(parts.count * 2 * channels);
  torch::stable::parallel_for(0, parts.count, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      const int64_t begin = parts.first(part), length = parts.first(part + 1) - begin;
      double* mean = each.data() + part * 2 * channels;
      if (is_narrow(x))
        PF_CALL(moments, activation, read<BFloat16Bits>(x) + begin * channels, length, channels, mean,
                mean + channels);
      else
        PF_CALL(moments, activation, read<float>(x) + begin * channels, length, channels, mean, mean + channels);
    }
  });
  found[0] = static_cast<double>(rows);
  std::copy_n(each.data(), 2 * channels, found + 1);
  for (int64_t part = 1; part < parts.count; ++part) {
    const double* mean = each.data() + part * 2 * channels;
    const int64_t begin = parts.first(part), length = parts.first(part + 1) - begin;
    for (int64_t c = 0; c < channels; ++c)
      join(static_cast<double>(begin), found[1 + c], found[1 + channels + c], static_cast<double>(length), mean[c],
           mean[channels + c]);
  }
  return out;
}

// moments [ranks, 1 + 2 C] float64, weight and bias [C] float32 or none -> scales [5, C] float32: mean, unbiased
// variance, 1 / deviation, scale and shift of all ranks' rows.
Tensor norm_scales(const Tensor& moments, const std::optional<Tensor>& weight, const std::optional<Tensor>& bias,
                   double eps) {
  const int64_t ranks = moments.size(0), stride = moments.size(1), channels = (stride - 1) / 2;
  Tensor out = torch::stable::new_empty(moments, {kScales, channels}, ScalarType::Float);
  const double* found = read<double>(moments);
  float* scales = write<float>(out);
  for (int64_t c = 0; c < channels; ++c) {
    double count = 0.0, mean = 0.0, squares = 0.0;
    for (int64_t rank = 0; rank < ranks; ++rank) {
      const double* own = found + rank * stride;
      if (own[0] == 0.0) continue;
      join(count, mean, squares, own[0], own[1 + c], own[1 + channels + c]);
      count += own[0];
    }
    const double deviation = 1.0 / std::sqrt(squares / count + eps);
    const double scale = weight ? deviation * read<float>(*weight)[c] : deviation;
    scales[kMean * channels + c] = static_cast<float>(mean);
    scales[kUnbiased * channels + c] = static_cast<float>(squares / (count - 1.0));
    scales[kDeviation * channels + c] = static_cast<float>(deviation);
    scales[kScale * channels + c] = static_cast<float>(scale);
    scales[kShift * channels + c] = static_cast<float>((bias ? read<float>(*bias)[c] : 0.0) - mean * scale);
  }
  return out;
}

// x -> x * scale + shift, like x in shape, memory and dtype; with a residual, which is like x, its sum with it,
// rectified.
Tensor norm_apply(const Tensor& x, const Tensor& scales, int64_t activation, const std::optional<Tensor>& residual) {
  const int64_t channels = scales.size(1), numbers = x.numel();
  Tensor out = torch::stable::empty_like(x);
  if (numbers == 0) return out;
  const int64_t width = Block(numbers / channels, channels).width;
  const std::vector<float> scale = repeated(read<float>(scales) + kScale * channels, channels, width);
  const std::vector<float> shift = repeated(read<float>(scales) + kShift * channels, channels, width);
  torch::stable::parallel_for(0, (numbers + width - 1) / width, std::max<int64_t>(1, kGrain / width),
                              [&](int64_t first, int64_t last) {
    const int64_t begin = first * width, end = std::min(last * width, numbers);
    const float *factors = scale.data(), *offsets = shift.data();
    if (residual && is_narrow(x))
      add(read<BFloat16Bits>(x), read<BFloat16Bits>(*residual), begin, end, width, factors, offsets,
          write<BFloat16Bits>(out));
    else if (residual)
      add(read<float>(x), read<float>(*residual), begin, end, width, factors, offsets, write<float>(out));
    else if (is_narrow(x))
      PF_CALL(normalize, activation, read<BFloat16Bits>(x), begin, end, width, factors, offsets,
              write<BFloat16Bits>(out));
    else
      PF_CALL(normalize, activation, read<float>(x), begin, end, width, factors, offsets, write<float>(out));
  });
  return out;
}

// dy, x, of one dtype and one order in memory -> [2, C] float64: the sums over the rows of dy, and of dy times the normalized x.
Tensor norm_gradient_sums(const Tensor& dy, const Tensor& x, const Tensor& scales, int64_t activation) {
  const int64_t channels = scales.size(1), rows = x.numel() / channels;
  Tensor out = torch::stable::new_empty(x, {2, channels}, ScalarType::Double);
  double* sums = write<double>(out);
  std::fill_n(sums, 2 * channels, 0.0);
  if (rows == 0) return out;
  const float* all = read<float>(scales);
  const Parts parts(rows, channels);
  std::vector<double> each(parts.count * 2 * channels);
  torch::stable::parallel_for(0, parts.count, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      const int64_t begin = parts.first(part), length = parts.first(part + 1) - begin, offset = begin * channels;
      double* own = each.data() + part * 2 * channels;
      if (is_narrow(x))
        PF_CALL(gradient_sums, activation, read<BFloat16Bits>(dy) + offset, read<BFloat16Bits>(x) + offset, length,
                channels, all, own, own + channels);
      else
        PF_CALL(gradient_sums, activation, read<float>(dy) + offset, read<float>(x) + offset, length, channels, all,
                own, own + channels);
    }
  });
  for (int64_t part = 0; part < parts.count; ++part)
    for (int64_t i = 0; i < 2 * channels; ++i) sums[i] += each[part * 2 * channels + i];
  const float* deviation = read<float>(scales) + kDeviation * channels;
  for (int64_t c = 0; c < channels; ++c) sums[channels + c] *= deviation[c];
  return out;
}

// dy and x likewise, sums [2, C] and moments [ranks, 1 + 2 C] of all ranks -> the gradient of x.
Tensor norm_gradient(const Tensor& dy, const Tensor& x, const Tensor& scales, const Tensor& sums,
                     const Tensor& moments, int64_t activation) {
  const int64_t channels = scales.size(1), numbers = x.numel();
  Tensor out = torch::stable::empty_like(x);
  if (numbers == 0) return out;
  double count = 0.0;
  for (int64_t rank = 0; rank < moments.size(0); ++rank) count += read<double>(moments)[rank * moments.size(1)];
  const int64_t width = Block(numbers / channels, channels).width;
  const float* all = read<float>(scales);
  Slopes slopes{repeated(all + kScale * channels, channels, width), repeated(all + kShift * channels, channels, width),
                repeated(all + kMean * channels, channels, width), std::vector<float>(width),
                std::vector<float>(width)};
  for (int64_t w = 0; w < width; ++w) {
    const int64_t c = w % channels;
    slopes.offset[w] = static_cast<float>(read<double>(sums)[c] / count);
    slopes.slope[w] = static_cast<float>(all[kDeviation * channels + c] * read<double>(sums)[channels + c] / count);
  }
  torch::stable::parallel_for(0, (numbers + width - 1) / width, std::max<int64_t>(1, kGrain / width),
                              [&](int64_t first, int64_t last) {
    const int64_t begin = first * width, end = std::min(last * width, numbers);
    if (is_narrow(x))
      PF_CALL(gradient, activation, read<BFloat16Bits>(dy), read<BFloat16Bits>(x), begin, end, width, slopes,
              write<BFloat16Bits>(out));
    else
      PF_CALL(gradient, activation, read<float>(dy), read<float>(x), begin, end, width, slopes, write<float>(out));
  });
  return out;
}

}  // namespace
}  // namespace prior_fast

STABLE_TORCH_LIBRARY_IMPL(prior_fast, CPU, library) {
  library.impl("norm_moments", TORCH_BOX(&prior_fast::norm_moments));
  library.impl("norm_scales", TORCH_BOX(&prior_fast::norm_scales));
  library.impl("norm_apply", TORCH_BOX(&prior_fast::norm_apply));
  library.impl("norm_gradient_sums", TORCH_BOX(&prior_fast::norm_gradient_sums));
  library.impl("norm_gradient", TORCH_BOX(&prior_fast::norm_gradient));
}
