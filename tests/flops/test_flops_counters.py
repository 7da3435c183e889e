"""Closed form, exact counter and fvcore are equal; what they do not cover they say."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroconv.flops import Counts, count_closed_form, count_exact, count_fvcore, profile
from neuroconv.kernels.conv import Job, dendritic_conv, fft_products
from neuroconv.neurons import Purkinje
from tests.flops.calling import Call

x1, x2, x3 = torch.zeros(2, 4, 12), torch.zeros(2, 4, 9, 11), torch.zeros(2, 4, 5, 6, 7)

LAYERS = {
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2), x1),
    "conv2d_dilated_grouped": (nn.Conv2d(4, 6, 3, dilation=2, groups=2, padding=1), x2),
    "conv2d_same_even": (nn.Conv2d(4, 6, (3, 3), padding="same", dilation=2), x2),
    "conv2d_valid": (nn.Conv2d(4, 6, 2, padding="valid"), x2),
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
    closed = count_closed_form(model, x).counts
    assert closed.mac > 0
    for counts in (
        count_exact(model, x),
        count_exact(model, x, device="cpu"),
        count_fvcore(model, x),
    ):
        assert counts.macs == closed.macs, counts.counter
        assert counts.uncounted == {}, counts.counter


OTHERS = {
    "batch_norm": (nn.BatchNorm2d(4), x2, {"normalisation": 2 * x2.numel()}),
    "batch_norm_own": (
        nn.BatchNorm1d(4, track_running_stats=False),
        x1,
        {"normalisation": 5 * x1.numel()},
    ),
    "layer_norm": (nn.LayerNorm(11), x2, {"normalisation": 5 * x2.numel()}),
    "layer_norm_plain": (
        nn.LayerNorm(11, elementwise_affine=False),
        x2,
        {"normalisation": 4 * x2.numel()},
    ),
    "group_norm": (nn.GroupNorm(2, 4), x2, {"normalisation": 5 * x2.numel()}),
    "softmax": (nn.Softmax(1), x2, {"normalisation": 5 * x2.numel()}),
    "max_pool": (nn.MaxPool2d(3, 2), x2, {"pooling": 2 * 4 * 4 * 5 * 9}),
    "avg_pool1d": (nn.AvgPool1d(2), x1, {"pooling": 2 * 4 * 6 * 2}),
    "max_pool3d": (nn.MaxPool3d((1, 2, 2)), x3, {"pooling": 2 * 4 * 5 * 3 * 3 * 4}),
    "adaptive": (nn.AdaptiveAvgPool2d((3, 2)), x2, {"pooling": x2.numel()}),
    "relu_in_place": (nn.ReLU(inplace=True), x2, {"pointwise": x2.numel()}),
    "prelu": (nn.PReLU(), x1, {"pointwise": x1.numel()}),
    "hardswish": (nn.Hardswish(), x1, {"pointwise": x1.numel()}),
    "gelu": (nn.GELU(), x1, {"pointwise": x1.numel()}),
    "nothing": (nn.Sequential(nn.Identity(), nn.Dropout(), nn.Flatten()), x2, {}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_families(name: str) -> None:
    model, x, expected = OTHERS[name]
    for counts in (
        count_closed_form(model, x).counts,
        count_exact(model, x),
        count_fvcore(model, x),
    ):
        assert counts.flops == expected, counts.counter
        assert counts.macs == {}
        assert counts.uncounted == {}


a, b = torch.zeros(2, 3, 4), torch.zeros(2, 4, 5)
PRODUCTS: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...], int]] = {
    "bmm": (torch.bmm, (a, b), 2 * 3 * 4 * 5),
    "baddbmm": (lambda p, q: torch.baddbmm(p.new_zeros(1), p, q), (a, b), 2 * 3 * 4 * 5),
    "broadcast": (torch.matmul, (a[:, None], torch.zeros(7, 4, 5)), 2 * 7 * 3 * 4 * 5),
    "matrix_vector": (torch.matmul, (a, torch.zeros(4)), 2 * 3 * 4),
    "vector_matrix": (torch.matmul, (torch.zeros(4), b), 2 * 4 * 5),
    "mv": (torch.mv, (a[0], torch.zeros(4)), 3 * 4),
    "dot": (torch.dot, (torch.zeros(9), torch.zeros(9)), 9),
    "tensordot": (lambda p, q: torch.tensordot(p, q, dims=([2], [1])), (a, b), 6 * 4 * 10),
    "einsum": (lambda p, q: torch.einsum("bij,bjk->bik", p, q), (a, b), 2 * 3 * 4 * 5),
    # stock fvcore rounds this one, which has five digits, to four
    "einsum_exact": (
        lambda p, q: torch.einsum("bij,cjk->bcik", p, q),
        (torch.zeros(7, 11, 13), torch.zeros(5, 13, 17)),
        7 * 5 * 11 * 13 * 17,
    ),
    "einsum_presummed": (lambda p, q: torch.einsum("bij,bjk->bk", p, q), (a, b), 2 * 4 * 5),
    "einsum_no_sum": (lambda p, q: torch.einsum("bij,bij->bij", p, q), (a, a), 0),
    "einsum_dots": (lambda p, q: torch.einsum("bij,bij->b", p, q), (a, a), 2 * 12),
    "attention": (
        F.scaled_dot_product_attention,
        (torch.zeros(2, 3, 5, 4), torch.zeros(2, 3, 7, 4), torch.zeros(2, 3, 7, 4)),
        2 * 3 * 5 * 7 * 8,
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_matrix_products(name: str) -> None:
    function, inputs, expected = PRODUCTS[name]
    for counts in _measured(Call(function), inputs):
        assert counts.macs == ({"matmul": expected} if expected else {}), counts.counter


def _measured(model: nn.Module, inputs: Tensor | tuple[Tensor, ...]) -> list[Counts]:
    return [
        count_exact(model, inputs),
        count_exact(model, inputs, device="cpu"),
        count_fvcore(model, inputs),
    ]


def test_einsum_of_three_follows_one_path() -> None:
    p, q, r = torch.zeros(3, 4), torch.zeros(4, 5), torch.zeros(5, 6)
    model = Call(lambda *xs: torch.einsum("ij,jk,kl->il", *xs))
    exact, _, fvcore = _measured(model, (p, q, r))
    assert exact.macs == fvcore.macs == {"matmul": 3 * 4 * 5 + 3 * 5 * 6}


fft, real = torch.fft, torch.zeros(3, 8, 12)
TRANSFORMS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    # 1.25 n log2 n, rounded: 8 -> 30, 16 -> 80, 12 -> 54, 96 -> 790, 288 -> 2941;
    # complex 12 -> 108, 96 -> 1580
    "rfft": (lambda x: fft.rfft(x, dim=1), 36 * 30),
    "rfft_padded": (lambda x: fft.rfft(x, n=16, dim=1), 36 * 80),
    "rfft_sizes": (lambda x: fft.rfft(x, n=2 * x.shape[1], dim=1), 36 * 80),
    "irfft": (lambda x: fft.irfft(x + 0j, n=12), 24 * 54),
    "rfft2": (fft.rfft2, 3 * 790),
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
    for counts in _measured(Call(function), real):
        assert counts.macs == ({"fft": expected} if expected else {}), counts.counter


def test_complex_arithmetic() -> None:
    z, r = torch.zeros(5, dtype=torch.complex64), torch.zeros(5)
    for function, inputs, expected in (
        (torch.add, (z, z), 2 * 5),
        (torch.mul, (z, z), 6 * 5),
        (torch.mul, (z, r), 2 * 5),
        (torch.abs, (z,), 5),
        (torch.mul, (r, r), 5),
    ):
        for counts in _measured(Call(function), inputs):
            assert counts.flops == {"pointwise": expected}, (counts.counter, function)


def test_integers_and_moves_are_free() -> None:
    def function(x: Tensor) -> Tensor:
        order = torch.arange(x.shape[1]) * 2 // 2
        moved = F.pad(x[:, order].transpose(1, 2).contiguous(), (1, 1))
        return torch.cat([moved, moved.flip(1)], 1).double().reshape(-1)

    for counts in (
        count_exact(Call(function), x1, device="cpu"),
        count_fvcore(Call(function), x1),
    ):
        assert (counts.macs, counts.flops, counts.uncounted) == ({}, {}, {}), counts.counter


def test_shared_module_counts_each_call() -> None:
    layer = nn.Linear(6, 6)
    model, x = nn.Sequential(layer, nn.ReLU(), layer), torch.zeros(2, 6)
    assert count_closed_form(model, x).counts.mac == 2 * 2 * 36
    for counts in _measured(model, x):
        assert counts.mac == 2 * 2 * 36


def test_recurrent_layer_runs_on_meta_and_is_unstated() -> None:
    model, x = nn.LSTM(3, 4, batch_first=True), torch.zeros(2, 5, 3)
    weights = [id(weight) for weight in model._flat_weights]
    assert count_exact(model, x).mac == 2 * 5 * 16 * (3 + 4)
    assert count_closed_form(model, x).counts.uncounted == {"model (LSTM)": 1}
    assert [id(weight) for weight in model._flat_weights] == weights


class Doubled(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + super().forward(input)


def test_a_module_without_a_formula_is_unstated() -> None:
    model = nn.Sequential(Doubled(4, 4, 3), Call(lambda x: torch.linalg.qr(x)[0]))
    closed = count_closed_form(model, x2).counts
    assert closed.uncounted == {"0 (Doubled)": 1, "1 (Call)": 1}
    exact, _, fvcore = _measured(model, x2)
    assert closed.mac == 0
    assert exact.macs == fvcore.macs == {"convolution": 2 * 2 * 4 * 7 * 9 * 4 * 9}
    assert exact.uncounted == {"aten.linalg_qr.default": 1}
    assert fvcore.uncounted == {"aten::linalg_qr": 1}


class Hidden(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x @ x.T


def test_fvcore_refuses_what_it_cannot_see() -> None:
    with pytest.raises(ValueError, match=r"cannot see inside prim::PythonOp\.Hidden"):
        count_fvcore(Call(Hidden.apply), torch.zeros(3, 4))
    with torch.device("meta"):
        model = nn.Linear(3, 4)
    with pytest.raises(ValueError, match="not meta or fake"):
        count_fvcore(model, torch.zeros(1, 3))
    with pytest.raises(ValueError, match="device='cpu' or 'cuda'"):
        count_fvcore(nn.Linear(3, 4), torch.zeros(1, 3), device="meta")


def test_a_model_that_reads_values_names_the_way_out() -> None:
    model = Call(lambda x: x * x.sum().item())
    with pytest.raises(ValueError, match="device='cpu'"):
        count_exact(model, x1)
    assert count_exact(model, x1, device="cpu").flops == {
        "pointwise": x1.numel(),
        "reduction": x1.numel(),
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["conv2d_same_even", "conv3d_same_depthwise", "linear_2d"])
def test_cuda_counts_as_meta(name: str) -> None:
    model, x = LAYERS[name]
    state = torch.cuda.get_rng_state()
    expected = count_exact(model, x).macs
    assert count_exact(model, x, device="cuda").macs == expected
    assert count_fvcore(model, x, device="cuda").macs == expected
    assert next(model.parameters()).device.type == "cpu"
    assert torch.equal(torch.cuda.get_rng_state(), state)


def test_the_spectral_products_of_an_fft_convolution_are_all_counted() -> None:
    # 15 pairs of a step and a lag: 5 complex products, one for each step, and 10 multiply-adds.
    cell = Purkinje(30, 1, mean_wait=0.0)
    counted = profile(cell, torch.zeros(1, 30, 5))
    stated = counted.stages[1].cost.pointwise
    assert stated == (5 * 6 + 10 * 8) * 105 * 751
    for counter in ("exact", "fvcore"):
        pointwise = counted.counts[counter].flops["pointwise"]
        others = 4 * 500_000  # bias, rectifier, synaptic weights and the like on the sheet
        assert stated <= pointwise <= stated + others


def test_the_spectral_products_to_the_last_digit() -> None:
    sheet, taps = torch.zeros(2, 3, 5, 8, 10), torch.zeros(3, 5, 4, 10)

    def convolve(x: Tensor, w: Tensor) -> Tensor:
        return dendritic_conv(x, w, mode="same", backend="fft")

    stated = fft_products(Job((5, 8, 10), (5, 4, 10), "same", 2, 3))
    for counts in _measured(Call(convolve), (sheet, taps)):
        assert counts.flops == {"pointwise": stated}, counts.counter
