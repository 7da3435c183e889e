"""A tree as one stage against its stages one after another, in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor

from neuroconv.kernels.conv import toeplitz as unrolled
from neuroconv.kernels.native import native_kernels, state
from neuroconv.kernels.tree_costs import effective_filter_numbers
from neuroconv.kernels.tree_sum import TreeSpec, effective_filters, tree_sum
from neuroconv.layers import DendriticRate, Random, SparseSynapses, TreeShape, dendritic_conv

NEURONS, STEPS = 7, 5
BOTH = (False, pytest.param(True, marks=pytest.mark.skipif(state() != "on", reason=state())))
# Blocks of the kernels have other sizes in each: both are held to float64.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}

CASES: dict[str, dict[str, Any]] = {
    "claw": {},
    "no_claw": {"claw": False},
    "empty_place": {"synapses": 11},
    "empty_dendrite": {"synapses": 7},
    "empty_place_no_claw": {"synapses": 10, "claw": False},
    "valid": {"mode": "valid"},
    "per_dendrite": {"mode": "per_dendrite"},
    "per_dendrite_no_claw": {"mode": "per_dendrite", "claw": False, "synapses": 11},
    "sum": {"reduction": "sum"},
    "max": {"reduction": "max"},
    "linear": {"linear": True},
    "linear_max": {"linear": True, "reduction": "max"},
    "no_bias": {"bias": False},
}
# Sizes that fill no block of the kernels, and more than one.
SIZES: dict[str, dict[str, Any]] = {
    "one_sample_too_many": {"batch": 17},
    "one_sample": {"batch": 1},
    "many_dendrites": {"sheet": (4, 17), "synapses": 66, "across": 17},
    "many_dendrites_no_claw": {"sheet": (4, 17), "synapses": 66, "across": 9, "claw": False},
    "many_sites": {"sheet": (19, 3), "synapses": 57},
    "many_sites_no_claw": {"sheet": (19, 3), "synapses": 50, "claw": False},
    "five_sites_valid": {"sheet": (7, 6), "synapses": 42, "mode": "valid", "across": 4},
}


def build_tree(
    mode: Any = "same",
    claw: bool = True,
    synapses: int = 12,
    reduction: Any = "mean",
    linear: bool = False,
    bias: bool = True,
    batch: int = 6,
    sheet: tuple[int, int] = (4, 3),
    across: int = 2,
    steps: int = STEPS,
    taps: tuple[int, int] = (3, 3),
    neurons: int = NEURONS,
) -> tuple[TreeSpec, list[Tensor]]:
    """A tree; activity, weights, filters (taps in time, along the sites) and, if any, the bias."""
    axons = max(11, synapses)
    wiring = Random(claw=claw, seed=3).axons(axons, neurons, TreeShape(sheet, synapses=synapses))
    columns = sheet[1] - across + 1 if mode == "valid" else sheet[1]
    across = sheet[1] if mode == "per_dendrite" else across
    shapes = [(batch, axons, steps), (neurons, synapses), (neurons, *taps, across)]
    shapes += [(neurons, columns)] if bias else []
    tree = TreeSpec(wiring, sheet, mode, claw, reduction, linear)
    return tree, [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def run(tree: TreeSpec, activity: Tensor, weight: Tensor, filters: Tensor, *bias: Tensor) -> Tensor:
    return tree_sum(activity, weight, filters, bias[0] if bias else None, tree)


def gradients(output: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients of a sum that weighs each of its numbers otherwise."""
    push = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    return [output.detach(), *torch.autograd.grad(output, inputs, push)]


def assert_same(results: list[Tensor], expected: list[Tensor], tolerance: float = 1e-12) -> None:
    """Largest difference over largest value."""
    for result, reference in zip(results, expected, strict=True):
        assert result.shape == reference.shape
        assert (result - reference).abs().max() <= tolerance * reference.abs().max().clamp(
            min=1e-30
        )


