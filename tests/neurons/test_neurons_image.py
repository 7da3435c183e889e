"""GranuleConv2d: nn.Conv2d's contract, and a scalar float64 loop written from the definition."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroconv.core.checks import Norm
from neuroconv.neurons import GranuleConv2d

Array = NDArray[np.float64]


def numbers(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def channels_heard(layer: GranuleConv2d, unit: int, column: int) -> list[int]:
    """The image's channels that one dendrite reads: all of its group, or the claw's."""
    if layer.wiring == "claw":
        if layer.channels is None:  # a single channel leaves nothing to draw
            assert layer.in_channels == 1
            return [0]
        return [int(layer.channels[unit, 0, column])]
    in_group = layer.in_channels // layer.groups
    group = unit // (layer.out_channels // layer.groups)
    return list(range(group * in_group, (group + 1) * in_group))


def scalar_columns(layer: GranuleConv2d, image: Array) -> Array:
    """Potentials of the dendrites, (B, U, T, H', W', K_W): a column filtered in space and time."""
    batch, _, steps, height, width = image.shape
    weight = numbers(layer.weight)
    units, _, k_time, rows, columns = weight.shape
    top, _, left, _ = layer.padding
    out = np.zeros((batch, units, steps, *layer.output_size(height, width), columns))
    for b, u, t, y, x, column in np.ndindex(*out.shape):
        for index, channel in enumerate(channels_heard(layer, u, column)):
            for kt, row in np.ndindex(k_time, rows):
                then = t - (k_time - 1) + kt
                i = y * layer.stride[0] - top + row * layer.dilation[0]
                j = x * layer.stride[1] - left + column * layer.dilation[1]
                if then >= 0 and 0 <= i < height and 0 <= j < width:
                    out[b, u, t, y, x, column] += (
                        weight[u, index, kt, row, column] * image[b, channel, then, i, j]
                    )
        if layer.dendritic_bias is not None:
            out[b, u, t, y, x, column] += layer.dendritic_bias[column, u].item()
    return out


def evaluated(values: Array, norm: nn.Module, unit: int) -> Array:
    """Batch norm in evaluation, of one channel's values."""
    held = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    mean, variance, scale, shift = (tensor[unit].item() for tensor in held)
    return (values - mean) / np.sqrt(variance + norm.eps) * scale + shift


def scalar_granule(layer: GranuleConv2d, image: Array) -> Array:
    potential = scalar_columns(layer, image)
    if layer.dendritic_norms is not None:
        for u, column in np.ndindex(layer.out_channels, layer.kernel_size[1]):
            potential[:, u, ..., column] = evaluated(
                potential[:, u, ..., column], layer.dendritic_norms[column], u
            )
    rate = np.maximum(potential, 0).sum(-1)
    if layer.time_steps > 1:
        taps = numbers(layer.soma.weight)
        soma = np.zeros_like(rate)
        for t in range(rate.shape[2]):
            for lag in range(min(len(taps), t + 1)):
                soma[:, :, t] += taps[len(taps) - 1 - lag] * rate[:, :, t - lag]
        rate = soma
    for u in range(layer.out_channels):
        if layer.soma_norm is not None:
            rate[:, u] = evaluated(rate[:, u], layer.soma_norm, u)
        if layer.bias is not None:
            rate[:, u] += layer.bias[u].item()
    return np.maximum(rate, 0)


def lively(layer: GranuleConv2d) -> GranuleConv2d:
    for name, parameter in layer.named_parameters():
        if name != "weight":
            nn.init.normal_(parameter, 0.3, 0.5)
    for name, buffer in layer.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(buffer, std=0.3)
        elif name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.5, 2)
    return layer.double().eval()


