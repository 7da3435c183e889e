"""The tools that measure: times in turns, ratios, peak memory, operators alone, exponents."""

import time
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from neuroconv.bench import (
    CONVOLUTIONS,
    TRANSFORMS,
    Failure,
    Figure,
    Job,
    Turns,
    fit_exponent,
    operators_alone,
    peak_bytes,
    ratio,
    time_in_turns,
)
from neuroconv.bench.kernels import conv3d, kernel_job, module_job, pad_same
from neuroconv.flops.calls import OperatorMode, name_of
from neuroconv.kernels.native import native_kernels
from neuroconv.layers import dendritic_conv
from neuroconv.neurons import GranuleConv2d

CPU = torch.device("cpu")


# --- times


def sleeping(seconds: float) -> Job:
    return Job(lambda: time.sleep(seconds))


def test_variants_take_turns() -> None:
    order: list[str] = []

    def writing(name: str) -> Callable[[], object]:
        def call() -> None:
            order.append(name)
            time.sleep(2e-3)

        return call

    times = time_in_turns({name: Job(writing(name)) for name in "ab"}, CPU, seconds=0.02)
    assert order[:4] == ["a", "a", "b", "b"]  # to warm up
    rounds = len(order) // 2 - 2
    assert rounds >= 3
    assert order[4:] == ["a", "b"] * rounds
    for outcome in times.values():
        assert isinstance(outcome, Turns)
        assert outcome.timing.repeats == rounds
        assert 2e-3 <= outcome.timing.lower_seconds <= outcome.timing.seconds < 20e-3


def test_a_slow_variant_is_timed_once_and_a_hopeless_one_not_again() -> None:
    calls = {"fast": 0, "slow": 0, "hopeless": 0, "cold": 0}

    def counting(name: str, seconds: float) -> Job:
        def call() -> None:
            calls[name] += 1
            time.sleep(seconds)

        return Job(call)

    jobs = {
        "fast": counting("fast", 1e-3),
        "hopeless": counting("hopeless", 20e-3),
        "slow": counting("slow", 0.25),
        "cold": counting("cold", 0.06),
    }
    times = time_in_turns(jobs, CPU, seconds=0.02, slow=0.05, hopeless=5)
    assert (calls["slow"], calls["cold"]) == (1, 2)
    assert calls["hopeless"] == 2  # a first call so short may have been cold
    assert len(times["hopeless"].seconds) == 1  # type: ignore[union-attr]
    assert calls["fast"] >= 5
    slow = times["slow"]
    assert isinstance(slow, Turns)
    assert len(slow.seconds) == 1
    assert slow.timing.seconds >= 0.25
    assert slow.timing.spread == 0
    assert list(times) == list(jobs)


def test_a_first_call_that_is_cold_is_not_taken_for_slow() -> None:
    waits = iter([0.06, *[1e-3] * 10_000])
    taken = time_in_turns({"a": Job(lambda: time.sleep(next(waits)))}, CPU, seconds=0.02, slow=0.03)
    outcome = taken["a"]
    assert isinstance(outcome, Turns)
    assert len(outcome.seconds) >= 3
    assert outcome.timing.seconds < 0.03


def test_a_variant_that_fails_is_recorded() -> None:
    def fails() -> None:
        raise RuntimeError("out of memory\nand more")

    times = time_in_turns({"bad": Job(fails), "good": sleeping(1e-4)}, CPU, seconds=0.01)
    assert times["bad"] == Failure("RuntimeError: out of memory")
    assert times["bad"].to_dict() == {"not_measured": "RuntimeError: out of memory"}
    assert isinstance(times["good"], Turns)
    assert ratio(times["bad"], times["good"]) is None


def test_weights_change_before_each_call_outside_of_its_time() -> None:
    weight = torch.ones(3)
    seen = []
    versions = []

    def call() -> None:
        seen.append(weight[0].item())
        versions.append(weight._version)
        time.sleep(1e-4)

    time_in_turns({"a": Job(call, (weight,))}, CPU, seconds=0.01)
    assert seen[:4] == [-1.0, 1.0, -1.0, 1.0]
    assert len(set(versions)) == len(versions) > 10

    class Slow(Job):
        def change(self) -> None:
            time.sleep(20e-3)

    taken = time_in_turns({"a": Slow(lambda: time.sleep(1e-3))}, CPU, seconds=0.005)["a"]
    assert isinstance(taken, Turns)
    assert 1e-3 <= taken.timing.seconds < 15e-3


