"""Weights and taps joined: against the unrolled filter, weighted and summed by axon."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.flops import count_exact
from neuroconv.kernels.conv import toeplitz as unrolled
from neuroconv.kernels.conv.sizes import Mode
from neuroconv.kernels.conv.toeplitz import reroll, unroll
from neuroconv.kernels.effective_filters import EffectiveFilters, TreeSpec, merge_costs

# Sheet, taps along the sites and across the dendrites, mode, synapses.
SHAPES: list[tuple[tuple[int, int], tuple[int, int], Mode, int]] = [
    ((4, 4), (3, 4), "same", 16),
    ((4, 4), (3, 4), "same", 12),  # a dendrite without synapses
    ((5, 4), (2, 3), "same", 18),  # a dendrite with some
    ((4, 3), (1, 1), "same", 12),
    ((3, 5), (3, 5), "same", 15),
    ((6, 5), (3, 2), "valid", 30),
    ((4, 1), (4, 1), "valid", 4),
    ((7, 2), (5, 2), "valid", 9),
]


def slowly(weight: Tensor, filters: Tensor, tree: TreeSpec) -> Tensor:
    """(N, K * A, O): every place of the sheet, and then the sum over those that share an axon."""
    (sites, dendrites), synapses = tree.sheet, weight.shape[1]
    places = F.pad(weight, (0, sites * dendrites - synapses))
    spread = unroll(filters, tree.sheet, tree.mode).unflatten(1, (filters.shape[1], -1))
    joined = spread * places[:, None, :, None]
    if tree.claw:
        return joined.unflatten(2, (dendrites, sites)).sum(3)[:, :, : tree.fan_in].flatten(1, 2)
    return joined[:, :, :synapses].flatten(1, 2)


@pytest.mark.parametrize("claw", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_responses_and_gradients_are_those_of_the_unrolled_filter(shape: Any, claw: bool) -> None:
    sheet, taps, mode, synapses = shape
    wiring = torch.arange(synapses).expand(2, -1)
    tree = TreeSpec(wiring, sheet, mode, claw, "mean", False)
    weight = torch.randn(2, synapses, dtype=torch.float64, requires_grad=True)
    filters = torch.randn(2, 3, *taps, dtype=torch.float64, requires_grad=True)
    joining = EffectiveFilters(filters, tree)
    wanted = slowly(weight, filters, tree)
    found = joining.merge(weight, filters)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-14)
    grad = torch.randn_like(wanted)
    reference = torch.autograd.grad(wanted, (weight, filters), grad)
    with torch.no_grad():
        own = joining.gradients(grad, weight, filters, (True, True))
    for one, other in zip(own, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)
    for asked in ((True, False), (False, True), (False, False)):
        some = joining.gradients(grad, weight, filters, asked)
        assert tuple(each is not None for each in some) == asked

    products, flops = merge_costs(filters.shape, synapses, tree)
    counted = count_exact(Joins(tree), (weight.detach(), filters.detach()), device="cpu")
    assert counted.macs.get("matmul", 0) == products
    assert sum(counted.flops.values()) == flops


class Joins(nn.Module):
    def __init__(self, tree: TreeSpec) -> None:
        super().__init__()
        self.tree = tree

    def forward(self, weight: Tensor, filters: Tensor) -> Tensor:
        return EffectiveFilters(filters, self.tree).merge(weight, filters)


@pytest.mark.parametrize("most", [0, 1 << 26])
@pytest.mark.parametrize("mode", ["same", "valid"])
def test_reroll_is_the_transpose_of_unroll(
    mode: Mode, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Also where the matrix that does it would be too large.
    monkeypatch.setattr(unrolled, "_MOST_CHOSEN", most)
    filters = torch.randn(2, 3, 2, 4, dtype=torch.float64)
    matrices = unroll(filters, (5, 6), mode)
    grad = torch.randn_like(matrices)
    back = reroll(grad, filters.shape, (5, 6), mode)
    torch.testing.assert_close((matrices * grad).sum(), (filters * back).sum())
    (wanted,) = torch.func.vjp(lambda own: unroll(own, (5, 6), mode), filters)[1](grad)
    torch.testing.assert_close(back, wanted)
