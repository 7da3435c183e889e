// The taps of a small tree, packed for one neuron at a time as the kernels read them: the taps by
// which an input acts on the sites of a dendrite are contiguous, and zero where it does not act.
//
// Shapes: K_T taps in time, K_P x K_D on the sheet of P sites and D dendrites; C output dendrites
// (columns) of R sites (rows).

#pragma once

#include <algorithm>
#include <vector>

#include "vectors.h"

// The sizes and strides that `neuroconv.kernels.native.Trees` passes, in its order. Strides count
// numbers.
struct Sizes {
  Index neurons, total_neurons;  // of this call; of the outputs' arrays, (steps, neurons, ...)
  Index samples, steps, time_taps, inputs, columns, rows;  // B', T, K_T, A, C, R
  Index line;  // packed taps: of one of the K_D on a sheet, of a column in a claw
  Index step_stride, sample_stride;                  // of the source that inputs are gathered from
  Index valid_samples;                               // B: the rest are padding
  Index first_step;                                  // the first step that is computed
  Index neuron_stride, index_stride;                 // of the source, and of the index into it
  Index sites, dendrites, site_taps, dendrite_taps;  // P, D, K_P, K_D
  Index before, sideways;  // sites and dendrites by which a filter starts before its output
  Index claw;              // inputs end on all sites of a dendrite instead of on one site
  Index synapses;          // of a neuron; 0 without weights

  Index outputs() const { return columns * rows; }
  Index out_steps() const { return steps - first_step; }
  // Packed taps of one step in time: lines, and a last line of zeros.
  Index packed_size() const { return ((claw ? columns : dendrite_taps) + 1) * line; }
  // Consecutive inputs that end on the same dendrite.
  Index inputs_per_dendrite() const { return claw ? 1 : sites; }
};

// One neuron's packed taps, (K_T, lines, line). The last line is zero: the taps of dendrites that a
// filter does not cover.
//
// On a sheet, a line is one tap across the dendrites: its K_P taps along the sites, reversed and
// between zeros, so that site p acts on row r by element P - 1 - p + r.
//
// In a claw, a line is one column's, (K_D, R). An input ends on all sites of its dendrite, each
// with its own weight, so weights and taps are merged: the element of row r is the sum over the
// taps along the sites of tap times the weight of the synapse at the site that it covers.
template <typename Real>
class Taps {
 public:
  // Allocates memory, with `needs_grad` also for the gradients.
  Taps(const Sizes& sizes, bool needs_grad)
      : s(sizes),
        unfolded_line_(s.dendrites * s.rows + 2 * kLanes<Real>),
        packed_(s.time_taps * s.packed_size()),
        grad_packed_(needs_grad ? packed_.size() : 0) {
    if (!s.claw) return;
    unfolded_.resize(s.site_taps * unfolded_line_);
    repeated_.resize(s.time_taps * s.site_taps * s.line);
    if (needs_grad)
      grad_unfolded_.resize(unfolded_.size()), grad_repeated_.resize(repeated_.size());
  }

  const Real* packed() const { return packed_.data(); }
  // The gradients of the packed taps, to which the caller adds after `zero_grad`.
  Real* grad() { return grad_packed_.data(); }
  void zero_grad() { std::fill(grad_packed_.begin(), grad_packed_.end(), Real(0)); }

  // Packs filters (K_T, K_P, K_D); in a claw, merged with the weights of the synapses.
  void pack(const Real* filter, const Real* weight) {
    if (!s.claw)
      return for_each_sheet_tap([&](Index tap, Index index) { packed_[index] = filter[tap]; });
    for_each_claw_tap(
        [&](Index tap, Index index) { std::fill_n(&repeated_[index], s.rows, filter[tap]); });
    for_each_unfolded([&](Index synapse, Index index) { unfolded_[index] = weight[synapse]; });
    for_each_claw_vector([&](Index packed, Index repeated, Index unfolded) {
      Vector<Real> sum = {};
      for (Index tap = 0; tap < s.site_taps; ++tap)
        sum += load(&repeated_[repeated + tap * s.line]) *
               load(&unfolded_[unfolded + tap * unfolded_line_]);
      store<Real>(&packed_[packed], sum);
    });
  }

