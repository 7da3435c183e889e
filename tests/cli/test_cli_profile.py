"""`profile`, `cells` and `operators`: the tables, the files, and that each number has its unit."""

import json
import re
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from neuroconv import profile
from neuroconv.neurons import CELL_CLASSES, PRESETS, preset
from neuroconv.zoo import list_models
from tests.cli.small import SMALL
from tests.commands import Call

THREE = {"closed_form", "exact", "fvcore"}


def number_keys(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Returns the keys that lead to each number of a JSON document."""
    if isinstance(value, dict):
        return [keys for key, item in value.items() for keys in number_keys(item, (*path, key))]
    if isinstance(value, list):
        return [keys for item in value for keys in number_keys(item, path)]
    return [path] if isinstance(value, int | float) and not isinstance(value, bool) else []


def check_units(rows: Any, *units: str) -> None:
    """Every number of a file stands under a key that names its unit."""
    paths = number_keys(rows)
    assert len(paths) > 50
    assert [path for path in paths if not {*units} & set("_".join(path).split("_"))] == []


def profiled(call: Call, folder: Path, *words: Any) -> list[dict[str, Any]]:
    """Returns the file of a profile without stages."""
    file = folder / "profile.json"
    status, _, err = call("profile", *words, "--no-stages", "--json", file)
    assert (status, err) == (0, "")
    return json.loads(file.read_text())


def test_the_essays_cells(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "cells.json"
    status, out, _ = call("profile", "granule", "purkinje", "--json", file)
    assert status == 0
    granule, purkinje = json.loads(file.read_text())
    for rule, mac in (("essay", 4_500), ("direct", 4_800)):
        assert granule[f"dendrites_{rule}_mac_per_neuron"] == mac
        assert purkinje[f"dendrites_{rule}_mac_per_neuron"] == 25_000_000_000
    assert (granule["synapses_per_sample"], purkinje["synapses_per_sample"]) == (15, 100_000)
    for cell in (granule, purkinje):
        assert set(cell["counters"]) == THREE
        assert cell["counters_agree"] is True
        assert cell["counters_disagreements"] == []
    # The table shows what the file holds.
    (essay,) = (line for line in out.splitlines() if "dendrites, essay" in line)
    assert essay.replace("│", " ").split()[-2:] == ["4,500", "25,000,000,000"]
    assert out.splitlines()[-1] == f"written to {file}"


def test_cells_by_the_literatures_numbers(call: Call, tmp_path: Path) -> None:
    names = ("golgi", "purkinje")
    cells = profiled(call, tmp_path, *names, "--variant", "literature")
    for name, cell in zip(names, cells, strict=True):
        numbers = preset(name, "literature")
        mac = numbers.synapses * numbers.filter_shape[2] * prod(numbers.filter_shape)
        assert cell["name"] == name
        assert cell["synapses_per_sample"] == numbers.synapses
        assert cell["dendrites_essay_mac_per_neuron"] == mac
        assert cell["counters_agree"] is True
        assert cell["modules_unstated"] == []


def test_a_zoo_entry_in_full(call: Call, tmp_path: Path) -> None:
    (counted,) = profiled(call, tmp_path, "cerebellum_tiny")
    assert set(counted["counters"]) == THREE
    assert counted["counters_agree"] is True
    assert counted["modules_unstated"] == []
    units = "mac flop samples steps parameters elements neurons synapses calls share byte bytes"
    check_units(counted, *units.split(), "axons", "wires", "inputs", "joules", "accumulates")


def test_a_wildcard_stands_for_cells_and_models(call: Call, tmp_path: Path) -> None:
    rows = profiled(call, tmp_path, "g*", "--strict", "--counter", "exact")
    cells = [cell for cell in CELL_CLASSES if cell.startswith("g")]
    assert [row["name"] for row in rows] == [*cells, *list_models("g*")]
    for cell, row in zip(cells, rows, strict=False):
        assert row["synapses_per_sample"] == preset(cell).synapses


def test_the_shape_that_list_shows_is_taken(call: Call, tmp_path: Path) -> None:
    for shape, pixels in (("1x28x28", 784), ("3x16x20", 960)):
        (counted,) = profiled(call, tmp_path, "linear", "--image-shape", shape)
        assert counted["mac_per_sample"] == 10 * pixels


def test_convention_flop_doubles_the_mac(call: Call) -> None:
    _, out, _ = call("profile", "granule", "--no-stages", "--convention", "flop")
    (line,) = (line for line in out.splitlines() if "dendrites, direct" in line)
    assert line.replace("│", " ").split()[-1] == "9,600"


def test_a_hundred_million_neurons_are_counted_without_their_memory(
    call: Call, tmp_path: Path
) -> None:
    """The essay's Purkinje cells would take 60 TB of parameters."""
    (many,) = profiled(call, tmp_path, "purkinje", "--neurons", 10**8)
    (single,) = profiled(call, tmp_path, "purkinje", "--counter", "exact")
    assert many["neurons_per_sample"] == 10**8
    assert many["dendrites_essay_mac_per_neuron"] == 25_000_000_000
    assert many["counters_agree"] is True
    assert list(many["counters"]) == ["closed_form", "exact"]
    macs = [row["counters"]["exact"]["mac_per_batch_by_family"] for row in (many, single)]
    assert macs[0] == {family: 10**8 * mac for family, mac in macs[1].items()}


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


def test_the_memory_of_processes_that_share_a_sheet(call: Call, tmp_path: Path) -> None:
    words = ("granule", "--counter", "exact", "--batch", 8, "--neurons", 1000, "--ranks", 10)
    split, sharded = (
        profiled(call, tmp_path, *words, "--split", kind)[0]["process_memory_bytes"]
        for kind in ("neurons", "none")
    )
    assert {key: split[key] - sharded[key] for key in ("parameters", "optimizer")} == {
        "parameters": 4 * 9 / 10 * 5, "optimizer": 8 * 9 / 10 * 5,  # the somata's filter is whole
    }  # fmt: skip
    assert sharded["buffers"] == 10 * split["buffers"] > 0


def test_any_module(call: Call, tmp_path: Path) -> None:
    Path("mine.py").write_text(
        "import torch\n"
        "class Mine(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.linalg.qr(x)[0] @ x\n"
    )
    file = tmp_path / "p.json"
    names = ("torch.nn:Identity", "mine:Mine")
    status, out, _ = call("profile", *names, "--input-shape", "4x4", "--json", file)
    assert status == 0
    assert json.loads(file.read_text())[1]["mac_per_sample"] == 64
    assert "mine:Mine: NOT COUNTED, no rule for aten.linalg_qr.default" in out
    status, _, err = call("profile", "mine:Mine", "--input-shape", "4x4", "--strict")
    assert status == 2
    assert "no rule for aten.linalg_qr.default" in err
    status, _, err = call("profile", "mine:Mine", "--input-shape", "4x3x2")
    assert status == 2
    expected = "mine:Mine: the run on 'meta' with inputs (float32[1, 4, 3, 2]) failed: "
    assert expected in " ".join(err.split())


def test_a_module_is_built_and_called_with_what_the_options_say(call: Call, tmp_path: Path) -> None:
    Path("mine_too.py").write_text(
        "import torch\n"
        "class Tokens(torch.nn.Embedding):\n"
        "    def __init__(self, rows, kind, scaled=False):\n"
        "        super().__init__(rows, 8 if kind == 'wide' else 4)\n"
        "        self.scaled = scaled\n"
        "    def forward(self, ids, mask):\n"
        "        assert mask.dtype == torch.bool\n"
        "        return torch.nn.functional.linear(super().forward(ids), self.weight)\n"
    )
    arguments = [*("--argument", "rows=5"), *("--argument", "kind=wide"), "--argument=scaled=true"]
    shapes = [*("--input-shape", "7"), *("--input-shape", "7x2")]
    dtypes = [*("--input-dtype", "int64"), *("--input-dtype", "bool")]
    (row,) = profiled(
        call, tmp_path, "mine_too:Tokens", *arguments, *shapes, *dtypes, "--batch", "3"
    )
    assert (row["mac_per_sample"], row["parameters_trained"]) == (7 * 8 * 5, 40)
    assert row["traffic_per_batch"]["input_bytes"] == 3 * (7 * 8 + 7 * 2)
    for words, message in (
        ([*shapes, *dtypes], "missing 2 required positional arguments"),
        ([*arguments, "--argument", "x", *shapes], "--argument x: expected NAME=VALUE"),
        ([*arguments, *shapes, "--input-dtype", "int4"], "did you mean 'int64'"),
        (
            [*arguments, *shapes, *dtypes, *dtypes],
            "--input-dtype int64 bool int64 bool: expected one",
        ),
        ([*arguments, *dtypes], "give the shape of one sample"),
    ):
        status, _, err = call("profile", "mine_too:Tokens", *words)
        assert status == 2
        assert message in " ".join(err.split())


def test_a_cell_has_the_axons_of_its_preset(call: Call, tmp_path: Path) -> None:
    """Compulsory bytes by hand: parameters, wiring, activity and rate, each once."""
    exact = ("--counter", "exact")
    granule, purkinje = profiled(call, tmp_path, "granule", "purkinje", *exact)
    for cell, axons, synapses in ((granule, 4, 15), (purkinje, 100_000, 100_000)):
        traffic = cell["traffic_per_batch"]
        assert cell["axons"] == axons
        assert traffic["input_bytes"] == axons * 5 * 4
        read = 4 * cell["parameters_trained"] + 8 * synapses + 4 * axons * 5 + 4 * 5
        assert traffic["compulsory_bytes"] == read
    (many,) = profiled(call, tmp_path, "granule", "--axons", "1000", *exact)
    assert many["axons"] == 1000
    assert many["flop_per_sample"] == granule["flop_per_sample"]
    grown = many["traffic_per_batch"]["peak_bytes"] - granule["traffic_per_batch"]["peak_bytes"]
    assert grown >= 996 * 5 * 4
    _, out, _ = call("profile", "golgi", "--variant", "literature", "--no-stages", *exact)
    (line,) = (line for line in out.splitlines() if "axons into the population" in line)
    assert line.replace("│", " ").split()[-1] == "2,040"
    status, _, err = call("profile", "granule", "--axons", "0")
    assert (status, "--axons=0; expected an integer of at least 1" in err) == (2, True)


def test_a_run_is_measured_on_its_validation_images(call: Call, tmp_path: Path) -> None:
    Path("small.toml").write_text(SMALL)
    assert call("train", "small.toml", "--train.epochs", "1", "--train.output", "runs")[0] == 0
    (run,) = (path for path in Path("runs").iterdir() if path.is_dir())
    picture = tmp_path / "roofline.png"
    of_run, lenet = profiled(
        call, tmp_path, run, "lenet5", "--device", "cpu", "--batch", 4, "--plot", picture
    )
    assert of_run["name"] == run.name
    assert of_run["batch_samples"] == 4
    firing = of_run["measured"]["firing_by_module"].values()
    assert 0 < min(module["heard"] for module in firing) < 1  # images have black pixels
    dense = of_run["energy_per_sample"]["arithmetic_lowest_joules"]
    sparse = of_run["energy_per_sample_at_measured_firing"]["arithmetic_lowest_joules"]
    assert 0 < sparse < dense
    assert lenet["measured"]["placement_per_batch"]["bound"] in ("arithmetic", "memory", "overhead")
    assert picture.stat().st_size > 10_000


def test_operators_says_how_each_is_counted(call: Call) -> None:
    status, out, _ = call("operators", "convolution*")
    assert status == 0
    assert "for each gradient that is needed" in out


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
    # Every note that a number refers to is there once, in order.
    notes = [int(note) for note in re.findall(r"^ *\[(\d+)\] \S", out, flags=re.MULTILINE)]
    assert notes == list(range(1, len(notes) + 1))
    assert {int(note) for note in re.findall(r"\S +\[(\d+)\]", out)} == set(notes)


def test_cells_of_one_kind_have_whole_sources_and_a_file(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    file = tmp_path / "made" / "purkinje.json"
    status, out, err = call("cells", "purkinje", "--json", file)
    assert (status, err) == (0, "")
    assert "guinea pig" in " ".join(out.split())
    assert "…" not in out
    (row,) = json.loads(file.read_text())
    assert row["cell"] == "purkinje"
    synapses = row["differences"]["synapses"]
    essay, literature = (PRESETS["purkinje", name] for name in ("dettmers2015", "literature"))
    sizes = (synapses["dettmers2015"], synapses["literature"])
    assert sizes == (essay.synapses, literature.synapses)
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
    check_units(rows, "cells", "synapses", "connections", "dendrites", "steps", "um", "ms", "hz")
