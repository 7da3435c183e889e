"""Learns from streams in one pass, with and without backpropagation: streams.md explains the tasks.

    python experiments/local_learning/streams.py arm OUT.json       inverse dynamics of an arm
    python experiments/local_learning/streams.py speech OUT.json    next column of spoken digits
    python experiments/local_learning/streams.py classes OUT.json   one class after the other
    python experiments/local_learning/streams.py switch OUT.json    two tasks in one network
    python experiments/local_learning/streams.py table OUT.json     a recorded table, as Markdown

Goes on where an earlier call ended. --root names the data's folder, else NEUROCONV_DATA.
"""

import argparse
import json
import platform
import re
import time
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import stream_tasks as tasks
import torch
from rich.progress import Progress
from stream_learners import Shape
from stream_tasks import CELLS, TUNING, images
from torch import nn

from neuroconv import __version__
from neuroconv.comparison.statistics import estimate, holm, unpack, verdict
from neuroconv.core.files import write_text

# The smallest difference that counts: of normalised errors, or of shares of images.
MARGINS = {"arm": 0.01, "speech": 0.01, "classes": 0.01, "switch": 0.005}
# Whom each learner is compared with: {base} is its name without its {variant} of `classes`.
REFERENCES = {
    "arm": (CELLS, "the last sample"),
    "speech": (CELLS, "the last sample"),
    "classes": (CELLS + "{variant}", "{base}, classes mixed", "nearest class mean"),
    "switch": (next(iter(tasks.SWITCHES)), "a network each"),
}


def make_task(options: argparse.Namespace) -> Any:
    quick, root, batch = options.quick, options.root, options.batch
    permuted, plain = options.other == "permuted", nn.Identity()
    data = "digits" if quick and permuted else "mnist"
    if options.task == "arm":
        shape = Shape(120, 2, 2, (8, 8) if quick else (32, 16), 1.0, 4, tasks.TuningCurves(), 6)
        return tasks.Regression(partial(tasks.arm, quick=quick, root=root), shape, batch or 5)
    if options.task == "speech":
        shape = Shape(160, 40, 2, (8, 4) if quick else (16, 10), 1.0, 4, plain)
        return tasks.Regression(partial(tasks.speech, quick=quick, root=root), shape, batch or 20)
    if options.task == "classes":
        parts = images(data, root)
        fibres, sheet = parts[0][0].shape[1], (8, 8) if quick else (32, 60)
        shape = Shape(fibres, 10, 1, sheet, 8.0, fibres, plain)
        return tasks.Classes(shape, parts, batch or 10, 30 if quick else 1000, options.replay)
    limit = {"train_limit": 500 if quick else 20_000}
    other = images(data if permuted else options.other, root, permute=permuted, **limit)
    return tasks.Switch([images(data, root, **limit), other], 20 if quick else 100, batch or 64)


def record(options: argparse.Namespace) -> dict[str, Any]:
    """Runs what OUT.json lacks: all settings on the tuning seed, and the best on seeds 0 to 4."""
    chosen = {key: value for key, value in vars(options).items() if key not in ("out", "root")}
    whole: dict[str, Any] = {"options": chosen, "rows": []}
    if options.out.exists():
        whole = json.loads(options.out.read_text())
        if whole["options"] != chosen:
            raise SystemExit(
                f"{options.out} was recorded with {whole['options']}, expected {chosen}: name "
                "another file"
            )
    versions = {"neuroconv": __version__, "torch": torch.__version__, "numpy": np.__version__}
    versions["python"] = platform.python_version()
    whole |= {"versions": versions, "threads": torch.get_num_threads()}
    task, rows, seeds = make_task(options), whole["rows"], range(2 if options.quick else 5)
    step = 3 if options.quick else 1
    with Progress() as progress:
        total = sum(len(grid[::step]) + len(seeds) for grid in task.grids.values())
        bar = progress.add_task(options.task, total=total)
        for name, grid in task.grids.items():
            trials = [(setting, TUNING) for setting in grid[::step]]
            for setting, seed in [*trials, *((None, seed) for seed in seeds)]:
                setting = setting or best(rows, name)
                key = {"learner": name, "setting": [*setting], "seed": seed}
                if not any(key.items() <= row.items() for row in rows):
                    began = time.process_time()
                    row = key | task.run(name, setting, seed)
                    rows.append(row | {"core_seconds": time.process_time() - began})
                    write_text(options.out, json.dumps(whole) + "\n")
                progress.advance(bar)
    return whole


