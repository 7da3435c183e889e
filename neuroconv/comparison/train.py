"""A model and its opponents, trained on equal terms: same data, same budget, same seeds."""

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from neuroconv.comparison.match import MATCHES, Matched
from neuroconv.core.arguments import argument
from neuroconv.training import (
    Config,
    ConfigError,
    DataConfig,
    FailedRun,
    RunError,
    RunFailed,
    RunResult,
    read_outcome,
    resume,
)
from neuroconv.training.lock import locked
from neuroconv.training.runs import CONFIG, RESULT, build, load_run, new_run, resolve
from neuroconv.training.state import FAILURE, METRICS
from neuroconv.zoo import count_parameters

Runs = tuple[RunResult | FailedRun, ...]  # one for each seed


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and the half width of its 95 % interval."""

    mean: float | None  # None without a seed
    half_width: float | None  # None for fewer than two
    seeds: int


def mean_interval(values: Sequence[float]) -> Estimate:
    """Returns the mean and its 95 % interval by Student's t."""
    seeds = len(values)
    if seeds < 2:
        return Estimate(values[0] if values else None, None, seeds)
    from scipy.special import stdtrit  # scipy.stats, which has it too, takes seconds to import

    quantile = float(stdtrit(seeds - 1, 0.975))
    return Estimate(fmean(values), quantile * stdev(values) / seeds**0.5, seeds)


@dataclass(frozen=True)
class ModelResult:
    """One model of a comparison over all seeds.

    Attributes:
        model: the keywords of `create_model` that build that of the first seed to finish.
        data: the images as this model sees them.
        runs: one for each seed, finished or failed.
        accuracy: on the test set, over the seeds that finished.
        difference: of accuracy to the first model, paired over the seeds that finished in both;
            None for the first itself.
        matched: its parameters, FLOPs or axons and the first model's, if it was matched.
    """

    label: str
    model: dict[str, Any]
    data: DataConfig
    parameters: int
    runs: Runs
    accuracy: Estimate
    difference: Estimate | None
    matched: Matched | None = None

    @property
    def name(self) -> str:
        return self.runs[0].name

    @property
    def finished(self) -> list[RunResult]:
        return [run for run in self.runs if isinstance(run, RunResult)]

    @property
    def accuracies(self) -> dict[int, float]:
        """The accuracy on the test set by seed."""
        return _accuracies(self.finished)


def _accuracies(runs: Sequence[RunResult]) -> dict[int, float]:
    return {run.seed: run.test_accuracy for run in runs if run.test_accuracy is not None}


def compare(config: Config, *, progress: bool = True) -> list[ModelResult]:
    """Trains [model] and every opponent from every seed, on the same data and with the same budget.

    A model's table may hold a `label` beside the keywords of `create_model`. An opponent's may also
    hold `match`, "parameters", "flops" or "axons", which sets its width, and its depth if need be,
    for about as many of them as the first model has, for one image (with `match_rule = "at_most"`
    its width, for no more: see `match_parameters`), and an `encoding` and `time_steps` of its own.

    Finished runs of equal configuration in the output folder are read, interrupted ones resumed;
    one that failed, now or before, counts as failed. Delete a run's folder to train it again.

    Raises:
        ConfigError: a label given twice, or a model, data set or setting that does not fit.
        RunError: a run in the output folder that is damaged, or that another process writes.
    """
    labels = [table.get("label", table["name"]) for table in (config.model, *config.opponents)]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"two models are called {label!r}: give each its own `label`")
    first = replace(config, opponents=())
    entrants: list[tuple[list[Config], Matched | None]] = []
    for number, table in enumerate((None, *config.opponents)):
        with argument(f"[[opponents]] number {number}") if table else nullcontext():
            entrant, matched = _opponent(first, table) if table else (first, None)
            plan = [resolve(entrant, seed)[0] for seed in first.train.seeds]
            _count_parameters(plan[0])  # a mistake is found before any training
        entrants.append((plan, matched))
    seeds = [resolved for plan, _ in entrants for resolved in plan]
    # Interrupted runs first: one that cannot go on, or that another process writes, is named now.
    for resolved in [seed for seed in seeds if isinstance(_saved_run(seed), Path)]:
        _run(resolved, progress)
    results: list[ModelResult] = []
    for label, (plan, matched) in zip(labels, entrants, strict=True):
        runs = tuple(_run(resolved, progress) for resolved in plan)
        results.append(_result(label, runs, results[0] if results else None, matched))
    return results


