"""The whole comparison in small: entries, the file of numbers, the table and the page."""

import json
import re
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import load_file

import neuroconv.comparison.page
import neuroconv.comparison.table
from neuroconv.comparison import estimate, linear_baseline, verdict
from neuroconv.comparison.page import compare_and_report, demo
from neuroconv.comparison.statistics import unpack
from neuroconv.data import load_data
from neuroconv.report import Entry
from neuroconv.report.entry import short
from neuroconv.training import Config, DataConfig, TrainConfig


def small(output: Path) -> Config:
    return Config(
        model={"name": "granule_convnet", "widths": (2, 3), "strides": (2, 1)},
        data=DataConfig(name="digits", train_limit=200),
        train=TrainConfig(
            epochs=1, learning_rate=1e-2, batch_size=20, seeds=(0, 1), max_steps=2,
            output=str(output), device="cpu",
        ),
        opponents=(
            {"name": "cerebellum_tiny", "granule": {"cells": 20}, "purkinje": {"cells": 2}},
            {"name": "plain_cnn", "label": "CNN, still image", "match": "parameters",
             "encoding": "none"},
        ),
    )  # fmt: skip


class Report(NamedTuple):
    entries: list[Entry]
    printed: str
    folder: Path


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    printed, folder = StringIO(), tmp_path_factory.mktemp("compare")
    with redirect_stdout(printed), pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        entries = compare_and_report(
            small(folder / "runs"), output=folder / "report.html", title="Two", progress=False
        )
    return Report(entries, printed.getvalue(), folder)


def test_entries_are_counted_and_paired_by_seed(report: Report) -> None:
    granule, cerebellum, cnn = report.entries
    labels = [entry.label for entry in report.entries]
    assert labels == ["granule_convnet", "cerebellum_tiny", "CNN, still image"]
    for entry in report.entries:
        counters = ("closed_form", "exact", "fvcore")
        assert (entry.counters, entry.counter_remarks) == (counters, ())
        assert list(entry.accuracies) == [0, 1]
        values = np.array(list(entry.accuracies.values()))
        assert entry.mean == pytest.approx(values.mean())
        difference = values.mean() - np.mean(list(granule.accuracies.values()))
        assert entry.difference == (None if entry is granule else pytest.approx(difference))
    assert 0.5 * granule.parameters < cnn.parameters <= granule.parameters
    assert (cnn.dendrites, cnn.filters) == (None, [])
    # 12 synapses (a claw of 3 x 4), five steps, 60 taps; a direct convolution: 60 taps, five steps.
    assert (granule.dendrites.essay, granule.dendrites.direct) == (12 * 5 * 60, 60 * 5)
    assert granule.dendrites.executed - granule.dendrites.zeros == pytest.approx(60 * 5)
    assert [title for title, _ in cerebellum.filters] == [
        "granular.granule (3 × 4 × 5)", "granular.golgi (10 × 10 × 5)", "purkinje (5 × 50 × 5)",
        "nuclei (1 × 2 × 5)",  # of two Purkinje cells
    ]  # fmt: skip
    (epoch,) = cerebellum.histories[0]
    assert {"granular.golgi", "climbing_fibres"} < set(epoch["activity"])
    assert "activity" not in cnn.histories[0][0]
    # Filters are those of the first seed's best weights.
    (run,) = (report.folder / "runs").glob("granule_convnet-*-seed0")
    weights = load_file(run / "best.safetensors")
    for number, (_, array) in enumerate(granule.filters):
        assert np.array_equal(array, weights[f"units.{number}.weight"])
    assert len(granule.filters) == 2


