// An image layer's dendrites, from what they read to the sum of their rates, and back. Potentials
// are made a tile at a time and used while they are in the first-level cache.
//
// Shapes: B samples, W' x H' places that come out, T steps, C channels, U units, D dendrites;
// K = branches * T * C inputs of one dendrite, which lie side by side; N = T * U outputs, padded to
// `wide`. A tile holds some rows of one column, of several samples if they are few: (rows, wide).

#include <algorithm>
#include <type_traits>
#include <vector>

#include "vectors.h"

namespace {

constexpr Index kTileRows = 64;
constexpr Index kAdded = 2048;  // places whose gradients are added up before they go to doubles
// A block of products holds so many numbers by so many vectors, all in registers.
template <typename Real>
constexpr int kMost = kVectorBytes == 64 && sizeof(Real) == 4 ? 7 : 3;
constexpr int kVectors = 3;

// As `neuroconv.layers.native` packs them.
struct Sizes {
  Index dendrites, samples, columns, rows;  // D, B, W', H'
  Index height, row_stride;                 // rows of the maps that are read
  Index branches, steps, channels, units;
  Index wide, deep;  // N and K, padded to whole vectors
  Index inputs() const { return branches * steps * channels; }
  Index outputs() const { return steps * units; }
  Index places() const { return columns * samples * rows; }
};

struct Tile {
  Index column, sample, samples, start, height;  // `height` rows from `start` on, of each sample
  Index rows() const { return samples * height; }
};

// What becomes of potentials: scale * potential + offset, of each (D, wide); no rectifier if
// linear.
template <typename Real>
struct Stage {
  const Real* scale;
  const Real* offset;
  bool linear;
};

// acc[p][v] += x[p * apart + k] * w[k * wide + v], vectors from `kFirst` on.
template <typename Real, int P, int V, int kFirst>
INLINED void multiply(Vector<Real> (&acc)[P][V], const Real* x, Index apart, const Real* w,
                      Index wide, Index from, Index to) {
  for (Index k = from; k < to; ++k) {
    Vector<Real> own[V];
#pragma GCC unroll 8
    for (int v = kFirst; v < V; ++v) own[v] = load(w + k * wide + v * kLanes<Real>);
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 8
      for (int v = kFirst; v < V; ++v) acc[p][v] += x[p * apart + k] * own[v];
  }
}

template <typename Real, int P, int V>
INLINED void put(const Vector<Real> (&acc)[P][V], Real* to, Index wide) {
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) store(to + p * wide + v * kLanes<Real>, acc[p][v]);
}

// How many inputs of a row of the patch the v-th vector from output `first` on depends on: those
// of its own steps and of the steps before.
template <typename Real>
inline Index reach(const Sizes& s, Index first, int v) {
  const Index last = std::min(s.outputs(), first + (v + 1) * kLanes<Real>) - 1;
  return (last / s.units + 1) * s.channels;
}

// Potentials of `P` places, of V vectors of outputs from `first` on, written to `tile`.
template <typename Real, int P, int V>
void potentials(const Sizes& s, const Real* read, const Real* weight, Index first, Real* tile) {
  Vector<Real> acc[P][V] = {};
  const Index line = s.steps * s.channels, apart = s.row_stride * line;
  for (Index branch = 0; branch < s.branches; ++branch) {
    const Real* x = read + branch * line;
    const Real* w = weight + branch * line * s.wide + first;
    Index known = reach<Real>(s, first, 0);
    multiply<Real, P, V, 0>(acc, x, apart, w, s.wide, 0, known);
    if constexpr (V > 1) {
      const Index more = reach<Real>(s, first, 1);
      multiply<Real, P, V, 1>(acc, x, apart, w, s.wide, known, more);
      known = more;
    }
    if constexpr (V > 2)
      multiply<Real, P, V, 2>(acc, x, apart, w, s.wide, known, reach<Real>(s, first, 2));
  }
  put<Real>(acc, tile + first, s.wide);
}

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

template <typename Run>
inline void as_vectors(Index number, Run run) {
  if (number == 3) run(Constant<3>());
  else if (number == 2) run(Constant<2>());
  else run(Constant<1>());
}

