// The dendrites of an image layer: from the maps that they read to the sum of their rates, and
// back. Potentials are computed a tile at a time and used while they are in the first-level cache.
// For the backward pass one bit of each is kept, whether it passes the rectifier; or the potentials
// themselves, where a norm follows whose statistics are not computed from the inputs' moments.
//
// Shapes: B samples, W' x H' output positions, T steps, C channels, U units, D dendrites; K =
// branches * T * C inputs of a dendrite at a position, a window, which are contiguous; T * U
// outputs. Rows of outputs are padded to `wide` numbers, rows of inputs to `deep`. A tile holds
// some rows of one column, of several samples if columns are short: (rows, wide). A line is the T *
// C numbers at one position of the maps.

#include <algorithm>
#include <vector>

#include "blocks.h"

namespace {

constexpr Index kTileRows = 32;
// Positions whose sums are kept in Real before they are flushed into doubles: few enough that
// rounding does not grow with the number of positions.
constexpr Index kFlushPositions = 256;
constexpr int kBlockVectors = 3;  // most vectors in a row of a register block

// The sizes that `neuroconv.kernels.native.ImageLayer` passes, in its order.
struct Sizes {
  Index dendrites, samples, columns, rows;  // D, B, W', H'
  Index height, row_stride;                 // rows of the padded maps; stride of the windows
  Index branches, steps, channels, units;   // rows of a window, T, C, U
  Index wide, deep;                         // T * U and K, padded to whole vectors
  Index inputs() const { return branches * steps * channels; }
  Index outputs() const { return steps * units; }
  Index positions() const { return columns * samples * rows; }
};

// `height` rows from `start` on of one column, for each of the samples.
struct Tile {
  Index column, sample, samples, start, height;
  Index rows() const { return samples * height; }
};

// The function of potentials that is summed: scale * potential + offset, rectified unless linear.
template <typename Real>
struct Stage {
  const Real* scale;   // (D, wide)
  const Real* offset;  // (D, wide)
  bool linear;
};

// Adds a product of P rows of x, `stride` numbers apart, with rows k_begin to k_end of w, (K,
// wide): acc[p][v] += x[p * stride + k] * w[k * wide + v], for the vectors from kFirst on.
template <typename Real, int P, int V, int kFirst>
INLINED void multiply(Vector<Real> (&acc)[P][V], const Real* x, Index stride, const Real* w,
                      Index wide, Index k_begin, Index k_end) {
  for (Index k = k_begin; k < k_end; ++k) {
    Vector<Real> w_k[V];
#pragma GCC unroll 8
    for (int v = kFirst; v < V; ++v) w_k[v] = load(w + k * wide + v * kLanes<Real>);
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 8
      for (int v = kFirst; v < V; ++v) acc[p][v] += x[p * stride + k] * w_k[v];
  }
}

// Returns how many inputs of a line the v-th vector from output `first` on depends on: those of its
// steps and of the steps before. Weights of later steps are zero and are skipped.
template <typename Real>
inline Index causal_inputs(const Sizes& s, Index first, int v) {
  const Index last = std::min(s.outputs(), first + (v + 1) * kLanes<Real>) - 1;
  return (last / s.units + 1) * s.channels;
}

// Writes the potentials of P positions, V vectors of outputs from `first` on, to rows of a tile.
template <typename Real, int P, int V>
void potentials_block(const Sizes& s, const Real* window, const Real* weight, Index first,
                      Real* tile) {
  Vector<Real> acc[P][V] = {};
  const Index line = s.steps * s.channels, stride = s.row_stride * line;
  for (Index branch = 0; branch < s.branches; ++branch) {
    const Real* x = window + branch * line;
    const Real* w = weight + branch * line * s.wide + first;
    // Inputs of early steps act on all vectors, those of later steps on the last vectors alone.
    Index done = causal_inputs<Real>(s, first, 0);
    multiply<Real, P, V, 0>(acc, x, stride, w, s.wide, 0, done);
    if constexpr (V > 1) {
      const Index end = causal_inputs<Real>(s, first, 1);
      multiply<Real, P, V, 1>(acc, x, stride, w, s.wide, done, end);
      done = end;
    }
    if constexpr (V > 2)
      multiply<Real, P, V, 2>(acc, x, stride, w, s.wide, done, causal_inputs<Real>(s, first, 2));
  }
  store_block<Real>(acc, tile + first, s.wide);
}

// Calls `body` with a number of vectors as a template argument.
template <typename Body>
inline void dispatch_vectors(Index vectors, Body body) {
  if (vectors == 3) body(Constant<3>());
  else if (vectors == 2) body(Constant<2>());
  else body(Constant<1>());
}

// Calls `body(rows, vectors, row, first)` for the register blocks of a (rows, wide) matrix: the
// sizes, as template arguments, and the first row and number.
template <typename Real, typename Body>
inline void for_each_register_block(Index rows, Index wide, Body body) {
  for (Index first = 0; first < wide; first += kBlockVectors * kLanes<Real>)
    dispatch_vectors(std::min<Index>(kBlockVectors, (wide - first) / kLanes<Real>),
                     [&](auto vectors) {
                       for_each_block<kBlockRows<Real>>(
                           rows, [&](Index row, auto size) { body(size, vectors, row, first); });
                     });
}

// A layer's operands, and the loops over its tiles that all passes share.
template <typename Real>
struct Layer {
  const Sizes& s;
  const Real* buffer;   // the maps as `kernels.patches.lay_out` leaves them
  const Index* pieces;  // (D,): offset in the buffer of the first column that a dendrite reads
  const Real* weight;   // (D, K, wide)
  Real* kept;           // potentials, (D * positions, wide), or null: computed in each pass
  bool filled;          // `kept` holds the potentials of an earlier pass
  Bits* bits;           // of the potentials, (D * positions, bit_stride), or null

