"""Synapses and the rates of dendrites on CUDA, against torch's operators in float64.

`test_kernels_cuda.py` runs this file in processes of their own.
"""

import os
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuroconv.kernels import cuda
from neuroconv.layers import DendriticRate, SparseSynapses
from tests.kernels.cuda_fourier_cases import launches  # noqa: F401

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
TOLERANCES = {torch.float64: 1e-14, torch.float32: 2e-6, torch.bfloat16: 1e-2}


def assert_right(stage: nn.Module, x: Tensor, grad: Tensor) -> None:
    """Compares results and all gradients with those of torch's operators on the same numbers."""
    inputs = [x.to(DEVICE).requires_grad_(), *stage.to(DEVICE).parameters()]
    result = stage(inputs[0])
    results = [result, *torch.autograd.grad(result, inputs, grad.to(DEVICE).expand_as(result))]
    exact = [x.detach().double().requires_grad_(), *stage.double().parameters()]
    exact[0] = exact[0].to(DEVICE)
    with cuda.fused_kernels(False):
        expected = stage(exact[0])
        back = torch.autograd.grad(expected, exact, grad.to(DEVICE).double().expand_as(expected))
    for y, reference in zip(results, [expected, *back], strict=True):
        assert y.shape == reference.shape
        error = (y.double() - reference).abs().max()
        assert error <= TOLERANCES[result.dtype] * reference.abs().max()


# Axons, neurons, sheet, synapses, transmitters, batch, time steps.
@pytest.mark.parametrize(
    ("axons", "neurons", "sheet", "synapses", "kinds", "batch", "steps"),
    [
        (7, 3, (2, 4), 8, 1, 3, 2),
        (2, 3, (3, 5), 13, 2, 1, 1),  # few axons split their synapses; empty positions
        (40, 2, (3, 2), 6, 1, 67, 5),  # several blocks of samples, axons without a synapse
        (1, 1, (1, 1), 1, 1, 1, 1),
        (3, 70, (5, 5), 25, 1, 2, 3),
    ],
)
def test_synapses(
    axons: int,
    neurons: int,
    sheet: Any,
    synapses: int,
    kinds: int,
    batch: int,
    steps: int,
    launches: list[str],  # noqa: F811
) -> None:
    torch.manual_seed(0)
    wiring = torch.randint(0, axons, (neurons, synapses))
    stage = SparseSynapses(wiring, axons, sheet, transmitters=kinds)
    grad = torch.randn(batch, neurons * kinds, steps, *sheet)
    assert_right(stage, torch.randn(batch, axons, steps), grad)
    assert launches == ["release_kernel", "release_gradient_kernel"]


@pytest.mark.parametrize("reduction", ["mean", "sum", "max"])
@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (1, 4, 3, 2, 0)])
def test_rates(
    reduction: Any,
    linear: bool,
    dtype: torch.dtype,
    order: tuple[int, ...],
    launches: list[str],  # noqa: F811
) -> None:
    """In both orders in memory, with sites that are equal and at rest."""
    torch.manual_seed(0)
    shape = (3, 2, 2, 5, 30)
    potential = torch.randint(-3, 4, [shape[axis] for axis in order])
    potential = potential.permute([order.index(axis) for axis in range(5)]).to(dtype)
    stage = DendriticRate(reduction, linear)
    assert_right(stage, potential, torch.randn(3, 2, 2, 30).to(dtype))
    assert launches == ["rate_kernel", "rate_gradient_kernel"]


def test_a_potential_that_is_no_number_stays_one_and_empty_batches_run() -> None:
    potential = torch.tensor([1.0, float("nan"), -1.0, float("inf")], device=DEVICE)
    potential = potential.view(1, 1, 1, 2, 2).requires_grad_()
    for reduction in ("sum", "max"):
        stage = DendriticRate(reduction)  # type: ignore[arg-type]
        with cuda.fused_kernels(False):
            expected = stage(potential)
        torch.testing.assert_close(stage(potential), expected, equal_nan=True)
    assert DendriticRate()(potential[:0]).shape == (0, 1, 1, 2)
