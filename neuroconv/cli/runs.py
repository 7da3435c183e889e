"""`train`, `resume`, `evaluate`, `compare` and `demo`: a run is a folder."""

import json
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from neuroconv.cli.options import (
    ConfigArgument,
    FileOption,
    PageOption,
    RunArgument,
    check_output,
    write_json,
)
from neuroconv.comparison import estimate
from neuroconv.core.arguments import argument
from neuroconv.data import DATASETS
from neuroconv.training import (
    DataConfig,
    FailedRun,
    RunResult,
    TrainConfig,
    diagnose,
    evaluate,
    launched,
    load_config,
    resume,
    train_seeds,
)
from neuroconv.training.tables import CompareConfig, TuneConfig
from neuroconv.training.verify import verify


@dataclass(frozen=True)
class Train:
    """Trains the model of a TOML file, once for each of its seeds.

    An option --TABLE.KEY VALUE overrides a key of the file's tables [model], [data], [train].
    A value is written as in the file; an array needs quotes. Each run leaves a folder of
    configuration, metrics, weights and curves in --train.output (default: runs).

    {keys}

    Example: neuroconv train digits_granule

    Example: neuroconv train mnist_granule --data.root DIR --train.seeds "[0]"

    Example: torchrun --nproc-per-node 2 -m neuroconv train digits_granule
    """

    config: ConfigArgument
    """a TOML file, or the name of one that comes with the package, such as digits_granule"""
    json: FileOption = None
    """write the results of all seeds to this file"""

    def __call__(self, console: Console, overrides: Sequence[str] = ()) -> None:
        config = load_config(self.config, overrides)
        with launched() as ranks:
            ranks.first(lambda: check_output(self.json, "--json"))
            with argument(str(self.config)):
                results = train_seeds(config)
            ranks.first(lambda: _print_runs(results, self.json, console))


def _keys(**tables: type[DataConfig | TrainConfig | TuneConfig | CompareConfig]) -> list[str]:
    """Returns the keys of a configuration's tables and their defaults, written as in the file."""
    lines = []
    for name, table in tables.items():
        keys = [
            field.name
            if field.default is None or field.default is MISSING
            else f"{field.name} = {json.dumps(field.default)}"
            for field in fields(table)
        ]
        lines.append(f"Keys of [{name}]: {', '.join(keys)}.")
    return lines


# Inserted from the tables themselves, so that no key is missing.
_KEYS = (
    *_keys(data=DataConfig),
    f"Data sets, by the name in [data]: {', '.join(DATASETS)}.",
    *_keys(train=TrainConfig),
    "Keys of [model]: name, one of `neuroconv list`, and the keywords of that model.",
)
Train.__doc__ = (Train.__doc__ or "").replace("{keys}", "\n\n    ".join(_KEYS))


@dataclass(frozen=True)
class Resume:
    """Continues an interrupted run from its newest checkpoint, to the bit.

    Example: neuroconv resume runs/granule_convnet-20250131-120000-seed0
    """

    run: RunArgument
    """a run folder of `neuroconv train`"""
    force: bool = False
    """go on although the configuration, the data, the version or the number of processes has
    changed, and try a run again that failed"""

    def __call__(self, console: Console) -> None:
        with launched() as ranks:
            result = resume(self.run, force=self.force)
            ranks.first(lambda: _print_runs([result], None, console))


@dataclass(frozen=True)
class Evaluate:
    """Rebuilds a finished run's model from its folder and scores its best weights.

    With --report or --json also: the confusion matrix, recall and precision of each class,
    calibration, and the accuracy on images with noise, shifted and rotated (some 15 more passes).

    Example: neuroconv evaluate runs/granule_convnet-20250131-120000-seed0 --split val

    Example: neuroconv evaluate runs/granule_convnet-20250131-120000-seed0 --report errors.html
    """

    run: RunArgument
    """a run folder of `neuroconv train`"""
    split: Literal["val", "test"] = "test"
    """the images to score it on"""
    report: FileOption = None
    """draw errors, calibration and robustness on this page (.html)"""
    json: FileOption = None
    """write their numbers to this file"""

    def __call__(self, console: Console) -> None:
        check_output(self.report, "--report", (".html",))
        check_output(self.json, "--json")
        if self.report or self.json:
            score, numbers = diagnose(self.run, self.split)
        else:
            score = evaluate(self.run, self.split)
        console.out(
            f"{self.split}: accuracy {score.accuracy:.2%}, cross entropy {score.loss:.4f} nats, "
            f"{score.images:,} images"
        )
        if self.json is not None:
            write_json(console, self.json, numbers)
        if self.report is not None:
            from neuroconv.report.diagnostics import write_diagnostics  # matplotlib is slow

            write_diagnostics(self.report, numbers)
            console.out(f"written to {self.report}")


@dataclass(frozen=True)
class Verify:
    """Checks a finished run on this machine: its files, model, data and scores, and resuming.

    Prints a line for each, ok or FAILED and why; the exit status is 1 if one failed. The last
    trains the first steps twice in a temporary folder, whole and interrupted by a signal at a
    random step: they must end in the same bits.

    Example: neuroconv verify runs/granule_convnet-20250131-120000-seed0
    """

    run: RunArgument
    """a run folder of `neuroconv train`"""
    steps: int = 20
    """steps to train twice; fewer for a slow model"""
    json: FileOption = None
    """write the checks to this file"""

    def __call__(self, console: Console) -> None:
        check_output(self.json, "--json")
        checks = []
        for check in verify(self.run, steps=self.steps):
            console.out(f"{'ok' if check.ok else 'FAILED':<8}{check.name:<8}{check.message}")
            checks.append(check._asdict())
        write_json(console, self.json, {"run_dir": str(self.run), "checks": checks})
        if not all(check["ok"] for check in checks):
            raise SystemExit(1)


