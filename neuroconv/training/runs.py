"""Runs: a folder for each model and seed, from which everything can be rebuilt."""

import inspect
import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn

from neuroconv.data import DataSplits, load_data
from neuroconv.neurons.stages import merge
from neuroconv.training.checkpoint import file_sum, load_weights, write_text
from neuroconv.training.config import Config, ConfigError, load_config, save_config
from neuroconv.training.curves import plot_curves
from neuroconv.training.device import choose_device
from neuroconv.training.distributed import Ranks, check_device
from neuroconv.training.environment import describe_environment, peak_memory_mib
from neuroconv.training.evaluation import Score, evaluate_model
from neuroconv.training.loop import train
from neuroconv.training.state import BEST, CHECKPOINT, LAST, METRICS
from neuroconv.zoo import count_parameters, create_model, get_builder

CONFIG, RESULT = "config.toml", "result.json"
ENVIRONMENT, CURVES = "environment.json", "curves.png"


class RunError(ValueError):
    """A folder that is not a run, or is not in the state that is needed."""


@dataclass(frozen=True)
class RunResult:
    """A finished run, as result.json describes it; `history` is that of metrics.jsonl.

    The seed decides the weights, the order of images, the frames and the dropout. val_* and test_*
    are those of the best epoch. `seconds_per_epoch` is a mean without validation.
    """

    run_dir: Path
    name: str
    seed: int
    parameters: int
    best_epoch: int
    val_loss: float
    val_accuracy: float
    test_loss: float
    test_accuracy: float
    test_images: int
    steps: int
    seconds_per_epoch: float
    peak_memory_mib: float
    history: list[dict[str, Any]]


def run(
    config: Config, *, seed: int, run_dir: str | Path | None = None, progress: bool = True
) -> RunResult:
    """Trains [model] from one seed into a new folder, by default OUTPUT/NAME-TIME-seedSEED."""
    return start(*resolve(config, seed), run_dir=run_dir, progress=progress)


def resume(run_dir: str | Path, *, progress: bool = True) -> RunResult:
    """Continues a run, with any number of processes; a finished run is only read."""
    folder, ranks = Path(run_dir), Ranks.current()
    config = ranks.first(lambda: load_run(folder))  # other machines need not see the folder
    if ranks.first(lambda: (folder / RESULT).exists()):
        return ranks.first(lambda: read_result(folder))
    config, splits = resolve(config, config.train.seeds[0])
    return _finish(config, splits, folder, progress)


def rebuild(run_dir: str | Path) -> tuple[Config, nn.Module, DataSplits]:
    """Returns a finished run's configuration, its model with the best weights, and its data."""
    folder = Path(run_dir)
    config = load_run(folder)
    sums = _load_result(folder)["sha256"]
    config, splits = resolve(config, config.train.seeds[0])
    model = build(config)
    load_weights(model, folder / BEST, sha256=sums[BEST])
    return config, model, splits


def evaluate(run_dir: str | Path, split: str = "test") -> Score:
    """Scores the best weights of a finished run on its split "val" or "test"; see `rebuild`."""
    if split not in ("val", "test"):
        raise RunError(f'split = {split!r}: expected "val" or "test"')
    config, model, splits = rebuild(run_dir)
    data = splits.test if split == "test" else splits.val
    return evaluate_model(model, data, **config.train.evaluation(), workers=config.data.workers)


def train_seeds(config: Config, *, progress: bool = True) -> list[RunResult]:
    """Trains a new run for each of the configuration's seeds."""
    results = []
    for position, seed in enumerate(config.train.seeds):
        try:
            results.append(run(config, seed=seed, progress=progress))
        except KeyboardInterrupt as stop:
            left = list(config.train.seeds[position + 1 :])
            also = f'; seeds {left} were not begun: train with --train.seeds "{left}"'
            raise KeyboardInterrupt(f"{stop}{also if left else ''}") from None
    return results


def read_result(run_dir: str | Path) -> RunResult:
    """Reads the result of a finished run."""
    folder = Path(run_dir)
    values = _load_result(folder)
    lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
    history = [record for record in map(json.loads, lines) if "epoch" in record]
    del values["sha256"]
    return RunResult(run_dir=folder, history=history, **values)


