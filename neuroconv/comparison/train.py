"""A model and its opponents, trained on equal terms: same data, same budget, same seeds."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neuroconv.comparison.match import MATCHES, Matched
from neuroconv.comparison.runs import Outcome, train_runs
from neuroconv.comparison.statistics import Estimate, estimate_by_test_set, verdict
from neuroconv.comparison.tune import Search, search_settings, with_settings
from neuroconv.core.arguments import argument
from neuroconv.data.datasets import data_kept
from neuroconv.training import Config, ConfigError, DataConfig, RunResult, TrainConfig
from neuroconv.training.runs import build, load_run, resolve
from neuroconv.zoo import count_parameters


@dataclass(frozen=True)
class ModelResult:
    """One model of a comparison over all seeds.

    Attributes:
        model: the keywords of `create_model` that build that of the first seed to finish.
        data: the images as this model sees them.
        train: its settings, those that its search has chosen among them.
        runs: one for each seed, finished or failed.
        accuracy: on the test set, over the seeds that finished.
        difference: of accuracy to the first model, paired by test image and seed, over the seeds
            that finished in both; None for the first itself.
        verdict: that on the difference; see `statistics.verdict`.
        primary: whether the comparison with the first model was named as the primary one.
        matched: its parameters, FLOPs or axons and the first model's, if it was matched.
        search: the trials behind its learning rate and weight decay.
        right: by seed, which test images are right (N,); empty if a run is too old to say.
    """

    label: str
    model: dict[str, Any]
    data: DataConfig
    train: TrainConfig
    parameters: int
    runs: tuple[Outcome, ...]
    accuracy: Estimate
    difference: Estimate | None = None
    verdict: str | None = None
    primary: bool = False
    matched: Matched | None = None
    search: Search | None = None
    right: dict[int, NDArray[np.bool_]] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        return self.runs[0].name

    @property
    def finished(self) -> list[RunResult]:
        return [run for run in self.runs if isinstance(run, RunResult)]

    @property
    def accuracies(self) -> dict[int, float]:
        """The accuracy on the test set by seed."""
        return {r.seed: r.test_accuracy for r in self.finished if r.test_accuracy is not None}


@dataclass
class _Entrant:
    label: str
    config: Config
    matched: Matched | None = None
    primary: bool = False
    search: Search | None = None
    plan: list[Config] = field(default_factory=list)  # resolved, for each seed
    labels: dict[int, NDArray[Any]] = field(default_factory=dict)  # of the test images, by seed


@data_kept()
def compare(config: Config, *, progress: bool = True, jobs: int = 1) -> list[ModelResult]:
    """Trains [model] and every opponent from every seed, on the same data and with the same budget.

    A model's table may hold a `label` beside the keywords of `create_model`. An opponent's may also
    hold `match`, "parameters", "flops" or "axons", which sets its width, and its depth if need be,
    for about as many of them as the first model has, for one image (with `match_rule = "at_most"`
    its width, for no more: see `match_parameters`); an `encoding` and `time_steps` of its own; a
    table `train` with its own rule, optimizer, momentum, learning_rate and weight_decay; and
    `primary = true`, by which one comparison is named beforehand as the one that counts.

    With [tune] the learning rate and weight decay of all models, also of those with a table
    `train`, are searched first, by as many trials for each: see `search_settings`. With
    `shared = true` all have those that are best for the first.

    Finished runs of equal configuration in the output folder are read, interrupted ones resumed;
    one that failed, now or before, counts as failed. Delete a run's folder to train it again.

    Args:
        progress: whether to show the progress of training.
        jobs: processes that train runs at the same time.

    Raises:
        ConfigError: a label given twice, or a model, data set or setting that does not fit.
        RunError: a run in the output folder that is damaged, or that another process writes.
    """
    if not config.train.test:
        raise ConfigError("[train] test = false: a comparison is of scores on the test set")
    names = [table.get("label", table["name"]) for table in (config.model, *config.opponents)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two models are called {name!r}: give each its own `label`")
    first = replace(config, opponents=(), tune=None)
    entrants: list[_Entrant] = []
    for number, (label, table) in enumerate(zip(names, (None, *config.opponents), strict=True)):
        with argument(f"[[opponents]] number {number}") if table else nullcontext():
            entrant = _opponent(label, first, table) if table else _Entrant(label, first)
            for seed in first.train.seeds:
                resolved, splits = resolve(entrant.config, seed)
                entrant.plan.append(resolved)
                entrant.labels[seed] = splits.test.targets
            _count_parameters(entrant.plan[0])  # a mistake is found before any training
        for other in entrants:
            if other.plan[0].described() == entrant.plan[0].described():
                raise ConfigError(f"{label!r} and {other.label!r} are the same: change one's table")
        entrants.append(entrant)
    if config.tune is not None:
        tuned = entrants[:1] if config.tune.shared else entrants
        configs = [entrant.config for entrant in tuned]
        searches = search_settings(configs, config.tune, progress=progress, jobs=jobs)
        for entrant, search in zip(tuned, searches, strict=True):
            entrant.search = search
        for entrant in entrants:
            best = (entrant.search or searches[0]).best
            entrant.plan = [with_settings(run, best) for run in entrant.plan]
    plan = [resolved for entrant in entrants for resolved in entrant.plan]
    outcomes = iter(train_runs(plan, progress=progress, jobs=jobs))
    results: list[ModelResult] = []
    for entrant in entrants:
        runs = tuple(next(outcomes) for _ in entrant.plan)
        first_result = results[0] if results else None
        results.append(_result(entrant, runs, first_result, config.compare.margin))
    return results


def _opponent(label: str, first: Config, table: dict[str, Any]) -> _Entrant:
    """Returns an opponent of the first model, matched to it if its table says so."""
    data = {key: table[key] for key in ("encoding", "time_steps") if key in table}
    beside = ("label", "match", "match_rule", "primary", "train", *data)
    model = {key: table[key] for key in table if key not in beside}
    train = replace(first.train, **table.get("train", {}))
    opponent = replace(first, model=model, data=replace(first.data, **data), train=train)
    entrant = _Entrant(label, opponent, primary=table.get("primary", False))
    if "match" not in table:
        return entrant
    keywords = dict(_resolve(opponent).model)  # with the image's shape
    name = keywords.pop("name")
    if "seed" not in table:
        keywords.pop("seed", None)  # each run draws its own wiring
    at_most = table.get("match_rule") == "at_most"
    target = _resolve(first)
    count, match = MATCHES[table["match"]]
    matched = match(name, count(**target.model), at_most=at_most, **keywords)
    entrant.config, entrant.matched = replace(opponent, model={"name": name, **matched}), matched
    return entrant


def _resolve(config: Config) -> Config:
    return resolve(config, config.train.seeds[0])[0]


def _count_parameters(resolved: Config) -> int:
    with torch.device("meta"):
        return count_parameters(build(resolved))


def _result(
    entrant: _Entrant, runs: tuple[Outcome, ...], first: ModelResult | None, margin: float | None
) -> ModelResult:
    finished = [run for run in runs if isinstance(run, RunResult)]
    answers = {run.seed: run.test_answers for run in finished}
    right = {
        seed: classes == entrant.labels[seed]
        for seed, classes in answers.items()
        if classes is not None
    }
    saved = load_run((finished or runs)[0].run_dir)
    result = ModelResult(
        entrant.label, saved.model, saved.data, saved.train, _count_parameters(saved), runs,
        Estimate(None, None, 0), primary=entrant.primary, matched=entrant.matched,
        search=entrant.search, right=right if len(right) == len(finished) else {},
    )  # fmt: skip
    result = replace(result, accuracy=_estimate(result))
    if first is None:
        return result
    difference = _estimate(result, first)
    return replace(result, difference=difference, verdict=verdict(difference, margin))


def _estimate(result: ModelResult, other: ModelResult | None = None) -> Estimate:
    """Returns the estimate of a model's accuracy, or of its difference to the other's."""
    by_image = result.right and (other is None or other.right)
    values = _scores(result.right if by_image else result.accuracies)
    if other is not None:
        others = _scores(other.right if by_image else other.accuracies)
        values = {seed: values[seed] - others[seed] for seed in values if seed in others}
    test_sets = {run.seed: run.data_sha256.get("test") for run in result.finished}
    return estimate_by_test_set(values, test_sets)


def _scores(values: Mapping[int, Any]) -> dict[int, NDArray[np.float64]]:
    return {seed: np.asarray(value, np.float64) for seed, value in values.items()}