  // Returns the offset in the buffer of the first window of a tile.
  Index window_offset(Index dendrite, const Tile& tile) const {
    const Index line = s.steps * s.channels;
    return pieces[dendrite] +
           ((tile.column * s.samples + tile.sample) * s.height + tile.start * s.row_stride) * line;
  }

  // Returns the first output position of a tile, in (W', B, H').
  Index first_position(const Tile& tile) const {
    return (tile.column * s.samples + tile.sample) * s.rows + tile.start;
  }

  // Returns the first row of a dendrite's tile in `kept` and `bits`, whose rows are in the order of
  // computation.
  Index first_row(Index dendrite, const Tile& tile) const {
    const Index before =
        s.columns * s.rows * tile.sample + (tile.column * s.rows + tile.start) * tile.samples;
    return before * s.dendrites + dendrite * tile.rows();
  }

  Index bit_stride() const { return bits_per_row<Real>(s.wide); }
  Bits* bits_of(Index dendrite, const Tile& tile) const {
    return bits ? bits + first_row(dendrite, tile) * bit_stride() : nullptr;
  }

  // Returns the potentials of a tile, (rows, wide): in `kept`, or else computed into `scratch`.
  const Real* potentials(Index dendrite, const Tile& tile, Real* scratch) const {
    if (kept) {
      scratch = kept + first_row(dendrite, tile) * s.wide;
      if (filled) return scratch;
    }
    compute_potentials(tile, buffer + window_offset(dendrite, tile),
                       weight + dendrite * s.inputs() * s.wide, scratch);
    return scratch;
  }

  // Multiplies the windows of a tile, (rows, K), by a dendrite's weights, (K, wide).
  void compute_potentials(const Tile& tile, const Real* windows, const Real* dendrite_weight,
                          Real* result) const {
    const Index line = s.steps * s.channels;
    for_each_register_block<Real>(
        tile.height, s.wide, [&](auto rows, auto vectors, Index row, Index first) {
          for (Index sample = 0; sample < tile.samples; ++sample)
            potentials_block<Real, rows.value, vectors.value>(
                s, windows + (sample * s.height + row * s.row_stride) * line, dendrite_weight,
                first, result + (sample * tile.height + row) * s.wide);
        });
  }

  // Calls `copy(offset in the maps, offset in the tile)` for each U units that lie side by side in
  // both maps, (T, W', B, H', U), and tile.
  template <typename Copy>
  void for_each_position(const Tile& tile, Copy copy) const {
    const Index first = first_position(tile);
    for (Index step = 0; step < s.steps; ++step)
      for (Index row = 0; row < tile.rows(); ++row)
        copy((step * s.positions() + first + row) * s.units, row * s.wide + step * s.units);
  }

