"""Models trained on equal terms, counted, and reported: a table, report.html, comparison.json."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import nn

from neuroconv.data import load_data
from neuroconv.flops import Profile, profile
from neuroconv.layers.dendrite import DendriticConv
from neuroconv.neurons import GranuleConv2d
from neuroconv.report import (
    DendriteCost,
    Entry,
    against_linear,
    counting,
    finding,
    write_report,
)
from neuroconv.report.entry import percent, points
from neuroconv.training import (
    Config,
    DataConfig,
    ModelResult,
    compare,
    linear_baseline,
    load_config,
    load_weights,
    save_config,
)
from neuroconv.training.runs import CONFIG, ENVIRONMENT
from neuroconv.training.state import BEST
from neuroconv.zoo import create_model


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
    """Train all models of a configuration from all seeds, count what they cost, and report.

    Prints the table, and writes the page, and into a folder comparison.json (what the table holds)
    and comparison.toml (the configuration). Runs go to the configuration's own output folder.

    Args:
        config: [model] and the opponents that are held against it.
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
    copy = folder / "comparison.toml"
    save_config(config, copy)
    entries = [_entry(result) for result in results]
    chance = _chance(config.data)
    linear_accuracy = linear_baseline(_stills(config.data)) if linear else None

    console = Console()
    console.print(_table(entries, linear_accuracy, chance))
    for line in counting(entries):
        console.print(line, highlight=False, markup=False)
    table = folder / "comparison.json"
    table.write_text(
        json.dumps(_numbers(title, results, entries, linear_accuracy, chance), indent=2) + "\n",
        encoding="utf-8",
    )
    run_dir = results[0].runs[0].run_dir
    page = write_report(
        output,
        title=title,
        summary=_summary(config, entries),
        entries=entries,
        linear_accuracy=linear_accuracy,
        chance=chance,
        notes=_held_equal(config, results),
        command=command or f"neuroconv compare {copy}",
        configuration=copy.read_text(encoding="utf-8"),
        environment=json.loads((run_dir / ENVIRONMENT).read_text(encoding="utf-8")),
    )
    for what, path in (("numbers", table.resolve()), ("report", page)):
        console.print(f"{what}: {path}", highlight=False, markup=False, soft_wrap=True)
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
    """The main job on embedded data: four networks on real digits, trained anew, and a report.

    Args:
        output: a new folder is made in it, named after the time.
        report: the page.
        seeds: one run of each network for each.
        progress: show training's progress.
    """
    folder = _new_folder(Path(output))
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


def _entry(result: ModelResult) -> Entry:
    run_dir = result.runs[0].run_dir
    data = load_config(run_dir / CONFIG).data  # an opponent may have an encoding of its own
    model = create_model(**result.model)
    load_weights(model, run_dir / BEST)
    channels, *sides = result.model["image_shape"]
    steps = [] if data.encoding == "none" else [result.model["time_steps"]]
    counted = profile(model, torch.zeros(1, channels, *steps, *sides), name=result.label)
    remarks = [f"Not by {counter}: {why}." for counter, why in counted.skipped.items()]
    remarks += [f"They differ: {line}." for line in counted.disagreements]
    difference = result.difference
    return Entry(
        label=result.label,
        name=result.name,
        parameters=result.parameters,
        neurons=counted.neurons,
        mac_per_neuron=counted.mac_per_neuron,
        mflop_per_image=counted.flop_per_sample / 1e6,
        counters=tuple(counted.counts),
        counter_remarks=tuple(remarks),
        dendrites=_dendrites(counted),
        accuracies={run.seed: run.test_accuracy for run in result.runs},
        mean=result.accuracy.mean,
        half_width=result.accuracy.half_width,
        difference=difference.mean if difference else None,
        difference_half_width=difference.half_width if difference else None,
        seconds_per_epoch=result.seconds_per_epoch,
        histories=[run.history for run in result.runs],
        filters=_filters(model),
    )


def _dendrites(counted: Profile) -> DendriteCost | None:
    essay, direct, executed = map(counted.dendritic_mac_per_neuron, ("essay", "direct", "executed"))
    if essay is None or direct is None or executed is None:
        return None
    return DendriteCost(essay, direct, executed)


def _filters(model: nn.Module) -> list[tuple[str, NDArray[Any]]]:
    """The weights of everything that is dendritic, by the module's name."""
    return [
        (
            f"{name.removesuffix('.dendrites')} ({_shape(module.weight)})",
            module.weight.numpy(force=True),
        )
        for name, module in model.named_modules()
        if isinstance(module, DendriticConv | GranuleConv2d)
    ]


def _shape(weight: torch.Tensor) -> str:
    """A filter as the essay writes it: branches x dendrites x time steps."""
    steps, branches, dendrites = weight.shape[-3:]
    return f"{branches} × {dendrites} × {steps}"


def _stills(data: DataConfig) -> Any:
    return load_data(
        data.name,
        root=data.root,
        classes=data.classes,
        image_size=data.image_size,
        encoding="none",
        train_limit=data.train_limit,
    )


def _chance(data: DataConfig) -> float:
    """The test set's share of its most frequent class."""
    test = _stills(data).test
    labels = np.array([test[index][1] for index in range(len(test))])
    return float(np.unique(labels, return_counts=True)[1].max() / len(labels))