def stages(
    tree: TreeSpec, activity: Tensor, weight: Tensor, filters: Tensor, *bias: Tensor
) -> Tensor:
    """The same, stage by stage, by conv3d."""
    synapses = SparseSynapses(tree.wiring, activity.shape[1], tree.sheet).double()
    sheet = torch.func.functional_call(
        synapses, {"weight": weight, "wiring": tree.wiring}, activity
    )
    shift = bias[0] if bias else None
    potential = dendritic_conv(sheet, filters, tree.mode, "direct", shift)
    rate: Tensor = DendriticRate(tree.reduction, tree.linear)(potential)
    return rate.sum(-1)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("kernels", BOTH)
@pytest.mark.parametrize("case", CASES | SIZES)
def test_a_tree_equals_its_stages(case: str, kernels: bool, dtype: torch.dtype) -> None:
    tree, inputs = build_tree(**(CASES | SIZES)[case])
    expected = gradients(stages(tree, *inputs), inputs)
    copies = [tensor.detach().to(dtype).requires_grad_() for tensor in inputs]
    with native_kernels(kernels):
        assert_same(gradients(run(tree, *copies), copies), expected, TOLERANCES[dtype])


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("case", CASES)
def test_chunks_of_neurons_are_the_whole(
    case: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, inputs = build_tree(**CASES[case], steps=steps)
    expected = gradients(stages(tree, *inputs), inputs)
    monkeypatch.setattr(unrolled, "_CHUNK_FLOATS", 1)
    monkeypatch.setattr(unrolled, "_LEAST_NEURONS", 2)
    monkeypatch.setattr("neuroconv.kernels.native.trees._MOST_NUMBERS", 1200)
    for kernels in (False, True):
        with native_kernels(kernels):
            assert_same(gradients(run(tree, *inputs), inputs), expected)


@pytest.mark.parametrize("case", CASES)
def test_responses_made_before_serve_any_activity(case: str) -> None:
    tree, (_, weight, filters, *bias) = build_tree(**CASES[case])
    shift = bias[0] if bias else None
    with torch.no_grad():
        merged = effective_filters(weight, filters, tree)
        assert merged.numel() == effective_filter_numbers(filters.shape, tree)
        for steps in (1, 4):
            activity = torch.rand(2, 11 + (tree.wiring.max() > 10), steps, dtype=torch.float64)
            expected = tree_sum(activity, weight, filters, shift, tree)
            results = tree_sum(activity, weight, filters, shift, tree, merged)
            torch.testing.assert_close(results, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("gradient_of", [0, 1, 2, 3])
def test_gradient_to_one_input_alone(gradient_of: int) -> None:
    tree, inputs = build_tree()
    leaves = [
        tensor.detach().requires_grad_(index == gradient_of) for index, tensor in enumerate(inputs)
    ]
    results = gradients(run(tree, *leaves), [leaves[gradient_of]])
    assert_same(results, gradients(stages(tree, *leaves), [leaves[gradient_of]]))


@pytest.mark.parametrize("case", ["claw", "no_claw", "per_dendrite"])
def test_half_precision_under_autocast(case: str) -> None:
    """An axon's gradient sums over all that listen to it: in float32, whatever is summed.

    Without the rectifier, whose gate flips where a potential near zero is rounded.
    """
    tree, inputs = build_tree(**CASES[case], linear=True)
    exact = stages(tree, *inputs)
    expected = [exact, *torch.autograd.grad(exact.sum(), inputs)]
    leaves = [tensor.detach().float().requires_grad_() for tensor in inputs]
    with torch.autocast("cpu", torch.bfloat16):
        result = run(tree, *leaves)
    results = [result, *torch.autograd.grad(result.float().sum(), leaves)]
    assert_same([tensor.double() for tensor in results], expected, 2e-2)
    assert all(tensor.dtype == torch.float32 for tensor in results[1:])


def test_any_integers_wire_a_tree_and_wrong_ones_are_named() -> None:
    tree, inputs = build_tree()
    results = run(tree._replace(wiring=tree.wiring.int()), *inputs)
    assert torch.equal(results, run(tree, *inputs))
    if state() == "on":
        with pytest.raises(IndexError, match="names axons 12 to 12; there are 12"):
            run(tree._replace(wiring=torch.full_like(tree.wiring, 12)), *inputs)


def test_an_empty_batch() -> None:
    tree, inputs = build_tree(batch=0)
    result = run(tree, *inputs)
    assert result.shape == (0, NEURONS, STEPS)
    result.sum().backward()
    assert not inputs[2].grad.any()
