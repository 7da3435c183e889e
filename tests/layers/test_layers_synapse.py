"""Synapses: free weights, vesicles x receptors, Dale's law, several transmitters."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
    if kind == "sparse":
        return SparseSynapses(
            WIRING, 5, (3, 2), signs=signs, factorized=vesicles, transmitters=transmitters
        )
    return DenseSynapses(
        5,
        2,
        TreeShape((3, 2), synapses=5),
        signs=signs,
        factorized=vesicles,
        transmitters=transmitters,
    )


def wild(layer: Any) -> Any:
    """The layer in float64 with weights of either sign, whatever it was initialised with."""
    layer = layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer


def weight_by_formula(layer: Any, row: int, column: int, axon: int) -> float:
    if layer.vesicles is not None:
        weight = abs(layer.vesicles[row, column].item()) * abs(layer.receptors[row, column].item())
    else:
        weight = layer.weight[row, column].item()
    return weight if layer.signs is None else abs(weight) * int(SIGNS[axon])


@every
def test_equals_a_scalar_loop(kind: str, dale: bool, vesicles: bool, transmitters: int) -> None:
    layer = wild(synapses(kind, dale, vesicles, transmitters))
    activity = torch.randn(2, 5, 4, dtype=torch.float64)
    sheet = layer(activity)
    assert sheet.shape == (2, 2 * transmitters, 4, 3, 2)
    for b, channel, t, p, d in np.ndindex(*sheet.shape):
        neuron, s = channel // transmitters, d * 3 + p  # dendrite by dendrite, its sites in a row
        wanted = 0.0  # the sixth place has no synapse
        if s < 5 and kind == "sparse":
            axon = int(WIRING[neuron, s])
            wanted = weight_by_formula(layer, channel, s, axon) * activity[b, axon, t].item()
        elif s < 5:
            wanted = sum(
                weight_by_formula(layer, channel * 5 + s, axon, axon) * activity[b, axon, t].item()
                for axon in range(5)
            )
        assert sheet[b, channel, t, p, d].item() == pytest.approx(wanted, abs=1e-13)
    weight = layer.effective_weight()
    assert weight.shape == ((2 * transmitters, 5) if kind == "sparse" else (10 * transmitters, 5))
    for row, column in np.ndindex(*weight.shape):
        axon = int(WIRING[row // transmitters, column]) if kind == "sparse" else column
        wanted = weight_by_formula(layer, row, column, axon)
        assert weight[row, column].item() == pytest.approx(wanted, abs=1e-15)


def test_closed_forms_by_hand() -> None:
    """B * T = 6, 24 synapses (sparse) or 120 weights (dense), twice for two transmitters.

    A weight takes an absolute value and a sign under Dale's law, and a product with vesicles.
    """
    shape, signs = torch.Size((2, 5, 3)), torch.ones(5)
    wiring = torch.zeros(4, 6, dtype=torch.int64)
    (cost,) = SparseSynapses(wiring, 5, (3, 2)).closed_form(shape)
    assert (dict(cost.macs), cost.pointwise, cost.synapses) == ({}, 6 * 24, 24)
    layer = SparseSynapses(wiring, 5, (3, 2), signs=signs, factorized=True, transmitters=2)
    (cost,) = layer.closed_form(shape)
    assert (dict(cost.macs), cost.pointwise, cost.synapses) == ({}, 2 * (6 * 24 + 3 * 24), 24)
    (cost,) = DenseSynapses(5, 4, (3, 2)).closed_form(shape)
    assert (dict(cost.macs), cost.pointwise, cost.synapses) == ({"matmul": 6 * 120}, 0, 120)
    (cost,) = DenseSynapses(5, 4, (3, 2), signs=signs, transmitters=2).closed_form(shape)
    assert (dict(cost.macs), cost.pointwise, cost.synapses) == ({"matmul": 1440}, 2 * 240, 120)


@every
def test_the_batch_is_innermost(kind: str, dale: bool, vesicles: bool, transmitters: int) -> None:
    """As `dendritic_conv` reads it: neurons, dendrites, sites, steps, batch, without a copy."""
    sheet = synapses(kind, dale, vesicles, transmitters)(torch.randn(3, 5, 4))
    assert sheet.permute(1, 4, 3, 2, 0).is_contiguous()


@pytest.mark.parametrize("kind", KINDS)
def test_no_buffer_is_larger_than_the_synapses(kind: str) -> None:
    layer = synapses(kind, True, True, 3)
    shapes = {name: (buffer.dtype, buffer.shape) for name, buffer in layer.named_buffers()}
    wiring = {"wiring": (torch.int64, (2, 5))} if kind == "sparse" else {}
    assert shapes == {"signs": (torch.int8, (5,)), **wiring}
    assert layer.transmitters == 3
    assert layer.synapses == 5


# --- transmitters


# --- vesicles and receptors


@pytest.mark.parametrize("transmitters", [1, 2])
def test_the_first_product_lies_in_the_range_of_the_first_weight(transmitters: int) -> None:
    wiring = torch.zeros(100, 60, dtype=torch.int64)
    weight = SparseSynapses(
        wiring, 1, (6, 10), factorized=True, transmitters=transmitters
    ).effective_weight()
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
    layer: SparseSynapses | DenseSynapses = (
        SparseSynapses(wiring, 8, (2, 3), signs=signs, factorized=vesicles, transmitters=2)
        if kind == "sparse"
        else DenseSynapses(
            8, 3, TreeShape((2, 3), synapses=5), signs=signs, factorized=vesicles, transmitters=2
        )
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


def test_repr_names_what_differs_from_the_plain_layer() -> None:
    plain, full = synapses("sparse", False, False, 1), synapses("sparse", True, True, 3)
    assert plain.extra_repr().endswith("synapses=5")
    assert full.extra_repr().endswith("synapses=5, signs, factorized=True, transmitters=3")


# --- errors


def of(**settings: Any) -> SparseSynapses:
    return SparseSynapses(WIRING, 5, (3, 2), **settings)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DenseSynapses(0, 2, (2, 2)), "in_features=0; expected positive"),
        (lambda: DenseSynapses(3, 0, (2, 2)), "neurons=0; expected positive"),
        (lambda: DenseSynapses(3, 2, (2, 0)), r"sheet=\(2, 0\); expected positive"),
        (lambda: TreeShape((2, 2), synapses=0), "synapses=0; expected 1 to 4"),
        (lambda: TreeShape((2, 2), synapses=5), "synapses=5; expected 1 to 4, .* 2 sites x 2"),
        (lambda: SparseSynapses(torch.zeros(2, 5, dtype=torch.int64), 3, (2, 2)), "synapses=5"),
        (lambda: SparseSynapses(torch.full((2, 3), 3), 3, (2, 2)), "axons 3 to 3; expected 0 to 2"),
        (lambda: SparseSynapses(torch.full((2, 3), -1), 3, (2, 2)), "axons -1 to -1; expected 0"),
        (lambda: SparseSynapses(torch.zeros(2, 3), 3, (2, 2)), "wiring is torch.float32 .*integ"),
        (
            lambda: SparseSynapses(torch.zeros(3, dtype=torch.int64), 3, (2, 2)),
            r"of shape \(3,\); expected integers \(neurons, synapses\)",
        ),
        (lambda: of(transmitters=0), "transmitters=0; expected positive"),
        (lambda: of(transmitters=True), "transmitters=True; expected positive"),
        (lambda: of(signs=torch.ones(4)), r"signs has shape \(4,\); expected .* each of 5 axons"),
        (lambda: of(signs=torch.ones(2, 5)), r"signs has shape \(2, 5\); expected \+1 or -1"),
        (
            lambda: of(signs=torch.tensor([1, -1, 0, 1, 1])),
            r"signs holds 0; expected \+1 or -1 for each of 5 axons, as `dale_signs` draws them",
        ),
        (lambda: of(signs=torch.full((5,), 0.5)), "signs holds 0.5; expected"),
        (lambda: of(signs=torch.full((5,), torch.nan)), "signs holds nan; expected"),
        (lambda: of(signs=torch.zeros(5, dtype=torch.bool)), "signs holds False; expected"),
        (lambda: DenseSynapses(3, 2, (2, 2), signs=torch.ones(2)), "each of 3 axons"),
        (lambda: DenseSynapses(3, 2, (2, 2), transmitters=-1), "transmitters=-1; expected"),
    ],
)  # fmt: skip
def test_constructor_errors(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_signs_that_are_no_tensor() -> None:
    with pytest.raises(TypeError, match=r"signs=\[1, -1, 1, 1, 1\] is no tensor; expected"):
        of(signs=[1, -1, 1, 1, 1])


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 5), (2, 3, 5, 1)])
def test_call_errors(shape: tuple[int, ...]) -> None:
    wiring = torch.zeros(2, 4, dtype=torch.int64)
    for layer in (SparseSynapses(wiring, 3, (2, 2)), DenseSynapses(3, 2, (2, 2))):
        with pytest.raises(ValueError, match=r"expected \(batch, 3 axons, time_steps\)"):
            layer(torch.zeros(shape))
