"""The environment of a run, as environment.json records it."""

import json
import os
import platform
import resource
import subprocess
import warnings
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

from neuroconv.core.files import write_text
from neuroconv.core.version import __version__
from neuroconv.flops.machine.roofline import device_name
from neuroconv.kernels import cuda, native
from neuroconv.training.config import TrainConfig
from neuroconv.training.device import arithmetic_of, choose_device
from neuroconv.training.distributed import Ranks

_PACKAGES = ("neuroconv-zoo", "torch", "numpy")
_NUMERIC = (  # what decides how sums are rounded
    *_PACKAGES, "system", "cpu_capability", "device", "threads", "precision", "cpp_kernels",
    "triton_kernels", "world_size",
)  # fmt: skip


def describe_environment(requested: str, precision: str) -> dict[str, Any]:
    """Returns versions, device, threads, processes, kernels and the source tree's commit."""
    device, ranks = choose_device(requested), Ranks.current()
    backend = "nccl" if device.type == "cuda" else "gloo"
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        # A checkout may run beside another version that is installed.
        "packages": {
            **{d.name: d.version for name in _PACKAGES for d in distributions(name=name)},
            "neuroconv-zoo": __version__,
        },
        "device": device_name(str(device)),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "precision": arithmetic_of(precision, device),
        "cpp_kernels": native.state() if device.type == "cpu" else "off: they run on the CPU",
        "triton_kernels": cuda.state(device),
        "world_size": ranks.size,
        "backend": backend if ranks.size > 1 else None,
        "git_commit": _git_commit(),
    }


def environment_diff(path: Path, settings: TrainConfig, *, resumes: bool = False) -> list[str]:
    """Returns why sums may be rounded otherwise than where a run was last trained, a line each.

    If it `resumes` here, a warning says so, and its environment.json keeps this environment too.
    """
    present = describe_environment(settings.device, settings.precision)
    try:
        first = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # missing or damaged: nothing is known
        first = {}
    later = first.get("resumed_with", [])
    before, now = ({**e, **e.get("packages", {})} for e in ([first, *later][-1], present))
    pairs = {key: (before.get(key), now.get(key)) for key in _NUMERIC}
    changes = [f"{key} = {old!r}, now {new!r}" for key, (old, new) in pairs.items() if old != new]
    if changes and resumes:
        warnings.warn(
            f"{path.parent} goes on in another environment ({'; '.join(changes)}): its sums may be "
            "rounded in another order than those of an uninterrupted run", stacklevel=2,
        )  # fmt: skip
        text = json.dumps({**first, "resumed_with": [*later, present]}, indent=2, allow_nan=False)
        write_text(path, f"{text}\n")
    return changes


def peak_memory_mib(device: torch.device) -> float:
    """Returns the most memory allocated on CUDA, else the process's largest resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if platform.system() == "Darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


@cache  # the modules are those of the import
def _git_commit() -> str | None:
    """Returns the source tree's commit, with -dirty if changed; None for an installed package."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        # Without its lock, which a killed git would leave behind for the user's next command.
        command = ["git", "--no-optional-locks", *words]
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        changes = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if changes else "")
    except (OSError, subprocess.SubprocessError):
        return None