// `run(from, many)` over a range, in blocks of about the same size, of kMost at most.
template <typename Real, typename Run>
inline void in_blocks(Index count, Run run) {
  const Index blocks = (count + kMost<Real> - 1) / kMost<Real>;
  for (Index block = 0; block < blocks; ++block) {
    const Index from = count * block / blocks;
    as_constant<Real>(count * (block + 1) / blocks - from, [&](auto many) { run(from, many); });
  }
}

// `run(many rows, vectors, row, first number)` over a tile's blocks.
template <typename Real, typename Run>
inline void in_blocks(Index rows, Index wide, Run run) {
  for (Index first = 0; first < wide; first += kVectors * kLanes<Real>)
    as_vectors(std::min<Index>(kVectors, (wide - first) / kLanes<Real>), [&](auto vectors) {
      in_blocks<Real>(rows, [&](Index row, auto many) { run(many, vectors, row, first); });
    });
}

// A layer's operands, and the loops over its tiles that all passes share.
template <typename Real>
struct Layer {
  const Sizes& s;
  const Real* room;     // maps as `layers.patches` lays them out
  const Index* pieces;  // where each dendrite's first column starts in it
  const Real* weight;   // (D, K, wide)
  Real* kept;           // potentials, (D, W', B, H', wide), or null: made anew for each pass
  bool made;            // what is kept is there already

  Index at(Index dendrite, const Tile& tile) const {
    const Index line = s.steps * s.channels;
    return pieces[dendrite] +
           ((tile.column * s.samples + tile.sample) * s.height + tile.start * s.row_stride) * line;
  }

  Index place(const Tile& tile) const {
    return (tile.column * s.samples + tile.sample) * s.rows + tile.start;
  }

  // The potentials of a tile, (rows, wide): where they are kept, or else in `held`.
  const Real* potentials_of(Index dendrite, const Tile& tile, Real* held) const {
    if (kept) {
      held = kept + (dendrite * s.places() + place(tile)) * s.wide;
      if (made) return held;
    }
    const Real* read = room + at(dendrite, tile);
    const Real* own = weight + dendrite * s.inputs() * s.wide;
    const Index line = s.steps * s.channels;
    in_blocks<Real>(tile.height, s.wide, [&](auto many, auto vectors, Index row, Index first) {
      for (Index sample = 0; sample < tile.samples; ++sample)
        potentials<Real, many.value, vectors.value>(
            s, read + (sample * s.height + row * s.row_stride) * line, own, first,
            held + (sample * tile.height + row) * s.wide);
    });
    return held;
  }

  // Between a tile and maps (T, W', B, H', U): `move(in the maps, in the tile)`.
  template <typename Move>
  void each_place(const Tile& tile, Move move) const {
    const Index first = place(tile);
    for (Index step = 0; step < s.steps; ++step)
      for (Index row = 0; row < tile.rows(); ++row)
        move((step * s.places() + first + row) * s.units, row * s.wide + step * s.units);
  }

  // `run(tile)` over the tiles of a thread's share of the samples.
  template <typename Run>
  void each_tile(Index thread, Index threads, Run run) const {
    const Index last = s.samples * (thread + 1) / threads;
    const Index high = std::min(kTileRows, s.rows), many = kTileRows / high;
    for (Index sample = s.samples * thread / threads; sample < last; sample += many)
      for (Index column = 0; column < s.columns; ++column)
        for (Index start = 0; start < s.rows; start += high)
          run({column, sample, std::min(many, last - sample), start,
               std::min(high, s.rows - start)});
  }
};

// The tile's gradients that pass the rectifier, in place of its potentials or beside them.
template <typename Real>
inline Real passed(Real potential, Real pushed, Real scale, Real offset, bool linear) {
  return linear || potential * scale + offset > 0 ? pushed : Real(0);
}

template <typename Real>
void sum(const Layer<Real>& layer, const Stage<Real>& stage, Real* total, int threads) {
  const Sizes& s = layer.s;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    std::vector<Real> held(kTileRows * s.wide), sums(kTileRows * s.wide);
    layer.each_tile(thread, threads, [&](const Tile& tile) {
      for (Index dendrite = 0; dendrite < s.dendrites; ++dendrite) {
        const Real* values = layer.potentials_of(dendrite, tile, held.data());
        const Real* by = stage.scale + dendrite * s.wide;
        const Real* with = stage.offset + dendrite * s.wide;
        for (Index row = 0; row < tile.rows(); ++row) {
          const Real* from = values + row * s.wide;
          Real* own = sums.data() + row * s.wide;
          if (dendrite == 0) std::fill_n(own, s.wide, Real(0));
          if (stage.linear) {
#pragma omp simd
            for (Index n = 0; n < s.wide; ++n) own[n] += from[n] * by[n] + with[n];
          } else {
#pragma omp simd
            for (Index n = 0; n < s.wide; ++n) own[n] += rectified(from[n] * by[n] + with[n]);
          }
        }
      }
      layer.each_place(tile, [&](Index there, Index here) {
        copy_units(total + there, sums.data() + here, s.units);
      });
    });
  }
}

