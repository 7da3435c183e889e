"""What importing the package loads: slow libraries wait for the first use."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

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


def test_the_library_loads_no_slow_library_and_works_without_its_command_lines() -> None:
    absent = ("fvcore", "tomli_w", "typeguard", "tyro")
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
import neuroconv
for name in ("Granule", "create_model", "profile", "train"):
    getattr(neuroconv, name)
assert "torch" in sys.modules and not set(sys.modules) & {{*{SLOW}}}
for name in neuroconv.__all__:
    getattr(neuroconv, name)
import torch
from neuroconv.training import load_config
keywords = load_config("configs/mnist_granule.toml", ["--model.name=cerebellum_tiny"]).model
model = neuroconv.create_model(**keywords, image_shape=(1, 8, 8), time_steps=2)
frames = torch.utils.data.TensorDataset(torch.rand(4, 1, 2, 8, 8), torch.arange(4))
result = neuroconv.train(model, frames, frames, epochs=1, batch_size=2, progress=False)
counted = neuroconv.profile(model, frames.tensors[0])
assert result.steps == 2 and set(counted.counts) == {{"closed_form", "exact"}}
assert not counted.disagreements
print(counted.skipped["fvcore"])
"""
    words, root = [sys.executable, "-c", code], Path(__file__).parent.parent
    process = subprocess.run(words, capture_output=True, text=True, cwd=root, check=False)
    assert process.returncode == 0, process.stderr
    reason = "fvcore is not installed (No module named 'fvcore'); pip install fvcore\n"
    assert process.stdout.endswith(reason)


def test_public_names_are_those_of_their_parts() -> None:
    for name in set(neuroconv.__all__) - {"__version__"}:
        value = getattr(neuroconv, name)
        assert value is getattr(importlib.import_module(value.__module__), value.__name__)
        assert name in dir(neuroconv)
    assert neuroconv.zoo is importlib.import_module("neuroconv.zoo")
    with pytest.raises(AttributeError, match="no attribute 'Granul'"):
        _ = neuroconv.Granul
