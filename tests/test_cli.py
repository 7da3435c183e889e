"""The command line as a user meets it: words in; text, files and an exit status out."""

import inspect
import json
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import fields
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from neuroconv import profile
from neuroconv.comparison import count_flops
from neuroconv.neurons import CELL_CLASSES, PRESETS, preset
from neuroconv.training import DataConfig, RunResult, TrainConfig, load_config, read_result
from neuroconv.zoo import count_parameters, create_model, get_builder, list_models
from tests.commands import Call, status_of

PROJECT = Path(__file__).resolve().parent.parent
DIGITS = str(PROJECT / "configs" / "digits_granule.toml")
COMMANDS = [
    *("list", "profile", "cells", "operators", "brain", "train", "compare", "resume", "evaluate"),
    *("match", "bench", "demo"),
]
ONE_STEP = ["--train.max_steps", "1", "--train.seeds", "[0]", "--train.device", "cpu"]
SMALL = """
[model]
name = "granule_convnet"
widths = [2, 3]
strides = [2, 1]

[data]
name = "digits"
train_limit = 60

[train]
epochs = 2
batch_size = 20
learning_rate = 1e-2
device = "cpu"

[[opponents]]
name = "plain_cnn"
match = "parameters"
encoding = "none"
"""


# --- list, match, profile


def test_list_shows_every_model_with_its_parameters(call: Call) -> None:
    status, out, err = call("list")
    assert (status, err) == (0, "")
    rows = {line.split()[1]: line.split()[3] for line in out.splitlines() if line.startswith("│")}
    assert sorted(rows) == list_models()
    for name in ("granule_convnet", "lenet5"):
        assert rows[name] == f"{count_parameters(create_model(name)):,}"
    for line in out.splitlines():
        if line.startswith("│"):
            name, _, _, what = (cell.strip() for cell in line.strip("│").split("│"))
            assert what == (inspect.getdoc(get_builder(name)) or "").partition("\n")[0]
    cells = "cells for `neuroconv profile`: granule, purkinje, deep_nuclear, golgi, pyramidal"
    assert out.splitlines()[-1] == cells


def test_list_takes_a_wildcard(call: Call) -> None:
    _, out, _ = call("list", "cerebellum*")
    assert {name for name in list_models() if re.search(rf"\b{name}\b", out)} == {
        "cerebellum_base", "cerebellum_small", "cerebellum_tiny"
    }  # fmt: skip


def test_python_m_runs_the_same_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "neuroconv", "list", "granule*"],
        capture_output=True, text=True, timeout=120, check=True, cwd=PROJECT,
    )  # fmt: skip
    assert "granule_convnet_conv3d" in done.stdout
    assert "lenet5" not in done.stdout


