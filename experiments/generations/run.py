"""Three generations of neurons, and the essay's, of equal parameters on a task in time.

Digits are read from left to right: a step is one column of a binary image, so that what an axon
tells is when it fires. Rate units come twice: with the number of an axon's events alone, the
frequency that they are said to encode, and with a weight for each axon at each step. The control of
spiking units is the same layer whose membranes forget at each step.

Costs are the package's, of one window and with norms folded into weights: FLOPs by the exact
counter; arithmetic energy with every multiply-add executed (ordinary hardware), or with an addition
for each active axon in their place, by the activity on test images (event-driven). Memory is left
out: event-driven hardware holds its weights where they act.
"""

from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from neuroconv.comparison import estimate, match_parameters
from neuroconv.data import DataSplits, Frames, load_data
from neuroconv.essay import Experiment, Interval, Rows
from neuroconv.flops import Energy, Profile, firing_shares, profile
from neuroconv.neurons import fold
from neuroconv.report.style import COLOURS, INK, MARKERS, plain
from neuroconv.training import RunFailed, TrainResult, load_config, train
from neuroconv.zoo import StillNet, count_parameters, create_model

SEARCH_SEED = 2998
ARMS = {
    "threshold": "1 threshold units, every step an input",
    "frequency": "2 rate units, number of events",
    "rate": "2 rate units, every step an input",
    "spiking": "3 spiking units",
    "forgetful": "3 spiking units without memory",
    "neuron": "granule and Purkinje cells",
}
LIF = {"spiking": {}, "forgetful": {"decay": 0.0, "learn_decay": False, "reset": "zero"}}


@dataclass(frozen=True)
class Size:
    seeds: tuple[int, ...]
    data: str
    side: int  # pixels: axons and steps
    epochs: int
    train_images: int | None = None
    learning_rates: tuple[float, ...] = (1e-2, 3e-2, 1e-1, 3e-1)


SIZES = {
    "full": Size(tuple(range(3410, 3415)), "mnist", 14, 16, 5000),
    "quick": Size(tuple(range(3415, 3418)), "digits", 8, 12),
    "test": Size((0, 1), "digits", 8, 1, 50, (1e-2,)),
}


class Threshold(nn.Module):
    """Fires, 1, above zero and else not, 0; gradients pass straight through from -1 to 1."""

    def forward(self, x: Tensor) -> Tensor:
        passed = x.clamp(-1, 1)
        return (x > 0).to(x.dtype) + (passed - passed.detach())


@cache
def stills(size: Size) -> DataSplits:
    settings = {"image_size": size.side, "train_limit": size.train_images}
    return load_data(size.data, encoding="none", **settings)


def columns(size: Size, part: str) -> Frames:
    data = Frames(getattr(stills(size), part).dataset, "columns", size.side, image_size=size.side)
    return data.perturbed(lambda image, _: (image > 0.5).to(image.dtype))


def build(size: Size, arm: str, seed: int) -> nn.Module:
    task: dict[str, Any] = {"image_shape": (1, size.side, 1), "time_steps": size.side}
    table = {k: v for k, v in load_config("spoken_digits_equal").model.items() if k != "label"}
    neurons = create_model(**table, **task, seed=seed)
    if arm == "neuron":
        return neurons
    target = count_parameters(neurons)
    if arm == "frequency":
        width = round((target - 10) / (size.side + 1 + 10))
        layers = nn.Flatten(), nn.Linear(size.side, width), nn.ReLU(), nn.Linear(width, 10)
        return StillNet(nn.Sequential(*layers), size.side, task["image_shape"], frames="mean")
    if arm in LIF:
        return create_model("lif", **match_parameters("lif", target, unit=LIF[arm], **task))
    rates: Any = create_model("mlp", **match_parameters("mlp", target, depth=1, **task))
    rates.network[2] = Threshold() if arm == "threshold" else nn.ReLU()
    return rates


