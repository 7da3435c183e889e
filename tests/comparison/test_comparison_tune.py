"""The search for learning rates and weight decays: its rules, and its runs."""

import json
import math
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

from neuroconv.comparison import compare, search_settings, verdict
from neuroconv.comparison.tune import EXTENSIONS
from neuroconv.data import load_data
from neuroconv.data.datasets import data_kept
from neuroconv.training import Config, ConfigError, FailedRun, RunResult, load_config, save_config
from neuroconv.training.tables import TuneConfig
from tests.commands import Call
from tests.scripts import loaded
from tests.training.small_runs import forbid_training, small_config

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
SETTINGS = TuneConfig(learning_rate=(0.01, 0.1, 1.0), epochs=1, weight_decay=(0.01, 0.0, 0.1))


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Lets `SCORES` score the trials in place of a training; returns a list of these."""
    trials: list[Config] = []

    def train_runs(plan: list[Config], **_: object) -> list[Any]:
        trials.extend(plan)
        return [outcome(config) for config in plan]

    monkeypatch.setattr("neuroconv.comparison.tune.train_runs", train_runs)
    return trials


def outcome(config: Config) -> RunResult | FailedRun:
    name, train = config.model["name"], config.train
    accuracy, loss = SCORES[name](train.learning_rate, train.weight_decay)
    folder = Path(f"{train.learning_rate:g}-{train.weight_decay:g}")
    if math.isnan(accuracy):
        return FailedRun(folder, name, train.seeds[0], "nan", 1, 1)
    return RunResult(
        folder, name, train.seeds[0], 1, 1, loss, accuracy, None, None, 0, 1, 1.0, 1.0, []
    )


def peak(rate: float) -> Callable[[float, float], tuple[float, float]]:
    """Accuracies that fall with the distance to a learning rate, and with weight decay."""
    return lambda lr, decay: (0.9 - abs(math.log10(lr / rate)) / 100 - decay / 1000, 1.0)


SCORES: dict[str, Callable[[float, float], tuple[float, float]]] = {}


def search(tmp_path: Path, **scores: Any) -> Any:
    SCORES.clear()
    SCORES.update(scores)
    configs = [replace(small_config(tmp_path), model={"name": name}) for name in scores]
    return search_settings(configs, SETTINGS, progress=False)


def settings_of(configs: list[Config], name: str) -> list[tuple[float, float]]:
    trains = [config.train for config in configs if config.model["name"] == name]
    return [(train.learning_rate, train.weight_decay) for train in trains]


def test_all_rates_then_the_other_decays_at_the_best_rate(
    tmp_path: Path, scores: list[Config]
) -> None:
    first, second = search(tmp_path, linear=peak(0.1), mlp=lambda lr, decay: (0.5, lr))
    assert settings_of(scores, "linear") == [
        (0.01, 0.01), (0.1, 0.01), (1.0, 0.01), (0.1, 0.0), (0.1, 0.1),
    ]  # fmt: skip
    assert (first.best.learning_rate, first.best.weight_decay) == (0.1, 0.0)
    # Equal accuracies: not at the edge, in spite of a lower loss there.
    assert second.best.learning_rate == 0.1
    assert len(first.trials) == len(second.trials) == 5
    assert [first.at_edge, second.at_edge] == [False, False]
    for config in scores:
        train = config.train
        assert (train.test, train.epochs, train.seeds) == (False, 1, (1000,))
        assert Path(train.output) == tmp_path / "tune"


def test_a_best_rate_at_the_edge_extends_the_rates_of_all(
    tmp_path: Path, scores: list[Config]
) -> None:
    first, second = search(tmp_path, linear=peak(0.1), mlp=peak(1e-4))
    rates = [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0]
    assert sorted({trial.learning_rate for trial in first.trials}) == pytest.approx(rates)
    assert len(first.trials) == len(second.trials) == len(rates) + 2
    assert (first.best.learning_rate, second.best.learning_rate) == pytest.approx((0.1, 1e-4))
    assert len(scores) == 2 * (len(rates) + 2)


def test_data_that_are_kept_are_read_once() -> None:
    with data_kept():
        first = load_data("digits", encoding="none", seed=0).train
        second = load_data("digits", encoding="none", seed=1, train_limit=300).train
        third = load_data("digits", encoding="repeat", seed=2, train_limit=300).train
    assert second.dataset is third.dataset is not first.dataset
    again = load_data("digits", encoding="none", train_limit=300).train
    assert again.dataset is not second.dataset
    assert torch.equal(again[0][0], second[0][0])


def test_the_extensions_end(tmp_path: Path, scores: list[Config]) -> None:
    with pytest.warns(UserWarning, match="linear: the best learning rate, 1e-06, is at the edge"):
        (result,) = search(tmp_path, linear=peak(1e-20))
    assert result.at_edge
    assert len(result.trials) == 3 + EXTENSIONS + 2


def test_a_trial_that_fails_is_the_worst(tmp_path: Path, scores: list[Config]) -> None:
    def fails(lr: float, decay: float) -> tuple[float, float]:
        return (math.nan if lr > 0.05 else 0.1), 9.0

    (result,) = search(tmp_path, linear=fails)
    failed = {t.learning_rate for t in result.trials if t.val_accuracy is None}
    assert failed == {0.1, 1.0}
    assert result.best.learning_rate < 0.05


def test_a_comparison_with_a_search(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("neuroconv.training.runs.plot_curves", lambda *_, **__: None)
    sgd = {"name": "mlp", "primary": True, "train": {"optimizer": "sgd", "momentum": 0.5}}
    config = small_config(tmp_path / "runs", seeds=(0, 1), max_steps=4, opponents=(sgd,))
    settings = TuneConfig(
        learning_rate=(1e-3, 0.1, 3.0), epochs=1, train_limit=100, weight_decay=(0.01, 0.1)
    )
    config = replace(config, tune=settings, compare=replace(config.compare, margin=0.99))
    save_config(config, tmp_path / "x.toml")
    assert load_config(tmp_path / "x.toml") == config
    status, printed, _ = call("compare", "x.toml", "--no-linear", "--json", "numbers.json")
    assert status == 0
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers == json.loads((tmp_path / "comparison.json").read_text())
    forbid_training(monkeypatch)
    results = compare(config, progress=False)  # all is read
    first, second = numbers["models"]
    assert len(first["search"]["trials"]) == len(second["search"]["trials"])
    for model, result in zip((first, second), results, strict=True):
        best = max(t["val_accuracy"] for t in model["search"]["trials"])
        assert model["search"]["best"]["val_accuracy"] == best
        for key in ("learning_rate", "weight_decay"):
            assert model["settings"][key] == model["search"]["best"][key]
        for trial in model["search"]["trials"]:
            (folder,) = trial["run_folders"]
            saved = load_config(Path(folder) / "config.toml")
            assert saved.train.learning_rate == trial["learning_rate"]
            assert (saved.train.seeds, saved.data.train_limit) == ((1000,), 100)
            assert json.loads((Path(folder) / "result.json").read_text())["test_loss"] is None
        for run in result.finished:
            saved = load_config(run.run_dir / "config.toml")
            assert saved.train.learning_rate == model["settings"]["learning_rate"]
            assert saved.data.train_limit == 300
    assert (second["primary"], second["settings"]["optimizer"]) == (True, "sgd")
    assert results[1].difference is not None
    assert second["verdict"] == verdict(results[1].difference, 0.99)
    page = (tmp_path / "report.html").read_text()
    for text in ("the primary comparison is that with mlp", "by as many trials for all"):
        assert text in page
    assert second["verdict"].split()[0] in printed
    check_table(tmp_path / "numbers.json", second["verdict"])


def check_table(path: Path, expected: str) -> None:
    """The study's table says what the record does, and refuses one that contradicts itself."""
    table = loaded(EXPERIMENTS / "study" / "table.py")
    with redirect_stdout(StringIO()) as printed:
        table.main([str(path)])
    primary, row = (line for line in printed.getvalue().splitlines() if "| mlp" in line)
    assert f"| {expected} |" in row
    opposite = {"better": "worse", "worse": "better"}.get(expected, expected)
    assert primary.endswith(f"| {opposite} |")  # the other way round: the model less its opponent
    record = json.loads(path.read_text())
    record["models"][1]["test_accuracy_fraction_by_seed"]["1"] += 1 / 360
    with pytest.raises(ValueError, match="mlp: recorded"):
        table.checked(record)


