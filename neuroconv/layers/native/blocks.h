// Blocks of products whose sums stay in registers: their sizes are template arguments.

#pragma once

#include <type_traits>

#include "vectors.h"

// A block of products holds so many numbers by so many vectors, all in registers.
template <typename Real>
constexpr int kMost = kVectorBytes == 64 && sizeof(Real) == 4 ? 7 : 3;

template <int N>
using Constant = std::integral_constant<int, N>;

// `run` with a number from 1 to kMost as a template argument.
template <typename Real, typename Run>
inline void as_constant(Index number, Run run) {
  constexpr int most = kMost<Real>;
  switch (number) {
    case 1: return run(Constant<1>());
    case 2: return run(Constant<2>());
    case 3: return run(Constant<3>());
    case 4: return run(Constant<std::min(4, most)>());
    case 5: return run(Constant<std::min(5, most)>());
    case 6: return run(Constant<std::min(6, most)>());
    default: return run(Constant<most>());
  }
}

// `run(from, many)` over a range, in blocks of about the same size, of `most` at most.
template <typename Real, typename Run>
inline void in_blocks(Index count, Run run, Index most = kMost<Real>) {
  const Index blocks = (count + most - 1) / most;
  for (Index block = 0; block < blocks; ++block) {
    const Index from = count * block / blocks;
    as_constant<Real>(count * (block + 1) / blocks - from, [&](auto many) { run(from, many); });
  }
}

// Written where it is, or past the caches.
template <typename Real, bool kPast = false, int P, int V>
INLINED void put(const Vector<Real> (&acc)[P][V], Real* to, Index wide) {
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      Real* at = to + p * wide + v * kLanes<Real>;
      if constexpr (kPast) store_past(at, acc[p][v]);
      else store(at, acc[p][v]);
    }
}
