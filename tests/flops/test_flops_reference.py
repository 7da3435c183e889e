"""Known values, and one convention: what fvcore and FlopCounterMode print for known networks."""

import warnings

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from neuroconv.flops import Counts, count_closed_form, count_exact, count_fvcore
from neuroconv.neurons import Granule, Purkinje


def all_counts(model: nn.Module, inputs: Tensor | tuple[Tensor, ...]) -> list[Counts]:
    """Closed form and exact on meta, exact and fvcore on the CPU."""
    return [
        count_closed_form(model, inputs).counts,
        count_exact(model, inputs),
        count_exact(model, inputs, device="cpu"),
        count_fvcore(model, inputs),
    ]


def lenet5() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip


def stock_fvcore(model: nn.Module, x: Tensor) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        from fvcore.nn import FlopCountAnalysis
    analysis = FlopCountAnalysis(model.eval(), x).unsupported_ops_warnings(False)
    return dict(analysis.by_operator())


def test_lenet5() -> None:
    x = torch.zeros(1, 1, 28, 28)
    for counts in all_counts(lenet5(), x):
        assert counts.mac == 416_520
    assert sum(stock_fvcore(lenet5(), x).values()) == 416_520


def test_resnet18() -> None:
    model, x = torchvision.models.resnet18(), torch.zeros(1, 3, 224, 224)
    for counts in all_counts(model, x):
        assert counts.macs == {"convolution": 1_813_561_344, "matmul": 512_000}, counts.counter
        assert 2 * counts.mac == 3_628_146_688
        assert counts.flops["normalisation"] == 4_967_424
        assert counts.uncounted == {}
    # Stock fvcore leaves the first pooling (3 x 3 windows on 64 x 56 x 56 outputs) out.
    ours = count_fvcore(model, x)
    pooling = ours.flops["pooling"] - 9 * 64 * 56 * 56
    stock = stock_fvcore(model, x)
    assert pooling == stock["adaptive_avg_pool2d"] == 25_088
    total = ours.mac + ours.flops["normalisation"] + pooling
    assert total == sum(stock.values()) == 1_819_065_856


def test_resnet18_by_module() -> None:
    model, x = torchvision.models.resnet18(), torch.zeros(1, 3, 64, 64)
    exact, fvcore = count_exact(model, x), count_fvcore(model, x)
    assert exact.modules["layer1.0.conv1"] == 64 * 64 * 9 * 16 * 16
    contracting = {path: mac for path, mac in fvcore.modules.items() if mac}
    assert {path: mac for path, mac in exact.modules.items() if mac} == contracting


def test_conv3d() -> None:
    for counts in all_counts(nn.Conv3d(2, 8, (5, 3, 4)), torch.zeros(1, 2, 20, 12, 16)):
        assert counts.macs == {"convolution": 1_996_800}


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_grouped_conv1d_backward(device: str) -> None:
    model = nn.Conv1d(16, 16, 5, groups=16, bias=False)
    x = torch.zeros(2, 16, 50, requires_grad=True)
    forward = count_exact(model, x, device=device)
    both = count_exact(model, x, device=device, backward=True)
    assert 2 * forward.mac == 14_720
    assert both.macs == forward.macs
    assert both.backward is not None
    assert 2 * both.backward.mac == 29_440
    weight_only = count_exact(model, x.detach(), device=device, backward=True).backward
    assert weight_only is not None
    assert 2 * weight_only.mac == 14_720
    assert model.weight.grad is None
    assert x.grad is None


def test_torch_still_miscounts_grouped_backward() -> None:
    """When this fails torch has mended it, and the formula of our own can go."""
    model, x = nn.Conv1d(16, 16, 5, groups=16, bias=False), torch.zeros(2, 16, 50)
    with FlopCounterMode(display=False) as stock:
        model(x.requires_grad_()).sum().backward()
    assert stock.get_total_flops() - 14_720 == 250_240


@pytest.mark.parametrize(("groups", "transposed"), [(1, False), (2, False), (1, True), (2, True)])
def test_convolution_backward_is_twice_the_forward(groups: int, transposed: bool) -> None:
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    model, x = kind(4, 6, 3, stride=2, groups=groups), torch.zeros(2, 4, 9, 9, requires_grad=True)
    counts = count_exact(model, x, backward=True)
    assert counts.backward is not None
    assert counts.backward.mac == 2 * counts.mac
    # The bias's gradient is a sum over the batch and the positions.
    assert counts.backward.flops == {"reduction": model(x).numel()}


def loop_count(
    batch: int, channels: int, units: int, groups: int,
    size: tuple[int, int], kernel: tuple[int, int], stride: int, padding: int, dilation: int,
) -> int:  # fmt: skip
    """Multiply-adds of a convolution, one at a time, padding zeros included."""
    count = 0
    for _ in range(batch * units * (channels // groups)):
        top = 0
        while top + dilation * (kernel[0] - 1) < size[0] + 2 * padding:
            left = 0
            while left + dilation * (kernel[1] - 1) < size[1] + 2 * padding:
                for _ in range(kernel[0] * kernel[1]):
                    count += 1
                left += stride
            top += stride
    return count


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 2),
    groups=st.integers(1, 3),
    heard=st.integers(1, 2),
    made=st.integers(1, 2),
    size=st.tuples(st.integers(7, 9), st.integers(7, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
)
def test_any_convolution_against_a_loop(
    batch: int, groups: int, heard: int, made: int, size: tuple[int, int],
    kernel: tuple[int, int], stride: int, padding: int, dilation: int,
) -> None:  # fmt: skip
    channels, units = groups * heard, groups * made
    model = nn.Conv2d(channels, units, kernel, stride, padding, dilation, groups)
    expected = loop_count(batch, channels, units, groups, size, kernel, stride, padding, dilation)
    for counts in all_counts(model, torch.zeros(batch, channels, *size)):
        assert counts.macs == {"convolution": expected}, counts.counter


def test_cells_have_the_essay_columns() -> None:
    for cell, shape, essay, direct in (
        (Granule(20, 3), (2, 20, 5), 4_500, 4_800),
        (Purkinje(50, 1), (1, 50, 5), 25_000_000_000, 25_000_000_000),
    ):
        closed = count_closed_form(cell, torch.zeros(shape))
        neurons = shape[0] * cell.out_features
        dendrites = next(row.cost for row in closed.rows if row.cost.essay is not None)
        assert (dendrites.essay, dendrites.direct) == (neurons * essay, neurons * direct)
        for counts in all_counts(cell, torch.zeros(shape)):
            assert counts.macs == closed.counts.macs, counts.counter
