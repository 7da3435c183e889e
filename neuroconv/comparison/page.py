"""The whole comparison: train, count, and report as a table, report.html and comparison.json."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from statistics import fmean

import numpy as np

from neuroconv.comparison.linear import linear_baseline
from neuroconv.comparison.table import comparison_data, comparison_table, count
from neuroconv.comparison.train import ModelResult, compare
from neuroconv.core.files import new_folder, write_text
from neuroconv.core.text import Terminal
from neuroconv.data import DataSplits, load_data
from neuroconv.report import Entry, counting, findings, write_report
from neuroconv.training import Config, DataConfig, load_config, save_config

# Keys of [data].
_OF_STILL_IMAGES = ("root", "classes", "image_size", "permute", "held_out", "train_limit")


def compare_and_report(
    config: Config,
    *,
    output: str | Path,
    title: str,
    numbers: str | Path | None = None,
    command: str | None = None,
    linear: bool = True,
    progress: bool = True,
    jobs: int = 1,
) -> list[Entry]:
    """Trains all models of a configuration from all seeds, counts what they cost, and reports.

    Prints a table, and writes the page, comparison.json (what the table holds) and comparison.toml
    (the configuration). Runs go to the configuration's own output folder.

    Args:
        output: the page, such as report.html.
        numbers: folder of the two files; default the page's.
        command: the command to repeat it; default `neuroconv compare` on comparison.toml.
        linear: whether to fit the linear classifier on the pixels too.
        progress: whether to show the progress of training.
        jobs: processes that train runs at the same time.

    Raises:
        ConfigError: a model, data set or setting that does not fit the others.
    """
    folder = Path(output).parent if numbers is None else Path(numbers)
    folder.mkdir(parents=True, exist_ok=True)  # one that cannot be made fails before the training
    results = compare(config, progress=progress, jobs=jobs)
    saved_config, table = folder / "comparison.toml", folder / "comparison.json"
    save_config(config, saved_config)
    entries = [count(result) for result in results]
    still = {key: getattr(config.data, key) for key in _OF_STILL_IMAGES}
    folds = config.data.name == "spoken_digits" and config.data.held_out in (None, "seed")
    splits = [
        load_data(config.data.name, encoding="none", seed=seed, **still)
        for seed in (config.train.seeds if folds else config.train.seeds[:1])
    ]
    images = splits[0]
    chance = float(np.bincount(images.test.targets).max() / len(images.test))
    linear_accuracy = fmean(map(linear_baseline, splits)) if linear else None

    console = Terminal()
    console.print(comparison_table(entries, linear_accuracy, chance))
    console.print(*counting(entries), sep="\n")
    data = comparison_data(title, results, entries, linear_accuracy, chance, config)
    write_text(table, json.dumps(data, indent=2, allow_nan=False) + "\n")
    page = write_report(
        output, title=title, summary=_summary(config, entries), entries=entries,
        linear_accuracy=linear_accuracy, chance=chance,
        notes=_equal_terms(config, results, images),
        command=command or f"neuroconv compare {shlex.quote(str(saved_config))}",
        configuration=saved_config.read_text(encoding="utf-8"),
        environment=data["environment"],
    )  # fmt: skip
    console.out(f"numbers: {table.resolve()}")
    console.out(f"report: {page}")
    console.print(*findings(entries, linear_accuracy), sep="\n")
    return entries


def demo(
    output: str | Path = "runs/demo",
    report: str | Path = "report.html",
    seeds: Sequence[int] = (0, 1, 2),
) -> list[Entry]:
    """Trains four networks on real digits that come with the package, and reports.

    Runs and numbers go to a new folder in `output`, named after the time.
    """
    folder = new_folder(Path(output))
    with as_file(files("neuroconv").joinpath("demo.toml")) as path:
        config = load_config(path)
    train = replace(config.train, seeds=tuple(seeds), output=str(folder))
    return compare_and_report(
        replace(config, train=train), output=report, numbers=folder,
        title="Neurons as small convolutional networks, on handwritten digits",
        command="neuroconv demo",
    )  # fmt: skip


def _summary(config: Config, entries: Sequence[Entry]) -> str:
    *labels, last = [entry.label for entry in entries]
    names = f"{', '.join(labels)} and {last}" if labels else last
    seeds = len(config.train.seeds)
    return (
        f"{names}, trained on {config.data.name} from {seeds} seed{'s' if seeds > 1 else ''} "
        "each, scored on the same test images, and counted."
    )


def _equal_terms(config: Config, results: Sequence[ModelResult], images: DataSplits) -> list[str]:
    """Returns a sentence for each condition that was equal for all models, or was not."""
    train = config.train
    test_images, earlier = len(images.test), config.compare.earlier_use
    epochs = f"{train.epochs} epoch{'s' * (train.epochs > 1)}"
    budget = epochs if train.max_steps is None else f"{train.max_steps} steps"
    fewest, most = (pick(result.parameters for result in results) for pick in (min, max))
    inputs = {result.label: _inputs(result.data) for result in results}
    equal_inputs = f"All see {inputs[results[0].label]}."
    if len({*inputs.values()}) > 1:
        rows = "; ".join(f"{label}: {frames}" for label, frames in inputs.items())
        equal_inputs = f"Not equal is what they see of an image. {rows}."
    matches = [
        f"{result.label}: {result.matched.ratio:.3g} of what was to match."
        for result in results
        if result.matched is not None and not result.matched.is_close
    ]
    return [
        f"Data: {config.data.name}, {len(images.train):,} training, {len(images.val):,} validation "
        f"and {test_images:,} test images, the same for all; one test image is "
        f"{100 / test_images:.2g} points.",
        equal_inputs,
        f"Budget: {budget} of batches of {train.batch_size}, from seeds "
        f"{', '.join(map(str, train.seeds))}.",
        *_settings(config, results),
        "Each run's epoch was chosen by validation accuracy; it met the test set once.",
        *([f"Earlier use of the test set: {earlier}."] if earlier else []),
        _statistics(config, results),
        f"{'Equal' if most <= 1.1 * fewest else 'Not equal'} are parameters, every trained number "
        f"counted: {fewest:,} to {most:,}. What else was or was not, the table shows.",
        *matches,
    ]


def _settings(config: Config, results: Sequence[ModelResult]) -> list[str]:
    """Returns sentences on learning rates and weight decays: how they were chosen, which differ."""
    texts = {
        f"{result.train.optimizer} at a peak learning rate of {result.train.learning_rate:g} with "
        f"weight decay {result.train.weight_decay:g}"
        for result in results
    }
    used = f"All: {texts.pop()}." if len(texts) == 1 else "Settings differ: a table below has them."
    tune, search = config.tune, results[0].search
    if tune is None or search is None:
        return [used]
    models = "the first model alone" if tune.shared else "each model, by as many trials for all,"
    images = "all" if tune.train_limit is None else f"{tune.train_limit:,}"
    edges = [result.label for result in results if result.search and result.search.at_edge]
    return [
        f"Learning rate and weight decay were chosen for {models} by validation accuracy in "
        f"{len(search.trials)} trials of {tune.epochs} epochs on {images} training images from "
        f"seeds {', '.join(map(str, tune.seeds))}, which the report does not use.",
        used,
        *(f"{label}: its best learning rate is the lowest or highest tried." for label in edges),
    ]


def _statistics(config: Config, results: Sequence[ModelResult]) -> str:
    """Returns a sentence on what the intervals are over, and which comparison counts."""
    margin, over = config.compare.margin, "seeds and test images" if results[0].right else "seeds"
    if len({run.data_sha256.get("test") for run in results[0].finished}) > 1:
        over = "the test sets that the seeds leave out"
    equal = "without a margin, none counts as equal"
    if margin is not None:
        equal = f"within {100 * margin:g} points on either side they count as equal"
    primary = [result.label for result in results if result.primary]
    named = f"the primary comparison is that with {primary[0]}; " if primary else ""
    others = "all others are" if primary else "all comparisons are"
    return (
        f"Intervals of 95 % are over {over}; {equal}; {named}{others} exploratory, and p is not "
        "corrected."
    )


def _inputs(data: DataConfig) -> str:
    if data.encoding == "none":
        return "1 still image"
    return f"{data.time_steps} frames by the encoding {data.encoding!r}"