def test_all_take_the_settings_that_are_best_for_the_first(
    tmp_path: Path, scores: list[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    SCORES.update(linear=peak(0.1))
    monkeypatch.setattr("neuroconv.comparison.train.train_runs", lambda plan, **_: plan)
    monkeypatch.setattr("neuroconv.comparison.train._result", lambda entrant, *_: entrant)
    config = small_config(tmp_path, opponents=({"name": "mlp"},))
    entrants: Any = compare(replace(config, tune=replace(SETTINGS, shared=True)))
    assert {config.model["name"] for config in scores} == {"linear"}
    assert entrants[1].search is None
    trains = [run.train for entrant in entrants for run in entrant.plan]
    assert {(train.learning_rate, train.weight_decay) for train in trains} == {(0.1, 0.0)}


@pytest.mark.slow
def test_two_jobs_do_what_one_does(tmp_path: Path) -> None:
    results = []
    for jobs in (1, 2):
        folder = tmp_path / str(jobs)
        config = small_config(folder, seeds=(0, 1), opponents=({"name": "mlp"},))
        config = replace(config, tune=replace(SETTINGS, weight_decay=(0.01,)))
        results.append(compare(config, progress=False, jobs=jobs))
    for one, two in zip(*results, strict=True):
        assert (one.accuracy, one.difference) == (two.accuracy, two.difference)
        assert one.search == two.search


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": (0.1, 0.01)}, r"learning_rate = \(0.1, 0.01\): .*rising"),
        ({"weight_decay": ()}, r"weight_decay = \(\): .*one or more"),
        ({"epochs": 0}, "epochs = 0"),
    ],
)
def test_settings_of_a_search_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SETTINGS, **changes)


def test_tables_of_a_comparison_that_do_not_fit(tmp_path: Path) -> None:
    config = small_config(tmp_path, seeds=(0, 1000))
    with pytest.raises(ConfigError, match=r"\[tune\] seeds = \[1000\]: .*others"):
        replace(config, tune=SETTINGS)
    both = ({"name": "mlp", "primary": True},) * 2
    with pytest.raises(ConfigError, match="primary = true, twice"):
        replace(config, opponents=both)
    with pytest.raises(
        ConfigError, match=r"number 1 train.epochs: expected one of rule, optimizer"
    ):
        replace(config, opponents=({"name": "mlp", "train": {"epochs": 9}},))
    with pytest.raises(ConfigError, match=r"\[compare\] margin = 2"):
        replace(config.compare, margin=2)
    untested = replace(config, train=replace(config.train, test=False))
    with pytest.raises(ConfigError, match="test = false"):
        compare(untested)