  // Calls `body(tile)` for each tile of a thread's share, which consists of whole groups of
  // samples, or with `split_columns` of their columns. Tiles are the same for any number of
  // threads.
  template <typename Body>
  void for_each_tile(Index thread, Index threads, bool split_columns, Body body) const {
    const Index height = std::min(kTileRows, s.rows), group = kTileRows / height;
    const Index groups = (s.samples + group - 1) / group, parts = split_columns ? s.columns : 1;
    const Index tasks = groups * parts, columns = s.columns / parts;
    for (Index task = tasks * thread / threads; task < tasks * (thread + 1) / threads; ++task) {
      const Index sample = task / parts * group, first = task % parts * columns;
      for (Index column = first; column < first + columns; ++column)
        for (Index start = 0; start < s.rows; start += height)
          body({column, sample, std::min(group, s.samples - sample), start,
                std::min(height, s.rows - start)});
    }
  }
};

// The functions from here on work on one dendrite's tile, (rows, wide): vector by vector, down the
// rows of each.

// Adds the rates to the sums, or writes them for the first dendrite; with `bits` also writes which
// potentials are above zero after scale and offset.
template <typename Real, bool kLinear>
void add_rates(const Real* potentials, Index rows, Index wide, const Real* scale,
               const Real* offset, bool first, Real* sums, Bits* bits, Index bit_stride) {
  for (Index n = 0; n < wide; n += kLanes<Real>) {
    const Vector<Real> scale_n = load(scale + n), offset_n = load(offset + n);
    Bits* row_bits = bits ? bits + n / kLanes<Real> : nullptr;
    for (Index i = n; i < rows * wide; i += wide) {
      const Vector<Real> scaled = load(potentials + i) * scale_n + offset_n;
      if (!kLinear && row_bits) *row_bits = positive<Real>(scaled), row_bits += bit_stride;
      const Vector<Real> rate = kLinear ? scaled : relu(scaled);
      store<Real>(sums + i, first ? rate : load(sums + i) + rate);
    }
  }
}

// Returns the gradient past the rectifier.
template <typename Real, bool kLinear>
INLINED Vector<Real> rectify_grad(Vector<Real> potential, Vector<Real> grad, Vector<Real> scale,
                                  Vector<Real> offset) {
  if constexpr (kLinear) return grad;
  return potential * scale + offset > 0 ? grad : Vector<Real>{};
}

// Adds the sums over rows of the gradient past the rectifier, and of it times the potential, to
// (2, wide).
template <typename Real, bool kLinear>
void add_grad_sums(const Real* potentials, const Real* grad, Index rows, Index wide,
                   const Real* scale, const Real* offset, double* sums) {
  for (Index n = 0; n < wide; n += kLanes<Real>) {
    const Vector<Real> scale_n = load(scale + n), offset_n = load(offset + n);
    Vector<Real> passing = {}, products = {};
    for (Index i = n; i < rows * wide; i += wide) {
      const Vector<Real> potential = load(potentials + i);
      const Vector<Real> rectified =
          rectify_grad<Real, kLinear>(potential, load(grad + i), scale_n, offset_n);
      passing += rectified;
      products += rectified * potential;
    }
    for (Index lane = 0; lane < kLanes<Real>; ++lane) {
      sums[n + lane] += passing[lane];
      sums[wide + n + lane] += products[lane];
    }
  }
}

// Writes the gradient where a bit is set, or everywhere if there are no bits, and zero elsewhere,
// and adds its sums over rows to (wide,).
template <typename Real>
void mask_grad(const Bits* bits, Index bit_stride, const Real* grad, Index rows, Index wide,
               Real* result, double* sums) {
  for (Index n = 0; n < wide; n += kLanes<Real>) {
    const Bits* row_bits = bits ? bits + n / kLanes<Real> : nullptr;
    Vector<Real> total = {};
    for (Index i = n; i < rows * wide; i += wide) {
      Vector<Real> passing = load(grad + i);
      if (row_bits) passing = masked<Real>(*row_bits, passing), row_bits += bit_stride;
      total += passing;
      store<Real>(result + i, passing);
    }
    for (Index lane = 0; lane < kLanes<Real>; ++lane) sums[n + lane] += total[lane];
  }
}

// Writes the gradients of the potentials where a norm differentiates their statistics too, scale *
// gradient past the rectifier + slope * potential + intercept, and adds their sums over rows to
// (wide,).
template <typename Real, bool kLinear>
void norm_grad(const Real* potentials, const Real* grad, Index rows, Index wide, const Real* scale,
               const Real* offset, const Real* slope, const Real* intercept, Real* result,
               double* sums) {
  for (Index n = 0; n < wide; n += kLanes<Real>) {
    const Vector<Real> scale_n = load(scale + n), offset_n = load(offset + n);
    const Vector<Real> slope_n = load(slope + n), intercept_n = load(intercept + n);
    Vector<Real> total = {};
    for (Index i = n; i < rows * wide; i += wide) {
      const Vector<Real> potential = load(potentials + i);
      const Vector<Real> grad_potential =
          scale_n * rectify_grad<Real, kLinear>(potential, load(grad + i), scale_n, offset_n) +
          (slope_n * potential + intercept_n);
      total += grad_potential;
      store<Real>(result + i, grad_potential);
    }
    for (Index lane = 0; lane < kLanes<Real>; ++lane) sums[n + lane] += total[lane];
  }
}

// Sums the rates of all dendrites, (T, W', B, H', U).
template <typename Real>
void sum_rates(const Layer<Real>& layer, const Stage<Real>& stage, Real* total, int threads) {
  const Sizes& s = layer.s;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    std::vector<Real> scratch(kTileRows * s.wide), sums(kTileRows * s.wide);
    layer.for_each_tile(thread, threads, true, [&](const Tile& tile) {
      for (Index dendrite = 0; dendrite < s.dendrites; ++dendrite) {
        const Real* potentials = layer.potentials(dendrite, tile, scratch.data());
        const Real* scale = stage.scale + dendrite * s.wide;
        const Real* offset = stage.offset + dendrite * s.wide;
        const auto add = stage.linear ? add_rates<Real, true> : add_rates<Real, false>;
        add(potentials, tile.rows(), s.wide, scale, offset, dendrite == 0, sums.data(),
            layer.bits_of(dendrite, tile), layer.bit_stride());
      }
      layer.for_each_position(tile, [&](Index in_maps, Index in_tile) {
        copy_units(total + in_maps, sums.data() + in_tile, s.units);
      });
    });
  }
}

