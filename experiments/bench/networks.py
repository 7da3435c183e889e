"""Sections on networks: training beside plain CNNs, equal FLOPs, and learning on a device."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from recording import Bench, Row, figure, over, row
from timer import Outcome, TimedRun
from torch import nn
from torch.utils.data import Subset
from variants import kernel_variant, module_variant, neuroconv, step_variant, with_layout
from workloads import BATCH_INNERMOST, CLAW, GRANULE, Shape, population

from neuroconv.comparison import count_flops, match_flops, match_parameters
from neuroconv.data import load_data
from neuroconv.flops import Peak, place
from neuroconv.layers import DendriticConv, TreeShape
from neuroconv.neurons import Granule, GranuleConv2d, Purkinje
from neuroconv.training import train
from neuroconv.zoo import count_parameters, create_model

_MNIST = {"image_shape": (1, 28, 28), "num_classes": 10}
_NEURONS = "granule_convnet"
_BATCH, _IMAGES = 64, 55_000
_CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def training(bench: Bench) -> Iterator[Row]:
    """Compares an epoch of MNIST of the granule network with plain CNNs.

    Without a folder of MNIST, whole steps of AdamW on frames that lie on the device; with it,
    whole training, loading included.
    """
    torch.manual_seed(0)
    keywords = {**_MNIST, "time_steps": 5}
    still = {**_MNIST, "time_steps": 1}
    flop, parameters = count_flops(_NEURONS, **keywords), _parameters(_NEURONS, **keywords)
    entries: dict[str, tuple[str, dict[str, Any]]] = {
        _NEURONS: (_NEURONS, keywords),
        "plain_cnn": ("plain_cnn", match_flops("plain_cnn", flop, at_most=True, **keywords)),
        "plain_cnn_still": ("plain_cnn", match_flops("plain_cnn", flop, at_most=True, **still)),
        "plain_cnn_parameters": (
            "plain_cnn", match_parameters("plain_cnn", parameters, at_most=True, **keywords)
        ),
    }  # fmt: skip
    if bench.data is None:
        batch, source = bench.pick(_BATCH, 4), "frames of MNIST's shape that lie on the device"
        variants = {}
        for label, (name, entry) in entries.items():
            steps = entry["time_steps"]
            axes = (1, 28, 28) if steps == 1 else (1, steps, 28, 28)
            model = create_model(name, **entry).to(bench.device)
            variants[label] = step_variant(model, bench.rand(batch, *axes))
        times = bench.times(variants, share=6, slow=30.0)
    else:
        batch, source = _BATCH, "real MNIST, loading included"
        times = _epochs(bench, entries)
    figures = {}
    for label, (text, bar) in {
        "plain_cnn": ("the plain CNN of equal FLOPs on the same frames", 2.0),
        "plain_cnn_still": ("the plain CNN of equal FLOPs on still images", 2.0),
        "plain_cnn_parameters": ("the plain CNN of equal parameters on the same frames", None),
    }.items():
        figures |= over(times, _NEURONS, label, f"times the epoch of {text}", at_most=bar)
    for label, outcome in times.items():
        if isinstance(outcome, TimedRun):
            seconds = outcome.median * (_IMAGES // batch)
            text = f"seconds for an epoch of {label}"
            figures[f"{label}_epoch_seconds"] = figure(text, seconds)
    sizes: dict[str, Any] = {"batch": batch, "images": _IMAGES, "data": source}
    for label, (name, entry) in entries.items():
        counts = {"parameters": _parameters(name, **entry),
                  "flop_per_image": count_flops(name, **entry)}  # fmt: skip
        sizes[label] = {**entry, **counts}
    yield row("training on MNIST", sizes, times, figures, [f"a step is timed, on {source}"])


def _parameters(name: str, **keywords: Any) -> int:
    with torch.device("meta"):
        return count_parameters(create_model(name, **keywords))


def _epochs(bench: Bench, entries: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, Outcome]:
    """Returns seconds of a step by `train`'s own record of its pace, three runs each by turns."""
    seconds: dict[str, list[float]] = {label: [] for label in entries}
    repeats, steps = bench.pick((3, 100), (1, 2))
    for _ in range(repeats):
        for label, (name, keywords) in entries.items():
            time_steps = keywords["time_steps"]
            data = load_data(
                "mnist", root=bench.data, encoding="none" if time_steps == 1 else "saccade",
                time_steps=time_steps, train_limit=bench.pick(None, 200),
            )  # fmt: skip
            result = train(
                create_model(name, **keywords), data.train, Subset(data.val, range(64)), epochs=1,
                batch_size=_BATCH, max_steps=steps, device=bench.device.type, progress=False,
            )  # fmt: skip
            seconds[label].append(_BATCH / result.history[0]["images_per_second"])
    return {label: TimedRun(tuple(series), steps) for label, series in seconds.items()}


