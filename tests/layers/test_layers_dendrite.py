"""Dendrites: the convolution as a layer, and the dendritic rate."""

import math
from typing import Any

import pytest
import torch

from neuroconv.kernels.conv import Mode
from neuroconv.layers import Cable, DendriticConv, DendriticRate, Taps, TreeShape, dendritic_conv


@pytest.mark.parametrize(
    ("mode", "filter_shape", "out_shape"),
    [
        ("same", (3, 2, 5), (6, 4)),
        ("valid", (3, 2, 5), (4, 3)),
        ("per_dendrite", (3, 4, 5), (4, 4)),
    ],
)
def test_the_essays_order_is_turned_once(
    mode: Mode, filter_shape: tuple[int, int, int], out_shape: tuple[int, int]
) -> None:
    branches, across, time_steps = filter_shape
    layer = DendriticConv(2, TreeShape((6, 4), filter_shape, mode=mode))
    assert layer.weight.shape == (2, time_steps, branches, across)
    assert layer.bias is not None
    assert layer.bias.shape == (2, out_shape[1])
    torch.nn.init.normal_(layer.bias)
    sheet = torch.randn(3, 2, 7, 6, 4)
    potential = layer(sheet)
    assert potential.shape == (3, 2, 7, *out_shape)
    plain = dendritic_conv(sheet, layer.weight, mode)
    for n in range(2):
        for d in range(out_shape[1]):
            torch.testing.assert_close(
                potential[:, n, :, :, d], plain[:, n, :, :, d] + layer.bias[n, d]
            )