def best(rows: list[dict[str, Any]], name: str) -> tuple[str, float]:
    """Returns the setting of the smallest score on the tuning seed; NaN, of a run that diverged,
    is the largest."""
    trials = [row for row in rows if (row["learner"], row["seed"]) == (name, TUNING)]
    return tuple(min(trials, key=lambda r: np.nan_to_num(r["score"], nan=np.inf))["setting"])


def described(rows: list[dict[str, Any]], name: str) -> str:
    """Returns the best setting, and whether it is the smallest or largest of its kind."""
    kind, value = best(rows, name)
    trials = (row["setting"] for row in rows if (row["learner"], row["seed"]) == (name, TUNING))
    tried = sorted(other for its_kind, other in trials if its_kind == kind)
    return f"{kind} {value:g}" + " (edge)" * (value in (tried[0], tried[-1]) and len(tried) > 1)


def wrong(row: dict[str, Any]) -> Any:
    """Returns a run's errors: each image's mean over the tasks, or the run's score."""
    if "wrong" not in row:
        return row["score"]
    count = row["images"]
    return unpack(row["wrong"], count * len(row["errors"])).reshape(-1, count).mean(0)


def pairs(names: Collection[str], task: str) -> list[tuple[str, str]]:
    """Returns whom the table compares with whom, each pair once."""
    found: list[tuple[str, str]] = []
    for name in names:
        base, variant = re.findall(r"^(.*?)(, replay \d+|, classes mixed|)$", name)[0]
        for reference in REFERENCES[task]:
            pair = name, reference.format(base=base, variant=variant)
            if pair[1] != name and pair[1] in names and pair[::-1] not in found:
                found.append(pair)
    return found


def table(whole: dict[str, Any]) -> str:
    """Returns the means of the report's seeds, and how much smaller they are than references'."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for row in whole["rows"]:
        if row["seed"] != TUNING:
            runs.setdefault(row["learner"], []).append(row)
    scores = {name: np.array([wrong(row) for row in rs]) for name, rs in runs.items()}
    lines = ["| learner | trained | signals | setting | error |", "|---|---:|---:|---|---:|"]
    for name, rs in runs.items():
        mean, setting = estimate(scores[name]), described(whole["rows"], name)
        cells = [name, f"{rs[0]['parameters']:,}", rs[0]["signals"] or "", setting]
        cells.append(f"{mean.mean:.4f} ± {mean.half_width or 0:.4f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "| learner | against | less error by | p | verdict |", "|---|---|---:|---:|---|"]
    task = whole["options"]["task"]
    gains = {(a, b): estimate(scores[b] - scores[a]) for a, b in pairs(runs, task)}
    # A run that diverged, on either side, leaves no p-value.
    p_values = [1.0 if gain.p is None or np.isnan(gain.p) else gain.p for gain in gains.values()]
    for ((a, b), gain), p in zip(gains.items(), holm(p_values), strict=True):
        judgement = verdict(gain, MARGINS[task], p)
        difference = f"{gain.mean:+.4f} ± {gain.half_width or 0:.4f}"
        lines.append(f"| {a} | {b} | {difference} | {p:.2g} | {judgement} |")
    seconds = sum(row["core_seconds"] for row in whole["rows"])
    return "\n".join([*lines, "", f"{len(whole['rows'])} runs, {seconds / 60:.1f} core-minutes."])


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=[*MARGINS, "table"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--root", help="folder of the data")
    parser.add_argument("--quick", action="store_true", help="small streams, two seeds")
    parser.add_argument("--batch", type=int, help="samples at once; 1 is possible")
    parser.add_argument("--replay", type=int, nargs="*", default=[20, 200], help="images a class")
    parser.add_argument("--other", default="permuted", choices=["permuted", "fashion_mnist"])
    return parser.parse_args(arguments)


if __name__ == "__main__":
    given = parsed()
    print(table(json.loads(given.out.read_text()) if given.task == "table" else record(given)))