def numbers_in(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The keys that lead to each number of a JSON document."""
    if isinstance(value, dict):
        return [way for key, item in value.items() for way in numbers_in(item, (*path, key))]
    if isinstance(value, list):
        return [way for item in value for way in numbers_in(item, path)]
    return [path] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_profile_of_the_essays_cells(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "cells.json"
    status, out, _ = call("profile", "granule", "purkinje", "--json", file)
    assert status == 0
    granule, purkinje = json.loads(file.read_text())
    assert granule["dendrites_essay_mac_per_neuron"] == 4_500
    assert granule["dendrites_direct_mac_per_neuron"] == 4_800
    assert purkinje["dendrites_essay_mac_per_neuron"] == 25_000_000_000
    assert purkinje["dendrites_direct_mac_per_neuron"] == 25_000_000_000
    assert (granule["synapses_per_sample"], purkinje["synapses_per_sample"]) == (15, 100_000)
    for cell in (granule, purkinje):
        assert set(cell["counters"]) == {"closed_form", "exact", "fvcore"}
        assert cell["counters_agree"] is True
        assert cell["counters_shared_families"]
        assert cell["counters_disagreements"] == []
    # What the file holds is what the table shows.
    (essay,) = (line for line in out.splitlines() if "dendrites, essay" in line)
    assert essay.replace("│", " ").split()[-2:] == ["4,500", "25,000,000,000"]
    assert out.splitlines()[-1] == f"written to {file}"


def test_profile_of_cells_by_the_literatures_numbers(call: Call, tmp_path: Path) -> None:
    names = ["golgi", "deep_nuclear", "pyramidal", "purkinje"]
    status, out, err = call(
        "profile", *names, "--variant", "literature", "--json", tmp_path / "cells.json"
    )
    assert (status, err) == (0, "")
    counted = json.loads((tmp_path / "cells.json").read_text())
    assert [cell["name"] for cell in counted] == names
    for name, cell in zip(names, counted, strict=True):
        numbers = preset(name, "literature")
        branches, dendrites, steps = numbers.filter_shape
        taps = branches * dendrites * steps
        assert cell["synapses_per_sample"] == numbers.synapses
        assert cell["dendrites_essay_mac_per_neuron"] == numbers.synapses * steps * taps
        assert cell["counters_agree"] is True
        assert cell["modules_unstated"] == []
        assert f"{numbers.synapses:,}" in out


@pytest.mark.parametrize("cell", CELL_CLASSES)
def test_a_cell_is_profiled_by_its_default_numbers(call: Call, tmp_path: Path, cell: str) -> None:
    file = tmp_path / "cell.json"
    status, _, err = call("profile", cell, "--neurons", 2, "--no-stages", "--json", file)
    assert (status, err) == (0, "")
    (counted,) = json.loads(file.read_text())
    assert counted["neurons_per_sample"] == 2
    assert counted["synapses_per_sample"] == 2 * preset(cell).synapses
    assert counted["counters_agree"] is True


# --- cells


@pytest.mark.parametrize("columns", ["80", "120"])
def test_cells_shows_where_the_variants_differ(
    call: Call, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    status, out, err = call("cells")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert "…" not in out
    for cell in CELL_CLASSES:
        assert cell.replace("_", " ") in [line.strip() for line in lines]
    (synapses,) = (line for line in lines if "synapses " in line and "175,000" in line)
    assert re.fullmatch(r"synapses +100,000 +\[\d+\] +175,000 +\[\d+\]", synapses.strip())
    # Every note that a number leads to is there once, in order.
    notes = [int(note) for note in re.findall(r"^ *\[(\d+)\] \S", out, flags=re.MULTILINE)]
    assert notes == list(range(1, len(notes) + 1))
    asked = {int(note) for note in re.findall(r"\S +\[(\d+)\]", out)}
    assert asked == set(notes)


def test_cells_of_one_kind_have_whole_sources_and_a_file(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    file = tmp_path / "made" / "purkinje.json"
    status, out, err = call("cells", "purkinje", "--json", file)
    assert (status, err) == (0, "")
    assert "granule cells" not in out.splitlines()[:5]
    assert "guinea pig" in " ".join(out.split())
    assert "…" not in out
    (row,) = json.loads(file.read_text())
    assert row["cell"] == "purkinje"
    synapses = row["differences"]["synapses"]
    essay, literature = (PRESETS["purkinje", name] for name in ("dettmers2015", "literature"))
    assert synapses["dettmers2015"] == essay.synapses
    assert synapses["literature"] == literature.synapses
    assert synapses["literature_source"] == str(literature.sources["synapses"])
    # The page folds long addresses: without its frame and ends of lines they are whole.
    flat = re.sub(r"[│\s]", "", out)
    for source in ("dettmers2015_urls", "literature_urls"):
        assert synapses[source]
        assert all(url in flat for url in synapses[source])
    assert out.splitlines()[-1] == f"written to {file}"


def test_every_number_of_the_cells_has_its_unit(call: Call, tmp_path: Path) -> None:
    call("cells", "--json", tmp_path / "cells.json")
    rows = json.loads((tmp_path / "cells.json").read_text())
    assert [row["cell"] for row in rows] == list(CELL_CLASSES)
    units = {"cells", "synapses", "connections", "dendrites", "steps", "um", "ms", "hz"}
    for way in numbers_in(rows):
        assert units & set("_".join(way).split("_")), way


def test_every_number_of_a_profile_has_its_unit(call: Call, tmp_path: Path) -> None:
    call("profile", "cerebellum_tiny", "--json", tmp_path / "p.json", "--no-stages")
    units = {
        "mac", "flop", "samples", "steps", "parameters", "elements", "neurons", "synapses",
        "calls", "share", "byte", "bytes", "joules", "accumulates",
    }  # fmt: skip
    ways = numbers_in(json.loads((tmp_path / "p.json").read_text()))
    assert len(ways) > 50
    for way in ways:
        assert units & set("_".join(way).split("_")), way


@pytest.mark.parametrize("name", list_models())
def test_counters_agree_on_every_zoo_entry(call: Call, tmp_path: Path, name: str) -> None:
    shape = ["--image-shape", "3x64x64"] if name == "resnet18" else []  # 224 pixels take seconds
    status, _, err = call("profile", name, *shape, "--no-stages", "--json", tmp_path / "p.json")
    assert (status, err) == (0, "")
    (counted,) = json.loads((tmp_path / "p.json").read_text())
    assert set(counted["counters"]) == {"closed_form", "exact", "fvcore"}
    assert counted["counters_agree"] is True
    assert counted["modules_unstated"] == []


def test_profile_takes_the_shape_that_list_shows(call: Call, tmp_path: Path) -> None:
    for shape in ("1x28x28", "3x16x20"):
        call("profile", "linear", "--image-shape", shape, "--json", tmp_path / f"{shape}.json")
    mac = [
        json.loads((tmp_path / f"{shape}.json").read_text())[0]["mac_per_sample"]
        for shape in ("1x28x28", "3x16x20")
    ]
    assert mac == [10 * 28 * 28, 10 * 3 * 16 * 20]


def test_convention_flop_doubles_the_mac(call: Call) -> None:
    shown = []
    for convention in ("mac", "flop"):
        _, out, _ = call("profile", "granule", "--no-stages", "--convention", convention)
        (line,) = (line for line in out.splitlines() if "dendrites, direct" in line)
        shown.append(line.replace("│", " ").split()[-1])
    assert shown == ["4,800", "9,600"]


def test_a_whole_population_is_counted_without_its_memory(call: Call, tmp_path: Path) -> None:
    """The essay's 100 million Purkinje cells would take 60 TB of parameters."""
    status, out, _ = call(
        "profile", "purkinje", "--neurons", 100_000_000, "--json", tmp_path / "p.json"
    )
    assert status == 0
    (counted,) = json.loads((tmp_path / "p.json").read_text())
    assert counted["neurons_per_sample"] == 100_000_000
    assert counted["dendrites_essay_mac_per_neuron"] == 25_000_000_000
    assert counted["counters_agree"] is True
    assert list(counted["counters"]) == ["closed_form", "exact"]
    assert "fvcore was skipped" in out


def test_match_prints_the_width(call: Call) -> None:
    status, out, _ = call("match", "granule_convnet", "--opponent", "plain_cnn")
    assert status == 0
    target, matched = (int(number.replace(",", "")) for number in re.findall(r"[\d,]{4,}", out))
    (width,) = re.findall(r"width=(\d+)", out)
    shape = (1, 28, 28)  # granule_convnet's own
    assert target == count_parameters(create_model("granule_convnet", image_shape=shape))
    sizes = [
        count_parameters(
            create_model("plain_cnn", width=int(width) + more, image_shape=shape, time_steps=5)
        )
        for more in (0, 1)
    ]
    assert sizes[0] == matched <= target < sizes[1]


def test_match_by_flops(call: Call) -> None:
    status, out, _ = call("match", "granule_convnet", "--by", "flops")
    assert status == 0
    own, matched = out.splitlines()
    (width,) = re.findall(r"width=(\d+)", matched)
    target, found = (
        int(re.findall(r"([\d,]+) FLOPs an image", line)[0].replace(",", ""))
        for line in (own, matched)
    )
    assert target == count_flops("granule_convnet")
    costs = [count_flops("plain_cnn", width=int(width) + more, time_steps=5) for more in (0, 1)]
    assert costs[0] == found <= target < costs[1]


# --- train, evaluate, resume, compare


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, str, Path]:
    """A run of one step, what was printed, and the file of results."""
    folder = tmp_path_factory.mktemp("trained")
    file = folder / "results.json"
    out = StringIO()
    with redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        words = ["--train.output", str(folder / "[runs]"), "--json", str(file)]
        assert status_of("train", DIGITS, *ONE_STEP, *words) == 0
    (run,) = (folder / "[runs]").iterdir()
    return read_result(run), out.getvalue(), file


