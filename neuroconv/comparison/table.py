"""The rows of a comparison as a table on the terminal and as plain data for JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from neuroconv.comparison.train import ModelResult
from neuroconv.report import Entry, finding
from neuroconv.report.entry import percent, points

_COLUMNS = (
    "para-\nmeters", "neurons", "MAC per\nneuron", "MFLOP\nper\nimage", "test\naccuracy, %",
    "difference,\npoints",
)  # fmt: skip


def comparison_table(
    entries: Sequence[Entry], linear_accuracy: float | None, chance: float
) -> Table:
    """Returns the table of all models, with the bars that they have to clear below it."""
    seeds = len(entries[0].accuracies)
    of_seeds = f"mean of {seeds} seeds ± 95 %." if seeds > 1 else "one seed."
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.caption = (
        f"Accuracy and difference: {of_seeds} Differences are to {entries[0].label}, paired by "
        "seed. 1 MAC = 2 FLOP; an image is one window of frames."
    )
    table.add_column("model", overflow="fold")
    for column in _COLUMNS:
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
        table.add_row(name, *[""] * 4, percent(accuracy).removesuffix(" %"), "")
    return table


def comparison_data(
    title: str,
    results: Sequence[ModelResult],
    entries: Sequence[Entry],
    linear_accuracy: float | None,
    chance: float,
) -> dict[str, Any]:
    """Returns the table as plain data, units in the keys; accuracies and differences in [0, 1]."""
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
