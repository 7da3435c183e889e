"""The dendritic convolution: three backends against a scalar float64 loop, and what they cost.

The loop is written from the definition: every mode is a cross-correlation, causal in time, whose
last time tap meets the present.
"""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from neuroconv.core.cost import fft_macs
from neuroconv.flops import count_exact
from neuroconv.kernels.conv import (
    Backend,
    ConvProblem,
    Mode,
    choose_backend,
    conv_macs,
    fft_products,
    fourier,
    fuses_tree,
    output_size,
)
from neuroconv.kernels.conv.choice import problem_backend, runs_native
from neuroconv.kernels.conv.spectra import device_waves, site_waves
from neuroconv.kernels.native import native_kernels, state
from neuroconv.layers import DendriticConv, Taps, TreeShape, dendritic_conv

Triple = tuple[int, int, int]
BACKENDS: tuple[Backend, ...] = ("direct", "fft", "matmul")
MODES: tuple[Mode, ...] = ("same", "valid", "per_dendrite")

# (time steps, sites, dendrites), (time taps, branches, dendrites) and what the case is about.
CASES: dict[str, tuple[Triple, Triple]] = {
    "odd": ((4, 5, 4), (3, 3, 3)),
    "even": ((4, 5, 4), (2, 2, 4)),
    "mixed": ((3, 6, 5), (3, 4, 1)),
    "filter_is_sheet": ((3, 4, 3), (3, 4, 3)),
    "short_window": ((2, 4, 3), (5, 2, 3)),
    "long_window": ((6, 3, 3), (2, 2, 3)),
    "one_tap": ((2, 3, 2), (1, 1, 1)),
    "one_step": ((1, 4, 4), (3, 3, 4)),
}
# Only "same" takes a filter that is larger than its sheet.
LARGER: dict[str, tuple[Triple, Triple]] = {
    "more_branches": ((3, 3, 4), (2, 8, 3)),
    "larger_both_ways": ((2, 3, 2), (3, 9, 7)),
}
PROBLEMS = [
    pytest.param(
        mode,
        window,
        (*taps[:2], window[2]) if mode == "per_dendrite" else taps,
        id=f"{mode}-{name}",
    )
    for mode in MODES
    for name, (window, taps) in (CASES | (LARGER if mode == "same" else {})).items()
]


