// The dendrites of an image layer that read one channel each: a dendrite's potentials are a small
// correlation of one map, over time and rows, so that no product meets a zero. The maps are laid
// out in planes with the samples innermost: the rows of a column, of all samples of a block, lie
// one after another, and a branch reads the same run of numbers as the outputs, shifted by rows.
//
// Potentials are computed in registers wherever a pass needs them, and never written to memory.
// Products with future steps are skipped. All sums are taken in an order that does not depend on
// the number of threads.
//
// Shapes: B samples, C channels, T steps, H x W positions; U units, D dendrites, K_T taps and K_H
// branches of each; H' x W' output positions. A pair is a unit and a dendrite.

#include <algorithm>
#include <vector>

#include "blocks.h"

namespace {

constexpr Index kChunk = 256;      // numbers of a run that are processed at once
constexpr Index kFlushChunks = 8;  // whose sums are kept in Real before they become doubles
constexpr int kRunVectors = 8;     // vectors of a run that are computed at once
constexpr int kBranches = 4;       // most branches whose taps' gradients are summed at once

// The sizes that `neuroconv.kernels.native.claw` passes, in its order.
struct Sizes {
  Index units, taps, branches, dendrites;            // U, K_T, K_H, D
  Index row_stride, stride, row_dilation, dilation;  // along H and W
  Index rows, columns;                               // H', W'
  Index pairs() const { return units * dendrites; }
};

// Maps in blocks of samples, (blocks, channels, steps, columns, phases, plane), of which Python
// passes the sizes: with a stride along the rows the rows of each phase lie together. A plane holds
// (rows, samples of the block), and room for whole vectors from any row on.
struct Planes {
  Index samples, block;  // of all maps, and of a block; the last may have fewer
  Index channels, steps, columns, phases, rows, plane;
  Index top, left, height, width;  // the maps' place in the planes

  Index blocks() const { return (samples + block - 1) / block; }
  Index samples_of(Index index) const { return std::min(block, samples - index * block); }
  Index column() const { return phases * plane; }
  Index step() const { return columns * column(); }
  Index channel() const { return steps * step(); }
  Index offset(Index block_index, Index channel_index) const {
    return (block_index * channels + channel_index) * channel();
  }
};

// Writes out[column * out_stride + row] = in[row * in_stride + column].
template <typename Real>
void transpose_matrix(const Real* in, Index in_stride, Index rows, Index columns, Real* out,
                      Index out_stride) {
  constexpr Index lanes = kLanes<Real>;
  for (Index row = 0; row < rows; row += lanes)
    for (Index column = 0; column < columns; column += lanes) {
      const Real* from = in + row * in_stride + column;
      Real* to = out + column * out_stride + row;
      if (row + lanes <= rows && column + lanes <= columns) {
        Vector<Real> square[lanes];
#pragma GCC unroll 16
        for (Index i = 0; i < lanes; ++i) square[i] = load(from + i * in_stride);
        transpose<1>(square);
#pragma GCC unroll 16
        for (Index i = 0; i < lanes; ++i) store(to + i * out_stride, square[i]);
      } else {
        for (Index j = 0; j < std::min(lanes, columns - column); ++j)
          for (Index i = 0; i < std::min(lanes, rows - row); ++i)
            to[j * out_stride + i] = from[i * in_stride + j];
      }
    }
}

// Copies maps, whose channels or columns are innermost, to planes with zeros around them, or back.
template <typename Real>
void lay_out(const Planes& p, Real* maps, const Index* strides, Real* planes, bool back,
             int threads) {
  const Index sample_stride = strides[0], channel_stride = strides[1], column_stride = strides[4];
  const bool along_columns = channel_stride != 1;
  const Index first = std::max<Index>(0, -p.left);
  const Index width = std::min(p.width, p.columns - p.left) - first;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (Index task = 0; task < p.blocks() * p.steps; ++task) {
    const Index block = task / p.steps, step = task % p.steps, samples = p.samples_of(block);
    const auto copy = [&](Index channel, Index column, Index height, Index count, Index stride) {
      const Index row = (height + p.top) / p.phases, phase = (height + p.top) % p.phases;
      if (row >= p.rows) return;
      Real* map = maps + block * p.block * sample_stride + channel * channel_stride +
                  step * strides[2] + height * strides[3] + column * column_stride;
      Real* plane = planes + p.offset(block, channel) + step * p.step() +
                    (column + p.left) * p.column() + phase * p.plane + row * samples;
      if (back) transpose_matrix(plane, stride, count, samples, map, sample_stride);
      else transpose_matrix(map, sample_stride, samples, count, plane, stride);
    };
    for (Index channel = 0; channel < p.channels; ++channel) {
      if (!back)
        std::fill_n(planes + p.offset(block, channel) + step * p.step(), p.step(), Real(0));
      for (Index height = 0; along_columns && height < p.height; ++height)
        copy(channel, first, height, width, p.column());
    }
    for (Index column = first; !along_columns && column < first + width; ++column)
      for (Index height = 0; height < p.height; ++height)
        copy(0, column, height, p.channels, p.channel());
  }
}

// The operands, and the loops that all passes share.
template <typename Real>
struct Claw {
  const Sizes& s;
  const Planes &in, &out;  // inputs and outputs
  const Index* channels;   // (U, D)
  const Real* weight;      // (U, K_T, K_H, D)
  const Real* planes;      // the inputs

