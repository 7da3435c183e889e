"""The CPU's own kernels against torch's operators, in float64, and how they are built."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuroconv.kernels.claw import claw_sum
from neuroconv.kernels.native import build, native_kernels, runs, state
from neuroconv.kernels.native.image import ImageLayer
from neuroconv.kernels.operator import kernels_off
from neuroconv.kernels.patch_window import PatchWindow
from neuroconv.layers import SomaFilter, dendritic_conv
from neuroconv.neurons import Granule, GranuleConv2d
from tests.kernels.test_kernels_tree_sum import TOLERANCES, assert_same, gradients

pytestmark = pytest.mark.skipif(state() != "on", reason=f"kernels are {state()}")

BOTH = (False, True)


def by_either(run: Callable[[], Any]) -> tuple[Any, Any]:
    """By torch's operators, and by the kernels."""
    results = []
    for enabled in BOTH:
        with native_kernels(enabled):
            results.append(run())
    return results[0], results[1]


# Sheets (B, N, T, P, D) and taps (K_T, K_P, K_D): the granule cell's own, samples that fill no
# vector and more than two, windows shorter than the filter, filters as long as the sheet, one tap.
SHEETS = {
    "granule": ((5, 7, 5, 4, 4), (5, 3, 4)),
    "other_sites": ((16, 3, 6, 5, 3), (4, 2, 3)),
    "short_window": ((33, 4, 3, 9, 2), (5, 4, 2)),
    "one_tap": ((8, 2, 4, 4, 5), (3, 1, 1)),
    "many_sites": ((40, 2, 4, 16, 5), (3, 9, 4)),
    "three_branches": ((4, 2, 2, 4, 1), (2, 3, 1)),
    "long_sites": ((17, 2, 3, 37, 3), (2, 3, 2)),
    "five_rows": ((3, 3, 4, 5, 7), (3, 5, 6)),
    "seven_rows": ((1, 3, 4, 7, 6), (3, 6, 5)),
    "one_sample": ((1, 3, 5, 4, 4), (5, 3, 4)),
}


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("steps", [None, 1])
@pytest.mark.parametrize("mode", ["same", "valid", "per_dendrite"])
@pytest.mark.parametrize("sizes", SHEETS.values(), ids=SHEETS)
def test_a_sheet_is_filtered_as_by_conv3d(
    sizes: tuple[tuple[int, ...], tuple[int, ...]], mode: Any, steps: int | None, dtype: torch.dtype
) -> None:
    shape, taps = sizes
    if mode == "per_dendrite":
        taps = (*taps[:2], shape[4])
    columns = shape[4] if mode != "valid" else shape[4] - taps[2] + 1
    sheet = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    filters = torch.randn(shape[1], *taps, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(shape[1], columns, dtype=torch.float64, requires_grad=True)
    inputs = [sheet, filters, bias]
    expected = gradients(dendritic_conv(sheet, filters, mode, "direct", bias, steps), inputs)
    leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in inputs]
    results = gradients(dendritic_conv(*leaves[:2], mode, "matmul", leaves[2], steps), leaves)
    assert_same(results, expected, TOLERANCES[dtype])


def test_maps_past_the_caches_are_the_same() -> None:
    sheet = torch.randn(32, 1700, 5, 4, 4, dtype=torch.float64)
    filters = torch.randn(1700, 5, 3, 4, dtype=torch.float64)
    assert sheet.numel() * 8 > 1 << 25
    result = dendritic_conv(sheet, filters, "same", "matmul")[:, ::100]
    assert_same([result], [dendritic_conv(sheet[:, ::100], filters[::100], "same", "direct")])


def test_outputs_can_be_changed_in_place() -> None:
    sheet, filters = torch.randn(5, 3, 2, 4, 4), torch.randn(3, 2, 3, 4, requires_grad=True)
    dendritic_conv(sheet, filters, "same", "matmul").relu_().sum().backward()
    soma = SomaFilter(3)
    current = torch.randn(4, 2, 3).permute(2, 1, 0).requires_grad_()
    soma(current).relu_().sum().backward()
    assert filters.grad is not None
    assert soma.weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bool, torch.int32, torch.float16])
