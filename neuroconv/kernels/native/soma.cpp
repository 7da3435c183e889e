// The soma: its filter in time, a norm or a resting potential, and the rectifier, in one pass.
//
// Shapes: maps are (steps, length), contiguous, and are split along `length` into tiles of `size`
// numbers. `length` is positions by units, the units innermost. Scales, offsets and what follows
// from them are given for a tile, (tile_size,): those of the units, repeated along it.

#include <algorithm>
#include <vector>

#include "blocks.h"

namespace {

constexpr Index kTile = 1024;  // as in soma.py

// Calls `body` with the number of steps as a template argument if that many vectors fit into the
// registers, and otherwise not at all.
template <typename Body>
inline void dispatch_steps(Index steps, Body body) {
  switch (steps) {
    case 1: return body(Constant<1>());
    case 2: return body(Constant<2>());
    case 3: return body(Constant<3>());
    case 4: return body(Constant<4>());
    case 5: return body(Constant<5>());
    case 6: return body(Constant<6>());
    case 7: return body(Constant<7>());
    case 8: return body(Constant<8>());
  }
}

// The operands, and the filter that all passes share.
template <typename Real>
struct Soma {
  const Real* maps;
  Index steps, length, units;
  const Real* taps;  // (num_taps,), the last of which meets the present
  Index num_taps;
  const Real* scale;   // (tile_size,), or null: neither scale nor offset
  const Real* offset;  // (tile_size,)
  bool rectifies;

  // Tiles hold the units of whole positions.
  Index tile_size() const { return std::max(units, kTile / units * units); }
  Index tiles() const { return (length + tile_size() - 1) / tile_size(); }
  Index lags(Index step) const { return std::min(num_taps, step + 1); }

  Real tap(Index lag) const { return lag < num_taps ? taps[num_taps - 1 - lag] : Real(0); }

  // Computes the potentials of a tile before scale and offset, (steps, size).
  void filter(Index start, Index size, Real* potential) const {
    Index vectorized = 0;
    dispatch_steps(steps, [&](auto step_count) {
      vectorized = filter_vectors<step_count.value>(start, size, potential);
    });
    for (Index step = 0; step < steps; ++step)
      for (Index n = vectorized; n < size; ++n) {
        Real sum = 0;
        for (Index lag = 0; lag < lags(step); ++lag)
          sum += tap(lag) * maps[(step - lag) * length + start + n];
        potential[step * size + n] = sum;
      }
  }

  // Computes the whole vectors of a tile, with all T steps in registers, and returns how many
  // numbers of a step those are.
  template <int T>
  Index filter_vectors(Index start, Index size, Real* potential) const {
    Real w[T];
    for (int lag = 0; lag < T; ++lag) w[lag] = tap(lag);
    Index n = 0;
    for (; n + kLanes<Real> <= size; n += kLanes<Real>) {
      Vector<Real> x[T];
#pragma GCC unroll 8
      for (int step = 0; step < T; ++step) {
        x[step] = load(maps + step * length + start + n);
        Vector<Real> sum = w[0] * x[step];
#pragma GCC unroll 8
        for (int lag = 1; lag <= step; ++lag) sum += w[lag] * x[step - lag];
        store(potential + step * size + n, sum);
      }
    }
    return n;
  }

  // Computes the gradients of a tile's maps from those of its potentials, (steps, size), and adds
  // to those of the taps. Either result may be null.
  void filter_backward(Index start, Index size, const Real* grad_potential, Real* grad_maps,
                       double* grad_taps) const {
    Index vectorized = 0;
    dispatch_steps(steps, [&](auto step_count) {
      vectorized = filter_backward_vectors<step_count.value>(start, size, grad_potential, grad_maps,
                                                             grad_taps);
    });
    for (Index step = 0; step < steps; ++step)
      for (Index n = vectorized; n < size; ++n) {
        Real sum = 0;  // over the later steps that this step acts on
        for (Index lag = 0; lag < std::min(num_taps, steps - step); ++lag)
          sum += tap(lag) * grad_potential[(step + lag) * size + n];
        if (grad_maps) grad_maps[step * length + start + n] = sum;
        for (Index lag = 0; grad_taps && lag < lags(step); ++lag)
          grad_taps[num_taps - 1 - lag] +=
              grad_potential[step * size + n] * maps[(step - lag) * length + start + n];
      }
  }

