"""The kernels on CUDA: which trees they take, that they are right, and that they compile."""

import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from neuroconv.kernels import cuda as fused
from neuroconv.kernels.claw import packed
from neuroconv.kernels.claw_maps import claw_maps
from neuroconv.kernels.cuda import Sizes, fits
from neuroconv.kernels.effective_filters import TreeOperands
from neuroconv.kernels.patch_window import PatchWindow
from neuroconv.kernels.tree_sum import TreeSpec
from neuroconv.neurons import GranuleConv2d
from tests.kernels.compilation import CAPABILITIES, compiled, launches

triton = pytest.importorskip("triton", reason="Triton is not installed: the plain path runs alone")

HERE = Path(__file__).parent
GRANULE = Sizes(axons=4, k_time=5, sites=4, dendrites=4)
MOST_SPILLED = 64  # bytes of a thread


def run_cases(**environment: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    parent = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [*command, *map(str, HERE.glob("cuda_*cases.py"))], cwd=HERE.parents[1],
        env={**parent, **environment}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.slow
def test_kernels_as_triton_interprets_them() -> None:
    run_cases(TRITON_INTERPRET="1", NEUROCONV_NATIVE="0")


@pytest.mark.gpu
def test_kernels_on_cuda() -> None:
    run_cases()


@pytest.mark.parametrize(
    ("sizes", "taken"),
    [
        (GRANULE, True),
        (Sizes(16, 5, 4, 4), True),
        (Sizes(25, 5, 5, 4), True),  # 128 rows x 32 outputs
        (Sizes(25, 5, 9, 4), False),  # 128 x 64
        (Sizes(26, 5, 4, 4), False),  # 130 rows
        (Sizes(1, 1, 128, 2), False),  # 256 outputs
    ],
)
def test_sizes_that_are_taken(sizes: Sizes, taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "state", lambda device: "on")
    assert fits(small_trees("cpu", sizes)) is taken


def small_trees(device: str, sizes: Sizes = GRANULE) -> TreeOperands:
    sheet = (sizes.sites, sizes.dendrites)
    weight, filters = torch.zeros(1, sizes.axons), torch.zeros(1, sizes.k_time, 1, 1)
    tree = TreeSpec(weight.long(), sheet, "same", claw=False, reduction="sum", linear=False)
    return TreeOperands(torch.zeros(1, 1, 1, device=device), weight, filters, None, tree)


def test_the_cpu_has_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    for device in ("cpu", "meta"):
        assert not fits(small_trees(device))
    # A tensor without memory that says it is on CUDA, as tracers use.
    with torch._subclasses.FakeTensorMode():
        assert not fits(small_trees("cpu"))


def test_rocm_has_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert fused.state(torch.device("cuda")).startswith("off: ROCm")


@pytest.mark.parametrize("mode", ["ieee", "tf32"])
def test_precision_is_what_torch_is_set_to(mode: str) -> None:
    products: Any = torch.backends.cuda.matmul
    before = products.fp32_precision
    products.fp32_precision = mode
    try:
        assert fused._precision() == mode
    finally:
        products.fp32_precision = before


def run_trees(
    dtype: torch.dtype, sizes: Sizes, reduction: Any = "mean", claw: bool = False
) -> None:
    """Runs trees forward and backward, of ones alone where there is a single axon."""
    batch, steps, neurons = (1, 1, 1) if sizes.axons == 1 else (256, 5, 64)
    sheet, empty = (sizes.sites, sizes.dendrites), partial(torch.empty, dtype=dtype, device="cuda")
    synapses = sizes.axons * (sizes.sites if claw else 1)
    wiring = empty(neurons, synapses, dtype=torch.int64)
    tree = TreeSpec(wiring, sheet, "same", claw, reduction, linear=False)
    filters = empty(neurons, sizes.k_time, min(3, sizes.sites), sizes.dendrites)
    bias = empty(neurons, sizes.dendrites)
    activity = empty(batch, sizes.axons, steps)
    operands = TreeOperands(activity, empty(neurons, synapses), filters, bias, tree)
    grad = torch.ops.neuroconv.tree_sum(*operands[:4], *tree, None, True)[0]
    torch.ops.neuroconv.tree_sum_backward(
        grad, *operands[:4], *tree, activity.new_empty(0), [True] * 4
    )


def run_maps(
    dtype: torch.dtype, dendrites: int, steps: int, units: int, taps: int = 0, width: int = 112
) -> None:
    """Runs the sum of an image layer's maps forward and backward, with a norm and with a bias."""

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="cuda")

    maps = [empty(2, width, width, dendrites * steps * units, dtype=dtype)]
    learned = empty(taps) if taps else None, empty(dendrites, units), empty(dendrites, units)
    starts = list(range(-1, dendrites - 1))
    for gain, eps in ((learned[1], 1e-5), (None, None)):
        operands = (maps, learned[0], gain, learned[2], starts, width, units, eps, False)
        grad, *moments = torch.ops.neuroconv.maps_sum(*operands)
        torch.ops.neuroconv.maps_sum_backward(grad, *operands, *moments)