def test_evaluation_takes_activity_of_any_dtype(dtype: torch.dtype) -> None:
    cells = Granule(20, 9, output={"mean_wait": 0.0}).eval()
    activity = (torch.rand(6, 20, 5) > 0.5).to(dtype)
    for _ in range(2):
        with torch.no_grad():
            results, expected = cells(activity), cells(activity.float())
        assert_same([results], [expected], 1e-6)


# Layers (channels, units, keywords): strides, dilation along the columns, sides that differ, units
# and channels that fill no vector, groups that run as one, claws, still images.
LAYERS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "first": (1, 8, {"padding": "same"}),
    "even": (3, 5, {"padding": "same", "kernel_size": (2, 3)}),
    "strides": (2, 7, {"stride": (2, 3), "padding": (1, 2)}),
    "dilated_columns": (2, 4, {"dilation": (1, 2)}),
    "one_branch": (2, 4, {"kernel_size": (1, 3), "stride": (2, 1), "padding": (1, 1)}),
    "claw": (6, 9, {"wiring": "claw", "padding": "same"}),
    "claw_strides": (20, 5, {"wiring": "claw", "kernel_size": 3, "stride": (2, 3), "padding": 2}),
    "claw_dilated": (3, 18, {"wiring": "claw", "stride": 2, "dilation": (3, 2), "padding": (4, 3)}),
    "claw_of_groups": (4, 6, {"wiring": "claw", "groups": 2, "time_steps": 5, "bias": False}),
    "claw_alone": (4, 4, {"groups": 4, "linear_dendrites": True}),
    "still_claw": (5, 6, {"wiring": "claw", "time_steps": 1, "padding": "same"}),
    "groups": (4, 6, {"groups": 2}),
    "many_inputs": (13, 20, {"padding": "same"}),
    "linear": (2, 3, {"linear_dendrites": True}),
    "still": (3, 6, {"time_steps": 1, "padding": "same"}),
    "no_bias": (2, 3, {"bias": False}),
    "no_memory": (2, 3, {"soma": {"time_steps": 1}}),
    "long_memory": (2, 3, {"soma": {"time_steps": 9}}),
}


def layer_of(name: str, norm: Any) -> GranuleConv2d:
    channels, units, keywords = LAYERS[name]
    layer = GranuleConv2d(channels, units, **{"time_steps": 3, **keywords}, norm=norm).double()
    for tensor in layer.parameters():
        nn.init.normal_(tensor, std=0.5)
    return layer


@pytest.mark.parametrize("training", BOTH)
@pytest.mark.parametrize("norm", ["none", "both"])
@pytest.mark.parametrize("name", LAYERS)
def test_an_image_layer_is_its_definition(name: str, norm: Any, training: bool) -> None:
    """By torch's operators, by the kernels in C++, and by these in float32."""
    layer = layer_of(name, norm).train(training)
    frames = torch.randn(5, layer.in_channels, layer.time_steps, 9, 10, dtype=torch.float64)

    def run(dtype: torch.dtype = torch.float64) -> list[Tensor]:
        twin = copy.deepcopy(layer).to(dtype)
        inputs = frames.to(dtype).requires_grad_()
        results = gradients(twin(inputs), [inputs, *twin.parameters()])
        return [*results, *(buffer.double() for buffer in twin.buffers())]

    with kernels_off():
        expected = run()
    for results in by_either(run):
        assert_same(results, expected, tolerance=1e-10)
    assert_same(run(torch.float32), expected, tolerance=1e-4)


def test_many_small_rows_of_one_tap_leave_memory_whole() -> None:
    """Tall images of few channels, one tap and a stride: where oneDNN's own gradient overwrites."""
    torch.manual_seed(0)
    layer = GranuleConv2d(4, 8, 1, 2, time_steps=2)
    frames = torch.randn(64, 4, 2, 12, 12)
    for _ in range(20):
        layer(frames).sum().backward()
    double = copy.deepcopy(layer).double()
    (expected,) = torch.autograd.grad(double(frames.double()).sum(), double.weight)
    torch.testing.assert_close(layer.weight.grad.double(), 20 * expected, rtol=1e-4, atol=1e-2)


