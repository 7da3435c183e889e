"""What a section of the benchmark gets, the rows that it yields, and the file that holds them."""

import importlib.metadata
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from internals import kernel_state
from rich.markup import escape
from timer import Failure, Outcome, Ratio, Timed, first_line, interleaved, ratio, write_json
from torch import Tensor

from neuroconv import __version__
from neuroconv.flops import measure_peak

_T = TypeVar("_T")
Row = dict[str, Any]
Figure = dict[str, Any]
Section = Callable[["Bench"], Iterator[Row]]
PACKAGES = ("torch", "triton", "numpy", "scipy", "fft-conv-pytorch")
# Figures of speed, by the ends of their names: in a quick run they have no bar.
_OF_SPEED = ("_ratio", "_exponent")


@dataclass(frozen=True)
class Bench:
    """Where, how large and how long to measure.

    Attributes:
        device: "cpu" or "cuda".
        quick: small shapes and few repeats; no speed is judged.
        seconds: roughly for one comparison; a call that takes longer is timed once.
        data: folder of MNIST, or None.
    """

    device: torch.device
    quick: bool = False
    seconds: float = 1.0
    data: Path | None = None

    @property
    def on_cuda(self) -> bool:
        return self.device.type == "cuda"

    def pick(self, full: _T, quick: _T) -> _T:
        """Returns the size for a full run or for a quick one."""
        return quick if self.quick else full

    def on(self, device: str, bar: float) -> float | None:
        """Returns a bar that is set for this kind of device alone, or None."""
        return bar if self.device.type == device else None

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(*shape, device=self.device)

    def rand(self, *shape: int) -> Tensor:
        return torch.rand(*shape, device=self.device)

    def build(self, make: Callable[..., _T], *sizes: Any, **keywords: Any) -> _T:
        """Returns what `make` builds, with its tensors on the device."""
        with torch.device(self.device):
            return make(*sizes, **keywords)

    def times(
        self, variants: Mapping[str, Timed], share: float = 1.0, **options: Any
    ) -> dict[str, Outcome]:
        """Times variants by turns, for this share of the time of one comparison."""
        seconds = self.seconds * share * self.pick(1.0, 0.02)
        return interleaved(variants, seconds=seconds, **options)

    def peak(self, dtype: torch.dtype = torch.float32) -> Any:
        """Returns the measured peaks of arithmetic and of the copy."""
        return measure_peak(self.device.type, dtype=dtype, seconds=self.pick(2.0, 0.05))

    def release(self) -> None:
        """Gives cached memory back to the device."""
        if self.on_cuda:
            torch.cuda.empty_cache()


