// An image layer's dendrites, from what they read to the sum of their rates, and back. Potentials
// are made a tile at a time and used while they are in the first-level cache. For the way back a
// bit of each is kept, whether its rectifier passes; or the potentials, where a norm follows whose
// statistics are not those of what is read.
//
// Shapes: B samples, W' x H' places that come out, T steps, C channels, U units, D dendrites;
// K = branches * T * C inputs of one dendrite, which lie side by side; N = T * U outputs, padded to
// `wide`. A tile holds some rows of one column, of several samples if they are few: (rows, wide).

#include <algorithm>
#include <vector>

#include "blocks.h"

namespace {

constexpr Index kTileRows = 32;
constexpr Index kAdded = 256;  // places whose gradients are added up before they go to doubles
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

template <typename Run>
inline void as_vectors(Index number, Run run) {
  if (number == 3) run(Constant<3>());
  else if (number == 2) run(Constant<2>());
  else run(Constant<1>());
}

// `run(many rows, vectors, row, first number)` over a tile's blocks.
template <typename Real, typename Run>
inline void in_tiles(Index rows, Index wide, Run run) {
  for (Index first = 0; first < wide; first += kVectors * kLanes<Real>)
    as_vectors(std::min<Index>(kVectors, (wide - first) / kLanes<Real>), [&](auto vectors) {
      in_blocks<kMost<Real>>(rows, [&](Index row, auto many) { run(many, vectors, row, first); });
    });
}

// A layer's operands, and the loops over its tiles that all passes share.
template <typename Real>
struct Layer {
  const Sizes& s;
  const Real* room;     // maps as `layers.patches` lays them out
  const Index* pieces;  // where each dendrite's first column starts in it
  const Real* weight;   // (D, K, wide)
  Real* kept;           // potentials, (D * places, wide), or null: made anew for each pass
  bool made;            // what is kept is there already
  Bits* bits;           // of potentials, (D * places, room()), or null

  Index at(Index dendrite, const Tile& tile) const {
    const Index line = s.steps * s.channels;
    return pieces[dendrite] +
           ((tile.column * s.samples + tile.sample) * s.height + tile.start * s.row_stride) * line;
  }

  Index place(const Tile& tile) const {
    return (tile.column * s.samples + tile.sample) * s.rows + tile.start;
  }

  // Rows of a dendrite's tile, in the order in which tiles are gone through.
  Index row_of(Index dendrite, const Tile& tile) const {
    const Index before =
        s.columns * s.rows * tile.sample + (tile.column * s.rows + tile.start) * tile.samples;
    return before * s.dendrites + dendrite * tile.rows();
  }

  Index room_of_bits() const { return room_for_bits<Real>(s.wide); }
  Bits* bits_of(Index dendrite, const Tile& tile) const {
    return bits ? bits + row_of(dendrite, tile) * room_of_bits() : nullptr;
  }

  // The potentials of a tile, (rows, wide): where they are kept, or else in `held`.
  const Real* potentials_of(Index dendrite, const Tile& tile, Real* held) const {
    if (kept) {
      held = kept + row_of(dendrite, tile) * s.wide;
      if (made) return held;
    }
    product(tile, room + at(dendrite, tile), weight + dendrite * s.inputs() * s.wide, held);
    return held;
  }

  // What a tile reads, (rows, K), by weights (K, wide).
  void product(const Tile& tile, const Real* read, const Real* own, Real* held) const {
    const Index line = s.steps * s.channels;
    in_tiles<Real>(tile.height, s.wide, [&](auto many, auto vectors, Index row, Index first) {
      for (Index sample = 0; sample < tile.samples; ++sample)
        potentials<Real, many.value, vectors.value>(
            s, read + (sample * s.height + row * s.row_stride) * line, own, first,
            held + (sample * tile.height + row) * s.wide);
    });
  }

  // Between a tile and maps (T, W', B, H', U): `move(in the maps, in the tile)`.
  template <typename Move>
  void each_place(const Tile& tile, Move move) const {
    const Index first = place(tile);
    for (Index step = 0; step < s.steps; ++step)
      for (Index row = 0; row < tile.rows(); ++row)
        move((step * s.places() + first + row) * s.units, row * s.wide + step * s.units);
  }

