// Small dendritic trees, each neuron with its own filter: from the axons to the potentials of the
// branches, or to the sum of their rates, and back. What a neuron hears and what its branches do is
// held in the cache for some samples at a time; samples lie side by side and fill the vectors.
//
// Shapes: N neurons, T time steps, K taps in time, A inputs of a tree; C columns (dendrites) of R
// rows (sites) come out, O = C * R; B samples, padded to whole vectors. A neuron's taps are packed
// into (K, S): input a acts on row r of column c, K - 1 - k steps later, by
// taps[k][place[c][a] + r]. Outside of first[c] <= a < last[c] those are zeros, by which a block of
// columns may be multiplied: infinities and NaN spread to its columns.

#include <algorithm>
#include <type_traits>
#include <vector>

#include "blocks.h"
#include "taps.h"

namespace {

constexpr int kSites = 4, kBranches = 3;  // of the granule cell's sheet and filter
constexpr int kFew = 4;                   // branches, and rows of a block that they reach
constexpr int kWide = 2;                  // vectors of samples that are gone through at once
constexpr int kTurned = 2;                // vectors of branches

// Columns beside each other in a block of `M` rows: what is loaded serves all of them.
template <typename Real, int M>
constexpr int kBeside = kMost<Real> < 7 ? 1
                        : M <= 4        ? 3
                        : M <= 6        ? 2
                                        : 1;

template <typename Real>
struct Trees {
  const Sizes& s;
  const Real* heard;
  const Index* index;   // of each input, or (N, A): where its first step and sample lies
  const Real* weight;   // of each synapse, or null: joined with the taps if it is a claw's
  const Real* filters;  // (N, K, K_P, K_D)
  const Index* place;
  const Index* first;
  const Index* last;
  const Real* bias;  // (N, C), or null

  void pack(Index neuron, Taps<Real>& taps) const {
    taps.pack(filter(neuron), weight ? weight + neuron * s.synapses : nullptr);
  }
  const Real* filter(Index neuron) const {
    return filters + neuron * s.taps_in_time * s.branches * s.across;
  }
  // Where a branch's bits lie, of samples from the given one on.
  Index bits(Index neuron, Index step, Index row, Index column, Index sample) const {
    const Index branch =
        (neuron * s.steps_out() + step - s.earliest) * s.outputs() + column * s.rows + row;
    return branch * room() + sample / kLanes<Real>;
  }
  Index room() const { return room_for_bits<Real>(s.samples); }
  // What a neuron hears by its first input, at the first step and sample.
  const Real* heard_by(Index neuron) const { return heard + neuron * s.cell; }
  const Index* index_of(Index neuron) const { return index + neuron * s.own; }

  // What a neuron hears: (T, A, V vectors). With `ahead` the next neuron's is asked for from
  // memory.
  template <int V>
  void hear(Index neuron, Index sample, Vector<Real>* held, bool ahead = false) const {
    if (s.apart == 1 && s.present == s.samples) hear_vectors<V>(neuron, sample, held, ahead);
    else hear_numbers<V>(neuron, sample, reinterpret_cast<Real*>(held));
    if (!weight || s.claw) return;
    for (Index step = 0; step < s.steps; ++step)
      for (Index input = 0; input < s.inputs; ++input, held += V)
        for (int v = 0; v < V; ++v) held[v] *= weight[neuron * s.inputs + input];
  }

  template <int V>
  void hear_vectors(Index neuron, Index sample, Vector<Real>* held, bool ahead) const {
    const Index following = std::min(neuron + 1, s.neurons - 1);
    const Index *here = index_of(neuron), *next = index_of(following);
    const Real *from = heard_by(neuron), *then = heard_by(following);
    for (Index step = 0; step < s.steps; ++step)
      for (Index input = 0; input < s.inputs; ++input, held += V) {
        const Index at = step * s.step + sample;
        for (int v = 0; ahead && v < V; ++v)
          __builtin_prefetch(then + next[input] + at + v * kLanes<Real>);
        for (int v = 0; v < V; ++v) held[v] = load(from + here[input] + at + v * kLanes<Real>);
      }
  }

