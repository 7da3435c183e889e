// Small dendritic trees, each neuron with its own filter: from the presynaptic activity to the
// potentials of all output sites, or to the sum of their rates, and back. The inputs and outputs of
// one neuron stay in the cache for a block of samples at a time; samples are contiguous and fill
// the vectors.
//
// Shapes: N neurons, T time steps, A inputs of a tree; K_T taps in time, K_P x K_D on the sheet of
// P sites and D dendrites; C output dendrites (columns) of R sites (rows), O = C * R outputs; B'
// samples, B of them valid and the others padding. A neuron's taps are packed into (K_T, S), see
// taps.h: input a acts on row r of column c, K_T - 1 - k steps later, by
// taps[k][tap_offset[c][a] + r]. Inputs outside of first[c] <= a < last[c] have taps of zero; they
// may still be multiplied, since neighbouring columns are computed together, so infinities and NaN
// spread to the columns beside them.

#include <algorithm>
#include <type_traits>
#include <vector>

#include "blocks.h"
#include "taps.h"

namespace {

constexpr int kSites = 4, kSiteTaps = 3;  // of the granule cell's sheet and filter
constexpr int kFewRows = 4;               // most taps along the sites, and rows of their blocks
constexpr int kSampleVectors = 2;         // vectors of samples that are computed at once
constexpr int kOutputVectors = 2;         // vectors of outputs, for the gradients of the taps

// Neighbouring columns of a register block of M rows, which share each input that is loaded.
template <typename Real, int M>
constexpr int kBlockColumns = kBlockRows<Real> < 7 ? 1
                              : M <= 4             ? 3
                              : M <= 6             ? 2
                                                   : 1;

// The operands, and what both passes compute from them.
template <typename Real>
struct Trees {
  const Sizes& s;
  const Real* source;       // the activity that inputs are gathered from
  const Index* index;       // (N, A) or (A,): offset in the source of an input's first step
  const Real* weight;       // (N, synapses), or null; merged with the taps in a claw
  const Real* filters;      // (N, K_T, K_P, K_D)
  const Index* tap_offset;  // (C, A)
  const Index* first;       // (C,)
  const Index* last;        // (C,)
  const Real* bias;         // (N, C), or null

  void pack(Index neuron, Taps<Real>& taps) const {
    taps.pack(filter(neuron), weight ? weight + neuron * s.synapses : nullptr);
  }
  const Real* filter(Index neuron) const {
    return filters + neuron * s.time_taps * s.site_taps * s.dendrite_taps;
  }
  // Returns the offset of an output's bits, from the given sample on, in (N, steps, O, bit_stride).
  Index bits_offset(Index neuron, Index step, Index row, Index column, Index sample) const {
    const Index output =
        (neuron * s.out_steps() + step - s.first_step) * s.outputs() + column * s.rows + row;
    return output * bit_stride() + sample / kLanes<Real>;
  }
  Index bit_stride() const { return bits_per_row<Real>(s.samples); }
  const Real* source_of(Index neuron) const { return source + neuron * s.neuron_stride; }
  const Index* index_of(Index neuron) const { return index + neuron * s.index_stride; }

  // Gathers a neuron's inputs for V vectors of samples, (T, A, V vectors), times the weights unless
  // the taps contain these. With `prefetch` the next neuron's are fetched into the cache.
  template <int V>
  void gather(Index neuron, Index sample, Vector<Real>* gathered, bool prefetch = false) const {
    if (s.sample_stride == 1 && s.valid_samples == s.samples)
      gather_vectors<V>(neuron, sample, gathered, prefetch);
    else gather_scalars<V>(neuron, sample, reinterpret_cast<Real*>(gathered));
    if (!weight || s.claw) return;
    for (Index step = 0; step < s.steps; ++step)
      for (Index input = 0; input < s.inputs; ++input, gathered += V)
        for (int v = 0; v < V; ++v) gathered[v] *= weight[neuron * s.inputs + input];
  }

