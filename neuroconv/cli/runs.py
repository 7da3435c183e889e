"""`train`, `resume` and `evaluate`: a run is a folder."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from neuroconv.cli.options import (
    ConfigArgument,
    FileOption,
    RunArgument,
    keys_of_tables,
    prepare,
    say,
)
from neuroconv.training import (
    RunResult,
    evaluate,
    launched,
    load_config,
    mean_interval,
    resume,
    train_seeds,
)


@dataclass(frozen=True)
class Train:
    """Trains the model of a TOML file, once for each of its seeds.

    An option --TABLE.KEY VALUE overrides a key of the file's tables [model], [data], [train].
    A value is written as in the file; an array needs quotes. Each run leaves a folder of
    configuration, metrics, weights and curves in --train.output (default: runs).

    {keys}

    Example: neuroconv train configs/digits_granule.toml

    Example: neuroconv train configs/mnist_granule.toml --data.root DIR --train.seeds "[0]"

    Example: torchrun --nproc-per-node 2 -m neuroconv train configs/digits_granule.toml
    """

    config: ConfigArgument
    """a TOML file, such as configs/digits_granule.toml"""
    json: FileOption = None
    """write the results of all seeds to this file"""

    def __call__(self, console: Console, overrides: Sequence[str] = ()) -> None:
        config = load_config(self.config, overrides)
        with launched() as ranks:
            ranks.first(lambda: prepare(self.json, "--json"))
            results = train_seeds(config)
        if ranks.leads:
            _print_runs(results, self.json, console)


# Made of the tables themselves, that no key is missing.
Train.__doc__ = (Train.__doc__ or "").replace("{keys}", keys_of_tables())


@dataclass(frozen=True)
class Resume:
    """Continues an interrupted run from its last finished epoch, to the bit.

    Example: neuroconv resume runs/granule_convnet-20250131-120000-seed0
    """

    run: RunArgument
    """a run folder that `neuroconv train` made"""

    def __call__(self, console: Console) -> None:
        with launched() as ranks:
            result = resume(self.run)
        if ranks.leads:
            _print_runs([result], None, console)


@dataclass(frozen=True)
class Evaluate:
    """Rebuilds a finished run's model from its folder and scores its best weights anew.

    Example: neuroconv evaluate runs/granule_convnet-20250131-120000-seed0 --split val
    """

    run: RunArgument
    """a run folder that `neuroconv train` made"""
    split: Literal["val", "test"] = "test"
    """the images to score it on"""

    def __call__(self, console: Console) -> None:
        score = evaluate(self.run, self.split)
        say(
            console,
            f"{self.split}: accuracy {score.accuracy:.2%}, cross entropy {score.loss:.4f} nats, "
            f"{score.images:,} images",
        )


def _print_runs(runs: Sequence[RunResult], path: Path | None, console: Console) -> None:
    table = Table("model", "seed", "parameters", "best epoch", "validation", "test", "s/epoch")
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "right"
    for each in runs:
        table.add_row(
            each.name,
            str(each.seed),
            f"{each.parameters:,}",
            str(each.best_epoch),
            f"{each.val_accuracy:.2%}",
            f"{each.test_accuracy:.2%}",
            f"{each.seconds_per_epoch:.1f}",
        )
    console.print(table)
    for each in runs:
        say(console, f"run: {each.run_dir}")
    mean = mean_interval([each.test_accuracy for each in runs])
    if mean.half_width is not None:
        say(
            console,
            f"test accuracy {mean.mean:.2%} ± {mean.half_width:.2%} "
            f"(mean over {len(runs)} seeds, 95 % interval)",
        )
        if len(runs) == 2:
            say(
                console,
                "two seeds tell little of the spread: three make it 3.6 times narrower",
            )
    if path is not None:
        numbers = {
            "runs": [_plain(asdict(each)) for each in runs],
            "test_accuracy_fraction_mean": mean.mean,
            "test_accuracy_fraction_95_half_width": mean.half_width,
        }
        path.write_text(json.dumps(numbers, indent=2) + "\n")
        say(console, f"written to {path}")


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}
