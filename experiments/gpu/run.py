"""All checks, tests and benchmarks of a device in nine minutes, as one JSON file.

    python experiments/gpu/run.py --json FILE [--data DIR] [--device cuda] [--quick] [--only ...]

Sections run one after another, each within its time; after every row the file is whole and valid.
A section that fails records its error, and the rest goes on. The exit status is 1 if a check or a
section failed, else 0.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import checks
import learning
import populations
import profiles
import speed
import suite
import torch
from measure import Row, Setup, release

import neuroconv
from neuroconv.bench import first_line

Section = Callable[[Setup], Iterator[Row]]

# In the order of running, with the seconds after which a section starts no further row.
SECTIONS: dict[str, tuple[Section, float]] = {
    "backends": (checks.backends, 30),
    "full_neuron": (checks.full_neuron, 20),
    "conv3d_bfloat16": (checks.conv3d_bfloat16, 20),
    "synapse_gradient": (checks.synapse_gradient, 20),
    "zoo": (checks.zoo, 40),
    "counters": (checks.counters, 30),
    "gpu_tests": (suite.gpu_tests, 100),
    "bench": (suite.bench, 120),
    "peaks": (speed.peaks, 10),
    "purkinje": (speed.purkinje, 30),
    "granule": (speed.granule, 15),
    "fused": (populations.fused, 20),
    "graphs": (populations.graphs, 10),
    "image_layer": (speed.image_layer, 20),
    "training_step": (speed.training_step, 30),
    "digits": (learning.digits, 40),
    "mnist": (learning.mnist, 60),
    "mnist_purkinje": (learning.mnist_purkinje, 90),
    "capacity": (speed.capacity, 15),
    "profiles": (profiles.profiles, 30),
    "real_time": (profiles.real_time, 30),
}
NEED_DATA = ("digits", "mnist", "mnist_purkinje")
BUDGET_SECONDS = 480.0  # rows that are under way then still end, within nine minutes


def environment(setup: Setup) -> dict[str, Any]:
    """What a result depends on: versions, the device, and torch's own precision settings."""
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    packages = ("torch", "torchvision", "numpy", "fvcore", "neuroconv-zoo")
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "neuroconv": neuroconv.__version__,
        "packages": {name: _version(name) for name in packages},
        "device": str(setup.device),
        "default_fp32_precision_of_products": torch.backends.cuda.matmul.fp32_precision,
        "default_fp32_precision_of_convolutions": convolutions.fp32_precision,
    }
    if setup.on_cuda:
        properties = torch.cuda.get_device_properties(setup.device)
        found |= {
            "device": properties.name,
            "device_memory_mib": properties.total_memory / 2**20,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:  # run from the source tree
        return None


def run_sections(
    sections: Mapping[str, tuple[Section, float]], setup: Setup, path: Path
) -> dict[str, Any]:
    """Runs sections into the JSON file at `path`, which is replaced after every row."""
    start = time.perf_counter()
    report: dict[str, Any] = {
        "environment": environment(setup),
        "settings": {"quick": setup.quick, "budget_seconds": BUDGET_SECONDS},
        "sections": {},
        "failed": [],
    }
    _write(path, report)
    for name, (section, limit) in sections.items():
        began = time.perf_counter()
        until = min(began + limit, start + BUDGET_SECONDS)
        record: dict[str, Any] = {"state": "running", "rows": []}
        report["sections"][name] = record
        try:
            rows = section(setup)
            record["state"] = "complete"
            while True:
                if time.perf_counter() > until:
                    record["state"] = "stopped: out of time"
                    break
                row = next(rows, None)
                if row is None:
                    break
                record["rows"].append(row)
                if not row.get("ok", True):
                    report["failed"].append({"section": name, **row})
                _write(path, report)
        except Exception as error:  # whatever a section does, the others are to run
            record["state"] = first_line(error)
            report["failed"].append({"section": name, "error": first_line(error)})
        record["seconds"] = time.perf_counter() - began
        report["seconds"] = time.perf_counter() - start
        _write(path, report)
        release(setup)
        count = len(record["rows"])
        print(f"{name}: {record['state']}, {count} rows, {record['seconds']:.1f} s", flush=True)
    return report


def _write(path: Path, report: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--data", type=Path, help="folder of MNIST; adds the training runs")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes, few repeats")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="some of the sections")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch.cuda.is_available() is False here; try --device cpu --quick")
    wanted = options.only or [
        name for name in SECTIONS if options.data is not None or name not in NEED_DATA
    ]
    setup = Setup(torch.device(options.device), options.quick, options.data)
    chosen = {name: SECTIONS[name] for name in SECTIONS if name in wanted}
    report = run_sections(chosen, setup, options.json)
    for failure in report["failed"]:
        print(f"FAILED {json.dumps(failure)}", flush=True)
    print(f"{len(report['failed'])} failed; {report['seconds']:.0f} s; {options.json}")
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
