"""The rows of a comparison: counted, as a table on the terminal, and as plain data for JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from statistics import fmean
from typing import Any

import torch
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import nn

from neuroconv.comparison.statistics import pack
from neuroconv.comparison.train import ModelResult
from neuroconv.flops import profile
from neuroconv.layers import DendriticConv
from neuroconv.neurons import GranuleConv2d
from neuroconv.report import DendriteCost, Entry, findings
from neuroconv.report.entry import percent, points, short
from neuroconv.training import Config, FailedRun, load_weights
from neuroconv.training.runs import ENVIRONMENT, read_history
from neuroconv.training.state import BEST
from neuroconv.zoo import create_model

_SETTINGS = ("rule", "optimizer", "learning_rate", "weight_decay", "momentum")
_CURRENCIES = {
    "mac_wired": "MAC,\nwired",
    "mac_executed": "exe-\ncuted",
    "axons": "axons",
    "wires": "wires",
}
_COLUMNS = ("para-\nmeters", *_CURRENCIES.values(), "test\naccuracy, %")


def count(result: ModelResult) -> Entry:
    """Profiles the best weights of the first seed to finish on one image, by all counters."""
    model = create_model(**result.model)
    for run in result.finished[:1]:  # without one, the initial weights cost as much
        load_weights(model, run.run_dir / BEST)
    channels, *sides = result.model["image_shape"]
    steps = [] if result.data.encoding == "none" else [result.model["time_steps"]]
    record = profile(model, torch.zeros(1, channels, *steps, *sides), name=result.label)
    remarks = [f"Not by {counter}: {why}." for counter, why in record.skipped.items()]
    remarks += [f"They differ: {line}." for line in record.disagreements]
    accuracy, difference = result.accuracy, result.difference
    seconds = [run.seconds_per_epoch for run in result.finished]
    failed = [run for run in result.runs if isinstance(run, FailedRun)]
    dendrites = [record.dendritic_mac_per_neuron(field.name) for field in fields(DendriteCost)]
    return Entry(
        **{**asdict(record.amounts), "parameters": result.parameters},
        label=result.label, name=result.name,
        neurons=record.neurons, mac_per_neuron=record.mac_per_neuron,
        mflop_per_image=record.flop_per_sample / 1e6,
        counters=tuple(record.counts), counter_remarks=tuple(remarks),
        dendrites=None if None in dendrites else DendriteCost(*dendrites),  # type: ignore[arg-type]
        accuracies=result.accuracies,
        mean=accuracy.mean, half_width=accuracy.half_width,
        difference=difference.mean if difference else None,
        difference_half_width=difference.half_width if difference else None,
        seconds_per_epoch=fmean(seconds) if seconds else None,
        histories=[run.history for run in result.finished],
        filters=_filters(model) if result.finished else [],
        failures={r.seed: f"{r.reason} (to train it again, delete {r.run_dir})" for r in failed},
        failed_histories=[epochs for run in failed if (epochs := read_history(run.run_dir))],
        pairs=difference.seeds if difference else None, p=difference.p if difference else None,
        verdict=result.verdict, primary=result.primary,
        settings={key: getattr(result.train, key) for key in _SETTINGS},
        trials=[asdict(trial) for trial in result.search.trials] if result.search else [],
    )  # fmt: skip


def _filters(model: nn.Module) -> list[tuple[str, NDArray[Any]]]:
    """Returns the weights of dendritic layers; a title says branches x dendrites x time steps."""
    filters = []
    for name, module in model.named_modules():
        if isinstance(module, DendriticConv | GranuleConv2d):
            steps, branches, dendrites = module.weight.shape[-3:]
            title = f"{name.removesuffix('.dendrites')} ({branches} × {dendrites} × {steps})"
            filters.append((title, module.weight.numpy(force=True)))
    return filters


def comparison_table(
    entries: Sequence[Entry], linear_accuracy: float | None, chance: float
) -> Table:
    """Returns the table of all models, with the bars that they have to clear below it."""
    seeds = len(entries[0].accuracies) + len(entries[0].failures)
    less = ", less those that failed," if any(entry.failures for entry in entries) else ""
    mean = f"mean of {seeds} seeds{less} ± 95 %." if seeds > 1 else "one seed."
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.caption = (
        f"Accuracy and difference: {mean} Differences are to {entries[0].label}, paired by seed "
        "and test image; p is not corrected. MAC, axons and wires are of one image, or window of "
        "frames; wires from pixels are left out."
    )
    table.add_column("model", overflow="fold")
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("difference,\npoints", justify="right", width=13)
    for entry in entries:
        words = [points(entry.difference, entry.difference_half_width)]
        if entry.pairs not in (None, seeds):
            words.append(f"{entry.pairs} of {seeds} pairs")
        if entry.p is not None:
            words += [*["primary:"] * entry.primary, entry.verdict or "", f"p {entry.p:.2g}"]
        table.add_row(
            entry.title,
            f"{entry.parameters:,}",
            *(short(getattr(entry, column)) for column in _CURRENCIES),
            percent(entry.mean, entry.half_width).removesuffix(" %"),
            "\n".join(words),
        )
    table.add_section()
    for name, accuracy in (("linear classifier", linear_accuracy), ("chance", chance)):
        if accuracy is not None:
            table.add_row(name, *[""] * 5, percent(accuracy).removesuffix(" %"), "")
    return table


def comparison_data(
    title: str,
    results: Sequence[ModelResult],
    entries: Sequence[Entry],
    linear_accuracy: float | None,
    chance: float,
    config: Config,
) -> dict[str, Any]:
    """Returns the table as plain data, units in the keys; accuracies and differences in [0, 1].

    What `estimate` and `verdict` say can be computed again from it: `right_answers_by_seed` are
    texts of `statistics.pack`.
    """
    environment = results[0].runs[0].run_dir / ENVIRONMENT
    return {
        "title": title,
        **asdict(config.compare),
        "environment": json.loads(environment.read_text(encoding="utf-8")),
        "finding": " ".join(findings(entries, None)),
        "differences_are_to": entries[0].label,
        "linear_test_accuracy_fraction": linear_accuracy,
        "chance_test_accuracy_fraction": chance,
        "models": [
            {
                "label": entry.label,
                "name": entry.name,
                "keywords": result.model,
                "parameters_trained": entry.parameters,
                "mac_wired": entry.mac_wired,
                "mac_executed": entry.mac_executed,
                "axons": entry.axons,
                "wires": entry.wires,
                "input_wires": entry.input_wires,
                "matched_over_target": None if result.matched is None else result.matched.ratio,
                "neurons_per_image": entry.neurons,
                "mac_per_neuron": entry.mac_per_neuron,
                "mflop_per_image": entry.mflop_per_image,
                "counters": entry.counters,
                "counter_remarks": entry.counter_remarks,
                "dendrites_mac_per_neuron": asdict(entry.dendrites) if entry.dendrites else None,
                "test_accuracy_fraction_by_seed": entry.accuracies,
                "failed_seeds": entry.failures,
                "test_accuracy_fraction_mean": entry.mean,
                "test_accuracy_fraction_95_half_width": entry.half_width,
                "primary": entry.primary,
                "difference_seeds": entry.pairs,
                "difference_fraction_mean": entry.difference,
                "difference_fraction_95_half_width": entry.difference_half_width,
                "difference_p_uncorrected": entry.p,
                "verdict": entry.verdict,
                "settings": entry.settings,
                "search": asdict(result.search) if result.search else None,
                "test_images_by_seed": {run.seed: run.test_images for run in result.finished},
                "test_set_sha256_by_seed": {
                    run.seed: run.data_sha256.get("test") for run in result.finished
                },
                "right_answers_by_seed": {s: pack(right) for s, right in result.right.items()},
                "seconds_per_epoch": entry.seconds_per_epoch,
                "core_seconds_by_seed": {run.seed: run.core_seconds for run in result.finished},
                "peak_memory_mib_of_process_so_far": [r.peak_memory_mib for r in result.finished],
                "run_folders": [str(run.run_dir) for run in result.finished],
            }
            for result, entry in zip(results, entries, strict=True)
        ],
    }