def test_train_overrides_the_file_and_says_where_the_run_is(
    trained: tuple[RunResult, str, Path],
) -> None:
    result, out, _ = trained
    assert result.steps == 1
    assert f"run: {result.run_dir}" in out.splitlines()  # whole, even on a narrow screen
    assert f"{result.test_accuracy:.2%}" in out
    config = load_config(result.run_dir / "config.toml")
    assert config.train.seeds == (0,)
    assert config.train.batch_size == load_config(DIGITS).train.batch_size


def test_train_writes_its_results(trained: tuple[RunResult, str, Path]) -> None:
    result, _, file = trained
    numbers = json.loads(file.read_text())
    (run,) = numbers["runs"]
    assert run["run_dir"] == str(result.run_dir)
    assert run["test_accuracy"] == numbers["test_accuracy_fraction_mean"] == result.test_accuracy
    assert numbers["test_accuracy_fraction_95_half_width"] is None  # of one seed


def test_evaluate_repeats_the_runs_scores(call: Call, trained: tuple[RunResult, str, Path]) -> None:
    result = trained[0]
    status, out, _ = call("evaluate", result.run_dir)
    assert status == 0
    assert out == (
        f"test: accuracy {result.test_accuracy:.2%}, cross entropy {result.test_loss:.4f} nats, "
        "360 images\n"
    )
    _, out, _ = call("evaluate", result.run_dir, "--split", "val")
    assert out.startswith(f"val: accuracy {result.val_accuracy:.2%}")
    assert out.endswith("180 images\n")


