"""Prints the READMEs' tables of results from the recorded comparison files.

python experiments/table.py                      all of them
python experiments/table.py mnist/granule.json   some of them
python experiments/table.py --claims             the essay's claims and their verdicts
"""

import json
import sys
from pathlib import Path
from typing import Any

from neuroconv.essay.page import read_sections

HERE = Path(__file__).parent
RECORDED = (
    ("MNIST, 10 epochs", "mnist/granule.json"),
    ("MNIST, 6 epochs", "mnist/cerebellum.json"),
    ("MNIST, 6 epochs", "mnist/perceptron.json"),
    (
        "digits, full 10x1000x5 filter, 20 epochs, five seeds",
        "full_filter/digits_cerebellum_base.json",
    ),
    ("MNIST, 15 epochs, five seeds", "opponents/dendritic_ann.json"),
)


def percent(mean: float | None, half_width: float | None) -> str:
    if mean is None:
        return "no seed finished"
    return f"{mean:.2%}" if half_width is None else f"{mean:.2%} ± {half_width * 100:.2f}"


def rows(task: str, path: str) -> list[str]:
    """Returns a recorded comparison's lines of the table; the first names the task."""
    recorded: dict[str, Any] = json.loads((HERE / path).read_text())
    lines = []
    for model in recorded["models"]:
        accuracy = percent(
            model["test_accuracy_fraction_mean"], model["test_accuracy_fraction_95_half_width"]
        )
        if failed := model.get("failed_seeds"):  # which older files do not have
            accuracy += (
                f" ({len(failed)} of {len(failed) + len(model['run_folders'])} seeds failed)"
            )
        difference, half_width = "", model["difference_fraction_95_half_width"]
        if model["difference_fraction_mean"] is not None:
            difference = f"{100 * model['difference_fraction_mean']:+.2f}"
            difference += "" if half_width is None else f" ± {100 * half_width:.2f}"
        lines.append(
            f"| {task} | {model['label']} | {model['parameters_trained']:,} "
            f"| {model['mflop_per_image']:,.2f} | {accuracy} | {difference} |"
        )
        task = ""
    linear = recorded["linear_test_accuracy_fraction"]
    if linear is not None:
        lines.append(f"| | linear classifier | | | {linear:.2%} | |")
    lines.append(f"| | chance | | | {recorded['chance_test_accuracy_fraction']:.2%} | |")
    return lines


def claims() -> list[str]:
    """Returns the table of the essay's claims and their verdicts."""
    lines = ["| | claim | verdict |", "|---:|---|---|"]
    for entry in read_sections(HERE):
        link = f"[{entry.claim.title}](experiments/{entry.name}/README.md)"
        lines.append(f"| {entry.claim.number} | {link} | {entry.verdict or 'not recorded yet'} |")
    return lines


def main(files: list[str]) -> None:
    if files == ["--claims"]:
        print(*claims(), sep="\n")
        return
    print("| task | model | parameters | MFLOP an image | test accuracy | points to the first |")
    print("|---|---|---:|---:|---:|---:|")
    for task, path in RECORDED:
        if not files or path in files:
            print("\n".join(rows(task, path)))


if __name__ == "__main__":
    main(sys.argv[1:])
