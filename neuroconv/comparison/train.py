"""A model and its opponents, trained on equal terms: same data, same budget, same seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from neuroconv.comparison.match import Matched, count_flops, match_flops, match_parameters
from neuroconv.training import Config, ConfigError, DataConfig, RunResult, load_config, resume
from neuroconv.training.runs import CONFIG, build, load_run, resolve, start
from neuroconv.zoo import count_parameters


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and the half width of its 95 % interval, None for a single value."""

    mean: float
    half_width: float | None


def mean_interval(values: Sequence[float]) -> Estimate:
    """Returns the mean and its 95 % interval by Student's t; ValueError for no values."""
    if not values:
        raise ValueError("no values: expected one or more")
    if len(values) == 1:
        return Estimate(values[0], None)
    from scipy.special import stdtrit  # scipy.stats, which has it too, takes seconds to import

    quantile = float(stdtrit(len(values) - 1, 0.975))
    return Estimate(fmean(values), quantile * stdev(values) / len(values) ** 0.5)


@dataclass(frozen=True)
class ModelResult:
    """One model of a comparison over all seeds.

    Attributes:
        model: the keywords of `create_model` that build it.
        data: the images as this model sees them.
        runs: one for each seed.
        accuracy: on the test set, over seeds.
        difference: of accuracy to the first model, paired by seed; None for the first itself.
        matched: its parameters or FLOPs and the first model's, if it was matched.
    """

    label: str
    model: dict[str, Any]
    data: DataConfig
    runs: tuple[RunResult, ...]
    accuracy: Estimate
    difference: Estimate | None
    matched: Matched | None = None

    @property
    def name(self) -> str:
        return self.runs[0].name

    @property
    def parameters(self) -> int:
        return self.runs[0].parameters


def compare(config: Config, *, progress: bool = True) -> list[ModelResult]:
    """Trains [model] and every opponent from every seed, on the same data and with the same budget.

    A model's table may hold a `label` beside the keywords of `create_model`. An opponent's may also
    hold `match`, "parameters" or "flops", which sets its width, and its depth if need be, for about
    as many parameters or FLOPs an image as the first model has (with `match_rule = "at_most"` its
    width, for no more: see `match_parameters`), and an `encoding` and `time_steps` of its own.

    Finished runs of equal configuration in the output folder are read, interrupted ones resumed.
    Delete a run's folder to train it again.

    Raises:
        ConfigError: a label given twice, or a model, data set or setting that does not fit.
    """
    labels = [table.get("label", table["name"]) for table in (config.model, *config.opponents)]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"two models are called {label!r}: give each its own `label`")
    first = replace(config, opponents=())
    entrants = [(first, None), *(_opponent(first, table) for table in config.opponents)]
    for entrant, _ in entrants:  # a mistake in any of them is found before anything is trained
        _count_parameters(entrant)
    results: list[ModelResult] = []
    for label, (entrant, matched) in zip(labels, entrants, strict=True):
        results.append(_train(label, entrant, results[0] if results else None, progress, matched))
    return results


def _opponent(first: Config, table: dict[str, Any]) -> tuple[Config, Matched | None]:
    """Returns the configuration of an opponent, and how it was matched to the first model."""
    data = {key: table[key] for key in ("encoding", "time_steps") if key in table}
    beside = ("label", "match", "match_rule", *data)
    model = {key: table[key] for key in table if key not in beside}
    opponent = replace(first, model=model, data=replace(first.data, **data))
    if "match" not in table:
        return opponent, None
    keywords = dict(_resolved_model(opponent))  # with the image's shape
    name = keywords.pop("name")
    if "seed" not in table:
        keywords.pop("seed", None)  # each run draws its own wiring
    at_most = table.get("match_rule") == "at_most"
    if table["match"] == "flops":
        target = count_flops(**_resolved_model(first))
        matched = match_flops(name, target, at_most=at_most, **keywords)
    else:
        matched = match_parameters(name, _count_parameters(first), at_most=at_most, **keywords)
    return replace(opponent, model={"name": name, **matched}), matched


def _resolved_model(config: Config) -> dict[str, Any]:
    return resolve(config, config.train.seeds[0])[0].model


def _count_parameters(config: Config) -> int:
    resolved = replace(config, model=_resolved_model(config))
    with torch.device("meta"):
        return count_parameters(build(resolved))


def _train(
    label: str, config: Config, first: ModelResult | None, progress: bool, matched: Matched | None
) -> ModelResult:
    runs = tuple(_run(config, seed, progress) for seed in config.train.seeds)
    accuracies = [run.test_accuracy for run in runs]
    difference = None
    if first is not None:
        pairs = zip(accuracies, first.runs, strict=True)
        difference = mean_interval([accuracy - run.test_accuracy for accuracy, run in pairs])
    saved = load_run(runs[0].run_dir)
    accuracy = mean_interval(accuracies)
    return ModelResult(label, saved.model, saved.data, runs, accuracy, difference, matched)


def _run(config: Config, seed: int, progress: bool) -> RunResult:
    """Reads or resumes the run of this configuration and seed, or trains it if there is none."""
    config, splits = resolve(config, seed)
    output = config.train.output
    for folder in sorted(Path(output).glob(f"{config.model['name']}-*-seed{seed}*")):
        try:
            saved = load_config(folder / CONFIG)
        except ConfigError:
            continue  # not a run
        if replace(saved, train=replace(saved.train, output=output)) == config:
            return resume(folder, progress=progress)
    return start(config, splits, progress=progress)
