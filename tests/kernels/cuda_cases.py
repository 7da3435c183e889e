"""The fused kernels against the plain path in float64.

`test_kernels_cuda.py` runs this file in processes of their own, since Triton takes up its
interpreter at its import: with TRITON_INTERPRET=1 the same programs run on the CPU, with the same
masks; without it they are compiled for CUDA.
"""

import importlib
import os
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from neuroconv.core.counting import counting
from neuroconv.kernels import cuda as fused
from neuroconv.kernels.cuda.trees import _row
from neuroconv.kernels.tree_sum import TreeSpec, tree_sum
from neuroconv.neurons import Granule
from tests.kernels.test_kernels_tree_sum import CASES as TREES
from tests.kernels.test_kernels_tree_sum import assert_same as near
from tests.kernels.test_kernels_tree_sum import build_tree, gradients, stages

# The sizes of tiles are multiples of 16: none of these is.
CASES = TREES | {
    "one_step": {"steps": 1},
    "one_sample": {"batch": 1},
    "one_axon": {"sheet": (3, 1), "synapses": 3, "across": 1},
    "one_tap": {"taps": (1, 2)},
    "one_of_all": {
        "batch": 1, "steps": 1, "sheet": (1, 1), "synapses": 1, "taps": (1, 1), "across": 1,
    },
    "more_taps_than_steps": {"steps": 2, "taps": (5, 2)},
    "more_steps_than_taps": {"steps": 7, "taps": (3, 2), "neurons": 1},
    "several_blocks_of_samples": {"batch": 67, "neurons": 2, "steps": 1},
    "several_blocks_of_rows": {"claw": False, "sheet": (5, 4), "synapses": 20, "neurons": 2},
    "granule": {"sheet": (4, 4), "synapses": 16, "taps": (5, 3), "across": 4},
}  # fmt: skip
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


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
    names: list[str] = []

    def watch(name: str) -> None:
        function = getattr(fused, name)

        def launch(*values: Any) -> Any:
            names.append(name)
            return function(*values)

        monkeypatch.setattr(fused, name, launch)

    watch("current")
    watch("gradients")
    return names


def small_tree(dtype: torch.dtype = torch.float32, **sizes: Any) -> tuple[TreeSpec, list[Tensor]]:
    """A small tree on the device, and its activity, weights, filters and bias in `dtype`."""
    tree, leaves = build_tree(**{"batch": 3, "steps": 3, "neurons": 3} | sizes)
    leaves = [leaf.detach().to(DEVICE, dtype).requires_grad_() for leaf in leaves]
    return tree._replace(wiring=tree.wiring.to(DEVICE)), leaves


def run(tree: TreeSpec, leaves: list[Tensor]) -> list[Tensor]:
    return gradients(tree_sum(*leaves[:3], leaves[3] if len(leaves) > 3 else None, tree), leaves)


