"""Records an ablation: the comparison as it was written, and each entry's configuration beside it.

python experiments/ablation/record.py runs/ablation_granule/comparison.json granule
"""

import json
import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent


def file_name(label: str) -> str:
    """A label as the name of a file: "spike: pull 0.5" becomes spike-pull-0.5."""
    return re.sub(r"[^a-z0-9.]+", "-", label.lower().replace("'s", "s")).strip("-")


def main(comparison: Path, name: str) -> None:
    recorded = json.loads(comparison.read_text())
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copyfile(comparison, folder / "comparison.json")
    for model in recorded["models"]:
        run = Path(model["run_folders"][0])
        shutil.copyfile(run / "config.toml", folder / f"{file_name(model['label'])}.toml")
    print(f"{folder}: {len(recorded['models'])} entries")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2])
