"""One neuron against a point neuron, a quadratic one and the two-layer network it is said to be.

Each entrant has one of eight learning rates, chosen on validation images, half of the training
images and a seed that no row uses: of the splits on 12 of them, of Boolean functions on others of
as many inputs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from single_neuron import (
    ENTRANTS,
    EVEN,
    SPLITS,
    answered,
    first_halves,
    images,
    make_neurons,
    patterns,
    train,
    truth_tables,
)

from neuroconv.comparison import Estimate, estimate, holm, verdict
from neuroconv.essay import Experiment, Interval, Rows
from neuroconv.report.style import COLOURS, INK, STROKES, plain
from neuroconv.zoo import count_parameters

PRIMARY = "point", "quadratic", "mlp"  # with which the cell wired at random is compared
TUNING = 1000  # the seed of the trials and of their Boolean functions
MARGIN = 0.01


@dataclass(frozen=True)
class Size:
    """What is trained: numbers of branches of the dendritic cell, and the entrants of its size."""

    seeds: tuple[int, ...] = (10, 11, 12, 13, 14)
    data: str = "mnist"
    images: int | None = 20_000
    sites: int = 49  # synapses of a branch, a patch of 7 x 7
    even_odd: tuple[tuple[int, tuple[str, ...]], ...] = (
        (16, ("random", "patches", "point", "mlp")),
        (48, tuple(ENTRANTS)),
        (2048, ("random", "point", "quadratic")),
    )
    splits: tuple[str, ...] = ("random", "patches", *PRIMARY)
    epochs: tuple[int, int] = (4, 2)  # of one split, of all
    batch: tuple[int, int] = (64, 128)
    inputs: tuple[int, ...] = tuple(range(2, 11))
    branches: tuple[int, ...] = (1, 2, 4, 8, 16)
    functions: int = 40  # of d inputs, the same for all seeds
    steps: int = 400
    split_branches: int = 48
    # The first best one. A point neuron of 2048 branches' synapses learns by 128 weights an axon.
    rates: tuple[float, ...] = (3e-2, 1e-1, 1e-2, 3e-1, 3e-3, 1e-3, 3e-4, 1e-4)
    boolean_rates: tuple[float, ...] = (3e-2, 1e-1, 1e-2, 3e-1, 3e-3, 1.0, 1e-3, 3e-4)


SIZES = {
    "full": Size(),
    "quick": Size(
        (10, 11, 12), "digits", None, 16, ((12, tuple(ENTRANTS)),), ("random", *PRIMARY), (4, 4),
        inputs=(2, 3, 4), branches=(1, 2, 4), functions=4, steps=200, split_branches=12,
    ),
    "test": Size(
        (10, 11), "digits", 60, 16, ((12, ("random", *PRIMARY)),), ("random", *PRIMARY), (1, 1),
        inputs=(2,), branches=(2,), functions=3, steps=2, split_branches=12,
        rates=(3e-2, 1e-1), boolean_rates=(3e-2, 1e-1),
    ),
}  # fmt: skip


def conditions(size: Size) -> Iterator[dict[str, Any]]:
    for branches, names in size.even_odd:
        yield from ({"task": "even_odd", "branches": branches, "entrant": n} for n in names)
    for name in size.splits:
        yield {"task": "splits", "branches": size.split_branches, "entrant": name}
    for branches, name in product(size.branches, ("random", *PRIMARY)):
        yield {"task": "boolean", "branches": branches, "entrant": name}


def task(size: Size, name: str, tuning: bool) -> tuple[Any, ...]:
    """Returns patterns and answers to learn and to test, epochs, batch, sites of a branch.

    `name` is "even_odd", "splits", or a number of inputs.
    """
    if name.isdigit():
        d, functions = int(name), size.functions // (1 + tuning)
        x, y = patterns(d), truth_tables(d, functions, TUNING if tuning else size.seeds[0])
        return x, y, x, y, size.steps, len(x), d
    (x, labels), val, test = images(size.data, size.images)
    count, (shown, digits) = (len(x) // 2, val) if tuning else (len(x), test)
    splits = [EVEN] if name == "even_odd" else SPLITS[::11] if tuning else SPLITS
    y, answers = first_halves(labels[:count], splits), first_halves(digits, splits)
    of_all = name == "splits"
    return x[:count], y, shown, answers, size.epochs[of_all], size.batch[of_all], size.sites


def learned(
    size: Size, name: str, entrant: str, branches: int, rate: float, seed: int
) -> tuple[NDArray[np.bool_], int]:
    """Trains an entrant; returns which answers are right (n, N), and a neuron's parameters."""
    x, y, shown, answers, epochs, batch, sites = task(size, name, seed == TUNING)
    rule = make_neurons(entrant, x.shape[1], y.shape[1], sites, branches, seed)
    rule = train(rule, x, y, epochs, batch, rate, seed)
    return answered(rule, shown, answers), count_parameters(rule.model) // y.shape[1]