def test_resume_of_a_finished_run_reads_it(
    call: Call, trained: tuple[RunResult, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **keywords: object) -> None:
        raise AssertionError("nothing should be trained here")

    monkeypatch.setattr("neuroconv.training.runs.train", fail)
    status, out, _ = call("resume", trained[0].run_dir)
    assert status == 0
    assert f"{trained[0].test_accuracy:.2%}" in out


def test_an_interrupted_run_says_how_to_go_on_and_does(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.toml").write_text(SMALL)

    def interrupt(bar: Any, record: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("neuroconv.training.loop.TrainingBar.epoch", interrupt)
        status, _, err = call("train", "small.toml")
    assert status == 130
    assert "Traceback" not in err
    (way_on,) = re.findall(r"interrupted with 1 epochs? finished; continue with: (.*)\n", err)
    program, *words = shlex.split(way_on)
    assert program == "neuroconv"
    status, out, _ = call(*words)
    assert status == 0
    finished = read_result(words[-1])
    assert [record["epoch"] for record in finished.history] == [1, 2]
    assert f"{finished.test_accuracy:.2%}" in out


def test_compare_writes_the_page_and_its_numbers(call: Call, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    status, out, _ = call(
        "compare", "small.toml", *ONE_STEP, "--report", "made/here/page.html", "--no-linear"
    )
    assert status == 0
    folder = tmp_path / "made" / "here"
    numbers = json.loads((folder / "comparison.json").read_text())
    granule, cnn = numbers["models"]
    assert 0 < cnn["parameters_trained"] <= granule["parameters_trained"]
    assert f"{granule['parameters_trained']:,}" in out
    assert "<html" in (folder / "page.html").read_text()
    assert str(folder / "page.html") in out
    again = load_config(folder / "comparison.toml")
    assert (again.train.max_steps, len(again.opponents)) == (1, 1)


# --- help


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example_that_holds(call: Call, command: str) -> None:
    status, out, err = call(command, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"usage: neuroconv {command} ")
    assert "None" not in out
    examples = re.findall(r"^Example: (neuroconv .*)$", out, flags=re.MULTILINE)
    assert examples
    for example in examples:
        _, own, *words = shlex.split(example)
        assert own == command
        for word in words:
            if word.startswith("--") and "." not in word:
                assert f"{word} " in out
            if word.endswith(".toml"):
                assert (PROJECT / word).is_file()


def test_help_of_train_names_every_key(call: Call) -> None:
    _, shown, _ = call("train", "--help")
    for table in (DataConfig, TrainConfig):
        for each in fields(table):
            assert each.name in shown
    assert "batch_size = 128" in shown


def test_help_lists_all_commands(call: Call) -> None:
    status, out, _ = call("--help")
    assert status == 0
    assert re.findall(r"• (\w+) ", out) == COMMANDS
    assert "neuroconv COMMAND --help" in out


# --- mistakes: status 2 and one message, which names the value, the expected form and the fix


def refused(call: Call, *words: str) -> str:
    """The one message of a command that does nothing else; its lines are joined."""
    status, out, err = call(*words)
    assert status == 2
    assert out == ""
    assert "Traceback" not in err
    if err.startswith("error: "):
        assert err.count("\n") == 1
    else:  # tyro's, in a box
        assert err.count("For full helptext") == 1
    return " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize("words", [("granule",), ("granule_convnet", "--opponent", "granule")])
def test_match_says_that_a_cell_is_one(call: Call, words: tuple[str, ...]) -> None:
    assert "granule is a cell" in refused(call, "match", *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["Expected one of", *COMMANDS]),
        (["trian", DIGITS], ["'trian'", "did you mean 'train'", "expected one of", *COMMANDS]),
        (["list", "zzz*"], ["'zzz*'", *list_models()]),
        (["list", "gra*", "lenet5"], ["'lenet5'", "neuroconv list --help"]),
        (["match", "granul"], ["'granul'", "did you mean granule_convnet", *list_models()]),
        (["match", "lenet5", "--opponent", "resnet18"], ["'resnet18'", "'width'", "plain_cnn"]),
        (["resume"], ["RUN", "a run folder"]),
        (["resume", "nowhere"], ["nowhere is not a run", "config.toml", "`neuroconv train` made"]),
        (["resume", "."], [". is not a run", "expected a folder"]),
        (["evaluate", "nowhere"], ["nowhere is not a run", "expected a folder"]),
        (["evaluate", ".", "--split", "train"], ["'train'", "--split", "'val', 'test'"]),
        (["cells", "nosuch"], ["'nosuch'", "expected one of", *CELL_CLASSES]),
        (["cells", "granule", "golgi"], ["'golgi'", "neuroconv cells --help"]),
        (["cells", "--json", "."], ["--json .", "it is a folder", "the name of a file"]),
        (["demo", "--report", "."], ["--report .", "it is a folder", "the name of a file"]),
    ],
)
def test_mistakes(call: Call, words: list[str], said: list[str]) -> None:
    message = refused(call, *words)
    for each in said:
        assert each in message


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["no name", "expected names such as: granule purkinje"]),
        (["granul"], ["'granul'", "did you mean granule_convnet", "or a cell: granule, purkinje"]),
        (["linear", "--image-shape", "1", "28"], ["--image-shape", "'1'", "3x224x224"]),
        (["linear", "--image-shape", "1x28"], ["'1x28'", "channels x height x width", "3x224x224"]),
        (["linear", "--image-shape", "1x0x28"], ["'1x0x28'", "channels x height x width"]),
        (["linear", "--image-shape", "1x-2x28"], ["'1x-2x28'", "channels x height x width"]),
        (["granule", "--neurons", "0"], ["--neurons 0", "an integer of at least 1"]),
        (["granule", "--neurons", "few"], ["--neurons", "'few'", "INT"]),
        (["linear", "--batch", "-1"], ["--batch -1", "an integer of at least 1"]),
        (["golgi", "--variant", "dettmers2015"], ["'dettmers2015'", "'golgi' has 'literature' al"]),
        (["golgi", "--variant", "mine"], ["'mine'", "--variant", "dettmers2015", "literature"]),
        (["granule", "--counter", "mine"], ["'mine'", "--counter", "'fvcore'"]),
        (["granule", "--jsn", "x"], ["'--jsn x'", "neuroconv profile --help"]),
        (["granule", "--json", "file/x.json"], ["--json file/x.json", "the name of a file in a"]),
    ],
)
def test_mistakes_in_profile(call: Call, tmp_path: Path, words: list[str], said: list[str]) -> None:
    (tmp_path / "file").touch()  # so that no folder can have its name
    message = refused(call, "profile", *words)
    for each in said:
        assert each in message


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model.name", "granul"], ["'granul'", "did you mean granule_convnet", *list_models()]),
        (["--model.wdiths", "[3]"], ["'wdiths'", "did you mean widths", "strides"]),
        (["--train.epoch", "3"], ["epoch = 3", "did you mean 'epochs'", "batch_size"]),
        (["--train.epochs", "many"], ["epochs = 'many'", "expected an integer, at least 1"]),
        (["--train.epochs=0"], ["epochs = 0", "expected an integer, at least 1"]),
        (["--train.epochs"], ["--train.epochs has no value", "--train.epochs VALUE"]),
        (["--train.epochs", "--train.seeds", "[1]"], ["--train.epochs has no value"]),
        (["--trian.epochs", "3"], ["'trian'", "did you mean 'train'", "model, data, train"]),
        (["--epochs", "3"], ["'--epochs 3'", "did you mean --train.epochs VALUE?"]),
        (["--image-size=8"], ["did you mean --data.image_size VALUE?"]),
        (["--nonsense"], ["'--nonsense'", "neuroconv train --help"]),
        (["--train.device", "abacus"], ["'abacus'", '"auto", "cpu" or "cuda"']),
        (["--train.output", "file/runs"], ["file", "expected a path"]),
        (["--json", "file/x.json"], ["--json file/x.json", "expected the name of a file"]),
        (["--data.name", "digit"], ["'digit'", "did you mean 'digits'", "imagenette"]),
        (["--data.encoding", "morse"], ["'morse'", "repeat, poisson, saccade, none"]),
        (["--data.train_limit", "3"], ["train_limit=3", "10 (one image for each class) to 1257"]),
        (["--model.image_shape", "[1, 9, 9]"], ["(1, 9, 9)", "(1, 8, 8)", "leave the key out"]),
        (
            ["--data.name", "folder", "--data.root", "nowhere"],
            ["nowhere", "is not a folder", "ROOT/{train,val}/CLASS/*.jpg", "--data.root ROOT"],
        ),
        (
            ["--data.name", "folder", "--data.root", "empty"],
            ["empty/train", "no valid file for the classes cat, dog", ".jpg", "Put images there"],
        ),
        (
            [
                "--model.name=cerebellum_tiny",
                "--model.purkinje_mode=valid",
                "--model.purkinje_filter=[30, 50]",
            ],
            ["30 branches x 50 dendrites", "5 sites x 50", "make the filter smaller or use mode"],
        ),
        (["--model.kernel_size", "[0, 4]"], ["kernel_size=(0, 4)", "expected positive integers"]),
    ],
)
def test_mistakes_in_train(call: Call, tmp_path: Path, words: list[str], said: list[str]) -> None:
    (tmp_path / "file").touch()
    for folder in ("train/cat", "train/dog", "val/cat", "val/dog"):
        (tmp_path / "empty" / folder).mkdir(parents=True)
    message = refused(call, "train", DIGITS, *words)
    for each in said:
        assert each in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, ["config.toml: cannot be read", "expected a TOML file"]),
        (SMALL + "x = = 1\n", ["config.toml: not valid TOML", "line 21"]),
        (SMALL.replace("[train]", "[trian]"), ["[trian]", "did you mean 'train'"]),
        (SMALL.replace("batch_size", "batchsize"), ["batchsize = 20", "mean 'batch_size'"]),
        (SMALL.replace("= 20", '= "20"'), ["batch_size = '20'", "an integer, at least 1"]),
        (SMALL.replace("epochs = 2\n", ""), ["[train] has no epochs", "an integer, at least 1"]),
        (
            SMALL.replace("match = ", "match = 1 #"),
            ["match = 1", 'expected "parameters" or "flops"'],
        ),
    ],
)
@pytest.mark.parametrize("command", ["train", "compare"])
def test_mistakes_in_the_file(
    call: Call, tmp_path: Path, command: str, text: str | None, said: list[str]
) -> None:
    if text is not None:
        (tmp_path / "config.toml").write_text(text)
    message = refused(call, command, "config.toml")
    for each in said:
        assert each in message


