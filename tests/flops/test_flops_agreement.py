"""Closed form, exact counter and fvcore agree on contractions; what they do not cover they say."""

import inspect
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from neuroconv.flops import Counts, count_closed_form, count_exact, count_fvcore
from neuroconv.kernels.conv import dendritic_conv
from neuroconv.kernels.conv.costs import fft_products
from neuroconv.kernels.conv.sizes import ConvProblem
from neuroconv.zoo import create_model, get_builder, list_models
from tests.flops.calling import Call


def measured(model: nn.Module, inputs: Tensor | tuple[Tensor, ...]) -> list[Counts]:
    """The exact counter on meta and the CPU, and fvcore."""
    return [
        count_exact(model, inputs),
        count_exact(model, inputs, device="cpu"),
        count_fvcore(model, inputs),
    ]


def all_counts(model: nn.Module, inputs: Tensor | tuple[Tensor, ...]) -> list[Counts]:
    return [count_closed_form(model, inputs).counts, *measured(model, inputs)]


# --- layers, products and transforms

x1, x2, x3 = torch.zeros(2, 4, 12), torch.zeros(2, 4, 9, 11), torch.zeros(2, 4, 5, 6, 7)
LAYERS = {
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2), x1),
    "conv2d_dilated_grouped": (nn.Conv2d(4, 6, 3, dilation=2, groups=2, padding=1), x2),
    "conv2d_same_even": (nn.Conv2d(4, 6, (3, 3), padding="same", dilation=2), x2),
    "conv2d_unbatched_input": (nn.Conv2d(4, 6, 3, padding="same"), x2[0]),
    "conv3d_same_depthwise": (nn.Conv3d(4, 8, 3, padding="same", groups=4), x3),
    "conv1d_reflect": (nn.Conv1d(4, 6, 3, padding=1, padding_mode="reflect"), x1),
    "conv_transpose1d": (nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1), x1),
    "conv_transpose2d_grouped": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), x2),
    "conv_transpose3d": (nn.ConvTranspose3d(4, 6, 2, dilation=2), x3),
    "linear_2d": (nn.Linear(4, 6), torch.zeros(3, 4)),
    "linear_4d_no_bias": (nn.Linear(11, 6, bias=False), x2),
    "linear_1d": (nn.Linear(12, 3), torch.zeros(12)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    model, x = LAYERS[name]
    closed, *others = all_counts(model, x)
    assert closed.mac > 0
    for counts in others:
        assert counts.macs == closed.macs, counts.counter
        assert counts.uncounted == {}, counts.counter


OTHERS = {
    "batch_norm": (nn.BatchNorm2d(4), x2, {"normalisation": 2 * x2.numel()}),
    "batch_norm_own": (
        nn.BatchNorm1d(4, track_running_stats=False), x1, {"normalisation": 5 * x1.numel()}),
    "layer_norm": (nn.LayerNorm(11), x2, {"normalisation": 5 * x2.numel()}),
    "layer_norm_plain": (
        nn.LayerNorm(11, elementwise_affine=False), x2, {"normalisation": 4 * x2.numel()}),
    "group_norm": (nn.GroupNorm(2, 4), x2, {"normalisation": 5 * x2.numel()}),
    "softmax": (nn.Softmax(1), x2, {"normalisation": 5 * x2.numel()}),
    "max_pool": (nn.MaxPool2d(3, 2), x2, {"pooling": 2 * 4 * 4 * 5 * 9}),
    "avg_pool1d": (nn.AvgPool1d(2), x1, {"pooling": 2 * 4 * 6 * 2}),
    "max_pool3d": (nn.MaxPool3d((1, 2, 2)), x3, {"pooling": 2 * 4 * 5 * 3 * 3 * 4}),
    "adaptive": (nn.AdaptiveAvgPool2d((3, 2)), x2, {"pooling": x2.numel()}),
    "relu_in_place": (nn.ReLU(inplace=True), x2, {"pointwise": x2.numel()}),
    "prelu": (nn.PReLU(), x1, {"pointwise": x1.numel()}),
    "gelu": (nn.GELU(), x1, {"pointwise": x1.numel()}),
    "nothing": (nn.Sequential(nn.Identity(), nn.Dropout(), nn.Flatten()), x2, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_families(name: str) -> None:
    model, x, expected = OTHERS[name]
    for counts in (count_closed_form(model, x).counts, count_exact(model, x)):
        assert counts.flops == expected, counts.counter
        assert (counts.macs, counts.uncounted) == ({}, {})
    fvcore = count_fvcore(model, x)
    assert (fvcore.macs, fvcore.flops, fvcore.uncounted) == ({}, {}, {})


a, b = torch.zeros(2, 3, 4), torch.zeros(2, 4, 5)
PRODUCTS: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...], int]] = {
    "baddbmm": (lambda p, q: torch.baddbmm(p.new_zeros(1), p, q), (a, b), 2 * 3 * 4 * 5),
    "broadcast": (torch.matmul, (a[:, None], torch.zeros(7, 4, 5)), 2 * 7 * 3 * 4 * 5),
    "matrix_vector": (torch.matmul, (a, torch.zeros(4)), 2 * 3 * 4),
    "vector_matrix": (torch.matmul, (torch.zeros(4), b), 2 * 4 * 5),
    "dot": (torch.dot, (torch.zeros(9), torch.zeros(9)), 9),
    "tensordot": (lambda p, q: torch.tensordot(p, q, dims=([2], [1])), (a, b), 6 * 4 * 10),
    "einsum": (lambda p, q: torch.einsum("bij,bjk->bik", p, q), (a, b), 2 * 3 * 4 * 5),
    "einsum_presummed": (lambda p, q: torch.einsum("bij,bjk->bk", p, q), (a, b), 2 * 4 * 5),
    "einsum_no_sum": (lambda p, q: torch.einsum("bij,bij->bij", p, q), (a, a), 0),
    "einsum_dots": (lambda p, q: torch.einsum("bij,bij->b", p, q), (a, a), 2 * 12),
    "einsum_of_three": (  # both follow one path
        lambda p, q, r: torch.einsum("ij,jk,kl->il", p, q, r),
        (torch.zeros(3, 4), torch.zeros(4, 5), torch.zeros(5, 6)), 3 * 4 * 5 + 3 * 5 * 6),
    "attention": (
        F.scaled_dot_product_attention,
        (torch.zeros(2, 3, 5, 4), torch.zeros(2, 3, 7, 4), torch.zeros(2, 3, 7, 4)),
        2 * 3 * 5 * 7 * 8),
}  # fmt: skip