VARIANTS: list[dict[str, Any]] = [
    {"time_steps": 1},
    {"time_steps": 3},
    {"time_steps": 3, "wiring": "claw"},
    {"time_steps": 1, "wiring": "claw"},
    {"time_steps": 1, "groups": 2},
    {"time_steps": 3, "groups": 2},
    {"time_steps": 3, "groups": 2, "wiring": "claw"},
    {"time_steps": 1, "groups": 4},
    {"time_steps": 1, "stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)},
    {"time_steps": 3, "stride": (1, 2), "padding": (2, 1), "dilation": (2, 1)},
    {"time_steps": 3, "padding": "same", "dilation": 2, "wiring": "claw"},
    {"time_steps": 2, "bias": False},
    {"time_steps": 3, "norm": "both"},
    {"time_steps": 1, "norm": "dendrites"},
    {"time_steps": 2, "norm": "soma", "groups": 2},
]


@pytest.mark.parametrize("keywords", VARIANTS, ids=str)
def test_equals_the_scalar_loop(keywords: Any) -> None:
    layer = lively(GranuleConv2d(4, 4, (2, 3), **keywords))
    image = torch.randn(2, 4, 4, 5, 6, dtype=torch.float64)
    wanted = scalar_granule(layer, image.numpy())
    assert (wanted > 0).any()
    np.testing.assert_allclose(numbers(layer(image)), wanted, rtol=0, atol=1e-12)
    single = layer.float()(image.float())
    np.testing.assert_allclose(numbers(single), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("keywords", VARIANTS[:12], ids=str)
def test_kernel_is_the_conv3d_that_linear_dendrites_would_be(keywords: Any) -> None:
    layer = GranuleConv2d(4, 4, (2, 3), **keywords).double()
    image = torch.randn(2, 4, 3, 6, 7, dtype=torch.float64)
    top, bottom, left, right = layer.padding
    padded = F.pad(image, (left, right, top, bottom, layer.time_steps - 1, 0))
    kernel = layer.kernel()
    natural = layer.time_steps == 1 and layer.wiring == "dense"  # groups stay groups
    groups = layer.groups if natural else 1
    assert kernel.shape == (4, 4 // groups, layer.time_steps, 2, 3)
    stride, dilation = (1, *layer.stride), (1, *layer.dilation)
    conv = F.conv3d(padded, kernel, stride=stride, dilation=dilation, groups=groups)
    wanted = scalar_columns(layer, image.numpy()).sum(-1)
    np.testing.assert_allclose(numbers(conv), wanted, rtol=0, atol=1e-12)


def test_still_unit_is_a_sum_of_rectified_column_convolutions() -> None:
    layer = lively(GranuleConv2d(3, 5, (3, 4), 2, 1, time_steps=1))
    image = torch.randn(2, 3, 9, 10, dtype=torch.float64)
    padded = F.pad(image, (1, 1, 1, 1))
    assert layer.dendritic_bias is not None
    assert layer.bias is not None
    height, width = layer.output_size(9, 10)
    total = torch.zeros(2, 5, height, width, dtype=torch.float64)
    for column in range(4):
        taps = layer.weight[:, :, 0, :, column : column + 1]
        conv = F.conv2d(padded[..., column:], taps, layer.dendritic_bias[column], stride=2)
        total += conv[..., :width].relu()
    wanted = (total + layer.bias[:, None, None]).relu()
    torch.testing.assert_close(layer(image), wanted, rtol=0, atol=1e-12)


# --- nn.Conv2d's contract


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("time_steps", [1, 2])
def test_output_shapes_are_conv2ds(time_steps: int) -> None:
    image = torch.empty(2, 4, 11, 13, device="meta")  # shapes alone: nothing is multiplied
    kernels: list[Any] = [1, 3, (3, 4), (2, 1), (5, 2)]
    paddings: list[Any] = [0, 1, (2, 0), "same", "valid"]
    tried = 0
    for kernel, stride, padding, dilation, groups in itertools.product(
        kernels, [1, 2, (1, 3)], paddings, [1, 2, (2, 1)], [1, 2]
    ):
        if padding == "same" and stride != 1:
            continue
        sizes = (4, 6, kernel, stride, padding, dilation, groups)
        with torch.device("meta"):
            conv = nn.Conv2d(*sizes)
            layer = GranuleConv2d(*sizes, time_steps=time_steps)
        result, wanted = layer(image), conv(image).shape
        assert result.shape == (wanted if time_steps == 1 else (2, 6, time_steps, *wanted[2:]))
        assert layer.output_size(11, 13) == wanted[2:]
        tried += 1
    assert tried == 5 * 3 * 2 * (3 * 4 + 1)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize(
    ("kernel", "keywords"),
    [
        (3, {}),
        (4, {"padding": "same"}),
        (4, {"padding": "same", "dilation": 3}),
        (3, {"stride": 2, "padding": 1, "groups": 2}),
        (2, {"stride": (2, 3), "padding": (1, 2), "dilation": (2, 1)}),
    ],
)
def test_a_unit_of_one_dendrite_is_a_rectified_conv2d(kernel: int, keywords: Any) -> None:
    conv = nn.Conv2d(4, 6, (kernel, 1), **keywords).double()
    layer = GranuleConv2d(4, 6, (kernel, 1), **keywords, time_steps=1).double()
    assert conv.bias is not None
    assert layer.dendritic_bias is not None
    with torch.no_grad():
        layer.weight.copy_(conv.weight.unsqueeze(2))
        layer.dendritic_bias.copy_(conv.bias[None])
    image = torch.randn(2, 4, 12, 11, dtype=torch.float64)
    torch.testing.assert_close(layer(image), conv(image).relu(), rtol=0, atol=1e-12)


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


def test_a_later_frame_never_changes_an_earlier_map() -> None:
    layer = lively(GranuleConv2d(3, 4, 3, norm="both", wiring="claw"))
    frames = torch.rand(2, 3, 6, 8, 9, dtype=torch.float64)
    changed = frames.clone()
    changed[:, :, 4] += 1
    before, after = layer(frames), layer(changed)
    torch.testing.assert_close(before[:, :, :4], after[:, :, :4], rtol=0, atol=1e-12)
    assert not torch.allclose(before[:, :, 4:], after[:, :, 4:])


@pytest.mark.parametrize(
    "keywords",
    [
        {"time_steps": 1},
        {"time_steps": 5},
        {"time_steps": 1, "groups": 2},
        {"time_steps": 2, "groups": 2},
        {"time_steps": 2, "wiring": "claw"},
        {"time_steps": 1, "stride": 2, "dilation": (1, 2), "padding": 1},
        {"time_steps": 2, "stride": 2, "dilation": (2, 1), "padding": 1},
    ],
    ids=str,
)
def test_gradcheck(keywords: Any) -> None:
    layer = GranuleConv2d(2, 2, (2, 2), **keywords).double()
    nn.init.normal_(layer.weight, std=0.1)
    for name, parameter in layer.named_parameters():
        if name.endswith("bias"):  # open, and away from the rectifiers' kinks
            nn.init.uniform_(parameter, 1, 2)
    names = [name for name, _ in layer.named_parameters()]
    image = torch.rand(1, 2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert (layer(image) > 0.1).all()

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (image, *layer.parameters()))


def test_a_claw_has_the_granule_cells_sixty_taps_whatever_the_channels() -> None:
    layer = GranuleConv2d(64, 8, wiring="claw")
    assert layer.weight.shape == (8, 1, 5, 3, 4)
    assert layer.weight[0].numel() == 60
    assert layer.channels is not None
    for unit in range(8):
        assert len({channels_heard(layer, unit, column)[0] for column in range(4)}) == 4
    again, other = GranuleConv2d(64, 8, wiring="claw"), GranuleConv2d(64, 8, wiring="claw", seed=1)
    assert again.channels is not None
    assert other.channels is not None
    assert torch.equal(layer.channels, again.channels)
    assert not torch.equal(layer.channels, other.channels)
    assert (layer.kernel() != 0).sum() == layer.weight.count_nonzero()


def test_claws_stay_in_their_group() -> None:
    layer = GranuleConv2d(8, 4, (3, 2), groups=2, wiring="claw", time_steps=2)
    for unit, column in itertools.product(range(4), range(2)):
        (channel,) = channels_heard(layer, unit, column)
        assert channel // 4 == unit // 2


@pytest.mark.parametrize(
    ("keywords", "wanted"),
    [
        ({}, 6 * 4 * 60 + 6 * 4 + 6 + 5),
        ({"bias": False}, 6 * 4 * 60 + 5),
        ({"time_steps": 1}, 6 * 4 * 12 + 6 * 4 + 6),
        ({"wiring": "claw"}, 6 * 60 + 6 * 4 + 6 + 5),
        ({"groups": 2}, 6 * 2 * 60 + 6 * 4 + 6 + 5),
        ({"norm": "both", "wiring": "claw"}, 6 * 60 + 6 * 4 * 2 + 6 * 2 + 5),
    ],
)
def test_parameters_by_closed_form(keywords: Any, wanted: int) -> None:
    layer = GranuleConv2d(4, 6, (3, 4), **keywords)
    assert sum(parameter.numel() for parameter in layer.parameters()) == wanted


def test_closed_form_counts_what_runs_and_what_the_essay_would() -> None:
    rows = GranuleConv2d(1, 6, (3, 4)).closed_form(torch.Size((2, 1, 5, 9, 9)))
    assert [row.stage for row in rows] == [
        "synapses",
        "dendrites",
        "dendritic potential",
        "dendritic rate",
        "dendritic summation",
        "soma",
        "somatic potential",
        "firing",
        "dropout",
    ]
    synapses, dendrites, soma = rows[0], rows[1], rows[5]
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


def test_dropout_is_off_by_default_and_on_by_mean_wait() -> None:
    image = torch.rand(2, 3, 5, 8, 8)
    plain = GranuleConv2d(3, 4, 3)
    assert torch.equal(plain(image), plain(image))
    layer = GranuleConv2d(3, 4, 3, mean_wait=0.5)
    nn.init.constant_(layer.get_parameter("bias"), 1.0)
    silent = layer(image) == 0
    assert 0.25 < silent.double().mean() < 0.5
    assert not (layer.eval()(image) == 0).any()


def test_bfloat16_autocast_is_near_float32() -> None:
    layer = GranuleConv2d(3, 8, 3, norm="both").eval()
    image = torch.rand(2, 3, 5, 12, 12)
    exact = layer(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near = layer(image)
    assert (near.float() - exact).abs().max() / exact.abs().max() < 2e-2


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_formats(memory_format: torch.memory_format) -> None:
    layer = lively(GranuleConv2d(3, 4, 3, time_steps=1))
    image = torch.rand(2, 3, 8, 9, dtype=torch.float64)
    result = layer(image.to(memory_format=memory_format))
    torch.testing.assert_close(result, layer(image), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((0, 4), {}, "in_channels=0; expected positive"),
        ((4, 0), {}, "out_channels=0; expected positive"),
        ((4, 4, (3, 0)), {}, r"kernel_size=\(3, 0\); expected positive"),
        ((4, 4, (3, 3, 3)), {}, r"kernel_size=\(3, 3, 3\); expected an int or a pair"),
        ((4, 4, 3, 0), {}, r"stride=\(0, 0\); expected positive"),
        ((4, 4, 3, 1, -1), {}, "padding=-1; expected zeros to add, 0 or more"),
        ((4, 4, 3, 1, "full"), {}, "padding='full' is unknown; expected one of same, valid"),
        ((4, 4, 3, 2, "same"), {}, r"padding='same' needs stride 1; got stride=\(2, 2\)"),
        ((4, 4, 3, 1, 0, 0), {}, r"dilation=\(0, 0\); expected positive"),
        ((4, 4), {"groups": 3}, "groups=3 does not divide in_channels=4 and out_channels=4"),
        ((4, 4), {"groups": 0}, "groups=0; expected positive"),
        ((4, 4), {"time_steps": 0}, "time_steps=0; expected positive"),
        ((4, 4), {"wiring": "sparse"}, "wiring='sparse' is unknown; expected one of dense, claw"),
        ((4, 4), {"norm": "batch"}, "norm='batch' is unknown; expected one of none, dendrites"),
        ((4, 4), {"mean_wait": -1.0}, "mean_wait=-1.0; expected"),
        ((4, 4), {"soma_time_steps": 0}, "soma_time_steps=0; expected positive"),
        ((4, 4), {"threshold": -1.0}, "threshold=-1.0; expected a finite number above 0"),
        ((4, 4), {"law": "cubic"}, "law='cubic' is unknown; expected one of linear, subl"),
        ((4, 4), {"dropout_mode": "redo"}, "mode='redo' is unknown; expected one of wait"),
    ],
)
def test_constructor_errors(arguments: Any, keywords: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GranuleConv2d(*arguments, **keywords)


@pytest.mark.parametrize("keywords", [{"kernel_size": 3.0}, {"padding": 0.5}, {"stride": 1.5}])
def test_sizes_that_are_no_integers(keywords: Any) -> None:
    (name,) = keywords
    with pytest.raises((TypeError, ValueError), match=f"{name}=.*expected"):
        GranuleConv2d(4, 4, **keywords)


@pytest.mark.parametrize("shape", [(4, 8, 8), (2, 3, 8, 8), (2, 3, 5, 8, 8), (2, 4, 1, 5, 8, 8)])
def test_call_errors(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(batch, 4 channels, height, width\) or \(b"):
        GranuleConv2d(4, 4, 3)(torch.zeros(shape))


def test_a_patch_larger_than_the_padded_image() -> None:
    layer = GranuleConv2d(1, 1, (5, 3), dilation=2)
    message = r"\(5, 3\) with dilation \(2, 2\) does not fit into an image of 8 x 8.*enlarge"
    with pytest.raises(ValueError, match=message):
        layer(torch.zeros(1, 1, 8, 8))


def test_a_window_of_no_steps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 4, 0, 8, 8\)"):
        GranuleConv2d(4, 4, 3)(torch.zeros(1, 4, 0, 8, 8))


@pytest.mark.gpu
@pytest.mark.parametrize("keywords", VARIANTS, ids=str)
def test_cuda_equals_cpu(keywords: Any) -> None:
    layer = lively(GranuleConv2d(4, 4, (2, 3), **keywords))
    image = torch.randn(2, 4, 4, 5, 6, dtype=torch.float64)
    wanted = layer(image)
    torch.testing.assert_close(layer.cuda()(image.cuda()).cpu(), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("norm", ["none", "both"])
def test_no_samples_give_no_rates(norm: Norm) -> None:
    layer = GranuleConv2d(2, 3, padding="same", norm=norm).eval()
    assert layer(torch.rand(0, 2, 5, 7, 8)).shape == (0, 3, 5, 7, 8)
