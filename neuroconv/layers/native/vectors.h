// Vectors as GCC and Clang have them: arithmetic by the widest registers of the machine.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __AVX__
#include <immintrin.h>
#endif

using Index = std::int64_t;

#ifdef __AVX512F__
constexpr int kVectorBytes = 64;
#else
constexpr int kVectorBytes = 32;
#endif

// An array of more bytes than this is written past the caches: nobody finds it there.
constexpr Index kCacheBytes = Index(1) << 25;

// What holds vectors in arrays has to be inlined, or the arrays are memory and not registers.
#define INLINED inline __attribute__((always_inline))

template <typename Real>
struct VectorOf;
template <>
struct VectorOf<float> {
  // Of a single number's alignment: it may be loaded from anywhere.
  typedef float type __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
};

template <typename Real>
using Vector = typename VectorOf<Real>::type;

template <typename Real>
constexpr Index kLanes = kVectorBytes / static_cast<Index>(sizeof(Real));

template <typename Real>
inline Vector<Real> load(const Real* from) {
  return *reinterpret_cast<const Vector<Real>*>(from);
}

template <typename Real>
inline void store(Real* to, Vector<Real> values) {
  *reinterpret_cast<Vector<Real>*>(to) = values;
}

// Written past the caches, to an address that whole vectors fit; `settle` waits for it.
template <typename Real>
INLINED void store_past(Real* to, Vector<Real> values) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(to), reinterpret_cast<__m512i>(values));
#elif defined(__AVX__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(values));
#else
  store(to, values);
#endif
}

inline void settle() {
#ifdef __AVX__
  _mm_sfence();
#endif
}

// Of a number or a vector. NaN stays NaN, as in torch.
template <typename Value>
inline Value rectified(Value value) {
  return value < 0 ? Value{} : value;
}

// The sum of a vector's numbers: by halves, which stay in registers.
template <typename Values>
INLINED auto added_up(Values values) {
  constexpr int numbers = sizeof(values) / sizeof(values[0]);
  if constexpr (numbers == 2) {
    return values[0] + values[1];
  } else {
    typedef decltype(+values[0]) Half __attribute__((vector_size(sizeof(values) / 2)));
    Half halves[2];
    std::memcpy(halves, &values, sizeof(values));
    return added_up(halves[0] + halves[1]);
  }
}

template <typename Real>
INLINED Real added(Vector<Real> values) {
  return added_up(values);
}

// Each vector's sum, added to the numbers from `to` on.
template <typename Real, int M>
INLINED void add_each(const Vector<Real> (&values)[M], Real* to) {
#ifdef __AVX512F__
  if constexpr (M == 4 && std::is_same<Real, float>::value) {
    // Vectors are folded onto each other as quarters: each quarter is then one vector's.
    const auto fold = [](__m512 left, __m512 right) {
      return _mm512_add_ps(_mm512_shuffle_f32x4(left, right, 0x88),
                           _mm512_shuffle_f32x4(left, right, 0xdd));
    };
    __m512 all = fold(fold(__m512(values[0]), __m512(values[1])),
                      fold(__m512(values[2]), __m512(values[3])));
    all = _mm512_add_ps(all, _mm512_permute_ps(all, 0x4e));
    all = _mm512_add_ps(all, _mm512_permute_ps(all, 0xb1));
    const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
    const __m128 sums = _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, all));
    _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), sums));
    return;
  }
#endif
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) to[m] += added<Real>(values[m]);
}

// Mean and variance of many numbers, each about a pivot near their mean, so that a large mean costs
// no digits; parts are joined by Chan's update.
struct Spread {
  double mean = 0, squares = 0;  // squares of the distances from the mean
  Index count = 0;

  Spread() = default;
  Spread(double pivot, double sum, double squared, Index many)
      : mean(pivot + sum / double(many)),
        squares(squared - sum * sum / double(many)),
        count(many) {}

  void join(const Spread& other) {
    if (!other.count) return;
    const double apart = other.mean - mean,
                 share = double(other.count) / double(count + other.count);
    mean += apart * share;
    squares += other.squares + apart * apart * share * double(count);
    count += other.count;
  }
};

// Units of one place and step; constant sizes become a few moves.
template <typename Real>
inline void copy_units(Real* to, const Real* from, Index units) {
  switch (units) {
    case 4: std::memcpy(to, from, 4 * sizeof(Real)); break;
    case 8: std::memcpy(to, from, 8 * sizeof(Real)); break;
    case 16: std::memcpy(to, from, 16 * sizeof(Real)); break;
    case 32: std::memcpy(to, from, 32 * sizeof(Real)); break;
    default: std::copy_n(from, units, to);
  }
}