def _opponent(first: Config, table: dict[str, Any]) -> tuple[Config, Matched | None]:
    """Returns the configuration of an opponent, and how it was matched to the first model."""
    data = {key: table[key] for key in ("encoding", "time_steps") if key in table}
    beside = ("label", "match", "match_rule", *data)
    model = {key: table[key] for key in table if key not in beside}
    opponent = replace(first, model=model, data=replace(first.data, **data))
    if "match" not in table:
        return opponent, None
    keywords = dict(_resolve(opponent).model)  # with the image's shape
    name = keywords.pop("name")
    if "seed" not in table:
        keywords.pop("seed", None)  # each run draws its own wiring
    at_most = table.get("match_rule") == "at_most"
    target = _resolve(first)
    count, match = MATCHES[table["match"]]
    matched = match(name, count(**target.model), at_most=at_most, **keywords)
    return replace(opponent, model={"name": name, **matched}), matched


def _resolve(config: Config) -> Config:
    return resolve(config, config.train.seeds[0])[0]


def _count_parameters(resolved: Config) -> int:
    with torch.device("meta"):
        return count_parameters(build(resolved))


def _result(
    label: str, runs: Runs, first: ModelResult | None, matched: Matched | None
) -> ModelResult:
    accuracies = _accuracies([run for run in runs if isinstance(run, RunResult)])
    others = first.accuracies if first else {}
    differences = [accuracies[seed] - others[seed] for seed in accuracies if seed in others]
    saved = load_run(next((run for run in runs if run.seed in accuracies), runs[0]).run_dir)
    return ModelResult(
        label, saved.model, saved.data, _count_parameters(saved), runs,
        accuracy=mean_interval([*accuracies.values()]),
        difference=None if first is None else mean_interval(differences), matched=matched,
    )  # fmt: skip


def _run(config: Config, progress: bool) -> RunResult | FailedRun:
    """Reads or resumes the run of a resolved configuration, or trains it if there is none."""
    with locked(Path(config.train.output), wait=True):  # of two comparisons, one begins the run
        saved = _saved_run(config) or new_run(config)
    if not isinstance(saved, Path):
        return saved
    try:
        result = resume(saved, progress=progress)
    except RunFailed:
        return read_outcome(saved)
    return _run(config, progress) if result.resumed_with_changes else result


def _saved_run(config: Config) -> RunResult | FailedRun | Path | None:
    """Returns the outcome of a configuration's run, or its folder if it has none yet."""
    name, (seed,) = config.model["name"], config.train.seeds
    for folder in sorted(Path(config.train.output).glob(f"{name}-*-seed{seed}*")):
        if not ((folder / CONFIG).exists() or (folder / METRICS).exists()):
            continue  # a run that another process begins at this moment
        try:
            ended = (folder / RESULT).exists() or (folder / FAILURE).exists()
            outcome = read_outcome(folder) if ended else folder  # which checks its configuration
            if load_run(folder).described() != config.described():
                continue
        except (ValueError, OSError) as error:
            raise RunError(
                f"{folder}: {error}: move or delete it, or compare with another --train.output"
            ) from error
        changes = isinstance(outcome, RunResult) and outcome.resumed_with_changes
        if not changes:
            return outcome
        lines = "; ".join(changes)
        warnings.warn(f"{folder}: resumed with changes ({lines}): not counted", stacklevel=2)
    return None