  // Of samples that do not lie side by side, or fill no vector.
  template <int V>
  void hear_numbers(Index neuron, Index sample, Real* held) const {
    constexpr Index wide = V * kLanes<Real>;
    const Index* here = index_of(neuron);
    const Index many = std::min(wide, s.present - sample);
    for (Index step = 0; step < s.steps; ++step)
      for (Index input = 0; input < s.inputs; ++input, held += wide) {
        const Real* from = heard_by(neuron) + here[input] + step * s.step + sample * s.apart;
        if (many == wide)
          for (Index each = 0; each < wide; ++each) held[each] = from[each * s.apart];
        else
          for (Index each = 0; each < wide; ++each)
            held[each] = each < many ? from[each * s.apart] : Real(0);
      }
  }

  // Rows of a block: fewer where few branches reach a row, for a block is multiplied with all sites
  // that reach any of its rows.
  Index most_rows() const {
    return s.along() > 1 && s.branches <= kFew ? std::min(kFew, kMost<Real>) : kMost<Real>;
  }

  // `run(many rows, many columns, row, column)` over the branches.
  template <typename Run>
  INLINED void each_block(Run run) const {
    in_blocks<kMost<Real>>(
        s.rows,
        [&](Index row, auto many) {
          in_blocks<kBeside<Real, many.value>>(
              s.columns, [&](Index column, auto beside) { run(many, beside, row, column); });
        },
        most_rows());
  }

  // `run(first, one past the last)` over the runs of inputs that act on some rows of columns.
  template <typename Run>
  INLINED void each_run(Index row, Index many, Index column, Index beside, Run run) const {
    const Index start = first[column], end = last[column + beside - 1];
    if (s.along() == 1) return run(start, end);
    const Index from = std::max<Index>(0, row - s.before);
    const Index to = std::min(s.sites, row + many - 1 - s.before + s.branches);
    for (Index dendrite = start; dendrite < end; dendrite += s.sites)
      run(dendrite + from, std::min(end, dendrite + to));
  }

  // Potentials of `M` rows of `C` columns at a step.
  template <int M, int C, int V>
  INLINED void potentials(const Real* taps, Index neuron, Index step, Index row, Index column,
                          const Vector<Real>* held, Vector<Real> (&acc)[C][M][V]) const {
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      const Real rest = bias ? bias[neuron * s.columns + column + c] : Real(0);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) acc[c][m][v] = Vector<Real>{} + rest;
    }
    if constexpr (M == kSites)
      if (!s.claw && s.sites == kSites && s.rows == kSites && s.branches == kBranches &&
          s.inputs % kSites == 0)
        return along_sites<C, V>(taps, step, column, held, acc);
    const Index* at = place + column * s.inputs;
    const Index reach = std::min(step + 1, s.taps_in_time);
    for (Index lag = 0; lag < reach; ++lag) {
      const Real* own = taps + (s.taps_in_time - 1 - lag) * s.numbers() + row;
      const Vector<Real>* x = held + (step - lag) * s.inputs * V;
      each_run(row, M, column, C, [&](Index input, Index end) {
        for (; input < end; ++input) {
          Vector<Real> here[V];
#pragma GCC unroll 8
          for (int v = 0; v < V; ++v) here[v] = x[input * V + v];
#pragma GCC unroll 8
          for (int c = 0; c < C; ++c) {
            const Real* by = own + at[c * s.inputs + input];
#pragma GCC unroll 8
            for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
              for (int v = 0; v < V; ++v) acc[c][m][v] += by[m] * here[v];
          }
        }
      });
    }
  }

  // The same of a sheet of the granule cell's own sites and branches, in mode "same": each input
  // acts on three sites or fewer, and a filter's taps are loaded once for all of them.
  template <int C, int V>
  INLINED void along_sites(const Real* taps, Index step, Index column, const Vector<Real>* held,
                           Vector<Real> (&acc)[C][kSites][V]) const {
    constexpr int before = (kBranches - 1) / 2;
    const Index* at = place + column * s.inputs;
    const Index reach = std::min(step + 1, s.taps_in_time);
    for (Index lag = 0; lag < reach; ++lag) {
      const Real* own = taps + (s.taps_in_time - 1 - lag) * s.numbers();
      const Vector<Real>* x = held + (step - lag) * s.inputs * V;
      for (Index input = first[column]; input < last[column + C - 1]; input += kSites) {
        Vector<Real> tap[C][kBranches];
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
          const Real* by = own + at[c * s.inputs + input] - before;  // turned: the last tap first
#pragma GCC unroll 8
          for (int k = 0; k < kBranches; ++k) tap[c][k] = Vector<Real>{} + by[kBranches - 1 - k];
        }
#pragma GCC unroll 8
        for (int site = 0; site < kSites; ++site)
#pragma GCC unroll 8
          for (int v = 0; v < V; ++v) {
            const Vector<Real> here = x[(input + site) * V + v];
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c)
#pragma GCC unroll 8
              for (int k = 0; k < kBranches; ++k) {
                const int row = site + before - k;
                if (row >= 0 && row < kSites) acc[c][row][v] += tap[c][k] * here;
              }
          }
      }
    }
  }
};