  // One pair in one block: its taps (K_H, K_T), the newest first, and what its branches read.
  struct Reader {
    std::vector<Real> taps;
    std::vector<Index> shifts;  // from an output's number in its run to that of each branch
    Index first;                // offset of the first column
  };

  Reader reader(Index block, Index unit, Index dendrite) const {
    Reader result{std::vector<Real>(s.branches * s.taps), std::vector<Index>(s.branches),
                  in.offset(block, channels[unit * s.dendrites + dendrite]) +
                      dendrite * s.dilation * in.column()};
    for (Index branch = 0; branch < s.branches; ++branch) {
      const Index row = branch * s.row_dilation;
      result.shifts[branch] =
          row % s.row_stride * in.plane + row / s.row_stride * in.samples_of(block);
      for (Index lag = 0; lag < s.taps; ++lag)
        result.taps[branch * s.taps + lag] = weight[tap(unit, dendrite, branch, lag)];
    }
    return result;
  }

  Index tap(Index unit, Index dendrite, Index branch, Index lag) const {
    return ((unit * s.taps + s.taps - 1 - lag) * s.branches + branch) * s.dendrites + dendrite;
  }

  // Calls `body(offset of a column in the planes, relative to the first; offset in a unit's output
  // planes; size)` for each chunk of the runs of a block.
  template <typename Body>
  INLINED void for_each_chunk(Index block, Body body) const {
    const Index run = s.rows * in.samples_of(block);
    for (Index column = 0; column < s.columns; ++column)
      for (Index start = 0; start < run; start += kChunk)
        body(column * s.stride * in.column() + start, column * out.plane + start,
             std::min(kChunk, run - start));
  }

  // Calls `body(step, number, potentials)` for each vector of a chunk.
  template <typename Body>
  INLINED void for_each_potential(const Reader& reader, Index chunk, Index size, Body body) const {
    const Real* x = planes + reader.first + chunk;
    for (Index step = 0; step < in.steps; ++step)
      for_each_block<kRunVectors>(vectors(size), [&](Index first, auto count) {
        constexpr int V = count.value;
        Vector<Real> acc[V] = {};
        for (Index lag = 0; lag < std::min(s.taps, step + 1); ++lag)
          for (Index branch = 0; branch < s.branches; ++branch) {
            const Real tap = reader.taps[branch * s.taps + lag];
            const Real* run =
                x + (step - lag) * in.step() + reader.shifts[branch] + first * kLanes<Real>;
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) acc[v] += tap * load(run + v * kLanes<Real>);
          }
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) body(step, (first + v) * kLanes<Real>, acc[v]);
      });
  }

  static Index vectors(Index size) { return (size + kLanes<Real> - 1) / kLanes<Real>; }
};

