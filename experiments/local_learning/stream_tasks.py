"""The tasks of streams.py: what arrives, in which order, and what is measured.

Shapes: N samples in the order in which they arrive, F inputs, K outputs.
"""

from functools import cache
from math import pi, sqrt
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from stream_learners import OPTIMIZERS, Setting, Shape
from torch import Tensor, nn
from torch.func import functional_call

from neuroconv.comparison.statistics import pack
from neuroconv.data import load_data
from neuroconv.zoo import count_parameters, create_model

TUNING = 1000  # the seed on which settings are chosen; those of the report are 0 to 4
# As many settings for each learner that has any.
RATES: list[Setting] = [("adam", rate) for rate in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)]
RATES += [("sgd", rate) for rate in (1e-3, 1e-2, 1e-1)]
STRENGTHS: list[Setting] = [("strength", 10.0**power) for power in range(-4, 5)]
SHARES: list[Setting] = [("share", s) for s in (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1)]
CELLS = "climbing fibres"
# Kind of network, rule, what it reads, and its settings.
NETWORKS: dict[str, tuple[str, str, str, list[Setting]]] = {
    CELLS: ("purkinje_classifier", "climbing_fibre", "fibres", RATES),
    f"{CELLS}, sparse code": ("purkinje_classifier", "climbing_fibre", "code", RATES),
    "delta rule": ("linear", "delta", "fibres", RATES),
    "delta rule, sparse code": ("linear", "delta", "code", RATES),
    "MLP, direct feedback": ("mlp", "direct_feedback", "fibres", RATES),
    "MLP, backpropagation": ("mlp", "backprop", "fibres", RATES),
}
REGRESSION = NETWORKS | {
    "MLP, backpropagation, variables": ("mlp", "backprop", "raw", RATES),
    "ridge, exact": ("ridge", "", "fibres", STRENGTHS),
    "ridge, exact, sparse code": ("ridge", "", "code", STRENGTHS),
    "the last sample": ("", "", "", [("none", 0.0)]),
    "the running mean": ("", "", "", [("none", 0.0)]),
}
CLASSES = NETWORKS | {
    "perceptron": ("perceptron", "perceptron", "fibres", RATES),
    "nearest class mean": ("means", "", "fibres", [("none", 0.0)]),
    "nearest class mean, sparse code": ("means", "", "code", [("none", 0.0)]),
    "streaming LDA": ("means", "", "fibres", SHARES),
    "streaming LDA, sparse code": ("means", "", "code", SHARES),
}


# Two uniform rods of the masses (kg) and lengths (m) of an upper arm and a forearm (Li and Todorov
# 2004, ICINCO 1:222-229), in a vertical plane (m/s^2).
MASSES, LENGTHS, GRAVITY = (1.4, 1.0), (0.30, 0.33), 9.81


def torques(angles: Tensor, velocities: Tensor, accelerations: Tensor) -> Tensor:
    """Returns the torques (N, 2) in N m of shoulder and elbow that move the arm so.

    The planar elbow manipulator of Spong, Hutchinson and Vidyasagar (2006, Robot Modeling and
    Control, chapter 7), where c is the distance of a rod's centre from its joint, I its moment of
    inertia about that centre, and w1 = (m1 c1 + m2 l1) g cos q1, w2 = m2 c2 g cos(q1 + q2):

        t1 = d11 a1 + d12 a2 + h v2 (2 v1 + v2) + w1 + w2,    t2 = d12 a1 + d22 a2 - h v1^2 + w2
        d11 = m1 c1^2 + m2 (l1^2 + c2^2 + 2 l1 c2 cos q2) + I1 + I2
        d12 = m2 (c2^2 + l1 c2 cos q2) + I2,    d22 = m2 c2^2 + I2,    h = -m2 l1 c2 sin q2

    Shape:
        angles (N, 2) in rad, the elbow's against the upper arm; velocities and accelerations alike
    """
    (m1, m2), (l1, l2) = MASSES, LENGTHS
    c1, c2, i1, i2 = l1 / 2, l2 / 2, m1 * l1**2 / 12, m2 * l2**2 / 12
    (q1, q2), (v1, v2), (a1, a2) = (x.unbind(-1) for x in (angles, velocities, accelerations))
    d11 = m1 * c1**2 + m2 * (l1**2 + c2**2 + 2 * l1 * c2 * q2.cos()) + i1 + i2
    d12, d22 = m2 * (c2**2 + l1 * c2 * q2.cos()) + i2, m2 * c2**2 + i2
    h, w2 = -m2 * l1 * c2 * q2.sin(), m2 * c2 * GRAVITY * (q1 + q2).cos()
    w1 = (m1 * c1 + m2 * l1) * GRAVITY * q1.cos()
    first = d11 * a1 + d12 * a2 + h * v2 * (2 * v1 + v2) + w1 + w2
    return torch.stack([first, d12 * a1 + d22 * a2 - h * v1.square() + w2], -1)


