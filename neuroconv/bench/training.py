"""An epoch of MNIST: the granule network against plain CNNs."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional as F

from neuroconv.bench.record import Bench, Figure, Row
from neuroconv.bench.turns import Job, Outcome, Turns, ratio
from neuroconv.comparison import count_flops, match_flops, match_parameters
from neuroconv.data import load_data
from neuroconv.training import train
from neuroconv.zoo import count_parameters, create_model

_AT_MOST = 2.0
_BATCH, _IMAGES, _TIME_STEPS = 64, 55_000, 5
_MNIST = {"image_shape": (1, 28, 28), "num_classes": 10}
_NEURONS = "granule_convnet"


def training(bench: Bench) -> Iterator[Row]:
    """Whole steps of AdamW on frames that are there, or, with a folder of MNIST, whole training."""
    torch.manual_seed(0)
    entries = _entries()
    if bench.data is None:
        times = bench.turns(
            {name: _step(bench, *entry) for name, entry in entries.items()}, share=6, slow=30.0
        )
        yield _row(bench, entries, times, "frames of MNIST's shape that lie on the device")
    else:
        yield _row(bench, entries, _trained(bench, entries), "real MNIST, loading included")


def _entries() -> dict[str, tuple[str, dict[str, Any]]]:
    """The network of neurons and its opponents: (zoo name, keywords) by label."""
    own: dict[str, Any] = {**_MNIST, "time_steps": _TIME_STEPS}
    flop = count_flops(_NEURONS, **own)
    with torch.device("meta"):
        parameters = count_parameters(create_model(_NEURONS, **own))
    still = {**own, "time_steps": 1}
    return {
        _NEURONS: (_NEURONS, own),
        "plain_cnn": ("plain_cnn", match_flops("plain_cnn", flop, **own)),
        "plain_cnn_still": ("plain_cnn", match_flops("plain_cnn", flop, **still)),
        "plain_cnn_parameters": ("plain_cnn", match_parameters("plain_cnn", parameters, **own)),
    }


def _step(bench: Bench, name: str, keywords: dict[str, Any]) -> Job:
    """One step: it changes its own weights."""
    batch = bench.pick(_BATCH, 4)
    model = create_model(name, **keywords).to(bench.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    channels, height, width = keywords["image_shape"]
    steps = keywords["time_steps"]
    axes = (
        (batch, channels, height, width) if steps == 1 else (batch, channels, steps, height, width)
    )
    frames = torch.rand(*axes, device=bench.device)
    labels = torch.arange(batch, device=bench.device) % 10

    def step() -> object:
        loss = F.cross_entropy(model(frames), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Job(step)


def _trained(bench: Bench, entries: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, Outcome]:
    """Seconds of a step by what `train` says of its own pace, three runs each in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in entries}
    runs, steps = bench.pick((3, 100), (1, 2))
    for _ in range(runs):
        for label, (name, keywords) in entries.items():
            still = keywords["time_steps"] == 1
            data = load_data(
                "mnist", root=bench.data, encoding="none" if still else "saccade",
                time_steps=keywords["time_steps"], train_limit=bench.pick(None, 200),
            )  # fmt: skip
            few = torch.utils.data.Subset(data.val, range(64))
            found = train(
                create_model(name, **keywords), data.train, few, epochs=1, batch_size=_BATCH,
                max_steps=steps, device=bench.device.type, progress=False,
            )  # fmt: skip
            seconds[label].append(_BATCH / found.history[0]["images_per_second"])
    return {name: Turns(tuple(taken), steps) for name, taken in seconds.items()}


def _row(
    bench: Bench, entries: dict[str, tuple[str, dict[str, Any]]], times: dict[str, Outcome], on: str
) -> Row:
    batch = bench.pick(_BATCH, 4) if bench.data is None else _BATCH
    bars = {
        "plain_cnn": ("the plain CNN of equal FLOPs on the same frames", _AT_MOST),
        "plain_cnn_still": ("the plain CNN of equal FLOPs on still images", _AT_MOST),
        "plain_cnn_parameters": ("the plain CNN of equal parameters on the same frames", None),
    }
    figures = [
        Figure.of(
            f"{_NEURONS}_over_{name}_ratio", f"times the epoch of {what}",
            ratio(times[_NEURONS], times[name]), at_most=bar,
        )
        for name, (what, bar) in bars.items()
    ]  # fmt: skip
    for name, outcome in times.items():
        if isinstance(outcome, Turns):
            epoch = outcome.timing.seconds * (_IMAGES // batch)
            text = f"seconds for an epoch of {name}"
            figures.append(Figure(f"{name}_epoch_seconds", text, epoch))
    sizes: dict[str, Any] = {"batch": batch, "images": _IMAGES, "data": on}
    for name, (model, keywords) in entries.items():
        with torch.device("meta"):
            parameters = count_parameters(create_model(model, **keywords))
        sizes[name] = {
            **keywords, "parameters": parameters, "flop_per_image": count_flops(model, **keywords)
        }  # fmt: skip
    return Row("training on MNIST", sizes, times, figures, [f"a step is timed, on {on}"])