# --- the rest of profile: modules, runs, wildcards, plots, operators


def test_profile_takes_any_module(call: Call, tmp_path: Path) -> None:
    Path("mine.py").write_text(
        "import torch\n"
        "class Mine(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.linalg.qr(x)[0] @ x\n"
    )
    file = tmp_path / "p.json"
    status, out, _ = call(
        "profile", "torch.nn:Identity", "mine:Mine", "--input-shape", "4x4", "--json", file
    )
    assert status == 0
    (_, mine) = json.loads(file.read_text())
    assert mine["mac_per_sample"] == 64
    assert "mine:Mine: NOT COUNTED, no rule for aten.linalg_qr.default" in out
    status, _, err = call("profile", "mine:Mine", "--input-shape", "4x4", "--strict")
    assert status == 2
    assert "no rule for aten.linalg_qr.default" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mine:Mine"], "give the shape of one sample"),
        (["nowhere:Mine", "--input-shape", "4"], "No module named 'nowhere'"),
        (["torch.nn:Conv2d", "--input-shape", "4"], "takes no arguments"),
        (["torch:get_default_dtype", "--input-shape", "4"], "expected an nn.Module"),
        (["nothing*"], "matches none of"),
        (["granule", "--plot", "roofline.svg"], "meta runs nothing: add --device"),
        (["torch.nn:ReLU", "--input-shape", "4x"], "such as 3x224x224"),
        ([""], "an empty name"),
        (["granule_convnet", "--mode", "valid"], "--mode is for a cell"),
        (["granule_convnet", "--neurons", "5"], "--neurons is for a cell"),
        (["granule", "--image-shape", "3x8x8"], "--image-shape is for a model of the zoo"),
        (["granule", "--input-shape", "4"], "--input-shape is for a module:Class"),
        (["granule", "--device", "cpu", "--plot", "a.txt"], "the ending '.txt' is no picture"),
        (["torchvision.models:vit_b_16", "--input-shape", "3x64x64"], "of shape (1, 3, 64, 64)"),
        (["purkinje", "--neurons", "100000000", "--device", "cpu"], "count with --device meta"),
    ],
)
def test_profile_says_what_is_wrong(call: Call, words: list[str], message: str) -> None:
    status, _, err = call("profile", *words)
    assert status == 2
    assert message in " ".join(err.split())