@dataclass(frozen=True)
class Compare:
    """Trains the model of a TOML file and its [[opponents]], and writes a table and report.html.

    An option --TABLE.KEY VALUE overrides a key of the file, as for `train`. Finished runs of the
    same configuration are not trained again. With a table [tune], each model's learning rate and
    weight decay are first chosen on validation images, by as many trials for each; [compare] says
    what difference counts as equal. Both, and the keys of [[opponents]], are described in
    neuroconv/training/README.md.

    {keys}

    Example: neuroconv compare mnist_granule --data.root DIR --report mnist/report.html
    """

    config: ConfigArgument
    """a TOML file with [[opponents]], or the name of one that comes with the package"""
    report: PageOption = Path("report.html")
    """the page; comparison.json and comparison.toml are written beside it"""
    json: FileOption = None
    """write the numbers to this file too"""
    linear: bool = True
    """also fit a linear classifier on the still images' pixels"""
    jobs: int = 1
    """processes that train runs at the same time; threads are divided among them"""

    def __call__(self, console: Console, overrides: Sequence[str] = ()) -> None:
        from neuroconv.comparison.page import compare_and_report  # matplotlib is slow to import

        config = load_config(self.config, overrides)
        check_output(self.report, "--report")
        check_output(self.json, "--json")
        if not config.opponents:
            opponent = "a linear classifier alone" if self.linear else "nothing"
            console.out(
                f"no [[opponents]] in {self.config}: its model is compared with {opponent}. "
                "mnist_granule shows how to name some"
            )
        with argument(str(self.config)):
            title = self.config.stem
            entries = compare_and_report(
                config, output=self.report, title=title, linear=self.linear, jobs=self.jobs
            )
        if self.json is not None:
            numbers = self.report.with_name("comparison.json").read_text(encoding="utf-8")
            write_json(console, self.json, json.loads(numbers))
        _check_entries(entries)


Compare.__doc__ = (Compare.__doc__ or "").replace(
    "{keys}", "\n\n    ".join(_keys(tune=TuneConfig, compare=CompareConfig))
)


@dataclass(frozen=True)
class Demo:
    """Trains, counts and compares four networks on embedded data, in about three minutes.

    Example: neuroconv demo
    """

    report: PageOption = Path("report.html")
    """the page"""

    def __call__(self, console: Console) -> None:
        from neuroconv.comparison.page import demo

        check_output(self.report, "--report")
        _check_entries(demo(report=self.report))


def _print_runs(runs: Sequence[RunResult | FailedRun], path: Path | None, console: Console) -> None:
    """Prints the runs and the mean of the finished ones, and writes both to a JSON file, if named.

    Raises:
        FloatingPointError: some of them failed.
    """
    finished = [run for run in runs if isinstance(run, RunResult)]
    failed = [run for run in runs if isinstance(run, FailedRun)]
    table = Table("model", "seed", "parameters", "best epoch", "validation", "test", "s/epoch")
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "right"
    for run in runs:
        numbers: tuple[str, ...] = ("", "", "failed", "failed", "")
        if isinstance(run, RunResult):
            numbers = (
                f"{run.parameters:,}", str(run.best_epoch), f"{run.val_accuracy:.2%}",
                "–" if run.test_accuracy is None else f"{run.test_accuracy:.2%}",
                f"{run.seconds_per_epoch:.1f}",
            )  # fmt: skip
        table.add_row(run.name, str(run.seed), *numbers)
    console.print(table)
    for run in runs:
        console.out(f"run: {run.run_dir}")
    accuracies = [run.test_accuracy for run in finished if run.test_accuracy is not None]
    accuracy = estimate(accuracies)
    if accuracy.mean is not None and accuracy.half_width is not None:
        of = f"{len(finished)} of {len(runs)}" if failed else len(runs)
        console.out(
            f"test accuracy {accuracy.mean:.2%} ± {accuracy.half_width:.2%} "
            f"(mean over {of} seeds, 95 % interval)"
        )
    if len(finished) == 2:
        console.out("two seeds say little of the spread: three narrow the interval 3.6 times")
    results = {
        "runs": [{**asdict(run), "run_dir": str(run.run_dir)} for run in finished],
        "failed": [{**asdict(run), "run_dir": str(run.run_dir)} for run in failed],
        "test_accuracy_fraction_mean": accuracy.mean,
        "test_accuracy_fraction_95_half_width": accuracy.half_width,
    }
    write_json(console, path, results)
    _check_failures([f"seed {run.seed}: {run.reason}" for run in failed], len(runs))


def _check_failures(failures: Sequence[str], total: int) -> None:
    """Raises a FloatingPointError if some of the seeds failed."""
    if failures:
        raise FloatingPointError(f"{len(failures)} of {total} seeds failed: {'; '.join(failures)}")


def _check_entries(entries: Sequence[Any]) -> None:
    failures = [f"{entry.label}, seed {seed}" for entry in entries for seed in entry.failures]
    _check_failures(failures, len(failures) + sum(len(entry.accuracies) for entry in entries))
