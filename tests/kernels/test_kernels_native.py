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

from neuroconv.kernels.native import ImageLayer, build, native_kernels, runs, state
from neuroconv.kernels.operator import needs_reference
from neuroconv.layers import SomaFilter, dendritic_conv
from neuroconv.neurons import Granule, GranuleConv2d
from tests.kernels.test_kernels_tree_sum import TOLERANCES, assert_same, gradients

pytestmark = pytest.mark.skipif(state() != "on", reason=f"kernels are {state()}")

BOTH = (False, True)


def by_either(run: Callable[[], Any]) -> tuple[Any, Any]:
    """By torch's operators, and by the kernels."""
    found = []
    for enabled in BOTH:
        with native_kernels(enabled):
            found.append(run())
    return found[0], found[1]


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
    sizes: tuple[tuple[int, ...], tuple[int, ...]],
    mode: Any,
    steps: int | None,
    dtype: torch.dtype,
) -> None:
    shape, taps = sizes
    if mode == "per_dendrite":
        taps = (*taps[:2], shape[4])
    columns = shape[4] if mode != "valid" else shape[4] - taps[2] + 1
    sheet = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    filters = torch.randn(shape[1], *taps, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(shape[1], columns, dtype=torch.float64, requires_grad=True)
    inputs = [sheet, filters, bias]
    wanted = gradients(dendritic_conv(sheet, filters, mode, "direct", bias, steps), inputs)
    own = [each.detach().to(dtype).requires_grad_() for each in inputs]
    found = gradients(dendritic_conv(*own[:2], mode, "matmul", own[2], steps), own)
    assert_same(found, wanted, TOLERANCES[dtype])


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (1, 4, 3, 2, 0), (0, 2, 3, 4, 1)])
def test_any_order_of_memory_is_read(order: tuple[int, ...]) -> None:
    size = (32, 3, 5, 4, 4)
    laid = torch.randn([size[axis] for axis in order], dtype=torch.float64)
    sheet = laid.permute([order.index(axis) for axis in range(5)])
    filters = torch.randn(3, 5, 3, 4, dtype=torch.float64)
    found = dendritic_conv(sheet, filters, "same", "matmul")
    assert_same([found], [dendritic_conv(sheet, filters, "same", "direct")])


def test_maps_past_the_caches_are_the_same() -> None:
    sheet = torch.randn(32, 1700, 5, 4, 4, dtype=torch.float64)
    filters = torch.randn(1700, 5, 3, 4, dtype=torch.float64)
    assert sheet.numel() * 8 > 1 << 25
    found = dendritic_conv(sheet, filters, "same", "matmul")
    assert_same([found], [dendritic_conv(sheet, filters, "same", "direct")])


def test_a_bias_of_another_dtype() -> None:
    sheet, filters = torch.randn(5, 3, 2, 4, 4), torch.randn(3, 2, 3, 4)
    bias = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    found = dendritic_conv(sheet, filters, "same", "matmul", bias)
    wanted = dendritic_conv(sheet, filters, "same", "direct", bias)
    assert_same([found.double()], [wanted.double()], 1e-6)
    (grad,) = torch.autograd.grad(found.sum(), bias)
    assert grad.dtype == torch.float64


def test_a_gradient_in_another_order_of_memory() -> None:
    sheet = torch.randn(5, 7, 3, 4, 1, dtype=torch.float64, requires_grad=True)
    filters = torch.randn(7, 2, 3, 1, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 2, dtype=torch.float64)

    def run(backend: Any) -> list[Tensor]:
        output = dendritic_conv(sheet, filters, "valid", backend).permute(2, 3, 4, 0, 1) @ weight
        return gradients(output, [sheet, filters])

    assert_same(run("matmul"), run("direct"))


def test_outputs_can_be_changed_in_place() -> None:
    sheet, filters = torch.randn(5, 3, 2, 4, 4), torch.randn(3, 2, 3, 4, requires_grad=True)
    dendritic_conv(sheet, filters, "same", "matmul").relu_().sum().backward()
    soma = SomaFilter(3)
    current = torch.randn(4, 2, 3).permute(2, 1, 0).requires_grad_()
    soma(current).relu_().sum().backward()
    assert filters.grad is not None
    assert soma.weight.grad is not None