// `run(vectors, sample)` over a neuron's samples: the given ones of `parts`.
template <typename Real, typename Run>
inline void each_sample(Index all, Run run, Index part = 0, Index parts = 1) {
  const Index chunk = kWide * kLanes<Real>, chunks = (all + chunk - 1) / chunk;
  const Index samples = std::min(all, chunks * (part + 1) / parts * chunk);
  Index sample = chunks * part / parts * chunk;
  for (; sample + kWide * kLanes<Real> <= samples; sample += kWide * kLanes<Real>)
    run(Constant<kWide>(), sample);
  for (; sample < samples; sample += kLanes<Real>) run(Constant<1>(), sample);
}

// Either the potentials, (steps out, N, O, B), or the sum of the rates times `share`, (steps out,
// N, B). With `passes`, of which potentials are above zero: (N, steps out, O, vectors of B).
template <typename Real>
void forward(const Trees<Real>& trees, bool linear, Real share, Real* potential, Real* total,
             Bits* passes, int threads) {
  const Sizes& s = trees.s;
  const Index bytes = s.steps_out() * s.neurons * s.outputs() * s.samples * sizeof(Real);
  const bool past = bytes > kCacheBytes;
  // Neurons that are fewer than the threads share them: each by its samples.
  const Index parts = s.neurons < threads ? (threads - 1) / s.neurons + 1 : 1;
#pragma omp parallel num_threads(threads)
  {
    std::vector<Real> held_numbers(s.steps * s.inputs * kWide * kLanes<Real>);
    auto* held = reinterpret_cast<Vector<Real>*>(held_numbers.data());
    Taps<Real> taps(s, false);
#pragma omp for schedule(static) nowait
    for (Index task = 0; task < s.neurons * parts; ++task) {
      const Index neuron = task / parts;
      trees.pack(neuron, taps);
      const auto run = [&](auto vectors, Index sample) {
        constexpr int V = vectors.value;
        trees.template hear<V>(neuron, sample, held, past);
        for (Index step = s.earliest; step < s.steps; ++step) {
          const Index at = (step - s.earliest) * s.all + neuron;
          Vector<Real> sum[V] = {};
          trees.each_block([&](auto many, auto beside, Index row, Index column) {
            constexpr int M = many.value, C = beside.value;
            Vector<Real> acc[C][M][V];
            trees.template potentials<M, C, V>(taps.packed(), neuron, step, row, column, held, acc);
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) {
              if (potential) {
                Real* to = potential + (at * s.outputs() + (column + c) * s.rows + row) * s.samples;
                if (past) put<Real, true>(acc[c], to + sample, s.samples);
                else put<Real>(acc[c], to + sample, s.samples);
              } else {
                Bits* bits =
                    passes ? passes + trees.bits(neuron, step, row, column + c, sample) : nullptr;
#pragma GCC unroll 8
                for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
                  for (int v = 0; v < V; ++v) {
                    if (bits) bits[m * trees.room() + v] = positive<Real>(acc[c][m][v]);
                    sum[v] += linear ? acc[c][m][v] : rectified(acc[c][m][v]);
                  }
              }
            }
          });
          if (total)
            for (int v = 0; v < V; ++v)
              store<Real>(total + at * s.samples + sample + v * kLanes<Real>, sum[v] * share);
        }
      };
      each_sample<Real>(s.samples, run, task % parts, parts);
    }
    settle();
  }
}

