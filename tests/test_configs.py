"""Every file in configs/, and the demo's: read, resolved and built; of each family one is trained.

The data are four images of each split: for the digits and MNIST real ones, for folders of
photographs noise of at most 64 pixels in the layout that the data set expects.
"""

import functools
import importlib.util
import math
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import Subset

from neuroconv.comparison import compare
from neuroconv.data import DataSplits, load_data
from neuroconv.neurons.stages import merge
from neuroconv.training import Config, ConfigError, list_configs, load_config
from neuroconv.training.runs import build
from neuroconv.zoo import count_parameters, create_model

PROJECT = Path(__file__).resolve().parent.parent
CONFIGS = [*sorted((PROJECT / "configs").glob("*.toml")), PROJECT / "neuroconv" / "demo.toml"]
TRAINED = ("demo", "digits_granule", "imagenet_sample")
EXTRAS = {"ncp": "ncps"}  # models whose package may be missing
# Many opponents take their time to be built; one such file is enough for the quick suite.
LONG = [p for p in CONFIGS if p.stem.endswith("_equal") and p.stem != "fashion_permuted_equal"]
BUILT = [pytest.param(p, marks=pytest.mark.slow if p in LONG else ()) for p in CONFIGS]
STEPS = [pytest.param(p, marks=() if p.stem in TRAINED else pytest.mark.slow) for p in CONFIGS]
FEW, LARGEST = 4, 64
IMAGENETTE = (
    "n01440764", "n02102040", "n02979186", "n03000684", "n03028079",
    "n03394916", "n03417042", "n03425413", "n03445777", "n03888257",
)  # fmt: skip


class Few(Subset[Any]):
    """The first images of a split, which still follows the epochs."""

    @property
    def targets(self) -> Any:
        return self.dataset.targets[:FEW]  # type: ignore[attr-defined]

    def set_epoch(self, epoch: int) -> None:
        self.dataset.set_epoch(epoch)  # type: ignore[attr-defined]


@functools.cache
def load_few(name: str, **keywords: Any) -> DataSplits:
    splits = load_data(name, **keywords)
    few = {key: Few(getattr(splits, key), range(FEW)) for key in ("train", "val", "test")}
    return replace(splits, **few)


def write_images(root: Path, classes: tuple[str, ...]) -> None:
    """Writes ROOT/{train,val}/CLASS/*.JPEG with noise in them, of the two shapes of photographs."""
    pixels = np.random.default_rng(0).integers(0, 256, (48, 52, 3), dtype=np.uint8)
    for part, count in (("train", 20), ("val", 2)):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                image = pixels if number % 2 else pixels.swapaxes(0, 1)
                Image.fromarray(image).save(root / part / name / f"{number}.JPEG")


Root = Callable[[str, tuple[str, ...] | None], str | None]


@pytest.fixture(scope="session")
def root_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Root:
    """The folder to give as data.root for a data set, filled with a few images if need be."""

    @functools.cache
    def root(name: str, classes: tuple[str, ...] | None) -> str | None:
        if name == "digits":
            return None
        if name in ("mnist", "fashion_mnist", "spoken_digits"):
            return str(request.getfixturevalue("data_root"))
        folder = tmp_path_factory.mktemp(name)
        inner = {"imagenette": "imagenette2-160", "folder": "."}[name]
        write_images(folder / inner, IMAGENETTE if name == "imagenette" else classes or ("a", "b"))
        return str(folder)

    return root


@pytest.fixture
def small_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuroconv.training.runs.load_data", load_few)


def one_step(path: Path, output: Path, root_of: Root) -> Config:
    """The file's configuration with one seed, one step and a batch of the few images."""
    words = [
        "--train.max_steps=1", "--train.seeds=[0]", f"--train.batch_size={FEW}",
        "--train.device=cpu", f"--train.output={output}", "--data.workers=0",
    ]  # fmt: skip
    config = load_config(path, words)
    root, size = root_of(config.data.name, config.data.classes), config.data.image_size
    size = None if size is None else min(size, LARGEST)
    data = replace(config.data, root=root, image_size=size)
    present = tuple(
        table for table in config.opponents
        if table["name"] not in EXTRAS or importlib.util.find_spec(EXTRAS[table["name"]])
    )  # fmt: skip
    return replace(config, data=data, tune=None, opponents=present)  # [tune] would train


