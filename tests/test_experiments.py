"""The index of the experiments, the ablations' page, the search, and the full filter's norms."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from neuroconv.training import load_config
from neuroconv.training import run as run_config
from neuroconv.zoo import count_parameters, create_model
from tests.scripts import loaded

PROJECT = Path(__file__).resolve().parent.parent
EXPERIMENTS = PROJECT / "experiments"


def test_the_index_names_every_experiment() -> None:
    index = (EXPERIMENTS / "README.md").read_text()
    folders = sorted(path.parent.name for path in EXPERIMENTS.glob("*/README.md"))
    assert [name for name in folders if f"({name}/README.md)" not in index] == []
    assert "bench" in folders


def test_the_search_draws_networks_within_its_limits() -> None:
    search = loaded(EXPERIMENTS / "study" / "search.py")
    trials = list(islice(search.candidates((1, 28, 28)), 2))
    assert trials[0] == search.DEFAULT
    assert trials == list(islice(search.candidates((1, 28, 28)), 2))
    for trial in trials[1:]:
        keywords = {
            key: trial[key]
            for key in trial
            if key not in ("encoding", "learning_rate", "weight_decay")
        }
        assert 2500 <= count_parameters(create_model("granule_convnet", **keywords)) < 4000


@pytest.mark.slow
def test_the_search_goes_on_where_it_ended(tmp_path: Path) -> None:
    command = [sys.executable, str(EXPERIMENTS / "study" / "search.py"), str(tmp_path), "--quick"]
    subprocess.run(command, check=True, capture_output=True)
    lines = (tmp_path / "trials.jsonl").read_text().splitlines()
    trials = [json.loads(line) for line in lines]
    assert [trial["rung"] for trial in trials] == [0, 0, 0, 1, 1, 1, 1]
    # A trial that was stopped is read from its run.
    (tmp_path / "trials.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    subprocess.run(command, check=True, capture_output=True)
    again = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert [{**trial, "cpu_s": 0} for trial in again] == [{**trial, "cpu_s": 0} for trial in trials]
    scores = {trial["number"]: 0.0 for trial in trials if trial["rung"] == 1}
    for trial in trials[3:]:
        scores[trial["number"]] += trial["val_accuracy"]
    best = max(scores, key=scores.__getitem__)
    winner, trial = load_config(tmp_path / "winner.toml"), trials[best]
    assert winner.train.learning_rate == trial["learning_rate"]
    assert winner.model.get("widths") == (tuple(trial["widths"]) if "widths" in trial else None)
    assert not {*winner.train.seeds} & {trial["seed"] for trial in trials}


@pytest.mark.slow
def test_norms_of_the_full_filter(tmp_path: Path) -> None:
    norms = loaded(EXPERIMENTS / "full_filter" / "norms.py")
    config = load_config(PROJECT / "configs" / "digits_cerebellum_base.toml")
    model = {
        "name": "cerebellum_base", "granule": {"cells": 30},
        "purkinje": {"tree": {"sheet": (20, 15), "filter": (4, 15)}, "taps": {"trainable": False}},
    }  # fmt: skip
    data, train = replace(config.data, train_limit=96), replace(config.train, epochs=1)
    run = run_config(replace(config, model=model, data=data, train=train, opponents=()),
                     seed=1, run_dir=tmp_path / "run")  # fmt: skip
    values = norms.measure(str(run.run_dir))
    assert values["change"]["purkinje taps"] == values["drive"]["taps"] == 0
    assert values["drive"]["both"] == pytest.approx(values["drive"]["synapses"])
    assert values["change"]["purkinje synapses"] > 0
    assert "purkinje taps" not in values["gradient_after"]
    assert 0 < values["agreement_before"]["granule taps"] <= 1
    accuracy = values["val_accuracy_fraction"]
    assert accuracy["first taps"] == accuracy["trained"]


def test_every_record_has_its_command_and_every_comparison_is_recorded() -> None:
    record = loaded(EXPERIMENTS / "record.py")
    commands = record.commands()
    configs = {path.stem for path in (PROJECT / "configs").glob("*.toml")}
    compared = {name for names in record.COMPARED.values() for name in names}
    families = ("_equal", "_local"), ("ablation_",)
    expected = {n for n in configs if n.endswith(families[0]) or n.startswith(families[1])}
    assert expected <= compared
    for path in EXPERIMENTS.glob("study/*_equal.json"):
        assert f"study/{path.name}" in commands


def test_records_are_made_in_their_place_and_failures_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = loaded(EXPERIMENTS / "record.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(record, "HERE", tmp_path)
    Path("write.py").write_text("import os, sys; open(sys.argv[1], 'w').write(os.environ['D'])")
    Path("fail.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("D", "made")
    (tmp_path / "a").mkdir()
    rows = {"a/one.json": "python write.py {out}", "a/two.json": "python fail.py"}
    (failed,) = record.run(rows, None, 2)
    assert failed.startswith("a/two.json: exit status 3: see ")
    assert (tmp_path / "a/one.json").read_text() == "made"


def test_records_name_no_folder_of_the_machine_that_made_them() -> None:
    records = [*EXPERIMENTS.glob("**/*.json"), *EXPERIMENTS.glob("**/*.jsonl")]
    assert len(records) > 20
    assert [path.name for path in records if '"/' in path.read_text()] == []
