"""The fused kernels against the plain path in float64.

`test_layers_fused.py` runs this file in processes of their own, since Triton takes up its
interpreter at its import: with TRITON_INTERPRET=1 the same programs run on the CPU, with the same
masks; without it they are compiled for CUDA.
"""

import importlib
import os
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neuroconv.core.counting import counting
from neuroconv.kernels import cuda as fused
from neuroconv.kernels.tree_sum import TreeSpec, effective_filters, tree_sum
from neuroconv.layers import Random, TreeShape
from neuroconv.neurons import Granule

# The sizes of tiles are multiples of 16: none of these is.
SMALL: dict[str, Any] = {"batch": 3, "steps": 3, "neurons": 3, "sheet": (3, 2), "taps": (2, 2, 3)}
CASES: dict[str, dict[str, Any]] = {
    "claw": {},
    "no_claw": {"claw": False},
    "one_step": {"steps": 1},
    "one_sample": {"batch": 1},
    "one_axon": {"sheet": (3, 1), "taps": (2, 1, 3)},
    "one_tap": {"taps": (2, 2, 1)},
    "one_of_all": {"batch": 1, "steps": 1, "sheet": (1, 1), "taps": (1, 1, 1)},
    "more_taps_than_steps": {"steps": 2, "taps": (2, 2, 5)},
    "several_blocks_of_samples": {"batch": 67, "neurons": 2, "steps": 1},
    "several_blocks_of_rows": {"claw": False, "sheet": (5, 4), "taps": (3, 2, 3), "neurons": 2},
    "empty_place": {"synapses": 5},
    "empty_dendrite": {"synapses": 3},
    "empty_place_no_claw": {"synapses": 5, "claw": False},
    "valid": {"mode": "valid"},
    "per_dendrite": {"mode": "per_dendrite"},
    "sum": {"reduction": "sum"},
    "max": {"reduction": "max"},
    "linear": {"linear": True},
    "linear_max": {"linear": True, "reduction": "max"},
    "no_bias": {"bias": False},
    "granule": {"sheet": (4, 4), "taps": (3, 4, 5), "steps": 5, "neurons": 3},
}
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