// Sums the threads' arrays in the order of the threads.
inline void sum_threads(const std::vector<std::vector<double>>& partial, double* result) {
  std::fill_n(result, partial[0].size(), 0.0);
  for (const auto& array : partial)
    for (std::size_t i = 0; i < array.size(); ++i) result[i] += array[i];
}

// Adds the sums over a tile's rows of the deviations from a pivot, and of their squares, to (wide,)
// each.
template <typename Real>
void add_deviations(const Real* potentials, Index rows, Index wide, const Real* pivot, Real* sum,
                    Real* squared) {
  for (Index n = 0; n < wide; n += kLanes<Real>) {
    const Vector<Real> pivot_n = load(pivot + n);
    Vector<Real> sum_n = load(sum + n), squared_n = load(squared + n);
    for (Index i = n; i < rows * wide; i += wide) {
      const Vector<Real> deviation = load(potentials + i) - pivot_n;
      sum_n += deviation;
      squared_n += deviation * deviation;
    }
    store<Real>(sum + n, sum_n);
    store<Real>(squared + n, squared_n);
  }
}

// Computes mean and biased variance of the potentials over positions, (D, wide). The pivots are the
// means of a thread's first tile.
template <typename Real>
void statistics(const Layer<Real>& layer, double* mean, double* variance, int threads) {
  const Sizes& s = layer.s;
  const Index size = s.dendrites * s.wide;
  std::vector<std::vector<RunningStats>> partial(threads);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    std::vector<Real> scratch(kTileRows * s.wide), pivot(size), sum(size), squared(size);
    std::vector<double> sums(size), squares(size);
    Index pending = 0, flushed = 0;  // positions in `sum` and `squared`; in `sums` and `squares`
    const auto flush = [&] {
      for (Index i = 0; i < size; ++i) sums[i] += sum[i], squares[i] += squared[i];
      std::fill(sum.begin(), sum.end(), Real(0));
      std::fill(squared.begin(), squared.end(), Real(0));
      flushed += pending, pending = 0;
    };
    layer.for_each_tile(thread, threads, true, [&](const Tile& tile) {
      for (Index dendrite = 0; dendrite < s.dendrites; ++dendrite) {
        const Real* potentials = layer.potentials(dendrite, tile, scratch.data());
        const Index first = dendrite * s.wide;
        if (flushed + pending == 0)
          for (Index row = 0; row < tile.rows(); ++row)
            for (Index n = 0; n < s.wide; ++n)
              pivot[first + n] += potentials[row * s.wide + n] / Real(tile.rows());
        add_deviations(potentials, tile.rows(), s.wide, &pivot[first], &sum[first],
                       &squared[first]);
      }
      if ((pending += tile.rows()) >= kFlushPositions) flush();
    });
    flush();
    for (Index i = 0; flushed && i < size; ++i)
      partial[thread].emplace_back(pivot[i], sums[i], squares[i], flushed);
  }
  for (Index i = 0; i < size; ++i) {
    RunningStats total;
    for (const auto& stats : partial)
      if (!stats.empty()) total.merge(stats[i]);
    mean[i] = total.mean;
    variance[i] = total.squares / double(total.count);
  }
}

