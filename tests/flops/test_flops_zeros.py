"""Zeros multiplied for speed: counted where they stand in a kernel or a matrix, by loops."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from neuroconv import GranuleConv2d, create_model, profile
from neuroconv.core.cost import Cost
from neuroconv.flops import count_exact, stage_table, summary_table
from neuroconv.kernels.conv.sizes import MODES, Mode
from neuroconv.layers import DendriticConv, SomaFilter, TreeShape
from tests.flops.test_flops_profile import rendered

LAYERS: dict[str, dict[str, Any]] = {
    "dense": {},
    "claw": {"wiring": "claw"},
    "claw_in_groups": {"wiring": "claw", "groups": 2},
    "groups": {"groups": 3},
    "still": {"wiring": "claw", "time_steps": 1},
    "still_groups": {"groups": 2, "time_steps": 1},
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("steps", [5, 9])
def test_an_image_layers_zeros_are_those_of_its_kernel(name: str, steps: int) -> None:
    layer = GranuleConv2d(6, 12, (3, 2), **LAYERS[name])
    nn.init.ones_(layer.weight)
    images = torch.zeros(2, 6, steps, 5, 7)
    (cost,) = (row for row in layer.closed_form(images.shape) if row.stage == "dendrites")
    assert cost.zeros == 0 or cost.executed == count_exact(layer, images).macs["convolution"]
    static = layer.time_steps == 1
    lags = 1 if static else max(steps, 5)  # folded into channels, all steps meet all steps
    kernel = layer.kernel()  # (U, C, K_T, K_H, K_W)
    wired = int(torch.count_nonzero(kernel)) * steps * 2 * (3 * 6)
    products = kernel.numel() // kernel.shape[2] * lags * steps * 2 * (3 * 6)
    assert (cost.executed, cost.executed - cost.zeros) == (products, wired)
    assert cost.direct == wired


SIZES = [((5, 4), (3, 4)), ((4, 6), (2, 3)), ((6, 3), (1, 3))]  # sheet, and taps of a step
CASES = [
    (mode, *sizes)
    for mode in MODES
    for sizes in SIZES
    if mode != "per_dendrite" or sizes[0][1] == sizes[1][1]
]


@pytest.mark.parametrize(("mode", "sheet", "taps"), CASES)
def test_a_toeplitz_matrix_has_a_zero_where_no_tap_connects(
    mode: Mode, sheet: tuple[int, int], taps: tuple[int, int]
) -> None:
    layer = DendriticConv(2, TreeShape(sheet, (*taps, 3), mode=mode))
    layer.backend = "matmul"
    (cost,) = layer.closed_form(torch.Size((2, 2, 4, *sheet)))
    step_pairs = 1 + 2 + 3 + 3
    before = [(k - 1) // 2 if mode == "same" else 0 for k in taps]
    zeros = connected = 0
    for site, dendrite, row, column in product(*map(range, sheet), *map(range, layer.tree.out)):
        branch = site - row + before[0]
        if mode == "per_dendrite":
            if dendrite != column:  # a matrix for each dendrite
                continue
            inside = 0 <= branch < taps[0]
        else:
            inside = 0 <= branch < taps[0] and 0 <= dendrite - column + before[1] < taps[1]
        connected, zeros = connected + inside, zeros + (not inside)
    if cost.macs["matmul"] == 2 * 2 * step_pairs * (connected + zeros):
        assert cost.zeros == 2 * 2 * step_pairs * zeros
    else:  # the product of full width, which has none
        assert (mode, taps[1], cost.zeros) == ("valid", sheet[1], 0)


def test_a_somas_matrix_has_zeros_beyond_its_taps() -> None:
    zeros = [SomaFilter(5).closed_form(torch.Size((2, 3, n)))[0].zeros for n in (2, 5, 9)]
    assert zeros == [0, 0, 2 * 3 * 9 * 4]


def test_a_claws_network_shows_its_zeros_beside_its_wired_work() -> None:
    model = create_model("granule_convnet")
    record = profile(model, torch.zeros(1, 1, 28, 28), counters=("exact",))
    columns = {name: record.dendritic_mac(name) for name in ("direct", "executed", "zeros")}
    assert columns["direct"] == columns["executed"] - columns["zeros"]
    assert record.dendritic_mac_per_neuron("direct") == 12 * 5 * 5  # positions, lags, steps
    data = record.to_dict()
    assert data["zeros_mac_per_sample"] == columns["zeros"] > 0
    assert data["wired_mac_per_sample"] == data["mac_per_sample"] - columns["zeros"]
    assert sum(row["zeros_mac_per_sample"] for row in data["stages"]) == columns["zeros"]
    text = rendered(summary_table([record]), stage_table(record))
    assert "dendrites, executed with zeros" in text
    assert "wired, executed without zeros" in text
    plain = profile(nn.Linear(3, 2), torch.zeros(1, 3))
    assert "executed with zeros" not in rendered(summary_table([plain]))
    assert Cost("dendrites").zeros == plain.zeros_mac_per_sample == 0
