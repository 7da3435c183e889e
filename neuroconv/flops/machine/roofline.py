"""The roofline: a run on a real device beside the machine's peaks of arithmetic and memory.

The peaks are measured, not read from a data sheet: matrix products and convolutions for arithmetic,
a copy for memory. After Williams, Waterman and Patterson 2009, doi:10.1145/1498765.1498785.
"""

import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.core.arguments import Positive, Rule, checked
from neuroconv.flops.inputs import Keywords, as_inputs
from neuroconv.flops.machine.firing import ActiveShares, firing_shares
from neuroconv.flops.machine.timing import Timing, measure_time, time_call, timed_device
from neuroconv.flops.machine.traffic import Traffic
from neuroconv.flops.meta_copy import Device

# With less than this share of both peaks, neither is what the model waits for.
OVERHEAD_BELOW = 0.10

# By device: n of a product of n x n matrices; and of 3 x 3 convolutions the channels, the side of
# the image and the batch. A CPU's two libraries can differ by half, and a model uses either.
_PRODUCTS = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192, 16384)}
_CONVOLUTIONS = {"cpu": ((64, 28, 4), (128, 28, 4)), "cuda": ((256, 56, 64), (512, 28, 128))}
_COPY_BYTES = {"cpu": 2**27, "cuda": 2**30}  # several times any cache of today


@dataclass(frozen=True)
class Peak:
    """The two roofs of a machine, as measured.

    Attributes:
        device, device_type: the processor's name; "cpu" or "cuda".
        threads: that PyTorch uses on the CPU; None elsewhere.
        float32_arithmetic: on CUDA, of matrix products and convolutions: "matmul ieee, conv tf32".
        flop_per_s: of the fastest kernel, 2 FLOPs for each multiply-add.
        byte_per_s: of the copy, bytes read and bytes written both counted.
        tried_flop_per_s: by kernel. A convolution's multiply-adds are those of the direct method; a
            library that executes fewer, as Winograd's does, appears to be faster.
        copy_bytes: read, and as many written, by one copy.
        arithmetic, copy: times of the fastest kernel and of the copy.
    """

    device: str
    device_type: str
    dtype: str
    threads: int | None
    float32_arithmetic: str | None
    flop_per_s: float
    byte_per_s: float
    kernel: str
    tried_flop_per_s: dict[str, float]
    copy_bytes: int
    arithmetic: Timing
    copy: Timing

    @property
    def ridge_flop_per_byte(self) -> float:
        """Intensity at which the roofs meet."""
        return self.flop_per_s / self.byte_per_s

    def attainable(self, flop_per_byte: float) -> float:
        """Returns the FLOP/s under the roof at this intensity."""
        return min(self.flop_per_s, flop_per_byte * self.byte_per_s)

    def to_dict(self) -> dict[str, Any]:
        timings = {"arithmetic": self.arithmetic.to_dict(), "copy": self.copy.to_dict()}
        return {**asdict(self), **timings, "ridge_flop_per_byte": self.ridge_flop_per_byte}


@dataclass(frozen=True)
class Placement:
    """The position of a measured run under the roofs of its machine.

    Attributes:
        share_of_peak_bytes: of the bytes that operators ask for; with a cache it can exceed 1.
        flop_per_byte, ridge_flop_per_byte: intensity of the run, and where the roofs meet.
        attainable_flop_per_s: the roof above the run.
        bound: the nearer roof; "overhead" if the run reaches less than `overhead_below` of either,
            so that it waits for launches, latency, or kernels that fit poorly.
    """

    flop: int
    bytes: int
    seconds: float
    flop_per_s: float
    byte_per_s: float
    share_of_peak_flop: float
    share_of_peak_bytes: float
    flop_per_byte: float
    ridge_flop_per_byte: float
    attainable_flop_per_s: float
    bound: Literal["arithmetic", "memory", "overhead"]
    overhead_below: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


