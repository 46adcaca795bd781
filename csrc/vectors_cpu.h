// Vectors of L float32 numbers on a CPU, in the vector extensions of GCC and Clang: loads, stores, sums, exponentials.
#pragma once

#include <cstdint>
#include <utility>

#include "numbers_cpu.h"
#include "portable.h"

// Sums are held in registers only if the loops over them are unrolled.
#if defined(__clang__)
#define PF_UNROLLED _Pragma("unroll")
#else
#define PF_UNROLLED _Pragma("GCC unroll 16")
#endif

namespace prior_fast {

template <int L>
struct VectorTypes {
  typedef float Floats __attribute__((vector_size(4 * L)));
  typedef uint32_t Words __attribute__((vector_size(4 * L)));
  typedef uint16_t Halves __attribute__((vector_size(2 * L)));
  // The same in memory, at any address that a number may have. Copies by memcpy are split for some processors.
  typedef float FloatsAt __attribute__((vector_size(4 * L), aligned(4), may_alias));
  typedef uint32_t WordsAt __attribute__((vector_size(4 * L), aligned(2), may_alias));
  typedef uint16_t HalvesAt __attribute__((vector_size(2 * L), aligned(2), may_alias));
};
template <int L>
using Floats = typename VectorTypes<L>::Floats;
template <int L>
using Words = typename VectorTypes<L>::Words;

template <int L>
PF_INLINE void load(const float* from, Floats<L>& x) {
  x = *reinterpret_cast<const typename VectorTypes<L>::FloatsAt*>(from);
}

template <int L>
PF_INLINE void load(const BFloat16Bits* from, Floats<L>& x) {
  const typename VectorTypes<L>::Halves bits = *reinterpret_cast<const typename VectorTypes<L>::HalvesAt*>(from);
  x = (Floats<L>)(__builtin_convertvector(bits, Words<L>) << 16);
}

template <int L>
PF_INLINE void store(const Floats<L>& x, float* to) {
  *reinterpret_cast<typename VectorTypes<L>::FloatsAt*>(to) = x;
}

// To the nearest, ties to even, in the upper 16 bits. NaNs whose lower bits are 0 stay NaNs: those of arithmetic, and
// those of bfloat16 numbers.
template <int L>
PF_INLINE void round_to_upper(const Floats<L>& x, Words<L>& bits) {
  bits = (Words<L>)x;
  bits += 0x7fffu + ((bits >> 16) & 1u);
}

template <int L>
PF_INLINE void store(const Floats<L>& x, BFloat16Bits* to) {
  Words<L> bits;
  round_to_upper<L>(x, bits);
  bits >>= 16;
  *reinterpret_cast<typename VectorTypes<L>::HalvesAt*>(to) =
      __builtin_convertvector(bits, typename VectorTypes<L>::Halves);
}

// Numbers that are read and written together, as vectors of L.
template <int L, typename T>
struct Plain {
  static constexpr int vectors = 1;
  PF_INLINE static void read(const T* from, Floats<L>* x) { load<L>(from, x[0]); }
  PF_INLINE static void write(const Floats<L>* x, T* to) { store<L>(x[0], to); }
};

// 2 L bfloat16 numbers as words of two: the even ones in one vector and the odd ones in another. Vectors of adjacent
// numbers take twice as many instructions.
template <int L>
struct Pairs {
  static constexpr int vectors = 2;
  PF_INLINE static void read(const BFloat16Bits* from, Floats<L>* x) {
    const Words<L> both = *reinterpret_cast<const typename VectorTypes<L>::WordsAt*>(from);
    x[0] = (Floats<L>)(both << 16);
    x[1] = (Floats<L>)(both & 0xffff0000u);
  }
  PF_INLINE static void write(const Floats<L>* x, BFloat16Bits* to) {
    Words<L> even, odd;
    round_to_upper<L>(x[0], even);
    round_to_upper<L>(x[1], odd);
    *reinterpret_cast<typename VectorTypes<L>::WordsAt*>(to) = (even >> 16) | (odd & 0xffff0000u);
  }
};

template <int L, typename T>
struct ChunkOf {
  using type = Plain<L, T>;
};
template <>
struct ChunkOf<16, BFloat16Bits> {
  using type = Pairs<16>;
};
// What rows of T are read in. float32 copies of such rows have the order of chunks, as far as there are whole ones.
template <int L, typename T>
using Chunk = typename ChunkOf<L, T>::type;

// Keeps x in a register, where the compiler would load it again for each use.
template <int L>
PF_INLINE void keep(Floats<L>& x) {
#if defined(__x86_64__)
  __asm__("" : "+v"(x));
#endif
}

// Lane `lane` of `halved`: where it is in the two vectors, as blocks of S lanes; `upper`: in the upper half of a block.
template <int L, int S>
constexpr int halved_lane(int lane, bool upper) {
  const int inside = lane % (L / 2), block = inside / (S / 2);
  return (lane / (L / 2)) * L + block * S + inside % (S / 2) + (upper ? S / 2 : 0);
}

template <int L, int S, int... lanes>
PF_INLINE void halved_lanes(const Floats<L>& x, const Floats<L>& y, Floats<L>& out,
                            std::integer_sequence<int, lanes...>) {
#if defined(__clang__)
  out = __builtin_shufflevector(x, y, halved_lane<L, S>(lanes, false)...) +
        __builtin_shufflevector(x, y, halved_lane<L, S>(lanes, true)...);
#else
  typedef int32_t Lanes __attribute__((vector_size(4 * L)));
  out = __builtin_shuffle(x, y, Lanes{halved_lane<L, S>(lanes, false)...}) +
        __builtin_shuffle(x, y, Lanes{halved_lane<L, S>(lanes, true)...});
#endif
}

// x and y as blocks of S lanes -> blocks of S / 2 lanes with the same sums, those of x and then those of y.
template <int L, int S>
PF_INLINE void halved(const Floats<L>& x, const Floats<L>& y, Floats<L>& out) {
  halved_lanes<L, S>(x, y, out, std::make_integer_sequence<int, L>());
}

// The sums of the lanes of M vectors, one in each lane, in ceil(M / L) vectors at the start of x; lanes without a sum
// repeat others'. S: the lanes of each sum's block.
template <int L, int M, int S = L>
PF_INLINE void sums_of_lanes(Floats<L>* x) {
  if constexpr (S > 1) {
    PF_UNROLLED for (int i = 0; i < (M + 1) / 2; ++i) {
      Floats<L> both;
      halved<L, S>(x[2 * i], x[2 * i + 1 < M ? 2 * i + 1 : 2 * i], both);
      x[i] = both;
    }
    sums_of_lanes<L, (M + 1) / 2, S / 2>(x);
  }
}

// exp(x) for x <= 0, NaN for NaN, to 2 units in the last place, numbers below float32's normal ones included.
template <int L>
PF_INLINE void exp_of_negative(Floats<L>& x) {
  // exp(-104) is rounded to 0.
  x = x < -104.0f ? Floats<L>{} - 104.0f : x;
  // x = n ln 2 + r. Adding 1.5 * 2^23 leaves n, rounded, in the last bits.
  const Floats<L> shifted = x * 1.44269504f + 12582912.0f;
  const Words<L> n = (Words<L>)shifted - 0x4b400000u;
  const Floats<L> whole = shifted - 12582912.0f;
  // ln 2 in two parts: products of the first, which has 9 bits, and n are exact.
  const Floats<L> r = (x - whole * 0.693359375f) - whole * -2.12194440e-4f;
  Floats<L> y = r * (1.0f / 5040) + 1.0f / 720;
  y = y * r + 1.0f / 120;
  y = y * r + 1.0f / 24;
  y = y * r + 1.0f / 6;
  y = y * r + 0.5f;
  y = y * (r * r) + r + 1.0f;
  // 2^n = 2^h 2^(n - h), so that neither factor is below the normal numbers; n + 256 is positive.
  const Words<L> half = ((n + 256u) >> 1) - 128u;
  const Words<L> first = (half + 127u) << 23, second = (n - half + 127u) << 23;
  x = y * (Floats<L>)first * (Floats<L>)second;
}

// 1 / (1 + exp(-x)), to 4 units in the last place for numbers of both signs.
template <int L>
PF_INLINE void sigmoid_of(Floats<L>& x) {
  Floats<L> e = x < 0.0f ? x : -x;
  exp_of_negative<L>(e);
  const Floats<L> y = 1.0f / (e + 1.0f);
  x = x < 0.0f ? e * y : y;
}

}  // namespace prior_fast
