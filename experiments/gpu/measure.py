"""What the sections share: the settings of a run, errors, times and memory."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuroconv.bench import Failure, Job, first_line, peak_bytes, time_in_turns

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
    """Times variants of one job in turns, as `neuroconv.bench.time_in_turns` does.

    Args:
        seconds: for each variant, roughly; a call slower than `slow` seconds is timed once.

    Returns:
        by variant median_ms, iqr_ms (quarter to three quarters), repeats, calls_per_repeat and
        peak_memory_mib (on CUDA, its inputs included); or "failed".
    """
    rows: dict[str, Row] = {}
    for name, call in calls.items():
        try:
            rows[name] = {"peak_memory_mib": peak_memory(call, setup)}
        except RuntimeError as error:
            rows[name] = {"failed": first_line(error)}
            release(setup)
    jobs = {name: Job(calls[name]) for name, row in rows.items() if "failed" not in row}
    total = seconds * len(jobs) / (10 if setup.quick else 1)
    for name, found in time_in_turns(jobs, setup.device, seconds=total, slow=slow).items():
        if isinstance(found, Failure):
            rows[name] = {"failed": found.reason}
            continue
        timing = found.timing
        spread = timing.upper_seconds - timing.lower_seconds
        rows[name] |= {
            "median_ms": timing.seconds * 1e3,
            "iqr_ms": spread * 1e3 if timing.repeats > 1 else None,
            "repeats": timing.repeats,
            "calls_per_repeat": timing.calls_per_repeat,
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


def peak_memory(call: Call, setup: Setup) -> float | None:
    """MiB allocated at most during one call, whatever was there before included; None on CPU."""
    if not setup.on_cuda:
        return None
    setup.synchronise()
    there = torch.cuda.memory_allocated(setup.device)
    return (there + peak_bytes(call, setup.device)) / 2**20


def release(setup: Setup) -> None:
    """Gives cached memory back to the device, after an error or a large section."""
    if setup.on_cuda:
        torch.cuda.empty_cache()