def test_a_large_mean_costs_gradients_few_digits() -> None:
    layer = GranuleConv2d(1, 8, time_steps=3, norm="dendrites", soma={"time_steps": 1})
    frames = torch.randn(16, 1, 3, 20, 20) + 10

    def run(layer: GranuleConv2d, frames: Tensor) -> list[Tensor]:
        rates = layer(frames)
        push = torch.rand(rates.shape, generator=torch.Generator().manual_seed(0)) + 0.5
        return list(torch.autograd.grad((rates * push).sum(), list(layer.parameters())))

    exact = run(copy.deepcopy(layer).double(), frames.double())
    assert_same(run(layer, frames), exact, 1e-3)


@pytest.mark.parametrize("keywords", [{"wiring": "claw"}, {}], ids=["claw", "patch"])
def test_variances_far_below_the_means_of_the_inputs_keep_their_digits(keywords: Any) -> None:
    """Of one pixel amid its padding most taps read zeros: potentials lie far from the mean input
    times the sum of the taps, and a variance about that would be rounding, negative even."""
    torch.manual_seed(0)
    layer = GranuleConv2d(6, 24, time_steps=3, padding=(1, 2), norm="both", **keywords)
    with torch.no_grad():
        layer.weight[..., 1, :] *= 1e-3  # of the branch that reads the pixel
    frames = torch.randn(64, 6, 3, 1, 1) + 40
    exact = copy.deepcopy(layer).double()
    with kernels_off():
        expected = exact(frames.double())
    results = layer(frames)
    assert_same([results], [expected], 1e-3)
    for norm, twin in zip(layer.dendritic_norms, exact.dendritic_norms, strict=True):
        assert_same([norm.running_var], [twin.running_var], 1e-5)  # type: ignore[list-item]


@pytest.mark.parametrize("learns", ["frames", "gain", "weights"])
def test_a_part_of_an_evaluated_layer_learns(learns: str) -> None:
    # Norms by their running statistics: what each is asked for comes of other sums.
    layer = layer_of("first", "both").eval()
    frames = torch.randn(5, 1, 3, 9, 10, dtype=torch.float64)
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    if learns == "frames":
        learned = [frames]
    elif learns == "gain":
        learned = [norm.weight for norm in layer.dendritic_norms]
    else:
        learned = [layer.weight]
    for tensor in learned:
        tensor.requires_grad_()
    assert_same(*by_either(lambda: gradients(layer(frames), learned)), tolerance=1e-10)


@pytest.mark.parametrize("rows", [3, 70, 130])
def test_tall_images_take_several_tiles(rows: int) -> None:
    layer = GranuleConv2d(2, 3, time_steps=2, padding="same", norm="both").double()
    frames = torch.randn(3, 2, 2, rows, 4, dtype=torch.float64, requires_grad=True)
    inputs = [frames, *layer.parameters()]
    assert_same(*by_either(lambda: gradients(layer(frames), inputs)), tolerance=1e-10)