// Returns the values of numbers below `size`, and zero for others of the vector from `n` on.
template <typename Real>
INLINED Vector<Real> within(Index n, Index size, Vector<Real> values) {
  return n + kLanes<Real> > size ? masked<Real>(Bits((1u << (size - n)) - 1), values) : values;
}

// The function of potentials that is summed, rectified unless linear.
template <typename Real>
struct Stage {
  const Real* scale;   // (D, U)
  const Real* offset;  // (D, U)
  bool linear;

  // Returns the gradient past the rectifier of the numbers that `index` scales.
  INLINED Vector<Real> rectify_grad(Vector<Real> potential, Vector<Real> grad, Real scale_index,
                                    Real offset_index) const {
    if (linear) return grad;
    return potential * scale_index + offset_index > 0 ? grad : Vector<Real>{};
  }
};

// Sums the rates of all dendrites to planes of outputs.
template <typename Real>
void sum_rates(const Claw<Real>& claw, const Stage<Real>& stage, Real* total, int threads) {
  const Sizes& s = claw.s;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (Index task = 0; task < claw.in.blocks() * s.units; ++task) {
    const Index block = task / s.units, unit = task % s.units;
    Real* sums = total + claw.out.offset(block, unit);
    for (Index dendrite = 0; dendrite < s.dendrites; ++dendrite) {
      const auto reader = claw.reader(block, unit, dendrite);
      const Real scale = stage.scale[dendrite * s.units + unit];
      const Real offset = stage.offset[dendrite * s.units + unit];
      claw.for_each_chunk(block, [&](Index chunk, Index start, Index size) {
        claw.for_each_potential(reader, chunk, size, [&](Index step, Index n, auto potential) {
          const Vector<Real> scaled = potential * scale + offset;
          const Vector<Real> rate = stage.linear ? scaled : relu(scaled);
          Real* out = sums + step * claw.out.step() + start + n;
          store<Real>(out, dendrite ? load(out) + rate : rate);
        });
      });
    }
  }
}

// Sums over samples, positions and steps, (2, D, U), the gradient past the rectifier, and it times
// the potential, from planes of the total's gradient, whose numbers beyond a run are zero. Without
// a gradient the sums are those of the potentials' deviations from the offset, and of their
// squares.
template <typename Real>
void sum_pairs(const Claw<Real>& claw, const Stage<Real>& stage, const Real* grad, double* result,
               int threads) {
  const Sizes& s = claw.s;
  std::vector<double> partial(claw.in.blocks() * s.pairs() * 2);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (Index task = 0; task < claw.in.blocks() * s.pairs(); ++task) {
    const Index block = task / s.pairs(), pair = task % s.pairs();
    const Index unit = pair / s.dendrites, dendrite = pair % s.dendrites;
    const auto reader = claw.reader(block, unit, dendrite);
    const Real scale = stage.scale[dendrite * s.units + unit];
    const Real offset = stage.offset[dendrite * s.units + unit];
    const Real* grads = grad + (grad ? claw.out.offset(block, unit) : 0);
    claw.for_each_chunk(block, [&](Index chunk, Index start, Index size) {
      Vector<Real> first = {}, second = {};
      claw.for_each_potential(reader, chunk, size, [&](Index step, Index n, auto potential) {
        Vector<Real> value;
        if (grad) {
          const Vector<Real> grad_n = load(grads + step * claw.out.step() + start + n);
          value = stage.rectify_grad(potential, grad_n, scale, offset);
          second += value * potential;
        } else {
          value = within<Real>(n, size, potential - offset);
          second += value * value;
        }
        first += value;
      });
      partial[2 * task] += sum_lanes<Real>(first);
      partial[2 * task + 1] += sum_lanes<Real>(second);
    });
  }
  std::fill_n(result, 2 * s.pairs(), 0.0);
  for (Index task = 0; task < claw.in.blocks() * s.pairs(); ++task) {
    const Index pair = task % s.pairs();
    const Index index = pair % s.dendrites * s.units + pair / s.dendrites;
    result[index] += partial[2 * task];
    result[s.pairs() + index] += partial[2 * task + 1];
  }
}

