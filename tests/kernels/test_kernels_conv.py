"""The dendritic convolution: three backends against a scalar float64 loop, and what they cost.

The loop is written from the definition: every mode is a cross-correlation, causal in time, whose
last time tap meets the present.
"""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroconv.flops import count_exact
from neuroconv.kernels.conv import spectra, toeplitz
from neuroconv.kernels.conv.choice import choose_backend
from neuroconv.kernels.conv.costs import filter_macs, problem_macs
from neuroconv.kernels.conv.sizes import Backend, ConvProblem, Mode, output_size
from neuroconv.kernels.conv.toeplitz import toeplitz_matrices, toeplitz_transpose
from neuroconv.kernels.native import native_kernels
from neuroconv.layers import DendriticConv, Taps, TreeShape, dendritic_conv
from tests.flops.calling import Call

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


def assert_equals_direct(
    backend: Backend, mode: Mode, sheet: Tensor, filters: Tensor, steps: int | None = None
) -> None:
    """Compares potential and gradients, also where no gradient is needed."""
    leaves = (sheet.requires_grad_(), filters.requires_grad_())
    results = []
    for name in ("direct", backend):
        potential = dendritic_conv(*leaves, mode, name, steps=steps)
        push = torch.linspace(-1, 1, potential.numel(), dtype=sheet.dtype).view_as(potential)
        results.append((potential, *torch.autograd.grad(potential, leaves, push)))
    for expected, result in zip(*results, strict=True):
        assert error(result, expected.detach()) < 1e-10
    with torch.no_grad():
        potential = dendritic_conv(*leaves, mode, backend, steps=steps)
        assert error(potential, results[0][0].detach()) < 1e-10


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
    bias = torch.randn(2, cols, dtype=torch.float64)  # one number for each dendrite
    grad = torch.randn(2, 2, window[0], rows, cols, dtype=torch.float64)
    potential, *gradients = scalar_conv(sheet.numpy(), filters.numpy(), mode, grad.numpy())
    potential = potential + bias.numpy()[:, None, None]
    expected = (potential, *gradients, grad.sum((0, 2, 3)))
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        x, w, b = (
            tensor.to(dtype, copy=True).requires_grad_() for tensor in (sheet, filters, bias)
        )
        y = dendritic_conv(x, w, mode, backend, b)
        results = (y, *torch.autograd.grad(y, (x, w, b), grad.to(dtype)))
        for result, reference in zip(results, expected, strict=True):
            assert result.dtype == dtype
            assert error(result, reference) < tolerance
        with torch.no_grad():
            assert error(dendritic_conv(x, w, mode, backend, b), potential) < tolerance
        plain = dendritic_conv(x.detach(), w, mode, backend)
        assert error(plain, potential - bias.numpy()[:, None, None]) < tolerance


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