  template <int V>
  void gather_vectors(Index neuron, Index sample, Vector<Real>* gathered, bool prefetch) const {
    const Index next = std::min(neuron + 1, s.neurons - 1);
    const Index *offsets = index_of(neuron), *next_offsets = index_of(next);
    const Real *in = source_of(neuron), *next_in = source_of(next);
    for (Index step = 0; step < s.steps; ++step)
      for (Index input = 0; input < s.inputs; ++input, gathered += V) {
        const Index position = step * s.step_stride + sample;
        for (int v = 0; prefetch && v < V; ++v)
          __builtin_prefetch(next_in + next_offsets[input] + position + v * kLanes<Real>);
        for (int v = 0; v < V; ++v)
          gathered[v] = load(in + offsets[input] + position + v * kLanes<Real>);
      }
  }

  // Gathers samples that are not contiguous or that do not fill the last vector.
  template <int V>
  void gather_scalars(Index neuron, Index sample, Real* gathered) const {
    constexpr Index size = V * kLanes<Real>;
    const Index* offsets = index_of(neuron);
    const Index valid = std::min(size, s.valid_samples - sample);
    for (Index step = 0; step < s.steps; ++step)
      for (Index input = 0; input < s.inputs; ++input, gathered += size) {
        const Real* in =
            source_of(neuron) + offsets[input] + step * s.step_stride + sample * s.sample_stride;
        if (valid == size)
          for (Index n = 0; n < size; ++n) gathered[n] = in[n * s.sample_stride];
        else
          for (Index n = 0; n < size; ++n)
            gathered[n] = n < valid ? in[n * s.sample_stride] : Real(0);
      }
  }

  // Returns the most rows of a block. It is less where few taps cover a row, since all rows of a
  // block are multiplied by every site that any of them depends on.
  Index max_block_rows() const {
    return s.inputs_per_dendrite() > 1 && s.site_taps <= kFewRows
               ? std::min(kFewRows, kBlockRows<Real>)
               : kBlockRows<Real>;
  }

  // Calls `body(rows, columns, row, column)` for the register blocks that the outputs are split
  // into: the sizes, as template arguments, and the first row and column.
  template <typename Body>
  INLINED void for_each_output_block(Body body) const {
    for_each_block<kBlockRows<Real>>(
        s.rows,
        [&](Index row, auto rows) {
          for_each_block<kBlockColumns<Real, rows.value>>(
              s.columns, [&](Index column, auto columns) { body(rows, columns, row, column); });
        },
        max_block_rows());
  }

  // Calls `body(first, end)` for each range of inputs on which a block of outputs depends.
  template <typename Body>
  INLINED void for_each_input_range(Index row, Index rows, Index column, Index columns,
                                    Body body) const {
    const Index start = first[column], end = last[column + columns - 1];
    if (s.inputs_per_dendrite() == 1) return body(start, end);
    const Index site = std::max<Index>(0, row - s.before);
    const Index site_end = std::min(s.sites, row + rows - 1 - s.before + s.site_taps);
    for (Index dendrite = start; dendrite < end; dendrite += s.sites)
      body(dendrite + site, std::min(end, dendrite + site_end));
  }