@pytest.mark.parametrize("norm", ["none", "both"])
def test_threads_do_not_matter(norm: Any) -> None:
    # Also where they are more than samples, and where they change between the two passes.
    layer = GranuleConv2d(13, 8, time_steps=3, padding="same", norm=norm).double()
    frames = torch.randn(5, 13, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    inputs, threads = [frames, *layer.parameters()], torch.get_num_threads()
    results = []
    try:
        for forward, backward in ((1, 1), (7, 2), (2, 7)):
            torch.set_num_threads(forward)
            output = layer(frames)
            torch.set_num_threads(backward)
            results.append(gradients(output, inputs))
    finally:
        torch.set_num_threads(threads)
    for tensor in results[1:]:
        assert_same(tensor, results[0], tolerance=1e-10)


def test_a_claw_is_the_same_to_the_bit_for_any_threads() -> None:
    layer, threads = GranuleConv2d(7, 9, wiring="claw", norm="dendrites"), torch.get_num_threads()
    frames = torch.randn(70, 7, 5, 11, 8).requires_grad_()  # three blocks of samples
    results = []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            results.append(gradients(layer.dendrites(frames), [frames, layer.weight]))
    finally:
        torch.set_num_threads(threads)
    for tensors in results[1:]:
        assert all(map(torch.equal, tensors, results[0]))
    innermost = frames.detach().to(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(layer.dendrites(innermost), results[0][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("eps", "linear"), [(None, False), (1e-3, False), (None, True)])
def test_a_claws_gradients_are_those_of_differences(eps: float | None, linear: bool) -> None:
    channels, window = (
        torch.tensor([[1, 0], [1, 2]]),
        PatchWindow((3, 2), (2, 1), (1, 1, 0, 0), (1, 2)),
    )
    leaves = [
        torch.randn(size, dtype=torch.float64, requires_grad=True)
        for size in ((2, 3, 3, 4, 5), (2, 2, 3, 2), (2, 2), (2, 2))
    ]

    def total(frames: Tensor, weight: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        return claw_sum(frames, weight, channels, window, linear, gain, shift, eps)[0]

    torch.autograd.gradcheck(total, leaves)


def test_nan_is_not_hidden() -> None:
    frames = torch.rand(4, 1, 2, 6, 6)
    frames[1, 0, 0, 3, 3] = torch.nan
    rates = GranuleConv2d(1, 3, time_steps=2)(frames)
    assert rates[1].isnan().any()
    assert not rates[[0, 2, 3]].isnan().any()
    activity = torch.rand(6, 20, 5)
    activity[2] = torch.nan
    cells = Granule(20, 9, output={"mean_wait": 0.0})
    assert cells(activity)[2].isnan().all()


def test_a_negative_view_is_what_it_says() -> None:
    complex_sheet = torch.randn(5, 3, 2, 4, 4, dtype=torch.complex128)
    sheet, filters = complex_sheet.conj().imag, torch.randn(3, 2, 3, 4, dtype=torch.float64)
    assert sheet.is_neg()
    expected = dendritic_conv(sheet.resolve_neg(), filters, "same", "direct")
    assert_same([dendritic_conv(sheet, filters, "same", "matmul")], [expected])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inference_keeps_nothing_of_potentials(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layers: list[ImageLayer] = []
    original = ImageLayer.__init__

    def spy(self: ImageLayer, *arguments: Any, **keywords: Any) -> None:
        original(self, *arguments, **keywords)
        layers.append(self)

    monkeypatch.setattr(ImageLayer, "__init__", spy)
    frames = torch.rand(4, 13, 5, 6, 6)
    plain, normed = GranuleConv2d(13, 4), GranuleConv2d(13, 4, norm="both")
    with mode():
        plain(frames), normed(frames)
    assert all(layer.potentials is None and layer.bits is None for layer in layers)
    plain(frames), normed(frames)
    saved = [(layer.potentials is not None, layer.bits is not None) for layer in layers[2:]]
    assert saved == [(False, True), (True, False)]


@pytest.mark.slow
def test_the_environment_leaves_the_kernels_out() -> None:
    program = "from neuroconv.kernels.native import state; print(state())"
    environment = {**os.environ, "NEUROCONV_NATIVE": "0"}
    printed = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
    assert printed.startswith("off: left out by NEUROCONV_NATIVE=0")


@pytest.fixture
def rebuilt(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The library is looked for once more, and again after the test."""
    build._library.cache_clear()
    yield
    monkeypatch.undo()
    build._library.cache_clear()


@pytest.mark.parametrize(
    ("compiler", "folder", "words"),
    [
        ("no-such-compiler", "cache", "off: no C++ compiler: CXX='no-such-compiler' names none"),
        ("false", "cache", "false fails"),
        (None, "file", "NEUROCONV_CACHE names the folder"),
        (None, "open", "/open lets others write (mode 777), who could replace the kernels"),
    ],
)
def test_without_a_library_it_says_why(
    compiler: str | None,
    folder: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rebuilt: None,
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    if compiler is not None:
        monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("NEUROCONV_CACHE", str(tmp_path / folder))
    for _ in range(2):  # and does not try again
        assert words in state()
    assert not runs(torch.zeros(1))
    Granule(20, 9)(torch.rand(6, 20, 5))
    assert not list(tmp_path.rglob("*.so"))


def test_a_library_is_named_by_what_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    path = build.library()._name
    assert Path(path).parent == build.cache_folder().resolve()
    assert build.library()._name == path
    monkeypatch.setattr(build, "_processor", lambda: "another")
    monkeypatch.setattr(build, "_compile", lambda compiler, sources, stem, host: stem)
    with pytest.raises(OSError, match=r"kernels-"):  # not the one that is there
        build._load()
