"""All sections in one run: what each found, on what, and a JSON file that is always whole."""

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from neuroconv.bench.accuracy import accuracy
from neuroconv.bench.auto import auto
from neuroconv.bench.cnn import cnn
from neuroconv.bench.gpu import granule_bandwidth, image_layer_roof, purkinje_population, real_time
from neuroconv.bench.granule import granule
from neuroconv.bench.growth import growth
from neuroconv.bench.image_layer import image_layer
from neuroconv.bench.purkinje import purkinje
from neuroconv.bench.record import Bench, Row
from neuroconv.bench.scaling import scaling
from neuroconv.bench.training import training
from neuroconv.bench.turns import first_line, release
from neuroconv.flops.machine.roofline import device_name
from neuroconv.flops.machine.timing import timed_device
from neuroconv.kernels import native

Section = Callable[[Bench], Iterator[Row]]

SECTIONS: dict[str, Section] = {
    "accuracy": accuracy,
    "purkinje": purkinje,
    "granule": granule,
    "image_layer": image_layer,
    "auto": auto,
    "growth": growth,
    "training": training,
    "cnn": cnn,
    "scaling": scaling,
}
# Asked of a GPU; on a CPU they run if they are named, and no bar is judged.
CUDA_SECTIONS: dict[str, Section] = {
    "purkinje_population": purkinje_population,
    "granule_bandwidth": granule_bandwidth,
    "image_layer_roof": image_layer_roof,
    "real_time": real_time,
}
_PACKAGES = ("torch", "numpy", "scipy", "fft-conv-pytorch")


@dataclass
class SectionRecord:
    """One section.

    Attributes:
        rows: its comparisons.
        state: "running", "complete", or the error that ended it.
        seconds: that it took.
    """

    rows: list[Row] = field(default_factory=list)
    state: str = "running"
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        rows = [row.to_dict() for row in self.rows]
        return {"state": self.state, "seconds": self.seconds, "rows": rows}


@dataclass
class BenchReport:
    """A run, while it goes on and when it has ended.

    Attributes:
        hardware, versions: what it ran on.
        settings: of the run; the load average of the minute before it is that of other programs.
        sections: by name, in the order of running.
    """

    hardware: Mapping[str, Any]
    versions: Mapping[str, Any]
    settings: Mapping[str, Any]
    sections: dict[str, SectionRecord] = field(default_factory=dict)

    @property
    def bars(self) -> list[dict[str, Any]]:
        """Every figure that has a bar: section, comparison, figure, value, bar, and whether met."""
        return [
            {"section": name, "comparison": row.comparison, "figure": figure.name, **found}
            for name, section in self.sections.items()
            for row in section.rows
            for figure in row.figures
            if (found := figure.to_dict()).keys() & {"at_least", "at_most"}
        ]

    @property
    def failed(self) -> dict[str, str]:
        """Sections that an error ended, with the error."""
        return {
            name: section.state
            for name, section in self.sections.items()
            if section.state not in ("running", "complete")
        }

    @property
    def growth(self) -> list[Mapping[str, Any]]:
        """The lines of the growth section, as plain data for a plot."""
        rows = self.sections["growth"].rows if "growth" in self.sections else []
        return [row.series for row in rows if "exponent" in row.series]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, units in the keys."""
        return {
            "hardware": dict(self.hardware),
            "versions": dict(self.versions),
            "settings": dict(self.settings),
            "bars": self.bars,
            "sections": {name: section.to_dict() for name, section in self.sections.items()},
            "seconds": sum(section.seconds for section in self.sections.values()),
        }

    def write(self, path: Path) -> None:
        """Replaces the file in one step: whoever reads it finds it whole."""
        temporary = path.with_name(f".{path.name}.tmp")
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)


def section_names(device: str, only: Sequence[str] = ()) -> tuple[str, ...]:
    """The sections of a run in their order: those named, or all that are for the device.

    Raises:
        ValueError: an unknown section.
    """
    known = (*SECTIONS, *CUDA_SECTIONS)
    for name in only:
        if name not in known:
            raise ValueError(f"unknown section {name!r}; expected some of {', '.join(known)}")
    own = known if torch.device(device).type == "cuda" else tuple(SECTIONS)
    return tuple(name for name in known if name in (only or own))


def run_bench(
    device: str = "cpu",
    *,
    only: Sequence[str] = (),
    quick: bool = False,
    seconds: float = 1.0,
    data: str | Path | None = None,
    json_file: str | Path | None = None,
    on_row: Callable[[str, Row], object] | None = None,
    on_section: Callable[[str, BenchReport], object] | None = None,
) -> BenchReport:
    """Run every comparison, or some of the sections.

    A section that raises an error is recorded with it, and the others go on.

    Args:
        device: "cpu" or "cuda".
        only: names of sections; by default all that are for the device.
        quick: small shapes and few repeats: shows that everything runs, and judges no bar.
        seconds: that a comparison is measured for, roughly.
        data: folder of MNIST; the section "training" then trains on it, else on synthetic frames.
        json_file: written after each section.
        on_row: told of each comparison as it is made.
        on_section: told of each section before it starts, and of the report so far.

    Raises:
        ValueError: an unknown section, a device that cannot be timed or is missing, or seconds
            that are not above 0.
    """
    place = timed_device(device)
    names = section_names(device, only)
    if not 0 < seconds < float("inf"):
        raise ValueError(f"seconds={seconds}; expected a number above 0")
    bench = Bench(place, quick, seconds, None if data is None else Path(data))
    settings = {
        "device": place.type,
        "quick": quick,
        "seconds_per_comparison": seconds,
        "data": "synthetic" if data is None else "mnist",
        "sections": list(names),
        "load_average_before": os.getloadavg()[0],
    }
    report = BenchReport(hardware(place), versions(place), settings)
    for name in names:
        if on_section is not None:
            on_section(name, report)
        record = report.sections[name] = SectionRecord()
        began = time.perf_counter()
        try:
            for row in {**SECTIONS, **CUDA_SECTIONS}[name](bench):
                row = row.unjudged() if quick else row
                record.rows.append(row)
                if on_row is not None:
                    on_row(name, row)
            record.state = "complete"
        except Exception as error:  # whatever a section does, the others are to run
            record.state = first_line(error)
        record.seconds = time.perf_counter() - began
        if json_file is not None:
            report.write(Path(json_file))
        release(place)
    return report


def hardware(device: torch.device) -> dict[str, Any]:
    """What computes."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found: dict[str, Any] = {
        "processor": device_name("cpu"),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": pages,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "gpu_memory_bytes": properties.total_memory}
    return found


def versions(device: torch.device) -> dict[str, Any]:
    """What a result depends on beside the hardware; a package that is missing is None."""
    found: dict[str, Any] = {"python": platform.python_version(), "neuroconv": _version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    if device.type == "cpu":
        found["C++ kernels"] = native.state()
    if device.type == "cuda":
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return found


def _version() -> str:
    from neuroconv import __version__  # the package itself imports its parts

    return __version__