  // Computes the potentials of a block of M rows and C columns at a step.
  template <int M, int C, int V>
  INLINED void potentials(const Real* taps, Index neuron, Index step, Index row, Index column,
                          const Vector<Real>* gathered, Vector<Real> (&acc)[C][M][V]) const {
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      const Real initial = bias ? bias[neuron * s.columns + column + c] : Real(0);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) acc[c][m][v] = Vector<Real>{} + initial;
    }
    if constexpr (M == kSites)
      if (!s.claw && s.sites == kSites && s.rows == kSites && s.site_taps == kSiteTaps &&
          s.inputs % kSites == 0)
        return granule_potentials<C, V>(taps, step, column, gathered, acc);
    const Index* offsets = tap_offset + column * s.inputs;
    const Index lags = std::min(step + 1, s.time_taps);
    for (Index lag = 0; lag < lags; ++lag) {
      const Real* lag_taps = taps + (s.time_taps - 1 - lag) * s.packed_size() + row;
      const Vector<Real>* in = gathered + (step - lag) * s.inputs * V;
      for_each_input_range(row, M, column, C, [&](Index input, Index end) {
        for (; input < end; ++input) {
          Vector<Real> x[V];
#pragma GCC unroll 8
          for (int v = 0; v < V; ++v) x[v] = in[input * V + v];
#pragma GCC unroll 8
          for (int c = 0; c < C; ++c) {
            const Real* w = lag_taps + offsets[c * s.inputs + input];
#pragma GCC unroll 8
            for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
              for (int v = 0; v < V; ++v) acc[c][m][v] += w[m] * x[v];
          }
        }
      });
    }
  }

  // Adds the same products on the granule cell's sheet (4 sites, 3 taps along them, mode "same"):
  // each input acts on at most three sites, and a dendrite's taps are loaded once for all of them.
  template <int C, int V>
  INLINED void granule_potentials(const Real* taps, Index step, Index column,
                                  const Vector<Real>* gathered,
                                  Vector<Real> (&acc)[C][kSites][V]) const {
    constexpr int before = (kSiteTaps - 1) / 2;
    const Index* offsets = tap_offset + column * s.inputs;
    const Index lags = std::min(step + 1, s.time_taps);
    for (Index lag = 0; lag < lags; ++lag) {
      const Real* lag_taps = taps + (s.time_taps - 1 - lag) * s.packed_size();
      const Vector<Real>* in = gathered + (step - lag) * s.inputs * V;
      for (Index input = first[column]; input < last[column + C - 1]; input += kSites) {
        Vector<Real> w[C][kSiteTaps];
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
          // Packed taps are reversed: the last tap comes first.
          const Real* reversed = lag_taps + offsets[c * s.inputs + input] - before;
#pragma GCC unroll 8
          for (int k = 0; k < kSiteTaps; ++k)
            w[c][k] = Vector<Real>{} + reversed[kSiteTaps - 1 - k];
        }
#pragma GCC unroll 8
        for (int site = 0; site < kSites; ++site)
#pragma GCC unroll 8
          for (int v = 0; v < V; ++v) {
            const Vector<Real> x = in[(input + site) * V + v];
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c)
#pragma GCC unroll 8
              for (int k = 0; k < kSiteTaps; ++k) {
                const int row = site + before - k;
                if (row >= 0 && row < kSites) acc[c][row][v] += w[c][k] * x;
              }
          }
      }
    }
  }
};

// Calls `body(vectors, sample)` for the blocks of one of `parts` nearly equal parts of the samples:
// the size in vectors, as a template argument, and the first sample.
template <typename Real, typename Body>
inline void for_each_sample_block(Index samples, Body body, Index part = 0, Index parts = 1) {
  const Index size = kSampleVectors * kLanes<Real>, blocks = (samples + size - 1) / size;
  const Index end = std::min(samples, blocks * (part + 1) / parts * size);
  Index sample = blocks * part / parts * size;
  for (; sample + kSampleVectors * kLanes<Real> <= end; sample += kSampleVectors * kLanes<Real>)
    body(Constant<kSampleVectors>(), sample);
  for (; sample < end; sample += kLanes<Real>) body(Constant<1>(), sample);
}

