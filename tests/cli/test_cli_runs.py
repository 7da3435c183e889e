"""`list`, `match`, `train`, `resume`, `evaluate` and `compare` in small."""

import inspect
import json
import re
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from neuroconv.comparison.match import MATCHES
from neuroconv.core.text import printable
from neuroconv.data import DATASETS
from neuroconv.training import RunResult, list_configs, load_config, read_result
from neuroconv.zoo import count_parameters, create_model, get_builder, list_models
from tests.cli.small import SMALL
from tests.commands import Call, status_of
from tests.training.small_runs import forbid_training, interrupt_after_first_epoch

ONE_STEP = ["--train.max_steps", "1", "--train.seeds", "[0]", "--train.device", "cpu"]


def test_list_shows_every_model_with_its_parameters(call: Call) -> None:
    status, out, err = call("list")
    assert (status, err) == (0, "")
    lines = [line for line in out.splitlines() if line.startswith("│")]
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    assert sorted(name for name, *_ in rows) == list_models()
    for name, parameters, _, summary in rows:
        assert summary == (inspect.getdoc(get_builder(name)) or "").partition("\n")[0]
        if name in ("granule_convnet", "lenet5"):
            assert parameters == f"{count_parameters(create_model(name)):,}"
    cells = "cells for `neuroconv profile`: granule, purkinje, deep_nuclear, golgi, pyramidal"
    data = "data sets for `neuroconv train`, [data] name: " + ", ".join(DATASETS)
    configs = f"configs for `neuroconv train` and `compare`: {', '.join(list_configs())}"
    assert out.splitlines()[-3:] == [cells, configs, data]


def test_list_takes_a_wildcard(call: Call) -> None:
    _, out, _ = call("list", "cerebellum*")
    shown = [name for name in list_models() if re.search(rf"\b{name}\b", out)]
    assert shown == ["cerebellum_base", "cerebellum_small", "cerebellum_tiny"]


@pytest.mark.parametrize("by", ["parameters", "flops", "axons"])
@pytest.mark.parametrize("rule", ["nearest", "at_most"])
def test_match_prints_and_writes_the_sizes(call: Call, by: str, rule: str, tmp_path: Path) -> None:
    def amount(name: str, **keywords: Any) -> int:
        if by != "parameters":
            return MATCHES[by][0](name, **keywords)
        return count_parameters(create_model(name, **keywords))

    file = tmp_path / "match.json"
    status, out, _ = call("match", "granule_convnet", "--by", by, "--rule", rule, "--json", file)
    assert status == 0
    unit = {"parameters": "parameters", "flops": "FLOPs an image", "axons": "axons an image"}[by]
    numbers = re.findall(rf"([\d,]+) {unit}", out)
    target, matched = (int(number.replace(",", "")) for number in numbers)
    written = json.loads(file.read_text())
    assert (written["target"], written["matched"]) == (target, matched)
    assert f"ratio of {by}: {written['matched_over_target']:.4f}\n" in out
    assert written["matched_over_target"] == matched / target
    keywords = written["keywords"]
    assert keywords["image_shape"] == [1, 28, 28]
    assert keywords["time_steps"] == 5  # granule_convnet's own
    assert re.findall(r"(width|depth)=(\d+)", out) == [
        (key, str(keywords[key])) for key in ("width", "depth") if key in keywords
    ]
    assert target == amount("granule_convnet")
    assert matched == amount("plain_cnn", **keywords)
    assert matched <= target if rule == "at_most" else abs(matched - target) <= 0.02 * target


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, str, Path]:
    """A run of one step, what was printed, and the file of results."""
    folder = tmp_path_factory.mktemp("trained")
    file, config = folder / "results.json", folder / "small.toml"
    config.write_text(SMALL)
    out = StringIO()
    with redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        words = ["--train.output", str(folder / "[runs]"), "--json", str(file)]
        assert status_of("train", str(config), *ONE_STEP, *words) == 0
    (run,) = (folder / "[runs]").iterdir()
    return read_result(run), out.getvalue(), file