@cache
def best_rate(size: Size, name: str, entrant: str, branches: int) -> float:
    def share(rate: float) -> float:
        return float(learned(size, name, entrant, branches, rate, TUNING)[0].mean())

    return max(size.boolean_rates if name.isdigit() else size.rates, key=share)


def measure(
    size: Size, *, seed: int, folder: Any, task: str, branches: int, entrant: str
) -> dict[str, Any]:
    if task == "boolean":
        exactly, share = {}, {}
        for d in size.inputs:
            rate = best_rate(size, str(d), entrant, branches)
            flags, _ = learned(size, str(d), entrant, branches, rate, seed)
            exactly[str(d)], share[str(d)] = flags.all(0).tolist(), float(flags.mean())
        return {"exactly": exactly, "patterns": share}
    rate = best_rate(size, task, entrant, branches)
    flags, parameters = learned(size, task, entrant, branches, rate, seed)
    row = {"rate": rate, "parameters": parameters}
    if task == "splits":  # how many of the splits an image is right in, as the bits of a byte
        bits = np.unpackbits(flags.sum(1).astype(np.uint8)).astype(bool)
        return {**row, "right": bits, "by_split": flags.mean(0).round(5)}
    return {**row, "right": flags[:, 0]}


def shares(rows: Rows, task: str, branches: int, entrant: str, d: int = 0) -> NDArray[np.float64]:
    """Returns the share that is right by seed and test image, or which functions of d inputs are
    learned exactly, (S, n)."""
    these: dict[str, Any] = {"task": task, "branches": branches, "entrant": entrant}
    if task == "boolean":
        return np.array([row["exactly"][str(d)] for row in rows.where(**these)], float)
    flags = rows.values("right", **these)
    values = np.packbits(flags, 1) / len(SPLITS) if task == "splits" else flags
    return np.asarray(values, float)


def lead(rows: Rows, group: tuple[Any, ...], entrant: str) -> Estimate:
    """Returns by how much the cell wired at random is ahead of an entrant."""
    task, branches, *d = group
    return estimate(shares(rows, task, branches, "random", *d)
                    - shares(rows, task, branches, entrant, *d))  # fmt: skip


def groups(rows: Rows) -> list[tuple[Any, ...]]:
    """Returns the primary tasks: even against odd digits, the splits, and Boolean functions of six
    inputs by eight branches, or as many as there are."""
    branches = rows.where(task="splits")[0]["branches"]
    boolean = rows.where(task="boolean")
    inputs = max(map(int, boolean[0]["exactly"]))
    width = max(row["branches"] for row in boolean)
    functions = "boolean", min(8, width), min(6, inputs)
    return [("even_odd", branches), ("splits", branches), functions]


def quantities(rows: Rows) -> dict[str, Interval]:
    even_odd, splits, boolean = groups(rows)
    return {
        "even_odd": Interval.of(lead(rows, even_odd, "point"), 100),
        "splits": Interval.of(lead(rows, splits, "point"), 100),
        "boolean": Interval.of(lead(rows, boolean, "point"), 100),
        "two_layers": Interval.of(lead(rows, splits, "mlp"), 100),
    }


