"""One network, six laws of dendritic summation: whether the law acts as an activation function.

A neuron has four dendrites, each a weighted sum of all inputs and a rectifier; their rates add up,
and the law of the neuron's type acts on the sum (`DendriticSummation`). Two layers of such neurons
and a linear readout make the network. With the linear law, the control, a neuron passes on the sum
itself. Bistable is a steep sigmoid, two levels with a jump between; it has no memory of its level.
Beside the neurons stand ordinary units, one for each dendrite, with one weighted sum and rectifier
each: there the law is an activation function in the usual sense.

The learned law is a power of the sum, its exponent one number for each layer that starts at 1, the
linear law, and may go either way: below 1 sublinear, above 1 supralinear. `SummationLaw`'s own
learned exponent cannot go below 1. Of every law the knee is a layer's mean sum in the first batch
before training, and a constant gain makes its values vary as much as the sums: what differs is the
law's shape. Learning rates are chosen for each law, task and seed by validation images. The best
law and the worst are those of the other seeds' validation: networks that choose are not those that
are compared.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from summation_network import DENDRITES, LAWS, LEARNED, Power, splits, trained

from neuroconv.comparison import estimate
from neuroconv.essay import Experiment, Interval, Rows
from neuroconv.essay.networks import right
from neuroconv.report.style import COLOURS, INK, MARKERS, plain


@dataclass(frozen=True)
class Size:
    seeds: tuple[int, ...]
    tasks: dict[str, int]  # with the steps of training
    images: int = 5000  # for training, or all if there are fewer
    dendrites: int = 256  # of a layer: 64 neurons of four, or 256 ordinary units of one
    batch: int = 50
    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)


SIZES = {
    "full": Size(
        (3510, 3511, 3512, 3513, 3514), {"mnist": 1500, "fashion_mnist": 1500, "conjunction": 3000}
    ),
    "quick": Size(
        (3505, 3506, 3507), {"digits": 400, "noisy_digits": 400, "conjunction": 800},
        rates=(1e-3, 3e-3, 1e-2),
    ),
    "test": Size((0, 1), {"digits": 20, "conjunction": 20}, dendrites=16, rates=(3e-2,)),
}  # fmt: skip


def conditions(size: Size) -> list[dict[str, Any]]:
    laws = (*LAWS, LEARNED)
    return [
        {"unit": unit, "task": task, "law": law}
        for unit in DENDRITES
        for task in size.tasks
        for law in laws
    ]


def measure(
    size: Size, *, seed: int, folder: Any, unit: str, task: str, law: str
) -> dict[str, Any]:
    training, validation, test = splits(task, size.images)
    candidates = {}
    for rate in size.rates:
        network = trained(unit, law, rate, training, size.tasks[task], size, seed)
        candidates[rate] = network, float(right(network, *validation).mean())
    rate = max(candidates, key=lambda rate: candidates[rate][1])
    network, accuracy = candidates[rate]
    laws = [layer.summation for layer in network[:2]]
    exponents = [law.log_exponent.exp().item() for law in laws if isinstance(law, Power)]
    return {
        "right": right(network, *test), "validation": accuracy, "rate": rate,
        "training_accuracy": right(network, *training).mean(), "exponents": exponents,
    }  # fmt: skip


def tasks(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["task"] for row in rows))


def ranked(rows: Rows, task: str, laws: tuple[str, ...] = tuple(LAWS)) -> list[tuple[str, ...]]:
    """Returns the laws, best first, once for each seed: by the other seeds' validation accuracy."""
    accuracy = np.array([rows.values("validation", task=task, law=law) for law in laws])
    others = accuracy.sum(1, keepdims=True) - accuracy  # (laws, S)
    return [tuple(laws[i] for i in order) for order in np.argsort(-others, 0, kind="stable").T]


def answers(rows: Rows, task: str, laws: list[str]) -> NDArray[np.float64]:
    """Returns where each seed's law is right, (S, N)."""
    flags = {law: rows.values("right", task=task, law=law) for law in set(laws)}
    return np.array([flags[law][seed] for seed, law in enumerate(laws)], dtype=np.float64)


def difference(rows: Rows, task: str, first: str, second: str) -> NDArray[np.float64]:
    """Returns by how much the first law is right where the second is not, (S, N)."""
    seeds = len(rows.where(task=task, law=first))
    return answers(rows, task, [first] * seeds) - answers(rows, task, [second] * seeds)


def over_tasks(differences: list[NDArray[np.float64]]) -> Interval:
    """Returns the mean over tasks in points; their networks and images count as independent."""
    parts = [Interval.of(estimate(values), 100) for values in differences]
    value = sum(part.value for part in parts) / len(parts)
    error = sum((part.high - part.value) ** 2 for part in parts) ** 0.5 / len(parts)
    return Interval(value, value - error, value + error, parts[0].seeds)


