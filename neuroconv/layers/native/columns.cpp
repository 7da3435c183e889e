// The pointwise stages of image layers: norm, rectifier and sum of the dendrites' columns, and the
// soma's filter. Each number is read once for its statistics and once for everything else.
//
// A column is (rows, width), contiguous; a row holds `width / units` places and steps of all units,
// a place's steps side by side. Scales and offsets are (dendrites, width), repeated along a row.

#include <algorithm>
#include <type_traits>
#include <vector>

#include "vectors.h"

namespace {

// Rows that go through the first-level cache at once when statistics are taken.
constexpr Index kBlockFloats = 4096;

// Where a row's places lie in maps (steps, places, units): `move(in the row, in the maps)`.
template <typename Move>
inline void each_place(Index row, Index width, Index steps, Index units, Index places, Move move) {
  const Index in_row = width / (steps * units);
  for (Index place = 0; place < in_row; ++place)
    for (Index step = 0; step < steps; ++step)
      move((place * steps + step) * units, (step * places + row * in_row + place) * units);
}

template <typename Real, bool kScaled, bool kShifted>
inline Real potential_of(Real value, const Real* scale, const Real* offset, Index at) {
  if (kScaled) return value * scale[at] + offset[at];
  return kShifted ? value + offset[at] : value;
}

template <typename Real, bool kScaled, bool kShifted, bool kLinear>
void sum(const Real* const* columns, Index dendrites, Index rows, Index width, Index steps,
         Index units, const Real* scale, const Real* offset, Real* total, Index threads) {
  const Index places = rows * (width / (steps * units));
#pragma omp parallel num_threads(static_cast<int>(threads))
  {
    std::vector<Real> held(width);
#pragma omp for schedule(static)
    for (Index row = 0; row < rows; ++row) {
      Real* part = steps == 1 ? total + row * width : held.data();
      for (Index dendrite = 0; dendrite < dendrites; ++dendrite) {
        const Real* column = columns[dendrite] + row * width;
        const Real* by = scale + dendrite * width;
        const Real* with = offset + dendrite * width;
        if (dendrite == 0) {
#pragma omp simd
          for (Index at = 0; at < width; ++at) {
            const Real own = potential_of<Real, kScaled, kShifted>(column[at], by, with, at);
            part[at] = kLinear ? own : rectified(own);
          }
        } else {
#pragma omp simd
          for (Index at = 0; at < width; ++at) {
            const Real own = potential_of<Real, kScaled, kShifted>(column[at], by, with, at);
            part[at] += kLinear ? own : rectified(own);
          }
        }
      }
      if (steps > 1)
        each_place(row, width, steps, units, places,
                   [&](Index here, Index there) { copy_units(total + there, part + here, units); });
    }
  }
}

// The gradient that reaches a row, and what passes the rectifier of one of its numbers.
template <typename Real>
inline const Real* pushed_of(const Real* grad, Real* held, Index row, Index width, Index steps,
                             Index units, Index places) {
  if (steps == 1) return grad + row * width;
  each_place(row, width, steps, units, places,
             [&](Index here, Index there) { copy_units(held + here, grad + there, units); });
  return held;
}

template <typename Real, bool kScaled, bool kShifted, bool kLinear>
inline Real passed_of(Real value, Real pushed, const Real* scale, const Real* offset, Index at) {
  if (kLinear) return pushed;
  return potential_of<Real, kScaled, kShifted>(value, scale, offset, at) > 0 ? pushed : Real(0);
}

// Sums over the rows, (dendrites, 2, width): the gradient that passes, and it times the potential.
template <typename Real, bool kScaled, bool kShifted, bool kLinear>
void sums(const Real* const* columns, Index dendrites, Index rows, Index width, Index steps,
          Index units, const Real* scale, const Real* offset, const Real* grad, double* found,
          Index threads) {
  const Index places = rows * (width / (steps * units));
  const Index numbers = dendrites * 2 * width;
  std::vector<double> all(threads * numbers, 0.0);  // each thread's own: added in a fixed order
#pragma omp parallel num_threads(static_cast<int>(threads))
  {
    std::vector<Real> held(width), block(numbers);
    const Index high = std::max<Index>(1, kBlockFloats / width);
#pragma omp for schedule(static)
    for (Index thread = 0; thread < threads; ++thread) {
      double* own = all.data() + thread * numbers;
      const Index first = rows * thread / threads, last = rows * (thread + 1) / threads;
      for (Index start = first; start < last; start += high) {
        std::fill(block.begin(), block.end(), Real(0));
        for (Index row = start; row < std::min(last, start + high); ++row) {
          const Real* pushed = pushed_of(grad, held.data(), row, width, steps, units, places);
          for (Index dendrite = 0; dendrite < dendrites; ++dendrite) {
            const Real* column = columns[dendrite] + row * width;
            const Real* by = scale + dendrite * width;
            const Real* with = offset + dendrite * width;
            Real* passing = block.data() + dendrite * 2 * width;
            Real* met = passing + width;
#pragma omp simd
            for (Index at = 0; at < width; ++at) {
              const Real passed =
                  passed_of<Real, kScaled, kShifted, kLinear>(column[at], pushed[at], by, with, at);
              passing[at] += passed;
              met[at] += passed * column[at];
            }
          }
        }
        for (Index at = 0; at < numbers; ++at) own[at] += block[at];
      }
    }
  }
  std::fill(found, found + numbers, 0.0);
  for (Index thread = 0; thread < threads; ++thread)
    for (Index at = 0; at < numbers; ++at) found[at] += all[thread * numbers + at];
}

// Gradients to the columns: factor * what passes + slope * potential + start, the last two where
// the columns' own statistics are theirs to move.
template <typename Real, bool kScaled, bool kShifted, bool kLinear, bool kOwn>
void back(const Real* const* columns, Index dendrites, Index rows, Index width, Index steps,
          Index units, const Real* scale, const Real* offset, const Real* grad, const Real* slope,
          const Real* start, Real* const* results, Index threads) {
  const Index places = rows * (width / (steps * units));
#pragma omp parallel num_threads(static_cast<int>(threads))
  {
    std::vector<Real> held(width);
#pragma omp for schedule(static)
    for (Index row = 0; row < rows; ++row) {
      const Real* pushed = pushed_of(grad, held.data(), row, width, steps, units, places);
      for (Index dendrite = 0; dendrite < dendrites; ++dendrite) {
        const Real* column = columns[dendrite] + row * width;
        const Real* by = scale + dendrite * width;
        const Real* with = offset + dendrite * width;
        const Real* rise = slope + dendrite * width;
        const Real* from = start + dendrite * width;
        Real* result = results[dendrite] + row * width;
#pragma omp simd
        for (Index at = 0; at < width; ++at) {
          Real own =
              passed_of<Real, kScaled, kShifted, kLinear>(column[at], pushed[at], by, with, at);
          if (kScaled) own *= by[at];
          if (kOwn) own += column[at] * rise[at] + from[at];
          result[at] = own;
        }
      }
    }
  }
}

// Mean and biased variance of each number of a row over the rows, (dendrites, width): of blocks
// about their own mean, and blocks joined by Chan's update, so that a large mean costs no digits.
template <typename Real>
void statistics(const Real* const* columns, Index dendrites, Index rows, Index width, double* mean,
                double* variance, Index threads) {
  const Index high = std::max<Index>(1, kBlockFloats / width);
  const Index tasks = dendrites * threads;
  std::vector<double> means(tasks * width, 0.0), squares(tasks * width, 0.0);
  std::vector<Index> counts(tasks, 0);
  const auto join = [width](double* centre, double* square, Index& count, const auto* other_mean,
                            const auto* other_square, Index others) {
    const double share = double(others) / double(count + others);
#pragma omp simd
    for (Index at = 0; at < width; ++at) {
      const double apart = other_mean[at] - centre[at];
      centre[at] += apart * share;
      square[at] += other_square[at] + apart * apart * share * double(count);
    }
    count += others;
  };
#pragma omp parallel num_threads(static_cast<int>(threads))
  {
    std::vector<Real> centre(width), square(width);
#pragma omp for schedule(static)
    for (Index task = 0; task < tasks; ++task) {
      const Real* column = columns[task / threads];
      const Index thread = task % threads;
      const Index first = rows * thread / threads, last = rows * (thread + 1) / threads;
      for (Index start = first; start < last; start += high) {
        const Index stop = std::min(last, start + high);
        std::fill(centre.begin(), centre.end(), Real(0));
        std::fill(square.begin(), square.end(), Real(0));
        for (Index row = start; row < stop; ++row)
#pragma omp simd
          for (Index at = 0; at < width; ++at) centre[at] += column[row * width + at];
#pragma omp simd
        for (Index at = 0; at < width; ++at) centre[at] /= Real(stop - start);
        for (Index row = start; row < stop; ++row)
#pragma omp simd
          for (Index at = 0; at < width; ++at) {
            const Real apart = column[row * width + at] - centre[at];
            square[at] += apart * apart;
          }
        join(&means[task * width], &squares[task * width], counts[task], centre.data(),
             square.data(), stop - start);
      }
    }
  }
  for (Index dendrite = 0; dendrite < dendrites; ++dendrite) {
    double* centre = mean + dendrite * width;
    double* square = variance + dendrite * width;
    std::fill(centre, centre + width, 0.0);
    std::fill(square, square + width, 0.0);
    Index count = 0;
    for (Index task = dendrite * threads; task < (dendrite + 1) * threads; ++task)
      if (counts[task])
        join(centre, square, count, &means[task * width], &squares[task * width], counts[task]);
#pragma omp simd
    for (Index at = 0; at < width; ++at) square[at] /= double(count);
  }
}

constexpr Index kTile = 1024;

// Maps (steps, length) by the soma's taps, the last of which meets the present; `turned`: the
// gradient's way, by which a step reaches those before it.
template <typename Real>
void soma(const Real* maps, Index steps, Index length, const Real* taps, Index count, bool turned,
          Real* result, Index threads) {
#pragma omp parallel for num_threads(static_cast<int>(threads)) schedule(static)
  for (Index start = 0; start < length; start += kTile) {
    const Index wide = std::min(kTile, length - start);
    for (Index step = 0; step < steps; ++step) {
      Real* own = result + step * length + start;
      const Index lags = std::min(count, turned ? steps - step : step + 1);
      for (Index lag = 0; lag < lags; ++lag) {
        const Real* from = maps + (turned ? step + lag : step - lag) * length + start;
        const Real tap = taps[count - 1 - lag];
        if (lag == 0)
#pragma omp simd
          for (Index at = 0; at < wide; ++at) own[at] = tap * from[at];
        else
#pragma omp simd
          for (Index at = 0; at < wide; ++at) own[at] += tap * from[at];
      }
    }
  }
}

// The gradient to the soma's taps: for each lag, what met what, summed over everything.
template <typename Real>
void soma_taps(const Real* maps, const Real* grad, Index steps, Index length, Index count,
               double* found, Index threads) {
  std::vector<double> all(threads * count, 0.0);
#pragma omp parallel for num_threads(static_cast<int>(threads)) schedule(static)
  for (Index thread = 0; thread < threads; ++thread) {
    const Index tiles = (length + kTile - 1) / kTile;
    for (Index tile = tiles * thread / threads; tile < tiles * (thread + 1) / threads; ++tile) {
      const Index start = tile * kTile, wide = std::min(kTile, length - start);
      for (Index step = 0; step < steps; ++step)
        for (Index lag = 0; lag < std::min(count, step + 1); ++lag) {
          const Real* own = grad + step * length + start;
          const Real* from = maps + (step - lag) * length + start;
          Real met = 0;
#pragma omp simd reduction(+ : met)
          for (Index at = 0; at < wide; ++at) met += own[at] * from[at];
          all[thread * count + count - 1 - lag] += met;
        }
    }
  }
  for (Index tap = 0; tap < count; ++tap) {
    found[tap] = 0;
    for (Index thread = 0; thread < threads; ++thread) found[tap] += all[thread * count + tap];
  }
}

// What a stage does to a potential before the rectifier, as template arguments.
template <typename Real, typename Run>
void by_stage(const Real* scale, const Real* offset, bool linear, Run run) {
  const auto as = [&](auto scaled, auto shifted) {
    if (linear) run(scaled, shifted, std::true_type());
    else run(scaled, shifted, std::false_type());
  };
  if (scale) as(std::true_type(), std::true_type());
  else if (offset) as(std::false_type(), std::true_type());
  else as(std::false_type(), std::false_type());
}

}  // namespace

