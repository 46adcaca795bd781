// prior_fast::sigmoid_attention_cpp and prior_fast::attention_weights_cpp: attention within segments of packed rows on
// the CPU, with sigmoids or softmaxes as weights. Tensors are float32 or bfloat16; the arithmetic is float32. Inner
// products of bfloat16 rows take instructions for pairs of such numbers where the processor has them: a half of the
// instructions of float32 copies, for products that are exact, too.
//
// A tile is up to eight queries of a segment and head with all the segment's keys: its weights are [keys, 8]. Every
// result is computed by one thread in an order that the segments' lengths alone determine.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <new>
#include <optional>
#include <tuple>
#include <vector>

#include "numbers_cpu.h"
#include "portable.h"
#include "small_products_cpu.h"

namespace prior_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Weights that the backward pass of a segment holds at once. With more, its queries are processed in parts.
constexpr int64_t kWeights = 1 << 18;
// Multiplications that are worth waking a thread for.
constexpr int64_t kGrain = 1 << 17;

// Parts of `count` rows: the fewest of at most 8 rows, whose lengths differ as little as possible.
struct Split {
  int64_t count, length;
  explicit Split(int64_t count) : count(count), length(count ? even(count, even(count, kRows)) : 1) {}
  int64_t parts() const { return even(count, length); }
  int64_t rows(int64_t part) const { return std::min(length, count - part * length); }
  static int64_t even(int64_t a, int64_t b) { return (a + b - 1) / b; }
};

struct Segment {
  int64_t q, queries, k, keys;  // first row and number of rows
};

std::vector<int64_t> offsets_of(const Tensor& x, const char* name, int64_t rows) {
  std::vector<int64_t> out(x.numel());
  if (x.scalar_type() == ScalarType::Int)
    std::copy_n(read<int32_t>(x), out.size(), out.begin());
  else
    std::copy_n(read<int64_t>(x), out.size(), out.begin());
  bool valid = !out.empty() && out.front() == 0 && out.back() == rows;
  for (size_t i = 1; i < out.size(); ++i) valid = valid && out[i - 1] <= out[i];
  STD_TORCH_CHECK(valid, name, " must rise from 0 to ", rows, ", the number of rows");
  return out;
}

std::vector<Segment> segments_of(const Tensor& cu_q, int64_t rows_q, const Tensor& cu_k, int64_t rows_k) {
  const std::vector<int64_t> q = offsets_of(cu_q, "cu_seqlens_q", rows_q), k = offsets_of(cu_k, "cu_seqlens_k", rows_k);
  STD_TORCH_CHECK(q.size() == k.size(), "cu_seqlens_q has ", q.size(), " numbers and cu_seqlens_k has ", k.size());
  std::vector<Segment> out;
  for (size_t i = 1; i < q.size(); ++i) out.push_back({q[i - 1], q[i] - q[i - 1], k[i - 1], k[i] - k[i - 1]});
  return out;
}

// What the weights are computed with.
struct Weighting {
  float scale, bias;
  bool softmax;
  Weighting(const Tensor& q, std::optional<double> scale, double bias, bool softmax)
      : scale(static_cast<float>(scale ? *scale : 1.0 / std::sqrt(static_cast<double>(q.size(2))))),
        bias(static_cast<float>(bias)),
        softmax(softmax) {}
};

// The rows of one head of a tensor [T, H, D] whose tokens may have any stride.
template <typename T>
Rows<const T> rows_of(const Tensor& x, int64_t head) {
  return {read<T>(x) + head * x.size(2), x.stride(0)};
}
template <typename T>
Rows<T> new_rows_of(Tensor& x, int64_t head) {
  return {write<T>(x) + head * x.size(2), x.size(1) * x.size(2)};
}
template <typename T>
Rows<T> from(Rows<T> rows, int64_t first) {
  return {rows[first], rows.step};
}

// Calls `run(task)` for each task once, on threads that get about as much work each.
template <typename Run>
void for_tasks(const std::vector<int64_t>& work, int64_t grain, Run run) {
  std::vector<int64_t> begins(work.size() + 1, 0);
  for (size_t i = 0; i < work.size(); ++i) begins[i + 1] = begins[i] + work[i];
  if (work.empty()) return;
  torch::stable::parallel_for(0, begins.back(), grain, [&](int64_t first, int64_t last) {
    const auto begin = std::lower_bound(begins.begin(), begins.end() - 1, first);
    const auto end = std::lower_bound(begins.begin(), begins.end() - 1, last);
    run(begin - begins.begin(), end - begins.begin());
  });
}