def assert_same(results: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    near([x.cpu() for x in results], expected, tolerance)


def reference(tree: TreeSpec, leaves: list[Tensor]) -> list[Tensor]:
    """The stages one after another on the CPU in float64, of the same rounded numbers."""
    exact = [leaf.detach().cpu().double().requires_grad_() for leaf in leaves]
    return gradients(stages(tree._replace(wiring=tree.wiring.cpu()), *exact), exact)


@pytest.mark.parametrize("case", CASES)
def test_float32(case: str, launches: list[str]) -> None:
    tree, leaves = small_tree(**CASES[case])
    results, expected = run(tree, leaves), reference(tree, leaves)
    assert launches == ["current", "gradients"]
    assert {x.dtype for x in results} == {torch.float32}
    assert_same(results, expected, TOLERANCES[torch.float32])


@triton.jit
def row_kernel(out, step, rows, row):
    tl.store(out, _row(step, rows, row))


def test_rows_are_counted_in_64_bits() -> None:
    out = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    row_kernel[(1,)](out, 1 << 16, 1 << 17, 5)
    assert out.item() == (1 << 33) + 5


@pytest.mark.parametrize(("processors", "splits"), [(1, 1), (132, 5)])
def test_few_neurons_split_the_batch(
    processors: int, splits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Mock(wraps=fused._GRADIENT)
    monkeypatch.setattr(fused, "_GRADIENT", spy)
    monkeypatch.setattr(fused, "processors", lambda device: processors)
    tree, leaves = small_tree(batch=67, neurons=4, steps=2)
    assert_same(run(tree, leaves), reference(tree, leaves), 1e-5)
    assert spy.launch.call_args.args[0] == (4 * splits,)


@pytest.mark.parametrize("claw", [False, True])
def test_an_axon_may_reach_all_inputs_or_none(claw: bool) -> None:
    tree, leaves = small_tree(claw=claw)
    run(tree, leaves)
    tree.wiring.fill_(2)  # the lists of the first wiring are no longer valid
    results = run(tree, leaves)
    assert_same(results, reference(tree, leaves), 1e-5)
    assert not results[1][:, 3:].any()


@pytest.mark.parametrize("case", ["claw", "several_blocks_of_rows", "per_dendrite", "granule"])
def test_bfloat16(case: str, launches: list[str]) -> None:
    """Without the rectifier, whose gate flips where a potential near zero is rounded."""
    tree, leaves = small_tree(torch.bfloat16, **CASES[case] | {"linear": True})
    results, expected = run(tree, leaves), reference(tree, leaves)
    assert launches == ["current", "gradients"]
    assert {x.dtype for x in results} == {torch.bfloat16}
    assert_same(results, expected, TOLERANCES[torch.bfloat16])


def test_autocast_rounds_the_activity_alone(launches: list[str]) -> None:
    tree, leaves = small_tree(**CASES["granule"], linear=True)
    with torch.autocast(DEVICE, torch.bfloat16):
        total = tree_sum(*leaves[:3], leaves[3], tree)
    results = gradients(total, leaves)
    assert launches == ["current", "gradients"]
    assert [x.dtype for x in results] == [torch.bfloat16, *[torch.float32] * 4]
    assert_same(results, reference(tree, leaves), TOLERANCES[torch.bfloat16])


def test_any_layout_of_activity_and_gradient(launches: list[str]) -> None:
    tree, leaves = small_tree()
    expected = run(tree, leaves)
    turned = [leaf.detach().mT.contiguous().mT.requires_grad_() for leaf in leaves[:2]]
    results = run(tree, [*turned, leaves[2].detach().requires_grad_(), leaves[3]])
    assert not turned[0].is_contiguous()
    assert len(launches) == 4
    torch.testing.assert_close(results, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("linear", [False, True])
def test_ties_of_the_largest_share_its_gradient(linear: bool) -> None:
    """All sites of a dendrite that hears nothing rest at the same potential."""
    tree, leaves = small_tree(reduction="max", linear=linear)
    leaves[0] = torch.zeros_like(leaves[0]).requires_grad_()
    for result, exact in zip(run(tree, leaves), reference(tree, leaves), strict=True):
        torch.testing.assert_close(result.cpu().double(), exact, rtol=0, atol=1e-5)


def test_where_the_plain_path_runs(launches: list[str]) -> None:
    tree, leaves = small_tree()
    with fused.fused_kernels(False):
        run(tree, leaves)
    with counting():
        run(tree, leaves)
    run(tree, [leaf.detach().double().requires_grad_() for leaf in leaves])
    tree_sum(leaves[0][:0], *leaves[1:], tree)
    assert launches == []


def test_a_population_of_granule_cells(launches: list[str]) -> None:
    cells = Granule(12, 8, taps={"backend": "matmul"}, output={"mean_wait": 0.0}).to(DEVICE)
    activity = torch.rand(3, 12, 5, device=DEVICE)
    with fused.fused_kernels(False):
        expected = cells(activity)
    torch.testing.assert_close(cells(activity), expected, rtol=0, atol=1e-5)
    cells.eval()
    with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16):
        half = cells(activity)
    assert launches == ["current", "current"]
    assert (half - expected).abs().max() <= 2e-2 * expected.abs().max()