// Writes either the potentials, (steps, N, O, B'), or the sum of the rates times `share`, (steps,
// N, B'); and, if `passes` is not null, a bit for each potential: whether it is above zero, (N,
// steps, O, bit_stride).
template <typename Real>
void forward(const Trees<Real>& trees, bool linear, Real share, Real* potential, Real* total,
             Bits* passes, int threads) {
  const Sizes& s = trees.s;
  const Index bytes = s.out_steps() * s.neurons * s.outputs() * s.samples * sizeof(Real);
  const bool streaming = bytes > kCacheBytes;
  // If there are fewer neurons than threads, several threads share a neuron's samples.
  const Index parts = s.neurons < threads ? (threads - 1) / s.neurons + 1 : 1;
#pragma omp parallel num_threads(threads)
  {
    std::vector<Real> gathered_buffer(s.steps * s.inputs * kSampleVectors * kLanes<Real>);
    auto* gathered = reinterpret_cast<Vector<Real>*>(gathered_buffer.data());
    Taps<Real> taps(s, false);
#pragma omp for schedule(static) nowait
    for (Index task = 0; task < s.neurons * parts; ++task) {
      const Index neuron = task / parts;
      trees.pack(neuron, taps);
      const auto compute = [&](auto vectors, Index sample) {
        constexpr int V = vectors.value;
        trees.template gather<V>(neuron, sample, gathered, streaming);
        for (Index step = s.first_step; step < s.steps; ++step) {
          const Index position = (step - s.first_step) * s.total_neurons + neuron;
          Vector<Real> sum[V] = {};
          trees.for_each_output_block([&](auto rows, auto columns, Index row, Index column) {
            constexpr int M = rows.value, C = columns.value;
            Vector<Real> acc[C][M][V];
            trees.template potentials<M, C, V>(taps.packed(), neuron, step, row, column, gathered,
                                               acc);
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) {
              if (potential) {
                Real* out =
                    potential + (position * s.outputs() + (column + c) * s.rows + row) * s.samples;
                if (streaming) store_block<Real, true>(acc[c], out + sample, s.samples);
                else store_block<Real>(acc[c], out + sample, s.samples);
              } else {
                Bits* bits = passes
                                 ? passes + trees.bits_offset(neuron, step, row, column + c, sample)
                                 : nullptr;
#pragma GCC unroll 8
                for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
                  for (int v = 0; v < V; ++v) {
                    if (bits) bits[m * trees.bit_stride() + v] = positive<Real>(acc[c][m][v]);
                    sum[v] += linear ? acc[c][m][v] : relu(acc[c][m][v]);
                  }
              }
            }
          });
          if (total)
            for (int v = 0; v < V; ++v)
              store<Real>(total + position * s.samples + sample + v * kLanes<Real>, sum[v] * share);
        }
      };
      for_each_sample_block<Real>(s.samples, compute, task % parts, parts);
    }
    stream_fence();
  }
}

// The backward pass of one neuron for a block of samples, which stays in the cache.
template <typename Real, int V>
struct Backward {
  static constexpr Index kBlockSamples = V * kLanes<Real>;
  const Trees<Real>& trees;
  const Sizes& s = trees.s;
  const Real* taps;
  Index neuron, sample;
  const Vector<Real>* gathered;   // (T, A, V)
  Vector<Real>* grad_potential;   // (steps, O, V)
  Vector<Real>* grad_transposed;  // (vectors of outputs, steps, samples): outputs fill the vectors

  // Computes the potentials' gradients from that of the sum of rates: it passes where the
  // potential's bit is set, or everywhere if there are no bits.
  void load_grad_total(const Real* grad, const Bits* passes, Real share) {
    Vector<Real>* out = grad_potential;
    for (Index step = s.first_step; step < s.steps; ++step) {
      const Index position = (step - s.first_step) * s.total_neurons + neuron;
      Vector<Real> grad_rate[V];
      for (int v = 0; v < V; ++v)
        grad_rate[v] = load(grad + position * s.samples + sample + v * kLanes<Real>) * share;
      const Bits* bits = passes ? passes + trees.bits_offset(neuron, step, 0, 0, sample) : nullptr;
      for (Index output = 0; output < s.outputs(); ++output)
        for (int v = 0; v < V; ++v)
          *out++ = bits ? masked<Real>(bits[output * trees.bit_stride() + v], grad_rate[v])
                        : grad_rate[v];
    }
  }

  // Copies the potentials' gradients.
  void load_grad_potential(const Real* grad) {
    Vector<Real>* out = grad_potential;
    for (Index step = s.first_step; step < s.steps; ++step) {
      const Real* in =
          grad + ((step - s.first_step) * s.total_neurons + neuron) * s.outputs() * s.samples +
          sample;
      for (Index output = 0; output < s.outputs(); ++output)
        for (int v = 0; v < V; ++v) *out++ = load(in + output * s.samples + v * kLanes<Real>);
    }
  }