def fit(size: Size, arm: str, rate: float, seed: int) -> tuple[nn.Module, TrainResult]:
    torch.manual_seed(seed)
    network, test = build(size, arm, seed), columns(size, "test")
    search = {"epochs": -(-size.epochs // 2), "test": False}  # sees no test images
    settings = {"learning_rate": rate, "batch_size": 64, "device": "cpu", "progress": False}
    settings |= search if seed == SEARCH_SEED else {"epochs": size.epochs}
    parts = columns(size, "train"), columns(size, "val")
    return network, train(network, *parts, test_data=test, seed=seed, **settings)


@cache
def best_rate(size: Size, arm: str) -> float:
    def accuracy(rate: float) -> float:
        try:
            return fit(size, arm, rate, SEARCH_SEED)[1].val.accuracy or 0.0
        except RunFailed:  # a loss that is not finite
            return 0.0

    return max(size.learning_rates, key=accuracy)


def deployed(network: nn.Module) -> nn.Module:
    """Returns a copy that computes the same in evaluation, its norms folded into weights."""
    folded = fold(network)[0]
    for layer in folded.modules():
        if isinstance(norm := getattr(layer, "norm", None), nn.BatchNorm1d):  # of spiking units
            layer.synapses, layer.norm = fuse_linear_bn_eval(layer.synapses, norm), nn.Identity()
    return folded


def costs(network: nn.Module, frames: Tensor) -> tuple[Profile, Energy]:
    """Returns the profile of one window, and its energy where silent axons cost nothing."""
    counted = profile(network, frames[:1], counters=("closed_form", "exact"))
    firing: Any = SimpleNamespace(firing=firing_shares(network, frames))
    return counted, replace(counted, measured=firing).energy_at_rate()


def conditions(size: Size) -> list[dict[str, Any]]:
    return [{"arm": arm} for arm in ARMS]


def measure(size: Size, *, seed: int, folder: Any, arm: str) -> dict[str, Any]:
    rate = best_rate(size, arm)
    network, result = fit(size, arm, rate, seed)
    frames = columns(size, "test").batch(range(300))[0]
    counted, driven = costs(deployed(network), frames)
    neurons = counted.neurons
    if arm in LIF:  # the profile counts a unit at each step
        neurons -= (size.side - 1) * network.get_parameter("layers.0.decay").numel()
    return {
        "learning_rate": rate, "parameters": count_parameters(network),
        "neurons": neurons, "flop": counted.counts["exact"].flop,
        "dense_nj": 1e9 * counted.energy().arithmetic_joules[0],
        "driven_nj": 1e9 * driven.arithmetic_joules[0],
        "unfolded_nj": 1e9 * costs(network, frames)[1].arithmetic_joules[0],
        "right": result.test.answers == stills(size).test.targets,
    }  # fmt: skip


def points(rows: Rows, arm: str, other: str | None = None) -> Interval:
    """Returns the accuracy of an arm, or what it has more than another, in points."""
    right = rows.values("right", arm=arm).astype(float)
    less = 0 if other is None else rows.values("right", arm=other)
    return Interval.of(estimate(right - less), 100)


def nanojoules(rows: Rows, arm: str) -> tuple[float, float]:
    """Returns an arm's arithmetic energy on ordinary and on event-driven hardware."""
    return tuple(float(rows.values(f"{key}_nj", arm=arm).mean()) for key in ("dense", "driven"))


def quantities(rows: Rows) -> dict[str, Interval]:
    flop = [rows.values("flop", arm=arm)[0] for arm in ("spiking", "rate")]
    energy = rows.values("driven_nj", arm="spiking")
    return {
        "timing": points(rows, "spiking", "frequency"),
        "space": points(rows, "spiking", "rate"),
        "ordinary": Interval.exact(flop[0] / flop[1]),
        "driven": Interval.of(estimate(energy / rows.values("dense_nj", arm="rate"))),
        "alike": Interval.of(estimate(energy / rows.values("driven_nj", arm="rate"))),
    }


def tables(rows: Rows) -> str:
    lines = [
        "| generation | right, % | parameters | learning rate | neurons | FLOP | a neuron "
        "| nJ, ordinary | nJ, event-driven | the same, norms not folded |",
        "|---|" + "---:|" * 9,
    ]  # fmt: skip
    for arm, title in ARMS.items():
        row, value = rows.where(arm=arm)[0], points(rows, arm)
        cells = [title, f"{value:.1f}"]
        cells += [f"{row['parameters']:,}", f"{row['learning_rate']:g}", f"{row['neurons']:,}"]
        cells += [f"{row['flop']:,}", f"{row['flop'] / row['neurons']:,.0f}"]
        unfolded = float(rows.values("unfolded_nj", arm=arm).mean())
        cells += [f"{joules:,.1f}" for joules in (*nanojoules(rows, arm), unfolded)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: Rows) -> Figure:
    figure, axes = plt.subplots(figsize=(7.4, 4.4), layout="constrained")
    for (arm, title), colour, marker in zip(ARMS.items(), COLOURS, MARKERS, strict=False):
        value, (dense, driven) = points(rows, arm), nanojoules(rows, arm)
        axes.plot([driven, dense], [value.value] * 2, color=colour, lw=1, ls=":")
        style, error = {"color": colour, "marker": marker, "ms": 8}, value.high - value.value
        axes.errorbar(dense, value.value, error, capsize=3, ls="", label=title, **style)
        axes.plot(driven, value.value, **style, mfc="none", ls="")
    axes.set(xscale="log", ylabel="test images right, %")
    axes.set_xlabel("arithmetic, nJ an image: ordinary (filled) and event-driven hardware (hollow)")
    plain(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9.5, labelcolor=INK)
    return figure


EXPERIMENT = Experiment(__file__, SIZES, conditions, measure, quantities, draw, tables)

if __name__ == "__main__":
    EXPERIMENT.main()