def run_fourier(
    dtype: torch.dtype, window: tuple[int, int, int], taps: tuple[int, int, int], batch: int = 32
) -> None:
    """Runs a dendritic convolution forward and backward, its sheet as synapses write it."""
    empty = partial(torch.empty, device="cuda")
    sheet = empty(1, *window[::-1], batch, dtype=dtype).permute(4, 0, 3, 2, 1)
    filters, bias = empty(1, *taps), empty(1, window[2])
    grad = torch.ops.neuroconv.fft_conv(sheet, filters, bias, "same", window[0], None)
    torch.ops.neuroconv.fft_conv_backward(grad, sheet, filters, "same", [True] * 3)


def run_claws(dtype: torch.dtype, channels: int, units: int, steps: int = 5) -> None:
    """Runs the maps of dendrites that read one channel each, forward and backward."""
    weight = torch.empty(units, steps, 3, 4 if steps > 1 else 1, device="cuda")
    wiring = torch.empty(units, 1, weight.shape[3], dtype=torch.int64, device="cuda")
    frames = torch.empty(2, 32, 32, steps, channels, dtype=dtype, device="cuda")
    window = PatchWindow((3, weight.shape[3]), (2, 2), (1, 1, 2, 2), (1, 1))
    grad = claw_maps(frames, weight, wiring, window)
    operands = (frames, weight, wiring, packed(window), [True, True])
    torch.ops.neuroconv.claw_maps_backward(grad, *operands)


def run_stages(
    dtype: torch.dtype, axons: int, sheet: tuple[int, int], reduction: str = "mean"
) -> None:
    """Runs synapses and the rates of dendrites of 64 neurons forward and backward."""
    rows = torch.empty(axons, 160, dtype=dtype, device="cuda")
    wiring = torch.empty(64, sheet[0] * sheet[1], dtype=torch.int64, device="cuda")
    weight, stages = torch.empty_like(wiring, dtype=dtype), torch.ops.neuroconv
    grad = stages.release(rows, weight, wiring, wiring.shape[1])
    stages.release_backward(grad, rows, weight, wiring)
    potential = torch.empty(32, 64, 5, *sheet, dtype=dtype, device="cuda")
    grad = stages.site_rates(potential, reduction, False)
    stages.site_rates_backward(grad, potential, reduction, False)


