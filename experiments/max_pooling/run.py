"""Whether dendritic spikes do what max-pooling does, for the responses and for moved images.

A spike lifts the positions around a maximum towards it and keeps the size; max-pooling leaves
positions out too. All arms are one network that leaves out every other position after each layer,
and differ in what comes before. Spikes lift the dendrites' potentials, before the rectifier and the
sum over four dendrites; max- and average-pooling take the unit's rates. All have windows of 3 x 3.
Full pull is the most that a spike can do, and almost max-pooling by construction; the essay's
neighbours come close to the maximum and are not overwritten, which is half pull. Digits stand in
the middle of what is learned; test images are moved. Each arm's learning rate is the best on
validation images that are not moved.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pooling import Network, correlation, framed, perturbations, selectivity
from torch import Tensor

from neuroconv.comparison import estimate
from neuroconv.data import load_data
from neuroconv.essay import Experiment, Interval, Rows
from neuroconv.essay.networks import Split, best_rate, fit, passes
from neuroconv.report.style import COLOURS, MARKERS, STROKES, plain

OTHERS = {"column": "spike, pull 1, along a dendrite alone", "max": "max-pooling",
          "average": "average-pooling"}  # fmt: skip
Arm = tuple[str, float, str]  # pooling, pull, signal


@dataclass(frozen=True)
class Size:
    seeds: tuple[int, ...]
    data: str
    train: int
    test: int
    epochs: int
    search_epochs: int  # for each learning rate
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    pulls: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0)
    widths: tuple[int, int] = (8, 16)


SIZES = {
    "full": Size(tuple(range(3200, 3208)), "mnist", 3000, 1500, 5, 2),
    "quick": Size((3208, 3209, 3210), "digits", 450, 360, 7, 7, (0.003, 0.01), (0.0, 0.5, 1.0)),
    "test": Size((0, 1), "digits", 10, 6, 1, 1, (0.01,), (0.0, 0.5, 1.0), (2, 2)),
}


@lru_cache(maxsize=1)
def data(size: Size) -> tuple[Split, Split, dict[str, Tensor], Tensor]:
    """Returns training and validation data, the moved test images, and their labels."""
    splits = load_data(size.data, encoding="none", train_limit=size.train)
    limits = (splits.train, size.train), (splits.val, size.train), (splits.test, size.test)
    train, val, (images, labels) = (framed(*part) for part in limits)
    return train, val, dict(perturbations(images)), labels


def train(size: Size, seed: int, epochs: int, rate: float, arm: Arm) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(size.widths, *arm)
    images, order = data(size)[0], torch.Generator().manual_seed(seed)
    batches = passes(len(images[1]), 25, epochs, order)
    fit(network, images, batches, torch.optim.AdamW(network.parameters(), rate, fused=True))
    return network.eval()


@lru_cache
def rate_of(size: Size, arm: Arm) -> float:
    """Returns the learning rate that is best on validation images, from a seed of its own."""
    if len(size.rates) == 1:
        return size.rates[0]
    trial = partial(train, size, size.seeds[0] + 90, size.search_epochs, arm=arm)
    return best_rate(size.rates, trial, data(size)[1])


def conditions(size: Size) -> list[dict[str, Any]]:
    arms = [("spike", pull, signal) for signal in ("max", "essay") for pull in size.pulls]
    arms += [(pooling, 1.0, "max") for pooling in OTHERS]
    return [dict(zip(("pooling", "pull", "signal"), arm, strict=True)) for arm in arms]


def measure(
    size: Size, *, seed: int, folder: Any, pooling: str, pull: float, signal: str
) -> dict[str, Any]:
    arm = pooling, pull, signal
    rate = rate_of(size, arm)
    network = train(size, seed, size.epochs, rate, arm)
    *_, images, labels = data(size)
    with torch.no_grad():
        batches = torch.cat([*images.values()]).split(2000)
        answers = torch.cat([network(batch).argmax(1) for batch in batches]).view(len(images), -1)
        still = images["still"][:500]
        plain = network.responses(still, spikes=False)
        pooled = F.max_pool2d(plain, 3, 1, 1)
        return {
            **dict(zip(images, (answers == labels).numpy(), strict=True)),
            "learning_rate": rate,
            "correlation": correlation(network.pool(network.responses(still)), pooled),
            "correlation_without": correlation(plain, pooled),
            "selectivity": selectivity(network, spikes=True),
            "selectivity_without": selectivity(network, spikes=False),
        }


def arm(pooling: str, pull: float = 1.0, signal: str = "max") -> dict[str, Any]:
    return {"pooling": pooling, "pull": pull, "signal": signal}


def accuracy(rows: Rows, movement: str, condition: dict[str, Any]) -> NDArray[Any]:
    """Returns the share of right answers by seed and image, (S, N), over kinds of movement."""
    keys = [key for key in rows[0] if key.split("_")[0] in movement.split()]
    return np.mean([rows.values(key, **condition) for key in keys], axis=0)


def quantities(rows: Rows) -> dict[str, Interval]:
    spike, none, essay = arm("spike"), arm("spike", 0.0), arm("spike", signal="essay")
    arms = {"spike": spike, "none": none, "max": arm("max"), "essay": essay}
    arms |= {"half": arm("spike", 0.5), "average": arm("average")}
    shifted = {name: accuracy(rows, "shift", condition) for name, condition in arms.items()}
    values = {
        "shifts": shifted["spike"] - shifted["none"],
        "turns_and_scales": accuracy(rows, "rotate scale", spike)
        - accuracy(rows, "rotate scale", none),
        "pooling": shifted["max"] - shifted["none"],
        "average": shifted["spike"] - shifted["average"],
        "max_pooling": shifted["spike"] - shifted["max"],
        "half_pull": shifted["half"] - shifted["max"],
        "signal": shifted["essay"] - shifted["spike"],
    }
    return {name: Interval.of(estimate(value), 100) for name, value in values.items()}


def mean(rows: Rows, movement: str, condition: dict[str, Any]) -> Interval:
    return Interval.of(estimate(accuracy(rows, movement, condition)), 100)


def tables(rows: Rows) -> str:
    lines = [
        "Accuracy in %; correlation of the first layer's responses with max-pooling's and their "
        "selectivity for orientation (0 to 1), in brackets in the same network without its spikes:",
        "",
        "| arm | learning rate | still | shifted | turned | scaled | correlation | selectivity |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for condition in {tuple(row[key] for key in arm("")): None for row in rows}:
        kind = arm(*condition)
        cells = [
            OTHERS.get(kind["pooling"], "spike, pull {pull:g}, signal {signal}".format(**kind))
        ]
        cells.append(f"{rows.values('learning_rate', **kind)[0]:g}")
        for movement in ("still", "shift", "rotate", "scale"):
            cells.append(f"{mean(rows, movement, kind):.1f}")
        for key in ("correlation", "selectivity"):
            with_, without = (rows.values(k, **kind).mean() for k in (key, f"{key}_without"))
            cells.append(f"{with_:.2f} ({without:.2f})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: Rows) -> Figure:
    figure, axes = plt.subplots(figsize=(7.4, 4.2), layout="constrained")
    pulls = sorted({row["pull"] for row in rows})
    series = [
        ("spikes, the formula's gradient", [arm("spike", pull) for pull in pulls]),
        ("spikes, the essay's learning signal", [arm("spike", pull, "essay") for pull in pulls]),
        ("true max-pooling", [arm("max")]),
        ("average-pooling", [arm("average")]),
    ]
    for number, (label, arms) in enumerate(series):
        points = [mean(rows, "shift", condition) for condition in arms]
        x = np.array(pulls if len(arms) > 1 else [1.06]) + 0.012 * number
        style = {"color": COLOURS[number], "ls": STROKES[number]}
        axes.errorbar(
            x, [point.value for point in points], [p.high - p.value for p in points],
            marker=MARKERS[number], capsize=3, label=label, **style,
        )  # fmt: skip
        if len(arms) == 1:
            axes.axhline(points[0].value, alpha=0.6, **style)
    axes.set(xlabel="pull: 0 leaves neighbours alone, 1 lifts them to the maximum", xticks=pulls)
    axes.set_ylabel("accuracy, shifts of 1 to 4 pixels, %")
    plain(axes)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure


EXPERIMENT = Experiment(__file__, SIZES, conditions, measure, quantities, draw, tables)

if __name__ == "__main__":
    EXPERIMENT.main()