// The backward pass of some samples of one neuron, all of it in the cache.
template <typename Real, int V>
struct Backward {
  static constexpr Index kAtOnce = V * kLanes<Real>;  // samples
  const Trees<Real>& trees;
  const Sizes& s = trees.s;
  const Real* taps;
  Index neuron, sample;
  const Vector<Real>* held;  // (T, A, V)
  Vector<Real>* own;         // (steps out, O, V): gradients to the potentials
  Vector<Real>* turned;  // (vectors of O, steps out, samples): the same with branches in vectors

  // Of the sum's gradient, what passes each branch's rectifier: all if there is none.
  void pass(const Real* grad, const Bits* passes, Real share) {
    Vector<Real>* to = own;
    for (Index step = s.earliest; step < s.steps; ++step) {
      const Index at = (step - s.earliest) * s.all + neuron;
      Vector<Real> pushed[V];
      for (int v = 0; v < V; ++v)
        pushed[v] = load(grad + at * s.samples + sample + v * kLanes<Real>) * share;
      const Bits* bits = passes ? passes + trees.bits(neuron, step, 0, 0, sample) : nullptr;
      for (Index output = 0; output < s.outputs(); ++output)
        for (int v = 0; v < V; ++v)
          *to++ = bits ? chosen<Real>(bits[output * trees.room() + v], pushed[v]) : pushed[v];
    }
  }

  // The potentials' own gradient, as it is given.
  void take(const Real* grad) {
    Vector<Real>* to = own;
    for (Index step = s.earliest; step < s.steps; ++step) {
      const Real* from =
          grad + ((step - s.earliest) * s.all + neuron) * s.outputs() * s.samples + sample;
      for (Index output = 0; output < s.outputs(); ++output)
        for (int v = 0; v < V; ++v) *to++ = load(from + output * s.samples + v * kLanes<Real>);
    }
  }

  void to_bias(Real* found) const {
    for (Index step = 0; step < s.steps_out(); ++step)
      for (Index column = 0; column < s.columns; ++column) {
        Vector<Real> sum = {};
        const Vector<Real>* from = own + (step * s.columns + column) * s.rows * V;
        for (Index at = 0; at < s.rows * V; ++at) sum += from[at];
        found[column] += added<Real>(sum);
      }
  }

  // Vectors of branches: they lie one after another, or, where a column's sites fill more than one
  // of which a filter reaches few, each in one column.
  static Index per_column(const Sizes& s) {
    return s.along() > 1 && s.rows > kLanes<Real> ? (s.rows - 1) / kLanes<Real> + 1 : 0;
  }
  static Index turned_vectors(const Sizes& s) {
    const Index each = per_column(s);
    return each ? s.columns * each : (s.outputs() - 1) / kLanes<Real> + 1;
  }
  // The first branch of a vector, and one past the last of so many.
  Index start(Index vector) const {
    const Index each = per_column(s);
    return each ? vector / each * s.rows + vector % each * kLanes<Real> : vector * kLanes<Real>;
  }
  Index end(Index vector, Index many) const {
    const Index each = per_column(s), last = start(vector + many - 1) + kLanes<Real>;
    return std::min(last, each ? (vector / each + 1) * s.rows : s.outputs());
  }

