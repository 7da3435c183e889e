// The soma: its filter in time, a norm or a resting potential, and the rectifier, in one pass.
//
// Maps are (steps, length), contiguous; of an image layer `length` is places by units, the units
// side by side. Gains and offsets are of a tile, (kTile or less), repeated along it.

#include <algorithm>
#include <vector>

#include "blocks.h"

namespace {

constexpr Index kTile = 1024;

// `run` with the number of steps as a template argument, if they fit into registers.
template <typename Run>
inline void as_steps(Index steps, Run run) {
  switch (steps) {
    case 1: return run(Constant<1>());
    case 2: return run(Constant<2>());
    case 3: return run(Constant<3>());
    case 4: return run(Constant<4>());
    case 5: return run(Constant<5>());
    case 6: return run(Constant<6>());
    case 7: return run(Constant<7>());
    case 8: return run(Constant<8>());
  }
}

// Maps, the taps, the last of which meets the present, and what becomes of the potentials.
template <typename Real>
struct Soma {
  const Real* maps;
  Index steps, length, units;
  const Real* taps;
  Index count;
  const Real* scale;  // of a tile, or null: neither scale nor offset
  const Real* offset;
  bool rectifies;

  // Whole units of a place fit into a tile.
  Index tile() const { return std::max(units, kTile / units * units); }
  Index tiles() const { return (length + tile() - 1) / tile(); }
  Index lags(Index step) const { return std::min(count, step + 1); }

  Real tap(Index lag) const { return lag < count ? taps[count - 1 - lag] : Real(0); }

  // The potentials of all steps of a tile, (steps, wide), before scale and offset.
  void filter(Index start, Index wide, Real* own) const {
    Index done = 0;
    as_steps(steps, [&](auto all) { done = filter_vectors<all.value>(start, wide, own); });
    for (Index step = 0; step < steps; ++step)
      for (Index at = done; at < wide; ++at) {
        Real sum = 0;
        for (Index lag = 0; lag < lags(step); ++lag)
          sum += tap(lag) * maps[(step - lag) * length + start + at];
        own[step * wide + at] = sum;
      }
  }

  // The whole vectors of a tile, all T steps in registers; returns how many numbers those are.
  template <int T>
  Index filter_vectors(Index start, Index wide, Real* own) const {
    Real by[T];
    for (int lag = 0; lag < T; ++lag) by[lag] = tap(lag);
    Index at = 0;
    for (; at + kLanes<Real> <= wide; at += kLanes<Real>) {
      Vector<Real> x[T];
#pragma GCC unroll 8
      for (int step = 0; step < T; ++step) {
        x[step] = load(maps + step * length + start + at);
        Vector<Real> sum = by[0] * x[step];
#pragma GCC unroll 8
        for (int lag = 1; lag <= step; ++lag) sum += by[lag] * x[step - lag];
        store(own + step * wide + at, sum);
      }
    }
    return at;
  }

  // From the potentials' gradients of a tile, those of the maps, and each tap's, added.
  void turn(Index start, Index wide, const Real* own, Real* result, double* to_taps) const {
    Index done = 0;
    as_steps(steps,
             [&](auto all) { done = turn_vectors<all.value>(start, wide, own, result, to_taps); });
    for (Index step = 0; step < steps; ++step)
      for (Index at = done; at < wide; ++at) {
        Real sum = 0;  // what this step led to
        for (Index lag = 0; lag < std::min(count, steps - step); ++lag)
          sum += tap(lag) * own[(step + lag) * wide + at];
        if (result) result[step * length + start + at] = sum;
        for (Index lag = 0; to_taps && lag < lags(step); ++lag)
          to_taps[count - 1 - lag] +=
              own[step * wide + at] * maps[(step - lag) * length + start + at];
      }
  }

  template <int T>
  Index turn_vectors(Index start, Index wide, const Real* own, Real* result,
                     double* to_taps) const {
    Real by[T];
    for (int lag = 0; lag < T; ++lag) by[lag] = tap(lag);
    Vector<Real> met[T] = {};
    Index at = 0;
    for (; at + kLanes<Real> <= wide; at += kLanes<Real>) {
      Vector<Real> y[T];
#pragma GCC unroll 8
      for (int step = 0; step < T; ++step) y[step] = load(own + step * wide + at);
#pragma GCC unroll 8
      for (int step = 0; step < T; ++step) {
        if (result) {
          Vector<Real> sum = by[0] * y[step];
#pragma GCC unroll 8
          for (int lag = 1; lag < T - step; ++lag) sum += by[lag] * y[step + lag];
          store(result + step * length + start + at, sum);
        }
        if (to_taps) {
          const Vector<Real> x = load(maps + step * length + start + at);
#pragma GCC unroll 8
          for (int lag = 0; lag < T - step; ++lag) met[lag] += y[step + lag] * x;
        }
      }
    }
    for (Index lag = 0; to_taps && lag < std::min<Index>(count, T); ++lag)
      to_taps[count - 1 - lag] += added<Real>(met[lag]);
    return at;
  }