# By name what launches kernels on tensors that are made with device "cuda". Together they launch
# every kernel of the package, at the sizes that hold most in registers.
WORKLOADS: dict[str, Callable[[torch.dtype], None]] = {
    "granule": partial(run_trees, sizes=GRANULE, claw=True),
    "largest of a dendrite": partial(run_trees, sizes=GRANULE, reduction="max"),
    "most axons": partial(run_trees, sizes=Sizes(25, 5, 5, 4)),
    "most branches": partial(run_trees, sizes=Sizes(6, 5, 8, 16)),
    "dendrites": partial(run_maps, dendrites=4, steps=5, units=16),
    "stem": partial(run_maps, dendrites=7, steps=1, units=64),
    "soma": partial(run_maps, dendrites=1, steps=9, units=3, taps=8),
    "claws": partial(run_claws, channels=32, units=64),
    "one claw": partial(run_claws, channels=2, units=1, steps=1),
    "one position": partial(run_maps, dendrites=1, steps=1, units=1, width=1),
    # Numbers that are 1 become constants of the program.
    "ones": partial(run_trees, sizes=Sizes(1, 1, 1, 1), reduction="sum"),
    # The second chunk of samples adds to the first's sums.
    "Purkinje": partial(run_fourier, window=(5, 100, 1000), taps=(5, 10, 1000), batch=256),
    "stages": partial(run_stages, axons=10_000, sheet=(100, 1000)),
    "stages of few axons": partial(run_stages, axons=7, sheet=(3, 4), reduction="max"),
    "one dendrite": partial(run_fourier, window=(1, 1, 1), taps=(1, 1, 1), batch=1),
}


def test_every_kernel_is_among_the_workloads() -> None:
    modules = [
        importlib.import_module(f"neuroconv.kernels.cuda.{module.name}")
        for module in pkgutil.iter_modules(fused.__path__)
    ]
    named = {name for module in modules for name in vars(module) if name.endswith("_kernel")}
    launched = [launches(partial(work, torch.float32)) for work in WORKLOADS.values()]
    assert {launch.kernel.name for work in launched for launch in work} == named


@pytest.mark.parametrize("workload", ["stages", "one dendrite"])
def test_float64_meets_no_number_that_triton_takes_as_float32(workload: str) -> None:
    work = launches(partial(WORKLOADS[workload], torch.float64))
    assert not [x for launch in work for x in launch.arguments if type(x) is float]


@pytest.mark.parametrize(
    ("keywords", "maps"),
    [({"padding": "same"}, 1), ({"padding": 0}, 1), ({"padding": 1, "stride": 2}, 4)],
)
def test_an_image_layer_runs_the_multiply_adds_that_are_counted(keywords: Any, maps: int) -> None:
    """But for columns at the sides of a map that only some dendrites read, a sixteenth at most."""
    multiply_adds: list[int] = []

    def run() -> None:
        with torch.device("cuda"):
            layer = GranuleConv2d(16, 8, (3, 4), norm="both", **keywords)
            frames = torch.empty(2, 16, 5, 50, 60, dtype=torch.bfloat16)
        with FlopCounterMode(display=False) as counter:
            rates = layer(frames)
        assert rates.dtype == torch.bfloat16
        assert rates.permute(0, 3, 4, 2, 1).is_contiguous()  # as the next layer reads them
        counted = sum(cost.macs.get("convolution", 0) for cost in layer.closed_form(frames.shape))
        multiply_adds.extend([counter.get_total_flops() // 2, counted])

    norm, total = ["statistics_kernel"], ["sum_kernel"]
    assert [x.kernel.name for x in launches(run)] == maps * norm + maps * total + norm + total
    executed, counted = multiply_adds
    assert executed <= counted * (17 / 16 if keywords["padding"] == 0 else 1)


def test_a_kernel_compiles_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    work = launches(partial(WORKLOADS["ones"], torch.bfloat16))
    kernel = next(launch for launch in work if launch.kernel.name == "current_kernel")
    program, spilled = compiled(kernel, 90, tmp_path)
    assert "mma" in program  # half precision is multiplied by tensor cores
    assert spilled <= MOST_SPILLED


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_kernels_compile_and_stay_in_registers(
    workload: str,
    dtype: torch.dtype,
    capability: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for launch in launches(partial(WORKLOADS[workload], dtype)):
        assert compiled(launch, capability, tmp_path)[1] <= MOST_SPILLED, launch.kernel.name
