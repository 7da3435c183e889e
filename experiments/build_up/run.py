"""Accuracy against the number of noisy frames, of neurons that filter five steps and of averaging.

A frame holds Poisson events of a still image: a pixel of intensity p is 1 with probability
`event_rate` x p, independently in each frame. Their sum is then all that the frames tell, so that a
CNN on the mean frame is the control. The event rate is the power of 2 ** -0.5 at which a ridge
classifier has, on one frame of validation images, most nearly half the accuracy above chance that
it has without noise; the rows "linear" repeat that on test images.

Neurons are trained for each number of frames, and once for eight with the loss averaged over a
read-out at every step ("streaming"). Windows of an image begin with the same frames. The rows
"still" give the same neurons the mean of five frames at every step: time apart from network.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.linear_model import RidgeClassifier
from torch import Tensor, nn
from torch.utils.data import Subset

from neuroconv.comparison import estimate, match_parameters
from neuroconv.data import DataSplits, Frames, load_data
from neuroconv.essay import Experiment, Interval, Rows
from neuroconv.report.style import COLOURS, INK, MARKERS, STROKES, annotate, plain
from neuroconv.training import RunFailed, train
from neuroconv.zoo import FrameNet, count_parameters, create_model

STREAMED, ESSAY = 8, 5  # frames of the streaming network; the essay's time steps
SEARCH_SEED = 2999
ARMS = {
    "neuron": "neurons, trained for each number",
    "streaming": "neurons, one network read out at every step",
    "mean": "CNN on the mean frame, trained for each number",
}


@dataclass(frozen=True)
class Size:
    seeds: tuple[int, ...]
    data: str
    event_rate: float
    epochs: int
    frames: tuple[int, ...] = (1, 2, 3, 5, 6, 8)
    train_images: int | None = None
    test_images: int | None = None
    learning_rates: tuple[float, ...] = (1e-2, 3e-2, 1e-1, 3e-1)


SIZES = {
    "full": Size(tuple(range(3400, 3405)), "mnist", 2**-3.5, 8, train_images=5000),
    "quick": Size(tuple(range(3405, 3408)), "digits", 2**-1.5, 16),
    "test": Size((0, 1), "digits", 2**-1.5, 1, (1, 5, 8), 50, 40, (3e-2,)),
}


class Still(nn.Module):
    """A network that receives at every step the mean of the frames (B, C, T, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.network(frames.mean(2, keepdim=True).expand_as(frames))
        return logits


class Streaming(nn.Module):
    """A network read out at every step, (B, C, T, H, W) -> (B, T, classes); causal when tested."""

    def __init__(self, network: FrameNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        maps = self.network.units(frames).transpose(1, 2)
        return self.network.forward_head(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])


@cache
def stills(data: str, train_images: int | None) -> DataSplits:
    return load_data(data, encoding="none", train_limit=train_images)


def noisy(size: Size, part: str, frames: int, seed: int) -> Frames:
    images = getattr(stills(size.data, size.train_images), part).dataset
    data = Frames(images, "poisson", frames, training=part == "train", seed=seed)
    return data.perturbed(lambda image, _: image * size.event_rate)


def build(image_shape: tuple[int, int, int], arm: str, frames: int) -> nn.Module:
    task: dict[str, Any] = {"image_shape": image_shape, "time_steps": frames}
    neurons: Any = create_model("granule_convnet", unit={"time_steps": ESSAY}, **task)
    if arm != "mean":
        wrappers: dict[str, Any] = {"streaming": Streaming, "still": Still}
        return wrappers[arm](neurons) if arm in wrappers else neurons
    size = count_parameters(neurons)
    return create_model("plain_cnn", **match_parameters("plain_cnn", size, frames="mean", **task))


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the cross entropy of logits (B, classes), or its mean over steps for (B, T, ...)."""
    steps = logits.shape[1] if logits.dim() == 3 else 1
    return nn.functional.cross_entropy(logits.flatten(0, -2), labels.repeat_interleave(steps))


def fit(size: Size, arm: str, frames: int, rate: float, seed: int) -> tuple[nn.Module, float]:
    """Returns the network of the epoch of lowest validation loss, and that loss."""
    epochs = -(-size.epochs // 2) if seed == SEARCH_SEED else size.epochs
    data, val = (noisy(size, part, frames, seed) for part in ("train", "val"))
    torch.manual_seed(seed)
    network = build(data.image_shape, arm, frames)
    chosen = Subset(val, range(0, len(val), -(-len(val) // 1000)))
    settings = {"learning_rate": rate, "epochs": epochs, "batch_size": 64, "device": "cpu"}
    result = train(network, data, chosen, loss=loss, seed=seed, progress=False, **settings)
    return network, result.val.loss


@torch.inference_mode()
def answers(network: nn.Module, data: Frames, images: int | None) -> NDArray[np.bool_]:
    """Returns which images (N, 1) a network has right, or (N, T) of a read-out at every step."""
    right = []
    for indices in torch.arange(len(data))[:images].split(250):
        frames, labels = data.batch(indices.tolist())
        right.append(network(frames).argmax(-1).view(len(labels), -1) == labels[:, None])
    return torch.cat(right).numpy()


@cache
def best_rate(size: Size, arm: str) -> float:
    frames = STREAMED if arm == "streaming" else ESSAY

    def val_loss(rate: float) -> float:
        try:
            return fit(size, arm, frames, rate, SEARCH_SEED)[1]
        except RunFailed:  # a loss that is not finite
            return float("inf")

    return min(size.learning_rates, key=val_loss)


def ridge_accuracy(*parts: Frames) -> float:
    (x, y), (u, v) = (data.batch(range(len(data))) for data in parts)
    ridge = RidgeClassifier(alpha=10.0).fit(x.flatten(1).numpy(), y.numpy())
    return float(ridge.score(u.flatten(1).numpy(), v.numpy()))


def conditions(size: Size) -> list[dict[str, Any]]:
    arms = [(arm, frames) for arm in ("neuron", "mean") for frames in size.frames]
    plan = [("linear", 1), *arms, ("streaming", STREAMED), ("still", ESSAY)]
    return [{"arm": arm, "frames": frames} for arm, frames in plan]


def measure(size: Size, *, seed: int, folder: Any, arm: str, frames: int) -> dict[str, Any]:
    if arm == "linear":
        image = stills(size.data, size.train_images)
        frame = (noisy(size, part, 1, seed) for part in ("train", "test"))
        return {"clean": ridge_accuracy(image.train, image.test), "noisy": ridge_accuracy(*frame)}
    rate = best_rate(size, arm)
    network, _ = fit(size, arm, frames, rate, seed)
    right = answers(network, noisy(size, "test", frames, seed), size.test_images)
    steps = {f"step_{frames - t}": right[:, -1 - t] for t in range(right.shape[1])}
    return {"parameters": count_parameters(network), "learning_rate": rate, **steps}


def right(rows: Rows, arm: str, frames: int) -> NDArray[np.float64]:
    """Returns the right answers (S, N) of an arm after a number of frames."""
    trained = STREAMED if arm == "streaming" else frames
    return rows.values(f"step_{frames}", arm=arm, frames=trained).astype(float)


def quantities(rows: Rows) -> dict[str, Interval]:
    five = right(rows, "neuron", ESSAY)
    differences = {
        "gain": five - right(rows, "neuron", 1),
        "later": right(rows, "neuron", STREAMED) - five,
        "one_network": right(rows, "streaming", ESSAY) - five,
        "taken_in": five - right(rows, "still", ESSAY),
        "averaging": five - right(rows, "mean", ESSAY),
    }
    return {name: Interval.of(estimate(values), 100) for name, values in differences.items()}


def curve(rows: Rows, arm: str) -> dict[int, Interval]:
    """Returns an arm's accuracy in percent by the number of frames."""
    frames = sorted({row["frames"] for row in rows if row["arm"] == "neuron"})
    return {n: Interval.of(estimate(right(rows, arm, n)), 100) for n in frames}


def tables(rows: Rows) -> str:
    numbers = curve(rows, "neuron")
    lines = [
        f"| right, %, by frames | parameters | learning rate | {' | '.join(map(str, numbers))} |",
        f"|---|---:|---:|{'---:|' * len(numbers)}",
    ]
    for arm, title in ARMS.items():
        row, values = rows.where(arm=arm)[0], curve(rows, arm).values()
        cells = " | ".join(f"{value:.1f}" for value in values)
        lines.append(f"| {title} | {row['parameters']:,} | {row['learning_rate']:g} | {cells} |")
    noise, clean = (rows.values(key, arm="linear").mean() for key in ("noisy", "clean"))
    text = f"A ridge classifier has {100 * noise:.1f} % right on one frame and {100 * clean:.1f} %"
    share = f"{(noise - 0.1) / (clean - 0.1):.2f} of the accuracy above chance"
    still = Interval.of(estimate(right(rows, "still", ESSAY)), 100)
    less = Interval.of(estimate(right(rows, "neuron", ESSAY) - right(rows, "still", ESSAY)), 100)
    control = f"The same neurons with the mean of {ESSAY} frames at every step have {still:.1f} %;"
    control += f" with the frames in turn: {less:+.1f} points."
    return "\n".join([*lines, "", f"{text} on the image without noise: {share}.", control])


def draw(rows: Rows) -> Figure:
    figure, axes = plt.subplots(figsize=(7.4, 4.2), layout="constrained")
    axes.axvspan(0.08 * 30, 0.2 * 30, color=INK, alpha=0.08, lw=0)
    for index, (arm, title) in enumerate(ARMS.items()):
        values = curve(rows, arm)
        x = np.array([*values]) + 0.08 * (index - 1)
        heights, errors = zip(*((v.value, v.high - v.value) for v in values.values()), strict=True)
        style = {"color": COLOURS[index], "marker": MARKERS[index], "ls": STROKES[index]}
        axes.errorbar(x, heights, errors, ms=6, capsize=3, label=title, **style)
    annotate(axes, "80 to 200 ms", (2.4, axes.get_ylim()[1]), (4, -12), fontsize=9.5)
    axes.set(xlabel="frames, 30 a second", ylabel="test images right, %", xticks=range(1, 9))
    axes.legend(frameon=False, loc="lower right", fontsize=9.5, labelcolor=INK)
    plain(axes)
    return figure


EXPERIMENT = Experiment(__file__, SIZES, conditions, measure, quantities, draw, tables)

if __name__ == "__main__":
    EXPERIMENT.main()