def test_train_overrides_the_file_and_writes_its_results(
    trained: tuple[RunResult, str, Path],
) -> None:
    result, out, file = trained
    assert result.steps == 1
    assert f"run: {result.run_dir}" in out.splitlines()  # whole, even on a narrow screen
    assert f"{result.test_accuracy:.2%}" in out
    config = load_config(result.run_dir / "config.toml")
    assert (config.train.max_steps, config.train.batch_size) == (1, 20)
    numbers = json.loads(file.read_text())
    (run,) = numbers["runs"]
    assert run["run_dir"] == str(result.run_dir)
    assert run["test_accuracy"] == numbers["test_accuracy_fraction_mean"] == result.test_accuracy
    assert numbers["test_accuracy_fraction_95_half_width"] is None  # a single seed


def test_evaluate_repeats_the_runs_scores(call: Call, trained: tuple[RunResult, str, Path]) -> None:
    result = trained[0]
    status, out, _ = call("evaluate", result.run_dir)
    assert status == 0
    assert out == (
        f"test: accuracy {result.test_accuracy:.2%}, cross entropy {result.test_loss:.4f} nats, "
        "360 images\n"
    )
    _, plain, _ = call("evaluate", result.run_dir, "--split", "val")
    assert plain.startswith(f"val: accuracy {result.val_accuracy:.2%}")
    assert plain.endswith("180 images\n")
    options = ("--split", "val", "--report", "new/page.html", "--json", "numbers.json")
    assert call("evaluate", result.run_dir, *options) == (
        0, f"{plain}written to numbers.json\nwritten to new/page.html\n", ""
    )  # fmt: skip
    numbers = json.loads(Path("numbers.json").read_text())
    assert (numbers["split"], numbers["images"]) == ("val", 180)
    accuracies = [rows[0]["value"] for rows in numbers["perturbed"].values()]
    assert accuracies == [result.val_accuracy] * 3
    assert "granule_convnet on digits" in Path("new/page.html").read_text()


def test_resume_of_a_finished_run_reads_it(
    call: Call, trained: tuple[RunResult, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_training(monkeypatch)
    status, out, _ = call("resume", trained[0].run_dir)
    assert status == 0
    assert f"{trained[0].test_accuracy:.2%}" in out


def test_an_interrupted_run_says_how_to_go_on_and_does(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    with monkeypatch.context() as patch:
        interrupt_after_first_epoch(patch)
        status, _, err = call("train", "small.toml")
    assert status == 130
    assert "Traceback" not in err
    (command,) = re.findall(r"with 1 epoch finished; continue with: (.*)\n", err)
    program, *words = shlex.split(command)
    assert program == "neuroconv"
    status, out, _ = call(*words)
    assert status == 0
    finished = read_result(words[-1])
    assert [record["epoch"] for record in finished.history] == [1, 2]
    assert f"{finished.test_accuracy:.2%}" in out


def test_compare_writes_the_page_and_its_numbers(call: Call, tmp_path: Path) -> None:
    config, label = tmp_path / "[red] $x_{ \udcff.toml", "[/] $x_{ <b> %"
    config.write_text(f'{SMALL}label = "{label}"\n')
    status, out, _ = call(
        "compare", config, *ONE_STEP, "--report", "[made]/\udcff/page.html", "--no-linear"
    )
    assert status == 0
    folder = tmp_path / "[made]" / "\udcff"
    numbers = json.loads((folder / "comparison.json").read_text())
    granule, cnn = numbers["models"]
    assert 0 < cnn["parameters_trained"] <= granule["parameters_trained"]
    assert f"{granule['parameters_trained']:,}" in out
    assert numbers["title"] == config.stem
    page = (folder / "page.html").read_text()
    assert "<html" in page
    assert r"<h1>[red] $x_{ \udcff</h1>" in page
    assert label in out
    assert printable(str(folder / "page.html")) in out
    config = load_config(folder / "comparison.toml")
    assert (config.train.max_steps, len(config.opponents)) == (1, 1)
