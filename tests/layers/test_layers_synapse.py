"""Synapses: free weights, vesicles x receptors, Dale's law, several transmitters."""

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroconv.kernels import stages
from neuroconv.kernels.operator import kernels_off
from neuroconv.layers import DenseSynapses, SparseSynapses, TreeShape
from neuroconv.layers.wiring import dale_signs

KINDS = ("sparse", "dense")
COMBINATIONS = list(product(KINDS, (False, True), (False, True), (1, 3)))
every = pytest.mark.parametrize(("kind", "dale", "vesicles", "transmitters"), COMBINATIONS)

WIRING = torch.tensor([[0, 3, 3, 1, 4], [2, 2, 0, 4, 1]])
SIGNS = torch.tensor([1, -1, 1, 1, -1], dtype=torch.int8)


def synapses(kind: str, dale: bool, vesicles: bool, transmitters: int) -> Any:
    """Two neurons of five synapses on a sheet of 3 sites x 2 dendrites; five axons."""
    signs = SIGNS if dale else None
    options: Any = {"signs": signs, "factorized": vesicles, "transmitters": transmitters}
    if kind == "sparse":
        return SparseSynapses(WIRING, 5, (3, 2), **options)
    return DenseSynapses(5, 2, TreeShape((3, 2), synapses=5), **options)


@every
def test_the_batch_is_innermost(kind: str, dale: bool, vesicles: bool, transmitters: int) -> None:
    """As `dendritic_conv` reads it: neurons, dendrites, sites, steps, batch, without a copy."""
    sheet = synapses(kind, dale, vesicles, transmitters)(torch.randn(3, 5, 4))
    assert sheet.permute(1, 4, 3, 2, 0).is_contiguous()


# --- vesicles and receptors


@pytest.mark.parametrize("transmitters", [1, 2])
def test_the_first_product_lies_in_the_range_of_the_first_weight(transmitters: int) -> None:
    wiring = torch.zeros(100, 60, dtype=torch.int64)
    sparse = SparseSynapses(wiring, 1, (6, 10), factorized=True, transmitters=transmitters)
    weight = sparse.effective_weight()
    assert weight.min() >= 0.5
    assert weight.max() <= 1.5
    assert weight.max() - weight.min() > 0.9
    dense = DenseSynapses(64, 20, (5, 5), factorized=True, transmitters=transmitters)
    assert dense.effective_weight().square().mean().item() == pytest.approx(1 / 64, rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_vesicles_and_receptors_start_apart(kind: str) -> None:
    """Two equal factors would get equal gradients for ever and be one."""
    layer = synapses(kind, False, True, 1)
    assert not torch.isclose(layer.vesicles, layer.receptors).any()


# --- Dale's law


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vesicles", [False, True])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-6, 1e6), excitatory=st.floats(0, 1))
def test_dale_holds_whatever_the_weights(
    kind: str, vesicles: bool, seed: int, scale: float, excitatory: float
) -> None:
    signs = dale_signs(8, excitatory, seed)
    generator = torch.Generator().manual_seed(seed)
    wiring = torch.randint(8, (3, 5), generator=generator)
    options: Any = {"signs": signs, "factorized": vesicles, "transmitters": 2}
    layer: Any = (
        SparseSynapses(wiring, 8, (2, 3), **options)
        if kind == "sparse"
        else DenseSynapses(8, 3, TreeShape((2, 3), synapses=5), **options)
    )
    optimiser = torch.optim.SGD(layer.parameters(), lr=3.0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=scale, generator=generator)
    (layer(torch.rand(4, 8, 2, generator=generator)) / scale).square().sum().backward()
    for _ in range(2):  # before the step and after
        effects = layer(torch.eye(8).unsqueeze(2))  # sample f: axon f alone is active
        excites = signs == 1
        assert (effects[excites] >= 0).all()
        assert (effects[~excites] <= 0).all()
        optimiser.step()


# --- errors


def of(**settings: Any) -> SparseSynapses:
    return SparseSynapses(WIRING, 5, (3, 2), **settings)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DenseSynapses(0, 2, (2, 2)), "in_features=0; expected an integer"),
        (lambda: DenseSynapses(3, 0, (2, 2)), "neurons=0; expected an integer"),
        (lambda: TreeShape((2, 2), synapses=5), "synapses=5; expected 1 to 4, the positions of"),
        (lambda: SparseSynapses(WIRING, 5, (2, 2)), "synapses=5"),
        (lambda: SparseSynapses(WIRING[0], 5, (3, 2)), r"of shape \(5,\); expected integers"),
        (lambda: SparseSynapses(torch.full((2, 3), 3), 3, (2, 2)), "axons 3 to 3; expected 0 to 2"),
        (lambda: SparseSynapses(torch.zeros(2, 3), 3, (2, 2)), "wiring is torch.float32 .*integ"),
        (lambda: of(transmitters=0), "transmitters=0; expected an integer"),
        (lambda: of(signs=torch.ones(4)), r"signs has shape \(4,\); expected .* each of 5 axons"),
        (lambda: of(signs=torch.tensor([1, -1, 0, 1, 1])), r"signs holds 0; expected \+1 or -1"),
        (lambda: DenseSynapses(3, 2, (2, 2), signs=torch.ones(2)), "each of 3 axons"),
    ],
)  # fmt: skip
def test_constructor_errors(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_signs_that_are_no_tensor() -> None:
    with pytest.raises(TypeError, match=r"signs=\[1, -1, 1, 1, 1\]; expected a Tensor"):
        of(signs=[1, -1, 1, 1, 1])


@pytest.mark.parametrize("shape", [(2, 5), (2, 4, 5), (2, 5, 0), (2, 5, 5, 1)])
def test_call_errors(shape: tuple[int, ...]) -> None:
    for kind in KINDS:
        with pytest.raises(ValueError, match=r"expected \(batch, 5 axons, time_steps\)"):
            synapses(kind, False, False, 1)(torch.zeros(shape))


@pytest.mark.parametrize("needs", [(True, True), (True, False), (False, True)])
def test_a_large_sheet_runs_some_synapses_at_a_time(
    needs: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, ...]] = []
    run = stages._release_blocks
    monkeypatch.setattr(stages, "_CACHED_NUMBERS", 100)  # a block has two synapses
    monkeypatch.setattr(stages, "_release_blocks", lambda *x: calls.append(x[1].shape) or run(*x))
    wiring = torch.randint(0, 5, (3, 7))
    synapses = SparseSynapses(wiring, 5, (7, 1)).double()
    synapses.weight.requires_grad_(needs[1])
    activity = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=needs[0])
    inputs = [x for x, needed in zip((activity, synapses.weight), needs, strict=True) if needed]

    def step() -> list[torch.Tensor]:
        sheet = synapses(activity)
        push = torch.linspace(-1, 1, sheet.numel(), dtype=sheet.dtype).view(sheet.shape)
        grads = torch.autograd.grad((sheet * push).square().sum(), inputs, create_graph=True)
        again = torch.autograd.grad(sum(grad.square().sum() for grad in grads), inputs)
        return [sheet, *grads, *again]

    results = step()
    assert calls == [(3, 7)]
    with kernels_off():
        for result, expected in zip(results, step(), strict=True):
            torch.testing.assert_close(result, expected)
    assert len(calls) == 1
