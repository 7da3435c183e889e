"""What the sections share: the settings of a run, errors, times and memory."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor

Row = dict[str, Any]
Call = Callable[[], object]


@dataclass(frozen=True)
class Setup:
    """Where and how large to run.

    Attributes:
        device: "cuda" or "cpu".
        quick: small sizes and few repeats, to see that everything runs.
        data: folder of MNIST, or None.
        peaks: what the section `peaks` has measured, in FLOP/s and bytes/s.
    """

    device: torch.device
    quick: bool
    data: Path | None = None
    peaks: dict[str, float] = field(default_factory=dict)

    @property
    def on_cuda(self) -> bool:
        return self.device.type == "cuda"

    def autocast(self, precision: str) -> torch.autocast:
        """bfloat16 as in training, or nothing for any other precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16")

    def synchronise(self) -> None:
        if self.on_cuda:
            torch.cuda.synchronize(self.device)

    def share(self, peak: str, rate: float) -> float | None:
        """A rate as a share of the measured peak; None if `peaks` did not run."""
        return rate / self.peaks[peak] if peak in self.peaks else None


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Inside, float32 convolutions and matrix products run in "tf32", or else in full float32."""
    mode = "tf32" if precision == "tf32" else "ieee"
    settings = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = mode
    try:
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


def check(name: str, result: Tensor, wanted: Tensor, tolerance: float, **labels: Any) -> Row:
    """A row that holds the largest error over the largest reference against a tolerance."""
    exact = wanted.detach().double().cpu()
    error = float((result.detach().double().cpu() - exact).abs().max() / exact.abs().max())
    row = {"check": name, **labels, "error_over_largest": error, "tolerance": tolerance}
    if not math.isfinite(error):  # JSON has no word for it
        return {**row, "error_over_largest": None, "ok": False}
    return {**row, "ok": error <= tolerance}


def time_calls(
    calls: Mapping[str, Call], setup: Setup, *, seconds: float = 0.4, slow: float = 2.0
) -> dict[str, Row]:
    """Times variants of one job in turns, after two warm-up calls each.

    A repeat is a block of calls that takes some milliseconds; its time is by CUDA events, on the
    CPU by the clock. A call slower than `slow` seconds is timed once. A variant that raises is
    recorded with its message, and the others go on.

    Returns:
        by variant median_ms, iqr_ms (quarter to three quarters), repeats, calls_per_repeat and
        peak_memory_mib (on CUDA, its inputs included); or "failed".
    """
    rows: dict[str, Row] = {}
    blocks: dict[str, int] = {}
    rounds: dict[str, int] = {}
    times: dict[str, list[float]] = {}
    seconds = seconds / 10 if setup.quick else seconds
    for name, call in calls.items():
        try:
            memory = peak_memory(call, setup)  # the first call also chooses and loads kernels
            once = _time(call, 1, setup)
        except RuntimeError as error:
            rows[name] = {"failed": first_line(error)}
            release(setup)
            continue
        rows[name], times[name] = {"peak_memory_mib": memory}, [once]
        blocks[name] = max(1, min(500, int(seconds / 20 / once)))
        rounds[name] = 0 if once > slow else max(3, min(20, int(seconds / once / blocks[name])))
        if rounds[name]:
            times[name] = []
    for turn in range(max(rounds.values(), default=0)):
        for name, taken in times.items():
            if turn < rounds[name]:
                taken.append(_time(calls[name], blocks[name], setup))
    for name, taken in times.items():
        quarters = quantiles(taken, n=4) if len(taken) > 1 else None
        rows[name] |= {
            "median_ms": median(taken) * 1e3,
            "iqr_ms": (quarters[2] - quarters[0]) * 1e3 if quarters else None,
            "repeats": len(taken),
            "calls_per_repeat": blocks[name],
        }
    return rows


def ratios(rows: Mapping[str, Row], reference: str) -> dict[str, float]:
    """How many times as long as `reference` each other variant of the same run takes."""
    base = rows.get(reference, {}).get("median_ms")
    return {
        f"{name}_over_{reference}": row["median_ms"] / base
        for name, row in rows.items()
        if base and name != reference and "median_ms" in row
    }


def _time(call: Call, repeats: int, setup: Setup) -> float:
    """Seconds of one call, the mean of a block."""
    if setup.on_cuda:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        setup.synchronise()
        start.record()
        for _ in range(repeats):
            call()
        end.record()
        setup.synchronise()
        return float(start.elapsed_time(end)) / 1e3 / repeats
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begin) / repeats


def peak_memory(call: Call, setup: Setup) -> float | None:
    """MiB allocated at most during one call, whatever was there before included; None on CPU."""
    if not setup.on_cuda:
        call()
        return None
    setup.synchronise()
    torch.cuda.reset_peak_memory_stats(setup.device)
    call()
    setup.synchronise()
    return torch.cuda.max_memory_allocated(setup.device) / 2**20


def release(setup: Setup) -> None:
    """Gives cached memory back to the device, after an error or a large section."""
    if setup.on_cuda:
        torch.cuda.empty_cache()


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