// Adds a chunk's share to the sums, one vector for each tap (K_H, K_T), of the gradient of the
// potentials, (T, kChunk), times what the tap reads.
template <typename Real>
void add_tap_grads(const Claw<Real>& claw, const typename Claw<Real>::Reader& reader, Index chunk,
                   Index size, const Real* grad, std::vector<Real>& sums) {
  const Sizes& s = claw.s;
  const Real* x = claw.planes + reader.first + chunk;
  for (Index step = 0; step < claw.in.steps; ++step)
    for (Index lag = 0; lag < std::min(s.taps, step + 1); ++lag)
      for_each_block<kBranches>(s.branches, [&](Index branch, auto count) {
        constexpr int R = count.value;
        const Real* runs[R];
        Vector<Real> acc[R] = {};
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
          runs[r] = x + (step - lag) * claw.in.step() + reader.shifts[branch + r];
        for (Index n = 0; n < size; n += kLanes<Real>) {
          const Vector<Real> grad_n = load(grad + step * kChunk + n);
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) acc[r] += grad_n * load(runs[r] + n);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          Real* sum = sums.data() + ((branch + r) * s.taps + lag) * kLanes<Real>;
          store<Real>(sum, load(sum) + acc[r]);
        }
      });
}

// Adds the gradient of a chunk's potentials, (T, kChunk), times the taps to that of the inputs.
template <typename Real>
void add_input_grads(const Claw<Real>& claw, const typename Claw<Real>::Reader& reader, Index chunk,
                     Index size, const Real* grad, Real* result) {
  const Sizes& s = claw.s;
  for (Index step = 0; step < claw.in.steps; ++step)
    for (Index branch = 0; branch < s.branches; ++branch)
      for_each_block<kRunVectors>(Claw<Real>::vectors(size), [&](Index first, auto count) {
        constexpr int V = count.value;
        Real* out = result + reader.first + chunk + step * claw.in.step() + reader.shifts[branch] +
                    first * kLanes<Real>;
        Vector<Real> acc[1][V];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) acc[0][v] = load(out + v * kLanes<Real>);
        for (Index lag = 0; lag < std::min(s.taps, claw.in.steps - step); ++lag) {
          const Real tap = reader.taps[branch * s.taps + lag];
          const Real* row = grad + (step + lag) * kChunk + first * kLanes<Real>;
#pragma GCC unroll 8
          for (int v = 0; v < V; ++v) acc[0][v] += tap * load(row + v * kLanes<Real>);
        }
        store_block<Real>(acc, out, 0);
      });
}

