"""Sections of `run.py --learn`: cells in real time, the full filter on MNIST, the gpu tests."""

import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from checks import arithmetic
from operators import peak_bytes
from recording import Bench, Row, figure, not_run, row
from timer import TimedRun
from variants import Variant, step_variant

from neuroconv import create_model
from neuroconv.brain import READINGS, read_inputs
from neuroconv.training import load_config, run

ROOT = Path(__file__).resolve().parents[2]
LEARNING_S = 55.0
LEAST_ACCURACY = 0.9  # of the test images, after less than an epoch
REAL_TIME_S = 25.0


def purkinje(bench: Bench) -> Iterator[Row]:
    """Trains configs/mnist_purkinje.toml, the full filter on MNIST, for as many images as a minute
    allows by the time of a step."""
    if bench.data is None:
        yield not_run("mnist_purkinje.toml", "it needs --data, a folder of MNIST")
        return
    small = [
        "--model.granule.cells=60",
        "--model.purkinje.cells=1",
        "--model.purkinje.tree.sheet=[10, 60]",
        "--model.purkinje.tree.filter=[4, 60, 5]",
    ]
    changes = [f"--data.root={bench.data}", f"--train.device={bench.device.type}",
               "--train.seeds=[0]", "--train.epochs=1", *bench.pick([], small)]  # fmt: skip
    path = ROOT / "configs" / "mnist_purkinje.toml"
    config = load_config(path, changes)
    model = create_model(**config.model, image_shape=(1, 28, 28), num_classes=10, time_steps=5)
    batch = config.train.batch_size
    variant = step_variant(model.to(bench.device), bench.rand(batch, 1, 5, 28, 28))

    def step() -> object:
        with arithmetic("bf16 autocast", bench.device):
            return variant.call()

    times = bench.times({"step": Variant(step, (), bench.device)}, share=2)
    outcome = times["step"]
    mib = peak_bytes(step, bench.device) / 2**20
    figures = {"peak_mib": figure("MiB at most in a step", mib)}
    yield row("a step of mnist_purkinje.toml", {"batch": batch}, times, figures)
    assert isinstance(outcome, TimedRun), outcome
    images = bench.pick(int(LEARNING_S / outcome.median) * batch, 4 * batch)
    config = load_config(path, [*changes, f"--data.train_limit={min(images, 50_000)}"])
    with tempfile.TemporaryDirectory() as folder:
        result = run(config, seed=0, run_dir=Path(folder) / "run", progress=False)
    figures = {
        "test_accuracy": figure(
            "of the test images are right", result.test_accuracy,
            at_least=bench.on("cuda", LEAST_ACCURACY),
        ),
        "images_per_second": figure("images/s", result.history[-1]["images_per_second"]),
        "seconds": figure("seconds of training", result.seconds_per_epoch),
    }  # fmt: skip
    sizes = {"images": min(images, 50_000), "parameters": result.parameters,
             "peak_memory_mib": result.peak_memory_mib}  # fmt: skip
    yield row("mnist_purkinje.toml", sizes, figures=figures)


def real_time(bench: Bench) -> Iterator[Row]:
    """Measures how many cells run in real time under each reading of the estimate."""
    from realtime import measure_real_time

    names = list(READINGS)[:1] if bench.quick else list(READINGS)
    measured = measure_real_time(
        read_inputs(None, []), bench.device.type, seconds=bench.pick(REAL_TIME_S, 2.0),
        readings={name: READINGS[name] for name in names},
    )  # fmt: skip
    for reading in measured["readings"]:
        for cell in reading["cells"]:
            figures = {
                "in_real_time": figure("cells in real time", cell["in_real_time"].value),
                "share_of_peak": figure("of the measured peak", cell["share_of_peak"].value),
                "watts": figure(f"W ({cell['power'].source})", cell["power"].value),
            }
            sizes = {"ran": cell["ran"], "update_seconds": cell["update"].value}
            yield row(
                f"{reading['reading']}, {cell['cell']}: {cell['ran']}", sizes, figures=figures
            )


def tests(bench: Bench) -> Iterator[Row]:
    """Runs the project's tests that are marked `gpu`; their files alone are collected."""
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py"))
             if re.search(r"mark\.gpu\b", path.read_text())]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            *(sys.executable, "-m", "pytest", "-m", "gpu and not slow", "-q", "--tb=line"),
            *("-p", "no:cacheprovider", f"--junitxml={report}"),
            *(("-n", "4") if find_spec("xdist") else ()), *map(str, files),
        ]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
    ends: list[tuple[Any, set[str]]] = [(case, {child.tag for child in case}) for case in cases]
    failed = [f"{case.get('classname')}::{case.get('name')}" for case, tags in ends
              if tags & {"failure", "error"}]  # fmt: skip
    skipped = sum("skipped" in tags for _, tags in ends)
    wrong = len(failed) or int(done.returncode != 0)
    figures = {
        "passed_tests": figure("tests passed", len(ends) - len(failed) - skipped, at_least=1),
        "failed_tests": figure("tests failed, or none came to its end", wrong, at_most=0),
        "skipped_tests": figure("tests skipped", skipped),
    }
    notes = [*failed, *(done.stdout + done.stderr).splitlines()[-20:]] if wrong else []
    yield row("pytest -m gpu", {"files": len(files)}, figures=figures, notes=notes)