  template <int T>
  Index filter_backward_vectors(Index start, Index size, const Real* grad_potential,
                                Real* grad_maps, double* grad_taps) const {
    Real w[T];
    for (int lag = 0; lag < T; ++lag) w[lag] = tap(lag);
    Vector<Real> tap_sums[T] = {};
    Index n = 0;
    for (; n + kLanes<Real> <= size; n += kLanes<Real>) {
      Vector<Real> y[T];
#pragma GCC unroll 8
      for (int step = 0; step < T; ++step) y[step] = load(grad_potential + step * size + n);
#pragma GCC unroll 8
      for (int step = 0; step < T; ++step) {
        if (grad_maps) {
          Vector<Real> sum = w[0] * y[step];
#pragma GCC unroll 8
          for (int lag = 1; lag < T - step; ++lag) sum += w[lag] * y[step + lag];
          store(grad_maps + step * length + start + n, sum);
        }
        if (grad_taps) {
          const Vector<Real> x = load(maps + step * length + start + n);
#pragma GCC unroll 8
          for (int lag = 0; lag < T - step; ++lag) tap_sums[lag] += y[step + lag] * x;
        }
      }
    }
    for (Index lag = 0; grad_taps && lag < std::min<Index>(num_taps, T); ++lag)
      grad_taps[num_taps - 1 - lag] += sum_lanes<Real>(tap_sums[lag]);
    return n;
  }

  // Calls `body(start, size)` for each tile of a thread's share.
  template <typename Body>
  void for_each_tile(Index thread, Index threads, Body body) const {
    for (Index tile = tiles() * thread / threads; tile < tiles() * (thread + 1) / threads; ++tile)
      body(tile * tile_size(), std::min(tile_size(), length - tile * tile_size()));
  }
};

// Writes the rates, (steps, length).
template <typename Real>
void rate(const Soma<Real>& soma, Real* result, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    std::vector<Real> potentials(soma.steps * soma.tile_size());
    soma.for_each_tile(thread, threads, [&](Index start, Index size) {
      soma.filter(start, size, potentials.data());
      for (Index step = 0; step < soma.steps; ++step) {
        const Real* in = potentials.data() + step * size;
        Real* out = result + step * soma.length + start;
        if (!soma.scale) {
          if (soma.rectifies) {
#pragma omp simd
            for (Index n = 0; n < size; ++n) out[n] = relu(in[n]);
          } else {
            std::copy_n(in, size, out);
          }
        } else {
#pragma omp simd
          for (Index n = 0; n < size; ++n) out[n] = relu(in[n] * soma.scale[n] + soma.offset[n]);
        }
      }
    });
  }
}

// Tiles that are summed in Real before the sums are flushed into doubles: few enough that rounding
// does not grow with the length of the maps.
constexpr Index kFlushTiles = 64;

// Adds the sums of a tile's numbers to those of the units, (units,), and zeroes them.
template <typename Real>
inline void flush(std::vector<Real>& tile, Index units, double* sums) {
  for (Index n = 0; n < Index(tile.size()); n += units)
    for (Index unit = 0; unit < units; ++unit) sums[unit] += tile[n + unit];
  std::fill(tile.begin(), tile.end(), Real(0));
}

