"""Fixtures that the whole suite shares."""

import os
import re
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from neuroconv.flops import Peak, Timing
from neuroconv.kernels.native import state
from neuroconv.zoo import list_models
from tests.commands import Call, status_of

PROJECT = Path(__file__).resolve().parent.parent

# The same examples in every run, and nothing that depends on how busy the machine is.
settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("suite")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # what a shell starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture
def machine() -> Peak:
    """100 GFLOP/s and 20 GB/s: the roofs meet at 5 FLOP per byte."""
    return Peak(
        device="a machine",
        device_type="cpu",
        dtype="float32",
        threads=2,
        float32_arithmetic=None,
        flop_per_s=100e9,
        byte_per_s=20e9,
        kernel="product of 512 x 512 matrices",
        tried_flop_per_s={"product of 512 x 512 matrices": 100e9},
        copy_bytes=2**27,
        arithmetic=Timing(1e-3, 0.9e-3, 1.2e-3, repeats=5, calls_per_repeat=10),
        copy=Timing(1e-2, 0.9e-2, 1.2e-2, repeats=5, calls_per_repeat=10),
    )


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Runs a command in an empty folder and on a wide screen: (status, output, errors)."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path | int) -> tuple[int, str, str]:
        status = status_of(*words)
        return status, *capsys.readouterr()

    return run


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compiles the CPU's kernels once: before xdist starts its workers, which then load them."""
    if not hasattr(session.config, "workerinput"):
        state()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # xdist compares what its workers collect: an object's address differs from one to the next.
    if unstable := [item.nodeid for item in items if re.search(r" at 0x[0-9a-f]+", item.nodeid)]:
        raise pytest.UsageError(f"a test's id holds an address; expected a fixed one: {unstable}")
    missing = {*list_models()} - {*list_models(installed=True)}
    for item in items:
        values = getattr(item, "callspec", None) and item.callspec.params.values()
        words = {word for v in values or () if isinstance(v, str) for word in re.split(r"[ ,]+", v)}
        if words & missing:
            item.add_marker(pytest.mark.skip(reason=f"{words & missing}: an optional package"))
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device; torch.cuda.is_available() is False here")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)