def trajectory(seed: int, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns angles, velocities and accelerations (N, 2), 20 samples a second, in float64.

    The joints swing about 45 and 90 degrees by five sines of 0.14 rad each, whose frequencies of
    0.1 to 1 Hz and phases are drawn.
    """
    draw = torch.Generator().manual_seed(seed)
    frequency, phase = torch.rand(2, 1, 2, 5, generator=draw, dtype=torch.float64)
    omega = 2 * pi * (0.1 + 0.9 * frequency)
    turns = omega * torch.arange(samples).double().view(-1, 1, 1) / 20 + 2 * pi * phase
    waves = (turns.sin(), omega * turns.cos(), -omega.square() * turns.sin())
    angles, velocities, accelerations = (0.14 * wave.sum(2) for wave in waves)
    return angles + torch.tensor([pi / 4, pi / 2]), velocities, accelerations


class TuningCurves(nn.Module):
    """A population code of standardised variables (N, V) -> (N, V * 20): Gaussian tuning curves
    whose centres lie evenly from -2.5 to 2.5, a standard deviation apart, standardised for a
    uniform variable."""

    def forward(self, values: Tensor) -> Tensor:
        width, centres = 5 / 19, torch.linspace(-2.5, 2.5, 20)
        rates = (-0.5 * ((values.unsqueeze(2) - centres) / width) ** 2).exp()
        mean = width * sqrt(2 * pi) / 5
        return ((rates - mean) / sqrt(mean / sqrt(2) - mean**2)).flatten(1)


@cache
def arm(seed: int, quick: bool, root: str | None) -> list[tuple[Tensor, Tensor]]:
    """Returns (inputs, torques) of a trajectory, and of another one to test on, in units of the
    standard deviations of a third one."""
    lengths = {TUNING + 1: 10_000, seed: 500 if quick else 10_000, seed + 2 * TUNING: 2_000}
    motions = [trajectory(*drawn) for drawn in lengths.items()]
    unit, *streams = [(torch.cat(motion, 1), torques(*motion)) for motion in motions]
    (x, dx), (y, dy) = [(values.mean(0), values.std(0)) for values in unit]
    return [(((a - x) / dx).float(), ((b - y) / dy).float()) for a, b in streams]


@cache
def speech(seed: int, quick: bool, root: str | None) -> list[tuple[Tensor, Tensor]]:
    """Returns (the last four columns, the next one) of spoken digits, in an order that is drawn,
    and of a speaker who is not among them: number `seed`, counted around.

    Bands are standardised by the validation recordings, which are not in the stream. What lies
    before a recording is left out.
    """
    data = load_data("spoken_digits", root=root, encoding="none", seed=seed)
    train, val, test = (
        part.batch(range(len(part)))[0][:, 0].movedim(1, 2)  # (recordings, columns, bands)
        for part in (data.train, data.val, data.test)
    )
    scale, pairs = val[val.sum(2) > 0], []
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    for spectra in (train[order], test):
        windows = ((spectra - scale.mean(0)) / scale.std(0)).unfold(1, 5, 1)
        sound = (spectra.sum(2) > 0).unfold(1, 5, 1).all(2)
        rows = windows[sound][: 1_000 if quick else 20_000]  # (N, bands, 5)
        pairs.append((rows[..., :-1].movedim(2, 1).flatten(1), rows[..., -1]))
    return pairs


def nmse(outputs: Tensor, targets: Tensor) -> float:
    """Returns the squared error over the targets' variance, both summed over the outputs."""
    return float((outputs - targets).square().mean(0).sum() / targets.var(0, correction=0).sum())


class Regression:
    """One pass over a stream, whose score is the normalised mean square error of the last tenth,
    each batch's taken before it is learned."""

    def __init__(self, draw: Any, shape: Shape, batch: int) -> None:
        self.draw, self.shape, self.batch = draw, shape, batch
        skipped = "raw" if shape.variables is None else None
        self.grids = {name: row[3] for name, row in REGRESSION.items() if row[2] != skipped}

    def run(self, name: str, setting: Setting, seed: int) -> dict[str, Any]:
        (inputs, targets), (unseen, expected) = self.draw(seed)
        row: dict[str, Any] = {"parameters": 0, "signals": None}
        if name.startswith("the "):
            outputs = torch.cat([torch.zeros_like(targets[:1]), targets[:-1]])
            if name == "the running mean":
                outputs = outputs.cumsum(0) / torch.arange(1, len(targets) + 1).unsqueeze(1)
        else:
            learner = self.shape.build(*REGRESSION[name][:3], setting, seed)
            batches = zip(inputs.split(self.batch), targets.split(self.batch), strict=True)
            outputs = torch.cat([learner(*batch) for batch in batches])
            row = {"parameters": learner.parameters, "signals": learner.signals}
            row["unseen"] = nmse(learner.predict(unseen), expected)
        tenths = zip(outputs.tensor_split(10), targets.tensor_split(10), strict=True)
        curve = [nmse(*tenth) for tenth in tenths]
        return {"score": curve[-1], "curve": curve, **row}


def images(name: str, root: str | None, **options: Any) -> list[tuple[Tensor, Tensor]]:
    """Returns train, val and test: images (N, F), each of mean 0 and variance 1, and labels."""
    data = load_data(name, root=root, encoding="none", **options)
    pairs = [part.batch(range(len(part))) for part in (data.train, data.val, data.test)]
    return [(F.layer_norm(x.flatten(1), (x[0].numel(),)), labels) for x, labels in pairs]


def judged(*answers: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """Returns the share of wrong answers and which they are, from each task's outputs (N, K) and
    labels (N,). Outputs that are not finite are wrong: their argmax would be class 0."""
    wrong = torch.stack([(x.argmax(1) != y) | ~x.isfinite().all(1) for x, y in answers])
    errors = wrong.double().mean(1)
    row = {"score": float(errors.mean()), "errors": errors.tolist(), "images": wrong.shape[1]}
    return row | {"wrong": pack(np.asarray(wrong))}


class Classes:
    """Classes arrive one after the other, each in one pass; the score is the error on all of them.

    With replay a learner keeps some images of each class by day, and after each class, by night,
    learns from as many drawn from them as the day had.
    """

    def __init__(self, shape: Shape, parts: Any, batch: int, per_class: int, replay: Any) -> None:
        self.shape, self.parts, self.batch, self.per_class = shape, parts, batch, per_class
        self.grids = {}
        variants = ["", *(f", replay {size}" for size in replay), ", classes mixed"]
        for name, (*_, settings) in CLASSES.items():
            for variant in variants if settings is RATES else [""]:
                self.grids[name + variant] = settings

    def days(self, seed: int, mixed: bool) -> list[Tensor]:
        """Returns the rows of each day: a class each, in an order that is drawn, or all mixed."""
        draw, labels, days = torch.Generator().manual_seed(seed), self.parts[0][1], []
        for label in torch.randperm(self.shape.outputs, generator=draw):
            rows = (labels == label).nonzero().flatten()
            days.append(rows[torch.randperm(len(rows), generator=draw)[: self.per_class]])
        rows = torch.cat(days)
        return [rows[torch.randperm(len(rows), generator=draw)]] if mixed else days

    def run(self, name: str, setting: Setting, seed: int) -> dict[str, Any]:
        base, _, replay = name.partition(", replay ")
        base, _, mixed = base.partition(", classes")
        learner = self.shape.build(*CLASSES[base][:3], setting, seed)
        (inputs, labels), kept = self.parts[0], torch.empty(0, dtype=torch.int64)
        for day in self.days(seed, bool(mixed)):
            kept = torch.cat([kept, day[: int(replay or 0)]])  # the order of a class is random
            night = [kept[torch.randint(len(kept), day.shape)]] if replay else []
            for rows in (rows for part in (day, *night) for rows in part.split(self.batch)):
                learner(inputs[rows], labels[rows])
        inputs, labels = self.parts[1 if seed == TUNING else 2]
        row = {"parameters": learner.parameters, "signals": learner.signals, "stored": len(kept)}
        return judged((learner.predict(inputs), labels)) | row


class Switched(nn.Module):
    """A chain of linear layers with a scale s and a shift t for each task.

    Per "unit": the weights and bias of a unit become s w and s b + t. Per "layer": all of a layer's
    become s w + t and s b + t, two numbers. With "" they stay as they are.
    """

    def __init__(self, network: nn.Module, per: str, tasks: int = 2) -> None:
        super().__init__()
        self.network, self.per = network, per
        layers = [(n, m) for n, m in network.named_modules() if per and isinstance(m, nn.Linear)]
        sizes = {name: m.out_features if per == "unit" else 1 for name, m in layers}
        self.scales = nn.ParameterList(torch.ones(tasks, n, 1) for n in sizes.values())
        self.shifts = nn.ParameterList(torch.zeros(tasks, n, 1) for n in sizes.values())
        self.names = [*sizes]

    def forward(self, images: Tensor, task: int) -> Tensor:
        changed = {}
        for name, scale, shift in zip(self.names, self.scales, self.shifts, strict=True):
            layer, s, t = self.network.get_submodule(name), scale[task], shift[task]
            changed[f"{name}.weight"] = layer.weight * s + (t if self.per == "layer" else 0)
            changed[f"{name}.bias"] = layer.bias * s[:, 0] + t[:, 0]
        return functional_call(self.network, changed, (images[:, None, None],))


# Networks, the share of the parameters that they have, transformation, and what is trained when.
SWITCHES = {
    "one network, units transformed": (1, 1.0, "unit", "jointly"),
    "one network, layers transformed": (1, 1.0, "layer", "jointly"),
    "one network": (1, 1.0, "", "jointly"),
    "a network each": (2, 1.0, "", "jointly"),
    "a network each, half the size": (2, 0.5, "", "jointly"),
    "first task, then units transformed": (1, 1.0, "unit", "transformation"),
    "first task, then layers transformed": (1, 1.0, "layer", "transformation"),
    "first task, then the second": (1, 1.0, "", "all"),
}


class Switch:
    """Two tasks in one network of two hidden layers, by backpropagation; the score is the mean of
    their errors."""

    def __init__(self, tasks: Any, width: int, batch: int, epochs: int = 3) -> None:
        self.tasks, self.width, self.batch, self.epochs = tasks, width, batch, epochs
        self.grids = dict.fromkeys(SWITCHES, RATES)

    def mlp(self, width: int) -> nn.Module:
        shape = 1, 1, self.tasks[0][0][0].shape[1]
        return create_model("mlp", image_shape=shape, num_classes=10, depth=2, width=width)

    def run(self, name: str, setting: Setting, seed: int) -> dict[str, Any]:
        torch.manual_seed(seed)
        networks, share, per, second = SWITCHES[name]
        sizes = [count_parameters(self.mlp(width)) for width in range(1, self.width + 1)]
        width = max(n for n, size in enumerate(sizes, 1) if size <= share * sizes[-1])
        models = [Switched(self.mlp(width), per) for _ in range(networks)]
        trained = [p for model in models for p in model.parameters()]
        if second == "jointly":
            self.train(models, (0, 1), trained, setting)
        else:
            self.train(models, (0,), [*models[0].network.parameters()], setting)
            switched = [*models[0].scales, *models[0].shifts]
            self.train(models, (1,), trained if second == "all" else switched, setting)
        tests = enumerate(parts[1 if seed == TUNING else 2] for parts in self.tasks)
        with torch.no_grad():
            answers = [(models[t % networks](x, t), labels) for t, (x, labels) in tests]
        row = {"parameters": sum(p.numel() for p in trained), "signals": None}
        return judged(*answers) | row

    def train(self, models: Any, tasks: tuple[int, ...], trained: Any, setting: Setting) -> None:
        """Trains by turns on a batch of each task."""
        optimizer = OPTIMIZERS[setting[0]](trained, lr=setting[1])
        for _ in range(self.epochs):
            orders = [torch.randperm(len(self.tasks[t][0][1])).split(self.batch) for t in tasks]
            for batches in zip(*orders, strict=True):
                for task, rows in zip(tasks, batches, strict=True):
                    inputs, labels = self.tasks[task][0]
                    optimizer.zero_grad()
                    logits = models[task % len(models)](inputs[rows], task)
                    F.cross_entropy(logits, labels[rows]).backward()
                    optimizer.step()
