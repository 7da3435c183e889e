"""The search for each model's learning rate and weight decay: the same trials for all."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

from neuroconv.comparison.runs import train_runs
from neuroconv.training import Config, RunResult
from neuroconv.training.runs import resolve
from neuroconv.training.tables import TuneConfig

FOLDER = "tune"  # of the trials, in the output folder
EXTENSIONS = 4  # of the learning rates, on either side


@dataclass(frozen=True)
class Trial:
    """A pair of settings, and the validation scores of the best epoch; None if a seed failed."""

    learning_rate: float
    weight_decay: float
    val_accuracy: float | None = None
    val_loss: float | None = None
    core_seconds: float = field(default=0.0, compare=False)
    run_folders: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Search:
    """The trials of one model, and the best of them.

    `at_edge` says that the best learning rate is the lowest or highest of all that were tried.
    """

    best: Trial
    trials: tuple[Trial, ...]
    at_edge: bool


def search_settings(
    configs: Sequence[Config], settings: TuneConfig, *, progress: bool = True, jobs: int = 1
) -> list[Search]:
    """Searches the best settings of each configuration by validation accuracy.

    All learning rates are tried at the first weight decay, then the other weight decays at each
    model's best rate. If a model's best rate is the lowest or highest, the rates go on there, in
    the ratio of the last two, for all models, up to four times. Ties go to a rate that is not at
    the edge, then to the lower loss. Trials do not see the test set; they are runs in OUTPUT/tune,
    and are not trained again.
    """
    bases = [_trial_configs(config, settings) for config in configs]
    trials: list[dict[tuple[float, float], Trial]] = [{} for _ in configs]

    def run(pairs: Sequence[Sequence[tuple[float, float]]]) -> None:
        """Adds the trials of these rates and decays, by model, to those of before."""
        missing = [
            (number, pair)
            for number, wanted in enumerate(pairs)
            for pair in wanted
            if pair not in trials[number]
        ]
        plan = [
            with_settings(base, Trial(*pair)) for number, pair in missing for base in bases[number]
        ]
        outcomes = iter(train_runs(plan, progress=progress, jobs=jobs))
        for number, pair in missing:
            runs = [next(outcomes) for _ in settings.seeds]
            folders = tuple(str(run.run_dir) for run in runs)
            finished = [run for run in runs if isinstance(run, RunResult)]
            scores: tuple[float | None, float | None] = None, None
            if len(finished) == len(runs):
                accuracy = fmean(run.val_accuracy for run in finished)
                scores = accuracy, fmean(run.val_loss for run in finished)
            seconds = sum(run.core_seconds or 0.0 for run in finished)
            trials[number][pair] = Trial(*pair, *scores, seconds, folders)

    def best(number: int) -> Trial:
        ends = rates[0], rates[-1]
        return max(trials[number].values(), key=lambda trial: _rank(trial, ends))

    rates, first = [*settings.learning_rate], settings.weight_decay[0]
    for extension in range(EXTENSIONS + 1):
        run([[(rate, first) for rate in rates]] * len(configs))
        chosen = [best(number).learning_rate for number in range(len(configs))]
        low, high = rates[0] in chosen, rates[-1] in chosen
        if extension == EXTENSIONS or not (low or high):
            break
        below = [_rounded(rates[0] ** 2 / rates[1])] if low else []
        above = [_rounded(rates[-1] ** 2 / rates[-2])] if high else []
        rates = [*below, *rates, *above]
    run([[(rate, decay) for decay in settings.weight_decay[1:]] for rate in chosen])
    searches = []
    for number, config in enumerate(configs):
        winner = best(number)
        at_edge = winner.learning_rate in (rates[0], rates[-1])
        if at_edge:
            warnings.warn(
                f"{config.model['name']}: the best learning rate, {winner.learning_rate:g}, is at "
                f"the edge of {rates[0]:g} to {rates[-1]:g}; give [tune] other rates",
                stacklevel=2,
            )
        searches.append(Search(winner, tuple(trials[number].values()), at_edge))
    return searches


def _rank(trial: Trial, ends: tuple[float, float]) -> tuple[float, bool, float]:
    """Returns what makes a trial better, by rank; a failed one is worse than any other."""
    if trial.val_accuracy is None or trial.val_loss is None:
        return -1.0, trial.learning_rate not in ends, 0.0
    return trial.val_accuracy, trial.learning_rate not in ends, -trial.val_loss


def _trial_configs(config: Config, settings: TuneConfig) -> list[Config]:
    """Returns the resolved configuration of each seed's trials, without their settings."""
    train = replace(
        config.train, epochs=settings.epochs, test=False, tensorboard=False,
        output=str(Path(config.train.output, FOLDER)),
    )  # fmt: skip
    data = replace(config.data, train_limit=settings.train_limit or config.data.train_limit)
    trial = replace(config, data=data, train=train)
    return [resolve(trial, seed)[0] for seed in settings.seeds]


def with_settings(config: Config, trial: Trial) -> Config:
    """Returns a configuration with the settings of a trial."""
    settings = {key: getattr(trial, key) for key in ("learning_rate", "weight_decay")}
    return replace(config, train=replace(config.train, **settings))


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")