// Memory for numbers at an address that is a multiple of 64. Vectors elsewhere take two reads of the cache.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { release(); }
  // At least `size` numbers; what it held is lost.
  float* hold(int64_t size) {
    if (size > size_) {
      release();
      data_ = static_cast<float*>(::operator new(size * sizeof(float), kAlign));
      size_ = size;
    }
    return data_;
  }

 private:
  static constexpr std::align_val_t kAlign{64};
  void release() {
    ::operator delete(data_, kAlign);
    data_ = nullptr;
  }
  float* data_ = nullptr;
  int64_t size_ = 0;
};

// The numbers from one row to the next in a buffer.
int64_t aligned(int64_t width) { return (width + 15) / 16 * 16; }

// Up to eight rows as inner products read them: those of the tensor, and float32 copies if they are needed.
struct Wide {
  Buffer copy;
  Left<float> of(const Products<float>&, Rows<const float> rows, int64_t, int64_t) { return {rows, rows}; }
  Left<BFloat16Bits> of(const Products<BFloat16Bits>& products, Rows<const BFloat16Bits> rows, int64_t count,
                        int64_t width) {
    if (!products.widens) return {{nullptr, 0}, rows};
    const Rows<float> out{copy.hold(kRows * aligned(width)), aligned(width)};
    for (int64_t row = 0; row < count; ++row) products.widen(rows[row], width, out[row]);
    return {{out.data, out.step}, rows};
  }
};

template <typename T>
void weigh(const Products<T>& products, const Weighting& weighting, int64_t keys, float* logits) {
  if (weighting.softmax)
    products.softmaxes(logits, keys, weighting.scale, weighting.bias);
  else
    products.sigmoids(logits, keys * kRows, weighting.scale, weighting.bias);
}

// Tiles of the forward pass.
struct Tile {
  Segment segment;
  int64_t index, head, first, rows;
};

std::vector<Tile> tiles_of(const std::vector<Segment>& segments, int64_t heads) {
  std::vector<Tile> tiles;
  for (size_t i = 0; i < segments.size(); ++i)
    for (int64_t head = 0; head < heads; ++head) {
      const Split split(segments[i].queries);
      for (int64_t part = 0; part < split.parts(); ++part)
        tiles.push_back({segments[i], static_cast<int64_t>(i), head, part * split.length, split.rows(part)});
    }
  return tiles;
}

// Calls `use(tile, weights)` with the weights of each tile.
template <typename T, typename Use>
void for_weights(const Products<T>& products, const Tensor& q, const Tensor& k, const Tensor* v,
                 const std::vector<Segment>& segments, const Weighting& weighting, Use use) {
  const std::vector<Tile> tiles = tiles_of(segments, q.size(1));
  const int64_t width = q.size(2);
  std::vector<int64_t> work(tiles.size());
  // Reading a key takes as long as some products.
  for (size_t i = 0; i < tiles.size(); ++i) work[i] = (tiles[i].rows + 4) * (tiles[i].segment.keys + 1);
  for_tasks(work, kGrain / width + 1, [&](int64_t begin, int64_t end) {
    Wide wide;
    Buffer buffer;
    for (int64_t i = begin; i < end; ++i) {
      const Tile& tile = tiles[i];
      const Segment& segment = tile.segment;
      float* weights = buffer.hold(segment.keys * kRows);
      if (segment.keys) {
        const auto queries = from(rows_of<T>(q, tile.head), segment.q + tile.first);
        Next next;
        if (v && tile.first == 0) {
          const auto values = from(rows_of<T>(*v, tile.head), segment.k);
          next = {reinterpret_cast<const char*>(values.data), values.step * static_cast<int64_t>(sizeof(T)),
                  v->size(2) * static_cast<int64_t>(sizeof(T))};
        }
        products.inner_products(tile.rows, wide.of(products, queries, tile.rows, width),
                                from(rows_of<T>(k, tile.head), segment.k), segment.keys, width, weights, next);
        weigh(products, weighting, segment.keys, weights);
      }
      use(tile, weights);
    }
  });
}

