"""A tree as one stage against its stages one after another, in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor

from neuroconv.kernels.conv import toeplitz as unrolled
from neuroconv.kernels.tree_sum import Tree, response_numbers, tree_current, tree_responses
from neuroconv.layers import DendriticRate, SparseSynapses, dendritic_conv, sparse_wiring

AXONS, NEURONS, SHEET = 11, 7, (4, 3)

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


def job(
    mode: Any = "same",
    claw: bool = True,
    synapses: int = 12,
    reduction: Any = "mean",
    linear: bool = False,
    bias: bool = True,
) -> tuple[Tree, list[Tensor | None]]:
    """A tree, and its weights, filters and bias."""
    torch.manual_seed(0)
    wiring = sparse_wiring(AXONS, NEURONS, synapses, SHEET, claw=claw, seed=3)
    across = SHEET[1] if mode == "per_dendrite" else 2
    columns = {"same": 3, "valid": 2, "per_dendrite": 3}[mode]
    filters = torch.randn(NEURONS, 3, 3, across, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(NEURONS, synapses, dtype=torch.float64, requires_grad=True)
    rest = torch.randn(NEURONS, columns, dtype=torch.float64, requires_grad=True)
    tree = Tree(wiring, SHEET, mode, claw, reduction, linear)
    return tree, [weight, filters, rest if bias else None]


def stages(activity: Tensor, tree: Tree, weight: Any, filters: Any, bias: Any) -> Tensor:
    """The same, stage by stage, by conv3d."""
    synapses = SparseSynapses(tree.wiring, AXONS, SHEET).double()
    sheet = torch.func.functional_call(
        synapses, {"weight": weight, "wiring": tree.wiring}, activity
    )
    potential = dendritic_conv(sheet, filters, tree.mode, "direct", bias)
    rate: Tensor = DendriticRate(tree.reduction, tree.linear)(potential)
    return rate.sum(-1)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("case", CASES)
def test_a_tree_equals_its_stages(case: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, learned = job(**CASES[case])
    activity = torch.rand(3, AXONS, steps, dtype=torch.float64, requires_grad=True)
    given = [activity, *(each for each in learned if each is not None)]
    wanted = stages(activity, tree, *learned)
    push = torch.randn_like(wanted)
    gradients = torch.autograd.grad(wanted, given, push)
    for floats in (1, 1 << 20):  # chunks of 16 neurons are whole here: a smaller least width below
        monkeypatch.setattr(unrolled, "_CHUNK_FLOATS", floats)
        monkeypatch.setattr(unrolled, "_LEAST_NEURONS", 2 if floats == 1 else 16)
        result = tree_current(activity, *learned, tree)  # type: ignore[arg-type]
        torch.testing.assert_close(result, wanted, rtol=0, atol=1e-12)
        for own, other in zip(torch.autograd.grad(result, given, push), gradients, strict=True):
            torch.testing.assert_close(own, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("case", CASES)
def test_gradcheck(case: str) -> None:
    tree, learned = job(**CASES[case])
    activity = torch.rand(2, AXONS, 4, dtype=torch.float64, requires_grad=True)
    given = [activity, *(each for each in learned if each is not None)]
    assert torch.autograd.gradcheck(
        lambda a, w, f, b=None: tree_current(a, w, f, b, tree), given, fast_mode=True
    )


@pytest.mark.parametrize("case", CASES)
def test_responses_made_before_serve_any_activity(case: str) -> None:
    tree, (weight, filters, bias) = job(**CASES[case])
    assert weight is not None
    assert filters is not None
    with torch.no_grad():
        made = tree_responses(weight, filters, tree)
        assert made.numel() == response_numbers(filters.shape, tree)
        for steps in (1, 4):
            activity = torch.rand(2, AXONS, steps, dtype=torch.float64)
            anew = tree_current(activity, weight, filters, bias, tree)
            torch.testing.assert_close(
                tree_current(activity, weight, filters, bias, tree, made), anew, rtol=0, atol=1e-12
            )


@pytest.mark.parametrize("gradient_of", [0, 1, 2, 3])
def test_gradient_to_one_input_alone(gradient_of: int) -> None:
    tree, learned = job()
    activity = torch.rand(2, AXONS, 4, dtype=torch.float64)
    given = [activity, *learned]
    leaves = [
        each.detach().requires_grad_(place == gradient_of) if each is not None else None
        for place, each in enumerate(given)
    ]
    leaf = leaves[gradient_of]
    assert leaf is not None
    (own,) = torch.autograd.grad(tree_current(*leaves, tree).sum(), leaf)  # type: ignore[arg-type]
    (other,) = torch.autograd.grad(stages(leaves[0], tree, *leaves[1:]).sum(), leaf)  # type: ignore[arg-type]
    torch.testing.assert_close(own, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("case", ["claw", "no_claw", "per_dendrite"])
def test_half_precision_under_autocast(case: str) -> None:
    """An axon's gradient sums over all that listen to it: in float32, whatever is summed.

    Without the rectifier, whose gate flips where a potential near zero is rounded.
    """
    tree, learned = job(**CASES[case], linear=True)
    exact_activity = torch.rand(4, AXONS, 5, dtype=torch.float64, requires_grad=True)
    exact = stages(exact_activity, tree, *learned)
    kept = [each for each in (exact_activity, *learned) if each is not None]
    wanted = (exact, *torch.autograd.grad(exact.sum(), kept))
    leaves = [
        None if each is None else each.detach().float().requires_grad_()
        for each in (exact_activity, *learned)
    ]
    with torch.autocast("cpu", torch.bfloat16):
        result = tree_current(*leaves, tree)  # type: ignore[arg-type]
    found = (
        result,
        *torch.autograd.grad(result.float().sum(), [x for x in leaves if x is not None]),
    )
    for own, other in zip(found, wanted, strict=True):
        assert (own.double() - other).abs().max() / other.abs().max() < 2e-2
    assert all(own.dtype == torch.float32 for own in found[1:])


def test_an_empty_batch() -> None:
    tree, learned = job()
    activity = torch.zeros(0, AXONS, 4, dtype=torch.float64)
    result = tree_current(activity, *learned, tree)  # type: ignore[arg-type]
    assert result.shape == (0, NEURONS, 4)
    result.sum().backward()
    assert learned[1] is not None
    assert not learned[1].grad.any()  # type: ignore[union-attr]


def test_responses_made_before_serve_autocast() -> None:
    tree, (weight, filters, bias) = job()
    assert weight is not None
    assert filters is not None
    activity = torch.rand(2, AXONS, 4)
    given = (weight.float(), filters.float(), None if bias is None else bias.float())
    with torch.no_grad():
        made = tree_responses(*given[:2], tree)
        wanted = tree_current(activity, *given, tree, made)
        with torch.autocast("cpu", torch.bfloat16):
            half = tree_current(activity, *given, tree, made)
    assert half.dtype == torch.bfloat16
    assert (half - wanted).abs().max() <= 2e-2 * wanted.abs().max()
