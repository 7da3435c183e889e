"""Norm, rectifier and sum as one stage, against the layer's definition."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuroconv.core.counting import counting
from neuroconv.kernels import columns as columns_module
from neuroconv.kernels.native import native_kernels
from neuroconv.kernels.norms import normalised, norms_agree
from neuroconv.kernels.operator import kernels_off
from neuroconv.neurons import GranuleConv2d
from tests.kernels.test_kernels_tree_sum import gradients

STEPS, UNITS = 3, 4


def summed(norms: Any, columns: list[Tensor], linear: bool = False) -> Tensor:
    units = norms[0].num_features
    summing = partial(columns_module.columns_sum, columns, units, linear)
    return normalised(norms, summing, columns[0].numel() // units)


def norms(dendrites: int, **keywords: Any) -> list[nn.Module]:
    modules: list[nn.Module] = []
    for _ in range(dendrites):
        norm = nn.BatchNorm2d(UNITS, **keywords).double()
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(tensor)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        modules.append(norm)
    return modules


@pytest.mark.parametrize("chunk", [1, 50, 1 << 20])
@pytest.mark.parametrize("kind", ["none", "training", "evaluation", "cumulative"])
def test_chunks_of_rows_are_the_definition(
    kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns_module, "_CHUNK_FLOATS", chunk)
    monkeypatch.setattr(columns_module, "_ROW_FLOATS", 24)  # two positions to a row
    layer = GranuleConv2d(2, UNITS, norm="none" if kind == "none" else "both", time_steps=STEPS)
    layer.double().train(kind != "evaluation")
    for norm in layer.dendritic_norms if kind == "cumulative" else ():
        norm.momentum = None
    frames = torch.randn(3, 2, STEPS, 6, 7, dtype=torch.float64, requires_grad=True)

    def step() -> list[Tensor]:
        twin = copy.deepcopy(layer)
        results = gradients(twin(frames), [frames, *twin.parameters()])
        return [*results, *(buffer.double() for buffer in twin.buffers())]

    with native_kernels(False):
        results = step()
    with kernels_off():
        torch.testing.assert_close(results, step(), rtol=0, atol=1e-11)


def test_a_mean_far_from_zero_cancels_nothing() -> None:
    column = (torch.randn(4096, STEPS * UNITS) + 1e4).requires_grad_()
    expected = summed([nn.BatchNorm2d(UNITS).double()], [column.double()], linear=True)
    result = summed([nn.BatchNorm2d(UNITS)], [column], linear=True)
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
        summed([nn.BatchNorm2d(12)], [torch.zeros(1, 12)])