template <typename T>
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const std::vector<Segment>& segments,
                 const Weighting& weighting, int64_t lanes) {
  Tensor out = torch::stable::new_empty(q, {q.size(0), q.size(1), v.size(2)});
  const Products<T>& products = products_of(T(), lanes);
  for_weights<T>(products, q, k, &v, segments, weighting, [&](const Tile& tile, const float* weights) {
    // Without keys, the sums are zeros.
    products.combinations(tile.rows, weights, tile.segment.keys, from(rows_of<T>(v, tile.head), tile.segment.k),
                          v.size(2), from(new_rows_of<T>(out, tile.head), tile.segment.q + tile.first));
  });
  return out;
}

template <typename T>
Tensor weights_alone(const Tensor& q, const Tensor& k, const std::vector<Segment>& segments, int64_t longest_q,
                     int64_t longest_k, const Weighting& weighting, int64_t lanes) {
  const int64_t heads = q.size(1);
  Tensor out = torch::stable::new_empty(q, {static_cast<int64_t>(segments.size()), heads, longest_q, longest_k});
  std::fill_n(write<T>(out), out.numel(), T());
  for_weights<T>(products_of(T(), lanes), q, k, nullptr, segments, weighting,
                 [&](const Tile& tile, const float* weights) {
                   T* to = write<T>(out) + ((tile.index * heads + tile.head) * longest_q + tile.first) * longest_k;
                   for (int64_t row = 0; row < tile.rows; ++row)
                     for (int64_t key = 0; key < tile.segment.keys; ++key)
                       store(weights[key * kRows + row], to + row * longest_k + key);
                 });
  return out;
}

// Gradients of the weights [keys, 8] -> those of the scaled products, in place.
void through_weights(const float* weights, int64_t keys, const Weighting& weighting, float* gradient) {
  const float scale = weighting.scale;
  if (!weighting.softmax) {
    for (int64_t i = 0; i < keys * kRows; ++i) gradient[i] *= weights[i] * (1.0f - weights[i]) * scale;
    return;
  }
  // float64, since there may be many keys, whose terms cancel in part.
  double totals[kRows] = {};
  for (int64_t key = 0; key < keys; ++key)
    for (int64_t row = 0; row < kRows; ++row) totals[row] += weights[key * kRows + row] * gradient[key * kRows + row];
  float sums[kRows];
  std::copy_n(totals, kRows, sums);
  for (int64_t key = 0; key < keys; ++key)
    for (int64_t row = 0; row < kRows; ++row) {
      const int64_t i = key * kRows + row;
      gradient[i] = weights[i] * (gradient[i] - sums[row]) * scale;
    }
}

// Columns [keys, 8] of a tile's queries -> factors [parts of the keys, queries, 8] of its keys, from query `first` on.
void transpose(const float* columns, int64_t rows, const Split& keys, int64_t first, int64_t queries, float* factors) {
  for (int64_t part = 0; part < keys.parts(); ++part)
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t key = 0; key < keys.rows(part); ++key)
        factors[(part * queries + first + row) * kRows + key] = columns[(part * keys.length + key) * kRows + row];
}

// Sums over the queries, which may come in several parts: to the result, or in float32 first.
template <typename T>
class Total {
 public:
  Total(const Products<T>& products, Rows<T> out, int64_t rows, int64_t width, bool several)
      : products_(products), out_(out), rows_(rows), width_(width) {
    if (several) sums_ = {buffer_.hold(rows * aligned(width)), aligned(width)};
  }
  void add(const float* factors, const Split& keys, Rows<const T> right, int64_t queries, bool first) {
    for (int64_t part = 0; part < keys.parts(); ++part) {
      const float* own = factors + part * queries * kRows;
      const int64_t row = part * keys.length;
      if (!sums_.data)
        products_.combinations(keys.rows(part), own, queries, right, width_, from(out_, row));
      else
        products_.add_combinations(keys.rows(part), own, queries, right, width_,
                                   from(sums_, row), !first);
    }
  }
  void finish() {
    if (!sums_.data) return;
    for (int64_t row = 0; row < rows_; ++row) products_.narrow(sums_[row], width_, out_[row]);
  }

 private:
  const Products<T>& products_;
  Rows<T> out_;
  int64_t rows_, width_;
  Buffer buffer_;
  Rows<float> sums_{nullptr, 0};
};

// The tensors of a backward pass. With values, the gradient of the weights comes from that of the output; without, it
// is given, [B, H, longest_q, longest_k].
struct Backward {
  const Tensor &dout, &q, &k;
  const Tensor* v;
  Tensor &dq, &dk;
  Tensor* dv;
};

