"""Prints the ablations' tables from the recorded comparisons.

python experiments/ablation/table.py granule
python experiments/ablation/table.py cerebellum
"""

import json
import sys
from pathlib import Path
from typing import Any

from record import file_name

HERE = Path(__file__).parent


def row(model: dict[str, Any], name: str, seconds: float) -> str:
    mean, half = (model[f"test_accuracy_fraction_{key}"] for key in ("mean", "95_half_width"))
    difference = ""
    if model["difference_fraction_mean"] is not None:
        points = [100 * model[f"difference_fraction_{key}"] for key in ("mean", "95_half_width")]
        sure = "**" if abs(points[0]) > points[1] else ""
        difference = f"{sure}{points[0]:+.2f}{sure} ± {points[1]:.2f}"
    return (
        f"| [{model['label']}]({name}/{file_name(model['label'])}.toml) | {mean:.2%} ± "
        f"{100 * half:.2f} | {difference} | {model['parameters_trained']:,} "
        f"| {model['mflop_per_image']:,.2f} | {model['seconds_per_epoch'] / seconds:.2f} |"
    )


def main(name: str) -> None:
    recorded = json.loads((HERE / name / "comparison.json").read_text())
    models = recorded["models"]
    base = models[0]["seconds_per_epoch"]
    print("| entry | test accuracy | points to the first | parameters | MFLOP an image | time |")
    print("|---|---:|---:|---:|---:|---:|")
    for model in models:
        print(row(model, name, base))
    print(
        f"\nTime: of an epoch, in units of the first entry's {base:.1f} s. "
        "Bold: the paired 95 % interval over three seeds excludes zero."
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