// Adds up the threads' own (D * `numbers`) in their order.
inline void add_up(const std::vector<std::vector<double>>& own, double* found) {
  std::fill_n(found, own[0].size(), 0.0);
  for (const auto& each : own)
    for (std::size_t at = 0; at < each.size(); ++at) found[at] += each[at];
}

// Mean and biased variance of the potentials, (D, wide): of tiles about their own mean, and tiles
// joined by Chan's update.
template <typename Real>
void statistics(const Layer<Real>& layer, double* mean, double* variance, int threads) {
  const Sizes& s = layer.s;
  const Index numbers = s.dendrites * s.wide;
  std::vector<std::vector<double>> means(threads), squares(threads);
  std::vector<std::vector<Index>> counts(threads);
  const auto join = [&](double* centre, double* square, Index& count, const auto* other,
                        const auto* others_square, Index others) {
    const double share = double(others) / double(count + others), met = share * double(count);
    for (Index n = 0; n < s.wide; ++n) {
      const double apart = other[n] - centre[n];
      centre[n] += apart * share;
      square[n] += others_square[n] + apart * apart * met;
    }
    count += others;
  };
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    means[thread].assign(numbers, 0.0);
    squares[thread].assign(numbers, 0.0);
    counts[thread].assign(s.dendrites, 0);
    std::vector<Real> held(kTileRows * s.wide), centre(s.wide), square(s.wide);
    layer.each_tile(thread, threads, [&](const Tile& tile) {
      for (Index dendrite = 0; dendrite < s.dendrites; ++dendrite) {
        const Real* values = layer.potentials_of(dendrite, tile, held.data());
        std::fill(centre.begin(), centre.end(), Real(0));
        std::fill(square.begin(), square.end(), Real(0));
        for (Index row = 0; row < tile.rows(); ++row)
#pragma omp simd
          for (Index n = 0; n < s.wide; ++n) centre[n] += values[row * s.wide + n];
        for (Index n = 0; n < s.wide; ++n) centre[n] /= Real(tile.rows());
        for (Index row = 0; row < tile.rows(); ++row)
#pragma omp simd
          for (Index n = 0; n < s.wide; ++n) {
            const Real apart = values[row * s.wide + n] - centre[n];
            square[n] += apart * apart;
          }
        join(&means[thread][dendrite * s.wide], &squares[thread][dendrite * s.wide],
             counts[thread][dendrite], centre.data(), square.data(), tile.rows());
      }
    });
  }
  std::fill_n(mean, numbers, 0.0);
  std::fill_n(variance, numbers, 0.0);
  for (Index dendrite = 0; dendrite < s.dendrites; ++dendrite) {
    const Index at = dendrite * s.wide;
    Index count = 0;
    for (int thread = 0; thread < threads; ++thread)
      if (counts[thread][dendrite])
        join(mean + at, variance + at, count, &means[thread][at], &squares[thread][at],
             counts[thread][dendrite]);
    for (Index n = 0; n < s.wide; ++n) variance[at + n] /= double(count);
  }
}