def scalar_conv(
    sheet: NDArray[np.float64], filters: NDArray[np.float64], mode: str, grad: Any = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Potential, and the gradients of (potential * grad).sum(), one product at a time."""
    batch, neurons, steps, sites, dendrites = sheet.shape
    _, k_time, branches, across = filters.shape
    before = ((branches - 1) // 2, (across - 1) // 2) if mode == "same" else (0, 0)
    rows = sites if mode == "same" else sites - branches + 1
    cols = dendrites - across + 1 if mode == "valid" else dendrites
    out = np.zeros((batch, neurons, steps, rows, cols))
    d_sheet, d_filters = np.zeros_like(sheet), np.zeros_like(filters)
    grad = out + 1 if grad is None else grad
    for b, n, t, p, d in np.ndindex(*out.shape):
        for kt, kp, kd in np.ndindex(k_time, branches, across):
            if mode == "per_dendrite" and kd != d:
                continue  # a dendrite meets its own taps alone
            then, site = t - (k_time - 1) + kt, p + kp - before[0]
            dendrite = d if mode == "per_dendrite" else d + kd - before[1]
            if then < 0 or not (0 <= site < sites and 0 <= dendrite < dendrites):
                continue
            out[b, n, t, p, d] += sheet[b, n, then, site, dendrite] * filters[n, kt, kp, kd]
            g = grad[b, n, t, p, d]
            d_sheet[b, n, then, site, dendrite] += g * filters[n, kt, kp, kd]
            d_filters[n, kt, kp, kd] += g * sheet[b, n, then, site, dendrite]
    return out, d_sheet, d_filters


def error(result: Tensor, reference: Any) -> float:
    """Largest error over largest reference."""
    assert result.shape == reference.shape
    reference = torch.as_tensor(reference)
    return ((result.detach().double() - reference).abs().max() / reference.abs().max()).item()


def drawn(window: Triple, taps: Triple, batch: int = 2, neurons: int = 2) -> tuple[Tensor, Tensor]:
    sheet = torch.randn(batch, neurons, *window, dtype=torch.float64)
    return sheet, torch.randn(neurons, *taps, dtype=torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("mode", "window", "taps"), PROBLEMS)
def test_backends_equal_the_scalar_loop(
    mode: Mode, window: Triple, taps: Triple, backend: Backend
) -> None:
    sheet, filters = drawn(window, taps)
    rows, cols = output_size(window[1:], taps[1:], mode)
    grad = torch.randn(2, 2, window[0], rows, cols, dtype=torch.float64)
    reference = scalar_conv(sheet.numpy(), filters.numpy(), mode, grad.numpy())
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        x = sheet.to(dtype, copy=True).requires_grad_()
        w = filters.to(dtype, copy=True).requires_grad_()
        y = dendritic_conv(x, w, mode, backend)
        assert y.dtype == dtype
        for result, wanted in zip(
            (y, *torch.autograd.grad(y, (x, w), grad.to(dtype))), reference, strict=True
        ):
            assert result.dtype == dtype
            assert error(result, wanted) < tolerance
        with torch.no_grad():
            assert error(dendritic_conv(x, w, mode, backend), reference[0]) < tolerance


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(backend: Backend, mode: Mode) -> None:
    taps = (2, 2, 3) if mode == "per_dendrite" else (2, 2, 2)
    sheet, filters = drawn((3, 3, 3), taps)
    assert torch.autograd.gradcheck(
        lambda x, w: dendritic_conv(x, w, mode, backend),
        (sheet.requires_grad_(), filters.requires_grad_()),
        fast_mode=True,
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("mode", "window", "taps"), PROBLEMS)
def test_a_bias_is_added_to_each_dendrite(
    mode: Mode, window: Triple, taps: Triple, backend: Backend
) -> None:
    sheet, filters = drawn(window, taps)
    columns = output_size(window[1:], taps[1:], mode)[1]
    bias = torch.randn(2, columns, dtype=torch.float64, requires_grad=True)
    plain = dendritic_conv(sheet, filters, mode, backend)
    result = dendritic_conv(sheet, filters, mode, backend, bias)
    assert result.shape == plain.shape
    for n, d in np.ndindex(2, columns):
        wanted = plain[:, n, :, :, d] + bias[n, d]
        torch.testing.assert_close(result[:, n, :, :, d], wanted, rtol=0, atol=1e-12)
    grad = torch.randn_like(result)
    (to_bias,) = torch.autograd.grad(result, bias, grad)
    torch.testing.assert_close(to_bias, grad.sum((0, 2, 3)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_to_one_input_alone(backend: Backend) -> None:
    sheet, filters = drawn((3, 4, 4), (2, 3, 2))
    _, d_sheet, d_filters = scalar_conv(sheet.numpy(), filters.numpy(), "same")
    x = sheet.clone().requires_grad_()
    dendritic_conv(x, filters, "same", backend).sum().backward()
    assert x.grad is not None
    assert error(x.grad, d_sheet) < 1e-10
    w = filters.clone().requires_grad_()
    dendritic_conv(sheet, w, "same", backend).sum().backward()
    assert w.grad is not None
    assert error(w.grad, d_filters) < 1e-10


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_bfloat16_is_near_float32(backend: Backend, mode: Mode) -> None:
    """Inputs are exact in bfloat16; 8 bits of mantissa leave 2**-8 for each rounded result."""
    sheet, filters = (x.bfloat16() for x in drawn((5, 6, 7), (5, 3, 7)))
    exact = dendritic_conv(sheet.double(), filters.double(), mode, "direct")
    x, w = sheet.clone().requires_grad_(), filters.clone().requires_grad_()
    y = dendritic_conv(x, w, mode, backend)
    assert y.dtype == torch.bfloat16
    assert error(y, exact) < 2e-2
    wide = [sheet.double().requires_grad_(), filters.double().requires_grad_()]
    reference = torch.autograd.grad(dendritic_conv(*wide, mode, "direct").sum(), wide)
    for grad, wanted in zip(torch.autograd.grad(y.sum(), (x, w)), reference, strict=True):
        assert grad.dtype == torch.bfloat16
        assert error(grad, wanted) < 2e-2


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_need_not_be_contiguous_and_are_left_alone(backend: Backend) -> None:
    sheet, filters = drawn((3, 4, 5), (2, 3, 2))
    strided = sheet.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0)
    expanded = sheet[:1].expand(2, -1, -1, -1, -1)
    before = strided.clone()
    result = dendritic_conv(strided, filters, "same", backend)
    assert error(result, dendritic_conv(sheet, filters)) < 1e-10
    assert torch.equal(strided, before)
    twice = dendritic_conv(expanded, filters, "same", backend)
    assert torch.equal(twice[0], twice[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_meta_run_leaves_nothing_behind(backend: Backend) -> None:
    with torch.device("meta"):
        meta = dendritic_conv(torch.empty(2, 1, 5, 2, 7), torch.empty(1, 2, 2, 3), "same", backend)
    assert meta.shape == (2, 1, 5, 2, 7)
    sheet, filters = drawn((5, 2, 7), (2, 2, 3), neurons=1)
    reference = scalar_conv(sheet.numpy(), filters.numpy(), "same")[0]
    assert error(dendritic_conv(sheet, filters, "same", backend), reference) < 1e-10


@pytest.mark.parametrize(("batch", "chunk"), [(5, 2), (4, 4), (3, 1), (2, 7)])
def test_fft_goes_through_the_batch_in_chunks(
    batch: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = 4 * 7 * (6 // 2 + 1)  # of one neuron's sheet: 4 steps of 7 x 6
    monkeypatch.setitem(fourier._CHUNK_POINTS, "cpu", chunk * points)
    sheet, filters = drawn((4, 5, 4), (3, 3, 2), batch=batch)
    grad = torch.randn_like(sheet)
    x, w = sheet.requires_grad_(), filters.requires_grad_()
    results = []
    for backend in ("direct", "fft"):
        y = dendritic_conv(x, w, "same", backend)
        results.append((y, *torch.autograd.grad(y, (x, w), grad)))
    for direct, fft in zip(*results, strict=True):
        assert error(fft, direct.detach()) < 1e-10
    with torch.no_grad():
        assert error(dendritic_conv(x, w, "same", "fft"), results[0][0].detach()) < 1e-10


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_empty_batch(backend: Backend) -> None:
    sheet, filters = drawn((4, 5, 4), (3, 3, 2), batch=0)
    x, w = sheet.requires_grad_(), filters.requires_grad_()
    y = dendritic_conv(x, w, "valid", backend)
    assert y.shape == (0, 2, 4, 3, 3)
    y.sum().backward()
    assert w.grad is not None
    assert not w.grad.any()


# --- one full Purkinje cell

PURKINJE: tuple[Triple, Triple] = ((5, 100, 1000), (5, 10, 1000))


def full_neuron() -> tuple[Tensor, Tensor, Tensor]:
    sheet = torch.randn(1, 1, *PURKINJE[0], requires_grad=True)
    filters = torch.randn(1, *PURKINJE[1], requires_grad=True)
    return sheet, filters, torch.randn(1, 1, *PURKINJE[0])


@pytest.mark.slow
def test_full_purkinje_neuron_equals_conv3d() -> None:
    """Every number of the full map and of both gradients; about a minute on two cores."""
    sheet, filters, grad = full_neuron()
    results = []
    for backend in ("direct", "fft"):
        potential = dendritic_conv(sheet, filters, "same", backend)
        results.append((potential, *torch.autograd.grad(potential, (sheet, filters), grad)))
    for direct, fft in zip(*results, strict=True):
        assert error(fft, direct.detach().double()) < 1e-5


# --- the cost


def counted_macs(window: Triple, taps: Triple, mode: str, backend: str) -> int:
    """Multiply-adds of one neuron's convolution, counted one by one with the padding's zeros."""
    rows, cols = output_size(window[1:], taps[1:], mode)  # type: ignore[arg-type]
    outputs = list(np.ndindex(window[0], rows, cols))
    if backend == "direct":
        return sum(
            1
            for _, _, d in outputs
            for _, _, kd in np.ndindex(*taps)
            if mode != "per_dendrite" or kd == d
        )
    # The unrolled filter joins every point of the steps that a step reads to every output, zeros
    # or not; a dendrite on its own is a sheet of one column.
    unrolled = sum(
        1
        for now, _, d in outputs
        for then, _, dendrite in np.ndindex(*window)
        if 0 <= now - then < taps[0] and (mode != "per_dendrite" or dendrite == d)
    )
    if mode != "valid" or taps[2] < window[2] or window[2] == 1:
        return unrolled
    # A filter over all dendrites: or each tap of time and branch once with each step and site.
    across = sum(1 for _ in np.ndindex(*window) for _ in np.ndindex(*taps[:2]))
    return min(unrolled, across)


@pytest.mark.parametrize("backend", ["direct", "matmul"])
@pytest.mark.parametrize(("mode", "window", "taps"), PROBLEMS)
def test_macs_equal_a_counting_loop(
    mode: Mode, window: Triple, taps: Triple, backend: Backend
) -> None:
    family = {"direct": "convolution", "matmul": "matmul"}[backend]
    wanted = counted_macs(window, taps, mode, backend)
    assert conv_macs(1, 1, window, taps, mode, backend) == {family: wanted}
    assert conv_macs(3, 7, window, taps, mode, backend) == {family: 21 * wanted}


# More branches than are transformed by a product.
TALL: tuple[Mode, Triple, Triple] = ("same", (2, 40, 6), (2, 36, 3))


@pytest.mark.parametrize(("mode", "window", "taps"), [*PROBLEMS, TALL])
def test_fft_macs_equal_the_transforms_that_run(mode: Mode, window: Triple, taps: Triple) -> None:
    class Convolution(torch.nn.Module):
        def forward(self, sheet: Tensor, filters: Tensor) -> Tensor:
            return dendritic_conv(sheet, filters, mode, "fft")

    counted = count_exact(Convolution(), drawn(window, taps, batch=3, neurons=2))
    assert conv_macs(3, 2, window, taps, mode, "fft") == counted.macs


@pytest.mark.parametrize(("branches", "sites", "before"), [(10, 105, 4), (1, 1, 0), (3, 4, 1)])
def test_waves_along_the_sites_are_transforms_of_impulses(
    branches: int, sites: int, before: int
) -> None:
    impulses = torch.eye(sites, dtype=torch.float64)[:, :branches]
    wanted = torch.fft.fft(torch.roll(impulses, -before, dims=0), dim=0)
    made = site_waves(branches, sites, before, torch.empty(0, dtype=torch.complex128))
    there = device_waves(branches, sites, before, torch.device("cpu"))
    for waves in (made, there):
        torch.testing.assert_close(waves, wanted, rtol=0, atol=1e-12)
    way_back = site_waves(branches, sites, before, made, back=True)
    there_back = device_waves(branches, sites, before, torch.device("cpu"), back=True)
    for waves in (way_back, there_back):
        torch.testing.assert_close(waves @ made, torch.eye(branches).to(made), rtol=0, atol=1e-12)


def test_fft_of_many_branches_equals_direct() -> None:
    mode, window, taps = TALL
    sheet, filters = (each.requires_grad_() for each in drawn(window, taps, batch=2, neurons=2))
    push = torch.randn_like(sheet)
    results = []
    for backend in ("direct", "fft"):
        potential = dendritic_conv(sheet, filters, mode, backend)
        results.append((potential, *torch.autograd.grad(potential, (sheet, filters), push)))
    for direct, fft in zip(*results, strict=True):
        assert error(fft.detach(), direct.detach()) < 1e-10


def test_spectral_products_equal_a_counting_loop() -> None:
    for time_steps, k_time in itertools.product((1, 3, 6), (1, 4)):
        window, taps = (time_steps, 8, 10), (k_time, 1, 1)  # 8 x 10: no zeros are added
        flops = 0
        for now in range(time_steps):
            for _ in range(8 * (10 // 2 + 1)):
                met = [tap for tap in range(k_time) if now - (k_time - 1 - tap) >= 0]
                # A complex product is four real products and two sums; adding it is two more.
                flops += sum(6 + 2 * (place > 0) for place, _ in enumerate(met))
        assert fft_products(ConvProblem(window, taps, "same", 2, 3)) == 2 * 3 * flops


def test_fft_cost_of_a_real_and_a_complex_transform() -> None:
    assert fft_macs(1) == 0
    assert fft_macs(1024) == 12_800
    assert fft_macs(1024, real=False) == 25_600
    assert fft_macs(1000) == round(1.25 * 1000 * np.log2(1000))


GRANULE: tuple[Triple, Triple] = ((5, 4, 4), (5, 3, 4))


def test_the_essays_numbers() -> None:
    """A granule cell of 15 synapses and a Purkinje cell of 100,000, five time steps."""
    assert conv_macs(1, 1, *GRANULE, "same", "direct") == {"convolution": 4_800}
    assert conv_macs(1, 1, *PURKINJE, "same", "direct") == {"convolution": 25_000_000_000}
    assert conv_macs(1, 1, *PURKINJE, "valid", "direct") == {"convolution": 5 * 4_550_000}
    (granule,) = DendriticConv(1, TreeShape((4, 4), (3, 4, 5))).closed_form(
        torch.Size((1, 1, 5, 4, 4)), 15
    )
    assert (granule.essay, granule.direct) == (4_500, 4_800)
    with torch.device("meta"):
        layer = DendriticConv(1, TreeShape((100, 1000), (10, 1000, 5)))
    (purkinje,) = layer.closed_form(torch.Size((1, 1, 5, 100, 1000)))
    assert (purkinje.essay, purkinje.direct) == (25_000_000_000, 25_000_000_000)
    # 105 x 1,500 points hold the sheet and the longer half of the filter, and factor well.
    sheets = (5 + 5) * round(1.25 * 157_500 * np.log2(157_500))
    # Of a tap's 105 rows ten are not zero; a product takes them to all 105 frequencies.
    rows, product = 5 * 10 * round(1.25 * 1_500 * np.log2(1_500)), 5 * 4 * 105 * 10 * 751
    assert purkinje.macs == {"fft": sheets + rows, "matmul": product}
    assert purkinje.pointwise == (6 * 5 + 8 * (1 + 2 + 3 + 4)) * 105 * 751


def test_closed_form_scales_with_batch_neurons_and_steps() -> None:
    layer = DendriticConv(3, TreeShape((4, 4), (3, 4, 5)), Taps(backend="direct"))
    (cost,) = layer.closed_form(torch.Size((2, 3, 7, 4, 4)), 15)
    assert cost.neurons == 3
    assert cost.essay == 2 * 3 * 15 * 7 * 60
    assert cost.direct == 2 * 3 * 16 * 7 * 60
    assert cost.macs == {"convolution": cost.direct}


@pytest.mark.parametrize(
    ("window", "taps", "mode", "batch", "wanted", "to_learn"),
    [
        (*GRANULE, "same", 1, "direct", "fft"),
        (*GRANULE, "same", 32, "matmul", "matmul"),
        (*PURKINJE, "same", 1, "fft", "fft"),
        (*PURKINJE, "same", 32, "fft", "fft"),
        (*PURKINJE, "valid", 1, "matmul", "matmul"),  # one product over the dendrites
        ((5, 10, 100), (5, 10, 100), "per_dendrite", 32, "matmul", "matmul"),
        ((1, 1, 257), (1, 1, 3), "same", 32, "direct", "fft"),
    ],
)
@native_kernels(False)
def test_choice_of_backend(
    window: Triple, taps: Triple, mode: Mode, batch: int, wanted: str, to_learn: str
) -> None:
    assert choose_backend(window, taps, mode, batch=batch) == wanted
    assert choose_backend(window, taps, mode, batch=batch, gradients=True) == to_learn
    for backend in BACKENDS:
        assert choose_backend(window, taps, mode, backend) == backend


@pytest.mark.parametrize(
    ("window", "taps", "mode", "batch", "axons", "here", "to_learn"),
    [
        (*GRANULE, "same", 8, 4, True, True),  # stage by stage the direct convolution is faster
        (*GRANULE, "same", 32, 4, True, True),
        (*GRANULE, "same", 32, 16, True, True),
        ((5, 64, 4), (5, 3, 4), "same", 32, 4, True, True),
        (*PURKINJE, "same", 32, 100_000, False, False),
        (*PURKINJE, "valid", 32, 100_000, False, False),  # a product over the dendrites
    ],
)
def test_a_tree_is_one_stage_where_the_rest_of_its_product_is_fastest(
    window: Triple, taps: Triple, mode: Mode, batch: int, axons: int, here: bool, to_learn: bool
) -> None:
    job = ConvProblem(window, taps, mode, batch)
    assert fuses_tree(job, axons) is here
    assert fuses_tree(job, axons, gradients=True) is to_learn
    for neurons in (1, 10_000):  # of any population as of a large one
        assert fuses_tree(job._replace(neurons=neurons), axons) is here
    assert fuses_tree(job, axons, "matmul") is (mode == "same")
    assert not fuses_tree(job, axons, "direct")
    assert not fuses_tree(job, axons, "fft")
    if choose_backend(window, taps, mode, batch=batch) == "matmul" and mode == "same":
        assert here  # the rule is looser than the choice


KERNELS = pytest.mark.skipif(state() != "on", reason=f"kernels are {state()}")


@pytest.mark.parametrize("kernels", [False, pytest.param(True, marks=KERNELS)])
def test_the_count_of_a_single_sample_does_not_tell_of_kernels(kernels: bool) -> None:
    granule, no_claw = (
        ConvProblem(*GRANULE, "same", 1),
        ConvProblem((5, 64, 4), (5, 3, 4), "same", 1),
    )
    with native_kernels(kernels):
        assert not fuses_tree(granule, 4)
        assert fuses_tree(granule, 4, gradients=True)
        assert not fuses_tree(no_claw, 256)
        assert fuses_tree(no_claw, 256, gradients=True) is kernels


def test_auto_runs_what_it_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    for name, function in (("conv3d", F.conv3d), ("bmm", torch.bmm), ("rfft2", torch.fft.rfft2)):
        owner = {"conv3d": F, "bmm": torch, "rfft2": torch.fft}[name]

        def spy(*args: Any, name: str = name, function: Any = function, **keywords: Any) -> Tensor:
            called.append(name)
            return function(*args, **keywords)

        monkeypatch.setattr(owner, name, spy)
    jobs = ((GRANULE, 64, 64), (((1, 1, 300), (1, 1, 3)), 2, 2), (((2, 40, 60), (2, 20, 60)), 2, 2))
    with native_kernels(False):
        for (window, taps), batch, neurons in jobs:
            dendritic_conv(*drawn(window, taps, batch, neurons))
    assert [name for name, _ in itertools.groupby(called)] == ["bmm", "conv3d", "rfft2"]


@KERNELS
def test_small_products_run_by_the_kernels_where_there_are_samples() -> None:
    job = ConvProblem((1, 1, 257), (1, 1, 3), "same", 32, 1024)  # no product with a matrix of zeros
    assert problem_backend(job) == "matmul"
    with native_kernels(False):
        assert problem_backend(job) == "direct"
    assert runs_native(job, "cpu")
    assert runs_native(job, "meta")
    assert not runs_native(job, "cuda")
    one = job._replace(batch=1)
    assert runs_native(one, "cpu")
    assert not runs_native(one, "cpu", gradients=False)
    assert not runs_native(job._replace(batch=0), "cpu")


# --- errors


FILTER_ERRORS: list[tuple[tuple[int, ...], tuple[int, ...], Any, str]] = [
    ((2, 3, 4, 4), (3, 2, 2, 2), (), r"\(2, 3, 4, 4\); expected five axes \(batch, neurons"),
    ((2, 3, 5, 4, 4), (3, 2, 2), (), r"\(3, 2, 2\); expected four axes"),
    ((2, 3, 5, 4, 4), (4, 2, 2, 2), (), "holds 3 neurons and there are 4 filters"),
    ((1, 1, 5, 4, 4), (1, 2, 5, 2), ("valid",), "5 branches x 2 dendrites does not fit .*'same'"),
    ((1, 1, 5, 4, 4), (1, 2, 2, 5), ("valid",), "does not fit .* make the filter smaller"),
    ((1, 1, 5, 4, 4), (1, 2, 2, 3), ("per_dendrite",), r"spans 3 .* filter=\(2, 4, time_"),
    ((1, 1, 5, 4, 4), (1, 2, 5, 4), ("per_dendrite",), "5 branches .* does not fit"),
    ((1, 1, 5, 4, 4), (1, 2, 2, 2), ("full",), "'full'.*expected one of same, valid, per_dend"),
    ((1, 1, 5, 4, 4), (1, 2, 2, 2), ("same", "cudnn"), "'cudnn'.*expected one of auto, direct"),
]


@pytest.mark.parametrize(("sheet", "filters", "arguments", "message"), FILTER_ERRORS)
def test_errors(
    sheet: tuple[int, ...], filters: tuple[int, ...], arguments: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dendritic_conv(torch.zeros(sheet), torch.zeros(filters), *arguments)


# --- CUDA


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_cuda_equals_cpu(backend: Backend, mode: Mode) -> None:
    sheet, filters = drawn((5, 10, 12), (5, 4, 12))
    grad_on_cpu, results = None, []
    for device, dtype in (("cpu", torch.float64), ("cuda", torch.float64)):
        x = sheet.to(device, dtype, copy=True).requires_grad_()
        w = filters.to(device, dtype, copy=True).requires_grad_()
        y = dendritic_conv(x, w, mode, backend)
        grad_on_cpu = torch.randn_like(y) if grad_on_cpu is None else grad_on_cpu
        grads = torch.autograd.grad(y, (x, w), grad_on_cpu.to(device))
        results.append([t.detach().cpu() for t in (y, *grads)])
    for cpu, cuda in zip(*results, strict=True):
        assert error(cuda, cpu) < 1e-10


@pytest.mark.gpu
@pytest.mark.parametrize("backend", BACKENDS)
def test_bfloat16_on_cuda_is_near_float64(backend: Backend) -> None:
    """conv3d in bfloat16 has been silently wrong on some CUDA versions."""
    sheet, filters = (x.bfloat16() for x in drawn((5, 10, 12), (5, 4, 12)))
    exact = dendritic_conv(sheet.double(), filters.double())
    w = filters.cuda().requires_grad_()
    y = dendritic_conv(sheet.cuda(), w, "same", backend)
    assert error(y.cpu(), exact) < 2e-2
    y.sum().backward()
    reference = filters.double().requires_grad_()
    dendritic_conv(sheet.double(), reference).sum().backward()
    assert w.grad is not None
    assert reference.grad is not None
    assert error(w.grad.cpu(), reference.grad) < 2e-2


@pytest.mark.parametrize("backend", ["direct", "fft", "matmul"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_last_steps_alone_are_those_of_the_whole_window(
    backend: Any, mode: Any, steps: int
) -> None:
    sheet = torch.randn(2, 3, 7, 6, 5, dtype=torch.float64, requires_grad=True)
    filters = torch.randn(3, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, output_size((6, 5), (3, 5), mode)[1], dtype=torch.float64)
    whole = dendritic_conv(sheet, filters, mode, backend, bias)[:, :, -steps:]
    some = dendritic_conv(sheet, filters, mode, backend, bias, steps)
    torch.testing.assert_close(some, whole, rtol=1e-10, atol=1e-10)
    push = torch.randn_like(whole)
    wanted = torch.autograd.grad(whole, (sheet, filters), push)
    got = torch.autograd.grad(some, (sheet, filters), push)
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


class Last(torch.nn.Module):
    """A layer of which the last steps alone are asked."""

    def __init__(self, layer: DendriticConv, steps: int) -> None:
        super().__init__()
        self.layer, self.steps = layer, steps

    def forward(self, sheet: Tensor) -> Tensor:
        potential: Tensor = self.layer(sheet, self.steps)
        return potential


@pytest.mark.parametrize("backend", ["direct", "fft", "matmul"])
@pytest.mark.parametrize("mode", MODES)
def test_the_last_steps_alone_pass_gradcheck_and_cost_what_is_stated(
    backend: Any, mode: Any
) -> None:
    layer = DendriticConv(
        2, TreeShape((4, 3), (2, 3, 3), mode=mode), Taps(backend=backend)
    ).double()
    sheet = torch.randn(1, 2, 5, 4, 3, dtype=torch.float64, requires_grad=True)

    def last_two(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return dendritic_conv(x, w, mode, backend, steps=2)

    assert torch.autograd.gradcheck(
        last_two, (sheet, layer.weight.detach().requires_grad_()), fast_mode=True
    )
    for steps in (1, 2, 5):
        (stated,) = layer.closed_form(sheet.shape, steps=steps)

        counted = count_exact(Last(layer, steps), sheet.detach())
        assert stated.macs == counted.macs
        assert stated.direct == steps * sum(
            conv_macs(1, 2, (3, 4, 3), (3, 2, 3), mode, "direct", 1).values()
        )


@pytest.mark.parametrize("steps", [0, 6, -1])
def test_no_more_steps_come_out_than_are_there(steps: int) -> None:
    with pytest.raises(ValueError, match=rf"steps={steps}; expected 1 to 5"):
        dendritic_conv(torch.zeros(1, 1, 5, 4, 3), torch.zeros(1, 3, 2, 3), steps=steps)