// Computes the gradients of the weights, (U, K_T, K_H, D), and of the inputs' planes, each unless
// it is null. The gradient of a potential is scale * gradient past the rectifier + slope *
// potential + intercept, (D, U) each. A task has a channel of a block, which no other writes to.
template <typename Real>
void backward(const Claw<Real>& claw, const Stage<Real>& stage, const Real* slope,
              const Real* intercept, const Real* grad, double* grad_weight, Real* grad_planes,
              int threads) {
  const Sizes& s = claw.s;
  const Index taps = s.branches * s.taps, size = s.pairs() * taps;
  std::vector<double> partial(grad_weight ? claw.in.blocks() * size : 0);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (Index task = 0; task < claw.in.blocks() * claw.in.channels; ++task) {
    const Index block = task / claw.in.channels, channel = task % claw.in.channels;
    std::vector<Real> grad_potential(claw.in.steps * kChunk), sums(taps * kLanes<Real>);
    if (grad_planes)
      std::fill_n(grad_planes + claw.in.offset(block, channel), claw.in.channel(), Real(0));
    for (Index pair = 0; pair < s.pairs(); ++pair) {
      if (claw.channels[pair] != channel) continue;
      const Index unit = pair / s.dendrites, dendrite = pair % s.dendrites;
      const Index index = dendrite * s.units + unit;
      const auto reader = claw.reader(block, unit, dendrite);
      const Real scale = stage.scale[index], offset = stage.offset[index];
      const Real* grads = grad + claw.out.offset(block, unit);
      Index pending = 0;  // chunks in `sums`
      const auto flush = [&] {
        for (Index branch = 0; branch < s.branches; ++branch)
          for (Index lag = 0; lag < s.taps; ++lag)
            partial[block * size + claw.tap(unit, dendrite, branch, lag)] +=
                sum_lanes<Real>(load(&sums[(branch * s.taps + lag) * kLanes<Real>]));
        std::fill(sums.begin(), sums.end(), Real(0));
        pending = 0;
      };
      claw.for_each_chunk(block, [&](Index chunk, Index start, Index length) {
        claw.for_each_potential(reader, chunk, length, [&](Index step, Index n, auto potential) {
          const Vector<Real> rectified = stage.rectify_grad(
              potential, load(grads + step * claw.out.step() + start + n), scale, offset);
          store<Real>(
              &grad_potential[step * kChunk + n],
              within<Real>(n, length,
                           scale * rectified + (slope[index] * potential + intercept[index])));
        });
        if (grad_weight) {
          add_tap_grads(claw, reader, chunk, length, grad_potential.data(), sums);
          if (++pending == kFlushChunks) flush();
        }
        if (grad_planes)
          add_input_grads(claw, reader, chunk, length, grad_potential.data(), grad_planes);
      });
      if (grad_weight) flush();
    }
  }
  for (Index n = 0; grad_weight && n < size; ++n) {
    grad_weight[n] = 0;
    for (Index block = 0; block < claw.in.blocks(); ++block)
      grad_weight[n] += partial[block * size + n];
  }
}

}  // namespace

// The first arguments of all passes.
#define OPERANDS(Real)                                                            \
  const Sizes *sizes, const Planes *in, const Planes *out, const Index *channels, \
      const Real *weight, const Real *planes
#define STAGE(Real) const Real *scale, const Real *offset, Index linear
#define CLAW {*sizes, *in, *out, channels, weight, planes}

#define NEUROCONV_CLAW(Real, name)                                                                \
  extern "C" void claw_lay_out_##name(const Planes* sizes, Real* maps, const Index* strides,      \
                                      Real* planes, Index back, Index threads) {                  \
    lay_out<Real>(*sizes, maps, strides, planes, back != 0, threads);                             \
  }                                                                                               \
  extern "C" void claw_sum_##name(OPERANDS(Real), STAGE(Real), Real* total, Index threads) {      \
    sum_rates<Real>(CLAW, {scale, offset, linear != 0}, total, threads);                          \
  }                                                                                               \
  extern "C" void claw_sums_##name(OPERANDS(Real), STAGE(Real), const Real* grad, double* result, \
                                   Index threads) {                                               \
    sum_pairs<Real>(CLAW, {scale, offset, linear != 0}, grad, result, threads);                   \
  }                                                                                               \
  extern "C" void claw_back_##name(OPERANDS(Real), STAGE(Real), const Real* slope,                \
                                   const Real* intercept, const Real* grad, double* grad_weight,  \
                                   Real* grad_planes, Index threads) {                            \
    backward<Real>(CLAW, {scale, offset, linear != 0}, slope, intercept, grad, grad_weight,       \
                   grad_planes, threads);                                                         \
  }

NEUROCONV_CLAW(float, float32)
NEUROCONV_CLAW(double, float64)
