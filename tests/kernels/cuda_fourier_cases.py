"""The kernels between the transforms of `fft_conv` against torch's conv3d in float64.

`test_kernels_cuda.py` runs this file in processes of their own.
"""

import os
from typing import Any

import pytest
import torch
from torch import Tensor

from neuroconv.core.counting import counting
from neuroconv.kernels import cuda
from neuroconv.kernels.conv import dendritic_conv, spectra
from neuroconv.kernels.conv.sizes import output_size
from neuroconv.kernels.cuda.launch import Kernel

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
KERNELS = ["copy_kernel", "lag_sum_kernel", "copy_kernel"]
BACK = [*KERNELS, "copy_kernel", "correlation_kernel"]
TOLERANCES = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 1e-2}
CUBES: dict[str, Any] = {"window": (2, 2, 2), "taps": (2, 2, 2)}
# Window, taps, and how they differ from mode "same", 3 samples, 2 neurons and all steps.
CASES: dict[str, dict[str, Any]] = {
    "same": {"window": (3, 3, 4), "taps": (3, 2, 3)},
    "valid": {"window": (3, 4, 5), "taps": (2, 2, 3), "mode": "valid"},
    "per_dendrite": {"window": (2, 5, 2), "taps": (2, 3, 2), "mode": "per_dendrite"},
    "last_steps": {"window": (4, 3, 3), "taps": (2, 2, 2), "steps": 2, "batch": 2},
    "more_taps_than_steps": {"window": (2, 3, 2), "taps": (4, 2, 2)},
    "blocks_of_steps_and_lags": {"window": (11, 1, 2), "taps": (10, 1, 2), "steps": 9},
    "one_step": {"window": (1, 3, 3), "taps": (2, 2, 2), "batch": 4},
    "one_sample": {"window": (2, 3, 3), "taps": (2, 2, 2), "batch": 1},
    "one_of_all": {"window": (1, 1, 1), "taps": (1, 1, 1), "batch": 1, "neurons": 1},
    "many_branches": {"window": (1, 34, 1), "taps": (1, 33, 1), "neurons": 1},
    "blocks_of_samples": {"window": (1, 1, 2), "taps": (1, 1, 2), "batch": 67, "neurons": 1},
    "blocks_of_columns": {"window": (1, 1, 300), "taps": (1, 1, 2), "batch": 33, "neurons": 1},
    "blocks_of_frequencies": {"window": (1, 9, 40), "taps": (1, 2, 3), "neurons": 1},
    "float64": {"window": (3, 4, 5), "taps": (2, 2, 3), "mode": "valid", "dtype": torch.float64},
    "bfloat16": {"window": (3, 4, 5), "taps": (2, 2, 3), "mode": "valid", "dtype": torch.bfloat16},
    "chunks_of_samples": {**CUBES, "batch": 7, "chunk": 3, "chunks": 6},
    "chunks_of_neurons": {**CUBES, "neurons": 3, "chunk": 6, "chunks": 2},
}


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that were launched."""
    names: list[str] = []
    launch = Kernel.launch

    def watched(self: Kernel, *arguments: Any, **constants: Any) -> None:
        names.append(self.name)
        launch(self, *arguments, **constants)

    monkeypatch.setattr(Kernel, "launch", watched)
    return names


def draw(case: dict[str, Any]) -> tuple[list[Tensor], Tensor, dict[str, Any]]:
    """Sheets with the batch innermost in memory, filters and bias; a gradient; mode and steps."""
    torch.manual_seed(0)
    (steps, *plane), taps, dtype = case["window"], case["taps"], case.get("dtype", torch.float32)
    batch, neurons, mode = case.get("batch", 3), case.get("neurons", 2), case.get("mode", "same")
    last, (rows, cols) = case.get("steps", steps), output_size((plane[0], plane[1]), taps[1:], mode)
    sheet = torch.randn(neurons, plane[1], plane[0], steps, batch).permute(4, 0, 3, 2, 1)
    learned = [torch.randn(neurons, *taps), torch.randn(neurons, cols)]
    learned = [x.to(DEVICE, torch.promote_types(dtype, torch.float32)) for x in learned]
    leaves = [x.requires_grad_() for x in (sheet.to(DEVICE, dtype), *learned)]
    grad = torch.randn(batch, neurons, last, rows, cols).to(DEVICE, dtype)
    return leaves, grad, {"mode": mode, "steps": last}


def run(leaves: list[Tensor], grad: Tensor, options: Any, backend: Any = "fft") -> list[Tensor]:
    result = dendritic_conv(*leaves[:2], backend=backend, bias=leaves[2], **options)
    needed = [x for x in leaves if x.requires_grad]
    return [result, *torch.autograd.grad(result, needed, grad)]


def assert_right(leaves: list[Tensor], grad: Tensor, options: Any) -> None:
    """Compares with conv3d on the CPU in float64 of the same rounded numbers."""
    exact = [x.detach().cpu().double().requires_grad_(x.requires_grad) for x in leaves]
    expected = run(exact, grad.cpu().double(), options, "direct")
    dtypes = [grad.dtype, *(x.dtype for x in leaves if x.requires_grad)]
    for result, reference, dtype in zip(run(leaves, grad, options), expected, dtypes, strict=True):
        assert result.dtype == dtype
        error = (result.detach().cpu().double() - reference.detach()).abs().max()
        assert error <= TOLERANCES[grad.dtype] * reference.detach().abs().max()


@pytest.mark.parametrize("name", CASES)
def test_equals_conv3d(name: str, launches: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    if "chunk" in case:  # of 2 steps of 2 x 2, whose transforms are 3 x 3
        monkeypatch.setitem(spectra.CHUNK_POINTS, DEVICE, case["chunk"] * 2 * 3 * 2)
    assert_right(*draw(case))
    assert launches.count("lag_sum_kernel") == 2 * case.get("chunks", 1)


@pytest.mark.parametrize("needed", range(3))
def test_one_gradient_alone(needed: int, launches: list[str]) -> None:
    leaves, grad, options = draw(CASES["last_steps"])
    leaves = [x.detach().requires_grad_(i == needed) for i, x in enumerate(leaves)]
    assert_right(leaves, grad[:1, :, :, :, :1].expand_as(grad), options)  # of any strides
    assert launches == KERNELS + [BACK[:3], [BACK[0], *BACK[3:]], BACK[:1]][needed]


def test_spectra_made_before_and_where_the_plain_path_runs(launches: list[str]) -> None:
    leaves, grad, options = draw(CASES["same"])
    with counting():
        expected = run(leaves, grad, options)
    with cuda.fused_kernels(False):
        run(leaves, grad, options)
    assert launches == []
    made = spectra.filter_spectra(leaves[1].detach(), (3, 4), "same")
    with torch.no_grad():
        result = dendritic_conv(*leaves[:2], "same", "fft", leaves[2], transformed=made)
    assert launches == KERNELS
    torch.testing.assert_close(result, expected[0], rtol=0, atol=1e-5)
