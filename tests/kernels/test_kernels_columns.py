"""Norm, rectifier and sum as one stage, against nn.BatchNorm2d, a rectifier and a sum."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuroconv.core.counting import counting
from neuroconv.kernels import columns as stage
from neuroconv.kernels.norms import normalised_sum, norms_agree, rectified_sum

PLACES, STEPS, UNITS = 24, 3, 4


def drawn(dendrites: int, positions: int = PLACES) -> list[Tensor]:
    torch.manual_seed(0)
    size = (positions, STEPS * UNITS)
    return [
        (torch.randn(size, dtype=torch.float64) * 2 + 1).requires_grad_() for _ in range(dendrites)
    ]


def norms(dendrites: int, **keywords: Any) -> list[nn.Module]:
    modules: list[nn.Module] = []
    for _ in range(dendrites):
        norm = nn.BatchNorm2d(UNITS, **keywords).double()
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(tensor)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        modules.append(norm)
    return modules


def one_by_one(columns: list[Tensor], units: list[nn.Module] | None, linear: bool) -> Tensor:
    total: Tensor | float = 0.0
    for index, column in enumerate(columns):
        potential = column.view(-1, UNITS, 1, 1)
        if units is not None:
            potential = units[index](potential)
        total = total + (potential if linear else potential.relu())
    assert isinstance(total, Tensor)
    return total.view(len(columns[0]), -1, UNITS).transpose(0, 1)


@pytest.mark.parametrize("chunk", [1, 50, 1 << 20])
@pytest.mark.parametrize(("dendrites", "linear"), [(1, True), (4, False)])
@pytest.mark.parametrize("kind", ["none", "training", "evaluation", "cumulative"])
def test_a_stage_equals_its_parts(
    kind: str, dendrites: int, linear: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "_CHUNK_FLOATS", chunk)
    monkeypatch.setattr(stage, "_ROW_FLOATS", 2 * STEPS * UNITS)  # two places to a row
    columns = drawn(dendrites)
    units = None
    if kind != "none":
        units = norms(dendrites, momentum=None if kind == "cumulative" else 0.2)
        for norm in units:
            norm.train(kind != "evaluation")
    twins = copy.deepcopy(units)
    if units is None:
        result = rectified_sum(columns, UNITS, linear)
    else:
        assert norms_agree(units)
        result = normalised_sum(units, columns, linear)
    expected = one_by_one(columns, twins, linear)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)
    push = torch.randn_like(expected)
    learned = [p for norm in units or [] for p in norm.parameters()]
    others = [p for norm in twins or [] for p in norm.parameters()]
    grads = torch.autograd.grad(result, [*columns, *learned], push)
    expected_grads = torch.autograd.grad(expected, [*columns, *others], push)
    torch.testing.assert_close(grads, expected_grads, rtol=0, atol=1e-12)
    for norm, twin in zip(units or [], twins or [], strict=True):
        for buffer, reference in zip(norm.buffers(), twin.buffers(), strict=True):
            torch.testing.assert_close(buffer, reference, rtol=0, atol=1e-12)


def test_a_mean_far_from_zero_cancels_nothing() -> None:
    column = (torch.randn(4096, STEPS * UNITS) + 1e4).requires_grad_()
    expected = normalised_sum([nn.BatchNorm2d(UNITS).double()], [column.double()], linear=True)
    result = normalised_sum([nn.BatchNorm2d(UNITS)], [column], linear=True)
    # Numbers of 1e4 are held to 1e-3 in float32, and deviations are of order one.
    assert (result.double() - expected).abs().max() < 5e-3


def test_what_does_not_join() -> None:
    assert norms_agree(norms(3))
    assert not norms_agree([*norms(1), nn.Identity()])
    assert not norms_agree([*norms(1), *norms(1, eps=1e-3)])
    assert not norms_agree([nn.BatchNorm2d(UNITS, affine=False)])
    assert not norms_agree([nn.BatchNorm2d(UNITS, track_running_stats=False)])
    mixed = norms(2)
    mixed[0].eval()
    assert not norms_agree(mixed)
    hooked = norms(1)
    hooked[0].register_forward_hook(lambda *_: None)
    assert not norms_agree(hooked)
    with counting():
        assert norms_agree(hooked)


def test_one_value_for_each_unit_cannot_be_normalised() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel when training, got 1"):
        normalised_sum([nn.BatchNorm2d(12)], [torch.zeros(1, 12)])
