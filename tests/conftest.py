"""Fixtures that the whole suite shares."""

import os
from pathlib import Path

import pytest
import torch

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data: mnist/*.gz, cifar10_sample.tar, imagenet_sample.tar."""
    named = os.environ.get("NEUROCONV_DATA")
    root = Path(named) if named else PROJECT.parent / "shared" / "data"
    if not root.is_dir():
        pytest.skip(
            f"no real data: there is no folder {root} "
            f"(NEUROCONV_DATA={named!r}; without it, ../shared/data beside the project)"
        )
    return root.resolve()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test draws the same random numbers, whatever ran before it."""
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device; torch.cuda.is_available() is False here")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)