def cnn(bench: Bench) -> Iterator[Row]:
    """Compares neurons with a plain CNN of equal FLOPs, and kernels with the measured peaks."""
    torch.manual_seed(0)
    peak = bench.peak()
    granules, batch = bench.pick((4096, 32), (64, 2))
    sheet, filters = bench.pick(((100, 1000), (10, 1000, 5)), ((10, 60), (4, 60, 5)))
    images, pixels = bench.pick((128, 14), (2, 8))
    modules: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "granule population": (
            bench.build(Granule, granules, granules, output={"mean_wait": 0.0}),
            (batch, granules, 5),
        ),
        "Purkinje cell": (
            bench.build(population, Purkinje, granules, 1, sheet=sheet, filters=filters,
                        output={"mean_wait": 0.0}), (1, granules, 5)
        ),
        "granule image layer": (
            bench.build(GranuleConv2d, 16, 32, padding="same"), (images, 16, 5, pixels, pixels)
        ),
    }  # fmt: skip
    for name, (module, shape) in modules.items():
        yield _beside_cnn(bench, name, module.eval(), shape, peak)
    for name, shape in {
        "Purkinje": Shape("same", 1, 1, (5, *sheet), (filters[2], *filters[:2])),
        "granule": Shape("same", batch, granules, GRANULE, CLAW),
    }.items():
        yield _under_peaks(bench, name, shape, peak)


def _beside_cnn(
    bench: Bench, name: str, module: nn.Module, shape: tuple[int, ...], peak: Peak
) -> Row:
    with torch.device("meta"):
        costs = module.closed_form(torch.Size(shape))
    batch, flop = shape[0], sum(cost.flop for cost in costs)
    neurons, inputs = sum(cost.neurons for cost in costs), bench.rand(*shape)
    matched = match_flops("plain_cnn", flop // batch, at_most=True, **_MNIST)
    rival = create_model("plain_cnn", **matched).to(bench.device)
    times = bench.times({
        "neurons": module_variant(module, inputs, "forward"),
        "plain_cnn": module_variant(rival, bench.rand(batch, 1, 28, 28), "forward"),
    })  # fmt: skip
    figures = over(times, "neurons", "plain_cnn", "times a plain CNN of equal FLOPs")
    if isinstance(neuron_times := times["neurons"], TimedRun):
        seconds = neuron_times.median
        text = "seconds for a neuron's forward pass"
        figures["seconds_per_neuron_forward"] = figure(text, seconds / batch / neurons)
        parameters = sum(parameter.nbytes for parameter in module.parameters())
        moved = inputs.nbytes + parameters + batch * neurons * 5 * 4
        figures |= shares(flop, moved, seconds, peak)
    sizes = {
        "batch": batch, "neurons": neurons, "flop_per_sample": flop // batch,
        "plain_cnn_width": matched["width"],
        "plain_cnn_flop_per_sample": count_flops("plain_cnn", **matched),
    }  # fmt: skip
    return row(f"{name} against a CNN, forward", sizes, times, figures)


def _under_peaks(bench: Bench, name: str, shape: Shape, peak: Peak) -> Row:
    sheet = bench.randn(shape.batch, shape.neurons, *shape.sheet)
    filters = bench.randn(shape.neurons, *shape.taps)
    sheet = with_layout(sheet, BATCH_INNERMOST)
    with torch.device("meta"):
        taps = (*shape.taps[1:], shape.taps[0])
        tree = TreeShape(shape.sheet[1:], taps, mode=shape.mode)
        layer = DendriticConv(shape.neurons, tree, bias=False)
        flop = sum(cost.flop for cost in layer.closed_form(sheet.shape))
    times = bench.times({"neuroconv": kernel_variant(neuroconv(), sheet, filters, "forward")})
    figures, outcome = {}, times["neuroconv"]
    if isinstance(outcome, TimedRun):
        bar = bench.on("cuda", 0.6) if name == "granule" else None
        moved = 2 * sheet.nbytes + filters.nbytes
        figures = shares(flop, moved, outcome.median, peak, bandwidth_at_least=bar)
    return row(f"{name} dendrites under the roofs, forward", shape._asdict(), times, figures)


def shares(
    flop: int, compulsory: int, seconds: float, peak: Peak, bandwidth_at_least: float | None = None
) -> dict[str, Any]:
    """Returns FLOP executed, and bytes that must move, as shares of the measured peaks."""
    placed = place(flop, compulsory, seconds, peak)
    return {
        "share_of_peak_flop_ratio": figure(
            "of the measured peak of arithmetic", placed.share_of_peak_flop
        ),
        "share_of_peak_bytes_ratio": figure(
            "of the measured copy bandwidth (compulsory bytes)",
            placed.share_of_peak_bytes,
            at_least=bandwidth_at_least,
        ),
    }
