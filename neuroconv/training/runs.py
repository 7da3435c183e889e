"""Runs: a folder for each model and seed, from which everything can be rebuilt."""

import inspect
import json
import os
import shutil
import time
from contextlib import ExitStack
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from neuroconv.core.files import new_folder, write_array, write_text
from neuroconv.data import DataSplits, load_data
from neuroconv.neurons.stages import merge
from neuroconv.training.checkpoint import (
    CheckpointError,
    check_sum,
    file_sum,
    load_weights,
    read_record,
    write_record,
)
from neuroconv.training.config import Config, ConfigError, load_config, save_config
from neuroconv.training.curves import plot_curves
from neuroconv.training.device import choose_device
from neuroconv.training.distributed import Ranks, check_device
from neuroconv.training.environment import describe_environment, environment_diff, peak_memory_mib
from neuroconv.training.evaluation import Score, evaluate_model
from neuroconv.training.lock import LOCK, RunError, locked
from neuroconv.training.loop import train
from neuroconv.training.rules import make_learning_rule
from neuroconv.training.sharding import count_weights, shard
from neuroconv.training.signals import StopSignal
from neuroconv.training.state import BEST, CHECKPOINTS, FAILURE, LAST, METRICS
from neuroconv.training.trainer import RunFailed, all_finite
from neuroconv.zoo import create_model, get_builder

CONFIG, RESULT = "config.toml", "result.json"
ENVIRONMENT, CURVES, ANSWERS = "environment.json", "curves.png", "test_answers.npy"
_SUMMED = (BEST, LAST, METRICS, CONFIG, ENVIRONMENT, ANSWERS)  # files whose sums the result holds


@dataclass(frozen=True)
class RunResult:
    """A finished run, as result.json describes it; `history` is that of metrics.jsonl.

    The seed decides the weights, the order of images, the frames and the dropout. val_* and test_*
    are those of the best epoch; test_* is None, or no image, with [train] test = false.
    `seconds_per_epoch` is a mean without validation. `resumed_with_changes` says, line by line,
    what had changed where it was resumed by force. `accumulate` is the number of parts of a step,
    which may follow from the memory, `data_sha256` the fingerprints of its data, and `core_seconds`
    the process's since it was begun or resumed.
    """

    run_dir: Path
    name: str
    seed: int
    parameters: int
    best_epoch: int
    val_loss: float
    val_accuracy: float
    test_loss: float | None
    test_accuracy: float | None
    test_images: int
    steps: int
    seconds_per_epoch: float
    peak_memory_mib: float
    history: list[dict[str, Any]]
    resumed_with_changes: list[str] = field(default_factory=list)
    accumulate: int | None = None
    data_sha256: dict[str, str] = field(default_factory=dict)
    core_seconds: float | None = None

    @property
    def test_answers(self) -> NDArray[Any] | None:
        """The class that is predicted for each test image (N,); older folders do not hold it."""
        return np.load(path) if (path := self.run_dir / ANSWERS).exists() else None


# What result.json held before it had a sum of its own.
OLD_RESULT = {f.name for f in fields(RunResult) if f.default is f.default_factory is MISSING}
OLD_RESULT ^= {"run_dir", "history", "sha256"}


@dataclass(frozen=True)
class FailedRun:
    """A run that ended by a number that is not finite, as failure.json describes it.

    Its weights are those before `step` of `epoch` (both from 1), in its last checkpoint.
    """

    run_dir: Path
    name: str
    seed: int
    reason: str
    epoch: int
    step: int


def run(
    config: Config, *, seed: int, run_dir: str | Path | None = None, progress: bool = True
) -> RunResult:
    """Trains [model] from one seed into a new folder, by default OUTPUT/NAME-TIME-seedSEED."""
    return start(*resolve(config, seed), run_dir=run_dir, progress=progress)