def check_model(config: Config, table: dict[str, Any], resolved: Config) -> None:
    """A resolved model says what its table says, and sees the images that it should."""
    data = {key: table[key] for key in ("encoding", "time_steps") if key in table}
    assert resolved.data == replace(config.data, root=resolved.data.root, **data)
    others = ("label", "match", "match_rule", "primary", "train", *data)
    keywords = {k: v for k, v in table.items() if k not in others}
    assert merge(resolved.model, keywords) == resolved.model


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("path", BUILT, ids=lambda path: path.stem)
def test_every_config_resolves_and_builds(
    path: Path, tmp_path: Path, root_of: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On meta tensors, up to where `compare` would train."""
    config = one_step(path, tmp_path, root_of)
    monkeypatch.setattr("neuroconv.comparison.train.train_runs", lambda plan, **_: plan)
    monkeypatch.setattr("neuroconv.comparison.train._result", lambda entrant, runs, *_: runs[0])
    parameters, entrants = [], compare(config, progress=False)
    for table, resolved in zip((config.model, *config.opponents), entrants, strict=True):
        assert isinstance(resolved, Config)
        check_model(config, table, resolved)
        with torch.device("meta"):
            parameters.append(count_parameters(build(resolved)))
            if table.get("match") == "parameters":
                wider = {**resolved.model, "width": resolved.model["width"] + 1}
                more = count_parameters(create_model(**wider))
                if table.get("match_rule") == "at_most":
                    assert parameters[-1] <= parameters[0] < more
                else:
                    assert abs(parameters[-1] - parameters[0]) <= abs(more - parameters[0])


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("path", STEPS, ids=lambda path: path.stem)
def test_a_step_of_a_config(path: Path, tmp_path: Path, root_of: Root) -> None:
    config = one_step(path, tmp_path, root_of)
    results = compare(config, progress=False)
    for table, result in zip((config.model, *config.opponents), results, strict=True):
        (run,) = result.runs
        assert (result.name, run.steps, run.test_images) == (table["name"], 1, FEW)
        assert math.isfinite(run.val_loss + run.test_loss)
        resolved = load_config(run.run_dir / "config.toml")
        check_model(config, table, resolved)
        torch.manual_seed(0)  # the run's seed, which alone decides the first weights
        model = create_model(**resolved.model)
        assert result.parameters == count_parameters(model)
        last = load_file(run.run_dir / "last.safetensors")
        for name, parameter in model.named_parameters():
            assert last[name].isfinite().all()
            # The step has moved all that is to be trained, and nothing else.
            if table["name"] == "vit" and ".head" not in name:
                continue  # its head begins at zero, so that the first gradient ends there
            assert torch.equal(last[name], parameter) is not parameter.requires_grad, name


def test_there_are_configs_of_each_family() -> None:
    assert {path.stem for path in CONFIGS} > set(TRAINED)


def test_configs_are_found_by_name_and_files_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert list_configs() == [path.stem for path in CONFIGS[:-1]]
    shipped = load_config("mnist_granule")
    assert shipped == load_config(PROJECT / "configs" / "mnist_granule.toml")
    Path("digits_granule").mkdir()  # as a folder of runs may be called
    assert load_config("digits_granule").data.name == "digits"
    Path("mnist_granule").write_text((PROJECT / "configs" / "digits_granule.toml").read_text())
    assert load_config("mnist_granule").data.name == "digits"
    for name in ("mnist_granul", "nowhere/mnist_granul.toml"):
        message = "expected a TOML file, or .* did you mean 'mnist_granule'. .*, mnist_purkinje"
        with pytest.raises(ConfigError, match=f"^{name}: cannot be read .*{message}"):
            load_config(name)


@pytest.mark.slow
def test_configs_travel_in_the_wheel(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "from neuroconv.training import *; print(load_config('mnist_granule'), list_configs())"
    where = {"cwd": tmp_path / "site", "env": {**os.environ, "PYTHONPATH": str(tmp_path / "site")}}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **where)
    assert done.stdout == f"{load_config('mnist_granule')} {list_configs()}\n", done.stderr
