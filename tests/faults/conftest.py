"""Fixtures of the fault suite."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.faults import jobs
from tests.faults.folders import Whole, outcome
from tests.faults.harness import Child, finish


@pytest.fixture(scope="session")
def memory() -> Iterator[Path | None]:
    """A folder in memory, where there is one: hundreds of saves would wait for the disk."""
    with TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def folder(memory: Path) -> Iterator[Path]:
    """An empty folder, in memory where there is some."""
    with TemporaryDirectory(dir=memory) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def whole(memory: Path) -> Whole:
    """The outcome of a run of `jobs.fit` that nothing stopped, by its settings."""
    outcomes: dict[str, dict[str, Any]] = {}

    def get(**settings: Any) -> dict[str, Any]:
        if (key := str(settings)) not in outcomes:
            run = memory / f"whole{len(outcomes)}"
            finish(jobs.fit, run, **settings)
            outcomes[key] = outcome(run)
        return outcomes[key]

    return get


@pytest.fixture(scope="session")
def interrupted(memory: Path) -> Path:
    """A run of the command line, killed within an epoch."""
    folder = memory / "interrupted"
    words = *jobs.GRANULES, "--train.epochs", 100, "--train.max_steps", 22, "--train.save_steps", 1
    with Child(jobs.neuroconv, *words, "--train.output", folder) as child:
        child.until(lambda: list(folder.glob("*/checkpoints/*5.json")))
    return next(folder.iterdir())
