"""Chooses the learning rate of both arms on a fifth of the sheet, by validation.

    python experiments/full_filter/tune.py run [--train.output=DIR]    writes trials.json
    python experiments/full_filter/tune.py                             prints it

Trials are those of [tune] in configs/digits_cerebellum_fifth.toml, whose test set nobody meets.
"""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

from neuroconv.comparison.tune import search_settings
from neuroconv.training import load_config

RECORD = Path(__file__).with_name("trials.json")


def run(words: list[str]) -> None:
    """Runs the trials of both arms, or reads them where they are finished, and records them."""
    config = load_config("digits_cerebellum_fifth", words)
    assert config.tune is not None
    tables = config.model, *config.opponents
    arms = {table.get("label", "filters learned"): table for table in tables}
    configs = [
        replace(config, tune=None, opponents=(), model={
            key: value for key, value in table.items() if key not in ("label", "primary")
        })
        for table in arms.values()
    ]  # fmt: skip
    searches = search_settings(configs, config.tune)
    record = {label: asdict(search) for label, search in zip(arms, searches, strict=True)}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


def table() -> str:
    lines = [
        "| arm | learning rate | validation accuracy, % | validation loss | core-seconds |",
        "|---|---:|---:|---:|---:|",
    ]
    for label, search in json.loads(RECORD.read_text()).items():
        for trial in search["trials"]:
            chosen = "**" * (trial["learning_rate"] == search["best"]["learning_rate"])
            lines.append(
                f"| {label} | {chosen}{trial['learning_rate']:g}{chosen} "
                f"| {100 * trial['val_accuracy']:.2f} | {trial['val_loss']:.4f} "
                f"| {trial['core_seconds']:.0f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        run(sys.argv[2:])
    print(table())