struct Scratch {
  Wide wide;
  Buffer weights, gradients, weight_factors, gradient_factors;
};

template <typename T>
void backward_of_segment(const Products<T>& products, const Backward& x, const Segment& segment, int64_t index,
                         int64_t head, const Weighting& weighting, Scratch& scratch) {
  const int64_t keys = segment.keys, width = x.q.size(2), width_v = x.v ? x.v->size(2) : 0;
  const auto q = from(rows_of<T>(x.q, head), segment.q), k = from(rows_of<T>(x.k, head), segment.k);
  const auto dq = from(new_rows_of<T>(x.dq, head), segment.q);
  const Rows<const T> v = x.v ? from(rows_of<T>(*x.v, head), segment.k) : Rows<const T>{nullptr, 0};
  const Rows<const T> dout = x.v ? from(rows_of<T>(x.dout, head), segment.q) : Rows<const T>{nullptr, 0};
  const int64_t fits = std::max(kRows, kWeights / std::max<int64_t>(keys, 1) / kRows * kRows);
  const bool several = segment.queries > fits;
  Total<T> dk(products, from(new_rows_of<T>(x.dk, head), segment.k), keys, width, several);
  Total<T> dv(products, x.v ? from(new_rows_of<T>(*x.dv, head), segment.k) : Rows<T>{nullptr, 0}, keys, width_v,
              several);
  const Split by_key(keys);
  const int64_t held = by_key.parts() * std::min(fits, segment.queries) * kRows;
  float *weights = scratch.weights.hold(keys * kRows), *gradients = scratch.gradients.hold(keys * kRows);
  float* weight_factors = scratch.weight_factors.hold(held);
  float* gradient_factors = scratch.gradient_factors.hold(held);
  // A segment without queries takes one pass over none of them, whose sums are zeros.
  for (int64_t first = 0; first == 0 || first < segment.queries; first += fits) {
    const int64_t queries = std::min(fits, segment.queries - first);
    const Split by_query(queries);
    for (int64_t part = 0; part < by_query.parts() && queries; ++part) {
      const int64_t start = part * by_query.length, row = first + start, rows = by_query.rows(part);
      if (keys) {
        Next next;
        if (x.v && row == 0)
          next = {reinterpret_cast<const char*>(v.data), v.step * static_cast<int64_t>(sizeof(T)),
                  width_v * static_cast<int64_t>(sizeof(T))};
        products.inner_products(rows, scratch.wide.of(products, from(q, row), rows, width), k, keys, width, weights,
                                next);
        weigh(products, weighting, keys, weights);
        if (x.v) {
          products.inner_products(rows, scratch.wide.of(products, from(dout, row), rows, width_v), v, keys, width_v,
                                  gradients, Next());
        } else {
          const int64_t longest_q = x.dout.size(2), longest_k = x.dout.size(3);
          const T* given = read<T>(x.dout) + ((index * x.q.size(1) + head) * longest_q + row) * longest_k;
          std::fill_n(gradients, keys * kRows, 0.0f);
          for (int64_t key = 0; key < keys; ++key)
            for (int64_t i = 0; i < rows; ++i) gradients[key * kRows + i] = wide(given[i * longest_k + key]);
        }
        through_weights(weights, keys, weighting, gradients);
      }
      products.combinations(rows, gradients, keys, k, width, from(dq, row));
      if (x.v) transpose(weights, rows, by_key, start, queries, weight_factors);
      transpose(gradients, rows, by_key, start, queries, gradient_factors);
    }
    if (keys == 0) continue;
    if (x.v) dv.add(weight_factors, by_key, from(dout, first), queries, first == 0);
    dk.add(gradient_factors, by_key, from(q, first), queries, first == 0);
  }
  dk.finish();
  if (x.v) dv.finish();
}

template <typename T>
void backward(const Backward& x, const std::vector<Segment>& segments, const Weighting& weighting, int64_t lanes) {
  const Products<T>& products = products_of(T(), lanes);
  const int64_t heads = x.q.size(1);
  std::vector<int64_t> work;
  for (const Segment& segment : segments)
    for (int64_t head = 0; head < heads; ++head) work.push_back((segment.queries + 4) * (segment.keys + 4));
  for_tasks(work, kGrain / x.q.size(2) / 3 + 1, [&](int64_t begin, int64_t end) {
    Scratch scratch;
    for (int64_t task = begin; task < end; ++task)
      backward_of_segment<T>(products, x, segments[task / heads], task / heads, task % heads, weighting, scratch);
  });
}