def resume(run_dir: str | Path, *, force: bool = False, progress: bool = True) -> RunResult:
    """Continues a run; a finished one is only read.

    By `force` a run that failed is tried again, and one goes on whose configuration, data, version
    or number of processes has changed: its result says so.
    """
    folder, ranks = Path(run_dir), Ranks.current()

    def read() -> tuple[Config, RunResult | FailedRun | None]:  # other machines need not see it
        config = load_run(folder)
        started = (folder / RESULT).exists() or (folder / FAILURE).exists()
        return config, read_outcome(folder) if started else None

    config, outcome = ranks.first(read)
    if isinstance(outcome, RunResult):
        return outcome
    if outcome is not None and not force:
        raise RunError(
            f"{folder} failed: {outcome.reason}; train it with other settings, or try again from "
            f"its last checkpoint: neuroconv resume {folder} --force"
        )
    config, splits = resolve(config, config.train.seeds[0])
    return _finish(config, splits, folder, progress, force)


def rebuild(run_dir: str | Path) -> tuple[Config, nn.Module, DataSplits]:
    """Returns a finished run's configuration, its model with the best weights, and its data."""
    folder = Path(run_dir)
    config, result = load_run(folder), read_result(folder)  # which checks all files
    config = with_parts(config, result.accumulate)
    config, splits = resolve(config, config.train.seeds[0])
    model = build(config)
    load_weights(model, folder / BEST)
    return config, model, splits


def with_parts(config: Config, accumulate: int | None) -> Config:
    """Returns a configuration with the number of parts that a run recorded, if it did."""
    train = replace(config.train, accumulate=accumulate or config.train.accumulate)
    return replace(config, train=train)


def evaluate(run_dir: str | Path, split: str = "test") -> Score:
    """Scores the best weights of a finished run on its split "val" or "test"; see `rebuild`."""
    check_split(split)
    config, model, splits = rebuild(run_dir)
    return evaluate_model(model, getattr(splits, split), **config.evaluation())


def check_split(split: str) -> None:
    if split not in ("val", "test"):
        raise RunError(f'split = {split!r}: expected "val" or "test"')


def train_seeds(config: Config, *, progress: bool = True) -> list[RunResult | FailedRun]:
    """Trains a new run for each of the configuration's seeds, also after one that fails."""
    results: list[RunResult | FailedRun] = []
    for position, seed in enumerate(config.train.seeds):
        try:
            results.append(run(config, seed=seed, progress=progress))
        except RunFailed as error:
            results.append(read_outcome(error.run_dir))
        except KeyboardInterrupt as stop:
            if left := list(config.train.seeds[position + 1 :]):
                more = f'; seeds {left} were not begun: train with --train.seeds "{left}"'
                stop.args = (f"{stop}{more}", *stop.args[1:])
            raise
    return results


def read_result(run_dir: str | Path) -> RunResult:
    """Reads the result of a finished run; CheckpointError if one of its files has changed."""
    folder = Path(run_dir)
    if not (folder / RESULT).exists():
        raise RunError(f"{folder} is not finished: `neuroconv resume {folder}`")
    values = read_record(folder / RESULT, unsummed=OLD_RESULT)
    for file, sha256 in values.pop("sha256").items():
        check_sum(folder / file, sha256)
    return RunResult(run_dir=folder, history=read_history(folder), **values)


def read_history(run_dir: Path) -> list[dict[str, Any]]:
    """Reads the epochs of a run, of which there may be none yet."""
    path = run_dir / METRICS
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [record for record in map(json.loads, lines) if "epoch" in record]
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged ({error}): delete it, or train again") from None


