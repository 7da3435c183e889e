"""Fits how the error falls with training images and with training FLOPs, neurons beside a CNN.

A granule network and the plain CNN of as many parameters, each in several widths, are trained on
random subsets of the training images for a fixed number of presentations. From this one grid come

- the error against the number of images: for each number the width and the presentations with the
  lowest validation error, whatever they cost;
- the error against compute: for each cost the best of all that cost no more, whatever the number of
  images. So data, passes and width grow as compute is best spent, within the grid.

A network's FLOPs of training are three times those of its forward pass, by the exact counter,
times the presentations: the backward pass computes two products for each of the forward pass.
Exponents are least-squares slopes of the logarithms.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from power_laws import NAMES, best, curves, draw, exponent, mean
from torch import Tensor, nn
from torch.nn import functional as F

from neuroconv.comparison import count_flops, match_parameters
from neuroconv.comparison.match import parameter_count
from neuroconv.data import DataSplits, load_data
from neuroconv.essay import Experiment, Interval, Rows
from neuroconv.zoo import create_model

STEPS, BATCH = 5, 50
# The best of 2e-2, 4e-2, 8e-2, 1.6e-1 and 3.2e-1 by validation error with a trial seed, of 4,000
# presentations of 1,000 images; of 20,000 of 3,000 nothing above it is better.
RATES = {"granule_convnet": 8e-2, "plain_cnn": 8e-2}


@dataclass(frozen=True)
class Size:
    seeds: tuple[int, ...]
    dataset: str
    side: int  # pixels
    images: tuple[int, ...]
    presentations: tuple[int, ...]
    widths: tuple[int, ...] = (1, 2)
    passes: tuple[int, int] = (2, 70)  # fewest and most: other pairs are left out


SIZES = {
    "full": Size(
        (13_000, 13_001, 13_002, 13_003, 13_004), "mnist", 14,
        (300, 1000, 3000, 10_000, 30_000), (2000, 6000, 20_000, 60_000),
    ),
    "quick": Size(
        (13_050, 13_051, 13_052), "digits", 8, (90, 250, 600, 1250), (1200, 4000, 12_000)
    ),
    "test": Size((0, 1), "digits", 8, (50, 100), (100, 200), (1,)),
}  # fmt: skip


def conditions(size: Size) -> list[dict[str, Any]]:
    fewest, most = size.passes
    return [
        {"network": network, "width": width, "images": n, "presentations": count}
        for network in RATES
        for width in size.widths
        for count in size.presentations
        for n in size.images
        if fewest * n <= count <= most * n
    ]


@lru_cache(1)
def data(name: str, side: int) -> DataSplits:
    return load_data(name, image_size=side, encoding="saccade", time_steps=STEPS)


@lru_cache(None)
def keywords(network: str, width: int, side: int) -> dict[str, Any]:
    """Returns those of the granule network of a width, or of the CNN of as many parameters."""
    task = {"image_shape": (1, side, side), "time_steps": STEPS}
    granule = {**task, "widths": (4 * width, 12 * width), "strides": (2, 1)}
    if network == "granule_convnet":
        return granule
    return dict(match_parameters(network, parameter_count("granule_convnet", **granule), **task))


def train(model: nn.Module, splits: DataSplits, chosen: Tensor, count: int, rate: float) -> None:
    """Shows `count` images, pass by pass in random order, with a rate that falls to zero."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    batches = max(1, count // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=batches + 1)
    order, epoch = torch.empty(0, dtype=torch.int64), 0
    for _ in range(batches):
        if len(order) < BATCH:  # the rest of a pass is shown with the next one
            order = torch.cat([order, chosen[torch.randperm(len(chosen))]])
            epoch += 1
            splits.train.set_epoch(epoch)
        images, labels = splits.train.batch(order[:BATCH].tolist())
        order = order[BATCH:]
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def right(model: nn.Module, frames: Any) -> NDArray[np.bool_]:
    """Returns which images are classified rightly."""
    model.eval()
    flags = []
    for start in range(0, len(frames), 500):
        images, labels = frames.batch(range(start, min(start + 500, len(frames))))
        flags.append(model(images).argmax(1) == labels)
    return torch.cat(flags).numpy()


def measure(
    size: Size, *, seed: int, folder: Any, network: str, width: int, images: int,
    presentations: int,
) -> dict[str, Any]:  # fmt: skip
    splits, built = data(size.dataset, size.side), keywords(network, width, size.side)
    chosen = torch.randperm(
        len(splits.train), generator=torch.Generator().manual_seed(seed)
    )[:images]  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        seeded = {"seed": seed} if network == "granule_convnet" else {}
        model = create_model(network, **built, **seeded)
        train(model, splits, chosen, presentations, RATES[network])
    return {
        "flop": 3 * count_flops(network, **built) * presentations,
        "parameters": sum(p.numel() for p in model.parameters()),
        "val_error": 1 - float(right(model, splits.val).mean()),
        "right": right(model, splits.test),
    }


def quantities(rows: Rows) -> dict[str, Interval]:
    return {
        f"{label}_{key}": exponent(*curves(rows, network)[curve])
        for network, label in (("granule_convnet", "granule"), ("plain_cnn", "cnn"))
        for key, curve in (("data", "images"), ("compute", "flop"))
    }


def tables(rows: Rows) -> str:
    lines = [
        "| network | fitted over | from | to | error at the ends, % | exponent "
        "| of the lower half | of the upper half |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    found = {network: curves(rows, network) for network in NAMES}
    for network, by_key in found.items():
        for key, (x, wrong) in by_key.items():
            half, ends = max(2, (len(x) + 1) // 2), wrong.mean((1, 2))[[0, -1]]
            fits = (exponent(x[part], wrong[part]) for part in (
                slice(None), slice(half), slice(-half, None)))  # fmt: skip
            shown = " | ".join(f"{a.value:.3f} ({a.low:.3f} to {a.high:.3f})" for a in fits)
            lines.append(
                f"| {NAMES[network]} | {key.replace('flop', 'training FLOPs')} | {x[0]:.3g} "
                f"| {x[-1]:.3g} | {100 * ends[0]:.2f}, {100 * ends[1]:.2f} | {shown} |"
            )
    lines += [
        "", "| network | images | test error, % | width | presentations | parameters |",
        "|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for network, by_key in found.items():
        for n in by_key["images"][0]:
            wrong, chosen = best(rows, network, images=n)
            parameters = rows.values("parameters", **chosen)[0]
            lines.append(
                f"| {NAMES[network]} | {n:,} | {mean(wrong)} | x {chosen['width']} "
                f"| {chosen['presentations']:,} | {parameters:,} |"
            )
    return "\n".join(lines)


EXPERIMENT = Experiment(__file__, SIZES, conditions, measure, quantities, draw, tables)

if __name__ == "__main__":
    EXPERIMENT.main()