@pytest.mark.parametrize("claw", BOTH)
def test_a_population_in_evaluation_sees_its_weights_change(claw: bool) -> None:
    cells = Granule(20, 9, wiring={"claw": claw}, output={"mean_wait": 0.0}).double().eval()
    activity = torch.rand(6, 20, 5, dtype=torch.float64)
    for _ in range(2):
        found, wanted = by_either(lambda: cells(activity).detach())
        assert_same([wanted], [found])
        with torch.no_grad():
            kept, _ = cells(activity), cells(activity)
        assert_same([kept], [found])
        with torch.no_grad():
            cells.dendrites.weight.mul_(-0.5)


def test_evaluation_under_autocast_runs_in_half_precision() -> None:
    cells = Granule(20, 9, output={"mean_wait": 0.0}).eval()
    activity = torch.rand(6, 20, 5)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = cells(activity)
    with torch.no_grad():
        assert (cells(activity) - half).abs().max() <= 2e-2 * half.abs().max()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bool, torch.int32, torch.float16])
def test_evaluation_takes_activity_of_any_dtype(dtype: torch.dtype) -> None:
    cells = Granule(20, 9, output={"mean_wait": 0.0}).eval()
    activity = (torch.rand(6, 20, 5) > 0.5).to(dtype)
    for _ in range(2):
        with torch.no_grad():
            found, wanted = cells(activity), cells(activity.float())
        assert_same([found], [wanted], 1e-6)


# Layers (channels, units, keywords): strides, dilation along the columns, sides that differ, units
# and channels that fill no vector, groups that run as one, claws, still images.
LAYERS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "first": (1, 8, {"padding": "same"}),
    "even": (3, 5, {"padding": "same", "kernel_size": (2, 3)}),
    "strides": (2, 7, {"stride": (2, 3), "padding": (1, 2)}),
    "dilated_columns": (2, 4, {"dilation": (1, 2)}),
    "one_branch": (2, 4, {"kernel_size": (1, 3), "stride": (2, 1), "padding": (1, 1)}),
    "claw": (6, 9, {"wiring": "claw", "padding": "same"}),
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
@pytest.mark.parametrize("norm", ["none", "dendrites", "soma", "both"])
@pytest.mark.parametrize("name", LAYERS)
def test_an_image_layer_is_what_its_convolutions_are(name: str, norm: Any, training: bool) -> None:
    layer = layer_of(name, norm).train(training)
    steps = layer.time_steps
    frames = torch.randn(5, layer.in_channels, steps, 9, 10, dtype=torch.float64)
    frames.requires_grad_()

    def run() -> list[Tensor]:
        own = copy.deepcopy(layer)
        found = gradients(own(frames), [frames, *own.parameters()])
        return [*found, *(each.double() for each in own.buffers())]

    assert_same(*by_either(run), tolerance=1e-10)


@pytest.mark.parametrize("norm", ["none", "both"])
@pytest.mark.parametrize("name", LAYERS)
def test_an_image_layer_in_float32(name: str, norm: Any) -> None:
    layer = layer_of(name, norm)
    frames = torch.randn(5, layer.in_channels, layer.time_steps, 9, 10, dtype=torch.float64)

    def run(layer: GranuleConv2d, frames: Tensor) -> list[Tensor]:
        frames = frames.clone().requires_grad_()
        return gradients(layer(frames), [frames, *layer.parameters()])

    with native_kernels(False):
        wanted = run(copy.deepcopy(layer), frames)
    assert_same(run(layer.float(), frames.float()), wanted, 1e-4)


def test_a_large_mean_costs_gradients_few_digits() -> None:
    layer = GranuleConv2d(1, 8, time_steps=3, norm="dendrites", soma={"time_steps": 1})
    frames = torch.randn(16, 1, 3, 20, 20) + 10

    def run(layer: GranuleConv2d, frames: Tensor) -> list[Tensor]:
        rates = layer(frames)
        push = torch.rand(rates.shape, generator=torch.Generator().manual_seed(0)) + 0.5
        return list(torch.autograd.grad((rates * push).sum(), list(layer.parameters())))

    exact = run(copy.deepcopy(layer).double(), frames.double())
    assert_same(run(layer, frames), exact, 1e-3)


@pytest.mark.parametrize("asked", ["frames", "gain", "weights"])
def test_a_part_of_an_evaluated_layer_learns(asked: str) -> None:
    # Norms by their running statistics: what each is asked for comes of other sums.
    layer = layer_of("first", "both").eval()
    frames = torch.randn(5, 1, 3, 9, 10, dtype=torch.float64)
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    if asked == "frames":
        learned = [frames]
    elif asked == "gain":
        learned = [norm.weight for norm in layer.dendritic_norms]  # type: ignore[misc]
    else:
        learned = [layer.weight]
    for each in learned:
        each.requires_grad_()
    assert_same(*by_either(lambda: gradients(layer(frames), learned)), tolerance=1e-10)


