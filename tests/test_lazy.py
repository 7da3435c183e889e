"""What importing the package loads: slow libraries wait for the first use."""

import importlib
import json
import subprocess
import sys

import pytest

import neuroconv

SLOW = (
    "torchvision",
    "matplotlib",
    "scipy",
    "sklearn",
    "fvcore",
    "torch._dynamo",
    "neuroconv.brain",
)


def loaded(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter has after some code."""
    code += "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return set(json.loads(process.stdout.splitlines()[-1]))


def test_import_and_help_load_no_torch() -> None:
    code = (
        "import contextlib, io, neuroconv\nfrom neuroconv.cli import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    main(['--help'])"
    )
    assert not loaded(code) & {"torch", *SLOW}


def test_parts_load_no_slow_library() -> None:
    names = ["Granule", "create_model", "profile", "train"]
    code = f"import neuroconv\nfor name in {names}: getattr(neuroconv, name)"
    modules = loaded(code)
    assert "torch" in modules
    assert not modules & set(SLOW)


def test_public_names_are_those_of_their_parts() -> None:
    for name in set(neuroconv.__all__) - {"__version__"}:
        value = getattr(neuroconv, name)
        assert value is getattr(importlib.import_module(value.__module__), value.__name__)
        assert name in dir(neuroconv)
    assert neuroconv.zoo is importlib.import_module("neuroconv.zoo")
    with pytest.raises(AttributeError, match="no attribute 'Granul'"):
        _ = neuroconv.Granul