  // `run(start, wide)` over a thread's share of the tiles.
  template <typename Run>
  void each_tile(Index thread, Index threads, Run run) const {
    for (Index each = tiles() * thread / threads; each < tiles() * (thread + 1) / threads; ++each)
      run(each * tile(), std::min(tile(), length - each * tile()));
  }
};

template <typename Real>
void rate(const Soma<Real>& soma, Real* result, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    std::vector<Real> held(soma.steps * soma.tile());
    soma.each_tile(thread, threads, [&](Index start, Index wide) {
      soma.filter(start, wide, held.data());
      for (Index step = 0; step < soma.steps; ++step) {
        const Real* from = held.data() + step * wide;
        Real* to = result + step * soma.length + start;
        if (!soma.scale) {
          if (soma.rectifies) {
#pragma omp simd
            for (Index at = 0; at < wide; ++at) to[at] = rectified(from[at]);
          } else {
            std::copy_n(from, wide, to);
          }
        } else {
#pragma omp simd
          for (Index at = 0; at < wide; ++at)
            to[at] = rectified(from[at] * soma.scale[at] + soma.offset[at]);
        }
      }
    });
  }
}

// Adds a tile's numbers to each unit's; tiles are added up before they go to doubles.
constexpr Index kAddedTiles = 64;

template <typename Real>
inline void hand_over(std::vector<Real>& tile, Index units, double* found) {
  for (Index at = 0; at < Index(tile.size()); at += units)
    for (Index unit = 0; unit < units; ++unit) found[unit] += tile[at + unit];
  std::fill(tile.begin(), tile.end(), Real(0));
}

// Mean and biased variance of the potentials of each unit. A thread's first tile gives the pivots.
template <typename Real>
void statistics(const Soma<Real>& soma, double* mean, double* variance, int threads) {
  const Index units = soma.units;
  std::vector<std::vector<Spread>> all(threads);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    std::vector<Real> held(soma.steps * soma.tile()), pivot(soma.tile());
    std::vector<Real> sum(soma.tile()), squared(soma.tile());
    std::vector<double> sums(units), squares(units), first(units);
    Index tiles = 0, places = 0;
    soma.each_tile(thread, threads, [&](Index start, Index wide) {
      soma.filter(start, wide, held.data());
      if (tiles == 0) {
        for (Index step = 0; step < soma.steps; ++step)
          for (Index at = 0; at < wide; ++at) first[at % units] += held[step * wide + at];
        for (Index at = 0; at < soma.tile(); ++at)
          pivot[at] = Real(first[at % units] / double(soma.steps * (wide / units)));
      }
      for (Index step = 0; step < soma.steps; ++step)
#pragma omp simd
        for (Index at = 0; at < wide; ++at) {
          const Real apart = held[step * wide + at] - pivot[at];
          sum[at] += apart;
          squared[at] += apart * apart;
        }
      places += soma.steps * (wide / units);
      if (++tiles % kAddedTiles == 0) {
        hand_over(sum, units, sums.data());
        hand_over(squared, units, squares.data());
      }
    });
    hand_over(sum, units, sums.data());
    hand_over(squared, units, squares.data());
    for (Index unit = 0; places && unit < units; ++unit)
      all[thread].emplace_back(pivot[unit], sums[unit], squares[unit], places);
  }
  for (Index unit = 0; unit < units; ++unit) {
    Spread whole;
    for (const auto& each : all)
      if (!each.empty()) whole.join(each[unit]);
    mean[unit] = whole.mean;
    variance[unit] = whole.squares / double(whole.count);
  }
}

// What passes the rectifier, in place of a tile's potentials.
template <typename Real>
inline void pass(const Soma<Real>& soma, Real* potential, const Real* grad, Index wide) {
  if (!soma.rectifies) {
    std::copy_n(grad, wide, potential);
  } else if (!soma.scale) {
#pragma omp simd
    for (Index at = 0; at < wide; ++at) potential[at] = potential[at] > 0 ? grad[at] : Real(0);
  } else {
#pragma omp simd
    for (Index at = 0; at < wide; ++at)
      potential[at] = potential[at] * soma.scale[at] + soma.offset[at] > 0 ? grad[at] : Real(0);
  }
}

