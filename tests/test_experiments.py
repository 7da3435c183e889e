"""The experiments' own script, in small on the CPU, and the index of their folder."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from neuroconv.bench import section_names
from neuroconv.training import load_config
from neuroconv.zoo import count_parameters, create_model
from tests.scripts import loaded

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


def run(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, report and printed lines."""
    file = tmp_path / "result.json"
    command = [sys.executable, str(EXPERIMENTS / "gpu" / "run.py"), "--json", str(file)]
    done = subprocess.run(
        [*command, "--quick", *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert file.exists(), done.stderr
    return done.returncode, json.loads(file.read_text()), done.stdout


def test_checks_pass_and_times_are_taken(tmp_path: Path) -> None:
    only = ("backends", "full_neuron", "conv3d_bfloat16", "synapse_gradient", "peaks", "purkinje")
    status, report, _ = run(tmp_path, "--device", "cpu", "--only", *only)
    assert status == 0, report["failed"]
    assert set(report) == {"environment", "settings", "sections", "failed", "seconds"}
    assert {"python", "packages", "device", "threads"} <= set(report["environment"])
    assert tuple(report["sections"]) == only
    assert all(section["state"] == "complete" for section in report["sections"].values())
    rows = {name: section["rows"] for name, section in report["sections"].items()}
    assert len(rows["backends"]) == 3 * 3 * 4 * 3  # modes, backends, precisions, results
    for name in only[:4]:
        for row in rows[name]:
            assert {"check", "error_over_largest", "tolerance", "ok"} <= set(row)
            assert row["ok"] is (row["error_over_largest"] <= row["tolerance"]) is True
    assert [row["peak"].split()[-1] for row in rows["peaks"][:3]] == ["bf16", "tf32", "fp32"]
    for row in rows["purkinje"]:
        assert {"task", "batch", "variants", "direct_fp32_over_fft_fp32"} <= set(row)
        fft, direct = (row["variants"][name] for name in ("fft_fp32", "direct_fp32"))
        assert fft["median_ms"] > 0
        assert fft["repeats"] >= 3
        ratio = direct["median_ms"] / fft["median_ms"]
        assert row["direct_fp32_over_fft_fp32"] == pytest.approx(ratio)
    assert rows["purkinje"][0]["variants"]["fft_fp32"]["share_of_peak"] > 0


def test_a_section_that_fails_is_recorded_and_the_rest_goes_on(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    status, report, printed = run(
        tmp_path, "--device", "cpu", "--data", str(absent), "--only", "mnist", "capacity"
    )
    assert status == 1
    assert report["sections"]["mnist"]["state"].startswith(f"FileNotFoundError: --data {absent}")
    assert report["sections"]["capacity"]["state"] == "complete"
    assert [failure["section"] for failure in report["failed"]] == ["mnist"]
    assert "FAILED" in printed


def test_populations_are_compared(tmp_path: Path) -> None:
    status, report, _ = run(tmp_path, "--device", "cpu", "--only", "peaks", "fused", "graphs")
    assert status == 0, report["failed"]
    fused, graphs = (report["sections"][name]["rows"] for name in ("fused", "graphs"))
    timed = [row for row in fused if "variants" in row]
    assert {(row["task"], row["precision"]) for row in timed} == {
        (task, precision)
        for task in ("inference", "forward", "forward_backward")
        for precision in ("fp32", "tf32", "bf16")
    }
    for row in timed:
        assert set(row["variants"]) == {"fused", "plain", "direct"}
        assert row["fused_kernel_runs"] is False  # that is CUDA's
        if row["task"] == "inference":
            ours = row["variants"]["fused"]
            assert ours["share_of_copy_bandwidth"] == pytest.approx(
                row["bytes"] / ours["median_ms"] * 1e3 / _copy(report)
            )
    # Activity and current, 15 weights, filters and bias of 64 cells; an axon for each dendrite.
    numbers = 2 * 4 * 64 * 5 + 64 * 15 + 64 * 60 + 64 * 4
    assert timed[0]["bytes"] == 4 * numbers + 8 * 64 * 4
    assert [len(row.get("variants", ())) for row in graphs] == [0, 2, 0, 2]


def _copy(report: dict[str, Any]) -> float:
    rate: float = report["sections"]["peaks"]["rows"][-1]["bytes_per_second"]
    return rate


def test_what_pytest_printed_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS / "gpu"))
    suite = importlib.import_module("suite")
    text = """collecting ... collected 9 items / 4 deselected / 5 selected

tests/test_gpu.py::test_a[granule convnet] PASSED                 [ 20%]
tests/test_gpu.py::test_a[mlp] FAILED                             [ 40%]
tests/zoo/test_zoo_models.py::test_b SKIPPED (needs a CUDA device)[ 60%]
tests/zoo/test_zoo_models.py::test_c ERROR                        [ 80%]
tests/zoo/test_zoo_models.py::test_d PASSED                       [100%]
/somewhere/tests/test_gpu.py:3: AssertionError
FAILED tests/test_gpu.py::test_a[mlp] - AssertionError
"""
    row = suite.read_tests(text, 1)
    assert (row["passed"], row["failed"], row["skipped"], row["ok"]) == (2, 2, 1, False)
    assert row["failures"] == [
        "tests/test_gpu.py::test_a[mlp]", "tests/zoo/test_zoo_models.py::test_c"
    ]  # fmt: skip
    assert row["last_lines"][-1].startswith("FAILED tests/test_gpu.py")
    passed = "tests/test_gpu.py::test_a PASSED [100%]"
    assert suite.read_tests(passed, 0)["ok"] is True
    assert suite.read_tests(passed, None)["ok"] is False  # it ran out of time
    name, _, test = suite._NOT_AGAIN.rpartition("::")
    assert f"def {test}(" in (EXPERIMENTS.parent / name).read_text()
    assert set(suite._SECTIONS) == set(section_names("cuda"))


@pytest.mark.slow
def test_every_section_runs_on_the_cpu(tmp_path: Path, data_root: Path) -> None:
    status, report, _ = run(tmp_path, "--device", "cpu", "--data", str(data_root))
    assert status == 0, report["failed"]
    assert len(report["sections"]) == 21
    assert all(section["rows"] for section in report["sections"].values())


@pytest.mark.gpu
@pytest.mark.slow
def test_every_section_runs_on_cuda(tmp_path: Path) -> None:
    status, report, _ = run(tmp_path, "--device", "cuda")
    assert status == 0, report["failed"]
    assert len(report["sections"]) == 16  # three more train, and need data
    for row in report["sections"]["training_step"]["rows"]:
        assert row["peak_memory_mib"] > 0


def test_the_index_names_every_experiment() -> None:
    index = (EXPERIMENTS / "README.md").read_text()
    folders = sorted(path.parent.name for path in EXPERIMENTS.glob("*/README.md"))
    assert [name for name in folders if f"({name}/README.md)" not in index] == []
    assert "gpu" in folders


def test_the_ablations_page_holds_what_was_recorded() -> None:
    folder = EXPERIMENTS / "ablation"
    table = loaded(folder / "table.py")
    page = (folder / "README.md").read_text()
    assert table.filled(page) == page
    for name in ("granule", "cerebellum"):
        models = json.loads((folder / name / "comparison.json").read_text())["models"]
        files = [table.file_name(model["label"]) for model in models]
        assert len(set(files)) == len(files) > 10
        for file, model in zip(files, models, strict=True):
            config = load_config(folder / name / f"{file}.toml")
            assert config.model["name"] == model["name"]
            assert config.data.train_limit == 10_000
            assert model["parameters_trained"] == count_parameters(create_model(**config.model))