  // `run(tile)` over the tiles of a thread's share: of whole samples, or also of their columns.
  // Tiles are the same for any number of threads.
  template <typename Run>
  void each_tile(Index thread, Index threads, bool by_columns, Run run) const {
    const Index high = std::min(kTileRows, s.rows), many = kTileRows / high;
    const Index groups = (s.samples + many - 1) / many, parts = by_columns ? s.columns : 1;
    const Index tasks = groups * parts, columns = s.columns / parts;
    for (Index task = tasks * thread / threads; task < tasks * (thread + 1) / threads; ++task) {
      const Index sample = task / parts * many, first = task % parts * columns;
      for (Index column = first; column < first + columns; ++column)
        for (Index start = 0; start < s.rows; start += high)
          run({column, sample, std::min(many, s.samples - sample), start,
               std::min(high, s.rows - start)});
    }
  }
};

// What one dendrite does to a tile, vector by vector down its rows.

// Adds its rates to the sums; with `bits`, says which rates are above zero.
template <typename Real, bool kLinear>
void add_rates(const Real* values, Index rows, Index wide, const Real* scale, const Real* offset,
               bool first, Real* sums, Bits* bits, Index room) {
  for (Index n = 0; n < wide; n += kLanes<Real>) {
    const Vector<Real> by = load(scale + n), with = load(offset + n);
    Bits* own = bits ? bits + n / kLanes<Real> : nullptr;
    for (Index at = n; at < rows * wide; at += wide) {
      const Vector<Real> potential = load(values + at) * by + with;
      if (!kLinear && own) *own = positive<Real>(potential), own += room;
      const Vector<Real> rate = kLinear ? potential : rectified(potential);
      store<Real>(sums + at, first ? rate : load(sums + at) + rate);
    }
  }
}

// The part of a gradient that passes the rectifier.
template <typename Real, bool kLinear>
INLINED Vector<Real> passed(Vector<Real> value, Vector<Real> pushed, Vector<Real> by,
                            Vector<Real> with) {
  if constexpr (kLinear) return pushed;
  return value * by + with > 0 ? pushed : Vector<Real>{};
}

// Adds up what passes, and it times the potential: (2, wide).
template <typename Real, bool kLinear>
void add_sums(const Real* values, const Real* pushed, Index rows, Index wide, const Real* scale,
              const Real* offset, double* found) {
  for (Index n = 0; n < wide; n += kLanes<Real>) {
    const Vector<Real> by = load(scale + n), with = load(offset + n);
    Vector<Real> passing = {}, met = {};
    for (Index at = n; at < rows * wide; at += wide) {
      const Vector<Real> value = load(values + at);
      const Vector<Real> own = passed<Real, kLinear>(value, load(pushed + at), by, with);
      passing += own;
      met += own * value;
    }
    for (Index lane = 0; lane < kLanes<Real>; ++lane) {
      found[n + lane] += passing[lane];
      found[wide + n + lane] += met[lane];
    }
  }
}

// The gradient that passes, and its sums, (wide), added: all of it without bits.
template <typename Real>
void passing(const Bits* bits, Index room, const Real* pushed, Index rows, Index wide, Real* result,
             double* found) {
  for (Index n = 0; n < wide; n += kLanes<Real>) {
    const Bits* own = bits ? bits + n / kLanes<Real> : nullptr;
    Vector<Real> total = {};
    for (Index at = n; at < rows * wide; at += wide) {
      Vector<Real> passed = load(pushed + at);
      if (own) passed = chosen<Real>(*own, passed), own += room;
      total += passed;
      store<Real>(result + at, passed);
    }
    for (Index lane = 0; lane < kLanes<Real>; ++lane) found[n + lane] += total[lane];
  }
}

// The gradients to its potentials, and their sums, (wide), added: scale * what passes + slope *
// potential + start.
template <typename Real, bool kLinear>
void own_gradients(const Real* values, const Real* pushed, Index rows, Index wide,
                   const Real* scale, const Real* offset, const Real* slope, const Real* start,
                   Real* result, double* found) {
  for (Index n = 0; n < wide; n += kLanes<Real>) {
    const Vector<Real> by = load(scale + n), with = load(offset + n);
    const Vector<Real> rise = load(slope + n), from = load(start + n);
    Vector<Real> total = {};
    for (Index at = n; at < rows * wide; at += wide) {
      const Vector<Real> value = load(values + at);
      const Vector<Real> own =
          by * passed<Real, kLinear>(value, load(pushed + at), by, with) + (rise * value + from);
      total += own;
      store<Real>(result + at, own);
    }
    for (Index lane = 0; lane < kLanes<Real>; ++lane) found[n + lane] += total[lane];
  }
}

template <typename Real>
void sum(const Layer<Real>& layer, const Stage<Real>& stage, Real* total, int threads) {
  const Sizes& s = layer.s;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    std::vector<Real> held(kTileRows * s.wide), sums(kTileRows * s.wide);
    layer.each_tile(thread, threads, true, [&](const Tile& tile) {
      for (Index dendrite = 0; dendrite < s.dendrites; ++dendrite) {
        const Real* values = layer.potentials_of(dendrite, tile, held.data());
        const Real* by = stage.scale + dendrite * s.wide;
        const Real* with = stage.offset + dendrite * s.wide;
        const auto add = stage.linear ? add_rates<Real, true> : add_rates<Real, false>;
        add(values, tile.rows(), s.wide, by, with, dendrite == 0, sums.data(),
            layer.bits_of(dendrite, tile), layer.room_of_bits());
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

// A tile's numbers less a pivot, and their squares, added: (wide) each.
template <typename Real>
void add_apart(const Real* values, Index rows, Index wide, const Real* pivot, Real* sum,
               Real* squared) {
  for (Index n = 0; n < wide; n += kLanes<Real>) {
    const Vector<Real> centre = load(pivot + n);
    Vector<Real> whole = load(sum + n), square = load(squared + n);
    for (Index at = n; at < rows * wide; at += wide) {
      const Vector<Real> apart = load(values + at) - centre;
      whole += apart;
      square += apart * apart;
    }
    store<Real>(sum + n, whole);
    store<Real>(squared + n, square);
  }
}

// Mean and biased variance of the potentials, (D, wide). A thread's first tile gives the pivots.
template <typename Real>
void statistics(const Layer<Real>& layer, double* mean, double* variance, int threads) {
  const Sizes& s = layer.s;
  const Index numbers = s.dendrites * s.wide;
  std::vector<std::vector<Spread>> all(threads);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    std::vector<Real> held(kTileRows * s.wide), pivot(numbers), sum(numbers), squared(numbers);
    std::vector<double> sums(numbers), squares(numbers);
    Index added = 0, places = 0;  // in `sum` and `squared`; in all
    const auto hand_over = [&] {
      for (Index at = 0; at < numbers; ++at) sums[at] += sum[at], squares[at] += squared[at];
      std::fill(sum.begin(), sum.end(), Real(0));
      std::fill(squared.begin(), squared.end(), Real(0));
      places += added, added = 0;
    };
    layer.each_tile(thread, threads, true, [&](const Tile& tile) {
      for (Index dendrite = 0; dendrite < s.dendrites; ++dendrite) {
        const Real* values = layer.potentials_of(dendrite, tile, held.data());
        const Index at = dendrite * s.wide;
        if (places + added == 0)
          for (Index row = 0; row < tile.rows(); ++row)
            for (Index n = 0; n < s.wide; ++n)
              pivot[at + n] += values[row * s.wide + n] / Real(tile.rows());
        add_apart(values, tile.rows(), s.wide, &pivot[at], &sum[at], &squared[at]);
      }
      if ((added += tile.rows()) >= kAdded) hand_over();
    });
    hand_over();
    for (Index at = 0; places && at < numbers; ++at)
      all[thread].emplace_back(pivot[at], sums[at], squares[at], places);
  }
  for (Index at = 0; at < numbers; ++at) {
    Spread whole;
    for (const auto& each : all)
      if (!each.empty()) whole.join(each[at]);
    mean[at] = whole.mean;
    variance[at] = whole.squares / double(whole.count);
  }
}

// products[k][l] += sum over rows of x[k] * x[l], from the vector of the diagonal on.
inline void multiply_up(const double* x, Index rows, Index inputs, Index deep, double* products) {
  constexpr Index lanes = kLanes<double>;
  in_blocks<kMost<float>>(inputs, [&](Index k, auto many) {
    constexpr int M = many.value;
    for (Index first = k / lanes * lanes; first < inputs; first += kVectors * lanes) {
      const Index vectors =
          (std::min(inputs, first + kVectors * lanes) - first + lanes - 1) / lanes;
      as_vectors(vectors, [&](auto across) {
        constexpr int V = across.value;
        double* to = products + k * deep + first;
        Vector<double> acc[M][V];
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
          for (int v = 0; v < V; ++v) acc[m][v] = load(to + m * deep + v * lanes);
        for (Index row = 0; row < rows; ++row) {
          const double* own = x + row * deep;
          Vector<double> here[V];
#pragma GCC unroll 8
          for (int v = 0; v < V; ++v) here[v] = load(own + first + v * lanes);
#pragma GCC unroll 8
          for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) acc[m][v] += own[k + m] * here[v];
        }
        put<double>(acc, to, deep);
      });
    }
  });
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
    std::vector<Real> held(kTileRows * s.wide), pushed(kTileRows * s.wide);
    layer.each_tile(thread, threads, true, [&](const Tile& tile) {
      layer.each_place(tile, [&](Index there, Index here) {
        copy_units(pushed.data() + here, grad + there, s.units);
      });
      for (Index dendrite = 0; dendrite < s.dendrites; ++dendrite) {
        const Real* values = layer.potentials_of(dendrite, tile, held.data());
        const Real* by = stage.scale + dendrite * s.wide;
        const Real* with = stage.offset + dendrite * s.wide;
        const auto add = stage.linear ? add_sums<Real, true> : add_sums<Real, false>;
        add(values, pushed.data(), tile.rows(), s.wide, by, with,
            all[thread].data() + dendrite * 2 * s.wide);
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
    in_blocks<kMost<Real>>(s.inputs(), [&](Index k, auto many) {
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

// As below, of lines shorter than a vector: packed one after another, they are added as one.
template <typename Real>
void to_short_lines(const Sizes& s, const Tile& tile, const Real* held, Real* packed, Real* back) {
  const Index line = s.steps * s.channels;
  for (Index sample = 0; sample < tile.samples; ++sample)
    for (Index branch = 0; branch < s.branches; ++branch) {
      const Real* here = held + sample * tile.height * s.deep + branch * line;
      for (Index row = 0; row < tile.height; ++row)  // what a line's vector holds beyond it goes
        store<Real>(packed + row * line, load(here + row * s.deep));
      Real* there = back + (sample * s.height + branch) * line;
#pragma omp simd
      for (Index k = 0; k < tile.height * line; ++k) there[k] += packed[k];
    }
}

// What a tile's rows, (rows, deep), give back to what a dendrite reads, added where it lies. Rows
// of the maps meet several rows of the tile: branch by branch they are added to one after another,
// for a number that was only just written is slow to read again.
template <typename Real>
void add_lines(const Sizes& s, const Tile& tile, const Real* held, Real* packed, Real* back) {
  const Index line = s.steps * s.channels;
  if (line <= kLanes<Real> && s.row_stride == 1) return to_short_lines(s, tile, held, packed, back);
  for (Index sample = 0; sample < tile.samples; ++sample)
    for (Index branch = 0; branch < s.branches; ++branch)
      for (Index row = 0; row < tile.height; ++row) {
        Real* there = back + (sample * s.height + row * s.row_stride + branch) * line;
        const Real* here = held + (sample * tile.height + row) * s.deep + branch * line;
#pragma omp simd
        for (Index k = 0; k < line; ++k) there[k] += here[k];
      }
}

// Rows of `inputs` numbers that lie `apart`, by weights (inputs, deep) and added to `first`,
// (deep), if it is given: (rows, deep).
template <typename Real>
void multiply_rows(const Real* rows_of, Index rows, Index apart, const Real* weight, Index inputs,
                   Index deep, const Real* first_of, Real* result) {
  in_tiles<Real>(rows, deep, [&](auto many, auto vectors, Index row, Index first) {
    constexpr int P = many.value, V = vectors.value;
    Vector<Real> acc[P][V];
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v)
        acc[p][v] = first_of ? load(first_of + first + v * kLanes<Real>) : Vector<Real>{};
    multiply<Real, P, V, 0>(acc, rows_of + row * apart, apart, weight + first, deep, 0, inputs);
    put<Real>(acc, result + row * deep + first, deep);
  });
}

// Gradients of weights, (D, K, wide), of the room, and of offsets, (D, wide), from that of the
// total. A potential's own is what passes, as its bits say: its scale is in the turned weights and
// has to be given to the weights' gradient. Or, with a slope, potentials are kept, and it is scale
// * what passes + slope * potential + start.
template <typename Real>
void back(const Layer<Real>& layer, const Stage<Real>& stage, const Real* grad, const Real* slope,
          const Real* start_of, const Real* turned, double* grad_weight, Real* grad_room,
          double* grad_offset, int threads) {
  const Sizes& s = layer.s;
  const Index size = s.inputs() * s.wide;
  std::vector<std::vector<double>> all(threads), offsets(threads);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    if (grad_weight) all[thread].assign(s.dendrites * size, 0.0);
    offsets[thread].assign(s.dendrites * s.wide, 0.0);
    std::vector<Real> held(kTileRows * s.wide), pushed(kTileRows * s.wide);
    std::vector<Real> own(kTileRows * s.wide), reached(kTileRows * s.deep + kLanes<Real>),
        packed((kTileRows + 1) * kLanes<Real>);
    std::vector<Real> met(grad_weight ? s.dendrites * size : 0);
    Index added = 0;  // places in `met`
    const auto hand_over = [&] {
      for (std::size_t at = 0; at < met.size(); ++at) all[thread][at] += met[at];
      std::fill(met.begin(), met.end(), Real(0));
      added = 0;
    };
    layer.each_tile(thread, threads, false, [&](const Tile& tile) {
      layer.each_place(tile, [&](Index there, Index here) {
        copy_units(pushed.data() + here, grad + there, s.units);
      });
      for (Index dendrite = 0; dendrite < s.dendrites; ++dendrite) {
        double* sums = offsets[thread].data() + dendrite * s.wide;
        if (slope) {
          const Real* values = layer.potentials_of(dendrite, tile, held.data());
          const Index first = dendrite * s.wide;
          const auto run = stage.linear ? own_gradients<Real, true> : own_gradients<Real, false>;
          run(values, pushed.data(), tile.rows(), s.wide, stage.scale + first, stage.offset + first,
              slope + first, start_of + first, own.data(), sums);
        } else {
          passing(layer.bits_of(dendrite, tile), layer.room_of_bits(), pushed.data(), tile.rows(),
                  s.wide, own.data(), sums);
        }
        const Index at = layer.at(dendrite, tile);
        if (grad_weight)
          to_weight(s, tile, layer.room + at, own.data(), met.data() + dendrite * size);
        if (!grad_room) continue;
        multiply_rows<Real>(own.data(), tile.rows(), s.wide,
                            turned + dendrite * s.outputs() * s.deep, s.outputs(), s.deep, nullptr,
                            reached.data());
        add_lines(s, tile, reached.data(), packed.data(), grad_room + at);
      }
      if (grad_weight && (added += tile.rows()) >= kAdded) hand_over();
    });
    if (grad_weight) hand_over();
  }
  if (grad_weight) add_up(all, grad_weight);
  add_up(offsets, grad_offset);
}

// `run(rows, where their first window lies)` over what can be read of one column
// of the room: dendrites read the same windows there.
template <typename Real, typename Run>
INLINED void each_window(const Layer<Real>& layer, Index column, Run run) {
  const Sizes& s = layer.s;
  const Index line = s.steps * s.channels;
  for (Index sample = 0; sample < s.samples; ++sample)
    for (Index row = 0; row < s.rows; row += kTileRows)
      run(std::min(kTileRows, s.rows - row),
          ((column * s.samples + sample) * s.height + row * s.row_stride) * line);
}

// Of the windows of each column of the room less a pivot, (K): their sum, (columns, K), and the sum
// of the products of any two numbers, (columns, K, deep), of which those above the diagonal are
// right.
template <typename Real>
void moments(const Layer<Real>& layer, Index columns, const double* pivot, double* sum,
             double* products, int threads) {
  const Sizes& s = layer.s;
  const Index inputs = s.inputs(), apart = s.row_stride * s.steps * s.channels;
#pragma omp parallel num_threads(threads)
  {
    std::vector<double> held(kTileRows * s.deep);
#pragma omp for schedule(static)
    for (Index column = 0; column < columns; ++column) {
      double* whole = sum + column * inputs;
      double* all = products + column * inputs * s.deep;
      std::fill_n(whole, inputs, 0.0);
      std::fill_n(all, inputs * s.deep, 0.0);
      each_window(layer, column, [&](Index rows, Index at) {
        for (Index row = 0; row < rows; ++row) {
          const Real* x = layer.room + at + row * apart;
          double* to = held.data() + row * s.deep;
#pragma omp simd
          for (Index k = 0; k < inputs; ++k) {
            to[k] = double(x[k]) - pivot[k];
            whole[k] += to[k];
          }
        }
        multiply_up(held.data(), rows, inputs, s.deep, all);
      });
    }
  }
}

// Adds to the room's gradient what came by the statistics of a norm: the windows of each column by
// `slope`, (columns, K, deep), and `start`, (columns, deep).
template <typename Real>
void mend(const Layer<Real>& layer, Index columns, const Real* slope, const Real* start_of,
          Real* grad_room, int threads) {
  const Sizes& s = layer.s;
  const Index inputs = s.inputs(), apart = s.row_stride * s.steps * s.channels;
#pragma omp parallel num_threads(threads)
  {
    std::vector<Real> reached(kTileRows * s.deep + kLanes<Real>),
        packed((kTileRows + 1) * kLanes<Real>);
#pragma omp for schedule(static)
    for (Index column = 0; column < columns; ++column)
      each_window(layer, column, [&](Index rows, Index at) {
        multiply_rows<Real>(layer.room + at, rows, apart, slope + column * inputs * s.deep, inputs,
                            s.deep, start_of + column * s.deep, reached.data());
        add_lines<Real>(s, {column, 0, 1, 0, rows}, reached.data(), packed.data(), grad_room + at);
      });
  }
}

}  // namespace

// What every pass is given of a layer.
#define OPERANDS(Real)                                                                       \
  const Sizes *sizes, const Real *room, const Index *pieces, const Real *weight, Real *kept, \
      Index made, Bits *bits
#define STAGE(Real) const Real *scale, const Real *offset, Index linear
#define LAYER {*sizes, room, pieces, weight, kept, made != 0, bits}

#define NEUROCONV_IMAGE(Real, name)                                                               \
  extern "C" void image_sum_##name(OPERANDS(Real), STAGE(Real), Real* total, Index threads) {     \
    sum<Real>(LAYER, {scale, offset, linear != 0}, total, threads);                               \
  }                                                                                               \
  extern "C" void image_statistics_##name(OPERANDS(Real), double* mean, double* variance,         \
                                          Index threads) {                                        \
    statistics<Real>(LAYER, mean, variance, threads);                                             \
  }                                                                                               \
  extern "C" void image_moments_##name(OPERANDS(Real), Index columns, const double* pivot,        \
                                       double* sum, double* products, Index threads) {            \
    moments<Real>(LAYER, columns, pivot, sum, products, threads);                                 \
  }                                                                                               \
  extern "C" void image_mend_##name(OPERANDS(Real), Index columns, const Real* slope,             \
                                    const Real* start, Real* grad_room, Index threads) {          \
    mend<Real>(LAYER, columns, slope, start, grad_room, threads);                                 \
  }                                                                                               \
  extern "C" void image_sums_##name(OPERANDS(Real), STAGE(Real), const Real* grad, double* found, \
                                    Index threads) {                                              \
    sums<Real>(LAYER, {scale, offset, linear != 0}, grad, found, threads);                        \
  }                                                                                               \
  extern "C" void image_back_##name(OPERANDS(Real), STAGE(Real), const Real* grad,                \
                                    const Real* slope, const Real* start, const Real* turned,     \
                                    double* grad_weight, Real* grad_room, double* grad_offset,    \
                                    Index threads) {                                              \
    back<Real>(LAYER, {scale, offset, linear != 0}, grad, slope, start, turned, grad_weight,      \
               grad_room, grad_offset, threads);                                                  \
  }

NEUROCONV_IMAGE(float, float32)
NEUROCONV_IMAGE(double, float64)
