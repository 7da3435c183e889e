"""Dendrites: the convolution as a layer, and the dendritic rate."""

import math
from typing import Any

import pytest
import torch

from neuroconv.layers import DendriticConv, DendriticRate, Taps, TreeShape


def test_initialisation_is_hes_over_the_taps_of_an_output() -> None:
    for mode, taps in (("same", 3 * 10 * 5), ("per_dendrite", 3 * 5)):
        layer = DendriticConv(200, TreeShape((6, 10), (3, 10, 5), mode=mode))
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / taps), rel=0.02)
        assert not layer.bias.any()
    assert DendriticConv(2, TreeShape((3, 4), (2, 2, 2)), bias=False).bias is None


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
    torch.testing.assert_close(*results, rtol=0, atol=1e-15)
    assert results[1][0].stride(0) == 1  # and so it stays


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DendriticConv(0, TreeShape((4, 4), (3, 4, 5))), "neurons=0; expected an integer"),
        (lambda: DendriticConv(2, TreeShape((4, 4))), r"no filter; expected \(branches, dendrites"),
        (lambda: TreeShape((4, 0)), r"sheet=\(4, 0\); expected 2 values, each an integer"),
        (lambda: TreeShape((4,)), r"sheet=\(4,\); expected 2 .* for \(sites, dendrites\)"),
        (lambda: TreeShape((4, 4), (3, 0, 5)), r"filter=\(3, 0, 5\); expected 3 values, each"),
        (lambda: TreeShape((4, 4), (3, 4)), r"expected 3 .* for \(branches, dendrites, t"),
        (lambda: TreeShape((4, 4), (5, 4, 5), mode="valid"), "5 branches x 4 dendrites does not"),
        (lambda: TreeShape((4, 4), (3, 3, 5), mode="per_dendrite"), r"filter=\(3, 4, time_steps\)"),
        (lambda: TreeShape((4, 4), (3, 4, 5), mode="full"), "'full'.*expected one of same, valid"),
        (lambda: DendriticRate(law="cubic"), "law='cubic'; expected one of linear"),
        (lambda: DendriticRate("sum", True, "sublinear"), "linear=True with law='sublinear'; the"),
        (lambda: Taps(backend="gpu"), "'gpu'.*expected one of auto, direct"),
    ],
)
def test_constructor_errors(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_a_tree_has_the_essays_order_and_torchs() -> None:
    tree = TreeShape((4, 6), (3, 5, 2), synapses=20, mode="valid")
    assert tree.kernel == (2, 3, 5)  # (time_steps, branches, dendrites)
    assert tree.out == (2, 2)
    assert (tree.positions, tree.filled) == (24, 20)
    assert TreeShape((4, 6)).filled == 24


def test_call_and_choice_errors() -> None:
    layer = DendriticConv(2, TreeShape((4, 4), (3, 4, 5)))
    for shape in [(1, 2, 5, 4), (1, 2, 5, 4, 3), (1, 2, 5, 3, 4)]:
        with pytest.raises(ValueError, match=r"2 neurons, time_steps, 4 sites, 4 dendrites\)"):
            layer(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"reduction='median'; .*one of mean"):
        DendriticRate("median")


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
    torch.testing.assert_close(unit.weight.grad, plain.weight.grad * deviation)
    large = DendriticConv(50, TreeShape((4, 40), (3, 40, 5)), Taps(equalized_lr=True))
    assert 0.97 < large.weight.std().item() < 1.03