  void turn() {
    constexpr int lanes = kLanes<Real>;
    for (Index vector = 0; vector < turned_vectors(s); ++vector) {
      const Index first = start(vector), present = end(vector, 1) - first;
      for (Index step = 0; step < s.steps_out(); ++step) {
        const Vector<Real>* from = own + (step * s.outputs() + first) * V;
        Vector<Real>* to = turned + (vector * s.steps_out() + step) * kAtOnce;
        for (int v = 0; v < V; ++v) {
          Vector<Real> square[lanes];
#pragma GCC unroll 16
          for (int row = 0; row < lanes; ++row)
            square[row] = row < present ? from[row * V + v] : Vector<Real>{};
          transpose<1>(square);
#pragma GCC unroll 16
          for (int row = 0; row < lanes; ++row) to[v * lanes + row] = square[row];
        }
      }
    }
  }

  // To what is packed, (K, S), added.
  void to_taps(Real* found) {
    turn();
    in_blocks<kTurned>(
        turned_vectors(s),
        [&](Index vector, auto many) {
          const Index first = start(vector), until = end(vector, many.value);
          const Index column = first / s.rows, columns = (until - 1) / s.rows + 1 - column;
          // Rows of a single column; of several it is all.
          const Index row = columns == 1 ? first % s.rows : 0;
          const Index rows = columns == 1 ? until - first : s.rows;
          trees.each_run(row, rows, column, columns, [&](Index input, Index last) {
            in_blocks<kMost<Real>>(last - input, [&](Index from, auto inputs) {
              for (Index lag = 0; lag < std::min(s.taps_in_time, s.steps); ++lag) {
                constexpr int I = inputs.value, N = many.value;
                Real sums[I * N * kLanes<Real>];
                meet<I, N>(lag, input + from, vector, sums);
                hand_over<I, N>(sums, input + from, first, until,
                                found + (s.taps_in_time - 1 - lag) * s.numbers());
              }
            });
          });
        },
        per_column(s) ? 1 : kTurned);
  }

