"""One row of a comparison as plain data, and the sentences that summarise the rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class DendriteCost:
    """Multiply-adds of the dendrites, for one dendritic neuron and one image."""

    essay: float  # synapses x time steps x taps
    direct: float  # a direct convolution of the sheet, padding zeros counted
    executed: float  # the algorithm that ran
    zeros: float = 0  # of executed, with weights off the wiring


@dataclass(frozen=True)
class Entry:
    """One model of a comparison. Intervals are of 95 %, over seeds."""

    label: str  # its name in tables and plots
    name: str  # its name in the zoo
    parameters: int
    neurons: int  # per image, a unit at a position counted as one
    mac_per_neuron: float | None  # multiply-adds for one image over neurons; None without neurons
    mflop_per_image: float  # 1e6 FLOP for one image, one frame window; a multiply-add is two FLOP
    counters: tuple[str, ...]  # names of the counters that ran
    counter_remarks: tuple[str, ...]  # which of them differ, or did not run
    dendrites: DendriteCost | None
    accuracies: Mapping[int, float]  # on the test set, in [0, 1], by seed; every entry has the same
    mean: float
    half_width: float | None  # of the mean's interval; None for a single seed
    difference: float | None  # of accuracy to the first entry, paired by seed; None for the first
    difference_half_width: float | None
    seconds_per_epoch: float  # mean over seeds
    # For each seed a record per epoch: epoch, train_loss, val_loss, train_accuracy, val_accuracy.
    histories: Sequence[Sequence[Mapping[str, Any]]]
    filters: Sequence[tuple[str, NDArray[Any]]] = ()  # (title, weights) for `dendritic_filters`


def finding(entries: Sequence[Entry]) -> str:
    """Returns one sentence: the best mean, its cost, and whether the seeds tell it apart.

    The best model is compared with the first entry; if it is the first, with the runner-up.
    """
    first, *others = entries
    if not others:
        return f"{first.label} reaches {percent(first.mean)}; it was compared with nothing."
    best = max(entries, key=lambda entry: entry.mean)
    rival = max(others, key=lambda entry: entry.mean) if best is first else first
    paired = rival if best is first else best  # the entry with the paired difference
    assert paired.difference is not None  # every entry but the first has one
    cost = _cost_ratio(best, rival)
    if best.mean == rival.mean:
        sentence = (
            f"{best.label} and {rival.label} tie in the mean at {percent(best.mean)} over "
            f"{_seeds(best)}, the former for {cost} times the latter's FLOPs"
        )
    else:
        without = "" if best.dendrites else ", which has no dendrites,"
        price = "as many FLOPs" if cost == "1" else f"{cost} times its FLOPs"
        sentence = (
            f"{best.label}{without} is best in the mean with {percent(best.mean)} over "
            f"{_seeds(best)}, {abs(paired.difference) * 100:.2f} points above {rival.label} for "
            f"{price}"
        )
    if paired.difference_half_width is None:
        return f"{sentence}; one seed gives no interval, so this separates nothing."
    middle, half = abs(paired.difference), paired.difference_half_width
    interval = f"{(middle - half) * 100:+.2f} to {(middle + half) * 100:+.2f} points"
    if middle - half > 0:
        return f"{sentence}; the paired 95 % interval, {interval}, excludes zero."
    return (
        f"{sentence}; the paired 95 % interval, {interval}, includes zero: {_seeds(best)} do not "
        "tell the two apart."
    )


def against_linear(entries: Sequence[Entry], linear_accuracy: float) -> str:
    """Returns one sentence: which models beat a linear classifier in the mean."""
    above = [entry.label for entry in entries if entry.mean > linear_accuracy]
    below = [entry.label for entry in entries if entry.mean <= linear_accuracy]
    score = f"the linear classifier ({percent(linear_accuracy)})"
    if not below:
        return f"{'All are' if len(above) > 1 else above[0] + ' is'} above {score} in the mean."
    if not above:
        return f"{'None is' if len(below) > 1 else below[0] + ' is not'} above {score} in the mean."
    return f"Above {score} in the mean: {', '.join(above)}; not above it: {', '.join(below)}."


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


def percent(accuracy: float, half_width: float | None = None) -> str:
    """Returns an accuracy in per cent, with its interval if there is one."""
    interval = "" if half_width is None else f" ± {half_width * 100:.2f}"
    return f"{accuracy * 100:.2f}{interval} %"


def points(difference: float | None, half_width: float | None = None) -> str:
    """Returns a difference of accuracies in percentage points; a dash for None."""
    if difference is None:
        return "–"
    interval = "" if half_width is None else f" ± {half_width * 100:.2f}"
    return f"{difference * 100:+.2f}{interval}"


def _seeds(entry: Entry) -> str:
    return f"{len(entry.accuracies)} seed{'s' if len(entry.accuracies) > 1 else ''}"


def _cost_ratio(best: Entry, rival: Entry) -> str:
    ratio = best.mflop_per_image / rival.mflop_per_image
    if 0.9 < ratio < 1.1 and ratio != 1:
        return f"{ratio:.2f}"
    return f"{ratio:.2g}" if ratio < 99.5 else f"{ratio:,.0f}"