#define NEUROCONV_COLUMNS(Real, name)                                                             \
  extern "C" void columns_sum_##name(const Real* const* columns, Index dendrites, Index rows,     \
                                     Index width, Index steps, Index units, const Real* scale,    \
                                     const Real* offset, Index linear, Real* total,               \
                                     Index threads) {                                             \
    by_stage<Real>(scale, offset, linear, [&](auto scaled, auto shifted, auto plain) {            \
      sum<Real, scaled.value, shifted.value, plain.value>(columns, dendrites, rows, width, steps, \
                                                          units, scale, offset, total, threads);  \
    });                                                                                           \
  }                                                                                               \
  extern "C" void columns_sums_##name(const Real* const* columns, Index dendrites, Index rows,    \
                                      Index width, Index steps, Index units, const Real* scale,   \
                                      const Real* offset, Index linear, const Real* grad,         \
                                      double* found, Index threads) {                             \
    by_stage<Real>(scale, offset, linear, [&](auto scaled, auto shifted, auto plain) {            \
      sums<Real, scaled.value, shifted.value, plain.value>(                                       \
          columns, dendrites, rows, width, steps, units, scale, offset, grad, found, threads);    \
    });                                                                                           \
  }                                                                                               \
  extern "C" void columns_back_##name(                                                            \
      const Real* const* columns, Index dendrites, Index rows, Index width, Index steps,          \
      Index units, const Real* scale, const Real* offset, Index linear, const Real* grad,         \
      const Real* slope, const Real* start, Real* const* results, Index threads) {                \
    by_stage<Real>(scale, offset, linear, [&](auto scaled, auto shifted, auto plain) {            \
      if (slope)                                                                                  \
        back<Real, scaled.value, shifted.value, plain.value, true>(                               \
            columns, dendrites, rows, width, steps, units, scale, offset, grad, slope, start,     \
            results, threads);                                                                    \
      else                                                                                        \
        back<Real, scaled.value, shifted.value, plain.value, false>(                              \
            columns, dendrites, rows, width, steps, units, scale, offset, grad, slope, start,     \
            results, threads);                                                                    \
    });                                                                                           \
  }                                                                                               \
  extern "C" void columns_statistics_##name(const Real* const* columns, Index dendrites,          \
                                            Index rows, Index width, double* mean,                \
                                            double* variance, Index threads) {                    \
    statistics<Real>(columns, dendrites, rows, width, mean, variance, threads);                   \
  }                                                                                               \
  extern "C" void soma_##name(const Real* maps, Index steps, Index length, const Real* taps,      \
                              Index count, Index turned, Real* result, Index threads) {           \
    soma<Real>(maps, steps, length, taps, count, turned, result, threads);                        \
  }                                                                                               \
  extern "C" void soma_taps_##name(const Real* maps, const Real* grad, Index steps, Index length, \
                                   Index count, double* found, Index threads) {                   \
    soma_taps<Real>(maps, grad, steps, length, count, found, threads);                            \
  }

NEUROCONV_COLUMNS(float, float32)
NEUROCONV_COLUMNS(double, float64)