  // Adds to the gradients of the biases, (C,).
  void add_bias_grad(Real* grad_bias) const {
    for (Index step = 0; step < s.out_steps(); ++step)
      for (Index column = 0; column < s.columns; ++column) {
        Vector<Real> sum = {};
        const Vector<Real>* grad = grad_potential + (step * s.columns + column) * s.rows * V;
        for (Index n = 0; n < s.rows * V; ++n) sum += grad[n];
        grad_bias[column] += sum_lanes<Real>(sum);
      }
  }

  // Returns how many vectors the outputs of a column fill, or 0 if the vectors are filled through
  // all columns without gaps. Vectors of a single column depend on fewer inputs: this pays where a
  // column has more sites than lanes and filters cover few of them.
  static Index vectors_per_column(const Sizes& s) {
    return s.inputs_per_dendrite() > 1 && s.rows > kLanes<Real> ? (s.rows - 1) / kLanes<Real> + 1
                                                                : 0;
  }
  // Returns how many vectors all outputs fill.
  static Index output_vectors(const Sizes& s) {
    const Index per_column = vectors_per_column(s);
    return per_column ? s.columns * per_column : (s.outputs() - 1) / kLanes<Real> + 1;
  }
  // Returns the first output of a vector.
  Index first_output(Index vector) const {
    const Index per_column = vectors_per_column(s);
    return per_column ? vector / per_column * s.rows + vector % per_column * kLanes<Real>
                      : vector * kLanes<Real>;
  }
  // Returns one past the last output of `count` vectors.
  Index output_end(Index vector, Index count) const {
    const Index per_column = vectors_per_column(s);
    const Index end = first_output(vector + count - 1) + kLanes<Real>;
    return std::min(end, per_column ? (vector / per_column + 1) * s.rows : s.outputs());
  }

  // Transposes the potentials' gradients, from vectors of samples to vectors of outputs.
  void transpose_grad() {
    constexpr int lanes = kLanes<Real>;
    for (Index vector = 0; vector < output_vectors(s); ++vector) {
      const Index first = first_output(vector), valid = output_end(vector, 1) - first;
      for (Index step = 0; step < s.out_steps(); ++step) {
        const Vector<Real>* in = grad_potential + (step * s.outputs() + first) * V;
        Vector<Real>* out = grad_transposed + (vector * s.out_steps() + step) * kBlockSamples;
        for (int v = 0; v < V; ++v) {
          Vector<Real> square[lanes];
#pragma GCC unroll 16
          for (int row = 0; row < lanes; ++row)
            square[row] = row < valid ? in[row * V + v] : Vector<Real>{};
          transpose<1>(square);
#pragma GCC unroll 16
          for (int row = 0; row < lanes; ++row) out[v * lanes + row] = square[row];
        }
      }
    }
  }

  // Adds to the gradients of the packed taps, (K_T, S).
  void add_tap_grad(Real* grad_taps) {
    transpose_grad();
    for_each_block<kOutputVectors>(
        output_vectors(s),
        [&](Index vector, auto vectors) {
          const Index first = first_output(vector), end = output_end(vector, vectors.value);
          const Index column = first / s.rows, columns = (end - 1) / s.rows + 1 - column;
          // The rows that are covered; vectors of several columns count as covering all rows.
          const Index row = columns == 1 ? first % s.rows : 0;
          const Index rows = columns == 1 ? end - first : s.rows;
          trees.for_each_input_range(
              row, rows, column, columns, [&](Index first_input, Index input_end) {
                for_each_block<kBlockRows<Real>>(input_end - first_input, [&](Index input,
                                                                              auto inputs) {
                  for (Index lag = 0; lag < std::min(s.time_taps, s.steps); ++lag) {
                    constexpr int I = inputs.value, N = vectors.value;
                    Real sums[I * N * kLanes<Real>];
                    correlate<I, N>(lag, first_input + input, vector, sums);
                    scatter_to_taps<I, N>(sums, first_input + input, first, end,
                                          grad_taps + (s.time_taps - 1 - lag) * s.packed_size());
                  }
                });
              });
        },
        vectors_per_column(s) ? 1 : kOutputVectors);
  }

