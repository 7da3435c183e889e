"""Writes the ablations' tables into README.md, from the recorded comparisons.

python experiments/ablation/table.py
"""

import json
import re
from pathlib import Path
from typing import Any

from record import file_name
from scipy.stats import ttest_rel

from neuroconv.comparison import holm

HERE = Path(__file__).parent
README = HERE / "README.md"
NAMES = ("granule", "cerebellum")


def models_of(name: str) -> list[dict[str, Any]]:
    recorded = json.loads((HERE / name / "comparison.json").read_text())
    return list(recorded["models"])


def p_values(name: str) -> list[float]:
    """Returns the p of each entry but the first: over seeds and test images where they are
    recorded, else over accuracies, paired by seed."""
    models = models_of(name)
    if "difference_p_uncorrected" in models[0]:
        return [float(model["difference_p_uncorrected"]) for model in models[1:]]
    first, *others = (model["test_accuracy_fraction_by_seed"] for model in models)
    return [
        float(ttest_rel([seeds[seed] for seed in first], [*first.values()]).pvalue)
        for seeds in others
    ]


def row(
    model: dict[str, Any], name: str, seconds: float, firing: float | None, p: tuple[float, ...]
) -> str:
    mean, half = (model[f"test_accuracy_fraction_{key}"] for key in ("mean", "95_half_width"))
    difference, alone, together = "", "", ""
    if p:
        points = [100 * model[f"difference_fraction_{key}"] for key in ("mean", "95_half_width")]
        bold = "**" if p[1] < 0.05 else ""
        difference = f"{bold}{points[0]:+.2f}{bold} ± {points[1]:.2f}"
        alone, together = (f"{value:.3f}" if value < 0.1 else f"{value:.2f}" for value in p)
    return (
        f"| [{model['label']}]({name}/{file_name(model['label'])}.toml) | {mean:.2%} ± "
        f"{100 * half:.2f} | {difference} | {alone} | {together} | {model['parameters_trained']:,} "
        f"| {model['mflop_per_image']:,.2f} | {model['seconds_per_epoch'] / seconds:.2f} "
        f"| {'' if firing is None else f'{firing:.0%}'} |"
    )


def table(name: str) -> str:
    """Returns the table of one ablation in Markdown."""
    models = models_of(name)
    base = models[0]["seconds_per_epoch"]
    p = {other: p_values(other) for other in NAMES}
    corrected = holm([value for values in p.values() for value in values])
    offset = sum(len(p[other]) for other in NAMES[: NAMES.index(name)])
    pairs = [(), *zip(p[name], corrected[offset:], strict=False)]
    firing = json.loads((HERE / name / "granule_cells_that_fire_fraction.json").read_text())
    lines = [
        "| entry | test accuracy | points to the first | p | p, Holm | parameters "
        "| MFLOP an image | time | granule cells that fire |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        *(
            row(model, name, base, firing[model["label"]], pair)
            for model, pair in zip(models, pairs, strict=True)
        ),
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