def read_outcome(run_dir: str | Path) -> RunResult | FailedRun:
    """Reads what became of a run: its result, or its failure."""
    folder = Path(run_dir)
    if (folder / RESULT).exists() or not (folder / FAILURE).exists():
        result = read_result(folder)
        if all_finite(asdict(result)):
            return result
        reason = "it was recorded with a score that is not a number"  # by an older version
        return FailedRun(folder, result.name, result.seed, reason, result.best_epoch, result.steps)
    config = load_run(folder)
    return FailedRun(
        folder, config.model["name"], config.train.seeds[0], **read_record(folder / FAILURE)
    )


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
    """Builds the model, or a process's neurons; the weights are a function of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.train.seeds[0])
        create, split = partial(create_model, **config.model), config.train.split
        try:
            model = create() if split == "none" else shard(create, split=split)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"[model] name = {config.model['name']!r}: {error}") from error
        make_learning_rule(model, config.train.rule)  # what it does not train counts as frozen
    return model


def start(
    config: Config, splits: DataSplits, *, run_dir: str | Path | None = None, progress: bool = True
) -> RunResult:
    """Creates the folder of a resolved configuration, and trains in it."""
    build(config)  # a mistake in the model or the device leaves no folder behind
    check_device(config.train, len(splits.train), Ranks.current())
    folder = Ranks.current().first(lambda: new_run(config, run_dir))
    return _finish(config, splits, folder, progress)


def new_run(config: Config, run_dir: str | Path | None = None) -> Path:
    """Creates the folder of a resolved configuration's run, which `resume` begins."""
    prefix, suffix = f"{config.model['name']}-", f"-seed{config.train.seeds[0]}"
    folder = Path(run_dir) if run_dir else new_folder(config.train.output, prefix, suffix)
    environment = describe_environment(config.train.device, config.train.precision)
    with locked(folder):
        if any(path.name != LOCK for path in folder.iterdir()):
            raise RunError(
                f"{folder} is not empty: expected a new folder, or `neuroconv resume {folder}`"
            )
        write_text(folder / ENVIRONMENT, json.dumps(environment, indent=2, allow_nan=False) + "\n")
        save_config(config, folder / CONFIG)
    return folder


def _finish(
    config: Config, splits: DataSplits, folder: Path, progress: bool, force: bool = False
) -> RunResult:
    """Trains, from the folder's newest checkpoint if it has one, and writes the result."""
    began, seed = time.process_time(), config.train.seeds[0]
    model, device = build(config), choose_device(config.train.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with ExitStack() as stack:
        ranks = Ranks.current()
        ranks.first(lambda: stack.enter_context(locked(folder)))
        if force:
            ranks.first(lambda: (folder / FAILURE).unlink(missing_ok=True))
        ranks.first(lambda: environment_diff(folder / ENVIRONMENT, config.train, resumes=True))
        trained = train(
            model, splits.train, splits.val, test_data=splits.test, seed=seed, run_dir=folder,
            workers=config.data.workers, resume=True, force=force, described=config.described(),
            progress=progress, **asdict(config.train),
        )  # fmt: skip
        name, val, test = config.model["name"], trained.val, trained.test

        def record() -> RunResult:
            plot_curves(trained.history, folder / CURVES, label=f"{name}, seed {seed}")
            if test is not None and test.answers is not None:
                write_array(folder / ANSWERS, test.answers)
            write_record(folder / RESULT, {
                "name": name, "seed": seed, "parameters": count_weights(model),
                "best_epoch": trained.best_epoch, "val_loss": val.loss,
                "val_accuracy": val.accuracy, "test_loss": test and test.loss,
                "test_accuracy": test and test.accuracy, "test_images": test.images if test else 0,
                "steps": trained.steps,
                "seconds_per_epoch": fmean(record["seconds"] for record in trained.history),
                "peak_memory_mib": peak_memory_mib(device),
                "core_seconds": time.process_time() - began,
                "resumed_with_changes": trained.changes, "accumulate": trained.accumulate,
                "data_sha256": {r.removesuffix("_data"): s for r, s in trained.data_sha256.items()},
                "sha256": {f: file_sum(folder / f) for f in _SUMMED if (folder / f).exists()},
            })  # fmt: skip
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # the result replaces them
            return read_result(folder)

        with StopSignal("ends when the result is written" if ranks.leads else None):
            return ranks.first(record)


def load_run(folder: Path) -> Config:
    """Reads a run's configuration; data that have moved are those that NEUROCONV_DATA names."""
    if not (folder / CONFIG).is_file():
        raise RunError(
            f"{folder} is not a run (no {CONFIG}): expected a folder of `neuroconv train`"
        )
    config = load_config(folder / CONFIG)
    moved = config.data.root is not None and not Path(config.data.root).expanduser().exists()
    if moved and (root := os.environ.get("NEUROCONV_DATA")):
        return replace(config, data=replace(config.data, root=root))
    return config
