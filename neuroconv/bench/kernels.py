"""The dendritic convolution and what it is held against, as jobs to be timed.

A forward job returns the full map, a job of both ways the map and the gradients of sheet and
filters. Rivals are given a sheet that is padded already, outside of the timed interval.
"""

import warnings
from collections.abc import Callable
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.bench.turns import Job
from neuroconv.kernels.conv import Backend, Mode, choose_backend
from neuroconv.layers import dendritic_conv

TASKS = ("forward", "forward_backward")
NO_FFT_CONV = (
    "fft-conv-pytorch is not installed, and is left out; "
    "pip install 'neuroconv-zoo[bench]' brings it"
)

Convolution = Callable[[Tensor, Tensor], Tensor]


def chosen_backend(
    batch: int,
    neurons: int,
    sheet: tuple[int, int, int],
    taps: tuple[int, int, int],
    mode: Mode,
    device: torch.device,
    gradients: bool = False,
) -> Backend:
    """What "auto" runs for sheets of (T, P, D) and filters of (K_T, K_P, K_D)."""
    return choose_backend(
        sheet, taps, mode, batch=batch, neurons=neurons, gradients=gradients, device=device.type
    )


def ours(mode: Mode = "same", backend: Backend = "auto") -> Convolution:
    """This package's: (B, N, T, P, D) sheets, (N, K_T, K_P, K_D) filters."""
    return lambda sheet, filters: dendritic_conv(sheet, filters, mode, backend)


def conv3d(padded: Tensor, filters: Tensor) -> Tensor:
    """torch's, one group for each neuron."""
    return F.conv3d(padded, filters.unsqueeze(1), groups=len(filters))


def fft_conv() -> Convolution | None:
    """The package fft-conv-pytorch's, one group for each neuron; None if it is not installed."""
    if find_spec("fft_conv_pytorch") is None:
        return None
    from fft_conv_pytorch import fft_conv as function

    def convolution(padded: Tensor, filters: Tensor) -> Tensor:
        with warnings.catch_warnings():  # it indexes by a list, which torch announces as going
            warnings.simplefilter("ignore", UserWarning)
            result: Tensor = function(padded, filters.unsqueeze(1), groups=len(filters))
        return result

    return convolution


def pad_same(sheet: Tensor, taps: tuple[int, int, int]) -> Tensor:
    """The sheet with the zeros that mode "same" takes around it: causal in time."""
    k_time, branches, across = taps
    sides = [((k - 1) // 2, k // 2) for k in (across, branches)]
    return F.pad(sheet, (*sides[0], *sides[1], k_time - 1, 0))


def kernel_job(function: Convolution, sheet: Tensor, filters: Tensor, task: str) -> Job:
    """A job of its own filters on a sheet, whose layout of memory is kept."""
    both = task == "forward_backward"
    x = sheet.detach().requires_grad_(both)
    w = filters.detach().clone().requires_grad_(both)
    grads: list[Tensor] = []

    def forward() -> object:
        with torch.no_grad():
            return function(x, w)

    def forward_backward() -> object:
        y = function(x, w)
        if not grads:  # laid out as the result is; made in the call that warms up
            grads.append(torch.randn_like(y))
        return y, *torch.autograd.grad(y, (x, w), grads[0])

    return Job(forward_backward if both else forward, (w,))


def module_job(module: nn.Module, inputs: Tensor, task: str) -> Job:
    """A module in training mode; both ways with the gradients of parameters and inputs."""
    module.train()
    weights = tuple(module.parameters())
    if task == "forward":

        def forward() -> object:
            with torch.no_grad():
                return module(inputs)

        return Job(forward, weights)
    x = inputs.detach().requires_grad_()
    grads: list[Tensor] = []

    def forward_backward() -> object:
        y = module(x)
        if not grads:
            grads.append(torch.randn_like(y))
        return y, *torch.autograd.grad(y, (x, *weights), grads[0])

    return Job(forward_backward, weights)