// Sums for each unit, (2, units): the gradient that passes, and it times the potential.
template <typename Real>
void sums(const Soma<Real>& soma, const Real* grad, double* found, int threads) {
  const Index units = soma.units;
  std::vector<double> all(threads * 2 * units, 0.0);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    std::vector<Real> held(soma.steps * soma.tile());
    std::vector<Real> passing(soma.tile()), met(soma.tile());
    double* mine = &all[thread * 2 * units];
    Index tiles = 0;
    soma.each_tile(thread, threads, [&](Index start, Index wide) {
      soma.filter(start, wide, held.data());
      for (Index step = 0; step < soma.steps; ++step) {
        const Real* potential = held.data() + step * wide;
        const Real* pushed = grad + step * soma.length + start;
#pragma omp simd
        for (Index at = 0; at < wide; ++at) {
          const Real own =
              potential[at] * soma.scale[at] + soma.offset[at] > 0 ? pushed[at] : Real(0);
          passing[at] += own;
          met[at] += own * potential[at];
        }
      }
      if (++tiles % kAddedTiles == 0) {
        hand_over(passing, units, mine);
        hand_over(met, units, mine + units);
      }
    });
    hand_over(passing, units, mine);
    hand_over(met, units, mine + units);
  }
  std::fill_n(found, 2 * units, 0.0);
  for (int thread = 0; thread < threads; ++thread)
    for (Index at = 0; at < 2 * units; ++at) found[at] += all[thread * 2 * units + at];
}

// Gradients to maps, taps and, if asked for, to each unit's offset. A potential's own is scale *
// what passes, and if the scale comes of the potentials' statistics + slope * potential + start.
template <typename Real>
void back(const Soma<Real>& soma, const Real* grad, const Real* slope, const Real* start_of,
          Real* result, double* to_taps, double* to_offset, int threads) {
  const Index units = soma.units, count = soma.count, numbers = count + units;
  std::vector<double> all(threads * numbers, 0.0);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    std::vector<Real> held(soma.steps * soma.tile()), passing(soma.tile()), spare(soma.tile());
    double* taps = &all[thread * numbers];
    double* offset = taps + count;
    Index tiles = 0;
    soma.each_tile(thread, threads, [&](Index start, Index wide) {
      if (soma.rectifies || slope) soma.filter(start, wide, held.data());
      for (Index step = 0; step < soma.steps; ++step) {
        Real* own = held.data() + step * wide;
        if (slope) std::copy_n(own, wide, spare.data());
        pass(soma, own, grad + step * soma.length + start, wide);
        if (to_offset) {
#pragma omp simd
          for (Index at = 0; at < wide; ++at) passing[at] += own[at];
        }
        if (slope) {
#pragma omp simd
          for (Index at = 0; at < wide; ++at)
            own[at] = own[at] * soma.scale[at] + spare[at] * slope[at] + start_of[at];
        } else if (soma.scale) {
#pragma omp simd
          for (Index at = 0; at < wide; ++at) own[at] *= soma.scale[at];
        }
      }
      if (to_offset && ++tiles % kAddedTiles == 0) hand_over(passing, units, offset);
      soma.turn(start, wide, held.data(), result, to_taps ? taps : nullptr);
    });
    if (to_offset) hand_over(passing, units, offset);
  }
  const auto add_up = [&](double* found, Index first, Index many) {
    for (Index at = 0; found && at < many; ++at) {
      found[at] = 0;
      for (int thread = 0; thread < threads; ++thread)
        found[at] += all[thread * numbers + first + at];
    }
  };
  add_up(to_taps, 0, count);
  add_up(to_offset, count, units);
}

}  // namespace

// What every pass is given.
#define OPERANDS(Real)                                                                     \
  const Real *maps, Index steps, Index length, Index units, const Real *taps, Index count, \
      const Real *scale, const Real *offset, Index rectifies
#define SOMA {maps, steps, length, units, taps, count, scale, offset, rectifies != 0}

#define NEUROCONV_SOMA(Real, name)                                                       \
  extern "C" void soma_rate_##name(OPERANDS(Real), Real* result, Index threads) {        \
    rate<Real>(SOMA, result, threads);                                                   \
  }                                                                                      \
  extern "C" void soma_statistics_##name(OPERANDS(Real), double* mean, double* variance, \
                                         Index threads) {                                \
    statistics<Real>(SOMA, mean, variance, threads);                                     \
  }                                                                                      \
  extern "C" void soma_sums_##name(OPERANDS(Real), const Real* grad, double* found,      \
                                   Index threads) {                                      \
    sums<Real>(SOMA, grad, found, threads);                                              \
  }                                                                                      \
  extern "C" void soma_back_##name(OPERANDS(Real), const Real* grad, const Real* slope,  \
                                   const Real* start, Real* result, double* to_taps,     \
                                   double* to_offset, Index threads) {                   \
    back<Real>(SOMA, grad, slope, start, result, to_taps, to_offset, threads);           \
  }

NEUROCONV_SOMA(float, float32)
NEUROCONV_SOMA(double, float64)
