// The taps of a small tree as its kernels read them, packed for one neuron at a time: whatever an
// input does to the branches of a dendrite lies side by side, with zeros where it does nothing.
//
// Shapes: K taps in time, K_P x K_D on the sheet of P sites and D dendrites; C columns (dendrites)
// of R rows (sites) come out.

#pragma once

#include <algorithm>
#include <vector>

#include "vectors.h"

// As `neuroconv.layers.native` packs them.
struct Sizes {
  Index neurons, all;  // of this call, and in the arrays that have neurons further in
  Index samples, steps, taps_in_time, inputs, columns, rows;
  Index line;         // packed numbers of a tap across the dendrites; of a claw, of a column
  Index step, apart;  // numbers from one time step, one sample to the next in what is heard
  Index present;      // samples that are there
  Index earliest;     // the first step that comes out
  Index cell, own;    // numbers from one neuron to the next in what is heard, and in its index
  Index sites, dendrites, branches, across;  // P, D, K_P, K_D
  Index before, sideways;  // sites before its own, and dendrites, that a filter reaches
  Index claw;      // inputs are dendrites, of which they end on all sites; or else they are sites
  Index synapses;  // of a neuron
  Index outputs() const { return columns * rows; }
  Index steps_out() const { return steps - earliest; }
  // Packed, of one tap in time: lines, and a last one of zeros.
  Index numbers() const { return ((claw ? columns : across) + 1) * line; }
  // Of what comes in, sites of one dendrite that follow each other.
  Index along() const { return claw ? 1 : sites; }
};

// One neuron's, (K, lines, line); the last line is zero, for dendrites out of reach.
//
// Of a sheet, a line is one tap across: the taps along the sites, turned, between zeros, so that
// site p acts on row r by number P - 1 - p + r. Of a claw, a line is a column's, (K_D, R): what a
// tap across makes of the dendrite that it reaches from there is the sum, over the taps along the
// sites, of each times the weight of the synapse that it meets.
template <typename Real>
class Taps {
 public:
  // With `learns`, for gradients too.
  Taps(const Sizes& sizes, bool learns)
      : s(sizes),
        met_line_(s.dendrites * s.rows + 2 * kLanes<Real>),
        packed_(s.taps_in_time * s.numbers()),
        grad_(learns ? packed_.size() : 0) {
    if (!s.claw) return;
    met_.resize(s.branches * met_line_);
    taps_.resize(s.taps_in_time * s.branches * s.line);
    if (learns) to_met_.resize(met_.size()), to_taps_.resize(taps_.size());
  }

  const Real* packed() const { return packed_.data(); }
  // Where gradients to what is packed are added up, from `clear` on.
  Real* grad() { return grad_.data(); }
  void clear() { std::fill(grad_.begin(), grad_.end(), Real(0)); }

  // Filters (K, K_P, K_D) and the weights of the synapses.
  void pack(const Real* filter, const Real* weight) {
    if (!s.claw) return each_place([&](Index tap, Index at) { packed_[at] = filter[tap]; });
    each_tap([&](Index tap, Index at) { std::fill_n(&taps_[at], s.rows, filter[tap]); });
    each_met([&](Index synapse, Index at) { met_[at] = weight[synapse]; });
    each_vector([&](Index to, Index tap, Index met) {
      Vector<Real> sum = {};
      for (Index branch = 0; branch < s.branches; ++branch)
        sum += load(&taps_[tap + branch * s.line]) * load(&met_[met + branch * met_line_]);
      store<Real>(&packed_[to], sum);
    });
  }

  // The gradients to both, of `grad`; of weights in a claw alone. Either may be null.
  void unpack(Real* to_filter, Real* to_weight) {
    if (to_filter) std::fill_n(to_filter, s.taps_in_time * s.branches * s.across, Real(0));
    if (!s.claw) {
      if (to_filter) each_place([&](Index tap, Index at) { to_filter[tap] = grad_[at]; });
      return;
    }
    std::fill(to_taps_.begin(), to_taps_.end(), Real(0));
    std::fill(to_met_.begin(), to_met_.end(), Real(0));
    each_vector([&](Index from, Index tap, Index met) {
      const Vector<Real> grad = load(&grad_[from]);
      for (Index branch = 0; branch < s.branches; ++branch) {
        add(&to_taps_[tap + branch * s.line], grad * load(&met_[met + branch * met_line_]));
        add(&to_met_[met + branch * met_line_], grad * load(&taps_[tap + branch * s.line]));
      }
    });
    if (to_filter)
      each_tap([&](Index tap, Index at) {
        for (Index row = 0; row < s.rows; ++row) to_filter[tap] += to_taps_[at + row];
      });
    if (!to_weight) return;
    std::fill_n(to_weight, s.synapses, Real(0));
    each_met([&](Index synapse, Index at) { to_weight[synapse] += to_met_[at]; });
  }

 private:
  static void add(Real* to, Vector<Real> values) { store<Real>(to, load(to) + values); }

  // Of a sheet, `run(in the filter, packed)`.
  template <typename Run>
  void each_place(Run run) const {
    for (Index time = 0; time < s.taps_in_time; ++time)
      for (Index branch = 0; branch < s.branches; ++branch) {
        const Index place = s.sites - 1 + s.before - branch;
        if (place < 0 || place >= s.line) continue;  // it reaches no site
        for (Index over = 0; over < s.across; ++over)
          run((time * s.branches + branch) * s.across + over,
              (time * (s.across + 1) + over) * s.line + place);
      }
  }

  // Of a claw, `run(in the filter, in the taps repeated over rows)`, (K, K_P, line).
  template <typename Run>
  void each_tap(Run run) const {
    for (Index own = 0; own < s.taps_in_time * s.branches; ++own)
      for (Index over = 0; over < s.across; ++over)
        run(own * s.across + over, own * s.line + over * s.rows);
  }

  // Of a claw, `run(synapse, in what is met)` where a row of a dendrite meets one by a branch:
  // (K_P, D * R), each between zeros of a vector's length.
  template <typename Run>
  void each_met(Run run) const {
    for (Index branch = 0; branch < s.branches; ++branch)
      for (Index row = 0; row < s.rows; ++row) {
        const Index site = row + branch - s.before;
        if (site < 0 || site >= s.sites) continue;
        for (Index synapse = site; synapse < s.synapses; synapse += s.sites)
          run(synapse, branch * met_line_ + kLanes<Real> + synapse / s.sites * s.rows + row);
      }
  }

  // Of a claw, `run(packed, in the repeated taps, in what is met)`, by vectors; those of the first
  // branch. Beyond the dendrites' ends one of the factors is zero, and no gradient has come.
  template <typename Run>
  void each_vector(Run run) const {
    for (Index column = 0; column < s.columns; ++column) {
      const Index start = column - s.sideways;  // the dendrite that the first tap reaches
      const Index first = std::max<Index>(0, -start) * s.rows / kLanes<Real> * kLanes<Real>;
      const Index end = std::min(s.across, s.dendrites - start) * s.rows;
      for (Index time = 0; time < s.taps_in_time; ++time)
        for (Index n = first; n < end; n += kLanes<Real>)
          run(time * s.numbers() + column * s.line + n, time * s.branches * s.line + n,
              kLanes<Real> + start * s.rows + n);
    }
  }

  const Sizes& s;
  const Index met_line_;
  std::vector<Real> packed_, grad_;
  std::vector<Real> met_, to_met_;    // the weight that each row meets by a branch
  std::vector<Real> taps_, to_taps_;  // repeated over the rows
};
