"""`neuroconv brain` as a user meets it."""

import functools
import json
import re
from pathlib import Path

import matplotlib.image
import pytest

from neuroconv.brain import READINGS
from tests.brain.reporting import bare_numbers
from tests.commands import Call

FEW = ("--samples", 64)


@pytest.fixture
def call(call: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs `neuroconv brain` as the suite's `call` does, on a screen of 120 columns."""
    monkeypatch.setenv("COLUMNS", "120")
    return functools.partial(call, "brain")


def test_the_report_comes_with_its_file_and_plots(call: Call, tmp_path: Path) -> None:
    status, out, err = call(*FEW, "--json", "out/brain.json", "--plot", "out/tornado.png")
    assert (status, err) == (0, "")
    assert out.startswith("The essay's reading: 1.000e21 FLOP/s")
    rows = json.loads((tmp_path / "out/brain.json").read_text())
    assert bare_numbers(rows) == []
    assert {each["reading"] for each in rows["readings"]} == set(READINGS)
    assert rows["cite"] in out
    for name in ("tornado.png", "tornado_forecast.png"):
        image = matplotlib.image.imread(tmp_path / "out" / name)
        assert image.std() > 0.05


def test_an_analyst_argues_the_rate_and_the_cells_down(call: Call, tmp_path: Path) -> None:
    words = ("--set", "rate_hz=0.1..5", "--set", "purkinje.cells=15e6..30e6")
    status, out, err = call(*words, *FEW, "--json", "b.json")
    assert (status, err) == (0, "")
    assert "x 50,000" in out  # what the non-linearity is worth does not change
    rows = json.loads((tmp_path / "b.json").read_text())
    (rate,) = (each for each in rows["inputs"] if each["name"] == "rate_hz")
    assert (rate["low"]["value"], rate["high"]["value"]) == (0.1, 5)
    assert rate["low"]["source"] == "user: set for rate_hz"
    assert "set by the user" in out
    quantiles = {each["name"]: each["value"] for each in rows["estimate"]["quantiles"]}
    assert quantiles["quantile 95%"] < 1e19


def test_cite_is_the_same_for_the_same_inputs_only(call: Call) -> None:
    pattern = r"neuroconv \S+, inputs sha256:([0-9a-f]{12}), reading essay, 64 samples, seed 0\n"
    hashes = []
    for words in ((), (), ("--set", "rate_hz=5")):
        status, out, err = call("--cite", *FEW, *words)
        assert (status, err) == (0, "")
        found = re.fullmatch(pattern, out)
        assert found, out
        hashes.append(found[1])
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_file_and_a_mix(call: Call, tmp_path: Path) -> None:
    (tmp_path / "in.toml").write_text('[inputs."purkinje.cells"]\nvalue = 15_400_000\n')
    weights = ("--weigh", "essay=1", "--weigh", "linear_collapse=3")
    status, out, err = call("--inputs", "in.toml", *weights, *FEW)
    assert (status, err) == (0, "")
    assert "Mixed with your weights (essay 0.25, linear_collapse 0.75)" in " ".join(out.split())
    assert "reading essay=0.25, linear_collapse=0.75" in out
    assert "purkinje 1.540e20" in out


def test_another_reading_in_full(call: Call) -> None:
    status, out, err = call("--reading", "one_step_per_frame", *FEW)
    assert (status, err) == (0, "")
    assert "due to, read as one_step_per_frame" in out
    assert "reading one_step_per_frame, 64 samples" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--set", "purkinje.cells=abc"),
            "--set purkinje.cells=abc: expected a number or LOW..HIGH",
        ),
        (("--set", "purkinje.cels=1"), "did you mean 'purkinje.cells'"),
        (("--set", "granule.synapses=4"), "granule.branches=3 is more than the 1 sites"),
        (("--inputs", "none.toml"), "none.toml"),
        (("--reading", "esay"), "--reading esay: expected one of essay"),
        (("--weigh", "essay=much"), "--weigh essay=much: expected READING=W"),
        (("--weigh", "esay=1"), "--weigh esay=1: expected READING=W"),
        (("--weigh", "essay=1", "--weigh", "essay=2"), "weighed twice"),
        (("--weigh", "essay=0"), "all weights are 0"),
        (("--weigh", "essay=1", "--reading", "valid"), "expected one of the two"),
        (("--weigh", "essay=1", "--plot", "x.png"), "--plot with --weigh"),
        (("--samples", "1"), "--samples 1: expected"),
        (("--seed", "-1"), "--seed -1: expected"),
        (("--plot", "x.docx", "--samples", "16"), "--plot x.docx"),
    ],
)
def test_a_mistake_ends_in_one_message(call: Call, words: tuple[str, ...], message: str) -> None:
    status, _, err = call(*words)
    assert status == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err


def test_help_teaches(call: Call) -> None:
    status, out, _ = call("--help")
    assert status == 0
    for word in (*READINGS, "--set", "--weigh", "--cite", 'source = "[andersen1992], abstract"'):
        assert word in out