// Over all places, (D, 2, wide): the gradient that passes, and it times the potential.
template <typename Real>
void sums(const Layer<Real>& layer, const Stage<Real>& stage, const Real* grad, double* found,
          int threads) {
  const Sizes& s = layer.s;
  std::vector<std::vector<double>> all(threads);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    all[thread].assign(s.dendrites * 2 * s.wide, 0.0);
    std::vector<Real> held(kTileRows * s.wide), pushed(kTileRows * s.wide), met(2 * s.wide);
    layer.each_tile(thread, threads, [&](const Tile& tile) {
      layer.each_place(tile, [&](Index there, Index here) {
        copy_units(pushed.data() + here, grad + there, s.units);
      });
      for (Index dendrite = 0; dendrite < s.dendrites; ++dendrite) {
        const Real* values = layer.potentials_of(dendrite, tile, held.data());
        const Real* by = stage.scale + dendrite * s.wide;
        const Real* with = stage.offset + dendrite * s.wide;
        std::fill(met.begin(), met.end(), Real(0));
        for (Index row = 0; row < tile.rows(); ++row)
#pragma omp simd
          for (Index n = 0; n < s.wide; ++n) {
            const Real value = values[row * s.wide + n];
            const Real own = passed(value, pushed[row * s.wide + n], by[n], with[n], stage.linear);
            met[n] += own;
            met[s.wide + n] += own * value;
          }
        double* own = all[thread].data() + dendrite * 2 * s.wide;
        for (Index n = 0; n < 2 * s.wide; ++n) own[n] += met[n];
      }
    });
  }
  add_up(all, found);
}

// total[m][n] += sum over a tile's rows of read[m] * own[n], for M inputs of each row.
template <typename Real, int M, int V>
INLINED void meet(const Sizes& s, const Tile& tile, const Real* read, const Real* own,
                  Real* total) {
  const Index line = s.steps * s.channels;
  Vector<Real> acc[M][V];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) acc[m][v] = load(total + m * s.wide + v * kLanes<Real>);
  for (Index sample = 0; sample < tile.samples; ++sample) {
    const Real* x = read + sample * s.height * line;
    const Real* y = own + sample * tile.height * s.wide;
    for (Index row = 0; row < tile.height; ++row) {
      Vector<Real> here[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) here[v] = load(y + row * s.wide + v * kLanes<Real>);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) acc[m][v] += x[row * s.row_stride * line + m] * here[v];
    }
  }
  put<Real>(acc, total, s.wide);
}

// The gradient to a dendrite's weights, (K, wide), added: by blocks of inputs; outputs before the
// first input's own step are left out.
template <typename Real>
void to_weight(const Sizes& s, const Tile& tile, const Real* read, const Real* own, Real* total) {
  const Index line = s.steps * s.channels;
  for (Index first = 0; first < s.wide; first += kVectors * kLanes<Real>)
    in_blocks<Real>(s.inputs(), [&](Index k, auto many) {
      const Index in_line = k % line;
      const Index step = in_line + many.value > line ? 0 : in_line / s.channels;
      const Index skipped = std::max<Index>(0, step * s.units - first) / kLanes<Real>;
      const Index vectors = std::min<Index>(kVectors, (s.wide - first) / kLanes<Real>) - skipped;
      const Index at = first + skipped * kLanes<Real>;
      if (vectors > 0)
        as_vectors(vectors, [&](auto across) {
          meet<Real, many.value, across.value>(s, tile, read + k, own + at,
                                               total + k * s.wide + at);
        });
    });
}

// The gradient to what a dendrite reads, added where it lies: own (rows, wide) by turned weights
// (N, deep). Rows of the maps meet several rows of the tile: branch by branch they are added to
// one after another, for a number that was only just written is slow to read again.
template <typename Real>
void to_room(const Sizes& s, const Tile& tile, const Real* own, const Real* turned, Real* held,
             Real* back) {
  in_blocks<Real>(tile.rows(), s.deep, [&](auto many, auto vectors, Index row, Index first) {
    constexpr int P = many.value, V = vectors.value;
    Vector<Real> acc[P][V] = {};
    multiply<Real, P, V, 0>(acc, own + row * s.wide, s.wide, turned + first, s.deep, 0,
                            s.outputs());
    put<Real>(acc, held + row * s.deep + first, s.deep);
  });
  const Index line = s.steps * s.channels;
  for (Index sample = 0; sample < tile.samples; ++sample)
    for (Index branch = 0; branch < s.branches; ++branch)
      for (Index row = 0; row < tile.height; ++row) {
        Real* there = back + (sample * s.height + row * s.row_stride + branch) * line;
        const Real* here = held + (sample * tile.height + row) * s.deep + branch * line;
#pragma omp simd
        for (Index k = 0; k < line; ++k) there[k] += here[k];
      }
}

