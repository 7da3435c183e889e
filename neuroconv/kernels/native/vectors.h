// SIMD vectors as the vector extensions of GCC and Clang, as wide as the machine's registers.

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

// Outputs larger than this are written by streaming stores: the caches would evict them before
// anything reads them.
constexpr Index kCacheBytes = Index(1) << 25;

// Functions that take arrays of vectors must be inlined, or the arrays are passed in memory instead
// of staying in registers.
#define INLINED inline __attribute__((always_inline))

template <typename Real>
struct VectorOf;
template <>
struct VectorOf<float> {
  // Aligned like a single number, so that vectors may be loaded from any element.
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
inline Vector<Real> load(const Real* in) {
  return *reinterpret_cast<const Vector<Real>*>(in);
}

template <typename Real>
inline void store(Real* out, Vector<Real> values) {
  *reinterpret_cast<Vector<Real>*>(out) = values;
}

// Writes past the caches (a non-temporal store). The address must be aligned to whole vectors, and
// `stream_fence` must follow the last such store.
template <typename Real>
INLINED void stream(Real* out, Vector<Real> values) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(out), reinterpret_cast<__m512i>(values));
#elif defined(__AVX__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(out), reinterpret_cast<__m256i>(values));
#else
  store(out, values);
#endif
}

// Makes a thread's streaming stores visible to the others.
inline void stream_fence() {
#ifdef __AVX__
  _mm_sfence();
#endif
}

// Rectifies a number or a vector. NaN stays NaN, as in torch.
template <typename Value>
inline Value relu(Value value) {
  return value < 0 ? Value{} : value;
}

// Sums the lanes of a vector by adding its halves, which stay in registers.
template <typename Values>
INLINED auto sum_halves(Values values) {
  constexpr int lanes = sizeof(values) / sizeof(values[0]);
  if constexpr (lanes == 2) {
    return values[0] + values[1];
  } else {
    typedef decltype(+values[0]) Half __attribute__((vector_size(sizeof(values) / 2)));
    Half halves[2];
    std::memcpy(halves, &values, sizeof(values));
    return sum_halves(halves[0] + halves[1]);
  }
}

template <typename Real>
INLINED Real sum_lanes(Vector<Real> values) {
  return sum_halves(values);
}

// One bit for each lane of a vector.
using Bits = std::uint16_t;
// Vectors are at least this wide: memory for bits is allocated for the narrowest.
constexpr Index kMinVectorBytes = 32;

// Returns the stride of rows of bits, in `Bits`, one bit for each of `count` numbers. Wider vectors
// use only the first of them.
template <typename Real>
constexpr Index bits_per_row(Index count) {
  return count * Index(sizeof(Real)) / kMinVectorBytes;
}

// Returns which lanes are above zero.
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

// Returns the values where the lane's bit is set, and zero elsewhere.
template <typename Real>
INLINED Vector<Real> masked(Bits bits, Vector<Real> values) {
  decltype(values > values) lane_bits = {};
#pragma GCC unroll 16
  for (int lane = 0; lane < kLanes<Real>; ++lane) lane_bits[lane] = 1 << lane;
  return ((lane_bits & bits) != 0) ? values : Vector<Real>{};
}

// Returns the lanes `I` of two vectors, counted through the left one and then the right one.
template <typename Values, int... I>
INLINED Values shuffle(Values left, Values right, std::integer_sequence<int, I...>) {
#ifdef __clang__
  return __builtin_shufflevector(left, right, I...);
#else
  return __builtin_shuffle(left, right, decltype(left > right){I...});
#endif
}

// Swaps the off-diagonal blocks, kSize lanes wide, of two rows that lie kSize rows apart.
template <int kSize, typename Values, int... I>
INLINED void swap_blocks(Values& above, Values& below, std::integer_sequence<int, I...>) {
  constexpr int lanes = sizeof...(I);
  const Values upper = above, lower = below;
  above =
      shuffle(upper, lower, std::integer_sequence<int, (I & kSize ? lanes + I - kSize : I)...>());
  below =
      shuffle(upper, lower, std::integer_sequence<int, (I & kSize ? lanes + I : I + kSize)...>());
}

// Transposes a square matrix, a vector for each row, by swapping blocks of 1, 2, 4, ... lanes:
// call it with kSize = 1.
template <int kSize, typename Values, int kRows>
INLINED void transpose(Values (&rows)[kRows]) {
  if constexpr (kSize < kRows) {
#pragma GCC unroll 16
    for (int row = 0; row < kRows; ++row)
      if (!(row & kSize))
        swap_blocks<kSize>(rows[row], rows[row + kSize], std::make_integer_sequence<int, kRows>());
    transpose<2 * kSize>(rows);
  }
}

// Mean and variance of a set of numbers. Sums are taken about a pivot near the mean, so that a
// large mean costs no digits; two sets are merged by Chan's update.
struct RunningStats {
  double mean = 0, squares = 0;  // sum of the squared deviations from the mean
  Index count = 0;

  RunningStats() = default;
  // `sum` and `squared` are those of the deviations from the pivot.
  RunningStats(double pivot, double sum, double squared, Index count)
      : mean(pivot + sum / double(count)),
        squares(squared - sum * sum / double(count)),
        count(count) {}

  void merge(const RunningStats& other) {
    if (!other.count) return;
    const double delta = other.mean - mean,
                 fraction = double(other.count) / double(count + other.count);
    mean += delta * fraction;
    squares += other.squares + delta * delta * fraction * double(count);
    count += other.count;
  }
};

// Copies the units of one position and step. Sizes known to the compiler become a few moves.
template <typename Real>
inline void copy_units(Real* out, const Real* in, Index units) {
  switch (units) {
    case 4: std::memcpy(out, in, 4 * sizeof(Real)); break;
    case 8: std::memcpy(out, in, 8 * sizeof(Real)); break;
    case 16: std::memcpy(out, in, 16 * sizeof(Real)); break;
    case 32: std::memcpy(out, in, 32 * sizeof(Real)); break;
    default: std::copy_n(in, units, out);
  }
}