  // Writes the gradients of filters, (K_T, K_P, K_D), and in a claw of weights, (synapses), that
  // follow from `grad`. Either may be null.
  void unpack_grad(Real* grad_filter, Real* grad_weight) {
    if (grad_filter) std::fill_n(grad_filter, s.time_taps * s.site_taps * s.dendrite_taps, Real(0));
    if (!s.claw) {
      if (grad_filter)
        for_each_sheet_tap([&](Index tap, Index index) { grad_filter[tap] = grad_packed_[index]; });
      return;
    }
    std::fill(grad_repeated_.begin(), grad_repeated_.end(), Real(0));
    std::fill(grad_unfolded_.begin(), grad_unfolded_.end(), Real(0));
    for_each_claw_vector([&](Index packed, Index repeated, Index unfolded) {
      const Vector<Real> grad = load(&grad_packed_[packed]);
      for (Index tap = 0; tap < s.site_taps; ++tap) {
        add(&grad_repeated_[repeated + tap * s.line],
            grad * load(&unfolded_[unfolded + tap * unfolded_line_]));
        add(&grad_unfolded_[unfolded + tap * unfolded_line_],
            grad * load(&repeated_[repeated + tap * s.line]));
      }
    });
    if (grad_filter)
      for_each_claw_tap([&](Index tap, Index index) {
        for (Index row = 0; row < s.rows; ++row) grad_filter[tap] += grad_repeated_[index + row];
      });
    if (!grad_weight) return;
    std::fill_n(grad_weight, s.synapses, Real(0));
    for_each_unfolded(
        [&](Index synapse, Index index) { grad_weight[synapse] += grad_unfolded_[index]; });
  }

 private:
  static void add(Real* out, Vector<Real> values) { store<Real>(out, load(out) + values); }

  // On a sheet, calls `body(index of the tap, its index in packed_)`.
  template <typename Body>
  void for_each_sheet_tap(Body body) const {
    for (Index time = 0; time < s.time_taps; ++time)
      for (Index tap = 0; tap < s.site_taps; ++tap) {
        const Index element = s.sites - 1 + s.before - tap;
        if (element < 0 || element >= s.line) continue;  // no input of the sheet meets this tap
        for (Index across = 0; across < s.dendrite_taps; ++across)
          body((time * s.site_taps + tap) * s.dendrite_taps + across,
               (time * (s.dendrite_taps + 1) + across) * s.line + element);
      }
  }

  // In a claw, calls `body(index of the tap, index of its first copy in repeated_)`.
  template <typename Body>
  void for_each_claw_tap(Body body) const {
    for (Index tap = 0; tap < s.time_taps * s.site_taps; ++tap)
      for (Index across = 0; across < s.dendrite_taps; ++across)
        body(tap * s.dendrite_taps + across, tap * s.line + across * s.rows);
  }

  // In a claw, calls `body(synapse, its index in unfolded_)` for each row and tap along the sites
  // that covers the synapse.
  template <typename Body>
  void for_each_unfolded(Body body) const {
    for (Index tap = 0; tap < s.site_taps; ++tap)
      for (Index row = 0; row < s.rows; ++row) {
        const Index site = row + tap - s.before;
        if (site < 0 || site >= s.sites) continue;
        for (Index synapse = site; synapse < s.synapses; synapse += s.sites)
          body(synapse, tap * unfolded_line_ + kLanes<Real> + synapse / s.sites * s.rows + row);
      }
  }

  // In a claw, calls `body(index in packed_, in repeated_, in unfolded_)` for each vector; the
  // latter two are those of the first tap along the sites. Where a vector extends beyond the first
  // or last dendrite, one of the factors is zero, and so is the gradient.
  template <typename Body>
  void for_each_claw_vector(Body body) const {
    for (Index column = 0; column < s.columns; ++column) {
      const Index dendrite = column - s.sideways;  // covered by the first tap across
      const Index first = std::max<Index>(0, -dendrite) * s.rows / kLanes<Real> * kLanes<Real>;
      const Index end = std::min(s.dendrite_taps, s.dendrites - dendrite) * s.rows;
      for (Index time = 0; time < s.time_taps; ++time)
        for (Index n = first; n < end; n += kLanes<Real>)
          body(time * s.packed_size() + column * s.line + n, time * s.site_taps * s.line + n,
               kLanes<Real> + dendrite * s.rows + n);
    }
  }

  const Sizes& s;
  const Index unfolded_line_;
  std::vector<Real> packed_, grad_packed_;
  // (K_P, D * R): the weight that each row meets at each tap along the sites, with a vector of
  // zeros before and after the dendrites.
  std::vector<Real> unfolded_, grad_unfolded_;
  // (K_T, K_P, line): the taps, each repeated over the rows.
  std::vector<Real> repeated_, grad_repeated_;
};
