"""Writes the ablations' tables into README.md, from the recorded comparisons.

python experiments/ablation/table.py
"""

import json
import re
from pathlib import Path
from typing import Any

from record import file_name

HERE = Path(__file__).parent
README = HERE / "README.md"


def row(model: dict[str, Any], name: str, seconds: float, firing: float | None) -> str:
    mean, half = (model[f"test_accuracy_fraction_{key}"] for key in ("mean", "95_half_width"))
    difference = ""
    if model["difference_fraction_mean"] is not None:
        points = [100 * model[f"difference_fraction_{key}"] for key in ("mean", "95_half_width")]
        bold = "**" if abs(points[0]) > points[1] else ""
        difference = f"{bold}{points[0]:+.2f}{bold} ± {points[1]:.2f}"
    return (
        f"| [{model['label']}]({name}/{file_name(model['label'])}.toml) | {mean:.2%} ± "
        f"{100 * half:.2f} | {difference} | {model['parameters_trained']:,} "
        f"| {model['mflop_per_image']:,.2f} | {model['seconds_per_epoch'] / seconds:.2f} "
        f"| {'' if firing is None else f'{firing:.0%}'} |"
    )


def table(name: str) -> str:
    """Returns the table of one ablation in Markdown."""
    models = json.loads((HERE / name / "comparison.json").read_text())["models"]
    base = models[0]["seconds_per_epoch"]
    firing = json.loads((HERE / name / "granule_cells_that_fire_fraction.json").read_text())
    lines = [
        "| entry | test accuracy | points to the first | parameters | MFLOP an image | time "
        "| granule cells that fire |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(row(model, name, base, firing[model["label"]]) for model in models),
    ]
    return "\n".join(lines) + f"\n\nTime is an epoch's, in units of the first entry's {base:.1f} s."


def filled(page: str) -> str:
    """Returns the page with each table between its marks, <!-- NAME --> and <!-- end -->."""
    return re.sub(
        r"(<!-- (granule|cerebellum) -->\n).*?(<!-- end -->)",
        lambda mark: f"{mark[1]}\n{table(mark[2])}\n\n{mark[3]}",
        page,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))
