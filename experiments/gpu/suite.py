"""The project's own gpu-marked tests, and its bench, on the device."""

import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from measure import Row, Setup

from neuroconv.bench import run_bench, section_names

ROOT = Path(__file__).resolve().parents[2]
TESTS_SECONDS = 100.0
# It runs this very script.
_NOT_AGAIN = "tests/test_experiments.py::test_every_section_runs_on_cuda"
_RESULT = re.compile(r"^(\S+::.*?) (PASSED|FAILED|SKIPPED|ERROR)\b", re.MULTILINE)

# Of the bench, those that ask for a GPU first; each gets this share of its usual time.
_SECTIONS = (
    *("purkinje_population", "granule_bandwidth", "image_layer_roof", "accuracy", "purkinje"),
    *("granule", "image_layer", "training", "cnn", "auto", "growth", "scaling", "real_time"),
)
_SECONDS = 0.4


def gpu_tests(setup: Setup) -> Iterator[Row]:
    """`pytest -m gpu` in a process of its own; the first that are slow or fail are named."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", "-m", "gpu", "-v", "--color=no", "--tb=line"),
                *("-p", "no:cacheprovider", "--deselect", _NOT_AGAIN, "tests"),
            ],
            cwd=ROOT, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            status: int | None = process.wait(timeout=TESTS_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            status = None
        output.seek(0)
        text = output.read()
    row = read_tests(text, status)
    yield {**row, "seconds": time.perf_counter() - began}


def read_tests(text: str, status: int | None) -> Row:
    """Counts of what pytest printed, and its last lines if it did not end well.

    Args:
        text: of `pytest -v`.
        status: its exit status; None if it ran out of time.
    """
    results: dict[str, str] = dict(_RESULT.findall(text))
    counts = Counter(results.values())
    failures = [name for name, outcome in results.items() if outcome in ("FAILED", "ERROR")]
    row: Row = {
        "check": "pytest -m gpu",
        "passed": counts["PASSED"],
        "failed": counts["FAILED"] + counts["ERROR"],
        "skipped": counts["SKIPPED"],
        "failures": failures,
        "exit_status": status,
        "ok": status == 0 and not failures,
    }
    if status != 0:
        row["last_lines"] = text.splitlines()[-20:]
    return row


def bench(setup: Setup) -> Iterator[Row]:
    """`neuroconv bench`, a row for each section; its bars are recorded, and decide nothing here."""
    device = setup.device.type
    for name in (each for each in _SECTIONS if each in section_names(device)):
        report = run_bench(device, only=(name,), quick=setup.quick, seconds=_SECONDS, data=None)
        found = report.to_dict()
        yield {
            "check": f"bench {name}",
            "bars": found["bars"],
            **found["sections"][name],
            "ok": not report.failed,
        }
