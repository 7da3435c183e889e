"""Image layers by Triton kernels against their definition in float64; run as `cuda_cases.py` is."""

import copy
from typing import Any

import pytest
import torch
import triton
from torch import Tensor, nn

from neuroconv.core.counting import counting
from neuroconv.kernels import claw_maps as claw_module
from neuroconv.kernels import maps_sum as maps_module
from neuroconv.kernels.cuda.launch import Kernel
from neuroconv.kernels.cuda.maps import _rows
from neuroconv.kernels.operator import kernels_off
from neuroconv.neurons import GranuleConv2d
from neuroconv.zoo import Conv3dUnit
from tests.kernels.cuda_cases import DEVICE
from tests.neurons.conftest import make_lively

CLAW = (5, 7), {"wiring": "claw", "kernel_size": (2, 3), "padding": "same", "norm": "both"}
# (in_channels, units, patch) and the other arguments. No size is that of a tile.
CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "same": ((3, 5), {"kernel_size": (3, 4), "padding": "same", "norm": "both"}),
    "valid": ((2, 3), {"norm": "both"}),
    "biases": ((2, 3), {"kernel_size": 3, "padding": "same"}),
    "still": ((3, 5), {"kernel_size": 3, "padding": 1, "time_steps": 1, "norm": "both"}),
    "stride": ((2, 3), {"stride": 2, "padding": 1, "norm": "dendrites"}),
    "geometry": ((2, 3), {"kernel_size": 3, "stride": (1, 2), "padding": (2, 3), "dilation": 2}),
    "groups": ((4, 6), {"kernel_size": 2, "groups": 2, "time_steps": 1, "norm": "both"}),
    "one_dendrite": ((2, 3), {"kernel_size": (3, 1), "norm": "soma"}),
    "linear": ((2, 3), {"kernel_size": 3, "linear_dendrites": True, "bias": False}),
    "only_padding": ((1, 2), {"kernel_size": (1, 2), "stride": (1, 7), "padding": (0, 9)}),
    "memory": ((2, 3), {"kernel_size": 2, "time_steps": 1, "soma": {"time_steps": 3}}),
    "ten_taps": ((1, 2), {"kernel_size": 2, "soma": {"time_steps": 10}}),
    "claw": CLAW,
    "claw_geometry": (
        (20, 3),
        {"wiring": "claw", "kernel_size": 3, "stride": (2, 3), "padding": (2, 3), "dilation": 2},
    ),
    "claw_of_groups": ((4, 6), {"wiring": "claw", "kernel_size": 2, "groups": 2, "time_steps": 5}),
    "one_sample": ((2, 3), {"kernel_size": 2, "time_steps": 1, "spike": nn.Tanh()}),
    "control": CLAW,
    "control_dense": ((2, 3), {"kernel_size": (3, 4), "stride": 2, "padding": 1}),
    "still_claw": ((3, 17), {"wiring": "claw", "kernel_size": 2, "time_steps": 1}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def launches(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The kernels that ran, on small tiles and in few parts."""
    names: set[str] = set()
    launch = Kernel.launch

    def spy(kernel: Kernel, *values: Any, **constants: Any) -> None:
        names.add(kernel.name)
        launch(kernel, *values, **constants)

    monkeypatch.setattr(Kernel, "launch", spy)
    monkeypatch.setattr(maps_module, "_TILE", {"ROWS": 32, "LANES": 8})
    monkeypatch.setattr(maps_module, "_PROGRAMS", 12)
    monkeypatch.setattr(claw_module, "_PARTS", 1)
    return names


def build(case: str) -> tuple[Any, Tensor]:
    """A layer and its frames in float64."""
    sizes, keywords = CASES[case]
    cell = GranuleConv2d(*sizes, **{"time_steps": 3} | keywords)
    layer: Any = make_lively(Conv3dUnit(cell) if "control" in case else cell).to(DEVICE)
    steps = {"memory": 4, "claw_of_groups": 5, "one_sample": 1}.get(case, 3)
    batch = 1 if case == "one_sample" else 2  # one sample's axes merge in any order in memory
    frames = torch.randn(batch, sizes[0], steps, 5, 7, device=DEVICE)
    return layer, frames.double()


def step(layer: nn.Module, frames: Tensor, grad: Tensor | None = None) -> list[Tensor]:
    """The rates, their gradients and the layer's buffers after a run of a copy."""
    twin, leaf = copy.deepcopy(layer), frames.clone().requires_grad_()
    rates = twin(leaf)
    push = torch.linspace(-1, 1, rates.numel(), dtype=rates.dtype, device=DEVICE)
    grads = torch.autograd.grad(rates, [leaf, *twin.parameters()], push.view(rates.shape))
    return [rates, *grads, *twin.buffers()]


def assert_near(results: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for result, exact in zip(results, expected, strict=True):
        assert result.shape == exact.shape
        error = (result.double() - exact).abs().max()
        assert error <= tolerance * max(1e-3, exact.abs().max())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_float32(case: str, training: bool, launches: set[str]) -> None:
    layer, frames = build(case)
    layer.train(training)
    with kernels_off():
        expected = step(layer, frames)
    assert_near(step(layer.float(), frames.float()), expected, 5e-5)
    assert {"sum_kernel", "gradient_kernel"} <= launches
    assert ("filter_gradient_kernel" in launches) is (
        case not in (
            "still", "groups", "memory", "ten_taps", "one_sample", "still_claw", "control",
            "control_dense",
        )
    )  # fmt: skip
    assert ("frame_gradient_kernel" in launches) is ("claw" in case or case == "control")


@pytest.mark.parametrize("autocast", [True, False])
def test_bfloat16(autocast: bool, launches: set[str]) -> None:
    """Without rectifiers that act: a gate flips where a potential near zero is rounded."""
    layer, frames = build("linear")
    nn.init.constant_(layer.soma.weight, 0.3)
    layer.bias = nn.Parameter(torch.full((3,), 20.0, device=DEVICE))
    expected = step(layer.double(), frames.bfloat16().double())
    with torch.autocast(DEVICE, torch.bfloat16, enabled=autocast):
        dtype = torch.float32 if autocast else torch.bfloat16
        results = step(layer.to(dtype), frames.bfloat16().to(dtype))
    assert results[0].dtype == torch.bfloat16
    assert results[1].dtype == dtype
    assert_near(results, expected, 3e-2)
    assert "filter_gradient_kernel" in launches


def test_a_gradient_is_differentiated() -> None:
    layer, frames = build("same")

    def penalty(layer: nn.Module, frames: Tensor) -> list[Tensor]:
        leaf = frames.clone().requires_grad_()
        (grad,) = torch.autograd.grad(layer(leaf).square().sum(), leaf, create_graph=True)
        return list(torch.autograd.grad(grad.square().sum(), [leaf, *layer.parameters()]))

    with kernels_off():
        expected = penalty(layer.train(), frames)
    assert_near(penalty(layer.float(), frames.float()), expected, 1e-4)


def test_a_mean_far_from_zero_cancels_nothing() -> None:
    maps = 1e4 + torch.randn(2, 9, 9, 4, device=DEVICE)
    ones = torch.ones(1, 4, device=DEVICE)
    _, mean, variance = maps_module.maps_sum([maps], None, [0], 9, 4, True, ones, 0 * ones, 1e-5)
    exact = maps.double().flatten(0, 2).var(0, correction=0)
    # A mean of 1e4 is rounded to 1e-3 in float32, and deviations are of order one.
    assert (variance[0] / exact - 1).abs().max() < 1e-3
    assert (mean[0] / maps.double().mean((0, 1, 2)) - 1).abs().max() < 1e-6


def test_where_the_stages_run_one_by_one(launches: set[str]) -> None:
    layer, frames = build("same")
    layer(frames)  # in double precision
    with counting():
        layer.float()(frames.float())
    torch.func.vmap(layer)(frames.float().unsqueeze(1))
    assert not launches


@triton.jit
def rows_kernel(out, tile, lines, extent, width):  # type: ignore[no-untyped-def]
    row, _, output, _ = _rows(tile, lines, 0, extent, 0, width, width, 1)
    triton.language.store(out + triton.language.arange(0, 1), row)
    triton.language.store(out + 1 + triton.language.arange(0, 1), output)


def test_rows_are_counted_in_64_bits() -> None:
    out = torch.zeros(2, dtype=torch.int64, device=DEVICE)
    rows_kernel[(1,)](out, 1 << 29, 1 << 20, 1 << 10, 1 << 14)
    assert out.tolist() == [1 << 33] * 2