// Computes mean and biased variance of each unit's potentials, (units,). The pivots are the means
// of a thread's first tile.
template <typename Real>
void statistics(const Soma<Real>& soma, double* mean, double* variance, int threads) {
  const Index units = soma.units;
  std::vector<std::vector<RunningStats>> partial(threads);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    std::vector<Real> potentials(soma.steps * soma.tile_size()), pivot(soma.tile_size());
    std::vector<Real> sum(soma.tile_size()), squared(soma.tile_size());
    std::vector<double> sums(units), squares(units), first_sums(units);
    Index tiles = 0, count = 0;
    soma.for_each_tile(thread, threads, [&](Index start, Index size) {
      soma.filter(start, size, potentials.data());
      if (tiles == 0) {
        for (Index step = 0; step < soma.steps; ++step)
          for (Index n = 0; n < size; ++n) first_sums[n % units] += potentials[step * size + n];
        for (Index n = 0; n < soma.tile_size(); ++n)
          pivot[n] = Real(first_sums[n % units] / double(soma.steps * (size / units)));
      }
      for (Index step = 0; step < soma.steps; ++step)
#pragma omp simd
        for (Index n = 0; n < size; ++n) {
          const Real deviation = potentials[step * size + n] - pivot[n];
          sum[n] += deviation;
          squared[n] += deviation * deviation;
        }
      count += soma.steps * (size / units);
      if (++tiles % kFlushTiles == 0) {
        flush(sum, units, sums.data());
        flush(squared, units, squares.data());
      }
    });
    flush(sum, units, sums.data());
    flush(squared, units, squares.data());
    for (Index unit = 0; count && unit < units; ++unit)
      partial[thread].emplace_back(pivot[unit], sums[unit], squares[unit], count);
  }
  for (Index unit = 0; unit < units; ++unit) {
    RunningStats total;
    for (const auto& stats : partial)
      if (!stats.empty()) total.merge(stats[unit]);
    mean[unit] = total.mean;
    variance[unit] = total.squares / double(total.count);
  }
}

// Replaces the potentials of a tile's step by the gradient past the rectifier.
template <typename Real>
inline void rectify_grad(const Soma<Real>& soma, Real* potential, const Real* grad, Index size) {
  if (!soma.rectifies) {
    std::copy_n(grad, size, potential);
  } else if (!soma.scale) {
#pragma omp simd
    for (Index n = 0; n < size; ++n) potential[n] = potential[n] > 0 ? grad[n] : Real(0);
  } else {
#pragma omp simd
    for (Index n = 0; n < size; ++n)
      potential[n] = potential[n] * soma.scale[n] + soma.offset[n] > 0 ? grad[n] : Real(0);
  }
}

// Sums each unit's gradient past the rectifier, and it times the potential, (2, units).
template <typename Real>
void sums(const Soma<Real>& soma, const Real* grad, double* result, int threads) {
  const Index units = soma.units;
  std::vector<double> partial(threads * 2 * units, 0.0);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    std::vector<Real> potentials(soma.steps * soma.tile_size());
    std::vector<Real> passing(soma.tile_size()), products(soma.tile_size());
    double* thread_sums = &partial[thread * 2 * units];
    Index tiles = 0;
    soma.for_each_tile(thread, threads, [&](Index start, Index size) {
      soma.filter(start, size, potentials.data());
      for (Index step = 0; step < soma.steps; ++step) {
        const Real* potential = potentials.data() + step * size;
        const Real* grad_rate = grad + step * soma.length + start;
#pragma omp simd
        for (Index n = 0; n < size; ++n) {
          const Real rectified =
              potential[n] * soma.scale[n] + soma.offset[n] > 0 ? grad_rate[n] : Real(0);
          passing[n] += rectified;
          products[n] += rectified * potential[n];
        }
      }
      if (++tiles % kFlushTiles == 0) {
        flush(passing, units, thread_sums);
        flush(products, units, thread_sums + units);
      }
    });
    flush(passing, units, thread_sums);
    flush(products, units, thread_sums + units);
  }
  std::fill_n(result, 2 * units, 0.0);
  for (int thread = 0; thread < threads; ++thread)
    for (Index n = 0; n < 2 * units; ++n) result[n] += partial[thread * 2 * units + n];
}