@pytest.mark.parametrize(("batch", "chunk"), [(5, 2), (4, 4), (3, 1), (2, 7)])
def test_fft_goes_through_the_batch_in_chunks(
    batch: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = 4 * 7 * (6 // 2 + 1)  # of one neuron's sheet: 4 steps of 7 x 6
    monkeypatch.setitem(spectra.CHUNK_POINTS, "cpu", chunk * points)
    assert_equals_direct("fft", "same", *drawn((4, 5, 4), (3, 3, 2), batch=batch))


def test_a_transform_has_the_next_length_of_small_prime_factors() -> None:
    exponents = np.ndindex(12, 8, 6, 5)
    smooth = np.sort([2**a * 3**b * 5**c * 7**d for a, b, c, d in exponents])
    for points in range(1, 2049):
        size = spectra.fft_size((points, 1), (1, 1), "valid")
        assert size[0] == smooth[smooth >= points][0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_empty_batch(backend: Backend) -> None:
    sheet, filters = drawn((4, 5, 4), (3, 3, 2), batch=0)
    x, w = sheet.requires_grad_(), filters.requires_grad_()
    y = dendritic_conv(x, w, "valid", backend)
    assert y.shape == (0, 2, 4, 3, 3)
    y.sum().backward()
    assert not w.grad.any()


PURKINJE: tuple[Triple, Triple] = ((5, 100, 1000), (5, 10, 1000))


# --- the cost


def counted_macs(window: Triple, taps: Triple, mode: str, backend: str) -> int:
    """Multiply-adds of one neuron's convolution, counted one by one with the padding's zeros."""
    rows, cols = output_size(window[1:], taps[1:], mode)
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
    expected = counted_macs(window, taps, mode, backend)
    assert problem_macs(ConvProblem(window, taps, mode), backend) == {family: expected}
    assert problem_macs(ConvProblem(window, taps, mode, 3, 7), backend) == {family: 21 * expected}


# More branches than are transformed by a product.
TALL: tuple[Mode, Triple, Triple] = ("same", (2, 40, 6), (2, 36, 3))


@pytest.mark.parametrize(("mode", "window", "taps"), [*PROBLEMS, TALL])
def test_fft_macs_equal_the_transforms_that_run(mode: Mode, window: Triple, taps: Triple) -> None:
    convolution = Call(partial(dendritic_conv, mode=mode, backend="fft"))
    problem = ConvProblem(window, taps, mode, 3, 2)
    counted = count_exact(convolution, drawn(window, taps, batch=3, neurons=2))
    assert problem_macs(problem, "fft") == counted.macs
    # The filters are transformed once, for however many samples.
    doubled = count_exact(convolution, drawn(window, taps, batch=6, neurons=2))
    assert sum(filter_macs(problem, "fft").values()) == 2 * counted.mac - doubled.mac
    assert filter_macs(problem, "direct") == {}


def test_fft_of_many_branches_equals_direct() -> None:
    assert_equals_direct("fft", TALL[0], *drawn(*TALL[1:]))


GRANULE: tuple[Triple, Triple] = ((5, 4, 4), (5, 3, 4))


def test_the_essays_numbers() -> None:
    """A granule cell of 15 synapses and a Purkinje cell of 100,000, five time steps."""
    assert problem_macs(ConvProblem(*GRANULE, "same"), "direct") == {"convolution": 4_800}
    assert problem_macs(ConvProblem(*PURKINJE, "same"), "direct") == {"convolution": 25_000_000_000}
    assert problem_macs(ConvProblem(*PURKINJE, "valid"), "direct") == {"convolution": 5 * 4_550_000}
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


@pytest.mark.parametrize(
    ("window", "taps", "mode", "batch", "expected", "to_learn"),
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
    window: Triple, taps: Triple, mode: Mode, batch: int, expected: str, to_learn: str
) -> None:
    problem = ConvProblem(window, taps, mode, batch, neurons=1024)
    assert choose_backend(problem) == expected
    assert choose_backend(problem, gradients=True) == to_learn
    for backend in BACKENDS:
        assert choose_backend(problem, backend) == backend


@pytest.mark.parametrize(
    ("window", "taps", "mode", "expected"),
    [
        (*GRANULE, "same", "matmul"),
        (*PURKINJE, "same", "fft"),
        (*PURKINJE, "valid", "matmul"),
        ((5, 16, 16), (1, 1, 1), "same", "direct"),
    ],
)
@pytest.mark.parametrize("gradients", [False, True])
def test_clear_choices_on_cuda(
    window: Triple, taps: Triple, mode: Mode, expected: str, gradients: bool
) -> None:
    problem = ConvProblem(window, taps, mode, 32, neurons=1024)
    assert choose_backend(problem, gradients=gradients, device="cuda") == expected


# --- errors


FILTER_ERRORS: list[tuple[tuple[int, ...], tuple[int, ...], Any, str]] = [
    ((2, 3, 4, 4), (3, 2, 2, 2), (), r"\(2, 3, 4, 4\); expected five axes \(batch, neurons"),
    ((2, 3, 5, 4, 4), (3, 2, 2), (), r"\(3, 2, 2\); expected four axes"),
    ((2, 3, 5, 4, 4), (4, 2, 2, 2), (), "holds 3 neurons and there are 4 filters"),
    ((1, 1, 5, 4, 4), (1, 2, 5, 2), ("valid",), "5 branches x 2 dendrites does not fit .*'same'"),
    ((1, 1, 5, 4, 4), (1, 2, 2, 3), ("per_dendrite",), r"spans 3 .* filter=\(2, 4, time_"),
    ((1, 1, 5, 4, 4), (1, 2, 2, 2), ("full",), "'full'.*expected one of same, valid, per_dend"),
    ((1, 1, 5, 4, 4), (1, 2, 2, 2), ("same", "cudnn"), "'cudnn'.*expected one of auto, direct"),
    ((1, 1, 5, 4, 4), (1, 2, 2, 2), ("same", "fft", None, 0), "steps=0; expected 1 to 5"),
    ((1, 1, 5, 4, 4), (1, 2, 2, 2), ("same", "fft", None, 6), "steps=6; expected 1 to 5"),
]


@pytest.mark.parametrize(("sheet", "filters", "words", "message"), FILTER_ERRORS)
def test_errors(sheet: tuple[int, ...], filters: tuple[int, ...], words: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dendritic_conv(torch.zeros(sheet), torch.zeros(filters), *words)


# --- CUDA


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("dtype", "most"),
    # conv3d in bfloat16 has been silently wrong on some CUDA versions.
    [(torch.float64, 1e-10), (torch.bfloat16, 2e-2)],
)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_cuda_equals_cpu(backend: Backend, mode: Mode, dtype: torch.dtype, most: float) -> None:
    inputs = [tensor.to(dtype) for tensor in drawn((5, 10, 12), (5, 4, 12))]
    results = []
    for device, precision in (("cpu", torch.float64), ("cuda", dtype)):
        x, w = (tensor.to(device, precision).requires_grad_() for tensor in inputs)
        y = dendritic_conv(x, w, mode, backend)
        grads = torch.autograd.grad(y.sum(), (x, w))
        results.append([tensor.detach().cpu() for tensor in (y, *grads)])
    for cpu, cuda in zip(*results, strict=True):
        assert error(cuda, cpu) < most


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_last_steps_alone_are_those_of_the_whole_window(
    backend: Backend, mode: Mode, steps: int
) -> None:
    sheet = torch.randn(2, 3, 7, 6, 5, dtype=torch.float64, requires_grad=True)
    filters = torch.randn(3, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, output_size((6, 5), (3, 5), mode)[1], dtype=torch.float64)
    whole = dendritic_conv(sheet, filters, mode, backend, bias)[:, :, -steps:]
    some = dendritic_conv(sheet, filters, mode, backend, bias, steps)
    torch.testing.assert_close(some, whole, rtol=1e-10, atol=1e-10)
    push = torch.randn_like(whole)
    expected = torch.autograd.grad(whole, (sheet, filters), push)
    grads = torch.autograd.grad(some, (sheet, filters), push)
    torch.testing.assert_close(grads, expected, rtol=1e-10, atol=1e-10)


class LastSteps(torch.nn.Module):
    def __init__(self, layer: DendriticConv, steps: int) -> None:
        super().__init__()
        self.layer, self.steps = layer, steps

    def forward(self, sheet: Tensor) -> Tensor:
        return self.layer(sheet, self.steps)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", MODES)
def test_the_last_steps_alone_cost_what_is_stated(backend: Any, mode: Any) -> None:
    layer = DendriticConv(
        2, TreeShape((4, 3), (2, 3, 3), mode=mode), Taps(backend=backend)
    ).double()
    sheet = torch.randn(1, 2, 5, 4, 3, dtype=torch.float64)
    costs = {}
    for steps in (1, 2, 5):
        (stated,) = layer.closed_form(sheet.shape, steps=steps)
        counted = count_exact(LastSteps(layer, steps), sheet)
        assert stated.macs == counted.macs
        costs[steps] = stated, counted.mac
        assert stated.direct == steps * sum(
            problem_macs(ConvProblem((3, 4, 3), (3, 2, 3), mode, 1, 2, 1), "direct").values()
        )
    # A step more is one transform there and one back, as many as the two steps before the last.
    (last, one), (_, two) = costs[1], costs[2]
    assert last.past_macs == (two - one if "fft" in last.macs else 0)


@pytest.mark.parametrize("most", [0, 1 << 26])
@pytest.mark.parametrize("mode", ["same", "valid"])
def test_toeplitz_transpose_is_the_transpose_of_toeplitz_matrices(
    mode: Mode, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Also where the matrix that does it would be too large.
    monkeypatch.setattr(toeplitz, "_MOST_CHOSEN", most)
    filters = torch.randn(2, 3, 2, 4, dtype=torch.float64)
    matrices = toeplitz_matrices(filters, (5, 6), mode)
    grad = torch.randn_like(matrices)
    back = toeplitz_transpose(grad, filters.shape, (5, 6), mode)
    torch.testing.assert_close((matrices * grad).sum(), (filters * back).sum())
    (expected,) = torch.func.vjp(lambda grads: toeplitz_matrices(grads, (5, 6), mode), filters)[1](
        grad
    )
    torch.testing.assert_close(back, expected)