// lanes: of the vectors, 16, 8 or 4, or kPairs; 0: the most that the processor has.
int64_t lanes_of(int64_t wanted) { return wanted ? std::min(wanted, lanes_here()) : lanes_here(); }

Tensor sigmoid_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& cu_q, const Tensor& cu_k,
                         std::optional<double> scale, double bias, bool softmax, int64_t lanes) {
  const auto segments = segments_of(cu_q, q.size(0), cu_k, k.size(0));
  const Weighting weighting(q, scale, bias, softmax);
  return is_narrow(q) ? attention<BFloat16Bits>(q, k, v, segments, weighting, lanes_of(lanes))
                      : attention<float>(q, k, v, segments, weighting, lanes_of(lanes));
}

std::tuple<Tensor, Tensor, Tensor> sigmoid_attention_backward(const Tensor& dout, const Tensor& q, const Tensor& k,
                                                              const Tensor& v, const Tensor& cu_q, const Tensor& cu_k,
                                                              std::optional<double> scale, double bias, bool softmax,
                                                              int64_t lanes) {
  const auto segments = segments_of(cu_q, q.size(0), cu_k, k.size(0));
  const Weighting weighting(q, scale, bias, softmax);
  Tensor dq = torch::stable::new_empty(q, q.sizes()), dk = torch::stable::new_empty(k, k.sizes());
  Tensor dv = torch::stable::new_empty(v, v.sizes());
  const Backward x{dout, q, k, &v, dq, dk, &dv};
  is_narrow(q) ? backward<BFloat16Bits>(x, segments, weighting, lanes_of(lanes))
               : backward<float>(x, segments, weighting, lanes_of(lanes));
  return {dq, dk, dv};
}

Tensor attention_weights(const Tensor& q, const Tensor& k, const Tensor& cu_q, const Tensor& cu_k, int64_t longest_q,
                         int64_t longest_k, std::optional<double> scale, double bias, bool softmax, int64_t lanes) {
  const auto segments = segments_of(cu_q, q.size(0), cu_k, k.size(0));
  for (const Segment& segment : segments)
    STD_TORCH_CHECK(segment.queries <= longest_q && segment.keys <= longest_k, "a segment has ", segment.queries,
                    " queries and ", segment.keys, " keys, but max_seqlen_q is ", longest_q, " and max_seqlen_k is ",
                    longest_k);
  const Weighting weighting(q, scale, bias, softmax);
  return is_narrow(q)
             ? weights_alone<BFloat16Bits>(q, k, segments, longest_q, longest_k, weighting, lanes_of(lanes))
             : weights_alone<float>(q, k, segments, longest_q, longest_k, weighting, lanes_of(lanes));
}

std::tuple<Tensor, Tensor> attention_weights_backward(const Tensor& dweights, const Tensor& q, const Tensor& k,
                                                      const Tensor& cu_q, const Tensor& cu_k,
                                                      std::optional<double> scale, double bias, bool softmax,
                                                      int64_t lanes) {
  const auto segments = segments_of(cu_q, q.size(0), cu_k, k.size(0));
  const Weighting weighting(q, scale, bias, softmax);
  Tensor dq = torch::stable::new_empty(q, q.sizes()), dk = torch::stable::new_empty(k, k.sizes());
  const Backward x{dweights, q, k, nullptr, dq, dk, nullptr};
  is_narrow(q) ? backward<BFloat16Bits>(x, segments, weighting, lanes_of(lanes))
               : backward<float>(x, segments, weighting, lanes_of(lanes));
  return {dq, dk};
}

}  // namespace
}  // namespace prior_fast

STABLE_TORCH_LIBRARY_IMPL(prior_fast, CPU, library) {
  library.impl("sigmoid_attention_cpp", TORCH_BOX(&prior_fast::sigmoid_attention));
  library.impl("sigmoid_attention_cpp_backward", TORCH_BOX(&prior_fast::sigmoid_attention_backward));
  library.impl("attention_weights_cpp", TORCH_BOX(&prior_fast::attention_weights));
  library.impl("attention_weights_cpp_backward", TORCH_BOX(&prior_fast::attention_weights_backward));
}
