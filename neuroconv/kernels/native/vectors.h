// Vectors as GCC and Clang have them: arithmetic by the widest registers of the machine.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

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

// One bit for each number of a vector, whose bytes are kLeastBytes or more.
using Bits = std::uint16_t;
constexpr Index kLeastBytes = 32;

// Room for the bits of a row of so many numbers: for vectors of any width, of which the first are
// used.
template <typename Real>
constexpr Index room_for_bits(Index numbers) {
  return numbers * Index(sizeof(Real)) / kLeastBytes;
}

// Which numbers are above zero.
template <typename Real>
INLINED Bits positive(Vector<Real> values) {
  constexpr bool is_float = sizeof(Real) == 4;
#if defined(__AVX512F__)
  if constexpr (is_float)
    return _mm512_cmp_ps_mask(__m512(values), _mm512_setzero_ps(), _CMP_GT_OQ);
  else return _mm512_cmp_pd_mask(__m512d(values), _mm512_setzero_pd(), _CMP_GT_OQ);
#elif defined(__AVX__)
  if constexpr (is_float) return _mm256_movemask_ps(__m256(values > 0));
  else return _mm256_movemask_pd(__m256d(values > 0));
#else
  Bits bits = 0;
  for (int lane = 0; lane < kLanes<Real>; ++lane) bits |= (values[lane] > 0) << lane;
  return bits;
#endif
}

// The numbers whose bit is set, and zeros.
template <typename Real>
INLINED Vector<Real> chosen(Bits bits, Vector<Real> values) {
  decltype(values > values) own = {};
#pragma GCC unroll 16
  for (int lane = 0; lane < kLanes<Real>; ++lane) own[lane] = 1 << lane;
  return ((own & bits) != 0) ? values : Vector<Real>{};
}

// Numbers of two vectors, one after the other, as `I` says.
template <typename Values, int... I>
INLINED Values picked(Values left, Values right, std::integer_sequence<int, I...>) {
#ifdef __clang__
  return __builtin_shufflevector(left, right, I...);
#else
  return __builtin_shuffle(left, right, decltype(left > right){I...});
#endif
}

// Where the rows of a square are vectors, blocks of `kApart` numbers beside the diagonal change
// places, of two rows that far apart.
template <int kApart, typename Values, int... I>
INLINED void exchange(Values& above, Values& below, std::integer_sequence<int, I...>) {
  constexpr int lanes = sizeof...(I);
  const Values first = above, second = below;
  above =
      picked(first, second, std::integer_sequence<int, (I & kApart ? lanes + I - kApart : I)...>());
  below =
      picked(first, second, std::integer_sequence<int, (I & kApart ? lanes + I : I + kApart)...>());
}

// A square's rows become its columns.
template <int kApart, typename Values, int kRows>
INLINED void transpose(Values (&rows)[kRows]) {
  if constexpr (kApart < kRows) {
#pragma GCC unroll 16
    for (int row = 0; row < kRows; ++row)
      if (!(row & kApart))
        exchange<kApart>(rows[row], rows[row + kApart], std::make_integer_sequence<int, kRows>());
    transpose<2 * kApart>(rows);
  }
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