def test_profile_of_a_run_measures_its_own_firing(call: Call, tmp_path: Path) -> None:
    Path("small.toml").write_text(SMALL)
    assert call("train", "small.toml", "--train.seeds", "[0]", "--train.output", "runs")[0] == 0
    (run,) = (path for path in Path("runs").iterdir() if path.is_dir())
    file, picture = tmp_path / "p.json", tmp_path / "roofline.png"
    status, out, err = call(
        "profile", run, "lenet5", "--device", "cpu", "--batch", 4, "--json", file, "--plot", picture
    )
    assert (status, err) == (0, "")
    of_run, lenet = json.loads(file.read_text())
    assert of_run["name"] == run.name
    assert of_run["batch_samples"] == 4
    heard = [each["heard"] for each in of_run["measured"]["firing_by_module"].values()]
    assert 0 < min(heard) < 1  # images have black pixels
    dense = of_run["energy_per_sample"]["arithmetic_lowest_joules"]
    sparse = of_run["energy_per_sample_at_measured_firing"]["arithmetic_lowest_joules"]
    assert 0 < sparse < dense
    assert lenet["measured"]["placement_per_batch"]["bound"] in ("arithmetic", "memory", "overhead")
    assert picture.stat().st_size > 10_000
    assert "peaks measured now on" in out