def test_initialisation_is_hes_over_the_taps_of_an_output() -> None:
    for mode, taps in (("same", 3 * 10 * 5), ("per_dendrite", 3 * 5)):
        layer = DendriticConv(200, TreeShape((6, 10), (3, 10, 5), mode=mode))  # type: ignore[arg-type]
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / taps), rel=0.02)
        assert layer.bias is not None
        assert not layer.bias.any()
    assert DendriticConv(2, TreeShape((3, 4), (2, 2, 2)), bias=False).bias is None


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "max"])
def test_rate_equals_its_definition(reduction: Any, linear: bool) -> None:
    potential = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    rate = DendriticRate(reduction, linear)(potential)
    assert rate.shape == (2, 3, 4, 6)
    for b, n, t, d in [(0, 0, 0, 0), (1, 2, 3, 5), (0, 1, 2, 4), (1, 0, 1, 3)]:
        sites = [potential[b, n, t, p, d].item() for p in range(5)]
        sites = sites if linear else [max(0.0, site) for site in sites]
        wanted = {"mean": sum(sites) / 5, "sum": sum(sites), "max": max(sites)}[reduction]
        assert rate[b, n, t, d].item() == pytest.approx(wanted, abs=1e-14)
    assert linear or (rate >= 0).all()
    one_site = DendriticRate(reduction, linear)(potential[:, :, :, :1])
    first = potential[:, :, :, 0]
    assert torch.equal(one_site, first if linear else first.clamp(min=0))


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "max"])
@pytest.mark.parametrize("sites", [5, 1])
def test_rate_of_either_layout(reduction: Any, linear: bool, sites: int) -> None:
    plain = torch.randn(2, 3, 4, sites, 6, dtype=torch.float64)
    # The batch innermost in memory, as synapses and the matrix product leave it.
    innermost = plain.permute(1, 4, 3, 2, 0).contiguous().permute(4, 0, 3, 2, 1)
    assert innermost.stride(0) == 1
    layer = DendriticRate(reduction, linear)
    grad = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    results = []
    for potential in (plain, innermost):
        potential.requires_grad_()
        rate = layer(potential)
        assert rate.shape == (2, 3, 4, 6)
        results.append((rate, *torch.autograd.grad(rate, potential, grad)))
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-15)
    assert results[1][0].stride(0) == 1  # and so it stays


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DendriticConv(0, TreeShape((4, 4), (3, 4, 5))), "neurons=0; expected positive"),
        (lambda: DendriticConv(2, TreeShape((4, 4))), r"no filter; expected \(branches, dendrites"),
        (lambda: TreeShape((4, 0)), r"sheet=\(4, 0\); expected positive"),
        (lambda: TreeShape((4,)), r"sheet=\(4,\); expected \(sites, dendrites\)"),
        (lambda: TreeShape((4, 4, 9)), r"sheet=\(4, 4, 9\)"),
        (lambda: TreeShape((4, 4), (3, 0, 5)), r"filter=\(3, 0, 5\); expected positive"),
        (lambda: TreeShape((4, 4), (3, -1, 5)), r"filter=\(3, -1, 5\); expected positive"),
        (lambda: TreeShape((4, 4), (3, 4)), r"\(3, 4\); expected \(branches, dendrites, time_st"),
        (
            lambda: TreeShape((4, 4), (5, 4, 5), mode="valid"),
            "5 branches x 4 dendrites does not fit .*mode='same'",
        ),
        (
            lambda: TreeShape((4, 4), (3, 3, 5), mode="per_dendrite"),
            r"filter=\(3, 4, time_steps\)",
        ),
        (lambda: TreeShape((4, 4), (3, 4, 5), mode="full"), "'full'.*expected one of same, valid"),
        (lambda: Taps(backend="gpu"), "'gpu'.*expected one of auto, direct"),
    ],
)
def test_constructor_errors(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_a_tree_has_the_essays_order_and_torchs() -> None:
    tree = TreeShape((4, 6), (3, 5, 2), synapses=20, mode="valid")
    assert tree.filter == (3, 5, 2)  # (branches, dendrites, time_steps)
    assert tree.kernel == (2, 3, 5)  # (time_steps, branches, dendrites)
    assert tree.out == (2, 2)
    assert (tree.positions, tree.filled) == (24, 20)
    assert TreeShape((4, 6)).filled == 24


def test_call_and_choice_errors() -> None:
    layer = DendriticConv(2, TreeShape((4, 4), (3, 4, 5)))
    for shape in [(1, 2, 5, 4), (1, 2, 5, 4, 3), (1, 2, 5, 3, 4)]:
        with pytest.raises(ValueError, match=r"2 neurons, time_steps, 4 sites, 4 dendrites\)"):
            layer(torch.zeros(shape))
    with pytest.raises(ValueError, match="holds 3 neurons and there are 2 filters"):
        layer(torch.zeros(1, 3, 5, 4, 4))
    with pytest.raises(ValueError, match="reduction='median' is unknown; expected one of mean"):
        DendriticRate("median")  # type: ignore[arg-type]


def test_unit_taps_filter_alike_and_scale_their_own_gradient() -> None:
    plain = DendriticConv(2, TreeShape((4, 4), (3, 4, 5))).double()
    unit = DendriticConv(2, TreeShape((4, 4), (3, 4, 5)), Taps(equalized_lr=True)).double()
    deviation = (2 / 60) ** 0.5
    with torch.no_grad():
        unit.weight.copy_(plain.weight / deviation)
    sheet = torch.randn(3, 2, 5, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(unit(sheet), plain(sheet))
    for layer in (plain, unit):
        layer(sheet).square().sum().backward()
    assert plain.weight.grad is not None
    torch.testing.assert_close(unit.weight.grad, plain.weight.grad * deviation)
    large = DendriticConv(50, TreeShape((4, 40), (3, 40, 5)), Taps(equalized_lr=True))
    assert 0.97 < large.weight.std().item() < 1.03


@pytest.mark.parametrize("unit_taps", [False, True])
@pytest.mark.parametrize("mode", ["same", "valid", "per_dendrite"])
def test_a_cable_at_unit_gain_passes_a_steady_input_at_its_own_strength(
    mode: Mode, unit_taps: bool
) -> None:
    # Whole overlaps: a filter of four dendrites, of which "valid" adds all up.
    layer = DendriticConv(
        2, TreeShape((9, 4), (3, 4, 5), mode=mode), Taps(equalized_lr=unit_taps)
    ).double()
    cable = Cable(200.0, 40.0, 50.0, 20.0)
    layer.diffuse(cable, unit_gain=True)
    steady = torch.rand(4, dtype=torch.float64).expand(1, 2, 8, 9, 4)  # as strong at each site
    potential = layer(steady)[0, 0, 4:]  # the filter's steps have passed
    inner = potential[:, 1:-1] if mode == "same" else potential  # past the ends, charge is lost
    strength = steady[0, 0, 0, 0]
    wanted = strength.sum() if mode == "valid" else strength
    torch.testing.assert_close(inner, wanted.expand_as(inner), rtol=0, atol=1e-12)
    plain = DendriticConv(
        2, TreeShape((9, 4), (3, 4, 5), mode=mode), Taps(equalized_lr=unit_taps)
    ).double()
    plain.diffuse(cable)
    gain = cable.taps(3, 5).sum()
    torch.testing.assert_close(plain(steady), layer(steady) * gain, rtol=0, atol=1e-12)
    assert not torch.allclose(gain, torch.ones_like(gain))


@pytest.mark.parametrize("backend", ["direct", "fft", "matmul"])
def test_filters_kept_in_evaluation_serve_autocast(backend: Any) -> None:
    layer = DendriticConv(20, TreeShape((4, 4), (3, 4, 5)), Taps(backend=backend)).eval()
    sheet = torch.rand(3, 20, 5, 4, 4)
    with torch.no_grad():
        wanted = layer(sheet)
        with torch.autocast("cpu", torch.bfloat16):
            half = layer(sheet)
    assert (half - wanted).abs().max() <= 2e-2 * wanted.abs().max()