def resolve(config: Config, seed: int) -> tuple[Config, DataSplits]:
    """Returns the configuration of one run, with the builder's defaults written out, and its data.

    A model's wiring is drawn from the run's seed, unless [model] has a `seed`.
    """
    data = config.data
    if data.root is not None:
        data = replace(data, root=str(Path(data.root).expanduser().resolve()))
    keywords = {key: value for key, value in asdict(data).items() if key not in ("name", "workers")}
    with Ranks.current().local_main_first():
        splits = load_data(data.name, **keywords, seed=seed)
    task = {
        "image_shape": splits.image_shape, "num_classes": len(splits.class_names),
        "time_steps": splits.time_steps,
    }  # fmt: skip
    for key, value in task.items():
        if config.model.get(key, value) != value:
            raise ConfigError(
                f"[model] {key} = {config.model[key]!r}: the data set {data.name!r}, as [data] has "
                f"it, gives {value!r}: leave the key out, or correct [data]"
            )
    model = {key: value for key, value in config.model.items() if key != "label"}
    complete = merge(_defaults(model["name"], seed), model, task)
    return Config(complete, data, replace(config.train, seeds=(seed,))), splits


def _defaults(name: str, seed: int) -> dict[str, Any]:
    """Returns the builder's defaults, except for None, which TOML does not have."""
    try:
        keywords = inspect.signature(get_builder(name)).parameters
    except ValueError as error:
        raise ConfigError(f"[model] name = {name!r}: {error}") from error
    defaults = {k: word.default for k, word in keywords.items() if word.default is not None}
    return {**defaults, "seed": seed} if "seed" in defaults else defaults


def build(config: Config) -> nn.Module:
    """Builds the model; its initial weights are a function of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.train.seeds[0])
        try:
            model: nn.Module = create_model(**config.model)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"[model] name = {config.model['name']!r}: {error}") from error
    return model


def start(
    config: Config, splits: DataSplits, *, run_dir: str | Path | None = None, progress: bool = True
) -> RunResult:
    """Creates the folder of a resolved configuration, and trains in it."""
    build(config)  # a mistake in the model or the device leaves no folder behind
    check_device(config.train, len(splits.train), Ranks.current())
    environment = describe_environment(config.train.device, config.train.precision)
    prefix, suffix = f"{config.model['name']}-", f"-seed{config.train.seeds[0]}"

    def create() -> Path:
        folder = Path(run_dir or unused_folder(Path(config.train.output), prefix, suffix))
        if folder.exists() and any(folder.iterdir()):
            raise RunError(
                f"{folder} is not empty: expected a new folder, or `neuroconv resume {folder}`"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / ENVIRONMENT, json.dumps(environment, indent=2) + "\n")
        save_config(config, folder / CONFIG)
        return folder

    return _finish(config, splits, Ranks.current().first(create), progress)


def _finish(config: Config, splits: DataSplits, folder: Path, progress: bool) -> RunResult:
    """Trains, from the folder's checkpoint if it has one, and writes the result."""
    model, device, seed = build(config), choose_device(config.train.device), config.train.seeds[0]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    trained = train(
        model, splits.train, splits.val, test_data=splits.test, seed=seed, run_dir=folder,
        workers=config.data.workers, resume=True, progress=progress, **asdict(config.train),
    )  # fmt: skip
    name, val, test = config.model["name"], trained.val, trained.test
    assert test is not None

    def record() -> RunResult:
        plot_curves(trained.history, folder / CURVES, label=f"{name}, seed {seed}")
        result = {
            "name": name, "seed": seed, "parameters": count_parameters(model),
            "best_epoch": trained.best_epoch, "val_loss": val.loss, "val_accuracy": val.accuracy,
            "test_loss": test.loss, "test_accuracy": test.accuracy, "test_images": test.images,
            "steps": trained.steps,
            "seconds_per_epoch": fmean(record["seconds"] for record in trained.history),
            "peak_memory_mib": peak_memory_mib(device),
            "sha256": {file: file_sum(folder / file) for file in (BEST, LAST, METRICS)},
        }  # fmt: skip
        write_text(folder / RESULT, json.dumps(result, indent=2) + "\n")
        (folder / CHECKPOINT).unlink(missing_ok=True)  # the result replaces it
        return read_result(folder)

    return Ranks.current().first(record)


def unused_folder(parent: Path, prefix: str = "", suffix: str = "") -> Path:
    """Returns PARENT/PREFIX-TIME-SUFFIX, with a number if there is such a folder."""
    base = parent / f"{prefix}{datetime.now():%Y%m%d-%H%M%S}{suffix}"
    folder, number = base, 1
    while folder.exists():
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder


def load_run(folder: Path) -> Config:
    if not (folder / CONFIG).is_file():
        raise RunError(
            f"{folder} is not a run (no {CONFIG}): expected a folder of `neuroconv train`"
        )
    return load_config(folder / CONFIG)


def _load_result(folder: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{folder} is not finished: `neuroconv resume {folder}`") from None
    except json.JSONDecodeError as error:
        raise RunError(f"{folder / RESULT}: damaged ({error})") from None
    return values
