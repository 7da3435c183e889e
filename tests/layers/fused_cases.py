"""The fused kernels against the plain path in float64.

`test_layers_fused.py` runs this file in processes of their own, since Triton takes up its
interpreter at its import: with TRITON_INTERPRET=1 the same programs run on the CPU, with the same
masks; without it they are compiled for CUDA.
"""

import os
from typing import Any

import pytest
import torch
from torch import Tensor

from neuroconv.layers import fused, sparse_wiring
from neuroconv.layers.counting import counting
from neuroconv.layers.tree import Tree, tree_current, tree_responses

# The sizes of tiles are multiples of 16: none of these is.
SMALL: dict[str, Any] = {"batch": 3, "steps": 4, "neurons": 5, "sheet": (3, 2), "taps": (2, 2, 3)}
CASES: dict[str, dict[str, Any]] = {
    "claw": {},
    "no_claw": {"claw": False},
    "one_step": {"steps": 1},
    "one_sample": {"batch": 1},
    "one_axon": {"sheet": (3, 1), "taps": (2, 1, 3)},
    "one_tap": {"taps": (2, 2, 1)},
    "one_of_all": {"batch": 1, "steps": 1, "sheet": (1, 1), "taps": (1, 1, 1)},
    "more_taps_than_steps": {"steps": 2, "taps": (2, 2, 5)},
    "several_blocks_of_samples": {"batch": 67, "neurons": 2, "steps": 2},
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
) -> tuple[Tree, list[Tensor]]:
    """A tree, and its activity, weights, filters and bias."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        numbers = torch.randn(shape, generator=generator)
        return numbers.to(device, dtype).requires_grad_()

    places = sheet[0] * sheet[1]
    synapses = places if synapses is None else synapses
    axons = max(axons, places)
    wiring = sparse_wiring(axons, neurons, synapses, sheet, claw=claw, seed=3)
    across = sheet[1] if mode == "per_dendrite" else taps[1]
    columns = sheet[1] - taps[1] + 1 if mode == "valid" else sheet[1]
    leaves = [
        draw(batch, axons, steps),
        draw(neurons, synapses),
        draw(neurons, taps[2], taps[0], across),
    ]
    leaves += [draw(neurons, columns)] if bias else []
    return Tree(wiring.to(device), sheet, mode, claw, reduction, linear), leaves


def run(tree: Tree, leaves: list[Tensor]) -> list[Tensor]:
    """The current, and the gradients of all that it is made of."""
    given = [*leaves, *([None] * (4 - len(leaves)))]
    result = tree_current(*given, tree)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    push = torch.randn(result.shape, generator=generator).to(result)
    return [result, *torch.autograd.grad(result, leaves, push)]


def reference(tree: Tree, leaves: list[Tensor]) -> list[Tensor]:
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


@pytest.mark.parametrize("case", CASES)
def test_bfloat16(case: str, launches: list[str]) -> None:
    """Without the rectifier, whose gate flips where a potential near zero is rounded; and the
    largest of some sites is left to float32, since rounding chooses another."""
    cases = {**SMALL, **CASES[case], "linear": True, "dtype": torch.bfloat16}
    tree, leaves = job(**{**cases, "reduction": "mean"})
    results, wanted = run(tree, leaves), reference(tree, leaves)
    assert launches == ["current", "gradients"]
    for result, exact in zip(results, wanted, strict=True):
        assert result.dtype == torch.bfloat16
        error = (result.cpu().double() - exact).abs().max()
        assert error <= TOLERANCES[torch.bfloat16] * exact.abs().max()