  // Sums input times output gradient, `lag` steps later, over steps and samples, for I inputs and N
  // vectors of outputs: (I, N vectors).
  template <int I, int N>
  INLINED void correlate(Index lag, Index input, Index vector, Real* sums) const {
    Vector<Real> acc[I][N] = {};
    const Index valid = std::min(kBlockSamples, s.valid_samples - sample);
    for (Index step = std::max(lag, s.first_step); step < s.steps; ++step) {
      const Real* x =
          reinterpret_cast<const Real*>(gathered + ((step - lag) * s.inputs + input) * V);
      const Vector<Real>* grad =
          grad_transposed + (vector * s.out_steps() + step - s.first_step) * kBlockSamples;
      for (Index n = 0; n < valid; ++n) {
        Vector<Real> y[N];
#pragma GCC unroll 8
        for (int v = 0; v < N; ++v) y[v] = grad[v * s.out_steps() * kBlockSamples + n];
#pragma GCC unroll 8
        for (int i = 0; i < I; ++i)
#pragma GCC unroll 8
          for (int v = 0; v < N; ++v) acc[i][v] += x[i * kBlockSamples + n] * y[v];
      }
    }
    store_block<Real>(acc, sums, N * kLanes<Real>);
  }

  // Adds the sums of I inputs and the outputs from `first` to before `end` to the gradients of the
  // taps that connect them.
  template <int I, int N>
  INLINED void scatter_to_taps(const Real* sums, Index input, Index first, Index end,
                               Real* grad_taps) const {
    for (Index output = first; output < end;) {
      const Index column = output / s.rows, row = output % s.rows;
      const Index rows = std::min(s.rows - row, end - output);
      for (int i = 0; i < I; ++i) {
        if (input + i < trees.first[column] || input + i >= trees.last[column]) continue;
        Real* out = grad_taps + trees.tap_offset[column * s.inputs + input + i] + row;
        const Real* in = sums + i * N * kLanes<Real> + output - first;
        if (rows == kSites) {
          Real values[kSites];  // all are read before the first is written: one vector
          for (int r = 0; r < kSites; ++r) values[r] = out[r] + in[r];
          std::copy_n(values, kSites, out);
        } else {
          for (Index r = 0; r < rows; ++r) out[r] += in[r];
        }
      }
      output += rows;
    }
  }

  // Writes the gradients of the inputs before gathering, (T, A, B'), and adds to those of the
  // weights that multiply them, (A,). Either may be null.
  void write_input_grad(Real* grad_inputs, Real* grad_weight) const {
    // Blocks do not extend over several dendrites.
    const Index run = s.inputs_per_dendrite() == 1 ? s.inputs : s.inputs_per_dendrite();
    for (Index first = 0; first < s.inputs; first += run)
      for_each_block<kBlockRows<Real>>(
          std::min(run, s.inputs - first), [&](Index site, auto inputs) {
            const Index input = first + site;
            if (s.inputs_per_dendrite() == 1)
              return input_block<inputs.value>(input, 0, s.rows, grad_inputs, grad_weight);
            // The rows on which these sites act.
            const Index row = std::max<Index>(0, site + s.before - s.site_taps + 1);
            const Index row_end = std::min(s.rows, site + inputs.value + s.before);
            input_block<inputs.value>(input, row, row_end, grad_inputs, grad_weight);
          });
  }