def points(value: Estimate) -> str:
    return f"{Interval.of(value, 100):.2f}"


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def comparisons(rows: Rows) -> list[str]:
    """Returns the rows of all entrants, and how far the cell wired at random is ahead of each."""
    primary = groups(rows)
    pairs = [(group, name) for group in primary for name in PRIMARY]
    leads = {pair: lead(rows, *pair) for pair in pairs}
    corrected = dict(zip(pairs, holm([leads[pair].p for pair in pairs]), strict=True))
    trained = dict.fromkeys((r["task"], r["branches"]) for r in rows if r["task"] != "boolean")
    lines = [
        "| task | branches | entrant | parameters | right, % | the cell's lead, points | p "
        "| verdict | learning rate |",
        "|---|---:|---|---:|---:|---:|---:|---|---:|",
    ]
    for group in (*trained, primary[2]):
        task, branches, *d = group
        for row in rows.where(task=task, branches=branches, seed=rows[0]["seed"]):
            name, told = row["entrant"], "| | | "
            if name != "random":
                value = lead(rows, group, name)
                p = corrected.get((group, name), value.p)
                star = "" if (group, name) in corrected else " *"
                told = f"| {points(value)} | {p_text(p or 0)}{star} | {verdict(value, MARGIN, p)} "
            label = f"Boolean, {d[0]} inputs" if d else task.replace("_", " or ")
            right = points(estimate(shares(rows, task, branches, name, *d)))
            parameters, rate = row.get("parameters", ""), row.get("rate", "")
            lines.append(
                f"| {label} | {branches} | {ENTRANTS[name]} | {parameters} | {right} {told}"
                f"| {rate} |"
            )
    note = f"p by Holm's method over {len(pairs)} comparisons; with * alone, exploratory."
    return [*lines, "", note]


def tables(rows: Rows) -> str:
    lines = [*comparisons(rows), ""]
    lines += ["| 126 splits | worst | median | best | the cell leads in |", "|---|" + "---:|" * 4]
    entrants = dict.fromkeys(row["entrant"] for row in rows.where(task="splits"))
    means = {n: rows.values("by_split", task="splits", entrant=n).mean(0) for n in entrants}
    for name, by_split in means.items():
        worst, middle, best = 100 * np.quantile(by_split, [0, 0.5, 1])
        ahead = (means["random"] > by_split).sum()
        lines.append(f"| {ENTRANTS[name]} | {worst:.1f} | {middle:.1f} | {best:.1f} | {ahead} |")
    inputs = rows.where(task="boolean")[0]["exactly"]
    heads = " | ".join(f"d = {d}" for d in inputs)
    lines += ["", f"| learned exactly, % (by the best start; patterns) | branches | {heads} |",
              "|---|---:|" + "---:|" * len(inputs)]  # fmt: skip
    for branches, name in dict.fromkeys(
        (row["branches"], row["entrant"]) for row in rows.where(task="boolean")
    ):
        cells = []
        for d in inputs:
            exactly = shares(rows, "boolean", branches, name, int(d))
            these = rows.where(task="boolean", branches=branches, entrant=name)
            patterns = np.mean([row["patterns"][d] for row in these])
            values = exactly.mean(), exactly.any(0).mean(), patterns
            cells.append("{:.0f} ({:.0f}; {:.1f})".format(*(100 * value for value in values)))
        lines.append(f"| {ENTRANTS[name]} | {branches} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: Rows) -> Figure:
    figure, (splits, boolean) = plt.subplots(1, 2, figsize=(7.4, 3.4), layout="constrained")
    _, _, (_, width, _) = groups(rows)
    for number, name in enumerate(("random", *PRIMARY)):
        style = {"color": COLOURS[number], "ls": STROKES[number], "label": ENTRANTS[name]}
        by_split = rows.values("by_split", task="splits", entrant=name).mean(0)
        splits.plot(100 * np.sort(by_split), lw=2, **style)
        inputs = [int(d) for d in rows.where(task="boolean")[0]["exactly"]]
        exactly = [shares(rows, "boolean", width, name, d).mean() for d in inputs]
        boolean.plot(inputs, [100 * share for share in exactly],
                     marker="o", lw=2, **{**style, "label": None})  # fmt: skip
    splits.set(xlabel="126 splits of ten digits, sorted", ylabel="test images right, %")
    boolean.set(xlabel="inputs of a Boolean function", ylabel="learned exactly, %", ylim=(-3, 103))
    figure.legend(frameon=False, ncol=2, loc="outside upper center", labelcolor=INK)
    for axes in (splits, boolean):
        plain(axes)
    return figure


EXPERIMENT = Experiment(__file__, SIZES, conditions, measure, quantities, draw, tables)

if __name__ == "__main__":
    EXPERIMENT.main()