// Gradients of weights, (D, K, wide), and of the room, from that of the total. A potential's own is
// scale * what passes, and if the scale comes of the potentials' statistics + slope * potential +
// start.
template <typename Real>
void back(const Layer<Real>& layer, const Stage<Real>& stage, const Real* grad, const Real* slope,
          const Real* start_of, const Real* turned, double* grad_weight, Real* grad_room,
          int threads) {
  const Sizes& s = layer.s;
  const Index size = s.inputs() * s.wide;
  std::vector<std::vector<double>> all(threads);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    all[thread].assign(s.dendrites * size, 0.0);
    std::vector<Real> held(kTileRows * s.wide), pushed(kTileRows * s.wide);
    std::vector<Real> own(kTileRows * s.wide), reached(kTileRows * s.deep);
    std::vector<Real> met(s.dendrites * size);
    Index added = 0;  // places in `met`
    const auto hand_over = [&] {
      for (std::size_t at = 0; at < met.size(); ++at) all[thread][at] += met[at];
      std::fill(met.begin(), met.end(), Real(0));
      added = 0;
    };
    layer.each_tile(thread, threads, [&](const Tile& tile) {
      layer.each_place(tile, [&](Index there, Index here) {
        copy_units(pushed.data() + here, grad + there, s.units);
      });
      for (Index dendrite = 0; dendrite < s.dendrites; ++dendrite) {
        const Real* values = layer.potentials_of(dendrite, tile, held.data());
        const Real* by = stage.scale + dendrite * s.wide;
        const Real* with = stage.offset + dendrite * s.wide;
        for (Index row = 0; row < tile.rows(); ++row) {
          const Real* here = values + row * s.wide;
          const Real* above = pushed.data() + row * s.wide;
          Real* to = own.data() + row * s.wide;
          if (slope) {
            const Real* rise = slope + dendrite * s.wide;
            const Real* from = start_of + dendrite * s.wide;
#pragma omp simd
            for (Index n = 0; n < s.wide; ++n)
              to[n] = by[n] * passed(here[n], above[n], by[n], with[n], stage.linear) +
                      rise[n] * here[n] + from[n];
          } else {
#pragma omp simd
            for (Index n = 0; n < s.wide; ++n)
              to[n] = by[n] * passed(here[n], above[n], by[n], with[n], stage.linear);
          }
        }
        const Index at = layer.at(dendrite, tile);
        if (grad_weight)
          to_weight(s, tile, layer.room + at, own.data(), met.data() + dendrite * size);
        if (grad_room)
          to_room(s, tile, own.data(), turned + dendrite * s.outputs() * s.deep, reached.data(),
                  grad_room + at);
      }
      if (grad_weight && (added += tile.rows()) >= kAdded) hand_over();
    });
    if (grad_weight) hand_over();
  }
  if (grad_weight) add_up(all, grad_weight);
}

}  // namespace

// What every pass is given of a layer.
#define OPERANDS(Real)                                                                       \
  const Sizes *sizes, const Real *room, const Index *pieces, const Real *weight, Real *kept, \
      Index made
#define STAGE(Real) const Real *scale, const Real *offset, Index linear
#define LAYER {*sizes, room, pieces, weight, kept, made != 0}

#define NEUROCONV_IMAGE(Real, name)                                                               \
  extern "C" void image_sum_##name(OPERANDS(Real), STAGE(Real), Real* total, Index threads) {     \
    sum<Real>(LAYER, {scale, offset, linear != 0}, total, threads);                               \
  }                                                                                               \
  extern "C" void image_statistics_##name(OPERANDS(Real), double* mean, double* variance,         \
                                          Index threads) {                                        \
    statistics<Real>(LAYER, mean, variance, threads);                                             \
  }                                                                                               \
  extern "C" void image_sums_##name(OPERANDS(Real), STAGE(Real), const Real* grad, double* found, \
                                    Index threads) {                                              \
    sums<Real>(LAYER, {scale, offset, linear != 0}, grad, found, threads);                        \
  }                                                                                               \
  extern "C" void image_back_##name(OPERANDS(Real), STAGE(Real), const Real* grad,                \
                                    const Real* slope, const Real* start, const Real* turned,     \
                                    double* grad_weight, Real* grad_room, Index threads) {        \
    back<Real>(LAYER, {scale, offset, linear != 0}, grad, slope, start, turned, grad_weight,      \
               grad_room, threads);                                                               \
  }

NEUROCONV_IMAGE(float, float32)
NEUROCONV_IMAGE(double, float64)
