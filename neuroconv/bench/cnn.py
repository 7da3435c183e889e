"""Neurons against a CNN of equal FLOPs, and each kernel under the machine's roofs."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from neuroconv.bench.kernels import kernel_job, module_job, ours
from neuroconv.bench.record import Bench, Figure, Row
from neuroconv.bench.turns import Failure, Turns, ratio
from neuroconv.comparison import count_flops, match_flops
from neuroconv.flops import Peak, measure_peak, place
from neuroconv.layers import DendriticConv
from neuroconv.neurons import Granule, GranuleConv2d, Purkinje
from neuroconv.zoo import create_model


def cnn(bench: Bench) -> Iterator[Row]:
    """Time of a neuron's forward pass beside a plain CNN's; FLOP and bytes as shares of peaks."""
    peak = measure_peak(bench.device.type, seconds=bench.pick(2.0, 0.05))
    for name, (module, inputs) in _populations(bench).items():
        yield _against_cnn(bench, name, module, inputs, peak)
    for name, sizes in bench.pick(_KERNELS, _QUICK_KERNELS).items():
        yield _kernel(bench, name, *sizes, peak)


# (batch, neurons, sheet, taps)
_Sizes = tuple[int, int, tuple[int, int, int], tuple[int, int, int]]
_KERNELS: dict[str, _Sizes] = {
    "Purkinje dendrites": (1, 1, (5, 100, 1000), (5, 10, 1000)),
    "granule dendrites": (32, 4096, (5, 4, 4), (5, 3, 4)),
}
_QUICK_KERNELS: dict[str, _Sizes] = {
    "Purkinje dendrites": (1, 1, (5, 10, 60), (5, 4, 60)),
    "granule dendrites": (2, 64, (5, 4, 4), (5, 3, 4)),
}


def _populations(bench: Bench) -> dict[str, tuple[nn.Module, Tensor]]:
    """Modules of neurons with their inputs."""
    torch.manual_seed(0)
    granules, batch, axons = bench.pick((4096, 32, 4096), (64, 2, 64))
    sheet, taps = bench.pick(((100, 1000), (10, 1000, 5)), ((10, 60), (4, 60, 5)))
    image_batch, pixels = bench.pick((128, 14), (2, 8))
    with torch.device(bench.device):
        return {
            "granule population": (
                Granule(axons, granules, mean_wait=0.0), torch.rand(batch, axons, 5)
            ),
            "Purkinje cell": (
                Purkinje(axons, 1, sheet_shape=sheet, filter_shape=taps, mean_wait=0.0),
                torch.rand(1, axons, 5),
            ),
            "granule image layer": (
                GranuleConv2d(16, 32, padding="same"),
                torch.rand(image_batch, 16, 5, pixels, pixels),
            ),
        }  # fmt: skip


def _against_cnn(bench: Bench, name: str, module: nn.Module, inputs: Tensor, peak: Peak) -> Row:
    """A plain CNN whose convolutions cost at most as many FLOPs for a sample."""
    module.eval()
    with torch.device("meta"):
        costs = module.closed_form(inputs.shape)  # type: ignore[operator]
    batch = len(inputs)
    flop = sum(cost.flop for cost in costs)
    neurons = sum(cost.neurons for cost in costs)
    task: dict[str, Any] = {"image_shape": (1, 28, 28), "num_classes": 10}
    matched = match_flops("plain_cnn", flop // batch, **task)
    rival = create_model("plain_cnn", **matched).to(bench.device)
    images = torch.rand(batch, 1, 28, 28, device=bench.device)
    times = bench.turns(
        {
            "neurons": module_job(module, inputs, "forward"),
            "plain_cnn": module_job(rival, images, "forward"),
        },
        share=1,
    )
    figures = [
        Figure.of(
            "neurons_over_plain_cnn_ratio", "times a plain CNN of equal FLOPs",
            ratio(times["neurons"], times["plain_cnn"]),
        )
    ]  # fmt: skip
    own = times["neurons"]
    if isinstance(own, Turns):
        each = own.timing.seconds / batch / neurons
        figures.append(Figure("seconds_per_neuron_forward", "seconds for a neuron's forward", each))
        parameters = sum(p.nbytes for p in module.parameters())
        moved = inputs.nbytes + parameters + batch * neurons * 5 * 4
        figures += _shares(flop, moved, own, peak)
    sizes = {
        "batch": batch, "neurons": neurons, "flop_per_sample": flop // batch,
        "plain_cnn_width": matched["width"],
        "plain_cnn_flop_per_sample": count_flops("plain_cnn", **matched),
    }  # fmt: skip
    return Row(f"{name} against a CNN, forward", sizes, times, figures)


def _kernel(
    bench: Bench, name: str, batch: int, neurons: int, sheet: tuple[int, int, int],
    taps: tuple[int, int, int], peak: Peak,
) -> Row:  # fmt: skip
    time_steps, sites, dendrites = sheet
    x = bench.randn(batch, neurons, time_steps, sites, dendrites)
    w = bench.randn(neurons, *taps)
    with torch.device("meta"):
        filter_shape = (taps[1], taps[2], taps[0])
        layer = DendriticConv(neurons, (sites, dendrites), filter_shape, "same", bias=False)
        flop = sum(cost.flop for cost in layer.closed_form(x.shape))
    times = bench.turns({"neuroconv": kernel_job(ours(), x, w, "forward")})
    own = times["neuroconv"]
    figures = [] if isinstance(own, Failure) else _shares(flop, 2 * x.nbytes + w.nbytes, own, peak)
    sizes = {"batch": batch, "neurons": neurons, "sheet": list(sheet), "filter": list(taps)}
    return Row(f"{name} under the roofs, forward", sizes, times, figures)


def _shares(flop: int, compulsory: int, own: Turns, peak: Peak) -> list[Figure]:
    """FLOP executed, and bytes that must move: operands read once, results written once."""
    placed = place(flop, compulsory, own.timing.seconds, peak)
    return [
        Figure("share_of_peak_flop_ratio", "of the measured peak of arithmetic",
               placed.share_of_peak_flop),
        Figure("share_of_peak_bytes_ratio", "of the measured copy bandwidth (compulsory bytes)",
               placed.share_of_peak_bytes),
    ]  # fmt: skip
