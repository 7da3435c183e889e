"""Synapses and their wiring."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neuroconv.layers import (
    DenseSynapses,
    SparseSynapses,
    parallel_wiring,
    receptive_field_wiring,
    sparse_wiring,
)


def test_sparse_equals_a_scalar_loop() -> None:
    wiring = torch.tensor([[0, 3, 3, 1, 4], [2, 2, 0, 4, 1]])
    layer = SparseSynapses(wiring, 5, (3, 2)).double()
    activity = torch.randn(2, 5, 4, dtype=torch.float64)
    sheet = layer(activity)
    assert sheet.shape == (2, 2, 4, 3, 2)
    for b, n, t, p, d in np.ndindex(*sheet.shape):
        s = d * 3 + p  # dendrite by dendrite, its sites in a row
        wanted = layer.weight[n, s] * activity[b, wiring[n, s], t] if s < 5 else torch.zeros(())
        assert sheet[b, n, t, p, d].item() == pytest.approx(wanted.item(), abs=1e-15)


def test_dense_equals_a_scalar_loop() -> None:
    layer = DenseSynapses(4, 3, (2, 3), synapses=5).double()
    activity = torch.randn(2, 4, 3, dtype=torch.float64)
    sheet = layer(activity)
    assert sheet.shape == (2, 3, 3, 2, 3)
    for b, n, t, p, d in np.ndindex(*sheet.shape):
        s = d * 2 + p
        wanted = 0.0
        if s < 5:
            wanted = sum((layer.weight[n * 5 + s, f] * activity[b, f, t]).item() for f in range(4))
        assert sheet[b, n, t, p, d].item() == pytest.approx(wanted, abs=1e-13)


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_gradcheck(kind: str) -> None:
    wiring = torch.tensor([[0, 2, 2], [1, 1, 0]])
    layer = (
        SparseSynapses(wiring, 3, (2, 2)) if kind == "sparse" else DenseSynapses(3, 2, (2, 2), 3)
    )
    layer = layer.double()
    activity = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    assert torch.autograd.gradcheck(run, (activity, layer.weight))


def test_closed_forms() -> None:
    shape = torch.Size((2, 5, 3))
    (cost,) = SparseSynapses(torch.zeros(4, 6, dtype=torch.int64), 5, (3, 2)).closed_form(shape)
    assert (dict(cost.macs), cost.pointwise, cost.synapses) == ({}, 2 * 3 * 24, 24)
    (cost,) = DenseSynapses(5, 4, (3, 2)).closed_form(shape)
    assert (dict(cost.macs), cost.pointwise, cost.synapses) == ({"matmul": 2 * 3 * 120}, 0, 120)


# --- wiring


def test_each_neuron_has_its_exact_number_of_distinct_axons() -> None:
    wiring = sparse_wiring(50, 40, 20, (5, 4), claw=False, seed=0)
    assert wiring.shape == (40, 20)
    assert wiring.dtype == torch.int64
    assert all(len(set(row.tolist())) == 20 for row in wiring)
    assert wiring.min() >= 0
    assert wiring.max() < 50


def test_axons_are_balanced_in_a_neuron_of_more_synapses_than_axons() -> None:
    wiring = sparse_wiring(7, 30, 25, (5, 5), claw=False, seed=0)
    for row in wiring:
        counts = torch.bincount(row, minlength=7)
        assert counts.max() - counts.min() <= 1


def test_axons_are_balanced_over_a_population() -> None:
    """No axon is preferred: 2,000 draws of 10 in 50 leave each within five sigma of its share."""
    counts = torch.bincount(sparse_wiring(50, 2_000, 10, (2, 5), claw=False, seed=0).flatten())
    assert ((counts - 400).abs() < 5 * (2_000 * 0.2 * 0.8) ** 0.5).all()


@pytest.mark.parametrize("synapses", [15, 16, 13])
def test_a_claw_shares_one_axon_for_each_dendrite(synapses: int) -> None:
    wiring = sparse_wiring(30, 25, synapses, (4, 4), claw=True, seed=0)
    assert wiring.shape == (25, synapses)
    for row in wiring:
        fibres = [set(row[4 * d : 4 * d + 4].tolist()) for d in range(4)]
        assert all(len(fibre) == 1 for fibre in fibres)
        assert len(set.union(*fibres)) == 4  # four dendrites, four mossy fibres


def patch_pixels(
    image_shape: tuple[int, int, int], corner: tuple[int, int, int], patch: tuple[int, int]
) -> list[int]:
    """Flat indices of a patch of one channel: column d is dendrite d, row p its site p."""
    _, height, width = image_shape
    channel, top, left = corner
    return [
        (channel * height + top + row) * width + left + col
        for col in range(patch[1])
        for row in range(patch[0])
    ]


@pytest.mark.parametrize(("image", "patch"), [((3, 7, 9), (3, 4)), ((1, 3, 4), (3, 4))])
def test_a_receptive_field_is_a_patch_of_one_channel(
    image: tuple[int, int, int], patch: tuple[int, int]
) -> None:
    wiring = receptive_field_wiring(image, 60, 12, patch, patch=None, claw=False, seed=0)
    channels, height, width = image
    places = [
        patch_pixels(image, (c, y, x), patch)
        for c in range(channels)
        for y in range(height - patch[0] + 1)
        for x in range(width - patch[1] + 1)
    ]
    seen = [row.tolist() for row in wiring]
    assert all(row in places for row in seen)
    assert len({tuple(row) for row in seen}) > min(10, len(places) - 1)  # patches lie all over


def test_a_clawed_receptive_field_has_a_pixel_for_each_dendrite() -> None:
    image, patch = (2, 6, 6), (3, 3)
    wiring = receptive_field_wiring(image, 50, 15, (4, 4), patch=patch, claw=True, seed=0)
    patches = [
        set(patch_pixels(image, (c, y, x), patch))
        for c in range(2)
        for y in range(4)
        for x in range(4)
    ]
    for row in wiring:
        pixels = [set(row[4 * d : 4 * d + 4].tolist()) for d in range(4)]
        assert all(len(pixel) == 1 for pixel in pixels)
        assert len(set.union(*pixels)) == 4
        assert any(set.union(*pixels) <= place for place in patches)


def test_a_clawed_patch_of_fewer_pixels_than_dendrites_repeats_them_evenly() -> None:
    wiring = receptive_field_wiring((1, 5, 5), 20, 5, (1, 5), patch=(1, 2), claw=True, seed=0)
    for row in wiring:
        counts = torch.unique(row, return_counts=True)[1]
        assert sorted(counts.tolist()) == [2, 3]


def draw(kind: str, seed: int) -> Tensor:
    if kind == "sparse":
        return sparse_wiring(50, 20, 15, (4, 4), claw=True, seed=seed)
    return receptive_field_wiring((1, 9, 9), 20, 16, (4, 4), patch=None, claw=False, seed=seed)


@pytest.mark.parametrize("kind", ["sparse", "receptive_field"])
def test_wiring_depends_on_its_seed_alone(kind: str) -> None:
    first = draw(kind, 5)
    torch.manual_seed(2)
    state, of_numpy = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    assert torch.equal(draw(kind, 5), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], of_numpy)  # noqa: NPY002
    assert not torch.equal(draw(kind, 6), first)


@pytest.mark.parametrize("kind", ["sparse", "receptive_field"])
def test_on_meta_no_wiring_is_drawn(kind: str) -> None:
    with torch.device("meta"):
        wiring = draw(kind, 0)
    assert wiring.is_meta
    assert wiring.shape == draw(kind, 0).shape
    assert wiring.dtype == torch.int64


# --- errors


def field(
    image_shape: tuple[int, int, int], patch: tuple[int, int] | None, seed: int = 0
) -> Tensor:
    return receptive_field_wiring(image_shape, 2, 16, (4, 4), patch=patch, claw=False, seed=seed)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DenseSynapses(0, 2, (2, 2)), "in_features=0; expected positive"),
        (lambda: DenseSynapses(3, 0, (2, 2)), "neurons=0; expected positive"),
        (lambda: DenseSynapses(3, 2, (2, 0)), r"sheet_shape=\(2, 0\); expected positive"),
        (lambda: DenseSynapses(3, 2, (2, 2), 0), "synapses=0; expected 1 to 4"),
        (lambda: DenseSynapses(3, 2, (2, 2), 5), "synapses=5; expected 1 to 4, .* 2 sites x 2"),
        (lambda: SparseSynapses(torch.zeros(2, 5, dtype=torch.int64), 3, (2, 2)), "synapses=5"),
        (lambda: SparseSynapses(torch.full((2, 3), 3), 3, (2, 2)), "axons 3 to 3; expected 0 to 2"),
        (lambda: SparseSynapses(torch.full((2, 3), -1), 3, (2, 2)), "axons -1 to -1; expected 0"),
        (lambda: SparseSynapses(torch.zeros(2, 3), 3, (2, 2)), "wiring is torch.float32 .*integ"),
        (
            lambda: SparseSynapses(torch.zeros(3, dtype=torch.int64), 3, (2, 2)),
            r"of shape \(3,\); expected integers \(neurons, synapses\)",
        ),
        (lambda: sparse_wiring(9, 2, 4, (2, 2), claw=True, seed=-1), "seed=-1; expected"),
        (lambda: field((1, 9, 9), None, seed=-1), "seed=-1; expected"),
        (
            lambda: field((1, 3, 9), None),
            "4 x 4 pixels does not fit into an image of 3 x 9; make the patch smaller",
        ),
        (
            lambda: field((1, 9, 9), (3, 3)),
            r"patch \(3, 3\) differs from the sheet \(4, 4\).*claw=True",
        ),
    ],
)  # fmt: skip
def test_constructor_errors(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 5), (2, 3, 5, 1)])
def test_call_errors(shape: tuple[int, ...]) -> None:
    wiring = torch.zeros(2, 4, dtype=torch.int64)
    for layer in (SparseSynapses(wiring, 3, (2, 2)), DenseSynapses(3, 2, (2, 2))):
        with pytest.raises(ValueError, match=r"expected \(batch, 3 axons, time_steps\)"):
            layer(torch.zeros(shape))


def test_parallel_wiring_lays_all_axons_in_order_over_every_tree() -> None:
    for axons, synapses in ((4, 12), (7, 12), (12, 12), (30, 12)):
        wiring = parallel_wiring(axons, 3, synapses)
        assert wiring.shape == (3, synapses)
        assert (wiring == wiring[0]).all()
        assert wiring[0].tolist() == [int(s * axons / synapses) for s in range(synapses)]
        counts = wiring[0].bincount(minlength=axons)
        assert counts.max() - counts.min() <= 1
    with torch.device("meta"):
        assert parallel_wiring(5, 2, 8).is_meta