  // Computes the gradients of M inputs, which act on the rows of each column from `first` to before
  // `end`.
  template <int M>
  INLINED void input_block(Index input, Index first, Index end, Real* grad_inputs,
                           Real* grad_weight) const {
    for (Index step = 0; step < s.steps; ++step) {
      Vector<Real> acc[M][V] = {};
      const Index step_end = std::min(s.steps, step + s.time_taps);
      for (Index out_step = std::max(step, s.first_step); out_step < step_end; ++out_step) {
        const Real* lag_taps = taps + (s.time_taps - 1 - (out_step - step)) * s.packed_size();
        const Vector<Real>* grad = grad_potential + (out_step - s.first_step) * s.outputs() * V;
        for (Index column = 0; column < s.columns; ++column, grad += s.rows * V) {
          if (trees.last[column] <= input || trees.first[column] >= input + M) continue;
          const Index* offsets = trees.tap_offset + column * s.inputs + input;
          const Real* w[M];
#pragma GCC unroll 8
          for (int m = 0; m < M; ++m) w[m] = lag_taps + offsets[m];
          for (Index row = first; row < end; ++row) {
            Vector<Real> y[V];
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) y[v] = grad[row * V + v];
#pragma GCC unroll 8
            for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
              for (int v = 0; v < V; ++v) acc[m][v] += w[m][row] * y[v];
          }
        }
      }
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m)
        store_input_grad(acc[m], step, input + m, grad_inputs, grad_weight);
    }
  }

  // Splits the gradient of a weighted input into those of the input and of its weight. The input is
  // read again from the source: dividing the gathered value by a weight of zero would lose it.
  INLINED void store_input_grad(const Vector<Real> (&acc)[V], Index step, Index input,
                                Real* grad_inputs, Real* grad_weight) const {
    const Index synapse = neuron * s.inputs + input;
    const Real weight = trees.weight && !s.claw ? trees.weight[synapse] : Real(1);
    const Real* in = trees.source_of(neuron) + trees.index_of(neuron)[input] + step * s.step_stride;
    Vector<Real> sum = {};
    for (int v = 0; v < V; ++v) {
      const Index position = sample + v * kLanes<Real>;
      if (grad_inputs)
        store<Real>(
            grad_inputs + ((neuron * s.steps + step) * s.inputs + input) * s.samples + position,
            acc[v] * weight);
      if (grad_weight) sum += acc[v] * load(in + position);
    }
    if (grad_weight) grad_weight[synapse] += sum_lanes<Real>(sum);
  }
};

// Computes the gradients of inputs, (N, T, A, B'), weights, filters and biases, (N, C), each unless
// it is null. The gradient that is given is that of the sum of rates if `sums` is set, with the
// `passes` from `forward`, or null without a rectifier; else it is that of the potentials.
template <typename Real>
void backward(const Trees<Real>& trees, bool sums, Real share, const Bits* passes, const Real* grad,
              Real* grad_inputs, Real* grad_weight, Real* grad_filters, Real* grad_bias,
              int threads) {
  const Sizes& s = trees.s;
  // A claw's weights are merged with its taps; others multiply the inputs.
  const bool needs_tap_grad = grad_filters || (grad_weight && s.claw);
  const bool needs_scale_grad = grad_weight && !s.claw;
#pragma omp parallel num_threads(threads)
  {
    std::vector<Real> gathered_buffer(s.steps * s.inputs * kSampleVectors * kLanes<Real>);
    auto* gathered = reinterpret_cast<Vector<Real>*>(gathered_buffer.data());
    std::vector<Real> grad_buffer(s.out_steps() * s.outputs() * kSampleVectors * kLanes<Real>);
    auto* grad_potential = reinterpret_cast<Vector<Real>*>(grad_buffer.data());
    std::vector<Real> transposed_buffer(Backward<Real, 1>::output_vectors(s) * s.out_steps() *
                                        kSampleVectors * kLanes<Real> * kLanes<Real>);
    auto* grad_transposed = reinterpret_cast<Vector<Real>*>(transposed_buffer.data());
    Taps<Real> taps(s, needs_tap_grad);
#pragma omp for schedule(static)
    for (Index neuron = 0; neuron < s.neurons; ++neuron) {
      trees.pack(neuron, taps);
      taps.zero_grad();
      if (needs_scale_grad) std::fill_n(grad_weight + neuron * s.inputs, s.inputs, Real(0));
      if (grad_bias) std::fill_n(grad_bias + neuron * s.columns, s.columns, Real(0));
      for_each_sample_block<Real>(s.samples, [&](auto vectors, Index sample) {
        constexpr int V = vectors.value;
        Backward<Real, V> pass{trees,  trees.s,  taps.packed(),  neuron,
                               sample, gathered, grad_potential, grad_transposed};
        trees.template gather<V>(neuron, sample, gathered);
        if (sums) pass.load_grad_total(grad, passes, share);
        else pass.load_grad_potential(grad);
        if (grad_bias) pass.add_bias_grad(grad_bias + neuron * s.columns);
        if (needs_tap_grad) pass.add_tap_grad(taps.grad());
        if (grad_inputs || needs_scale_grad)
          pass.write_input_grad(grad_inputs, needs_scale_grad ? grad_weight : nullptr);
      });
      const auto row_of = [&](Real* grads, Index size) {
        return grads ? grads + neuron * size : nullptr;
      };
      if (needs_tap_grad)
        taps.unpack_grad(row_of(grad_filters, s.time_taps * s.site_taps * s.dendrite_taps),
                         row_of(grad_weight, s.synapses));
    }
  }
}

