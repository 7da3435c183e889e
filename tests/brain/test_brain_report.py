"""The report on the brain: first lines, tables, and no number without unit and source."""

import json
import math
from pathlib import Path

import pytest

from neuroconv.brain import READINGS, BrainReport, default_inputs, estimate_brain, read_inputs
from neuroconv.brain.cell_costs import cell_costs, cortex_ratios
from neuroconv.brain.grid import grid_rows
from neuroconv.brain.quantity import scientific
from neuroconv.brain.report import headline, headline_text
from neuroconv.brain.updates import flop_per_second
from neuroconv.neurons import PRESETS
from tests.brain.reporting import bare_numbers
from tests.brain.reporting import printed as shown


@pytest.fixture(scope="module")
def report() -> BrainReport:
    return BrainReport(estimate_brain(samples=64))


def printed(report: BrainReport, width: int = 100) -> str:
    return "".join(shown(section, width) for section in report.sections())


def test_no_number_is_without_unit_and_source(report: BrainReport) -> None:
    rows = json.loads(json.dumps(report.to_dict()))
    assert bare_numbers(rows) == []
    assert {"headline", "inputs", "grid", "cells", "readings", "estimate", "swings"} <= set(rows)
    assert {"ledger", "essay_check", "others", "forecast"} <= set(rows)
    rows["grid"][3]["flop_per_s"][0]["unit"] = ""
    (bare,) = bare_numbers(rows)
    assert bare.startswith("grid[3].flop_per_s[0].value")


def test_a_mix_has_no_bare_number_either() -> None:
    mix = estimate_brain(weights={"essay": 1, "executed": 1}, samples=64)
    rows = BrainReport(mix).to_dict()
    assert bare_numbers(rows) == []
    assert rows["estimate"]["value"] is None
    assert rows["swings"] == []


def test_the_first_lines_are_what_the_non_linearity_is_worth(report: BrainReport) -> None:
    worth, one_step, *by_fft = (ratio.value for ratio in headline(report.inputs))
    assert (worth, one_step) == (50_000, 10_000)
    # Transforms of 105 x 1500 points and complex products: for the window 5 there and 5 back, of
    # 1 + 2 + ... + 5 taps; for its last step 5 and 1, of 5. Of each tap's filter the transforms of
    # 10 branches, and their product with 105 waves.
    points = 105 * 1500
    transform, product = 1.25 * points * math.log2(points), 105 * 751
    filters = 5 * (10 * 1.25 * 1500 * math.log2(1500) + 4 * 105 * 10 * 751)
    window = 10 * transform + (8 * 15 - 2 * 5) * product / 2
    step = 6 * transform + (8 * 5 - 2) * product / 2
    assert by_fft == pytest.approx(
        [
            *(25e9 / (window + filters), 25e9 / window),
            *((step + filters) / 5e5, step / 5e5, (step - 4 * transform) / 5e5),
        ],
        rel=1e-6,
    )
    assert [f"{ratio:.3g}" for ratio in by_fft] == ["454", "652", "77.3", "43.8", "16.6"]
    first = " ".join(printed(report)[:1000].split())
    assert first.startswith("The essay's reading: 1.000e21 FLOP/s")
    for words in (
        "worth x 77.3 for one step (43.8 with", "16.6 were those of the past steps stored",
        "the dendritic non-linearity: x 50,000.", "one dot product of 500,000 terms",
        "5 comes from recomputing all 5 steps", "x 10,000", "1/454", "1/652", "a Fourier transform",
    ):  # fmt: skip
        assert words in first


def test_the_headline_follows_the_inputs() -> None:
    fewer = read_inputs(assignments=["purkinje.branches=5", "time_steps=4"])
    worth, one_step, *_ = (ratio.value for ratio in headline(fewer))
    # A tap more or less of the filter, and a step more or less of the window.
    assert (worth, one_step) == (50_000 * (5 / 10) * (4 / 5), 5 * 1000)
    # A small tree runs by a direct convolution: there is nothing to cache.
    direct = read_inputs(assignments=["purkinje.synapses=40", "purkinje.dendrites=4"])
    _, _, saving, cached, *steps = (ratio.value for ratio in headline(direct))
    assert saving == cached
    assert len(set(steps)) == 1
    assert "cached" not in headline_text(estimate_brain(direct, samples=2)).plain


def test_the_tables_show_the_grid(report: BrainReport) -> None:
    text = printed(report)
    executed = flop_per_second(READINGS["executed"], report.inputs.values_at_point)["purkinje"]
    for words in (
        *("1.00e21", "2.00e20", "3.00e19", "9.10e17", "1.82e17", "2.00e16", "1.075e21"),
        *("1.000e21", "2.150e16", "3.150e21", scientific(executed, 3)),
        "[1] Dettmers 2015, 'Putting it all together'",
    ):
        assert words in text


@pytest.mark.parametrize("width", [80, 100])
def test_own_tables_fit_the_screen(report: BrainReport, width: int) -> None:
    """Nothing is cut: no ellipsis in the sections that are made here."""
    text = printed(report, width)
    assert "…" not in text[: text.index("what the spread of")]


def test_the_grid_is_whole_and_equals_the_readings(report: BrainReport) -> None:
    grid = {
        (row["algorithm"], row["padding"], row["clock"], row["steps"]): {
            flops.name: flops.value for flops in row["flop_per_s"]
        }
        for row in grid_rows(report.inputs)
    }
    assert len(grid) == len(grid_rows(report.inputs)) == 10 * 4
    assert grid["essay", "same", "rate", "window"]["total"] == report.values["essay"]
    assert grid["linear", "same", "rate", "last"]["total"] == report.values["linear_collapse"]
    assert grid["direct", "valid", "rate", "last"]["total"] == report.values["valid_one_step"]
    assert grid["essay", "same", "frame", "last"]["purkinje"] == 3 * 10**19


def test_cells_have_a_row_for_each_preset_with_a_count() -> None:
    rows = cell_costs(default_inputs())
    counted = {key for key, cell in PRESETS.items() if cell.cells_in_brain is not None}
    by_name = {(row["cell"], row["variant"]): row for row in rows}
    assert set(by_name) == counted
    essay = by_name["purkinje", "dettmers2015"]
    assert (essay["essay_mac"].value, essay["flop_per_s"].value) == (25 * 10**9, 10**21)
    assert 0.9999 < essay["dendrites_share"].value < 1
    measured = by_name["purkinje", "literature"]
    total = 2 * 200 * 30_500_000 * 175_000 * 5 * 10 * 400 * 5
    assert measured["flop_per_s"].value == total
    assert measured["own_flop_per_s"].value == total / 4  # 50 and not 200 a second
    assert by_name["granule", "literature"]["own_rate"] is None


def test_the_cortex_against_the_cerebellum() -> None:
    ratios = [ratio.value for ratio in cortex_ratios(cell_costs(default_inputs()))]
    assert ratios[0] == pytest.approx(2.15, abs=0.001)  # by the essay's numbers
    assert 0.9 < ratios[2] < 1  # by the literature's
    assert ratios[3] < 0.01  # and at each cell's own rate


def test_correlations_are_shown(tmp_path: Path) -> None:
    file = tmp_path / "brain.toml"
    file.write_text('[[correlations]]\nbetween = ["rate_hz", "purkinje.cells"]\nrank = -0.5\n')
    tied = BrainReport(estimate_brain(read_inputs(file), samples=64))
    text = printed(tied)
    assert "purkinje.cells ~" in text
    assert "although some are correlated here" in text
    assert bare_numbers(tied.to_dict()) == []
    assert len(tied.to_dict()["correlations"]) == 1
