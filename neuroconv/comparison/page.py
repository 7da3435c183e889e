"""The whole comparison: train, count, and report as a table, report.html and comparison.json."""

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from rich.console import Console

from neuroconv.comparison.count import count
from neuroconv.comparison.linear import linear_baseline
from neuroconv.comparison.table import comparison_data, comparison_table
from neuroconv.comparison.train import ModelResult, compare
from neuroconv.data import DataSplits, load_data
from neuroconv.report import Entry, against_linear, counting, finding, write_report
from neuroconv.training import Config, DataConfig, load_config, save_config
from neuroconv.training.runs import ENVIRONMENT, unused_folder


def compare_and_report(
    config: Config,
    *,
    output: str | Path,
    title: str,
    numbers: str | Path | None = None,
    command: str | None = None,
    linear: bool = True,
    progress: bool = True,
) -> list[Entry]:
    """Trains all models of a configuration from all seeds, counts what they cost, and reports.

    Prints the table, and writes the page, and into a folder comparison.json (what the table holds)
    and comparison.toml (the configuration). Runs go to the configuration's own output folder.

    Args:
        config: [model] and the opponents that it is compared with.
        output: the page, such as report.html.
        title: of the page.
        numbers: folder of the two files, made if it is not there; default the page's own.
        command: what makes the comparison again; default `neuroconv compare` on comparison.toml.
        linear: fit the linear classifier on the pixels too.
        progress: show training's progress; the table is printed in any case.

    Returns:
        One entry for each model, the first of them the configuration's [model].

    Raises:
        ConfigError: a model, data set or setting that does not fit the others.
    """
    folder = Path(output).parent if numbers is None else Path(numbers)
    folder.mkdir(parents=True, exist_ok=True)  # one that cannot be made fails before the training
    results = compare(config, progress=progress)
    saved_config, table = folder / "comparison.toml", folder / "comparison.json"
    save_config(config, saved_config)
    entries = [count(result) for result in results]
    images = _still_images(config.data)
    chance = float(np.bincount(images.test.targets).max() / len(images.test))
    linear_accuracy = linear_baseline(images) if linear else None

    console = Console()
    console.print(comparison_table(entries, linear_accuracy, chance))
    for sentence in counting(entries):
        console.print(sentence, highlight=False, markup=False)
    data = comparison_data(title, results, entries, linear_accuracy, chance)
    table.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    environment = results[0].runs[0].run_dir / ENVIRONMENT
    page = write_report(
        output, title=title, summary=_summary(config, entries), entries=entries,
        linear_accuracy=linear_accuracy, chance=chance,
        notes=_equal_terms(config, results, images),
        command=command or f"neuroconv compare {saved_config}",
        configuration=saved_config.read_text(encoding="utf-8"),
        environment=json.loads(environment.read_text(encoding="utf-8")),
    )  # fmt: skip
    for name, path in (("numbers", table.resolve()), ("report", page)):
        console.print(f"{name}: {path}", highlight=False, markup=False, soft_wrap=True)
    console.print(finding(entries), highlight=False, markup=False)
    if linear_accuracy is not None:
        console.print(against_linear(entries, linear_accuracy), highlight=False, markup=False)
    return entries


def demo(
    output: str | Path = "runs/demo",
    report: str | Path = "report.html",
    seeds: Sequence[int] = (0, 1, 2),
    progress: bool = True,
) -> list[Entry]:
    """Trains four networks on real digits that come with the package, and reports.

    Args:
        output: a new folder is made in it, named after the time.
        report: the page.
        seeds: one run of each network for each.
        progress: show training's progress.
    """
    folder = unused_folder(Path(output))
    with as_file(files("neuroconv").joinpath("demo.toml")) as path:
        config = load_config(path)
    return compare_and_report(
        replace(config, train=replace(config.train, seeds=tuple(seeds), output=str(folder))),
        output=report,
        numbers=folder,
        title="Neurons as small convolutional networks, on handwritten digits",
        command="neuroconv demo",
        progress=progress,
    )


def _still_images(data: DataConfig) -> DataSplits:
    keywords = {key: getattr(data, key) for key in ("root", "classes", "image_size", "train_limit")}
    return load_data(data.name, encoding="none", **keywords)


def _summary(config: Config, entries: Sequence[Entry]) -> str:
    labels = [entry.label for entry in entries]
    listed = f"{', '.join(labels[:-1])} and {labels[-1]}" if len(labels) > 1 else labels[0]
    seeds = len(config.train.seeds)
    return (
        f"{listed}, trained on {config.data.name} from {seeds} seed{'s' if seeds > 1 else ''} "
        "each, scored on the same test images, and counted."
    )


def _equal_terms(config: Config, results: Sequence[ModelResult], images: DataSplits) -> list[str]:
    """Returns a sentence for each thing that was held equal, or was not."""
    train = config.train
    test_images = len(images.test)
    budget = f"{train.epochs} epoch{'s' * (train.epochs > 1)}"
    if train.max_steps is not None:
        budget = f"{train.max_steps} steps"
    parameters = [result.parameters for result in results]
    inputs = {result.label: _inputs(result.data) for result in results}
    if len(set(inputs.values())) == 1:
        seen = f"All see {inputs[results[0].label]}."
    else:
        listed = "; ".join(f"{label}: {frames}" for label, frames in inputs.items())
        seen = f"Not equal is what they see of an image. {listed}."
    return [
        f"Data: {config.data.name}, {len(images.train):,} training, {len(images.val):,} validation "
        f"and {test_images:,} test images, the same for all; one test image is "
        f"{100 / test_images:.2g} points.",
        seen,
        f"Budget: {budget} of batches of {train.batch_size}, {train.optimizer} at a peak learning "
        f"rate of {train.learning_rate:g}, from seeds {', '.join(map(str, train.seeds))}.",
        "Each run's epoch was chosen by validation accuracy; it met the test set once.",
        f"Parameters, every trained number counted: {min(parameters):,} to {max(parameters):,}. "
        "Time and FLOPs were not held equal; the table has them.",
    ]


def _inputs(data: DataConfig) -> str:
    if data.encoding == "none":
        return "1 still image"
    return f"{data.time_steps} frames by the encoding {data.encoding!r}"