def test_the_whole_zoo_is_profiled(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "all.json"
    words = ("profile", "*", "--no-stages", "--json", file, "--strict")
    for counter in ("exact", "closed_form"):
        assert call(*words, "--counter", counter)[0] == 0
    names = [each["name"] for each in json.loads(file.read_text())]
    assert names == [*CELL_CLASSES, *list_models()]


class _Operators(TorchDispatchMode):
    """Counts the operators that run inside."""

    number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += 1
        return func(*args, **(kwargs or {}))


def test_a_long_window_is_profiled_by_a_few_operators_a_step() -> None:
    steps = 2000
    with torch.device("meta"), _Operators() as operators:
        cells = CELL_CLASSES["granule"](1000, 1)
        counted = profile(cells, torch.zeros(1, 1000, steps), counters=("closed_form", "exact"))
    assert counted.agree is True
    assert counted.time_steps == steps
    assert operators.number < 5 * steps


def test_a_hundred_million_neurons_are_counted_exactly(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    assert call("profile", "purkinje", "--neurons", 10**8, "--no-stages", "--json", file)[0] == 0
    (many,) = json.loads(file.read_text())
    (one,) = json.loads(call_json(call, tmp_path, "purkinje"))
    assert many["counters_agree"] is True
    exact = many["counters"]["exact"]["mac_per_batch_by_family"]
    assert exact == {
        family: 10**8 * mac
        for family, mac in one["counters"]["exact"]["mac_per_batch_by_family"].items()
    }
    assert many["dendrites_essay_mac_per_neuron"] == 25_000_000_000


def call_json(call: Call, folder: Path, name: str) -> str:
    file = folder / f"{name}.json"
    assert call("profile", name, "--no-stages", "--json", file)[0] == 0
    return file.read_text()


def test_operators_says_how_each_is_counted(call: Call) -> None:
    status, out, _ = call("operators", "convolution*")
    assert status == 0
    assert "for each gradient that is asked for" in out
    status, _, err = call("operators", "nothing")
    assert status == 2
    assert "no operator matches 'nothing'" in err