  // What `I` inputs and vectors of branches are to each other, over steps and samples.
  template <int I, int N>
  INLINED void meet(Index lag, Index input, Index vector, Real* sums) const {
    Vector<Real> acc[I][N] = {};
    const Index many = std::min(kAtOnce, s.present - sample);
    for (Index step = std::max(lag, s.earliest); step < s.steps; ++step) {
      const Real* x = reinterpret_cast<const Real*>(held + ((step - lag) * s.inputs + input) * V);
      const Vector<Real>* y = turned + (vector * s.steps_out() + step - s.earliest) * kAtOnce;
      for (Index each = 0; each < many; ++each) {
        Vector<Real> here[N];
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) here[n] = y[n * s.steps_out() * kAtOnce + each];
#pragma GCC unroll 8
        for (int i = 0; i < I; ++i)
#pragma GCC unroll 8
          for (int n = 0; n < N; ++n) acc[i][n] += x[i * kAtOnce + each] * here[n];
      }
    }
    put<Real>(acc, sums, N * kLanes<Real>);
  }

  // To the taps that join them: branches from `first` on.
  template <int I, int N>
  INLINED void hand_over(const Real* sums, Index input, Index first, Index end, Real* to) const {
    for (Index branch = first; branch < end;) {
      const Index column = branch / s.rows, row = branch % s.rows;
      const Index rows = std::min(s.rows - row, end - branch);
      for (int i = 0; i < I; ++i) {
        if (input + i < trees.first[column] || input + i >= trees.last[column]) continue;
        Real* taps_of = to + trees.place[column * s.inputs + input + i] + row;
        const Real* from = sums + i * N * kLanes<Real> + branch - first;
        if (rows == kSites) {
          Real own[kSites];  // all of them before the first is written, as one vector
          for (int r = 0; r < kSites; ++r) own[r] = taps_of[r] + from[r];
          std::copy_n(own, kSites, taps_of);
        } else {
          for (Index r = 0; r < rows; ++r) taps_of[r] += from[r];
        }
      }
      branch += rows;
    }
  }

  // Gradients to what is heard, (T, A, B), and to the weights it is multiplied by, (A), added.
  void to_inputs(Real* back, Real* to_weight) const {
    const Index each = s.along() == 1 ? s.inputs : s.along();  // a block is of one dendrite's sites
    for (Index first = 0; first < s.inputs; first += each)
      in_blocks<kMost<Real>>(std::min(each, s.inputs - first), [&](Index from, auto many) {
        const Index input = first + from;
        if (s.along() == 1) return block<many.value>(input, 0, s.rows, back, to_weight);
        // The rows that these sites act on.
        const Index row = std::max<Index>(0, from + s.before - s.branches + 1);
        const Index rows = std::min(s.rows, from + many.value + s.before);
        block<many.value>(input, row, rows, back, to_weight);
      });
  }

  // Of `M` inputs, from the rows of each column from `first` to before `end`.
  template <int M>
  INLINED void block(Index input, Index first, Index end, Real* back, Real* to_weight) const {
    for (Index step = 0; step < s.steps; ++step) {
      Vector<Real> acc[M][V] = {};
      const Index until = std::min(s.steps, step + s.taps_in_time);
      for (Index later = std::max(step, s.earliest); later < until; ++later) {
        const Real* by = taps + (s.taps_in_time - 1 - (later - step)) * s.numbers();
        const Vector<Real>* y = own + (later - s.earliest) * s.outputs() * V;
        for (Index column = 0; column < s.columns; ++column, y += s.rows * V) {
          if (trees.last[column] <= input || trees.first[column] >= input + M) continue;
          const Index* at = trees.place + column * s.inputs + input;
          const Real* w[M];
#pragma GCC unroll 8
          for (int m = 0; m < M; ++m) w[m] = by + at[m];
          for (Index row = first; row < end; ++row) {
            Vector<Real> here[V];
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) here[v] = y[row * V + v];
#pragma GCC unroll 8
            for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
              for (int v = 0; v < V; ++v) acc[m][v] += w[m][row] * here[v];
          }
        }
      }
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) hand_on(acc[m], step, input + m, back, to_weight);
    }
  }

  // An input's gradient: what was heard is the held number over its weight, but that may be zero.
  INLINED void hand_on(const Vector<Real> (&acc)[V], Index step, Index input, Real* back,
                       Real* to_weight) const {
    const Index unit = neuron * s.inputs + input;
    const Real by = trees.weight && !s.claw ? trees.weight[unit] : Real(1);
    const Real* from = trees.heard_by(neuron) + trees.index_of(neuron)[input] + step * s.step;
    Vector<Real> met = {};
    for (int v = 0; v < V; ++v) {
      const Index at = sample + v * kLanes<Real>;
      if (back)
        store<Real>(back + ((neuron * s.steps + step) * s.inputs + input) * s.samples + at,
                    acc[v] * by);
      if (to_weight) met += acc[v] * load(from + at);
    }
    if (to_weight) to_weight[unit] += added<Real>(met);
  }
};