// Adds the upper triangle of x^T x, for x of (rows, deep), to products, (K, deep): as BLAS's syrk.
// A block of rows starts at the vector that holds the diagonal of its first.
inline void syrk_upper(const double* x, Index rows, Index inputs, Index deep, double* products) {
  constexpr Index lanes = kLanes<double>;
  for_each_block<kBlockRows<float>>(inputs, [&](Index k, auto size) {
    constexpr int M = size.value;
    for (Index first = k / lanes * lanes; first < inputs; first += kBlockVectors * lanes) {
      const Index vectors =
          (std::min(inputs, first + kBlockVectors * lanes) - first + lanes - 1) / lanes;
      dispatch_vectors(vectors, [&](auto vector_count) {
        constexpr int V = vector_count.value;
        double* out = products + k * deep + first;
        Vector<double> acc[M][V];
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
          for (int v = 0; v < V; ++v) acc[m][v] = load(out + m * deep + v * lanes);
        for (Index row = 0; row < rows; ++row) {
          const double* x_row = x + row * deep;
          Vector<double> y[V];
#pragma GCC unroll 8
          for (int v = 0; v < V; ++v) y[v] = load(x_row + first + v * lanes);
#pragma GCC unroll 8
          for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) acc[m][v] += x_row[k + m] * y[v];
        }
        store_block<double>(acc, out, deep);
      });
    }
  });
}

// Sums over all positions the gradient past the rectifier, and it times the potential, (D, 2,
// wide).
template <typename Real>
void grad_sums(const Layer<Real>& layer, const Stage<Real>& stage, const Real* grad, double* result,
               int threads) {
  const Sizes& s = layer.s;
  std::vector<std::vector<double>> partial(threads);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    partial[thread].assign(s.dendrites * 2 * s.wide, 0.0);
    std::vector<Real> scratch(kTileRows * s.wide), grad_tile(kTileRows * s.wide);
    layer.for_each_tile(thread, threads, true, [&](const Tile& tile) {
      layer.for_each_position(tile, [&](Index in_maps, Index in_tile) {
        copy_units(grad_tile.data() + in_tile, grad + in_maps, s.units);
      });
      for (Index dendrite = 0; dendrite < s.dendrites; ++dendrite) {
        const Real* potentials = layer.potentials(dendrite, tile, scratch.data());
        const Real* scale = stage.scale + dendrite * s.wide;
        const Real* offset = stage.offset + dendrite * s.wide;
        const auto add = stage.linear ? add_grad_sums<Real, true> : add_grad_sums<Real, false>;
        add(potentials, grad_tile.data(), tile.rows(), s.wide, scale, offset,
            partial[thread].data() + dendrite * 2 * s.wide);
      }
    });
  }
  sum_threads(partial, result);
}

// Adds the products of M inputs and V vectors of gradients, summed over a tile's rows, to
// result[m][n], whose rows lie `wide` numbers apart.
template <typename Real, int M, int V>
INLINED void weight_grad_block(const Sizes& s, const Tile& tile, const Real* windows,
                               const Real* grad, Real* result) {
  const Index line = s.steps * s.channels;
  Vector<Real> acc[M][V];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) acc[m][v] = load(result + m * s.wide + v * kLanes<Real>);
  for (Index sample = 0; sample < tile.samples; ++sample) {
    const Real* x = windows + sample * s.height * line;
    const Real* grad_rows = grad + sample * tile.height * s.wide;
    for (Index row = 0; row < tile.height; ++row) {
      Vector<Real> y[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) y[v] = load(grad_rows + row * s.wide + v * kLanes<Real>);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) acc[m][v] += x[row * s.row_stride * line + m] * y[v];
    }
  }
  store_block<Real>(acc, result, s.wide);
}

