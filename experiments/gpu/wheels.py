"""Fetches the wheels that a machine without an index needs beside torch, for `run.py --wheels`."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOTS = ("fvcore", "tyro", "tomli-w", "pytest", "hypothesis")
# What a machine for torch has, with all that these need, and is never carried: two of one package
# on a path would hide one another.
PRESENT = (
    "torch", "torchvision", "numpy", "scipy", "pillow", "rich", "jinja2", "matplotlib",
    "scikit-learn", "safetensors",
)  # fmt: skip
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")


def needed(roots: tuple[str, ...], python: str) -> dict[str, str]:
    """Returns the packages that these need, themselves included, with the versions installed here.

    Raises:
        PackageNotFoundError: one of them is not installed here.
    """
    markers = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    packages: dict[str, str] = {}
    ahead = list(roots)
    while ahead:
        name = canonicalize_name(ahead.pop())
        if name not in packages:
            packages[name] = importlib.metadata.version(name)
            for text in importlib.metadata.requires(name) or ():
                requirement = Requirement(text)
                if requirement.marker is None or requirement.marker.evaluate(markers):
                    ahead.append(requirement.name)
    return packages


def carried(python: str) -> dict[str, str]:
    """Returns what is to be carried: all that the roots need and the machine has not."""
    present = needed(PRESENT, python)
    return {name: version for name, version in sorted(needed(ROOTS, python).items())
            if name not in present}  # fmt: skip


def fetch(folder: Path, python: str) -> int:
    """Downloads a wheel of each package for Linux on x86-64, or builds it of a package's source.

    Only packages of pure Python come as source alone, and their wheels fit every version of it.
    """
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    target = ["--python-version", python, "--implementation", "cp", "--only-binary=:all:"]
    target += [f"--platform={name}_x86_64" for name in PLATFORMS]
    packages = carried(python)
    for name, version in packages.items():
        words = ["--no-deps", f"{name}=={version}"]
        done = subprocess.run(
            [*pip, "download", *target, f"--dest={folder}", *words],
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            subprocess.run([*pip, "wheel", f"--wheel-dir={folder}", *words], check=True)
        print(f"{name} {version}", flush=True)
    size = sum(path.stat().st_size for path in folder.glob("*.whl"))
    print(
        f"{len(packages)} wheels for Python {python}, {size / 2**20:.1f} MiB in {folder}. There:\n"
        f"  python3 -m pip install --no-index --no-deps --target SITE {folder}/*.whl\n"
        "  PYTHONPATH=SITE python3 experiments/gpu/run.py --smoke --out FOLDER"
    )
    return 0