@pytest.mark.parametrize("norm", ["none", "both"])
def test_gradients_of_an_image_layer(norm: Any) -> None:
    layer = layer_of("strides", norm)
    frames = torch.randn(2, 2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    learned = dict(layer.named_parameters())

    def run(frames: Tensor, *values: Tensor) -> Tensor:
        given = dict(zip(learned, values, strict=True))
        return torch.func.functional_call(copy.deepcopy(layer), given, frames)

    assert torch.autograd.gradcheck(run, (frames, *learned.values()), fast_mode=True)


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
    found = []
    try:
        for forward, backward in ((1, 1), (7, 2), (2, 7)):
            torch.set_num_threads(forward)
            output = layer(frames)
            torch.set_num_threads(backward)
            found.append(gradients(output, inputs))
    finally:
        torch.set_num_threads(threads)
    for each in found[1:]:
        assert_same(each, found[0], tolerance=1e-10)


@pytest.mark.parametrize("neurons", [1, 3])
@pytest.mark.parametrize("batch", [5, 70])
def test_threads_share_a_neuron(neurons: int, batch: int) -> None:
    sheet = torch.randn(batch, neurons, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    filters = torch.randn(neurons, 2, 3, 5, dtype=torch.float64, requires_grad=True)
    threads, found = torch.get_num_threads(), []
    try:
        for many in (1, 2, 7):
            torch.set_num_threads(many)
            output = dendritic_conv(sheet, filters, "same", "matmul")
            found.append(gradients(output, [sheet, filters]))
    finally:
        torch.set_num_threads(threads)
    wanted = gradients(dendritic_conv(sheet, filters, "same", "direct"), [sheet, filters])
    for each in found:
        assert_same(each, wanted)


@pytest.mark.parametrize("channels", [1, 16])
def test_a_large_mean_costs_no_digits(channels: int) -> None:
    layer = GranuleConv2d(channels, 4, time_steps=1, norm="dendrites", linear_dendrites=True)
    frames = torch.randn(8, channels, 12, 12) + 100
    exact = copy.deepcopy(layer).double()(frames.double())
    assert (layer(frames) - exact).abs().max() < 1e-3 * exact.abs().max()
    running = layer.dendritic_norms[0].running_var  # type: ignore[index, union-attr]
    with native_kernels(False):
        other = copy.deepcopy(layer).double()
        other(frames.double())
    assert torch.isfinite(running).all()  # type: ignore[arg-type]


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


@pytest.mark.parametrize("axes", [3, 5])
def test_a_soma_can_be_differentiated_twice(axes: int) -> None:
    soma = SomaFilter(3).double()
    if axes == 3:
        current = torch.randn(4, 2, 3, dtype=torch.float64).permute(2, 1, 0)  # steps outermost
    else:
        current = torch.randn(4, 2, 2, 3, 2, dtype=torch.float64).permute(1, 4, 0, 2, 3)
    current.requires_grad_()

    def run(current: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(soma, {"weight": weight}, current)

    weight = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert runs(current, weight)
    assert torch.autograd.gradcheck(run, (current, weight), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (current, weight), fast_mode=True)


@pytest.mark.parametrize("frozen", ["current", "weight"])
def test_a_frozen_part_of_a_soma_differentiated_twice(frozen: str) -> None:
    soma = SomaFilter(3).double()
    current = torch.randn(4, 2, 3, dtype=torch.float64).permute(2, 1, 0).requires_grad_()
    learned = soma.weight if frozen == "current" else current
    (current if frozen == "current" else soma.weight).requires_grad_(False)
    (first,) = torch.autograd.grad(soma(current).square().sum(), learned, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), learned)
    assert second.abs().max() > 0


def test_transforms_of_torch_func() -> None:
    soma = SomaFilter(3).double()
    current = torch.randn(4, 2, 3, dtype=torch.float64).permute(2, 1, 0)
    found = torch.func.grad(lambda given: soma(given).square().sum())(current)
    leaf = current.clone().requires_grad_()
    soma(leaf).square().sum().backward()
    assert leaf.grad is not None
    assert_same([found], [leaf.grad])
    with torch.autograd.forward_ad.dual_level():
        assert needs_reference()


def test_default_devices_do_not_matter() -> None:
    layer, frames = GranuleConv2d(2, 3), torch.rand(4, 2, 5, 6, 6)
    sheet, filters = torch.randn(5, 3, 2, 4, 4), torch.randn(3, 2, 3, 4)
    with torch.device("meta"):
        made = layer(frames), dendritic_conv(sheet, filters, "same", "matmul")
    assert_same([*made], [layer(frames), dendritic_conv(sheet, filters, "same", "matmul")], 1e-6)
    assert not runs(torch.zeros(1), torch.zeros(1, device="meta"))
    assert GranuleConv2d(2, 3).to("meta")(frames).shape == made[0].shape  # by torch's operators


def test_a_norm_of_another_dtype() -> None:
    layer = GranuleConv2d(2, 3, norm="both", time_steps=2).double().eval()
    layer.dendritic_norms.float()
    frames = torch.randn(4, 2, 2, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        found = layer(frames)
    wanted = copy.deepcopy(layer).double()(frames)
    assert_same([found], [wanted], 1e-5)


def test_a_negative_view_is_what_it_says() -> None:
    complex_sheet = torch.randn(5, 3, 2, 4, 4, dtype=torch.complex128)
    sheet, filters = complex_sheet.conj().imag, torch.randn(3, 2, 3, 4, dtype=torch.float64)
    assert sheet.is_neg()
    wanted = dendritic_conv(sheet.resolve_neg(), filters, "same", "direct")
    assert_same([dendritic_conv(sheet, filters, "same", "matmul")], [wanted])


@pytest.mark.parametrize("watched", [torch.no_grad, torch.inference_mode])
def test_inference_keeps_nothing_of_potentials(
    watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ImageLayer] = []
    original = ImageLayer.__init__

    def spy(self: ImageLayer, *arguments: Any, **keywords: Any) -> None:
        original(self, *arguments, **keywords)
        made.append(self)

    monkeypatch.setattr(ImageLayer, "__init__", spy)
    frames = torch.rand(4, 13, 5, 6, 6)
    plain, normed = GranuleConv2d(13, 4), GranuleConv2d(13, 4, norm="both")
    with watched():
        plain(frames), normed(frames)
    assert all(layer.kept is None and layer.bits is None for layer in made)
    plain(frames), normed(frames)
    held = [(layer.kept is not None, layer.bits is not None) for layer in made[2:]]
    assert held == [(False, True), (True, False)]


def test_what_the_kernels_take() -> None:
    assert runs(torch.zeros(1))
    assert runs(torch.zeros(1).double(), torch.zeros(2).double())
    refused = [
        (torch.zeros(0),),
        (torch.zeros(1).half(),),
        (torch.zeros(1), torch.zeros(1).double()),
        (torch.zeros(1, device="meta"),),
    ]
    for tensors in refused:
        assert not runs(*tensors)
    with native_kernels(False):
        assert state().startswith("off: left out by NEUROCONV_NATIVE=0")
        assert not runs(torch.zeros(1))


@pytest.mark.slow
def test_the_environment_leaves_the_kernels_out() -> None:
    says = "from neuroconv.kernels.native import state; print(state())"
    run = subprocess.run(
        [sys.executable, "-c", says],
        env={**os.environ, "NEUROCONV_NATIVE": "0"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout.startswith("off: left out by NEUROCONV_NATIVE=0")


@pytest.fixture
def built_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
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
    ],
)
def test_without_a_library_it_says_why(
    compiler: str | None,
    folder: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    built_anew: None,
) -> None:
    (tmp_path / "file").touch()
    if compiler is not None:
        monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("NEUROCONV_CACHE", str(tmp_path / folder))
    for _ in range(2):  # and does not try again
        assert words in state()
    assert not runs(torch.zeros(1))
    Granule(20, 9)(torch.rand(6, 20, 5))
    assert not list(tmp_path.rglob("*.so"))


def test_a_compiler_may_have_options(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = build.find_compiler()
    monkeypatch.setenv("CXX", f"{compiler[0]} -pipe")
    assert build.find_compiler() == [compiler[0], "-pipe"]
    monkeypatch.setenv("NEUROCONV_CACHE", ".")
    assert build.cache_folder().is_absolute()


def test_a_library_is_named_by_what_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    path = build.library()._name
    assert Path(path).parent == build.cache_folder()
    assert build.library()._name == path
    monkeypatch.setattr(build, "_processor", lambda: "another")
    monkeypatch.setattr(build, "_compile", lambda compiler, sources, path: None)
    with pytest.raises(OSError, match=r"kernels-.*\.so"):  # not the one that is there
        build._load()
