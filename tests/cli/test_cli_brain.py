"""`neuroconv brain` as a user meets it."""

import json
import re
from pathlib import Path

import matplotlib.image

from neuroconv.brain import READINGS
from tests.brain.reporting import bare_numbers
from tests.commands import Call

FEW = ("--samples", 64)


def test_the_report_comes_with_its_file_and_plots(call: Call, tmp_path: Path) -> None:
    status, out, err = call("brain", *FEW, "--json", "out/brain.json", "--plot", "out/tornado.png")
    assert (status, err) == (0, "")
    assert out.startswith("The essay's reading: 1.000e21 FLOP/s")
    rows = json.loads((tmp_path / "out/brain.json").read_text())
    assert bare_numbers(rows) == []
    assert {row["reading"] for row in rows["readings"]} == set(READINGS)
    assert rows["cite"] in out
    for name in ("tornado.png", "tornado_forecast.png"):
        image = matplotlib.image.imread(tmp_path / "out" / name)
        assert image.std() > 0.05


def test_an_analyst_argues_the_rate_and_the_cells_down(call: Call, tmp_path: Path) -> None:
    words = ("--set", "rate_hz=0.1..5", "--set", "purkinje.cells=15e6..30e6")
    status, out, err = call("brain", *words, *FEW, "--json", "b.json")
    assert (status, err) == (0, "")
    assert "x 50,000" in out  # what the non-linearity is worth does not change
    rows = json.loads((tmp_path / "b.json").read_text())
    (rate,) = (row for row in rows["inputs"] if row["name"] == "rate_hz")
    assert (rate["low"]["value"], rate["high"]["value"]) == (0.1, 5)
    assert rate["low"]["source"] == "user: set for rate_hz"
    assert "set by the user" in out
    quantiles = {row["name"]: row["value"] for row in rows["estimate"]["quantiles"]}
    assert quantiles["quantile 95%"] < 1e19


def test_cite_is_the_same_for_the_same_inputs_only(call: Call) -> None:
    pattern = r"neuroconv \S+, inputs sha256:([0-9a-f]{12}), reading essay, 64 samples, seed 0\n"
    hashes = []
    for words in ((), (), ("--set", "rate_hz=5")):
        status, out, err = call("brain", "--cite", *FEW, *words)
        assert (status, err) == (0, "")
        match = re.fullmatch(pattern, out)
        assert match, out
        hashes.append(match[1])
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_file_and_a_mix(call: Call, tmp_path: Path) -> None:
    (tmp_path / "in.toml").write_text('[inputs."purkinje.cells"]\nvalue = 15_400_000\n')
    weights = ("--weigh", "essay=1", "--weigh", "linear_collapse=3")
    status, out, err = call("brain", "--inputs", "in.toml", *weights, *FEW)
    assert (status, err) == (0, "")
    assert "Mixed with your weights (essay 0.25, linear_collapse 0.75)" in " ".join(out.split())
    assert "reading essay=0.25, linear_collapse=0.75" in out
    assert "purkinje 1.540e20" in out


def test_another_reading_in_full(call: Call) -> None:
    status, out, err = call("brain", "--reading", "one_step_per_frame", *FEW)
    assert (status, err) == (0, "")
    assert "due to, read as one_step_per_frame" in out
    assert "reading one_step_per_frame, 64 samples" in out
