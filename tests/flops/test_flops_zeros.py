"""Zeros multiplied for speed: counted where they stand in a kernel or a matrix."""

from math import prod

import pytest
import torch
from torch import nn

from neuroconv import GranuleConv2d, create_model, profile
from neuroconv.flops import count_exact, stage_table, summary_table
from neuroconv.kernels.conv.sizes import MODES, Mode
from neuroconv.layers import DendriticConv, SomaFilter, TreeShape
from tests.flops.test_flops_profile import rendered


@pytest.mark.parametrize("wiring", ["dense", "claw"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("time_steps", [1, 5])
@pytest.mark.parametrize("steps", [5, 9])
def test_an_image_layers_zeros_are_those_of_its_kernel(
    wiring: str, groups: int, time_steps: int, steps: int
) -> None:
    layer = GranuleConv2d(6, 12, (3, 2), groups=groups, time_steps=time_steps, wiring=wiring)
    nn.init.ones_(layer.weight)
    images, positions = torch.zeros(2, 6, steps, 5, 7), 3 * 6
    (cost,) = (row for row in layer.closed_form(images.shape) if row.stage == "dendrites")
    kernel = layer.kernel()  # (U, C, K_T, K_H, K_W)
    wired = int(torch.count_nonzero(kernel)) * 2 * steps * positions
    assert cost.direct == cost.executed - cost.zeros == wired
    # Time is folded into channels, where all steps meet all steps; a claw reads its taps alone.
    products = kernel.numel() * 2 * steps * positions * (1 if time_steps == 1 else steps / 5)
    assert cost.executed == (wired if wiring == "claw" else products)
    assert (cost.zeros > 0) is (wiring != "claw" and products > wired)
    macs = count_exact(layer, images).macs
    assert macs["convolution"] == cost.executed


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("sheet", "taps"), [((5, 4), (3, 4)), ((4, 6), (2, 6)), ((6, 3), (1, 3))])
def test_a_toeplitz_matrix_has_a_zero_where_no_tap_connects(
    mode: Mode, sheet: tuple[int, int], taps: tuple[int, int]
) -> None:
    layer = DendriticConv(1, TreeShape(sheet, (*taps, 3), mode=mode), bias=False)
    nn.init.ones_(layer.weight)
    impulses = torch.eye(prod(sheet)).view(-1, 1, 1, *sheet)
    connected = int(torch.count_nonzero(layer(impulses)))
    layer.backend = "matmul"
    (cost,) = layer.closed_form(torch.Size((2, 1, 4, *sheet)))
    of_a_dendrite = sheet[1] if mode == "per_dendrite" else 1  # which has a matrix of its own
    pairs = prod(sheet) * prod(layer.tree.out) // of_a_dendrite
    steps = 1 + 2 + 3 + 3  # that the four outputs read
    if mode == "valid" and cost.executed < 2 * steps * pairs:  # of full width, without zeros
        pairs = connected
    assert cost.zeros == 2 * steps * (pairs - connected)


def test_a_somas_matrix_has_zeros_beyond_its_taps() -> None:
    zeros = [SomaFilter(5).closed_form(torch.Size((2, 3, n)))[0].zeros for n in (2, 5, 9)]
    assert zeros == [0, 0, 2 * 3 * 9 * 4]


def test_a_claws_network_multiplies_by_no_zeros() -> None:
    images = torch.zeros(1, 1, 28, 28)
    record = profile(create_model("granule_convnet"), images)
    assert record.dendritic_mac("zeros") == 0
    assert record.dendritic_mac("direct") == record.dendritic_mac("executed")
    assert record.dendritic_mac_per_neuron("executed") == 12 * 5 * 5  # positions, lags, steps
    assert record.agree


def test_a_spike_between_its_stages_leaves_a_claw_dense() -> None:
    """Its network shows the zeros beside the wired work."""
    images = torch.zeros(1, 1, 28, 28)
    model = create_model("granule_convnet", unit={"spike": {"strength": 0.5}})
    record = profile(model, images, counters=("exact",))
    zeros = record.dendritic_mac("zeros")
    assert record.dendritic_mac("direct") == record.dendritic_mac("executed") - zeros
    assert record.dendritic_mac_per_neuron("direct") == 12 * 5 * 5  # positions, lags, steps
    data = record.to_dict()
    assert data["zeros_mac_per_sample"] == zeros > 0
    assert data["wired_mac_per_sample"] == data["mac_per_sample"] - zeros
    assert sum(row["zeros_mac_per_sample"] for row in data["stages"]) == zeros
    assert "wired, executed without zeros" in rendered(summary_table([record]))
    assert " zeros " in rendered(stage_table(record))
    plain = profile(nn.Linear(3, 2), torch.zeros(1, 3), counters=("exact",))
    assert "without zeros" not in rendered(summary_table([plain]))