// Adds the gradients of the inputs, (N, T, A, B'), to the rows that they were gathered from.
// Threads split steps and samples, and each adds the neurons in order, so the sums do not depend on
// the number of threads.
template <typename Real>
void scatter(const Sizes& s, const Real* grad_inputs, const Index* index, Real* rows, int threads) {
  const Index vectors = s.samples / kLanes<Real>;
#pragma omp parallel for num_threads(threads) schedule(static) collapse(2)
  for (Index step = 0; step < s.steps; ++step)
    for (Index vector = 0; vector < vectors; ++vector)
      for (Index neuron = 0; neuron < s.neurons; ++neuron)
        for (Index input = 0; input < s.inputs; ++input) {
          const Index offset = index[neuron * s.inputs + input] + step * s.step_stride;
          Real* out = rows + offset + vector * kLanes<Real>;
          const Real* in = grad_inputs +
                           ((neuron * s.steps + step) * s.inputs + input) * s.samples +
                           vector * kLanes<Real>;
          store<Real>(out, load<Real>(out) + load(in));
        }
}

}  // namespace

// The first arguments of both passes.
#define OPERANDS(Real)                                                                     \
  const Sizes *sizes, const Real *source, const Index *index, const Real *weight,          \
      const Real *filters, const Index *tap_offset, const Index *first, const Index *last, \
      const Real *bias
#define TREES {*sizes, source, index, weight, filters, tap_offset, first, last, bias}

#define NEUROCONV_TREES(Real, name)                                                               \
  extern "C" void trees_forward_##name(OPERANDS(Real), Index linear, double share,                \
                                       Real* potential, Real* total, Bits* passes,                \
                                       Index threads) {                                           \
    forward<Real>(TREES, linear != 0, Real(share), potential, total, passes, threads);            \
  }                                                                                               \
  extern "C" void trees_backward_##name(                                                          \
      OPERANDS(Real), Index sums, double share, const Bits* passes, const Real* grad,             \
      Real* grad_inputs, Real* grad_weight, Real* grad_filters, Real* grad_bias, Index threads) { \
    backward<Real>(TREES, sums != 0, Real(share), passes, grad, grad_inputs, grad_weight,         \
                   grad_filters, grad_bias, threads);                                             \
  }                                                                                               \
  extern "C" void trees_scatter_##name(const Sizes* sizes, const Real* grad_inputs,               \
                                       const Index* index, Real* rows, Index threads) {           \
    scatter<Real>(*sizes, grad_inputs, index, rows, threads);                                     \
  }

NEUROCONV_TREES(float, float32)
NEUROCONV_TREES(double, float64)
