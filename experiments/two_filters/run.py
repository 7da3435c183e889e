"""Whether filters along branches and then along dendrites are one 3 x 4 filter, and the reverse.

A network's granule cells have filters of 3 branches x 4 dendrites, either free or the product of a
filter along the branches and one along the dendrites ("two": rank 1, as two linear convolutions one
after the other are). Between branches and dendrites there is nothing, a rectifier in each dendrite,
or a dendritic spike; with nothing a cell is one convolution and the rectifier of its soma. All arms
of a seed start from the same taps, for "two" the nearest of rank 1 at the same norm; each arm's
learning rate is the best on validation images.

How far a layer is from a convolution is measured by the best one: a ridge regression of what its
dendrites send to the soma on all pixels that the cell sees with spikes, 7 x 4 of them.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from separable import Network, composition_error, first_pair, nonlinear_shares

from neuroconv.comparison import estimate
from neuroconv.data import load_data
from neuroconv.essay import Experiment, Interval, Rows
from neuroconv.essay.networks import Split, best_rate, fit, passes, right
from neuroconv.report.style import COLOURS, MARKERS, plain

FILTERS = {"one": "one free 3 x 4 filter", "two": "two filters, 3 x 1 and 1 x 4"}
BETWEEN = ("nothing", "rectifier", "spike")


@dataclass(frozen=True)
class Size:
    seeds: tuple[int, ...]
    data: str
    train: int
    test: int
    epochs: int
    search_epochs: int  # for each learning rate
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    widths: tuple[int, int] = (8, 16)


SIZES = {
    "full": Size(tuple(range(3800, 3808)), "mnist", 4000, 10000, 5, 2),
    "quick": Size((3808, 3809, 3810), "digits", 1000, 360, 6, 3, (0.003, 0.01)),
    "test": Size((0, 1), "digits", 10, 6, 1, 1, (0.01,), (2, 2)),
}


@lru_cache(maxsize=1)
def data(size: Size) -> tuple[Split, ...]:
    """Returns images (N, 1, 28, 28), and labels (N,), for training, validation and test."""
    splits = load_data(size.data, encoding="none", image_size=28, train_limit=size.train)
    limits = (splits.train, size.train), (splits.val, size.train), (splits.test, size.test)
    batches = (part.batch(range(min(limit, len(part)))) for part, limit in limits)
    return tuple((batch[0], batch[1]) for batch in batches)


def train(size: Size, seed: int, epochs: int, rate: float, arm: tuple[str, str]) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(size.widths, *arm)
    images, order = data(size)[0], torch.Generator().manual_seed(seed)
    batches = passes(len(images[1]), 50, epochs, order)
    fit(network, images, batches, torch.optim.AdamW(network.parameters(), rate, fused=True))
    return network.eval()


@lru_cache
def rate_of(size: Size, arm: tuple[str, str]) -> float:
    """Returns the learning rate that is best on validation images, from a seed of its own."""
    if len(size.rates) == 1:
        return size.rates[0]
    trial = partial(train, size, size.seeds[0] + 90, size.search_epochs, arm=arm)
    return best_rate(size.rates, trial, data(size)[1])


def conditions(size: Size) -> list[dict[str, Any]]:
    return [{"filters": f, "between": b} for f in FILTERS for b in BETWEEN]


def measure(size: Size, *, seed: int, folder: Any, filters: str, between: str) -> dict[str, Any]:
    rate = rate_of(size, (filters, between))
    network = train(size, seed, size.epochs, rate, (filters, between))
    (fitted, _), _, (tested, labels) = data(size)
    random = torch.randn(4096, 3, 4, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        values = {
            "right": right(network, tested, labels),
            "learning_rate": rate,
            "parameters": sum(p.numel() for p in network.parameters()),
            "first_pair": [first_pair(cell.weight).mean().item() for cell in network.cells],
            "first_pair_random": first_pair(random).mean().item(),
            "nonlinear": nonlinear_shares(network, fitted[:500], tested[:500]),
        }
    if filters == "two":
        values["composition_error"] = composition_error(network.cells[0], tested[:50])
    return values


def answers(rows: Rows, filters: str, between: str) -> NDArray[Any]:
    return rows.values("right", filters=filters, between=between).astype(float)


def quantities(rows: Rows) -> dict[str, Interval]:
    errors = rows.values("composition_error", filters="two", between="nothing")
    differences = {
        "reverse": answers(rows, "two", "nothing") - answers(rows, "one", "nothing"),
        "spike": rows.values("nonlinear", filters="two", between="spike").mean(1),
        "worth": answers(rows, "two", "spike") - answers(rows, "two", "nothing"),
    }
    return {
        "composition": Interval(errors.mean(), errors.min(), errors.max(), len(errors)),
        **{name: Interval.of(estimate(value), 100) for name, value in differences.items()},
    }


def tables(rows: Rows) -> str:
    share = 100 * np.mean([row["first_pair_random"] for row in rows])
    lines = [
        "Beyond: the variance of each layer that the best linear filter misses. "
        f"First pair: its share of filters' squared norm, {share:.1f} % if drawn.",
        "",
        "| filters | between | parameters | rate | accuracy, % | beyond, % | first pair, % |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for kind in conditions(SIZES["full"]):
        accuracy = Interval.of(estimate(answers(rows, **kind)), 100)
        cells = [
            FILTERS[kind["filters"]], kind["between"],
            f"{rows.values('parameters', **kind)[0]:,}",
            f"{rows.values('learning_rate', **kind)[0]:g}",
            f"{accuracy:.1f}",
            *(", ".join(f"{100 * share:.1f}" for share in rows.values(key, **kind).mean(0))
              for key in ("nonlinear", "first_pair")),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: Rows) -> Figure:
    figure, panels = plt.subplots(1, 2, figsize=(7.4, 3.8), layout="constrained")
    for axes, key, label in zip(
        panels, ("nonlinear", "right"),
        ("variance beyond any convolution, %", "test accuracy, %"), strict=True,
    ):  # fmt: skip
        for number, (filters, name) in enumerate(FILTERS.items()):
            values = [rows.values(key, filters=filters, between=b).astype(float) for b in BETWEEN]
            values = [v.mean(1) for v in values] if key == "nonlinear" else values
            means = [Interval.of(estimate(value), 100) for value in values]
            axes.errorbar(
                np.arange(3) + 0.16 * number - 0.08, [m.value for m in means],
                [m.high - m.value for m in means], color=COLOURS[number], ls="none", capsize=4,
                marker=MARKERS[number], ms=7, label=name,
            )  # fmt: skip
        axes.set(ylabel=label, xlim=(-0.5, 2.5))
        axes.set_xticks(range(3), BETWEEN)
        plain(axes)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    figure.supxlabel("what a dendrite's potential passes", fontsize=9.5)
    return figure


EXPERIMENT = Experiment(__file__, SIZES, conditions, measure, quantities, draw, tables)

if __name__ == "__main__":
    EXPERIMENT.main()