def test_a_ratio_is_by_round() -> None:
    # The machine slows down threefold on the way, and the ratio is 2 in every round but one.
    short = Turns((1.0, 2.0, 3.0, 3.0, 3.0), 1)
    long = Turns((2.0, 4.0, 6.0, 6.0, 9.0), 1)
    found = ratio(long, short)
    assert found is not None
    assert (found.lower, found.value, found.upper) == (2.0, 2.0, 2.0)
    assert long.timing.spread == pytest.approx(2 / 6)

    once = ratio(Turns((60.0,), 1), Turns((1.0, 2.0, 3.0, 4.0, 5.0), 1))
    assert once is not None
    assert (once.lower, once.value, once.upper) == (60 / 4, 20.0, 60 / 2)


def test_quartiles_are_inclusive() -> None:
    timing = Turns((1.0, 2.0, 3.0, 4.0, 5.0), 7).timing
    assert (timing.lower_seconds, timing.seconds, timing.upper_seconds) == (2, 3, 4)
    assert (timing.repeats, timing.calls_per_repeat) == (5, 7)
    assert Turns((2.5,), 1).timing.lower_seconds == Turns((2.5,), 1).timing.upper_seconds == 2.5


# --- bars


@pytest.mark.parametrize(
    ("value", "bar", "met"),
    [
        (5.0, {"at_least": 5}, True),
        (4.99, {"at_least": 5}, False),
        (1.5, {"at_most": 1.5}, True),
        (1.51, {"at_most": 1.5}, False),
        (1.51, {}, None),
        (None, {"at_most": 1.5}, None),
    ],
)
def test_bars(value: float | None, bar: dict[str, float], met: bool | None) -> None:
    figure = Figure("a_ratio", "times a", value, **bar)
    assert figure.met is met
    assert figure.to_dict().get("met") is met
    assert figure.to_dict()["value"] == value


# --- exponents


@pytest.mark.parametrize("power", [0.5, 1.0, 1.15, 2.0])
def test_exponents_of_powers(power: float) -> None:
    sizes = [1, 2, 4, 8, 16]
    found = fit_exponent(sizes, [3e-3 * size**power for size in sizes])
    assert found.value == pytest.approx(power, abs=1e-12)
    assert found.standard_error == pytest.approx(0, abs=1e-7)
    assert found.seconds_at_one == pytest.approx(3e-3)


def test_the_standard_error_is_the_lines() -> None:
    # By hand, on x = -1, 0, 1 in logs: slope 0.9, residuals 0.1, -0.2, 0.1 times one third ...
    sizes = [2.718281828459045**x for x in (-1.0, 0.0, 1.0)]
    seconds = [2.718281828459045**y for y in (0.0, 1.2, 1.8)]
    found = fit_exponent(sizes, seconds)
    assert found.value == pytest.approx(0.9)
    residuals = (0.0 - 0.1, 1.2 - 1.0, 1.8 - 1.9)
    assert found.standard_error == pytest.approx((sum(r * r for r in residuals) / 1 / 2) ** 0.5)


@pytest.mark.parametrize(("sizes", "seconds"), [([1, 2], [1, 2]), ([1, 2, 4], [1, 0, 2])])
def test_exponents_need_points(sizes: list[float], seconds: list[float]) -> None:
    with pytest.raises(ValueError, match="expected three or more of each, all above 0"):
        fit_exponent(sizes, seconds)


# --- memory


def test_the_peak_is_what_was_alive_at_once() -> None:
    x = torch.randn(1_000_000)  # 4 MB

    def call() -> object:
        a = x * 2  # 4
        b = a + 1  # 8
        del a  # 4
        c = b * b  # 8
        del b
        return c[:10].clone()

    assert peak_bytes(call, CPU) == pytest.approx(8e6, rel=1e-3)
    assert peak_bytes(lambda: x + 1, CPU) == pytest.approx(4e6, rel=1e-3)
    assert peak_bytes(lambda: x.add_(1), CPU) < 1_000


