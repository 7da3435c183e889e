"""The command line as a user meets it: the overview, help, and one message for a mistake."""

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import neuroconv
from neuroconv.brain import READINGS
from neuroconv.cli.dispatch import COMMANDS, command_class
from neuroconv.neurons import CELL_CLASSES
from neuroconv.training import DataConfig, TrainConfig
from neuroconv.zoo import list_models
from tests.cli.small import SMALL
from tests.commands import Call

PROJECT = Path(__file__).resolve().parents[2]
DIGITS = str(PROJECT / "configs" / "digits_granule.toml")


def test_python_m_runs_the_same_command_line() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "neuroconv", "--version"],
        capture_output=True, text=True, timeout=120, check=True, cwd=PROJECT,
    )  # fmt: skip
    assert process.stdout == f"neuroconv {neuroconv.__version__}\n"


# --- help


def test_the_overview_lists_each_command_with_its_summary(call: Call) -> None:
    status, out, _ = call("--help")
    assert status == 0
    assert re.findall(r"^  (\w+)  +\S", out, flags=re.MULTILINE) == list(COMMANDS)
    for name in COMMANDS:
        assert " ".join(command_class(name).__doc__.partition("\n\n")[0].split()) in out
    assert "neuroconv COMMAND --help" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example_that_holds(call: Call, command: str) -> None:
    status, out, err = call(command, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"usage: neuroconv {command} ")
    assert "None" not in out
    examples = re.findall(r"^Example: (neuroconv .*)$", out, flags=re.MULTILINE)
    assert examples
    for example in examples:
        _, name, *words = shlex.split(example)
        assert name == command
        assert all(f"{word} " in out for word in words if re.match(r"--[^.]+$", word))
        assert all((PROJECT / word).is_file() for word in words if word.endswith(".toml"))


def test_help_names_every_key_of_a_configuration_and_every_reading(call: Call) -> None:
    _, out, _ = call("train", "--help")
    keys = {field.name for table in (DataConfig, TrainConfig) for field in fields(table)}
    assert keys <= set(re.findall(r"\w+", out))
    assert "batch_size = 128" in out
    _, out, _ = call("brain", "--help")
    assert set(READINGS) <= set(re.findall(r"\w+", out))


# --- mistakes: status 2 and one message, which names the value, the expected form and the fix


def refused(call: Call, *words: str) -> str:
    """Returns the one message of a command that does nothing else, on one line."""
    status, out, err = call(*words)
    assert status == 2
    assert out == ""
    assert "Traceback" not in err
    if err.startswith("error: "):
        assert err.count("\n") == 1
    else:  # tyro's, in a box
        assert err.count("For full helptext") == 1
    return " ".join(err.replace("│", " ").split())


