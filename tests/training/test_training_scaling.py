"""The model of a step's time over processes, and its measurement."""

import json
from typing import Any

import pytest

from neuroconv.training.scaling import MeasuredStep, measure_scaling, project_step

STEP: dict[str, Any] = {
    "images": 64, "compute_seconds": 0.01, "gradient_bytes": 4_000_000,
    "bandwidth_bytes_per_second": 1e9, "latency_seconds": 1e-5,
}  # fmt: skip


def ring(processes: int, gradient: int, bandwidth: float, latency: float) -> float:
    """Message by message: n - 1 that add up, n - 1 that hand round, of a part of the gradient."""
    seconds = 0.0
    for _ in ("add up", "hand round"):
        for _ in range(processes - 1):
            seconds += latency + gradient / processes / bandwidth
    return seconds


@pytest.mark.parametrize("processes", [1, 2, 4, 64])
def test_a_projected_step_is_the_rings(processes: int) -> None:
    step = project_step(processes=processes, **STEP)
    exchange = ring(processes, 4_000_000, 1e9, 1e-5)
    assert step.exchange_seconds == pytest.approx(exchange, rel=1e-12)
    assert step.step_seconds == pytest.approx(0.01 + exchange)
    assert step.images_per_second == pytest.approx(64 / (0.01 + exchange))
    numbers = json.loads(json.dumps(step.to_dict()))
    assert numbers["label"] == "projected"
    assert {key: numbers[key] for key in STEP} == STEP


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"processes": 0}, "processes=0; expected at least 1"),
        ({"images": 0}, "images=0"),
        ({"gradient_bytes": 0}, "gradient_bytes=0"),
        ({"compute_seconds": 0.0}, "compute_seconds=0.0; expected a finite number above 0"),
        ({"bandwidth_bytes_per_second": float("inf")}, "bandwidth_bytes_per_second=inf"),
        ({"latency_seconds": -1.0}, "latency_seconds=-1.0; expected at least 0"),
    ],
)
def test_wrong_numbers(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        project_step(**{"processes": 2, **STEP, **wrong})


def test_processes_divide_the_images() -> None:
    with pytest.raises(ValueError, match=r"processes=\(1, 3\), images=64: expected divisors"):
        measure_scaling((1, 3))


def measured(processes: int, exchange: float, latency: float) -> MeasuredStep:
    return MeasuredStep(
        "measured", "m", processes, 64, 9, 1.0, 0.9, 1.1, 64.0, 1000, exchange, latency, 2
    )


def test_the_bandwidth_is_the_one_that_projects_the_measured_exchange() -> None:
    step = measured(4, 0.1, 1e-3)
    assert step.bandwidth_bytes_per_second is not None
    assert ring(4, 1000, step.bandwidth_bytes_per_second, 1e-3) == pytest.approx(0.1)
    assert measured(2, 1e-3, 1e-3).bandwidth_bytes_per_second is None
    assert measured(1, 0.0, 0.0).bandwidth_bytes_per_second is None


@pytest.mark.slow
def test_one_and_two_processes_are_measured() -> None:
    one, two = measure_scaling(
        (1, 2), model="granule_convnet", images=8, steps=3, image_shape=(1, 8, 8), widths=(4,),
        strides=(2,),
    )  # fmt: skip
    for step, processes in ((one, 1), (two, 2)):
        numbers = json.loads(json.dumps(step.to_dict()))
        assert numbers["label"] == "measured"
        assert numbers["processes"] == processes
        assert 0 < step.step_seconds_least <= step.step_seconds <= step.step_seconds_most
        assert step.images_per_second == pytest.approx(8 / step.step_seconds)
    assert one.exchange_seconds == 0
    assert two.exchange_seconds > 0
    assert one.gradient_bytes == two.gradient_bytes > 0
    with pytest.raises(RuntimeError, match="scaling over 1 processes"):
        measure_scaling((1,), model="granule_convnt", steps=1)
