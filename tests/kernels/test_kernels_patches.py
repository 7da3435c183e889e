"""What dendrites of an image layer read: against slices of the padded maps, both ways."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from neuroconv.kernels.patches import Reading, dendrite_maps
from neuroconv.neurons import GranuleConv2d

READINGS = {
    "plain": Reading((0, 0, 0, 0), 4, 1, 1, 6),
    "padded": Reading((1, 2, 1, 3), 4, 1, 1, 10),
    "stride": Reading((1, 1, 2, 2), 4, 1, 2, 5),
    "stride_of_three": Reading((0, 0, 1, 2), 3, 1, 3, 4),
    "dilated": Reading((0, 0, 2, 2), 3, 2, 1, 9),
    "dilated_by_more_than_is_read": Reading((0, 0, 0, 0), 2, 7, 1, 2),
    "rows_left_out": Reading((1, 1, 0, 0), 1, 1, 2, 5, row_step=2),
}


def slices(frames: Tensor, reading: Reading) -> list[Tensor]:
    """(B, T * C, H*, W') by slicing, the slow obvious way."""
    top, bottom, left, right = reading.padding
    padded = F.pad(frames, (left, right, top, bottom)).transpose(1, 2).flatten(1, 2)
    starts = [dendrite * reading.dilation for dendrite in range(reading.dendrites)]
    reach = reading.stride * (reading.columns_out - 1) + 1
    return [
        padded[:, :, :: reading.row_step, start : start + reach : reading.stride]
        for start in starts
    ]


def by_sample(maps: Tensor, batch: int) -> Tensor:
    """(1, T * C, W' * B, H*) as (B, T * C, H*, W')."""
    return maps[0].unflatten(1, (-1, batch)).permute(2, 0, 3, 1)


@pytest.mark.parametrize("name", READINGS)
@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (2, 4, 0, 3, 1)])
def test_maps_are_slices_of_the_padded_frames(name: str, order: tuple[int, ...]) -> None:
    reading = READINGS[name]
    back = [order.index(axis) for axis in range(5)]
    frames = torch.randn(2, 3, 2, 5, 9, dtype=torch.float64).permute(order).contiguous()
    frames = frames.permute(back).requires_grad_()
    maps = dendrite_maps(frames, reading)
    wanted = slices(frames, reading)
    grads = [torch.randn_like(each) for each in wanted]
    for one, other in zip(maps, wanted, strict=True):
        assert one.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(by_sample(one, 2), other)
    together = [by_sample(one, 2) for one in maps]
    (own,) = torch.autograd.grad(together, frames, grads)
    (reference,) = torch.autograd.grad(wanted, frames, grads)
    torch.testing.assert_close(own, reference, rtol=0, atol=1e-14)
    assert own.stride() == frames.stride()


def test_maps_are_pieces_of_one_tensor() -> None:
    maps = dendrite_maps(torch.randn(2, 3, 2, 5, 9), READINGS["stride"])
    assert len({each.untyped_storage().data_ptr() for each in maps}) == 1


def test_gradient_is_that_of_differences() -> None:
    frames = torch.randn(1, 2, 2, 3, 7, dtype=torch.float64, requires_grad=True)
    reading = Reading((1, 0, 1, 1), 3, 1, 2, 4)
    assert torch.autograd.gradcheck(lambda x: dendrite_maps(x, reading), frames, fast_mode=True)


@pytest.mark.parametrize("kernel", [(1, 1), (1, 3), (3, 4)])
@pytest.mark.parametrize("stride", [1, 2, (2, 1), (1, 3)])
def test_joined_layers_equal_convolutions_in_their_own_order(
    kernel: tuple[int, int], stride: int | tuple[int, int]
) -> None:
    layer = GranuleConv2d(2, 3, kernel, stride, padding=(1, 2), time_steps=2).double()
    frames = torch.randn(2, 2, 3, 7, 8, dtype=torch.float64, requires_grad=True)
    joined = layer(frames)
    weights = [weight for weight in layer.parameters() if weight.requires_grad]
    push = torch.randn_like(joined)
    own = torch.autograd.grad(joined, [frames, *weights], push)
    layer._joins_columns = lambda maps: False  # type: ignore[method-assign]
    apart = layer(frames)
    torch.testing.assert_close(joined, apart, rtol=0, atol=1e-12)
    reference = torch.autograd.grad(apart, [frames, *weights], push)
    for one, other in zip(own, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_many_small_rows_of_one_tap_leave_memory_whole() -> None:
    """Tall images of few channels, one tap and a stride: where oneDNN's own gradient overwrites."""
    torch.manual_seed(0)
    layer = GranuleConv2d(4, 8, 1, 2, time_steps=2)
    frames = torch.randn(64, 4, 2, 12, 12)
    for _ in range(20):
        layer(frames).sum().backward()
    assert layer.weight.grad is not None
    double = GranuleConv2d(4, 8, 1, 2, time_steps=2).double()
    double.load_state_dict(layer.state_dict())
    double(frames.double()).sum().backward()
    assert double.weight.grad is not None
    torch.testing.assert_close(
        layer.weight.grad.double(), 20 * double.weight.grad, rtol=1e-4, atol=1e-2
    )