def _table(entries: Sequence[Entry], linear_accuracy: float | None, chance: float) -> Table:
    seeds = len(entries[0].accuracies)
    of_seeds = f"mean of {seeds} seeds ± 95 %." if seeds > 1 else "one seed."
    table = Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        caption=f"Accuracy and difference: {of_seeds} Differences are to {entries[0].label}, "
        "paired by seed. 1 MAC = 2 FLOP; an image is one window of frames.",
    )
    table.add_column("model", overflow="fold")
    for column in (
        "para-\nmeters", "neurons", "MAC per\nneuron", "MFLOP\nper\nimage",
        "test\naccuracy, %", "difference,\npoints",
    ):  # fmt: skip
        table.add_column(column, justify="right", no_wrap=True)
    for entry in entries:
        table.add_row(
            entry.label,
            f"{entry.parameters:,}",
            f"{entry.neurons:,}",
            "–" if entry.mac_per_neuron is None else f"{entry.mac_per_neuron:,.1f}",
            f"{entry.mflop_per_image:,.3f}",
            percent(entry.mean, entry.half_width).removesuffix(" %"),
            points(entry.difference, entry.difference_half_width),
        )
    table.add_section()
    bars = {} if linear_accuracy is None else {"linear classifier": linear_accuracy}
    for name, accuracy in {**bars, "chance": chance}.items():
        table.add_row(name, *[""] * 4, percent(accuracy, None).removesuffix(" %"), "")
    return table


def _numbers(
    title: str,
    results: Iterable[ModelResult],
    entries: Sequence[Entry],
    linear_accuracy: float | None,
    chance: float,
) -> dict[str, Any]:
    """The table as plain data, units in the keys; accuracies and differences in [0, 1]."""
    return {
        "title": title,
        "finding": finding(entries),
        "differences_are_to": entries[0].label,
        "linear_test_accuracy_fraction": linear_accuracy,
        "chance_test_accuracy_fraction": chance,
        "models": [
            {
                "label": entry.label,
                "name": entry.name,
                "keywords": result.model,
                "parameters_trained": entry.parameters,
                "neurons_per_image": entry.neurons,
                "mac_per_neuron": entry.mac_per_neuron,
                "mflop_per_image": entry.mflop_per_image,
                "counters": entry.counters,
                "counter_remarks": entry.counter_remarks,
                "dendrites_mac_per_neuron": asdict(entry.dendrites) if entry.dendrites else None,
                "test_accuracy_fraction_by_seed": entry.accuracies,
                "test_accuracy_fraction_mean": entry.mean,
                "test_accuracy_fraction_95_half_width": entry.half_width,
                "difference_fraction_mean": entry.difference,
                "difference_fraction_95_half_width": entry.difference_half_width,
                "seconds_per_epoch": entry.seconds_per_epoch,
                "peak_memory_mib_of_process_so_far": [run.peak_memory_mib for run in result.runs],
                "run_folders": [str(run.run_dir) for run in result.runs],
            }
            for result, entry in zip(results, entries, strict=True)
        ],
    }


def _summary(config: Config, entries: Sequence[Entry]) -> str:
    names = [entry.label for entry in entries]
    listed = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    seeds = len(config.train.seeds)
    return (
        f"{listed}, trained on {config.data.name} from {seeds} seed{'s' if seeds > 1 else ''} "
        "each, scored on the same test images, and counted."
    )


def _held_equal(config: Config, results: Sequence[ModelResult]) -> list[str]:
    train, splits = config.train, _stills(config.data)
    sizes = [len(split) for split in (splits.train, splits.val, splits.test)]
    budget = (
        f"{train.epochs} epoch{'s' * (train.epochs > 1)}"
        if train.max_steps is None
        else f"{train.max_steps} steps"
    )
    parameters = [result.parameters for result in results]
    encodings = {}
    for result in results:
        data = load_config(result.runs[0].run_dir / CONFIG).data
        frames = "1 still image" if data.encoding == "none" else f"{data.time_steps} frames"
        encodings[result.label] = (
            frames if data.encoding == "none" else f"{frames} by the encoding {data.encoding!r}"
        )
    if len(set(encodings.values())) == 1:
        seen = f"All see {encodings[results[0].label]}."
    else:
        each = "; ".join(f"{label}: {what}" for label, what in encodings.items())
        seen = f"Not equal is what they see of an image. {each}."
    return [
        f"Data: {config.data.name}, {sizes[0]:,} training, {sizes[1]:,} validation and "
        f"{sizes[2]:,} test images, the same for all; one test image is "
        f"{100 / sizes[2]:.2g} points.",
        seen,
        f"Budget: {budget} of batches of {train.batch_size}, {train.optimizer} at a peak learning "
        f"rate of {train.learning_rate:g}, from seeds {', '.join(map(str, train.seeds))}.",
        "Each run's epoch was chosen by validation accuracy; it met the test set once.",
        f"Parameters, every trained number counted: {min(parameters):,} to {max(parameters):,}. "
        "Time and FLOPs were not held equal; the table has them.",
    ]


def _new_folder(parent: Path) -> Path:
    """A folder of the present time's name that nothing is in."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder, number = parent / stamp, 1
    while folder.exists():
        folder, number = parent / f"{stamp}-{number}", number + 1
    return folder
