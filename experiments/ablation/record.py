"""Records an ablation: the comparison as it was written, how many granule cells fired at the end of
training, and each entry's configuration.

python experiments/ablation/record.py runs/ablation_granule/comparison.json granule
"""

import json
import math
import re
import shutil
import sys
from pathlib import Path
from statistics import fmean

HERE = Path(__file__).parent


def file_name(label: str) -> str:
    """Returns a label as a file name: "spike: pull 0.5" becomes spike-pull-0.5."""
    return re.sub(r"[^a-z0-9.]+", "-", label.lower().replace("'s", "s")).strip("-")


def granule_share(runs: list[str]) -> float:
    """Returns the share of granule cells that fire on validation images at the best epoch.

    The mean over runs and, in a granule network, over its layers; NaN without granule cells.
    """
    shares = []
    for run in runs:
        lines = (Path(run) / "metrics.jsonl").read_text().splitlines()
        *epochs, last = (json.loads(line) for line in lines)
        activity = epochs[last["best_epoch"] - 1].get("activity", {})
        cells = [v for k, v in activity.items() if k.startswith("units") or k.endswith("granule")]
        shares += [fmean(population["active_share"] for population in cells)] if cells else []
    return fmean(shares) if shares else math.nan


def main(comparison: Path, name: str) -> None:
    recorded = json.loads(comparison.read_text())
    if failed := [model["label"] for model in recorded["models"] if model.get("failed_seeds")]:
        sys.exit(f"{comparison}: seeds of {failed} failed: compare again, with all seeds finished")
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copyfile(comparison, folder / "comparison.json")
    firing = {}
    for model in recorded["models"]:
        share = granule_share(model["run_folders"])
        firing[model["label"]] = None if math.isnan(share) else share
        run = Path(model["run_folders"][0])
        shutil.copyfile(run / "config.toml", folder / f"{file_name(model['label'])}.toml")
    (folder / "granule_cells_that_fire_fraction.json").write_text(
        json.dumps(firing, indent=2, allow_nan=False)
    )
    print(f"{folder}: {len(recorded['models'])} entries")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2])
