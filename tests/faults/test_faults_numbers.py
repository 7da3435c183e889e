"""Numbers that are not finite: the run fails with its reason, and keeps its last good state."""

from pathlib import Path
from typing import Any

import pytest

from neuroconv.training.checkpoint import read_record
from neuroconv.training.state import FAILURE
from tests.faults import jobs
from tests.faults.folders import last_step
from tests.faults.harness import call


@pytest.mark.parametrize(
    ("settings", "words", "epoch", "step", "saved"),
    [
        ({"nan": {"train": 17}}, ["inputs [17] of the training data"], 1, 1, 0),
        ({"nan": {"val": 17}}, ["val_data in", "in val_data"], 1, 15, 15),
        ({"nan": {"test": 17}}, ["test_data in", "in test_data"], 3, 45, 45),
        ({"learning_rate": 1e30, "warmup": 0.0}, ["lower the learning rate"], 1, 2, 1),
    ],
    ids=["image", "validation", "test", "learning rate"],
)  # fmt: skip
def test_numbers_that_are_not_finite(
    settings: dict[str, Any], words: list[str], epoch: int, step: int, saved: int, folder: Path
) -> None:
    """A NaN in an image of a split, a learning rate of 1e30: where it was, and a remedy."""
    status, output = call(jobs.fit, folder / "run", save_steps=1, **settings)
    assert status == 2, output
    failure = read_record(folder / "run" / FAILURE)
    assert (failure["epoch"], failure["step"]) == (epoch, step)
    assert last_step(folder / "run") == saved
    for word in (f"epoch {epoch}", *words):
        assert word in failure["reason"]
    assert failure["reason"] in output
    assert "Traceback" not in output


def test_a_command_that_fails(folder: Path) -> None:
    """`neuroconv train` at a learning rate of 1e30: status 1, and a folder that is marked."""
    words = "--train.learning_rate", 1e30, "--train.warmup", 0, "--train.output", folder
    status, output = call(jobs.neuroconv, *jobs.LINEAR, "--train.epochs", 2, *words)
    assert status == 1, output
    (run,) = folder.iterdir()
    assert read_record(run / FAILURE)["reason"] in output
    assert call(jobs.neuroconv, "resume", run)[0] == 2
