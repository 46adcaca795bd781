// Products of small matrices of float32 or bfloat16 rows on a CPU, such as a segment's queries and keys. A matrix
// product of a library takes longer to start than these take. Each function exists for several kinds of processors,
// which have vectors of 16, 8 and 4 numbers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "numbers_cpu.h"
#include "portable.h"
#include "vectors_cpu.h"

// Compilers and assemblers that know AVX512-BF16.
#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 10)
#define PF_PAIRS
#endif

namespace prior_fast {

// Rows of a tile. Coefficients and inner products of up to 8 rows lie side by side: [count, 8].
constexpr int64_t kRows = 8;

// Rows of numbers, `step` numbers apart.
template <typename T>
struct Rows {
  T* data;
  int64_t step;
  PF_INLINE T* operator[](int64_t row) const { return data + row * step; }
};

// Rows that a product reads next: it fetches as many of them to the cache as it reads of its own.
struct Next {
  const char* data = nullptr;
  int64_t step = 0, length = 0;  // bytes
};

// Rows of `right` that a tile of inner products takes, and chunks that a tile of combinations takes: 8 by 3 sums fill
// the 32 registers of AVX-512. Others have 16.
template <int L>
constexpr int kAcross = L == 16 ? 3 : 1;
template <int L, typename T>
constexpr int kChunks = L == 16 && Chunk<L, T>::vectors == 1 ? 3 : 1;

// What the left rows of inner products are read as: float32 copies in the order of chunks, or the rows themselves.
template <typename T>
struct Left {
  Rows<const float> wide;
  Rows<const T> own;
};

// sums += products of 32 pairs of bfloat16 numbers, two in each lane; float32 numbers below the normal ones count as 0.
#if defined(PF_PAIRS)
PF_INLINE void add_pairs(const Words<16>& x, const Words<16>& y, Floats<16>& sums) {
  __asm__("vdpbf16ps %2, %1, %0" : "+v"(sums) : "v"(x), "v"(y));
}

// sums[n][m] += left[m] . right[n] for whole chunks from column d on; returns the column after them.
template <int L, int M, int N, typename Part>
PF_INLINE int64_t add_inner_products(Rows<const BFloat16Bits> left, Rows<const BFloat16Bits> right, int64_t d,
                                     int64_t depth, Floats<L> (&sums)[N][M]) {
  using At = const typename VectorTypes<L>::WordsAt;
  for (; d + 2 * L <= depth; d += 2 * L) {
    Words<L> across[N];
    PF_UNROLLED for (int n = 0; n < N; ++n) across[n] = *reinterpret_cast<At*>(right[n] + d);
    PF_UNROLLED for (int m = 0; m < M; ++m) {
      const Words<L> down = *reinterpret_cast<At*>(left[m] + d);
      PF_UNROLLED for (int n = 0; n < N; ++n) add_pairs(down, across[n], sums[n][m]);
    }
  }
  return d;
}
#endif

template <int L, int M, int N, typename Part, typename T>
PF_INLINE int64_t add_inner_products(Rows<const float> left, Rows<const T> right, int64_t d, int64_t depth,
                                     Floats<L> (&sums)[N][M]) {
  constexpr int V = Part::vectors;
  for (; d + V * L <= depth; d += V * L) {
    Floats<L> across[N][V], down;
    PF_UNROLLED for (int n = 0; n < N; ++n) Part::read(right[n] + d, across[n]);
    PF_UNROLLED for (int v = 0; v < V; ++v)
      PF_UNROLLED for (int m = 0; m < M; ++m) {
        load<L>(left[m] + d + v * L, down);
        if (N > 1) keep<L>(down);
        PF_UNROLLED for (int n = 0; n < N; ++n) sums[n][m] += down * across[n][v];
      }
  }
  return d;
}

// The first M sums of x, and up to 8 numbers in all.
template <int L, int M>
PF_INLINE void store_sums(const Floats<L>* x, float* out) {
  if constexpr (L > kRows)
    PF_UNROLLED for (int m = 0; m < kRows; ++m) out[m] = x[0][m];
  else
    PF_UNROLLED for (int i = 0; i < (M + L - 1) / L; ++i) store<L>(x[i], out + i * L);
}

// out[n, m] = left[m] . right[n] for M left rows and N right rows.
template <int L, int M, int N, typename S, typename T>
PF_INLINE void inner_products_tile(Rows<const S> left, Rows<const T> right, int64_t depth, float* out) {
  Floats<L> sums[N][M] = {};
  int64_t d = add_inner_products<L, M, N, Chunk<L, T>>(left, right, 0, depth, sums);
  if constexpr (Chunk<L, T>::vectors > 1 && std::is_same_v<S, float>)
    d = add_inner_products<L, M, N, Plain<L, T>>(left, right, d, depth, sums);
  PF_UNROLLED for (int n = 0; n < N; ++n) {
    sums_of_lanes<L, M>(sums[n]);
    store_sums<L, M>(sums[n], out + n * kRows);
  }
  if (d < depth)
    for (int n = 0; n < N; ++n)
      for (int m = 0; m < M; ++m) {
        float sum = 0.0f;
        for (int64_t i = d; i < depth; ++i) sum += wide(left[m][i]) * wide(right[n][i]);
        out[n * kRows + m] += sum;
      }
}

template <int L, int M, typename S, typename T>
PF_INLINE void inner_products_rows(Rows<const S> left, Rows<const T> right, int64_t count, int64_t depth,
                                   float* out, Next next) {
  int64_t n = 0;
  if constexpr (kAcross<L> > 1)
    for (; n + kAcross<L> <= count; n += kAcross<L>) {
      if (next.data)
        for (int64_t row = n; row < n + kAcross<L>; ++row)
          for (int64_t byte = 0; byte < next.length; byte += 64)
            __builtin_prefetch(next.data + row * next.step + byte, 0, 2);
      inner_products_tile<L, M, kAcross<L>>(left, Rows<const T>{right[n], right.step}, depth, out + n * kRows);
    }
  for (; n < count; ++n)
    inner_products_tile<L, M, 1>(left, Rows<const T>{right[n], right.step}, depth, out + n * kRows);
}

// out[m] (+)= sum over i of factors[i, m] right[i], in C chunks of columns, for M rows.
template <int L, int M, int C, typename Part, typename OutPart, typename T, typename Out>
PF_INLINE void combinations_tile(const float* factors, int64_t count, Rows<const T> right, Rows<Out> out, bool add) {
  constexpr int V = Part::vectors;
  Floats<L> sums[M][C * V] = {};
  const T* row = right.data;
  for (int64_t i = 0; i < count; ++i, row += right.step, factors += kRows) {
    Floats<L> across[C * V];
    PF_UNROLLED for (int c = 0; c < C; ++c) Part::read(row + c * V * L, across + c * V);
    PF_UNROLLED for (int m = 0; m < M; ++m)
      PF_UNROLLED for (int v = 0; v < C * V; ++v) sums[m][v] += across[v] * factors[m];
  }
  PF_UNROLLED for (int m = 0; m < M; ++m)
    PF_UNROLLED for (int c = 0; c < C; ++c) {
      if (add) {
        Floats<L> before[V];
        OutPart::read(out[m] + c * V * L, before);
        PF_UNROLLED for (int v = 0; v < V; ++v) sums[m][c * V + v] += before[v];
      }
      OutPart::write(sums[m] + c * V, out[m] + c * V * L);
    }
}

// Float32 numbers in the order of Part's chunks.
template <int L, typename Part>
struct InOrder {
  PF_INLINE static void read(const float* from, Floats<L>* x) {
    PF_UNROLLED for (int v = 0; v < Part::vectors; ++v) load<L>(from + v * L, x[v]);
  }
  PF_INLINE static void write(const Floats<L>* x, float* to) {
    PF_UNROLLED for (int v = 0; v < Part::vectors; ++v) store<L>(x[v], to + v * L);
  }
};
template <int L, typename Part, typename T, typename Out>
using OutPart = std::conditional_t<std::is_same_v<T, Out>, Part, InOrder<L, Part>>;

template <int L, int M, int C, typename Part, typename T, typename Out>
PF_INLINE int64_t combinations_columns(const float* factors, int64_t count, Rows<const T> right, int64_t first,
                                       int64_t columns, Rows<Out> out, bool add) {
  constexpr int width = C * Part::vectors * L;
  for (; first + width <= columns; first += width)
    combinations_tile<L, M, C, Part, OutPart<L, Part, T, Out>>(
        factors, count, Rows<const T>{right.data + first, right.step}, Rows<Out>{out.data + first, out.step}, add);
  return first;
}

template <int L, int M, typename T, typename Out>
PF_INLINE void combinations_rows(const float* factors, int64_t count, Rows<const T> right, int64_t columns,
                                 Rows<Out> out, bool add) {
  constexpr int C = kChunks<L, T>;
  using Whole = Chunk<L, T>;
  int64_t c = combinations_columns<L, M, C, Whole>(factors, count, right, 0, columns, out, add);
  if constexpr (C * Whole::vectors > 1)
    c = combinations_columns<L, M, 1, Plain<L, T>>(factors, count, right, c, columns, out, add);
  for (; c < columns; ++c)
    for (int m = 0; m < M; ++m) {
      double sum = add ? wide(out[m][c]) : 0.0f;
      for (int64_t i = 0; i < count; ++i) sum += factors[i * kRows + m] * wide(right[i][c]);
      store(static_cast<float>(sum), out[m] + c);
    }
}

// Terms that are added one after another. A longer sum is one of such sums, and has fewer roundings.
constexpr int64_t kTerms = 64;

template <int L, int M, typename T, typename Out>
PF_INLINE void combinations_in_parts(const float* factors, int64_t count, Rows<const T> right, int64_t columns,
                                     Rows<Out> out, bool add) {
  // A narrow result would be rounded after each part.
  const int64_t terms = std::is_same_v<Out, float> ? kTerms : std::max<int64_t>(count, 1);
  for (int64_t first = 0; first == 0 || first < count; first += terms)
    combinations_rows<L, M>(factors + first * kRows, std::min(terms, count - first),
                            Rows<const T>{right[first], right.step}, columns, out, add || first > 0);
}

// logits [count] -> weights, in place: sigmoid(scale x + bias).
template <int L>
PF_INLINE void sigmoids_in_place(float* x, int64_t count, float scale, float bias) {
  for (int64_t i = 0; i < count; i += L) {
    Floats<L> y;
    load<L>(x + i, y);
    y = y * scale + bias;
    sigmoid_of<L>(y);
    store<L>(y, x + i);
  }
}

// logits [count, 8] -> weights, in place: the softmax of scale x + bias down each column.
template <int L>
PF_INLINE void softmaxes_in_place(float* x, int64_t count, float scale, float bias) {
  for (int64_t column = 0; column < kRows; column += L) {
    Floats<L> most, sum = {}, y;
    load<L>(x + column, y);
    most = y * scale + bias;
    for (int64_t i = 0; i < count; ++i) {
      load<L>(x + i * kRows + column, y);
      y = y * scale + bias;
      most = y > most ? y : most;
      store<L>(y, x + i * kRows + column);
    }
    for (int64_t i = 0; i < count; ++i) {
      load<L>(x + i * kRows + column, y);
      y -= most;
      exp_of_negative<L>(y);
      sum += y;
      store<L>(y, x + i * kRows + column);
    }
    for (int64_t i = 0; i < count; ++i) {
      load<L>(x + i * kRows + column, y);
      store<L>(y / sum, x + i * kRows + column);
    }
  }
}

// The functions for vectors of one length.
template <typename T>
struct Products {
  // left [rows <= 8, depth], right [count, depth] -> out [count, 8]
  void (*inner_products)(int64_t rows, const Left<T>& left, Rows<const T> right, int64_t count, int64_t depth,
                         float* out, Next next);
  // factors [count, 8], right [count, columns] -> out [rows <= 8, columns]
  void (*combinations)(int64_t rows, const float* factors, int64_t count, Rows<const T> right, int64_t columns,
                       Rows<T> out);
  // the same, written or added to float32 numbers in the order of chunks
  void (*add_combinations)(int64_t rows, const float* factors, int64_t count, Rows<const T> right, int64_t columns,
                           Rows<float> out, bool add);
  void (*sigmoids)(float* x, int64_t count, float scale, float bias);
  void (*softmaxes)(float* x, int64_t count, float scale, float bias);
  void (*widen)(const T* x, int64_t count, float* out);
  void (*narrow)(const float* x, int64_t count, T* out);
  bool widens;  // whether inner products read the float32 copies of left rows
};

// Between rows of T and float32 numbers in the order of chunks.
template <int L, typename T>
PF_INLINE void widened(const T* x, int64_t count, float* out) {
  using Part = Chunk<L, T>;
  constexpr int width = Part::vectors * L;
  int64_t i = 0;
  for (; i + width <= count; i += width) {
    Floats<L> y[Part::vectors];
    Part::read(x + i, y);
    InOrder<L, Part>::write(y, out + i);
  }
  for (; i < count; ++i) out[i] = wide(x[i]);
}

template <int L, typename T>
PF_INLINE void narrowed(const float* x, int64_t count, T* out) {
  using Part = Chunk<L, T>;
  constexpr int width = Part::vectors * L;
  int64_t i = 0;
  for (; i + width <= count; i += width) {
    Floats<L> y[Part::vectors];
    InOrder<L, Part>::read(x + i, y);
    Part::write(y, out + i);
  }
  for (; i < count; ++i) store(x[i], out + i);
}

// `call(M)` with the number of rows as a constant.
#define PF_FOR_ROWS(rows, call) \
  switch (rows) {               \
    case 1: call(1); break;     \
    case 2: call(2); break;     \
    case 3: call(3); break;     \
    case 4: call(4); break;     \
    case 5: call(5); break;     \
    case 6: call(6); break;     \
    case 7: call(7); break;     \
    default: call(8);           \
  }

// Compilers take a kind of processor only for a function that is no template.
#define PF_INNER_PRODUCTS_OF(NAME, TARGET, L, T, LEFT)                                                               \
  TARGET inline void inner_products_##NAME(int64_t rows, const Left<T>& from, Rows<const T> right, int64_t count,    \
                                           int64_t depth, float* out, Next next) {                                   \
    const auto left = from.LEFT;                                                                                     \
    PF_FOR_ROWS(rows, PF_INNER_##L)                                                                                  \
  }
#define PF_PRODUCTS_OF(NAME, TARGET, L, T)                                                                           \
  PF_INNER_PRODUCTS_OF(NAME, TARGET, L, T, wide)                                                                     \
  TARGET inline void combinations_##NAME(int64_t rows, const float* factors, int64_t count, Rows<const T> right,     \
                                         int64_t columns, Rows<T> out) {                                             \
    const bool add = false;                                                                                          \
    PF_FOR_ROWS(rows, PF_COMBINE_##L)                                                                                \
  }                                                                                                                  \
  TARGET inline void add_combinations_##NAME(int64_t rows, const float* factors, int64_t count, Rows<const T> right, \
                                             int64_t columns, Rows<float> out, bool add) {                           \
    PF_FOR_ROWS(rows, PF_COMBINE_##L)                                                                                \
  }                                                                                                                  \
  TARGET inline void widen_##NAME(const T* x, int64_t count, float* out) { widened<L>(x, count, out); }              \
  TARGET inline void narrow_##NAME(const float* x, int64_t count, T* out) { narrowed<L>(x, count, out); }
#define PF_INNER(L, M) inner_products_rows<L, M>(left, right, count, depth, out, next)
#define PF_COMBINE(L, M) combinations_in_parts<L, M>(factors, count, right, columns, out, add)
#define PF_INNER_16(M) PF_INNER(16, M)
#define PF_INNER_8(M) PF_INNER(8, M)
#define PF_INNER_4(M) PF_INNER(4, M)
#define PF_COMBINE_16(M) PF_COMBINE(16, M)
#define PF_COMBINE_8(M) PF_COMBINE(8, M)
#define PF_COMBINE_4(M) PF_COMBINE(4, M)
// SIDE: lanes of a softmax's vectors, at most kRows. `sigmoids` takes multiples of kRows.
#define PF_PRODUCTS(TARGET, L, SIDE)                                                             \
  TARGET inline void sigmoids_##L(float* x, int64_t count, float scale, float bias) {            \
    sigmoids_in_place<SIDE>(x, count, scale, bias);                                              \
  }                                                                                              \
  TARGET inline void softmaxes_##L(float* x, int64_t count, float scale, float bias) {           \
    softmaxes_in_place<SIDE>(x, count, scale, bias);                                             \
  }                                                                                              \
  PF_PRODUCTS_OF(float_##L, TARGET, L, float)                                                    \
  PF_PRODUCTS_OF(bfloat16_##L, TARGET, L, BFloat16Bits)

#if defined(__x86_64__)
PF_PRODUCTS(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"))), 16, 8)
PF_PRODUCTS(__attribute__((target("avx2,fma"))), 8, 8)
#endif
#if defined(PF_PAIRS)
// Of a processor that multiplies pairs of bfloat16 numbers: the products are exact, as by float32 copies, and take half
// the instructions. Combinations have float32 factors.
PF_INNER_PRODUCTS_OF(pairs_16, __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"))), 16, BFloat16Bits, own)
#endif
PF_PRODUCTS(, 4, 4)

// The lanes of the vectors that this processor has; kPairs: 16, with products of pairs of bfloat16 numbers.
constexpr int64_t kPairs = 32;
inline int64_t lanes_here() {
#if defined(__x86_64__)
  static const int64_t lanes = [] {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
#if defined(PF_PAIRS)
      if (__builtin_cpu_supports("avx512bf16")) return kPairs;
#endif
      return int64_t{16};
    }
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? int64_t{8} : int64_t{4};
  }();
  return lanes;
#else
  return 4;
#endif
}

#define PF_TABLE(NAME, L)                                                                                           \
  {inner_products_##NAME##L, combinations_##NAME##L, add_combinations_##NAME##L, sigmoids_##L, softmaxes_##L, \
   widen_##NAME##L, narrow_##NAME##L, true}
inline const Products<float>& products_of(float, int64_t lanes) {
#if defined(__x86_64__)
  static const Products<float> wide = PF_TABLE(float_, 16), middle = PF_TABLE(float_, 8);
  if (lanes >= 8) return lanes >= 16 ? wide : middle;
#endif
  static const Products<float> narrow = PF_TABLE(float_, 4);
  return narrow;
}
inline const Products<BFloat16Bits>& products_of(BFloat16Bits, int64_t lanes) {
#if defined(__x86_64__)
  static const Products<BFloat16Bits> wide = PF_TABLE(bfloat16_, 16), middle = PF_TABLE(bfloat16_, 8);
#if defined(PF_PAIRS)
  static const Products<BFloat16Bits> pairs = [] {
    Products<BFloat16Bits> table = wide;
    table.inner_products = inner_products_pairs_16;
    table.widens = false;
    return table;
  }();
  if (lanes == kPairs) return pairs;
#endif
  if (lanes >= 8) return lanes >= 16 ? wide : middle;
#endif
  static const Products<BFloat16Bits> narrow = PF_TABLE(bfloat16_, 4);
  return narrow;
}
#undef PF_TABLE

}  // namespace prior_fast
