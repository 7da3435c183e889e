"""One row of a comparison as plain data, and the sentences that summarise the rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

from neuroconv.flops.record import Amounts

Currency = Literal["parameters", "mac_wired", "mac_executed", "axons", "wires"]
# What a model costs for one image: fields of an `Entry`, and what they are called.
CURRENCIES: dict[Currency, str] = {
    "parameters": "parameters",
    "mac_wired": "multiply-adds, wired",
    "mac_executed": "multiply-adds, executed",
    "axons": "axons",
    "wires": "wires",
}
MAIN: tuple[Currency, ...] = ("parameters", "mac_executed", "axons")  # which charts show


@dataclass(frozen=True)
class DendriteCost:
    """Multiply-adds of the dendrites, for one dendritic neuron and one image."""

    essay: float  # synapses x time steps x taps
    direct: float  # a direct convolution of the sheet, padding zeros counted
    executed: float  # the algorithm that ran
    zeros: float = 0  # of executed, with weights off the wiring


@dataclass(frozen=True, kw_only=True)
class Entry(Amounts):
    """One model of a comparison. Means and intervals of 95 % are over the seeds that finished."""

    label: str  # its name in tables and plots
    name: str  # its name in the zoo
    neurons: int  # per image, a unit at a position counted as one
    mac_per_neuron: float | None  # multiply-adds for one image over neurons; None without neurons
    mflop_per_image: float  # 1e6 FLOP for one image, one frame window; a multiply-add is two FLOP
    counters: tuple[str, ...]  # names of the counters that ran
    counter_remarks: tuple[str, ...]  # which of them differ, or did not run
    dendrites: DendriteCost | None
    accuracies: Mapping[int, float]  # on the test set, in [0, 1], by seed
    mean: float | None  # None if no seed finished
    half_width: float | None  # of the mean's interval; None for a single seed
    # Of accuracy to the first entry, paired by seed; None for the first, and without a pair.
    difference: float | None
    difference_half_width: float | None
    seconds_per_epoch: float | None  # mean over seeds
    # Of the search: learning_rate, weight_decay, val_accuracy (None if a seed failed).
    trials: Sequence[Mapping[str, Any]] = ()
    # For each seed a record per epoch: epoch, train_loss, val_loss, train_accuracy, val_accuracy.
    histories: Sequence[Sequence[Mapping[str, Any]]]
    filters: Sequence[tuple[str, NDArray[Any]]] = ()  # (title, weights) for `dendritic_filters`
    failures: Mapping[int, str] = field(default_factory=dict)  # why training failed, by seed
    failed_histories: Sequence[Sequence[Mapping[str, Any]]] = ()  # up to the failures
    pairs: int | None = None  # seeds behind the difference
    p: float | None = None  # that of a true difference of zero, not corrected for their number
    verdict: str | None = None  # on the difference: see `comparison.statistics.verdict`
    primary: bool = False  # whether this comparison was named beforehand as the one that counts
    settings: Mapping[str, Any] = field(default_factory=dict)  # of [train], as the model has them

    @property
    def title(self) -> str:
        """The label, with the number of seeds that failed, if any did."""
        failed = len(self.failures)
        seeds = f"{len(self.accuracies)} of {_seeds(len(self.accuracies) + failed)}"
        return f"{self.label} ({seeds}, {failed} failed)" if failed else self.label


def findings(entries: Sequence[Entry], linear_accuracy: float | None) -> list[str]:
    """Returns the sentences on a comparison: what won, what failed, what beat the linear one."""
    failures = [
        f"{entry.label}, seed {seed} failed: {reason}."
        for entry in entries
        for seed, reason in entry.failures.items()
    ]
    linear = [] if linear_accuracy is None else [against_linear(entries, linear_accuracy)]
    return [*verdicts(entries), finding(entries), *failures, *linear]


def verdicts(entries: Sequence[Entry]) -> list[str]:
    """Returns sentences on what was found against the first entry.

    First the comparison that was named beforehand, if there is one; the others by their verdict.
    """
    first, *others = entries
    sentences = []
    for entry in (other for other in others if other.primary and other.difference is not None):
        difference, half = 100 * (entry.difference or 0), 100 * (entry.difference_half_width or 0)
        costs = (
            f"{_ratio(amount / base)} times its {CURRENCIES[key].partition(',')[0]}"
            for key in MAIN
            if (amount := getattr(entry, key)) and (base := getattr(first, key))
        )
        sentences.append(
            f"The comparison that was named beforehand: {entry.title} against {first.title} is "
            f"{entry.verdict}, {difference:+.2f} points (95 % interval {difference - half:+.2f} to "
            f"{difference + half:+.2f}, p = {entry.p or 0:.2g}), with {', '.join(costs)}."
        )
    groups: dict[str, list[str]] = {}
    for entry in others:
        if entry.verdict and not entry.primary:
            groups.setdefault(entry.verdict, []).append(entry.label)
    if groups:
        start = "The others are" if sentences else f"All comparisons with {first.title} are"
        rows = (f"{verdict.capitalize()}: {', '.join(names)}." for verdict, names in groups.items())
        sentences.append(
            f"{start} exploratory, and not corrected for their number. {' '.join(rows)}"
        )
    return sentences


def finding(entries: Sequence[Entry]) -> str:
    """Returns one sentence: the best mean, its cost, and whether the seeds tell it apart.

    The best model is compared with the first entry; if it is the first, or if that has no mean,
    with the runner-up.
    """
    first, *others = entries
    ranked = sorted(scored(entries), key=lambda row: -row[0])
    if not ranked:
        return "No seed finished, so that there is no accuracy."
    mean, best = ranked[0]
    if len(ranked) == 1:
        rest = "no other model finished a seed" if others else "it was compared with nothing"
        return f"{best.title} reaches {percent(mean)}; {rest}."
    second, rival = ranked[1] if best is first or first.mean is None else (first.mean, first)
    paired, sign = (rival, -1) if best is first else (best, 1)  # the entry with the difference
    middle, half = paired.difference, paired.difference_half_width
    seeds = _seeds(len(best.accuracies))
    pairs = seeds if paired.pairs is None else _seeds(paired.pairs)
    cost = _cost_ratio(best, rival)
    if mean == second:
        sentence = (
            f"{best.title} and {rival.title} tie in the mean at {percent(mean)} over {seeds}, the "
            f"former for {cost} times the latter's FLOPs"
        )
    else:
        without = "" if best.dendrites else ", which has no dendrites,"
        price = "as many FLOPs" if cost == "1" else f"{cost} times its FLOPs"
        sentence = (
            f"{best.title}{without} is best in the mean with {percent(mean)} over {seeds}, "
            f"{(mean - second) * 100:.2f} points above {rival.title} for {price}"
        )
    if middle is None:
        return f"{sentence}; without a paired difference, this separates nothing."
    if half is None:
        return f"{sentence}; one seed gives no interval, so this separates nothing."
    low, high = sorted((sign * middle - half, sign * middle + half))
    interval = f"{low * 100:+.2f} to {high * 100:+.2f} points"
    over = f", of {pairs}," if best.failures or rival.failures else ","
    if low > 0 or high < 0:
        return f"{sentence}; the paired 95 % interval{over} {interval}, excludes zero."
    return (
        f"{sentence}; the paired 95 % interval{over} {interval}, includes zero: {pairs} do not "
        "tell the two apart."
    )


def against_linear(entries: Sequence[Entry], linear_accuracy: float) -> str:
    """Returns one sentence: which models beat a linear classifier in the mean."""
    above = [entry.label for mean, entry in scored(entries) if mean > linear_accuracy]
    below = [entry.label for mean, entry in scored(entries) if mean <= linear_accuracy]
    none = [entry.label for entry in entries if entry.mean is None]
    score = f"the linear classifier ({percent(linear_accuracy)}) in the mean"
    rest = f"; without a mean: {', '.join(none)}." if none else "."
    if not above:
        return f"{below[0] + ' is not' if len(below) == 1 else 'None is'} above {score}{rest}"
    if not below:
        return f"{above[0] + ' is' if len(above) == 1 else 'All are'} above {score}{rest}"
    return f"Above {score}: {', '.join(above)}; not above it: {', '.join(below)}{rest}"


def counting(entries: Sequence[Entry]) -> list[str]:
    """Returns a sentence for each model whose counts are incomplete or differ, one for the rest."""
    flawed = [entry for entry in entries if entry.counter_remarks or len(entry.counters) < 3]
    sentences = [
        f"{entry.label}: counted by {len(entry.counters)} of 3 counters "
        f"({', '.join(entry.counters)}). {' '.join(entry.counter_remarks)}".rstrip()
        for entry in flawed
    ]
    if len(flawed) < len(entries):
        subject = "Every other model" if flawed else "Every model"
        sentences.append(
            f"{subject} was counted by three counters (the layers' closed form, torch's operators, "
            "fvcore), and they agree on all multiply-adds to the last digit."
        )
    return sentences


def percent(accuracy: float | None, half_width: float | None = None) -> str:
    """Returns an accuracy in per cent, with its interval if there is one; a dash for None."""
    return "–" if accuracy is None else f"{accuracy * 100:.2f}{_interval(half_width)} %"


def points(difference: float | None, half_width: float | None = None) -> str:
    """Returns a difference of accuracies in percentage points; a dash for None."""
    return "–" if difference is None else f"{difference * 100:+.2f}{_interval(half_width)}"


def short(number: float | None) -> str:
    """Returns a number with three digits and k, M or G: 3,524 is 3.52k; a dash for None."""
    if number is None:
        return "–"
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{letter}"
    return f"{number:.3g}"


def _interval(half_width: float | None) -> str:
    return "" if half_width is None else f" ± {half_width * 100:.2f}"


def scored(entries: Sequence[Entry]) -> list[tuple[float, Entry]]:
    """Returns the entries of which a seed finished, with their means."""
    return [(entry.mean, entry) for entry in entries if entry.mean is not None]


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count > 1 else ''}"


def _cost_ratio(best: Entry, rival: Entry) -> str:
    return _ratio(best.mflop_per_image / rival.mflop_per_image)


def _ratio(ratio: float) -> str:
    if 0.9 < ratio < 1.1 and ratio != 1:
        return f"{ratio:.2f}"
    return f"{ratio:.2g}" if ratio < 99.5 else f"{ratio:,.0f}"