// Adds a tile's share to the gradient of a dendrite's weights, (K, wide). Vectors of outputs before
// the step of a block's first input are skipped: their weights are zero.
template <typename Real>
void add_weight_grad(const Sizes& s, const Tile& tile, const Real* windows, const Real* grad,
                     Real* result) {
  const Index line = s.steps * s.channels;
  for (Index first = 0; first < s.wide; first += kBlockVectors * kLanes<Real>)
    for_each_block<kBlockRows<Real>>(s.inputs(), [&](Index k, auto size) {
      const Index in_line = k % line;
      const Index step = in_line + size.value > line ? 0 : in_line / s.channels;
      const Index skipped = std::max<Index>(0, step * s.units - first) / kLanes<Real>;
      const Index vectors =
          std::min<Index>(kBlockVectors, (s.wide - first) / kLanes<Real>) - skipped;
      const Index output = first + skipped * kLanes<Real>;
      if (vectors > 0)
        dispatch_vectors(vectors, [&](auto vector_count) {
          weight_grad_block<Real, size.value, vector_count.value>(
              s, tile, windows + k, grad + output, result + k * s.wide + output);
        });
    });
}

// Does what `scatter_lines` does for lines shorter than a vector: it packs the tile's lines one
// after another and adds them as one array.
template <typename Real>
void scatter_short_lines(const Sizes& s, const Tile& tile, const Real* grad_windows, Real* packed,
                         Real* grad_buffer) {
  const Index line = s.steps * s.channels;
  for (Index sample = 0; sample < tile.samples; ++sample)
    for (Index branch = 0; branch < s.branches; ++branch) {
      const Real* in = grad_windows + sample * tile.height * s.deep + branch * line;
      // Whole vectors are copied; the next line overwrites what they hold beyond their line.
      for (Index row = 0; row < tile.height; ++row)
        store<Real>(packed + row * line, load(in + row * s.deep));
      Real* out = grad_buffer + (sample * s.height + branch) * line;
#pragma omp simd
      for (Index k = 0; k < tile.height * line; ++k) out[k] += packed[k];
    }
}

// Adds the gradients of a tile's windows, (rows, deep), to that of the buffer. Windows overlap, and
// a number that was just written is slow to read again: so the lines of one branch, which do not
// overlap, are added one after another before those of the next.
template <typename Real>
void scatter_lines(const Sizes& s, const Tile& tile, const Real* grad_windows, Real* packed,
                   Real* grad_buffer) {
  const Index line = s.steps * s.channels;
  if (line <= kLanes<Real> && s.row_stride == 1)
    return scatter_short_lines(s, tile, grad_windows, packed, grad_buffer);
  for (Index sample = 0; sample < tile.samples; ++sample)
    for (Index branch = 0; branch < s.branches; ++branch)
      for (Index row = 0; row < tile.height; ++row) {
        Real* out = grad_buffer + (sample * s.height + row * s.row_stride + branch) * line;
        const Real* in = grad_windows + (sample * tile.height + row) * s.deep + branch * line;
#pragma omp simd
        for (Index k = 0; k < line; ++k) out[k] += in[k];
      }
}

// Multiplies rows of `inputs` numbers, which lie `stride` apart, by weights (inputs, deep), and
// adds the constants (deep,) unless they are null: (rows, deep).
template <typename Real>
void multiply_rows(const Real* x, Index rows, Index stride, const Real* weight, Index inputs,
                   Index deep, const Real* constants, Real* result) {
  for_each_register_block<Real>(rows, deep, [&](auto size, auto vectors, Index row, Index first) {
    constexpr int P = size.value, V = vectors.value;
    Vector<Real> acc[P][V];
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v)
        acc[p][v] = constants ? load(constants + first + v * kLanes<Real>) : Vector<Real>{};
    multiply<Real, P, V, 0>(acc, x + row * stride, stride, weight + first, deep, 0, inputs);
    store_block<Real>(acc, result + row * deep + first, deep);
  });
}

