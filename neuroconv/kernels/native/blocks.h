// Blocks of products whose sums stay in registers: their sizes are template arguments.

#pragma once

#include <type_traits>

#include "vectors.h"

// A block of products holds so many numbers by so many vectors, all in registers.
template <typename Real>
constexpr int kMost = kVectorBytes == 64 && sizeof(Real) == 4 ? 7 : 3;

template <int N>
using Constant = std::integral_constant<int, N>;

// `run` with a number from 1 to `Most` as a template argument.
template <int Most, typename Run>
INLINED void as_constant(Index number, Run run) {
  if constexpr (Most == 1) run(Constant<1>());
  else if (number >= Most) run(Constant<Most>());
  else as_constant<Most - 1>(number, run);
}

// `run(from, many)` over a range, in blocks of about the same size, of `most` at most.
template <int Most, typename Run>
INLINED void in_blocks(Index count, Run run, Index most = Most) {
  const Index blocks = (count + most - 1) / most;
  for (Index block = 0; block < blocks; ++block) {
    const Index from = count * block / blocks;
    as_constant<Most>(count * (block + 1) / blocks - from, [&](auto many) { run(from, many); });
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
