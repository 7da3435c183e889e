"""The soma's temporal filter in any order of memory, its start and errors, and the read-out."""

from typing import Any

import pytest
import torch

from neuroconv.layers import LastStep, SomaFilter


def soma(time_steps: int, neurons: int | None) -> SomaFilter:
    layer = SomaFilter(time_steps, neurons).double()
    torch.nn.init.normal_(layer.weight)
    return layer


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (2, 0, 1), (1, 2, 0)])
def test_any_order_of_memory_gives_the_same_both_ways(order: tuple[int, int, int]) -> None:
    layer, back = soma(3, None), [order.index(axis) for axis in range(3)]
    current = torch.randn(2, 4, 5, dtype=torch.float64)
    laid = current.permute(order).contiguous().permute(back).requires_grad_()
    plain = current.requires_grad_()
    expected, result = layer(plain), layer(laid)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)
    push = torch.randn_like(current)
    grads = torch.autograd.grad(result, (laid, layer.weight), push)
    expected_grads = torch.autograd.grad(expected, (plain, layer.weight), push)
    torch.testing.assert_close(grads, expected_grads, rtol=0, atol=1e-12)


def test_starts_as_the_identity_with_the_essays_five_taps() -> None:
    current = torch.randn(2, 3, 6)
    for layer in (SomaFilter(), SomaFilter(neurons=3)):
        assert layer.weight.shape[-1] == 5
        assert torch.equal(layer(current), current)
    assert sum(p.numel() for p in SomaFilter(5).parameters()) == 5
    assert sum(p.numel() for p in SomaFilter(5, 7).parameters()) == 35


@pytest.mark.parametrize("name", ["time_steps", "neurons"])
def test_constructor_errors(name: str) -> None:
    keywords: Any = {name: 0}
    with pytest.raises(ValueError, match=f"{name}=0; expected an integer"):
        SomaFilter(**keywords)


def test_call_errors() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\); expected \(batch, neurons, time_steps\)"):
        SomaFilter()(torch.zeros(2, 3))
    for shape in ((2, 3, 5, 4, 4), (2, 4, 5)):
        with pytest.raises(ValueError, match=r"\); expected \(batch, 3 neurons, time_steps\)"):
            SomaFilter(neurons=3)(torch.zeros(shape))
    for shape in ((2, 3), (2, 3, 0)):
        with pytest.raises(ValueError, match=r"a stretch has shape \(2, 3.*one step or more"):
            SomaFilter().stream(torch.zeros(shape), None)
        with pytest.raises(ValueError, match=r"activity has shape \(2, 3.*, time_steps\)"):
            LastStep()(torch.zeros(shape))


def test_last_step() -> None:
    activity = torch.randn(2, 3, 5, 4)
    assert torch.equal(LastStep()(activity), activity[:, :, 4])
    with pytest.raises(ValueError, match=r"\(2, 3\); expected \(batch, neurons, time_steps\)"):
        LastStep()(torch.zeros(2, 3))