def turned(rows: Rows, task: str) -> NDArray[np.float64]:
    """Returns each seed's change of the log exponents, positive in the other seeds' direction.

    (S,), the mean over the layers: without a direction in common its expectation is zero.
    """
    change = np.log(rows.values("exponents", task=task, law=LEARNED))  # (S, layers)
    others = change.sum(0) - change
    mean: NDArray[np.float64] = (np.sign(others) * change).mean(1)
    return mean


def rank_correlation(rows: Rows) -> NDArray[np.float64]:
    """Returns Spearman's correlation of what laws gain in neurons and in ordinary units, (S,).

    Over all laws but the linear one, whose accuracy the gains are measured from, and all tasks.
    """
    gains = []
    for unit in DENDRITES:
        of_unit = rows.where(unit=unit)
        pairs = [(task, law) for task in tasks(rows) for law in (*LAWS, LEARNED) if law != "linear"]
        gains.append([difference(of_unit, *pair, "linear").mean(1) for pair in pairs])
    values = np.array(gains).transpose(2, 0, 1)  # (S, 2, pairs)
    ranks = np.sign(values[..., :, None] - values[..., None, :]).sum(3)  # about their mean
    return np.array([np.corrcoef(seed)[0, 1] for seed in ranks])


def quantities(rows: Rows) -> dict[str, Interval]:
    alike = Interval.of(estimate(rank_correlation(rows)))
    rows = rows.where(unit="neuron")
    nonlinear = tuple(law for law in LAWS if law != "linear")
    spreads, losses = [], []
    for task in tasks(rows):
        best, worst = ([order[i] for order in ranked(rows, task)] for i in (0, -1))
        losses.append(answers(rows, task, [LEARNED] * len(best)) - answers(rows, task, best))
        if task != "conjunction":
            spreads.append(answers(rows, task, best) - answers(rows, task, worst))
    best = [order[0] for order in ranked(rows, "conjunction", nonlinear)]
    linear = answers(rows, "conjunction", ["linear"] * len(best))
    gain = answers(rows, "conjunction", best) - linear
    change = estimate(np.mean([turned(rows, task) for task in tasks(rows)], 0))
    assert change.mean is not None
    assert change.half_width is not None
    ends = np.array([0, -1, 1]) * change.half_width + change.mean
    return {
        "spread": over_tasks(spreads),
        "conjunction": Interval.of(estimate(gain), 100),
        "learned": over_tasks(losses),
        "exponent": Interval(*(100 * np.expm1(ends)), change.seeds),
        "alike": alike,
    }


def tables(rows: Rows) -> str:
    lines = [
        "| unit | task | law | test accuracy, % | points over linear | training accuracy, % | "
        "learning rates chosen | exponents of both layers |",
        "|---|---|---|---:|---:|---:|---|---|",
    ]
    for unit, task in product(DENDRITES, tasks(rows)):
        for law in (*LAWS, LEARNED):
            these = {"unit": unit, "task": task, "law": law}
            gain = Interval.of(
                estimate(difference(rows.where(unit=unit), task, law, "linear")), 100
            )
            over = "" if law == "linear" else f"{gain:+.2f}"
            exponents = rows.values("exponents", **these)
            shown = "; ".join(
                ", ".join(f"{x:.2f}" for x in seed) for seed in exponents if len(seed)
            )
            rates = ", ".join(f"{rate:g}" for rate in rows.values("rate", **these))
            lines.append(
                f"| {unit} | {task} | {law} | {100 * rows.values('right', **these).mean():.2f} "
                f"| {over} | {100 * rows.values('training_accuracy', **these).mean():.1f} "
                f"| {rates} | {shown} |"
            )
    return "\n".join(lines)


def draw(rows: Rows) -> Figure:
    names = tasks(rows)
    figure, panels = plt.subplots(
        1, len(names), figsize=(7.4, 3.6), sharey=True, layout="constrained"
    )
    laws = [law for law in (*LAWS, LEARNED) if law != "linear"]
    for axes, task in zip(panels, names, strict=True):
        controls = []
        for unit, offset, face in (("neuron", 0.14, None), ("ordinary", -0.14, "white")):
            of_unit = rows.where(unit=unit)
            controls.append(100 * of_unit.values("right", task=task, law="linear").mean())
            for number, law in enumerate(laws):
                value = estimate(difference(of_unit, task, law, "linear"))
                axes.errorbar(
                    100 * value.mean, offset - number, xerr=100 * value.half_width,
                    marker=MARKERS[number], color=COLOURS[number], mfc=face, ms=7, capsize=3,
                )  # fmt: skip
        axes.axvline(0, color=INK, lw=1)
        title = f"{task.replace('_', ' ')}\nlinear: {controls[0]:.1f}, {controls[1]:.1f} %"
        axes.set_title(title, fontsize=10, color=INK)
        axes.set_xlabel("points over linear")
        plain(axes)
    panels[0].set_yticks([-n for n in range(len(laws))], laws)
    return figure


EXPERIMENT = Experiment(__file__, SIZES, conditions, measure, quantities, draw, tables)

if __name__ == "__main__":
    EXPERIMENT.main()
