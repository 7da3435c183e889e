"""GranuleConv2d: nn.Conv2d's contract, sizes and errors. Its numbers: test_neurons_stages.py."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neuroconv.core.checks import Norm
from neuroconv.neurons import GranuleConv2d
from tests.neurons.conftest import make_lively
from tests.neurons.test_neurons_stages import channels_read, scalar_column


def test_kernel_is_the_conv3d_that_linear_dendrites_would_be(image_layer: GranuleConv2d) -> None:
    layer = image_layer
    image = torch.randn(1, layer.in_channels, 3, 6, 7, dtype=torch.float64)
    top, bottom, left, right = layer.padding
    padded = F.pad(image, (left, right, top, bottom, layer.time_steps - 1, 0))
    kernel = layer.kernel()
    natural = layer.time_steps == 1 and layer.wiring == "dense"  # groups stay groups
    groups = layer.groups if natural else 1
    conv = F.conv3d(
        padded, kernel, stride=(1, *layer.stride), dilation=(1, *layer.dilation), groups=groups
    )
    for unit in range(layer.out_channels):
        columns = range(layer.kernel_size[1])
        expected = sum(scalar_column(layer, image[0].numpy(), unit, column) for column in columns)
        if layer.dendritic_bias is not None:
            expected = expected - layer.dendritic_bias[:, unit].sum().item()
        np.testing.assert_allclose(conv[0, unit].detach().numpy(), expected, rtol=0, atol=1e-12)


# --- nn.Conv2d's contract


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("time_steps", [1, 2])
def test_output_shapes_are_conv2ds(time_steps: int) -> None:
    image = torch.empty(2, 4, 11, 13, device="meta")  # shapes alone: nothing is multiplied
    kernels: list[Any] = [1, 3, (3, 4), (2, 1), (5, 2)]
    paddings: list[Any] = [0, 1, (2, 0), "same", "valid"]
    combinations = itertools.product(kernels, [1, 2, (1, 3)], paddings, [1, 2, (2, 1)], [1, 2])
    # Every seventh meets each value of each argument with the others'.
    for kernel, stride, padding, dilation, groups in itertools.islice(combinations, 0, None, 7):
        if padding == "same" and stride != 1:
            continue
        sizes = (4, 6, kernel, stride, padding, dilation, groups)
        with torch.device("meta"):
            conv = nn.Conv2d(*sizes)
            layer = GranuleConv2d(*sizes, time_steps=time_steps)
        result, expected = layer(image), conv(image).shape
        assert result.shape == (expected if time_steps == 1 else (2, 6, time_steps, *expected[2:]))
        assert layer.window.output_size(11, 13) == expected[2:]


def test_frames_and_still_images() -> None:
    image = torch.rand(2, 3, 8, 9)
    still = GranuleConv2d(3, 4, 3, time_steps=1)
    frames = image.unsqueeze(2).repeat(1, 1, 5, 1, 1)
    assert still(image).shape == (2, 4, 6, 7)
    torch.testing.assert_close(still(frames), still(image).unsqueeze(2).repeat(1, 1, 5, 1, 1))
    deep = GranuleConv2d(3, 4, 3, time_steps=5)
    assert torch.equal(deep(image), deep(frames))
    assert deep(frames[:, :, :2]).shape == (2, 4, 2, 6, 7)  # any window, shorter or longer
    assert deep(torch.rand(2, 3, 9, 8, 9)).shape == (2, 4, 9, 6, 7)


def test_a_claw_has_the_granule_cells_sixty_taps_whatever_the_channels() -> None:
    layer = GranuleConv2d(64, 8, wiring="claw")
    assert layer.weight.shape == (8, 1, 5, 3, 4)
    assert layer.weight[0].numel() == 60
    for unit in range(8):
        assert len({channels_read(layer, unit, column)[0] for column in range(4)}) == 4
    again, other = GranuleConv2d(64, 8, wiring="claw"), GranuleConv2d(64, 8, wiring="claw", seed=1)
    assert torch.equal(layer.channels, again.channels)
    assert not torch.equal(layer.channels, other.channels)
    assert (layer.kernel() != 0).sum() == layer.weight.count_nonzero()


def test_claws_stay_in_their_group() -> None:
    layer = GranuleConv2d(8, 4, (3, 2), groups=2, wiring="claw", time_steps=2)
    assert torch.equal(
        layer.channels // 4, torch.tensor([0, 0, 1, 1]).view(4, 1, 1).expand(4, 1, 2)
    )


def test_channels_last() -> None:
    layer = make_lively(GranuleConv2d(3, 4, 3, time_steps=1))
    image = torch.rand(2, 3, 8, 9, dtype=torch.float64)
    result = layer(image.to(memory_format=torch.channels_last))
    torch.testing.assert_close(result, layer(image), rtol=0, atol=1e-13)


def test_closed_form_counts_what_runs_and_what_the_essay_would() -> None:
    rows = GranuleConv2d(1, 6, (3, 4)).closed_form(torch.Size((2, 1, 5, 9, 9)))
    table = {row.stage: row for row in rows}
    synapses, dendrites, soma = (table[name] for name in ("synapses", "dendrites", "soma"))
    neurons = 6 * 7 * 6
    assert synapses.synapses == neurons * 12
    assert dendrites.neurons == neurons
    assert dendrites.essay == 2 * neurons * 12 * 5 * 60
    assert dendrites.direct == 2 * neurons * 5 * 60
    # Time folds into channels: a step reads all five, by a tap or by a zero.
    assert dendrites.macs == {"convolution": 2 * neurons * 5 * 12 * 5}
    assert soma.macs == {"matmul": 2 * neurons * 5 * 5}
    still = GranuleConv2d(4, 6, 3, groups=2, time_steps=1).closed_form(torch.Size((2, 4, 9, 9)))
    assert "soma" not in [row.stage for row in still]
    assert still[1].macs == {"convolution": 2 * 6 * 49 * 2 * 9}


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((0, 4), {}, "in_channels=0; expected an integer"),
        ((4, 4, (3, 0)), {}, r"kernel_size=\(3, 0\); expected an integer"),
        ((4, 4, (3, 3, 3)), {}, r"kernel_size=\(3, 3, 3\); expected an integer .* or 2 values"),
        ((4, 4, 3.0), {}, "kernel_size=3.0; expected an integer .* or 2 values"),
        ((4, 4), {"padding": 0.5}, "padding=0.5; expected an integer .*, 2 values"),
        ((4, 4, 3, 0), {}, r"stride=0; expected an integer"),
        ((4, 4, 3, 1, -1), {}, "padding=-1; expected an integer of at least 0"),
        ((4, 4, 3, 1, "full"), {}, "padding='full'; expected .* one of same, valid"),
        ((4, 4, 3, 2, "same"), {}, r"padding='same' needs stride 1; got stride=\(2, 2\)"),
        ((4, 4), {"groups": 3}, "groups=3 does not divide in_channels=4 and out_channels=4"),
        ((4, 4), {"wiring": "sparse"}, "wiring='sparse'; expected one of dense, claw"),
        ((4, 4), {"norm": "batch"}, "norm='batch'; .*expected one of none, dendr"),
        ((4, 4), {"soma": {"time_steps": 0}}, "soma: time_steps=0; expected an integer"),
    ],
)
def test_constructor_errors(arguments: Any, keywords: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GranuleConv2d(*arguments, **keywords)


@pytest.mark.parametrize(
    "shape", [(4, 8, 8), (2, 3, 8, 8), (2, 3, 5, 8, 8), (1, 4, 0, 8, 8), (2, 4, 1, 5, 8, 8)]
)
def test_call_errors(shape: tuple[int, ...]) -> None:
    layer, frames = GranuleConv2d(4, 4, 3), torch.zeros(shape)
    with pytest.raises(ValueError, match=r"expected \(batch, 4 channels, height, width\) or \(b"):
        layer(frames)
    with pytest.raises(ValueError, match=r"expected \(batch, 4 channels, (time_steps, )?height"):
        layer.stream(frames)


def test_call_errors_of_bytes_and_of_a_stretch_without_steps() -> None:
    layer, frames = GranuleConv2d(4, 4, 3), torch.zeros(1, 4, 5, 8, 8, dtype=torch.uint8)
    for call in (layer, layer.stream):
        with pytest.raises(ValueError, match=r"image is torch.uint8; expected floating point"):
            call(frames)
    with pytest.raises(ValueError, match=r"expected \(batch, 4 channels, time_steps, height, w"):
        layer.stream(torch.zeros(1, 4, 8, 8))


def test_a_patch_larger_than_the_padded_image() -> None:
    layer = GranuleConv2d(1, 1, (5, 3), dilation=2)
    message = r"\(5, 3\) with dilation \(2, 2\) does not fit into an image of 8 x 8.*enlarge"
    with pytest.raises(ValueError, match=message):
        layer(torch.zeros(1, 1, 8, 8))


@pytest.mark.gpu
def test_cuda_equals_cpu(image_layer: GranuleConv2d) -> None:
    image = torch.randn(2, image_layer.in_channels, 4, 5, 6, dtype=torch.float64)
    expected = image_layer(image)
    torch.testing.assert_close(image_layer.cuda()(image.cuda()).cpu(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("norm", ["none", "both"])
def test_no_samples_give_no_rates(norm: Norm) -> None:
    layer = GranuleConv2d(2, 3, padding="same", norm=norm).eval()
    assert layer(torch.rand(0, 2, 5, 7, 8)).shape == (0, 3, 5, 7, 8)