@pytest.fixture(autouse=True)
def any_population(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few neurons it has."""
    monkeypatch.setattr(fused, "_LEAST_NEURONS", 1)


@pytest.fixture(autouse=True)
def products_of_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter holds bfloat16 as its bits, and its product multiplies those bits."""
    if DEVICE != "cpu":
        return
    interpreter = importlib.import_module("triton.runtime.interpreter")
    product = interpreter.InterpreterBuilder.create_dot

    def wide(handle: Any) -> Any:
        if str(handle.dtype.scalar) != "bf16":
            return handle
        numbers = (handle.data.astype(np.uint32) << 16).view(np.float32)
        return interpreter.TensorHandle(numbers, interpreter.tl.float32)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return product(self, wide(a), wide(b), *rest)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that were launched."""
    seen: list[str] = []

    def watch(name: str) -> None:
        function = getattr(fused, name)

        def launch(*values: Any) -> Any:
            seen.append(name)
            return function(*values)

        monkeypatch.setattr(fused, name, launch)

    watch("current")
    watch("gradients")
    return seen


def job(
    batch: int,
    steps: int,
    neurons: int,
    sheet: tuple[int, int],
    taps: tuple[int, int, int],
    mode: Any = "same",
    claw: bool = True,
    synapses: int | None = None,
    reduction: Any = "mean",
    linear: bool = False,
    bias: bool = True,
    dtype: torch.dtype = torch.float32,
    device: str = DEVICE,
    axons: int = 7,
) -> tuple[TreeSpec, list[Tensor]]:
    """A tree, and its activity, weights, filters and bias."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        numbers = torch.randn(shape, generator=generator)
        return numbers.to(device, dtype).requires_grad_()

    places = sheet[0] * sheet[1]
    synapses = places if synapses is None else synapses
    axons = max(axons, places)
    wiring = Random(claw=claw, seed=3).axons(axons, neurons, TreeShape(sheet, synapses=synapses))
    across = sheet[1] if mode == "per_dendrite" else taps[1]
    columns = sheet[1] - taps[1] + 1 if mode == "valid" else sheet[1]
    leaves = [
        draw(batch, axons, steps),
        draw(neurons, synapses),
        draw(neurons, taps[2], taps[0], across),
    ]
    leaves += [draw(neurons, columns)] if bias else []
    return TreeSpec(wiring.to(device), sheet, mode, claw, reduction, linear), leaves


def run(tree: TreeSpec, leaves: list[Tensor]) -> list[Tensor]:
    """The current, and the gradients of all that it is made of."""
    given = [*leaves, *([None] * (4 - len(leaves)))]
    result = tree_sum(*given, tree)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    push = torch.randn(result.shape, generator=generator).to(result)
    return [result, *torch.autograd.grad(result, leaves, push)]


def reference(tree: TreeSpec, leaves: list[Tensor]) -> list[Tensor]:
    """The same on the CPU in float64, of the same rounded numbers."""
    exact = [leaf.detach().cpu().double().requires_grad_() for leaf in leaves]
    return run(tree._replace(wiring=tree.wiring.cpu()), exact)


@pytest.mark.parametrize("case", CASES)
def test_float32(case: str, launches: list[str]) -> None:
    tree, leaves = job(**{**SMALL, **CASES[case]})
    results, wanted = run(tree, leaves), reference(tree, leaves)
    assert launches == ["current", "gradients"]
    for result, exact in zip(results, wanted, strict=True):
        assert result.dtype == torch.float32
        assert result.shape == exact.shape
        error = (result.cpu().double() - exact).abs().max()
        assert error <= TOLERANCES[torch.float32] * exact.abs().max()


@pytest.mark.parametrize("case", ["claw", "several_blocks_of_rows", "per_dendrite", "granule"])
def test_bfloat16(case: str, launches: list[str]) -> None:
    """Without the rectifier, whose gate flips where a potential near zero is rounded."""
    tree, leaves = job(**{**SMALL, **CASES[case], "linear": True, "dtype": torch.bfloat16})
    results, wanted = run(tree, leaves), reference(tree, leaves)
    assert launches == ["current", "gradients"]
    for result, exact in zip(results, wanted, strict=True):
        assert result.dtype == torch.bfloat16
        error = (result.cpu().double() - exact).abs().max()
        assert error <= TOLERANCES[torch.bfloat16] * exact.abs().max()


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_responses_made_before(dtype: torch.dtype, launches: list[str]) -> None:
    """As evaluation keeps them: in the weights' precision, of all taps."""
    tree, leaves = job(**{**SMALL, "steps": 1}, dtype=torch.float32)
    activity, weight, filters, bias = (leaf.detach() for leaf in leaves)
    wanted = reference(tree, leaves)[0]
    made = effective_filters(weight, filters, tree)
    with torch.autocast(DEVICE, dtype, enabled=dtype == torch.bfloat16):
        result = tree_sum(activity, weight, filters, bias, tree, made)
    assert launches == ["current"]
    assert result.dtype == dtype
    error = (result.cpu().double() - wanted).abs().max()
    assert error <= TOLERANCES[dtype] * wanted.abs().max()


def test_any_layout_of_activity_and_gradient(launches: list[str]) -> None:
    tree, leaves = job(**SMALL)
    wanted = run(tree, leaves)
    turned = [leaf.detach().mT.contiguous().mT.requires_grad_() for leaf in leaves[:2]]
    results = run(tree, [*turned, leaves[2].detach().requires_grad_(), leaves[3]])
    assert not turned[0].is_contiguous()
    assert len(launches) == 4
    for result, other in zip(results, wanted, strict=True):
        torch.testing.assert_close(result, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("of", range(4))
def test_gradient_to_one_input_alone(of: int, launches: list[str]) -> None:
    tree, leaves = job(**SMALL)
    wanted = reference(tree, leaves)[1 + of]
    kept = [leaf.detach().requires_grad_(place == of) for place, leaf in enumerate(leaves)]
    result = tree_sum(*kept, tree)
    push = torch.randn(result.shape, generator=torch.Generator().manual_seed(1)).to(result)
    (found,) = torch.autograd.grad(result, kept[of], push)
    assert launches == ["current", "gradients"]
    assert (found.cpu().double() - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("linear", [False, True])
def test_ties_of_the_largest_share_its_gradient(linear: bool) -> None:
    """All sites of a dendrite that hears nothing rest at the same potential."""
    tree, leaves = job(**SMALL, reduction="max", linear=linear)
    leaves[0] = torch.zeros_like(leaves[0]).requires_grad_()
    for result, exact in zip(run(tree, leaves), reference(tree, leaves), strict=True):
        torch.testing.assert_close(result.cpu().double(), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "max"])
def test_what_is_no_number_is_not_hidden(reduction: Any) -> None:
    tree, (activity, *learned) = job(**SMALL, reduction=reduction)
    activity = activity.detach().clone()
    activity[1, :, 2] = float("nan")
    result = tree_sum(activity, *learned, tree)
    broken = torch.zeros_like(result, dtype=torch.bool)
    broken[1, :, 2:] = True
    assert torch.equal(result.isnan(), broken)


def test_where_the_plain_path_runs(launches: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tree, leaves = job(**SMALL)
    with fused.fused_kernels(False):
        wanted = run(tree, leaves)
    with counting():
        run(tree, leaves)
    run(tree, [leaf.detach().double().requires_grad_() for leaf in leaves])
    tree_sum(leaves[0][:0], *leaves[1:], tree)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "_LEAST_NEURONS", 4)
        run(tree, leaves)
    assert launches == []
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    results = run(tree, leaves)
    assert launches == ["current"]
    for result, exact in zip(results, wanted, strict=True):
        torch.testing.assert_close(result, exact, rtol=0, atol=1e-5)


def test_a_population_of_granule_cells(launches: list[str]) -> None:
    cells = Granule(12, 8, taps={"backend": "matmul"}, output={"mean_wait": 0.0}).to(DEVICE)
    activity = torch.rand(3, 12, 5, device=DEVICE)
    with fused.fused_kernels(False):
        wanted = cells(activity)
    torch.testing.assert_close(cells(activity), wanted, rtol=0, atol=1e-5)
    cells.eval()
    with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16):
        half = cells(activity)
    assert launches == ["current", "current"]
    assert (half - wanted).abs().max() <= 2e-2 * wanted.abs().max()
