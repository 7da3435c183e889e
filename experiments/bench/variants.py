"""Calls to be timed: the dendritic convolution and what it is compared with, and whole modules.

A forward variant returns the full map; one of both ways the map and all gradients. Rivals get
their sheet padded already, outside of the timed interval.

Axes: B batch, N neurons, T time steps, P sites, D dendrites, K_* filter taps along these.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.layers import dendritic_conv

TASKS = ("forward", "forward_backward")
NO_FFT_CONV = (
    "fft-conv-pytorch is not installed, and is left out; "
    "pip install 'neuroconv-zoo[bench]' brings it"
)

Convolution = Callable[[Tensor, Tensor], Tensor]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Variant:
    """One way to do a task.

    Attributes:
        call: does the work and returns all of it; the result is kept until the clock is read.
        weights: change sign in place before each call, outside of the timed interval, so that no
            result kept from an earlier call can help.
        device: on CUDA, calls are timed by events; on the CPU by the clock.
    """

    call: Callable[[], object]
    weights: Sequence[Tensor] = ()
    device: torch.device = CPU

    def change(self) -> None:
        with torch.no_grad():
            for weight in self.weights:
                weight.neg_()

    def block(self, calls: int, clock: Callable[[], float] = time.perf_counter) -> float:
        """Returns the mean seconds of one call over a block of calls.

        Args:
            clock: on the CPU; CUDA has its events.
        """
        if self.device.type == "cuda":
            return self._block_on_cuda(calls)
        total = 0.0
        for _ in range(calls):
            self.change()
            begin = clock()
            result = self.call()
            total += clock() - begin
            del result
        return total / calls

    def _block_on_cuda(self, calls: int) -> float:
        stream = torch.cuda.current_stream(self.device)
        pairs = []
        torch.cuda.synchronize(self.device)
        for _ in range(calls):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self.change()
            start.record(stream)
            result = self.call()
            end.record(stream)
            del result
            pairs.append((start, end))
        torch.cuda.synchronize(self.device)
        return sum(float(start.elapsed_time(end)) for start, end in pairs) / 1e3 / calls


def neuroconv(mode: str = "same", backend: str = "auto") -> Convolution:
    """Returns this package's convolution of (B, N, T, P, D) sheets by (N, K_T, K_P, K_D)."""
    return lambda sheet, filters: dendritic_conv(sheet, filters, mode, backend)


def conv3d(padded: Tensor, filters: Tensor) -> Tensor:
    """Convolves by torch's conv3d, one group for each neuron."""
    return F.conv3d(padded, filters.unsqueeze(1), groups=len(filters))


def fft_conv() -> Convolution | None:
    """Returns the convolution of the package fft-conv-pytorch, or None if it is not installed."""
    if find_spec("fft_conv_pytorch") is None:
        return None
    from fft_conv_pytorch import fft_conv as function

    def convolution(padded: Tensor, filters: Tensor) -> Tensor:
        with warnings.catch_warnings():  # it indexes by a list, which torch is going to change
            warnings.simplefilter("ignore", UserWarning)
            result: Tensor = function(padded, filters.unsqueeze(1), groups=len(filters))
        return result

    return convolution


def pad_same(sheet: Tensor, taps: tuple[int, int, int]) -> Tensor:
    """Returns the sheet with the zeros that mode "same" puts around it, causal in time."""
    taps_t, taps_p, taps_d = taps
    sides = [((taps - 1) // 2, taps // 2) for taps in (taps_d, taps_p)]
    return F.pad(sheet, (*sides[0], *sides[1], taps_t - 1, 0))


def with_layout(sheet: Tensor, order: Sequence[int]) -> Tensor:
    """Returns an equal tensor whose axes lie in memory in this order, the outermost first."""
    inverse = [list(order).index(axis) for axis in range(sheet.dim())]
    return sheet.permute(*order).contiguous().permute(inverse)


def kernel_variant(function: Convolution, sheet: Tensor, filters: Tensor, task: str) -> Variant:
    """Returns a convolution, with a copy of the filters, on a sheet whose layout is kept."""
    training = task == "forward_backward"
    x = sheet.detach().requires_grad_(training)
    w = filters.detach().clone().requires_grad_(training)
    grads: list[Tensor] = []

    def forward() -> object:
        with torch.no_grad():
            return function(x, w)

    def forward_backward() -> object:
        y = function(x, w)
        if not grads:  # in the result's layout, which the first call shows
            grads.append(torch.randn_like(y))
        return y, *torch.autograd.grad(y, (x, w), grads[0])

    return Variant(forward_backward if training else forward, (w,), sheet.device)


def module_variant(module: nn.Module, inputs: Tensor, task: str) -> Variant:
    """Returns a module in training mode; both ways with gradients of parameters and inputs."""
    module.train()
    weights = tuple(module.parameters())
    if task == "forward":

        def forward() -> object:
            with torch.no_grad():
                return module(inputs)

        return Variant(forward, weights, inputs.device)
    x = inputs.detach().requires_grad_()
    grads: list[Tensor] = []

    def forward_backward() -> object:
        y = module(x)
        if not grads:
            grads.append(torch.randn_like(y))
        return y, *torch.autograd.grad(y, (x, *weights), grads[0])

    return Variant(forward_backward, weights, inputs.device)


def step_variant(module: nn.Module, frames: Tensor, classes: int = 10, steps: int = 1) -> Variant:
    """Returns steps of AdamW on the same frames; they change the weights themselves."""
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4)
    labels = torch.arange(len(frames), device=frames.device) % classes

    def step() -> object:
        for _ in range(steps):
            loss = F.cross_entropy(module(frames).float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss

    return Variant(step, (), frames.device)
