"""Comparisons: several models from several seeds, on the same data and with the same budget."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from neuroconv.comparison import count_flops, match_flops, match_parameters
from neuroconv.training.config import Config, ConfigError, load_config
from neuroconv.training.runs import (
    CONFIG,
    RunResult,
    build,
    count_parameters,
    load_run,
    new_folder,
    resolve,
    resume,
    start,
)


@dataclass(frozen=True)
class Estimate:
    """A mean and the half width of its 95 % interval, which takes two values or more."""

    mean: float
    half_width: float | None


@dataclass(frozen=True)
class ModelResult:
    """One model of a comparison over all seeds.

    Attributes:
        label: its name in tables and plots.
        name: its name in the zoo.
        model: the keywords of `create_model` that build it.
        parameters: numbers that are trained.
        runs: one for each seed.
        accuracy: on the test set, over seeds.
        difference: of test accuracy to the comparison's first model, paired by seed; None for that.
        seconds_per_epoch: mean over seeds.
    """

    label: str
    name: str
    model: dict[str, Any]
    parameters: int
    runs: tuple[RunResult, ...]
    accuracy: Estimate
    difference: Estimate | None
    seconds_per_epoch: float


def compare(config: Config, *, progress: bool = True) -> list[ModelResult]:
    """Train [model] and every opponent from every seed, on the same data and with the same budget.

    [model] may hold a `label` beside the keywords of `create_model`. So may an opponent's table,
    and further `match = "parameters"` or `match = "flops"`, which sets its free width for as many
    parameters as the first model has, or for as many FLOPs an image (see `match_flops`), and an
    `encoding` and `time_steps` of its own.

    Runs that the output folder already holds, of equal configuration, are not trained again:
    finished ones are read, others resumed. Delete a run's folder to train it anew.
    """
    labels = [table.get("label", table["name"]) for table in (config.model, *config.opponents)]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"two models are called {label!r}: give each its own `label`")
    entrants = [replace(config, opponents=())]
    _parameters(entrants[0])
    for table in config.opponents:
        entrants.append(_entrant(config, table))
        _parameters(entrants[-1])  # an opponent's mistake is found before anything is trained
    results: list[ModelResult] = []
    for label, entrant in zip(labels, entrants, strict=True):
        results.append(_result(label, entrant, results[0] if results else None, progress))
    return results


def mean_interval(values: Sequence[float]) -> Estimate:
    """Mean and 95 % interval by Student's t; one value has no interval."""
    if not values:
        raise ValueError("no values: expected one or more")
    if len(values) == 1:
        return Estimate(values[0], None)
    from scipy.special import stdtrit  # here, for scipy.stats, which has the same, takes seconds

    quantile = float(stdtrit(len(values) - 1, 0.975))
    return Estimate(fmean(values), quantile * stdev(values) / len(values) ** 0.5)


def _parameters(config: Config) -> int:
    """Trained numbers of a configuration's model, which is built without memory."""
    resolved, _ = resolve(config, config.train.seeds[0])
    with torch.device("meta"):
        return count_parameters(build(resolved))


def _flop(config: Config) -> int:
    """FLOPs of an image through a configuration's model, counted without memory."""
    return count_flops(**resolve(config, config.train.seeds[0])[0].model)


def _entrant(config: Config, table: dict[str, Any]) -> Config:
    """An opponent's own configuration: what its table says of the data goes there."""
    own = {key: table[key] for key in ("encoding", "time_steps") if key in table}
    model = {k: v for k, v in table.items() if k not in ("label", "match", *own)}
    entrant = replace(config, model=model, data=replace(config.data, **own), opponents=())
    if "match" not in table:
        return entrant
    keywords = dict(resolve(entrant, config.train.seeds[0])[0].model)  # with the image's shape
    name = keywords.pop("name")
    if "seed" not in table:
        keywords.pop("seed", None)  # each run draws its own wiring
    first = replace(config, opponents=())
    if table["match"] == "flops":
        matched = match_flops(name, _flop(first), **keywords)
    else:
        matched = match_parameters(name, _parameters(first), **keywords)
    return replace(entrant, model={"name": name, **keywords, **matched})


def _result(label: str, config: Config, first: ModelResult | None, progress: bool) -> ModelResult:
    runs = tuple(_run_once(config, seed, progress) for seed in config.train.seeds)
    accuracies = [each.test_accuracy for each in runs]
    difference = None
    if first is not None:
        pairs = zip(accuracies, first.runs, strict=True)
        difference = mean_interval([own - other.test_accuracy for own, other in pairs])
    return ModelResult(
        label=label,
        name=config.model["name"],
        model=load_run(runs[0].run_dir).model,
        parameters=runs[0].parameters,
        runs=runs,
        accuracy=mean_interval(accuracies),
        difference=difference,
        seconds_per_epoch=fmean(each.seconds_per_epoch for each in runs),
    )


def _run_once(config: Config, seed: int, progress: bool) -> RunResult:
    """The run of this configuration and seed: read, resumed or, if there is none, trained."""
    config, splits = resolve(config, seed)
    output = config.train.output
    for folder in sorted(Path(output).glob(f"{config.model['name']}-*-seed{seed}*")):
        try:
            saved = load_config(folder / CONFIG)
        except ConfigError:
            continue  # not a run
        if replace(saved, train=replace(saved.train, output=output)) == config:
            return resume(folder, progress=progress)
    return start(config, splits, new_folder(config), progress)