@checked
def measure_peak(
    device: Device = "cpu", *, dtype: torch.dtype = torch.float32, seconds: Positive = 2.0
) -> Peak:
    """Measures the highest arithmetic and memory throughput that PyTorch reaches here.

    Kernels of growing size share half of the time, and the best median counts; one too slow for
    three repeats in its share is left out, the first excepted. A copy far larger than the caches
    takes the other half. Settings are recorded and not changed: threads, and on CUDA tf32.

    Raises:
        ValueError: a device other than "cpu" and "cuda", or missing; a dtype that is no float.
    """
    target = timed_device(device)
    if not dtype.is_floating_point:
        raise ValueError(f"dtype={dtype}; expected a floating-point type, as torch.float32")
    share = seconds / 2 / (len(_PRODUCTS[target.type]) + len(_CONVOLUTIONS[target.type]))
    rates: dict[str, float] = {}
    timings: dict[str, Timing] = {}
    with torch.no_grad():
        for kernel, flop, call in _kernels(target, dtype):
            if rates and 3 * flop / max(rates.values()) > share:
                continue
            timings[kernel] = time_call(call, target, share)
            rates[kernel] = flop / timings[kernel].seconds
        copied = _COPY_BYTES[target.type]
        source = _random(copied // dtype.itemsize // 64, device=target, dtype=dtype).repeat(64)
        copy = torch.ones_like(source)  # written once, so that its pages are mapped
        copying = time_call(lambda: copy.copy_(source), target, seconds / 2)
    fastest = max(rates, key=lambda kernel: rates[kernel])
    return Peak(
        device=device_name(device),
        device_type=target.type,
        dtype=str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads() if target.type == "cpu" else None,
        float32_arithmetic=_float32_arithmetic(target, dtype),
        flop_per_s=rates[fastest],
        byte_per_s=2 * copied / copying.seconds,
        kernel=fastest,
        tried_flop_per_s=rates,
        copy_bytes=copied,
        arithmetic=timings[fastest],
        copy=copying,
    )


def _kernels(
    device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[str, int, Callable[[], object]]]:
    """Yields name, FLOPs and call of each kernel; its tensors are freed before the next."""
    for n in _PRODUCTS[device.type]:
        a, b = (_random(n, n, device=device, dtype=dtype) for _ in range(2))
        out = torch.empty_like(a)
        product = partial(torch.mm, a, b, out=out)
        yield f"product of {n} x {n} matrices", 2 * n**3, product
        del a, b, out, product
    for channels, side, batch in _CONVOLUTIONS[device.type]:
        image = _random(batch, channels, side, side, device=device, dtype=dtype)
        weight = _random(channels, channels, 3, 3, device=device, dtype=dtype)
        name = f"3 x 3 convolution, {channels} channels, {side} x {side} pixels, batch {batch}"
        flop = 2 * weight.numel() * batch * side**2
        yield name, flop, partial(F.conv2d, image, weight, padding=1)


def _random(*shape: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Draws numbers: constants take a GPU less power, and zeros are one page of a CPU's memory."""
    generator = torch.Generator(device).manual_seed(0)
    return torch.randn(shape, device=device, dtype=dtype, generator=generator)


def _float32_arithmetic(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cuda" or dtype is not torch.float32:
        return None
    matmul: Any = torch.backends.cuda.matmul
    conv: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    general = getattr(torch.backends, "fp32_precision", "none")
    # "none" leaves it to the general setting, and that to IEEE arithmetic.
    modes = (
        next((mode for mode in (backend.fp32_precision, general) if mode != "none"), "ieee")
        for backend in (matmul, conv)
    )
    return "matmul {}, conv {}".format(*modes)


@checked
def place(
    flop: Annotated[int, Rule("of at least 0", lambda number: number >= 0)],
    moved_bytes: Annotated[int, Rule("above 0", lambda number: number > 0)],
    seconds: Positive,
    peak: Peak,
) -> Placement:
    """Places a run under the roofs of the machine that ran it, in the dtype that it computes in."""
    arithmetic = flop / seconds / peak.flop_per_s
    memory = moved_bytes / seconds / peak.byte_per_s
    nearer: Literal["arithmetic", "memory"] = "arithmetic" if arithmetic >= memory else "memory"
    return Placement(
        flop=flop,
        bytes=moved_bytes,
        seconds=seconds,
        flop_per_s=flop / seconds,
        byte_per_s=moved_bytes / seconds,
        share_of_peak_flop=arithmetic,
        share_of_peak_bytes=memory,
        flop_per_byte=flop / moved_bytes,
        ridge_flop_per_byte=peak.ridge_flop_per_byte,
        attainable_flop_per_s=peak.attainable(flop / moved_bytes),
        bound=nearer if max(arithmetic, memory) >= OVERHEAD_BELOW else "overhead",
        overhead_below=OVERHEAD_BELOW,
    )


machine_peak = cache(measure_peak)  # once in a process


@dataclass(frozen=True)
class Measured:
    """A forward pass of the whole batch in eval mode; firing by module path."""

    device: str
    timing: Timing
    peak: Peak
    placement: Placement
    firing: Mapping[str, ActiveShares]

    def to_dict(self) -> dict[str, Any]:
        return {
            "device": self.device,
            "forward_per_batch": self.timing.to_dict(),
            "peak": self.peak.to_dict(),
            "placement_per_batch": self.placement.to_dict(),
            "firing_by_module": {path: share.to_dict() for path, share in self.firing.items()},
        }


def measure(
    model: nn.Module,
    inputs: Any,
    device: str,
    flop: int,
    traffic: Traffic,
    *,
    kwargs: Keywords = None,
) -> Measured:
    """Measures a run whose FLOPs and traffic are known; see `as_inputs` for the arguments."""
    items = as_inputs(inputs, kwargs)
    peak, timing = machine_peak(device), measure_time(model, items, device)
    placement = place(flop, traffic.moved_bytes, timing.seconds, peak)
    return Measured(device, timing, peak, placement, firing_shares(model, items, device))