def figure(
    text: str,
    value: float | Ratio | None,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Figure:
    """Returns a number that a comparison is about, with its bar and whether that is met."""
    plain: Figure = {"text": text, "value": value}
    if isinstance(value, Ratio):
        plain |= {"value": value.value, "lower_quartile": value.lower,
                  "upper_quartile": value.upper}  # fmt: skip
    bars = {"at_least": at_least, "at_most": at_most}
    plain |= {key: bar for key, bar in bars.items() if bar is not None}
    number = plain["value"]
    if number is not None and not math.isfinite(number):  # JSON has no word for it
        return plain | {"text": f"{text} (not finite)", "value": None, "met": False}
    if number is not None and len(plain.keys() & bars):
        low, high = plain.get("at_least", float("-inf")), plain.get("at_most", float("inf"))
        plain["met"] = low <= number <= high
    return plain


def over(
    times: Mapping[str, Outcome], long: str, short: str, text: str, **bars: float | None
) -> dict[str, Figure]:
    """Returns the figure of how many times as long one variant takes as another."""
    return {f"{long}_over_{short}_ratio": figure(text, ratio(times[long], times[short]), **bars)}


def error(result: Tensor, reference: Tensor) -> float:
    """Returns the largest error over the largest reference."""
    exact = reference.detach().double().cpu()
    return float((result.detach().double().cpu() - exact).abs().max() / exact.abs().max())


def row(
    comparison: str,
    sizes: Mapping[str, Any] | None = None,
    times: Mapping[str, Outcome] | None = None,
    figures: Mapping[str, Figure] | None = None,
    notes: Sequence[str] = (),
    series: Mapping[str, Any] | None = None,
) -> Row:
    """Returns one comparison as plain data.

    Args:
        comparison: what is compared, in words.
        sizes: of the work, by name, with units where there are any.
        times: by variant.
        figures: what follows, by names with units.
        notes: what the numbers hold under.
        series: further plain data, such as the points of a line.
    """
    return {
        "comparison": comparison,
        "sizes": dict(sizes or {}),
        "times": {name: outcome.to_dict() for name, outcome in (times or {}).items()},
        "figures": dict(figures or {}),
        "notes": list(notes),
        **({"series": dict(series)} if series else {}),
    }


def not_run(comparison: str, reason: str) -> Row:
    """Returns a comparison that could not be made here, which is not to be taken for passed."""
    return {**row(comparison), "not_run": reason}


def fastest(times: Mapping[str, Outcome], names: Sequence[str]) -> str | None:
    """Returns the variant with the smallest median among these; None if none was measured."""
    medians = {
        name: outcome.median for name in names if not isinstance(outcome := times[name], Failure)
    }
    return min(medians, key=lambda name: medians[name], default=None)


class Record:
    """A run as plain data, in a file that is whole after every row.

    Args:
        bench: the run's settings.
        names: of its sections.
        path: the file; None writes none.
    """

    def __init__(self, bench: Bench, names: Sequence[str], path: Path | None = None) -> None:
        self.bench, self.path = bench, path
        self.plain: dict[str, Any] = {
            "hardware": hardware(bench.device),
            "versions": versions(bench.device),
            "settings": {
                "device": bench.device.type,
                "quick": bench.quick,
                "seconds_per_comparison": bench.seconds,
                "data": "synthetic" if bench.data is None else "mnist",
                "sections": list(names),
                "load_average_before": os.getloadavg()[0],
            },
            "bars": [],
            "sections": {},
            "seconds": 0.0,
        }

    def run(
        self,
        name: str,
        section: Section,
        limit: float = float("inf"),
        on_row: Callable[[Row], object] = lambda _: None,
    ) -> str:
        """Runs a section and returns how it ended; an error in it is recorded as that.

        Args:
            limit: seconds after which the section starts no further comparison.
            on_row: called with each row.
        """
        plain = self.plain["sections"][name] = {"state": "running", "seconds": 0.0, "rows": []}
        began = time.perf_counter()
        try:
            for item in section(self.bench):
                self._add(name, item)
                plain["seconds"] = time.perf_counter() - began
                self.write()
                on_row(item)
                if plain["seconds"] > limit:
                    plain["state"] = f"stopped after its {limit:g} s"
                    break
            else:
                plain["state"] = "complete"
        except Exception as failure:  # whatever a section does, the others are to run
            plain["state"] = first_line(failure)
        plain["seconds"] = time.perf_counter() - began
        self.write()
        self.bench.release()
        return plain["state"]

    def _add(self, section: str, item: Row) -> None:
        for name, value in item["figures"].items():
            if self.bench.quick and name.endswith(_OF_SPEED):
                for key in ("at_least", "at_most", "met"):
                    value.pop(key, None)
            if value.keys() & {"at_least", "at_most"}:
                labels = {"section": section, "comparison": item["comparison"], "figure": name}
                self.plain["bars"].append({**labels, **value})
        self.plain["sections"][section]["rows"].append(item)

    @property
    def failed(self) -> dict[str, str]:
        """Sections that an error ended, with the error."""
        ended = {name: section["state"] for name, section in self.plain["sections"].items()}
        return {
            name: state for name, state in ended.items()
            if state not in ("running", "complete") and not state.startswith("stopped")
        }  # fmt: skip

    @property
    def missed(self) -> list[dict[str, Any]]:
        return [bar for bar in self.plain["bars"] if bar.get("met") is False]

    def write(self) -> None:
        sections = self.plain["sections"].values()
        self.plain["seconds"] = sum(section["seconds"] for section in sections)
        if self.path is not None:
            write_json(self.path, self.plain)


def hardware(device: torch.device) -> dict[str, Any]:
    """Returns what computes."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    plain: dict[str, Any] = {
        "processor": next(iter(names), platform.machine()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        plain |= {"gpu": properties.name, "gpu_memory_bytes": properties.total_memory}
    return plain


def versions(device: torch.device) -> dict[str, Any]:
    """Returns what a result depends on beside the hardware; a missing package is None."""
    plain: dict[str, Any] = {"python": platform.python_version(), "neuroconv": __version__}
    for name in PACKAGES:
        try:
            plain[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            plain[name] = None
    if device.type == "cuda":
        return plain | {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return plain | {"C++ kernels": kernel_state()}


def shown(value: float | None) -> str:
    """Returns a number as a line of the run shows it."""
    if value is None:
        return "no number:"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"


def describe(item: Row) -> str:
    """Returns a comparison's figures with their bars, a line each."""
    parts = [f"[bold]{escape(item['comparison'])}[/]"]
    for value in item["figures"].values():
        bars = [f"{sign} {value[key]:g}" for sign, key in (("≥", "at_least"), ("≤", "at_most"))
                if key in value]  # fmt: skip
        verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[value.get("met")]
        line = f"{shown(value['value'])} {escape(value['text'])}"
        parts.append("  ".join(["", line, *bars, *[verdict] * bool(verdict)]))
    parts += [f"  [yellow]not run[/]: {escape(item['not_run'])}"] if "not_run" in item else []
    return "\n".join(parts)
