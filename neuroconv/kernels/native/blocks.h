// Register blocks: tiles of a product whose accumulators stay in registers, because their sizes are
// template arguments.

#pragma once

#include <type_traits>

#include "vectors.h"

// The most rows of a register block: with up to three vectors a row, 7 fit the 32 registers of
// AVX-512 and 3 fit 16 registers. float64 has the smaller block everywhere.
template <typename Real>
constexpr int kBlockRows = kVectorBytes == 64 && sizeof(Real) == 4 ? 7 : 3;

template <int N>
using Constant = std::integral_constant<int, N>;

// Calls `body` with `value`, from 1 to `Max`, as a template argument.
template <int Max, typename Body>
INLINED void dispatch_constant(Index value, Body body) {
  if constexpr (Max == 1) body(Constant<1>());
  else if (value >= Max) body(Constant<Max>());
  else dispatch_constant<Max - 1>(value, body);
}

// Splits [0, count) into blocks of nearly equal size, at most `max_size`, and calls
// `body(start, size)` for each of them, the size as a template argument.
template <int Max, typename Body>
INLINED void for_each_block(Index count, Body body, Index max_size = Max) {
  const Index blocks = (count + max_size - 1) / max_size;
  for (Index block = 0; block < blocks; ++block) {
    const Index start = count * block / blocks;
    dispatch_constant<Max>(count * (block + 1) / blocks - start,
                           [&](auto size) { body(start, size); });
  }
}

// Writes a block of P rows of V vectors to rows that lie `stride` numbers apart, with kStream by
// streaming stores.
template <typename Real, bool kStream = false, int P, int V>
INLINED void store_block(const Vector<Real> (&acc)[P][V], Real* out, Index stride) {
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      Real* row = out + p * stride + v * kLanes<Real>;
      if constexpr (kStream) stream(row, acc[p][v]);
      else store(row, acc[p][v]);
    }
}
