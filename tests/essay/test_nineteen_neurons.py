"""Nineteen neurons: the differences are those that the study's comparison has recorded."""

from pathlib import Path

import numpy as np
import pytest

from neuroconv.essay import Rows
from tests.scripts import loaded

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


def test_the_quantities_are_the_recorded_differences(tmp_path: Path) -> None:
    script = loaded(EXPERIMENTS / "nineteen_neurons" / "run.py")
    record = script.EXPERIMENT.run("full", tmp_path, progress=False)
    for task in script.TASKS:
        entry = script.recorded(task, script.CIRCUIT)
        expected = 100 * np.array([-1, 0, 1]) * entry["difference_fraction_95_half_width"]
        expected += 100 * entry["difference_fraction_mean"]
        measured = record["quantities"][task.split()[0]]
        assert [measured[key] for key in ("low", "value", "high")] == pytest.approx(expected)
        assert measured["seeds"] == entry["difference_seeds"]
        values = script.by_seed(Rows(record["values"]), task, script.CIRCUIT)
        means = {str(seed): right.mean() for seed, right in values.items()}
        assert means == pytest.approx(entry["test_accuracy_fraction_by_seed"])