// Computes the gradients of weights, (D, K, wide), and of the buffer, each unless it is null, and
// the potentials' gradients summed over positions, (D, wide), from the gradient of the total.
//
// Without a slope a potential's gradient is the total's where its bit is set. Its scale is left
// out: the transposed weights, (D, T * U, deep), contain it, and the caller applies it to the
// gradient of the weights. With a slope, (D, wide), potentials are read again, and their gradient
// is scale * gradient past the rectifier + slope * potential + intercept.
template <typename Real>
void backward(const Layer<Real>& layer, const Stage<Real>& stage, const Real* grad,
              const Real* slope, const Real* intercept, const Real* transposed, double* grad_weight,
              Real* grad_buffer, double* grad_offset, int threads) {
  const Sizes& s = layer.s;
  const Index size = s.inputs() * s.wide;
  std::vector<std::vector<double>> weight_sums(threads), offset_sums(threads);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; ++thread) {
    if (grad_weight) weight_sums[thread].assign(s.dendrites * size, 0.0);
    offset_sums[thread].assign(s.dendrites * s.wide, 0.0);
    std::vector<Real> scratch(kTileRows * s.wide), grad_tile(kTileRows * s.wide);
    std::vector<Real> grad_potential(kTileRows * s.wide),
        grad_windows(kTileRows * s.deep + kLanes<Real>), packed((kTileRows + 1) * kLanes<Real>);
    std::vector<Real> products(grad_weight ? s.dendrites * size : 0);
    Index pending = 0;  // positions in `products`
    const auto flush = [&] {
      for (std::size_t i = 0; i < products.size(); ++i) weight_sums[thread][i] += products[i];
      std::fill(products.begin(), products.end(), Real(0));
      pending = 0;
    };
    // Columns are not split between threads, since the windows of neighbouring columns overlap.
    layer.for_each_tile(thread, threads, false, [&](const Tile& tile) {
      layer.for_each_position(tile, [&](Index in_maps, Index in_tile) {
        copy_units(grad_tile.data() + in_tile, grad + in_maps, s.units);
      });
      for (Index dendrite = 0; dendrite < s.dendrites; ++dendrite) {
        double* sums = offset_sums[thread].data() + dendrite * s.wide;
        if (slope) {
          const Real* potentials = layer.potentials(dendrite, tile, scratch.data());
          const Index first = dendrite * s.wide;
          const auto write_grad = stage.linear ? norm_grad<Real, true> : norm_grad<Real, false>;
          write_grad(potentials, grad_tile.data(), tile.rows(), s.wide, stage.scale + first,
                     stage.offset + first, slope + first, intercept + first, grad_potential.data(),
                     sums);
        } else {
          mask_grad(layer.bits_of(dendrite, tile), layer.bit_stride(), grad_tile.data(),
                    tile.rows(), s.wide, grad_potential.data(), sums);
        }
        const Index offset = layer.window_offset(dendrite, tile);
        if (grad_weight)
          add_weight_grad(s, tile, layer.buffer + offset, grad_potential.data(),
                          products.data() + dendrite * size);
        if (!grad_buffer) continue;
        multiply_rows<Real>(grad_potential.data(), tile.rows(), s.wide,
                            transposed + dendrite * s.outputs() * s.deep, s.outputs(), s.deep,
                            nullptr, grad_windows.data());
        scatter_lines(s, tile, grad_windows.data(), packed.data(), grad_buffer + offset);
      }
      if (grad_weight && (pending += tile.rows()) >= kFlushPositions) flush();
    });
    if (grad_weight) flush();
  }
  if (grad_weight) sum_threads(weight_sums, grad_weight);
  sum_threads(offset_sums, grad_offset);
}

// Calls `body(rows, offset of their first window)` for the windows of one column of the buffer,
// some rows at a time. All dendrites that read the column read the same windows.
template <typename Real, typename Body>
INLINED void for_each_window(const Layer<Real>& layer, Index column, Body body) {
  const Sizes& s = layer.s;
  const Index line = s.steps * s.channels;
  for (Index sample = 0; sample < s.samples; ++sample)
    for (Index row = 0; row < s.rows; row += kTileRows)
      body(std::min(kTileRows, s.rows - row),
           ((column * s.samples + sample) * s.height + row * s.row_stride) * line);
}

