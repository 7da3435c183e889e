"""The granule image layer: what it takes beside its convolutions."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.bench.kernels import module_job
from neuroconv.bench.record import Bench, Figure, Row
from neuroconv.bench.replay import CONVOLUTIONS, operators_alone
from neuroconv.bench.turns import Job, ratio
from neuroconv.core.checks import Norm
from neuroconv.kernels.native import native_kernels
from neuroconv.neurons import GranuleConv2d

_AT_MOST = 1.5
_TIME_STEPS = 5
SIZES = ((1, 8, 28), (8, 8, 13), (16, 32, 14))  # channels in, units, pixels


class CausalConv3d(nn.Conv3d):
    """A plain convolution of a granule layer's taps and shapes: padded as "same", causal."""

    def forward(self, frames: Tensor) -> Tensor:
        time, height, width = self.kernel_size
        pads = ((width - 1) // 2, width // 2, (height - 1) // 2, height // 2, time - 1, 0)
        return super().forward(F.pad(frames, pads))


def image_layer(bench: Bench) -> Iterator[Row]:
    """Forward and backward, against the layer's convolutions alone and a Conv3d of its taps."""
    torch.manual_seed(0)
    batch = bench.pick(128, 2)
    norms: tuple[Norm, ...] = ("none", "both")
    for channels, units, pixels in bench.pick(SIZES, ((2, 3, 8),)):
        for norm in norms:
            yield _layer(bench, batch, channels, units, pixels, norm)


def _layer(bench: Bench, batch: int, channels: int, units: int, pixels: int, norm: Norm) -> Row:
    frames = torch.rand(batch, channels, _TIME_STEPS, pixels, pixels, device=bench.device)
    with torch.device(bench.device):
        layer = GranuleConv2d(channels, units, padding="same", time_steps=_TIME_STEPS, norm=norm)
        plain = CausalConv3d(channels, units, (_TIME_STEPS, 3, 4))
    whole = module_job(layer, frames, "forward_backward")
    with native_kernels(False):  # as torch's operators run the layer
        convolutions = operators_alone(whole.call, CONVOLUTIONS)
    jobs = {
        "layer": whole,
        "convolutions": Job(convolutions),
        "conv3d": module_job(plain, frames, "forward_backward"),
    }
    times = bench.turns(jobs, share=2)
    figures = [
        Figure.of(
            "layer_over_convolutions_ratio",
            "times its convolutions alone",
            ratio(times["layer"], times["convolutions"]),
            at_most=_AT_MOST,
        ),
        Figure.of(
            "layer_over_conv3d_ratio",
            "times a Conv3d of the same taps",
            ratio(times["layer"], times["conv3d"]),
        ),
    ]
    sizes = {
        "batch": batch, "channels": channels, "units": units, "pixels": pixels,
        "time_steps": _TIME_STEPS, "kernel": [3, 4], "norm": norm,
    }  # fmt: skip
    return Row(
        f"GranuleConv2d {channels} to {units} at {pixels}, norm {norm}", sizes, times, figures
    )