def test_the_file_of_numbers_holds_the_table(report: Report) -> None:
    entries, printed, folder = report
    numbers = json.loads((folder / "comparison.json").read_text())
    assert numbers["differences_are_to"] == "granule_convnet"
    assert [model["label"] for model in numbers["models"]] == [e.label for e in entries]
    for model, entry in zip(numbers["models"], entries, strict=True):
        by_seed = {int(k): v for k, v in model["test_accuracy_fraction_by_seed"].items()}
        assert by_seed == entry.accuracies
        row = next(line for line in printed.splitlines() if line.startswith(entry.label))
        cells = row.removeprefix(entry.label).replace(" ± ", "±").split()

        def interval(name: str, sign: str = "", model: dict[str, Any] = model) -> str:
            if model[f"{name}_mean"] is None:
                return "–"
            mean, half_width = (100 * model[f"{name}_{key}"] for key in ("mean", "95_half_width"))
            return f"{mean:{sign}.2f}±{half_width:.2f}"

        assert cells == [
            f"{model['parameters_trained']:,}", short(model["mac_wired"]),
            short(model["mac_executed"]), short(model["axons"]), short(model["wires"]),
            interval("test_accuracy_fraction"), interval("difference_fraction", "+"),
        ]  # fmt: skip
        right, first = (
            np.array([unpack(text, 360) for text in m["right_answers_by_seed"].values()], float)
            for m in (model, numbers["models"][0])
        )
        assert right.mean(1) == pytest.approx([*by_seed.values()])
        accuracy, difference = estimate(right), estimate(right - first)
        assert (entry.mean, entry.half_width) == (accuracy.mean, accuracy.half_width)
        if model["verdict"]:  # it can be computed again from the file alone
            assert (entry.difference, entry.p) == (difference.mean, difference.p)
            assert model["verdict"] == verdict(difference, numbers["margin"])
            p = model["difference_p_uncorrected"]
            assert f"{model['verdict']} p {p:.2g}" in re.sub(r"\s+", " ", printed)
        for run in model["run_folders"]:
            assert (Path(run) / "result.json").is_file()
    assert max(map(len, printed.partition("chance")[0].splitlines())) <= 100
    page = (folder / "report.html").read_text()
    for entry in entries:
        assert f"{entry.mean * 100:.2f} ± {(entry.half_width or 0) * 100:.2f} %" in page
    assert numbers["finding"] in re.sub(r"\s+", " ", printed)
    for text in (
        "Not equal is what they see of an image.", "CNN, still image: 1 still image",
        "2 steps of batches of 20", "200 training, 180 validation and 360 test images",
    ):  # fmt: skip
        assert text in page


def test_linear_classifier_and_chance_are_of_the_test_set(report: Report) -> None:
    numbers = json.loads((report.folder / "comparison.json").read_text())
    stills = load_data("digits", encoding="none", train_limit=200)
    assert numbers["linear_test_accuracy_fraction"] == linear_baseline(stills)
    most = np.bincount(stills.test.targets).max()
    assert numbers["chance_test_accuracy_fraction"] == most / len(stills.test)
    for file in ("report.html", "comparison.json"):
        assert str(report.folder / file) in report.printed


def test_counters_that_differ_are_said_in_the_table(
    report: Report, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = neuroconv.comparison.table.profile

    def one_off(*arguments: object, **keywords: object) -> object:
        counted = real(*arguments, **keywords)  # type: ignore[arg-type]
        exact = counted.counts["exact"]
        wrong = replace(exact, macs={**exact.macs, "convolution": 1})
        return replace(counted, counts={**counted.counts, "exact": wrong})

    monkeypatch.setattr(neuroconv.comparison.table, "profile", one_off)
    alone = replace(small(report.folder / "runs"), opponents=())  # its runs are there already
    monkeypatch.setenv("COLUMNS", "200")
    page, folder = report.folder / "again.html", report.folder / "again"
    (entry,) = compare_and_report(
        alone, output=page, numbers=folder, title="Again", linear=False, progress=False
    )
    for text in (entry.counter_remarks[0], capsys.readouterr().out, page.read_text()):
        assert "They differ: convolution:" in text
    numbers = json.loads((folder / "comparison.json").read_text())
    assert numbers["linear_test_accuracy_fraction"] is None


def test_the_demo_trains_in_a_new_folder_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[Config] = []

    def record(config: Config, **keywords: object) -> list[Entry]:
        configs.append(config)
        return []

    monkeypatch.setattr(neuroconv.comparison.page, "compare_and_report", record)
    for _ in range(2):
        demo(output=tmp_path / "demo", report=tmp_path / "report.html", seeds=[4])
    first, second = (Path(config.train.output) for config in configs)
    assert first != second
    assert first.parent == second.parent == tmp_path / "demo"
    assert configs[0].train.seeds == (4,)
    assert len(configs[0].opponents) == 3
