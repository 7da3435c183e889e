"""Readings: the numbers that must come out, each from the modules' own counts."""

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from neuroconv.brain import READINGS, Reading, default_inputs
from neuroconv.brain.readings import reading_of
from neuroconv.brain.updates import Sizes, flop_per_second, sampled_flop_per_second, update_of
from neuroconv.flops import count_exact
from neuroconv.layers import TreeShape
from neuroconv.neurons import CELL_CLASSES, Purkinje
from tests.flops.calling import Resumed

AT_POINT = default_inputs().values_at_point
SMALL = Sizes(22, 3, 2, 4)
VALUES = {
    "purkinje.synapses": 22, "purkinje.dendrites": 3, "purkinje.branches": 2, "time_steps": 4
}  # fmt: skip


def flops(name: str, **changes: float) -> dict[str, float]:
    return flop_per_second(READINGS[name], {**AT_POINT, **changes})


# --- what must come out, exactly


@pytest.mark.parametrize(("reading", "purkinje", "granule"), [
    ("essay", 10**21, 9 * 10**16), ("published", 10**21, 75 * 10**18),
    ("one_step", 2 * 10**20, 18 * 10**15), ("one_step_per_frame", 3 * 10**19, 27 * 10**14),
    ("valid", 91 * 10**16, 12 * 10**15), ("valid_one_step", 182 * 10**15, 24 * 10**14),
    ("linear_collapse", 2 * 10**16, 15 * 10**14),
])  # fmt: skip
def test_the_grid(reading: str, purkinje: int, granule: int) -> None:
    by_cell = flops(reading)
    assert by_cell == {"purkinje": purkinje, "granule": granule}
    assert all(isinstance(value, int) for value in by_cell.values())


def test_totals_beside_the_grid() -> None:
    printed = 2 * 200 * 50_000 * (10**8 * 500_000 + 50 * 10**9 * 75)
    assert sum(flops("published").values()) == printed == 1_075 * 10**18
    assert flops("with_cortex") == {**flops("essay"), "pyramidal": 2_150 * 10**18}
    # The clock is the rate or the frame, never both.
    assert flops("essay", frame_hz=60) == flops("essay")
    assert flops("one_step_per_frame", rate_hz=1) == flops("one_step_per_frame")
    assert flops("one_step_per_frame", frame_hz=60)["purkinje"] == 6 * 10**19


def test_the_whole_neuron_is_the_dendrites_and_all_other_stages() -> None:
    whole, dendrites = flops("whole_neuron"), flops("essay")
    for cell in ("purkinje", "granule"):
        with torch.device("meta"):
            neuron = CELL_CLASSES[cell](1000, 1)
        stages = neuron.closed_form(torch.Size((1, 1000, 5)))
        others = sum(row.flop for row in stages if row.stage != "dendrites")
        assert others > 0
        updates = AT_POINT[f"{cell}.cells"] * AT_POINT["rate_hz"]
        assert whole[cell] == dendrites[cell] + updates * others


# --- they are the modules' own counts


@pytest.mark.parametrize("padding", ["same", "valid", "per_dendrite"])
def test_one_step_is_what_a_streaming_neuron_states_and_runs(padding: Any) -> None:
    tree = TreeShape(SMALL.sheet_shape, SMALL.filter_shape, synapses=22, mode=padding)
    neuron = Purkinje(9, 1, tree=tree).eval()
    stages = neuron.closed_form(torch.Size((1, 9, 1)), resumed=True)
    (dendrites,) = (row for row in stages if row.stage == "dendrites")
    for algorithm in ("direct", "executed", "cached", "stored"):
        reading = Reading(name="x", padding=padding, steps="last", algorithm=algorithm)  # type: ignore[arg-type]
        assert update_of(reading, "purkinje", VALUES).mac == getattr(dendrites, algorithm)
    essay = update_of(Reading(name="x", steps="last"), "purkinje", VALUES)
    assert essay.mac == dendrites.essay == 22 * 1 * 2 * 3 * 4
    # And the executed column is what the exact counter sees a stream run.
    state = neuron.stream(torch.zeros(1, 9, 4))[1]
    counted = count_exact(Resumed(neuron), (torch.zeros(1, 9, 1), state.dendrites, state.soma))
    soma = next(row for row in stages if row.stage == "soma")
    assert counted.mac == dendrites.executed + soma.executed


def test_the_linear_collapse_is_one_dot_product_that_runs() -> None:
    update = update_of(READINGS["linear_collapse"], "purkinje", AT_POINT)
    assert (update.mac, update.ran) == (500_000, "matmul")
    counted = count_exact(nn.Linear(500_000, 1, device="meta"), torch.zeros(1, 500_000))
    assert counted.mac == update.mac
    for reading, cell, ran in (
        ("executed", "purkinje", "fft"), ("executed", "granule", "convolution"),
        ("valid", "purkinje", "convolution"),
    ):  # fmt: skip
        assert update_of(READINGS[reading], cell, AT_POINT).ran == ran


def test_counting_draws_no_random_number() -> None:
    before, python, numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]  # noqa: NPY002
    update_of(READINGS["whole_neuron"], "purkinje", VALUES | {"purkinje.synapses": 23})
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == python
    assert np.array_equal(np.random.get_state()[1], numpy)  # noqa: NPY002


# --- draws


@pytest.mark.parametrize("name", list(READINGS))
def test_draws_are_counted_one_by_one(name: str) -> None:
    draws = default_inputs().draw(12, np.random.default_rng(3))
    for i, total in enumerate(sampled_flop_per_second(READINGS[name], draws)):
        alone = flop_per_second(READINGS[name], {key: draw[i] for key, draw in draws.items()})
        assert total == pytest.approx(math.fsum(alone.values()), rel=1e-12)


# --- what is refused


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        *(({name: "magic"}, name) for name in ("padding", "steps", "clock", "algorithm")),
        ({"cells": ("glia",)}, "cells"),
        ({"padding": "valid"}, "knows no padding"),
        ({"algorithm": "linear", "scope": "neuron"}, "no further stages"),
        ({"algorithm": "direct", "granule_filter": "purkinje"}, "no module's"),
    ],
)
def test_choices_that_do_not_go_together(choices: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Reading(name="x", **choices)


def test_a_filter_longer_than_its_dendrite_is_refused_by_the_inputs_names() -> None:
    with pytest.raises(ValueError, match=r"granule\.branches=3 is more than the 2 sites"):
        flops("essay", **{"granule.synapses": 8})
    with pytest.raises(ValueError, match="expected one of essay, published"):
        reading_of("esay")
