"""Wiring: the axon of each synapse, and which axons excite."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neuroconv.layers import (
    DendriticFields,
    InOrder,
    ParallelFibres,
    Random,
    ReceptiveField,
    TreeShape,
)
from neuroconv.layers.wiring import dale_signs

TREE = TreeShape((4, 4))


def test_axons_are_balanced_over_a_population() -> None:
    """No axon is preferred: 2,000 draws of 10 in 50 leave each within five sigma of its share."""
    wiring = Random(claw=False, seed=0).axons(50, 2_000, TreeShape((2, 5), synapses=10))
    counts = torch.bincount(wiring.flatten())
    assert ((counts - 400).abs() < 5 * (2_000 * 0.2 * 0.8) ** 0.5).all()


@pytest.mark.parametrize("synapses", [15, 16, 13])
def test_a_claw_shares_one_axon_for_each_dendrite(synapses: int) -> None:
    wiring = Random(claw=True, seed=0).axons(30, 25, TreeShape((4, 4), synapses=synapses))
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
    wiring = ReceptiveField(image).axons(math.prod(image), 60, TreeShape(patch, synapses=12))
    channels, height, width = image
    patches = [
        patch_pixels(image, (c, y, x), patch)
        for c in range(channels)
        for y in range(height - patch[0] + 1)
        for x in range(width - patch[1] + 1)
    ]
    rows = [row.tolist() for row in wiring]
    assert all(row in patches for row in rows)
    assert len({tuple(row) for row in rows}) > min(10, len(patches) - 1)  # patches lie all over


def test_a_clawed_receptive_field_has_a_pixel_for_each_dendrite() -> None:
    image, patch = (2, 6, 6), (3, 3)
    wiring = ReceptiveField(image, patch, True).axons(72, 50, TreeShape((4, 4), synapses=15))
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
        assert any(set.union(*pixels) <= pixels_of_patch for pixels_of_patch in patches)


def test_a_clawed_patch_of_fewer_pixels_than_dendrites_repeats_them_evenly() -> None:
    for row in ReceptiveField((1, 5, 5), (1, 2), True).axons(25, 20, TreeShape((1, 5))):
        counts = torch.unique(row, return_counts=True)[1]
        assert sorted(counts.tolist()) == [2, 3]


def test_a_dendritic_field_is_a_patch_for_each_dendrite() -> None:
    image, patch, tree = (2, 6, 7), (3, 2), TreeShape((5, 4), synapses=18)
    wiring = DendriticFields(image, patch).axons(84, 150, tree)
    patches = [
        set(patch_pixels(image, (c, y, x), patch))
        for c in range(2)
        for y in range(4)
        for x in range(6)
    ]
    fields = [set(dendrite.tolist()) for row in wiring for dendrite in row.split(5)]
    assert [len(field) for field in fields[:4]] == [5, 5, 5, 3]
    places = [[n for n, pixels in enumerate(patches) if field <= pixels] for field in fields]
    assert all(places)
    assert len({n for place in places for n in place}) == len(patches)  # every position occurs


def draw(kind: str, seed: int) -> Tensor:
    if kind == "parallel_fibre":
        return ParallelFibres(8, seed=seed).axons(50, 20, TreeShape((15, 1)))
    if kind == "dale":
        return dale_signs(50, 0.8, seed)
    if kind == "sparse":
        return Random(claw=True, seed=seed).axons(50, 20, TreeShape((4, 4), synapses=15))
    if kind == "dendritic_fields":
        return DendriticFields((1, 9, 9), (5, 4), seed=seed).axons(81, 20, TREE)
    return ReceptiveField((1, 9, 9), seed=seed).axons(81, 20, TREE)


DRAWN = ["sparse", "receptive_field", "dendritic_fields", "parallel_fibre", "dale"]


@pytest.mark.parametrize("kind", DRAWN)
def test_wiring_depends_on_its_seed_alone(kind: str) -> None:
    first = draw(kind, 5)
    torch.manual_seed(2)
    state, of_numpy = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    assert torch.equal(draw(kind, 5), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], of_numpy)  # noqa: NPY002
    assert not torch.equal(draw(kind, 6), first)


@pytest.mark.parametrize("kind", DRAWN)
def test_on_meta_no_wiring_is_drawn(kind: str) -> None:
    with torch.device("meta"):
        wiring = draw(kind, 0)
    assert wiring.is_meta
    assert wiring.shape == draw(kind, 0).shape
    assert wiring.dtype == draw(kind, 0).dtype


def test_parallel_wiring_lays_all_axons_in_order_over_every_tree() -> None:
    for axons, synapses in ((4, 12), (7, 12), (12, 12), (30, 12)):
        wiring = InOrder().axons(axons, 3, TreeShape((synapses, 1)))
        assert wiring.shape == (3, synapses)
        assert (wiring == wiring[0]).all()
        assert wiring[0].tolist() == [int(s * axons / synapses) for s in range(synapses)]
        counts = wiring[0].bincount(minlength=axons)
        assert counts.max() - counts.min() <= 1
    with torch.device("meta"):
        assert InOrder().axons(5, 2, TreeShape((8, 1))).is_meta


def test_fewer_synapses_than_places_fill_the_sheet_dendrite_by_dendrite() -> None:
    """Four synapses on 4 x 4 places all sit on the first dendrite: a claw has one fibre to grip."""
    for row in Random(claw=True, seed=0).axons(30, 10, TreeShape((4, 4), synapses=4)):
        assert len(set(row.tolist())) == 1
    for row in Random(claw=True, seed=0).axons(30, 10, TreeShape((4, 4), synapses=6)):
        assert len(set(row[:4].tolist())) == len(set(row[4:].tolist())) == 1
        assert row[0] != row[4]


# --- parallel fibres


@pytest.mark.parametrize("crossed", [None, 6, 25, 100])
def test_a_fibre_makes_one_synapse_with_each_cell_at_most(crossed: int | None) -> None:
    wiring = ParallelFibres(crossed, seed=0).axons(2_000, 20, TreeShape((150, 1)))
    assert wiring.shape == (20, 150)
    assert wiring.dtype == torch.int64
    assert wiring.min() >= 0
    assert wiring.max() < 2_000
    assert all(len(set(row.tolist())) == 150 for row in wiring)
    assert torch.equal(wiring, wiring.sort(dim=1).values)  # the order of the cross-section


def crossings(fibres: int, cells: int, crossed: int, seed: int) -> Tensor:
    """(cells, fibres): which cross. With as many synapses as fibres every crossing is a synapse."""
    wiring = ParallelFibres(crossed, seed=seed).axons(fibres, cells, TreeShape((fibres, 1)))
    crosses = torch.zeros(cells, fibres, dtype=torch.bool)
    return crosses.scatter(1, wiring, True)


@pytest.mark.parametrize("crossed", [1, 2, 5, 6, 11, 30])
def test_a_fibre_crosses_neighbours_and_is_clipped_at_the_ends_of_the_row(crossed: int) -> None:
    cells = range(12)
    spans = [
        {cell for cell in cells if middle - (crossed - 1) // 2 <= cell <= middle + crossed // 2}
        for middle in cells
    ]
    crosses = crossings(200, 12, crossed, seed=3)
    rows = [set(column.nonzero().flatten().tolist()) for column in crosses.T]
    assert all(span in spans for span in rows)
    assert all(span in rows for span in spans)  # fibres lie all along the row


@pytest.mark.parametrize("crossed", [1, 3, 8])
def test_only_cells_in_the_span_of_a_fibre_listen_to_it(crossed: int) -> None:
    crosses = crossings(3_000, 15, crossed, seed=1)
    wiring = ParallelFibres(crossed, seed=1).axons(3_000, 15, TreeShape((100, 1)))  # the same ones
    assert crosses.gather(1, wiring).all()
    assert not crosses.all()


@pytest.mark.parametrize("crossed", [None, 1_000])
def test_fibres_longer_than_the_row_cross_all_of_it(crossed: int | None) -> None:
    wiring = ParallelFibres(crossed, seed=0).axons(40, 9, TreeShape((40, 1)))
    assert torch.equal(wiring, InOrder().axons(40, 9, TreeShape((40, 1))))


@pytest.mark.parametrize("rule", [ParallelFibres(seed=0), Random(claw=False, seed=0)], ids=repr)
@pytest.mark.parametrize("synapses", [20, 50, 75, 130])
def test_axons_repeat_evenly_only_when_they_are_too_few(rule: Any, synapses: int) -> None:
    for row in rule.axons(50, 10, TreeShape((synapses, 1))):
        counts = torch.bincount(row, minlength=50)
        assert counts.max() - counts.min() <= 1
        assert counts.min() == synapses // 50


def test_out_degrees_of_fibres_that_cross_all() -> None:
    """Each cell takes a fibre with probability S / F: out-degrees are binomial over the cells."""
    fibres, cells, synapses = 4_000, 60, 1_000
    wiring = ParallelFibres(seed=0).axons(fibres, cells, TreeShape((synapses, 1)))
    degrees = torch.bincount(wiring.flatten(), minlength=fibres).double()
    share = synapses / fibres
    assert degrees.mean().item() == cells * share
    variance = cells * share * (1 - share)
    # The spread of a sample variance is near sqrt(2 / F) of it: 0.022.
    assert degrees.var().item() == pytest.approx(variance, rel=5 * (2 / fibres) ** 0.5)


def test_out_degrees_of_shorter_fibres() -> None:
    """Inside the row a cell draws S of the F * crossed / N fibres that cross it."""
    fibres, cells, synapses, crossed = 8_000, 100, 400, 20
    wiring = ParallelFibres(crossed, seed=0).axons(fibres, cells, TreeShape((synapses, 1)))
    degrees = torch.bincount(wiring.flatten(), minlength=fibres).double()
    assert degrees.mean().item() == cells * synapses / fibres
    crosses = crossings(fibres, cells, crossed, seed=0)
    inside = degrees[crosses[30:70].sum(0) == crossed]  # whole fibres, away from the ends
    share = synapses / (fibres * crossed / cells)
    assert inside.mean().item() == pytest.approx(crossed * share, rel=0.05)
    assert inside.var().item() == pytest.approx(crossed * share * (1 - share), rel=0.2)


# --- Dale's law


@pytest.mark.parametrize(
    ("axons", "excitatory", "expected"),
    [(1_000, 0.85, 850), (1_000, 0.8, 800), (7, 0.5, 4), (3, 0.9, 3), (10, 0, 0), (10, 1.0, 10)],
)
def test_the_number_of_axons_that_excite_is_exact(
    axons: int, excitatory: float, expected: int
) -> None:
    for seed in range(3):
        signs = dale_signs(axons, excitatory, seed)
        assert signs.dtype == torch.int8
        assert signs.shape == (axons,)
        assert int((signs == 1).sum()) == expected
        assert int((signs == -1).sum()) == axons - expected


def test_every_axon_may_excite() -> None:
    """2,000 draws of 20 in 50 leave each axon within five sigma of its share."""
    counts = sum((dale_signs(50, 0.4, seed) == 1).int() for seed in range(2_000))
    assert isinstance(counts, Tensor)
    assert ((counts - 800).abs() < 5 * (2_000 * 0.4 * 0.6) ** 0.5).all()


def test_signs_are_independent_of_a_wiring_of_the_same_seed() -> None:
    """A neuron hears excitation and inhibition in proportion, also the first to be wired."""
    presynaptic = [
        dale_signs(1_000, 0.5, seed)[Random(seed=seed).axons(1_000, 1, TreeShape((10, 10)))]
        for seed in range(20)
    ]
    assert abs(torch.stack(presynaptic).double().mean().item()) < 5 / 2_000**0.5


# --- errors


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Random(seed=-1).axons(9, 2, TREE), "seed=-1; expected"),
        (lambda: Random().axons(0, 2, TREE), "in_features=0; expected an integer"),
        (lambda: Random().axons(9, 0, TREE), "neurons=0; expected an integer"),
        (lambda: ReceptiveField((1, 3, 9)).axons(27, 2, TREE), r"fit into image_shape=\(1, 3, 9\)"),
        (lambda: ReceptiveField((1, 9, 9), (3, 3)).axons(81, 2, TREE), r"\(3, 3\) differs from"),
        (lambda: DendriticFields((1, 9, 9), (10, 3)).axons(81, 2, TREE), r"\(10, 3\) does not fit"),
        (lambda: ParallelFibres(0), "neurons_per_fibre=0; expected an integer"),
        (lambda: ParallelFibres(1).axons(1, 3, TREE), "fibre=1: in_features=1 fibres leave 2 of 3"),
        (lambda: dale_signs(0, 0.8, 0), "in_features=0; expected an integer"),
        (lambda: dale_signs(9, 80, 0), r"excitatory=80; expected a finite number from 0 to 1"),
    ],
)  # fmt: skip
def test_errors(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
