"""Batch norm step by step against torch's batch norm of every step by itself."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neuroconv.layers import ThresholdNorm
from neuroconv.layers.step_norm import StepBatchNorm

SHAPES = [(5, 3, 4), (4, 3, 2, 6), (3, 3, 4, 2, 5), (2, 3, 1)]


@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_a_batch_norm_of_each_step(shape: tuple[int, ...], momentum: Any) -> None:
    norm = StepBatchNorm(3, eps=1e-3, momentum=momentum).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    mean, var = torch.zeros(3).double(), torch.ones(3).double()
    for update in (1, 2):
        x = (5 + 3 * torch.randn(shape).double()).requires_grad_()
        direction = torch.randn(shape).double()
        result = norm(x)
        means, variances, parts = [], [], []
        for step in x.unbind(2):
            batch_mean, batch_var = torch.zeros(3).double(), torch.zeros(3).double()
            parts.append(
                F.batch_norm(step, batch_mean, batch_var, norm.weight, norm.bias, True, 1.0, 1e-3)
            )
            means.append(batch_mean)
            variances.append(batch_var)
        expected, tensors = torch.stack(parts, 2), [x, *norm.parameters()]
        torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)
        for grad, wanted in zip(
            torch.autograd.grad(result, tensors, direction),
            torch.autograd.grad(expected, tensors, direction),
            strict=True,
        ):
            torch.testing.assert_close(grad, wanted, rtol=1e-9, atol=1e-9)
        share = 1 / update if momentum is None else momentum
        mean = mean.lerp(torch.stack(means).mean(0), share)
        var = var.lerp(torch.stack(variances).mean(0), share)
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, var)
        assert norm.num_batches_tracked == update
    plain = F.batch_norm(x, mean, var, norm.weight, norm.bias, False, 0.0, 1e-3)
    torch.testing.assert_close(norm.eval()(x), plain)


def test_tensors_are_those_of_torchs_norm() -> None:
    norm, plain = StepBatchNorm(3), nn.BatchNorm1d(3)
    assert list(norm.state_dict()) == list(plain.state_dict())
    norm.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 4)
    assert torch.equal(norm.eval()(x), plain.eval()(x))
    half = StepBatchNorm(3)(x.bfloat16())
    assert half.dtype == torch.bfloat16
    forgetful = StepBatchNorm(3, track_running_stats=False)
    torch.testing.assert_close(forgetful.eval()(x), StepBatchNorm(3)(x))


@pytest.mark.parametrize("empty", [0, 5])
def test_a_thresholds_steps_are_normalised_by_themselves(empty: int) -> None:
    layer = ThresholdNorm(2, 1.5, empty_positions=empty, norm_over="step")
    window = ThresholdNorm(2, 1.5, empty_positions=empty)
    x = 3 * torch.randn(3, 2, 4, 4, 3) + torch.arange(4.0)[:, None, None]
    by_step = torch.cat([window(step) for step in x.split(1, 2)], 2)
    torch.testing.assert_close(layer(x), by_step)
    assert not torch.allclose(window(x), by_step)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: StepBatchNorm(3)(torch.ones(2, 3)), r"\(2, 3\); expected \(batch, 3 channels, st"),
        (lambda: StepBatchNorm(3)(torch.ones(4, 2, 5)), r"\(4, 2, 5\); expected \(batch, 3 chan"),
        (lambda: StepBatchNorm(3)(torch.ones(4, 3, 5).int()), "x is torch.int32; expected"),
        (lambda: StepBatchNorm(3)(torch.ones(1, 3, 9)), "one value for each channel and step"),
        (
            lambda: StepBatchNorm(3, track_running_stats=False).eval()(torch.ones(1, 3, 9)),
            "one value for each channel and step",
        ),
        (lambda: StepBatchNorm(0), "features=0; expected an integer of at least 1"),
        (lambda: StepBatchNorm(3, momentum=2), "momentum=2; expected"),
        (lambda: ThresholdNorm(3, norm_over="batch"), "norm_over='batch'; expected one"),
    ],
)  # fmt: skip
def test_errors(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