def test_memory_inside_an_operator_is_seen() -> None:
    """A stable sort makes indices beside the values that it is asked for."""
    x = torch.randn(100_000)
    assert peak_bytes(lambda: torch.sort(x, stable=True).values, CPU) >= 100_000 * (4 + 8)


def test_both_ways_hold_the_gradients() -> None:
    x, w = torch.randn(1_000_000, requires_grad=True), torch.randn(1_000_000, requires_grad=True)

    def call() -> object:
        y = x * w
        return y, *torch.autograd.grad(y, (x, w), torch.ones_like(y))

    assert peak_bytes(call, CPU) == pytest.approx(4 * 4e6, rel=1e-3)  # y, ones, two gradients


@pytest.mark.gpu
def test_the_peak_on_cuda() -> None:
    device = torch.device("cuda")
    x = torch.randn(1 << 20, device=device)

    def call() -> object:
        a = x * 2
        return a + 1

    assert peak_bytes(call, device) == pytest.approx(2 * x.nbytes, rel=1e-3)


# --- operators alone


class Names(OperatorMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def run(self, func: object, args: object, kwargs: dict[str, object]) -> object:
        self.names.append(name_of(func))
        return func(*args, **kwargs)  # type: ignore[operator, misc]


@pytest.mark.parametrize("task", ["forward", "forward_backward"])
def test_transforms_alone_are_those_of_the_convolution(task: str) -> None:
    sheet, filters = torch.randn(2, 3, 5, 6, 9), torch.randn(3, 5, 4, 9)
    job = kernel_job(lambda x, w: dendritic_conv(x, w, "same", "fft"), sheet, filters, task)
    whole, alone = Names(), Names()
    with whole:
        job.call()
    again = operators_alone(job.call, TRANSFORMS)
    with alone:
        results = again()
    assert alone.names == [name for name in whole.names if name in TRANSFORMS]
    assert len(results) == len(alone.names) >= 3
    assert len(whole.names) > len(alone.names)


def test_convolutions_alone_are_those_of_the_layer() -> None:
    layer = GranuleConv2d(2, 3, padding="same", norm="both")
    job = module_job(layer, torch.rand(2, 2, 5, 8, 8), "forward_backward")
    alone = Names()
    with native_kernels(False):
        again = operators_alone(job.call, CONVOLUTIONS)
    with alone:
        again()
    forward = alone.names.count("convolution")
    assert forward >= 4
    assert alone.names.count("convolution_backward") == forward
    assert len(alone.names) == 2 * forward


def test_operators_that_do_not_run() -> None:
    with pytest.raises(ValueError, match="the call runs none of _fft_r2c, _fft_c2r, _fft_c2c"):
        operators_alone(lambda: torch.ones(3) + 1, TRANSFORMS)


# --- rivals


@pytest.mark.parametrize("taps", [(5, 3, 4), (2, 4, 5), (5, 1, 1)])
def test_the_padded_rivals_compute_the_same(taps: tuple[int, int, int]) -> None:
    from neuroconv.bench.kernels import fft_conv

    sheet = torch.randn(2, 3, 5, 6, 7)
    filters = torch.randn(3, *taps)
    wanted = dendritic_conv(sheet.double(), filters.double(), "same", "direct")
    padded = pad_same(sheet, taps)
    rivals = [conv3d] + [rival for rival in (fft_conv(),) if rival is not None]
    for rival in rivals:
        found = rival(padded, filters).double()
        assert found.shape == wanted.shape
        assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_a_kernel_job_returns_the_map_and_both_gradients() -> None:
    sheet, filters = torch.randn(2, 3, 5, 6, 7), torch.randn(3, 5, 3, 4)
    padded = pad_same(sheet, (5, 3, 4))
    job = kernel_job(conv3d, padded, filters, "forward_backward")
    y, dx, dw = job.call()  # type: ignore[misc]
    assert y.shape == F.conv3d(padded, filters.unsqueeze(1), groups=3).shape
    assert (dx.shape, dw.shape) == (padded.shape, filters.shape)
    assert len(job.weights) == 1
    before = job.weights[0].detach().clone()
    job.change()
    assert torch.equal(job.weights[0], -before)
    assert torch.equal(filters, before)  # each variant has weights of its own
