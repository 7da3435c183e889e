"""The cable: its equation, Euler's method against it, and the dendritic filter that it gives."""

import dataclasses
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from neuroconv.kernels.conv.sizes import Mode
from neuroconv.layers import DendriticConv, Taps, TreeShape
from neuroconv.layers.cable import Cable

CABLES = [
    Cable(length_constant_um=100.0, time_constant_ms=20.0, site_um=50.0, step_ms=10.0),
    Cable(length_constant_um=30.0, time_constant_ms=5, site_um=40, step_ms=4.0),
    Cable(length_constant_um=250.0, time_constant_ms=60.0, site_um=75.0, step_ms=1000 / 30),
]
cables = pytest.mark.parametrize("cable", CABLES, ids=["even", "short", "frames"])


def charge_at(cable: Cable, offset: int, lag: int) -> float:
    """The Green's function integrated over a site by Gauss's rule, in the middle of a step."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    distance = torch.from_numpy(cable.site_um * (offset + nodes / 2))
    time = torch.tensor((lag + 0.5) * cable.step_ms, dtype=torch.float64)
    green = cable.green(distance, time)
    return float((green * torch.from_numpy(weights)).sum()) * cable.site_um / 2


# --- the Green's function


@cables
def test_green_solves_the_cable_equation(cable: Cable) -> None:
    distance = torch.linspace(-2, 3, 31, dtype=torch.float64) * cable.length_constant_um
    time = torch.linspace(0.2, 2, 31, dtype=torch.float64) * cable.time_constant_ms
    distance.requires_grad_()
    time.requires_grad_()
    potential = cable.green(distance, time)
    slope, rate = torch.autograd.grad(potential.sum(), (distance, time), create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), distance)
    diffusion = cable.length_constant_um**2 * curvature
    left = cable.time_constant_ms * rate
    scale = 0.1 / cable.length_constant_um
    assert min(value.abs().max().item() for value in (left, diffusion, potential)) > scale
    torch.testing.assert_close(left, diffusion - potential, rtol=0, atol=1e-12 * scale)


@cables
def test_charge_leaks_out_and_nothing_else_is_lost(cable: Cable) -> None:
    distance = torch.linspace(-6000, 6000, 24001, dtype=torch.float64)
    time = torch.tensor([0.5, 5.0, 60.0], dtype=torch.float64).unsqueeze(1)
    charge = torch.trapezoid(cable.green(distance, time), distance)
    expected = torch.exp(-time.squeeze(1) / cable.time_constant_ms)
    torch.testing.assert_close(charge, expected, rtol=1e-12, atol=0)


def test_green_is_zero_until_the_impulse_and_takes_any_shape_and_dtype() -> None:
    cable = CABLES[0]
    for dtype in (torch.float32, torch.float64):
        distance = torch.tensor([0.0, 10.0, -500.0], dtype=dtype, requires_grad=True)
        time = torch.tensor([[-3.0], [0.0], [8.0]], dtype=dtype, requires_grad=True)
        potential = cable.green(distance, time)
        assert potential.shape == (3, 3)
        assert potential.dtype == dtype
        assert not potential[:2].any()
        assert (potential[2] > 0).all()
        assert torch.isfinite(cable.green(distance, time * 1e-30)).all()
        potential.sum().backward()
        for inputs in (distance, time):
            assert torch.isfinite(inputs.grad).all()
    whole = cable.green(torch.tensor([0, 10]), torch.tensor(2))
    torch.testing.assert_close(whole, cable.green(torch.tensor([0.0, 10.0]), torch.tensor(2.0)))


def test_eulers_method_converges_to_green_at_second_order() -> None:
    """The equation itself, stepped in time on ever finer sites: explicit, stable at alpha = 1/4."""
    positions, errors = np.arange(-6, 7), []
    for refinement in (2, 4, 8, 16):
        cable = Cable(100.0, 20.0, 50.0 / refinement, 10.0)
        substeps, middle = 8 * refinement**2, 50 * refinement
        potential = np.zeros(2 * middle + 1)
        potential[middle] = 1 / cable.site_um  # of unit mass
        for _ in range(substeps):
            curvature = np.diff(potential, 2, prepend=0, append=0) / cable.site_um**2
            slope = cable.length_constant_um**2 * curvature - potential
            potential = potential + cable.step_ms / substeps / cable.time_constant_ms * slope
        distance = torch.from_numpy(positions * 50.0)
        green = cable.green(distance, torch.tensor(cable.step_ms, dtype=torch.float64)).numpy()
        errors.append(abs(potential[middle + refinement * positions] - green).max())
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert orders == pytest.approx([2, 2, 2], abs=0.15)
    assert errors[-1] < 1e-3 * green.max()


# --- taps


@cables
@pytest.mark.parametrize(("branches", "time_steps"), [(1, 1), (3, 5), (10, 4), (11, 2)])
def test_taps_are_the_green_function_over_each_site(
    cable: Cable, branches: int, time_steps: int
) -> None:
    taps = cable.taps(branches, time_steps)
    assert taps.shape == (time_steps, branches)
    assert taps.dtype == torch.float64
    for lag in range(time_steps):
        for branch in range(branches):
            expected = charge_at(cable, branch - (branches - 1) // 2, lag)
            assert taps[time_steps - 1 - lag, branch].item() == pytest.approx(expected, rel=1e-9)


@cables
def test_taps_share_out_what_has_not_leaked(cable: Cable) -> None:
    lags = torch.arange(5, dtype=torch.float64)
    left = torch.exp(-(lags + 0.5) * cable.step_ms / cable.time_constant_ms)
    sums = cable.taps(3, 5).flip(0).sum(1)
    assert (sums < left).all()
    assert (left < 1).all()
    torch.testing.assert_close(cable.taps(501, 5).flip(0).sum(1), left, rtol=1e-12, atol=0)
    lingering = cable.taps(1001, 400).sum().item()  # a geometric series: 1 / (2 sinh(dt / 2 tau))
    expected = 1 / (2 * math.sinh(cable.step_ms / cable.time_constant_ms / 2))
    assert lingering == pytest.approx(expected, rel=1e-9)


# --- the dendritic filter


@pytest.mark.parametrize("equalized_lr", [False, True])
@pytest.mark.parametrize(
    ("mode", "kernel", "columns"),
    [  # the columns of the filter that pass charge on: a dendrite's own, and "valid" adds all up
        ("same", (5, 3, 3), [1]),
        ("same", (2, 4, 5), [1]),
        ("same", (3, 1, 1), [0]),
        ("valid", (4, 3, 3), [0, 1, 2]),
        ("per_dendrite", (5, 4, 3), [0, 1, 2, 3]),
    ],
)
def test_charge_spreads_along_its_own_dendrite(
    mode: Mode, kernel: tuple[int, int, int], columns: list[int], equalized_lr: bool
) -> None:
    tree, cable = TreeShape((9, 4), kernel, mode=mode), CABLES[0]
    layer = DendriticConv(2, tree, Taps(equalized_lr=equalized_lr)).double()
    layer.diffuse(cable)
    along = cable.taps(kernel[0], kernel[2])
    expected = torch.zeros(2, *tree.kernel, dtype=torch.float64)
    expected[..., columns] = along[..., None]
    torch.testing.assert_close(layer.taps(), expected, rtol=1e-12, atol=0)
    layer.diffuse(cable, unit_gain=True)  # a steady input passes at its own strength
    torch.testing.assert_close(layer.taps(), expected / along.sum(), rtol=1e-12, atol=0)


def test_fixed_taps_pass_gradients_and_take_none() -> None:
    gradients = []
    sheet = torch.randn(3, 2, 5, 6, 4, dtype=torch.float64, requires_grad=True)
    for trainable in (True, False):
        layer = DendriticConv(2, TreeShape((6, 4), (3, 4, 5))).double()
        layer.diffuse(CABLES[0], trainable=trainable)
        loss = layer(sheet).square().sum()
        learned = [parameter for parameter in layer.parameters() if parameter.requires_grad]
        assert len(learned) == 1 + trainable
        gradients.append(torch.autograd.grad(loss, [sheet, *learned]))
    torch.testing.assert_close(gradients[1][0], gradients[0][0], rtol=1e-12, atol=1e-12)
    layer.diffuse(CABLES[0])  # and fixed taps can be let go
    assert layer.weight.requires_grad


def test_diffusion_leaves_the_layer_as_it_was_built() -> None:
    fresh = DendriticConv(2, TreeShape((6, 4), (3, 4, 5)), Taps(equalized_lr=True))
    layer = DendriticConv(2, TreeShape((6, 4), (3, 4, 5)), Taps(equalized_lr=True))
    torch.nn.init.ones_(layer.bias)
    weight = layer.weight
    layer.diffuse(CABLES[0])
    assert layer.weight is weight
    assert weight.dtype == torch.float32
    assert (layer.bias == 1).all()
    assert not torch.equal(fresh.weight, weight)
    for module in (fresh, layer):
        torch.manual_seed(3)
        module.reset_parameters()
    assert torch.equal(fresh.weight, weight)


@pytest.mark.parametrize(
    "changes", [{"length_constant_um": 0.0}, {"time_constant_ms": -20.0}, {"step_ms": "33"}]
)
def test_cable_errors(changes: dict[str, Any]) -> None:
    ((name, value),) = changes.items()
    with pytest.raises(ValueError, match=f"{name}={value!r}; expected a finite number above 0"):
        dataclasses.replace(CABLES[0], **changes)
    with pytest.raises(ValueError, match="branches=0; expected an integer"):
        CABLES[0].taps(0, 5)