@pytest.mark.parametrize("name", PRODUCTS)
def test_matrix_products(name: str) -> None:
    function, inputs, expected = PRODUCTS[name]
    for counts in measured(Call(function), inputs):
        assert counts.macs == ({"matmul": expected} if expected else {}), counts.counter


fft, real = torch.fft, torch.zeros(3, 8, 12)
TRANSFORMS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    # 1.25 n log2 n, rounded: 8 -> 30, 16 -> 80, 12 -> 54, 96 -> 790, 288 -> 2941;
    # complex 12 -> 108, 96 -> 1580
    "rfft": (lambda x: fft.rfft(x, dim=1), 36 * 30),
    "rfft_sizes": (lambda x: fft.rfft(x, n=2 * x.shape[1], dim=1), 36 * 80),
    "irfft": (lambda x: fft.irfft(x + 0j, n=12), 24 * 54),
    "rfft2_lengths": (lambda x: fft.rfft2(x, s=(x.shape[1], x.size(2) // 3 + 4)), 3 * 480),
    "irfft2_odd": (lambda x: fft.irfft2(x + 0j, s=(8, 7)), 3 * 407),
    "rfftn": (lambda x: fft.rfftn(x, dim=(1, 2)), 3 * 790),
    "rfftn_all": (fft.rfftn, 2941),
    "irfftn": (lambda x: fft.irfftn(x + 0j, s=(8, 12), dim=(1, 2)), 3 * 790),
    "fft_of_real": (fft.fft, 24 * 54),
    "fft_of_complex": (lambda x: fft.fft(x + 0j), 24 * 108),
    "ifft2": (lambda x: fft.ifft2(x + 0j), 3 * 1580),
    "fftn_of_real": (lambda x: fft.fftn(x, dim=(1, 2)), 3 * 1580),
    "hfft": (lambda x: fft.hfft(x + 0j, n=12), 24 * 54),
    "ihfft": (fft.ihfft, 24 * 54),
    "one_point": (lambda x: fft.rfft(x, n=1), 0),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name: str) -> None:
    function, expected = TRANSFORMS[name]
    for counts in measured(Call(function), real):
        assert counts.macs == ({"fft": expected} if expected else {}), counts.counter


@settings(max_examples=25, deadline=None)
@given(
    groups=st.integers(1, 3),
    size=st.tuples(st.integers(7, 9), st.integers(7, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
)
def test_any_convolution(
    groups: int, size: tuple[int, int], kernel: tuple[int, int], stride: int, padding: int,
    dilation: int,
) -> None:  # fmt: skip
    positions = 1
    for points, taps in zip(size, kernel, strict=True):
        last = points + 2 * padding - dilation * (taps - 1)
        positions *= len(range(0, last, stride))
    model = nn.Conv2d(2 * groups, 3 * groups, kernel, stride, padding, dilation, groups)
    expected = 2 * 3 * groups * positions * 2 * kernel[0] * kernel[1]
    for counts in all_counts(model, torch.zeros(2, 2 * groups, *size)):
        assert counts.macs == {"convolution": expected}, counts.counter


# --- known networks, cells, and the zoo


def test_known_networks() -> None:
    lenet5 = create_model("lenet5", image_shape=(1, 28, 28))
    for counts in all_counts(lenet5, torch.zeros(1, 1, 28, 28)):
        assert counts.mac == 416_520
    resnet18, x = torchvision.models.resnet18(), torch.zeros(1, 3, 224, 224)
    closed, exact, *_, fvcore = all_counts(resnet18, x)
    for counts in (closed, exact, fvcore):
        assert counts.macs == {"convolution": 1_813_561_344, "matmul": 512_000}, counts.counter
        assert counts.uncounted == {}
    assert exact.flops["normalisation"] == closed.flops["normalisation"] == 4_967_424


# As cerebellum_tiny, but for their sizes; and as resnet18 and granule_convnet, whose layers it has.
# Two steps of ncp are counted in tests/zoo/test_zoo_recurrent.py.
LARGE = {"cerebellum_small", "cerebellum_base", "resnet18_granule", "ncp"}
NARROW = {"alexnet": {"width": 64}, "vit": {"width": 12, "depth": 2}}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in LARGE else []) for n in list_models()]
)
def test_every_zoo_entry(name: str) -> None:
    channels = inspect.signature(get_builder(name)).parameters["image_shape"].default[0]
    model = create_model(name, image_shape=(channels, 12, 12), **NARROW.get(name, {}))
    x = torch.zeros(2, channels, 12, 12)
    closed, fvcore = count_closed_form(model, x), count_fvcore(model, x)
    assert count_exact(model, x, strict=True).macs == fvcore.macs == closed.counts.macs
    assert (closed.counts.uncounted, closed.hidden, fvcore.uncounted) == ({}, (), {})
    step = count_exact(model, x, backward=True, training=True, strict=True)
    assert step.backward.mac > step.mac // 2


def test_the_spectral_products_of_an_fft_convolution_to_the_last_digit() -> None:
    sheet, taps = torch.zeros(2, 3, 5, 8, 10), torch.zeros(3, 5, 4, 10)
    convolve = partial(dendritic_conv, mode="same", backend="fft")
    stated = fft_products(ConvProblem((5, 8, 10), (5, 4, 10), "same", 2, 3))
    for counts in measured(Call(convolve), (sheet, taps))[:2]:
        assert counts.flops == {"pointwise": stated}, counts.counter


# --- backward passes


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_convolution_backward_is_twice_the_forward(kind: type[nn.Conv2d], groups: int) -> None:
    model, x = kind(4, 6, 3, stride=2, groups=groups), torch.zeros(2, 4, 9, 9, requires_grad=True)
    counts = count_exact(model, x, backward=True)
    assert counts.backward.mac == 2 * counts.mac
    # The bias's gradient is a sum over the batch and the positions.
    assert counts.backward.flops == {"reduction": model(x).numel()}
    weight_only = count_exact(model, x.detach(), device="cpu", backward=True).backward
    assert weight_only.mac == counts.mac


# --- what has no formula


def test_shared_module_counts_each_call() -> None:
    layer = nn.Linear(6, 6)
    for counts in all_counts(nn.Sequential(layer, nn.ReLU(), layer), torch.zeros(2, 6)):
        assert counts.mac == 2 * 2 * 36


def test_a_recurrent_layer_keeps_its_flat_weights_and_a_cell_is_unstated() -> None:
    model, x = nn.LSTM(3, 4, batch_first=True), torch.zeros(2, 5, 3)
    weights = list(map(id, model._flat_weights))
    assert count_closed_form(model, x).counts.uncounted == {}
    assert list(map(id, model._flat_weights)) == weights
    cell = count_closed_form(nn.LSTMCell(3, 4), x[:, 0])
    assert cell.counts.uncounted == {"model (LSTMCell)": 1}


class Doubled(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + super().forward(input)


def test_a_module_without_a_formula_is_unstated() -> None:
    model = nn.Sequential(Doubled(4, 4, 3), Call(lambda x: torch.linalg.qr(x)[0]))
    closed, exact, _, fvcore = all_counts(model, x2)
    assert closed.uncounted == {"0 (Doubled)": 1, "1 (Call)": 1}
    assert closed.mac == 0
    assert exact.macs == fvcore.macs == {"convolution": 2 * 2 * 4 * 7 * 9 * 4 * 9}
    assert exact.uncounted == {"aten.linalg_qr.default": 1}
    assert fvcore.uncounted == {"aten::linalg_qr": 1}


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["conv2d_same_even", "conv3d_same_depthwise", "linear_2d"])
def test_cuda_counts_as_meta(name: str) -> None:
    model, x = LAYERS[name]
    expected = count_exact(model, x).macs
    assert count_exact(model, x, device="cuda").macs == expected
    assert count_fvcore(model, x, device="cuda").macs == expected
