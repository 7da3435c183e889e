"""Times, peaks and places: consistent with one another. How fast this machine is, no test says."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from neuroconv.flops.machine import roofline
from neuroconv.flops.machine.roofline import Peak, device_name, measure_peak, place
from neuroconv.flops.machine.timing import measure_time


@pytest.fixture(scope="module")
def here() -> Peak:
    return measure_peak("cpu", seconds=0.4)


def test_the_peak_states_what_was_measured(here: Peak) -> None:
    assert (here.device, here.device_type, here.dtype) == (device_name("cpu"), "cpu", "float32")
    assert (here.threads, here.float32_arithmetic) == (torch.get_num_threads(), None)
    assert here.tried_flop_per_s[here.kernel] == here.flop_per_s
    assert here.flop_per_s == max(here.tried_flop_per_s.values())
    assert any(kernel.startswith("product") for kernel in here.tried_flop_per_s)
    assert here.byte_per_s == pytest.approx(2 * here.copy_bytes / here.copy.seconds)
    assert here.arithmetic.repeats >= 3


def test_a_kernel_that_takes_too_long_is_left_out() -> None:
    peak = measure_peak("cpu", dtype=torch.bfloat16, seconds=1e-4)
    assert (peak.dtype, len(peak.tried_flop_per_s)) == ("bfloat16", 1)


def test_peaks_are_measured_on_random_numbers() -> None:
    before = torch.get_rng_state()
    kernels = list(roofline._kernels(torch.device("cpu"), torch.float32))
    operands = [x for _, _, call in kernels for x in call.args]  # type: ignore[attr-defined]
    assert len(operands) == 2 * 5
    assert all(len(x.flatten()[:1000].unique()) > 990 for x in operands)
    assert torch.equal(torch.get_rng_state(), before)


G = 10**9


@pytest.mark.parametrize(
    ("flop", "moved", "bound", "attainable"),
    [
        (50 * G, 1 * G, "arithmetic", 100e9),  # half the flops, 5 % of bytes
        (5 * G, 10 * G, "memory", 10e9),  # 5 % of the flops, half the bytes
        (50 * G, 10 * G, "arithmetic", 100e9),  # at the ridge
        (9 * G, 1 * G, "overhead", 100e9),  # 9 % and 5 %
        (10 * G, 1 * G, "arithmetic", 100e9),  # 10 % is enough
        (0, 15 * G, "memory", 0.0),  # a copy computes nothing
    ],
)
def test_the_nearer_roof_bounds(
    machine: Peak, flop: int, moved: int, bound: str, attainable: float
) -> None:
    spot = place(flop, moved, 1.0, machine)
    assert spot.bound == bound
    assert spot.attainable_flop_per_s == pytest.approx(attainable)
    assert spot.ridge_flop_per_byte == 5.0
    assert spot.flop_per_byte == flop / moved
    # The nearer roof is the one above the run: the share of it is the larger of the two.
    if flop:
        share = max(spot.share_of_peak_flop, spot.share_of_peak_bytes)
        assert spot.flop_per_s / spot.attainable_flop_per_s == pytest.approx(share)


@pytest.mark.parametrize(("flop", "moved", "seconds"), [(-1, 1, 1.0), (1, 0, 1.0), (1, 1, 0.0)])
def test_a_place_needs_work_and_time(machine: Peak, flop: int, moved: int, seconds: float) -> None:
    with pytest.raises(ValueError, match=r"=(-1|0|0\.0); expected"):
        place(flop, moved, seconds, machine)


class Counting(nn.Module):
    """Reports each call to a function: a list of the module itself would be restored."""

    def __init__(self, tell: Callable[[tuple[bool, bool]], None]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.tell = tell

    def forward(self, x: Tensor) -> Tensor:
        self.tell((torch.is_grad_enabled(), self.training))
        return self.norm(self.layer(x))


def test_inference_is_timed_without_autograd() -> None:
    calls: list[tuple[bool, bool]] = []
    model = Counting(calls.append)
    time = measure_time(model, torch.rand(2, 4), seconds=0.02)
    assert set(calls) == {(False, False)}
    assert len(calls) == 2 + time.repeats * time.calls_per_repeat
    assert 0 < time.lower_seconds <= time.seconds <= time.upper_seconds
    assert 3 <= time.repeats <= 20


def test_training_is_timed_and_leaves_the_model_alone() -> None:
    calls: list[tuple[bool, bool]] = []
    model = Counting(calls.append)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    measure_time(model, torch.rand(2, 4), backward=True, training=True, seconds=0.02)
    assert set(calls) == {(True, True)}
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_call_longer_than_the_time_is_timed_once() -> None:
    calls: list[int] = []
    time = measure_time(lambda: calls.append(1), seconds=1e-12)
    assert (time.repeats, time.calls_per_repeat, len(calls)) == (1, 1, 2)
    assert time.spread == 0.0


def test_errors_name_what_is_expected(machine: Peak) -> None:
    model, x = nn.Linear(2, 2), torch.rand(1, 2)
    with pytest.raises(ValueError, match="expected 'cpu' or 'cuda'"):
        measure_time(model, x, "meta")
    with pytest.raises(ValueError, match="floating-point"):
        measure_peak("cpu", dtype=torch.int8)
    for arguments in ((model,), (lambda: None, x)):
        with pytest.raises(ValueError, match="a model with its inputs"):
            measure_time(*arguments)
    with pytest.raises(ValueError, match="no output requires a gradient"):
        measure_time(model.requires_grad_(False), x, backward=True)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_peak_of_a_gpu(dtype: torch.dtype) -> None:
    peak = measure_peak("cuda", dtype=dtype, seconds=1.0)
    assert peak.device == torch.cuda.get_device_name()
    assert peak.threads is None
    assert (peak.float32_arithmetic is None) is (dtype is not torch.float32)
    assert peak.byte_per_s > 0
    assert peak.flop_per_s == peak.tried_flop_per_s[peak.kernel]