// Computes moments of the windows of each column of the buffer, less a pivot, (K,): their sum,
// (columns, K), and the sum of their outer products, (columns, K, deep), of which only the upper
// triangle is valid.
template <typename Real>
void moments(const Layer<Real>& layer, Index columns, const double* pivot, double* sum,
             double* products, int threads) {
  const Sizes& s = layer.s;
  const Index inputs = s.inputs(), stride = s.row_stride * s.steps * s.channels;
#pragma omp parallel num_threads(threads)
  {
    std::vector<double> centred(kTileRows * s.deep);
#pragma omp for schedule(static)
    for (Index column = 0; column < columns; ++column) {
      double* column_sum = sum + column * inputs;
      double* column_products = products + column * inputs * s.deep;
      std::fill_n(column_sum, inputs, 0.0);
      std::fill_n(column_products, inputs * s.deep, 0.0);
      for_each_window(layer, column, [&](Index rows, Index offset) {
        for (Index row = 0; row < rows; ++row) {
          const Real* x = layer.buffer + offset + row * stride;
          double* out = centred.data() + row * s.deep;
#pragma omp simd
          for (Index k = 0; k < inputs; ++k) {
            out[k] = double(x[k]) - pivot[k];
            column_sum[k] += out[k];
          }
        }
        syrk_upper(centred.data(), rows, inputs, s.deep, column_products);
      });
    }
  }
}

// Adds the gradient through the statistics of a norm to that of the buffer: the windows of each
// column times slope, (columns, K, deep), plus intercept, (columns, deep).
template <typename Real>
void add_statistics_grad(const Layer<Real>& layer, Index columns, const Real* slope,
                         const Real* intercept, Real* grad_buffer, int threads) {
  const Sizes& s = layer.s;
  const Index inputs = s.inputs(), stride = s.row_stride * s.steps * s.channels;
#pragma omp parallel num_threads(threads)
  {
    std::vector<Real> grad_windows(kTileRows * s.deep + kLanes<Real>),
        packed((kTileRows + 1) * kLanes<Real>);
#pragma omp for schedule(static)
    for (Index column = 0; column < columns; ++column)
      for_each_window(layer, column, [&](Index rows, Index offset) {
        multiply_rows<Real>(layer.buffer + offset, rows, stride, slope + column * inputs * s.deep,
                            inputs, s.deep, intercept + column * s.deep, grad_windows.data());
        scatter_lines<Real>(s, {column, 0, 1, 0, rows}, grad_windows.data(), packed.data(),
                            grad_buffer + offset);
      });
  }
}

}  // namespace

// The first arguments of all passes.
#define OPERANDS(Real)                                                                         \
  const Sizes *sizes, const Real *buffer, const Index *pieces, const Real *weight, Real *kept, \
      Index filled, Bits *bits
#define STAGE(Real) const Real *scale, const Real *offset, Index linear
#define LAYER {*sizes, buffer, pieces, weight, kept, filled != 0, bits}

#define NEUROCONV_IMAGE(Real, name)                                                                \
  extern "C" void image_sum_##name(OPERANDS(Real), STAGE(Real), Real* total, Index threads) {      \
    sum_rates<Real>(LAYER, {scale, offset, linear != 0}, total, threads);                          \
  }                                                                                                \
  extern "C" void image_statistics_##name(OPERANDS(Real), double* mean, double* variance,          \
                                          Index threads) {                                         \
    statistics<Real>(LAYER, mean, variance, threads);                                              \
  }                                                                                                \
  extern "C" void image_moments_##name(OPERANDS(Real), Index columns, const double* pivot,         \
                                       double* sum, double* products, Index threads) {             \
    moments<Real>(LAYER, columns, pivot, sum, products, threads);                                  \
  }                                                                                                \
  extern "C" void image_mend_##name(OPERANDS(Real), Index columns, const Real* slope,              \
                                    const Real* intercept, Real* grad_buffer, Index threads) {     \
    add_statistics_grad<Real>(LAYER, columns, slope, intercept, grad_buffer, threads);             \
  }                                                                                                \
  extern "C" void image_sums_##name(OPERANDS(Real), STAGE(Real), const Real* grad, double* result, \
                                    Index threads) {                                               \
    grad_sums<Real>(LAYER, {scale, offset, linear != 0}, grad, result, threads);                   \
  }                                                                                                \
  extern "C" void image_back_##name(OPERANDS(Real), STAGE(Real), const Real* grad,                 \
                                    const Real* slope, const Real* intercept,                      \
                                    const Real* transposed, double* grad_weight,                   \
                                    Real* grad_buffer, double* grad_offset, Index threads) {       \
    backward<Real>(LAYER, {scale, offset, linear != 0}, grad, slope, intercept, transposed,        \
                   grad_weight, grad_buffer, grad_offset, threads);                                \
  }

NEUROCONV_IMAGE(float, float32)
NEUROCONV_IMAGE(double, float64)