MISTAKES: dict[tuple[str, ...], list[tuple[list[str], list[str]]]] = {
    (): [
        ([], ["expected one of", *COMMANDS, "neuroconv --help"]),
        (["trian", DIGITS], ["'trian'", "did you mean 'train'", "expected one of", *COMMANDS]),
        (["--hlep"], ["'--hlep'", "expected one of"]),
        (["list", "zzz*"], ["'zzz*'", *list_models()]),
        (["list", "gra*", "lenet5"], ["'lenet5'", "neuroconv list --help"]),
        (["match", "granul"], ["'granul'", "did you mean 'granule_convnet'", *list_models()]),
        (["match", "lenet5", "--opponent", "linear"], ["'linear'", "'width'", "plain_cnn"]),
        (["match", "granule"], ["granule is a cell", "neuroconv profile granule"]),
        (["match", "lenet5", "--opponent", "golgi"], ["golgi is a cell", *list_models()]),
        (["resume"], ["RUN", "a run folder"]),
        (["resume", "nowhere"], ["nowhere is not a run", "config.toml", "`neuroconv train`"]),
        (["evaluate", "."], [". is not a run", "expected a folder"]),
        (["evaluate", ".", "--report", "x.png"], ["'.png' is not known; expected one of .html"]),
        (["evaluate", ".", "--split", "train"], ["'train'", "--split", "'val', 'test'"]),
        (["cells", "nosuch"], ["'nosuch'", "expected one of", *CELL_CLASSES]),
        (["cells", "granule", "golgi"], ["'golgi'", "neuroconv cells --help"]),
        (["cells", "--json", "."], ["--json .", "it is a folder", "the name of a file"]),
        (["demo", "--report", "."], ["--report .", "it is a folder", "the name of a file"]),
        (["operators", "nothing"], ["no operator matches 'nothing'"]),
    ],
    ("profile",): [
        ([], ["no name", "expected names such as: granule purkinje"]),
        ([""], ["an empty name"]),
        (["granul"], ["did you mean 'granule_convnet'", "or a cell: granule, purkinje"]),
        (["nothing*"], ["'nothing*' matches none of", "granule_convnet"]),
        (["linear", "--image-shape", "1", "28"], ["--image-shape", "'1'", "3x224x224"]),
        (["linear", "--image-shape", "1x28"], ["'1x28'", "channels x height x width", "3x224x224"]),
        (["linear", "--image-shape", "1x0x28"], ["'1x0x28'", "channels x height x width"]),
        (["linear", "--image-shape", "1x-2x28"], ["'1x-2x28'", "channels x height x width"]),
        (["torch.nn:ReLU", "--input-shape", "4x"], ["'4x'", "such as 3x224x224"]),
        (["granule", "--neurons", "0"], ["--neurons=0", "an integer of at least 1"]),
        (["granule", "--neurons", "few"], ["--neurons", "'few'", "INT"]),
        (["linear", "--batch", "-1"], ["--batch=-1", "an integer of at least 1"]),
        (["golgi", "--variant", "dettmers2015"], ["'dettmers2015'", "'golgi' has 'literature' al"]),
        (["golgi", "--variant", "mine"], ["'mine'", "--variant", "dettmers2015", "literature"]),
        (["granule", "--counter", "mine"], ["'mine'", "--counter", "'fvcore'"]),
        (["granule", "--jsn", "x"], ["'--jsn x'", "neuroconv profile --help"]),
        (["granule", "--json", "file/x.json"], ["--json file/x.json", "the name of a file in a"]),
        (["granule", "--plot", "roofline.svg"], ["meta runs nothing: add --device"]),
        (["granule", "--device", "cpu", "--plot", "a.txt"], ["the ending '.txt' is not known"]),
        (["granule_convnet", "--mode", "valid"], ["--mode is for a cell"]),
        (["granule_convnet", "--neurons", "5"], ["--neurons is for a cell"]),
        (["granule", "--image-shape", "3x8x8"], ["--image-shape is for a model of the zoo"]),
        (["granule", "--input-shape", "4"], ["--input-shape is for a module:Class"]),
        (["mine:Mine"], ["give the shape of one sample"]),
        (["nowhere:Mine", "--input-shape", "4"], ["No module named 'nowhere'"]),
        (["torch.nn:Conv2d", "--input-shape", "4"], ["takes no arguments"]),
        (["torch:get_default_dtype", "--input-shape", "4"], ["expected an nn.Module"]),
        (["torch.nn:LSTMCell", "--input-shape", "4"], ["torch.nn:LSTMCell", "no arguments"]),
        (["purkinje", "--neurons", "99999999", "--device", "cpu"], ["numbers to hold on cpu"]),
    ],
    ("train", DIGITS): [
        (["--epochs", "3"], ["'--epochs 3'", "did you mean --train.epochs VALUE?"]),
        (["--image-size=8"], ["did you mean --data.image_size VALUE?"]),
        (["--nonsense"], ["'--nonsense'", "neuroconv train --help"]),
        (["--json", "file/x.json"], ["--json file/x.json", "expected the name of a file"]),
        (["--train.output", "file/runs"], ["file", "expected a path"]),
        (["--train.epochs", "many"], ["epochs = 'many'", "expected an integer of at least 1"]),
        (["--train.epochs", "--train.seeds", "[1]"], ["--train.epochs has no value"]),
        (["--train.device", "abacus"], ["'abacus'", '"auto", "cpu", "cuda", "xpu" or "mps"']),
        (["--model.name", "granul"], ["did you mean 'granule_convnet'", *list_models()]),
        (["--model.wdiths", "[3]"], ["'wdiths'", "did you mean 'widths'", "strides"]),
        (["--model.unit.spike.strength", "2"], [".toml: [model]", "unit: spike: strength=2"]),
        (["--model.image_shape", "[1, 9, 9]"], ["(1, 9, 9)", "(1, 8, 8)", "leave the key out"]),
        (
            ["--data.name", "folder", "--data.root", "nowhere"],
            ["is not a folder", "data.root ROOT"],
        ),
    ],
    ("brain",): [
        (["--set", "purkinje.cells=abc"], ["--set purkinje.cells=abc: expected a number or LOW.."]),
        (["--set", "purkinje.cels=1"], ["did you mean 'purkinje.cells'"]),
        (["--set", "granule.synapses=4"], ["granule.branches=3 is more than the 1 sites"]),
        (["--inputs", "none.toml"], ["none.toml"]),
        (["--reading", "esay"], ["--reading='esay' is unknown; did you mean 'essay'"]),
        (["--weigh", "essay=much"], ["--weigh essay=much: expected READING=W"]),
        (["--weigh", "esay=1"], ["--weigh esay=1: expected READING=W"]),
        (["--weigh", "essay=1", "--weigh", "essay=2"], ["weighed twice"]),
        (["--weigh", "essay=0"], ["all weights are 0"]),
        (["--weigh", "essay=1", "--reading", "valid"], ["expected one of the two"]),
        (["--weigh", "essay=1", "--plot", "x.png"], ["--plot with --weigh"]),
        (["--section", "all"], ["--section='all' is unknown; "]),
        (["--samples", "1"], ["--samples 1: expected"]),
        (["--seed", "-1"], ["--seed -1: expected"]),
        (["--plot", "x.docx", "--samples", "16"], ["--plot x.docx"]),
    ],
}


@pytest.mark.parametrize(
    ("words", "parts"),
    [([*command, *words], parts) for command, rows in MISTAKES.items() for words, parts in rows],
)
def test_mistakes(call: Call, tmp_path: Path, words: list[str], parts: list[str]) -> None:
    (tmp_path / "file").touch()  # so that no folder can have its name
    message = refused(call, *words)
    assert [part for part in parts if part not in message] == []
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", ["train", "compare"])
def test_mistakes_in_the_file(call: Call, tmp_path: Path, command: str) -> None:
    message = refused(call, command, "config.toml")
    assert "config.toml: cannot be read" in message
    assert "expected a TOML file" in message
    (tmp_path / "config.toml").write_text(SMALL.replace("batch_size", "batchsize"))
    assert "batchsize = 20: unknown key; did you mean 'batch_size'" in refused(
        call, command, "config.toml"
    )