// Computes the gradients of maps, taps and each unit's offset, each unless it is null. The gradient
// of a potential is scale times the gradient past the rectifier; if the scale depends on the
// potentials' statistics, slope * potential + intercept, (tile_size,), is added to it.
template <typename Real>
void backward(const Soma<Real>& soma, const Real* grad, const Real* slope, const Real* intercept,
              Real* grad_maps, double* grad_taps, double* grad_offset, int threads) {
  const Index units = soma.units, num_taps = soma.num_taps, row = num_taps + units;
  std::vector<double> partial(threads * row, 0.0);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    std::vector<Real> buffer(soma.steps * soma.tile_size());  // potentials, then their gradients
    std::vector<Real> passing(soma.tile_size()), potential(soma.tile_size());
    double* thread_taps = &partial[thread * row];
    double* thread_offset = thread_taps + num_taps;
    Index tiles = 0;
    soma.for_each_tile(thread, threads, [&](Index start, Index size) {
      if (soma.rectifies || slope) soma.filter(start, size, buffer.data());
      for (Index step = 0; step < soma.steps; ++step) {
        Real* values = buffer.data() + step * size;
        if (slope) std::copy_n(values, size, potential.data());
        rectify_grad(soma, values, grad + step * soma.length + start, size);
        if (grad_offset) {
#pragma omp simd
          for (Index n = 0; n < size; ++n) passing[n] += values[n];
        }
        if (slope) {
#pragma omp simd
          for (Index n = 0; n < size; ++n)
            values[n] = values[n] * soma.scale[n] + potential[n] * slope[n] + intercept[n];
        } else if (soma.scale) {
#pragma omp simd
          for (Index n = 0; n < size; ++n) values[n] *= soma.scale[n];
        }
      }
      if (grad_offset && ++tiles % kFlushTiles == 0) flush(passing, units, thread_offset);
      soma.filter_backward(start, size, buffer.data(), grad_maps,
                           grad_taps ? thread_taps : nullptr);
    });
    if (grad_offset) flush(passing, units, thread_offset);
  }
  const auto sum_threads = [&](double* result, Index first, Index count) {
    for (Index n = 0; result && n < count; ++n) {
      result[n] = 0;
      for (int thread = 0; thread < threads; ++thread)
        result[n] += partial[thread * row + first + n];
    }
  };
  sum_threads(grad_taps, 0, num_taps);
  sum_threads(grad_offset, num_taps, units);
}

}  // namespace

// The first arguments of all passes.
#define OPERANDS(Real)                                                                        \
  const Real *maps, Index steps, Index length, Index units, const Real *taps, Index num_taps, \
      const Real *scale, const Real *offset, Index rectifies
#define SOMA {maps, steps, length, units, taps, num_taps, scale, offset, rectifies != 0}

#define NEUROCONV_SOMA(Real, name)                                                            \
  extern "C" void soma_rate_##name(OPERANDS(Real), Real* result, Index threads) {             \
    rate<Real>(SOMA, result, threads);                                                        \
  }                                                                                           \
  extern "C" void soma_statistics_##name(OPERANDS(Real), double* mean, double* variance,      \
                                         Index threads) {                                     \
    statistics<Real>(SOMA, mean, variance, threads);                                          \
  }                                                                                           \
  extern "C" void soma_sums_##name(OPERANDS(Real), const Real* grad, double* result,          \
                                   Index threads) {                                           \
    sums<Real>(SOMA, grad, result, threads);                                                  \
  }                                                                                           \
  extern "C" void soma_back_##name(OPERANDS(Real), const Real* grad, const Real* slope,       \
                                   const Real* intercept, Real* grad_maps, double* grad_taps, \
                                   double* grad_offset, Index threads) {                      \
    backward<Real>(SOMA, grad, slope, intercept, grad_maps, grad_taps, grad_offset, threads); \
  }

NEUROCONV_SOMA(float, float32)
NEUROCONV_SOMA(double, float64)
