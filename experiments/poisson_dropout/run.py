"""Few images, many steps: what a neuron's waiting periods do for a network that would overfit.

The network is the linear-nonlinear-Poisson cascade and nothing else: two layers of units, each a
weighted sum, a rectifier and the noise of its arm, and a linear readout of the mean over a window
of time steps in which the image stands still. All arms of a seed begin with the same weights and
see the same batches of the same images; the noise differs. Its strength is the mean survival, the
share of a window's steps in which a unit fires: `mean_wait` is solved for it in each mode of
`PoissonDropout`. Bernoulli is ordinary dropout, one draw for the whole window; "independent" is, in
law, Bernoulli dropout with a draw for each step. Gaussian noise has Bernoulli's variance, and one
draw too. Where one draw holds for the window all of its steps are equal, and one is computed.

Each arm's survival and learning rate are chosen on validation images, from seeds of their own: an
arm with more to choose from must not win by having drawn more networks. There is no weight decay
and no early stopping. The learning rate moves the correlation between units by itself: it is set
against that of the same network without noise, trained at the arm's learning rate.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from poisson_network import POISSON, Network, mean_correlation, splits, trained

from neuroconv.comparison import estimate
from neuroconv.essay import Experiment, Interval, Rows
from neuroconv.essay.networks import right
from neuroconv.report.style import COLOURS, INK, MARKERS, STROKES, plain

LABELS = {"bernoulli": "dropout", "gaussian": "Gaussian"} | {m: f"Poisson, {m}" for m in POISSON}
ARMS = ("none", "bernoulli", "gaussian", *POISSON)


@dataclass(frozen=True)
class Size:
    seeds: tuple[int, ...]
    data: str
    images: tuple[int, ...]  # for training
    steps: int  # of gradient descent
    units: int = 128
    batch: int = 50
    window: int = 5  # time steps, the essay's number
    survivals: tuple[float, ...] = (0.9, 0.75, 0.5, 0.25, 0.1)
    rates: tuple[float, ...] = (0.002, 0.006, 0.02)  # of learning
    choosing: int = 3  # seeds by which both are chosen


SIZES = {
    "full": Size(tuple(range(3310, 3322)), "mnist", (300, 1000, 3000), 1500),
    "quick": Size(
        (3305, 3306, 3307), "digits", (300, 1000), 500, survivals=(0.75, 0.5, 0.25),
        rates=(0.002, 0.006), choosing=1,
    ),
    "test": Size((0, 1), "digits", (300, 1000), 2, units=8, survivals=(0.5,), rates=(0.002,)),
}  # fmt: skip


def conditions(size: Size) -> list[dict[str, Any]]:
    return [{"images": count, "arm": arm} for count in size.images for arm in ARMS]


@lru_cache
def best(size: Size, arm: str, images: int) -> tuple[float, float]:
    """Returns the survival and learning rate of the highest mean accuracy on validation images."""
    grid = [*product((1.0,) if arm == "none" else size.survivals, size.rates)]
    seeds = range(size.seeds[0] + 90, size.seeds[0] + 90 + size.choosing)

    def accuracy(setting: tuple[float, float]) -> float:
        networks = [trained(arm, *setting, size, images, seed) for seed in seeds]
        return float(np.mean([right(network, *splits(size.data)[1]) for network in networks]))

    return max(grid, key=accuracy) if len(grid) > 1 else grid[0]


def activity(size: Size, network: Network) -> dict[str, list[float]]:
    """Returns the mean correlation and the share of silent units of both layers, without noise."""
    with torch.no_grad():
        rates = [layer.squeeze(2) for layer in network.rates(splits(size.data)[2][0])]
    return {
        "correlation": [mean_correlation(layer) for layer in rates],
        "silent": [float((layer == 0).all(0).float().mean()) for layer in rates],
    }


@lru_cache
def quiet(size: Size, rate: float, images: int, seed: int) -> list[float]:
    """Returns the mean correlations of a network that was trained without noise at a rate."""
    return activity(size, trained("none", 1.0, rate, size, images, seed))["correlation"]


def measure(size: Size, *, seed: int, folder: Any, images: int, arm: str) -> dict[str, Any]:
    training, _, test = splits(size.data)
    survival, rate = best(size, arm, images)
    network = trained(arm, survival, rate, size, images, seed)
    chosen = torch.randperm(len(training[1]), generator=torch.Generator().manual_seed(seed))[
        :images
    ]
    return {
        "right": right(network, *test), "survival": survival, "rate": rate,
        "training_accuracy": right(network, training[0][chosen], training[1][chosen]).mean(),
        "quiet_correlation": quiet(size, rate, images, seed), **activity(size, network),
    }  # fmt: skip


def difference(rows: Rows, first: str, second: str, images: int) -> NDArray[np.float64]:
    """Returns by how much the first arm is right where the second is not, (S, N)."""
    flags = (rows.values("right", arm=arm, images=images) for arm in (first, second))
    return np.subtract(*(values.astype(np.float64) for values in flags))


def decoupled(rows: Rows, arm: str, images: int) -> NDArray[np.float64]:
    """Returns by what share the mean correlation is below that without noise at its rate, (S,)."""
    with_noise, without = (
        rows.values(key, arm=arm, images=images).mean(1)
        for key in ("correlation", "quiet_correlation")
    )
    share: NDArray[np.float64] = 1 - with_noise / without
    return share


def counts(rows: Rows) -> list[int]:
    return sorted({row["images"] for row in rows})


def quantities(rows: Rows) -> dict[str, Interval]:
    pairs = [difference(rows, "wait", "bernoulli", count) for count in counts(rows)]
    return {
        "gain_300": Interval.of(estimate(difference(rows, "wait", "none", 300)), 100),
        "gain_1000": Interval.of(estimate(difference(rows, "wait", "none", 1000)), 100),
        "opponent": Interval.of(estimate(np.mean(pairs, 0)), 100),
        "decoupling": Interval.of(estimate(decoupled(rows, "wait", 1000)), 100),
    }


def tables(rows: Rows) -> str:
    lines = [
        "| training images | noise | test accuracy, % | points over none | survival | "
        "learning rate | training accuracy, % | mean correlation, layer 1, 2 | without noise at "
        "this rate | never active, % |",
        "|---:|---|---:|---:|---:|---:|---:|---|---|---:|",
    ]
    for count in counts(rows):
        for arm in ARMS:
            these = {"arm": arm, "images": count}
            gain = Interval.of(estimate(difference(rows, arm, "none", count)), 100)
            means = [rows.values(f"{k}correlation", **these).mean(0) for k in ("", "quiet_")]
            correlation = " | ".join(f"{first:.3f}, {second:.3f}" for first, second in means)
            row = rows.where(**these)[0]
            lines.append(
                f"| {count} | {arm} | {100 * rows.values('right', **these).mean():.2f} "
                f"| {gain:+.2f} "
                f"| {row['survival']:g} | {row['rate']:g} "
                f"| {100 * rows.values('training_accuracy', **these).mean():.1f} "
                f"| {correlation} | {100 * rows.values('silent', **these).mean():.1f} |"
            )
    return "\n".join(lines)


def draw(rows: Rows) -> Figure:
    figure, (gains, coupling) = plt.subplots(1, 2, figsize=(7.4, 4), layout="constrained")
    xs = np.arange(len(counts(rows)))
    for number, arm in enumerate(ARMS[1:]):
        parts = (
            (gains, [estimate(difference(rows, arm, "none", count)) for count in counts(rows)]),
            (coupling, [estimate(decoupled(rows, arm, count)) for count in counts(rows)]),
        )
        for axes, values in parts:
            axes.errorbar(
                xs + (number - 2) * 0.09, [100 * value.mean for value in values],
                [100 * value.half_width for value in values], label=LABELS[arm],
                color=COLOURS[number], marker=MARKERS[number], ls=STROKES[number],
                lw=1.2, capsize=2, ms=6,
            )  # fmt: skip
    titles = ("Test accuracy, points over none", "Correlation, % below none at the same rate")
    for axes, title in zip((gains, coupling), titles, strict=True):
        axes.axhline(0, color=INK, lw=1)
        axes.set_title(title, fontsize=10, color=INK)
        axes.set_xticks(xs, [f"{count:,}" for count in counts(rows)])
        axes.set_xlabel("training images")
        plain(axes)
    figure.legend(
        *gains.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9
    )
    return figure


EXPERIMENT = Experiment(__file__, SIZES, conditions, measure, quantities, draw, tables)

if __name__ == "__main__":
    EXPERIMENT.main()