// Gradients, each if asked for: to what is heard, (N, T, A, B); to weights; to filters; to biases,
// (N, C). `sums` says that the gradient given is that of the rates' sum; `passes` are what
// `forward` left, or null without a rectifier.
template <typename Real>
void backward(const Trees<Real>& trees, bool sums, Real share, const Bits* passes, const Real* grad,
              Real* back, Real* to_weight, Real* to_filters, Real* to_bias, int threads) {
  const Sizes& s = trees.s;
  // A claw's weights are packed with its taps.
  const bool to_packed = to_filters || (to_weight && s.claw), heard = to_weight && !s.claw;
#pragma omp parallel num_threads(threads)
  {
    std::vector<Real> held_numbers(s.steps * s.inputs * kWide * kLanes<Real>);
    auto* held = reinterpret_cast<Vector<Real>*>(held_numbers.data());
    std::vector<Real> own_numbers(s.steps_out() * s.outputs() * kWide * kLanes<Real>);
    auto* own = reinterpret_cast<Vector<Real>*>(own_numbers.data());
    std::vector<Real> turned_numbers(Backward<Real, 1>::turned_vectors(s) * s.steps_out() * kWide *
                                     kLanes<Real> * kLanes<Real>);
    auto* turned = reinterpret_cast<Vector<Real>*>(turned_numbers.data());
    Taps<Real> taps(s, to_packed);
#pragma omp for schedule(static)
    for (Index neuron = 0; neuron < s.neurons; ++neuron) {
      trees.pack(neuron, taps);
      taps.clear();
      if (heard) std::fill_n(to_weight + neuron * s.inputs, s.inputs, Real(0));
      if (to_bias) std::fill_n(to_bias + neuron * s.columns, s.columns, Real(0));
      each_sample<Real>(s.samples, [&](auto vectors, Index sample) {
        constexpr int V = vectors.value;
        Backward<Real, V> pass{trees, trees.s, taps.packed(), neuron, sample, held, own, turned};
        trees.template hear<V>(neuron, sample, held);
        if (sums) pass.pass(grad, passes, share);
        else pass.take(grad);
        if (to_bias) pass.to_bias(to_bias + neuron * s.columns);
        if (to_packed) pass.to_taps(taps.grad());
        if (back || heard) pass.to_inputs(back, heard ? to_weight : nullptr);
      });
      const auto of = [&](Real* all, Index each) { return all ? all + neuron * each : nullptr; };
      if (to_packed)
        taps.unpack(of(to_filters, s.taps_in_time * s.branches * s.across),
                    of(to_weight, s.synapses));
    }
  }
}

// Adds what trees give back, (N, T, A, B), to the rows that they heard; a thread has steps and
// samples of its own, and goes through the neurons in their order.
template <typename Real>
void scatter(const Sizes& s, const Real* back, const Index* index, Real* rows, int threads) {
  const Index vectors = s.samples / kLanes<Real>;
#pragma omp parallel for num_threads(threads) schedule(static) collapse(2)
  for (Index step = 0; step < s.steps; ++step)
    for (Index vector = 0; vector < vectors; ++vector)
      for (Index neuron = 0; neuron < s.neurons; ++neuron)
        for (Index input = 0; input < s.inputs; ++input) {
          const Index first = index[neuron * s.inputs + input] + step * s.step;
          Real* to = rows + first + vector * kLanes<Real>;
          const Real* from = back + ((neuron * s.steps + step) * s.inputs + input) * s.samples +
                             vector * kLanes<Real>;
          store<Real>(to, load<Real>(to) + load(from));
        }
}

}  // namespace

// What every pass is given.
#define OPERANDS(Real)                                                                \
  const Sizes *sizes, const Real *heard, const Index *index, const Real *weight,      \
      const Real *filters, const Index *place, const Index *first, const Index *last, \
      const Real *bias
#define TREES {*sizes, heard, index, weight, filters, place, first, last, bias}

#define NEUROCONV_TREES(Real, name)                                                               \
  extern "C" void trees_forward_##name(OPERANDS(Real), Index linear, double share,                \
                                       Real* potential, Real* total, Bits* passes,                \
                                       Index threads) {                                           \
    forward<Real>(TREES, linear != 0, Real(share), potential, total, passes, threads);            \
  }                                                                                               \
  extern "C" void trees_backward_##name(                                                          \
      OPERANDS(Real), Index sums, double share, const Bits* passes, const Real* grad, Real* back, \
      Real* to_weight, Real* to_filters, Real* to_bias, Index threads) {                          \
    backward<Real>(TREES, sums != 0, Real(share), passes, grad, back, to_weight, to_filters,      \
                   to_bias, threads);                                                             \
  }                                                                                               \
  extern "C" void trees_scatter_##name(const Sizes* sizes, const Real* back, const Index* index,  \
                                       Real* rows, Index threads) {                               \
    scatter<Real>(*sizes, back, index, rows, threads);                                            \
  }

NEUROCONV_TREES(float, float32)
NEUROCONV_TREES(double, float64)
